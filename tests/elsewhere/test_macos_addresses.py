"""Addresses on macOS and the routes to their subnets, byte for byte."""

import ipaddress
import struct

import layouts
import pytest
from layouts import ifaliasreq, ifreq, in6_aliasreq, sockaddr_dl, sockaddr_in, sockaddr_in6

NODAD = 0x20  # IN6_IFF_NODAD, netinet6/in6_var.h


@pytest.fixture
def kernel(elsewhere):
    with elsewhere("macos").running() as kernel:
        yield kernel


@pytest.fixture
def tun(kernel):
    with kernel.tuntap.Tun("utun3") as device:
        kernel.taken()
        yield device


@pytest.fixture
def tap(kernel):
    with kernel.tuntap.Tap("feth4", peer_name="feth5") as device:
        kernel.taken()
        yield device


def add4(ip, other, mask, name="utun3"):
    return "SIOCAIFADDR", ifaliasreq(name, ip, other, mask)


def add6(ip, prefix, peer=None, scope=0):
    return "SIOCAIFADDR_IN6", in6_aliasreq("utun3", 30, ip, peer, prefix, NODAD, scope)


def remove4(ip):
    return "SIOCDIFADDR", ifreq("utun3", sockaddr_in(ip))


def remove6(ip, scope=0):
    return "SIOCDIFADDR_IN6", ifreq("utun3", sockaddr_in6(ip, 30, scope), 288)


def sockaddr(ip):
    return sockaddr_in(ip) if ipaddress.ip_address(ip).version == 4 else sockaddr_in6(ip, 30)


def route(kernel, kind, subnet, own=None):
    """To a subnet by the link, whose gateway is its index; what packets come from, if it is added."""
    network = ipaddress.ip_network(subnet)
    link = sockaddr_dl(18, kernel.interfaces["utun3"].index, 0, "", b"", 20)
    addresses = [sockaddr(network.network_address), link, sockaddr(network.netmask)]
    bits = layouts.RTA_DST | layouts.RTA_GATEWAY | layouts.RTA_NETMASK
    if own:
        addresses.append(sockaddr(own))
        bits |= layouts.RTA_IFA
    return "route", layouts.route_message(
        kernel.ROUTE, 5, 4, addresses, type=kind, flags=layouts.RTF_UP | layouts.RTF_STATIC, addrs=bits
    )


def added(kernel, subnet, own):
    return route(kernel, layouts.RTM_ADD, subnet, own)


def told(kernel):
    """Without the flags, which are looked at in front of each address."""
    return [call for call in kernel.told() if call[0] != "SIOCSIFFLAGS"]


