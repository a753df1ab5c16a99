"""macOS and iOS: utun for a TUN, a pair of feth interfaces for a TAP.

A utun is a socket that puts the address family in front of each packet, which the core hides.  A TAP is one end
of a pair: what the system sends into it BPF reads at the other end, and what AF_NDRV sends there the system
receives.
"""
from libc.errno cimport (
    EACCES, EAFNOSUPPORT, EAGAIN, EBADF, EBADMSG, EBUSY, EEXIST, EINTR, EINVAL, EMSGSIZE, ENETDOWN,
    ENODEV, ENOENT, ENOSYS, ENOTTY, ENXIO, EOPNOTSUPP, EPERM, EPIPE, errno,
)
from libc.stdint cimport int64_t, intptr_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strcmp, strlen, strncmp, strncpy

from tuntap._os.ifconfig cimport *
from tuntap._os.native cimport *
from tuntap._os.posix cimport *
from tuntap._os.route cimport *

cdef extern from *:
    """
    #include <dlfcn.h>
    #include <string.h>
    #include <unistd.h>
    #include <sys/kern_control.h>
    #include <sys/sysctl.h>
    #if __has_include(<sys/sys_domain.h>)
    #include <sys/sys_domain.h>
    #else                                   /* not in every SDK */
    #define SYSPROTO_CONTROL 2
    #define AF_SYS_CONTROL 2
    #endif
    #include <net/bpf.h>
    #include <net/ndrv.h>
    #if __has_include(<net/if_utun.h>)
    #include <net/if_utun.h>
    #else                                   /* the SDK of iOS */
    #define UTUN_CONTROL_NAME "com.apple.net.utun_control"
    #define UTUN_OPT_IFNAME 2
    #define UTUN_OPT_MAX_PENDING_PACKETS 16
    #endif

    /* Private to Apple: sys/socket_private.h and net/if_fake_var.h of xnu. */
    struct tuntap_msghdr_x {
        void *msg_name;
        socklen_t msg_namelen;
        struct iovec *msg_iov;
        int msg_iovlen;
        void *msg_control;
        socklen_t msg_controllen;
        int msg_flags;
        size_t msg_datalen;
    };
    _Static_assert(sizeof(void *) != 8 || sizeof(struct tuntap_msghdr_x) == 56, "struct msghdr_x");
    typedef ssize_t (*tuntap_messages)(int fd, const struct tuntap_msghdr_x *messages, unsigned int count, int flags);
    struct tuntap_fake_request {
        u_int64_t reserved[4];
        union { char stable_size[128]; char peer_name[IFNAMSIZ]; } u;
    };
    _Static_assert(sizeof(struct tuntap_fake_request) == 160, "struct if_fake_request");
    #define TUNTAP_FAKE_PEER 1              /* IF_FAKE_S_CMD_SET_PEER, IF_FAKE_G_CMD_GET_PEER */

    static inline int tuntap_peer(int fd, unsigned long request, const char *name, char *peer) {
        struct tuntap_fake_request fake;
        struct ifdrv drive;
        memset(&fake, 0, sizeof(fake));
        memset(&drive, 0, sizeof(drive));
        strncpy(drive.ifd_name, name, sizeof(drive.ifd_name) - 1);
        drive.ifd_cmd = TUNTAP_FAKE_PEER;
        drive.ifd_len = sizeof(fake);
        drive.ifd_data = &fake;
        if (request == SIOCSDRVSPEC)
            strncpy(fake.u.peer_name, peer, sizeof(fake.u.peer_name) - 1);
        if (ioctl(fd, request, &drive) < 0)
            return -1;
        memcpy(peer, fake.u.peer_name, IFNAMSIZ);
        return 0;
    }

    /* Counters of 64 bits; those of getifaddrs(3) have 32. */
    static inline int tuntap_counters(unsigned int index, struct if_data64 *counters) {
        char buffer[16384];
        int name[6] = {CTL_NET, PF_ROUTE, 0, 0, NET_RT_IFLIST2, (int) index};
        size_t size = sizeof(buffer), at = 0;
        struct if_msghdr2 message;
        if (sysctl(name, 6, buffer, &size, NULL, 0) < 0)
            return -1;
        while (at + sizeof(message) <= size) {          /* what is shorter comes with no counters behind it */
            memcpy(&message, buffer + at, sizeof(message));
            if (message.ifm_type == RTM_IFINFO2 && message.ifm_index == index) {
                *counters = message.ifm_data;
                return 0;
            }
            if (message.ifm_msglen == 0)
                break;
            at += message.ifm_msglen;
        }
        errno = ENXIO;
        return -1;
    }

    _Static_assert(AF_INET == 2 && AF_INET < 256 && AF_INET6 < 256, "address families in front of packets");
    _Static_assert(sizeof(((struct bpf_hdr *) 0)->bh_tstamp) == 8, "timestamp of a record");
    """
    enum: PF_SYSTEM, AF_SYSTEM, AF_SYS_CONTROL, SYSPROTO_CONTROL, SO_RCVBUF, SO_SNDBUF
    enum: UTUN_OPT_IFNAME, UTUN_OPT_MAX_PENDING_PACKETS
    const char *UTUN_CONTROL_NAME
    unsigned long CTLIOCGINFO
    struct ctl_info:
        uint32_t ctl_id
        char ctl_name[96]
    struct sockaddr_ctl:
        unsigned char sc_len
        unsigned char sc_family
        unsigned short ss_sysaddr
        uint32_t sc_id
        uint32_t sc_unit
    int connect(int fd, const sockaddr *address, unsigned int size) nogil
    int bind(int fd, const sockaddr *address, unsigned int size) nogil
    int getpeername(int fd, sockaddr *address, unsigned int *size) nogil

    struct tuntap_msghdr_x:
        iovec *msg_iov
        int msg_iovlen
        size_t msg_datalen
    ctypedef ssize_t (*tuntap_messages)(int fd, const tuntap_msghdr_x *messages, unsigned int count, int flags) nogil
    void *RTLD_DEFAULT
    void *dlsym(void *handle, const char *name) nogil

    enum: AF_NDRV
    struct sockaddr_ndrv:
        unsigned char snd_len
        unsigned char snd_family
        unsigned char snd_name[16]
    enum: BPF_ALIGNMENT
    unsigned long BIOCSBLEN, BIOCIMMEDIATE, BIOCSSEESENT, BIOCSETIF, BIOCSHDRCMPLT, BIOCPROMISC
    unsigned long SIOCSDRVSPEC, SIOCGDRVSPEC
    int peer_request "tuntap_peer"(int fd, unsigned long request, const char *name, char *peer) nogil

    struct if_data64:
        uint64_t ifi_ipackets, ifi_opackets, ifi_ibytes, ifi_obytes, ifi_ierrors, ifi_oerrors, ifi_iqdrops
    int counters_of "tuntap_counters"(unsigned int index, if_data64 *counters) nogil

    enum: ECONNREFUSED, ECONNRESET, ENOTCONN, ENOTSUP

