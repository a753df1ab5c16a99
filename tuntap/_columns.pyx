"""A batch in one pass: a block of packets becomes rows, and then each field of them goes to where it is wanted."""
from cpython.buffer cimport (
    PyBUF_STRIDED, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport int32_t, intptr_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tuntap._core cimport Slots
from tuntap._kernels.columns cimport *
from tuntap._os.native cimport LAYER_TAP, SlotView

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

cdef dict PLACES = {name: (offset, 16 if kind == "16u1" else int(kind[1])) for name, kind, offset in FIELDS}
# Fields for which nothing behind the IP header is looked at.
cdef set WITHOUT_TRANSPORT = {
    "length", "eth_src", "eth_dst", "ethertype", "vlan", "vlan_priority", "vlan_inner", "network_offset", "version",
    "dscp", "ecn", "ip_length", "ip_id", "ip_flags", "fragment_offset", "flow_label", "ttl", "protocol",
    "src4", "dst4", "src6", "dst6",
}


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
            self.moves[self.count].target = <uint8_t *> NULL + <size_t> offset
            self.moves[self.count].stride = 0
            self.count += 1
            self.is_all = self.is_all and source == offset
            if name not in WITHOUT_TRANSPORT:
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
        Writable arrays of the fields' types, whose shape has been checked.
    """

    def __cinit__(self, dict arrays):
        cdef Py_buffer *buffer
        cdef int i
        self.plan = Plan(dict.fromkeys(arrays, 0))
        self.buffers = <Py_buffer *> malloc(max(len(arrays), 1) * sizeof(Py_buffer))
        if self.buffers == NULL:
            raise MemoryError()
        for i, (name, array) in enumerate(arrays.items()):
            buffer = &self.buffers[i]
            PyObject_GetBuffer(array, buffer, PyBUF_STRIDED | PyBUF_WRITABLE)
            self.count += 1
            if not holds(buffer, self.plan.moves[i].size):
                raise ValueError(f"{name}: not an array of this field")
            self.plan.moves[i].target = <uint8_t *> buffer.buf
            self.plan.moves[i].stride = buffer.strides[0]
            self.capacity = buffer.shape[0] if i == 0 else min(self.capacity, buffer.shape[0])

    def __dealloc__(self):
        for i in range(self.count):
            PyBuffer_Release(&self.buffers[i])
        free(self.buffers)


cdef bint holds(const Py_buffer *buffer, size_t size):
    """Whether each of its rows is this many bytes together."""
    if buffer.ndim == 2:
        return buffer.itemsize == 1 and buffer.strides[1] == 1 and <size_t> buffer.shape[1] == size
    return buffer.ndim == 1 and <size_t> buffer.itemsize == size


def read_columns(Slots batch not None, ColumnMemory memory not None, bint symmetric, uint64_t seed):
    """Fill the first `batch.count` rows of the columns."""
    cdef int count = batch.used   # once: another thread may be at the batch
    if memory.capacity < count:
        raise ValueError(f"the columns have {memory.capacity} rows, the batch {count} packets")
    with nogil:
        fill(batch, count, memory.plan, memory.plan.moves, symmetric, seed)


def read_table(Slots batch not None, array, Plan plan not None, bint symmetric, uint64_t seed):
    """Fill the first `batch.count` rows of a one-dimensional structured array, which the plan is made for."""
    cdef Py_buffer buffer
    cdef Move *moves = <Move *> malloc(max(plan.count, 1) * sizeof(Move))
    cdef int count = batch.used
    cdef int i
    if moves == NULL:
        raise MemoryError()
    try:
        PyObject_GetBuffer(array, &buffer, PyBUF_STRIDED | PyBUF_WRITABLE)
        try:
            if buffer.ndim != 1 or <size_t> buffer.itemsize != plan.itemsize:
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


cdef void fill(Slots batch, int count, Plan plan, const Move *moves, bint symmetric, uint64_t seed) noexcept nogil:
    cdef Row rows[BLOCK]
    cdef SlotView *slots = &batch.view
    cdef bint is_frame = batch.link_layer == LAYER_TAP
    cdef int wanted = plan.wanted | (WANT_SYMMETRIC if symmetric else 0)
    cdef int32_t length
    cdef int start = 0
    cdef int size = 0
    cdef int i
    while start < count:
        size = min(count - start, <int> BLOCK)
        memset(rows, 0, size * sizeof(Row))
        for i in range(size):
            # The arrays are the caller's, and may say anything.
            length = min(max((<volatile int32_t *> slots.lengths)[start + i], 0), slots.slot_size)
            row_read(slots.data + (start + i) * slots.stride, <size_t> length, is_frame, wanted, seed, &rows[i])
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
