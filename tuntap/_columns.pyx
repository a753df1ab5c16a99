"""A batch in one pass: a block of packets becomes rows, and then each field of them goes to where it is wanted."""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_STRIDED, PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.errno cimport EMSGSIZE
from libc.stdint cimport int32_t, intptr_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tuntap._core cimport Slots
from tuntap._kernels.build cimport row_build
from tuntap._kernels.columns cimport *
from tuntap._kernels.rewrite cimport *
from tuntap._kernels.cursor cimport Cursor, cursor_set
from tuntap._kernels.virtio cimport VIRTIO_F_NEEDS_CSUM, VIRTIO_HEADER_SIZE, VirtioHeader, virtio_decode
from tuntap._os.native cimport LAYER_TAP, SlotView, slot_at, slot_length, slot_number

cdef enum:
    BLOCK = 32                    # rows that stay in the cache until they are moved

cdef Row example


cdef tuple field(str name, str kind, const void *at):
    return name, kind, <const uint8_t *> at - <const uint8_t *> &example


# Name, what numpy calls its type, and where it is within ROW_SIZE bytes.
FIELDS = (
    field("marks", "u2", &example.marks),
    field("length", "u4", &example.length),
    field("eth_src", "u8", &example.eth_src),
    field("eth_dst", "u8", &example.eth_dst),
    field("ethertype", "u2", &example.ethertype),
    field("vlan", "u2", &example.vlan),
    field("vlan_priority", "u1", &example.vlan_priority),
    field("vlan_inner", "u2", &example.vlan_inner),
    field("network_offset", "u2", &example.network_offset),
    field("version", "u1", &example.version),
    field("dscp", "u1", &example.dscp),
    field("ecn", "u1", &example.ecn),
    field("ip_length", "u4", &example.ip_length),
    field("ip_id", "u4", &example.ip_id),
    field("ip_flags", "u1", &example.ip_flags),
    field("fragment_offset", "u2", &example.fragment_offset),
    field("flow_label", "u4", &example.flow_label),
    field("ttl", "u1", &example.ttl),
    field("protocol", "u1", &example.protocol),
    field("src4", "u4", &example.src4),
    field("dst4", "u4", &example.dst4),
    field("src6", "16u1", &example.src6),
    field("dst6", "16u1", &example.dst6),
    field("transport_offset", "u2", &example.transport_offset),
    field("src_port", "u2", &example.src_port),
    field("dst_port", "u2", &example.dst_port),
    field("tcp_seq", "u4", &example.tcp_seq),
    field("tcp_ack", "u4", &example.tcp_ack),
    field("tcp_flags", "u2", &example.tcp_flags),
    field("tcp_window", "u2", &example.tcp_window),
    field("icmp_type", "u1", &example.icmp_type),
    field("icmp_code", "u1", &example.icmp_code),
    field("icmp_id", "u2", &example.icmp_id),
    field("icmp_seq", "u2", &example.icmp_seq),
    field("payload_offset", "u4", &example.payload_offset),
    field("payload_length", "u4", &example.payload_length),
    field("flow_hash", "u8", &example.flow_hash),
)
ROW_SIZE = sizeof(Row)

MARKS = {
    "IP": MARK_IP,
    "TRANSPORT": MARK_TRANSPORT,
    "FRAGMENT": MARK_FRAGMENT,
    "OPTIONS": MARK_OPTIONS,
    "TRUNCATED": MARK_TRUNCATED,
    "MALFORMED": MARK_MALFORMED,
    "VLAN": MARK_VLAN,
    "PADDED": MARK_PADDED,
}

# What `update_batch` writes, and what `build_batch` makes packets of.
UPDATABLE = {
    "eth_src": SET_ETH_SRC,
    "eth_dst": SET_ETH_DST,
    "vlan": SET_VLAN,
    "vlan_priority": SET_VLAN_PRIORITY,
    "dscp": SET_DSCP,
    "ecn": SET_ECN,
    "ip_id": SET_IP_ID,
    "flow_label": SET_FLOW_LABEL,
    "ttl": SET_TTL,
    "src4": SET_SRC4,
    "dst4": SET_DST4,
    "src6": SET_SRC6,
    "dst6": SET_DST6,
    "src_port": SET_SRC_PORT,
    "dst_port": SET_DST_PORT,
    "tcp_seq": SET_TCP_SEQ,
    "tcp_ack": SET_TCP_ACK,
    "tcp_flags": SET_TCP_FLAGS,
    "tcp_window": SET_TCP_WINDOW,
    "icmp_id": SET_ICMP_ID,
    "icmp_seq": SET_ICMP_SEQ,
}
BUILDABLE = {*UPDATABLE, "version", "protocol", "ip_flags", "icmp_type", "icmp_code", "payload_length"}

