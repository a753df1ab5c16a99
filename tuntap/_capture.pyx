"""The joint of captures: batches and the files they are written to and read from (tuntap.capture).

Whole batches are encoded and decoded without the GIL.  Files are called here and not in Python, where a signal
handler could raise between a call and the note of what it has moved.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, int64_t, intptr_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

from tuntap._core cimport Slots
from tuntap._kernels.cursor cimport Cursor, cursor_set
from tuntap._kernels.pcap cimport *
from tuntap._kernels.virtio cimport VIRTIO_HEADER_SIZE
from tuntap._os.lock cimport give, lock_init, take
from tuntap._os.native cimport SlotView, slot_at, slot_cut, slot_length, slot_number

import errno
import io

from tuntap._errors import PacketError, UnsupportedError

cdef enum:
    READ_SIZE = 1 << 18           # bytes that are asked for at once, few enough for a cache

cdef dict FORMATS = {"pcap": PCAP_CLASSIC, "pcapng": PCAP_NG}
PACKET_MAX = PCAP_PACKET_MAX

cdef dict BROKEN = {
    PCAP_NO_CAPTURE: "is the beginning of no pcap or pcapng file; one that is compressed is opened with gzip.open()",
    PCAP_SIZE: "has a size that nothing there can have",
    PCAP_MISMATCH: "is the end of a block with another size than in front",
    PCAP_OPTION: "has an option that does not fit it",
    PCAP_INTERFACE: "belongs to an interface that is not described",
    PCAP_TIME: "has a time that 64 bits of nanoseconds do not hold",
}
cdef dict UNSUPPORTED = {
    PCAP_VERSION: "is of a version of the format that is not known here",
    PCAP_CROWD: f"is one interface more than the {PCAP_INTERFACES} there may be",
    PCAP_LINK_TYPE: "has neither Ethernet frames nor IP packets",
    PCAP_LAYER: "is an IP packet among frames, or the reverse; Reader(..., layer=3) takes the IP packets of both",
}


cdef class Column:
    """The numbers of an array of int64: `count` of them, or one for all."""

    def __cinit__(self, array, Py_ssize_t count, bint is_target=False):
        cdef Py_ssize_t size
        PyObject_GetBuffer(array, &self.buffer, PyBUF_WRITABLE if is_target else PyBUF_SIMPLE)
        size = self.buffer.len // <Py_ssize_t> sizeof(int64_t)
        self.step = 0 if size == 1 else 1
        if size < (count if is_target or self.step else 1):
            raise ValueError(f"an array of {size} numbers for {count} packets")

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)


cdef class Capture:
    """What one thread at a time may use."""

    def __cinit__(self, *unused):
        lock_init(&self.lock)

    cdef int enter(self) except -1:
        cdef bint is_busy
        take(&self.lock)
        is_busy = self.is_busy
        self.is_busy = True
        give(&self.lock)
        if is_busy:
            raise RuntimeError("another thread, or what a signal has interrupted, uses this capture")
        return 0


cdef class Output(Capture):
    """A file that batches are written to; see `tuntap.capture.Writer`."""

    def __cinit__(self, file, str form, int layer, uint32_t snap_length):
        cdef Cursor target
        self.file = file
        raw = getattr(file, "raw", None)
        if isinstance(raw, io.RawIOBase):
            # A buffer that is interrupted does not tell how much of what it was given it has passed on.
            self.file, self.front = raw, file
        self.is_raw = isinstance(self.file, io.RawIOBase)
        self.format = FORMATS[form]
        self.layer = layer
        self.snap_length = snap_length
        self.memory = bytearray(PCAP_NG_HEADER)
        cursor_set(&target, <uint8_t *> PyByteArray_AS_STRING(self.memory), PCAP_NG_HEADER)
        self.end = pcap_write_header(
            &target, self.format, PCAP_ETHERNET if layer == 2 else PCAP_RAW, snap_length)

    def start(self):
        """Write the header of the file."""
        self.enter()
        try:
            self.put()
        finally:
            self.is_busy = False

    def write(self, Slots batch not None, times, originals, bytes order):
        """How many packets of a batch were written: those whose numbers `order` has, as int32, or all."""
        cdef SlotView slots
        cdef int count = batch.used
        cdef Column time_of = Column(times, count)
        cdef Column original_of = None if originals is None else Column(originals, count)
        if batch.link_layer != self.layer:
            raise ValueError(
                f"the layer of the batch is {batch.link_layer}, and that of the capture {self.layer}: frames go to a "
                "Writer(..., layer=2), and a batch that was filled with frames says so by batch.layer = 2")
        count = batch.arrange(count, order, &slots)
        self.enter()
        try:
            return self.encode(&slots, count, <int64_t *> time_of.buffer.buf, time_of.step, original_of)
        finally:
            self.is_busy = False

    def write_packet(self, packet, int64_t time_ns):
        cdef SlotView slot
        cdef Py_buffer buffer
        cdef int32_t length
        PyObject_GetBuffer(packet, &buffer, PyBUF_SIMPLE)
        try:
            if buffer.len > 0x3fffffff:
                raise ValueError(f"a packet of {buffer.len} bytes")
            length = <int32_t> buffer.len
            slot.data = <uint8_t *> buffer.buf
            slot.stride = 0
            slot.slot_size = length
            slot.lengths = &length
            slot.order = NULL
            self.enter()
            try:
                self.encode(&slot, 1, &time_ns, 0, None)
            finally:
                self.is_busy = False
        finally:
            PyBuffer_Release(&buffer)

    def finish(self):
        """Write what a file did not take when it was interrupted."""
        self.enter()
        try:
            self.drain()
        finally:
            self.is_busy = False

    cdef int encode(
        self, SlotView *slots, int count, const int64_t *times, Py_ssize_t step, Column originals,
    ) except -1:
        cdef Cursor target
        cdef int32_t length
        cdef uint32_t captured
        cdef int64_t original
        cdef size_t size
        cdef int i = 0
        cdef intptr_t number
        self.drain()
        cursor_set(&target, NULL, 0)
        while True:
            # The first time nothing is written, for there is no room, and then there is as much as that took.
            size = 0
            number = 0
            with nogil:
                for i in range(count):
                    number = slot_number(slots, i)
                    length = slot_length(slots, i)
                    if not 1 <= length <= slots.slot_size or not pcap_holds(self.format, times[number * step]):
                        break
                    captured = min(<uint32_t> length, self.snap_length)
                    original = length
                    if originals is not None:
                        original = max((<int64_t *> originals.buffer.buf)[number * originals.step], original)
                    if target.data != NULL:
                        pcap_write(
                            &target, size, self.format, slot_at(slots, i), captured,
                            <uint32_t> min(original, <int64_t> 0xffffffff), times[number * step])
                    size += pcap_record_size(self.format, captured)
                else:
                    i = count
            if i < count:
                raise unwritable(number, slots.lengths[number], slots.slot_size, times[number * step])
            if target.data != NULL or size == 0:
                break
            if len(self.memory) < <Py_ssize_t> size:
                self.memory = bytearray(size)
            cursor_set(&target, <uint8_t *> PyByteArray_AS_STRING(self.memory), size)
        if target.failed:
            raise RuntimeError("another thread changed the lengths of the batch")
        self.end = size
        self.put()
        return count

    cdef int put(self) except -1:
        """Pass on what was encoded."""
        try:
            if self.front is not None:
                self.front.flush()
            self.drain()
        except BaseException:
            self.undo()
            raise
        return 0

    cdef int drain(self) except -1:
        while self.at < self.end:
            taken = self.file.write(memoryview(self.memory)[self.at:self.end])
            if not self.is_raw:
                break
            if taken is None:
                raise BlockingIOError(errno.EAGAIN, "the file takes no more now")
            if not 0 < taken <= self.end - self.at:
                raise OSError(errno.EIO, f"the file took {taken} of {self.end - self.at} bytes")
            self.at += <Py_ssize_t> taken
            if self.at < self.end:
                PyErr_CheckSignals()
        self.at = self.end = 0
        return 0

    cdef int undo(self) except -1:
        """After a failure: the file as it was, or the rest stays to be written."""
        if self.is_raw and self.at > 0:
            try:
                self.file.seek(self.file.tell() - self.at)
                self.file.truncate()
            except OSError:           # a pipe; half a record would make all that comes unreadable
                return 0
        self.at = self.end = 0
        return 0


cdef object unwritable(intptr_t index, int32_t length, int32_t slot_size, int64_t time_ns):
    if not 1 <= length <= slot_size:
        return ValueError(f"packet {index} has a length of {length} bytes, a slot holds 1 to {slot_size}")
    return ValueError(f"packet {index} has the time {time_ns} ns; pcap has 0 to 2**32 seconds, pcapng 0 and more")


cdef class Input(Capture):
    """A file that batches are read from; see `tuntap.capture.Reader`."""

    def __cinit__(self, file, int layer):
        # What there is, without waiting for more, if the file can do that.
        self.read = getattr(file, "readinto1", None) or getattr(file, "readinto", None)
        self.fills = self.read is not None
        if not self.fills:
            self.read = file.read
        seekable = getattr(file, "seekable", None)
        self.is_patient = seekable is not None and seekable()
        self.memory = bytearray(PCAP_RECORD_MAX)
        self.walk = <PcapWalk *> malloc(sizeof(PcapWalk))
        if self.walk == NULL:
            raise MemoryError()
        pcap_begin(self.walk, layer)

    def __dealloc__(self):
        free(self.walk)

    @property
    def format(self):
        return "pcap" if self.walk.format == PCAP_CLASSIC else "pcapng"

    @property
    def skipped(self):
        return self.walk.skipped

    def start(self):
        """Read the header of the file."""
        self.enter()
        try:
            self.outcome = pcap_format(self.walk)
            while self.outcome == PCAP_MORE and self.fill():
                self.outcome = pcap_format(self.walk)
            if self.outcome != PCAP_PACKET:
                self.finish()
        finally:
            self.is_busy = False

    def link(self):
        """Link type and layer of the packet that came last, or else comes next; None if there is none."""
        cdef PcapRecord record
        self.enter()
        try:
            if not self.has_link and self.find(&record):
                self.walk.at = record.at
            return (self.walk.link_type, self.walk.layer) if self.has_link else None
        finally:
            self.is_busy = False

    def packet(self):
        """The next packet and its time; None at the end."""
        cdef PcapRecord record
        self.enter()
        try:
            if not self.find(&record):
                return None
            return PyBytes_FromStringAndSize(<const char *> record.packet, record.captured), record.time_ns
        finally:
            self.is_busy = False

    def read_into(self, Slots batch not None, times, originals):
        """How many packets went to the slots of a batch; 0 at the end."""
        cdef int capacity = batch.view.capacity
        cdef Column time_of = Column(times, capacity, True)
        cdef Column original_of = Column(originals, capacity, True)
        cdef int count = 0
        self.enter()
        try:
            batch.used = 0
            batch.view.cuts = 0
            while True:
                with nogil:
                    count = self.deliver(&batch.view, count, time_of, original_of)
                batch.used = count    # should the file raise, these are there
                if count:
                    batch.link_layer = self.walk.layer
                if count == capacity or self.outcome < 0 or count and not self.is_patient or not self.fill():
                    break
            if count == 0:
                self.finish()
            return count
        finally:
            self.is_busy = False

    cdef int deliver(self, SlotView *slots, int start, Column times, Column originals) noexcept nogil:
        cdef PcapRecord record
        cdef size_t size
        cdef int count = start
        while count < slots.capacity:
            self.outcome = pcap_next(self.walk, &record)
            if self.outcome != PCAP_PACKET:
                break
            size = min(record.captured, <size_t> slots.slot_size)
            memcpy(slots.data + count * slots.stride, record.packet, size)
            slots.lengths[count] = <int32_t> size
            if record.original > size:
                slot_cut(slots, count)
            (<int64_t *> times.buffer.buf)[count] = record.time_ns
            (<int64_t *> originals.buffer.buf)[count] = <int64_t> record.original
            count += 1
            self.has_link = True
        if slots.headers != NULL:
            memset(slots.headers + start * VIRTIO_HEADER_SIZE, 0, (count - start) * VIRTIO_HEADER_SIZE)
        return count

    cdef bint find(self, PcapRecord *record) except -1:
        """Whether there is one more packet."""
        self.outcome = pcap_next(self.walk, record)
        while self.outcome == PCAP_MORE and self.fill():
            self.outcome = pcap_next(self.walk, record)
        if self.outcome == PCAP_PACKET:
            self.has_link = True
            return True
        self.finish()
        return False

    cdef bint fill(self) except -1:
        """Whether there was more."""
        cdef size_t rest = self.filled - self.walk.at
        cdef Py_ssize_t room
        cdef Py_ssize_t size
        memmove(self.data(), self.data() + self.walk.at, rest)
        self.passed += self.walk.at
        self.filled = rest
        pcap_feed(self.walk, self.data(), rest)
        room = min(len(self.memory) - <Py_ssize_t> rest, <Py_ssize_t> READ_SIZE)
        if self.fills:
            found = self.read(memoryview(self.memory)[rest:rest + room])
        else:
            found = self.read(room)
        if found is None:
            raise BlockingIOError(errno.EAGAIN, "the file has no more now")
        size = found if self.fills else len(found)
        if not 0 <= size <= room:
            raise OSError(errno.EIO, f"the file gave {size} bytes when asked for {room}")
        if not self.fills:
            self.memory[rest:rest + size] = found
        self.filled += <size_t> size
        pcap_feed(self.walk, self.data(), self.filled)
        PyErr_CheckSignals()
        return size > 0

    cdef int finish(self) except -1:
        """There is no packet any more: raise unless that is how a capture ends."""
        at = self.passed + self.walk.at
        if self.outcome in UNSUPPORTED:
            raise UnsupportedError(errno.EOPNOTSUPP, f"what begins at byte {at} {UNSUPPORTED[self.outcome]}")
        if self.outcome in BROKEN:
            raise PacketError(errno.EBADMSG, f"what begins at byte {at} {BROKEN[self.outcome]}")
        if not pcap_may_end(self.walk):
            end = self.passed + self.filled
            raise PacketError(errno.EBADMSG, f"the capture ends at byte {end}, within what begins at byte {at}")
        return 0

    cdef uint8_t *data(self) noexcept:
        return <uint8_t *> PyByteArray_AS_STRING(self.memory)
