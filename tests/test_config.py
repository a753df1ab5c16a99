"""What people write, before any system call: no device is opened here."""

import contextlib
import ipaddress
import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tuntap
from tuntap import DhcpLease, Tap, Tun, UnsupportedError, _config, _core, testing


@pytest.fixture(autouse=True)
def no_system_call(monkeypatch):
    """Opening is refused: whoever gets that far has not been checked."""

    def refuse(self, *arguments):
        raise AssertionError(f"a system call was made with {arguments}")

    monkeypatch.setattr(tuntap.Device, "_open", refuse)
    # Nor a namespace opened.
    monkeypatch.setattr(_config, "open_netns", refuse, raising=False)


@pytest.fixture(scope="module")
def memory():
    """A TAP in memory, whose setters check as those of a real one."""
    one, other = testing.pair(Tap)
    with one, other:
        yield one


def refused(error, kind, *arguments, **options):
    with pytest.raises(error) as caught:
        kind(*arguments, **options)
    assert not isinstance(caught.value, OSError), "an argument, not the system, is wrong"
    return str(caught.value)


ANY_KIND = pytest.mark.parametrize("kind", [Tun, Tap])
WRONG_TYPES = [b"x", 1.5, object(), [], {}, (), 5j]


# --- names ---


BAD_NAMES = [
    "", "x" * 128, "a/b", "/", "a\0b", "\0", "\t", "a\n", "tun0\n", "a\x0b", "\ud800", "a:1", "%", "%s",
    "tun%", "%d%d", "tun%%d", "%5d", "tun%dx%s", "\x85",
]  # fmt: skip
HAS_FREE_NAMES = "free_names" in _core.capabilities()
if HAS_FREE_NAMES:
    BAD_NAMES += [" ", "\u3000", "a\\b", "a*", "a?", 'a"b', "<a", "a>", "a|b", "x" * 126 + "\U0001f600"]
else:
    BAD_NAMES += ["x" * 16, "a b", " a", "a ", "a\x7f", "tün0", "\u0661", ".", ".."]


@ANY_KIND
@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_bad_names(kind, name):
    assert "name" in refused(ValueError, kind, name)


@pytest.mark.skipif(HAS_FREE_NAMES, reason="no settings of the system are kept under them")
@pytest.mark.parametrize("name", ["all", "default"])
def test_names_that_the_kernel_keeps(name):
    refused(ValueError, Tun, name)


@ANY_KIND
@pytest.mark.parametrize(
    "name", [b"tun0", 0, 5, 1.5, True, object(), ["tun0"], ("tun0",), bytearray(b"tun0")]
)
def test_names_of_the_wrong_type(kind, name):
    assert "name" in refused(TypeError, kind, name)


@given(text=st.text(max_size=20))
def test_any_text_is_a_name_or_is_refused(memory, text):
    before = memory.name
    try:
        memory.name = text
    except ValueError:
        assert memory.name == before
        return
    assert memory.name == text
    assert 1 <= len(text.encode()) <= 15
    assert not set(text) & set("/: \0\n\t%")


@pytest.mark.parametrize(
    "name",
    ["tun0", "x" * 15, "vpn%d", "%d", "a.b", "a-b_c", "0"]
    + (["x" * 127, "VPN of Zoë", "all", "\u0661", "x" * 125 + "\U0001f600"] if HAS_FREE_NAMES else []),
)
def test_good_names(name):
    with pytest.raises(AssertionError, match="a system call was made"):
        Tun(name)


# --- mtu and other numbers ---


@pytest.mark.parametrize(
    ("kind", "mtu"),
    [(k, m) for k in (Tun, Tap) for m in (0, 67, -1, -68, 65536, 10**6, 2**31, 2**32 + 1500, 2**64 + 1500)]
    + [(Tap, 65522), (Tap, 65535)],
)
def test_mtu_out_of_range(kind, mtu):
    text = refused(ValueError, kind, mtu=mtu)
    assert "mtu" in text
    assert str(mtu) in text


