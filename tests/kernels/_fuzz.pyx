"""Targets of the coverage-guided fuzzer (tools/fuzz.sh): every kernel, on whatever bytes libFuzzer makes.

The first byte of an input picks the target.  Each packet and each slot is a block of its own with
nothing behind it, so that AddressSanitizer sees the first byte outside.  What should come out is worked
out anew and slowly; where it does not, the process aborts.
"""
from libc.errno cimport EINVAL, EMSGSIZE
from libc.stdint cimport intptr_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcmp, memcpy, memset

from tuntap._kernels.bpf cimport BpfRecord, BpfWalk, bpf_begin, bpf_next
from tuntap._kernels.build cimport row_build
from tuntap._kernels.checksum cimport (
    checksum_update, choose_summer, copy_sum, fold, sum_bytes, sum_pseudo_header,
)
from tuntap._kernels.columns cimport (
    MARK_FRAGMENT, MARK_IP, MARK_MALFORMED, MARK_OPTIONS, MARK_PADDED, MARK_TRANSPORT, MARK_TRUNCATED, MARK_VLAN,
    WANT_FLOW_HASH, WANT_SYMMETRIC, WANT_TRANSPORT, Row, is_echo, row_read,
)
from tuntap._kernels.cursor cimport Cursor, cursor_set, get8, get16, get32, put8, put16, put32, span
from tuntap._kernels.gro cimport (
    GRO_HEADERS_MAX, GRO_UDP, UDP_MERGED_MAX, WINDOW, Item, Window, gro_add, gro_begin, gro_headers,
)
from tuntap._kernels.gso cimport (
    UDP_SEGMENTS_MAX, Split, gso_begin, gso_complete, gso_size, gso_write,
)
from tuntap._kernels.ip cimport (
    ETHERNET_HEADER_SIZE, IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP,
    PROTOCOL_UDP, PROTOCOL_UDPLITE, TCP_HEADER_SIZE, UDP_HEADER_SIZE, Layout, find_layout, is_extension,
)
from tuntap._kernels.pcap cimport (
    PCAP_CLASSIC, PCAP_ETHERNET, PCAP_FILE_HEADER, PCAP_MORE, PCAP_NG, PCAP_NG_HEADER, PCAP_PACKET, PCAP_RAW,
    PcapRecord, PcapWalk, pcap_begin, pcap_feed, pcap_holds, pcap_may_end, pcap_next, pcap_record_size, pcap_write,
    pcap_write_header,
)
from tuntap._kernels.rewrite cimport *
from tuntap._kernels.virtio cimport (
    VIRTIO_F_NEEDS_CSUM, VIRTIO_GSO_NONE, VIRTIO_HEADER_SIZE, VirtioHeader, virtio_decode, virtio_encode,
)

cdef extern from *:
    # RFC 1071 word by word; in fuzz_main.c, which is not instrumented.
    """
    uint64_t slow_sum(const uint8_t *data, size_t size, uint64_t total);
    """
    uint64_t slow_sum(const uint8_t *data, size_t size, uint64_t total) nogil

cdef enum:
    PACKETS = 300                 # more than a window takes
    FEW = 30                      # what most inputs have to do with, for speed
    FLOWS = 8
    LARGEST = 65535
    JUMBO = 9000                  # bytes of payload, some of which make the largest super-packet
    ROOM = JUMBO + 256
    TCP_CHECKSUM = 16
    UDP_CHECKSUM = 6
    TCP_FIN = 0x01
    TCP_PSH = 0x08
    TCP_CWR = 0x80
    GARBAGE = 0xA5

# What an input may do with a packet of a flow; anything else leaves it as it is.
cdef enum:
    CHANGE_FLAGS = 3              # of TCP
    CHANGE_HEADER = 4             # one byte, the checksums made after that
    CHANGE_PACKET = 5             # one byte, the checksums made before that
    CHANGE_SIZE = 6               # cut, or padded
    CHANGE_ZERO = 7               # the checksums are zero, written as the other zero

# Where a packet of a flow has its size from.
cdef enum:
    SIZE_AS_BEFORE = 0
    SIZE_SMALL = 1
    SIZE_LARGE = 2
    SIZE_REPEATED = 3             # as before, many times over

# What is worth reaching; the runner refuses a run in which one of them was never reached.
cdef enum:
    SUMS
    LAYOUTS
    REFUSED
    COMPLETED
    SPLIT_TCP4
    SPLIT_TCP6
    SPLIT_UDP
    RIGHT_CHECKSUMS
    MERGED_TCP4
    MERGED_TCP6
    MERGED_UDP
    MERGED_FRAMES
    FULL_WINDOWS
    MOST_DATAGRAMS
    ALONE
    SAME_BYTES
    RECORDS
    CUT_RECORDS
    BROKEN_RECORDS
    WHOLE_READS
    ROWS_IPV4
    ROWS_IPV6
    ROWS_TCP
    ROWS_UDP
    ROWS_ECHO
    ROWS_EXTENDED
    ROWS_FRAGMENTS
    ROWS_TAGGED
    ROWS_PADDED
    ROWS_TRUNCATED
    ROWS_MALFORMED
    ROWS_WITHOUT
    FIXED_TCP
    FIXED_UDP
    FIXED_UDPLITE
    FIXED_ICMP
    FIXED_ICMPV6
    FIXED_PARTLY
    BEGUN
    UPDATED
    UPDATED_WRONG
    UPDATED_PARTS
    UPDATED_FRAMES
    NOT_UPDATED
    BUILT_IPV4
    BUILT_IPV6
    BUILT_FRAMES
    BUILT_PAYLOADS
    NOT_BUILT
    CLASSIC_PACKETS
    BLOCK_PACKETS
    SIMPLE_PACKETS
    BIG_ENDIAN
    HEADERS_OFF
    PASSED_OVER
    REWRITTEN
    WHOLE_CAPTURES
    TORN_CAPTURES
    NO_CAPTURES
    OTHER_VERSIONS
    BROKEN_SIZES
    MISMATCHES
    BROKEN_OPTIONS
    NO_INTERFACES
    LATE_TIMES
    OTHER_LINKS
    OTHER_LAYERS
    REACHABLE

cdef struct Input:
    const uint8_t *data
    size_t size

cdef struct Packet:
    uint8_t *data
    size_t size

cdef struct Flow:
    uint32_t sequence
    uint16_t identification
    size_t size                   # payload of the last packet

cdef uint64_t reached[REACHABLE]
cdef Window window
cdef Packet packets[PACKETS]
cdef Flow flows[FLOWS]
cdef uint8_t room[ROOM]           # for a packet that is being built
cdef uint8_t origin[ROOM]         # for one as it was, beside what came out
cdef uint8_t segment[ROOM]
cdef int chain[WINDOW]            # packets of a window in the order in which they are sent
cdef int position[WINDOW]
cdef Layout layouts[WINDOW]


cdef void check(bint holds, const char *what) noexcept nogil:
    if not holds:
        fprintf(stderr, b"PROPERTY: %s\n", what)
        abort()


cdef uint8_t take8(Input *rest) noexcept nogil:
    """The next byte of the input, 0 behind its end."""
    cdef uint8_t value
    if rest.size == 0:
        return 0
    value = rest.data[0]
    rest.data += 1
    rest.size -= 1
    return value


cdef uint16_t take16(Input *rest) noexcept nogil:
    cdef uint16_t value = take8(rest)
    return <uint16_t> (value << 8 | take8(rest))


cdef uint64_t take64(Input *rest) noexcept nogil:
    cdef uint64_t value = 0
    for _ in range(8):
        value = value << 8 | take8(rest)
    return value


cdef uint8_t *block_of(const uint8_t *data, size_t size) noexcept nogil:
    """A copy with nothing behind it; garbage if `data` is NULL."""
    cdef uint8_t *block = <uint8_t *> malloc(size)
    check(block != NULL, b"there is memory")
    if data == NULL:
        memset(block, GARBAGE, size)
    elif size:
        memcpy(block, data, size)
    return block