class TestAdd:
    @pytest.mark.parametrize(
        ("address", "mask", "subnet"),
        [
            ("172.16.77.3/20", "255.255.240.0", "172.16.64.0/20"),
            ("10.1.2.3/31", "255.255.255.254", "10.1.2.2/31"),
            ("10.1.2.3/1", "128.0.0.0", "0.0.0.0/1"),
        ],
    )
    def test_ipv4(self, kernel, tun, address, mask, subnet):
        """The far end of a point-to-point link is the address itself."""
        tun.add_address(address)
        ip = address.partition("/")[0]
        assert told(kernel) == [add4(ip, ip, mask), added(kernel, subnet, ip)]
        assert [str(entry) for entry in tun.addresses] == [address]
        assert tun.addresses[0].peer is None

    @pytest.mark.parametrize("prefix", [1, 60, 64, 127])
    def test_ipv6(self, kernel, tun, prefix):
        ip = "fd00:1:2:3f00::5"
        subnet = ipaddress.ip_interface(f"{ip}/{prefix}").network
        tun.add_address(f"{ip}/{prefix}")
        assert told(kernel) == [add6(ip, prefix), added(kernel, subnet, ip)]
        assert [str(entry) for entry in tun.addresses] == [f"{ip}/{prefix}"]

    def test_a_host_has_no_subnet(self, kernel, tun):
        tun.add_address("10.1.2.3/32")
        tun.add_address("fd00::1/128")
        assert told(kernel) == [add4("10.1.2.3", "10.1.2.3", "255.255.255.255"), add6("fd00::1", 128)]
        assert [str(entry) for entry in tun.addresses] == ["10.1.2.3/32", "fd00::1/128"]

    def test_a_pair(self, kernel, tun):
        tun.add_address(("10.1.2.3", "10.9.9.9"))
        tun.add_address(("fd00::1", "fd00::2"))
        assert told(kernel) == [
            add4("10.1.2.3", "10.9.9.9", "255.255.255.255"),
            add6("fd00::1", 128, "fd00::2"),
        ]
        assert [str(entry.peer) for entry in tun.addresses] == ["10.9.9.9", "fd00::2"]

    def test_without_a_route(self, kernel):
        with kernel.tuntap.Tun("utun3", route=False) as tun:
            kernel.taken()
            tun.add_address("10.1.2.3/24")
            assert told(kernel) == [add4("10.1.2.3", "10.1.2.3", "255.255.255.0")]
            assert kernel.routes == {}

    def test_without_the_route_that_the_system_made(self, kernel):
        with kernel.tuntap.Tap("feth4", route=False) as tap:
            kernel.routes_subnets = True
            tap.add_address("10.1.2.3/24")
            assert kernel.routes == {}

    @pytest.mark.parametrize(
        ("ip", "is_link_local"),
        [("fe80::7", True), ("febf::7", True), ("fec0::7", False), ("fd80::7", False)],
    )
    def test_a_link_local_address_says_of_which_link(self, kernel, tun, ip, is_link_local):
        """It is fe80::/10, and has no route of ours."""
        tun.add_address(f"{ip}/64")
        expected = [add6(ip, 64, scope=tun.index if is_link_local else 0)]
        if not is_link_local:
            expected.append(added(kernel, f"{ip[:4]}::/64", ip))
        assert told(kernel) == expected
        assert [str(entry) for entry in tun.addresses] == [f"{ip}/64"]

    def test_a_link_local_pair(self, kernel, tun):
        tun.add_address(("fe80::1", "fe80::2"))
        assert told(kernel) == [add6("fe80::1", 128, "fe80::2", scope=tun.index)]

    @pytest.mark.parametrize(
        ("address", "broadcast"),
        [("10.1.2.3/20", "10.1.15.255"), ("10.1.2.2/30", "10.1.2.3"), ("10.1.2.2/31", None)],
    )
    def test_a_broadcast_link(self, kernel, tap, address, broadcast):
        """It is the last address of the subnet; a subnet of two has none."""
        kernel.routes_subnets = True
        tap.add_address(address)
        entry = ipaddress.ip_interface(address)
        assert told(kernel)[0] == add4(entry.ip, broadcast, entry.netmask, "feth4")
        assert [str(entry) for entry in tap.addresses] == [address]
        assert tap.broadcast == (broadcast and ipaddress.ip_address(broadcast))

    def test_it_does_not_switch_an_interface_on(self, kernel):
        with kernel.tuntap.Tun("utun3", up=False) as tun:
            kernel.address_brings_up = True
            tun.add_address("10.1.2.3/24")
            assert not tun.is_up

    def test_it_does_not_switch_an_interface_off(self, kernel, tun):
        tun.add_address("10.1.2.3/24")
        assert tun.is_up
        assert "SIOCSIFFLAGS" not in [call[0] for call in kernel.told()]