@pytest.mark.parametrize("option", ["mtu", "tx_queue_len", "metric"])
@pytest.mark.parametrize("value", [*WRONG_TYPES, True, False, "1500", float("nan"), 1500.0])
def test_numbers_of_the_wrong_type(option, value):
    assert option in refused(TypeError, Tun, **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tx_queue_len", -1), ("tx_queue_len", 2**31), ("metric", -1), ("metric", 2**32), ("owner", -2),
        ("owner", 2**32 - 1), ("owner", 2**32), ("group", -2), ("group", 2**32 - 1),
    ],
)  # fmt: skip
def test_numbers_out_of_range(option, value):
    assert option in refused(ValueError, Tun, **{option: value})


def test_numpy_integers_are_integers(memory):
    memory.mtu = np.uint16(1400)
    assert memory.mtu == 1400
    with pytest.raises(TypeError):
        memory.mtu = np.float64(1500)
    assert memory.mtu == 1400


@pytest.mark.parametrize("option", ["owner", "group"])
@pytest.mark.parametrize(
    "value", ["no such user of this machine", "", "a\0b", b"root", 1.5, True, object(), -1]
)
def test_owner_and_group(option, value):
    refused((TypeError, ValueError), Tun, **{option: value})


@pytest.mark.parametrize("option", ["up", "persist", "exclusive", "packet_information", "quiet", "route"])
@pytest.mark.parametrize("value", ["yes", "", 2, -1, 1.0, 0.0, b"", object(), [], [1]])
def test_flags_of_the_wrong_type(option, value):
    assert option in refused((TypeError, ValueError), Tun, **{option: value})


@pytest.mark.parametrize("option", ["exclusive", "packet_information", "quiet", "route"])
def test_flags_that_are_not_optional(option):
    assert option in refused(TypeError, Tun, **{option: None})


@pytest.mark.parametrize("value", [b"/x", 1.5, True, False, object(), ["x"], -1, 2**31, 2**70, "", "a\0b"])
def test_netns(value):
    assert "netns" in refused((TypeError, ValueError), Tun, netns=value)


def test_unknown_options():
    refused(TypeError, Tun, adresses=["10.0.0.1/24"])
    refused(TypeError, Tun, "tun0", ["10.0.0.1/24"])


@pytest.mark.skipif(os.name == "nt", reason="they mean something there")
@pytest.mark.parametrize("option", ["guid", "ring_capacity", "wintun", "dns", "driver", "dhcp"])
def test_settings_of_other_systems(option):
    with pytest.raises(UnsupportedError, match=option):
        Tun(**{option: "x"})


def test_neither_tun_nor_tap():
    refused(TypeError, tuntap.Device)
    refused(TypeError, tuntap.Device, "tun0")


# --- addresses ---


