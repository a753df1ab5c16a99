"""THE JOINT: the only compiled module that raises.

A call moves what it can without waiting, under the lock of its direction and without the GIL.  When
nothing moved, or a receive need not look, it waits, counted as a waiter and holding no lock, so that
close(), shutdown() and interrupt() from any thread or signal handler end it, and close() frees nothing
in use.
"""
from cpython.buffer cimport (
    PyBUF_FULL_RO, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_IsContiguous, PyBuffer_Release,
    PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, WAIT_LOCK,
)
from libc.errno cimport EADDRNOTAVAIL, EAGAIN, EBADF, EBADMSG, EINTR, EMSGSIZE, ENETDOWN, EOPNOTSUPP
from libc.math cimport isnan
from libc.stdint cimport int32_t, int64_t, intptr_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

from tuntap._kernels.bpf cimport BpfRecord, BpfWalk, bpf_begin, bpf_next
from tuntap._kernels.checksum cimport fold, sum_bytes
from tuntap._kernels.cursor cimport Cursor, cursor_set
from tuntap._kernels.gro cimport (
    GRO_TCPV4, GRO_TCPV6, GRO_UDP, Item, Window, gro_add, gro_begin, gro_headers,
)
from tuntap._kernels.gso cimport Split, gso_begin, gso_complete, gso_size, gso_write
from tuntap._kernels.virtio cimport VIRTIO_HEADER_SIZE, VirtioHeader, virtio_decode, virtio_encode
from tuntap._offload cimport INBOX_SIZE, LARGEST_PACKET, offload_begin, offload_recv, offload_send
from tuntap._os.lock cimport give, lock_init, take
from tuntap._os.native cimport *
from tuntap._records cimport Records, records_forget, records_left, records_new, records_recv

cimport cython

import atexit
import errno
import logging
import os
import weakref
from operator import index as operator_index
from time import monotonic_ns

from tuntap._errors import (
    ClosedError, DeviceBusyError, DeviceGoneError, InterruptError, LinkDownError, PacketError,
    PrivilegeError, TunTapError, UnsupportedError,
)

cdef enum:
    COPY_MAX = 8192                   # above, reading in place pays
    DNS_MAX = 16                      # name servers of an interface

logger = logging.getLogger("tuntap")      # gets what a driver has to say

# In place of a timeout: do not wait, and answer None or 0 instead of raising TimeoutError.
NO_WAIT = object()
RECV, SEND, EVENTS = PATH_RECV, PATH_SEND, PATH_CONTROL      # what to wait for

PACKET_MAX = LARGEST_PACKET
MTU_MIN = 68                          # RFC 791: what every IPv4 link carries
NAME_MAX = NAME_SIZE - 1

# Names of the settings for `Port._get` and `Port._set`, and of what `capabilities()` lists.
SETTING_NUMBERS = {
    "index": SETTING_INDEX,
    "mtu": SETTING_MTU,
    "up": SETTING_UP,
    "running": SETTING_RUNNING,
    "carrier": SETTING_CARRIER,
    "tx_queue_len": SETTING_TX_QUEUE_LEN,
    "persist": SETTING_PERSIST,
    "owner": SETTING_OWNER,
    "group": SETTING_GROUP,
    "quiet": SETTING_QUIET,
    "packet_information": SETTING_PACKET_INFORMATION,
    "offload": SETTING_OFFLOAD,
    "attached": SETTING_ATTACHED,
    "mtu_v6": SETTING_MTU_V6,
    "interface_metric": SETTING_METRIC,
    "luid": SETTING_LUID,
    "driver_version": SETTING_DRIVER_VERSION,
}
cdef dict CAPABILITIES = dict(
    SETTING_NUMBERS, rename=CAN_RENAME, mac=CAN_SET_MAC, broadcast=CAN_SET_BROADCAST,
    addresses=CAN_SET_ADDRESSES, netns=CAN_OPEN_IN_NETNS, tap=CAN_TAP, tun=CAN_TUN,
    peer=CAN_PEER_ADDRESS, stats=CAN_STATISTICS, metric=CAN_METRIC, queues=CAN_MULTI_QUEUE, events=CAN_WATCH,
    peer_name=CAN_NAME_PEER, notify=CAN_NOTIFY, routes=CAN_ROUTE, wintun=CAN_WINTUN, dns=CAN_DNS,
    free_names=CAN_FREE_NAMES,
)
OFFLOADS = {"checksum": OFFLOAD_CHECKSUM, "tcp4": OFFLOAD_TCP4, "tcp6": OFFLOAD_TCP6, "udp": OFFLOAD_UDP}
cdef dict FEATURES_BY_NAME = {
    "tun": FEATURE_TUN,
    "tap": FEATURE_TAP,
    "multi_queue": FEATURE_MULTI_QUEUE,
    "virtio_header": FEATURE_VIRTIO_HEADER,
    "napi": FEATURE_NAPI,
}
# On Windows the numbers of Python are those of its sockets, not of C.
cdef dict ERRNO = {
    EADDRNOTAVAIL: errno.EADDRNOTAVAIL, EMSGSIZE: errno.EMSGSIZE, ENETDOWN: errno.ENETDOWN,
    EOPNOTSUPP: errno.EOPNOTSUPP,
}
cdef dict MEANINGS = {
    MEANS_OTHER: (TunTapError, ""),
    MEANS_CLOSED: (ClosedError, "the descriptor is not open: open the device anew"),
    MEANS_GONE: (DeviceGoneError, "the interface is gone: close this device and open it anew"),
    MEANS_LINK_DOWN: (LinkDownError, "the interface is down: bring it up with up() and send again"),
    MEANS_UNSUPPORTED: (UnsupportedError, "this system or kind of descriptor cannot do it"),
    MEANS_BUSY: (DeviceBusyError, "something else uses it: close that first or choose another name"),
    MEANS_PRIVILEGE: (PrivilegeError, "run with more rights"),
    MEANS_PACKET: (
        PacketError,
        "no packet for this interface: on a TUN it starts with an IPv4 or IPv6 header, on a TAP with "
        "an Ethernet header",
    ),
}


# Whether event loops are told that a device is ready (`Notification`), as they cannot look themselves.
NOTIFIES = bool(os_capabilities() >> <int> CAN_NOTIFY & 1)


cdef bytes encode_name(str name):
    """A name for the OS core, which must not be cut short on its way."""
    cdef bytes encoded
    if name is None:
        raise TypeError("an interface name is a str, not None")
    encoded = name.encode()
    if not 1 <= len(encoded) <= NAME_SIZE - 1 or b"\0" in encoded:
        raise ValueError(f"an interface name has 1 to {NAME_SIZE - 1} bytes, not {name!r}")
    return encoded


cdef object describe(int path, int error, const char *failed, object label):
    """The exception for an error: what failed, on which interface, and what to do."""
    cdef const char *advice = NULL
    cdef char words[1024]
    cdef int code = os_explain(error, words, sizeof(words))
    kind, standard = MEANINGS[os_meaning(path, error, failed, &advice)]
    text = f"{failed.decode('utf-8', 'replace')}: {words.decode('utf-8', 'replace') if code else os.strerror(error)}"
    hint = advice.decode() or standard
    if hint:
        text = f"{text}; {hint}"
    if code:
        return kind(0, text, label or None, code)      # of which Python makes the errno
    number = ERRNO.get(error, error)
    return kind(number, text, label) if label else kind(number, text)


cdef int64_t nanoseconds(object timeout) except -2:
    """What a caller wrote for `timeout`: -1 for ever, else nanoseconds."""
    cdef double seconds
    if timeout is None:
        return -1
    if timeout is NO_WAIT:
        return 0
    if isinstance(timeout, bool):
        raise TypeError("timeout must be None or a number of seconds, not bool")
    try:
        seconds = timeout
    except OverflowError:
        raise ValueError("timeout is too large; None waits for ever") from None
    if isnan(seconds) or seconds < 0:
        raise ValueError(f"timeout must be None, 0 or a positive number of seconds, not {timeout!r}")
    return -1 if seconds > 9e9 else <int64_t> (seconds * 1e9)


cdef int64_t deadline_after(int64_t duration):
    """The moment a wait of so many nanoseconds ends: -1 never, 0 there is no wait."""
    return duration if duration <= 0 else <int64_t> monotonic_ns() + duration


cdef int64_t time_left(int64_t deadline):
    """Nanoseconds until then; -1 for ever."""
    return max(deadline - <int64_t> monotonic_ns(), 0) if deadline > 0 else deadline


cdef Py_ssize_t within(object value, str what, Py_ssize_t low, Py_ssize_t high) except -1:
    """An index from the caller."""
    number = operator_index(value)
    if not low <= number <= high:
        raise ValueError(f"{what} must be {low} to {high}, not {value}")
    return number


