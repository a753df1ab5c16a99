"""FreeBSD, OpenBSD and NetBSD: tun(4) and tap(4), whose device nodes carry the packets.

How they differ stands in one place, the macros below.  On all three a TUN puts the address family in front
of each packet, which the core hides.
"""
from libc.errno cimport (
    EACCES, EAFNOSUPPORT, EBADF, EBADMSG, EBUSY, EEXIST, EHOSTDOWN, EINVAL, EIO, EMSGSIZE,
    ENETDOWN, ENODEV, ENOENT, ENOTTY, ENXIO, EOPNOTSUPP, EPERM, errno,
)
from libc.stdint cimport int64_t, intptr_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset, strcmp, strlen, strncmp, strncpy

from tuntap._os.ifconfig cimport *
from tuntap._os.native cimport *
from tuntap._os.posix cimport *
from tuntap._os.route cimport *

cdef extern from *:
    """
    #include <sys/stat.h>
    #include <net/if_tun.h>
    #include <stdlib.h>
    #include <string.h>
    #include <unistd.h>
    #if defined(__FreeBSD__)
    #include <sys/linker.h>
    #include <sys/module.h>
    #include <net/if_tap.h>
    #include <netinet6/nd6.h>
    #elif defined(__NetBSD__)
    #include <net/if_tap.h>
    #include <netinet6/nd6.h>
    #endif

    /* Made and destroyed by ioctl; on OpenBSD by opening and closing the node. */
    #if defined(__OpenBSD__)
    #define TUNTAP_CREATES 0
    #else
    #define TUNTAP_CREATES 1
    #endif

    /* SIOCIFCREATE picks a free unit for a name without one; elsewhere units are tried in turn. */
    #if defined(__FreeBSD__)
    #define TUNTAP_PICKS_UNIT 1
    #else
    #define TUNTAP_PICKS_UNIT 0
    #endif

    /* An interface may be called anything, and an open descriptor tells what. */
    #if defined(__FreeBSD__)
    #define TUNTAP_RENAMES 1
    #define tuntap_node_of(fd) fdevname(fd)
    #else
    #define TUNTAP_RENAMES 0
    #define tuntap_node_of(fd) ""
    #define TUNGIFNAME 0
    #define SIOCSIFNAME 0
    #endif

    /* The interface says which process has it open. */
    #if defined(__FreeBSD__)
    #define TUNTAP_TELLS_OPENER 1
    static inline int tuntap_has_opener(int fd, const char *name) {
        struct ifstat status;
        memset(&status, 0, sizeof(status));
        strncpy(status.ifs_name, name, sizeof(status.ifs_name) - 1);
        return ioctl(fd, SIOCGIFSTATUS, &status) == 0 && strstr(status.ascii, "Opened by PID") != NULL;
    }
    #else
    #define TUNTAP_TELLS_OPENER 0
    #define tuntap_has_opener(fd, name) 0
    #endif

    /* The interface goes with its descriptor if asked to, even when the process is killed. */
    #if !defined(TUNSTRANSIENT)
    #define TUNTAP_HAS_TRANSIENT 0
    #define TUNSTRANSIENT 0
    #define TUNGTRANSIENT 0
    #else
    #define TUNTAP_HAS_TRANSIENT 1
    #endif

    /* The address family is in front of a packet only if asked for; on OpenBSD always. */
    #if defined(TUNSIFHEAD)
    #define TUNTAP_ASKS_FOR_HEAD 1
    #else
    #define TUNTAP_ASKS_FOR_HEAD 0
    #define TUNSIFHEAD 0
    #define TUNGIFHEAD 0
    #endif

    /* A process that takes a descriptor over says so, or the kernel logs that it closed it. */
    #if defined(TUNSIFPID)
    #define TUNTAP_HAS_PID 1
    #else
    #define TUNTAP_HAS_PID 0
    #define TUNSIFPID 0
    #endif

    /* Neighbour discovery of an interface can be told to be quiet. */
    #if defined(SIOCSIFINFO_FLAGS)
    #define TUNTAP_HAS_ND 1
    #if !defined(ND6_IFF_NO_DAD)
    #define ND6_IFF_NO_DAD 0                /* NetBSD: IN6_IFF_NODAD of the address does */
    #endif
    #else
    #define TUNTAP_HAS_ND 0
    struct in6_ndireq { char ifname[IFNAMSIZ]; struct { unsigned int flags; } ndi; };
    #define SIOCSIFINFO_FLAGS 0
    #define ND6_IFF_AUTO_LINKLOCAL 0
    #define ND6_IFF_NO_DAD 0
    #define ND6_IFF_IFDISABLED 0
    #endif

    /* Whether an interface is of a driver: by its group where it may have another name. */
    static inline int tuntap_is_of(int fd, const char *name, const char *driver) {
    #if defined(__FreeBSD__)
        struct ifgroupreq request;
        struct ifg_req groups[16];
        unsigned int i;
        memset(&request, 0, sizeof(request));
        memset(groups, 0, sizeof(groups));
        strncpy(request.ifgr_name, name, sizeof(request.ifgr_name) - 1);
        request.ifgr_len = sizeof(groups);
        request.ifgr_groups = groups;
        if (ioctl(fd, SIOCGIFGROUP, &request) < 0)
            return 0;
        for (i = 0; i < request.ifgr_len / sizeof(groups[0]); i++)
            if (strcmp(groups[i].ifgrq_group, driver) == 0)
                return 1;
        return 0;
    #else
        (void) fd;
        return strncmp(name, driver, 3) == 0 && name[3] != 0 && strspn(name + 3, "0123456789") == strlen(name + 3);
    #endif
    }

    static inline int tuntap_has_driver(const char *first_node) {
    #if defined(__FreeBSD__)
        (void) first_node;                  /* to look at a node would make an interface */
        return modfind("if_tuntap") >= 0;
    #else
        struct stat status;
        return stat(first_node, &status) == 0;
    #endif
    }

    /* Nanoseconds after which a wait looks again, where poll(2) does not tell that the interface was destroyed. */
    #if defined(__NetBSD__)
    #define TUNTAP_WAIT_AT_MOST INT64_C(1000000000)
    #else
    #define TUNTAP_WAIT_AT_MOST 0
    #endif

    static inline void tuntap_load_driver(void) {
    #if defined(__FreeBSD__)
        kldload("if_tuntap");
    #endif
    }

    _Static_assert(AF_INET == 2 && AF_INET < 256 && AF_INET6 < 256, "address families in front of packets");
    """
    enum: ECONNREFUSED, ECONNRESET, ENOTCONN, EPIPE
    size_t strcspn(const char *text, const char *refused) nogil
    enum: TUNTAP_CREATES, TUNTAP_PICKS_UNIT, TUNTAP_RENAMES, TUNTAP_HAS_TRANSIENT, TUNTAP_ASKS_FOR_HEAD
    enum: TUNTAP_HAS_PID, TUNTAP_HAS_ND
    int64_t TUNTAP_WAIT_AT_MOST
    void load_driver "tuntap_load_driver"() nogil
    enum: TUNTAP_TELLS_OPENER
    bint has_opener "tuntap_has_opener"(int fd, const char *name) nogil
    const char *node_of "tuntap_node_of"(int fd) nogil
    bint has_driver "tuntap_has_driver"(const char *first_node) nogil
    bint is_of "tuntap_is_of"(int fd, const char *name, const char *driver) nogil

    unsigned long SIOCSIFNAME, SIOCGIFINFO_IN6, SIOCSIFINFO_FLAGS
    unsigned long TUNGIFNAME, TUNSTRANSIENT, TUNGTRANSIENT, TUNSIFHEAD, TUNGIFHEAD, TUNSIFPID
    enum: ND6_IFF_AUTO_LINKLOCAL, ND6_IFF_NO_DAD, ND6_IFF_IFDISABLED
    ctypedef char *caddr_t
    struct named_ifreq "ifreq":
        char ifr_name[16]
        caddr_t ifr_data
    struct nd_ifinfo:
        uint32_t flags
    struct in6_ndireq:
        char ifname[16]
        nd_ifinfo ndi

    enum: S_IFMT, S_IFCHR
    ctypedef unsigned int mode_t
    ctypedef uint64_t dev_t
    struct stat_t "stat":
        mode_t st_mode
        dev_t st_rdev
    int stat(const char *path, stat_t *result) nogil
    int fstat(int fd, stat_t *result) nogil
    int mknod(const char *path, mode_t mode, dev_t device) nogil
    unsigned int major(dev_t device) nogil
    dev_t makedev(unsigned int major, unsigned int minor) nogil
    const char *devname(dev_t device, mode_t kind) nogil
    unsigned int geteuid() nogil

