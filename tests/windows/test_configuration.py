"""What is asked of IP Helper, in which order, and what is made of its answers."""

import contextlib
import errno
import ipaddress
import threading
import time
import uuid
import winreg

import fake_wintun
import pytest
from fake_wintun import LIBRARY as WINTUN

import tuntap
from tuntap import Tun

ACCESS_DENIED, NOT_SUPPORTED, DUP_NAME, INVALID_PARAMETER, OBJECT_ALREADY_EXISTS = 5, 50, 52, 87, 5010
TENTATIVE, DUPLICATE, PREFERRED = 1, 2, 4  # NL_DAD_STATE


def open_tun(name="tun0", **settings):
    return Tun(name, wintun=WINTUN, **settings)


@pytest.fixture
def tun(stack, ip):
    with open_tun() as tun:
        ip.calls()
        yield tun


@pytest.fixture
def existing(stack, ip):
    """Of another program, whose addresses are looked for on the link as Windows does by default."""
    owner = fake_wintun.wintun()
    adapter = owner.WintunCreateAdapter("tun0", "Another", uuid.uuid4().bytes_le)
    yield "tun0"
    owner.WintunCloseAdapter(adapter)


@contextlib.contextmanager
def takes(least, most):
    start = time.monotonic()
    yield
    assert least <= time.monotonic() - start < most


class TestNewInterface:
    def test_gets_what_it_has_on_other_systems(self, stack, ip):
        with open_tun() as tun:
            assert ip.calls() == [
                "GetIpInterfaceEntry 4 0",
                "SetIpInterfaceEntry 4 mtu=1500 metric=5 automatic=1 dad=0 0",
                "GetIpInterfaceEntry 6 0",
                "SetIpInterfaceEntry 6 mtu=1500 metric=5 automatic=1 dad=0 0",
            ]
            assert (tun.mtu, tun.mtu_v6, tun.metric) == (1500, 1500, None)

    def test_one_that_was_there_is_left_alone(self, stack, ip, existing):
        with open_tun(existing) as tun:
            assert not [call for call in ip.calls() if "Set" in call]
            assert ip.rows(tun.luid) == ((65535, None, 3), (65535, None, 3))

    @pytest.mark.parametrize(("delay4", "delay6"), [(1, 0), (0, 1), (5, 3), (60, 10)])
    def test_rows_come_late(self, stack, ip, delay4, delay6):
        ip.options(delay4=delay4, delay6=delay6)
        with open_tun() as tun:
            calls = ip.calls()
            assert calls.count("GetIpInterfaceEntry 4 1168") == delay4
            assert calls.count("GetIpInterfaceEntry 6 1168") == delay6
            assert ip.rows(tun.luid) == ((1500, None, 0), (1500, None, 0))

    def test_without_ipv6(self, stack, ip):
        ip.options(ipv6=False)
        with takes(0.5, 4), open_tun(addresses=["10.0.0.1/24"], mtu=1400, metric=7, dns=["9.9.9.9"]) as tun:
            assert [str(address) for address in tun.addresses] == ["10.0.0.1/24"]
            assert (tun.mtu, tun.metric, tun.dns) == (1400, 7, [ipaddress.ip_address("9.9.9.9")])
            tun.mtu = 1300
            tun.mtu = 600
            tun.metric = None
            assert (tun.mtu, tun.metric) == (600, None)
            assert not [call for call in ip.calls() if call.startswith("SetIpInterfaceEntry 6")]
            for use in (lambda: tun.mtu_v6, lambda: setattr(tun, "mtu_v6", 1400)):
                with pytest.raises(tuntap.UnsupportedError, match="switched off") as caught:
                    use()
                assert caught.value.winerror == NOT_SUPPORTED

    def test_without_ipv6_an_address_of_it_is_refused_with_the_reason(self, stack, ip):
        ip.options(ipv6=False)
        with pytest.raises(tuntap.UnsupportedError, match="IPv6 switched off") as caught:
            open_tun(addresses=["10.0.0.1/24", "fd00::1/64"])
        assert caught.value.winerror == NOT_SUPPORTED
        assert not [call for call in ip.calls() if "fd00" in call]
        assert stack.counts().adapters == 0

    def test_without_ipv4(self, stack, ip):
        ip.options(ipv4=False)
        with open_tun(addresses=["fd00::1/64"], mtu=1400) as tun:
            assert (tun.mtu, tun.mtu_v6, tun.metric) == (1400, 1400, None)
            tun.metric = 3
            assert (tun.metric, ip.rows(tun.luid)[1]) == (3, (1400, 3, 0))

    def test_rows_never_come(self, stack, ip):
        ip.options(ipv4=False, ipv6=False)
        with takes(4, 12), pytest.raises(tuntap.DeviceGoneError, match="GetIpInterfaceEntry"):
            open_tun()
        assert stack.counts().adapters == 0

    def test_the_row_of_ipv6_comes_when_nobody_waits_any_more(self, stack, ip):
        ip.options(delay6=120)
        with open_tun() as tun:
            assert "SetIpInterfaceEntry 6 mtu=1500 metric=5 automatic=1 dad=0 0" not in ip.calls()
            tun.add_address("fd00::1/64")
            assert [str(address) for address in tun.addresses] == ["fd00::1/64"]

    @pytest.mark.parametrize(
        ("function", "code", "kind"),
        [
            ("GetIpInterfaceEntry", ACCESS_DENIED, tuntap.PrivilegeError),
            ("SetIpInterfaceEntry", ACCESS_DENIED, tuntap.PrivilegeError),
            ("SetIpInterfaceEntry", INVALID_PARAMETER, tuntap.TunTapError),
        ],
    )
    def test_a_refusal_leaves_nothing(self, stack, ip, function, code, kind):
        ip.fail(function, code)
        with pytest.raises(kind, match=function) as caught:
            open_tun()
        assert (type(caught.value), caught.value.winerror) == (kind, code)
        assert stack.counts().adapters == 0


