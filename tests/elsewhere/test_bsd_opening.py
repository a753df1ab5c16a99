"""Opening, adopting and closing on the BSDs: races with others, names, descriptors, systems without IPv6."""

import contextlib
import importlib
import os
import struct
import threading
import time

import pytest
from fake_bsd import UP
from fake_kernel import Refusal, put
from layouts import pack_name
from systems import BSDS

PF_ROUTE = {"freebsd": 17, "openbsd": 17, "netbsd": 34}  # sys/socket.h
PACKET = b"E" * 20


@pytest.fixture(params=BSDS)
def system(request):
    return request.param


@pytest.fixture
def kernel(system, elsewhere):
    with elsewhere(system).running() as kernel:
        yield kernel


@pytest.fixture(params=["freebsd", "netbsd"])
def creating(request, elsewhere):
    """Where an interface is made by a request, and not by opening a node."""
    with elsewhere(request.param).running() as kernel:
        yield kernel


@pytest.fixture
def freebsd(elsewhere):
    with elsewhere("freebsd").running() as kernel:
        yield kernel


@pytest.fixture
def openbsd(elsewhere):
    with elsewhere("openbsd").running() as kernel:
        yield kernel


@pytest.fixture
def netbsd(elsewhere):
    with elsewhere("netbsd").running() as kernel:
        yield kernel


def names(calls):
    return [call[0] for call in calls]


def test_sockets_for_configuration(kernel):
    """Two datagram sockets, that a program which is executed does not get."""
    with kernel.tuntap.Tun("tun0"):
        calls = kernel.taken()
        sockets = [call for call in calls if call.name == "socket"]
        assert [call.arguments for call in sockets] == [(2, 2, 0), (kernel.AF_INET6, 2, 0)]
        for call in sockets:
            # F_SETFD, FD_CLOEXEC
            assert (call.result, 2, 1) in [call.arguments for call in calls]
            assert not os.get_inheritable(call.result)


def test_sockets_for_routes(kernel, system):
    """Raw, and they neither block nor pass to a program that is executed."""
    with kernel.tuntap.Tun("tun0") as tun:
        kernel.taken()
        tun.add_address("10.1.2.3/24")
        calls = kernel.taken()
        sockets = [call for call in calls if call.name == "socket"]
        assert {call.arguments for call in sockets} == {(PF_ROUTE[system], 3, 0)}  # SOCK_RAW
        told = [call.arguments for call in calls if call.name == "fcntl"]
        assert told == [(sockets[0].result, 2, 1), (sockets[0].result, 4, 4)]


@contextlib.contextmanager
def first_becomes_zero(kernel, name):
    """The first descriptor that a call makes is 0: of a daemon that closed its standard input."""
    saved = os.dup(0)
    call = getattr(kernel, name)

    def move(result):
        os.dup2(result, 0)
        os.close(result)
        return 0

    def moved(*arguments):
        setattr(kernel, name, call)
        result = call(*arguments)
        if name == "pair":
            return result[0], move(result[1])
        kernel.sockets[0] = kernel.sockets.pop(result)
        return move(result)

    setattr(kernel, name, moved)
    try:
        yield
    finally:
        setattr(kernel, name, call)
        os.dup2(saved, 0)
        os.close(saved)


def test_a_device_at_descriptor_zero(kernel):
    with first_becomes_zero(kernel, "pair"), kernel.tuntap.Tun("tun0") as tun:
        assert tun.fileno() == 0
        assert tun.name == "tun0"
        tun.mtu = 1400
        tun.send(PACKET)
        assert kernel.wire("tun0").recv(100) == b"\0\0\0\x02" + PACKET
        with kernel.tuntap.Tun.from_fd(0, owned=False) as adopted:
            assert adopted.name == "tun0"


def test_a_rename_at_descriptor_zero(freebsd):
    with first_becomes_zero(freebsd, "pair"), freebsd.tuntap.Tun("tun0") as tun:
        tun.name = "office"
        tun.name = "tun0"
        assert tun.name == "tun0"


def test_a_socket_at_descriptor_zero(kernel):
    """It is used as any other, and not opened once more."""
    with first_becomes_zero(kernel, "socket"), kernel.tuntap.Tun("tun0") as tun:
        tun.mtu = 1400
        assert not os.get_inheritable(0)
        assert len(kernel.sockets) == 2