class TestRefused:
    @pytest.mark.parametrize("call", ["ioctl(SIOCAIFADDR)", "ioctl(SIOCAIFADDR_IN6)"])
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ("EADDRNOTAVAIL", "TunTapError"), ("EINVAL", "TunTapError"), ("EPERM", "PrivilegeError"),
            ("EEXIST", "DeviceBusyError"), ("ENXIO", "DeviceGoneError"),
        ],
    )  # fmt: skip
    def test_by_the_system(self, kernel, tun, call, error, kind):
        kernel.refuse(call, error)
        with pytest.raises(kernel.tuntap.TunTapError) as caught:
            tun.add_address("fd00::1/64" if "IN6" in call else "10.0.0.1/24")
        assert type(caught.value).__name__ == kind
        assert caught.value.errno == kernel.errors[error]
        assert call in str(caught.value)
        assert ("takes no such address" in str(caught.value)) == (kind == "TunTapError")
        assert kernel.routes == {}

    def test_one_that_is_there(self, kernel, tun):
        """The system would take it for a change of the netmask."""
        for ip in ("10.1.2.3", "fd00::5"):
            kernel.add("utun3", ip, 24, ip)
            with pytest.raises(kernel.tuntap.DeviceBusyError, match="has this address already") as caught:
                tun.add_address(f"{ip}/16")
            assert caught.value.errno == kernel.errors["EEXIST"]
        assert kernel.told() == []

    def test_one_of_many_that_are_there(self, kernel, tun):
        for i in range(64):
            kernel.add("utun3", f"10.0.0.{i}", 32, f"10.0.0.{i}")
        with pytest.raises(kernel.tuntap.DeviceBusyError):
            tun.add_address("10.0.0.63/32")
        tun.add_address("10.0.0.64/32")
        tun.add_address("10.0.0.65/32")
        assert len(tun.addresses) == 66

    def test_addresses_that_begin_alike_are_two(self, kernel, tun):
        kernel.add("utun3", "10.1.2.3", 32, "10.1.2.3")
        kernel.add("utun3", "fd00::1", 64)
        tun.add_address("10.1.2.4/32")
        tun.add_address("fd00::2/64")
        assert len(tun.addresses) == 4

    def test_a_subnet_that_another_interface_routes(self, kernel, tun):
        """The address goes again, and the route stays."""
        other = kernel.make("utun8").index
        kernel.routes["10.1.2.0", 24] = other
        with pytest.raises(kernel.tuntap.DeviceBusyError, match=r"RTM_ADD.*another interface") as caught:
            tun.add_address("10.1.2.3/24")
        assert caught.value.errno == kernel.errors["EEXIST"]
        assert told(kernel)[-1] == remove4("10.1.2.3")
        assert tun.addresses == []
        assert kernel.routes == {("10.1.2.0", 24): other}

    def test_the_call_is_named(self, kernel, tun):
        """And not one that cleans up."""
        kernel.refuse("route(RTM_ADD)", "EPERM")
        kernel.refuse("ioctl(SIOCDIFADDR)", "EBUSY")
        with pytest.raises(kernel.tuntap.PrivilegeError, match=r"route\(RTM_ADD\)"):
            tun.add_address("10.1.2.3/24")

    def test_a_system_without_ipv6(self, kernel):
        kernel.families.discard(30)
        with kernel.tuntap.Tun("utun3", addresses=["10.0.0.1/24"]) as tun:
            for change in (tun.add_address, tun.remove_address):
                kernel.add("utun3", "fd00::1", 64)
                with pytest.raises(kernel.tuntap.TunTapError):
                    change("fd00::2/64")
            with pytest.raises(kernel.tuntap.UnsupportedError, match="AF_INET6") as caught:
                tun.add_address("fd00::2/64")
            assert caught.value.errno == kernel.errors["EAFNOSUPPORT"]

    @pytest.mark.parametrize("call", ["getifaddrs", "ioctl(SIOCGIFFLAGS)", "socket"])
    def test_a_question_that_fails(self, kernel, tun, call):
        """Of a routing socket it is when the address is there, which goes again."""
        kernel.refuse(call, "EPERM")
        with pytest.raises(kernel.tuntap.PrivilegeError) as caught:
            tun.add_address("10.0.0.1/24")
        assert call.split("(")[-1].strip(")") in str(caught.value)
        assert tun.addresses == []


