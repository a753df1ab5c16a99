"""The kernel of macOS: utun, a socket of kernel control (bsd/net/if_utun.c, sys/kern_control.h)."""

import struct
from typing import ClassVar

import layouts
from fake_bsd import BSD, MULTICAST, POINTOPOINT, RUNNING, requests_of
from fake_kernel import FAILED, SIGNATURES, Kernel, Refusal, put, take
from layouts import IN, OUT, VOID, request

SIGNATURES.update(bind="ipi", connect="ipi", dlsym="ps", getpeername="ipp", sysctl="pipppl")
FAILED.update(dlsym=0)

# sys/socket.h, sys/sys_domain.h, net/if_utun.h
AF_SYSTEM, SYSPROTO_CONTROL, AF_SYS_CONTROL, SOCK_DGRAM = 32, 2, 2, 2
UTUN_OPT_IFNAME, UTUN_OPT_MAX_PENDING_PACKETS = 2, 16
UTUN_ID = 7  # what CTLIOCGINFO answers; the kernel numbers controls as they come
SOL_SOCKET, SO_SNDBUF, SO_RCVBUF = 0xFFFF, 0x1001, 0x1002
CTL_NET, PF_ROUTE, NET_RT_IFLIST2 = 4, 17, 6  # sys/sysctl.h
RTM_IFINFO2 = 0x12  # net/route.h
CONTROL = struct.Struct("=BBHII20x")  # struct sockaddr_ctl: length, family, kind, id, unit