@pytest.mark.parametrize("address", ["10.1.2.3/24", "fd00::1/64"])
def test_a_routing_socket_at_descriptor_zero(kernel, address):
    with kernel.tuntap.Tun("tun0") as tun:
        call = kernel.pair
        with first_becomes_zero(kernel, "pair"):
            tun.add_address(address)
            assert len(kernel.routes) == 1
        assert kernel.pair == call


def test_a_system_without_ipv6(kernel):
    """All but IPv6 goes on."""
    kernel.families.discard(kernel.AF_INET6)
    kernel.make("tap9")
    kernel.make("tun9")
    assert kernel.tuntap.interfaces() == ["tap9", "tun9"]
    kernel.tuntap.delete("tap9")
    with kernel.tuntap.Tap("tap0") as tap:
        tap.mtu = 1400
        tap.mac = "02:01:03:05:07:09"
        tap.up()
        assert (tap.mtu, tap.mac, tap.is_up) == (1400, "02:01:03:05:07:09", True)
        with pytest.raises(kernel.tuntap.UnsupportedError, match=r"socket\(AF_INET6\)"):
            tap.add_address("fd00::1/64")


@pytest.mark.parametrize(("kind", "made"), [("Tun", "tun"), ("Tap", "tap")])
def test_an_exclusive_one_of_any_name(kernel, kind, made):
    kernel.make(f"{made}0")
    with getattr(kernel.tuntap, kind)(exclusive=True) as device:
        assert device.name == f"{made}1"


def somebody_is_faster(kernel):
    """When it is to be made, it is there."""

    def create(descriptor, data):
        kernel.make("tun5")
        raise Refusal("EEXIST")

    kernel.SIOCIFCREATE = create


@pytest.fixture
def race(creating):
    somebody_is_faster(creating)
    yield creating
    del creating.SIOCIFCREATE


def test_somebody_makes_it_first(race):
    with race.tuntap.Tun("tun5") as tun:
        assert tun.persist
    assert "tun5" in race.interfaces


def test_somebody_makes_it_first_but_it_must_be_new(race):
    with pytest.raises(race.tuntap.DeviceBusyError) as caught:
        race.tuntap.Tun("tun5", exclusive=True)
    assert caught.value.errno == race.errors["EEXIST"]
    assert "open" not in names(race.told())
    assert "tun5" in race.interfaces


def test_somebody_opens_what_was_made(creating):
    """The interface is theirs by now: to destroy it would wait until they close it."""
    creating.refuse("open", "EBUSY")
    with pytest.raises(creating.tuntap.DeviceBusyError):
        creating.tuntap.Tun("tun5")
    assert "SIOCIFDESTROY" not in names(creating.told())
    assert "tun5" in creating.interfaces


def test_somebody_opens_the_unit_that_was_picked(freebsd):
    freebsd.refuse("open", "EBUSY")
    freebsd.held.add("tun0")
    freebsd.is_free = lambda name: name not in freebsd.held
    try:
        with pytest.raises(freebsd.tuntap.DeviceBusyError):
            freebsd.tuntap.Tun()
    finally:
        del freebsd.is_free
    assert "SIOCIFDESTROY" not in names(freebsd.told())


def test_the_next_unit_if_somebody_is_faster(elsewhere):
    for system in ("openbsd", "netbsd"):
        with elsewhere(system).running() as kernel:
            kernel.refuse("open", "EBUSY")
            with kernel.tuntap.Tun() as tun:
                assert tun.name == "tun1"


def test_no_unit_is_free(openbsd):
    for unit in range(256):
        openbsd.make(f"tun{unit}")
    with pytest.raises(openbsd.tuntap.DeviceBusyError) as caught:
        openbsd.tuntap.Tun()
    assert caught.value.errno == openbsd.errors["EEXIST"]
    assert openbsd.told() == []
    del openbsd.interfaces["tun255"]
    with openbsd.tuntap.Tun() as tun:
        assert tun.name == "tun255"


@pytest.mark.parametrize("call", ["open", "ioctl(SIOCIFCREATE)"])
@pytest.mark.parametrize("name", [None, "tun5"])
def test_without_rights(creating, call, name):
    """Nothing is left, and nothing else is tried."""
    creating.refuse(call, "EPERM")
    with pytest.raises(creating.tuntap.PrivilegeError) as caught:
        creating.tuntap.Tun(name)
    assert str(caught.value).startswith(f"[Errno 1] {'open(/dev/tun)' if call == 'open' else call}")
    assert creating.interfaces == {}
    assert creating.told()[-1][0] == ("SIOCIFDESTROY" if call == "open" else "SIOCIFCREATE")


