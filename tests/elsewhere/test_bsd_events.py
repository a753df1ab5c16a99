"""What the routing socket tells of an interface, and what it tells of others."""

import layouts
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


@pytest.mark.parametrize("system", BSDS)
class TestMessages:
    """What a message says, field by field; macOS has tests of its own."""

    @pytest.fixture
    def kernel(self, elsewhere, system):
        with elsewhere(system).running() as kernel:
            yield kernel

    def address(self, kernel, kind, addresses, bits, **changes):
        """RTM_NEWADDR with any addresses behind it."""
        interface = kernel.interfaces["tun0"]
        fields = {"type": kind, "index": interface.index, "addrs": bits} | changes
        return layouts.route_message(
            kernel.ADDRESS, kernel.ROUTE_VERSION, kernel.ROUTE_ALIGNMENT, addresses, **fields
        )

    def test_an_empty_address_takes_a_word(self, kernel, watch):
        events = watch()
        kernel.add("tun0", "10.1.2.3", 32, "10.9.9.9")
        addresses = [b"", layouts.sockaddr_in("10.1.2.3"), layouts.sockaddr_in("10.9.9.9")]
        bits = layouts.RTA_NETMASK | layouts.RTA_IFA | layouts.RTA_BRD
        kernel.notify(self.address(kernel, kernel.RTM_NEWADDR, addresses, bits))
        ((kind, value),) = told(events)
        assert (kind, value.split()[0].split("/")[0]) == ("address_added", "10.1.2.3")

    def test_a_netmask_that_ends_behind_a_word(self, kernel, watch):
        events = watch()
        kernel.add("tun0", "fd00::7", 8)
        addresses = [b"\x09" + bytes(7) + b"\xff", layouts.sockaddr_in6("fd00::7", kernel.AF_INET6)]
        bits = layouts.RTA_NETMASK | layouts.RTA_IFA
        kernel.notify(self.address(kernel, kernel.RTM_NEWADDR, addresses, bits))
        assert told(events) == [("address_added", "fd00::7/8")]

    def test_a_peer(self, kernel, watch):
        events = watch()
        kernel.add("tun0", "10.1.2.3", 32, "10.9.9.9")
        kernel.notify(kernel.address_message(kernel.RTM_NEWADDR, "tun0", "10.1.2.3", 32, "10.9.9.9"))
        event = events.get(timeout=0)
        assert (str(event.value.ip), str(event.value.peer)) == ("10.1.2.3", "10.9.9.9")
        del events

    @pytest.mark.parametrize("is_gone", [False, True])
    def test_one_of_an_interface_that_tells_nothing(self, kernel, watch, is_gone):
        """The far end is that of a link only if the interface is one."""
        events = watch()
        kernel.notify(kernel.address_message(kernel.RTM_NEWADDR, "tun0", "10.1.2.3", 24, "10.9.9.9"))
        kernel.refuse("ioctl(SIOCGIFFLAGS)", "ENXIO")
        if is_gone:
            del kernel.interfaces["tun0"]
        assert events.get(timeout=0).value.peer is None
        del events

    def test_no_address_at_all(self, kernel, watch):
        events = watch()
        kernel.add("tun0", "10.1.2.3", 24, "10.1.2.255")
        mask = layouts.sockaddr_in("255.255.255.0")
        kernel.notify(self.address(kernel, kernel.RTM_NEWADDR, [mask], layouts.RTA_NETMASK))
        kernel.notify(self.address(kernel, kernel.RTM_NEWADDR, [], layouts.RTA_IFA))
        assert told(events) == []

    def test_an_address_that_ends_with_the_message(self, kernel, watch):
        """Of length 1, with nothing behind it: its family is that of a message before it."""
        events = watch()
        kernel.add("tun0", "10.1.2.3", 24, "10.1.2.255")
        addresses = [layouts.sockaddr_in("10.1.2.3")]
        whole = self.address(kernel, kernel.RTM_NEWADDR, addresses, layouts.RTA_IFA)
        kernel.notify(self.address(kernel, kernel.RTM_NEWADDR, addresses, layouts.RTA_IFA, index=99))
        cut = bytearray(whole[: kernel.ADDRESS.size + 1])
        cut[:2] = len(cut).to_bytes(2, "little")
        cut[-1] = 1
        kernel.notify(bytes(cut))
        assert told(events) == []

    @pytest.mark.parametrize("length", [0, 1, 2, 3])
    def test_messages_of_a_few_bytes(self, kernel, watch, length):
        events = watch()
        kernel.interfaces["tun0"].flags &= ~UP
        message = kernel.link_message("tun0")
        kernel.notify(message[:length] or b"\0")
        assert told(events) == []

    def test_a_link_message_that_was_cut(self, kernel, watch):
        """Its own length says so, too."""
        events = watch()
        kernel.interfaces["tun0"].mtu = 1234
        whole = bytearray(kernel.link_message("tun0"))
        whole[:2] = (len(whole) - 1).to_bytes(2, "little")
        kernel.notify(bytes(whole[:-1]))
        assert told(events) == []

    def test_a_departure_that_was_cut(self, kernel, watch):
        events = watch()
        whole = bytearray(self.announcement(kernel, kernel.interfaces.pop("tun0").index))
        whole[:2] = (len(whole) - 1).to_bytes(2, "little")
        kernel.notify(bytes(whole[:-1]))
        assert told(events) == []
        kernel.interfaces["tun0"] = kernel.make("tun0")

    def announcement(self, kernel, index):
        size = kernel.ANNOUNCEMENT.size
        fields = {"hdrlen": size} if "hdrlen" in kernel.ANNOUNCEMENT.names else {}
        fields |= {"version": kernel.ROUTE_VERSION, "type": kernel.RTM_IFANNOUNCE, "name": pack_name("tun0")}
        return kernel.ANNOUNCEMENT.pack(msglen=size, index=index, what=1, **fields)

    def test_a_link_that_has_no_name_any_more(self, kernel, watch):
        events = watch()
        message = kernel.link_message("tun0")
        del kernel.interfaces["tun0"]
        kernel.notify(message)
        assert events.get(timeout=0).kind == "gone"
        del events

    def test_a_read_that_was_interrupted(self, kernel, watch):
        events = watch()
        kernel.interfaces["tun0"].mtu = 1234
        kernel.refuse("read", "EINTR")
        kernel.notify(kernel.link_message("tun0"))
        assert told(events) == [("mtu", "1234")]

    def test_a_read_that_fails(self, kernel, watch):
        events = watch()
        kernel.refuse("read", "ENOMEM")
        kernel.notify(kernel.link_message("tun0"))
        with pytest.raises(kernel.tuntap.TunTapError) as caught:
            events.get(timeout=0)
        assert caught.value.errno == kernel.errors["ENOMEM"]
        del events, caught  # whose traceback has it

    def test_losses(self, kernel, tun):
        watcher = tun._watch()
        kernel.refuse("read", "ENOBUFS")
        assert watcher.next() == ("lost",)
        assert watcher.next() is None
        del watcher

    def test_losses_are_asked_for(self, kernel, watch):
        """SO_RERROR, where the system has it."""
        kernel.taken()
        events = watch()
        options = [call.arguments[1:] for call in kernel.taken() if call.name == "setsockopt"]
        expected = [(0xFFFF, kernel.SO_RERROR, b"\1\0\0\0")] if kernel.SO_RERROR else []
        assert options == expected
        assert told(events) == []

    def test_no_socket(self, kernel, tun):
        kernel.refuse("socket", "EMFILE")
        with pytest.raises(kernel.tuntap.TunTapError, match=r"socket\(PF_ROUTE\)") as caught:
            tun.events()
        assert caught.value.errno == kernel.errors["EMFILE"]


class TestOpenBSD:
    """RTM_DESYNC, a header and no more, says that notifications were lost (route(4))."""

    @pytest.fixture
    def kernel(self, elsewhere):
        with elsewhere("openbsd").running() as kernel:
            yield kernel

    def desync(self, kernel, version=5):
        size = kernel.ROUTE.size
        return kernel.ROUTE.pack(msglen=size, version=version, type=0x10, hdrlen=size)

    def test_losses(self, kernel, watch):
        events = watch()
        kernel.interfaces["tun0"].mtu = 1299
        kernel.notify(self.desync(kernel))
        assert ("mtu", "1299") in told(events)

    def test_what_they_are_called(self, kernel, tun):
        watcher = tun._watch()
        kernel.notify(self.desync(kernel))
        assert watcher.next() == ("lost",)
        del watcher

    def test_a_message_without_a_type(self, kernel, watch):
        """It is not that of the message before it."""
        events = watch()
        kernel.interfaces["tun0"].mtu = 1299
        kernel.notify(self.desync(kernel, version=4))
        kernel.notify(b"\x03\0\x05")
        assert told(events) == []
