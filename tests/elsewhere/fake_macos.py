"""The kernel of macOS: utun, a socket of kernel control, and feth, a pair of Ethernet interfaces.

What they do is read in xnu: bsd/net/if_utun.c, if_fake.c, bpf.c and ndrv.c, bsd/kern/uipc_syscalls.c.
"""

import ctypes
import os
import re
import socket
import struct
from dataclasses import dataclass
from typing import ClassVar

import layouts
from fake_bsd import BSD, MULTICAST, POINTOPOINT, RUNNING, TAP_FLAGS, UP, requests_of
from fake_kernel import (
    FAILED,
    SIGNATURES,
    Kernel,
    Refusal,
    borrowed,
    buffers_of,
    parts,
    put,
    take,
)
from layouts import IN, OUT, VOID, pack_name, request, unpack_name

SIGNATURES.update(
    bind="ipi", calloc="ll", connect="ipi", dlsym="ps", free="p", getpeername="ipp", recvmsg_x="ipii",
    sendmsg_x="ipii", sysctl="pipppl",
)  # fmt: skip
FAILED.update(calloc=0, dlsym=0)

# sys/socket.h, sys/sys_domain.h, net/if_utun.h
AF_SYSTEM, SYSPROTO_CONTROL, AF_SYS_CONTROL, SOCK_DGRAM = 32, 2, 2, 2
UTUN_OPT_IFNAME, UTUN_OPT_MAX_PENDING_PACKETS = 2, 16
UTUN_ID = 7  # what CTLIOCGINFO answers; the kernel numbers controls as they come
SOL_SOCKET, SO_SNDBUF, SO_RCVBUF, SO_TYPE = 0xFFFF, 0x1001, 0x1002, 0x1008
CTL_NET, PF_ROUTE, NET_RT_IFLIST2 = 4, 17, 6  # sys/sysctl.h
RTM_IFINFO2 = 0x12  # net/route.h
CONTROL = struct.Struct("=BBHII20x")  # struct sockaddr_ctl: length, family, kind, id, unit
MESSAGE_X = struct.Struct("@PI4xPi4xPIiN")  # struct msghdr_x: struct msghdr, and how much was moved
AF_NDRV, SOCK_RAW = 27, 3
RTLD_DEFAULT = 2**64 - 2  # dlfcn.h
PEER = 1  # IF_FAKE_S_CMD_SET_PEER and IF_FAKE_G_CMD_GET_PEER of net/if_fake_var.h
LARGEST_FRAME = 8192  # that AF_NDRV sends: NDRVSNDQ of net/ndrv_var.h
UNIT_MAX = 0x7FFF  # IF_MAXUNIT of net/if.h: no interface has a higher number
FETH_MTU_MAX = 2048  # sysctl net.link.fake.max_mtu
BPF_HEAD = 18  # bh_hdrlen where a frame has a header of 14 bytes


@dataclass
class Filter:
    """An open BPF descriptor."""

    size: int = 4096  # bytes of a read
    interface: str | None = None
    immediate: int = 0
    sees_sent: int = 1
    header_complete: int = 0
    promiscuous: bool = False