cdef uint64_t slow_pseudo_header(const uint8_t *ip, uint8_t protocol, size_t size) noexcept nogil:
    if ip[0] >> 4 == 4:
        return slow_sum(ip + 12, 8, <uint64_t> protocol + size)
    return slow_sum(ip + 8, 32, <uint64_t> protocol + size)


# --- checksum, ip, cursor, virtio ---

cdef void fuzz_sums(Input *rest) noexcept nogil:
    cdef size_t offset = take8(rest) % 64
    cdef size_t size = take16(rest) % 5000
    cdef uint64_t initial = take64(rest)
    cdef uint16_t before = take16(rest)
    cdef uint16_t after = take16(rest)
    cdef uint8_t *source = block_of(NULL, offset + size)
    cdef uint8_t *target = block_of(NULL, size)
    cdef uint64_t expected
    cdef size_t i
    for i in range(size):
        source[offset + i] = rest.data[i % rest.size] if rest.size else 0xff
    expected = slow_sum(source + offset, size, initial)
    check(fold(sum_bytes(source + offset, size, initial)) == expected, b"sum_bytes adds as a loop does")
    check(fold(copy_sum(target, source + offset, size, initial)) == expected, b"copy_sum adds as a loop does")
    check(size == 0 or memcmp(target, source + offset, size) == 0, b"copy_sum copies")
    free(source)
    free(target)
    expected = slow_sum(NULL, 0, initial)
    check(
        checksum_update(<uint16_t> ~slow_sum(NULL, 0, expected + before), before, after) % 0xffff
        == <uint16_t> ~slow_sum(NULL, 0, expected + after) % 0xffff,
        b"checksum_update is the checksum of the changed bytes",
    )
    reached[SUMS] += 1


cdef void fuzz_headers(Input *rest) noexcept nogil:
    cdef bint is_frame = take8(rest) & 1
    cdef size_t offset = take16(rest)
    cdef size_t size = rest.size
    cdef uint8_t *data = block_of(rest.data, size)
    cdef uint8_t *encoded = block_of(NULL, size)
    cdef Cursor packet
    cdef Cursor target
    cdef Layout layout
    cdef VirtioHeader header
    cdef uint64_t total
    cursor_set(&packet, data, size)
    if find_layout(&packet, is_frame, &layout) == 0:
        check(not packet.failed, b"a layout is of bytes that are there")
        check(layout.network < layout.transport <= size, b"headers are inside")
        check(layout.version == data[layout.network] >> 4, b"the version is that of the packet")
        cursor_set(&packet, data + layout.network, size - layout.network)
        total = sum_pseudo_header(&packet, PROTOCOL_UDP, <uint32_t> size)
        check(
            not packet.failed and fold(total) == slow_pseudo_header(packet.data, PROTOCOL_UDP, size),
            b"the pseudo-header is summed",
        )
        reached[LAYOUTS] += 1

    cursor_set(&packet, data, size)
    cursor_set(&target, encoded, size)
    check((span(&packet, offset, 4) != NULL) == (offset + 4 <= size), b"a span is there or not")
    put32(&target, offset, get32(&packet, offset))
    put16(&target, offset + 4, get16(&packet, offset + 4))
    put8(&target, offset + 6, get8(&packet, offset + 6))
    check(packet.failed == target.failed == (offset + 7 > size), b"what is outside fails")
    check(packet.failed or memcmp(encoded + offset, data + offset, 7) == 0, b"what is read is written")

    cursor_set(&packet, data, size)
    cursor_set(&target, encoded, size)
    if virtio_decode(&packet, &header) == 0:
        check(virtio_encode(&target, &header) == 0, b"there is room for a header")
        check(memcmp(encoded, data, VIRTIO_HEADER_SIZE) == 0, b"a header is what it was")
    else:
        check(size < VIRTIO_HEADER_SIZE, b"a whole header is decoded")
    free(data)
    free(encoded)


# --- gso ---

cdef bint has_right_seed(
    const Split *split, const uint8_t *data, size_t size, const VirtioHeader *header,
) noexcept nogil:
    """Whether the checksum of a super-packet is what the kernel leaves there, or ours alone to make."""
    cdef const uint8_t *transport = data + split.transport
    cdef size_t length = size - split.transport
    cdef const uint8_t *field = transport + (TCP_CHECKSUM if split.is_tcp else UDP_CHECKSUM)
    if not header.flags & VIRTIO_F_NEEDS_CSUM:
        return True
    if not split.is_tcp and <size_t> (transport[4] << 8 | transport[5]) != length:
        return False
    return <uint64_t> (field[0] << 8 | field[1]) == slow_pseudo_header(
        data + split.network, PROTOCOL_TCP if split.is_tcp else PROTOCOL_UDP, length)


cdef uint32_t number_at(const uint8_t *data) noexcept nogil:
    return <uint32_t> data[0] << 24 | <uint32_t> data[1] << 16 | <uint32_t> data[2] << 8 | data[3]


cdef void check_segment(
    const Split *split, int number, const uint8_t *data, const uint8_t *segment, size_t size, bint with_checksum,
) noexcept nogil:
    """What counts up from segment to segment is right, and so are lengths and checksums."""
    cdef const uint8_t *ip = segment + split.network
    cdef const uint8_t *transport = segment + split.transport
    cdef size_t length = size - split.transport
    cdef int kept = 0xff
    if split.version == 4:
        check(
            (ip[4] << 8 | ip[5]) == <uint16_t> (number_at(data + split.network + 4) >> 16) + number & 0xffff,
            b"the identification counts segments",
        )
        check(<size_t> (ip[2] << 8 | ip[3]) == size - split.network, b"the IPv4 length is right")
        check(slow_sum(ip, split.transport - split.network, 0) == 0xffff, b"the IPv4 checksum is right")
    else:
        check(<size_t> (ip[4] << 8 | ip[5]) == size - split.network - IPV6_HEADER_SIZE, b"the IPv6 length is right")
    if split.is_tcp:
        check(
            number_at(transport + 4)
            == <uint32_t> (number_at(data + split.transport + 4) + number * split.gso_size),
            b"the sequence number counts bytes",
        )
        if number > 0:
            kept &= ~TCP_CWR
        if number < split.segments - 1:
            kept &= ~(TCP_FIN | TCP_PSH)
        check(transport[13] == (data[split.transport + 13] & kept), b"flags are where they belong")
    else:
        check(<size_t> (transport[4] << 8 | transport[5]) == length, b"the UDP length is right")
        check(not with_checksum or transport[6] | transport[7], b"a datagram has a checksum")
    if with_checksum:
        check(
            slow_sum(transport, length, slow_pseudo_header(
                ip, PROTOCOL_TCP if split.is_tcp else PROTOCOL_UDP, length)) == 0xffff,
            b"the transport checksum is right",
        )
        reached[RIGHT_CHECKSUMS] += 1


