"""The kernel of macOS: utun, a socket of kernel control (bsd/net/if_utun.c, sys/kern_control.h)."""

import struct
from typing import ClassVar

import wire
from fake_bsd import BSD, MULTICAST, POINTOPOINT, RUNNING, requests_of
from fake_kernel import SIGNATURES, Refusal, put, take
from wire import IN, OUT, request

SIGNATURES.update(connect="ipi", getpeername="ipp", setsockopt="iiipi")

# sys/socket.h, sys/sys_domain.h, net/if_utun.h
AF_SYSTEM, SYSPROTO_CONTROL, AF_SYS_CONTROL, SOCK_DGRAM = 32, 2, 2, 2
UTUN_OPT_IFNAME, UTUN_OPT_MAX_PENDING_PACKETS = 2, 16
UTUN_ID = 7  # what CTLIOCGINFO answers; the kernel numbers controls as they come
CONTROL = struct.Struct("=BBHII20x")  # struct sockaddr_ctl: length, family, kind, id, unit


class MacOS(BSD):
    """Interfaces live as long as the socket they came by."""

    AF_INET6 = 30
    ROUTE = wire.Layout("=HBBH2xiiiiiiI56x", "msglen version type index flags addrs pid seq errno use inits")
    ROUTE_ALIGNMENT = 4
    REQUESTS: ClassVar = requests_of(
        32,
        SIOCGIFMTU=request(IN | OUT, "i", 51, 32),
        SIOCSIFMTU=request(IN, "i", 52, 32),
        SIOCSIFLLADDR=request(IN, "i", 60, 32),
        SIOCAIFADDR=request(IN, "i", 26, 64),
        SIOCAIFADDR_IN6=request(IN, "i", 26, 128),
        CTLIOCGINFO=request(IN | OUT, "N", 3, 100),
    )
    COUNTERS = wire.Layout(
        "=BBBBBBBBIII" + 13 * "I" + "8xIIII",
        "type typelen physical addrlen hdrlen recvquota xmitquota unused1 mtu metric baudrate "
        "ipackets ierrors opackets oerrors collisions ibytes obytes imcasts omcasts iqdrops "
        "noproto recvtiming xmittiming unused2 hwassist reserved1 reserved2",
    )

    def reset(self):
        super().reset()
        self.controls = {}  # descriptor of a control socket: our end
        self.pending = {}  # descriptor: packets that may wait for a read

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

    def show_setsockopt(self, descriptor, level, option, value, size):
        return descriptor, level, option, take(value, size)

    def setsockopt(self, descriptor, level, option, value, size):
        if level != SYSPROTO_CONTROL:
            raise Refusal("ENOPROTOOPT")
        self.behind(descriptor)
        if option == UTUN_OPT_MAX_PENDING_PACKETS:
            (self.pending[descriptor],) = struct.unpack("I", take(value, size))
        else:
            raise Refusal("ENOPROTOOPT")
        return 0

    def getsockopt(self, descriptor, level, option, value, size):
        if level != SYSPROTO_CONTROL or descriptor not in self.controls:
            return super().getsockopt(descriptor, level, option, value, size)
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
