"""A kernel of another system, written in Python, that answers the calls of its core.

Descriptors are real ones of this machine, so that the core and whoever waits for them may poll them: a device
is one end of a socket pair, whose other end is the kernel's.  Numbers (errors, flags, requests) are the other
system's.  What a call was told and what it answered is kept in `calls`.
"""

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections import namedtuple
from typing import ClassVar

Call = namedtuple("Call", "name arguments result error")

CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_long, ctypes.c_int, ctypes.POINTER(ctypes.c_long), ctypes.POINTER(ctypes.c_int)
)

# What is in the arguments of a call: i an int, l a long or a size, p a pointer, s a string.
SIGNATURES = {
    "close": "i",
    "fcntl": "iii",
    "getsockopt": "iiipp",
    "ioctl": "ilp",
    "nanosleep": "pp",
    "open": "sii",
    "pipe": "p",
    "poll": "pii",
    "read": "ipl",
    "readv": "ipi",
    "recvmsg": "ipi",
    "sendmsg": "ipi",
    "socket": "iii",
    "write": "ipl",
    "writev": "ipi",
}

# What a call answers that failed, if not -1.
FAILED = {}

# Of two names for a number the older one.
HOST_ERRORS = errno.errorcode | {errno.EAGAIN: "EAGAIN", errno.EOPNOTSUPP: "EOPNOTSUPP"}

MESSAGE = struct.Struct("@PI4xPi4xPIi")  # struct msghdr of 4.4BSD
VECTOR = struct.Struct("@PN")  # struct iovec
PAUSE = struct.Struct("@qq")  # struct timespec
POLLED = struct.Struct("@ihh")  # struct pollfd

# Macros whose values the plumbing needs; the requests are each system's own and stand in the tests.
HEADERS = ["sys/types.h", "sys/socket.h", "sys/stat.h", "fcntl.h", "unistd.h"]
NAMES = [
    "AF_INET", "AF_INET6", "AF_LINK", "AF_ROUTE", "FD_CLOEXEC", "F_GETFD", "F_GETFL", "F_SETFD", "F_SETFL",
    "MSG_DONTWAIT", "MSG_NOSIGNAL", "O_CLOEXEC", "O_NONBLOCK", "O_RDWR", "SOCK_DGRAM", "SOCK_RAW",
    "SOCK_SEQPACKET", "SOCK_STREAM", "SOL_SOCKET", "SO_TYPE", "sizeof(struct stat)",
    "offsetof(struct stat, st_mode)", "sizeof(mode_t)", "offsetof(struct stat, st_rdev)", "sizeof(dev_t)",
]  # fmt: skip


class Refusal(Exception):
    """A call fails with an error, by name."""


def take(address, size):
    return ctypes.string_at(address, size)


def put(address, data):
    ctypes.memmove(address, data, len(data))