cdef class Slots:
    """Slots of one contiguous block of memory, seen without a copy.

    Parameters
    ----------
    memory : buffer
        Writable C-contiguous uint8, at least ``capacity * (headroom + slot_size)`` bytes.
    lengths : buffer
        Writable C-contiguous int32, shape ``(capacity,)``.
    slot_size, headroom : int
        Bytes of each slot, and of the space in front of it.
    headers : buffer, optional
        Writable C-contiguous, ``(capacity,)`` virtio-net headers of 10 bytes.
    """

    def __cinit__(
        self, memory, lengths, Py_ssize_t slot_size, Py_ssize_t headroom=0, headers=None, *unused, **also_unused,
    ):
        cdef Py_ssize_t stride
        acquire(memory, &self.memory, b"B", "data")
        acquire(lengths, &self.lengths_memory, b"i", "lengths")
        if self.lengths_memory.ndim != 1:
            raise ValueError(f"lengths must have 1 dimension, not {self.lengths_memory.ndim}")
        self.view.capacity = <int32_t> min(self.lengths_memory.shape[0], <Py_ssize_t> 0x7fffffff)
        if self.view.capacity == 0:
            raise ValueError("a batch needs at least 1 slot")
        if not 1 <= slot_size <= 0x3fffffff:
            raise ValueError(f"slot_size must be at least 1 byte, not {slot_size}")
        if not 0 <= headroom <= 0x3fffffff:
            raise ValueError(f"headroom must be 0 or more bytes, not {headroom}")
        stride = headroom + slot_size
        if self.memory.len // stride < self.view.capacity:
            raise ValueError(
                f"data holds {self.memory.len // stride} slots of {stride} bytes, "
                f"but there are {self.view.capacity} lengths")
        self.view.slot_size = <int32_t> slot_size
        self.view.stride = stride
        self.view.data = <uint8_t *> self.memory.buf + headroom
        self.view.limit = <uint8_t *> self.memory.buf + self.memory.len
        self.view.lengths = <int32_t *> self.lengths_memory.buf
        if headers is not None:
            acquire(headers, &self.headers_memory, b"T", "headers")
            if self.headers_memory.len != self.view.capacity * <Py_ssize_t> VIRTIO_HEADER_SIZE:
                raise ValueError(f"there must be a header of {VIRTIO_HEADER_SIZE} bytes for each of the slots")
            self.view.headers = <uint8_t *> self.headers_memory.buf
        self.view.cut = <int32_t *> malloc(self.view.capacity * sizeof(int32_t))
        if self.view.cut == NULL:
            raise MemoryError()
        self.link_layer = LAYER_TUN

    def __dealloc__(self):
        free(self.view.cut)
        PyBuffer_Release(&self.memory)
        PyBuffer_Release(&self.lengths_memory)
        PyBuffer_Release(&self.headers_memory)

    @property
    def capacity(self):
        """int: How many packets the batch holds."""
        return self.view.capacity

    @property
    def slot_size(self):
        """int: Bytes of the largest packet a slot holds."""
        return self.view.slot_size

    @property
    def headroom(self):
        """int: Bytes of free space in front of each packet."""
        return self.view.stride - self.view.slot_size

    @property
    def count(self):
        """int: How many packets the batch holds now; settable after writing to the arrays."""
        return self.used

    @count.setter
    def count(self, count):
        self.used = <int32_t> within(count, "count", 0, self.view.capacity)

    @property
    def layer(self):
        """int: What the packets are: 3 for IP packets, as at first, 2 for Ethernet frames; set by every receive."""
        return self.link_layer

    @layer.setter
    def layer(self, layer):
        self.link_layer = <int> within(layer, "layer", LAYER_TAP, LAYER_TUN)

    @property
    def truncated(self):
        """tuple of int: Packets of the last receive that did not fit their slot and were cut."""
        return tuple([self.view.cut[i] for i in range(self.view.cuts)])

    def __len__(self):
        return self.used

    cdef int arrange(self, int count, bytes order, SlotView *slots) except -1:
        """A view of the first `count` packets or, as long as `order` is held, of those whose numbers it has (int32).

        How many those are.
        """
        cdef int size = count
        cdef int i
        slots[0] = self.view
        if order is not None:
            slots.order = <const int32_t *> PyBytes_AS_STRING(order)
            size = <int> (PyBytes_GET_SIZE(order) // <Py_ssize_t> sizeof(int32_t))
            for i in range(size):
                if not 0 <= slots.order[i] < count:
                    raise IndexError(f"packet {slots.order[i]} of a batch that holds {count}")
        return size

    def fill(self, packets):
        """Copy packets into the slots.

        Parameters
        ----------
        packets : iterable of buffer
            Each 1 to `slot_size` bytes, at most `capacity` of them.

        Returns
        -------
        int
            How many; `count` afterwards.

        Raises
        ------
        ValueError
            A packet is empty or too large, or there are too many; the batch is empty then.
        """
        cdef Py_buffer packet
        cdef int32_t used = 0
        self.view.cuts = 0
        try:
            for item in packets:
                if used == self.view.capacity:
                    raise ValueError(f"more packets than the batch has slots ({self.view.capacity})")
                get_packet(item, &packet)
                try:
                    if not 1 <= packet.len <= self.view.slot_size:
                        raise ValueError(
                            f"packet {used} is {packet.len} bytes, a slot holds 1 to {self.view.slot_size}")
                    # The packets may be those of this very batch, selected.
                    memmove(self.view.data + used * self.view.stride, packet.buf, packet.len)
                    self.view.lengths[used] = <int32_t> packet.len
                    if self.view.headers != NULL:
                        memset(self.view.headers + used * VIRTIO_HEADER_SIZE, 0, VIRTIO_HEADER_SIZE)
                finally:
                    PyBuffer_Release(&packet)
                used += 1
        except BaseException:
            self.used = 0
            raise
        self.used = used
        return used


cdef bint is_format(const char *given, const char *kind):
    """Whether a buffer's elements are of a kind, as the struct module writes it, in this host's order."""
    cdef uint16_t one = 1
    cdef bint little = (<uint8_t *> &one)[0] == 1
    if given == NULL:
        return kind[0] == c"B"
    if given[0] in (c"@", c"=", c"<" if little else c">"):
        given += 1
    # 'l' is how numpy spells int32 where a C long has 4 bytes.
    return (given[0] == kind[0] or (kind[0] == c"i" and given[0] == c"l")) and given[1] == 0


cdef int acquire(object memory, Py_buffer *buffer, const char *kind, str name) except -1:
    """Hold a writable, C-contiguous buffer of one element type."""
    cdef Py_ssize_t size = 1 if kind[0] == c"B" else 4 if kind[0] == c"i" else VIRTIO_HEADER_SIZE
    if not PyObject_CheckBuffer(memory):
        raise TypeError(f"{name} must be an array or another buffer, not {type(memory).__name__}")
    PyObject_GetBuffer(memory, buffer, PyBUF_FULL_RO)
    try:
        if buffer.itemsize != size or kind[0] != c"T" and not is_format(buffer.format, kind):
            given = buffer.format.decode() if buffer.format else "B"
            wanted = "uint8" if size == 1 else "int32" if size == 4 else "tuntap.offload.HEADER"
            raise TypeError(f"{name} must be of dtype {wanted}, not of format {given!r}")
        if buffer.readonly:
            raise ValueError(f"{name} is read-only; a batch is written to by every receive")
        if not PyBuffer_IsContiguous(buffer, c"C"):
            raise ValueError(
                f"{name} is not C-contiguous: give a whole array, not a strided view or Fortran "
                f"order; space in front of each packet is what `headroom` is for")
    except BaseException:
        PyBuffer_Release(buffer)
        raise
    return 0


cdef int get_packet(object packet, Py_buffer *buffer) except -1:
    """Hold the bytes of one packet for reading."""
    if not PyObject_CheckBuffer(packet):
        raise TypeError(f"a packet must be bytes or another buffer, not {type(packet).__name__}")
    try:
        PyObject_GetBuffer(packet, buffer, PyBUF_SIMPLE)
    except BufferError:
        raise ValueError("a packet must be contiguous bytes, not a strided view") from None
    return 0


cdef int get_room(object memory, Py_buffer *buffer) except -1:
    """Hold a buffer for writing a packet."""
    if not PyObject_CheckBuffer(memory):
        raise TypeError(f"a writable buffer is needed, not {type(memory).__name__}")
    try:
        PyObject_GetBuffer(memory, buffer, PyBUF_WRITABLE)
    except (BufferError, ValueError):
        raise ValueError("the buffer must be writable and contiguous") from None
    return 0


cdef class Event:
    """Ends calls of any number of devices: give it to them as ``event=``.

    While it is set, every receive and send that was given it raises `InterruptError`, those that wait
    already included.  No packet is lost.  Safe from any thread and from signal handlers; after a fork
    the child's is apart from the parent's.
    """

    def __cinit__(self):
        cdef int result
        lock_init(&self.lock)
        handle_clear(&self.handle)
        with nogil:
            result = os_rewake(&self.handle)
        if result < 0:
            raise describe(PATH_CONTROL, -result, self.handle.failed[PATH_CONTROL], "")
        _forkers.add(self)

    def __dealloc__(self):
        os_close(&self.handle)

    def set(self, value=1):
        """End the calls; the first `value` since the last `clear` stays.

        Parameters
        ----------
        value : int, optional
            Whatever the threads that wake up should know; 32 bits, not 0.
        """
        cdef int32_t number
        value = operator_index(value)
        if value == 0 or not -0x80000000 <= value <= 0x7fffffff:
            raise ValueError(f"the value of an event that is set has 32 bits and is not 0, unlike {value}")
        number = value
        with nogil:
            take(&self.lock)
            if self.state == 0:
                self.state = number
                os_wake(&self.handle)
            give(&self.lock)

    def clear(self):
        """Let calls wait again."""
        with nogil:
            take(&self.lock)
            if self.state:
                self.state = 0
                os_unwake(&self.handle)
            give(&self.lock)

    def is_set(self):
        """Whether calls end now.

        Returns
        -------
        bool
        """
        return self.state != 0

    @property
    def value(self):
        """int: What `set` was given; 0 if it is not set."""
        return self.state

    def fileno(self):
        """A descriptor that is readable while the event is set, for select() and friends.

        Returns
        -------
        int
        """
        return self.handle.wake[0]

    def __repr__(self):
        cdef int32_t state = self.state
        return f"<Event, {f'set to {state}' if state else 'not set'}>"

    def _after_fork(self):
        """In the child: waking is apart from the parent's."""
        lock_init(&self.lock)
        os_rewake(&self.handle)
        if self.state:
            os_wake(&self.handle)


cdef class Watcher:
    """What the OS tells about the interface of a device from now on."""

    def __cinit__(self, Port port not None):
        cdef int result
        self.watch.io = -1
        self.watch.state = NULL
        self.port = port
        with nogil:
            result = port.begin()
            if result == 0:
                result = os_watch(&port.handle, &self.watch)
            failed = port.end()
        port.check(result, failed)
        _forkers.add(self)

    def __dealloc__(self):
        os_unwatch(&self.watch)

    def fileno(self):
        return self.watch.io

    def next(self):
        """("link", up, running, mtu, name), ("added" or "removed", address), ("moved",), ("lost",), or None."""
        cdef Change change
        cdef int kind
        self.port._must_be_open()
        if self.watch.io < 0:
            return ("lost",)
        with nogil:
            kind = os_next_change(&self.watch, &change)
        if kind < 0:
            raise describe(PATH_CONTROL, -kind, b"recv(AF_NETLINK)", self.port._label)
        if kind == CHANGE_LINK:
            name = change.name.decode("utf-8", "surrogateescape")
            return "link", bool(change.up), bool(change.running), change.mtu, name
        if kind == CHANGE_ADDRESS_ADDED:
            return "added", address_tuple(&change.address)
        if kind == CHANGE_ADDRESS_REMOVED:
            return "removed", address_tuple(&change.address)
        return ("moved",) if kind == CHANGE_MOVED else ("lost",) if kind == CHANGE_LOST else None

    def _after_fork(self):
        """In the child: what comes is for the parent."""
        os_unwatch(&self.watch)


@cython.no_gc_clear
cdef class Notification:
    """Has a thread of the operating system's call `callback`, once a wait for `path` or `other` is over.

    Once for each start(), until stop().  For event loops, where they cannot look at a descriptor.  The port has to
    be held in between.
    """

    def __cinit__(self, Port port not None, int path, intptr_t other, callback):
        self.port = port
        self.path = path
        self.other = other
        self.callback = callback

    def start(self):
        self.stop()
        with nogil:
            self.state = os_notify(&self.port.handle, self.path, self.other, call_back, <void *> self.callback)
        if self.state == NULL:
            raise MemoryError()

    def stop(self):
        """The callback is not called any more."""
        cdef void *state = self.state
        self.state = NULL
        if state != NULL:
            with nogil:
                os_unnotify(state)

    def __dealloc__(self):
        if self.state != NULL:
            with nogil:
                os_unnotify(self.state)


cdef void call_back(void *callback) noexcept nogil:
    with gil:
        try:
            (<object> callback)()
        except RuntimeError:
            pass                           # the loop is closed


cdef class Buffers:
    """The buffers of a vectored call, held."""

    cdef Py_buffer *views
    cdef Py_ssize_t count
    cdef Py_ssize_t size

    def __cinit__(self, buffers, bint writable):
        cdef list items = list(buffers)
        self.views = <Py_buffer *> malloc(max(len(items), 1) * sizeof(Py_buffer))
        if self.views == NULL:
            raise MemoryError()
        for item in items:
            if writable:
                get_room(item, &self.views[self.count])
            else:
                get_packet(item, &self.views[self.count])
            self.size += self.views[self.count].len
            self.count += 1

    def __dealloc__(self):
        for i in range(self.count):
            PyBuffer_Release(&self.views[i])
        free(self.views)


cdef class Port:
    """One open queue of an interface: what every device can send, receive and be told."""

    def __cinit__(self, *unused, **also_unused):
        self.init_locks()
        handle_clear(&self.handle)
        self.label[0] = 0
        self.is_closed = True
        self._loops = {}
        self.idle = PyThread_allocate_lock()
        if self.idle == NULL:
            raise MemoryError()
        PyThread_acquire_lock(self.idle, WAIT_LOCK)

    cdef void init_locks(self):
        lock_init(&self.recv_lock)
        lock_init(&self.send_lock)
        lock_init(&self.control_lock)
        lock_init(&self.state_lock)
        lock_init(&self.close_lock)

    def __dealloc__(self):
        os_close(&self.handle)
        free(self.offload)
        free(self.records)
        if self.idle != NULL:
            PyThread_release_lock(self.idle)
            PyThread_free_lock(self.idle)

    # --- life ---

    def _open(
        self, str name, int layer, int flags, intptr_t netns, str peer_name="", str libraries="", str description="",
        bytes guid=None, uint32_t ring_capacity=0, lease=None,
    ):
        """Open an interface; "" lets the OS choose its name.  The caller has checked the arguments."""
        cdef OpenRequest request
        cdef Lease dhcp
        cdef bytes options
        cdef bytes encoded = encode_name(name) if name else b""
        cdef bytes encoded_peer = encode_name(peer_name) if peer_name else b""
        cdef bytes encoded_libraries = libraries.encode()
        cdef bytes encoded_description = description.encode()
        cdef Handle handle
        cdef int result
        request.name = encoded
        request.peer_name = encoded_peer
        request.layer = layer
        request.flags = <uint32_t> flags
        request.netns = netns
        request.libraries = encoded_libraries
        request.description = encoded_description
        request.guid = NULL
        if guid is not None:
            if len(guid) != GUID_SIZE:
                raise ValueError(f"a GUID has {GUID_SIZE} bytes, not {len(guid)}")
            request.guid = guid
        request.ring_capacity = ring_capacity
        request.lease = NULL
        if lease is not None:
            ip, dhcp.prefix, server, dhcp.seconds, options = lease
            dhcp.ip = ip
            dhcp.server = server
            dhcp.options = options
            dhcp.options_size = <int> len(options)
            request.lease = &dhcp
        self._must_be_new()
        with nogil:
            result = os_open(&handle, &request)
        self._take(&handle, result, name)
        self.layer = layer
        self.learn_label()
        return bool(handle.created)

    def _adopt(self, intptr_t io, int layer):
        """Borrow a descriptor of packets of this layer, as far as anybody knows; answers its own, or 0."""
        cdef Handle handle
        cdef int result
        self._must_be_new()
        with nogil:
            result = os_adopt(&handle, io)
        self._take(&handle, result, f"descriptor {io}")
        self.layer = layer
        if handle.layer != LAYER_UNKNOWN:
            self.learn_label()
        return handle.layer

    cdef learn_label(self):
        """The name as it is now; whoever deletes the interface at this moment leaves nothing open."""
        try:
            self.set_label(Port._get_name(self))
        except BaseException:
            Port.close(self)
            raise

    def _open_queue(self, Port of):
        """Open one more queue of the device that `of` is a queue of, which works as that one does."""
        cdef Handle handle
        cdef int result
        cdef bint has_offload = False
        cdef bint is_frame = False
        cdef bint whole = False
        cdef bint trusted = False
        self._must_be_new()
        with nogil:
            result = of.begin()
            if result == 0:
                result = os_open_queue(&handle, &of.handle)
                if result < 0:
                    of.handle.failed[PATH_CONTROL] = handle.failed[PATH_CONTROL]
                has_offload = of.offload != NULL
                if has_offload:
                    is_frame = of.offload.is_frame
                    whole = of.offload.whole
                    trusted = of.offload.trusted
            failed = of.end()
        of.check(result, failed)
        self._take(&handle, result, of._label)
        self.layer = of.layer
        if has_offload:
            self.types = of.types
            self._use_offload(is_frame, whole, trusted)

    def _use_offload(self, bint is_frame, bint whole, bint trusted):
        """Packets have a virtio-net header from now on; nobody has received or sent yet."""
        if self.types is None:
            self.types = SuperPacketTypes()
            self.types.bits = <uint32_t> self.handle.offload
            if self.handle.offload == OFFLOAD_UNKNOWN:
                self.types.bits = OFFLOAD_CHECKSUM | OFFLOAD_TCP4 | OFFLOAD_TCP6 | OFFLOAD_UDP
        self.offload = <Offload *> malloc(sizeof(Offload))
        if self.offload == NULL:
            raise MemoryError()
        offload_begin(self.offload, &self.types.bits, is_frame, whole, trusted)

    def _has_virtio_header(self):
        return self.handle.framing[PATH_RECV] == FRAMING_VIRTIO

    def _put_virtio_header(self):
        """The other end of an adopted socket puts a virtio-net header in front of each packet, and wants one."""
        self.handle.framing[PATH_RECV] = self.handle.framing[PATH_SEND] = FRAMING_VIRTIO
        self.handle.header_size = VIRTIO_HEADER_SIZE
        self.handle.offload = OFFLOAD_CHECKSUM | OFFLOAD_TCP4 | OFFLOAD_TCP6 | OFFLOAD_UDP

    def _get_offload(self):
        return self.types.bits if self.types is not None else 0

    def _set_offload(self, int bits):
        """Ask the kernel for these; what it does not offer is left out."""
        if self.types is None:
            raise UnsupportedError(errno.EOPNOTSUPP, "the device was opened without offload", self._label)
        self._set("offload", bits)
        self.types.bits = <uint32_t> self.handle.offload

    @property
    def pending(self):
        """int: Packets that were read together with others and wait for the next receive.

        They are there although `fileno()` may not be readable: receive until `TimeoutError` before
        waiting on it.
        """
        cdef int count = 0
        with nogil:
            take(&self.recv_lock)
            if self.offload != NULL:
                count = self.offload.segments - self.offload.next
            elif self.records != NULL:
                count = records_left(self.records)
            give(&self.recv_lock)
        return count

    def _inspect(self, str name):
        """Configuration of an interface by name, without a queue of it."""
        cdef bytes encoded = encode_name(name)
        cdef const char *text = encoded
        cdef Handle handle
        cdef int result
        self._must_be_new()
        with nogil:
            result = os_inspect(&handle, text)
        self._take(&handle, result, name)

    def _own(self):
        """The adopted descriptor is ours from now on: close() closes it."""
        os_own(&self.handle)

    @property
    def _label(self):
        return self.label.decode("utf-8", "replace")

    cdef set_label(self, str label):
        """Bytes in place rather than an object: another thread may be reading it, without a GIL."""
        cdef bytes encoded = label.encode("utf-8", "replace")[:sizeof(self.label) - 1]
        memset(self.label, 0, sizeof(self.label))
        memcpy(self.label, <const char *> encoded, len(encoded))

    def _must_be_new(self):
        if self.label[0]:
            raise RuntimeError("this object holds a device already; make another one")

    def _must_be_open(self):
        if self.is_closed or self.is_shut:
            raise self.failure(PATH_SEND, IS_CLOSED if self.is_closed else IS_SHUT, b"")

    cdef _take(self, Handle *handle, int result, str label):
        if result < 0:
            raise describe(PATH_CONTROL, -result, handle.failed[PATH_CONTROL], label)
        self.handle = handle[0]
        self.use_records()
        self.set_label(label or "a new device")
        self.is_closed = False
        _forkers.add(self)

    cdef int use_records(self) except -1:
        """If packets come in BPF records, have memory for those of a read; nobody has received yet."""
        if self.handle.framing[PATH_RECV] == FRAMING_BPF:
            self.records = records_new(&self.handle)
            if self.records == NULL:
                raise MemoryError()
        return 0

    @property
    def closed(self):
        """bool: Whether close() was called."""
        return self.is_closed

    def fileno(self):
        """The descriptor, for select() and friends; -1 once closed.

        Returns
        -------
        int
        """
        return -1 if self.is_closed else self.handle.io

    def interrupt(self):
        """End every call that is blocked on this device with `InterruptError`.

        If none is blocked, the next call that would have to wait ends instead, so that an
        interrupt just before a thread begins to wait is not lost.  Calls that need not wait go
        on as ever; no packet is lost.  Safe from any thread and from signal handlers.
        """
        with nogil:
            take(&self.state_lock)
            if not self.is_closed:
                if self.waiters == 0 and self.tasks == 0:
                    self.latched = True
                else:
                    self.interrupts += 1
                    self.wake_waiters()
            give(&self.state_lock)

    cdef void wake_waiters(self) noexcept nogil:
        """End the wait of each; state_lock is held."""
        if self.waiters:
            self.epoch += 1
            self.to_wake = self.waiters
            os_wake(&self.handle)

    def shutdown(self):
        """End every blocked and every later send and receive with `ClosedError`.

        The interface stays until close().  Safe from any thread and from signal handlers.
        """
        with nogil:
            take(&self.state_lock)
            if not self.is_closed:
                self.is_shut = True
                os_wake(&self.handle)
            give(&self.state_lock)

    def close(self):
        """Close the queue; an interface that is not persistent goes with it.

        Blocked calls of other threads end with `ClosedError` before this returns.  Closing twice
        is no error.
        """
        cdef bint wait
        cdef bint later
        with nogil:
            take(&self.close_lock)
            take(&self.state_lock)
            wait = False
            if not self.is_closed:
                self.is_closed = True
                wait = self.close_waits = self.waiters > 0
                os_wake(&self.handle)
            later = self.holds > 0
            give(&self.state_lock)
            if wait:
                PyThread_acquire_lock(self.idle, WAIT_LOCK)
            if not later:
                self.release()
            give(&self.close_lock)

    cdef void release(self) noexcept nogil:
        """Give up what the port holds; nobody waits any more."""
        cdef Offload *offload
        cdef Records *records
        take(&self.recv_lock)
        take(&self.send_lock)
        take(&self.control_lock)
        os_close(&self.handle)
        # Forgotten first, so that a child forked in between does not free it again.
        offload = self.offload
        records = self.records
        self.offload = NULL
        self.records = NULL
        free(offload)
        free(records)
        give(&self.control_lock)
        give(&self.send_lock)
        give(&self.recv_lock)

    # A task of an event loop waits without a thread: its loop has the descriptor registered, which must
    # not be closed before the loop has let go of it.

    cdef int begin_wait(self, int path, unsigned int *interrupts) noexcept nogil:
        """Note that a task is about to wait; WOULD_WAIT, or why it does not."""
        cdef int outcome
        take(&self.state_lock)
        outcome = self.may_wait(path, -1)
        if outcome == WOULD_WAIT:
            self.tasks += 1
            interrupts[0] = self.interrupts
        give(&self.state_lock)
        return outcome

    cdef int end_wait(self, unsigned int interrupts) noexcept nogil:
        """The wait is over; WOULD_WAIT, or what ended it."""
        cdef int outcome = WOULD_WAIT
        take(&self.state_lock)
        self.tasks -= 1
        if self.is_closed:
            outcome = IS_CLOSED
        elif self.is_shut:
            outcome = IS_SHUT
        elif self.interrupts != interrupts:
            outcome = IS_INTERRUPTED
        give(&self.state_lock)
        return outcome

    def _begin_wait(self, int path):
        """For `_end_wait`; None if the task need not wait."""
        cdef unsigned int interrupts = 0
        cdef int outcome = self.begin_wait(path, &interrupts)
        if outcome < 0:
            raise self.failure(path, outcome, b"")
        return interrupts if outcome == WOULD_WAIT else None

    def _end_wait(self, unsigned int interrupts):
        """What ended the wait, or None."""
        cdef int outcome = self.end_wait(interrupts)
        return self.failure(PATH_RECV, outcome, b"") if outcome < 0 else None

    def _hold(self):
        """A loop is about to look at the descriptor: keep it open until `_let_go`."""
        cdef bint is_closed
        with nogil:
            take(&self.state_lock)
            is_closed = self.is_closed
            self.holds += not is_closed
            give(&self.state_lock)
        if is_closed:
            raise self.failure(PATH_RECV, IS_CLOSED, b"")

    def _let_go(self):
        """The loop looks no more."""
        cdef bint is_last
        with nogil:
            take(&self.state_lock)
            self.holds -= 1
            is_last = self.is_closed and self.holds == 0
            give(&self.state_lock)
            if is_last:
                take(&self.close_lock)
                self.release()
                give(&self.close_lock)

    def _target(self, int path, source):
        """What a loop looks at for a task that waits: a descriptor, and whether for writing.

        If loops are told instead, what a `Notification` takes.
        """
        cdef intptr_t outlet = -1
        if NOTIFIES:
            return path, -1 if source is self else source.fileno()
        if path == PATH_SEND:
            with nogil:
                if self.begin() == 0:
                    outlet = os_outlet(&self.handle)
                self.end()
        return (outlet, False) if outlet >= 0 else (source.fileno(), path == PATH_SEND)

    def _latch(self):
        """An interrupt that ended a wait, but no call: the next call that would wait raises it."""
        self.postpone(IS_INTERRUPTED)

    def _wait_beside(self, intptr_t other, timeout=None):
        """Until a descriptor is readable, or TimeoutError; what ends a receive ends this, too."""
        self.settle(PATH_CONTROL, WOULD_WAIT, deadline_after(nanoseconds(timeout)), other)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    # --- packets ---

    def recv(self, timeout=None, *, Event event=None):
        """Receive one packet.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; None waits for ever, 0 does not wait.
        event : Event, optional
            Ends the call with `InterruptError` while it is set.

        Returns
        -------
        bytes
            One IP packet (TUN) or one Ethernet frame (TAP).

        Raises
        ------
        TimeoutError
            Nothing came in time.
        ClosedError, InterruptError, DeviceGoneError
            See there.
        """
        cdef uint8_t memory[INBOX_SIZE]
        cdef SlotView slot
        cdef int32_t length = 0
        cdef int32_t cut
        one_slot(&slot, memory, INBOX_SIZE - 1, INBOX_SIZE, &length, &cut)
        if self.receive_all(&slot, 1, timeout, event) == 0:
            return None
        if slot.cuts:
            raise too_large(slot.slot_size, length)
        return PyBytes_FromStringAndSize(<char *> memory, length)

    def recv_into(self, buffer, timeout=None, *, Event event=None):
        """Receive one packet into a buffer.

        Parameters
        ----------
        buffer : buffer
            Writable and contiguous, at least 1 byte.
        timeout, event : optional
            As for recv().

        Returns
        -------
        int
            Bytes of the packet.

        Raises
        ------
        PacketError
            The packet is larger than the buffer, which holds its beginning; the rest is lost.
        TimeoutError, ClosedError, InterruptError, DeviceGoneError
            As for recv().
        """
        cdef uint8_t inbox[COPY_MAX + 1]
        cdef Py_buffer memory
        cdef SlotView slot
        cdef int32_t length = 0
        cdef int32_t cut
        get_room(buffer, &memory)
        try:
            if memory.len < 1:
                raise ValueError("the buffer has no room")
            if memory.len <= COPY_MAX:
                # It has no byte behind it that would show a cut: copying costs less than a readv.
                one_slot(&slot, inbox, memory.len, COPY_MAX + 1, &length, &cut)
                self.receive_all(&slot, 1, timeout, event)
                memcpy(memory.buf, inbox, length)
            else:
                one_slot(&slot, <uint8_t *> memory.buf, memory.len, memory.len, &length, &cut)
                self.receive_all(&slot, 1, timeout, event)
            if slot.cuts:
                raise too_large(memory.len, length)
        finally:
            PyBuffer_Release(&memory)
        return length

    def recv_vectored(self, buffers, timeout=None, *, Event event=None):
        """Receive one packet into several buffers, which are filled in their order, as by ``os.readv``.

        Parameters
        ----------
        buffers : sequence of buffer
            Writable and contiguous each.
        timeout, event : optional
            As for recv().

        Returns
        -------
        int
            Bytes of the packet.

        Raises
        ------
        PacketError
            The packet is larger than the buffers together, which hold its beginning; the rest is lost.
        TimeoutError, ClosedError, InterruptError, DeviceGoneError
            As for recv().
        """
        cdef uint8_t memory[INBOX_SIZE]
        cdef SlotView slot
        cdef int32_t length = 0
        cdef int32_t cut
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t part
        cdef Py_buffer *view
        cdef Buffers parts = Buffers(buffers, True)
        if parts.size < 1:
            raise ValueError("the buffers have no room")
        # Copying costs less than a readv, and serves every framing.
        one_slot(&slot, memory, min(parts.size, <Py_ssize_t> INBOX_SIZE - 1), INBOX_SIZE, &length, &cut)
        self.receive_all(&slot, 1, timeout, event)
        for i in range(parts.count):
            view = &parts.views[i]
            part = min(view.len, length - at)
            memcpy(view.buf, memory + at, part)
            at += part
        if slot.cuts:
            raise too_large(parts.size, length)
        return length

    def recv_batch(self, Slots batch not None, timeout=None, *, Event event=None):
        """Receive what is there, at least one packet and at most `batch.capacity`.

        Parameters
        ----------
        batch : PacketBatch
            Filled from slot 0; `batch.count` and `batch.truncated` are set.
        timeout : float, optional
            Seconds to wait for the first packet; None waits for ever, 0 does not wait.
        event : Event, optional
            Ends the call with `InterruptError` while it is set.

        Returns
        -------
        int
            How many packets.  An error after the first packet is raised by the next call.

        Raises
        ------
        TimeoutError, ClosedError, InterruptError, DeviceGoneError
            As for recv(); the batch is empty then.
        """
        batch.used = 0
        batch.used = self.receive_all(&batch.view, batch.view.capacity, timeout, event)
        batch.link_layer = self.layer
        return batch.used

    def send(self, packet, timeout=None, *, Event event=None):
        """Send one packet.

        Parameters
        ----------
        packet : buffer
            One IP packet (TUN) or one Ethernet frame (TAP), 1 to 65535 bytes.
        timeout : float, optional
            Seconds to wait for room; None waits for ever, 0 does not wait.
        event : Event, optional
            Ends the call with `InterruptError` while it is set.

        Returns
        -------
        int
            Bytes sent, the whole packet.

        Raises
        ------
        PacketError
            The kernel refused the packet.
        LinkDownError
            The interface is down.
        TimeoutError, ClosedError, InterruptError, DeviceGoneError
            As for recv().
        """
        cdef int64_t deadline = -1 if timeout is None else deadline_after(nanoseconds(timeout))
        cdef Py_buffer memory
        cdef SlotView slot
        cdef int32_t length
        cdef Py_ssize_t size
        cdef int outcome
        cdef uint64_t call = 0
        cdef bint held = not PyBytes_CheckExact(packet)
        if not held:
            slot.data = <uint8_t *> PyBytes_AS_STRING(packet)
            size = PyBytes_GET_SIZE(packet)
        else:
            get_packet(packet, &memory)
            slot.data = <uint8_t *> memory.buf
            size = memory.len
        try:
            if not 1 <= size <= LARGEST_PACKET + self.handle.packet_information:
                raise ValueError(f"a packet is 1 to {LARGEST_PACKET} bytes, not {size}")
            length = <int32_t> size
            slot.lengths = &length
            slot.headers = NULL
            slot.order = NULL
            slot.capacity = 1
            slot.slot_size = length
            slot.stride = length
            while True:
                if event is not None and event.state:
                    raise self.failure(PATH_SEND, IS_SET, b"")
                with nogil:
                    take(&self.send_lock)
                    outcome = self.transmit(&slot, 0, 1, &call)
                    give(&self.send_lock)
                if outcome > 0:
                    return size
                if outcome == WOULD_WAIT and timeout is NO_WAIT:
                    return 0
                self.settle(PATH_SEND, outcome, deadline, event_descriptor(event))
        finally:
            if held:
                PyBuffer_Release(&memory)

    def send_vectored(self, buffers, timeout=None, *, Event event=None):
        """Send one packet that lies in several buffers, one behind the other, as by ``os.writev``.

        Parameters
        ----------
        buffers : sequence of buffer
            1 to 65535 bytes together.
        timeout, event : optional
            As for send().

        Returns
        -------
        int
            Bytes sent, the whole packet.

        Raises
        ------
        PacketError, LinkDownError, TimeoutError, ClosedError, InterruptError, DeviceGoneError
            As for send().
        """
        return self.send(self._joined(buffers), timeout, event=event)

    def _joined(self, buffers):
        """The packet that lies in several buffers."""
        cdef Py_ssize_t at = 0
        cdef Buffers parts = Buffers(buffers, False)
        if not 1 <= parts.size <= LARGEST_PACKET + self.handle.packet_information:
            raise ValueError(f"a packet is 1 to {LARGEST_PACKET} bytes, not {parts.size}")
        cdef bytes packet = PyBytes_FromStringAndSize(NULL, parts.size)
        for i in range(parts.count):
            memcpy(PyBytes_AS_STRING(packet) + at, parts.views[i].buf, parts.views[i].len)
            at += parts.views[i].len
        return packet

    def send_batch(
        self, Slots batch not None, timeout=None, *, start=0, stop=None, where=None, Event event=None,
    ):
        """Send the packets of a batch in order.

        Parameters
        ----------
        batch : PacketBatch
            Its first `batch.count` packets.
        timeout : float, optional
            Seconds to wait for room, all packets together; None waits for ever, 0 does not wait.
        start, stop : int, optional
            Send packets `start` up to before `stop` instead; `stop` may exceed `batch.count`.  With `where`
            they count the packets that it selects.
        where : array of bool, shape (batch.count,), or of int, optional
            Send these packets only: those where a mask is true, or of these numbers, 0 to
            ``batch.count - 1``, in this order and as often as they are named.  Nothing is copied but
            the selection, and what is in the other slots does not matter.
        event : Event, optional
            Ends the call with `InterruptError` while it is set.

        Returns
        -------
        int
            How many packets went.  If fewer than asked, the time was over, or an error or an
            interrupt came after the first, which the next call raises; go on from
            ``start + n``, with the same `where`.

        Raises
        ------
        ValueError
            A length is below 1, above the slot size or above 65535, or `where` has another shape; nothing
            was sent.
        IndexError
            `where` selects a packet that the batch does not hold; nothing was sent.
        PacketError, LinkDownError, TimeoutError, ClosedError, InterruptError, DeviceGoneError
            As for send(), if no packet went.
        """
        cdef int64_t deadline = -1 if timeout is None else deadline_after(nanoseconds(timeout))
        cdef SlotView slots
        cdef int first
        cdef int last
        cdef int sent = 0
        cdef int outcome
        cdef uint64_t call = 0
        where = self.select(batch, start, stop, where, &slots, &first, &last)    # held while `slots` is used
        if first == last:
            return 0
        while True:
            if event is not None and event.state:
                if sent:
                    return sent
                raise self.failure(PATH_SEND, IS_SET, b"")
            with nogil:
                take(&self.send_lock)
                outcome = self.transmit(&slots, first + sent, last, &call)
                give(&self.send_lock)
            if outcome > 0:
                sent += outcome
                if first + sent == last:
                    return sent
                continue
            if self.settle(PATH_SEND, outcome, deadline, event_descriptor(event), sent > 0):
                return sent

    def wait_readable(self, timeout=None, *, Event event=None):
        """Wait until a receive need not wait, as far as the system can tell; or raise as recv() would.

        Another thread may take the packet in between.

        Parameters
        ----------
        timeout, event : optional
            As for recv().
        """
        self.wait_ready(PATH_RECV, timeout, event)

    def wait_writable(self, timeout=None, *, Event event=None):
        """Wait until the device takes a packet: there is room, and the interface is up; or raise.

        Parameters
        ----------
        timeout, event : optional
            As for send().
        """
        self.wait_ready(PATH_SEND, timeout, event)

    def _ready(self, int path, timeout):
        """Either of these; False if it would wait and the timeout is NO_WAIT."""
        return self.wait_ready(path, timeout, None)

    cdef bint wait_ready(self, int path, object timeout, Event event) except -1:
        """True, or False only with NO_WAIT."""
        cdef int64_t deadline = deadline_after(nanoseconds(timeout))
        cdef int64_t left = time_left(deadline)
        cdef int outcome
        cdef intptr_t other = event_descriptor(event)
        while True:
            if event is not None and event.state:
                raise self.failure(path, IS_SET, b"")
            # First without waiting: what is ready is not interrupted.
            with nogil:
                outcome = self.wait(path, 0, -1)
                if left != 0 and outcome in (0, 2):
                    outcome = self.wait(path, left, other)
            if outcome < 0:
                self.settle(path, outcome, deadline, other)
            elif outcome == 1:
                return True
            elif left == 0:
                if timeout is NO_WAIT:
                    return False
                raise timed_out(path)
            left = time_left(deadline)

    def _begin_send(self, Slots batch not None, start=0, stop=None, where=None):
        """A send_batch that never waits, in steps."""
        cdef Sending rest = Sending()
        rest.port = self
        rest.batch = batch
        rest.order = self.select(batch, start, stop, where, &rest.slots, &rest.first, &rest.last)
        return rest

    cdef bytes select(
        self, Slots batch, object start, object stop, object where, SlotView *slots, int *first, int *last,
    ):
        """Which packets of a batch to send, all of them of a length that can be; answers what `slots.order` is in."""
        cdef int32_t largest = min(
            batch.view.slot_size, <int32_t> (LARGEST_PACKET + self.handle.packet_information))
        cdef int32_t length
        cdef bytes order = None if where is None else batch._select(where)
        cdef int used = batch.arrange(batch.used, order, slots)
        cdef int most = batch.view.capacity if order is None else used
        cdef int i
        last[0] = <int> (used if stop is None else within(stop, "stop", 0, most))
        first[0] = <int> within(start, "start", 0, last[0])
        for i in range(first[0], last[0]):
            length = slot_length(slots, i)
            if not 1 <= length <= largest:
                raise ValueError(f"packet {slot_number(slots, i)}: length {length} is not 1 to {largest}")
        if first[0] == last[0]:
            self._must_be_open()
        return order

    cdef void postpone(self, int outcome):
        """Let a later send raise what ended this one; a port that is closed or shut stays so."""
        with nogil:
            if outcome == IS_INTERRUPTED:
                take(&self.state_lock)
                self.latched = True
                give(&self.state_lock)
            elif outcome > IS_SHUT:
                take(&self.send_lock)
                self.pending[PATH_SEND] = -outcome
                give(&self.send_lock)

    # --- a call, its wait, and its end ---

    cdef int receive_all(self, SlotView *slots, int stop, object timeout, Event event) except -1:
        """Receive what is there, at least one packet; how many, 0 only with NO_WAIT."""
        cdef int64_t timeout_ns = -1 if timeout is None else nanoseconds(timeout)
        cdef int64_t deadline = deadline_after(timeout_ns)
        cdef intptr_t other = event_descriptor(event)
        cdef int outcome
        slots.cuts = 0
        while True:
            if event is not None and event.state:
                raise self.failure(PATH_RECV, IS_SET, b"")
            with nogil:
                outcome = self.receive_in_time(slots, stop, timeout_ns, other)
            if self.tasks_want_to_know:
                self.tell_tasks()
            if outcome > 0:
                return outcome
            if outcome == WOULD_WAIT and timeout is NO_WAIT:
                return 0
            self.settle(PATH_RECV, outcome, deadline, other)
            timeout_ns = time_left(deadline)

    cdef int receive_in_time(
        self, SlotView *slots, int stop, int64_t timeout_ns, intptr_t other,
    ) noexcept nogil:
        """Move what is there; if that is nothing, wait once for it, all without the GIL.

        0 (WOULD_WAIT) if the time is over, or if another thread took what came.
        """
        cdef int outcome = WOULD_WAIT
        take(&self.recv_lock)
        # The last receive has seen that nothing is there: most likely there is nothing yet.  An
        # interrupt that is kept for a call that has to wait must not end one that need not.
        if timeout_ns == 0 or not self.drained or self.latched:
            outcome = self.receive(slots, stop)
        give(&self.recv_lock)
        if outcome != WOULD_WAIT or timeout_ns == 0:
            return outcome
        outcome = self.wait(PATH_RECV, timeout_ns, other)
        if outcome < 0:
            return outcome
        take(&self.recv_lock)
        outcome = self.receive(slots, stop)
        give(&self.recv_lock)
        return outcome

    cdef int receive(self, SlotView *slots, int stop) noexcept nogil:
        """Move what is there; recv_lock is held."""
        cdef int error = 0
        cdef int count
        cdef bint are_left = False
        if self.is_shut or self.is_closed:
            return IS_CLOSED if self.is_closed else IS_SHUT
        if self.pending[PATH_RECV]:
            error = self.pending[PATH_RECV]
            self.pending[PATH_RECV] = 0
            return -error
        if self.offload != NULL:
            count = offload_recv(self.offload, &self.handle, slots, stop, &error)
            self.drained = error == EAGAIN
            are_left = self.offload.next < self.offload.segments
        else:
            if self.records != NULL:
                count = records_recv(self.records, &self.handle, slots, stop, &error)
                self.drained = error == EAGAIN
                are_left = self.records.walk.at < self.records.walk.bytes.size
            else:
                count = os_recv(&self.handle, slots, 0, stop, &error)
                self.drained = error == 0 and count < stop
            if slots.headers != NULL:
                memset(slots.headers, 0, count * VIRTIO_HEADER_SIZE)
        if self.has_packets != are_left:
            self.note_packets(are_left)
        if error == EAGAIN:
            error = 0
        if error == 0 or count == 0:
            return count if error == 0 else -error
        self.pending[PATH_RECV] = error
        return count

    cdef void note_packets(self, bint are_there) noexcept nogil:
        """The descriptor does not show packets that wait in memory: who waits for it is told."""
        take(&self.state_lock)
        self.has_packets = are_there
        if are_there and not self.is_closed:
            self.wake_waiters()
            self.tasks_want_to_know = self.tasks > 0
        give(&self.state_lock)

    cdef tell_tasks(self):
        """Let the tasks that wait look again."""
        self.tasks_want_to_know = False
        for waits in self._loops.copy().values():
            waits.wake_soon()

    cdef int transmit(self, SlotView *slots, int start, int stop, uint64_t *call) noexcept nogil:
        """Move what the device takes; send_lock is held."""
        cdef int error = 0
        cdef int count
        if self.is_shut or self.is_closed:
            return IS_CLOSED if self.is_closed else IS_SHUT
        if self.pending[PATH_SEND]:
            error = self.pending[PATH_SEND]
            self.pending[PATH_SEND] = 0
            return -error
        if self.offload != NULL:
            count = offload_send(self.offload, &self.handle, slots, start, stop, call, &error)
            if self.offload.rejected:
                self.stop_rejected()
        else:
            count = os_send(&self.handle, slots, start, stop, &error)
        if error == 0 or count == 0:
            return count if error == 0 else -error
        self.pending[PATH_SEND] = error
        return count

    cdef void stop_rejected(self) noexcept nogil:
        """Have the kernel hand over no super-packets of a type that it does not take."""
        self.offload.rejected = 0
        take(&self.control_lock)
        if self.handle.offload != OFFLOAD_UNKNOWN:
            os_set(&self.handle, SETTING_OFFLOAD, self.offload.types[0])
        give(&self.control_lock)

    cdef int may_wait(self, int path, int64_t timeout_ns) noexcept nogil:
        """WOULD_WAIT, or why there is no wait; state_lock is held."""
        if self.is_closed:
            return IS_CLOSED
        if self.is_shut:
            return IS_SHUT
        if path == PATH_RECV and self.has_packets:
            return 1
        if self.latched and timeout_ns:
            self.latched = False
            return IS_INTERRUPTED
        return WOULD_WAIT

    cdef int wait(self, int path, int64_t timeout_ns, intptr_t other) noexcept nogil:
        """Wait as one of the counted waiters; no lock is held."""
        cdef unsigned int epoch
        cdef unsigned int interrupts
        cdef int outcome
        take(&self.state_lock)
        outcome = self.may_wait(path, timeout_ns)
        if outcome != WOULD_WAIT:
            give(&self.state_lock)
            return outcome
        self.waiters += 1
        epoch = self.epoch
        interrupts = self.interrupts
        give(&self.state_lock)

        outcome = os_wait(&self.handle, path, other, timeout_ns)

        take(&self.state_lock)
        self.waiters -= 1
        if self.epoch != epoch:
            self.to_wake -= 1
            # The wake-up stays for those that have yet to see it, and for good once shut down.
            if self.to_wake == 0 and not self.is_shut and not self.is_closed:
                os_unwake(&self.handle)
        if self.is_closed:
            outcome = IS_CLOSED
            if self.close_waits and self.waiters == 0:
                self.close_waits = False
                PyThread_release_lock(self.idle)
        elif self.is_shut:
            outcome = IS_SHUT
        elif self.interrupts != interrupts:
            outcome = IS_INTERRUPTED
        give(&self.state_lock)
        return outcome

    cdef int settle(
        self, int path, int outcome, int64_t deadline, intptr_t other, bint partial=False,
    ) except -1:
        """After an attempt that moved nothing: wait until there may be another (0), or raise.

        A partial send is a result: nothing is raised but what a signal handler raises, and the
        answer is 1; what ended it is for a later call to raise.
        """
        cdef int64_t remaining
        if outcome == WOULD_WAIT:
            remaining = time_left(deadline)
            if remaining == 0:
                if partial:
                    return 1
                raise timed_out(path)
            with nogil:
                outcome = self.wait(path, remaining, other)
            if outcome >= 0:
                return 0              # ready, or time is over: the next attempt tells
        if outcome == -EINTR:
            # The handlers run here, where nothing is held: they may even close this device.
            PyErr_CheckSignals()
            return 0
        if partial:
            self.postpone(outcome)
            return 1
        raise self.failure(path, outcome, self.handle.failed[path])

    cdef object failure(self, int path, int outcome, const char *failed):
        if outcome == IS_CLOSED:
            return ClosedError(EBADF, "the device is closed: open it anew", self._label)
        if outcome == IS_SHUT:
            return ClosedError(EBADF, "the device was shut down: close it and open it anew", self._label)
        if outcome == IS_INTERRUPTED:
            return InterruptError(EINTR, "interrupt() ended the wait: call again when ready", self._label)
        if outcome == IS_SET:
            return InterruptError(EINTR, "the event is set: clear() it and call again when ready", self._label)
        return describe(path, -outcome, failed, self._label)

    # --- configuration ---

    # A control call runs between `begin` and `end`, all without the GIL: a thread that waits for the
    # GIL, perhaps for ever because the interpreter ends, must not hold a lock that close() needs.

    cdef int begin(self) noexcept nogil:
        take(&self.control_lock)
        return IS_CLOSED if self.is_closed else 0

    cdef const char *end(self) noexcept nogil:
        """The call that failed, if one did."""
        cdef const char *failed = self.handle.failed[PATH_CONTROL]
        give(&self.control_lock)
        return failed

    cdef check(self, int result, const char *failed):
        if result < 0:
            raise self.failure(PATH_CONTROL, result, failed)

    def _get(self, str setting):
        cdef int number = SETTING_NUMBERS[setting]
        cdef int64_t value = 0
        cdef int result
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_get(&self.handle, number, &value)
            failed = self.end()
        self.check(result, failed)
        return value

    def _set(self, str setting, int64_t value):
        cdef int number = SETTING_NUMBERS[setting]
        cdef int result
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_set(&self.handle, number, value)
            failed = self.end()
        self.check(result, failed)

    def _get_layer(self):
        cdef int64_t value = 0
        cdef int result
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_get(&self.handle, SETTING_LAYER, &value)
            failed = self.end()
        self.check(result, failed)
        return value

    def _get_name(self):
        cdef char name[NAME_SIZE]
        cdef int result
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_get_name(&self.handle, name)
            failed = self.end()
        self.check(result, failed)
        return name.decode("utf-8", "surrogateescape")

    def _set_name(self, str name):
        cdef bytes encoded = encode_name(name)
        cdef const char *text = encoded
        cdef int result
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_set_name(&self.handle, text)
            failed = self.end()
        self.check(result, failed)
        self.set_label(name)

    def _get_mac(self):
        cdef uint8_t mac[MAC_SIZE]
        cdef int result
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_get_mac(&self.handle, mac)
            failed = self.end()
        self.check(result, failed)
        return mac[:MAC_SIZE]

    def _set_mac(self, bytes mac):
        cdef const uint8_t *address = mac
        cdef int result
        if len(mac) != MAC_SIZE:
            raise ValueError("a MAC address has 6 bytes")
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_set_mac(&self.handle, address)
            failed = self.end()
        self.check(result, failed)

    def _get_addresses(self):
        cdef Address *found
        cdef int capacity = 16
        cdef int count
        while True:
            found = <Address *> malloc(capacity * sizeof(Address))
            if found == NULL:
                raise MemoryError()
            try:
                with nogil:
                    count = self.begin()
                    if count == 0:
                        count = os_get_addresses(&self.handle, found, capacity)
                    failed = self.end()
                self.check(count, failed)
                if count <= capacity:
                    return [address_tuple(&found[i]) for i in range(count)]
            finally:
                free(found)
            capacity = count + 16

    def _add_address(self, bytes ip, int prefix, bytes peer, bytes broadcast, bint route, uint32_t metric):
        cdef Address address
        cdef int result
        fill_address(&address, ip, prefix, peer, broadcast)
        address.no_route = not route
        address.metric = metric
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_add_address(&self.handle, &address)
            failed = self.end()
        self.check(result, failed)

    def _remove_address(self, bytes ip, int prefix, bytes peer):
        cdef Address address
        cdef int result
        fill_address(&address, ip, prefix, peer, None)
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_remove_address(&self.handle, &address)
            failed = self.end()
        self.check(result, failed)

    def _change_route(self, bint adds, bytes network, int prefix, bytes gateway, uint32_t metric):
        cdef Route route
        cdef int result
        cdef size_t width = <size_t> len(network)
        memset(&route, 0, sizeof(Route))
        if width not in (4, 16) or not 0 <= prefix <= <int> (8 * width):
            raise ValueError("a network has 4 or 16 bytes and a prefix within them")
        route.family = 4 if width == 4 else 6
        route.prefix = prefix
        route.metric = metric
        memcpy(route.network, <const char *> network, width)
        if gateway is not None:
            if len(gateway) != <Py_ssize_t> width:
                raise ValueError("a gateway is of the family of its network")
            memcpy(route.gateway, <const char *> gateway, width)
            route.has_gateway = 1
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_add_route(&self.handle, &route) if adds else os_remove_route(&self.handle, &route)
            failed = self.end()
        self.check(result, failed)

    def _set_broadcast(self, bytes broadcast):
        cdef const uint8_t *address = broadcast
        cdef int result
        if len(broadcast) != 4:
            raise ValueError("a broadcast address has 4 bytes")
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_set_broadcast(&self.handle, address)
            failed = self.end()
        self.check(result, failed)

    def _get_statistics(self):
        cdef uint64_t values[STATISTICS]
        cdef int result
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_get_statistics(&self.handle, values)
            failed = self.end()
        self.check(result, failed)
        return tuple([values[i] for i in range(STATISTICS)])

    def _get_dns(self):
        """list of bytes: Addresses of the name servers, IPv4 first."""
        cdef Address found[DNS_MAX]
        cdef int count
        with nogil:
            count = self.begin()
            if count == 0:
                count = os_get_dns(&self.handle, found, DNS_MAX)
            failed = self.end()
        self.check(count, failed)
        return [address_tuple(&found[i])[0] for i in range(min(count, <int> DNS_MAX))]

    def _set_dns(self, servers):
        cdef Address wanted[DNS_MAX]
        cdef int count = 0
        cdef int result
        for ip in servers:
            if count == DNS_MAX:
                raise ValueError(f"an interface has at most {DNS_MAX} name servers")
            fill_address(&wanted[count], ip, 8 * len(ip), None, None)
            count += 1
        with nogil:
            result = self.begin()
            if result == 0:
                result = os_set_dns(&self.handle, wanted, count)
            failed = self.end()
        self.check(result, failed)

    def _after_fork(self):
        """In the child: whoever held a lock or waited is a thread of the parent."""
        self.init_locks()
        self.waiters = self.to_wake = self.tasks = self.holds = 0
        # What was read before the fork is the parent's.
        self.has_packets = False
        if self.records != NULL:
            records_forget(self.records)
        if self.offload != NULL:
            self.offload.next = self.offload.segments
            self.offload.is_partial = False
        if self.is_closed:
            os_close(&self.handle)    # a thread of the parent was closing it
            return
        os_rewake(&self.handle)
        if self.is_shut:
            os_wake(&self.handle)


cdef class Sending:
    """What is left of a send_batch."""

    def send(self):
        """Send what goes without waiting; whether that was all, or an error came that the next call raises."""
        cdef int outcome
        while self.first + self.sent < self.last:
            with nogil:
                take(&self.port.send_lock)
                outcome = self.port.transmit(
                    &self.slots, self.first + self.sent, self.last, &self.call)
                give(&self.port.send_lock)
            if outcome == WOULD_WAIT:
                return False
            if outcome > 0:
                self.sent += outcome
            elif self.sent:
                self.port.postpone(outcome)
                return True
            else:
                raise self.port.failure(PATH_SEND, outcome, self.port.handle.failed[PATH_SEND])
        return True


cdef void one_slot(
    SlotView *slot, uint8_t *memory, Py_ssize_t size, Py_ssize_t room, int32_t *length, int32_t *cut,
) noexcept:
    """A view of one slot of `size` bytes in `room` bytes of memory."""
    slot.data = memory
    slot.limit = memory + room
    slot.lengths = length
    slot.headers = NULL
    slot.order = NULL
    slot.cut = cut
    slot.cuts = 0
    slot.capacity = 1
    slot.slot_size = <int32_t> min(size, <Py_ssize_t> INBOX_SIZE)
    slot.stride = slot.slot_size


cdef intptr_t event_descriptor(Event event):
    """What a wait has to look at besides; -1 for nothing."""
    return -1 if event is None else event.handle.wake[0]


def seconds(timeout):
    """What a caller wrote for `timeout`, checked: None for ever, or seconds."""
    cdef int64_t duration = nanoseconds(timeout)
    return None if duration < 0 else duration / 1e9


def timed_out(int path):
    """The error of a call whose time is over."""
    if path == PATH_RECV:
        return TimeoutError(errno.ETIMEDOUT, "nothing to receive in time")
    return TimeoutError(errno.ETIMEDOUT, "no room to send in time" if path == PATH_SEND else "nothing happened in time")


cdef tuple address_tuple(const Address *address):
    """(ip, prefix, peer or None, broadcast or None, route, metric, automatic), addresses as bytes."""
    cdef int width = 4 if address.family == 4 else 16
    return (
        address.ip[:width], address.prefix,
        address.peer[:width] if address.has_peer else None,
        address.broadcast[:width] if address.has_broadcast else None,
        not address.no_route, address.metric, bool(address.automatic),
    )


cdef object too_large(Py_ssize_t room, Py_ssize_t length):
    if length < room:
        return PacketError(
            errno.EMSGSIZE, f"the system captured the first {length} bytes of the packet, the rest is lost")
    return PacketError(
        errno.EMSGSIZE, f"the packet is larger than the {room} bytes given; they hold its beginning, the rest is lost")


cdef fill_address(Address *address, bytes ip, int prefix, bytes peer, bytes broadcast):
    cdef size_t width = <size_t> len(ip)
    memset(address, 0, sizeof(Address))
    if width not in (4, 16) or not 0 <= prefix <= <int> (8 * width):
        raise ValueError("an address has 4 or 16 bytes and a prefix within them")
    address.family = 4 if width == 4 else 6
    address.prefix = prefix
    memcpy(address.ip, <const char *> ip, width)
    if peer is not None:
        if len(peer) != <Py_ssize_t> width:
            raise ValueError("a peer is of the family of its address")
        memcpy(address.peer, <const char *> peer, width)
        address.has_peer = 1
    if broadcast is not None:
        if len(broadcast) != <Py_ssize_t> width:
            raise ValueError("a broadcast address is of the family of its address")
        memcpy(address.broadcast, <const char *> broadcast, width)
        address.has_broadcast = 1


def capabilities():
    """frozenset of str: What this operating system can be asked for at all."""
    cdef uint64_t bits = os_capabilities()
    return frozenset(name for name, bit in CAPABILITIES.items() if bits >> <int> bit & 1)


def features():
    """frozenset of str: What the kernel's TUN/TAP driver offers."""
    cdef Handle handle
    cdef uint32_t bits = 0
    cdef int result
    with nogil:
        result = os_features(&handle, &bits)
    if result < 0:
        raise describe(PATH_CONTROL, -result, handle.failed[PATH_CONTROL], "")
    return frozenset(name for name, bit in FEATURES_BY_NAME.items() if bits >> <int> bit & 1)


def interfaces():
    """list of str: Names of the TUN and TAP interfaces there are, in the caller's namespace."""
    cdef Handle handle
    cdef int count
    cdef char *names = <char *> malloc(INTERFACES_MAX * NAME_SIZE)
    if names == NULL:
        raise MemoryError()
    try:
        with nogil:
            count = os_interfaces(&handle, names, INTERFACES_MAX)
        if count < 0:
            raise describe(PATH_CONTROL, -count, handle.failed[PATH_CONTROL], "")
        return [
            (names + i * NAME_SIZE).decode("utf-8", "surrogateescape")
            for i in range(min(count, <int> INTERFACES_MAX))
        ]
    finally:
        free(names)


def find_utun_fd():
    """The descriptor of the tunnel that iOS or tvOS gave this process, for ``Tun.from_fd(fd, owned=False)``.

    A packet tunnel provider (`NEPacketTunnelProvider`) is not told it.

    Returns
    -------
    int

    Raises
    ------
    DeviceGoneError
        There is none: the tunnel has not started, or has ended.
    UnsupportedError
        Other operating systems have nothing like it.
    """
    cdef Handle handle
    cdef intptr_t result
    with nogil:
        result = os_find(&handle)
    if result < 0:
        raise describe(PATH_CONTROL, <int> -result, handle.failed[PATH_CONTROL], "")
    return result


def delete(str name):
    """Delete a TUN or TAP interface by name; whoever has it open gets `DeviceGoneError`."""
    cdef Handle handle
    cdef bytes encoded = encode_name(name)
    cdef const char *text = encoded
    cdef int result
    with nogil:
        result = os_delete(&handle, text)
    if result < 0:
        raise describe(PATH_CONTROL, -result, handle.failed[PATH_CONTROL], name)


def delete_driver(str libraries):
    """See `tuntap.delete_driver`."""
    cdef Handle handle
    cdef bytes encoded = libraries.encode()
    cdef const char *text = encoded
    cdef int result
    with nogil:
        result = os_delete_driver(&handle, text)
    if result < 0:
        raise describe(PATH_CONTROL, -result, handle.failed[PATH_CONTROL], "")


def private_network():
    """Move this process to a network namespace of its own; see `tuntap.testing`."""
    cdef Handle handle
    cdef int result
    with nogil:
        result = os_private_network(&handle)
    if result < 0:
        raise describe(PATH_CONTROL, -result, handle.failed[PATH_CONTROL], "")


def checksum(data, uint64_t initial=0):
    """See `tuntap.offload.checksum`."""
    cdef Py_buffer memory
    cdef uint16_t result
    get_packet(data, &memory)
    with nogil:
        result = <uint16_t> ~fold(sum_bytes(<const uint8_t *> memory.buf, <size_t> memory.len, initial))
    PyBuffer_Release(&memory)
    return result


cdef object refused_headers():
    return PacketError(EBADMSG, "the headers of the packet and its virtio-net header do not fit together")


cdef int begin_split(Split *split, Py_buffer *packet, bytes header) except -1:
    """How many segments a packet of the caller makes, 0 if it is none to split."""
    cdef VirtioHeader fields
    cdef Cursor cursor
    cdef int segments
    if not 1 <= packet.len <= LARGEST_PACKET:
        raise ValueError(f"a packet is 1 to {LARGEST_PACKET} bytes, not {packet.len}")
    if len(header) != VIRTIO_HEADER_SIZE:
        raise ValueError(f"a header has {VIRTIO_HEADER_SIZE} bytes, not {len(header)}")
    cursor_set(&cursor, <const uint8_t *> <const char *> header, <size_t> len(header))
    virtio_decode(&cursor, &fields)
    cursor_set(&cursor, <const uint8_t *> packet.buf, <size_t> packet.len)
    segments = gso_begin(split, &cursor, &fields, False, True)
    if segments < 0:
        raise refused_headers()
    return segments


cdef bytes complete(Py_buffer *packet, bytes header):
    """A packet that is none to split, with its checksum."""
    cdef bytes copy = PyBytes_FromStringAndSize(<const char *> packet.buf, packet.len)
    cdef VirtioHeader fields
    cdef Cursor cursor
    cursor_set(&cursor, <const uint8_t *> <const char *> header, <size_t> len(header))
    virtio_decode(&cursor, &fields)
    cursor_set(&cursor, <uint8_t *> PyBytes_AS_STRING(copy), <size_t> packet.len)
    if gso_complete(&cursor, &fields) < 0:
        raise refused_headers()
    return copy


def split(packet, bytes header):
    """See `tuntap.offload.split`."""
    cdef Split state
    cdef Py_buffer memory
    cdef Cursor target
    cdef bytes segment
    cdef size_t size
    cdef int i
    get_packet(packet, &memory)
    try:
        segments = []
        for i in range(begin_split(&state, &memory, header)):
            size = gso_size(&state, i)
            segment = PyBytes_FromStringAndSize(NULL, size)
            cursor_set(&target, <uint8_t *> PyBytes_AS_STRING(segment), size)
            gso_write(&state, i, &target)
            segments.append(segment)
        return segments or [complete(&memory, header)]
    finally:
        PyBuffer_Release(&memory)


cdef bint overlap(const Py_buffer *one, const Py_buffer *other) noexcept:
    """Whether two buffers share memory."""
    return (
        <const uint8_t *> one.buf < <const uint8_t *> other.buf + other.len
        and <const uint8_t *> other.buf < <const uint8_t *> one.buf + one.len
    )


def split_into(packet, bytes header, Slots batch not None):
    """See `tuntap.offload.split_into`."""
    cdef Split state
    cdef Py_buffer memory
    cdef Cursor target
    cdef int segments
    cdef int i
    batch.used = 0
    batch.view.cuts = 0
    batch.link_layer = LAYER_TUN
    get_packet(packet, &memory)
    try:
        if overlap(&memory, &batch.memory):
            raise ValueError("the packet lies in slots of the batch that its segments are to go to")
        segments = begin_split(&state, &memory, header)
        if segments == 0:
            return batch.fill([complete(&memory, header)])
        if segments > batch.view.capacity:
            raise ValueError(f"{segments} segments do not fit a batch of {batch.view.capacity}")
        if gso_size(&state, 0) > <size_t> batch.view.slot_size:
            raise ValueError(f"a segment is {gso_size(&state, 0)} bytes, a slot {batch.view.slot_size}")
        with nogil:
            for i in range(segments):
                cursor_set(&target, batch.view.data + i * batch.view.stride, <size_t> batch.view.slot_size)
                gso_write(&state, i, &target)
                slot_fill(&batch.view, i, <intptr_t> gso_size(&state, i))
            if batch.view.headers != NULL:
                memset(batch.view.headers, 0, segments * VIRTIO_HEADER_SIZE)
    finally:
        PyBuffer_Release(&memory)
    batch.used = segments
    return segments


def coalesce_into(Slots batch not None, Slots into not None, bint udp=True):
    """See `tuntap.offload.coalesce_into`."""
    cdef Window *window
    cdef int packets = batch.used
    cdef int32_t largest = min(batch.view.slot_size, <int32_t> LARGEST_PACKET)
    cdef int32_t length = 1
    cdef int taken = 0
    cdef int made = 0
    cdef int i = 0
    if overlap(&batch.memory, &into.memory):
        raise ValueError("a batch cannot be coalesced into itself")
    into.used = 0
    into.view.cuts = 0
    into.link_layer = LAYER_TUN
    if into.view.headers == NULL or into.view.slot_size < LARGEST_PACKET:
        raise ValueError(f"super-packets need slots of {LARGEST_PACKET} bytes")
    if into.view.capacity < packets:
        raise ValueError(f"{packets} packets may need as many slots, not {into.view.capacity}")
    window = <Window *> malloc(sizeof(Window))
    if window == NULL:
        raise MemoryError()
    with nogil:
        while taken < packets:
            gro_begin(window, GRO_TCPV4 | GRO_TCPV6 | (GRO_UDP if udp else 0), False, False, False)
            for i in range(taken, packets):
                # Another thread owns the array too: read once.
                length = (<volatile int32_t *> batch.view.lengths)[i]
                if not 1 <= length <= largest:
                    break
                if gro_add(window, batch.view.data + i * batch.view.stride, <size_t> length) < 0:
                    break
            if not 1 <= length <= largest:
                break
            for i in range(window.items):
                write_item(window, &window.item[i], &batch.view, taken, &into.view, made)
                made += 1
            taken += window.packets
    free(window)
    if taken < packets:
        raise ValueError(f"packet {i}: {length} is no length of a packet")
    into.used = made
    return made


cdef void write_item(
    const Window *window, const Item *item, const SlotView *slots, int base, SlotView *into, int slot,
) noexcept nogil:
    """An item in one piece, and its header."""
    cdef VirtioHeader fields
    cdef Cursor target
    cdef uint8_t *data = into.data + slot * into.stride
    cdef size_t size
    cdef size_t left
    cdef size_t part
    cdef int packet = item.first
    cursor_set(&target, data, <size_t> into.slot_size)
    size = gro_headers(window, item, &fields, &target)
    cursor_set(&target, into.headers + slot * VIRTIO_HEADER_SIZE, VIRTIO_HEADER_SIZE)
    virtio_encode(&target, &fields)
    into.lengths[slot] = <int32_t> item.size
    data += size
    left = item.size - size
    while packet >= 0:
        part = min(left, <size_t> item.gso_size) if item.count > 1 else left
        memcpy(data, slots.data + (base + packet) * slots.stride + size, part)
        data += part
        left -= part
        packet = window.next[packet]


def bpf_records(buffer, size_t timestamp_size, size_t alignment):
    """(packet, original, seconds, microseconds) of each record, and where the bytes that are none begin, or None."""
    cdef BpfWalk walk
    cdef BpfRecord record
    cdef Py_buffer memory
    get_packet(buffer, &memory)
    try:
        bpf_begin(&walk, <const uint8_t *> memory.buf, <size_t> memory.len, timestamp_size, alignment)
        records = []
        while bpf_next(&walk, &record) > 0:
            packet = PyBytes_FromStringAndSize(<const char *> record.packet, <Py_ssize_t> record.captured)
            records.append((packet, record.original, record.seconds, record.microseconds))
        return records, None if walk.at == walk.bytes.size else walk.at
    finally:
        PyBuffer_Release(&memory)


def _log_nothing():
    """The interpreter ends, and a driver's thread must not call it any more."""
    os_log(NULL)


cdef void log_message(int level, const char *text) noexcept nogil:
    with gil:
        logger.log(level, "%s", text.decode("utf-8", "replace"))


os_log(log_message)
atexit.register(_log_nothing)

# What the child of a fork must not share with its parent.
_forkers = weakref.WeakSet()


def _after_fork_in_child():
    for forker in _forkers.copy():
        forker._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