class TestRemove:
    @pytest.mark.parametrize(
        ("address", "remove", "subnet"),
        [
            ("10.1.2.3/24", remove4("10.1.2.3"), "10.1.2.0/24"),
            ("fd00:1::5/64", remove6("fd00:1::5"), "fd00:1::/64"),
        ],
    )
    def test_it_goes_with_its_route(self, kernel, tun, address, remove, subnet):
        tun.add_address(address)
        kernel.taken()
        tun.remove_address(address)
        assert kernel.told() == [remove, route(kernel, layouts.RTM_DELETE, subnet)]
        assert tun.addresses == []
        assert kernel.routes == {}

    def test_link_local(self, kernel, tun):
        tun.add_address("fe80::7/64")
        kernel.taken()
        tun.remove_address("fe80::7/64")
        assert kernel.told() == [remove6("fe80::7", scope=tun.index)]

    @pytest.mark.parametrize("call", ["ioctl(SIOCDIFADDR)", "ioctl(SIOCDIFADDR_IN6)"])
    def test_it_is_refused(self, kernel, tun, call):
        address = "fd00::1/64" if "IN6" in call else "10.0.0.1/24"
        tun.add_address(address)
        routes = dict(kernel.routes)
        kernel.refuse(call, "EPERM")
        with pytest.raises(kernel.tuntap.PrivilegeError) as caught:
            tun.remove_address(address)
        assert call in str(caught.value)
        assert len(tun.addresses) == 1
        assert kernel.routes == routes

    def test_a_route_that_goes_in_between(self, kernel, tun):
        tun.add_address("10.1.2.3/24")
        kernel.refuse("route(RTM_DELETE)", "ESRCH")
        tun.remove_address("10.1.2.3/24")
        assert tun.addresses == []

    def test_a_route_that_stays(self, kernel, tun):
        tun.add_address("10.1.2.3/24")
        kernel.refuse("route(RTM_DELETE)", "EPERM")
        with pytest.raises(kernel.tuntap.PrivilegeError, match=r"route\(RTM_DELETE\)"):
            tun.remove_address("10.1.2.3/24")

    def test_the_route_of_another_interface_is_left(self, kernel, tun):
        tun.add_address("10.1.2.3/24")
        other = kernel.make("utun8").index
        kernel.routes["10.1.2.0", 24] = other
        kernel.taken()
        tun.remove_address("10.1.2.3/24")
        assert kernel.told() == [remove4("10.1.2.3")]
        assert kernel.routes == {("10.1.2.0", 24): other}

    @pytest.mark.parametrize("does_the_route_go", [False, True])
    def test_another_address_of_the_subnet_keeps_the_route(self, kernel, tun, monkeypatch, does_the_route_go):
        """And gets it back where the system takes it along."""
        tun.add_address("10.1.3.3/24")
        tun.add_address("10.1.2.3/24")
        tun.add_address("10.1.2.4/24")
        del_address = kernel.SIOCDIFADDR

        def remove(descriptor, data):
            del_address(descriptor, data)
            if does_the_route_go:
                del kernel.routes["10.1.2.0", 24]

        monkeypatch.setattr(kernel, "SIOCDIFADDR", remove)
        kernel.taken()
        tun.remove_address("10.1.2.3/24")
        expected = [remove4("10.1.2.3")]
        if does_the_route_go:
            expected.append(added(kernel, "10.1.2.0/24", "10.1.2.4"))
        assert kernel.told() == expected
        assert kernel.routes["10.1.2.0", 24] == tun.index

    def test_the_last_of_many_keeps_the_route(self, kernel, tun):
        tun.add_address("10.1.2.3/24")
        for i in range(63):
            kernel.add("utun3", f"10.0.0.{i}", 32, f"10.0.0.{i}")
        kernel.add("utun3", "10.1.2.4", 24, "10.1.2.4")
        tun.remove_address("10.1.2.3/24")
        assert kernel.routes == {("10.1.2.0", 24): tun.index}

    @pytest.mark.parametrize("other", ["10.1.2.4/25", "10.1.3.4/24", "fd00::1/24"])
    def test_an_address_of_another_subnet_does_not_keep_it(self, kernel, tun, other):
        tun.add_address("10.1.2.3/24")
        tun.add_address(other)
        tun.remove_address("10.1.2.3/24")
        assert ("10.1.2.0", 24) not in kernel.routes

    def test_subnets_that_differ_at_the_end(self, kernel, tun):
        tun.add_address("fd00::11/124")
        tun.add_address("fd00::21/124")
        tun.remove_address("fd00::11/124")
        assert kernel.routes == {("fd00::20", 124): tun.index}

    @pytest.mark.parametrize("call", ["getsockopt", "getifaddrs"])
    @pytest.mark.parametrize("after", [0, 1])
    def test_a_question_that_fails(self, kernel, tun, call, after):
        """What it is called, and which addresses are left."""
        tun.add_address("10.1.2.3/24")
        kernel.refuse(call, "EPERM", after=after)
        with pytest.raises(kernel.tuntap.PrivilegeError, match=call):
            tun.remove_address("10.1.2.3/24")
        assert len(kernel.routes) == 1

    def test_a_pair_is_of_the_subnet_of_its_far_end(self, kernel, tun):
        kernel.add("utun3", "10.1.2.3", 24, "10.9.9.9")
        kernel.routes["10.9.9.0", 24] = tun.index
        tun.remove_address(("10.1.2.3/24", "10.9.9.9"))
        assert kernel.routes == {}


