"""Addresses of the BSDs and the routes to their subnets, byte for byte."""

import ipaddress
import struct

import layouts
import pytest
from fake_kernel import take
from layouts import ifaliasreq, ifreq, in6_aliasreq, sockaddr_dl, sockaddr_in, sockaddr_in6
from systems import BSDS

NODAD = {"freebsd": 0x20, "openbsd": 0, "netbsd": 0x20}  # netinet6/in6_var.h; OpenBSD has no such flag
BY_INDEX = {"freebsd": 54}  # where a gateway is the link, the bytes of its address (struct sockaddr_dl)


@pytest.fixture(params=BSDS)
def system(request):
    return request.param


@pytest.fixture
def kernel(system, elsewhere):
    with elsewhere(system).running() as kernel:
        yield kernel


@pytest.fixture
def tun(kernel):
    with kernel.tuntap.Tun("tun0") as device:
        kernel.taken()
        yield device


@pytest.fixture
def tap(kernel):
    with kernel.tuntap.Tap("tap0") as device:
        kernel.taken()
        yield device


class Expected:
    """Requests and messages as a system wants them."""

    def __init__(self, system, kernel, name):
        self.system, self.kernel, self.name = system, kernel, name
        self.tail = b"\0\0\0\0" if system == "freebsd" else b""  # ifra_vhid

    def add4(self, ip, other, mask):
        return "SIOCAIFADDR", ifaliasreq(self.name, ip, other, mask, self.tail)

    def add6(self, ip, prefix, peer=None, scope=0):
        family = self.kernel.AF_INET6
        flags = NODAD[self.system]
        # The vhid is an int behind a structure of eight-byte words, and padded to one.
        return "SIOCAIFADDR_IN6", in6_aliasreq(
            self.name, family, ip, peer, prefix, flags, scope, 2 * self.tail
        )

    def remove4(self, ip):
        return "SIOCDIFADDR", ifreq(self.name, sockaddr_in(ip), self.kernel.IFREQ)

    def remove6(self, ip, scope=0):
        sockaddr = sockaddr_in6(ip, self.kernel.AF_INET6, scope)
        return "SIOCDIFADDR_IN6", ifreq(self.name, sockaddr, 288)

    def route(self, kind, subnet, ip):
        """To a subnet through the interface that has an address."""
        network = ipaddress.ip_network(subnet)
        if self.system in BY_INDEX:
            index = self.kernel.interfaces[self.name].index
            gateway = sockaddr_dl(18, index, 0, "", b"", BY_INDEX[self.system])
        else:
            gateway = self.sockaddr(ip)
        addresses = [self.sockaddr(network.network_address), gateway, self.sockaddr(network.netmask)]
        bits = layouts.RTA_DST | layouts.RTA_GATEWAY | layouts.RTA_NETMASK
        flags = layouts.RTF_UP | layouts.RTF_STATIC
        if kind == layouts.RTM_ADD:  # and what packets to the subnet come from
            addresses.append(self.sockaddr(ip))
            bits |= layouts.RTA_IFA
        else:
            flags |= self.kernel.DELETE_FLAGS
        kernel = self.kernel
        return "route", layouts.route_message(
            kernel.ROUTE, kernel.ROUTE_VERSION, 8, addresses, type=kind, flags=flags, addrs=bits
        )

    def sockaddr(self, ip):
        if ipaddress.ip_address(ip).version == 4:
            return sockaddr_in(ip)
        return sockaddr_in6(ip, self.kernel.AF_INET6)


@pytest.fixture
def on_tun(system, kernel, tun):
    return Expected(system, kernel, "tun0")


@pytest.fixture
def on_tap(system, kernel, tap):
    return Expected(system, kernel, "tap0")


def test_ipv4_on_a_tun(kernel, tun, on_tun):
    """A point-to-point link needs a far end, and routes to that alone: the subnet takes a route."""
    tun.add_address("10.1.2.3/24")
    assert kernel.told() == [
        on_tun.add4("10.1.2.3", "10.1.2.255", "255.255.255.0"),
        on_tun.route(layouts.RTM_ADD, "10.1.2.0/24", "10.1.2.3"),
    ]
    assert [str(address) for address in tun.addresses] == ["10.1.2.3/24"]
    assert tun.addresses[0].peer is None
    assert kernel.routes == {("10.1.2.0", 24): tun.index}