class TestSettings:
    def test_mtu_is_of_both_families(self, ip, tun):
        tun.mtu = 1400
        assert ip.calls()[-4:] == [
            "GetIpInterfaceEntry 4 0",
            "SetIpInterfaceEntry 4 mtu=1400 metric=5 automatic=1 dad=0 0",
            "GetIpInterfaceEntry 6 0",
            "SetIpInterfaceEntry 6 mtu=1400 metric=5 automatic=1 dad=0 0",
        ]
        assert (tun.mtu, tun.mtu_v6) == (1400, 1400)

    def test_an_mtu_that_is_too_small_for_ipv6(self, ip, tun):
        tun.mtu = 1279
        assert not [call for call in ip.calls() if call.startswith("SetIpInterfaceEntry 6")]
        assert (tun.mtu, tun.mtu_v6) == (1279, 1500)
        with pytest.raises(ValueError):
            tun.add_address("fd00::1/64")
        with pytest.raises(ValueError):
            tun.mtu_v6 = 1279
        tun.mtu_v6 = 1280
        assert (tun.mtu, tun.mtu_v6) == (1279, 1280)

    def test_metric(self, ip, tun):
        tun.metric = 7
        assert [call for call in ip.calls() if "Set" in call] == [
            "SetIpInterfaceEntry 4 mtu=1500 metric=7 automatic=0 dad=0 0",
            "SetIpInterfaceEntry 6 mtu=1500 metric=7 automatic=0 dad=0 0",
        ]
        assert tun.metric == 7
        tun.metric = 0
        assert tun.metric == 0
        tun.metric = None
        assert tun.metric is None
        assert ip.rows(tun.luid) == ((1500, None, 0), (1500, None, 0))

    def test_a_refusal_names_the_call(self, ip, tun):
        ip.fail("SetIpInterfaceEntry", ACCESS_DENIED)
        with pytest.raises(tuntap.PrivilegeError, match=r"SetIpInterfaceEntry.*administrator"):
            tun.mtu = 1400
        assert ip.rows(tun.luid) == ((1500, None, 0), (1500, None, 0))

    def test_the_link_is_up_during_a_session(self, ip, tun):
        assert (tun.is_up, tun.is_running, tun.carrier) == (True, True, True)
        tun.down()
        assert (tun.is_up, tun.is_running, tun.carrier) == (False, False, False)
        with pytest.raises(tuntap.UnsupportedError):
            tun.carrier = True

    def test_counters(self, tun):
        stats = tun.stats
        assert (stats.rx_packets, stats.rx_bytes, stats.rx_errors, stats.rx_dropped) == (11, 300, 5, 7)
        assert (stats.tx_packets, stats.tx_bytes, stats.tx_errors, stats.tx_dropped) == (22, 400, 6, 8)

    def test_what_has_gone(self, stack, ip, tun):
        assert tun.index > 0
        stack.terminate("tun0")
        for use in (
            lambda: tun.index, lambda: tun.name, lambda: tun.mtu, lambda: tun.mtu_v6, lambda: tun.metric,
            lambda: tun.is_running, lambda: tun.stats, lambda: tun.dns,
            lambda: setattr(tun, "mtu", 1400), lambda: setattr(tun, "mtu_v6", 1400),
            lambda: setattr(tun, "metric", 1), lambda: setattr(tun, "dns", ["9.9.9.9"]),
            lambda: setattr(tun, "name", "tun1"),
        ):  # fmt: skip
            with pytest.raises(tuntap.DeviceGoneError):
                use()
        assert tun.addresses == []
        with takes(4, 8), pytest.raises(tuntap.DeviceGoneError):
            tun.add_address("10.0.0.1/24")

    @pytest.mark.parametrize("setting", ["mtu", "mtu_v6", "metric"])
    def test_what_goes_loses_its_rows_first(self, ip, tun, setting):
        ip.fail("GetIpInterfaceEntry", 1168, 2)
        with pytest.raises(tuntap.DeviceGoneError):
            getattr(tun, setting)
        ip.fail("GetIpInterfaceEntry", 1168, 2)
        with pytest.raises(tuntap.DeviceGoneError):
            setattr(tun, setting, 1400)