cdef enum:
    UNITS = 256               # that are tried for one that is free
    PATH_SIZE = 32
    HEAD_SIZE = 4

# The address family in network order.
cdef uint8_t[HEAD_SIZE] HEAD_IPV4 = [0, 0, 0, AF_INET]
cdef uint8_t[HEAD_SIZE] HEAD_IPV6 = [0, 0, 0, AF_INET6]

cdef const char *OTHER_NAME = b"the name of the interface"
cdef const char *OTHER_KIND = b"the kind of the interface"


# --- life ---

cdef const char *stem_of(int layer) noexcept nogil:
    return b"tap" if layer == LAYER_TAP else b"tun"


cdef bint has_stem(const char *name, int layer) noexcept nogil:
    """Whether it is the driver's own name: the stem and a unit."""
    return is_numbered(name, stem_of(layer))


cdef bint is_drivers(const char *name) noexcept nogil:
    """Whether the kernel may give the name to an interface of its own."""
    return (
        has_stem(name, LAYER_TUN) or has_stem(name, LAYER_TAP)
        or strncmp(name, b"vmnet", 5) == 0 and strspn(name + 5, b"0123456789") == strlen(name + 5)
    )


cdef int create(Handle *handle, char *name) noexcept nogil:
    """create_interface, with the driver loaded."""
    cdef int result = create_interface(handle, name)
    if result == -EINVAL:
        load_driver()
        result = create_interface(handle, name)
    return result