cdef enum:
    HEAD_SIZE = 4
    BATCH = 64                # packets of one recvmsg_x or sendmsg_x
    PENDING = 256             # packets the kernel keeps for a utun before it drops
    SOCKET_BUFFER = 1 << 20   # bytes
    RECORDS = 1 << 17         # bytes of one read of BPF that are asked for
    BPF_NODES = 256
    DESCRIPTORS = 1024        # that the one of a packet tunnel provider is looked for among
    FETH_MTU_LAST = 2048      # of the other end, until the MTU is set

# The address family in network order.
cdef uint8_t[HEAD_SIZE] HEAD_IPV4 = [0, 0, 0, AF_INET]
cdef uint8_t[HEAD_SIZE] HEAD_IPV6 = [0, 0, 0, AF_INET6]

cdef const char *UTUN = b"utun"
cdef const char *FETH = b"feth"
cdef const char *OTHER_NAME = b"the name of the interface"
cdef const char *OTHER_PEER = b"peer_name"

# What else a device has (Handle.state).
cdef struct State:
    tuntap_messages receive   # recvmsg_x and sendmsg_x, where the system has them
    tuntap_messages send
    intptr_t sender           # of a TAP: the AF_NDRV socket
    char peer[NAME_SIZE]      # of a TAP: the other end
    bint made_peer


cdef bint is_any(const char *name, const char *stem) noexcept nogil:
    """Whether it leaves the unit to the system."""
    cdef size_t length = strlen(stem)
    return name[0] == 0 or strncmp(name, stem, length) == 0 and strcmp(name + length, b"%d") == 0