BAD_ADDRESSES = {
    "": "empty", "x": "no address", "10.0.0": "three parts", "10.0.0.1.2": "five parts",
    "10.0.0.256/24": "256", "10.0.0.1/33": "prefix", "10.0.0.1/-1": "prefix", "10.0.0.1/": "no prefix",
    "/24": "no address", "10.0.0.1/24/24": "two prefixes", "10.0.0.1/2 4": "space", " 10.0.0.1/24": "space",
    "10.0.0.1/24 ": "space", "10.0.0.01/24": "leading zero", "0x0a000001": "hex", "167772161": "a number",
    "10.0.0.1/255.0.255.0": "mask", "10.0.0.1/255.255.255.1": "mask", "10.0.0.0/24": "network",
    "10.0.0.255/24": "broadcast", "10.0.0.4/30": "network", "10.0.0.7/30": "broadcast", "0.0.0.0": "any",
    "0.0.0.0/0": "any", "0.0.0.0/24": "any", "255.255.255.255": "broadcast",
    "255.255.255.255/8": "broadcast", "224.0.0.1/24": "multicast", "239.1.2.3": "multicast",
    "fd00::1/129": "prefix", "fd00::1/-1": "prefix", "fd00::1/ffff::": "mask", "fd00::1::2": "two gaps",
    "fd00::/64": "network", "fd00:0:0:1::/64": "network", "::": "any", "::/0": "any",
    "ff02::1": "multicast", "ff02::1/64": "multicast", "::ffff:10.0.0.1": "mapped",
    "::ffff:10.0.0.1/120": "mapped", "::ffff:0a00:1/128": "mapped", "fe80::1%eth0/64": "zone",
    "fe80::1%1": "zone", "10.0.0.1/24\x00": "NUL", "10.0.0.1\n": "newline", "10.0.0.1,10.0.0.2": "two",
    "10.0.0.1-10.0.0.9": "range", "1\u06f4.0.0.1/24": "non-ASCII digit", "localhost": "name",
    "10.0.0.1/24 10.0.0.2": "peer without the word", "10.0.0.1 peer": "no peer",
    " peer 10.0.0.1": "only a peer", "10.0.0.1 peer ": "empty", "10.0.0.1 peer fd00::1": "families",
    "fd00::1 peer 10.0.0.1": "families", "10.0.0.1 peer x": "peer",
    "10.0.0.1 peer 10.0.0.2 peer 10.0.0.3": "two peers", "10.0.0.1 peer 10.0.0.2/33": "prefix",
    "10.0.0.1/24 peer 10.0.0.2/25": "two prefixes", "10.0.0.1 peer 0.0.0.0": "peer is any",
    "10.0.0.1 peer 224.0.0.1": "peer is multicast", "fd00::1 peer ::": "peer is any",
    "fd00::1 peer ::ffff:10.0.0.2": "peer is mapped", "fd00::1 peer ff02::2": "peer is multicast",
    "10.0.0.1 peer 10.0.0.1": "its own peer", "fd00::1 peer fd00::1": "its own peer",
    "10.0.0.1 peer 255.255.255.255": "peer is broadcast",
}  # fmt: skip


@pytest.mark.parametrize("address", BAD_ADDRESSES, ids=lambda a: f"{BAD_ADDRESSES[a]} {a!a}")
def test_bad_addresses(address):
    refused(ValueError, Tun, addresses=["10.200.0.1/24", address])
    one, other = testing.pair()
    with one, other:
        for call in (
            one.add_address,
            lambda a: one.set_addresses([a]),
            lambda a: setattr(one, "addresses", [a]),
        ):
            with pytest.raises(ValueError):
                call(address)
        assert one.addresses == []


@pytest.mark.parametrize(
    "address",
    [
        None, b"10.0.0.1/24", 167772161, True, False, 1.5, object(), [], ["10.0.0.1/24"], {}, {"10.0.0.1"},
        ipaddress.ip_network("10.0.0.0/24"), bytearray(4), (None, "10.0.0.1"), (5, "10.0.0.1"),
        (b"\x0a\0\0\1", "10.0.0.2"), (("10.0.0.1", "10.0.0.2"), "10.0.0.3"),
    ],
)  # fmt: skip
def test_addresses_of_the_wrong_type(address):
    refused(TypeError, Tun, addresses=[address])
    one, other = testing.pair()
    with one, other:
        for call in (one.add_address, one.remove_address, lambda a: one.set_addresses([a])):
            with pytest.raises(TypeError):
                call(address)
        assert one.addresses == []


@pytest.mark.parametrize("peer", [5, True, 0, b"\x0a\0\0\2", ("10.0.0.2", 24), 1.5, object(), ["10.0.0.2"]])
def test_peers_of_the_wrong_type(peer):
    refused(TypeError, Tun, addresses=[("10.0.0.1", peer)])


@pytest.mark.parametrize(
    "address", [(), ("10.0.0.1",), ("10.0.0.1", "10.0.0.2", "10.0.0.3"), ("10.0.0.1", 24, 5)]
)
def test_pairs_of_the_wrong_length(address):
    refused(ValueError, Tun, addresses=[address])