cdef int open_node(Handle *handle, const char *name, int layer) noexcept nogil:
    """The descriptor of an interface, by a node that is made if it is missing and we may make it."""
    cdef char path[PATH_SIZE]
    cdef char first[PATH_SIZE]
    cdef stat_t known
    cdef unsigned int unit = 0
    cdef int i
    snprintf(path, sizeof(path), b"/dev/%s", name)
    handle.io = open_(path, O_RDWR | O_CLOEXEC | O_NONBLOCK)
    if handle.io < 0 and errno == ENOENT and not TUNTAP_RENAMES and has_stem(name, layer):
        snprintf(first, sizeof(first), b"/dev/%s0", stem_of(layer))
        if stat(first, &known) == 0:
            for i in range(3, <int> strlen(name)):
                unit = unit * 10 + <unsigned int> (name[i] - c"0")
            mknod(path, S_IFCHR | 0o600, makedev(major(known.st_rdev), unit))
        handle.io = open_(path, O_RDWR | O_CLOEXEC | O_NONBLOCK)
    if handle.io < 0:
        return fail(handle, PATH_CONTROL, b"open(/dev/tap)" if layer == LAYER_TAP else b"open(/dev/tun)")
    # The drivers of OpenBSD and NetBSD look at their own flag, which this sets, and not at that of open().
    fcntl(<int> handle.io, F_SETFL, O_NONBLOCK)
    return 0


cdef bint is_open_elsewhere(Handle *handle, const char *name, int layer) noexcept nogil:
    """Whether anybody has a descriptor of the interface; the drivers allow one at a time."""
    cdef Handle other
    cdef int result
    if TUNTAP_TELLS_OPENER:
        return open_control(handle) == 0 and has_opener(<int> handle.control[0], name)
    result = open_node(&other, name, layer)
    close_fd(&other.io)
    return result == -EBUSY


cdef int take(Handle *handle, const OpenRequest *request, const char *name) noexcept nogil:
    """Make the interface of a full name, or take it if it is there, and open it."""
    cdef char made[NAME_SIZE]
    cdef bint exists = if_nametoindex(name) != 0
    cdef int result
    if exists and request.flags & OPEN_EXCLUSIVE:
        handle.failed[PATH_CONTROL] = b"if_nametoindex"
        return -EEXIST
    if exists and layer_of(handle, name) != request.layer:
        handle.failed[PATH_CONTROL] = OTHER_KIND
        return -EINVAL
    handle.created = not exists
    strncpy(made, name, sizeof(made))
    if not exists and TUNTAP_CREATES:
        if TUNTAP_RENAMES and not has_stem(name, request.layer):
            strncpy(made, stem_of(request.layer), sizeof(made))
        result = create(handle, made)
        if result == -EEXIST and not request.flags & OPEN_EXCLUSIVE and if_nametoindex(name):
            handle.created = 0        # somebody was faster
        elif result < 0:
            return result             # or the unit is there under another name
    result = open_node(handle, made, request.layer)
    if result == 0 and strcmp(made, name) != 0:
        result = os_set_name(handle, name)
    if result < 0 and handle.created and TUNTAP_CREATES:
        close_fd(&handle.io)
        if result != -EBUSY:          # else somebody has it open, and FreeBSD would wait for that
            destroy_interface(handle, made)
        handle.created = 0
    strncpy(handle.name, name, sizeof(handle.name))
    return result


