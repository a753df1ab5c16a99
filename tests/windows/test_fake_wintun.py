"""The contract of Wintun, held by the library that stands in for it."""

import collections
import contextlib
import ctypes
import random
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fake_wintun

SMALLEST = 0x20000
LARGEST = 0x4000000
FILE_NOT_FOUND, HANDLE_EOF, INVALID_DATA, INVALID_PARAMETER = 2, 38, 13, 87
BUFFER_OVERFLOW, INVALID_NAME, ALREADY_EXISTS, NO_MORE_ITEMS = 111, 123, 183, 259
ACCESS_DENIED, NOT_FOUND, ALREADY_INITIALIZED = 5, 1168, 1247
SIGNALLED, TIMEOUT = 0, 258

wintun = fake_wintun.wintun()
stack = fake_wintun.Stack()
kernel32 = ctypes.WinDLL("kernel32")
kernel32.WaitForSingleObject.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
kernel32.CloseHandle.argtypes = [ctypes.c_void_p]
kernel32.GetCurrentProcess.restype = ctypes.c_void_p
kernel32.DuplicateHandle.argtypes = [
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint32,
    ctypes.c_int, ctypes.c_uint32,
]  # fmt: skip
DUPLICATE_SAME_ACCESS = 2


def packet(size, number=0):
    """An IPv4 packet, as far as the driver looks."""
    return b"\x45" + random.Random(number).randbytes(size - 1)


def refused(error, function, *arguments):
    """The call fails, and says why."""
    ctypes.set_last_error(0)
    result = function(*arguments)
    return not result and ctypes.get_last_error() == error


class Session:
    """Calls of one session."""

    def __init__(self, adapter, capacity=SMALLEST):
        self.handle = wintun.WintunStartSession(adapter, capacity)
        assert self.handle, ctypes.get_last_error()
        self.event = wintun.WintunGetReadWaitEvent(self.handle)

    def receive(self):
        """Where the next packet is and what is in it, or the error."""
        size = ctypes.c_uint32()
        ctypes.set_last_error(0)
        address = wintun.WintunReceivePacket(self.handle, size)
        return (address, ctypes.string_at(address, size.value)) if address else ctypes.get_last_error()

    def release(self, address):
        wintun.WintunReleaseReceivePacket(self.handle, address)

    def allocate(self, size):
        """Where to write a packet, or minus the error."""
        ctypes.set_last_error(0)
        return wintun.WintunAllocateSendPacket(self.handle, size) or -ctypes.get_last_error()

    def send(self, content):
        """0, or the error."""
        address = self.allocate(len(content))
        if address < 0:
            return -address
        ctypes.memmove(address, content, len(content))
        wintun.WintunSendPacket(self.handle, address)
        return 0

    def wait(self, timeout):
        return kernel32.WaitForSingleObject(self.event, int(timeout * 1000))

    def end(self):
        wintun.WintunEndSession(self.handle)


@contextlib.contextmanager
def meanwhile(function, *arguments):
    """A moment later it is called, by another thread."""
    timer = threading.Timer(0.2, function, arguments)
    timer.start()
    yield
    timer.join()


@pytest.fixture(autouse=True)
def clean():
    """Nothing is there before, nothing is left, and nobody has done what is forbidden."""
    assert stack.reset() == 0
    forbidden = []
    yield forbidden
    counts = stack.counts()
    assert (counts.adapters, counts.sessions, counts.handles, counts.held) == (0, 0, 0, 0)
    assert bool(counts.faults) == bool(forbidden), counts.fault


@pytest.fixture
def faulty(clean):
    """For a test that does it: how often, and by which function the last time."""

    def faulty():
        counts = stack.counts()
        return counts.faults, counts.fault.split(b":")[0].decode()

    clean.append(faulty)
    return faulty


@pytest.fixture
def adapter(clean):
    handle = wintun.WintunCreateAdapter("alpha", "Test", None)
    assert handle
    yield handle
    wintun.WintunCloseAdapter(handle)