@pytest.mark.parametrize("addresses", ["10.0.0.1/24", b"10.0.0.1/24", None, 5, True, 1.5, object()])
def test_addresses_is_a_list(addresses):
    assert "addresses" in refused(TypeError, Tun, addresses=addresses)


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1/24", "10.0.0.1/24"], ["10.0.0.1/24", "10.0.0.1/16"],
        ["10.0.0.1", ("10.0.0.1", "10.0.0.2")],
        ["fd00::1/64", "fd00:0:0::1/64"], ["FD00::1/64", "fd00::1/48"],
        ["10.0.0.1/24", ipaddress.ip_interface("10.0.0.1/24")],
    ],
)  # fmt: skip
def test_addresses_given_twice(addresses):
    assert "twice" in refused(ValueError, Tun, addresses=addresses)


@pytest.mark.parametrize(
    "address",
    [
        ipaddress.ip_interface("10.0.0.0/24"), ipaddress.ip_interface("::ffff:1.2.3.4/128"),
        ipaddress.ip_address("::ffff:1.2.3.4"), ipaddress.ip_address("0.0.0.0"),
        ipaddress.ip_address("ff02::1"),
        ipaddress.IPv6Address("fe80::1%eth0"), ipaddress.IPv6Interface("fe80::1%eth0/64"),
    ],
    ids=repr,
)  # fmt: skip
def test_bad_address_objects(address):
    refused(ValueError, Tun, addresses=[address])


@ANY_KIND
@pytest.mark.parametrize("mtu", [68, 576, 1279])
def test_ipv6_needs_an_mtu_of_1280(kind, mtu):
    text = refused(ValueError, kind, addresses=["10.0.0.1/24", "fd00::1/64"], mtu=mtu)
    assert "1280" in text
    assert "fd00::1" in text


@pytest.mark.parametrize(
    ("given_", "ip", "prefix", "peer"),
    [
        ("10.0.0.1", "10.0.0.1", 32, None),
        ("10.0.0.1/24", "10.0.0.1", 24, None),
        ("10.0.0.1/255.255.0.0", "10.0.0.1", 16, None),
        ("10.0.0.0/31", "10.0.0.0", 31, None),
        ("10.0.0.255/32", "10.0.0.255", 32, None),
        ("10.0.0.0", "10.0.0.0", 32, None),
        ("10.0.0.255/23", "10.0.0.255", 23, None),
        ("fd00::1", "fd00::1", 128, None),
        ("fd00::/127", "fd00::", 127, None),
        ("FD00:0::1/64", "fd00::1", 64, None),
        ("fe80::1/64", "fe80::1", 64, None),
        ("10.0.0.1 peer 10.0.0.2", "10.0.0.1", 32, "10.0.0.2"),
        ("10.0.0.1 peer 10.0.0.2/24", "10.0.0.1", 24, "10.0.0.2"),
        ("10.0.0.1/24 peer 10.0.0.2", "10.0.0.1", 24, "10.0.0.2"),
        ("10.0.0.1/24 peer 10.0.0.2/24", "10.0.0.1", 24, "10.0.0.2"),
        (("10.0.0.1", "10.0.0.2"), "10.0.0.1", 32, "10.0.0.2"),
        (("fd00::1", "fd00::2/64"), "fd00::1", 64, "fd00::2"),
        (ipaddress.ip_interface("10.0.0.1/24"), "10.0.0.1", 24, None),
        (ipaddress.ip_address("fd00::1"), "fd00::1", 128, None),
        (
            (ipaddress.ip_interface("10.0.0.1/24"), ipaddress.ip_address("10.0.0.2")),
            "10.0.0.1",
            24,
            "10.0.0.2",
        ),
    ],
    ids=repr,
)
def test_good_addresses(memory, given_, ip, prefix, peer):
    memory.mtu = 1500
    memory.addresses = [given_]
    (parsed,) = memory.addresses
    assert (str(parsed.ip), parsed.network.prefixlen) == (ip, prefix)
    assert parsed.peer == (peer and ipaddress.ip_address(peer))
    assert isinstance(parsed, ipaddress.IPv4Interface | ipaddress.IPv6Interface)
    memory.addresses = []
    memory.add_address(parsed)
    (again,) = memory.addresses
    assert (again, again.peer) == (parsed, parsed.peer), "what was listed can be given back"
    memory.remove_address(given_)
    assert memory.addresses == []