cdef dict PLACES = {name: (offset, 16 if kind == "16u1" else int(kind[1])) for name, kind, offset in FIELDS}
# FIELDS are in the order of headers: from here on, what is behind that of IP is looked at.
cdef list NAMES = [name for name, _, _ in FIELDS]
cdef set BEHIND_IP = {"marks", *NAMES[NAMES.index("transport_offset"):]}


cdef class Plan:
    """Where some of the fields are in a row, and in a row of the caller's."""

    def __cinit__(self, dict offsets, size_t itemsize=0):
        self.moves = <Move *> malloc(max(len(offsets), 1) * sizeof(Move))
        if self.moves == NULL:
            raise MemoryError()
        self.itemsize = itemsize
        self.is_all = itemsize == ROW_SIZE and len(offsets) == len(FIELDS)
        for name, offset in offsets.items():
            source, size = PLACES[name]
            self.moves[self.count].source = source
            self.moves[self.count].size = size
            self.moves[self.count].target = <uint8_t *> <size_t> offset
            self.moves[self.count].stride = 0
            self.count += 1
            self.is_all = self.is_all and source == offset
            if name in BEHIND_IP:
                self.wanted |= WANT_TRANSPORT
            if name == "flow_hash":
                self.wanted |= WANT_FLOW_HASH

    def __dealloc__(self):
        free(self.moves)


cdef class ColumnMemory:
    """One array for each field, held.

    Parameters
    ----------
    arrays : dict of str to array
        Arrays of the fields' types, whose shape has been checked.
    rows : int, optional
        How many rows there are to read, at most: an array of one row has the same in all.  By default the arrays are
        to be filled, as far as all of them go.
    """

    def __cinit__(self, dict arrays, Py_ssize_t rows=-1):
        cdef Py_buffer *buffer
        cdef int flags = PyBUF_STRIDED if rows < 0 else PyBUF_STRIDED_RO
        cdef int i
        self.plan = Plan(dict.fromkeys(arrays, 0))
        self.buffers = <Py_buffer *> malloc(max(len(arrays), 1) * sizeof(Py_buffer))
        if self.buffers == NULL:
            raise MemoryError()
        self.capacity = max(rows, 0)
        for i, (name, array) in enumerate(arrays.items()):
            buffer = &self.buffers[i]
            PyObject_GetBuffer(array, buffer, flags)
            self.count += 1
            if not holds(buffer, self.plan.moves[i].size):
                raise ValueError(f"{name}: not an array of this field")
            self.plan.moves[i].target = <uint8_t *> buffer.buf
            self.plan.moves[i].stride = buffer.strides[0]
            if rows < 0:
                self.capacity = buffer.shape[0] if i == 0 else min(self.capacity, buffer.shape[0])
            elif buffer.shape[0] == 1:
                self.plan.moves[i].stride = 0
            else:
                self.capacity = min(self.capacity, buffer.shape[0])

    def __dealloc__(self):
        for i in range(self.count):
            PyBuffer_Release(&self.buffers[i])
        free(self.buffers)


cdef bint holds(const Py_buffer *buffer, size_t size):
    """Whether each of its rows is this many bytes together."""
    if buffer.ndim == 2:
        return buffer.itemsize == 1 and buffer.strides[1] == 1 and <size_t> buffer.shape[1] == size
    return buffer.ndim == 1 and <size_t> buffer.itemsize == size


cdef void check_count(Slots batch, int count) except *:
    if not 0 <= count <= batch.view.capacity:
        raise ValueError(f"the batch has {batch.view.capacity} slots, not {count}")