@pytest.fixture
def session(adapter):
    session = Session(adapter)
    yield session
    session.end()


# --- adapters ---


def test_arguments_and_luid():
    guid = uuid.UUID("11223344-5566-7788-99aa-bbccddeeff00")
    first = wintun.WintunCreateAdapter("Ünïcode ☃", "Some Type", guid.bytes_le)
    second = wintun.WintunCreateAdapter("other", "x", None)
    luids = [ctypes.c_uint64(), ctypes.c_uint64()]
    wintun.WintunGetAdapterLUID(first, luids[0])
    wintun.WintunGetAdapterLUID(second, luids[1])
    assert stack.adapter("ünïCODE ☃") == (guid, "Some Type", luids[0].value)
    assert stack.adapter("other")[2] == luids[1].value != luids[0].value
    assert stack.adapter("other")[0] not in (guid, uuid.UUID(int=0))
    assert luids[0].value >> 48 == 53
    assert luids[0].value & 0xFFFFFF == 0
    assert stack.adapter("Ünïcode") is None
    wintun.WintunCloseAdapter(first)
    wintun.WintunCloseAdapter(second)
    assert stack.adapter("other") is None


def test_names_that_are_none():
    assert refused(INVALID_NAME, wintun.WintunCreateAdapter, "", "x", None)
    assert refused(BUFFER_OVERFLOW, wintun.WintunCreateAdapter, "n" * 128, "x", None)
    assert refused(BUFFER_OVERFLOW, wintun.WintunCreateAdapter, "n", "x" * 128, None)
    longest = wintun.WintunCreateAdapter("n" * 127, "x" * 127, None)
    assert stack.adapter("n" * 127)[1] == "x" * 127
    wintun.WintunCloseAdapter(longest)


def test_guid_in_use():
    guid = uuid.uuid4().bytes_le
    first = wintun.WintunCreateAdapter("alpha", "x", guid)
    assert refused(ALREADY_EXISTS, wintun.WintunCreateAdapter, "alpha", "x", guid)
    assert refused(ALREADY_EXISTS, wintun.WintunCreateAdapter, "beta", "x", guid)
    wintun.WintunCloseAdapter(first)
    wintun.WintunCloseAdapter(wintun.WintunCreateAdapter("beta", "x", guid))


def test_name_in_use_goes_to_the_newest():
    handles = [wintun.WintunCreateAdapter("alpha", f"Type {i}", None) for i in range(3)]
    kinds = {name: stack.adapter(name)[1] for name in ("alpha", "alpha 1", "alpha 2")}
    assert kinds == {"alpha": "Type 2", "alpha 1": "Type 0", "alpha 2": "Type 1"}
    for handle in handles:
        wintun.WintunCloseAdapter(handle)


def test_open(adapter):
    assert refused(NOT_FOUND, wintun.WintunOpenAdapter, "beta")
    luids = [ctypes.c_uint64(), ctypes.c_uint64()]
    opened = wintun.WintunOpenAdapter("ALPHA")
    wintun.WintunGetAdapterLUID(adapter, luids[0])
    wintun.WintunGetAdapterLUID(opened, luids[1])
    assert luids[0].value == luids[1].value
    wintun.WintunCloseAdapter(opened)
    assert stack.adapter("alpha")  # it was not this one's to remove
    wintun.WintunCloseAdapter(None)


def test_lingers():
    guid = uuid.uuid4().bytes_le
    wintun.WintunCloseAdapter(wintun.WintunCreateAdapter("alpha", "x", guid))
    stack.linger(3)
    wintun.WintunCloseAdapter(wintun.WintunCreateAdapter("alpha", "x", guid))
    assert stack.counts().adapters == 0
    assert stack.adapter("alpha")
    assert refused(NOT_FOUND, wintun.WintunOpenAdapter, "alpha")
    for _ in range(3):
        assert refused(ALREADY_EXISTS, wintun.WintunCreateAdapter, "alpha", "x", guid)
    stack.linger(0)
    wintun.WintunCloseAdapter(wintun.WintunCreateAdapter("alpha", "x", guid))
    assert stack.adapter("alpha") is None


