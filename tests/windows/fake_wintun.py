"""The functions of fake_wintun.c, in the Python for Windows that has it loaded."""

import ctypes
import os
import uuid
from ctypes import POINTER, WINFUNCTYPE, c_char, c_char_p, c_int, c_uint32, c_uint64, c_void_p, c_wchar_p
from pathlib import Path

LOGGER = WINFUNCTYPE(None, c_int, c_uint64, c_wchar_p)
# As the outer test has it, beside these; or where it is said to be.
LIBRARY = os.environ.get("TUNTAP_FAKE_WINTUN", str(Path(__file__).with_name("wintun.dll")))
NAME_SIZE = 128
PACKET_MAX = 0xFFFF


class Counts(ctypes.Structure):
    _fields_ = [
        ("adapters", c_int), ("sessions", c_int), ("handles", c_int), ("held", c_int), ("faults", c_int),
        ("fault", c_char * 128),
    ]  # fmt: skip


WINTUN = {
    "WintunCreateAdapter": (c_void_p, [c_wchar_p, c_wchar_p, c_char_p]),
    "WintunOpenAdapter": (c_void_p, [c_wchar_p]),
    "WintunCloseAdapter": (None, [c_void_p]),
    "WintunDeleteDriver": (c_int, []),
    "WintunGetAdapterLUID": (None, [c_void_p, POINTER(c_uint64)]),
    "WintunGetRunningDriverVersion": (c_uint32, []),
    "WintunSetLogger": (None, [c_void_p]),
    "WintunStartSession": (c_void_p, [c_void_p, c_uint32]),
    "WintunEndSession": (None, [c_void_p]),
    "WintunGetReadWaitEvent": (c_void_p, [c_void_p]),
    "WintunReceivePacket": (c_void_p, [c_void_p, POINTER(c_uint32)]),
    "WintunReleaseReceivePacket": (None, [c_void_p, c_void_p]),
    "WintunAllocateSendPacket": (c_void_p, [c_void_p, c_uint32]),
    "WintunSendPacket": (None, [c_void_p, c_void_p]),
}
FAKE = {
    "FakeInject": (c_int, [c_wchar_p, c_char_p, c_uint32]),
    "FakeTake": (c_int, [c_wchar_p, c_char_p, c_uint32, c_uint32]),
    "FakeConsume": (c_int, [c_wchar_p, c_int]),
    "FakeTerminate": (c_int, [c_wchar_p]),
    "FakeCorrupt": (c_int, [c_wchar_p]),
    "FakeFail": (None, [c_char_p, c_uint32, c_int]),
    "FakeDelay": (None, [c_char_p, c_uint32]),
    "FakeVersion": (None, [c_uint32]),
    "FakeLinger": (None, [c_int]),
    "FakeLog": (None, [c_int, c_wchar_p]),
    "FakeAdapter": (c_int, [c_wchar_p, c_char_p, ctypes.c_wchar * NAME_SIZE, POINTER(c_uint64)]),
    "FakeCounts": (None, [POINTER(Counts)]),
    "FakeReset": (c_int, []),
}


def load(kind, names):
    library = kind(LIBRARY, use_last_error=True)
    for name, (result, arguments) in names.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def wintun():
    """What a program sees of it."""
    return load(ctypes.WinDLL, WINTUN)


class Stack:
    """The network stack, the driver and Windows, as a test plays them."""

    def __init__(self):
        self.library = load(ctypes.CDLL, FAKE)

    def inject(self, name, packet):
        """Whether there was room for it."""
        return bool(self.library.FakeInject(name, packet, len(packet)))

    def take(self, name, timeout=5.0):
        """The next packet that was sent, or None."""
        buffer = ctypes.create_string_buffer(PACKET_MAX)
        size = self.library.FakeTake(name, buffer, len(buffer), int(timeout * 1000))
        return None if size < 0 else buffer.raw[:size]

    def consume(self, name, is_on):
        assert self.library.FakeConsume(name, is_on)

    def terminate(self, name):
        assert self.library.FakeTerminate(name)

    def corrupt(self, name):
        assert self.library.FakeCorrupt(name)

    def fail(self, function, error, times=1):
        self.library.FakeFail(function.encode(), error, times)

    def delay(self, function, seconds):
        self.library.FakeDelay(function.encode(), int(seconds * 1000))

    def version(self, major, minor):
        self.library.FakeVersion(major << 16 | minor)

    def linger(self, attempts):
        self.library.FakeLinger(attempts)

    def log(self, level, text):
        self.library.FakeLog(level, text)

    def adapter(self, name):
        """The GUID, the type and the LUID of an adapter, or None."""
        guid = ctypes.create_string_buffer(16)
        kind = (ctypes.c_wchar * NAME_SIZE)()
        luid = c_uint64()
        if not self.library.FakeAdapter(name, guid, kind, luid):
            return None
        return uuid.UUID(bytes_le=guid.raw), kind.value, luid.value

    def counts(self):
        counts = Counts()
        self.library.FakeCounts(counts)
        return counts

    def reset(self):
        """Begin anew; the number of adapters and sessions that somebody has left open."""
        return self.library.FakeReset()