cdef int take_free(Handle *handle, const OpenRequest *request, const char *pattern) noexcept nogil:
    """An interface that was not there: of any unit, or the first name that fits a pattern such as "vpn%d"."""
    cdef OpenRequest wanted = request[0]
    cdef char name[NAME_SIZE]
    cdef char stem[NAME_SIZE]
    cdef size_t length = strcspn(pattern, b"%")
    cdef const char *rest = b""
    cdef int result
    cdef int unit
    if pattern[length]:
        rest = pattern + length + 2
    snprintf(stem, sizeof(stem), b"%.*s", <int> length, pattern)
    if TUNTAP_PICKS_UNIT and strcmp(stem, stem_of(request.layer)) == 0:
        result = create(handle, stem)
        if result == 0:
            wanted.flags &= ~<uint32_t> OPEN_EXCLUSIVE
            result = take(handle, &wanted, stem)
            handle.created = 1
        return result
    wanted.flags |= OPEN_EXCLUSIVE
    for unit in range(UNITS):
        snprintf(name, sizeof(name), b"%s%d%s", stem, unit, rest)
        result = take(handle, &wanted, name)
        if result != -EBUSY and result != -EEXIST:
            break
    return result


cdef int os_open(Handle *handle, const OpenRequest *request) noexcept nogil:
    cdef const char *name = request.name
    cdef int result
    handle_clear(handle)
    handle.owned = 1
    handle.mode = MODE_NONBLOCKING
    handle.layer = request.layer
    if (
        request.flags & (OPEN_VIRTIO_HEADER | OPEN_MULTI_QUEUE)
        or request.layer == LAYER_TAP and request.flags & OPEN_PACKET_INFORMATION
    ):
        return not_here(handle, b"tun(4)")
    if not TUNTAP_RENAMES and name[0] and strcspn(name, b"%") == strlen(name) and not has_stem(name, request.layer):
        handle.failed[PATH_CONTROL] = OTHER_NAME
        return -EINVAL
    result = pipe_rewake(handle)
    if result == 0:
        result = open_control(handle)
    if result == 0:
        if name[0] == 0:
            result = take_free(handle, request, stem_of(request.layer))
        elif strcspn(name, b"%") < strlen(name):
            result = take_free(handle, request, name)
        else:
            result = take(handle, request, name)
    if result == 0:
        result = prepare(handle, request.flags)
    if result < 0:
        os_close(handle)
    return result


cdef int prepare(Handle *handle, uint32_t flags) noexcept nogil:
    """What a new descriptor is told."""
    cdef int on = 1
    if TUNTAP_RENAMES and handle.layer == LAYER_TAP and ioctl(<int> handle.io, TUNGIFHEAD, &on) == 0:
        handle.failed[PATH_CONTROL] = OTHER_KIND
        return -EINVAL                # it is a TUN, whatever it is called
    if handle.layer == LAYER_TUN:
        if TUNTAP_ASKS_FOR_HEAD and ioctl(<int> handle.io, TUNSIFHEAD, &on) < 0:
            return fail(handle, PATH_CONTROL, b"ioctl(TUNSIFHEAD)")
        if flags & OPEN_PACKET_INFORMATION:
            handle.packet_information = HEAD_SIZE
        else:
            handle.prefix = HEAD_SIZE
    handle.lasts = not handle.created
    return set_lasts(handle, handle.lasts) if handle.created else 0


cdef int set_lasts(Handle *handle, bint lasts) noexcept nogil:
    """Whether the interface stays when it is closed."""
    cdef int transient = not lasts
    handle.lasts = lasts
    if TUNTAP_HAS_TRANSIENT:
        ioctl(<int> handle.io, TUNSTRANSIENT, &transient)     # where the kernel is too old, os_close destroys
    return 0


cdef int os_open_queue(Handle *handle, Handle *of) noexcept nogil:
    return not_here(handle, b"tun(4)")


cdef int os_adopt(Handle *handle, intptr_t io) noexcept nogil:
    cdef int result
    handle_clear(handle)
    handle.io = io
    handle.lasts = 1
    if fcntl(<int> io, F_GETFL) < 0:
        return fail(handle, PATH_CONTROL, b"fcntl(F_GETFL)")
    handle.mode = socket_mode(<int> io)
    if handle.mode == MODE_POLL:
        result = recognise(handle)
        if result < 0:
            return result
    return pipe_rewake(handle)