cdef int fuzz_split(
    const VirtioHeader *header, const uint8_t *content, size_t size, bint is_frame, bint with_checksum, size_t cut,
) noexcept nogil:
    """Split a super-packet in every way there is; how many segments it makes."""
    cdef uint8_t *data = block_of(content, size)
    cdef uint8_t *copied
    cdef uint8_t *small
    cdef Cursor packet
    cdef Cursor target
    cdef Split split
    cdef int segments
    cdef int i
    cdef size_t length
    cdef size_t payload = 0
    cdef bint right
    cursor_set(&packet, data, size)
    segments = gso_begin(&split, &packet, header, is_frame, with_checksum)
    if segments <= 0:
        reached[REFUSED] += segments < 0
        free(data)
        return segments
    check(segments >= 2 and (split.is_tcp or segments <= UDP_SEGMENTS_MAX), b"a super-packet has some segments")
    right = has_right_seed(&split, data, size, header)
    for i in range(segments):
        length = gso_size(&split, i)
        check(split.header < length <= split.header + split.gso_size, b"a segment has some payload")
        copied = block_of(NULL, length)
        cursor_set(&target, copied, length)
        gso_write(&split, i, &target)
        check(
            memcmp(copied + split.header, data + split.header + i * split.gso_size, length - split.header) == 0,
            b"the payload is copied",
        )
        check_segment(&split, i, data, copied, length, with_checksum and right)
        # A slot that is too small holds the beginning, but for a field that its end cuts in two.
        if cut < length:
            small = block_of(NULL, cut)
            cursor_set(&target, small, cut)
            gso_write(&split, i, &target)
            check(
                cut <= split.header
                or memcmp(small + split.header, copied + split.header, cut - split.header) == 0,
                b"a small slot gets the beginning of the payload",
            )
            free(small)
        payload += length - split.header
        free(copied)
    check(payload == size - split.header, b"no payload is lost")
    check(memcmp(data, content, size) == 0, b"a super-packet is not written to")
    reached[SPLIT_UDP] += not split.is_tcp
    reached[SPLIT_TCP4] += split.is_tcp and split.version == 4
    reached[SPLIT_TCP6] += split.is_tcp and split.version == 6
    free(data)
    return segments


cdef void fuzz_complete(const VirtioHeader *header, const uint8_t *content, size_t size) noexcept nogil:
    cdef uint8_t *data = block_of(content, size)
    cdef size_t start = header.csum_start
    cdef size_t at = start + header.csum_offset
    cdef uint16_t expected
    cdef Cursor packet
    cursor_set(&packet, data, size)
    if gso_complete(&packet, header) == 0 and header.flags & VIRTIO_F_NEEDS_CSUM:
        expected = <uint16_t> ~slow_sum(content + start, size - start, 0)
        expected = expected if expected else 0xffff
        check((data[at] << 8 | data[at + 1]) == expected, b"the checksum is that of what it covers")
        data[at] = content[at]
        data[at + 1] = content[at + 1]
        reached[COMPLETED] += 1
    check(size == 0 or memcmp(data, content, size) == 0, b"nothing but the checksum is written")
    free(data)


cdef void fuzz_gso(Input *rest) noexcept nogil:
    """A virtio-net header and a packet, any bytes."""
    cdef uint8_t options = take8(rest)
    cdef size_t cut = take16(rest)
    cdef Cursor cursor
    cdef VirtioHeader header
    cursor_set(&cursor, rest.data, rest.size)
    if virtio_decode(&cursor, &header) == 0:
        rest.data += VIRTIO_HEADER_SIZE
        rest.size -= VIRTIO_HEADER_SIZE
        if options & 4:
            # Positions around the end of the packet, which would hardly be met by chance.
            header.csum_start = <uint16_t> (header.csum_start % (rest.size + 3))
            header.csum_offset = <uint16_t> (rest.size - header.csum_start - header.csum_offset % 4)
        if fuzz_split(&header, rest.data, rest.size, options & 1, options & 2, cut) == 0:
            fuzz_complete(&header, rest.data, rest.size)


# --- gro ---

cdef bint has_flow(const Packet *packet, bint is_frame, Layout *layout) noexcept nogil:
    """Whether it can be told of which flow a packet is."""
    cdef Cursor cursor
    cursor_set(&cursor, packet.data, packet.size)
    return (
        find_layout(&cursor, is_frame, layout) == 0 and not layout.is_fragment
        and (layout.protocol not in (PROTOCOL_TCP, PROTOCOL_UDP) or span(&cursor, layout.transport, 4) != NULL)
    )


cdef bint are_of_one_flow(const Packet *a, const Layout *of_a, const Packet *b, const Layout *of_b) noexcept nogil:
    """Whether addresses, ports and protocol of two packets are the same."""
    cdef size_t at = 12 if of_a.version == 4 else 8
    cdef size_t size = 8 if of_a.version == 4 else 32
    return (
        of_a.version == of_b.version and of_a.protocol == of_b.protocol
        and of_a.protocol in (PROTOCOL_TCP, PROTOCOL_UDP)
        and memcmp(a.data + of_a.network + at, b.data + of_b.network + at, size) == 0
        and memcmp(a.data + of_a.transport, b.data + of_b.transport, 4) == 0
    )


cdef void check_order(int taken, bint is_frame) noexcept nogil:
    """Packets of one flow, and those around one whose flow is unknown, are sent in their order."""
    cdef Packet *packet = packets + taken
    cdef int latest = -1          # of the positions so far
    cdef int barrier = -1         # the last packet of an unknown flow
    cdef int i
    cdef int j
    for i in range(window.packets):
        if not has_flow(&packet[i], is_frame, &layouts[i]):
            check(latest < position[i] == i, b"nothing overtakes a packet of an unknown flow")
            barrier = i
        j = i - 1
        while j > barrier and not are_of_one_flow(&packet[j], &layouts[j], &packet[i], &layouts[i]):
            j -= 1
        check(j <= barrier or position[j] < position[i], b"a flow keeps its order")
        latest = max(latest, position[i])


cdef void mask(uint8_t *packet, const Split *split, bint trusted, bint renumbered) noexcept nogil:
    """Blank what may differ."""
    cdef size_t at = split.transport + (TCP_CHECKSUM if split.is_tcp else UDP_CHECKSUM)
    if trusted:
        memset(packet + at, 0, 2)
    if split.version == 4 and renumbered:
        memset(packet + split.network + 4, 0, 2)
    if split.version == 4 and (trusted or renumbered):
        memset(packet + split.network + 10, 0, 2)


cdef void check_split(
    const Item *item, const VirtioHeader *header, uint8_t *data, const int *members, int taken,
    bint is_frame, bint trusted, bint renumbered,
) noexcept nogil:
    """A super-packet splits into the packets it was made of."""
    cdef Cursor cursor
    cdef Split split
    cdef int i
    cdef size_t size
    check(fuzz_split(header, data, item.size, is_frame, True, ROOM) == item.count, b"as many come out as went in")
    cursor_set(&cursor, data, item.size)
    gso_begin(&split, &cursor, header, is_frame, True)
    check(has_right_seed(&split, data, item.size, header), b"the seed is that of the kernel")
    check(
        split.version == 6 or slow_sum(data + split.network, split.transport - split.network, 0) == 0xffff,
        b"the IPv4 checksum of a super-packet is right",
    )
    for i in range(item.count):
        size = gso_size(&split, i)
        check(size == packets[taken + members[i]].size <= ROOM, b"a packet comes out in its size")
        memcpy(origin, packets[taken + members[i]].data, size)
        cursor_set(&cursor, segment, size)
        gso_write(&split, i, &cursor)
        mask(segment, &split, trusted, renumbered)
        mask(origin, &split, trusted, renumbered)
        check(memcmp(segment, origin, size) == 0, b"a packet comes out as it went in")
    reached[SAME_BYTES] += not trusted and not renumbered
    reached[MERGED_TCP4] += split.is_tcp and split.version == 4
    reached[MERGED_TCP6] += split.is_tcp and split.version == 6
    reached[MERGED_UDP] += not split.is_tcp
    reached[MERGED_FRAMES] += is_frame
    reached[MOST_DATAGRAMS] += not split.is_tcp and item.count == UDP_MERGED_MAX


