"""Addresses of the BSDs and the routes to their subnets, byte for byte."""

import ipaddress
import struct

import layouts
import pytest
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