def read_columns(Slots batch not None, int count, ColumnMemory memory not None, bint symmetric, uint64_t seed):
    """Fill as many rows of the columns from the first slots."""
    check_count(batch, count)
    if memory.capacity < count:
        raise ValueError(f"the columns have {memory.capacity} rows, the batch {count} packets")
    with nogil:
        fill(batch, count, memory.plan, memory.plan.moves, symmetric, seed)


def read_table(Slots batch not None, int count, array, Plan plan not None, bint symmetric, uint64_t seed):
    """Fill as many rows of a one-dimensional structured array, which the plan is made for, from the first slots."""
    cdef Py_buffer buffer
    cdef Move *moves = <Move *> malloc(max(plan.count, 1) * sizeof(Move))
    cdef int i
    if moves == NULL:
        raise MemoryError()
    try:
        check_count(batch, count)
        PyObject_GetBuffer(array, &buffer, PyBUF_STRIDED)
        try:
            if buffer.ndim != 1:
                raise ValueError(f"out must have 1 dimension, not {buffer.ndim}")
            if <size_t> buffer.itemsize != plan.itemsize:
                raise ValueError("not an array that this plan is for")
            if buffer.shape[0] < count:
                raise ValueError(f"the array has {buffer.shape[0]} rows, the batch {count} packets")
            for i in range(plan.count):
                moves[i] = plan.moves[i]
                moves[i].target = <uint8_t *> buffer.buf + <size_t> plan.moves[i].target
                moves[i].stride = buffer.strides[0]
            with nogil:
                fill(batch, count, plan, moves, symmetric, seed)
        finally:
            PyBuffer_Release(&buffer)
    finally:
        free(moves)


cdef inline size_t packet_size(const SlotView *slots, int i) noexcept nogil:
    """The lengths are the caller's, and may say anything."""
    return <size_t> min(max(slot_length(slots, i), 0), slots.slot_size)


cdef void fill(Slots batch, int count, Plan plan, const Move *moves, bint symmetric, uint64_t seed) noexcept nogil:
    cdef Row rows[BLOCK]
    cdef SlotView *slots = &batch.view
    cdef bint is_frame = batch.link_layer == LAYER_TAP
    cdef int wanted = plan.wanted | (WANT_SYMMETRIC if symmetric else 0)
    cdef int start = 0
    cdef int size = 0
    cdef int i
    while start < count:
        size = min(count - start, <int> BLOCK)
        rows_clear(rows, size)
        for i in range(size):
            row_read(
                slot_at(slots, start + i), packet_size(slots, start + i), is_frame, wanted, seed, &rows[i])
        if plan.is_all and moves[0].stride == <intptr_t> sizeof(Row):
            memcpy(moves[0].target - moves[0].source + start * sizeof(Row), rows, size * sizeof(Row))
        else:
            for i in range(plan.count):
                move_field(rows, size, &moves[i], start)
        start += size


cdef void move_field(const Row *rows, int count, const Move *move, int start) noexcept nogil:
    """One field of all the rows, a copy of a size that the compiler knows."""
    cdef const uint8_t *source = <const uint8_t *> rows + move.source
    cdef uint8_t *target = move.target + start * move.stride
    cdef intptr_t stride = move.stride
    cdef int i
    if move.size == 1:
        for i in range(count):
            target[i * stride] = source[i * sizeof(Row)]
    elif move.size == 2:
        for i in range(count):
            memcpy(target + i * stride, source + i * sizeof(Row), 2)
    elif move.size == 4:
        for i in range(count):
            memcpy(target + i * stride, source + i * sizeof(Row), 4)
    elif move.size == 8:
        for i in range(count):
            memcpy(target + i * stride, source + i * sizeof(Row), 8)
    else:
        for i in range(count):
            memcpy(target + i * stride, source + i * sizeof(Row), 16)


# --- from the caller's columns to packets ---

cdef inline void take_row(Row *row, Plan plan, Py_ssize_t index) noexcept nogil:
    """The fields of one of the caller's rows."""
    cdef const Move *move = plan.moves
    cdef const Move *end = move + plan.count
    while move < end:
        memcpy(<uint8_t *> row + move.source, move.target + index * move.stride, move.size)
        move += 1


