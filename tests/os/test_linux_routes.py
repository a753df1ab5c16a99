"""Routes through an interface, as `ip` sees them and the kernel takes them."""

import errno
import ipaddress
import socket

import pytest

import tuntap
from tuntap import Tap, Tun


@pytest.fixture
def routes(net, ip):
    """What the kernel has: the routes of an interface that somebody has added."""

    def list_routes(device):
        found = set()
        for version in ("-4", "-6"):
            for entry in ip.ask(version, "route", "show", "dev", device.name):
                if entry.get("protocol") == "static":
                    found.add((entry["dst"], entry.get("gateway"), entry.get("metric")))
        return found

    return list_routes


class TestRoutes:
    def test_added_and_removed(self, routes):
        with Tun(addresses=["10.9.0.1/24", "fd09::1/64"]) as tun:
            tun.add_route("10.10.0.0/16")
            tun.add_route(ipaddress.ip_network("10.11.0.0/16"), "10.9.0.2", metric=7)
            tun.add_route("fd10::/64", metric=9)
            tun.add_route("fd11::/64", "fd09::2", metric=9)
            tun.add_route("10.12.0.7/32")
            expected = {
                ("10.10.0.0/16", None, None), ("10.11.0.0/16", "10.9.0.2", 7), ("fd10::/64", None, 9),
                ("fd11::/64", "fd09::2", 9), ("10.12.0.7", None, None),
            }  # fmt: skip
            assert routes(tun) == expected
            tun.remove_route("10.10.0.0/16")
            tun.remove_route("10.11.0.0/16", "10.9.0.2")
            tun.remove_route("fd10::/64")
            tun.remove_route("fd11::/64", "fd09::2")
            tun.remove_route("10.12.0.7/32")
            assert routes(tun) == set()

    @pytest.mark.parametrize(
        ("network", "peer"),
        [("10.10.0.0/16", "10.10.1.1"), ("0.0.0.0/0", "192.0.2.1"), ("::/0", "2001:db8::1")],
    )
    def test_packets_take_it(self, routes, network, peer):
        with Tun(addresses=["10.9.0.1/24", "fd09::1/64"], quiet=True) as tun:
            tun.add_route(network)
            family = socket.AF_INET6 if ":" in peer else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", (peer, 9))
            packet = tun.recv(timeout=5)
            destination = packet[24:40] if family == socket.AF_INET6 else packet[16:20]
            assert ipaddress.ip_address(destination) == ipaddress.ip_address(peer)

    def test_they_go_with_the_interface(self, routes, ip):
        with Tun(addresses=["10.9.0.1/24"]) as tun:
            tun.add_route("10.10.0.0/16")
        assert not [entry for entry in ip.ask("route", "show") if entry["dst"] == "10.10.0.0/16"]

    def test_on_a_tap(self, routes):
        with Tap(addresses=["10.9.0.1/24"]) as tap:
            tap.add_route("10.10.0.0/16", "10.9.0.2")
            assert routes(tap) == {("10.10.0.0/16", "10.9.0.2", None)}

    def test_in_another_namespace(self, routes, other_netns, ip):
        with Tun(netns=other_netns, addresses=["10.9.0.1/24"]) as tun:
            tun.add_route("10.10.0.0/16")
            entries = ip.ask("route", "show", netns=other_netns)
            assert [entry["dev"] for entry in entries if entry["dst"] == "10.10.0.0/16"] == [tun.name]


class TestRefused:
    def test_twice(self, routes):
        with Tun(addresses=["10.9.0.1/24"]) as tun:
            tun.add_route("10.10.0.0/16")
            with pytest.raises(tuntap.DeviceBusyError) as caught:
                tun.add_route("10.10.0.0/16")
            assert caught.value.errno == errno.EEXIST

    def test_one_that_is_not_there(self, routes):
        with Tun(addresses=["10.9.0.1/24"]) as tun:
            tun.add_route("10.10.0.0/16", "10.9.0.2")
            for network, gateway in (
                ("10.11.0.0/16", None),
                ("10.10.0.0/16", "10.9.0.3"),
                ("fd00::/64", None),
            ):
                with pytest.raises(tuntap.TunTapError) as caught:
                    tun.remove_route(network, gateway)
                assert caught.value.errno == errno.ESRCH

    def test_a_gateway_that_is_not_on_the_link(self, routes):
        with Tun(addresses=["10.9.0.1/24"]) as tun, pytest.raises(tuntap.TunTapError, match="subnet"):
            tun.add_route("10.10.0.0/16", "10.99.0.1")

    def test_while_it_is_down(self, routes):
        with Tun(addresses=["10.9.0.1/24"], up=False) as tun, pytest.raises(tuntap.LinkDownError):
            tun.add_route("10.10.0.0/16")

    @pytest.mark.parametrize(
        ("network", "gateway", "error"),
        [
            ("10.10.0.1/16", None, ValueError), ("10.10.0.0/33", None, ValueError), ("x", None, ValueError),
            (b"\x0a\0\0\0", None, TypeError), (7, None, TypeError), (None, None, TypeError),
            ("10.10.0.0/16", "fd00::1", ValueError), ("::/0", "10.0.0.1", ValueError),
            ("10.10.0.0/16", "0.0.0.0", ValueError), ("10.10.0.0/16", "224.0.0.1", ValueError),
            ("10.10.0.0/16", 7, TypeError), ("10.10.0.0/16", "10.9.0.0/24", ValueError),
        ],
    )  # fmt: skip
    def test_arguments(self, routes, network, gateway, error):
        with Tun(addresses=["10.9.0.1/24"]) as tun:
            for call in (tun.add_route, tun.remove_route):
                with pytest.raises(error):
                    call(network, gateway)
            with pytest.raises((ValueError, TypeError)):
                tun.add_route("10.10.0.0/16", metric=-1)