class MacOS(BSD):
    """A utun lives as long as the socket it came by; a feth until somebody destroys it."""

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
        self.control_ids = {}  # descriptor of a control socket that is none of a utun: its id
        self.has = {"recvmsg_x", "sendmsg_x"}  # what dlsym() finds
        self.most_messages = 256  # of one call: kern.ipc.somaxrecvmsgx
        self.takes = []  # how many messages the next calls of sendmsg_x take at most
        self.partners = {}  # name of a feth: that of the other end
        self.filters = {}  # BPF descriptor: Filter
        self.busy_filters = set()  # numbers of /dev/bpf that others have open
        self.largest_read = 512 * 1024  # debug.bpf_bufsize_cap
        self.senders = {}  # AF_NDRV descriptor: the interface it is bound to
        self.connected = set()  # those that are connected, too
        self.arrived = {}  # name of a feth: frames that came to the system by it
        self.families.add(AF_NDRV)

    def make(self, name):
        interface = super().make(name)
        if interface.kind == "feth":
            interface.flags = TAP_FLAGS
            interface.mac = b"feth" + struct.pack(">H", int(name[4:]))
        return interface

    def family_of(self, family):
        return "AF_NDRV" if family == AF_NDRV else super().family_of(family)

    def socket(self, family, kind, protocol):
        if family == AF_NDRV:
            assert (kind, protocol) == (SOCK_RAW, 0)
            if self.uid:
                raise Refusal("EPERM")
            descriptor = super().socket(family, kind, protocol)
            self.senders[descriptor] = None
            return descriptor
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
        if descriptor in self.senders:
            assert self.senders[descriptor], "a socket is bound before it is connected"
            assert take(address, size) == layouts.sockaddr_ndrv(self.senders[descriptor])
            self.connected.add(descriptor)
            return 0
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
        if descriptor in self.controls and (level, option) == (SOL_SOCKET, SO_TYPE):
            put(value, struct.pack("i", SOCK_DGRAM))
            return 0
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
        self.filters.pop(descriptor, None)
        self.senders.pop(descriptor, None)
        self.connected.discard(descriptor)
        for interface in list(self.interfaces.values()):
            if interface.device == descriptor:
                del self.interfaces[interface.name]
        return super().close(descriptor)

    def show_getpeername(self, descriptor, address, size):
        return (descriptor,)

    def getpeername(self, descriptor, address, size):
        """Of a control socket it is the control, and the unit."""
        os.fstat(descriptor)  # EBADF
        if descriptor not in self.controls:
            raise Refusal("ENOTCONN")
        control, unit = self.control_ids.get(descriptor, UTUN_ID), 1
        if control == UTUN_ID:
            unit = int(self.behind(descriptor).name[4:]) + 1
        put(address, CONTROL.pack(32, AF_SYSTEM, AF_SYS_CONTROL, control, unit))
        put(size, struct.pack("I", CONTROL.size))
        return 0

    # --- several packets with one call ---

    def show_dlsym(self, handle, name):
        return (name,)

    def dlsym(self, handle, name):
        assert handle == RTLD_DEFAULT
        if name not in self.has:
            raise Refusal("ENOENT")
        return self.by_name[name]

    def messages(self, table, count):
        """(where it is, its pieces) of each struct msghdr_x."""
        for i in range(min(count, self.most_messages)):
            at = table + i * MESSAGE_X.size
            name, name_size, vector, pieces, control, control_size, flags, _ = MESSAGE_X.unpack(
                take(at, MESSAGE_X.size)
            )
            assert (name, name_size, control, control_size) == (0, 0, 0, 0)
            if flags:
                raise Refusal("EINVAL")
            yield at, parts(vector, pieces)

    def show_recvmsg_x(self, descriptor, table, count, flags):
        """The sizes of the pieces of each message."""
        every = [[size for _, size in pieces] for _, pieces in self.messages(table, count)]
        return descriptor, every, flags

    def recvmsg_x(self, descriptor, table, count, flags):
        """As many as there are; 0 is the end."""
        if flags != self.numbers["MSG_DONTWAIT"]:
            raise Refusal("EINVAL")
        moved = 0
        with borrowed(descriptor) as end:
            for at, pieces in self.messages(table, count):
                try:
                    size, _, told, _ = end.recvmsg_into(buffers_of(pieces), 0, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if not moved:
                        raise
                    break
                if size == 0:
                    break
                put(at + 44, struct.pack("=iQ", 0x10 * bool(told & socket.MSG_TRUNC), size))
                moved += 1
        return moved

    def show_sendmsg_x(self, descriptor, table, count, flags):
        every = [b"".join(take(*piece) for piece in pieces) for _, pieces in self.messages(table, count)]
        return descriptor, every, flags

    def sendmsg_x(self, descriptor, table, count, flags):
        if flags != self.numbers["MSG_DONTWAIT"]:
            raise Refusal("EOPNOTSUPP")
        most = self.takes.pop(0) if self.takes else count
        moved = 0
        with borrowed(descriptor) as end:
            for _, pieces in self.messages(table, min(count, most)):
                end.send(b"".join(take(*piece) for piece in pieces), socket.MSG_DONTWAIT)
                moved += 1
        return moved

    # --- feth ---

    def SIOCIFCREATE(self, _, data):
        """A name without a unit gets the lowest that is free."""
        name = unpack_name(data)
        if self.uid:
            raise Refusal("EPERM")
        if not re.fullmatch(r"feth\d*", name) or int(name[4:] or 0) > UNIT_MAX:
            raise Refusal("EINVAL")
        if name == "feth":
            name = next(n for n in (f"feth{i}" for i in range(1000)) if n not in self.interfaces)
        elif name in self.interfaces:
            raise Refusal("EEXIST")
        self.make(name)
        return pack_name(name) + data[16:]

    def SIOCIFDESTROY(self, _, data):
        if not unpack_name(data).startswith("feth"):
            raise Refusal("EINVAL")
        name = self.named(data).name
        self.part(name)
        del self.interfaces[name]

    def SIOCSIFFLAGS(self, _, data):
        super().SIOCSIFFLAGS(_, data)
        interface = self.named(data)
        if interface.kind == "feth":
            interface.flags = interface.flags & ~RUNNING | (RUNNING if interface.flags & UP else 0)

    def SIOCSIFMTU(self, _, data):
        if self.named(data).kind == "feth" and struct.unpack_from("i", data, 16)[0] > FETH_MTU_MAX:
            raise Refusal("EINVAL")
        super().SIOCSIFMTU(_, data)

    def show_ioctl(self, descriptor, number, pointer):
        """In place of an address what is there."""
        descriptor, name, data = super().show_ioctl(descriptor, number, pointer)
        if name.endswith("DRVSPEC"):
            size, address = struct.unpack_from("QP", data, 24)
            data = data[:32] + take(address, size)
        return descriptor, name, data

    def drive(self, data):
        """The interface, and where its struct if_fake_request is."""
        interface = self.named(data)
        command, size, address = struct.unpack_from("QQP", data, 16)
        if interface.kind != "feth" or command != PEER:
            raise Refusal("EOPNOTSUPP")
        if size < 160:
            raise Refusal("EINVAL")
        return interface.name, address

    def SIOCGDRVSPEC(self, _, data):
        name, address = self.drive(data)
        put(address, layouts.if_fake_request(self.partners.get(name, "")))

    def SIOCSDRVSPEC(self, _, data):
        name, address = self.drive(data)
        fake = take(address, 160)
        if any(fake[:32]):
            raise Refusal("EINVAL")
        peer = fake[32:].split(b"\0")[0].decode()
        if peer not in self.interfaces:
            raise Refusal("ENXIO")
        if self.interfaces[peer].kind != "feth":
            raise Refusal("EINVAL")
        if name in self.partners or peer in self.partners:
            raise Refusal("EBUSY")
        self.join(name, peer)

    def join(self, name, peer):
        self.partners |= {name: peer, peer: name}

    def part(self, name):
        self.partners.pop(self.partners.pop(name, None), None)

    def transmit(self, name, frame):
        """The system sends a frame by one end of a pair: who looks at the other end sees it come in."""
        for end, came_in in ((name, False), (self.partners[name], True)):
            for descriptor, seen in self.filters.items():
                if seen.interface == end and (came_in or seen.sees_sent):
                    captured = min(len(frame), seen.size - BPF_HEAD)
                    record = layouts.bpf_hdr(captured, len(frame)) + frame[:captured]
                    self.devices[descriptor].send(record)

    # --- BPF, which sees what comes in ---

    def device(self, path):
        number = re.fullmatch(r"/dev/bpf(\d+)", path)
        if number is None or int(number[1]) > 255:
            raise Refusal("ENOENT")
        if self.uid:
            raise Refusal("EACCES")
        if int(number[1]) in self.busy_filters:
            raise Refusal("EBUSY")
        ours, theirs = self.pair()
        self.filters[theirs] = Filter()
        return ours, theirs

    def looking_at(self, name):
        """Our end of the BPF descriptor that looks at an interface."""
        return next(self.devices[number] for number, seen in self.filters.items() if seen.interface == name)

    def filter_of(self, descriptor, is_attached=None):
        found = self.filters.get(descriptor)
        if found is None:
            raise Refusal("ENOTTY")
        if is_attached not in (None, found.interface is not None):
            raise Refusal("EINVAL")
        return found

    def BIOCSBLEN(self, descriptor, data):
        """The answer is what a read has to ask for."""
        (size,) = struct.unpack("I", data)
        self.filter_of(descriptor, is_attached=False).size = min(size, self.largest_read)
        return struct.pack("I", self.filters[descriptor].size)

    def BIOCIMMEDIATE(self, descriptor, data):
        (self.filter_of(descriptor).immediate,) = struct.unpack("I", data)

    def BIOCSSEESENT(self, descriptor, data):
        (self.filter_of(descriptor).sees_sent,) = struct.unpack("I", data)

    def BIOCSHDRCMPLT(self, descriptor, data):
        (self.filter_of(descriptor).header_complete,) = struct.unpack("I", data)

    def BIOCSETIF(self, descriptor, data):
        self.filter_of(descriptor).interface = self.named(data).name

    def BIOCPROMISC(self, descriptor, _):
        self.filter_of(descriptor, is_attached=True).promiscuous = True

    def read_parts(self, descriptor, pieces):
        if descriptor not in self.filters:
            return super().read_parts(descriptor, pieces)
        return self.read_records(descriptor, self.filters[descriptor], *pieces)

    def read_records(self, descriptor, opened, piece):
        """Those that are there, as far as they fit, each at a multiple of four bytes."""
        address, size = piece
        if size != opened.size:
            raise Refusal("EINVAL")
        if opened.interface not in self.interfaces:
            raise Refusal("ENXIO")
        found = b""
        with borrowed(descriptor) as end:
            while True:
                try:
                    record = end.recv(size, socket.MSG_PEEK)
                except BlockingIOError:
                    if not found:
                        raise
                    break
                start = found and layouts.padded(found, 4)
                if len(start) + len(record) > size:
                    break
                found = start + end.recv(size)
        put(address, found)
        return len(found)

    # --- AF_NDRV, which sends by an interface ---

    def show_bind(self, descriptor, address, size):
        return descriptor, take(address, size)

    def bind(self, descriptor, address, size):
        length, family, name = struct.unpack("BB16s", take(address, size))
        assert (length, family) == (18, AF_NDRV)
        if unpack_name(name) not in self.interfaces:
            raise Refusal("EADDRNOTAVAIL")
        self.senders[descriptor] = unpack_name(name)
        return 0

    def write_parts(self, descriptor, pieces):
        if descriptor not in self.senders:
            return super().write_parts(descriptor, pieces)
        frame = b"".join(take(*piece) for piece in pieces)
        name = self.senders[descriptor]
        if descriptor not in self.connected:
            raise Refusal("ENOTCONN")
        if name not in self.interfaces:
            raise Refusal("EPIPE")
        if len(frame) > LARGEST_FRAME:
            raise Refusal("EMSGSIZE")
        if not self.interfaces[name].flags & UP:
            raise Refusal("ENETDOWN")
        self.transmit(name, frame)
        self.arrived.setdefault(self.partners[name], []).append(frame)
        return len(frame)

    # --- memory, which has to be freed ---

    def calloc(self, count, size):
        memory = ctypes.create_string_buffer(count * size)
        self.lists[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def show_free(self, memory):
        return ()

    def free(self, memory):
        del self.lists[memory]
        return 0

    # --- counters ---

    def show_sysctl(self, name, length, *_):
        return (struct.unpack(f"{length}i", take(name, 4 * length)),)

    def sysctl(self, name, length, buffer, size, new, new_size):
        """Of all interfaces, or of the one asked for: struct if_msghdr2, with counters of 64 bits."""
        family = struct.unpack(f"{length}i", take(name, 4 * length))
        if length != 6 or family[:5] != (CTL_NET, PF_ROUTE, 0, 0, NET_RT_IFLIST2):
            raise Refusal("ENOENT")
        if new or new_size:
            raise Refusal("EPERM")
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