def test_the_last_address_of_a_subnet(kernel, tun, on_tun):
    """Its far end cannot be itself: it is the first."""
    tun.add_address("10.1.2.3/31")
    assert kernel.told() == [
        on_tun.add4("10.1.2.3", "10.1.2.2", "255.255.255.254"),
        on_tun.route(layouts.RTM_ADD, "10.1.2.2/31", "10.1.2.3"),
    ]
    assert tun.addresses[0].peer is None


def test_a_prefix_that_ends_within_a_byte(kernel, tun, on_tun):
    tun.add_address("172.16.77.3/20")
    assert kernel.told() == [
        on_tun.add4("172.16.77.3", "172.16.79.255", "255.255.240.0"),
        on_tun.route(layouts.RTM_ADD, "172.16.64.0/20", "172.16.77.3"),
    ]
    assert [str(address) for address in tun.addresses] == ["172.16.77.3/20"]


def test_a_host_has_no_subnet(kernel, tun, on_tun):
    tun.add_address("10.1.2.3/32")
    assert kernel.told() == [on_tun.add4("10.1.2.3", "10.1.2.3", "255.255.255.255")]
    assert [str(address) for address in tun.addresses] == ["10.1.2.3/32"]


def test_a_pair(kernel, tun, on_tun):
    tun.add_address(("10.1.2.3", "10.9.9.9"))
    assert kernel.told() == [on_tun.add4("10.1.2.3", "10.9.9.9", "255.255.255.255")]
    ((address),) = tun.addresses
    assert str(address.peer) == "10.9.9.9"


def test_without_a_route(kernel, on_tun):
    with kernel.tuntap.Tun("tun1", route=False) as tun:
        kernel.taken()
        tun.add_address("10.1.2.3/24")
        assert [call[0] for call in kernel.told()] == ["SIOCAIFADDR"]
        assert kernel.routes == {}


def test_ipv4_is_removed_with_its_route(kernel, tun, on_tun):
    tun.add_address("10.1.2.3/24")
    kernel.taken()
    tun.remove_address("10.1.2.3/24")
    assert kernel.told() == [
        on_tun.remove4("10.1.2.3"),
        on_tun.route(layouts.RTM_DELETE, "10.1.2.0/24", "10.1.2.3"),
    ]
    assert tun.addresses == []
    assert kernel.routes == {}


def test_a_route_that_goes_in_between(kernel, tun):
    tun.add_address("10.1.2.3/24")
    kernel.refuse("route(RTM_DELETE)", "ESRCH")
    tun.remove_address("10.1.2.3/24")
    assert tun.addresses == []


def test_a_route_that_stays(kernel, tun):
    tun.add_address("10.1.2.3/24")
    kernel.refuse("route(RTM_DELETE)", "EPERM")
    with pytest.raises(kernel.tuntap.PrivilegeError, match="RTM_DELETE"):
        tun.remove_address("10.1.2.3/24")


def test_the_route_of_another_interface_is_left(kernel, tun, on_tun):
    tun.add_address("10.1.2.3/24")
    other = kernel.make("tun8").index
    kernel.routes["10.1.2.0", 24] = other
    kernel.taken()
    tun.remove_address("10.1.2.3/24")
    assert kernel.told() == [on_tun.remove4("10.1.2.3")]
    assert kernel.routes == {("10.1.2.0", 24): other}


def test_a_subnet_that_another_interface_routes(kernel, tun, on_tun):
    kernel.routes["10.1.2.0", 24] = kernel.make("tun8").index
    with pytest.raises(kernel.tuntap.DeviceBusyError, match=r"RTM_ADD.*another interface") as caught:
        tun.add_address("10.1.2.3/24")
    assert caught.value.errno == kernel.errors["EEXIST"]
    assert kernel.told()[-1] == on_tun.remove4("10.1.2.3")
    assert tun.addresses == []


