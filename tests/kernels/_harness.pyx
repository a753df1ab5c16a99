"""Every kernel, callable from a test.

Built once per session by build_harness.py against the compiled package, so the ordinary suite runs
the very kernels that are shipped.  Packet bytes are copied to a block of their own with nothing
behind it, so that a sanitizer sees the first byte outside; with `guard` there are that many bytes of
0xA5 on either side instead, and the answer says whether they are still there.
"""
import sys

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tuntap._kernels cimport bpf, build, columns, gro, gso, pcap, rewrite, virtio
from tuntap._kernels.checksum cimport checksum_update, copy_sum, sum_bytes, sum_pseudo_header
from tuntap._kernels.checksum cimport choose_summer as choose
from tuntap._kernels.checksum cimport fold as fold_sum
from tuntap._kernels.cursor cimport (
    Cursor, cursor_set, get8, get16, get16_little, get32, get32_little, put8, put16, put16_little, put32, put32_little,
)
from tuntap._kernels.cursor cimport span as cursor_span

from tuntap._columns import FIELDS, UPDATABLE

cdef enum:
    GUARD = 0xA5

VIRTIO_CONSTANTS = {
    "VIRTIO_HEADER_SIZE": virtio.VIRTIO_HEADER_SIZE,
    "VIRTIO_F_NEEDS_CSUM": virtio.VIRTIO_F_NEEDS_CSUM,
    "VIRTIO_F_DATA_VALID": virtio.VIRTIO_F_DATA_VALID,
    "VIRTIO_GSO_NONE": virtio.VIRTIO_GSO_NONE,
    "VIRTIO_GSO_TCPV4": virtio.VIRTIO_GSO_TCPV4,
    "VIRTIO_GSO_UDP": virtio.VIRTIO_GSO_UDP,
    "VIRTIO_GSO_TCPV6": virtio.VIRTIO_GSO_TCPV6,
    "VIRTIO_GSO_UDP_L4": virtio.VIRTIO_GSO_UDP_L4,
    "VIRTIO_GSO_ECN": virtio.VIRTIO_GSO_ECN,
}


cdef class Block:
    """Bytes with nothing behind them, or with guards on both sides."""
    cdef uint8_t *memory
    cdef uint8_t *data
    cdef size_t size
    cdef size_t guard

    def __cinit__(self, bytes content, size_t guard=0):
        self.size = <size_t> len(content)
        self.guard = guard
        self.memory = <uint8_t *> malloc(self.size + 2 * guard)
        if self.memory == NULL:
            raise MemoryError()
        memset(self.memory, GUARD, self.size + 2 * guard)
        self.data = self.memory + guard
        memcpy(self.data, <const char *> content, self.size)

    def __dealloc__(self):
        free(self.memory)

    cdef bytes content(self):
        return (<char *> self.data)[:self.size]

    cdef bint intact(self):
        cdef size_t i
        for i in range(self.guard):
            if self.memory[i] != GUARD or self.data[self.size + i] != GUARD:
                return False
        return True


def span(bytes data, size_t offset, size_t size):
    """Where the span starts, or None; and `failed`."""
    cdef Block block = Block(data)
    cdef Cursor cursor
    cursor_set(&cursor, block.data, block.size)
    cdef uint8_t *at = cursor_span(&cursor, offset, size)
    return None if at == NULL else at - block.data, bool(cursor.failed)


def read(int width, bytes data, size_t offset, bint failed=False, bint is_little=False):
    """The value, and `failed` after a read that began with `failed` as given."""
    cdef Block block = Block(data)
    cdef Cursor cursor
    cdef uint32_t value
    cursor_set(&cursor, block.data, block.size)
    cursor.failed = failed
    if width == 1:
        value = get8(&cursor, offset)
    elif width == 2:
        value = get16_little(&cursor, offset) if is_little else get16(&cursor, offset)
    else:
        value = get32_little(&cursor, offset) if is_little else get32(&cursor, offset)
    return value, bool(cursor.failed)


def write(int width, bytes data, size_t offset, uint32_t value, size_t guard=0, bint is_little=False):
    """The bytes afterwards, `failed`, and whether nothing else was written to."""
    cdef Block block = Block(data, guard)
    cdef Cursor cursor
    cursor_set(&cursor, block.data, block.size)
    if width == 1:
        put8(&cursor, offset, <uint8_t> value)
    elif width == 2 and is_little:
        put16_little(&cursor, offset, <uint16_t> value)
    elif width == 2:
        put16(&cursor, offset, <uint16_t> value)
    elif is_little:
        put32_little(&cursor, offset, value)
    else:
        put32(&cursor, offset, value)
    return block.content(), bool(cursor.failed), block.intact()