class TestAddresses:
    def test_those_of_a_new_interface_wait_for_its_link(self, stack, ip):
        with takes(0, 2), open_tun(addresses=["10.0.0.1/24", "fd00::1/64"]) as tun:
            calls = [call for call in ip.calls() if "Unicast" in call]
            assert calls == [
                f"CreateUnicastIpAddressEntry 10.0.0.1/24 dad={PREFERRED} 0",
                f"CreateUnicastIpAddressEntry fd00::1/64 dad={PREFERRED} 0",
                f"GetUnicastIpAddressEntry 10.0.0.1 dad={PREFERRED} 0",
                f"GetUnicastIpAddressEntry fd00::1 dad={PREFERRED} 0",
            ]
            assert [str(address) for address in tun.addresses] == ["10.0.0.1/24", "fd00::1/64"]

    @pytest.mark.parametrize("address", ["10.0.0.1/24", "fd00::1/64"])
    def test_one_is_usable_when_the_call_returns(self, stack, ip, existing, address):
        ip.options(dad=4)
        with open_tun(existing) as tun:
            ip.calls()
            tun.add_address(address)
            states = [call.split()[2] for call in ip.calls() if call.startswith("GetUnicastIpAddressEntry")]
            assert states == [f"dad={TENTATIVE}"] * 3 + [f"dad={PREFERRED}"]

    def test_one_that_never_gets_usable(self, stack, ip, existing):
        ip.options(dad=1 << 20)
        with open_tun(existing) as tun:
            with takes(2, 8):
                tun.add_address("10.0.0.1/24")
            assert [str(address) for address in tun.addresses] == ["10.0.0.1/24"]

    def test_one_that_another_host_has(self, stack, ip, existing):
        ip.options(duplicates=True)
        with open_tun(existing) as tun:
            with pytest.raises(tuntap.DeviceBusyError, match="another host"):
                tun.add_address("10.0.0.1/24")
            assert (tun.addresses, ip.routes()) == ([], [])

    def test_without_a_link_nothing_is_waited_for(self, ip, tun):
        tun.down()
        with takes(0, 1):
            tun.add_address("10.0.0.1/24")
        assert not [call for call in ip.calls() if call.startswith("GetUnicastIpAddressEntry")]
        tun.up()
        assert f"GetUnicastIpAddressEntry 10.0.0.1 dad={PREFERRED} 0" in ip.calls()

    def test_one_that_is_there(self, ip, tun):
        tun.add_address("10.0.0.1/24")
        with pytest.raises(tuntap.DeviceBusyError, match="has the address already") as caught:
            tun.add_address("10.0.0.1/24")
        assert caught.value.winerror == OBJECT_ALREADY_EXISTS
        assert [str(address) for address in tun.addresses] == ["10.0.0.1/24"]

    def test_one_of_an_interface_without_a_link(self, ip, tun):
        other = open_tun("tun1", up=False, addresses=["10.0.0.1/24"])
        with pytest.raises(tuntap.DeviceBusyError, match="another one whose link is down"):
            tun.add_address("10.0.0.1/24")
        other.close()
        tun.add_address("10.0.0.1/24")

    @pytest.mark.parametrize(
        ("address", "prefix"), [("10.0.0.1/0", 0), ("10.0.0.1/32", 32), ("fd00::1/128", 128)]
    )
    def test_any_prefix(self, ip, tun, address, prefix):
        tun.add_address(address)
        [found] = tun.addresses
        assert (str(found), found.network.prefixlen, found.peer) == (address, prefix, None)

    def test_those_of_others_are_not_listed(self, ip, tun):
        with open_tun("tun1", addresses=["10.0.1.1/24"]):
            tun.add_address("10.0.0.1/24")
            assert [str(address) for address in tun.addresses] == ["10.0.0.1/24"]

    def test_many(self, tun):
        wanted = [f"10.0.{i}.1/24" for i in range(60)]
        tun.set_addresses(wanted)
        assert sorted(str(address) for address in tun.addresses) == sorted(wanted)

    def test_what_windows_made_stays(self, ip, tun):
        ip.automatic(tun.luid, "fe80::1/64")
        tun.set_addresses(["10.0.0.1/24", "fe80::2/64"])
        tun.set_addresses([])
        assert [str(address) for address in tun.addresses] == ["fe80::1/64"]

    def test_removal(self, ip, tun):
        tun.set_addresses(["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"])
        tun.remove_address("10.0.0.1/24")
        tun.remove_address("fd00::1")
        assert [str(address) for address in tun.addresses] == ["10.0.0.2/24"]
        assert ip.routes() == ["10.0.0.0/24 via 0.0.0.0"]
        with pytest.raises(tuntap.TunTapError) as caught:
            tun.remove_address("10.0.0.1")
        assert caught.value.errno == errno.EADDRNOTAVAIL

    def test_removal_of_what_somebody_else_has_just_removed(self, tun):
        with pytest.raises(tuntap.TunTapError, match="DeleteUnicastIpAddressEntry") as caught:
            tun._remove_address(bytes([10, 0, 0, 1]), 24, None)
        assert caught.value.errno == errno.EADDRNOTAVAIL

    @pytest.mark.parametrize(
        ("address", "peer", "route"),
        [
            ("10.0.0.1", "10.0.0.2", "10.0.0.2/32 via 0.0.0.0"),
            ("fd00::1", "fd00::2", "fd00::2/128 via ::"),
        ],
    )
    def test_a_peer_is_a_route_to_it(self, ip, tun, address, peer, route):
        tun.add_address((address, peer))
        [found] = tun.addresses
        assert (str(found.ip), str(found.peer)) == (address, peer)
        width = found.max_prefixlen
        own = f"{address}/{width} via {route.split()[-1]}"
        assert ip.routes() == sorted([own, route])
        assert any(call.startswith(f"CreateIpForwardEntry2 {route} metric=9") for call in ip.calls())
        tun.set_addresses([])
        assert (tun.addresses, ip.routes()) == ([], [])

    def test_a_route_to_a_peer_that_is_refused(self, ip, tun):
        ip.fail("CreateIpForwardEntry2", ACCESS_DENIED)
        with pytest.raises(tuntap.PrivilegeError, match="CreateIpForwardEntry2"):
            tun.add_address(("10.0.0.1", "10.0.0.2"))
        assert (tun.addresses, ip.routes()) == ([], [])

    def test_no_route(self, stack, ip):
        """Windows makes it anew whenever the link comes up: nothing but a subnet of its own has none."""
        with open_tun(route=False, addresses=["10.0.0.1/24", "fd00::1/64"]) as tun:
            assert ip.routes() == ["10.0.0.1/32 via 0.0.0.0", "fd00::1/128 via ::"]
            assert [str(address) for address in tun.addresses] == ["10.0.0.1/32", "fd00::1/128"]
            tun.add_address(("10.0.0.3", "10.0.0.4"))
            assert "10.0.0.4/32 via 0.0.0.0" not in ip.routes()
            tun.remove_address("10.0.0.1")
            assert ip.routes() == ["10.0.0.3/32 via 0.0.0.0", "fd00::1/128 via ::"]

    def test_a_refusal_names_the_call(self, ip, tun):
        ip.fail("CreateUnicastIpAddressEntry", ACCESS_DENIED)
        with pytest.raises(tuntap.PrivilegeError, match=r"CreateUnicastIpAddressEntry.*administrator"):
            tun.add_address("10.0.0.1/24")

    def test_a_prefix_changes(self, tun):
        """Windows knows an address without its prefix: the old one makes room."""
        tun.set_addresses(["10.0.0.1/24", "fd00::1/64"])
        tun.set_addresses(["10.0.0.1/16", "fd00::1/48"])
        assert [str(address) for address in tun.addresses] == ["10.0.0.1/16", "fd00::1/48"]