def test_a_name_of_ones_own_without_rights(freebsd):
    """What was made for it has a name of the driver's, and goes all the same."""
    freebsd.refuse("open", "EPERM")
    with pytest.raises(freebsd.tuntap.PrivilegeError):
        freebsd.tuntap.Tun("vpn0")
    assert freebsd.interfaces == {}


def test_another_error_ends_the_search(openbsd):
    openbsd.refuse("open", "ENOMEM")
    with pytest.raises(openbsd.tuntap.TunTapError, match=r"open\(/dev/tun\)"):
        openbsd.tuntap.Tun()
    assert [call[1] for call in openbsd.told()] == ["/dev/tun0"]


def test_a_name_that_is_refused(freebsd):
    """What was made for it goes, once it is closed."""
    freebsd.refuse("ioctl(SIOCSIFNAME)", "EPERM")
    with pytest.raises(freebsd.tuntap.PrivilegeError, match="SIOCSIFNAME"):
        freebsd.tuntap.Tun("vpn0")
    assert freebsd.interfaces == {}


def test_a_name_that_somebody_takes_first(freebsd):
    """Theirs stays."""
    rename = freebsd.SIOCSIFNAME

    def faster(descriptor, data):
        freebsd.interfaces["vpn0"] = freebsd.make("tun7")
        del freebsd.interfaces["tun7"]
        freebsd.interfaces["vpn0"].name = "vpn0"
        return rename(descriptor, data)

    freebsd.SIOCSIFNAME = faster
    try:
        with pytest.raises(freebsd.tuntap.DeviceBusyError):
            freebsd.tuntap.Tun("vpn0")
    finally:
        del freebsd.SIOCSIFNAME
    assert set(freebsd.interfaces) == {"vpn0"}


@pytest.mark.parametrize("name", ["x", "tun", "tunnel", "vpn9", "tun0a", "fifteen-letters"])
def test_names_of_ones_own(freebsd, name):
    with freebsd.tuntap.Tun(name) as tun:
        assert tun.name == name


@pytest.mark.parametrize("name", ["x", "tun", "tunnel", "vpn9", "tun0a", "tap0", "fifteen-letters"])
def test_no_names_of_ones_own(elsewhere, name):
    for system in ("openbsd", "netbsd"):
        with elsewhere(system).running() as kernel:
            with pytest.raises(kernel.tuntap.UnsupportedError) as caught:
                kernel.tuntap.Tun(name)
            assert caught.value.errno == kernel.errors["EINVAL"]
            assert kernel.taken() == []


@pytest.mark.parametrize("name", ["tun9", "tap9", "vmnet9", "vmnet10"])
def test_names_that_the_kernel_gives(freebsd, name):
    with freebsd.tuntap.Tun("office") as tun:
        with pytest.raises(freebsd.tuntap.UnsupportedError, match="the name of the interface") as caught:
            tun.name = name
        assert caught.value.errno == freebsd.errors["EINVAL"]
        assert tun.name == "office"


@pytest.mark.parametrize("name", ["vmneta", "vmnes9", "vmnet9a", "tunnel9", "tapas"])
def test_names_that_it_does_not_give(freebsd, name):
    with freebsd.tuntap.Tun("office") as tun:
        tun.name = name
        assert tun.name == name


def test_no_rename(elsewhere):
    for system in ("openbsd", "netbsd"):
        with elsewhere(system).running() as kernel, kernel.tuntap.Tun("tun0") as tun:
            with pytest.raises(kernel.tuntap.UnsupportedError, match=r"tun\(4\)") as caught:
                tun.name = "tun1"
            assert caught.value.errno == kernel.errors["EOPNOTSUPP"]


@pytest.mark.parametrize(("pattern", "name"), [("vpn%d", "vpn0"), ("a%db", "a0b"), ("%dx", "0x")])
def test_patterns(freebsd, pattern, name):
    with freebsd.tuntap.Tun(pattern) as tun:
        assert tun.name == name


def test_a_tun_whose_group_says_that_it_is_a_tap(freebsd):
    """Root can change groups; only the driver knows."""
    freebsd.make("tun9")
    freebsd.groups["tun9"] = "tap"
    with pytest.raises(freebsd.tuntap.DeviceBusyError, match="the kind of the interface") as caught:
        freebsd.tuntap.Tap("tun9")
    assert caught.value.errno == freebsd.errors["EINVAL"]
    assert "tun9" in freebsd.interfaces