def checksum_sum(bytes data, size_t offset=0, uint64_t initial=0):
    """The sum of data[offset:], at an address `offset` behind an aligned one."""
    cdef Block block = Block(data)
    return sum_bytes(block.data + offset, block.size - offset, initial)


def checksum_copy(bytes data, size_t offset=0, uint64_t initial=0, size_t guard=0):
    """The sum of data[offset:], the copy made of it, `guard` bytes behind an aligned address, and
    whether nothing else was written to."""
    cdef Block block = Block(data)
    cdef Block target = Block(bytes(block.size - offset), guard)
    cdef uint64_t total = copy_sum(target.data, block.data + offset, target.size, initial)
    return total, target.content(), target.intact()


def choose_summer(int index):
    """Its name, or None if this CPU has not so many; all sums are made with it until the next call."""
    cdef const char *name = choose(index)
    return None if name == NULL else name.decode()


def fold(uint64_t total):
    return fold_sum(total)


def update(uint16_t checksum, uint16_t before, uint16_t after):
    return checksum_update(checksum, before, after)


def pseudo_header(bytes packet, uint8_t protocol, uint32_t length):
    """The sum, and `failed`."""
    cdef Block block = Block(packet)
    cdef Cursor cursor
    cursor_set(&cursor, block.data, block.size)
    cdef uint64_t total = sum_pseudo_header(&cursor, protocol, length)
    return total, bool(cursor.failed)


def virtio_decode(bytes data):
    """The result, and the six fields (as they were before, all 0xA5, if there was an error)."""
    cdef Block block = Block(data)
    cdef Cursor cursor
    cdef virtio.VirtioHeader header
    memset(&header, GUARD, sizeof(header))
    cursor_set(&cursor, block.data, block.size)
    cdef int result = virtio.virtio_decode(&cursor, &header)
    return result, (
        header.flags, header.gso_type, header.hdr_len, header.gso_size, header.csum_start, header.csum_offset)


def virtio_encode(bytes data, fields, size_t guard=0):
    """The result, the bytes afterwards, and whether nothing else was written to."""
    cdef Block block = Block(data, guard)
    cdef Cursor cursor
    cdef virtio.VirtioHeader header
    (
        header.flags, header.gso_type, header.hdr_len, header.gso_size, header.csum_start, header.csum_offset
    ) = fields
    cursor_set(&cursor, block.data, block.size)
    cdef int result = virtio.virtio_encode(&cursor, &header)
    return result, block.content(), block.intact()


cdef virtio.VirtioHeader header_of(bytes header):
    cdef virtio.VirtioHeader fields
    cdef Cursor cursor
    memset(&fields, 0, sizeof(fields))
    cursor_set(&cursor, <const uint8_t *> <const char *> header, <size_t> len(header))
    virtio.virtio_decode(&cursor, &fields)
    return fields


def gso_split(bytes packet, bytes header, room=None, size_t guard=0, bint is_frame=False, bint with_checksum=True):
    """(The result, the segments, or as much of each as `room` bytes hold, and whether nothing else changed)."""
    cdef Block block = Block(packet)
    cdef Block target
    cdef gso.Split split
    cdef Cursor cursor
    cdef virtio.VirtioHeader fields = header_of(header)
    cdef bint intact = True
    cdef int i
    cursor_set(&cursor, block.data, block.size)
    cdef int result = gso.gso_begin(&split, &cursor, &fields, is_frame, with_checksum)
    segments = []
    for i in range(max(result, 0)):
        target = Block(bytes(gso.gso_size(&split, i) if room is None else room), guard)
        cursor_set(&cursor, target.data, target.size)
        gso.gso_write(&split, i, &cursor)
        intact = intact and target.intact()
        segments.append(target.content())
    return result, segments, intact and block.content() == packet


def gso_complete(bytes packet, bytes header, size_t guard=0):
    """The result, the packet afterwards, and whether nothing else was written to."""
    cdef Block block = Block(packet, guard)
    cdef Cursor cursor
    cdef virtio.VirtioHeader fields = header_of(header)
    cursor_set(&cursor, block.data, block.size)
    cdef int result = gso.gso_complete(&cursor, &fields)
    return result, block.content(), block.intact()