class TestRoutes:
    @pytest.mark.parametrize(
        ("network", "gateway", "hop"),
        [
            ("0.0.0.0/0", None, "0.0.0.0"),
            ("10.1.0.0/17", "10.0.0.7", "10.0.0.7"),
            ("10.1.2.3/32", None, "0.0.0.0"),
            ("::/0", None, "::"),
            ("2001:db8::/33", "fd00::7", "fd00::7"),
        ],
    )
    def test_there_and_back(self, ip, tun, network, gateway, hop):
        tun.add_route(network, gateway, metric=70)
        assert ip.calls()[-1] == f"CreateIpForwardEntry2 {network} via {hop} metric=70 0"
        with pytest.raises(tuntap.DeviceBusyError, match="CreateIpForwardEntry2"):
            tun.add_route(network, gateway)
        tun.remove_route(network, gateway)
        assert ip.routes() == []
        with pytest.raises(tuntap.TunTapError, match="DeleteIpForwardEntry2"):
            tun.remove_route(network, gateway)

    def test_one_to_a_host_makes_no_peer(self, tun):
        tun.add_address("10.0.0.1/32")
        tun.add_route("10.9.9.9/32")
        tun.add_address(("10.0.1.1", "10.0.1.2"))
        assert [found.peer for found in tun.addresses if str(found.ip) == "10.0.1.1"] == servers("10.0.1.2")
        tun.remove_address(("10.0.1.1", "10.0.1.2"))
        assert [(str(found), found.peer) for found in tun.addresses] == [("10.0.0.1/32", None)]

    def test_without_ipv6(self, stack, ip):
        ip.options(ipv6=False)
        with open_tun() as tun:
            tun.add_route("10.1.0.0/16")
            with pytest.raises(tuntap.UnsupportedError, match="switched off"):
                tun.add_route("2001:db8::/32")

    def test_through_what_has_gone(self, stack, tun):
        stack.terminate("tun0")
        with pytest.raises(tuntap.DeviceGoneError):
            tun.add_route("10.1.0.0/16")

    def test_a_refusal_names_the_call(self, ip, tun):
        ip.fail("CreateIpForwardEntry2", ACCESS_DENIED)
        with pytest.raises(tuntap.PrivilegeError, match=r"CreateIpForwardEntry2.*administrator"):
            tun.add_route("10.1.0.0/16")