def test_ordered_failures(adapter):
    stack.fail("WintunCreateAdapter", ACCESS_DENIED, 2)
    assert refused(ACCESS_DENIED, wintun.WintunCreateAdapter, "beta", "x", None)
    assert refused(ACCESS_DENIED, wintun.WintunCreateAdapter, "beta", "x", None)
    wintun.WintunCloseAdapter(wintun.WintunCreateAdapter("beta", "x", None))
    stack.fail("WintunOpenAdapter", ACCESS_DENIED)
    assert refused(ACCESS_DENIED, wintun.WintunOpenAdapter, "alpha")
    wintun.WintunCloseAdapter(wintun.WintunOpenAdapter("alpha"))
    stack.fail("WintunStartSession", ACCESS_DENIED)
    assert refused(ACCESS_DENIED, wintun.WintunStartSession, adapter, SMALLEST)
    Session(adapter).end()


def test_ordered_delays(adapter):
    calls = {
        "WintunCreateAdapter": ("beta", "x", None),
        "WintunOpenAdapter": ("alpha",),
        "WintunStartSession": (adapter, SMALLEST),
    }
    undo = {"WintunStartSession": wintun.WintunEndSession}
    for name, arguments in calls.items():
        stack.delay(name, 0.3)
        start = time.monotonic()
        result = getattr(wintun, name)(*arguments)
        assert time.monotonic() - start > 0.25
        assert result
        undo.get(name, wintun.WintunCloseAdapter)(result)
    stack.delay("WintunOpenAdapter", 2)
    with meanwhile(wintun.WintunCloseAdapter, wintun.WintunCreateAdapter("beta", "x", None)):
        assert refused(NOT_FOUND, wintun.WintunOpenAdapter, "beta")  # it was there when the call began


def test_driver():
    assert refused(FILE_NOT_FOUND, wintun.WintunGetRunningDriverVersion)
    handle = wintun.WintunCreateAdapter("alpha", "x", None)
    assert wintun.WintunGetRunningDriverVersion() == 14
    stack.version(1, 2)
    assert wintun.WintunGetRunningDriverVersion() == 0x10002
    stack.version(0, 14)
    assert not wintun.WintunDeleteDriver()
    wintun.WintunCloseAdapter(handle)
    assert wintun.WintunGetRunningDriverVersion() == 14
    assert wintun.WintunDeleteDriver()
    assert wintun.WintunGetRunningDriverVersion() == 0


def test_log():
    lines = []
    callback = fake_wintun.LOGGER(lambda level, when, text: lines.append((level, when, text)))
    wintun.WintunSetLogger(callback)
    try:
        assert refused(NOT_FOUND, wintun.WintunOpenAdapter, "nobody")
        stack.log(1, "careful ☃")
        handle = wintun.WintunCreateAdapter("alpha", "x", None)
        assert refused(INVALID_PARAMETER, wintun.WintunStartSession, handle, 1)
        wintun.WintunCloseAdapter(handle)
    finally:
        wintun.WintunSetLogger(None)
    stack.log(2, "nobody hears this")
    assert [level for level, _, _ in lines] == [2, 1, 0, 2]
    assert lines[0][2].startswith("Failed to find matching adapter name: ")
    assert lines[0][2].endswith("(Code 0x00000490)")
    assert lines[1][2] == "careful ☃"
    assert lines[3][2].startswith("Failed to register rings: ")
    for _, when, _ in lines:  # in 100 ns since 1601
        assert abs(when / 1e7 - 11644473600 - time.time()) < 60


# --- sessions ---