cdef inline size_t unfinished_checksum(const SlotView *slots, int i) noexcept nogil:
    """Where in a packet the checksum is that its virtio-net header leaves to a device; 0 if there is none."""
    cdef Cursor cursor
    cdef VirtioHeader header
    if slots.headers == NULL:
        return 0
    cursor_set(&cursor, slots.headers + slot_number(slots, i) * <size_t> VIRTIO_HEADER_SIZE, VIRTIO_HEADER_SIZE)
    virtio_decode(&cursor, &header)
    return <size_t> header.csum_start + header.csum_offset if header.flags & VIRTIO_F_NEEDS_CSUM else 0


def fix_batch(Slots batch not None, bytes chosen):
    """Make the checksums of packets right, of all or of those with these numbers (int32); how many are now."""
    cdef SlotView slots
    cdef int count = batch.arrange(batch.used, chosen, &slots)
    cdef bint is_frame = batch.link_layer == LAYER_TAP
    cdef int done = 0
    cdef int i
    with nogil:
        for i in range(count):
            done += fix_checksums(
                slot_at(&slots, i), packet_size(&slots, i), is_frame, unfinished_checksum(&slots, i))
    return done


def update_batch(Slots batch not None, ColumnMemory memory not None, uint32_t fields, bytes chosen):
    """Write `fields`, those of the columns, into packets chosen as for `fix_batch`; how many have taken them."""
    cdef SlotView slots
    cdef int count = batch.arrange(batch.used, chosen, &slots)
    cdef bint is_frame = batch.link_layer == LAYER_TAP
    cdef Row row
    cdef int done = 0
    cdef int i
    for i in range(count):
        if slot_number(&slots, i) >= memory.capacity:
            raise ValueError(f"the columns have {memory.capacity} rows, none for packet {slot_number(&slots, i)}")
    with nogil:
        for i in range(count):
            take_row(&row, memory.plan, slot_number(&slots, i))
            done += row_update(
                slot_at(&slots, i), packet_size(&slots, i), is_frame, unfinished_checksum(&slots, i), fields, &row)
    return done


def build_batch(Slots batch not None, ColumnMemory memory not None, payload, bint has_tag):
    """Make a packet of each row, with the first `payload_length` bytes of a row of the payload.

    That is an array of uint8 of shape (rows or 1, bytes), or None for zeros.  Answers what went wrong with packet
    number `batch.count`: -errno, or 0 if all were made.
    """
    cdef Py_buffer buffer
    cdef SlotView *slots = &batch.view
    cdef const uint8_t *bytes_of = NULL
    cdef intptr_t stride = 0
    cdef size_t largest = 0xffff
    cdef bint is_frame = batch.link_layer == LAYER_TAP
    cdef Row row
    cdef int count = <int> memory.capacity
    cdef int made = 0
    cdef intptr_t size = 0
    if memory.capacity > slots.capacity:
        raise ValueError(f"{memory.capacity} packets do not fit a batch of {slots.capacity}")
    memset(&buffer, 0, sizeof(Py_buffer))
    if payload is not None:
        PyObject_GetBuffer(payload, &buffer, PyBUF_C_CONTIGUOUS)
    try:
        if payload is not None:
            if buffer.ndim != 2 or buffer.itemsize != 1 or buffer.shape[0] not in (1, count):
                raise ValueError("the payload is not an array that these rows are for")
            bytes_of = <const uint8_t *> buffer.buf
            stride = buffer.strides[0] if buffer.shape[0] > 1 else 0
            largest = <size_t> buffer.shape[1]
        batch.used = 0
        slots.cuts = 0
        with nogil:
            while made < count:
                rows_clear(&row, 1)
                take_row(&row, memory.plan, made)
                size = -EMSGSIZE if row.payload_length > largest else row_build(
                    slots.data + made * slots.stride, <size_t> slots.slot_size, is_frame, has_tag, &row,
                    bytes_of + made * stride if bytes_of != NULL else NULL, row.payload_length)
                if size < 0:
                    break
                slots.lengths[made] = <int32_t> size
                made += 1
            if slots.headers != NULL:
                memset(slots.headers, 0, made * <size_t> VIRTIO_HEADER_SIZE)
    finally:
        PyBuffer_Release(&buffer)
    batch.used = made
    return min(size, 0)