def test_ipv4_on_a_tap(kernel, tap, on_tap):
    """A broadcast link: the system routes the subnet by itself."""
    kernel.routes_subnets = True
    tap.add_address("10.1.2.3/24")
    assert kernel.told() == [on_tap.add4("10.1.2.3", "10.1.2.255", "255.255.255.0")]
    ((address),) = tap.addresses
    assert str(address) == "10.1.2.3/24"
    assert str(tap.broadcast) == "10.1.2.255"


def test_ipv6(kernel, tun, on_tun):
    tun.add_address("fd00:1::5/64")
    told = [call for call in kernel.told() if call[0] != "SIOCSIFINFO_FLAGS"]
    assert told == [
        on_tun.add6("fd00:1::5", 64),
        on_tun.route(layouts.RTM_ADD, "fd00:1::/64", "fd00:1::5"),
    ]
    assert [str(address) for address in tun.addresses] == ["fd00:1::5/64"]


def test_an_ipv6_prefix_that_ends_within_a_byte(kernel, tun, on_tun):
    tun.add_address("fd00:1:2:3f00::5/60")
    told = [call for call in kernel.told() if call[0] != "SIOCSIFINFO_FLAGS"]
    assert told == [
        on_tun.add6("fd00:1:2:3f00::5", 60),
        on_tun.route(layouts.RTM_ADD, "fd00:1:2:3f00::/60", "fd00:1:2:3f00::5"),
    ]


def test_an_ipv6_pair(kernel, tun, on_tun):
    tun.add_address(("fd00::1", "fd00::2"))
    told = [call for call in kernel.told() if call[0] != "SIOCSIFINFO_FLAGS"]
    assert told == [on_tun.add6("fd00::1", 128, "fd00::2")]
    ((address),) = tun.addresses
    assert str(address.peer) == "fd00::2"


def test_a_link_local_address_says_of_which_link(kernel, tun, on_tun):
    tun.add_address("fe80::7/64")
    told = [call for call in kernel.told() if call[0] != "SIOCSIFINFO_FLAGS"]
    assert told == [on_tun.add6("fe80::7", 64, scope=tun.index)]
    assert [str(address) for address in tun.addresses] == ["fe80::7/64"]


def test_a_link_local_address_as_the_kernel_keeps_it(kernel, tun):
    """The index of the interface lies within the address itself."""
    index = tun.index
    kernel.add("tun0", f"fe80:{index:x}::7", 64)
    assert [str(address) for address in tun.addresses] == ["fe80::7/64"]


def test_ipv6_is_removed(kernel, tun, on_tun):
    tun.add_address("fd00:1::5/64")
    kernel.taken()
    tun.remove_address("fd00:1::5/64")
    assert kernel.told() == [
        on_tun.remove6("fd00:1::5"),
        on_tun.route(layouts.RTM_DELETE, "fd00:1::/64", "fd00:1::5"),
    ]
    assert tun.addresses == []


def test_link_local_is_removed(kernel, tun, on_tun):
    tun.add_address("fe80::7/64")
    kernel.taken()
    tun.remove_address("fe80::7/64")
    assert kernel.told() == [on_tun.remove6("fe80::7", scope=tun.index)]


@pytest.mark.parametrize("call", ["ioctl(SIOCAIFADDR)", "ioctl(SIOCAIFADDR_IN6)"])
def test_an_address_that_is_refused(kernel, tun, call):
    kernel.refuse(call, "EADDRNOTAVAIL")
    with pytest.raises(kernel.tuntap.TunTapError, match="SIOCAIFADDR") as caught:
        tun.add_address("fd00::1/64" if "IN6" in call else "10.0.0.1/24")
    assert caught.value.errno == kernel.errors["EADDRNOTAVAIL"]
    assert kernel.routes == {}


def test_one_that_is_there(kernel, tun):
    """The system would take it for a change of the netmask."""
    tun.add_address("10.1.2.3/24")
    kernel.taken()
    with pytest.raises(kernel.tuntap.DeviceBusyError):
        tun.add_address("10.1.2.3/16")
    assert kernel.told() == []


def test_no_rights(kernel, tun):
    kernel.refuse("ioctl(SIOCAIFADDR)", "EPERM")
    with pytest.raises(kernel.tuntap.PrivilegeError):
        tun.add_address("10.1.2.3/24")


