"""What the two drafts say of a capture, and what the pages of the link types say of the headers in it.

https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng, and
https://www.tcpdump.org/linktypes.html
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tuntap._kernels.cursor cimport (
    Cursor, cursor_set, get8, get16, get16_little, get32, get32_little, put16_little, put32_little, span,
)

cdef enum:
    PASSED = 2                    # something that was no packet
    MAGIC_MICROSECONDS = 0xa1b2c3d4
    MAGIC_MICROSECONDS_SWAPPED = 0xd4c3b2a1
    MAGIC_NANOSECONDS = 0xa1b23c4d
    MAGIC_NANOSECONDS_SWAPPED = 0x4d3cb2a1
    RECORD_HEADER = 16            # bytes

# Blocks of pcapng.
cdef enum:
    SECTION = 0x0a0d0d0a          # the same in either byte order
    INTERFACE = 1
    OLD_PACKET = 2
    SIMPLE_PACKET = 3
    ENHANCED_PACKET = 6
    BYTE_ORDER = 0x1a2b3c4d
    BYTE_ORDER_SWAPPED = 0x4d3c2b1a
    AROUND = 12                   # bytes of a block beside its body
    SECTION_BODY = 16             # bytes without the options
    INTERFACE_BODY = 8
    PACKET_BODY = 20
    SIMPLE_PACKET_BODY = 4
    OPTION_END = 0
    OPTION_RESOLUTION = 9
    OPTION_OFFSET = 14

# Link types, of LINKTYPE_RAW also what some systems call it in their files.
cdef enum:
    LINK_NULL = 0
    LINK_RAW_BSD = 12
    LINK_RAW_OPENBSD = 14
    LINK_LOOP = 108
    LINK_COOKED = 113
    LINK_IPV4 = 228
    LINK_IPV6 = 229
    LINK_COOKED_2 = 276

cdef enum:
    ETHERNET_HEADER = 14
    VLAN_TAG = 4
    VLAN = 0x8100
    SERVICE_VLAN = 0x88a8
    IPV4 = 0x0800
    IPV6 = 0x86dd

cdef enum:
    GIGA = 1000000000


cdef inline uint64_t latest() noexcept nogil:
    """The last nanosecond that 64 bits hold, with a sign."""
    return 0x7fffffffffffffff


cdef void pcap_begin(PcapWalk *walk, int layer) noexcept nogil:
    memset(walk, 0, sizeof(PcapWalk))
    walk.strips = layer == 3
    walk.layer = layer


cdef void pcap_feed(PcapWalk *walk, const uint8_t *data, size_t size) noexcept nogil:
    cursor_set(&walk.bytes, data, size)
    walk.at = 0


cdef bint pcap_may_end(const PcapWalk *walk) noexcept nogil:
    return walk.format != PCAP_UNKNOWN and walk.at == walk.bytes.size and walk.block == 0


cdef int pcap_next(PcapWalk *walk, PcapRecord *record) noexcept nogil:
    cdef int result = pcap_format(walk)
    if result != PCAP_PACKET:
        return result
    result = PASSED
    while result == PASSED:
        result = next_record(walk, record) if walk.format == PCAP_CLASSIC else next_block(walk, record)
    return result


cdef int pcap_format(PcapWalk *walk) noexcept nogil:
    cdef uint32_t magic
    cdef PcapInterface *interface = &walk.interface[0]
    if walk.format != PCAP_UNKNOWN:
        return PCAP_PACKET
    if walk.bytes.size < 4:
        return PCAP_MORE
    magic = get32(&walk.bytes, 0)
    if magic == SECTION:
        walk.format = PCAP_NG
        return PCAP_PACKET
    walk.is_big = magic == MAGIC_MICROSECONDS or magic == MAGIC_NANOSECONDS
    if not walk.is_big and magic != MAGIC_MICROSECONDS_SWAPPED and magic != MAGIC_NANOSECONDS_SWAPPED:
        return PCAP_NO_CAPTURE
    if walk.bytes.size < PCAP_FILE_HEADER:
        return PCAP_MORE
    if number16(walk, &walk.bytes, 4) != 2:
        return PCAP_VERSION
    interface.resolution = 9 if magic == MAGIC_NANOSECONDS or magic == MAGIC_NANOSECONDS_SWAPPED else 6
    interface.link_type = <uint16_t> number32(walk, &walk.bytes, 20)   # above it are flags about checksums of frames
    walk.interfaces = 1
    walk.format = PCAP_CLASSIC
    walk.at = PCAP_FILE_HEADER
    return PCAP_PACKET


cdef inline uint16_t number16(const PcapWalk *walk, Cursor *cursor, size_t offset) noexcept nogil:
    return get16(cursor, offset) if walk.is_big else get16_little(cursor, offset)


cdef inline uint32_t number32(const PcapWalk *walk, Cursor *cursor, size_t offset) noexcept nogil:
    return get32(cursor, offset) if walk.is_big else get32_little(cursor, offset)


# --- pcap ---

cdef int next_record(PcapWalk *walk, PcapRecord *record) noexcept nogil:
    cdef size_t left = walk.bytes.size - walk.at
    cdef uint64_t fraction
    cdef int result
    if left < RECORD_HEADER:
        return PCAP_MORE
    record.at = walk.at
    record.captured = number32(walk, &walk.bytes, walk.at + 8)
    record.original = number32(walk, &walk.bytes, walk.at + 12)
    if record.captured > PCAP_PACKET_MAX:
        return PCAP_SIZE
    if left - RECORD_HEADER < record.captured:
        return PCAP_MORE
    record.packet = span(&walk.bytes, walk.at + RECORD_HEADER, record.captured)
    fraction = number32(walk, &walk.bytes, walk.at + 4)
    if walk.interface[0].resolution == 6:
        fraction *= 1000
    record.time_ns = <int64_t> (<uint64_t> number32(walk, &walk.bytes, walk.at) * GIGA + fraction)
    walk.at += RECORD_HEADER + record.captured
    result = unwrap(walk, walk.interface[0].link_type, record)
    if result < 0:
        walk.at = record.at
    return result


# --- pcapng ---

cdef int next_block(PcapWalk *walk, PcapRecord *record) noexcept nogil:
    cdef size_t left = walk.bytes.size - walk.at
    cdef bint was_big = walk.is_big
    cdef uint32_t kind
    cdef uint32_t magic
    cdef uint32_t size
    cdef int result
    cdef Cursor block
    if walk.block:
        return pass_over(walk)
    if left < AROUND:
        return PCAP_MORE
    kind = number32(walk, &walk.bytes, walk.at)
    if kind == SECTION:
        magic = get32(&walk.bytes, walk.at + 8)
        if magic != BYTE_ORDER and magic != BYTE_ORDER_SWAPPED:
            return PCAP_NO_CAPTURE
        walk.is_big = magic == BYTE_ORDER
    size = number32(walk, &walk.bytes, walk.at + 4)
    if size < AROUND or size & 3:
        result = PCAP_SIZE
    elif kind not in (SECTION, INTERFACE, ENHANCED_PACKET, SIMPLE_PACKET, OLD_PACKET):
        walk.block = size
        walk.skip = size - AROUND
        walk.at += AROUND - 4
        return PASSED
    elif size > PCAP_RECORD_MAX:
        result = PCAP_SIZE
    elif left < size:
        result = PCAP_MORE
    elif number32(walk, &walk.bytes, walk.at + size - 4) != size:
        result = PCAP_MISMATCH
    else:
        cursor_set(&block, walk.bytes.data + walk.at, size - 4)
        record.at = walk.at
        if kind == SECTION:
            result = take_section(walk, &block)
        elif kind == INTERFACE:
            result = take_interface(walk, &block)
        else:
            result = take_packet(walk, &block, kind, record)
    if result > 0:
        walk.at += size
    else:
        walk.is_big = was_big
    return result


cdef int pass_over(PcapWalk *walk) noexcept nogil:
    """A block of no interest, of which any part may be there."""
    cdef size_t step = min(walk.bytes.size - walk.at, <size_t> walk.skip)
    walk.at += step
    walk.skip -= <uint32_t> step
    if walk.skip or walk.bytes.size - walk.at < 4:
        return PCAP_MORE
    if number32(walk, &walk.bytes, walk.at) != walk.block:
        return PCAP_MISMATCH
    walk.at += 4
    walk.block = 0
    return PASSED


cdef int take_section(PcapWalk *walk, Cursor *block) noexcept nogil:
    if block.size + 4 < AROUND + SECTION_BODY:
        return PCAP_SIZE
    if number16(walk, block, 12) != 1:
        return PCAP_VERSION
    walk.interfaces = 0
    return PASSED


cdef int take_interface(PcapWalk *walk, Cursor *block) noexcept nogil:
    cdef PcapInterface found
    cdef size_t at = AROUND - 4 + INTERFACE_BODY
    cdef uint16_t code
    cdef uint16_t size
    cdef uint32_t halves[2]
    if block.size < at:
        return PCAP_SIZE
    if walk.interfaces == PCAP_INTERFACES:
        return PCAP_CROWD
    found.link_type = number16(walk, block, 8)
    found.snap_length = number32(walk, block, 12)
    found.resolution = 6
    found.offset = 0
    while at < block.size:
        code = number16(walk, block, at)
        size = number16(walk, block, at + 2)
        if code == OPTION_END:
            break
        at += 4
        if span(block, at, size) == NULL:
            return PCAP_OPTION
        if code == OPTION_RESOLUTION:
            if size != 1:
                return PCAP_OPTION
            found.resolution = get8(block, at)
        elif code == OPTION_OFFSET:
            if size != 8:
                return PCAP_OPTION
            halves[0] = number32(walk, block, at)
            halves[1] = number32(walk, block, at + 4)
            found.offset = <int64_t> (
                <uint64_t> halves[not walk.is_big] << 32 | halves[walk.is_big])
        at += (size + 3) & ~<size_t> 3
    walk.interface[walk.interfaces] = found
    walk.interfaces += 1
    return PASSED


cdef int take_packet(PcapWalk *walk, Cursor *block, uint32_t kind, PcapRecord *record) noexcept nogil:
    cdef uint32_t number = 0
    cdef uint64_t value
    cdef PcapInterface *interface
    cdef size_t body = SIMPLE_PACKET_BODY if kind == SIMPLE_PACKET else PACKET_BODY
    if block.size + 4 < AROUND + body:
        return PCAP_SIZE
    if kind != SIMPLE_PACKET:
        number = number32(walk, block, 8) if kind == ENHANCED_PACKET else number16(walk, block, 8)
    if number >= walk.interfaces:
        return PCAP_INTERFACE
    interface = &walk.interface[number]
    if kind == SIMPLE_PACKET:
        record.captured = record.original = number32(walk, block, 8)
        if interface.snap_length and record.captured > interface.snap_length:
            record.captured = interface.snap_length
        record.time_ns = 0
    else:
        value = <uint64_t> number32(walk, block, 12) << 32 | number32(walk, block, 16)
        record.captured = number32(walk, block, 20)
        record.original = number32(walk, block, 24)
        if not to_nanoseconds(value, interface, &record.time_ns):
            return PCAP_TIME
    record.packet = span(block, AROUND - 4 + body, record.captured)
    if record.packet == NULL:
        return PCAP_SIZE
    return unwrap(walk, interface.link_type, record)


cdef bint to_nanoseconds(uint64_t value, const PcapInterface *interface, int64_t *time_ns) noexcept nogil:
    """Nanoseconds since 1970, rounded down; False if 64 bits do not hold them."""
    cdef int power = interface.resolution & 0x7f
    cdef uint64_t seconds = 0
    cdef uint64_t rest = value
    cdef uint64_t nanoseconds
    cdef uint64_t before
    cdef uint64_t high
    if interface.resolution & 0x80:
        if power < 64:
            seconds = value >> power
            rest = value & (<uint64_t> 1 << power) - 1
        if power < 32:
            nanoseconds = rest * GIGA >> power
        else:
            high = (rest >> 32) * GIGA + (<uint64_t> <uint32_t> rest * GIGA >> 32)
            nanoseconds = high >> power - 32 if power < 96 else 0
    elif power <= 9:
        seconds = value // power_of_ten(power)
        nanoseconds = value % power_of_ten(power) * power_of_ten(9 - power)
    else:
        if power < 20:
            seconds = value // power_of_ten(power)
            rest = value % power_of_ten(power)
        nanoseconds = rest // power_of_ten(power - 9) if power < 29 else 0

    if interface.offset >= 0:
        if seconds > latest() - <uint64_t> interface.offset:
            return False
        seconds += <uint64_t> interface.offset
    else:
        before = -<uint64_t> interface.offset
        if seconds < before:
            before -= seconds     # whole seconds before 1970, at least 1
            if before - 1 > latest() // GIGA:
                return False
            time_ns[0] = -<int64_t> ((before - 1) * GIGA)
            if time_ns[0] < -<int64_t> latest() - 1 + <int64_t> (GIGA - nanoseconds):
                return False
            time_ns[0] -= <int64_t> (GIGA - nanoseconds)
            return True
        seconds -= before
    if seconds > latest() // GIGA or nanoseconds > latest() - seconds * GIGA:
        return False
    time_ns[0] = <int64_t> (seconds * GIGA + nanoseconds)
    return True


cdef inline uint64_t power_of_ten(int power) noexcept nogil:
    cdef uint64_t value = 1
    for _ in range(power):
        value *= 10
    return value


# --- link types ---

cdef int unwrap(PcapWalk *walk, uint16_t link_type, PcapRecord *record) noexcept nogil:
    """Take off the header of a link type that is not ours, and see whether there is a packet behind it."""
    cdef Cursor packet
    cdef size_t header = 0
    cdef uint16_t protocol = IPV4
    cdef int layer = 3
    cursor_set(&packet, record.packet, record.captured)
    if link_type == PCAP_ETHERNET:
        if walk.strips:
            header = ETHERNET_HEADER
            protocol = get16(&packet, header - 2)
            while protocol == VLAN or protocol == SERVICE_VLAN:
                header += VLAN_TAG
                protocol = get16(&packet, header - 2)
        else:
            layer = 2
    elif link_type == LINK_NULL or link_type == LINK_LOOP:
        # Systems number the families of addresses in ways of their own; the version of IP is the same for all.
        header = 4
        if get8(&packet, header) >> 4 not in (4, 6):
            protocol = 0
    elif link_type == LINK_COOKED:
        header = 16
        protocol = get16(&packet, 14)
    elif link_type == LINK_COOKED_2:
        header = 20
        protocol = get16(&packet, 0)
    elif link_type not in (PCAP_RAW, LINK_RAW_BSD, LINK_RAW_OPENBSD, LINK_IPV4, LINK_IPV6):
        return PCAP_LINK_TYPE
    if walk.layer != layer and walk.layer:
        return PCAP_LAYER
    walk.layer = layer
    walk.link_type = link_type
    if packet.failed or record.captured <= header or protocol != IPV4 and protocol != IPV6:
        walk.skipped += 1
        return PASSED
    record.packet += header
    record.captured -= header
    record.original = max(record.original, record.captured + header) - header
    if link_type == PCAP_ETHERNET and header:
        take_off_padding(record)
    return PCAP_PACKET


cdef void take_off_padding(PcapRecord *record) noexcept nogil:
    """A frame may be longer than the IP packet in it."""
    cdef Cursor packet
    cdef size_t size = 0
    cursor_set(&packet, record.packet, record.captured)
    if get8(&packet, 0) >> 4 == 4:
        size = get16(&packet, 2)
    elif get16(&packet, 4):
        size = 40 + <size_t> get16(&packet, 4)
    if not packet.failed and size:
        record.captured = min(record.captured, size)
        record.original = max(min(record.original, size), record.captured)


# --- writing ---

cdef size_t pcap_write_header(Cursor *target, int format, uint16_t link_type, uint32_t snap_length) noexcept nogil:
    if format == PCAP_CLASSIC:
        put32_little(target, 0, MAGIC_NANOSECONDS)
        put16_little(target, 4, 2)
        put16_little(target, 6, 4)
        put32_little(target, 8, 0)
        put32_little(target, 12, 0)
        put32_little(target, 16, snap_length)
        put32_little(target, 20, link_type)
        return PCAP_FILE_HEADER
    put32_little(target, 0, SECTION)
    put32_little(target, 4, 28)
    put32_little(target, 8, BYTE_ORDER)
    put16_little(target, 12, 1)
    put16_little(target, 14, 0)
    put32_little(target, 16, 0xffffffff)      # the length of the section is not told
    put32_little(target, 20, 0xffffffff)
    put32_little(target, 24, 28)
    put32_little(target, 28, INTERFACE)
    put32_little(target, 32, 32)
    put16_little(target, 36, link_type)
    put16_little(target, 38, 0)
    put32_little(target, 40, snap_length)
    put16_little(target, 44, OPTION_RESOLUTION)
    put16_little(target, 46, 1)
    put32_little(target, 48, 9)
    put32_little(target, 52, OPTION_END)
    put32_little(target, 56, 32)
    return PCAP_NG_HEADER


cdef size_t pcap_record_size(int format, size_t captured) noexcept nogil:
    if format == PCAP_CLASSIC:
        return RECORD_HEADER + captured
    return AROUND + PACKET_BODY + ((captured + 3) & ~<size_t> 3)


cdef bint pcap_holds(int format, int64_t time_ns) noexcept nogil:
    """Whether a time can be written: pcap has 32 bits for the seconds."""
    return time_ns >= 0 and (format != PCAP_CLASSIC or time_ns < (<int64_t> GIGA << 32))


cdef size_t pcap_write(
    Cursor *target, size_t at, int format, const uint8_t *packet, uint32_t captured, uint32_t original,
    int64_t time_ns,
) noexcept nogil:
    cdef size_t size = pcap_record_size(format, captured)
    cdef size_t start = RECORD_HEADER
    cdef size_t padding = 0
    cdef uint8_t *data = span(target, at, size)
    if data == NULL:
        return 0
    if format == PCAP_CLASSIC:
        put32_little(target, at, <uint32_t> (<uint64_t> time_ns // GIGA))
        put32_little(target, at + 4, <uint32_t> (<uint64_t> time_ns % GIGA))
        put32_little(target, at + 8, captured)
        put32_little(target, at + 12, original)
    else:
        put32_little(target, at, ENHANCED_PACKET)
        put32_little(target, at + 4, <uint32_t> size)
        put32_little(target, at + 8, 0)
        put32_little(target, at + 12, <uint32_t> (<uint64_t> time_ns >> 32))
        put32_little(target, at + 16, <uint32_t> time_ns)
        put32_little(target, at + 20, captured)
        put32_little(target, at + 24, original)
        put32_little(target, at + size - 4, <uint32_t> size)
        start = AROUND - 4 + PACKET_BODY
        padding = size - 4 - start - captured
    memcpy(data + start, packet, captured)
    memset(data + start + captured, 0, padding)
    return size
