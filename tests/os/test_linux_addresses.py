"""Addresses, their routes, and what IPv6 does by itself."""

import errno
import ipaddress
import os
import socket
import threading
import time

import pytest

import tuntap
from tuntap import DeviceBusyError, Tap, Tun, TunTapError, UnsupportedError

KINDS = pytest.mark.parametrize("kind", [Tun, Tap])


def shown(device):
    """What the package says, in the witness's words."""
    return [
        f"{a.ip} peer {a.peer}/{a.network.prefixlen}" if a.peer else str(a)
        for a in device.addresses
        if not a.is_link_local
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["10.0.0.1/24"], ["10.0.0.1/24"]),
        (["10.0.0.1/255.255.255.0"], ["10.0.0.1/24"]),
        (["10.0.0.1"], ["10.0.0.1/32"]),
        (["10.0.0.1/32"], ["10.0.0.1/32"]),
        (["10.0.0.0/31"], ["10.0.0.0/31"]),
        (["10.0.0.1/31"], ["10.0.0.1/31"]),
        (["10.0.0.1/8"], ["10.0.0.1/8"]),
        (["fd00::1/64"], ["fd00::1/64"]),
        (["fd00::1"], ["fd00::1/128"]),
        (["fd00::/127"], ["fd00::/127"]),
        (["10.0.0.1/24", "10.0.1.1/24", "fd00::1/64", "fd01::1/48"],
         ["10.0.0.1/24", "10.0.1.1/24", "fd00::1/64", "fd01::1/48"]),
        (["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"], ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"]),
        (["10.0.0.1 peer 10.0.0.2"], ["10.0.0.1 peer 10.0.0.2/32"]),
        (["10.0.0.1 peer 10.0.0.2/32"], ["10.0.0.1 peer 10.0.0.2/32"]),
        ([("10.0.0.1", "10.0.0.2")], ["10.0.0.1 peer 10.0.0.2/32"]),
        ([("10.0.0.1", "10.9.0.2/24")], ["10.0.0.1 peer 10.9.0.2/24"]),
        ([("fd00::1", "fd00::2")], ["fd00::1 peer fd00::2/128"]),
        (["fd00::1 peer fd00::2"], ["fd00::1 peer fd00::2/128"]),
        ([ipaddress.ip_interface("10.0.0.1/24"), ipaddress.ip_interface("fd00::1/64")],
         ["10.0.0.1/24", "fd00::1/64"]),
        ([(ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("10.0.0.2"))],
         ["10.0.0.1 peer 10.0.0.2/32"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Tun, Tap])
def test_addresses_of_a_new_interface(ip, kind, given, expected):
    with kind("x0", addresses=given) as device:
        assert sorted(ip.addresses("x0")) == sorted(expected)
        assert sorted(shown(device)) == sorted(expected)
    with kind("x0") as device:
        for address in given:
            device.add_address(address)
        assert sorted(ip.addresses("x0")) == sorted(expected)
        device.set_addresses([])
        assert ip.addresses("x0") == shown(device) == []
        device.set_addresses(given)
        assert sorted(ip.addresses("x0")) == sorted(expected)
        for address in given:
            device.remove_address(address)
        assert ip.addresses("x0") == []


def test_what_is_listed_can_be_given_back(ip):
    addresses = ["10.0.0.1/24", "10.0.0.2/24", ("10.1.0.1", "10.1.0.2"), "fd00::1/64", ("fd01::1", "fd01::2")]
    with Tun("x0", addresses=addresses) as one, Tun("x1", quiet=True) as other:
        before = ip.addresses("x0")
        one.addresses = one.addresses
        assert ip.addresses("x0") == before
        listed = [address for address in one.addresses if not address.is_link_local]
        other.addresses = listed
        assert sorted(ip.addresses("x1")) == sorted(before)
        for address in listed:
            one.remove_address(address)
        assert ip.addresses("x0") == []
        assert sorted(ip.addresses("x1")) == sorted(before)


def test_peer_is_told(net):
    with Tun(addresses=["10.0.0.1/24", ("10.1.0.1", "10.1.0.2")]) as tun:
        plain, point_to_point = (a for a in tun.addresses if a.version == 4)
        assert plain.peer is None
        assert point_to_point.peer == ipaddress.ip_address("10.1.0.2")
        assert isinstance(plain, ipaddress.IPv4Interface)


def test_address_that_is_there(ip):
    with Tun("x0", addresses=["10.0.0.1/24", "fd00::1/64"]) as tun:
        before = ip.address_entries("x0")
        for address in ("10.0.0.1/24", "fd00::1/64"):
            with pytest.raises(DeviceBusyError, match=r"RTM_NEWADDR.*x0") as caught:
                tun.add_address(address)
            assert caught.value.errno == errno.EEXIST
        assert ip.address_entries("x0") == before


def test_attach_with_addresses_that_are_there(ip, make_persistent):
    make_persistent("p0", up=True)
    for address in ("10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"):
        ip("addr", "add", address, "dev", "p0", "metric", 7)
    ip("addr", "add", "10.1.0.1", "peer", "10.1.0.2", "dev", "p0")
    before = ip.state("p0")
    with Tun("p0", addresses=["10.0.0.2/24", "fd00::1/64", "10.0.0.1/24", ("10.1.0.1", "10.1.0.2")]):
        assert ip.state("p0") == before
    with Tun("p0", addresses=["10.0.0.1/24", "10.3.0.1/24"]):
        assert sorted(ip.addresses("p0")) == sorted(
            ["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64", "10.1.0.1 peer 10.1.0.2/32", "10.3.0.1/24"]
        )


@pytest.mark.parametrize("promote", [0, 1])
def test_removing_the_primary_keeps_the_secondaries(ip, sysctl, promote):
    sysctl("net/ipv4/conf/all/promote_secondaries", promote)
    with Tun(
        "x0", addresses=["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "10.1.0.1/24", "fd00::1/64"]
    ) as tun:
        tun.remove_address("10.0.0.1/24")
        assert sorted(ip.addresses("x0")) == sorted(
            ["10.0.0.2/24", "10.0.0.3/24", "10.1.0.1/24", "fd00::1/64"]
        )
        assert "10.0.0.0/24" in ip.routes("x0")
        tun.remove_address("10.0.0.3")
        assert sorted(ip.addresses("x0")) == sorted(["10.0.0.2/24", "10.1.0.1/24", "fd00::1/64"])


def test_remove_by_the_ip_alone(ip):
    with Tun("x0", addresses=["10.0.0.1/24", "fd00::1/64", ("10.1.0.1", "10.1.0.2")]) as tun:
        tun.remove_address(ipaddress.ip_address("10.0.0.1"))
        tun.remove_address("fd00::1")
        tun.remove_address("10.1.0.1")
        assert ip.addresses("x0") == []


@pytest.mark.parametrize(
    "address",
    ["10.0.0.9", "10.0.0.1/16", "fd00::2/64", ("10.0.0.1", "10.0.0.2"), "10.0.0.1/24 peer 10.0.0.2"],
)
def test_remove_what_is_not_there(ip, address):
    with Tun("x0", addresses=["10.0.0.1/24", "fd00::1/64"]) as tun:
        before = ip.address_entries("x0")
        with pytest.raises(TunTapError, match="x0") as caught:
            tun.remove_address(address)
        assert caught.value.errno == errno.EADDRNOTAVAIL
        assert "addresses" in str(caught.value)
        assert ip.address_entries("x0") == before


def test_remove_does_not_take_an_address_with_another_peer(ip):
    with Tun("x0", addresses=[("10.0.0.1", "10.0.0.2")]) as tun:
        with pytest.raises(TunTapError):
            tun.remove_address("10.0.0.1 peer 10.0.0.3")
        assert ip.addresses("x0") == ["10.0.0.1 peer 10.0.0.2/32"]


def test_remove_an_address_we_would_not_add(ip):
    """Another program gave the interface the address of a network: it can still be taken away."""
    with Tun("x0") as tun:
        ip("addr", "add", "10.0.0.0/24", "dev", "x0")
        (strange,) = (a for a in tun.addresses if a.version == 4)
        assert str(strange) == "10.0.0.0/24"
        tun.remove_address("10.0.0.0")
        assert ip.addresses("x0") == []
        ip("addr", "add", "10.0.0.0/24", "dev", "x0")
        tun.remove_address(strange)
        assert ip.addresses("x0") == []


def test_set_addresses_replaces(ip):
    with Tun("x0", addresses=["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"]) as tun:
        tun.set_addresses(["10.0.0.2/24", "10.5.0.1/16", "fd00::2/64"])
        assert sorted(ip.addresses("x0")) == sorted(["10.0.0.2/24", "10.5.0.1/16", "fd00::2/64"])
        tun.addresses = ["10.5.0.1/24"]
        assert ip.addresses("x0") == ["10.5.0.1/24"]
        tun.addresses = [("10.5.0.1", "10.5.0.2")]
        assert ip.addresses("x0") == ["10.5.0.1 peer 10.5.0.2/32"]
        tun.addresses = (address for address in ["fd00::1/64"])
        assert ip.addresses("x0") == ["fd00::1/64"]
        tun.addresses = ["fd00::1/48"]
        assert ip.addresses("x0") == ["fd00::1/48"]


def test_set_addresses_keeps_the_link_local_address_of_the_kernel(ip):
    with Tun("x0") as tun:

        def link_local():
            return [e["local"] for e in ip.address_entries("x0") if e["local"].startswith("fe80")]

        before = link_local()
        assert before
        tun.set_addresses(["10.0.0.1/24", "fd00::1/64"])
        tun.set_addresses([])
        assert link_local() == before
        tun.set_addresses(["fe80::1/64"])
        assert set(link_local()) == {*before, "fe80::1"}
        tun.set_addresses([])
        assert link_local() == before


REFUSED = "::1/128"  # only the loopback may have it


@pytest.mark.parametrize(
    "wanted",
    [
        [REFUSED],
        ["10.0.0.2/24", REFUSED],
        ["10.9.0.1/24", "fd09::1/64", REFUSED, "10.9.0.2/24"],
        ["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64", REFUSED],
        ["10.0.0.1/16", REFUSED],
        [("10.0.0.1", "10.0.0.9"), REFUSED],
    ],
)
def test_set_addresses_is_all_or_nothing(ip, wanted):
    with Tun("x0", addresses=["10.0.0.1/24", "10.0.0.2/24", ("10.1.0.1", "10.1.0.2"), "fd00::1/64"]) as tun:
        before = ip.address_entries("x0")
        routes = ip.routes("x0")
        with pytest.raises(TunTapError, match=r"RTM_NEWADDR.*x0") as caught:
            tun.set_addresses(wanted)
        assert caught.value.errno == errno.EADDRNOTAVAIL
        # Which address is the primary one matters too: it is the source of what is sent.
        assert ip.address_entries("x0") == before
        assert ip.routes("x0") == routes


def test_set_addresses_that_fails_keeps_what_others_set(ip):
    """Metric, broadcast and the like of another program's address come through a failure."""
    with Tap("x0", quiet=True) as tap:
        ip("addr", "add", "10.0.0.1/24", "broadcast", "10.0.0.127", "metric", 77, "dev", "x0")
        ip("addr", "add", "10.1.0.1/24", "dev", "x0", "noprefixroute")
        before, routes = ip.address_entries("x0"), ip.routes("x0")
        with pytest.raises(TunTapError):
            tap.set_addresses(["10.9.0.1/24", REFUSED])
        assert ip.address_entries("x0") == before
        assert ip.routes("x0") == routes


def test_bad_addresses_change_nothing(ip):
    with Tun("x0", addresses=["10.0.0.1/24"]) as tun:
        before = ip.address_entries("x0")
        for bad in (
            ["10.0.0.2/24", "10.0.0.0/24"],
            ["10.2.0.1/24", "10.2.0.1/24"],
            ["10.2.0.1/24", "::ffff:1.2.3.4"],
        ):
            with pytest.raises(ValueError):
                tun.set_addresses(bad)
            with pytest.raises(ValueError):
                tun.addresses = bad
        for bad in (
            None,
            "10.0.0.2/24",
            b"10.0.0.2/24",
            5,
            [None],
            [b"10.0.0.2/24"],
            [5],
            [1.5],
            [True],
            [object()],
        ):
            with pytest.raises(TypeError):
                tun.set_addresses(bad)
        assert ip.address_entries("x0") == before


def test_many_addresses(ip):
    addresses = [f"10.{i}.0.1/24" for i in range(100)] + [f"fd00:{i:x}::1/64" for i in range(100)]
    with Tun("x0", addresses=addresses) as tun:
        assert sorted(ip.addresses("x0")) == sorted(shown(tun))
        assert len(shown(tun)) == 200
        tun.set_addresses(addresses[50:60])
        assert ip.addresses("x0") == addresses[50:60]


def test_addresses_from_several_threads(ip):
    with Tun("x0") as tun:
        problems = []

        def work(number):
            try:
                for i in range(20):
                    tun.add_address(f"10.{number}.{i}.1/24")
                    tun.addresses  # noqa: B018
                    tun.mtu = 1300 + i
                    if i % 2:
                        tun.remove_address(f"10.{number}.{i}.1/24")
            except Exception as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not problems
        assert sorted(ip.addresses("x0")) == sorted(
            f"10.{n}.{i}.1/24" for n in range(4) for i in range(0, 20, 2)
        )


# --- IPv6 ---


@KINDS
def test_ipv6_is_usable_at_once(ip, kind):
    with kind("x0", addresses=["fd00::1/64"]) as device:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            start = time.monotonic()
            sock.bind(("fd00::1", 0))
            assert time.monotonic() - start < 0.1
        (entry,) = (e for e in ip.address_entries("x0") if e["local"] == "fd00::1")
        assert not entry.get("tentative")
        device.add_address("fd01::1/64")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("fd01::1", 0))
        device.set_addresses(["fd02::1/64"])
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("fd02::1", 0))