@given(ip=st.ip_addresses(), prefix=st.integers(0, 128))
def test_any_address_means_what_ipaddress_says(memory, ip, prefix):
    prefix = min(prefix, ip.max_prefixlen)
    expected = ipaddress.ip_interface(f"{ip}/{prefix}")
    try:
        memory.addresses = [f"{ip}/{prefix}"]
    except ValueError:
        network = expected.network
        assert (
            ip in (network.network_address, network.broadcast_address)
            or ip.is_multicast
            or ip.is_unspecified
            or (ip.version == 6 and ip.ipv4_mapped is not None)
        )
        return
    (parsed,) = memory.addresses
    assert (parsed.ip, parsed.network, parsed.peer) == (expected.ip, expected.network, None)


@given(text=st.text(max_size=30) | st.text("0123456789abcdef.:/ per%", max_size=30))
def test_any_text_is_an_address_or_is_refused(memory, text):
    try:
        memory.addresses = [text]
    except ValueError:
        return
    (parsed,) = memory.addresses
    assert text.isascii()
    assert ipaddress.ip_interface(text.partition(" peer ")[0]).ip == parsed.ip


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
TREES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner), max_leaves=5)


@given(value=TREES)
def test_any_object_is_an_address_or_a_clean_error(memory, value):
    with contextlib.suppress(ValueError, TypeError):
        memory.addresses = [value]


# --- mac ---


BAD_MACS = [
    "", "x", "02:00:00:00:00", "02:00:00:00:00:00:01", "02:00:00:00:00:0g", "2:0:0:0:0:1", "020000000001",
    "02:00:00:00:00:+1", "02:00:00:00:00: 1", "02:00:00:00:00:1 ", "02:00:00:00:00:-1", "02:00:00:00:00:0x",
    "02:00:00:00:00:1_", "02:00:00:00:00:\u0660\u0661", "02:00:00:00:00:01\n", " 02:00:00:00:00:01",
    "0200.0000.0001", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "03:00:00:00:00:01",
    b"", b"\x02" * 5, b"\x02" * 7, bytes(6), b"\xff" * 6, b"\x01\0\0\0\0\1", bytearray(6),
]  # fmt: skip


@pytest.mark.parametrize("mac", BAD_MACS, ids=ascii)
def test_bad_macs(mac):
    assert "02:00:00:00:00:01" in (text := refused(ValueError, Tap, mac=mac)) or "6 bytes" in text
    one, other = testing.pair(Tap)
    with one, other:
        before = one.mac
        with pytest.raises(ValueError):
            one.mac = mac
        assert one.mac == before


@pytest.mark.parametrize("mac", [5, True, 1.5, object(), [2, 0, 0, 0, 0, 1], ("02",) * 6])
def test_macs_of_the_wrong_type(mac):
    refused(TypeError, Tap, mac=mac)


def test_tun_takes_no_mac():
    assert "Tap" in refused(ValueError, Tun, mac="02:00:00:00:00:01")


@given(packed=st.binary(min_size=6, max_size=6))
def test_macs_round_trip(memory, packed):
    text = packed.hex(":")
    if packed[0] & 1 or not any(packed):
        with pytest.raises(ValueError):
            memory.mac = text
        return
    for form in (packed, text, text.upper(), text.replace(":", "-")):
        memory.mac = b"\x02\0\0\0\0\1"
        memory.mac = form
        assert memory.mac == text