cdef bint is_one(const char *name, const char *stem) noexcept nogil:
    return is_any(name, stem) or is_numbered(name, stem)


# --- life ---

cdef int os_open(Handle *handle, const OpenRequest *request) noexcept nogil:
    cdef const char *stem = FETH if request.layer == LAYER_TAP else UTUN
    cdef const char *failed
    cdef int result
    handle_clear(handle)
    handle.owned = 1
    handle.mode = MODE_NONBLOCKING
    handle.layer = request.layer
    if (
        request.flags & (OPEN_VIRTIO_HEADER | OPEN_MULTI_QUEUE)
        or request.layer == LAYER_TAP and request.flags & OPEN_PACKET_INFORMATION
    ):
        return not_here(handle, b"utun")
    if not is_one(request.name, stem) or not is_one(request.peer_name, FETH):
        handle.failed[PATH_CONTROL] = OTHER_NAME
        return -EINVAL
    result = open_state(handle)
    if result == 0:
        result = pipe_rewake(handle)
    if result == 0:
        result = open_control(handle)
    if result == 0:
        result = open_feth(handle, request) if request.layer == LAYER_TAP else open_utun(handle, request)
    if result < 0:
        failed = handle.failed[PATH_CONTROL]
        os_close(handle)
        handle.failed[PATH_CONTROL] = failed
    return result


cdef int open_state(Handle *handle) noexcept nogil:
    cdef State *state = <State *> calloc(1, sizeof(State))
    if state == NULL:
        return fail(handle, PATH_CONTROL, b"calloc")
    state.sender = -1
    state.receive = <tuntap_messages> dlsym(RTLD_DEFAULT, b"recvmsg_x")
    state.send = <tuntap_messages> dlsym(RTLD_DEFAULT, b"sendmsg_x")
    handle.state = state
    return 0


cdef int make_private(intptr_t fd) noexcept nogil:
    """Neither inherited nor blocking; macOS has no flags of socket() for it."""
    fcntl(<int> fd, F_SETFD, FD_CLOEXEC)
    return fcntl(<int> fd, F_SETFL, O_NONBLOCK)


cdef int utun_control(int fd, uint32_t *number) noexcept nogil:
    """The number under which the kernel knows the control of utun."""
    cdef ctl_info info
    memset(&info, 0, sizeof(info))
    strncpy(info.ctl_name, UTUN_CONTROL_NAME, sizeof(info.ctl_name))
    if ioctl(fd, CTLIOCGINFO, &info) < 0:
        return -1
    number[0] = info.ctl_id
    return 0


cdef int open_utun(Handle *handle, const OpenRequest *request) noexcept nogil:
    cdef sockaddr_ctl address
    cdef uint32_t unit = 0
    cdef int pending = PENDING
    cdef int size = SOCKET_BUFFER
    cdef int i
    memset(&address, 0, sizeof(address))
    handle.io = socket(PF_SYSTEM, SOCK_DGRAM, SYSPROTO_CONTROL)
    if handle.io < 0:
        return fail(handle, PATH_CONTROL, b"socket(PF_SYSTEM)")
    make_private(handle.io)
    if utun_control(<int> handle.io, &address.sc_id) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(CTLIOCGINFO)")
    if is_numbered(request.name, UTUN):
        for i in range(4, <int> strlen(request.name)):
            unit = unit * 10 + <uint32_t> (request.name[i] - c"0")
        unit += 1                         # 0 leaves it to the kernel
    address.sc_len = sizeof(address)
    address.sc_family = AF_SYSTEM
    address.ss_sysaddr = AF_SYS_CONTROL
    address.sc_unit = unit
    if connect(<int> handle.io, <sockaddr *> &address, sizeof(address)) < 0:
        return fail(handle, PATH_CONTROL, b"connect(utun)")
    handle.created = 1
    # By default the kernel keeps one packet until it is read, and drops the next; older ones have no choice.
    setsockopt(<int> handle.io, SYSPROTO_CONTROL, UTUN_OPT_MAX_PENDING_PACKETS, &pending, sizeof(pending))
    setsockopt(<int> handle.io, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size))
    setsockopt(<int> handle.io, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size))
    if request.flags & OPEN_PACKET_INFORMATION:
        handle.packet_information = HEAD_SIZE
    else:
        handle.prefix = HEAD_SIZE
    return 0


