"""Coalescing packets into super-packets that split into the very same packets (GRO, send side).

A window of packets is looked at one after the other; each joins the last item of its flow or begins
an item of its own.  Items keep the order of their first packets, so a flow is never reordered.  The
packets stay where they are: an item is its headers, made anew, and a chain of payloads.
"""
from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t

from tuntap._kernels.cursor cimport Cursor
from tuntap._kernels.virtio cimport VirtioHeader

cdef enum:
    WINDOW = 256                  # packets looked at together
    FLOWS = 512                   # places for flows; two flows at one place end each other's items
    UDP_MERGED_MAX = 64           # UDP_GRO_CNT_MAX, net/ipv4/udp_offload.c; older kernels split no more, either
    GRO_HEADERS_MAX = 256         # bytes of headers, above which nothing is merged

# What may be merged.
cdef enum:
    GRO_TCPV4 = 2
    GRO_TCPV6 = 4
    GRO_UDP = 8

cdef struct Item:
    const uint8_t *packet         # the first one
    uint32_t size                 # bytes of the whole
    uint32_t first_size           # bytes of the first packet
    uint64_t pseudo_sum           # of the pseudo-header, without its length; once is_valid
    uint32_t sequence             # TCP: of the next packet
    uint16_t identification       # IPv4: of the next packet
    uint16_t gso_size
    uint16_t network
    uint16_t transport
    uint16_t payload              # where it starts; 0 if the item is no TCP or UDP packet
    uint16_t flow                 # its place
    int16_t first                 # packets of the window, chained by Window.next
    int16_t last
    int16_t count
    uint8_t type                  # GRO_*
    uint8_t version
    uint8_t ending                # TCP: FIN and PSH of the last packet
    bint is_open                  # more may join
    bint is_valid                 # the checksums of the first packet are right
    bint fixed_id                 # all packets have one identification

cdef struct Window:
    int packets
    int items
    int recent                    # the item of the last TCP or UDP packet, -1 if nothing may join it
    uint32_t types                # what may be merged
    bint is_frame                 # packets start with an Ethernet header
    bint trusted                  # checksums are not looked at
    bint renumber                 # IPv4 packets that may not be fragmented may lose their identification
    Item item[WINDOW]
    int16_t next[WINDOW]
    int16_t flow[FLOWS]           # item of the flow at a place, -1 for none

cdef void gro_begin(Window *window, uint32_t types, bint is_frame, bint trusted, bint renumber) noexcept nogil

# Take one more packet; 0, or -1 if it must wait for the next window: this one is full, or the packet
# is one that the kernel will refuse, before which everything should have been sent.
cdef int gro_add(Window *window, const uint8_t *data, size_t size) noexcept nogil

# The header of an item, and its packet headers in `target`, GRO_HEADERS_MAX bytes; returns how many
# they are.  0 for a packet that is sent as it is.
cdef size_t gro_headers(const Window *window, const Item *item, VirtioHeader *header, Cursor *target) noexcept nogil