@given(text=st.text(max_size=20) | st.text("0123456789abcdefABCDEF:-+_ ", min_size=17, max_size=17))
def test_any_text_is_a_mac_or_is_refused(memory, text):
    try:
        memory.mac = text
    except ValueError:
        return
    assert re.fullmatch("[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}", text, re.ASCII)


# --- setters, on a device in memory ---


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        *(("name", name) for name in [*BAD_NAMES, "tun%d", None, b"x", 5]),
        *(("mtu", mtu) for mtu in (0, 67, 65536, None, "1500", 1500.0, True, b"")),
        *(("tx_queue_len", length) for length in (-1, 2**31, None, "5", 1.0, True)),
        *((flag, value) for flag in ("is_up", "carrier", "persist") for value in (None, "yes", 2, 1.0, b"")),
        *(
            (who, value)
            for who in ("owner", "group")
            for value in ("no such user", 1.5, True, b"root", 2**32, -2)
        ),
        *(("broadcast", value) for value in (None, 5, True, b"\x0a\0\0\xff", "10.0.0", "fd00::1", 1.5, "")),
        *(("addresses", value) for value in (None, "10.0.0.1/24", 5, [None], [b""], ["x"])),
    ],
    ids=lambda value: ascii(value),
)
def test_setters_check_first(attribute, value):
    one, other = testing.pair()
    with one, other:
        one.add_address("10.9.0.1/24")
        before = (
            one.name,
            one.mtu,
            one.tx_queue_len,
            one.is_up,
            one.carrier,
            one.owner,
            one.group,
            one.broadcast,
        )
        addresses = one.addresses
        with pytest.raises((TypeError, ValueError)) as caught:
            setattr(one, attribute, value)
        assert not isinstance(caught.value, OSError)
        after = (
            one.name,
            one.mtu,
            one.tx_queue_len,
            one.is_up,
            one.carrier,
            one.owner,
            one.group,
            one.broadcast,
        )
        assert after == before
        assert one.addresses == addresses


def test_mtu_of_a_device_with_ipv6():
    one, other = testing.pair()
    with one, other:
        one.add_address("fd00::1/64")
        with pytest.raises(ValueError, match="1280"):
            one.mtu = 1279
        one.mtu = 1280
        one.remove_address("fd00::1")
        one.mtu = 1279
        with pytest.raises(ValueError, match="1280"):
            one.add_address("fd00::1/64")
        with pytest.raises(ValueError, match="1280"):
            one.set_addresses(["10.0.0.1/24", "fd00::1/64"])
        assert one.addresses == []


@pytest.mark.parametrize("name", ["", "x" * 1000, "a\0b"])
def test_delete_checks_the_name(name):
    refused(ValueError, tuntap.delete, name)


@pytest.mark.parametrize("name", [None, b"tun0", 5])
def test_delete_wants_a_name(name):
    refused(TypeError, tuntap.delete, name)


# --- a lease by DHCP; what becomes of it is in tests/windows ---


@pytest.mark.skipif(os.name == "nt", reason="it means something there")
@pytest.mark.parametrize("kind", [Tun, Tap])
def test_a_lease_on_other_systems(kind):
    with pytest.raises(UnsupportedError, match="dhcp"):
        kind(dhcp=DhcpLease("10.8.0.2/24"))


def lease(*arguments, **settings):
    return _config.parse_lease(DhcpLease(*arguments, **settings))


def test_a_lease():
    year = 365 * 24 * 3600
    assert lease("10.8.0.2/24") == (b"\n\x08\0\2", 24, b"\n\x08\0\0", year, b"")
    address = ipaddress.ip_interface("10.8.0.2/24")
    server = ipaddress.ip_address("10.8.0.1")
    assert lease(address, server, 60, options={}) == (b"\n\x08\0\2", 24, b"\n\x08\0\1", 60, b"")