def test_quiet_and_not_quiet(ip):
    """Nothing at all for 2 seconds from the quiet ones, while the other one solicits routers."""
    with (
        Tun("x0", quiet=True, addresses=["10.0.0.1/24", "fd00::1/64"]) as tun,
        Tap("x1", quiet=True, addresses=["10.1.0.1/24"]) as tap,
        Tun("x2") as other,
    ):
        assert ip.link("x0")["inet6_addr_gen_mode"] == ip.link("x1")["inet6_addr_gen_mode"] == "none"
        start = time.monotonic()
        for name in ("x0", "x1"):
            assert not [e for e in ip.address_entries(name) if e["scope"] == "link"]
        assert [e for e in ip.address_entries("x2") if e["scope"] == "link"]
        deadline = start + 10
        while True:
            packet = other.recv(timeout=deadline - time.monotonic())
            if packet[0] >> 4 == 6 and packet[6] == 58 and packet[40] == 133:
                break  # ICMPv6 router solicitation
        time.sleep(max(0, start + 2 - time.monotonic()))
        for quiet in (tun, tap):
            with pytest.raises(TimeoutError):
                pytest.fail(f"{quiet.name} sent {quiet.recv(timeout=0).hex()}")
        assert tun.stats.tx_packets == ip.link("x0")["stats64"]["tx"]["packets"] == 0


