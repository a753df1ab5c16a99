"""The functions of fake_iphelper.c, which is linked into the core."""

import ctypes
import uuid

from tuntap._os import native


class IpHelper:
    """IP Helper, as a test plays it."""

    def __init__(self):
        self.library = ctypes.CDLL(native.__file__)
        self.library.FakeInterface.argtypes = [ctypes.c_uint64, ctypes.c_char_p, ctypes.c_wchar_p]
        self.library.FakeInterfaceGone.argtypes = [ctypes.c_uint64]
        self.library.FakeIpChanged.argtypes = [ctypes.c_uint64, ctypes.c_int]
        self.library.FakeIpRows.argtypes = [ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint32)]
        self.library.FakeIpAutomatic.argtypes = [ctypes.c_uint64, ctypes.c_char_p, ctypes.c_int]

    def reset(self):
        self.library.FakeIpReset()

    def options(
        self, *, delay4=0, delay6=0, ipv4=True, ipv6=True, dad=0, duplicates=False, dns=True, nci=True
    ):
        """What Windows has, and how many questions for a row or a usable address come too early."""
        self.library.FakeIpOptions(delay4, delay6, ipv4, ipv6, dad, duplicates, dns, nci)

    def fail(self, function, error, times=1):
        self.library.FakeIpFail(function.encode(), error, times)

    def text(self, function):
        buffer = ctypes.create_string_buffer(1 << 16)
        getattr(self.library, function)(buffer, ctypes.c_size_t(len(buffer)))
        return buffer.value.decode().splitlines()

    def calls(self):
        """What was called since the last time, and what came of it."""
        return self.text("FakeIpCalls")

    def routes(self):
        return sorted(self.text("FakeIpRoutes"))

    def rows(self, luid):
        """MTU, metric (None: automatic) and DAD transmits of IPv4, and of IPv6."""
        values = (ctypes.c_uint32 * 6)()
        assert self.library.FakeIpRows(luid, values)
        rows = [None if value == 0xFFFFFFFF else value for value in values]
        return tuple(rows[:3]), tuple(rows[3:])

    def automatic(self, luid, address):
        """Windows gives an interface an IPv6 address by itself."""
        ip, prefix = address.split("/")
        self.library.FakeIpAutomatic(luid, ip.encode(), int(prefix))

    def interface(self, name, luid=0x6000000000000, guid=None):
        """Another interface of the machine."""
        guid = guid or uuid.uuid4()
        self.library.FakeInterface(luid, guid.bytes_le, name)
        return luid

    def interface_goes(self, luid):
        self.library.FakeInterfaceGone(luid)

    def changed(self, luid, is_up=True):
        """Somebody else plugs in the cable, or pulls it."""
        self.library.FakeIpChanged(luid, is_up)

    def notices(self):
        return self.library.FakeIpNotices()