def test_options_of_a_lease():
    options = lease(
        "10.8.0.2/24", dns=iter(["9.9.9.9", "9.9.9.9"]), wins=[ipaddress.ip_address("10.8.0.1")],
        domain="example.org", options={119: b"x", 254: bytes(100)},
    )[4]  # fmt: skip
    found = {}
    while options:
        code, size, rest = options[0], options[1], options[2:]
        found[code], options = rest[:size], rest[size:]
    assert found == {
        6: b"\t\t\t\t", 44: b"\n\x08\0\1", 15: b"example.org", 119: b"x", 254: bytes(100),
    }  # fmt: skip


@pytest.mark.parametrize(
    "address",
    [
        "fd00::1/64", "10.8.0.0/24", "10.8.0.255/24", "0.0.0.0/0", "224.0.0.1/24", "10.8.0.2", "x", "", None,
        7, b"10.8.0.2/24", ("10.8.0.2", "10.8.0.1"), "10.8.0.2 peer 10.8.0.1",
        ipaddress.ip_network("10.8.0.0/24"),
    ],
)  # fmt: skip
def test_a_lease_of_no_address(address):
    with pytest.raises((TypeError, ValueError)):
        lease(address)


@pytest.mark.parametrize(
    "server", ["10.8.0.2", "10.8.0.255", "10.8.1.1", "fd00::1", "10.8.0.1/24", "x", "", 7, b"x", True, []]
)
def test_a_server_that_is_none(server):
    with pytest.raises((TypeError, ValueError)):
        lease("10.8.0.2/24", server)


@pytest.mark.parametrize("seconds", [0, -1, 2**32, 2**70, 1.5, "60", True, None])
def test_a_lease_of_no_time(seconds):
    with pytest.raises((TypeError, ValueError), match="seconds"):
        lease("10.8.0.2/24", seconds=seconds)


@pytest.mark.parametrize("name", ["dns", "wins"])
@pytest.mark.parametrize(
    "value", ["9.9.9.9", b"x", 7, None, [7], ["x"], ["fd00::1"], ["0.0.0.0"], ["224.0.0.1"]]
)
def test_name_servers_of_a_lease(name, value):
    with pytest.raises((TypeError, ValueError)):
        lease("10.8.0.2/24", **{name: value})


@pytest.mark.parametrize(
    "domain", ["", "b\u00fccher.example", "a b", "a\0b", "a\n", b"example.org", 7, ["x"], "x" * 256]
)
def test_a_domain_that_is_none(domain):
    with pytest.raises((TypeError, ValueError), match=r"domain|option 15"):
        lease("10.8.0.2/24", domain=domain)


@pytest.mark.parametrize(
    "options",
    [
        {0: b"x"}, {255: b"x"}, {256: b"x"}, {-1: b"x"}, {"46": b"x"}, {True: b"x"}, {None: b"x"},
        {1: bytes(4)}, {51: bytes(4)}, {53: b"x"}, {54: bytes(4)}, {6: bytes(4)}, {15: b"x"}, {44: bytes(4)},
        {46: b""}, {46: bytes(256)}, {46: "x"}, {46: 2}, {46: None}, {46: bytearray(1)},
        [(46, b"x")], b"x", "x", 7, None,
    ],
)  # fmt: skip
def test_options_that_are_none(options):
    with pytest.raises((TypeError, ValueError), match="option"):
        lease("10.8.0.2/24", options=options)


def test_options_fit_into_what_the_driver_answers():
    assert len(lease("10.8.0.2/24", options={43: bytes(232)})[4]) == 234
    assert len(lease("10.8.0.2/24", domain="x" * 100, options={43: bytes(130)})[4]) == 234
    for settings in ({"options": {43: bytes(233)}}, {"domain": "x" * 100, "options": {43: bytes(131)}}):
        with pytest.raises(ValueError, match="234"):
            lease("10.8.0.2/24", **settings)
    with pytest.raises(ValueError, match="234"):
        lease("10.8.0.2/24", dns=[f"10.8.1.{i}" for i in range(1, 60)])
