"""The functions of fake_tap.c, which is linked into the core."""

import ctypes
from ctypes import c_char_p, c_int, c_uint8, c_uint32, c_uint64, c_wchar, c_wchar_p

from tuntap._os import native

FRAME_MAX = 65554
TAP = ("root\\tap0901",)


class State(ctypes.Structure):
    _fields_ = [
        ("is_present", c_int), ("is_open", c_int), ("media", c_int), ("starts", c_int), ("reads", c_int),
        ("writes", c_int), ("is_tun", c_int), ("plays_dhcp", c_int), ("options_size", c_int),
        ("luid", c_uint64), ("name", c_wchar * 64), ("id", c_wchar * 64), ("mac", c_uint8 * 6),
        ("neighbour", c_uint8 * 6), ("tun", c_uint8 * 12), ("lease", c_uint8 * 16),
        ("options", c_uint8 * 256),
    ]  # fmt: skip


class Driver:
    """tap-windows6, its devices and the network stack above them, as a test plays them."""

    def __init__(self):
        self.library = ctypes.CDLL(native.__file__)
        self.library.FakeTapAdd.argtypes = [c_wchar_p, c_wchar_p, c_uint32]
        self.library.FakeTapInject.argtypes = [c_int, c_char_p, c_uint32]
        self.library.FakeTapSlip.argtypes = [c_int, c_char_p, c_uint32]

    def add(self, name, hardware=TAP):
        """Another device of the machine; its number, by which the others go."""
        ids = "".join(f"{one}\0" for one in hardware) + "\0"
        return self.library.FakeTapAdd(name, ids, len(ids))

    def options(self, *, holds=False, stubborn=False, synchronous=False, slow=False, **delays):
        """What the driver is like, and how many looks at a new device go before it has what it needs."""
        names = ("id_delay", "luid_delay", "open_delay")
        assert delays.keys() <= set(names)
        self.library.FakeTapOptions(
            holds, stubborn, synchronous, slow, *(delays.get(name, 0) for name in names)
        )

    def fail(self, function, error, times=1):
        self.library.FakeTapFail(function.encode(), c_uint32(error), times)

    def inject(self, number, frame):
        """Whether the driver took it for us."""
        return self.library.FakeTapInject(number, frame, len(frame)) == 1

    def answers(self, number, frame):
        """Whether the driver answers it by itself."""
        return self.library.FakeTapInject(number, frame, len(frame)) == 2

    def slip(self, number, what):
        """Put something among the packets of a TUN that is none."""
        self.library.FakeTapSlip(number, what, len(what))

    def lease_delay(self, milliseconds):
        """How long Windows takes for an address by DHCP; -1: for ever."""
        self.library.FakeTapLeaseDelay(milliseconds)

    def take(self, number):
        """The next frame that was sent, or None."""
        buffer = ctypes.create_string_buffer(FRAME_MAX)
        size = self.library.FakeTapTake(number, buffer)
        return None if size < 0 else buffer.raw[:size]

    def complete(self, number, error=0):
        """Let go of a write; False if there was none."""
        return bool(self.library.FakeTapComplete(number, error))

    def abort(self, number):
        """Let go of a read; False if there was none."""
        return bool(self.library.FakeTapAbort(number))

    def do(self, number, what):
        self.library.FakeTapDo(number, what.encode())

    def state(self, number):
        state = State()
        self.library.FakeTapState(number, ctypes.byref(state))
        return state

    def calls(self):
        """What was called since the last time."""
        buffer = ctypes.create_string_buffer(1 << 18)
        self.library.FakeTapCalls(buffer, ctypes.c_size_t(len(buffer)))
        return buffer.value.decode().splitlines()

    def faults(self):
        """How often the rules were broken, and how at first."""
        buffer = ctypes.create_string_buffer(256)
        return self.library.FakeTapFaults(buffer, ctypes.c_size_t(len(buffer))), buffer.value.decode()

    def reset(self):
        """Begin anew; how many files, sets of devices, keys and operations were left."""
        return self.library.FakeTapReset()