def test_an_address_does_not_switch_an_interface_on(kernel):
    """The drivers do when they get one."""
    with kernel.tuntap.Tun("tun0", up=False) as tun:
        kernel.address_brings_up = True
        tun.add_address("10.1.2.3/24")
        assert not tun.is_up


def test_a_system_without_ipv6(kernel):
    kernel.families.discard(kernel.AF_INET6)
    with kernel.tuntap.Tun("tun0", addresses=["10.0.0.1/24"]) as tun:
        with pytest.raises(kernel.tuntap.UnsupportedError) as caught:
            tun.add_address("fd00::1/64")
        assert caught.value.errno == kernel.errors["EAFNOSUPPORT"]


def test_a_netmask_that_the_kernel_cut(kernel, tun):
    """Behind its last byte that is not zero: its length says so."""
    kernel.add("tun0", "10.1.2.3", 20, "10.1.15.255")
    kernel.cuts_masks = True
    assert [str(address) for address in tun.addresses] == ["10.1.2.3/20"]


def test_addresses_of_other_interfaces_are_not_ours(kernel, tun):
    kernel.make("tun8")
    kernel.add("tun8", "10.1.2.3", 24, "10.1.2.255")
    assert tun.addresses == []


def test_every_address_goes_with_an_undo(kernel, on_tun):
    """The second is refused: the first goes, and so does its route."""
    kernel.make("tun5")
    kernel.refuse("ioctl(SIOCAIFADDR)", "EINVAL", after=1)
    with pytest.raises(kernel.tuntap.TunTapError):
        kernel.tuntap.Tun("tun5", addresses=["10.0.0.1/24", "10.0.1.1/24"])
    assert kernel.interfaces["tun5"].addresses == []
    assert kernel.routes == {}


def test_messages_of_the_routing_socket_are_aligned(kernel, tun):
    """16 bytes, 28 padded to 32, and a link's: each begins at a multiple of 8."""
    tun.add_address("fd00:1::5/64")
    (message,) = [call[1] for call in kernel.told() if call[0] == "route"]
    assert len(message) % 8 == 0
    assert struct.unpack_from("H", message)[0] == len(message)


@pytest.mark.parametrize(
    ("address", "mask"), [("10.1.2.3/31", "255.255.255.254"), ("10.1.2.3/32", "255.255.255.255")]
)
def test_a_subnet_without_room_for_a_broadcast_address(kernel, tap, on_tap, address, mask):
    tap.add_address(address)
    assert kernel.told()[0] == on_tap.add4("10.1.2.3", None, mask)
    assert tap.broadcast is None


def test_the_smallest_subnet_with_a_broadcast_address(kernel, tap, on_tap):
    tap.add_address("10.1.2.1/30")
    assert kernel.told()[0] == on_tap.add4("10.1.2.1", "10.1.2.3", "255.255.255.252")


def test_a_broadcast_address(kernel, tap, on_tap):
    """FreeBSD has no request for it: the first IPv4 address is added once more."""
    kernel.add("tap0", "fd00::1", 64)
    kernel.add("tap0", "10.1.2.3", 24, "10.1.2.255")
    tap.broadcast = "10.1.2.0"
    assert kernel.told() == [on_tap.add4("10.1.2.3", "10.1.2.0", "255.255.255.0")]


def test_a_broadcast_address_where_there_was_none(kernel, tap, on_tap):
    kernel.add("tap0", "10.1.2.3", 24)
    tap.broadcast = "10.1.2.255"
    assert kernel.told() == [on_tap.add4("10.1.2.3", "10.1.2.255", "255.255.255.0")]


def test_a_broadcast_address_of_no_address(kernel, tap):
    with pytest.raises(kernel.tuntap.TunTapError, match="getifaddrs") as caught:
        tap.broadcast = "10.1.2.0"
    assert caught.value.errno == kernel.errors["EADDRNOTAVAIL"]
    kernel.refuse("getifaddrs", "ENOMEM", after=1)
    with pytest.raises(kernel.tuntap.TunTapError, match="getifaddrs") as caught:
        tap.broadcast = "10.1.2.0"
    assert caught.value.errno == kernel.errors["ENOMEM"]