cdef void check_item(
    const Item *item, const int *members, int taken, uint32_t types, bint is_frame, bint trusted, bint renumbered,
) noexcept nogil:
    """Bring an item together as send_item does, and look at it."""
    cdef uint8_t *headers = block_of(NULL, GRO_HEADERS_MAX)
    cdef uint8_t *data = block_of(NULL, item.size)
    cdef VirtioHeader header
    cdef Cursor target
    cdef size_t size
    cdef size_t left
    cdef size_t part
    cdef size_t placed
    cdef int i
    cursor_set(&target, headers, GRO_HEADERS_MAX)
    size = gro_headers(&window, item, &header, &target)
    check(size <= item.size and not target.failed, b"there is room for the headers")
    memcpy(data, headers, size)
    left = item.size - size
    placed = size
    for i in range(item.count):
        part = min(left, <size_t> item.gso_size) if item.count > 1 else left
        check(size + part == packets[taken + members[i]].size, b"a packet is headers and payload")
        memcpy(data + placed, packets[taken + members[i]].data + size, part)
        placed += part
        left -= part
    check(left == 0, b"an item is its packets")
    if item.count > 1:
        check(item.type & types, b"only what is asked for is merged")
        check(item.size <= LARGEST, b"a super-packet is one packet")
        check(item.type != GRO_UDP or item.count <= UDP_MERGED_MAX, b"every kernel takes that many datagrams")
        check_split(item, &header, data, members, taken, is_frame, trusted, renumbered)
    else:
        check(trusted or size == 0, b"a packet alone is sent as it is")
        check(header.gso_type == VIRTIO_GSO_NONE and header.gso_size == 0, b"a packet alone is no super-packet")
        check(
            size == 0 or header.csum_start + header.csum_offset + 2 <= <int> size,
            b"a checksum to be completed is in the headers",
        )
        fuzz_complete(&header, data, item.size)
        reached[ALONE] += 1
    free(headers)
    free(data)


cdef void coalesce(int count, uint32_t types, bint is_frame, bint trusted, bint renumbered) noexcept nogil:
    """Coalesce the packets, window by window, and look at every item."""
    cdef int taken = 0
    cdef int first
    cdef int sent
    cdef int packet
    cdef int i
    while taken < count:
        gro_begin(&window, types, is_frame, trusted, renumbered)
        for i in range(taken, count):
            if gro_add(&window, packets[i].data, packets[i].size) < 0:
                break
        check(0 < window.packets <= count - taken, b"a window takes a packet")
        reached[FULL_WINDOWS] += window.packets == WINDOW
        memset(position, 0xff, sizeof(position))
        sent = 0
        for i in range(window.items):
            check(i == 0 or window.item[i].first > window.item[i - 1].first, b"items are in order")
            first = sent
            packet = window.item[i].first
            while packet >= 0:
                check(packet < window.packets and position[packet] < 0, b"a packet is in one item")
                check(sent == first or packet > chain[sent - 1], b"an item is in order")
                chain[sent] = packet
                position[packet] = sent
                sent += 1
                packet = window.next[packet]
            check(sent - first == window.item[i].count, b"an item knows how many packets it has")
            check(chain[sent - 1] == window.item[i].last, b"an item knows its last packet")
            check_item(&window.item[i], chain + first, taken, types, is_frame, trusted, renumbered)
        check(sent == window.packets, b"every packet is in an item")
        check_order(taken, is_frame)
        taken += window.packets


cdef size_t build(Input *rest, uint8_t operation, bint is_frame, bint fixed, size_t payload) noexcept nogil:
    """The next packet of a flow, in `room`: valid, but for the change that the operation asks for."""
    cdef Flow *flow = &flows[operation & 7]
    cdef bint is_tcp = not operation & 2
    cdef bint is_ipv6 = operation & 1
    cdef int change = operation >> 3 & 7
    cdef size_t network = ETHERNET_HEADER_SIZE if is_frame else 0
    cdef size_t transport = network + (IPV6_HEADER_SIZE if is_ipv6 else IPV4_HEADER_SIZE)
    cdef size_t header = transport + (TCP_HEADER_SIZE if is_tcp else UDP_HEADER_SIZE)
    cdef size_t size = header + payload
    cdef size_t checksum_at = transport + (TCP_CHECKSUM if is_tcp else UDP_CHECKSUM)
    cdef uint8_t protocol = PROTOCOL_TCP if is_tcp else PROTOCOL_UDP
    cdef bint is_zero = change == CHANGE_ZERO and payload >= 2
    cdef uint64_t total
    cdef Cursor packet
    cursor_set(&packet, room, ROOM)
    memset(room, 0, header)
    memset(room + header, <uint8_t> flow.sequence, payload)
    if is_frame:
        put16(&packet, 12, 0x86dd if is_ipv6 else 0x0800)
    if is_ipv6:
        put8(&packet, network, 0x60)
        put16(&packet, network + 4, <uint16_t> (size - network - IPV6_HEADER_SIZE))
        put16(&packet, network + 6, <uint16_t> (protocol << 8 | 64))
        put16(&packet, network + 8, 0xfd00)
        put16(&packet, network + 24, 0xfd01)
    else:
        put16(&packet, network, 0x4500)
        put16(&packet, network + 2, <uint16_t> (size - network))
        put16(&packet, network + 4, flow.identification)
        put16(&packet, network + 6, 0x4000 if fixed else 0)
        put16(&packet, network + 8, <uint16_t> (64 << 8 | protocol))
        put32(&packet, network + 12, 0x0a000001)
        put32(&packet, network + 16, 0x0a000002)
    put16(&packet, transport, operation & 4)
    put16(&packet, transport + 2, 9)
    if is_tcp:
        put32(&packet, transport + 4, flow.sequence)
        put16(&packet, transport + 12, <uint16_t> (0x5000 | (take8(rest) if change == CHANGE_FLAGS else 0x10)))
    else:
        put16(&packet, transport + 4, <uint16_t> (size - transport))
    if change == CHANGE_HEADER:
        put8(&packet, take8(rest) % header, take8(rest))
    if not is_ipv6:
        put16(&packet, network + 10, 0)
        if is_zero:
            put16(&packet, network + 4, 0)
            flow.identification = <uint16_t> ~slow_sum(room + network, IPV4_HEADER_SIZE, 0)
            put16(&packet, network + 4, flow.identification)
        total = slow_sum(room + network, IPV4_HEADER_SIZE, 0)
        put16(&packet, network + 10, <uint16_t> ~total if not is_zero else 0xffff)
    put16(&packet, checksum_at, 0)
    if is_zero:
        put16(&packet, header, 0)
    total = slow_sum(room + transport, size - transport, slow_pseudo_header(room + network, protocol, size - transport))
    if is_zero:
        put16(&packet, header + (transport - header & 1), <uint16_t> ~total)
        put16(&packet, checksum_at, 0xffff)
    else:
        put16(&packet, checksum_at, <uint16_t> ~total if is_tcp or total != 0xffff else 0xffff)
    if change == CHANGE_PACKET:
        put8(&packet, take16(rest) % size, take8(rest))
    elif change == CHANGE_SIZE:
        size = min(size + take8(rest), <size_t> ROOM) - 128 if size > 128 else take8(rest) % size
    flow.sequence += <uint32_t> payload
    flow.identification += not fixed
    flow.size = payload
    return size


cdef void fuzz_flows(Input *rest, int most, bint is_frame, uint32_t types, uint8_t options) noexcept nogil:
    """The input tells which packets of which flows there are and what is wrong with them."""
    cdef int count = 0
    cdef int times
    cdef uint8_t operation
    cdef size_t payload
    cdef size_t size
    cdef int i
    memset(flows, 0, sizeof(flows))
    for i in range(FLOWS):
        flows[i].sequence = <uint32_t> -2000      # both numbers pass zero now and then
        flows[i].identification = <uint16_t> -5
        flows[i].size = 10
    while rest.size and count < most:
        operation = take8(rest)
        payload = flows[operation & 7].size
        times = 1
        if operation >> 6 == SIZE_SMALL:
            payload = take8(rest)
        elif operation >> 6 == SIZE_LARGE:
            payload = take16(rest) % JUMBO
        elif operation >> 6 == SIZE_REPEATED:
            times = take8(rest) % 16
        while times > 0 and count < most:
            size = build(rest, operation, is_frame, options & 4, payload)
            packets[count].data = block_of(room, size)
            packets[count].size = size
            count += 1
            times -= 1
    coalesce(count, types, is_frame, options & 1, options & 2)
    for i in range(count):
        free(packets[i].data)