class TestNames:
    def test_rename(self, stack, ip, tun):
        tun.name = "Mein Büro - 接口"
        assert ip.calls()[-1] == "NciSetConnectionName Mein Büro - 接口 0"
        assert (tun.name, stack.adapter("tun0")) == ("Mein Büro - 接口", None)

    def test_a_name_that_is_taken(self, ip, tun):
        ip.interface("Ethernet")
        with pytest.raises(tuntap.DeviceBusyError) as caught:
            tun.name = "ethernet"
        assert (caught.value.winerror, tun.name) == (DUP_NAME, "tun0")

    def test_where_windows_has_no_function_for_it(self, ip, tun):
        ip.options(nci=False)
        with pytest.raises(tuntap.UnsupportedError, match="NciSetConnectionName"):
            tun.name = "tun1"


def servers(*texts):
    return [ipaddress.ip_address(text) for text in texts]


class TestNameServers:
    def test_of_both_families(self, ip, tun):
        assert tun.dns == []
        tun.dns = ["2620:fe::fe", "9.9.9.9", "149.112.112.112"]
        assert ip.calls()[-2:] == [
            "SetInterfaceDnsSettings flags=2 9.9.9.9,149.112.112.112 0",
            "SetInterfaceDnsSettings flags=3 2620:fe::fe 0",
        ]
        assert tun.dns == servers("9.9.9.9", "149.112.112.112", "2620:fe::fe")
        tun.dns = ["9.9.9.9"]
        assert tun.dns == servers("9.9.9.9")
        tun.dns = []
        assert ip.calls()[-2:] == ["SetInterfaceDnsSettings flags=2  0", "SetInterfaceDnsSettings flags=3  0"]
        assert tun.dns == []

    def test_many(self, tun):
        wanted = [f"2001:db8:1111:2222:3333:4444:5555:66{i:02}" for i in range(16)]
        tun.dns = wanted
        assert tun.dns == servers(*wanted)
        with pytest.raises(ValueError):
            tun.dns = [*wanted, "9.9.9.9"]

    def test_without_ipv6(self, stack, ip):
        ip.options(ipv6=False)
        with open_tun(dns=["9.9.9.9"]) as tun:
            assert tun.dns == servers("9.9.9.9")
            with pytest.raises(tuntap.TunTapError, match="SetInterfaceDnsSettings"):
                tun.dns = ["2620:fe::fe"]