def gro_coalesce(packets, uint32_t types=14, bint is_frame=False, bint trusted=False, bint renumber=False):
    """Windows of items: each (indices of its packets, header or None, bytes), every packet a block of its own."""
    cdef gro.Window *window = <gro.Window *> malloc(sizeof(gro.Window))
    cdef gro.Item *item
    cdef Block block
    cdef Block headers = Block(bytes(gro.GRO_HEADERS_MAX))
    cdef Block encoded = Block(bytes(virtio.VIRTIO_HEADER_SIZE))
    cdef virtio.VirtioHeader fields
    cdef Cursor cursor
    cdef size_t size
    cdef int i
    cdef int packet
    blocks = [Block(bytes(content)) for content in packets]
    windows = []
    taken = 0
    try:
        while taken < len(blocks):
            gro.gro_begin(window, types, is_frame, trusted, renumber)
            for i in range(taken, len(blocks)):
                block = blocks[i]
                if gro.gro_add(window, block.data, block.size) < 0:
                    break
            items = []
            for i in range(window.items):
                item = &window.item[i]
                cursor_set(&cursor, headers.data, headers.size)
                size = gro.gro_headers(window, item, &fields, &cursor)
                cursor_set(&cursor, encoded.data, encoded.size)
                virtio.virtio_encode(&cursor, &fields)
                content = headers.content()[:size]
                indices = []
                packet = item.first
                while packet >= 0:
                    block = blocks[taken + packet]
                    content += block.content()[size:]
                    indices.append(taken + packet)
                    packet = window.next[packet]
                items.append((indices, encoded.content() if size else None, content))
            windows.append(items)
            if window.packets == 0:
                raise AssertionError("an empty window")
            taken += window.packets
    finally:
        free(window)
    return windows


def bpf_walk(bytes data, size_t timestamp_size, size_t alignment):
    """((where its packet is, the packet, its original size, seconds, microseconds) of each record, the result)."""
    cdef Block block = Block(data)
    cdef bpf.BpfWalk walk
    cdef bpf.BpfRecord record
    cdef size_t before = 0
    bpf.bpf_begin(&walk, block.data, block.size, timestamp_size, alignment)
    records = []
    cdef int result = bpf.bpf_next(&walk, &record)
    while result > 0:
        if not before < walk.at <= block.size:
            raise AssertionError("a record without an end")
        before = walk.at
        records.append((
            record.packet - block.data, (<const char *> record.packet)[:record.captured], record.original,
            record.seconds, record.microseconds))
        result = bpf.bpf_next(&walk, &record)
    if bpf.bpf_next(&walk, &record) != result:
        raise AssertionError("the end is not for good")
    return records, result


def columns_row(bytes data, bint is_frame=False, int wanted=3, uint64_t seed=0, size_t guard=0):
    """The bytes of the row, and whether nothing was written to."""
    cdef Block block = Block(data, guard)
    cdef columns.Row row
    memset(&row, 0, sizeof(row))
    columns.row_read(block.data, block.size, is_frame, wanted, seed, &row)
    return (<char *> &row)[:sizeof(row)], block.content() == data and block.intact()


# --- rewrite, build ---

cdef void set_row(columns.Row *row, dict fields):
    """The fields by name, numbers or the 16 bytes of an address, everything else zero."""
    cdef bytes value
    memset(row, 0, sizeof(columns.Row))
    for name, kind, offset in FIELDS:
        if name in fields:
            value = fields[name] if kind == "16u1" else int(fields[name]).to_bytes(int(kind[1]), sys.byteorder)
            memcpy(<uint8_t *> row + <size_t> offset, <const char *> value, <size_t> len(value))


def rewrite_fix(bytes packet, bint is_frame=False, size_t unfinished=0, size_t guard=0):
    """The result, the packet afterwards, and whether nothing else was written to."""
    cdef Block block = Block(packet, guard)
    cdef bint result = rewrite.fix_checksums(block.data, block.size, is_frame, unfinished)
    return result, block.content(), block.intact()


def rewrite_update(bytes packet, dict fields, bint is_frame=False, size_t unfinished=0, size_t guard=0):
    """The result, the packet afterwards, and whether nothing else was written to."""
    cdef Block block = Block(packet, guard)
    cdef columns.Row row
    cdef uint32_t chosen = 0
    set_row(&row, fields)
    for name in fields:
        chosen |= UPDATABLE[name]
    cdef bint result = rewrite.row_update(block.data, block.size, is_frame, unfinished, chosen, &row)
    return result, block.content(), block.intact()


