"""Kernels of the BSDs: interfaces, their addresses, their devices, and the routing socket.

What they do is read from the drivers (if_tuntap.c, if_tun.c, if_tap.c) and the manual pages.
"""

import ctypes
import ipaddress
import os
import re
import struct
from dataclasses import dataclass, field
from typing import ClassVar

import layouts
from fake_kernel import FAILED, SIGNATURES, Kernel, Refusal, put, take
from layouts import (
    IN,
    OUT,
    VOID,
    netmask,
    pack_name,
    request,
    sockaddr_dl,
    sockaddr_in,
    sockaddr_in6,
    unpack_name,
)

SIGNATURES.update(
    devname="li", fdevname="i", freeifaddrs="p", fstat="ip", geteuid="", getifaddrs="p", getpid="",
    if_freenameindex="p", if_indextoname="ip", if_nameindex="", if_nametoindex="s", kldload="s", mknod="sil",
    modfind="s", setsockopt="iiipi", stat="sp",
)  # fmt: skip
FAILED.update(devname=0, fdevname=0, if_indextoname=0, if_nameindex=0, if_nametoindex=0)

# net/if.h, the same everywhere
UP, BROADCAST, POINTOPOINT, RUNNING, SIMPLEX, MULTICAST = 0x1, 0x2, 0x10, 0x40, 0x800, 0x8000
TUN_FLAGS = POINTOPOINT | MULTICAST
TAP_FLAGS = BROADCAST | SIMPLEX | MULTICAST
ETHER, PROPVIRTUAL = 6, 53  # IFT_ETHER, IFT_PROPVIRTUAL of net/if_types.h


@dataclass
class Address:
    """As the request that added it said."""

    ip: str
    prefix: int
    other: str | None
    flags: int = 0


@dataclass
class Interface:
    name: str
    index: int
    kind: str  # "tun", "tap"
    flags: int
    mtu: int = 1500
    mac: bytes = b""
    device: int | None = None  # the descriptor it is open by
    addresses: list = field(default_factory=list)
    head: int = 0  # whether packets have the address family in front
    counters: dict = field(default_factory=dict)