@pytest.mark.parametrize(
    "capacity", [0, 1, SMALLEST // 2, SMALLEST + 4, 3 * SMALLEST, LARGEST * 2, 0xFFFFFFFF]
)
def test_capacities_that_are_none(adapter, capacity):
    assert refused(INVALID_PARAMETER, wintun.WintunStartSession, adapter, capacity)
    assert stack.counts().sessions == 0


@pytest.mark.parametrize("capacity", [SMALLEST, 0x100000, LARGEST])
def test_capacities(adapter, capacity):
    """What fits into a ring is 4 bytes less than all of it."""
    session = Session(adapter, capacity)
    stack.consume("alpha", False)
    size = 0x8000
    fitting = (capacity - 4) // (size + 4)
    rest = (capacity - 4) % (size + 4)
    for number in range(fitting):
        assert session.send(packet(size, number)) == 0
        assert stack.inject("alpha", packet(size, number))
    assert session.send(packet(rest)) == BUFFER_OVERFLOW
    assert not stack.inject("alpha", packet(rest))
    assert session.send(packet(rest - 4)) == 0
    assert stack.inject("alpha", packet(rest - 4))
    assert session.send(packet(20)) == BUFFER_OVERFLOW
    assert not stack.inject("alpha", b"")
    for number in range(fitting):
        address, content = session.receive()
        assert content == packet(size, number)
        session.release(address)
        assert stack.take("alpha", 0) == packet(size, number)
    session.end()


def test_one_session_of_an_adapter(adapter):
    session = Session(adapter)
    opened = wintun.WintunOpenAdapter("alpha")
    assert refused(ALREADY_INITIALIZED, wintun.WintunStartSession, adapter, SMALLEST)
    assert refused(ALREADY_INITIALIZED, wintun.WintunStartSession, opened, SMALLEST)
    session.end()
    session = Session(opened)
    assert refused(ALREADY_INITIALIZED, wintun.WintunStartSession, adapter, SMALLEST)
    session.end()
    wintun.WintunCloseAdapter(opened)


def test_nothing_outlives_a_session(adapter):
    first = Session(adapter)
    assert stack.inject("alpha", packet(100))
    first.end()
    assert not stack.inject("alpha", packet(100))
    second = Session(adapter)
    assert second.receive() == NO_MORE_ITEMS
    second.end()


CALLS = {
    "receive": lambda session, _: session.receive(),
    "release": lambda session, address: session.release(address),
    "allocate": lambda session, _: session.allocate(20),
    "event": lambda session, _: wintun.WintunGetReadWaitEvent(session.handle),
    "read": lambda _, address: ctypes.string_at(address, 1),
    "end": lambda session, _: session.end(),
}


@pytest.mark.parametrize("call", CALLS)
def test_use_after_the_end_is_an_access_violation(adapter, call):
    session = Session(adapter)
    assert stack.inject("alpha", packet(100))
    address, _ = session.receive()
    session.release(address)
    session.end()
    later = Session(adapter, LARGEST)
    with pytest.raises(OSError, match="access violation"):
        CALLS[call](session, address)
    later.end()


def test_use_of_a_closed_adapter_is_an_access_violation():
    handle = wintun.WintunCreateAdapter("alpha", "x", None)
    wintun.WintunCloseAdapter(handle)
    with pytest.raises(OSError, match="access violation"):
        wintun.WintunGetAdapterLUID(handle, ctypes.c_uint64())


# --- receiving ---


def test_receives_in_order(session):
    assert session.receive() == NO_MORE_ITEMS
    sizes = [0, 1, 2, 3, 4, 5, 1500, 0xFFFF]
    for size in sizes:
        assert stack.inject("alpha", packet(size) if size else b"")
    assert not stack.inject("alpha", packet(0x10000))
    for size in sizes:
        address, content = session.receive()
        assert content == (packet(size) if size else b"")
        assert address % 4 == 0
        ctypes.memset(address, 0xFF, size)  # it is the program's to modify
        session.release(address)
    assert session.receive() == NO_MORE_ITEMS


def test_laps(session):
    """Both rings, many times around, with packets that run over their end."""
    chooser = random.Random(1)
    incoming, outgoing = collections.deque(), collections.deque()
    stack.consume("alpha", False)

    def receive():
        address, content = session.receive()
        assert content == incoming.popleft()
        session.release(address)

    total = 0
    while total < 60 * SMALLEST:
        size = chooser.choice([20, 21, 22, 23, 576, 1500, 0xFFFF, chooser.randrange(20, 0x4000)])
        content = packet(size, total)
        while not stack.inject("alpha", content):
            receive()
        incoming.append(content)
        while session.send(content) == BUFFER_OVERFLOW:
            assert stack.take("alpha", 0) == outgoing.popleft()
        outgoing.append(content)
        total += size
    while incoming:
        receive()
    while outgoing:
        assert stack.take("alpha", 0) == outgoing.popleft()
    assert session.receive() == NO_MORE_ITEMS
    assert stack.take("alpha", 0) is None


def test_released_out_of_order(session):
    """Room comes back only when all that was received before is released too."""
    size = 0x1000 - 4
    fitting = 0
    while stack.inject("alpha", packet(size, fitting)):
        fitting += 1
    held = [session.receive()[0] for _ in range(fitting)]
    assert session.receive() == NO_MORE_ITEMS
    assert stack.counts().held == fitting
    for address in held[:0:-1]:
        session.release(address)
        assert not stack.inject("alpha", packet(size))
    assert stack.counts().held == 1
    session.release(held[0])
    assert stack.counts().held == 0
    for number in range(fitting):
        assert stack.inject("alpha", packet(size, number))
    assert not stack.inject("alpha", packet(size))
    for number in range(fitting):
        address, content = session.receive()
        assert content == packet(size, number)
        session.release(address)


def test_the_event_wakes_once(session):
    assert session.wait(0) == TIMEOUT
    assert stack.inject("alpha", packet(100))
    assert stack.inject("alpha", packet(100))
    assert session.wait(0) == SIGNALLED
    assert session.wait(0) == TIMEOUT  # although nobody has received
    for _ in range(2):
        session.release(session.receive()[0])


def test_the_event_is_not_the_programs(adapter, faulty):
    session = Session(adapter)
    assert kernel32.CloseHandle(session.event)
    session.end()
    assert faulty() == (1, "WintunGetReadWaitEvent")


def test_the_end_wakes_a_waiter(adapter):
    """The driver signals the event when the session ends, whose memory is gone by the time somebody looks."""
    session = Session(adapter)
    process, twin = kernel32.GetCurrentProcess(), ctypes.c_void_p()
    assert kernel32.DuplicateHandle(process, session.event, process, twin, 0, False, DUPLICATE_SAME_ACCESS)
    assert kernel32.WaitForSingleObject(twin, 0) == TIMEOUT
    session.end()
    assert kernel32.WaitForSingleObject(twin, 0) == SIGNALLED
    assert kernel32.CloseHandle(twin)


def test_a_waiter_wakes(session):
    with meanwhile(stack.inject, "alpha", packet(100, 7)):
        assert session.receive() == NO_MORE_ITEMS
        assert session.wait(10) == SIGNALLED
    address, content = session.receive()
    assert content == packet(100, 7)
    session.release(address)


def test_corrupt(session):
    assert stack.inject("alpha", packet(100))
    stack.corrupt("alpha")
    assert session.wait(0) == SIGNALLED
    session.release(session.receive()[0])
    assert session.receive() == INVALID_DATA
    assert stack.inject("alpha", packet(100))
    assert session.receive() == INVALID_DATA  # for good


def test_release_of_what_is_not_held(session, faulty):
    assert stack.inject("alpha", packet(100))
    assert stack.inject("alpha", packet(100))
    first, second = session.receive()[0], session.receive()[0]
    session.release(second)
    for count, address in enumerate([second, second + 1, first - 4000, first + SMALLEST, 0], 1):
        session.release(address)
        assert faulty() == (count, "WintunReleaseReceivePacket")
    session.release(first)
    session.release(first)
    assert faulty() == (6, "WintunReleaseReceivePacket")
    assert stack.counts().held == 0


# --- sending ---


def test_sends_in_order(session):
    for number in range(2000):
        assert session.send(packet(20 + number % 1480, number)) == 0
        assert stack.take("alpha") == packet(20 + number % 1480, number)
    assert stack.take("alpha", 0) is None


def test_the_driver_waits_for_packets(session):
    """Nobody takes until a while after; a sleeping driver is told."""
    for number in range(3):
        time.sleep(0.05)
        assert session.send(packet(100, number)) == 0
        assert stack.take("alpha") == packet(100, number)
    with meanwhile(session.send, packet(100, 9)):
        assert stack.take("alpha") == packet(100, 9)


def test_take_gives_up(session):
    start = time.monotonic()
    assert stack.take("alpha", 0.3) is None
    assert 0.25 < time.monotonic() - start < 5


def test_sent_out_of_order(session):
    """The order is that of the allocation, and one that is not sent is in the way."""
    addresses = [session.allocate(100) for _ in range(3)]
    for number in (2, 1):
        ctypes.memmove(addresses[number], packet(100, number), 100)
        wintun.WintunSendPacket(session.handle, addresses[number])
        assert stack.take("alpha", 0.1) is None
    assert stack.counts().held == 1
    ctypes.memmove(addresses[0], packet(100, 0), 100)
    wintun.WintunSendPacket(session.handle, addresses[0])
    assert [stack.take("alpha") for _ in range(3)] == [packet(100, number) for number in range(3)]


def test_the_driver_makes_room(session):
    stack.consume("alpha", False)
    while session.send(packet(1500)) == 0:
        pass
    assert session.send(packet(1500)) == BUFFER_OVERFLOW
    stack.consume("alpha", True)
    deadline = time.monotonic() + 10
    while session.send(packet(1500)) == BUFFER_OVERFLOW:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sent_twice(session, faulty):
    address = session.allocate(100)
    ctypes.memmove(address, packet(100), 100)
    wintun.WintunSendPacket(session.handle, address)
    wintun.WintunSendPacket(session.handle, address)
    assert faulty() == (1, "WintunSendPacket")
    assert stack.take("alpha") == packet(100)
    assert stack.take("alpha", 0.1) is None


@pytest.mark.parametrize("size", [0, 0x10000, 0xFFFFFFFF])
def test_sizes_that_are_none(session, faulty, size):
    address = session.allocate(size)
    assert faulty() == (1, "WintunAllocateSendPacket")
    if address > 0:
        stack.consume("alpha", False)
        wintun.WintunSendPacket(session.handle, address)


@pytest.mark.parametrize(
    "content", [b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x00" + bytes(99), b"\xff" * 1500, b"?"],
    ids=["short IPv4", "short IPv6", "zeros", "ones", "a byte"],
)  # fmt: skip
def test_the_driver_stops_at_what_is_no_packet(session, faulty, content):
    """For good: whoever sends such a thing has spoilt the session for all that comes after."""
    assert session.send(content) == 0
    deadline = time.monotonic() + 10
    while session.send(packet(20)) != HANDLE_EOF:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert faulty() == (1, "WintunSendPacket")
    assert stack.take("alpha", 0.1) is None
    assert stack.inject("alpha", packet(100))
    session.release(session.receive()[0])


def test_written_over_the_next_packet(session, faulty):
    """It goes out at the size that is there now, as the real one has no other."""
    stack.consume("alpha", False)
    first, second = session.allocate(100), session.allocate(100)
    for address in (second, first):
        ctypes.memmove(address, packet(100), 100)
    wintun.WintunSendPacket(session.handle, second)
    ctypes.memmove(first + 100, (5000).to_bytes(4, "little"), 4)
    wintun.WintunSendPacket(session.handle, first)
    assert faulty() == (1, "Ring")
    assert stack.take("alpha", 0) == packet(100)
    assert stack.take("alpha", 0)[:100] == packet(100)


def test_written_after_it_was_sent(session, faulty):
    """The driver does not read on where a size says more than there is."""
    stack.consume("alpha", False)
    address = session.allocate(100)
    ctypes.memmove(address, packet(100), 100)
    wintun.WintunSendPacket(session.handle, address)
    ctypes.memmove(address - 4, (101).to_bytes(4, "little"), 4)
    assert stack.take("alpha", 0) is None
    assert faulty() == (1, "WintunSendPacket")
    assert session.send(packet(20)) == HANDLE_EOF


# --- the end ---


def test_terminates_under_a_waiter(session):
    with meanwhile(stack.terminate, "alpha"):
        assert session.receive() == NO_MORE_ITEMS
        assert session.wait(10) == SIGNALLED
    assert session.receive() == HANDLE_EOF


def test_terminated(adapter):
    session = Session(adapter)
    assert stack.inject("alpha", packet(100))
    assert stack.inject("alpha", packet(100))
    held, _ = session.receive()
    pending = session.allocate(100)
    stack.terminate("alpha")
    assert session.receive() == HANDLE_EOF
    assert session.allocate(20) == -HANDLE_EOF
    session.release(held)
    ctypes.memmove(pending, packet(100), 100)
    wintun.WintunSendPacket(session.handle, pending)
    assert session.receive() == HANDLE_EOF
    assert not stack.inject("alpha", packet(100))
    assert stack.adapter("alpha") is None
    session.end()
    assert refused(FILE_NOT_FOUND, wintun.WintunStartSession, adapter, SMALLEST)
    assert refused(NOT_FOUND, wintun.WintunOpenAdapter, "alpha")


def test_closed_under_a_session(faulty):
    handle = wintun.WintunCreateAdapter("alpha", "x", None)
    session = Session(handle)
    wintun.WintunCloseAdapter(handle)
    assert faulty() == (1, "WintunCloseAdapter")
    assert session.receive() == HANDLE_EOF
    session.end()


def test_ended_while_a_packet_is_held(adapter, faulty):
    session = Session(adapter)
    assert stack.inject("alpha", packet(100))
    session.receive()
    session.end()
    assert faulty() == (1, "WintunEndSession")
    session = Session(adapter)
    session.allocate(100)
    session.end()
    assert faulty() == (2, "WintunEndSession")
    assert stack.counts().held == 0


def test_threads(adapter):
    """Both directions at once, from several threads each, with the driver taking all the while."""
    session = Session(adapter)
    each, senders = 2000, 3
    received, errors = [], []
    over = threading.Event()

    def send(sender):
        for number in range(each):
            content = bytes([0x45, sender]) + number.to_bytes(4, "big") + bytes(20 + number % 200)
            while (error := session.send(content)) == BUFFER_OVERFLOW:
                time.sleep(0.001)
            if error:
                errors.append(error)

    def receive():
        while True:
            result = session.receive()
            if isinstance(result, tuple):
                address, content = result
                received.append(int.from_bytes(content[:4], "big"))
                session.release(address)
            elif over.is_set() or result != NO_MORE_ITEMS:
                return
            else:
                session.wait(0.05)

    threads = [threading.Thread(target=send, args=[sender]) for sender in range(senders)]
    readers = [threading.Thread(target=receive) for _ in range(2)]
    for thread in threads + readers:
        thread.start()
    for number in range(each):
        while not stack.inject("alpha", number.to_bytes(4, "big") + bytes(number % 1400)):
            time.sleep(0.001)
    numbers = {sender: [] for sender in range(senders)}
    for _ in range(each * senders):
        content = stack.take("alpha")
        numbers[content[1]].append(int.from_bytes(content[2:6], "big"))
    for thread in threads:
        thread.join()
    over.set()
    for thread in readers:
        thread.join()
    assert all(order == list(range(each)) for order in numbers.values())
    assert sorted(received) == list(range(each))
    assert errors == []
    session.end()