def row_build(
    dict fields, payload, size_t size, size_t room, bint is_frame=False, bint has_tag=False, size_t guard=0,
):
    """The result, all the room afterwards (0xA5 before), and whether nothing else was written to."""
    cdef Block source = Block(payload or b"")
    cdef Block target = Block(bytes([GUARD]) * room, guard)
    cdef columns.Row row
    set_row(&row, fields)
    result = build.row_build(
        target.data, target.size, is_frame, has_tag, &row, source.data if payload is not None else NULL, size)
    return result, target.content(), target.intact()


# --- pcap ---

PCAP_OUTCOMES = {
    pcap.PCAP_MORE: "more",
    pcap.PCAP_NO_CAPTURE: "NO_CAPTURE",
    pcap.PCAP_VERSION: "VERSION",
    pcap.PCAP_SIZE: "SIZE",
    pcap.PCAP_MISMATCH: "MISMATCH",
    pcap.PCAP_OPTION: "OPTION",
    pcap.PCAP_INTERFACE: "INTERFACE",
    pcap.PCAP_CROWD: "CROWD",
    pcap.PCAP_TIME: "TIME",
    pcap.PCAP_LINK_TYPE: "LINK_TYPE",
    pcap.PCAP_LAYER: "LAYER",
}
PCAP_FORMATS = {"pcap": pcap.PCAP_CLASSIC, "pcapng": pcap.PCAP_NG}


def pcap_walk(bytes data, int layer=0, size_t step=0):
    """((packet, original size, time) of each, how many were skipped, the outcome) of a file fed in steps."""
    cdef pcap.PcapWalk *walk = <pcap.PcapWalk *> malloc(sizeof(pcap.PcapWalk))
    cdef pcap.PcapRecord record
    cdef Block block
    cdef size_t fed = 0
    cdef int result = pcap.PCAP_MORE
    packets = []
    pcap.pcap_begin(walk, layer)
    rest = b""
    try:
        while True:
            piece = data[fed:fed + step] if step else data[fed:]
            fed += <size_t> len(piece)
            block = Block(rest + piece)
            pcap.pcap_feed(walk, block.data, block.size)
            result = pcap.pcap_next(walk, &record)
            while result == pcap.PCAP_PACKET:
                if not record.at < walk.at <= block.size or not 1 <= record.captured <= record.original:
                    raise AssertionError("a record without an end")
                packets.append(((<const char *> record.packet)[:record.captured], record.original, record.time_ns))
                result = pcap.pcap_next(walk, &record)
            if pcap.pcap_next(walk, &record) != result:
                raise AssertionError("the end is not for good")
            rest = block.content()[walk.at:]
            if result < 0 or not piece:
                break
        if result == pcap.PCAP_MORE and pcap.pcap_may_end(walk):
            return packets, walk.skipped, "end"
        return packets, walk.skipped, PCAP_OUTCOMES[result]
    finally:
        free(walk)


def pcap_header(str form, uint16_t link_type, uint32_t snap_length, room=100):
    """The beginning of a file, as much as `room` holds, whether it held all, and whether nothing else changed."""
    cdef Block block = Block(bytes(room), 16)
    cdef Cursor cursor
    cursor_set(&cursor, block.data, block.size)
    cdef size_t size = pcap.pcap_write_header(&cursor, PCAP_FORMATS[form], link_type, snap_length)
    return block.content()[:size], not cursor.failed, block.intact()


def pcap_write(str form, bytes packet, int64_t time_ns, uint32_t original, room=None, size_t at=0):
    """What was written, of which size the kernel says it is, and whether nothing else was written to."""
    cdef Block source = Block(packet)
    cdef Cursor cursor
    cdef size_t size = pcap.pcap_record_size(PCAP_FORMATS[form], source.size)
    cdef Block target = Block(bytes(size + at if room is None else room), 16)
    cursor_set(&cursor, target.data, target.size)
    cdef size_t written = pcap.pcap_write(
        &cursor, at, PCAP_FORMATS[form], source.data, <uint32_t> source.size, original, time_ns)
    return target.content()[at:at + written], size, not cursor.failed, target.intact()


def pcap_holds(str form, int64_t time_ns):
    return bool(pcap.pcap_holds(PCAP_FORMATS[form], time_ns))