class Kernel:
    """Descriptors and packets, which are alike everywhere; a system adds its devices and requests.

    A subclass answers `ioctl` requests by methods of their names, `SIOCGIFMTU(self, fd, data)`, which get the
    bytes that go in and return the bytes that come out (None: those that went in).
    """

    REQUESTS: ClassVar = {}  # number: name

    def __init__(self, numbers, errors):
        self.numbers = numbers
        self.errors = errors
        self.reset()

    def reset(self):
        """As after boot; descriptors that are open stay the core's."""
        self.calls = []
        self.failures = []
        self.devices = {}  # descriptor of a device: our end of it
        self.sockets = {}  # descriptor of a configuration socket: (family, kind, protocol)
        self.refusals = {}
        self.lists = {}  # what the core has to free: memory, by its address

    def refuse(self, what, error, times=1, after=0):
        """Let a call fail: "open", "ioctl(SIOCAIFADDR)", "writev"."""
        self.refusals[what] = [after, times, error]

    def requests(self):
        """(name, bytes that went in) of every ioctl since the last time."""
        return [call.arguments[1:] for call in self.taken() if call.name == "ioctl"]

    def taken(self):
        """The calls since the last time."""
        calls, self.calls = self.calls, []
        return calls

    # --- how a call comes in and goes out ---

    def callback(self, names):
        """What the recorder is to call."""
        signatures = [SIGNATURES[name] for name in names]

        def answer(number, registers, error):
            try:
                arguments = [decode(kind, registers[i]) for i, kind in enumerate(signatures[number])]
                result, failed = self.answer(names[number], arguments)
                if failed is not None:
                    error[0] = self.errors[failed]
                return result
            except BaseException as failure:  # a test that fails, and not a crash
                self.failures.append(failure)
                error[0] = self.errors["EFAULT"]
                return -1

        return CALLBACK(answer)

    def answer(self, name, arguments):
        shown = getattr(self, f"show_{name}", lambda *every: every)(*arguments)
        what = f"ioctl({shown[1]})" if name == "ioctl" else name
        try:
            self.check(what)
            result, error = getattr(self, name)(*arguments), None
        except Refusal as refusal:
            result, error = FAILED.get(name, -1), str(refusal)
        except OSError as failure:
            result, error = FAILED.get(name, -1), HOST_ERRORS[failure.errno]
        self.calls.append(Call(name, shown, result, error))
        return result, error

    # What is kept of the arguments: no address, and no argument that was not passed.

    def show_fcntl(self, descriptor, command, argument):
        asks = command in (self.numbers["F_GETFD"], self.numbers["F_GETFL"])
        return (descriptor, command) if asks else (descriptor, command, argument)

    def show_getsockopt(self, descriptor, level, option, value, size):
        return descriptor, level, option

    def show_ioctl(self, descriptor, number, pointer):
        return descriptor, *self.request(number, pointer)

    def show_nanosleep(self, duration, left):
        return (PAUSE.unpack(take(duration, PAUSE.size)),)

    def show_open(self, path, flags, mode):
        return path, flags

    def show_pipe(self, ends):
        return ()

    def show_poll(self, entries, count, timeout):
        return [entry[:2] for entry in polled(entries, count)], timeout

    def show_read(self, descriptor, buffer, size):
        return descriptor, size

    def show_readv(self, descriptor, vector, count):
        return descriptor, [size for _, size in parts(vector, count)]

    def show_recvmsg(self, descriptor, message, flags):
        return descriptor, [size for _, size in message_parts(message)], flags

    def show_write(self, descriptor, buffer, size):
        return descriptor, take(buffer, size)

    def show_writev(self, descriptor, vector, count):
        return descriptor, [take(*piece) for piece in parts(vector, count)]

    def show_sendmsg(self, descriptor, message, flags):
        return descriptor, [take(*piece) for piece in message_parts(message)], flags

    def check(self, what):
        plan = self.refusals.get(what)
        if plan is None:
            return
        if plan[0]:
            plan[0] -= 1
        elif plan[1]:
            plan[1] -= 1
            raise Refusal(plan[2])

    def request(self, number, pointer):
        """A request by name, and the bytes that go in; the size is part of the number (sys/ioccom.h)."""
        number &= 2**64 - 1
        size = number >> 16 & 0x1FFF if number & 0x80000000 else 0
        return self.REQUESTS.get(number, hex(number)), take(pointer, size) if size else b""

    # --- descriptors ---

    def open(self, path, flags, mode):
        ours, theirs = self.device(path)
        self.devices[theirs] = ours
        self.set_flags(theirs, flags)
        return theirs

    def device(self, path):
        """Both ends of a device, as (socket, descriptor)."""
        raise Refusal("ENOENT")

    def pair(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        return ours, theirs.detach()

    def socket(self, family, kind, protocol):
        self.family_of(family)
        descriptor = os.memfd_create("socket", os.MFD_CLOEXEC)
        os.set_inheritable(descriptor, True)
        self.sockets[descriptor] = (family, kind, protocol)
        return descriptor

    def family_of(self, family):
        for name in ("AF_INET", "AF_INET6", "AF_LINK", "AF_ROUTE"):
            if self.numbers[name] == family:
                return name
        raise Refusal("EAFNOSUPPORT")

    def close(self, descriptor):
        self.sockets.pop(descriptor, None)
        ours = self.devices.pop(descriptor, None)
        if ours is not None:
            ours.close()
        os.close(descriptor)
        return 0

    def pipe(self, ends):
        both = os.pipe()
        for descriptor in both:
            os.set_inheritable(descriptor, True)  # as pipe() makes them
        put(ends, struct.pack("ii", *both))
        return 0

    def fcntl(self, descriptor, command, argument):
        numbers = self.numbers
        if command == numbers["F_GETFL"]:
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            return flags & os.O_ACCMODE | (numbers["O_NONBLOCK"] if flags & os.O_NONBLOCK else 0)
        if command == numbers["F_SETFL"]:
            self.set_flags(descriptor, argument)
        elif command == numbers["F_SETFD"]:
            os.set_inheritable(descriptor, not argument & numbers["FD_CLOEXEC"])
        else:
            raise Refusal("EINVAL")
        return 0

    def set_flags(self, descriptor, flags):
        os.set_blocking(descriptor, not flags & self.numbers["O_NONBLOCK"])
        if flags & self.numbers["O_CLOEXEC"]:
            os.set_inheritable(descriptor, False)

    def getsockopt(self, descriptor, level, option, value, size):
        if descriptor in self.devices:
            raise Refusal("ENOTSOCK")
        if (level, option) != (self.numbers["SOL_SOCKET"], self.numbers["SO_TYPE"]):
            raise Refusal("ENOPROTOOPT")
        kind = getsockopt_type(descriptor)
        name = {
            socket.SOCK_STREAM: "SOCK_STREAM", socket.SOCK_DGRAM: "SOCK_DGRAM", socket.SOCK_RAW: "SOCK_RAW",
            socket.SOCK_SEQPACKET: "SOCK_SEQPACKET",
        }[kind]  # fmt: skip
        put(value, struct.pack("i", self.numbers[name]))
        put(size, struct.pack("I", 4))
        return 0

    def poll(self, entries, count, timeout):
        """The numbers of the events are the same everywhere."""
        watched = polled(entries, count)
        poll = select.poll()
        for descriptor, events, _ in watched:
            if descriptor >= 0:
                poll.register(descriptor, events)
        found = dict(poll.poll(timeout if timeout >= 0 else None))
        for i, (descriptor, events, _) in enumerate(watched):
            put(entries + i * POLLED.size, POLLED.pack(descriptor, events, found.get(descriptor, 0)))
        return len(found)

    def nanosleep(self, duration, left):
        seconds, nanoseconds = PAUSE.unpack(take(duration, PAUSE.size))
        time.sleep(seconds + nanoseconds / 1e9)
        return 0

    def ioctl(self, descriptor, number, pointer):
        name, data = self.request(number, pointer)
        method = getattr(self, name, None)
        if method is None:
            raise Refusal("ENOTTY")
        os.fstat(descriptor)  # EBADF
        answer = method(descriptor, data)
        if number & 0x40000000:
            size = number >> 16 & 0x1FFF
            answer = data if answer is None else answer
            assert len(answer) == size, f"{name} answers {size} bytes, not {len(answer)}"
            put(pointer, answer)
        return 0

    # --- packets ---

    def read(self, descriptor, buffer, size):
        return self.read_parts(descriptor, [(buffer, size)])

    def readv(self, descriptor, vector, count):
        return self.read_parts(descriptor, parts(vector, count))

    def write(self, descriptor, buffer, size):
        return self.write_parts(descriptor, [(buffer, size)])

    def writev(self, descriptor, vector, count):
        return self.write_parts(descriptor, parts(vector, count))

    def read_parts(self, descriptor, pieces):
        return os.readv(descriptor, buffers_of(pieces))

    def write_parts(self, descriptor, pieces):
        return os.write(descriptor, b"".join(take(*piece) for piece in pieces))

    def recvmsg(self, descriptor, message, flags):
        with borrowed(descriptor) as end:
            buffers = [
                (ctypes.c_char * size).from_address(address) for address, size in message_parts(message)
            ]
            return end.recvmsg_into(buffers, 0, self.message_flags(flags))[0]

    def sendmsg(self, descriptor, message, flags):
        with borrowed(descriptor) as end:
            data = b"".join(take(*piece) for piece in message_parts(message))
            return end.send(data, self.message_flags(flags) | socket.MSG_NOSIGNAL)

    def message_flags(self, flags):
        return socket.MSG_DONTWAIT if flags & self.numbers["MSG_DONTWAIT"] else 0


def parts(vector, count):
    return [VECTOR.unpack(take(vector + i * VECTOR.size, VECTOR.size)) for i in range(count)]


def buffers_of(pieces):
    return [(ctypes.c_char * size).from_address(address) for address, size in pieces]


def message_parts(message):
    _, _, vector, count, *_ = MESSAGE.unpack(take(message, MESSAGE.size))
    return parts(vector, count)


def polled(entries, count):
    return [POLLED.unpack(take(entries + i * POLLED.size, POLLED.size)) for i in range(count)]


class borrowed:
    """A socket object for a descriptor, which stays open."""

    def __init__(self, descriptor):
        self.socket = socket.socket(fileno=descriptor)

    def __enter__(self):
        return self.socket

    def __exit__(self, *_):
        self.socket.detach()


def getsockopt_type(descriptor):
    with borrowed(descriptor) as end:
        return end.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)


def decode(kind, register):
    if kind == "i":
        return ctypes.c_int(register).value
    if kind == "s":
        return os.fsdecode(ctypes.string_at(register))
    return register & 2**64 - 1 if kind == "p" else register