class TestTold:
    """What the system says of addresses."""

    def test_as_the_kernel_keeps_it(self, kernel, tun):
        """The index of the interface lies within a link-local address itself."""
        kernel.add("utun3", f"fe80:{tun.index:x}::7", 64)
        kernel.add("utun3", "fe80:1234::8", 64)
        kernel.add("utun3", "fd00:12::7", 64)
        assert [str(address) for address in tun.addresses] == ["fe80::7/64", "fe80::8/64", "fd00:12::7/64"]

    def test_a_far_end_that_is_itself_is_none(self, kernel, tun):
        kernel.add("utun3", "10.1.2.3", 24, "10.1.2.3")
        kernel.add("utun3", "fd00::7", 64, "fd00::7")
        assert [address.peer for address in tun.addresses] == [None, None]

    def test_one_that_the_system_made_is_left_alone(self, kernel, tun):
        kernel.add("utun3", "fe80::7", 64)
        kernel.add("utun3", "fd00::7", 64)
        tun.set_addresses(["10.0.0.1/32"])
        assert [str(address) for address in tun.addresses] == ["fe80::7/64", "10.0.0.1/32"]

    @pytest.mark.parametrize("prefix", [0, 1, 7, 8, 20, 24, 25, 31, 32])
    def test_a_netmask_that_the_kernel_cut(self, kernel, tun, prefix):
        """Behind its last byte that is not zero: its length says so."""
        kernel.cuts_masks = True
        kernel.add("utun3", "10.1.2.3", prefix, "10.1.2.3")
        assert [str(address) for address in tun.addresses] == [f"10.1.2.3/{prefix}"]

    @pytest.mark.parametrize("prefix", [0, 1, 63, 64, 65, 127, 128])
    def test_netmasks_of_ipv6(self, kernel, tun, prefix):
        kernel.add("utun3", "fd00::7", prefix)
        assert [str(address) for address in tun.addresses] == [f"fd00::7/{prefix}"]

    def test_others_are_not_ours(self, kernel, tun):
        kernel.make("utun8")
        kernel.add("utun8", "10.1.2.3", 24, "10.1.2.255")
        assert tun.addresses == []
        kernel.add("utun3", "10.1.2.4", 24, "10.1.2.4")
        assert [str(address) for address in tun.addresses] == ["10.1.2.4/24"]

    def test_it_cannot_be_told(self, kernel, tun):
        kernel.refuse("getifaddrs", "EPERM")
        with pytest.raises(kernel.tuntap.PrivilegeError, match="getifaddrs"):
            tun.addresses  # noqa: B018 - it raises


class TestBroadcast:
    def test_it_is_changed(self, kernel, tap):
        """By adding the first IPv4 address once more."""
        kernel.add("feth4", "fd00::1", 64)
        for ip in ("10.1.2.3", "10.1.3.3"):
            tap.add_address(f"{ip}/24")
        kernel.taken()
        tap.broadcast = "10.1.2.127"
        assert kernel.told()[0] == add4("10.1.2.3", "10.1.2.127", "255.255.255.0", "feth4")

    def test_the_first_is_the_last_of_many(self, kernel, tap):
        for i in range(63):
            kernel.add("feth4", f"fd00::{i:x}", 64)
        kernel.add("feth4", "10.1.2.3", 24, "10.1.2.255")
        tap.broadcast = "10.1.2.127"
        assert kernel.told()[0] == add4("10.1.2.3", "10.1.2.127", "255.255.255.0", "feth4")

    def test_there_is_no_ipv4_address(self, kernel, tap):
        kernel.add("feth4", "fd00::1", 64)
        with pytest.raises(kernel.tuntap.TunTapError, match="getifaddrs") as caught:
            tap.broadcast = "10.1.2.127"
        assert caught.value.errno == kernel.errors["EADDRNOTAVAIL"]

    @pytest.mark.parametrize(
        ("call", "after"), [("ioctl(SIOCAIFADDR)", 0), ("ioctl(SIOCGIFFLAGS)", 0), ("getifaddrs", 1)]
    )
    def test_it_is_refused(self, kernel, tap, call, after):
        tap.add_address("10.1.2.3/24")
        kernel.refuse(call, "EPERM", after=after)
        with pytest.raises(kernel.tuntap.PrivilegeError):
            tap.broadcast = "10.1.2.127"