cdef int recognise(Handle *handle) noexcept nogil:
    """Which interface an adopted descriptor is of."""
    cdef stat_t status
    cdef const char *node
    cdef int head = 1
    cdef int result
    if TUNTAP_RENAMES:
        result = os_get_name(handle, handle.name)
        if result < 0:
            return result
        handle.layer = LAYER_TUN if ioctl(<int> handle.io, TUNGIFHEAD, &head) == 0 else LAYER_TAP
    else:
        if fstat(<int> handle.io, &status) < 0:
            return fail(handle, PATH_CONTROL, b"fstat")
        node = devname(status.st_rdev, S_IFCHR) if status.st_mode & S_IFMT == S_IFCHR else NULL
        if node != NULL and has_stem(node, LAYER_TUN):
            handle.layer = LAYER_TUN
        elif node != NULL and has_stem(node, LAYER_TAP):
            handle.layer = LAYER_TAP
        else:
            handle.failed[PATH_CONTROL] = b"devname"
            return -ENOTTY
        if TUNTAP_ASKS_FOR_HEAD and handle.layer == LAYER_TUN and ioctl(<int> handle.io, TUNGIFHEAD, &head) < 0:
            return fail(handle, PATH_CONTROL, b"ioctl(TUNGIFHEAD)")
        strncpy(handle.name, node, sizeof(handle.name))
    if handle.layer == LAYER_TUN and head:
        handle.prefix = HEAD_SIZE
    return 0


cdef intptr_t os_find(Handle *handle) noexcept nogil:
    return not_here(handle, b"a descriptor from the system")


cdef void os_own(Handle *handle) noexcept nogil:
    if handle.mode == MODE_POLL and fcntl(<int> handle.io, F_SETFL, O_NONBLOCK) == 0:
        handle.mode = MODE_NONBLOCKING
    if TUNTAP_HAS_PID and handle.layer == LAYER_TUN:
        ioctl(<int> handle.io, TUNSIFPID)
    handle.owned = 1


cdef int os_inspect(Handle *handle, const char *name) noexcept nogil:
    handle_clear(handle)
    strncpy(handle.name, name, sizeof(handle.name))
    return open_control(handle)


cdef bint is_to_be_destroyed(Handle *handle, char *name) noexcept nogil:
    """By us, as the system does not do it."""
    cdef int transient
    if not handle.owned or not handle.created or handle.lasts or not TUNTAP_CREATES:
        return False
    if TUNTAP_HAS_TRANSIENT and ioctl(<int> handle.io, TUNGTRANSIENT, &transient) == 0 and transient:
        return False
    return os_get_name(handle, name) == 0


cdef void os_close(Handle *handle) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef bint goes = is_to_be_destroyed(handle, name)
    if handle.owned:
        close_fd(&handle.io)
    handle.io = -1
    # The descriptor first, or SIOCIFDESTROY waits for it; and a child of fork() may have it too.
    if goes and if_nametoindex(name) and not is_open_elsewhere(handle, name, handle.layer):
        destroy_interface(handle, name)
    close_fd(&handle.wake[0])
    close_fd(&handle.wake[1])
    close_fd(&handle.control[0])
    close_fd(&handle.control[1])


# --- packets and waiting ---