@pytest.mark.parametrize("has_ipv6", [True, False])
def test_delete_of_one_that_is_open(creating, has_ipv6):
    """FreeBSD would wait for the descriptor for ever, and NetBSD not tell who waits for packets."""
    if not has_ipv6:
        creating.families.discard(creating.AF_INET6)
    with creating.tuntap.Tun("tun3") as tun:
        with pytest.raises(creating.tuntap.DeviceBusyError, match="SIOCIFDESTROY") as caught:
            creating.tuntap.delete("tun3")
        assert caught.value.errno == creating.errors["EBUSY"]
        assert tun.index


def test_delete_of_one_that_is_open_on_openbsd(openbsd):
    """There it goes, whoever has it."""
    openbsd.make("tun3")
    openbsd.tuntap.delete("tun3")
    assert names(openbsd.told()) == ["SIOCIFDESTROY"]


def test_what_closing_tells(elsewhere):
    expected = {"freebsd": [], "openbsd": [], "netbsd": ["open", "SIOCIFDESTROY"]}
    for system, told in expected.items():
        with elsewhere(system).running() as kernel:
            with kernel.tuntap.Tun("tun0"):
                kernel.taken()
            if system == "openbsd":
                assert "if_nametoindex" not in [call.name for call in kernel.calls]
            assert names(kernel.told()) == told


@pytest.mark.parametrize("kind", ["Tun", "Tap"])
def test_a_read_does_not_ask_first(kernel, kind):
    """The descriptor does not block."""
    with getattr(kernel.tuntap, kind)() as device:
        device.up()
        kernel.taken()
        with pytest.raises(TimeoutError):
            device.recv(timeout=0)
        assert [call.name for call in kernel.taken()] in (["readv"], ["read"])


def test_packet_information(kernel):
    with kernel.tuntap.Tun("tun0", packet_information=True) as tun:
        assert tun._get("packet_information") == 1
        largest = b"\0\0\0\x02" + b"E" * 65535
        assert tun.send(largest) == len(largest)
        assert kernel.wire("tun0").recv(70000) == largest
        with pytest.raises(ValueError, match="a packet is"):
            tun.send(largest + b"E")
    with kernel.tuntap.Tun("tun0") as tun:
        assert tun._get("packet_information") == 0


@pytest.mark.parametrize("kind", ["Tun", "Tap"])
def test_what_is_the_same_for_all(kernel, kind):
    with getattr(kernel.tuntap, kind)() as device:
        assert device._get("offload") == 0
        assert device._get("attached") == 1
        assert device._get("running") == 1


def test_quiet_is_told(creating):
    with creating.tuntap.Tun("tun0") as tun:
        for flags, quiet in ((0x21, 0), (0x1, 1), (0x20, 0), (0x100, 1)):
            creating.nd6["tun0"] = flags
            assert tun._get("quiet") == quiet
        creating.nd6["tun0"] = 0x20
        for call in ("SIOCGIFINFO_IN6", "SIOCSIFINFO_FLAGS"):
            creating.refuse(f"ioctl({call})", "EPERM")
            with pytest.raises(creating.tuntap.PrivilegeError, match=call):
                tun._set("quiet", 1)


def test_quiet_is_set_and_taken_back(creating):
    """AUTO_LINKLOCAL one way or the other; NO_DAD goes with it where there is such a flag."""
    no_dad = 0x100 if type(creating).__name__ == "FreeBSD" else 0
    with creating.tuntap.Tun("tun0") as tun:
        creating.nd6["tun0"] = 0x20
        tun._set("quiet", 1)
        assert creating.nd6["tun0"] == no_dad
        tun._set("quiet", 0)
        assert creating.nd6["tun0"] == 0x20
        creating.nd6["tun0"] = 0x8  # IFDISABLED
        tun.add_address("fd00::1/64")
        assert creating.nd6["tun0"] == no_dad


def test_quiet_without_ipv6(creating):
    creating.families.discard(creating.AF_INET6)
    with pytest.raises(creating.tuntap.UnsupportedError, match=r"socket\(AF_INET6\)") as caught:
        creating.tuntap.Tun("tun0", quiet=True)
    assert caught.value.errno == creating.errors["EAFNOSUPPORT"]