cdef int open_feth(Handle *handle, const OpenRequest *request) noexcept nogil:
    cdef State *state = <State *> handle.state
    cdef int result
    strncpy(handle.name, FETH if is_any(request.name, FETH) else request.name, sizeof(handle.name))
    if if_nametoindex(handle.name):
        if request.flags & OPEN_EXCLUSIVE:
            handle.failed[PATH_CONTROL] = b"if_nametoindex"
            return -EEXIST
        if peer_request(<int> handle.control[0], SIOCGDRVSPEC, handle.name, state.peer) < 0:
            return fail(handle, PATH_CONTROL, b"ioctl(SIOCGDRVSPEC)")
        if state.peer[0] and not is_any(request.peer_name, FETH) and strcmp(state.peer, request.peer_name) != 0:
            handle.failed[PATH_CONTROL] = OTHER_PEER
            return -EBUSY
    else:
        result = create_interface(handle, handle.name)
        if result < 0:
            return result
        handle.created = 1
    if state.peer[0] == 0:
        strncpy(state.peer, FETH if is_any(request.peer_name, FETH) else request.peer_name, sizeof(state.peer))
        if if_nametoindex(state.peer) == 0:
            result = create_interface(handle, state.peer)
            if result < 0:
                return result
            state.made_peer = True
        if strcmp(handle.name, state.peer) == 0:
            handle.failed[PATH_CONTROL] = OTHER_PEER
            return -EINVAL
        if peer_request(<int> handle.control[0], SIOCSDRVSPEC, handle.name, state.peer) < 0:
            return fail(handle, PATH_CONTROL, b"ioctl(SIOCSDRVSPEC)")
    result = set_up(handle, state.peer, True)
    if result == 0:
        if state.made_peer:
            set_mtu(handle, state.peer, FETH_MTU_LAST)      # not less than this end has
        result = open_receiver(handle, state.peer)
    if result == 0:
        result = open_sender(handle, state)
    if result == 0:
        handle.lasts = not handle.created
    return result


cdef int open_receiver(Handle *handle, const char *interface) noexcept nogil:
    """BPF at the other end; the size of its buffer comes before the interface."""
    cdef char path[16]
    cdef ifreq request
    cdef uint32_t size = RECORDS
    cdef uint32_t on = 1
    cdef uint32_t off = 0
    cdef int i
    for i in range(BPF_NODES):
        snprintf(path, sizeof(path), b"/dev/bpf%d", i)
        handle.io = open_(path, O_RDWR | O_CLOEXEC)
        if handle.io >= 0 or errno != EBUSY:
            break
    if handle.io < 0:
        return fail(handle, PATH_CONTROL, b"open(/dev/bpf)")
    make_private(handle.io)
    memset(&request, 0, sizeof(request))
    strncpy(request.ifr_name, interface, sizeof(request.ifr_name))
    if ioctl(<int> handle.io, BIOCSBLEN, &size) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(BIOCSBLEN)")
    if ioctl(<int> handle.io, BIOCIMMEDIATE, &on) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(BIOCIMMEDIATE)")
    if ioctl(<int> handle.io, BIOCSSEESENT, &off) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(BIOCSSEESENT)")
    if ioctl(<int> handle.io, BIOCSETIF, &request) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(BIOCSETIF)")
    if ioctl(<int> handle.io, BIOCSHDRCMPLT, &on) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(BIOCSHDRCMPLT)")
    if ioctl(<int> handle.io, BIOCPROMISC) < 0:
        return fail(handle, PATH_CONTROL, b"ioctl(BIOCPROMISC)")
    handle.framing[PATH_RECV] = FRAMING_BPF
    handle.record_buffer = <int> size
    handle.record_timestamp = 8
    handle.record_alignment = BPF_ALIGNMENT
    return 0