def test_quiet_below_the_mtu_of_ipv6(ip):
    with Tun("x0", mtu=500, quiet=True) as tun:
        assert tun.mtu == 500
        assert [a for a in ip.address_entries("x0") if a["family"] == "inet6"] == []


@KINDS
@pytest.mark.parametrize("mtu", [68, 1279])
def test_ipv6_needs_an_mtu_of_1280(ip, kind, mtu):
    with pytest.raises(ValueError, match="1280"):
        kind("x0", mtu=mtu, addresses=["10.0.0.1/24", "fd00::1/64"])
    assert ip.names() == []
    with kind("x0", mtu=mtu, addresses=["10.0.0.1/24"]) as device:
        before = ip.state("x0")
        with pytest.raises(ValueError, match="1280"):
            device.add_address("fd00::1/64")
        with pytest.raises(ValueError, match="1280"):
            device.set_addresses(["10.0.0.2/24", "fd00::1/64"])
        assert ip.state("x0") == before
        device.mtu = 1280
        device.add_address("fd00::1/64")
        before = ip.state("x0")
        with pytest.raises(ValueError, match="1280"):
            device.mtu = mtu
        assert ip.state("x0") == before
        device.remove_address("fd00::1/64")
        device.mtu = mtu
        assert ip.link("x0")["mtu"] == mtu