class MacOS(BSD):
    """Interfaces live as long as the socket they came by."""

    AF_INET6 = 30
    LINK = layouts.Layout("=HBBiiH2x", "msglen version type addrs flags index")
    LINK_SIZE = 20
    ADDRESS = layouts.Layout("=HBBiiH2xi", "msglen version type addrs flags index metric")
    ROUTE = layouts.Layout(
        "=HBBH2xiiiiiiI56x", "msglen version type index flags addrs pid seq errno use inits"
    )
    ROUTE_ALIGNMENT = 4
    REQUESTS: ClassVar = requests_of(
        32,
        SIOCGIFMTU=request(IN | OUT, "i", 51, 32),
        SIOCSIFMTU=request(IN, "i", 52, 32),
        SIOCSIFLLADDR=request(IN, "i", 60, 32),
        SIOCIFCREATE=request(IN | OUT, "i", 120, 32),
        SIOCSDRVSPEC=request(IN, "i", 123, 40),
        SIOCGDRVSPEC=request(IN | OUT, "i", 123, 40),
        BIOCSBLEN=request(IN | OUT, "B", 102, 4),
        BIOCPROMISC=request(VOID, "B", 105),
        BIOCSETIF=request(IN, "B", 108, 32),
        BIOCIMMEDIATE=request(IN, "B", 112, 4),
        BIOCSHDRCMPLT=request(IN, "B", 117, 4),
        BIOCSSEESENT=request(IN, "B", 119, 4),
        SIOCAIFADDR=request(IN, "i", 26, 64),
        SIOCAIFADDR_IN6=request(IN, "i", 26, 128),
        CTLIOCGINFO=request(IN | OUT, "N", 3, 100),
    )
    COUNTERS = layouts.Layout(
        "=BBBBBBBBIII" + 13 * "I" + "8xIIII",
        "type typelen physical addrlen hdrlen recvquota xmitquota unused1 mtu metric baudrate "
        "ipackets ierrors opackets oerrors collisions ibytes obytes imcasts omcasts iqdrops "
        "noproto recvtiming xmittiming unused2 hwassist reserved1 reserved2",
    )

    COUNTERS64 = layouts.Layout(
        "=BBBBBBBBIIQ" + 11 * "Q" + "II8x",
        "type typelen physical addrlen hdrlen recvquota xmitquota unused1 mtu metric baudrate "
        "ipackets ierrors opackets oerrors collisions ibytes obytes imcasts omcasts iqdrops "
        "noproto recvtiming xmittiming",
    )

    def reset(self):
        super().reset()
        self.controls = {}  # descriptor of a control socket: our end
        self.options = {}  # (descriptor, level, option): what setsockopt() said

    def socket(self, family, kind, protocol):
        if family != AF_SYSTEM:
            return super().socket(family, kind, protocol)
        if (kind, protocol) != (SOCK_DGRAM, SYSPROTO_CONTROL):
            raise Refusal("EPROTOTYPE")
        ours, theirs = self.pair()
        self.controls[theirs] = ours
        self.devices[theirs] = ours
        return theirs

    def CTLIOCGINFO(self, descriptor, data):
        if data[4:].split(b"\0")[0] != b"com.apple.net.utun_control":
            raise Refusal("ENOENT")
        return struct.pack("I", UTUN_ID) + data[4:]

    def show_connect(self, descriptor, address, size):
        return descriptor, take(address, size)

    def connect(self, descriptor, address, size):
        length, family, kind, control, unit = CONTROL.unpack(take(address, size))
        if (length, family, kind, control) != (32, AF_SYSTEM, AF_SYS_CONTROL, UTUN_ID):
            raise Refusal("EINVAL")
        if unit == 0:  # the first that is free
            unit = next(i for i in range(1, 1000) if f"utun{i - 1}" not in self.interfaces)
        name = f"utun{unit - 1}"
        if name in self.interfaces:
            raise Refusal("EBUSY")
        interface = self.make(name)
        interface.flags = POINTOPOINT | MULTICAST | RUNNING
        interface.device = descriptor
        interface.head = 1
        return 0

    def setsockopt(self, descriptor, level, option, value, size):
        known = {
            (SYSPROTO_CONTROL, UTUN_OPT_MAX_PENDING_PACKETS),
            (SOL_SOCKET, SO_SNDBUF),
            (SOL_SOCKET, SO_RCVBUF),
        }
        if (level, option) not in known:
            raise Refusal("ENOPROTOOPT")
        (self.options[descriptor, level, option],) = struct.unpack("I", take(value, size))
        return 0

    def getsockopt(self, descriptor, level, option, value, size):
        if level != SYSPROTO_CONTROL or descriptor not in self.controls:
            return Kernel.getsockopt(self, descriptor, level, option, value, size)
        name = self.behind(descriptor).name.encode() + b"\0"
        if option != UTUN_OPT_IFNAME:
            raise Refusal("ENOPROTOOPT")
        (room,) = struct.unpack("I", take(size, 4))
        if room < len(name):
            raise Refusal("EMSGSIZE")
        put(value, name)
        put(size, struct.pack("I", len(name)))
        return 0

    def close(self, descriptor):
        self.controls.pop(descriptor, None)
        for interface in list(self.interfaces.values()):
            if interface.device == descriptor:
                del self.interfaces[interface.name]
        return super().close(descriptor)

    def show_getpeername(self, descriptor, address, size):
        return (descriptor,)

    def getpeername(self, descriptor, address, size):
        interface = self.behind(descriptor) if descriptor in self.controls else None
        if interface is None:
            raise Refusal("ENOTCONN")
        unit = int(interface.name[4:]) + 1
        put(address, CONTROL.pack(32, AF_SYSTEM, AF_SYS_CONTROL, UTUN_ID, unit))
        put(size, struct.pack("I", CONTROL.size))
        return 0

    def dlsym(self, handle, name):
        """An older system, which has no call for several packets."""
        raise Refusal("ENOENT")

    def show_sysctl(self, name, length, *_):
        return (struct.unpack(f"{length}i", take(name, 4 * length)),)

    def sysctl(self, name, length, buffer, size, new, new_size):
        """Of all interfaces, or of the one asked for: struct if_msghdr2, with counters of 64 bits."""
        family = struct.unpack(f"{length}i", take(name, 4 * length))
        if family[:5] != (CTL_NET, PF_ROUTE, 0, 0, NET_RT_IFLIST2):
            raise Refusal("ENOENT")
        found = b"".join(
            self.if_msghdr2(interface)
            for interface in self.interfaces.values()
            if family[5] in (0, interface.index)
        )
        (room,) = struct.unpack("N", take(size, 8))
        if room < len(found):
            raise Refusal("ENOMEM")
        put(buffer, found)
        put(size, struct.pack("N", len(found)))
        return 0

    def if_msghdr2(self, interface):
        """Addresses of the interface come in messages of their own, which are to be passed over."""
        counters = self.COUNTERS64.pack(**interface.counters)
        head = struct.pack(
            "=HBBiiH2xiiii",
            32 + len(counters),
            5,
            RTM_IFINFO2,
            0,
            interface.flags,
            interface.index,
            0,
            0,
            0,
            0,
        )
        other = struct.pack("=HBBii H2x i", 20, 5, 0xC, 0, 0, interface.index, 0)
        return other + head + counters