def test_messages_of_the_routing_socket_are_aligned(kernel, tun):
    """16 bytes, 28, and a link's 20: each begins at a multiple of 4."""
    tun.add_address("fd00:1::5/64")
    (message,) = [call[1] for call in kernel.told() if call[0] == "route"]
    assert len(message) == kernel.ROUTE.size + 3 * 28 + 20
    assert struct.unpack_from("H", message)[0] == len(message)


class TestRouteAnswers:
    """Whom a subnet is routed to is asked; the answer comes among what others asked and notifications."""

    @pytest.fixture
    def noise(self, kernel, tun, monkeypatch):
        """A function that puts messages in front of each answer."""

        def put(*messages):
            route = kernel.route

            def answered(message):
                for each in messages:
                    kernel.notify(each(message))
                route(message)

            monkeypatch.setattr(kernel, "route", answered)

        return put

    def answer(self, kernel, message, **changes):
        """The answer to a question, about another interface, with some fields changed."""
        fields = kernel.ROUTE.unpack(message) | {"index": 99, "pid": kernel.PID} | changes
        return kernel.ROUTE.pack(**fields)

    @pytest.mark.parametrize("changes", [{"pid": 1}, {"seq": 9999}, {"type": layouts.RTM_ADD}])
    def test_the_answer_of_another(self, kernel, tun, noise, changes):
        tun.add_address("10.1.2.3/24")
        noise(lambda message: self.answer(kernel, message, **changes))
        tun.remove_address("10.1.2.3/24")
        assert kernel.routes == {}

    def test_what_is_too_short(self, kernel, tun, noise):
        tun.add_address("10.1.2.3/24")
        noise(lambda message: self.answer(kernel, message)[:-1], lambda message: b"\x04")
        tun.remove_address("10.1.2.3/24")
        assert kernel.routes == {}

    def test_interrupted_by_a_signal(self, kernel, tun):
        tun.add_address("10.1.2.3/24")
        kernel.refuse("read", "EINTR", times=2)
        tun.remove_address("10.1.2.3/24")
        assert kernel.routes == {}

    def test_an_answer_that_comes_late(self, kernel, tun):
        tun.add_address("10.1.2.3/24")
        kernel.refuse("read", "EAGAIN")
        tun.remove_address("10.1.2.3/24")
        assert kernel.routes == {}
        (waited,) = [call.arguments for call in kernel.taken() if call.name == "poll"]
        assert ([events for _, events in waited[0]], waited[1]) == ([1], 1000)  # POLLIN; milliseconds

    def test_an_answer_that_never_comes(self, kernel, tun, monkeypatch):
        """Then nobody knows, and nothing is deleted."""
        tun.add_address("10.1.2.3/24")
        kernel.refuse("read", "EAGAIN", times=100)
        monkeypatch.setattr(kernel, "poll", lambda entries, count, timeout: 0)
        tun.remove_address("10.1.2.3/24")
        assert kernel.routes == {("10.1.2.0", 24): tun.index}

    def test_an_answer_that_cannot_be_read(self, kernel, tun):
        tun.add_address("10.1.2.3/24")
        kernel.refuse("read", "ENOBUFS", times=100)
        tun.remove_address("10.1.2.3/24")
        assert kernel.routes == {("10.1.2.0", 24): tun.index}

    def test_sockets_are_not_inherited_and_do_not_block(self, kernel, tun):
        kernel.taken()
        tun.add_address("10.1.2.3/24")
        calls = kernel.taken()
        opened = [call.result for call in calls if call.name == "socket"]
        assert len(opened) == 1
        assert [call.arguments for call in calls if call.name == "socket"] == [
            (17, 3, 0)
        ]  # PF_ROUTE, SOCK_RAW
        flags = [call.arguments for call in calls if call.name == "fcntl"]
        assert flags == [(opened[0], 2, 1), (opened[0], 4, 4)]  # F_SETFD FD_CLOEXEC, F_SETFL O_NONBLOCK