def test_a_broadcast_address_means_nothing_on_a_tun(kernel, tun, on_tun):
    """The field is the far end there."""
    tun.add_address("10.1.2.3/24")
    kernel.taken()
    tun.broadcast = "10.1.2.0"
    assert kernel.told() == [on_tun.add4("10.1.2.3", "10.1.2.255", "255.255.255.0")]


def test_a_netmask_and_what_is_behind_it(kernel, tun):
    kernel.add("tun0", "10.1.2.3", 32, "10.1.2.3")
    kernel.fills_masks = True
    assert [str(address) for address in tun.addresses] == ["10.1.2.3/32"]


@pytest.mark.parametrize(("ip", "width"), [("10.1.2.3", 32), ("fd00::1", 128)])
@pytest.mark.parametrize("mask", [b"", bytes(16)])
def test_no_netmask_is_a_whole_one(kernel, tun, ip, width, mask):
    kernel.add("tun0", ip, 8)
    whole = kernel.sockaddrs
    kernel.sockaddrs = lambda *arguments: (whole(*arguments)[0], mask, b"")
    try:
        assert [str(address) for address in tun.addresses] == [f"{ip}/{width}"]
    finally:
        del kernel.sockaddrs


@pytest.mark.parametrize("address", ["fe81::7/64", "febf:0:0:1::7/64"])
def test_the_whole_range_of_link_local_addresses(kernel, tun, on_tun, address):
    tun.add_address(address)
    told = [call for call in kernel.told() if call[0] != "SIOCSIFINFO_FLAGS"]
    assert told == [on_tun.add6(address.split("/")[0], 64, scope=tun.index)]


@pytest.mark.parametrize("address", ["fec0::7/64", "fc80::7/64", "fe40::7/64"])
def test_what_is_beside_that_range(kernel, tun, address):
    tun.add_address(address)
    assert "route" in [call[0] for call in kernel.told()]


def test_the_index_is_taken_out_of_both_bytes(kernel, tun):
    kernel.interfaces["tun0"].index = 0x1234
    kernel.add("tun0", "fe80:1234::7", 64)
    assert [str(address) for address in tun.addresses] == ["fe80::7/64"]
    kernel.interfaces["tun0"].addresses[0].ip = "fe90:1234::7"
    assert [str(address) for address in tun.addresses] == ["fe90::7/64"]


def test_what_the_system_added_stays(kernel, tun):
    """The link-local address of IPv6."""
    kernel.add("tun0", f"fe80:{tun.index:x}::7", 64)
    kernel.add("tun0", "fd00::1", 64)
    tun.set_addresses(["10.0.0.1/24"])
    assert sorted(str(address) for address in tun.addresses) == ["10.0.0.1/24", "fe80::7/64"]


def test_peers_that_differ_in_one_byte_alone(kernel, tun):
    pairs = [
        ("10.1.2.3", "10.1.2.4"), ("10.2.2.3", "11.2.2.3"), ("fd00::1", "fd00::2"), ("fd00::3", "fc00::3"),
    ]  # fmt: skip
    for pair in pairs:
        tun.add_address(pair)
    assert [(str(address.ip), str(address.peer)) for address in tun.addresses] == pairs


def test_one_that_is_there_differs_in_the_last_byte(kernel, tun):
    tun.add_address("10.1.2.3/32")
    tun.add_address("10.1.2.4/32")
    tun.add_address("fd00::1/128")
    tun.add_address("fd00::2/128")
    assert len(tun.addresses) == 4
    with pytest.raises(kernel.tuntap.DeviceBusyError) as caught:
        tun.add_address("fd00::2/64")
    assert caught.value.errno == kernel.errors["EEXIST"]


def test_many_addresses(kernel, tun):
    """More than there is room for when they are compared."""
    for i in range(100):
        kernel.add("tun0", f"10.0.0.{i + 1}", 32, "10.9.9.9")
    assert len(tun.addresses) == 100
    tun.add_address("10.1.0.1/32")
    tun.remove_address("10.1.0.1/32")
    with pytest.raises(kernel.tuntap.DeviceBusyError):
        tun.add_address("10.0.0.64/32")