cdef void fuzz_packets(Input *rest, bint is_frame, uint32_t types, uint8_t options) noexcept nogil:
    """The input is packets, each behind its size."""
    cdef int count = 0
    cdef int i
    while rest.size > 2 and count < PACKETS:
        packets[count].size = 1 + take16(rest)
        packets[count].size = min(packets[count].size, rest.size)
        packets[count].data = block_of(rest.data, packets[count].size)
        rest.data += packets[count].size
        rest.size -= packets[count].size
        count += 1
    coalesce(count, types, is_frame, options & 1, options & 2)
    for i in range(count):
        free(packets[i].data)


# --- bpf ---

cdef void fuzz_records(Input *rest) noexcept nogil:
    """The bytes of one read, any."""
    cdef uint8_t options = take8(rest)
    cdef uint64_t timestamp_size = 16 if options & 1 else 8
    cdef uint64_t alignment = 8 if options & 2 else 4
    cdef uint64_t size = rest.size
    cdef uint8_t *data = block_of(rest.data, size)
    cdef const uint8_t *lengths
    cdef uint64_t at = 0
    cdef uint32_t captured = 0
    cdef uint32_t original = 0
    cdef uint16_t header = 0
    cdef bint is_whole = True
    cdef BpfWalk walk
    cdef BpfRecord record
    bpf_begin(&walk, data, size, timestamp_size, alignment)
    while at < size and is_whole:
        is_whole = timestamp_size + 10 <= size - at
        if is_whole:
            lengths = rest.data + at + timestamp_size
            memcpy(&captured, lengths, 4)
            memcpy(&original, lengths + 4, 4)
            memcpy(&header, lengths + 8, 2)
            is_whole = header >= timestamp_size + 10 and captured <= original
            is_whole = is_whole and <uint64_t> header + captured <= size - at
        check((bpf_next(&walk, &record) > 0) == is_whole, b"a whole record is one, and nothing else is")
        if is_whole:
            check(record.captured == captured and record.original == original, b"a record has its sizes")
            check(record.packet == data + at + header, b"a packet is behind its header")
            check(memcmp(record.packet, rest.data + at + header, captured) == 0, b"a packet can be read")
            at += (header + <uint64_t> captured + alignment - 1) / alignment * alignment
            reached[RECORDS] += 1
            reached[CUT_RECORDS] += captured < original
    for _ in range(2):
        check(bpf_next(&walk, &record) == (0 if is_whole else -EINVAL), b"the end is for good")
    reached[BROKEN_RECORDS] += not is_whole
    reached[WHOLE_READS] += is_whole and size > 0
    free(data)


# --- columns ---

