"""What the routing socket tells of an interface, and what it tells of others."""

import pytest
from fake_bsd import RUNNING, UP
from layouts import pack_name
from systems import BSDS, SYSTEMS


@pytest.fixture(params=SYSTEMS)
def kernel(request, elsewhere):
    with elsewhere(request.param).running() as kernel:
        yield kernel


@pytest.fixture
def name(kernel):
    return "utun0" if type(kernel).__name__ == "MacOS" else "tun0"


@pytest.fixture
def tun(kernel, name):
    with kernel.tuntap.Tun(name) as device:
        yield device


@pytest.fixture
def watch(kernel, tun):
    """The iterator is the test's own: it closes its socket when nobody has it any more."""
    return tun.events


def told(events):
    """The events there are by now."""
    found = []
    while True:
        try:
            found.append(events.get(timeout=0))
        except TimeoutError:
            return [(event.kind, None if event.value is None else str(event.value)) for event in found]


def test_up_and_down(kernel, watch, name):
    events = watch()
    interface = kernel.interfaces[name]
    interface.flags &= ~UP
    kernel.notify(kernel.link_message(name))
    assert told(events) == [("down", None)]
    interface.flags |= UP
    kernel.notify(kernel.link_message(name))
    assert told(events) == [("up", None)]


def test_running(kernel, watch, name):
    events = watch()
    interface = kernel.interfaces[name]
    interface.flags &= ~RUNNING
    kernel.notify(kernel.link_message(name))
    assert told(events) == [("not_running", None)]
    assert kernel.interfaces[name].flags & UP


def test_mtu(kernel, watch, name):
    events = watch()
    kernel.interfaces[name].mtu = 1234
    kernel.notify(kernel.link_message(name))
    assert told(events) == [("mtu", "1234")]


def test_addresses(kernel, watch, name):
    events = watch()
    for ip, prefix, other in (("10.1.2.3", 20, "10.1.15.255"), ("fd00::7", 64, None)):
        kernel.add(name, ip, prefix, other)
        kernel.notify(kernel.address_message(kernel.RTM_NEWADDR, name, ip, prefix, other))
        assert told(events)[0] == ("address_added", f"{ip}/{prefix}")
        kernel.interfaces[name].addresses.clear()
        kernel.notify(kernel.address_message(kernel.RTM_DELADDR, name, ip, prefix, other))
        assert told(events)[0] == ("address_removed", f"{ip}/{prefix}")


def test_others_are_not_ours(kernel, watch):
    events = watch()
    kernel.make("other0")
    kernel.interfaces["other0"].mtu = 1111
    kernel.notify(kernel.link_message("other0"))
    kernel.notify(kernel.address_message(kernel.RTM_NEWADDR, "other0", "10.9.9.9", 24))
    assert told(events) == []


def test_messages_of_another_version(kernel, watch, name):
    events = watch()
    kernel.interfaces[name].flags &= ~UP
    message = bytearray(kernel.link_message(name))
    message[2] += 1
    kernel.notify(bytes(message))
    assert told(events) == []


def test_messages_that_were_cut(kernel, watch, name):
    """Whatever the length says, nothing behind the end is read."""
    events = watch()
    kernel.add(name, "10.1.2.3", 24)
    whole = kernel.address_message(kernel.RTM_NEWADDR, name, "10.1.2.3", 24)
    for size in range(1, len(whole)):
        kernel.notify(whole[:size])
    assert told(events) == []


def test_addresses_that_claim_to_be_longer(kernel, watch, name):
    events = watch()
    whole = bytearray(kernel.address_message(kernel.RTM_NEWADDR, name, "10.1.2.3", 24))
    whole[kernel.ADDRESS.size] = 255
    kernel.notify(bytes(whole))
    assert told(events) == []


@pytest.mark.parametrize("system", BSDS)
def test_departure(elsewhere, system):
    """macOS announces nothing; another interface of the name may be there by then."""
    with elsewhere(system).running() as kernel, kernel.tuntap.Tun("tun0") as tun:
        events = tun.events()
        interface = kernel.interfaces["tun0"]
        size = kernel.ANNOUNCEMENT.size
        fields = {"hdrlen": size} if "hdrlen" in kernel.ANNOUNCEMENT.names else {}
        fields |= {"version": kernel.ROUTE_VERSION, "type": kernel.RTM_IFANNOUNCE, "name": pack_name("tun0")}
        for index, what in ((interface.index, 0), (interface.index + 1, 1)):
            kernel.notify(kernel.ANNOUNCEMENT.pack(msglen=size, index=index, what=what, **fields))
            assert told(events) == []
        del kernel.interfaces["tun0"]
        kernel.notify(kernel.ANNOUNCEMENT.pack(msglen=size, index=interface.index, what=1, **fields))
        assert events.get(timeout=0).kind == "gone"
        del events


def test_notifications_that_were_lost(kernel, watch, name):
    """The socket was full: everything is looked at anew."""
    events = watch()
    kernel.interfaces[name].mtu = 1299
    kernel.refuse("read", "ENOBUFS")
    kernel.notify(kernel.link_message(name))
    assert ("mtu", "1299") in told(events)
