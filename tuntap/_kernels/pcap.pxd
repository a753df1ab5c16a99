"""Captures of packets, read and written: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tuntap._kernels.cursor cimport Cursor

# Formats of a file.
cdef enum:
    PCAP_UNKNOWN = 0
    PCAP_CLASSIC = 1
    PCAP_NG = 2

# What pcap_next answers.  An error is met again by every later call: nobody knows where a next record would begin.
cdef enum:
    PCAP_PACKET = 1
    PCAP_MORE = 0                 # what comes is not all there yet
    PCAP_NO_CAPTURE = -1          # neither format
    PCAP_VERSION = -2             # of the format
    PCAP_SIZE = -3                # of a record or block: none that there is
    PCAP_MISMATCH = -4            # the two sizes of a block differ
    PCAP_OPTION = -5              # does not fit its block
    PCAP_INTERFACE = -6           # not described in this section
    PCAP_CROWD = -7               # more interfaces than PCAP_INTERFACES
    PCAP_TIME = -8                # beyond 64 bits of nanoseconds
    PCAP_LINK_TYPE = -9           # neither Ethernet nor IP
    PCAP_LAYER = -10              # other than the one that was asked for, or that the packets before had

cdef enum:
    PCAP_PACKET_MAX = 262144      # bytes, as in other programs
    PCAP_RECORD_MAX = 1 << 20     # bytes of a record or block that is looked at whole
    PCAP_INTERFACES = 4096        # in a section
    PCAP_FILE_HEADER = 24         # bytes
    PCAP_NG_HEADER = 60           # of the blocks of section and interface that pcap_write_header makes
    PCAP_ETHERNET = 1             # LINKTYPE_ETHERNET
    PCAP_RAW = 101                # LINKTYPE_RAW

cdef struct PcapInterface:
    int64_t offset                # if_tsoffset, seconds
    uint32_t snap_length          # 0: none
    uint16_t link_type
    uint8_t resolution            # if_tsresol: a negative power of 10, or of 2 if the high bit is set

cdef struct PcapRecord:
    const uint8_t *packet         # behind whatever header is taken off
    size_t captured               # bytes, at least 1
    size_t original               # bytes of the whole packet, never less
    int64_t time_ns               # since 1970; 0 if it was not noted
    size_t at                     # where the record begins in the bytes

cdef struct PcapWalk:
    Cursor bytes
    size_t at                     # of the next record
    int format
    bint is_big                   # of this file or section: the byte order
    bint strips                   # IP packets are wanted, of Ethernet frames, too
    int layer                     # of the packets, 2 or 3; 0 before the first
    uint16_t link_type            # of the last packet
    uint64_t skipped              # records without a packet of that layer
    uint32_t skip                 # bytes of a block of no interest that are still to come
    uint32_t block                # its size; 0 if there is none
    uint32_t interfaces
    PcapInterface interface[PCAP_INTERFACES]

# `layer` 0: packets as they are, all of one layer; 2: frames; 3: IP packets, from Ethernet frames as well.
cdef void pcap_begin(PcapWalk *walk, int layer) noexcept nogil

# The next bytes of the file, those from `walk.at` on included: PCAP_RECORD_MAX are always enough.
cdef void pcap_feed(PcapWalk *walk, const uint8_t *data, size_t size) noexcept nogil

# The next packet, which points into the bytes; passes over whatever is none.
cdef int pcap_next(PcapWalk *walk, PcapRecord *record) noexcept nogil

# Only the header of the file: PCAP_PACKET once it is known.
cdef int pcap_format(PcapWalk *walk) noexcept nogil

# Whether a file may end here.
cdef bint pcap_may_end(const PcapWalk *walk) noexcept nogil

# Writing: little-endian, nanoseconds.  What does not fit the target marks it as failed.
cdef size_t pcap_write_header(Cursor *target, int format, uint16_t link_type, uint32_t snap_length) noexcept nogil
cdef size_t pcap_record_size(int format, size_t captured) noexcept nogil
cdef bint pcap_holds(int format, int64_t time_ns) noexcept nogil
cdef size_t pcap_write(
    Cursor *target, size_t at, int format, const uint8_t *packet, uint32_t captured, uint32_t original,
    int64_t time_ns,
) noexcept nogil