class TestNameServersOfOldWindows:
    """Without functions for them, they are in the registry, of which Wine has a real one."""

    @pytest.fixture
    def keys(self, stack, ip, tun):
        ip.options(dns=False)
        guid = stack.adapter("tun0")[0]
        paths = [
            rf"SYSTEM\CurrentControlSet\Services\{service}\Parameters\Interfaces\{{{guid}}}".upper()
            for service in ("Tcpip", "Tcpip6")
        ]
        for path in paths:
            winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, path)
        yield [winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path, 0, winreg.KEY_ALL_ACCESS) for path in paths]
        for path in paths:
            winreg.DeleteKey(winreg.HKEY_LOCAL_MACHINE, path)

    def test_of_both_families(self, ip, tun, keys):
        assert tun.dns == []
        tun.dns = ["2620:fe::fe", "9.9.9.9", "149.112.112.112"]
        values = [winreg.QueryValueEx(key, "NameServer") for key in keys]
        assert values == [("9.9.9.9,149.112.112.112", winreg.REG_SZ), ("2620:fe::fe", winreg.REG_SZ)]
        assert ip.calls()[-1] == "DnsFlushResolverCache"
        assert tun.dns == servers("9.9.9.9", "149.112.112.112", "2620:fe::fe")
        tun.dns = []
        assert [winreg.QueryValueEx(key, "NameServer")[0] for key in keys] == ["", ""]
        assert tun.dns == []

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("9.9.9.9 149.112.112.112", ["9.9.9.9", "149.112.112.112"]),
            (",, 9.9.9.9 ;,", ["9.9.9.9"]),
            ("dns.example,1.2.3,2620:fe::fe,9.9.9.9", ["9.9.9.9"]),
            ("9" * 500 + ",9.9.9.9", ["9.9.9.9"]),
            ("ü9.9.9.9,☃", []),
        ],
    )
    def test_what_others_have_written(self, tun, keys, text, expected):
        winreg.SetValueEx(keys[0], "NameServer", 0, winreg.REG_SZ, text)
        assert tun.dns == servers(*expected)

    def test_what_is_no_text_or_too_long(self, tun, keys):
        winreg.SetValueEx(keys[0], "NameServer", 0, winreg.REG_DWORD, 7)
        with pytest.raises(tuntap.TunTapError, match="NameServer"):
            tun.dns  # noqa: B018
        winreg.SetValueEx(keys[0], "NameServer", 0, winreg.REG_SZ, "9.9.9.9," * 1000)
        with pytest.raises(tuntap.TunTapError, match="NameServer"):
            tun.dns  # noqa: B018

    def test_an_interface_that_the_registry_does_not_know(self, ip, tun):
        ip.options(dns=False)
        assert tun.dns == []
        with pytest.raises(tuntap.TunTapError, match="NameServer") as caught:
            tun.dns = ["9.9.9.9"]
        assert caught.value.winerror == 2


