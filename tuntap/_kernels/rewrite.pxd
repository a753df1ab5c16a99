"""Checksums of packets that somebody has changed, and changes that keep them right."""
from libc.stdint cimport uint8_t, uint32_t

from tuntap._kernels.columns cimport Row

# Fields of a row that `row_update` writes.
cdef enum:
    SET_ETH_SRC = 1 << 0
    SET_ETH_DST = 1 << 1
    SET_VLAN = 1 << 2
    SET_VLAN_PRIORITY = 1 << 3
    SET_DSCP = 1 << 4
    SET_ECN = 1 << 5
    SET_IP_ID = 1 << 6            # of IPv4
    SET_FLOW_LABEL = 1 << 7
    SET_TTL = 1 << 8
    SET_SRC4 = 1 << 9
    SET_DST4 = 1 << 10
    SET_SRC6 = 1 << 11
    SET_DST6 = 1 << 12
    SET_SRC_PORT = 1 << 13
    SET_DST_PORT = 1 << 14
    SET_TCP_SEQ = 1 << 15
    SET_TCP_ACK = 1 << 16
    SET_TCP_FLAGS = 1 << 17
    SET_TCP_WINDOW = 1 << 18
    SET_ICMP_ID = 1 << 19
    SET_ICMP_SEQ = 1 << 20
    SET_LINK = SET_ETH_SRC | SET_ETH_DST | SET_VLAN | SET_VLAN_PRIORITY
    SET_PORTS = SET_SRC_PORT | SET_DST_PORT

# Make the checksums of a whole packet right: of the IPv4 header, and of TCP, UDP, UDP-Lite, ICMP or ICMPv6.  False if
# one is left as it was, as nobody knows how: that of a fragment, of SCTP and DCCP, of a header that is not whole.
# That at `unfinished`, bytes from the start of the packet, is one that a device finishes (0: there is none such); it
# becomes the sum of the pseudo-header.
cdef bint fix_checksums(uint8_t *data, size_t size, bint is_frame, size_t unfinished) noexcept nogil

# Write those of the fields in `set` that the packet has; its checksums follow (RFC 1624), so that a wrong one stays
# wrong, and that of a fragmented packet is right when all its fragments are there.  False, and nothing is written,
# where a checksum would have to follow and nobody knows how.
cdef bint row_update(
    uint8_t *data, size_t size, bint is_frame, size_t unfinished, uint32_t set, const Row *row,
) noexcept nogil