cdef bint is_zero(const void *data, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(size):
        if (<const uint8_t *> data)[i]:
            return False
    return True


cdef void read_row(const uint8_t *data, size_t size, bint is_frame, int wanted, Row *row) noexcept nogil:
    """Of a packet with nothing behind it."""
    cdef uint8_t *block = block_of(data, size)
    memset(row, 0, sizeof(Row))
    row_read(block, size, is_frame, wanted, 1, row)
    check(size == 0 or memcmp(block, data, size) == 0, b"a packet that is read stays as it is")
    free(block)


cdef void forget_link(Row *row) noexcept nogil:
    """What is known without an IP header."""
    row.length = 0
    row.marks = 0
    row.eth_src = 0
    row.eth_dst = 0
    row.ethertype = 0
    row.vlan = 0
    row.vlan_inner = 0
    row.vlan_priority = 0


cdef void forget_transport(Row *row) noexcept nogil:
    """What is known of what is behind the IP header."""
    row.marks = 0
    row.flow_hash = 0
    row.transport_offset = 0
    row.payload_offset = 0
    row.payload_length = 0
    row.src_port = 0
    row.dst_port = 0
    row.tcp_seq = 0
    row.tcp_ack = 0
    row.tcp_flags = 0
    row.tcp_window = 0
    row.icmp_type = 0
    row.icmp_code = 0
    row.icmp_id = 0
    row.icmp_seq = 0


cdef void check_ip(const Row *row, const uint8_t *data, size_t size) noexcept nogil:
    cdef const uint8_t *ip = data + row.network_offset
    cdef size_t said_end = row.network_offset + row.ip_length
    cdef size_t header = IPV4_HEADER_SIZE if row.version == 4 else IPV6_HEADER_SIZE
    check(row.version in (4, 6) and ip[0] >> 4 == row.version, b"the version is that of the packet")
    check(row.network_offset + header <= row.transport_offset <= row.payload_offset, b"headers follow one another")
    check(row.payload_offset + <size_t> row.payload_length <= min(said_end, size), b"a payload is inside")
    check((row.marks & MARK_TRUNCATED != 0) == (said_end > size), b"a packet that is cut is marked")
    check((row.marks & MARK_PADDED != 0) == (said_end < size), b"a packet with more behind it is marked")
    if row.version == 4:
        check(is_zero(row.src6, 16) and is_zero(row.dst6, 16) and row.flow_label == 0, b"IPv4 has fields of its own")
        check(row.src4 == number_at(ip + 12) and row.dst4 == number_at(ip + 16), b"addresses are read")
        check(row.ttl == ip[8] and row.protocol == ip[9], b"fields of IPv4 are read")
    else:
        check(row.src4 == 0 and row.dst4 == 0 and row.ip_flags <= 1, b"IPv6 has fields of its own")
        check(memcmp(row.src6, ip + 8, 16) == 0 and memcmp(row.dst6, ip + 24, 16) == 0, b"addresses are read")
        check(row.ttl == ip[7], b"fields of IPv6 are read")
        check(row.marks & (MARK_OPTIONS | MARK_FRAGMENT) != MARK_FRAGMENT, b"IPv6 has fragments in its extensions")
    check(row.fragment_offset == 0 or row.marks & MARK_FRAGMENT, b"a fragment is marked")
    check(row.fragment_offset == 0 or not row.marks & MARK_TRANSPORT, b"a later fragment has no transport header")


cdef void check_transport(const Row *row, const uint8_t *data) noexcept nogil:
    cdef const uint8_t *transport = data + row.transport_offset
    cdef bint has_ports = row.protocol in (6, 17, 33, 132, 136)
    check(row.payload_offset >= row.transport_offset + 8, b"a transport header has a size")
    if has_ports:
        check(
            row.src_port == (transport[0] << 8 | transport[1]) and row.dst_port == (transport[2] << 8 | transport[3]),
            b"ports are read",
        )
        check(is_zero(&row.icmp_type, 1) and row.icmp_id == 0 and row.icmp_seq == 0, b"only ICMP has a type")
    else:
        check(row.protocol == (1 if row.version == 4 else 58), b"a header that can be read")
        check(row.icmp_type == transport[0] and row.icmp_code == transport[1], b"the type of ICMP is read")
        check(row.src_port == 0 and row.dst_port == 0, b"ICMP has no ports")
    if row.protocol == PROTOCOL_TCP:
        check(row.tcp_seq == number_at(transport + 4) and row.tcp_ack == number_at(transport + 8), b"TCP is read")
        check(
            row.payload_offset == <size_t> row.transport_offset + (transport[12] >> 4) * 4,
            b"the payload is behind the options of TCP",
        )
    else:
        check(row.tcp_seq == 0 and row.tcp_ack == 0, b"only TCP has numbers")
        check(row.tcp_flags == 0 and row.tcp_window == 0, b"only TCP has flags and a window")
    reached[ROWS_TCP] += row.protocol == PROTOCOL_TCP
    reached[ROWS_UDP] += row.protocol == PROTOCOL_UDP
    reached[ROWS_ECHO] += row.icmp_id != 0


cdef void fuzz_rows(Input *rest) noexcept nogil:
    """A packet, any bytes."""
    cdef uint8_t options = take8(rest)
    cdef bint is_frame = options & 1
    cdef size_t size = rest.size
    cdef uint8_t *longer = block_of(NULL, size + 1)
    cdef Row row
    cdef Row other
    read_row(rest.data, size, is_frame, WANT_TRANSPORT | WANT_FLOW_HASH | (options & WANT_SYMMETRIC), &row)
    check(row.length == size, b"a packet has its length")
    reached[ROWS_TAGGED] += row.vlan_inner != 0 and row.marks & (MARK_VLAN | MARK_IP) == (MARK_VLAN | MARK_IP)
    reached[ROWS_TRUNCATED] += row.marks & MARK_TRUNCATED != 0
    reached[ROWS_MALFORMED] += row.marks & MARK_MALFORMED != 0
    if row.marks & MARK_IP:
        check_ip(&row, rest.data, size)
        reached[ROWS_IPV4] += row.version == 4
        reached[ROWS_IPV6] += row.version == 6
        reached[ROWS_EXTENDED] += row.version == 6 and row.transport_offset > 2 * IPV6_HEADER_SIZE
        reached[ROWS_FRAGMENTS] += row.marks & MARK_FRAGMENT != 0
        reached[ROWS_PADDED] += row.marks & MARK_PADDED != 0
        if size and not row.marks & MARK_TRUNCATED:
            memcpy(longer, rest.data, size)
            read_row(longer, size + 1, is_frame, WANT_TRANSPORT | WANT_FLOW_HASH | (options & WANT_SYMMETRIC), &other)
            check(other.marks == row.marks | MARK_PADDED, b"a byte behind the end is padding")
            other.marks = row.marks
            other.length -= 1
            check(memcmp(&other, &row, sizeof(Row)) == 0, b"padding changes nothing")
    else:
        check(not row.marks & (MARK_TRANSPORT | MARK_FRAGMENT | MARK_OPTIONS | MARK_PADDED), b"marks follow from marks")
        other = row
        forget_link(&other)
        check(is_zero(&other, sizeof(Row)), b"without an IP header there is nothing of it")
        reached[ROWS_WITHOUT] += 1
    if row.marks & MARK_TRANSPORT:
        check_transport(&row, rest.data)
    else:
        check(row.payload_offset == row.transport_offset, b"without a header there is no size of it")
        check(row.src_port == 0 and row.dst_port == 0 and row.tcp_flags == 0, b"without a header there are no ports")
        check(row.icmp_type == 0 and row.icmp_id == 0 and row.tcp_seq == 0, b"nor anything else of it")
    # What is not wanted is not there, and the rest is the same.
    read_row(rest.data, size, is_frame, 0, &other)
    check(other.marks & row.marks == other.marks, b"marks only say less")
    check(other.flow_hash == 0 and other.payload_offset == 0 and other.transport_offset == 0, b"not wanted")
    forget_transport(&row)
    forget_transport(&other)
    check(memcmp(&other, &row, sizeof(Row)) == 0, b"the IP header is read in any case")
    free(longer)


# --- rewrite, build ---

cdef size_t checksum_at(const Row *row) noexcept nogil:
    """Where the checksum behind the IP header is, from its start; 0 for none."""
    if not row.marks & MARK_TRANSPORT:
        return 0
    if row.protocol == PROTOCOL_TCP:
        return TCP_CHECKSUM
    if row.protocol in (PROTOCOL_UDP, PROTOCOL_UDPLITE):
        return UDP_CHECKSUM
    return 2 if row.protocol in (PROTOCOL_ICMP, PROTOCOL_ICMPV6) else 0


cdef void blank_checksums(uint8_t *data, const Row *row) noexcept nogil:
    if row.marks & MARK_IP and row.version == 4:
        memset(data + row.network_offset + 10, 0, 2)
    if checksum_at(row):
        memset(data + row.transport_offset + checksum_at(row), 0, 2)


cdef void check_only_checksums(
    const uint8_t *before, const uint8_t *after, size_t size, const Row *row, const char *what,
) noexcept nogil:
    """The packets are the same but for these."""
    cdef uint8_t *one = block_of(before, size)
    cdef uint8_t *other = block_of(after, size)
    blank_checksums(one, row)
    blank_checksums(other, row)
    check(size == 0 or memcmp(one, other, size) == 0, what)
    free(one)
    free(other)


cdef bint is_right(const uint8_t *data, const Row *row) noexcept nogil:
    """Whether the checksums are, of a packet that is whole; the one behind the IP header, if there is any."""
    cdef const uint8_t *ip = data + row.network_offset
    cdef const uint8_t *header = data + row.transport_offset
    cdef size_t size = row.payload_offset + row.payload_length - row.transport_offset
    cdef size_t covered = size
    cdef uint64_t total = 0
    if row.version == 4 and slow_sum(ip, row.transport_offset - row.network_offset, 0) != 0xffff:
        return False
    if not checksum_at(row):
        return True
    if row.protocol == PROTOCOL_UDPLITE and header[4] | header[5]:
        covered = header[4] << 8 | header[5]
    if row.protocol != PROTOCOL_ICMP:
        total = slow_pseudo_header(ip, row.protocol, size)
    if row.protocol in (PROTOCOL_UDP, PROTOCOL_UDPLITE) and not header[6] | header[7]:
        return False
    return slow_sum(header, covered, total) == 0xffff


cdef size_t take_unfinished(Input *rest, const Row *row, bint is_begun) noexcept nogil:
    """Where a device finishes a checksum: where there is one, or anywhere."""
    if not is_begun:
        return 0
    return row.transport_offset + checksum_at(row) if checksum_at(row) else take8(rest)


cdef void fuzz_fix(Input *rest) noexcept nogil:
    """A packet, any bytes."""
    cdef uint8_t options = take8(rest)
    cdef bint is_frame = options & 1
    cdef size_t size = rest.size
    cdef uint8_t *data
    cdef uint8_t *fixed
    cdef size_t unfinished
    cdef Row row
    cdef Row other
    cdef bint result
    read_row(rest.data, size, is_frame, WANT_TRANSPORT, &row)
    unfinished = take_unfinished(rest, &row, options & 2)
    if size != rest.size:
        size = rest.size
        read_row(rest.data, size, is_frame, WANT_TRANSPORT, &row)
    data = block_of(rest.data, size)
    result = fix_checksums(data, size, is_frame, unfinished)
    check_only_checksums(rest.data, data, size, &row, b"nothing but checksums is made anew")
    read_row(data, size, is_frame, WANT_TRANSPORT, &other)
    check(memcmp(&row, &other, sizeof(Row)) == 0, b"a packet says the same with other checksums")
    fixed = block_of(data, size)
    check(fix_checksums(fixed, size, is_frame, unfinished) == result, b"what can be made once can be made twice")
    check(size == 0 or memcmp(data, fixed, size) == 0, b"and is the same")
    if result:
        check(row.marks & MARK_IP and not row.marks & MARK_FRAGMENT, b"only whole IP packets are right")
        if unfinished and unfinished == row.transport_offset + checksum_at(&row):
            reached[BEGUN] += 1
        elif not row.marks & MARK_TRUNCATED:
            check(is_right(data, &row), b"checksums are right")
            reached[FIXED_TCP] += row.marks & MARK_TRANSPORT != 0 and row.protocol == PROTOCOL_TCP
            reached[FIXED_UDP] += row.marks & MARK_TRANSPORT != 0 and row.protocol == PROTOCOL_UDP
            reached[FIXED_UDPLITE] += row.marks & MARK_TRANSPORT != 0 and row.protocol == PROTOCOL_UDPLITE
            reached[FIXED_ICMP] += row.marks & MARK_TRANSPORT != 0 and row.protocol == PROTOCOL_ICMP
            reached[FIXED_ICMPV6] += row.marks & MARK_TRANSPORT != 0 and row.protocol == PROTOCOL_ICMPV6
    elif row.marks & MARK_IP:
        check(
            memcmp(data + row.transport_offset, rest.data + row.transport_offset, size - row.transport_offset) == 0,
            b"what is not known stays as it was",
        )
        reached[FIXED_PARTLY] += 1
    free(data)
    free(fixed)


cdef void take_row(Input *rest, Row *row) noexcept nogil:
    cdef size_t i
    for i in range(sizeof(Row)):
        (<uint8_t *> row)[i] = take8(rest)


cdef void expect_link(Row *row, uint32_t fields, const Row *wanted, size_t size) noexcept nogil:
    if size < ETHERNET_HEADER_SIZE:
        return
    if fields & SET_ETH_SRC:
        row.eth_src = wanted.eth_src & <uint64_t> 0xffffffffffff
    if fields & SET_ETH_DST:
        row.eth_dst = wanted.eth_dst & <uint64_t> 0xffffffffffff
    if fields & SET_VLAN and row.marks & MARK_VLAN:
        row.vlan = wanted.vlan & 0xfff
    if fields & SET_VLAN_PRIORITY and row.marks & MARK_VLAN:
        row.vlan_priority = wanted.vlan_priority & 7


cdef void expect_network(Row *row, uint32_t fields, const Row *wanted) noexcept nogil:
    if fields & SET_DSCP:
        row.dscp = wanted.dscp & 63
    if fields & SET_ECN:
        row.ecn = wanted.ecn & 3
    if fields & SET_TTL:
        row.ttl = wanted.ttl
    if row.version == 4:
        if fields & SET_IP_ID:
            row.ip_id = wanted.ip_id & 0xffff
        if fields & SET_SRC4:
            row.src4 = wanted.src4
        if fields & SET_DST4:
            row.dst4 = wanted.dst4
    else:
        if fields & SET_FLOW_LABEL:
            row.flow_label = wanted.flow_label & 0xfffff
        if fields & SET_SRC6:
            memcpy(row.src6, wanted.src6, 16)
        if fields & SET_DST6:
            memcpy(row.dst6, wanted.dst6, 16)


cdef void expect_transport(Row *row, uint32_t fields, const Row *wanted) noexcept nogil:
    if row.protocol in (PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_UDPLITE):
        if fields & SET_SRC_PORT:
            row.src_port = wanted.src_port
        if fields & SET_DST_PORT:
            row.dst_port = wanted.dst_port
    elif is_echo(row):
        if fields & SET_ICMP_ID:
            row.icmp_id = wanted.icmp_id
        if fields & SET_ICMP_SEQ:
            row.icmp_seq = wanted.icmp_seq
    if row.protocol == PROTOCOL_TCP:
        if fields & SET_TCP_SEQ:
            row.tcp_seq = wanted.tcp_seq
        if fields & SET_TCP_ACK:
            row.tcp_ack = wanted.tcp_ack
        if fields & SET_TCP_FLAGS:
            row.tcp_flags = wanted.tcp_flags & 0xfff
        if fields & SET_TCP_WINDOW:
            row.tcp_window = wanted.tcp_window


cdef void fuzz_update(Input *rest) noexcept nogil:
    """Fields, a row and a packet, any bytes."""
    cdef uint8_t options = take8(rest)
    cdef bint is_frame = options & 1
    cdef uint32_t fields = <uint32_t> take16(rest) << 16 | take16(rest)
    cdef size_t size
    cdef uint8_t *before
    cdef uint8_t *data
    cdef size_t unfinished
    cdef Row wanted
    cdef Row was
    cdef Row row
    cdef bint was_right = False
    take_row(rest, &wanted)
    read_row(rest.data, rest.size, is_frame, WANT_TRANSPORT, &was)
    unfinished = take_unfinished(rest, &was, options & 2)
    size = rest.size
    before = block_of(rest.data, size)
    if options & 4:
        was_right = fix_checksums(before, size, is_frame, unfinished)
    read_row(before, size, is_frame, WANT_TRANSPORT, &was)
    data = block_of(before, size)
    if not row_update(data, size, is_frame, unfinished, fields, &wanted):
        check(memcmp(data, before, size) == 0, b"what is not updated stays as it was")
        check(was.marks & MARK_IP and not checksum_at(&was), b"a checksum that is known can follow")
        reached[NOT_UPDATED] += 1
    else:
        read_row(data, size, is_frame, WANT_TRANSPORT, &row)
        # Undone, there is the same packet again.
        check(row_update(data, size, is_frame, unfinished, fields, &was), b"what is done can be undone")
        check_only_checksums(before, data, size, &was, b"undoing leaves nothing but which zero a checksum is")
        row_update(data, size, is_frame, unfinished, fields, &wanted)
        if was_right and not unfinished and not was.marks & MARK_TRUNCATED:
            check(is_right(data, &row), b"what was right stays right")
            reached[UPDATED] += 1
        elif not unfinished and checksum_at(&was) and was.protocol != PROTOCOL_ICMP and not was.marks & (
                MARK_TRUNCATED | MARK_FRAGMENT | MARK_OPTIONS):
            check(is_right(data, &row) == is_right(before, &was), b"what was wrong stays wrong")
            reached[UPDATED_WRONG] += not is_right(before, &was)
        reached[UPDATED_PARTS] += was.marks & MARK_FRAGMENT != 0
        reached[UPDATED_FRAMES] += is_frame and was.marks & MARK_IP != 0
        if is_frame:
            expect_link(&was, fields, &wanted, size)
        if was.marks & MARK_IP:
            expect_network(&was, fields, &wanted)
        if checksum_at(&was):
            expect_transport(&was, fields, &wanted)
        check(memcmp(&row, &was, sizeof(Row)) == 0, b"a packet says what was written, and else the same")
    free(before)
    free(data)


cdef void check_built(
    const uint8_t *data, const Row *row, const Row *wanted, bint is_frame, bint has_tag,
) noexcept nogil:
    cdef Row expected = row[0]
    check(not is_frame or has_tag == (row.marks & MARK_VLAN != 0), b"a frame has a tag or not")
    if not checksum_at(row) or row.protocol == PROTOCOL_UDPLITE or row.marks & MARK_FRAGMENT:
        return
    check(is_right(data, row), b"its checksums are right")
    if is_frame:
        expect_link(&expected, SET_LINK, wanted, row.length)
    expect_network(&expected, 0xffffffff, wanted)
    expect_transport(&expected, 0xffffffff, wanted)
    check(memcmp(&expected, row, sizeof(Row)) == 0, b"a packet says what was asked for")


cdef void fuzz_build(Input *rest) noexcept nogil:
    """A row, and a payload."""
    cdef uint8_t options = take8(rest)
    cdef bint is_frame = options & 1
    cdef bint has_tag = options & 2 != 0
    cdef size_t size = take16(rest)
    cdef size_t room = take16(rest)
    cdef uint8_t *payload
    cdef uint8_t *data
    cdef intptr_t made
    cdef Row wanted
    cdef Row row
    take_row(rest, &wanted)
    if options & 4:
        wanted.version = 4 if options & 8 else 6
    if options & 16:
        size = rest.size
    payload = block_of(rest.data, size) if size <= rest.size else NULL
    data = block_of(NULL, room)
    made = row_build(data, room, is_frame, has_tag, &wanted, payload, size)
    if made < 0:
        check(made == (-EMSGSIZE if wanted.version in (4, 6) else -EINVAL), b"a packet is too large, or of no version")
        check(room == 0 or data[0] == GARBAGE and data[room - 1] == GARBAGE, b"then there is none")
        reached[NOT_BUILT] += 1
    else:
        check(<size_t> made <= room, b"a packet fits")
        read_row(data, made, is_frame, WANT_TRANSPORT, &row)
        reached[BUILT_IPV4] += row.version == 4
        reached[BUILT_IPV6] += row.version == 6
        reached[BUILT_FRAMES] += is_frame
        # Or the payload is taken for extensions.
        if wanted.version == 4 or not is_extension(wanted.protocol):
            check(row.marks & MARK_IP and not row.marks & (MARK_TRUNCATED | MARK_PADDED), b"a packet is whole")
            check(row.version == wanted.version and row.protocol == wanted.protocol, b"of a version and protocol")
            check(row.payload_length <= size and row.payload_offset + row.payload_length == made, b"with its payload")
            check_built(data, &row, &wanted, is_frame, has_tag)
        check(
            size == 0 or (memcmp(data + made - size, payload, size) == 0 if payload != NULL
                          else is_zero(data + made - size, size)),
            b"a payload is copied, or zeros",
        )
        reached[BUILT_PAYLOADS] += size > 0 and payload != NULL
    if payload != NULL:
        free(payload)
    free(data)
# --- pcap ---

cdef PcapWalk whole
cdef PcapWalk stepped
cdef PcapWalk again

# Which of the reachable an outcome of pcap_next is.
cdef int *OUTCOMES = [
    TORN_CAPTURES, NO_CAPTURES, OTHER_VERSIONS, BROKEN_SIZES, MISMATCHES, BROKEN_OPTIONS, NO_INTERFACES, NO_INTERFACES,
    LATE_TIMES, OTHER_LINKS, OTHER_LAYERS,
]


cdef void fuzz_captures(Input *rest) noexcept nogil:
    """A file, any, read at once and in pieces: the same comes out."""
    cdef uint8_t options = take8(rest)
    cdef int layer = options & 3
    cdef size_t step = 16 + take8(rest)
    cdef size_t size = rest.size
    cdef uint8_t *data = block_of(rest.data, size)
    cdef uint8_t *piece = NULL
    cdef size_t start = 0         # of the piece
    cdef size_t end = 0
    cdef size_t before = 0
    cdef int outcome
    cdef int result
    cdef PcapRecord record
    cdef PcapRecord other
    layer = 0 if layer == 1 else layer
    pcap_begin(&whole, layer)
    pcap_begin(&stepped, layer)
    pcap_feed(&whole, data, size)
    pcap_feed(&stepped, NULL, 0)
    while True:
        outcome = pcap_next(&whole, &record)
        result = pcap_next(&stepped, &other)
        while result == PCAP_MORE and end < size:
            start += stepped.at
            end = min(end + step, size)
            free(piece)
            piece = block_of(data + start, end - start)
            pcap_feed(&stepped, piece, end - start)
            result = pcap_next(&stepped, &other)
        check(result == outcome, b"what comes in pieces is the same")
        check(whole.skipped == stepped.skipped, b"as many are passed over in pieces")
        if outcome != PCAP_PACKET:
            break
        check(before <= record.at < whole.at <= size, b"a record lies behind the one in front")
        before = whole.at
        check_capture(&record, data, size)
        check(start + stepped.at == whole.at, b"pieces are read as far")
        check(
            other.captured == record.captured and other.original == record.original
            and other.time_ns == record.time_ns and memcmp(other.packet, record.packet, record.captured) == 0,
            b"a packet in pieces is the same",
        )
        reached[CLASSIC_PACKETS] += whole.format == PCAP_CLASSIC
        reached[BLOCK_PACKETS] += whole.format == PCAP_NG
        reached[SIMPLE_PACKETS] += whole.format == PCAP_NG and record.time_ns == 0
        reached[BIG_ENDIAN] += whole.is_big
        reached[HEADERS_OFF] += whole.link_type not in (PCAP_ETHERNET, PCAP_RAW)
    check(pcap_next(&stepped, &other) == outcome == pcap_next(&whole, &record), b"the end is for good")
    check(start + stepped.at == whole.at or outcome == PCAP_MORE, b"pieces end where the whole does")
    check(pcap_may_end(&stepped) == pcap_may_end(&whole), b"a whole file is one in pieces")
    reached[PASSED_OVER] += whole.skipped
    if outcome == PCAP_MORE and pcap_may_end(&whole):
        reached[WHOLE_CAPTURES] += 1
    else:
        reached[OUTCOMES[-outcome]] += 1
    free(piece)
    free(data)


cdef void check_capture(const PcapRecord *record, const uint8_t *data, size_t size) noexcept nogil:
    """What was read can be written, and is the same then."""
    cdef int format
    cdef size_t room
    cdef size_t header
    cdef uint8_t *target
    cdef Cursor cursor
    cdef PcapRecord copy
    check(data <= record.packet < record.packet + record.captured <= data + size, b"a packet lies in the file")
    check(0 < record.captured <= record.original, b"a packet has no more than it had")
    for format in range(PCAP_CLASSIC, PCAP_NG + 1):
        if not pcap_holds(format, record.time_ns):
            continue
        header = PCAP_FILE_HEADER if format == PCAP_CLASSIC else PCAP_NG_HEADER
        room = header + pcap_record_size(format, record.captured)
        target = block_of(NULL, room)
        cursor_set(&cursor, target, room)
        check(pcap_write_header(&cursor, format, PCAP_RAW, 0) == header, b"a header has its size")
        check(
            header + pcap_write(
                &cursor, header, format, record.packet, <uint32_t> record.captured, <uint32_t> record.original,
                record.time_ns) == room,
            b"a record has its size",
        )
        check(not cursor.failed, b"what is written fits")
        pcap_begin(&again, 0)
        pcap_feed(&again, target, room)
        check(pcap_next(&again, &copy) == PCAP_PACKET, b"what is written is read")
        check(
            copy.captured == record.captured and copy.original == record.original
            and copy.time_ns == record.time_ns and memcmp(copy.packet, record.packet, copy.captured) == 0,
            b"what is read is what was written",
        )
        check(pcap_next(&again, &copy) == PCAP_MORE and pcap_may_end(&again), b"and nothing else")
        free(target)
        reached[REWRITTEN] += 1


# --- what libFuzzer calls ---

cdef public int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) noexcept nogil:
    cdef Input rest
    cdef uint8_t target
    cdef uint8_t options
    rest.data = data
    rest.size = size
    target = take8(&rest)
    if choose_summer(target >> 3 & 3) == NULL:
        choose_summer(0)
    if target & 64:
        if target & 3 == 0:
            fuzz_fix(&rest)
        elif target & 3 == 1:
            fuzz_build(&rest)
        else:
            fuzz_update(&rest)
        return 0
    if target & 32:
        fuzz_captures(&rest)
        return 0
    target &= 7
    if target == 0:
        fuzz_sums(&rest)
    elif target == 1:
        fuzz_headers(&rest)
    elif target == 2:
        fuzz_gso(&rest)
    elif target == 3:
        fuzz_records(&rest)
    elif target == 6:
        fuzz_rows(&rest)
    else:
        options = take8(&rest)
        if target == 4:
            fuzz_packets(&rest, options & 16, options & 14, options >> 5)
        else:
            fuzz_flows(&rest, PACKETS if target == 7 else FEW, options & 16, options & 14, options >> 5)
    return 0


