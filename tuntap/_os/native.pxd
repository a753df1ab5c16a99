"""THE CONTRACT: what `_core` asks of an operating system.

Exactly one core (linux.pyx, none.pyx, ...) is compiled under the module name `tuntap._os.native`
against this file, so Cython refuses a core that lacks a function or differs in a signature.

Rules for every function: no Python object, no exception, no lock of its own, safe to call without
the GIL.  The result is n >= 0, or -errno.  Before returning -errno a function names the call that
failed in `handle.failed[path]`.  `_core` serialises calls per path: at most one receive, one send
and one control call run at the same time on one handle, and os_wait may run beside all of them.
"""
from libc.stdint cimport int32_t, int64_t, intptr_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #if defined(_WIN32)
    #define TUNTAP_NAME_SIZE 512
    #else
    #define TUNTAP_NAME_SIZE 16
    #endif
    """
    enum:
        NAME_SIZE "TUNTAP_NAME_SIZE"    # bytes of an interface name in UTF-8, the closing NUL included

cdef enum:
    MAC_SIZE = 6
    GUID_SIZE = 16
    LARGEST_HEADER = 64       # bytes of a virtio-net header, with what other programs made it

# What a handle carries.  LAYER_UNKNOWN is an adopted datagram socket that is no interface.
cdef enum:
    LAYER_UNKNOWN = 0
    LAYER_TAP = 2
    LAYER_TUN = 3

# The three ways into a handle, each with its own lock in `_core`, and its own `failed` name.  Waiting on
# PATH_CONTROL is waiting for a wake-up alone.
cdef enum:
    PATH_RECV = 0
    PATH_SEND = 1
    PATH_CONTROL = 2
    PATHS = 3

# How the bytes of one read or write are framed; `_core` picks the kernel that unframes them.
cdef enum:
    FRAMING_NONE = 0
    FRAMING_VIRTIO = 1
    FRAMING_BPF = 2

cdef enum:
    OPEN_EXCLUSIVE = 1        # fail if the interface exists
    OPEN_PACKET_INFORMATION = 2   # keep the 4-byte header of the OS in front of each packet
    OPEN_VIRTIO_HEADER = 4    # FRAMING_VIRTIO both ways
    OPEN_MULTI_QUEUE = 8      # further queues may be opened (os_open_queue)
    OPEN_BY_TAP_DRIVER = 16   # CAN_WINTUN: a TUN by tap-windows6

# Super-packets and unfinished checksums that the OS hands over: bits of SETTING_OFFLOAD.
cdef enum:
    OFFLOAD_CHECKSUM = 1
    OFFLOAD_TCP4 = 2
    OFFLOAD_TCP6 = 4
    OFFLOAD_UDP = 8
    OFFLOAD_UNKNOWN = -1      # negotiated by whoever lent the descriptor, and not ours to change

cdef enum:
    INTERFACES_MAX = 4096     # most names os_interfaces is asked for

# Integer settings of an interface, read by os_get and written by os_set.
cdef enum:
    SETTING_INDEX = 0
    SETTING_MTU = 1
    SETTING_UP = 2            # administratively up
    SETTING_RUNNING = 3       # read only: operational
    SETTING_CARRIER = 4
    SETTING_TX_QUEUE_LEN = 5
    SETTING_PERSIST = 6
    SETTING_OWNER = 7         # user id, -1 for none
    SETTING_GROUP = 8
    SETTING_QUIET = 9         # the OS makes no link-local address and sends nothing by itself
    SETTING_PACKET_INFORMATION = 10   # read only
    SETTING_LAYER = 11        # read only: Layer
    SETTING_OFFLOAD = 12      # Offload bits; what the OS does not offer is left out, and reads as 0
    SETTING_ATTACHED = 13     # whether this queue takes part; the others carry its packets if not
    SETTING_MTU_V6 = 14       # where IPv6 has an MTU of its own; SETTING_MTU sets both
    SETTING_METRIC = 15       # of the interface, -1 for one that the OS chooses
    SETTING_LUID = 16         # read only: what Windows calls the interface
    SETTING_DRIVER_VERSION = 17   # read only: major << 16 | minor
    SETTINGS = 18

# What this OS can do at all: bit numbers of os_capabilities, beside the settings above.
cdef enum:
    CAN_SET_BROADCAST = 18
    CAN_SET_ADDRESSES = 19
    CAN_OPEN_IN_NETNS = 20
    CAN_TAP = 21
    CAN_TUN = 22
    CAN_PEER_ADDRESS = 23
    CAN_STATISTICS = 24
    CAN_METRIC = 25           # of the route that an address brings along
    CAN_MULTI_QUEUE = 26
    CAN_WATCH = 27
    CAN_NAME_PEER = 28
    CAN_RENAME = 29
    CAN_SET_MAC = 30
    CAN_NOTIFY = 32           # event loops are told, as they cannot look at the descriptors of this OS
    CAN_WINTUN = 33           # the options of that driver, and of the other one that Windows has
    CAN_DNS = 34
    CAN_FREE_NAMES = 35       # up to 127 characters of any script, and spaces
    CAN_ROUTE = 36            # routes through the interface

# What the kernel's driver offers: bit numbers of os_features.
cdef enum:
    FEATURE_TUN = 0
    FEATURE_TAP = 1
    FEATURE_MULTI_QUEUE = 2
    FEATURE_VIRTIO_HEADER = 3
    FEATURE_NAPI = 4
    FEATURES = 5

# Order of os_get_statistics; the direction is the interface's, as in `ip -s link`.
cdef enum:
    STATISTIC_RX_PACKETS = 0
    STATISTIC_TX_PACKETS = 1
    STATISTIC_RX_BYTES = 2
    STATISTIC_TX_BYTES = 3
    STATISTIC_RX_ERRORS = 4
    STATISTIC_TX_ERRORS = 5
    STATISTIC_RX_DROPPED = 6
    STATISTIC_TX_DROPPED = 7
    STATISTICS = 8

# What an error means, whatever the OS calls it; `_core` picks the exception by it.
cdef enum:
    MEANS_OTHER = 0
    MEANS_CLOSED = 1
    MEANS_GONE = 2
    MEANS_LINK_DOWN = 3
    MEANS_UNSUPPORTED = 4
    MEANS_BUSY = 5
    MEANS_PRIVILEGE = 6
    MEANS_PACKET = 7

cdef struct Handle:
    intptr_t io               # descriptor the packets pass through; -1 if closed or none
    intptr_t wake[2]          # the first becomes ready to end a wait; the second, if any, makes it so
    intptr_t outlet           # what os_outlet answered; -1 for not yet or never
    intptr_t control[2]       # configuration sockets, in the network namespace of the device
    void *state               # whatever else a core keeps; os_close frees it
    const char *failed[3]     # per path, the call that failed last
    char name[NAME_SIZE]      # the interface an io-less handle (os_inspect) is about
    int layer
    int framing[2]            # Framing of PATH_RECV and PATH_SEND
    int header_size           # bytes of the virtio-net header, up to LARGEST_HEADER; zero behind the first ten
    int record_buffer         # FRAMING_BPF: bytes that a read has to ask for
    int record_timestamp      # bytes of the timestamp that a record begins with, 8 or 16
    int record_alignment      # BPF_ALIGNMENT
    int offload               # Offload bits in use, or OFFLOAD_UNKNOWN
    int detached              # SETTING_ATTACHED was set to 0
    int owned                 # os_close closes `io` only if set
    int mode                  # a core's own: how `io` is read and written
    int prefix                # bytes the OS puts in front of a packet and the core hides
    int packet_information    # bytes of OS header the caller asked to see in front of a packet
    int created               # os_open made the interface; it was not there before
    int lasts                 # os_close leaves it, where the system would
    int backoff               # nanoseconds a send has slept last because the system had no room
    uint64_t realm            # the network namespace `control` is in; 0 if that is not known

# Slots of a batch.  Slot i starts at data + i * stride and holds at most slot_size bytes.  A receive fills them as
# they lie, a send may go by an order: what it counts are places in that, not slots.
cdef struct SlotView:
    uint8_t *data
    uint8_t *limit            # end of the memory that may be written behind the last slot
    int32_t *lengths
    uint8_t *headers          # a virtio-net header of VIRTIO_HEADER_SIZE bytes for each slot, or NULL
    const int32_t *order      # the slot of each packet to send, or NULL: as they lie
    int32_t *cut              # indices of packets that did not fit their slot
    int32_t cuts              # how many there are
    int32_t capacity
    int32_t slot_size
    intptr_t stride

# One of the pieces of memory that a packet comes from or goes to, as struct iovec.
cdef struct Part:
    void *base
    size_t size

# An IPv4 address that the driver of a TAP gives the system by DHCP, as if a server were on the link.
cdef struct Lease:
    uint8_t ip[4]             # network order
    uint8_t server[4]
    int prefix
    uint32_t seconds
    const uint8_t *options    # further ones, as RFC 2132 encodes them, without an end
    int options_size

cdef struct OpenRequest:
    const char *name          # "" lets the OS choose; a pattern such as "tun%d" is completed
    const char *peer_name     # of the other end of a pair, where a TAP is one; "" lets the OS choose
    int layer
    uint32_t flags            # OpenFlag
    intptr_t netns            # descriptor of a network namespace, -1 for the caller's
    const char *libraries     # CAN_WINTUN: absolute paths of wintun.dll, a line each, to try before the system's own
    const char *description   # what kind of adapter Windows shows; "" for the default
    const uint8_t *guid       # GUID_SIZE bytes, or NULL
    uint32_t ring_capacity    # bytes; 0 for the default
    const Lease *lease        # CAN_WINTUN, by the driver of TAPs: or NULL

cdef struct Address:
    uint8_t ip[16]            # network order; IPv4 uses the first four bytes
    uint8_t peer[16]
    uint8_t broadcast[16]
    int family                # 4 or 6
    int prefix
    int has_peer
    int has_broadcast
    int automatic             # read only: made by the OS (IPv6 link-local)
    int no_route              # do not add the route to the subnet
    uint32_t metric           # of that route; 0 for the default

cdef struct Route:
    uint8_t network[16]       # network order, as in Address; no bit of a host is set
    uint8_t gateway[16]
    int family
    int prefix
    int has_gateway           # without one, whoever is in the network is on the link
    uint32_t metric           # 0 for the default

# What a Watch tells of an interface.
cdef enum:
    CHANGE_NONE = 0           # nothing more for now
    CHANGE_LINK = 1           # the link as it is now
    CHANGE_ADDRESS_ADDED = 2
    CHANGE_ADDRESS_REMOVED = 3
    CHANGE_MOVED = 4          # it left, by deletion or for another namespace
    CHANGE_LOST = 5           # the OS dropped notifications: ask for everything anew

cdef struct Change:
    int up
    int running
    int mtu
    char name[NAME_SIZE]
    Address address

# The notifications of the OS about one interface.
cdef struct Watch:
    intptr_t io               # readable when there are some; -1 if closed
    int index
    void *state               # whatever else a core keeps; os_unwatch frees it

ctypedef void (*Tell)(void *argument) noexcept nogil
ctypedef void (*Log)(int level, const char *text) noexcept nogil      # a level of Python's logging, UTF-8

# Life.  os_open, os_adopt and os_inspect fill a handle; after a failure nothing is left open.
cdef int os_open(Handle *handle, const OpenRequest *request) noexcept nogil
# One more queue of the interface that `of` has a queue of, opened in the same way.
cdef int os_open_queue(Handle *handle, Handle *of) noexcept nogil
cdef int os_adopt(Handle *handle, intptr_t io) noexcept nogil     # borrows it, flags untouched
# The descriptor that the OS gave this process, on an empty handle.
cdef intptr_t os_find(Handle *handle) noexcept nogil
cdef void os_own(Handle *handle) noexcept nogil                   # an adopted `io` is ours from now on
cdef int os_inspect(Handle *handle, const char *name) noexcept nogil    # configuration, no packets
cdef void os_close(Handle *handle) noexcept nogil

# Packets.  Both move what they can without waiting, from slot `start` up to before `stop` (os_send: of the order),
# and return how many packets moved; `error` gets the errno that stopped them (0: full or would block).
cdef int os_recv(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil
cdef int os_send(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil

# One packet with whatever the framing puts in front of it, or the records of a read: at least one byte, or -errno;
# -EAGAIN would wait.
cdef intptr_t os_recv_parts(Handle *handle, Part *parts, int count) noexcept nogil
cdef intptr_t os_send_parts(Handle *handle, Part *parts, int count) noexcept nogil

# Waiting.  os_wait returns 1 when `path` is ready or broken, 2 when only the descriptor `other` (-1: none) is
# readable or the handle was woken, 0 after timeout_ns (-1: never), -EINTR after a signal.  A wake-up stays until
# os_unwake takes it back; os_rewake gives the handle, after a fork, what it must not share with the
# parent, and makes a cleared handle one that can be woken and no more.
cdef int os_wait(Handle *handle, int path, intptr_t other, int64_t timeout_ns) noexcept nogil
# A descriptor that is readable when PATH_SEND is ready or broken, for event loops; -1 where `io` itself serves,
# looked at for writing.
cdef intptr_t os_outlet(Handle *handle) noexcept nogil
# CAN_NOTIFY: a thread of the OS calls `tell` once `path` is ready or broken or `other` is signalled, and then no more;
# not for a wake-up.  NULL if there is no memory.  os_unnotify comes back when `tell` does not run and never will.
cdef void *os_notify(Handle *handle, int path, intptr_t other, Tell tell, void *argument) noexcept nogil
cdef void os_unnotify(void *notification) noexcept nogil
cdef void os_wake(Handle *handle) noexcept nogil
cdef void os_unwake(Handle *handle) noexcept nogil
cdef int os_rewake(Handle *handle) noexcept nogil

# Configuration.
cdef int os_get(Handle *handle, int setting, int64_t *value) noexcept nogil
cdef int os_set(Handle *handle, int setting, int64_t value) noexcept nogil
cdef int os_get_name(Handle *handle, char *name) noexcept nogil
cdef int os_set_name(Handle *handle, const char *name) noexcept nogil
cdef int os_get_mac(Handle *handle, uint8_t *mac) noexcept nogil
cdef int os_set_mac(Handle *handle, const uint8_t *mac) noexcept nogil
cdef int os_get_addresses(Handle *handle, Address *addresses, int capacity) noexcept nogil   # how many there are
cdef int os_add_address(Handle *handle, const Address *address) noexcept nogil
cdef int os_remove_address(Handle *handle, const Address *address) noexcept nogil
cdef int os_add_route(Handle *handle, const Route *route) noexcept nogil
cdef int os_remove_route(Handle *handle, const Route *route) noexcept nogil
cdef int os_set_broadcast(Handle *handle, const uint8_t *broadcast) noexcept nogil
cdef int os_get_statistics(Handle *handle, uint64_t *values) noexcept nogil
cdef int os_get_dns(Handle *handle, Address *servers, int capacity) noexcept nogil      # how many there are
cdef int os_set_dns(Handle *handle, const Address *servers, int count) noexcept nogil   # these and no others

# Notifications.  os_watch opens them for the interface as it is now; os_next_change never waits, and returns a
# Change number or -errno.
cdef int os_watch(Handle *handle, Watch *watch) noexcept nogil
cdef int os_next_change(Watch *watch, Change *change) noexcept nogil
cdef void os_unwatch(Watch *watch) noexcept nogil

# The system.
cdef uint64_t os_capabilities() noexcept nogil
cdef int os_features(Handle *handle, uint32_t *features) noexcept nogil    # an empty handle; names the failed call
cdef int os_interfaces(Handle *handle, char *names, int capacity) noexcept nogil   # TUN and TAP, how many there are
cdef int os_delete(Handle *handle, const char *name) noexcept nogil
cdef int os_delete_driver(Handle *handle, const char *libraries) noexcept nogil      # CAN_WINTUN
cdef int os_private_network(Handle *handle) noexcept nogil   # moves this process to a network of its own
cdef int os_meaning(int path, int error, const char *failed, const char **advice) noexcept nogil
# The OS's own number for an error that is no errno, and its words in UTF-8; 0 for an errno.
cdef int os_explain(int error, char *text, int size) noexcept nogil
cdef void os_log(Log log) noexcept nogil                     # where a driver's messages go from now on; NULL: nowhere


cdef inline void handle_clear(Handle *handle) noexcept nogil:
    """A handle that holds nothing."""
    handle.io = handle.outlet = handle.wake[0] = handle.wake[1] = handle.control[0] = handle.control[1] = -1
    handle.state = NULL
    handle.failed[PATH_RECV] = handle.failed[PATH_SEND] = handle.failed[PATH_CONTROL] = b""
    handle.name[0] = 0
    handle.layer = LAYER_UNKNOWN
    handle.framing[PATH_RECV] = handle.framing[PATH_SEND] = FRAMING_NONE
    handle.owned = handle.mode = handle.prefix = handle.packet_information = handle.created = handle.lasts = 0
    handle.header_size = handle.offload = handle.detached = handle.backoff = 0
    handle.record_buffer = handle.record_timestamp = handle.record_alignment = 0
    handle.realm = 0


cdef inline intptr_t slot_number(const SlotView *slots, int i) noexcept nogil:
    """The slot of the i-th packet to send."""
    return i if slots.order == NULL else slots.order[i]


cdef inline uint8_t *slot_at(const SlotView *slots, int i) noexcept nogil:
    """The i-th packet to send."""
    return slots.data + slot_number(slots, i) * slots.stride


cdef inline int32_t slot_length(const SlotView *slots, int i) noexcept nogil:
    """Its length now: another thread owns the array too, so it is to be read once, and checked."""
    return (<volatile int32_t *> slots.lengths)[slot_number(slots, i)]


cdef inline void slot_fill(SlotView *slots, int slot, intptr_t size) noexcept nogil:
    """Note that a packet of `size` bytes went to a slot, which has as much of it as it holds."""
    if size > slots.slot_size:
        size = slots.slot_size
        slot_cut(slots, slot)
    slots.lengths[slot] = <int32_t> size


cdef inline void slot_cut(SlotView *slots, int slot) noexcept nogil:
    """Note that a slot has the beginning of its packet only."""
    cdef int32_t cuts = (<volatile int32_t *> &slots.cuts)[0]
    if cuts < slots.capacity:     # two devices may be told to fill one batch at once
        slots.cut[cuts] = slot
        slots.cuts = cuts + 1