cdef int open_sender(Handle *handle, State *state) noexcept nogil:
    cdef sockaddr_ndrv address
    address.snd_len = sizeof(address)
    address.snd_family = AF_NDRV
    memcpy(address.snd_name, state.peer, NAME_SIZE)
    state.sender = socket(AF_NDRV, SOCK_RAW, 0)
    if state.sender < 0:
        return fail(handle, PATH_CONTROL, b"socket(AF_NDRV)")
    make_private(state.sender)
    if bind(<int> state.sender, <sockaddr *> &address, sizeof(address)) < 0:
        return fail(handle, PATH_CONTROL, b"bind(AF_NDRV)")
    if connect(<int> state.sender, <sockaddr *> &address, sizeof(address)) < 0:
        return fail(handle, PATH_CONTROL, b"connect(AF_NDRV)")
    return 0


cdef int os_open_queue(Handle *handle, Handle *of) noexcept nogil:
    return not_here(handle, b"utun")


cdef bint is_utun(int fd) noexcept nogil:
    cdef sockaddr_ctl address
    cdef unsigned int size = sizeof(address)
    cdef uint32_t number
    memset(&address, 0, sizeof(address))      # a peer without a name may leave it as it is
    return (
        getpeername(fd, <sockaddr *> &address, &size) == 0 and address.sc_family == AF_SYSTEM
        and utun_control(fd, &number) == 0 and address.sc_id == number
    )


cdef intptr_t os_find(Handle *handle) noexcept nogil:
    cdef int fd
    handle.failed[PATH_CONTROL] = b"getpeername"
    for fd in range(DESCRIPTORS):
        if is_utun(fd):
            return fd
    return -ENOENT


cdef int os_adopt(Handle *handle, intptr_t io) noexcept nogil:
    cdef int result
    handle_clear(handle)
    handle.io = io
    handle.lasts = 1
    if fcntl(<int> io, F_GETFL) < 0:
        return fail(handle, PATH_CONTROL, b"fcntl(F_GETFL)")
    handle.mode = socket_mode(<int> io)
    if is_utun(<int> io):
        handle.layer = LAYER_TUN
        handle.prefix = HEAD_SIZE
        handle.mode = MODE_CONNECTION     # no packet is empty
    result = open_state(handle)
    if result == 0:
        result = pipe_rewake(handle)
    if result < 0:
        os_close(handle)
    return result


cdef void os_own(Handle *handle) noexcept nogil:
    if handle.layer == LAYER_TUN and fcntl(<int> handle.io, F_SETFL, O_NONBLOCK) == 0:
        handle.mode = MODE_NONBLOCKING
    handle.owned = 1


cdef int os_inspect(Handle *handle, const char *name) noexcept nogil:
    handle_clear(handle)
    strncpy(handle.name, name, sizeof(handle.name))
    return open_control(handle)


cdef void os_close(Handle *handle) noexcept nogil:
    cdef State *state = <State *> handle.state
    if handle.owned:
        close_fd(&handle.io)
    handle.io = -1
    if state != NULL:
        close_fd(&state.sender)
        if handle.owned and handle.created and handle.layer == LAYER_TAP and not handle.lasts:
            destroy_interface(handle, handle.name)
        if handle.owned and state.made_peer and not handle.lasts:
            destroy_interface(handle, state.peer)
        handle.state = NULL
        free(state)
    close_fd(&handle.wake[0])
    close_fd(&handle.wake[1])
    close_fd(&handle.control[0])
    close_fd(&handle.control[1])


# --- packets and waiting ---

cdef bint is_missing(int error) noexcept nogil:
    """Whether recvmsg_x or sendmsg_x said that this socket does not have it."""
    return error in (ENOSYS, ENOTSUP, EOPNOTSUPP, EINVAL)