def test_inspecting_attaches_to_nothing(kernel):
    """The configuration of an interface by name."""
    kernel.make("tap4")
    kernel.interfaces["tap4"].flags |= UP
    kernel.interfaces["tap4"].mtu = 1432
    inspect = importlib.import_module("tuntap.cli")._inspect
    with inspect("tap4") as device:
        assert isinstance(device, kernel.tuntap.Tap)
        assert (device.name, device.mtu, device.is_up, device.index) == ("tap4", 1432, True, 3)
    assert kernel.told() == []
    with pytest.raises(kernel.tuntap.DeviceGoneError), inspect("tap5") as device:
        assert device.index


def test_inspecting_the_longest_name(kernel):
    """Fifteen letters and a zero."""
    name = "tap123456789012"
    kernel.make(name)
    with importlib.import_module("tuntap.cli")._inspect(name) as device:
        assert (device.name, device.mtu) == (name, 1500)


def test_inspecting_and_renaming(freebsd):
    """Without a descriptor there is no node whose name it could take back."""
    freebsd.make("tun4")
    inspect = importlib.import_module("tuntap.cli")._inspect
    with inspect("tun4") as device:
        with pytest.raises(freebsd.tuntap.UnsupportedError, match="the name of the interface"):
            device.name = "tun5"
        device.name = "office"
    assert list(freebsd.interfaces) == ["office"]


def test_the_core_itself_refuses_what_other_systems_have(kernel):
    """Python asks what there is before it asks for it."""
    tuntap = kernel.tuntap
    with tuntap.Tun("tun0") as tun, pytest.raises(tuntap.UnsupportedError) as caught:
        tuntap.Queue.__new__(tuntap.Queue)._open_queue(tun)
    assert caught.value.errno == kernel.errors["EOPNOTSUPP"]


class TestAdoptOnNetBSD:
    @pytest.mark.parametrize(("head", "front"), [(0, b""), (1, b"\0\0\0\x02")])
    def test_a_tun(self, netbsd, head, front):
        """Whether packets have the family in front is asked, not changed."""
        descriptor = netbsd.open("/dev/tun2", 0x2, 0)
        netbsd.interfaces["tun2"].flags |= UP
        netbsd.interfaces["tun2"].head = head
        with netbsd.tuntap.Tun.from_fd(descriptor) as tun:
            assert tun.name == "tun2"
            assert tun.persist
            tun.send(PACKET)
            assert netbsd.wire("tun2").recv(100) == front + PACKET
            assert netbsd.told() == []

    def test_a_tap(self, netbsd):
        netbsd.make("tap1")
        descriptor = netbsd.open("/dev/tap1", 0x2, 0)
        with netbsd.tuntap.Tap.from_fd(descriptor) as tap:
            assert tap.name == "tap1"
            tap.send(b"frame" * 4)
            assert netbsd.wire("tap1").recv(100) == b"frame" * 4
            assert netbsd.told() == []
            assert "TUNGIFHEAD" not in names(netbsd.requests())

    def test_an_answer_that_fails(self, netbsd):
        descriptor = netbsd.open("/dev/tun2", 0x2, 0)
        netbsd.refuse("ioctl(TUNGIFHEAD)", "ENXIO")
        with pytest.raises(netbsd.tuntap.DeviceGoneError, match="TUNGIFHEAD"):
            netbsd.tuntap.Tun.from_fd(descriptor)
        netbsd.close(descriptor)


@pytest.mark.parametrize("error", ["ENOMEM", "EPERM"])
def test_an_adopted_one_that_cannot_be_recognised(kernel, system, error):
    call = "ioctl(TUNGIFNAME)" if system == "freebsd" else "fstat"
    kernel.make("tun2")
    descriptor = kernel.open("/dev/tun2", 0x2, 0)
    kernel.refuse(call, error)
    with pytest.raises(kernel.tuntap.TunTapError) as caught:
        kernel.tuntap.Tun.from_fd(descriptor)
    assert caught.value.errno == kernel.errors[error]
    assert call in str(caught.value)
    kernel.close(descriptor)


def test_a_descriptor_that_is_not_open(kernel):
    with pytest.raises(kernel.tuntap.ClosedError, match=r"fcntl\(F_GETFL\)"):
        kernel.tuntap.Tun.from_fd(1000)


def test_an_adopted_one_can_be_interrupted(kernel):
    kernel.make("tun2")
    descriptor = kernel.open("/dev/tun2", 0x2, 0)
    kernel.interfaces["tun2"].flags |= UP
    with kernel.tuntap.Tun.from_fd(descriptor) as tun:
        tun.interrupt()
        with pytest.raises(kernel.tuntap.InterruptError):
            tun.recv(timeout=5)
        with pytest.raises(TimeoutError):
            tun.recv(timeout=0.01)