def test_a_list_that_is_refused(kernel, tun):
    kernel.refuse("getifaddrs", "ENOMEM")
    with pytest.raises(kernel.tuntap.TunTapError, match="getifaddrs") as caught:
        tun.add_address("10.0.0.1/24")
    assert caught.value.errno == kernel.errors["ENOMEM"]
    assert kernel.told() == []


@pytest.mark.parametrize(
    ("address", "request_"), [("10.0.0.1/24", "SIOCDIFADDR"), ("fd00::1/64", "SIOCDIFADDR_IN6")]
)
def test_a_removal_that_is_refused(kernel, tun, address, request_):
    tun.add_address(address)
    kernel.refuse(f"ioctl({request_})", "EPERM")
    with pytest.raises(kernel.tuntap.PrivilegeError) as caught:
        tun.remove_address(address)
    assert str(caught.value).startswith(f"[Errno 1] ioctl({request_}):")
    assert len(kernel.routes) == 1


def test_the_route_if_nobody_knows_what_is_left(kernel, tun):
    tun.add_address("10.1.2.3/24")
    kernel.refuse("getifaddrs", "EPERM", after=1)
    with pytest.raises(kernel.tuntap.PrivilegeError, match="getifaddrs"):
        tun.remove_address("10.1.2.3/24")
    assert len(kernel.routes) == 1


def test_the_route_of_one_that_is_left(kernel, tun, on_tun):
    """Two of one subnet: the route comes back by the other where the system takes it along."""
    tun.add_address("10.1.2.3/24")
    kernel.add("tun0", "10.1.2.9", 24, "10.1.2.255")
    remove = kernel.SIOCDIFADDR

    def with_route(descriptor, data):
        kernel.routes.clear()
        return remove(descriptor, data)

    kernel.SIOCDIFADDR = with_route
    kernel.taken()
    try:
        tun.remove_address("10.1.2.3/24")
    finally:
        del kernel.SIOCDIFADDR
    assert kernel.told()[1:] == [on_tun.route(layouts.RTM_ADD, "10.1.2.0/24", "10.1.2.9")]


@pytest.mark.parametrize("left", [("10.1.3.9", 24), ("10.1.2.9", 25), ("fd00::1", 24)])
def test_the_route_of_none_that_is_left(kernel, tun, on_tun, left):
    tun.add_address("10.1.2.3/24")
    kernel.add("tun0", *left)
    kernel.taken()
    tun.remove_address("10.1.2.3/24")
    assert kernel.told()[1:] == [on_tun.route(layouts.RTM_DELETE, "10.1.2.0/24", "10.1.2.3")]


def test_the_route_to_the_subnet_of_a_peer(kernel, tun, on_tun):
    tun.add_address(("10.1.2.3", "10.9.9.9/24"))
    assert kernel.told()[1:] == [on_tun.route(layouts.RTM_ADD, "10.9.9.0/24", "10.1.2.3")]


@pytest.mark.parametrize("prefix", [31, 30, 1])
def test_routes_of_short_and_long_prefixes(kernel, tun, prefix):
    tun.add_address(f"10.1.2.2/{prefix}")
    network = ipaddress.ip_network(f"10.1.2.2/{prefix}", strict=False)
    assert kernel.routes == {(str(network.network_address), prefix): tun.index}


@pytest.mark.parametrize("prefix", [127, 128])
def test_routes_of_long_ipv6_prefixes(kernel, tun, prefix):
    tun.add_address(f"fd00::2/{prefix}")
    assert len(kernel.routes) == (prefix < 128)


@pytest.mark.parametrize("error", ["ENOMEM", "EMFILE"])
def test_no_routing_socket(kernel, tun, on_tun, error):
    kernel.refuse("socket", error)
    with pytest.raises(kernel.tuntap.TunTapError, match=r"socket\(PF_ROUTE\)") as caught:
        tun.add_address("10.1.2.3/24")
    assert caught.value.errno == kernel.errors[error]
    assert kernel.told()[-1] == on_tun.remove4("10.1.2.3")


