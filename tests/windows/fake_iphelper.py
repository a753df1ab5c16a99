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

    def reset(self):
        self.library.FakeIpReset()

    def options(self, *, delay=0, ipv6=True, dad_questions=0, dns_functions=True, nci=True):
        """What Windows is like: for how many questions a row is not there, and what it has."""
        self.library.FakeIpOptions(delay, ipv6, dad_questions, dns_functions, nci)

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

    def duplicates(self):
        """Somebody else on the link has the addresses, too."""
        self.library.FakeIpDuplicate()

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