cdef int receive_messages(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    """os_recv by recvmsg_x; -1 where that is not to be had."""
    cdef State *state = <State *> handle.state
    cdef tuntap_msghdr_x messages[BATCH]
    cdef iovec parts[BATCH][3]
    cdef uint8_t heads[BATCH][HEAD_SIZE]
    cdef uint8_t spill
    cdef int at = start
    cdef int wanted
    cdef ssize_t count
    cdef int i
    error[0] = 0
    while at < stop:
        wanted = min(stop - at, BATCH)
        memset(messages, 0, wanted * sizeof(tuntap_msghdr_x))
        for i in range(wanted):
            parts[i][0].iov_base = heads[i]
            parts[i][0].iov_len = handle.prefix
            parts[i][1].iov_base = slots.data + (at + i) * slots.stride
            parts[i][1].iov_len = slots.slot_size
            parts[i][2].iov_base = &spill
            parts[i][2].iov_len = 1
            messages[i].msg_iov = parts[i]
            messages[i].msg_iovlen = 3
        handle.failed[PATH_RECV] = b"recvmsg_x"
        count = state.receive(<int> handle.io, messages, wanted, MSG_DONTWAIT)
        if count < 0 and errno == EINTR:
            continue
        if count < 0 and at == start and is_missing(errno):
            state.receive = NULL
            return -1
        if count < 0 and errno != EAGAIN:
            error[0] = errno
        if count == 0:
            error[0] = ENODEV             # end of file
        if count <= 0:
            break
        for i in range(<int> count):
            slot_fill(slots, at + i, max(<intptr_t> messages[i].msg_datalen - handle.prefix, 0))
        at += <int> count
    return at - start


cdef int send_messages(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    """os_send by sendmsg_x; -1 where that is not to be had."""
    cdef State *state = <State *> handle.state
    cdef tuntap_msghdr_x messages[BATCH]
    cdef iovec parts[BATCH][2]
    cdef uint8_t *packet
    cdef int32_t length
    cdef int at = start
    cdef int ready
    cdef ssize_t count
    error[0] = 0
    while at < stop and error[0] == 0:
        ready = 0
        handle.failed[PATH_SEND] = b"sendmsg_x"
        memset(messages, 0, sizeof(messages))
        while at + ready < stop and ready < BATCH:
            packet = slot_at(slots, at + ready)
            length = slot_length(slots, at + ready)
            if length < 1 or length > slots.slot_size or packet[0] >> 4 not in (4, 6):
                error[0] = EINVAL         # once those before it are sent
                break
            parts[ready][0].iov_base = &HEAD_IPV6[0] if packet[0] >> 4 == 6 else &HEAD_IPV4[0]
            parts[ready][0].iov_len = HEAD_SIZE
            parts[ready][1].iov_base = packet
            parts[ready][1].iov_len = length
            messages[ready].msg_iov = parts[ready]
            messages[ready].msg_iovlen = 2
            ready += 1
        if ready == 0:
            break
        count = state.send(<int> handle.io, messages, ready, MSG_DONTWAIT)
        if count < 0 and at == start and is_missing(errno):
            state.send = NULL
            return -1
        if count < ready:
            error[0] = 0                  # the one that is wrong is not reached yet
        if count < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                error[0] = errno
            break
        at += <int> count
        if count == 0:
            break
    return at - start


cdef int send_frames(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    """os_send of a TAP."""
    cdef State *state = <State *> handle.state
    cdef int32_t length
    cdef int i = start
    error[0] = 0
    handle.failed[PATH_SEND] = b"write"
    while i < stop:
        length = slot_length(slots, i)
        if length < 1 or length > slots.slot_size:
            error[0] = EINVAL
            break
        if write(<int> state.sender, slot_at(slots, i), length) < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                error[0] = errno
            break
        i += 1
    return i - start


cdef int os_recv(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    cdef int count = -1
    if stop - start > 1 and handle.prefix and (<State *> handle.state).receive != NULL:
        count = receive_messages(handle, slots, start, stop, error)
    return count if count >= 0 else posix_recv(handle, slots, start, stop, error)


cdef int os_send(Handle *handle, SlotView *slots, int start, int stop, int *error) noexcept nogil:
    cdef int count = -1
    if handle.layer == LAYER_TAP:
        count = send_frames(handle, slots, start, stop, error)
    elif stop - start > 1 and handle.prefix and (<State *> handle.state).send != NULL:
        count = send_messages(handle, slots, start, stop, error)
    if count < 0:
        count = posix_send(handle, slots, start, stop, HEAD_IPV4, HEAD_IPV6, error)
    back_off(handle, count, error)
    return count


cdef intptr_t os_recv_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    return posix_recv_parts(handle, parts, count)


cdef intptr_t os_send_parts(Handle *handle, Part *parts, int count) noexcept nogil:
    return posix_send_parts(handle, parts, count)


cdef int os_wait(Handle *handle, int path, intptr_t other, int64_t timeout_ns) noexcept nogil:
    cdef int outcome = posix_wait(handle, path, other, timeout_ns)
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
    handle.lasts = 1                      # after a fork: the pair is the parent's
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
    if setting == SETTING_PERSIST:
        value[0] = handle.lasts
        return 0
    return not_here(handle, b"utun")


cdef int layer_of(Handle *handle, const char *name) noexcept nogil:
    if is_numbered(name, UTUN):
        return LAYER_TUN
    return LAYER_TAP if is_numbered(name, FETH) else LAYER_UNKNOWN


cdef int os_set(Handle *handle, int setting, int64_t value) noexcept nogil:
    cdef State *state = <State *> handle.state
    cdef char name[NAME_SIZE]
    cdef int result = os_get_name(handle, name)
    if result < 0:
        return result
    if setting == SETTING_MTU:
        if state != NULL and state.peer[0]:
            result = set_mtu(handle, state.peer, value)
        return result if result < 0 else set_mtu(handle, name, value)
    if setting == SETTING_UP:
        return set_up(handle, name, value != 0)
    if setting == SETTING_PERSIST and handle.layer == LAYER_TAP:
        handle.lasts = value != 0
        return 0
    return not_here(handle, b"utun")


cdef int os_get_name(Handle *handle, char *name) noexcept nogil:
    cdef socklen_t size = NAME_SIZE
    memcpy(name, handle.name, NAME_SIZE)
    if handle.io < 0 or handle.layer == LAYER_TAP:
        return 0
    if handle.layer == LAYER_UNKNOWN:
        handle.failed[PATH_CONTROL] = b"getsockopt(UTUN_OPT_IFNAME)"
        return -ENOTTY                    # another kind of socket
    if getsockopt(<int> handle.io, SYSPROTO_CONTROL, UTUN_OPT_IFNAME, name, &size) < 0:
        return fail(handle, PATH_CONTROL, b"getsockopt(UTUN_OPT_IFNAME)")
    return 0


cdef int os_set_name(Handle *handle, const char *name) noexcept nogil:
    return not_here(handle, b"utun")


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
    cdef if_data64 counted
    cdef int64_t index
    cdef int result = os_get_name(handle, name)
    if result == 0:
        result = get_index(handle, name, &index)
    if result == 0 and counters_of(<unsigned int> index, &counted) < 0:
        result = fail(handle, PATH_CONTROL, b"sysctl(NET_RT_IFLIST2)")
    if result == 0:
        values[STATISTIC_RX_PACKETS] = counted.ifi_ipackets
        values[STATISTIC_TX_PACKETS] = counted.ifi_opackets
        values[STATISTIC_RX_BYTES] = counted.ifi_ibytes
        values[STATISTIC_TX_BYTES] = counted.ifi_obytes
        values[STATISTIC_RX_ERRORS] = counted.ifi_ierrors
        values[STATISTIC_TX_ERRORS] = counted.ifi_oerrors
        values[STATISTIC_RX_DROPPED] = counted.ifi_iqdrops
        values[STATISTIC_TX_DROPPED] = 0
    return result


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
    return (
        1 << SETTING_INDEX | 1 << SETTING_MTU | 1 << SETTING_UP | 1 << SETTING_RUNNING
        | 1 << SETTING_PACKET_INFORMATION | 1 << SETTING_PERSIST | 1 << CAN_SET_MAC | 1 << CAN_SET_BROADCAST
        | 1 << CAN_SET_ADDRESSES | 1 << CAN_TAP | 1 << CAN_TUN | 1 << CAN_PEER_ADDRESS | 1 << CAN_STATISTICS
        | 1 << CAN_WATCH | 1 << CAN_NAME_PEER
    )


cdef int os_features(Handle *handle, uint32_t *features) noexcept nogil:
    features[0] = 1 << FEATURE_TUN | 1 << FEATURE_TAP
    return 0


cdef int os_interfaces(Handle *handle, char *names, int capacity) noexcept nogil:
    return list_interfaces(handle, layer_of, names, capacity)


cdef int os_delete(Handle *handle, const char *name) noexcept nogil:
    cdef char peer[NAME_SIZE]
    cdef int64_t index
    cdef int result = os_inspect(handle, name)
    if result < 0:
        return result
    result = get_index(handle, name, &index)
    if result == 0 and layer_of(handle, name) != LAYER_TAP:
        handle.failed[PATH_CONTROL] = b"ioctl(SIOCIFDESTROY)"
        result = -EOPNOTSUPP              # a utun goes with its descriptor, and with nothing else
    if result == 0:
        memset(peer, 0, sizeof(peer))
        peer_request(<int> handle.control[0], SIOCGDRVSPEC, name, peer)
        result = destroy_interface(handle, name)
        if result == 0 and peer[0]:
            destroy_interface(handle, peer)
    os_close(handle)
    return result


cdef int os_delete_driver(Handle *handle, const char *libraries) noexcept nogil:
    return not_here(handle, b"deleting a driver")


cdef int os_private_network(Handle *handle) noexcept nogil:
    return not_here(handle, b"a private network")


cdef const char *ADVICE_OTHER_NAME = b"a TUN is called utun0, utun1, ... and a TAP feth0, feth1, ... on this system"
cdef const char *ADVICE_ROOT = b"this takes root"
cdef const char *ADVICE_IN_USE = b"another process has this interface: choose another name, or none"
cdef const char *ADVICE_NO_TAP = b"a TAP alone can be deleted: a TUN goes when its descriptor is closed"
cdef const char *ADVICE_NOT_HERE = b"devices of this system have one queue, no offload, and none of this"
cdef const char *ADVICE_NO_PROVIDER = b"no descriptor of this process is a utun: call it when the tunnel has started"
cdef const char *ADVICE_NO_FETH = b"the name belongs to another kind of interface: choose another name"
cdef const char *ADVICE_OTHER_PEER = b"a pair has two ends of its own: choose another peer_name, or none"
cdef const char *ADVICE_NO_RECORD = b"what BPF yielded is no record, and the rest of it is lost: receive again"


cdef int os_meaning(int path, int error, const char *failed, const char **advice) noexcept nogil:
    advice[0] = b""
    if path == PATH_CONTROL:
        return control_meaning(error, failed, advice)
    if error == ENETDOWN:
        return MEANS_LINK_DOWN
    if error in (ENXIO, ENODEV, ECONNREFUSED, ECONNRESET, ENOTCONN, EPIPE):
        return MEANS_GONE
    if error == EBADF:
        return MEANS_CLOSED
    if error == EBADMSG or path == PATH_SEND and error in (EINVAL, EMSGSIZE, EAFNOSUPPORT):
        if error == EBADMSG and strcmp(failed, b"read") == 0:
            advice[0] = ADVICE_NO_RECORD
        return MEANS_PACKET
    return MEANS_OTHER


cdef int control_meaning(int error, const char *failed, const char **advice) noexcept nogil:
    if failed == OTHER_NAME:
        advice[0] = ADVICE_OTHER_NAME
        return MEANS_UNSUPPORTED
    if strcmp(failed, b"utun") == 0:
        advice[0] = ADVICE_NOT_HERE
        return MEANS_UNSUPPORTED
    if error in (EPERM, EACCES):
        advice[0] = ADVICE_ROOT
        return MEANS_PRIVILEGE
    if strcmp(failed, b"getpeername") == 0 and error == ENOENT:
        advice[0] = ADVICE_NO_PROVIDER
        return MEANS_GONE
    if strcmp(failed, b"connect(utun)") == 0 and error == EBUSY:
        advice[0] = ADVICE_IN_USE
        return MEANS_BUSY
    if failed == OTHER_PEER or strcmp(failed, b"ioctl(SIOCSDRVSPEC)") == 0 and error == EBUSY:
        advice[0] = ADVICE_OTHER_PEER
        return MEANS_BUSY
    if strcmp(failed, b"ioctl(SIOCGDRVSPEC)") == 0 or strcmp(failed, b"ioctl(SIOCSDRVSPEC)") == 0:
        advice[0] = ADVICE_NO_FETH
        return MEANS_BUSY
    if strcmp(failed, b"ioctl(SIOCIFDESTROY)") == 0 and error == EOPNOTSUPP:
        advice[0] = ADVICE_NO_TAP
        return MEANS_UNSUPPORTED
    if error == ENOENT:
        return MEANS_UNSUPPORTED
    return configuration_meaning(error, failed, advice)


cdef int os_explain(int error, char *text, int size) noexcept nogil:
    return 0


cdef void os_log(Log log) noexcept nogil:
    pass