def test_whoever_waits_is_woken_once(kernel):
    """By another thread; the next to wait waits."""
    with kernel.tuntap.Tun("tun0") as tun:
        poll = kernel.poll

        def wait(entries, count, timeout):
            kernel.poll = poll
            threading.Timer(0.05, tun.interrupt).start()
            return poll(entries, count, timeout)

        kernel.poll = wait
        begin = time.monotonic()
        with pytest.raises(kernel.tuntap.InterruptError):
            tun.recv(timeout=0.9)
        assert time.monotonic() - begin < 0.8
        kernel.taken()
        with pytest.raises(TimeoutError):
            tun.recv(timeout=0.05)
        assert [call.name for call in kernel.taken()].count("poll") == 1
        del kernel.poll


def test_an_event_that_was_cleared_ends_nothing(kernel):
    event = kernel.tuntap.Event()
    with kernel.tuntap.Tun("tun0") as tun:
        event.set()
        with pytest.raises(kernel.tuntap.InterruptError):
            tun.recv(timeout=5, event=event)
        event.clear()
        kernel.taken()
        with pytest.raises(TimeoutError):
            tun.recv(timeout=0.05, event=event)
        assert [call.name for call in kernel.taken()].count("poll") == 1
    del event


def test_an_error_that_poll_tells(kernel):
    """POLLERR is news: the next read says what happened."""
    poll = kernel.poll

    def failed(entries, count, timeout):
        kernel.refuse("readv", "ENXIO")
        poll(entries, count, 0)
        put(entries + 6, struct.pack("h", 0x8))  # revents of the first
        return 1

    with kernel.tuntap.Tun("tun0") as tun:
        kernel.poll = failed
        try:
            with pytest.raises(kernel.tuntap.DeviceGoneError):
                tun.recv(timeout=1)
            tun.wait_readable(timeout=1)
        finally:
            del kernel.poll


def test_a_wait_without_end(kernel, system):
    """NetBSD does not wake those that wait when the interface goes: it looks again each second."""
    poll = kernel.poll
    waits = []

    def wait(entries, count, timeout):
        waits.append(timeout)
        if len(waits) == 2 or system != "netbsd":
            kernel.wire("tun0").send(b"\0\0\0\x02" + PACKET)
        return poll(entries, count, 0)

    with kernel.tuntap.Tun("tun0") as tun:
        kernel.poll = wait
        try:
            assert tun.recv() == PACKET
        finally:
            del kernel.poll
    assert set(waits) == {1000 if system == "netbsd" else -1}


def test_a_wait_is_as_long_as_was_asked_for(elsewhere):
    """All of it, where poll(2) tells everything."""
    for system in ("freebsd", "openbsd"):
        with elsewhere(system).running() as kernel, kernel.tuntap.Tun("tun0") as tun:
            kernel.taken()
            with pytest.raises(TimeoutError):
                tun.recv(timeout=0.15)
            waits = [call.arguments[1] for call in kernel.taken() if call.name == "poll"]
            assert len(waits) == 1
            assert 100 < waits[0] <= 150


def test_where_an_event_loop_looks(kernel):
    """At the device itself, for writing."""
    with kernel.tuntap.Tun("tun0") as tun:
        assert tun._target(0, tun) == (tun.fileno(), False)
        assert tun._target(1, tun) == (tun.fileno(), True)


def test_removing_from_an_adopted_one(kernel):
    """Nothing was asked through a socket yet."""
    kernel.make("tun2")
    descriptor = kernel.open("/dev/tun2", 0x2, 0)
    kernel.add("tun2", "fd00::1", 64)
    with kernel.tuntap.Tun.from_fd(descriptor) as tun:
        tun.remove_address("fd00::1/64")
        assert tun.addresses == []


def test_the_name_goes_into_every_request_whole(freebsd):
    """Fifteen letters and a zero."""
    name = "fifteen-letters"
    with freebsd.tuntap.Tap(name) as tap:
        freebsd.taken()
        tap.mtu = 1400
        tap.add_address("10.0.0.1/24")
        tap.add_address("fd00::1/64")
        tap.remove_address("fd00::1/64")
        tap.remove_address("10.0.0.1/24")
        told = [call for call in freebsd.told() if call[0] != "route"]
        assert len(told) == 6
        assert {data[:16] for _, data in told} == {pack_name(name)}