class TestTheAnswerToAQuestion:
    """Who has the route, among messages of others."""

    @pytest.fixture
    def question(self, kernel, tun):
        """(what answers RTM_GET, what the message was): the fake's own answer is held back."""
        tun.add_address("10.1.2.3/24")
        kernel.taken()
        asked = []
        route = kernel.route

        def held(message):
            if message[3] == layouts.RTM_GET:
                asked.append(message)
                self.answer(message)
            else:
                route(message)

        kernel.route = held
        yield asked
        del kernel.route

    def told(self, kernel, message, **changes):
        header = kernel.ROUTE.unpack(message)
        answer = header | {"pid": kernel.PID, "index": kernel.interfaces["tun0"].index} | changes
        kernel.notify(kernel.ROUTE.pack(**answer) + message[kernel.ROUTE.size :])

    @pytest.mark.parametrize(
        "changes", [{"pid": 4710}, {"seq": 9999}, {"type": layouts.RTM_ADD}, {"pid": 4712}, {"type": 5}]
    )
    def test_messages_of_others(self, kernel, tun, question, changes):
        """An answer to somebody else says that another has it; ours comes behind it."""

        def answer(message):
            self.told(kernel, message, index=99, **changes)
            self.told(kernel, message)

        self.answer = answer
        tun.remove_address("10.1.2.3/24")
        assert kernel.routes == {}

    def test_a_message_that_was_cut(self, kernel, tun, question):
        def answer(message):
            header = kernel.ROUTE.unpack(message) | {"pid": kernel.PID, "index": 99}
            kernel.notify(kernel.ROUTE.pack(**header)[:-1])
            self.told(kernel, message)

        self.answer = answer
        tun.remove_address("10.1.2.3/24")
        assert kernel.routes == {}

    def test_one_that_comes_late(self, kernel, tun, question):
        """FreeBSD answers from another thread: the socket is waited for, a second at most."""
        poll = kernel.poll
        waits = []

        def late(entries, count, timeout):
            waits.append((struct.unpack("ihh", take(entries, 8)), count, timeout))
            self.told(kernel, question[0])
            return poll(entries, count, timeout)

        self.answer = lambda message: None
        kernel.poll = late
        try:
            tun.remove_address("10.1.2.3/24")
        finally:
            del kernel.poll
        assert kernel.routes == {}
        # POLLIN, nothing found yet; one descriptor, a second
        assert {(*entry[1:], count, timeout) for entry, count, timeout in waits} == {(0x1, 0, 1, 1000)}

    def test_none_at_all(self, kernel, tun, question):
        """The route is left to whoever has it."""
        self.answer = lambda message: None
        poll = kernel.poll
        kernel.poll = lambda entries, count, timeout: 0
        try:
            tun.remove_address("10.1.2.3/24")
        finally:
            kernel.poll = poll
        assert len(kernel.routes) == 1

    @pytest.mark.parametrize(("error", "routes"), [("EINTR", 0), ("ENOBUFS", 1)])
    def test_a_read_that_fails(self, kernel, tun, question, error, routes):
        kernel.refuse("read", error)
        self.answer = lambda message: self.told(kernel, message)
        tun.remove_address("10.1.2.3/24")
        assert len(kernel.routes) == routes

    def test_what_is_asked(self, kernel, tun, question):
        """The subnet, and room for the link."""
        self.answer = lambda message: self.told(kernel, message)
        tun.remove_address("10.1.2.3/24")
        size = kernel.LINK_SIZE  # of a struct sockaddr_dl
        addresses = [
            sockaddr_in("10.1.2.0"), sockaddr_in("255.255.255.0"), sockaddr_dl(18, 0, 0, "", b"", size),
        ]  # fmt: skip
        expected = layouts.route_message(
            kernel.ROUTE, kernel.ROUTE_VERSION, 8, addresses, type=layouts.RTM_GET,
            flags=layouts.RTF_UP | layouts.RTF_STATIC,
            addrs=layouts.RTA_DST | layouts.RTA_NETMASK | layouts.RTA_IFP,
        )  # fmt: skip
        assert kernel.unnumbered(question[0]) == expected