cdef public void fuzz_report() noexcept nogil:
    """How often what was reached, for the runner to read."""
    cdef const char **names = [
        b"sums", b"layouts", b"refused", b"completed", b"split tcp4", b"split tcp6", b"split udp",
        b"right checksums", b"merged tcp4", b"merged tcp6", b"merged udp", b"merged frames", b"full windows",
        b"most datagrams", b"alone", b"same bytes", b"records", b"cut records", b"broken records", b"whole reads",
        b"rows of ipv4", b"rows of ipv6", b"rows of tcp", b"rows of udp", b"rows of echoes", b"rows of extensions",
        b"rows of fragments", b"rows of two tags", b"rows of padded", b"rows of truncated", b"rows of malformed",
        b"rows without ip",
        b"fixed tcp", b"fixed udp", b"fixed udplite", b"fixed icmp", b"fixed icmpv6", b"fixed in part", b"begun",
        b"updated", b"updated wrong ones", b"updated fragments", b"updated frames", b"not updated",
        b"built ipv4", b"built ipv6", b"built frames", b"built payloads", b"not built",
        b"classic packets", b"block packets", b"simple packets", b"big endian", b"headers off", b"passed over",
        b"rewritten", b"whole captures", b"torn captures", b"no captures", b"other versions", b"broken sizes",
        b"mismatches", b"broken options", b"no interfaces", b"late times", b"other links", b"other layers",
    ]
    for i in range(REACHABLE):
        fprintf(stderr, b"reached: %s %llu\n", names[i], <unsigned long long> reached[i])