def test_attach_to_a_small_mtu_with_ipv6(ip, make_persistent):
    make_persistent("p0")
    ip("link", "set", "p0", "mtu", 1000)
    before = ip.state("p0")
    with pytest.raises(ValueError, match="1280"):
        Tun("p0", addresses=["10.0.0.1/24", "fd00::1/64"])
    assert ip.state("p0") == before
    with Tun("p0", mtu=1400, addresses=["fd00::1/64"]):
        assert ip.addresses("p0") == ["fd00::1/64"]


def test_attach_does_not_drop_ipv6_addresses(ip, make_persistent):
    make_persistent("p0", up=True)
    ip("addr", "add", "fd00::1/64", "dev", "p0")
    with pytest.raises(ValueError, match="1280"):
        Tun("p0", mtu=1000)
    assert ip.addresses("p0") == ["fd00::1/64"]
    assert ip.link("p0")["mtu"] == 1500


@KINDS
def test_ipv6_switched_off(ip, sysctl, kind):
    with kind("x0", addresses=["10.0.0.1/24"]) as device:
        sysctl("net/ipv6/conf/x0/disable_ipv6", 1)
        before = ip.state("x0")
        with pytest.raises(UnsupportedError, match=r"disable_ipv6.*x0"):
            device.add_address("fd00::1/64")
        with pytest.raises(UnsupportedError):
            device.set_addresses(["10.0.0.2/24", "fd00::1/64"])
        assert ip.state("x0") == before


