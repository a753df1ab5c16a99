"""What the headers of a packet say, as one row of a table, and back: packets of rows."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

# What is known of a packet: the bits of `marks`.
cdef enum:
    MARK_IP = 1 << 0              # an IPv4 or IPv6 header that is whole and no contradiction in itself
    MARK_TRANSPORT = 1 << 1       # and behind it one of TCP, UDP, UDP-Lite, SCTP, DCCP, ICMP or ICMPv6, likewise
    MARK_FRAGMENT = 1 << 2        # a part of an IP packet
    MARK_OPTIONS = 1 << 3         # IPv4 options or IPv6 extension headers were passed over
    MARK_TRUNCATED = 1 << 4       # the packet is shorter than a header says, or than a header
    MARK_MALFORMED = 1 << 5       # a header contradicts itself or the packet it is in
    MARK_VLAN = 1 << 6            # the frame has a VLAN tag
    MARK_PADDED = 1 << 7          # there are bytes behind the end of the IP packet

# What takes time, and is left out unless it is wanted.
cdef enum:
    WANT_TRANSPORT = 1            # everything behind the IP header, without which the marks say less
    WANT_FLOW_HASH = 2            # together with WANT_TRANSPORT
    WANT_SYMMETRIC = 4            # the hash is the same for both directions

# Numbers in the order of this host; 0 where the packet has none.
cdef struct Row:
    uint8_t src6[16]
    uint8_t dst6[16]
    uint64_t flow_hash
    uint64_t eth_src              # 48 bits
    uint64_t eth_dst
    uint32_t length               # bytes of the packet
    uint32_t ip_length            # bytes that the IP header says the IP packet has
    uint32_t ip_id                # of IPv4, or of the fragment header of IPv6
    uint32_t flow_label           # 20 bits
    uint32_t src4
    uint32_t dst4
    uint32_t tcp_seq
    uint32_t tcp_ack
    uint32_t payload_offset       # of what is behind the last header, from the start of the packet
    uint32_t payload_length
    uint16_t marks
    uint16_t ethertype            # behind VLAN tags
    uint16_t vlan                 # 12 bits
    uint16_t vlan_inner           # of a second tag
    uint16_t fragment_offset      # bytes
    uint16_t src_port
    uint16_t dst_port
    uint16_t tcp_flags            # 12 bits
    uint16_t tcp_window           # as it is in the header: without the scale that was agreed on
    uint16_t icmp_id              # of an echo request or reply
    uint16_t icmp_seq
    uint16_t network_offset       # of the IP header
    uint16_t transport_offset     # of what is behind the IP header, its options and extensions
    uint8_t vlan_priority         # 3 bits
    uint8_t version
    uint8_t protocol              # the last that is known, where a header of extensions is not whole
    uint8_t dscp
    uint8_t ecn
    uint8_t ttl
    uint8_t ip_flags              # 1: more fragments, 2: don't fragment, 4: reserved (RFC 791, read from the right)
    uint8_t icmp_type
    uint8_t icmp_code

cdef void rows_clear(Row *rows, size_t count) noexcept nogil

# What a packet says, into a row of zeros.
cdef void row_read(
    const uint8_t *data, size_t size, bint is_frame, int wanted, uint64_t seed, Row *row,
) noexcept nogil


cdef enum:
    ECHO_REQUEST = 8
    ECHO_REPLY = 0
    ECHO_REQUEST_V6 = 128
    ECHO_REPLY_V6 = 129


cdef inline bint is_echo(const Row *row) noexcept nogil:
    """Whether an ICMP message has a number, and that of whoever sends it."""
    if row.version == 4:
        return row.icmp_type in (ECHO_REQUEST, ECHO_REPLY)
    return row.icmp_type in (ECHO_REQUEST_V6, ECHO_REPLY_V6)