cdef int os_recv(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    cdef int count = posix_recv(handle, slots, start, stop, error)
    if error[0] == EHOSTDOWN:
        error[0] = 0                  # the interface is not up yet: there will be packets when it is
    return count


cdef int os_send(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    cdef int count = posix_send(handle, slots, start, stop, HEAD_IPV4, HEAD_IPV6, error)
    back_off(handle, count, error)
    return count


cdef intptr_t os_recv_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    return posix_recv_parts(handle, parts, count)


cdef intptr_t os_send_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    return posix_send_parts(handle, parts, count)


cdef int os_wait(Handle *handle, int path, intptr_t other, int64_t timeout_ns) noexcept nogil:
    cdef int outcome
    if TUNTAP_WAIT_AT_MOST and not 0 <= timeout_ns <= TUNTAP_WAIT_AT_MOST:
        timeout_ns = TUNTAP_WAIT_AT_MOST
    outcome = posix_wait(handle, path, other, timeout_ns)
    return 1 if outcome == IN_ERROR else outcome


cdef intptr_t os_outlet(Handle *handle) noexcept nogil:
    return -1


cdef void *os_notify(Handle *handle, int path, intptr_t other, Tell tell, void *argument) noexcept nogil:
    return NULL


cdef void os_unnotify(void *notification) noexcept nogil:
    pass


cdef void os_wake(Handle *handle) noexcept nogil:
    pipe_wake(handle)


cdef void os_unwake(Handle *handle) noexcept nogil:
    pipe_unwake(handle)


cdef int os_rewake(Handle *handle) noexcept nogil:
    return pipe_rewake(handle)


# --- configuration ---

cdef int os_get(Handle *handle, int setting, int64_t *value) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef int64_t index
    cdef int result
    if setting == SETTING_OFFLOAD:
        value[0] = 0
        return 0
    if setting == SETTING_ATTACHED:
        value[0] = 1
        return 0
    result = os_get_name(handle, name)
    if result < 0:
        return result
    if setting == SETTING_INDEX:
        return get_index(handle, name, value)
    if setting == SETTING_MTU:
        return get_mtu(handle, name, value)
    if setting == SETTING_UP or setting == SETTING_RUNNING:
        result = get_flags(handle, name, value)
        value[0] = value[0] & (IFF_UP if setting == SETTING_UP else IFF_RUNNING) != 0
        return result
    if setting == SETTING_LAYER:
        value[0] = layer_of(handle, name)
        return get_index(handle, name, &index)
    if setting == SETTING_PACKET_INFORMATION:
        value[0] = handle.packet_information != 0
        return 0
    if setting == SETTING_PERSIST and TUNTAP_CREATES:
        value[0] = handle.lasts
        return 0
    if setting == SETTING_QUIET and TUNTAP_HAS_ND:
        return get_quiet(handle, name, value)
    return not_here(handle, b"tun(4)")


cdef int layer_of(Handle *handle, const char *name) noexcept nogil:
    if handle.io >= 0:
        return handle.layer
    if is_of(<int> handle.control[0], name, b"tun"):
        return LAYER_TUN
    return LAYER_TAP if is_of(<int> handle.control[0], name, b"tap") else LAYER_UNKNOWN


cdef int discovery(Handle *handle, const char *name, in6_ndireq *request) noexcept nogil:
    """What neighbour discovery does on the interface."""
    cdef int result = open_control(handle)
    strncpy(request.ifname, name, sizeof(request.ifname))
    if result == 0 and handle.control[1] < 0:
        handle.failed[PATH_CONTROL] = b"socket(AF_INET6)"
        result = -EAFNOSUPPORT
    if result == 0 and ioctl(<int> handle.control[1], SIOCGIFINFO_IN6, request) < 0:
        result = fail(handle, PATH_CONTROL, b"ioctl(SIOCGIFINFO_IN6)")
    return result


cdef int change_discovery(Handle *handle, const char *name, uint32_t clear, uint32_t add) noexcept nogil:
    """Read, change and write its flags, where there is something to change."""
    cdef in6_ndireq request
    cdef int result = discovery(handle, name, &request)
    cdef uint32_t flags
    if result < 0:
        return result
    flags = request.ndi.flags & ~clear | add
    if flags == request.ndi.flags:
        return 0
    request.ndi.flags = flags
    if ioctl(<int> handle.control[1], SIOCSIFINFO_FLAGS, &request) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(SIOCSIFINFO_FLAGS)")
    return 0


cdef int get_quiet(Handle *handle, const char *name, int64_t *value) noexcept nogil:
    cdef in6_ndireq request
    cdef int result = discovery(handle, name, &request)
    if result == 0:
        value[0] = not request.ndi.flags & ND6_IFF_AUTO_LINKLOCAL
    return result


cdef int os_set(Handle *handle, int setting, int64_t value) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef int result = os_get_name(handle, name)
    if result < 0:
        return result
    if setting == SETTING_MTU:
        return set_mtu(handle, name, value)
    if setting == SETTING_UP:
        return set_up(handle, name, value != 0)
    if setting == SETTING_PERSIST and TUNTAP_CREATES:
        return set_lasts(handle, value != 0)
    if setting == SETTING_QUIET and TUNTAP_HAS_ND:
        if value:
            return change_discovery(handle, name, ND6_IFF_AUTO_LINKLOCAL, ND6_IFF_NO_DAD)
        return change_discovery(handle, name, ND6_IFF_NO_DAD, ND6_IFF_AUTO_LINKLOCAL)
    return not_here(handle, b"tun(4)")


cdef int os_get_name(Handle *handle, char *name) noexcept nogil:
    cdef ifreq request
    if handle.io < 0 or not TUNTAP_RENAMES:
        if handle.io >= 0 and handle.layer == LAYER_UNKNOWN:
            handle.failed[PATH_CONTROL] = b"devname"
            return -ENOTTY            # a socket
        memcpy(name, handle.name, NAME_SIZE)
        return 0
    if ioctl(<int> handle.io, TUNGIFNAME, &request) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(TUNGIFNAME)")
    memcpy(name, request.ifr_name, NAME_SIZE)
    return 0


cdef int os_set_name(Handle *handle, const char *name) noexcept nogil:
    cdef char before[NAME_SIZE]
    cdef named_ifreq request
    cdef int result = os_get_name(handle, before)
    if not TUNTAP_RENAMES:
        return not_here(handle, b"tun(4)")
    if result < 0:
        return result
    # The kernel panics when it makes a unit of its own and finds that name among the nodes.
    if is_drivers(name) and (handle.io < 0 or strcmp(node_of(<int> handle.io), name) != 0):
        handle.failed[PATH_CONTROL] = OTHER_NAME
        return -EINVAL
    memset(&request, 0, sizeof(request))
    request.ifr_data = <caddr_t> name
    return on_interface(handle, before, SIOCSIFNAME, <ifreq *> &request, b"ioctl(SIOCSIFNAME)")


cdef int os_get_mac(Handle *handle, uint8_t *mac) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef int result = os_get_name(handle, name)
    return result if result < 0 else get_mac(handle, name, mac)


cdef int os_set_mac(Handle *handle, const uint8_t *mac) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef int result = os_get_name(handle, name)
    return result if result < 0 else set_mac(handle, name, mac)


cdef int os_get_addresses(Handle *handle, Address *addresses, int capacity) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef int result = os_get_name(handle, name)
    return result if result < 0 else list_addresses(handle, name, addresses, capacity)


cdef int os_add_address(Handle *handle, const Address *address) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef int64_t flags
    cdef int result = os_get_name(handle, name)
    if result == 0:
        result = get_flags(handle, name, &flags)
    if result == 0 and TUNTAP_HAS_ND and address.family == 6:
        result = change_discovery(handle, name, ND6_IFF_IFDISABLED, ND6_IFF_NO_DAD)
    if result == 0:
        result = add_address(handle, name, address)
    if result == 0 and not flags & IFF_UP:
        result = set_up(handle, name, False)     # an address switches it on
    return result


cdef int os_remove_address(Handle *handle, const Address *address) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef int result = os_get_name(handle, name)
    return result if result < 0 else remove_address(handle, name, address)


cdef int os_add_route(Handle *handle, const Route *route) noexcept nogil:
    return not_here(handle, b"adding a route")


cdef int os_remove_route(Handle *handle, const Route *route) noexcept nogil:
    return not_here(handle, b"removing a route")


cdef int os_set_broadcast(Handle *handle, const uint8_t *broadcast) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef int result = os_get_name(handle, name)
    return result if result < 0 else set_broadcast(handle, name, broadcast)


cdef int os_get_statistics(Handle *handle, uint64_t *values) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef int result = os_get_name(handle, name)
    return result if result < 0 else get_statistics(handle, name, values)


# --- notifications ---

cdef int os_get_dns(Handle *handle, Address *servers, int capacity) noexcept nogil:
    return not_here(handle, b"name servers of an interface")


cdef int os_set_dns(Handle *handle, const Address *servers, int count) noexcept nogil:
    return not_here(handle, b"name servers of an interface")


cdef int os_watch(Handle *handle, Watch *watch) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef int result = os_get_name(handle, name)
    return result if result < 0 else watch_interface(handle, name, watch)


cdef int os_next_change(Watch *watch, Change *change) noexcept nogil:
    return next_change(watch, change)


cdef void os_unwatch(Watch *watch) noexcept nogil:
    close_fd(&watch.io)


# --- the system ---

cdef uint64_t os_capabilities() noexcept nogil:
    cdef uint64_t always = (
        1 << SETTING_INDEX | 1 << SETTING_MTU | 1 << SETTING_UP | 1 << SETTING_RUNNING
        | 1 << SETTING_PACKET_INFORMATION | 1 << CAN_SET_MAC | 1 << CAN_SET_BROADCAST | 1 << CAN_SET_ADDRESSES
        | 1 << CAN_TAP | 1 << CAN_TUN | 1 << CAN_PEER_ADDRESS | 1 << CAN_STATISTICS | 1 << CAN_WATCH
    )
    return (
        always | <uint64_t> TUNTAP_CREATES << SETTING_PERSIST | <uint64_t> TUNTAP_HAS_ND << SETTING_QUIET
        | <uint64_t> TUNTAP_RENAMES << CAN_RENAME
    )


cdef int os_features(Handle *handle, uint32_t *features) noexcept nogil:
    features[0] = (
        (1 << FEATURE_TUN if has_driver(b"/dev/tun0") else 0) | (1 << FEATURE_TAP if has_driver(b"/dev/tap0") else 0)
    )
    return 0


cdef int os_interfaces(Handle *handle, char *names, int capacity) noexcept nogil:
    cdef int result = os_inspect(handle, b"")
    if result < 0:
        return result
    result = list_interfaces(handle, layer_of, names, capacity)
    os_close(handle)
    return result


cdef int os_delete(Handle *handle, const char *name) noexcept nogil:
    cdef int64_t index
    cdef int layer
    cdef int result = os_inspect(handle, name)
    if result < 0:
        return result
    result = get_index(handle, name, &index)
    layer = layer_of(handle, name)
    if result == 0 and layer == LAYER_UNKNOWN:
        handle.failed[PATH_CONTROL] = b"ioctl(SIOCIFDESTROY)"
        result = -EOPNOTSUPP              # never destroy what is no TUN or TAP
    # FreeBSD would wait for the descriptor for ever, and NetBSD not tell who waits for packets.
    if result == 0 and TUNTAP_CREATES and is_open_elsewhere(handle, name, layer):
        handle.failed[PATH_CONTROL] = b"ioctl(SIOCIFDESTROY)"
        result = -EBUSY
    if result == 0:
        result = destroy_interface(handle, name)
    os_close(handle)
    return result


cdef int os_delete_driver(Handle *handle, const char *libraries) noexcept nogil:
    return not_here(handle, b"deleting a driver")


cdef int os_private_network(Handle *handle) noexcept nogil:
    return not_here(handle, b"a private network")


cdef const char *ADVICE_OTHER_NAME = (
    b"a TUN is called tun0, tun1, ... and a TAP tap0, tap1, ... on this system; on FreeBSD also as you like, but not"
    b" as an interface of the other kind, and none can be renamed to such a name"
)
cdef const char *ADVICE_NO_NODE = (
    b"the kernel has no such device: load its driver (`kldload if_tuntap`), or make the node (`MAKEDEV tun0` in /dev)"
)
cdef const char *ADVICE_ROOT = b"this takes root"
cdef const char *ADVICE_OTHER_KIND = b"the name belongs to another kind of interface: choose another name"
cdef const char *ADVICE_IN_USE = b"a descriptor of the interface is open, here or in another process: close it first"
cdef const char *ADVICE_NO_TUN = b"it is neither a TUN nor a TAP"
cdef const char *ADVICE_NOT_HERE = b"devices of this system have one queue, no offload, and none of this"


cdef int os_meaning(int path, int error, const char *failed, const char **advice) noexcept nogil:
    advice[0] = b""
    if path == PATH_CONTROL:
        return control_meaning(error, failed, advice)
    if error in (EHOSTDOWN, ENETDOWN):
        return MEANS_LINK_DOWN
    if error in (ENXIO, ENODEV):
        return MEANS_GONE
    if error == EBADF:
        return MEANS_CLOSED
    if error == EIO:
        # FreeBSD and NetBSD: too large; OpenBSD: the node was revoked.
        return MEANS_PACKET if path == PATH_SEND and TUNTAP_CREATES else MEANS_GONE
    if error in (ECONNREFUSED, ECONNRESET, ENOTCONN, EPIPE):
        return MEANS_GONE                 # the other end of a socket pair
    if error == EBADMSG or path == PATH_SEND and error in (EINVAL, EMSGSIZE, EAFNOSUPPORT):
        return MEANS_PACKET
    return MEANS_OTHER


cdef int control_meaning(int error, const char *failed, const char **advice) noexcept nogil:
    cdef bint opens = strcmp(failed, b"open(/dev/tun)") == 0 or strcmp(failed, b"open(/dev/tap)") == 0
    if failed == OTHER_NAME:
        advice[0] = ADVICE_OTHER_NAME
        return MEANS_UNSUPPORTED
    if strcmp(failed, b"tun(4)") == 0:
        advice[0] = ADVICE_NOT_HERE
        return MEANS_UNSUPPORTED
    if error in (EPERM, EACCES) or opens and error == ENOENT and geteuid() != 0:
        advice[0] = ADVICE_ROOT           # FreeBSD hides the nodes from others
        return MEANS_PRIVILEGE
    if opens and error in (ENOENT, ENXIO):
        advice[0] = ADVICE_NO_NODE
        return MEANS_UNSUPPORTED
    if failed == OTHER_KIND or strcmp(failed, b"ioctl(TUNSIFHEAD)") == 0:
        advice[0] = ADVICE_OTHER_KIND
        return MEANS_BUSY
    if strcmp(failed, b"ioctl(SIOCIFDESTROY)") == 0 and error == EOPNOTSUPP:
        advice[0] = ADVICE_NO_TUN
        return MEANS_UNSUPPORTED
    if error == EBUSY:
        advice[0] = ADVICE_IN_USE
    return configuration_meaning(error, failed, advice)


cdef int os_explain(int error, char *text, int size) noexcept nogil:
    return 0


cdef void os_log(Log log) noexcept nogil:
    pass