class BSD(Kernel):
    """What they have in common."""

    IFREQ = 32  # bytes of a struct ifreq
    AF_LINK = 18
    AF_INET6: int
    COUNTERS: layouts.Layout  # struct if_data
    ND6_FLAGS: int  # where the flags are in a struct in6_ndireq
    ROUTE: layouts.Layout  # struct rt_msghdr
    ROUTE_VERSION = 5
    ROUTE_ALIGNMENT = 8
    LINK: layouts.Layout  # struct if_msghdr up to its struct if_data
    LINK_SIZE = 32  # of a struct sockaddr_dl
    ADDRESS: layouts.Layout  # struct ifa_msghdr
    RTM_IFINFO, RTM_NEWADDR, RTM_DELADDR = 0xE, 0xC, 0xD
    ANNOUNCEMENT: layouts.Layout  # struct if_announcemsghdr
    RTM_IFANNOUNCE: int
    SO_RERROR: int | None = None
    DELETE_FLAGS = 0
    ASKS_FOR_LINK = False  # RTM_GET tells the interface only if RTA_IFP asks for it
    PID = 4711
    MAJORS: ClassVar = {"tun": 40, "tap": 93}

    def reset(self):
        super().reset()
        self.interfaces = {}
        self.next_index = 3
        self.route_ends = {}  # descriptor of a routing socket: our end
        self.routes = {}  # (destination, prefix): index of the interface
        self.tells_losses = set()  # those that SO_RERROR was set on
        self.route_numbers = set()  # descriptors that were one
        self.nodes = {}  # path: device number
        self.uid = 0
        self.families = {2, self.AF_INET6}  # of sockets for configuration
        self.address_brings_up = False
        self.routes_subnets = False  # of a broadcast link, by itself
        self.cuts_masks = False
        self.fills_masks = False
        self.nd6_rest = b""  # what else the structure holds
        self.nd6 = {}  # flags of neighbour discovery, by the name of the interface

    def told(self):
        """What the kernel was told since the last time, not what it was asked.

        ("open", path, flags), (name of a request, bytes), ("route", bytes).
        """
        found = []
        for call in self.taken():
            descriptor, *arguments = call.arguments or [None]
            if call.name in ("open", "mknod", "kldload"):
                found.append((call.name, *call.arguments))
            elif call.name == "ioctl" and not re.match("SIOCG|TUNG|TAPG", arguments[0]):
                found.append(tuple(arguments))
            elif call.name == "write" and descriptor in self.route_numbers:
                kind = arguments[0][3]
                if kind != layouts.RTM_GET:
                    found.append(("route", self.unnumbered(arguments[0])))
        return found

    def unnumbered(self, message):
        """A message of the routing socket without what it calls itself, which is the caller's choice."""
        at = self.ROUTE.offset("seq")
        return message[:at] + bytes(4) + message[at + 4 :]

    # --- interfaces ---

    def make(self, name):
        kind = name.rstrip("0123456789")
        interface = Interface(name, self.next_index, kind, TAP_FLAGS if kind == "tap" else TUN_FLAGS)
        if kind == "tap":
            interface.mac = b"\x58\x9c\xfc" + struct.pack(">I", self.next_index)[1:]
        self.next_index += 1
        self.interfaces[name] = interface
        return interface

    def is_free(self, name):
        """Whether an interface is not open, or not there."""
        return name not in self.interfaces or self.interfaces[name].device is None

    def named(self, data):
        interface = self.interfaces.get(unpack_name(data))
        if interface is None:
            raise Refusal("ENXIO")
        return interface

    def behind(self, descriptor, kind=""):
        for interface in self.interfaces.values():
            if interface.device == descriptor:
                if not interface.kind.startswith(kind):
                    break
                return interface
        else:
            if descriptor in self.devices:
                raise Refusal("ENXIO")  # the interface was destroyed
        raise Refusal("ENOTTY")

    def wire(self, name):
        """Our end of the device of an interface."""
        return self.devices[self.interfaces[name].device]

    def if_nametoindex(self, name):
        interface = self.interfaces.get(name)
        if interface is None:
            raise Refusal("ENXIO")
        return interface.index

    def show_if_indextoname(self, index, name):
        return (index,)

    def if_indextoname(self, index, name):
        for interface in self.interfaces.values():
            if interface.index == index:
                put(name, interface.name.encode() + b"\0")
                return name
        raise Refusal("ENXIO")

    # --- what every interface is asked and told ---

    def answer_ifreq(self, data, value):
        return data[:16] + value + data[16 + len(value) :]

    def SIOCGIFFLAGS(self, _, data):
        return self.answer_ifreq(data, struct.pack("H", self.named(data).flags))

    def SIOCSIFFLAGS(self, _, data):
        """The driver's own flags are not ours to set."""
        interface = self.named(data)
        (flags,) = struct.unpack_from("H", data, 16)
        interface.flags = interface.flags & ~UP | flags & UP

    def SIOCGIFMTU(self, _, data):
        return self.answer_ifreq(data, struct.pack("i", self.named(data).mtu))

    def SIOCSIFMTU(self, _, data):
        interface = self.named(data)
        (mtu,) = struct.unpack_from("i", data, 16)
        if not 72 <= mtu <= 65535:
            raise Refusal("EINVAL")
        interface.mtu = mtu

    def SIOCSIFLLADDR(self, _, data):
        interface = self.named(data)
        length, family = data[16:18]
        if not interface.mac or length != len(interface.mac):
            raise Refusal("EINVAL")
        assert family == self.AF_LINK
        interface.mac = data[18 : 18 + length]

    def SIOCAIFADDR(self, descriptor, data):
        assert self.sockets[descriptor][0] == 2, "the request of IPv4 came by another socket"
        interface = self.named(data)
        ip, other, mask = (read_sockaddr(data[at : at + 16]) for at in (16, 32, 48))
        assert ip
        assert mask
        if interface.flags & POINTOPOINT and not other:
            raise Refusal("EDESTADDRREQ")
        self.add(interface.name, ip, prefix_of(mask), other)

    def add(self, name, ip, prefix, other=None, flags=0):
        interface = self.interfaces[name]
        interface.addresses.append(Address(ip, prefix, other, flags))
        if self.address_brings_up:
            interface.flags |= UP
        if self.routes_subnets and interface.flags & BROADCAST:
            subnet = ipaddress.ip_network(f"{ip}/{prefix}", strict=False)
            self.routes[str(subnet.network_address), prefix] = interface.index

    def SIOCDIFADDR(self, descriptor, data):
        assert self.sockets[descriptor][0] == 2, "the request of IPv4 came by another socket"
        self.forget(self.named(data), read_sockaddr(data[16:32]))

    def SIOCAIFADDR_IN6(self, descriptor, data):
        assert self.sockets[descriptor][0] == self.AF_INET6, "the request of IPv6 came by another socket"
        interface = self.named(data)
        ip, other, mask = (read_sockaddr(data[at : at + 28]) for at in (16, 44, 72))
        (flags,) = struct.unpack_from("i", data, 100)
        assert ip
        assert mask
        if other and prefix_of(mask) != 128:
            raise Refusal("EINVAL")
        self.add(interface.name, ip, prefix_of(mask), other, flags)

    def SIOCDIFADDR_IN6(self, descriptor, data):
        assert self.sockets[descriptor][0] == self.AF_INET6, "the request of IPv6 came by another socket"
        self.forget(self.named(data), read_sockaddr(data[16:44]))

    def forget(self, interface, ip):
        for address in interface.addresses:
            if address.ip == ip:
                interface.addresses.remove(address)
                return
        raise Refusal("EADDRNOTAVAIL")

    def SIOCIFDESTROY(self, _, data):
        interface = self.named(data)
        assert self.is_free(interface.name), f"sleeps until {interface.name} is closed"
        del self.interfaces[interface.name]

    # --- neighbour discovery: struct in6_ndireq, a name and a struct nd_ifinfo ---

    def SIOCGIFINFO_IN6(self, descriptor, data):
        assert self.sockets[descriptor][0] == self.AF_INET6, "the request of IPv6 came by another socket"
        name = self.named(data).name
        flags = self.nd6.get(name, 0x21)  # PERFORMNUD, AUTO_LINKLOCAL
        data = (data[:16] + self.nd6_rest).ljust(len(data), b"\0")
        return data[: self.ND6_FLAGS] + struct.pack("I", flags) + data[self.ND6_FLAGS + 4 :]

    def SIOCSIFINFO_FLAGS(self, descriptor, data):
        assert self.sockets[descriptor][0] == self.AF_INET6, "the request of IPv6 came by another socket"
        (self.nd6[self.named(data).name],) = struct.unpack_from("I", data, self.ND6_FLAGS)

    # --- getifaddrs ---

    def show_getifaddrs(self, result):
        return ()

    def show_freeifaddrs(self, result):
        return ()

    def getifaddrs(self, result):
        entries = []
        for interface in self.interfaces.values():
            kind = ETHER if interface.mac else PROPVIRTUAL
            link = sockaddr_dl(self.AF_LINK, interface.index, kind, interface.name, interface.mac, 54)
            entries.append((interface, link, b"", b"", self.if_data(interface)))
            for address in interface.addresses:
                entries.append((interface, *self.sockaddrs(interface, address), b""))
        head, memory = self.link(entries)
        self.lists[head] = memory
        put(result, struct.pack("P", head))
        return 0

    def sockaddrs(self, interface, address):
        if ":" not in address.ip:
            other = sockaddr_in(address.other) if address.other else b""
            mask = sockaddr_in(netmask(address.prefix, 32))
            if self.cuts_masks:  # to the bytes up to the last that is not zero; those behind are others'
                size = 4 + -(-address.prefix // 8)
                mask = bytes([size]) + mask[1:size] + b"\xff" * 16
            elif self.fills_masks:  # to their whole length, with what is no part of them
                mask = mask[:8] + b"\xff" * 8
            return sockaddr_in(address.ip), mask, other
        other = sockaddr_in6(address.other, self.AF_INET6) if address.other else b""
        mask = sockaddr_in6(netmask(address.prefix, 128), self.AF_INET6)
        return sockaddr_in6(address.ip, self.AF_INET6, interface.index), mask, other

    def link(self, entries):
        """struct ifaddrs: next, name, flags, address, netmask, far end, data."""
        memory = []

        def keep(data):
            if not data:
                return 0
            memory.append(ctypes.create_string_buffer(data, len(data)))
            return ctypes.addressof(memory[-1])

        following = 0
        for interface, address, mask, other, data in reversed(entries):
            following = keep(
                struct.pack(
                    "@PPI4xPPPPQ", following, keep(interface.name.encode() + b"\0"), interface.flags,
                    keep(address), keep(mask), keep(other), keep(data), 0,
                )
            )  # fmt: skip
        return following, memory

    def freeifaddrs(self, head):
        if head:
            del self.lists[head]
        return 0

    def if_data(self, interface):
        return self.COUNTERS.pack(**interface.counters)

    # --- the routing socket ---

    def show_setsockopt(self, descriptor, level, option, value, size):
        return descriptor, level, option, take(value, size)

    def setsockopt(self, descriptor, level, option, value, size):
        """That a message which found no room is told by the next read."""
        if (level, option) != (0xFFFF, self.SO_RERROR) or descriptor not in self.route_ends:
            raise Refusal("ENOPROTOOPT")
        assert take(value, size) == struct.pack("i", 1)
        self.tells_losses.add(descriptor)
        return 0

    def socket(self, family, kind, protocol):
        if self.family_of(family) != "AF_ROUTE":
            if family not in self.families | {self.AF_LINK}:
                raise Refusal("EAFNOSUPPORT")
            return super().socket(family, kind, protocol)
        ours, theirs = self.pair()
        self.sockets[theirs] = (family, kind, protocol)
        self.route_ends[theirs] = ours
        self.route_numbers.add(theirs)
        return theirs

    def close(self, descriptor):
        if descriptor in self.route_ends:
            self.route_ends.pop(descriptor).close()
        return super().close(descriptor)

    def write_parts(self, descriptor, pieces):
        if descriptor not in self.route_ends:
            return super().write_parts(descriptor, pieces)
        message = b"".join(take(*piece) for piece in pieces)
        self.route(message)
        return len(message)

    def route(self, message):
        """What a message asks for; the answer of RTM_GET is to be read."""
        header = self.ROUTE.unpack(message)
        assert header["msglen"] == len(message)
        assert header["version"] == self.ROUTE_VERSION
        kind = header["type"]
        self.check({1: "route(RTM_ADD)", 2: "route(RTM_DELETE)", 4: "route(RTM_GET)"}[kind])
        found = self.addresses_behind(message, header)
        subnet = (found[layouts.RTA_DST], prefix_of(found[layouts.RTA_NETMASK]))
        if kind == layouts.RTM_GET:
            if subnet not in self.routes:
                raise Refusal("ESRCH")
            index = self.routes[subnet] if header["addrs"] & layouts.RTA_IFP or not self.ASKS_FOR_LINK else 0
            answer = self.ROUTE.pack(**header | {"index": index, "pid": self.PID})
            for end in self.route_ends.values():
                end.send(answer + message[self.ROUTE.size :])
        elif kind == layouts.RTM_ADD:
            if subnet in self.routes:
                raise Refusal("EEXIST")
            self.routes[subnet] = self.gateway(found[layouts.RTA_GATEWAY])
        elif self.routes.pop(subnet, None) is None:
            raise Refusal("ESRCH")

    def notify(self, message):
        """To every routing socket that somebody reads."""
        for end in self.route_ends.values():
            end.send(message)

    def link_message(self, name, **changes):
        """RTM_IFINFO: struct if_msghdr, with an MTU and counters."""
        interface = self.interfaces[name]
        data = self.COUNTERS.pack(mtu=interface.mtu)
        fields = {"type": self.RTM_IFINFO, "index": interface.index, "flags": interface.flags} | changes
        if "hdrlen" in self.LINK.names:
            fields["hdrlen"] = self.LINK.size + len(data)
        return self.LINK.pack(msglen=self.LINK.size + len(data), version=self.ROUTE_VERSION, **fields) + data

    def address_message(self, kind, name, ip, prefix, other=None):
        """RTM_NEWADDR, RTM_DELADDR: struct ifa_msghdr; behind it netmask, link, address and far end."""
        interface = self.interfaces[name]
        address, mask, far = self.sockaddrs(interface, Address(ip, prefix, other))
        link = sockaddr_dl(self.AF_LINK, interface.index, 0, name, b"", self.LINK_SIZE)
        addresses = [mask, link, address] + [far] * (other is not None)
        bits = layouts.RTA_NETMASK | layouts.RTA_IFP | layouts.RTA_IFA | (layouts.RTA_BRD if other else 0)
        return layouts.route_message(
            self.ADDRESS, self.ROUTE_VERSION, self.ROUTE_ALIGNMENT, addresses,
            type=kind, index=interface.index, addrs=bits,
        )  # fmt: skip

    def gateway(self, address):
        """The interface that a gateway means: by its index, or by an address of its own."""
        if isinstance(address, int):
            return address
        for interface in self.interfaces.values():
            if any(own.ip == address for own in interface.addresses):
                return interface.index
        raise Refusal("ENETUNREACH")

    def addresses_behind(self, message, header):
        """{RTA_DST: text}; a gateway of the link is its index."""
        at = self.ROUTE.size
        found = {}
        for bit in range(8):
            if header["addrs"] & 1 << bit:
                length, family = message[at : at + 2]
                if family == self.AF_LINK:
                    (found[1 << bit],) = struct.unpack_from("H", message, at + 2)
                else:
                    found[1 << bit] = read_sockaddr(message[at : at + length])
                at += len(layouts.padded(bytes(length), self.ROUTE_ALIGNMENT))
        assert at == len(message), "bytes behind the last address"
        return found

    # --- the rest of the system ---

    def geteuid(self):
        return self.uid

    def getpid(self):
        return self.PID

    def show_if_freenameindex(self, names):
        return ()

    def if_nameindex(self):
        names = [ctypes.create_string_buffer(name.encode()) for name in self.interfaces]
        entries = [
            struct.pack("@I4xP", interface.index, ctypes.addressof(name))
            for interface, name in zip(self.interfaces.values(), names, strict=True)
        ]
        table = b"".join(entries) + bytes(16)
        memory = ctypes.create_string_buffer(table, len(table))
        self.lists[ctypes.addressof(memory)] = [memory, names]
        return ctypes.addressof(memory)

    def if_freenameindex(self, names):
        del self.lists[names]
        return 0

    # --- device nodes ---

    def show_stat(self, path, result):
        return (path,)

    def show_fstat(self, descriptor, result):
        return (descriptor,)

    def stat(self, path, result):
        if path not in self.nodes:
            raise Refusal("ENOENT")
        return self.put_stat(result, self.nodes[path])

    def fstat(self, descriptor, result):
        """What is no device of ours is what it is on this machine, under the same numbers."""
        if descriptor in self.devices:
            return self.put_stat(result, self.device_number(self.behind(descriptor).name))
        return self.put_stat(result, 0, os.fstat(descriptor).st_mode)

    def put_stat(self, result, device, mode=0o020600):
        numbers = self.numbers
        data = bytearray(numbers["sizeof(struct stat)"])
        for name, kind, value in (("st_mode", "mode_t", mode), ("st_rdev", "dev_t", device)):
            at, size = numbers[f"offsetof(struct stat, {name})"], numbers[f"sizeof({kind})"]
            data[at : at + size] = value.to_bytes(size, "little")
        put(result, bytes(data))
        return 0

    def mknod(self, path, mode, device):
        assert mode & 0o170000 == 0o020000, "no character device"
        if self.uid:
            raise Refusal("EPERM")
        self.nodes[path] = device & 0xFFFFFFFF
        return 0

    def devname(self, device, mode):
        assert mode == 0o020000
        self.name = ctypes.create_string_buffer(self.name_of(device & 0xFFFFFFFF).encode())
        return ctypes.addressof(self.name)

    def device_number(self, name):
        """makedev(3) of an interface's node."""
        kind = name.rstrip("0123456789")
        return self.makedev(self.MAJORS[kind], int(name[len(kind) :]))

    def name_of(self, device):
        for kind, major in self.MAJORS.items():
            for unit in range(1000):
                if self.makedev(major, unit) == device:
                    return f"{kind}{unit}"
        raise Refusal("ENXIO")


def read_sockaddr(data):
    """The address as text; None where there is none."""
    length = data[0]
    if length == 0:
        assert not any(data), "bytes behind a length of 0"
        return None
    if length == 16:
        return str(ipaddress.IPv4Address(data[4:8]))
    assert length == 28, length
    return str(ipaddress.IPv6Address(data[8:24]))


def prefix_of(mask):
    return int(ipaddress.ip_address(mask)).bit_count()


def requests_of(ifreq, **own):
    """{number: name} of the requests that differ in size alone, and of those that a system numbers itself."""
    table = {
        "SIOCSIFFLAGS": request(IN, "i", 16, ifreq),
        "SIOCGIFFLAGS": request(IN | OUT, "i", 17, ifreq),
        "SIOCDIFADDR": request(IN, "i", 25, ifreq),
        "SIOCDIFADDR_IN6": request(IN, "i", 25, 288),
        "SIOCIFDESTROY": request(IN, "i", 121, ifreq),
    }
    return {number: name for name, number in (table | own).items()}


class FreeBSD(BSD):
    """sys/net/if_tuntap.c of FreeBSD 13 to 15."""

    AF_INET6 = 28
    LINK = layouts.Layout("=HBBiiH2x", "msglen version type addrs flags index")
    LINK_SIZE = 54
    ADDRESS = layouts.Layout("=HBBiiH2xi", "msglen version type addrs flags index metric")
    ANNOUNCEMENT = layouts.Layout("=HBBH16sH", "msglen version type index name what")
    RTM_IFANNOUNCE = 0x11
    SO_RERROR = 0x20000
    DELETE_FLAGS = layouts.RTF_PINNED  # or a route of the system stays
    ROUTE = layouts.Layout(
        "=HBBH2xiiiiiiQ112x", "msglen version type index flags addrs pid seq errno fmask inits"
    )
    ND6_FLAGS = 16 + 5 * 4
    REQUESTS: ClassVar = requests_of(
        32,
        SIOCGIFMTU=request(IN | OUT, "i", 51, 32),
        SIOCSIFMTU=request(IN, "i", 52, 32),
        SIOCSIFLLADDR=request(IN, "i", 60, 32),
        SIOCSIFNAME=request(IN, "i", 40, 32),
        SIOCAIFADDR=request(IN, "i", 43, 68),
        SIOCAIFADDR_IN6=request(IN, "i", 27, 136),
        SIOCGIFINFO_IN6=request(IN | OUT, "i", 108, 72),
        SIOCSIFINFO_IN6=request(IN | OUT, "i", 109, 72),
        SIOCSIFINFO_FLAGS=request(IN | OUT, "i", 87, 72),
        SIOCIFCREATE=request(IN | OUT, "i", 122, 32),
        SIOCIFCREATE2=request(IN | OUT, "i", 124, 32),
        SIOCGIFSTATUS=request(IN | OUT, "i", 59, 817),
        SIOCGIFGROUP=request(IN | OUT, "i", 136, 40),
        TUNGIFNAME=request(OUT, "t", 93, 32),
        TUNSIFMODE=request(IN, "t", 94, 4),
        TUNSIFPID=request(VOID, "t", 95),
        TUNSIFHEAD=request(IN, "t", 96, 4),
        TUNGIFHEAD=request(OUT, "t", 97, 4),
        TUNSTRANSIENT=request(IN, "t", 98, 4),
        TUNGTRANSIENT=request(OUT, "t", 99, 4),
    )
    COUNTERS = layouts.Layout(
        "=BBBBBBHIIQ" + 12 * "Q" + "QQ16x",
        "type physical addrlen hdrlen link_state vhid datalen mtu metric baudrate ipackets "
        "ierrors opackets oerrors collisions ibytes obytes imcasts omcasts iqdrops oqdrops "
        "noproto hwassist epoch",
    )

    def reset(self):
        super().reset()
        self.high_flags = 0
        self.held = set()  # names of interfaces that another process has open as well
        self.transient = {}  # descriptor: whether close removes the interface
        self.has_transient = True  # since 14
        self.has_driver = True
        self.groups = {}  # of interfaces whose group root changed, by their names
        self.node_of = {}  # descriptor: the name it was opened by

    def device(self, path):
        """Nodes come and go with interfaces; one that is not there is made when it is opened, by root."""
        name = path.removeprefix("/dev/")
        kind = name.rstrip("0123456789")
        if (
            not path.startswith("/dev/")
            or self.uid
            or (name not in self.interfaces and kind not in ("tun", "tap"))
        ):
            raise Refusal("ENOENT")
        if name == kind and name not in self.interfaces:
            name = next(n for n in (f"{kind}{i}" for i in range(32768)) if self.is_free(n))
        if not self.is_free(name):
            raise Refusal("EBUSY")
        interface = self.interfaces.get(name) or self.make(name)
        ours, theirs = self.pair()
        self.node_of[theirs] = name
        interface.device = theirs
        interface.flags |= RUNNING
        return ours, theirs

    def is_free(self, name):
        is_open = name in self.interfaces and self.interfaces[name].device is not None
        return not is_open and name not in self.held

    def close(self, descriptor):
        """Addresses go, the interface stays until somebody destroys it."""
        for interface in list(self.interfaces.values()):
            if interface.device == descriptor:
                interface.device = None
                interface.flags &= ~(UP | RUNNING)
                interface.addresses.clear()
                if self.transient.pop(descriptor, 0):
                    del self.interfaces[interface.name]
        return super().close(descriptor)

    def SIOCGIFFLAGS(self, _, data):
        """Thirty-two bits in two halves."""
        return self.answer_ifreq(data, struct.pack("HH", self.named(data).flags, self.high_flags))

    def SIOCIFCREATE(self, _, data):
        """A name without a unit gets the lowest that is free."""
        name = unpack_name(data)
        kind = name.rstrip("0123456789")
        if kind not in ("tun", "tap") or not self.has_driver:
            raise Refusal("EINVAL")
        if name == kind:
            name = next(n for n in (f"{kind}{i}" for i in range(32768)) if n not in self.interfaces)
        elif name in self.interfaces:
            raise Refusal("EEXIST")
        self.make(name)
        return pack_name(name) + data[16:]

    def SIOCGIFGROUP(self, _, data):
        """The groups of an interface, each 16 bytes, where the request points to."""
        interface = self.named(data)
        groups = [b"all", self.groups.get(interface.name, interface.kind).encode()]
        room, pointer = struct.unpack_from("I4xP", data, 16)
        found = b"".join(group.ljust(16, b"\0") for group in groups)
        if pointer:
            put(pointer, found[:room])
        return data[:16] + struct.pack("I", len(found)) + data[20:]

    def SIOCGIFSTATUS(self, _, data):
        """Text behind the name: who has the device open."""
        is_free = self.is_free(self.named(data).name)
        return data[:16] + (b"" if is_free else b"\tOpened by PID 4712\n").ljust(801, b"\0")

    def fdevname(self, descriptor):
        """The name of the node, which a rename does not change."""
        self.name = ctypes.create_string_buffer(self.node_of[descriptor].encode())
        return ctypes.addressof(self.name)

    def modfind(self, name):
        if name != "if_tuntap" or not self.has_driver:
            raise Refusal("ENOENT")
        return 1

    def kldload(self, name):
        self.has_driver = self.has_driver or name == "if_tuntap"
        return 1

    def TUNSIFHEAD(self, descriptor, data):
        (self.behind(descriptor, "tun").head,) = struct.unpack("i", data)

    def TUNGIFHEAD(self, descriptor, _):
        return struct.pack("i", self.behind(descriptor, "tun").head)

    def TUNSIFMODE(self, descriptor, data):
        interface = self.behind(descriptor)
        if interface.flags & UP:
            raise Refusal("EBUSY")
        (mode,) = struct.unpack("i", data)
        if mode & ~MULTICAST not in (BROADCAST, POINTOPOINT):
            raise Refusal("EINVAL")
        interface.flags = interface.flags & ~(BROADCAST | POINTOPOINT | MULTICAST) | mode

    def TUNSIFPID(self, descriptor, _):
        self.behind(descriptor)

    def TUNGIFNAME(self, descriptor, _):
        return struct.pack("16s16x", self.behind(descriptor).name.encode())

    def TUNSTRANSIENT(self, descriptor, data):
        if not self.has_transient:
            raise Refusal("ENOTTY")
        (self.transient[descriptor],) = struct.unpack("i", data)

    def SIOCSIFNAME(self, _, data):
        interface = self.named(data)
        name = take(*struct.unpack_from("P", data, 16), 16).split(b"\0")[0].decode()
        if name in self.interfaces:
            raise Refusal("EEXIST")
        del self.interfaces[interface.name]
        interface.name = name
        self.interfaces[name] = interface

    def read_parts(self, descriptor, pieces):
        self.refuse_down(descriptor, "EHOSTDOWN")
        return super().read_parts(descriptor, pieces)

    def write_parts(self, descriptor, pieces):
        """A device that is down takes a packet and says that it took nothing."""
        if descriptor in self.devices and not self.behind(descriptor).flags & UP:
            return 0
        return super().write_parts(descriptor, pieces)

    def refuse_down(self, descriptor, error):
        if descriptor in self.devices and not self.behind(descriptor).flags & UP:
            raise Refusal(error)


class OpenBSD(BSD):
    """sys/net/if_tun.c of OpenBSD 7, which has both drivers."""

    AF_INET6 = 24
    LINK = layouts.Layout(
        "=HBBHHHBBiii", "msglen version type hdrlen index tableid pad1 pad2 addrs flags xflags"
    )
    ADDRESS = layouts.Layout(
        "=HBBHHHBBiii", "msglen version type hdrlen index tableid pad1 pad2 addrs flags metric"
    )
    ANNOUNCEMENT = layouts.Layout("=HBBHHH16s", "msglen version type hdrlen index what name")
    RTM_IFANNOUNCE = 0xF
    ROUTE = layouts.Layout(
        "=HBBHHHBBiiiiiiI56x",
        "msglen version type hdrlen index tableid priority mpls addrs flags fmask pid seq errno inits",
    )
    REQUESTS: ClassVar = requests_of(
        32,
        SIOCGIFMTU=request(IN | OUT, "i", 126, 32),
        SIOCSIFMTU=request(IN, "i", 127, 32),
        SIOCSIFLLADDR=request(IN, "i", 31, 32),
        SIOCAIFADDR=request(IN, "i", 26, 64),
        SIOCAIFADDR_IN6=request(IN, "i", 26, 128),
        SIOCIFCREATE=request(IN, "i", 122, 32),
        SIOCGIFXFLAGS=request(IN | OUT, "i", 158, 32),
        SIOCSIFXFLAGS=request(IN, "i", 157, 32),
        TUNSIFINFO=request(IN, "t", 91, 12),
        TUNGIFINFO=request(OUT, "t", 92, 12),
        TUNSIFMODE=request(IN, "t", 93, 4),
    )
    COUNTERS = layouts.Layout(
        "=BBBBIIIQ" + 12 * "Q" + "I4x16x",
        "type addrlen hdrlen link_state mtu metric rdomain baudrate ipackets ierrors opackets "
        "oerrors collisions ibytes obytes imcasts omcasts iqdrops oqdrops noproto capabilities",
    )

    def reset(self):
        super().reset()
        for kind in ("tun", "tap"):  # what MAKEDEV makes
            self.nodes.update({f"/dev/{kind}{i}": self.device_number(f"{kind}{i}") for i in range(4)})
        self.cloned = set()  # names of interfaces that opening made, and that closing removes

    @staticmethod
    def makedev(major, minor):
        return major << 8 | minor & 0xFF | (minor & 0xFFFF00) << 8

    def device(self, path):
        if path not in self.nodes:
            raise Refusal("ENOENT")
        if self.uid:
            raise Refusal("EACCES")
        name = self.name_of(self.nodes[path])
        interface = self.interfaces.get(name)
        if interface is None:
            interface = self.make(name)
            interface.head = interface.kind == "tun"
            self.cloned.add(name)
        elif interface.device is not None:
            raise Refusal("EBUSY")
        ours, theirs = self.pair()
        interface.device = theirs
        interface.flags |= RUNNING
        return ours, theirs

    def close(self, descriptor):
        for interface in list(self.interfaces.values()):
            if interface.device == descriptor:
                interface.device = None
                interface.flags &= ~RUNNING
                if interface.name in self.cloned:
                    self.cloned.remove(interface.name)
                    del self.interfaces[interface.name]
        return super().close(descriptor)

    def SIOCIFCREATE(self, _, data):
        name = unpack_name(data)
        if name.rstrip("0123456789") not in ("tun", "tap"):
            raise Refusal("EINVAL")
        if name in self.interfaces:
            raise Refusal("EEXIST")
        self.make(name).head = name.startswith("tun")


class NetBSD(BSD):
    """sys/net/if_tun.c and if_tap.c of NetBSD 9 and 10."""

    AF_INET6 = 24
    ASKS_FOR_LINK = True
    ROUTE_VERSION = 4
    LINK = layouts.Layout("=HBBiiH2x", "msglen version type addrs flags index")
    ADDRESS = layouts.Layout("=HBBH2xiiiii4x", "msglen version type index flags addrs pid addrflags metric")
    RTM_IFINFO, RTM_NEWADDR, RTM_DELADDR = 0x14, 0x16, 0x17
    ANNOUNCEMENT = layouts.Layout("=HBBH16sH", "msglen version type index name what")
    RTM_IFANNOUNCE = 0x10
    SO_RERROR = 0x4000
    ROUTE = layouts.Layout(
        "=HBBH2xiiiiiii4x80x", "msglen version type index flags addrs pid seq errno use inits"
    )
    ND6_FLAGS = 16 + 3 * 4
    IFREQ = 144  # the union holds a struct sockaddr_storage
    REQUESTS: ClassVar = requests_of(
        144,
        SIOCGIFMTU=request(IN | OUT, "i", 126, 144),
        SIOCSIFMTU=request(IN, "i", 127, 144),
        SIOCAIFADDR=request(IN, "i", 26, 64),
        SIOCAIFADDR_IN6=request(IN, "i", 107, 128),
        SIOCIFCREATE=request(IN, "i", 122, 144),
        SIOCALIFADDR=request(IN, "i", 28, 280),
        SIOCGLIFADDR=request(IN | OUT, "i", 29, 280),
        SIOCDLIFADDR=request(IN, "i", 30, 280),
        SIOCSIFPHYADDR=request(IN, "i", 70, 64),
        SIOCGIFINFO_IN6=request(IN | OUT, "i", 113, 32),
        SIOCSIFINFO_IN6=request(IN | OUT, "i", 114, 32),
        SIOCSIFINFO_FLAGS=request(IN | OUT, "i", 115, 32),
        TUNSIFHEAD=request(IN, "t", 66, 4),
        TUNGIFHEAD=request(OUT, "t", 65, 4),
        TUNSIFMODE=request(IN, "t", 88, 4),
        TAPGIFNAME=request(OUT, "e", 0, 144),
    )
    COUNTERS = layouts.Layout(
        "=BBBxiQQQ" + 11 * "Q" + "16x",
        "type addrlen hdrlen link_state mtu metric baudrate ipackets ierrors opackets oerrors "
        "collisions ibytes obytes imcasts omcasts iqdrops noproto",
    )

    def reset(self):
        super().reset()
        for kind in ("tun", "tap"):
            self.nodes.update({f"/dev/{kind}{i}": self.device_number(f"{kind}{i}") for i in range(4)})
        self.nodes["/dev/tap"] = self.makedev(self.MAJORS["tap"], 0xFFFFF)
        self.cloned = set()  # interfaces that go when their device is closed

    @staticmethod
    def makedev(major, minor):
        return major << 8 & 0xFFF00 | minor << 12 & 0xFFF00000 | minor & 0xFF

    def device(self, path):
        if path not in self.nodes:
            raise Refusal("ENOENT")
        if self.uid:
            raise Refusal("EACCES")
        is_clone = path == "/dev/tap"
        if is_clone:
            name = next(n for n in (f"tap{i}" for i in range(1000)) if n not in self.interfaces)
        else:
            name = self.name_of(self.nodes[path])
        if name not in self.interfaces and name.startswith("tap") and not is_clone:
            raise Refusal("ENXIO")  # made by SIOCIFCREATE alone
        interface = self.interfaces.get(name)
        if interface is None:
            interface = self.make(name)
            self.cloned.add(name)
        elif interface.device is not None:
            raise Refusal("EBUSY")
        ours, theirs = self.pair()
        interface.device = theirs
        interface.flags |= RUNNING
        return ours, theirs

    def close(self, descriptor):
        for interface in list(self.interfaces.values()):
            if interface.device == descriptor:
                interface.device = None
                interface.flags &= ~(UP | RUNNING)
                if interface.name in self.cloned:
                    self.cloned.remove(interface.name)
                    del self.interfaces[interface.name]
        return super().close(descriptor)

    def TUNSIFHEAD(self, descriptor, data):
        (self.behind(descriptor).head,) = struct.unpack("i", data)

    def TUNGIFHEAD(self, descriptor, _):
        return struct.pack("i", self.behind(descriptor, "tun").head)

    def SIOCALIFADDR(self, descriptor, data):
        """The MAC address, in a struct sockaddr_dl behind the name of no bytes."""
        assert self.sockets[descriptor][0] == self.AF_LINK
        size, family, _, _, named, length = struct.unpack_from("BBHBBB", data, 24)
        assert family == self.AF_LINK
        if length != 6 or size < 8 + named + length:
            raise Refusal("EINVAL")
        self.named(data).mac = data[32 + named : 38 + named]

    def TAPGIFNAME(self, descriptor, _):
        return struct.pack("16s128x", self.behind(descriptor).name.encode())

    def SIOCIFCREATE(self, _, data):
        name = unpack_name(data)
        if name.rstrip("0123456789") not in ("tun", "tap"):
            raise Refusal("EINVAL")
        if name in self.interfaces:
            raise Refusal("EEXIST")
        self.make(name)