@KINDS
def test_ipv6_switched_off_for_new_interfaces(ip, sysctl, make_persistent, kind):
    sysctl("net/ipv6/conf/default/disable_ipv6", 1)
    with pytest.raises(UnsupportedError, match=r"RTM_NEWADDR.*disable_ipv6.*x0"):
        kind("x0", addresses=["10.0.0.1/24", "fd00::1/64"])
    assert ip.names() == []
    make_persistent("p0", "tun" if kind is Tun else "tap")
    before = ip.state("p0")
    with pytest.raises(UnsupportedError):
        kind("p0", mtu=1400, tx_queue_len=3, addresses=["10.0.0.1/24", "fd00::1/64"])
    assert ip.state("p0") == before
    with kind("x0", quiet=True, addresses=["10.0.0.1/24"]):
        assert ip.addresses("x0") == ["10.0.0.1/24"]


# --- routes ---


@KINDS
def test_route_comes_along(ip, kind):
    with kind("x0", addresses=["10.0.0.1/24", "fd00::1/64", ("10.1.0.1", "10.1.0.2")]) as device:
        assert set(ip.routes("x0")) == {"10.0.0.0/24", "fd00::/64", "10.1.0.2"}
        device.remove_address("10.0.0.1")
        assert set(ip.routes("x0")) == {"fd00::/64", "10.1.0.2"}


@KINDS
def test_no_route(ip, kind):
    with kind("x0", addresses=["10.0.0.1/24", "fd00::1/64", ("10.1.0.1", "10.1.0.2")], route=False) as device:
        assert sorted(ip.addresses("x0")) == sorted(
            ["10.0.0.1/24", "fd00::1/64", "10.1.0.1 peer 10.1.0.2/32"]
        )
        assert ip.routes("x0") == {}
        device.add_address("10.2.0.1/24")
        device.set_addresses(["10.3.0.1/24", "fd03::1/64"])
        assert ip.routes("x0") == {}
        device.down()
        device.up()
        assert ip.routes("x0") == {}


@KINDS
def test_metric(ip, kind):
    with kind("x0", addresses=["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"], metric=77) as device:
        assert ip.routes("x0") == {"10.0.0.0/24": 77, "fd00::/64": 77}
        device.add_address("10.1.0.1/24")
        assert ip.routes("x0")["10.1.0.0/24"] == 77
        device.remove_address("10.0.0.1/24")
        assert ip.routes("x0")["10.0.0.0/24"] == 77, "the secondary brought back has it too"


def test_metric_of_0_and_the_largest(ip):
    with (
        Tun("x0", addresses=["10.0.0.1/24"], metric=0),
        Tun("x1", addresses=["10.1.0.1/24"], metric=2**32 - 1),
    ):
        assert ip.routes("x0") == {"10.0.0.0/24": 0}
        assert ip.routes("x1") == {"10.1.0.0/24": 2**32 - 1}


def test_two_devices_in_one_subnet_go_by_metric(ip):
    with (
        Tun(addresses=["10.0.0.1/24"], metric=200, quiet=True) as one,
        Tun(addresses=["10.0.0.2/24"], metric=100, quiet=True) as other,
    ):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("10.0.0.9", 9))
        assert other.recv(timeout=2)[16:20] == bytes([10, 0, 0, 9])
        with pytest.raises(TimeoutError):
            one.recv(timeout=0)


def test_errors_name_the_call_and_the_interface(ip):
    with Tun("x0") as tun:
        with pytest.raises(TunTapError) as caught:
            tun.add_address(REFUSED)
        assert caught.value.filename == "x0"
        assert "netlink(RTM_NEWADDR)" in caught.value.strerror
        assert os.strerror(errno.EADDRNOTAVAIL) in caught.value.strerror
        assert caught.value.strerror != f"netlink(RTM_NEWADDR): {os.strerror(errno.EADDRNOTAVAIL)}", (
            "it does not say what to do"
        )
    assert tuntap.interfaces() == []