class TestEvents:
    def test_what_others_do(self, ip, tun):
        events = tun.events()
        ip.automatic(tun.luid, "fe80::1/64")
        event = events.get(timeout=5)
        assert (event.kind, str(event.value)) == ("address_added", "fe80::1/64")
        tun.add_address("10.0.0.1/24")
        event = events.get(timeout=5)
        assert (event.kind, str(event.value)) == ("address_added", "10.0.0.1/24")
        tun.mtu = 1400
        assert events.get(timeout=5) == ("mtu", 1400)

    def test_other_interfaces_are_not_told(self, ip, tun):
        other = ip.interface("Ethernet")
        events = tun.events()
        ip.changed(other)
        ip.automatic(other, "fe80::7/64")
        with pytest.raises(TimeoutError):
            events.get(timeout=0.5)

    def test_gone(self, stack, ip, tun):
        events = tun.events()
        stack.terminate("tun0")
        ip.changed(tun.luid)
        assert events.get(timeout=5).kind == "gone"
        with pytest.raises(tuntap.DeviceGoneError):
            events.get(timeout=5)

    def test_one_that_goes_has_a_name_but_no_rows(self, ip, tun):
        events = tun.events()
        ip.fail("GetIpInterfaceEntry", 1168, 2)
        ip.changed(tun.luid)
        assert events.get(timeout=5).kind == "gone"

    def test_nothing_is_lost_in_a_storm(self, ip, tun):
        events = tun.events()
        for i in range(100):
            tun.add_address(f"10.0.{i}.1/24")
        seen = {str(events.get(timeout=5).value) for _ in range(100)}
        assert seen == {f"10.0.{i}.1/24" for i in range(100)}
        with pytest.raises(TimeoutError):
            events.get(timeout=0.3)

    def test_watching_ends_while_callbacks_run(self, ip, tun):
        is_over = threading.Event()

        def disturb():
            while not is_over.wait(0.001):
                ip.changed(tun.luid)

        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            for _ in range(200):
                events = tun.events()
                with contextlib.suppress(TimeoutError):
                    events.get(timeout=0)
                del events
        finally:
            is_over.set()
            thread.join()
        assert ip.notices() == 0

    @pytest.mark.parametrize("function", ["NotifyIpInterfaceChange", "NotifyUnicastIpAddressChange"])
    def test_a_refusal_leaves_nothing_on(self, ip, tun, function):
        ip.fail(function, ACCESS_DENIED)
        with pytest.raises(tuntap.PrivilegeError, match=function):
            tun.events()
        assert ip.notices() == 0
