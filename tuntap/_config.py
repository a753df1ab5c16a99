"""Turns what people write into validated settings, before any system call is made."""

from __future__ import annotations

import errno
import ipaddress
import operator
import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Union

from tuntap import _core
from tuntap._errors import PrivilegeError, TunTapError

TUN_MTU_MAX = 65535
TAP_MTU_MAX = 65521  # 65535 less the Ethernet header
QUEUE_LEN_MAX = 2**19
FREE_NAME_MAX = 127  # of UTF-16: MAX_ADAPTER_NAME of Wintun
RING_CAPACITY_MIN, RING_CAPACITY_MAX = 2**17, 2**26  # of Wintun
IPV6_MTU_MIN = 1280  # RFC 8200, section 5
DHCP_OPTIONS_MAX = 234  # bytes: tap-windows6 has room for 256 in its answer, and 22 are its own
DHCP_NAMED = {6: "dns", 15: "domain", 44: "wins"}  # options of RFC 2132
DHCP_OF_DRIVER = (1, 51, 53, 54)  # subnet mask, lease time, message type, server
LIMITED_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


class Statistics(NamedTuple):
    """Counters of an interface, seen from the interface as ``ip -s link`` shows them.

    What this program sends into the device the interface *receives* (rx); what the kernel routes
    to the interface, and this program receives, it *transmits* (tx).
    """

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


class IPv4Interface(ipaddress.IPv4Interface):
    """An IPv4 address with its prefix, and the other end of a point-to-point link if there is one."""

    peer: ipaddress.IPv4Address | None = None


class IPv6Interface(ipaddress.IPv6Interface):
    """An IPv6 address with its prefix, and the other end of a point-to-point link if there is one."""

    peer: ipaddress.IPv6Address | None = None


Interface = IPv4Interface | IPv6Interface
AddressOnly = str | ipaddress.IPv4Address | ipaddress.IPv6Address
NetworkLike = str | ipaddress.IPv4Network | ipaddress.IPv6Network
AddressLike = Union[
    str,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    "tuple[AddressLike, AddressOnly]",
]


class AddressEntry(NamedTuple):
    """An address as the core reads and writes it, with all that belongs to it."""

    ip: bytes
    prefix: int
    peer: bytes | None
    broadcast: bytes | None = None
    route: bool = True
    metric: int = 0
    automatic: bool = False  # the IPv6 link-local one that the kernel makes

    @property
    def key(self) -> tuple[bytes, int, bytes | None]:
        """What tells it from the others of the interface."""
        return self[:3]

    @property
    def interface(self) -> Interface:
        """As people read it."""
        made = (IPv4Interface if len(self.ip) == 4 else IPv6Interface)((self.ip, self.prefix))
        if self.peer is not None:
            made.peer = ipaddress.ip_address(self.peer)
        return made


@dataclass(frozen=True)
class DhcpLease:
    """The IPv4 address that the driver of a TAP gives Windows by DHCP, and what goes with it.

    Parameters
    ----------
    address : str or ipaddress interface
        ``"10.8.0.2/24"``.
    server : str or IPv4Address, optional
        Where the driver plays the server: an address of the same subnet that nobody else has.  None: that of
        the subnet itself, ``"10.8.0.0"``.
    seconds : int, optional
        How long the lease is; a year if nothing is said.
    dns, wins : list, optional
        IPv4 addresses of name servers (options 6 and 44 of RFC 2132).
    domain : str, optional
        Of names without a dot (option 15).
    options : dict, optional
        Further options, bytes by number: ``{46: bytes([2])}`` has NetBIOS ask name servers only,
        ``{43: bytes.fromhex("010400000002")}`` switches it off.

    Notes
    -----
    Wrong values are told when a device is opened with it.  All options together take 234 bytes at most, of
    which the number and the length of each are two.
    """

    address: AddressLike
    server: str | ipaddress.IPv4Address | None = None
    seconds: int = 365 * 24 * 3600
    dns: Iterable[AddressOnly] = ()
    wins: Iterable[AddressOnly] = ()
    domain: str | None = None
    options: Mapping[int, bytes] = field(default_factory=dict)


def parse_address(value: AddressLike) -> AddressEntry:
    """One interface address, whether or not it is one to give to an interface.

    Parameters
    ----------
    value : str, ipaddress object, or tuple
        ``"10.0.0.1/24"``, ``"10.0.0.1/255.255.255.0"``, ``"fd00::1/64"``; point to point
        ``"10.0.0.1 peer 10.0.0.2/32"`` or ``("10.0.0.1", "10.0.0.2")``.  Without a prefix it is
        a host address (/32, /128).
    """
    peer: object = getattr(value, "peer", None)
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ValueError(f"a point-to-point address is (address, peer), not {value!r}")
        value, peer = value
    elif isinstance(value, str) and " peer " in value:
        value, _, peer = value.partition(" peer ")
    _require_address(value)
    parsed = _ip_interface(value)
    entry = AddressEntry(parsed.ip.packed, parsed.network.prefixlen, None)
    return entry if peer is None else _with_peer(entry, peer, value)


def _ip_interface(value: object) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    try:
        parsed = ipaddress.ip_interface(value)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{value!r} is no address such as '10.0.0.1/24': {error}") from None
    if isinstance(parsed, ipaddress.IPv6Interface) and parsed.scope_id:
        raise ValueError(f"{value!r}: leave out the zone, the address belongs to this interface")
    return parsed


def _require_address(value: object) -> None:
    allowed = (
        str,
        ipaddress.IPv4Interface,
        ipaddress.IPv6Interface,
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
    )
    if not isinstance(value, allowed):
        raise TypeError(f"an address is a str such as '10.0.0.1/24' or an ipaddress interface, not {value!r}")


def _with_peer(entry: AddressEntry, peer: object, value: object) -> AddressEntry:
    _require_address(peer)
    parsed = _ip_interface(peer)
    if len(parsed.ip.packed) != len(entry.ip):
        raise ValueError(f"{value!r} and its peer {peer!r} are of different families")
    prefix = entry.prefix
    if isinstance(peer, str) and "/" in peer:
        if isinstance(value, str) and "/" in value and prefix != parsed.network.prefixlen:
            raise ValueError(f"{value!r} and its peer {peer!r} name different prefixes")
        prefix = parsed.network.prefixlen
    return AddressEntry(entry.ip, prefix, parsed.ip.packed)


def parse_route(network: object, gateway: object) -> tuple[bytes, int, bytes | None]:
    """A network, its prefix, and who takes what is for it, of the same family."""
    if not isinstance(network, (str, ipaddress.IPv4Network, ipaddress.IPv6Network)):
        raise TypeError(f"a network is a str such as '10.1.0.0/16' or an ipaddress network, not {network!r}")
    parsed = ipaddress.ip_network(network)
    if gateway is None:
        return parsed.network_address.packed, parsed.prefixlen, None
    if not isinstance(gateway, (str, ipaddress.IPv4Address, ipaddress.IPv6Address)):
        raise TypeError(f"a gateway is a str or an ipaddress address, not {gateway!r}")
    through = ipaddress.ip_address(gateway)
    if through.version != parsed.version:
        raise ValueError(f"{parsed} and its gateway {through} are of different families")
    if through.is_unspecified or through.is_multicast:
        raise ValueError(f"{through} cannot be a gateway")
    return parsed.network_address.packed, parsed.prefixlen, through.packed


def refuse_unusable(entry: AddressEntry) -> None:
    """Refuse what no interface can have as its address."""
    address = entry.interface
    for ip in (address.ip, address.peer):
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            raise ValueError(f"{ip} is an IPv4-mapped address: write {ip.ipv4_mapped} as IPv4")
        if ip is not None and (ip.is_unspecified or ip.is_multicast or ip == LIMITED_BROADCAST):
            raise ValueError(f"{ip} cannot be the address of an interface")
    if address.peer is not None:
        if address.ip == address.peer:
            raise ValueError(f"{address.ip} is not its own peer")
        return
    network = address.network
    if network.num_addresses < 4:
        return
    if address.ip == network.network_address:
        raise ValueError(
            f"{address} is the address of the network, not of a host in it: write for example "
            f"{network.network_address + 1}/{network.prefixlen}"
        )
    if address.version == 4 and address.ip == network.broadcast_address:
        raise ValueError(f"{address} is the broadcast address of its network")


def parse_addresses(values: Iterable[AddressLike]) -> list[AddressEntry]:
    """Several addresses, each once."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"addresses is a list such as ['10.0.0.1/24'], not {values!r}")
    parsed: dict[bytes, AddressEntry] = {}
    for value in values:
        entry = parse_address(value)
        if entry.ip in parsed:
            raise ValueError(f"address {entry.interface.ip} is given twice")
        parsed[entry.ip] = entry
    return list(parsed.values())


def check_ipv6_mtu(addresses: Iterable[AddressEntry], mtu: int) -> None:
    """Refuse IPv6 addresses with an MTU on which the kernel has no IPv6."""
    ipv6 = next((entry for entry in addresses if len(entry.ip) == 16), None)
    if ipv6 is not None and mtu < IPV6_MTU_MIN:
        raise ValueError(f"IPv6 ({ipv6.interface}) needs an MTU of at least {IPV6_MTU_MIN}, not {mtu}")


def parse_name(name: object) -> str:
    """An interface name, or a pattern such as ``"tun%d"`` that the kernel completes."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if "%" in name and (name.count("%") > 1 or "%d" not in name):
        raise ValueError(f"a name pattern has one %d: {name!r}")
    if "free_names" in _core.capabilities():
        return _parse_free_name(name)
    if not 1 <= len(name) <= _core.NAME_MAX:
        raise ValueError(f"an interface name has 1 to {_core.NAME_MAX} characters, not {name!r}")
    if not name.isascii() or any(c in "/:" or c <= " " or c == "\x7f" for c in name):
        raise ValueError(f"an interface name has no spaces, '/', ':' or non-ASCII: {name!r}")
    if name in (".", "..", "all", "default"):  # the last two are taken by net.ipv4.conf
        raise ValueError(f"{name!r} is no interface name")
    return name


def _parse_free_name(name: str) -> str:
    """What Windows takes: the rules of file names, more or less."""
    if not 1 <= len(name.encode("utf-16-le", "surrogatepass")) // 2 <= FREE_NAME_MAX:
        raise ValueError(f"an interface name has 1 to {FREE_NAME_MAX} characters, not {name!r}")
    if not name.strip() or any(c in '\\/:*?"<>|' or c < " " or "\ud800" <= c <= "\udfff" for c in name):
        raise ValueError(f'an interface name has none of \\ / : * ? " < > |: {name!r}')
    return name


def parse_integer(value: object, what: str, low: int, high: int) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{what} must be an integer, not bool")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{what} must be an integer, not {type(value).__name__}") from None
    if not low <= number <= high:
        raise ValueError(f"{what} must be {low} to {high}, not {number}")
    return number


def parse_queue_len(length: object) -> int:
    """A queue length: the kernel allocates one pointer per packet in one piece."""
    return parse_integer(length, "tx_queue_len", 0, QUEUE_LEN_MAX)


def parse_mac(mac: str | bytes) -> bytes:
    """A unicast MAC address, ``"02:00:00:00:00:01"`` or 6 bytes."""
    packed = parse_any_mac(mac)
    if packed[0] & 1 or not any(packed):
        raise ValueError(f"{format_mac(packed)} is no unicast address: use for example 02:00:00:00:00:01")
    return packed


def parse_any_mac(mac: str | bytes) -> bytes:
    """The same, or one of a group, or nobody's."""
    if isinstance(mac, str):
        parts = mac.replace("-", ":").split(":")
        try:
            if len(parts) != 6 or any(len(part) != 2 or not part.isalnum() for part in parts):
                raise ValueError
            packed = bytes.fromhex("".join(parts))
        except ValueError:
            raise ValueError(f"a MAC address looks like '02:00:00:00:00:01', not {mac!r}") from None
    elif isinstance(mac, (bytes, bytearray)):
        packed = bytes(mac)
    else:
        raise TypeError(f"a MAC address is a str or 6 bytes, not {type(mac).__name__}")
    if len(packed) != 6:
        raise ValueError(f"a MAC address has 6 bytes, not {len(packed)}")
    return packed


def format_mac(mac: bytes) -> str:
    return mac.hex(":")


def parse_user(user: int | str) -> int:
    """A user id."""
    if isinstance(user, str):
        try:
            import pwd

            return pwd.getpwnam(user).pw_uid
        except (KeyError, ImportError):  # Windows has no module for it
            raise ValueError(f"there is no user {user!r}") from None
    return parse_integer(user, "owner", 0, 2**32 - 2)


def parse_group(group: int | str) -> int:
    """A group id."""
    if isinstance(group, str):
        try:
            import grp

            return grp.getgrnam(group).gr_gid
        except (KeyError, ImportError):  # Windows has no module for it
            raise ValueError(f"there is no group {group!r}") from None
    return parse_integer(group, "group", 0, 2**32 - 2)


def parse_guid(guid: uuid.UUID | str) -> bytes:
    """A GUID as Windows has it in memory."""
    if isinstance(guid, str):
        try:
            guid = uuid.UUID(guid)
        except ValueError:
            raise ValueError(f"{guid!r} is no GUID") from None
    if not isinstance(guid, uuid.UUID):
        raise TypeError(f"a GUID is a uuid.UUID or a str, not {type(guid).__name__}")
    return guid.bytes_le


def parse_ring_capacity(capacity: object) -> int:
    number = parse_integer(capacity, "ring_capacity", RING_CAPACITY_MIN, RING_CAPACITY_MAX)
    if number & (number - 1):
        raise ValueError(f"ring_capacity must be a power of two, not {number}")
    return number


def parse_description(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"description must be a str, not {type(text).__name__}")
    if not 1 <= len(text) <= FREE_NAME_MAX or "\0" in text:
        raise ValueError(f"a description has 1 to {FREE_NAME_MAX} characters, not {text!r}")
    return text


def parse_servers(servers: Iterable[AddressOnly], what: str = "dns") -> list[bytes]:
    """Addresses of name servers, IPv4 first."""
    if isinstance(servers, (str, bytes)) or not isinstance(servers, Iterable):
        raise TypeError(f"{what} is a list such as ['9.9.9.9'], not {servers!r}")
    parsed = []
    for server in servers:
        if not isinstance(server, (str, ipaddress.IPv4Address, ipaddress.IPv6Address)):
            raise TypeError(f"a name server is a str or an ipaddress address, not {server!r}")
        address = ipaddress.ip_address(server)
        if address.is_unspecified or address.is_multicast:
            raise ValueError(f"{address} cannot be a name server")
        if address.packed not in parsed:
            parsed.append(address.packed)
    return sorted(parsed, key=len)


def parse_driver(driver: object, is_tap: bool) -> bool:
    """Whether it is tap-windows6, of the two that Windows has."""
    if driver is not None and not isinstance(driver, str):
        raise TypeError(f"driver must be a str, not {type(driver).__name__}")
    if driver not in (None, "wintun", "tap-windows6"):
        raise ValueError(f"driver must be 'wintun' or 'tap-windows6', not {driver!r}")
    if is_tap and driver == "wintun":
        raise ValueError("Wintun carries IP packets: a TAP takes driver='tap-windows6'")
    return is_tap or driver == "tap-windows6"


def parse_lease(lease: object) -> tuple[bytes, int, bytes, int, bytes]:
    """Address, prefix, server, seconds and encoded options of a `DhcpLease`."""
    if not isinstance(lease, DhcpLease):
        raise TypeError(f"dhcp is a tuntap.DhcpLease, not {lease!r}")
    entry = parse_address(lease.address)
    if len(entry.ip) != 4 or entry.peer is not None:
        raise ValueError(f"{lease.address!r}: DHCP is of IPv4, and of an address with its subnet")
    refuse_unusable(entry)
    network = ipaddress.IPv4Interface((entry.ip, entry.prefix)).network
    server = lease.server
    if server is None:
        server = network.network_address
    if not isinstance(server, (str, ipaddress.IPv4Address)):
        raise TypeError(f"a DHCP server is a str or an IPv4Address, not {server!r}")
    server = ipaddress.IPv4Address(server)
    if server not in network or server.packed == entry.ip or server == network.broadcast_address:
        raise ValueError(f"server: {server} is no other address of {network}")
    seconds = parse_integer(lease.seconds, "seconds", 1, 2**32 - 1)
    return entry.ip, entry.prefix, server.packed, seconds, _dhcp_options(lease)


def _dhcp_options(lease: DhcpLease) -> bytes:
    found: dict[int, bytes] = {}
    for name, code, servers in (("dns", 6, lease.dns), ("wins", 44, lease.wins)):
        packed = parse_servers(servers, name)
        if any(len(ip) != 4 for ip in packed):
            raise ValueError(f"{name}: DHCP is of IPv4")
        if packed:
            found[code] = b"".join(packed)
    if lease.domain is not None:
        if not isinstance(lease.domain, str):
            raise TypeError(f"domain must be a str, not {type(lease.domain).__name__}")
        if not lease.domain or not lease.domain.isascii() or any(c <= " " for c in lease.domain):
            raise ValueError(f"domain: {lease.domain!r} is no name of a domain in ASCII")
        found[15] = lease.domain.encode()
    if not isinstance(lease.options, Mapping):
        raise TypeError(f"options are bytes by number, not {lease.options!r}")
    for key, value in lease.options.items():
        code = parse_integer(key, "the number of a DHCP option", 1, 254)
        if code in DHCP_OF_DRIVER:
            raise ValueError(f"option {code} is made by the driver")
        if code in DHCP_NAMED:
            raise ValueError(f"option {code} is what {DHCP_NAMED[code]}= is for")
        if not isinstance(value, bytes):
            raise TypeError(f"option {code} must be bytes, not {type(value).__name__}")
        found[code] = value
    for code, value in found.items():
        if not 1 <= len(value) <= 255:
            raise ValueError(f"option {code} has 1 to 255 bytes, not {len(value)}")
    encoded = b"".join(bytes((code, len(value))) + value for code, value in found.items())
    if len(encoded) > DHCP_OPTIONS_MAX:
        raise ValueError(f"DHCP options take up to {DHCP_OPTIONS_MAX} bytes, not {len(encoded)}")
    return encoded


def wintun_files(wintun: str | os.PathLike[str] | None) -> list[str]:
    """Where to look for ``wintun.dll``, before the system's folder; never the current directory."""
    if wintun is None:
        folders = [Path(__file__).parent]
        bundle = getattr(sys, "_MEIPASS", None)  # where PyInstaller has unpacked a program
        if bundle is not None:
            folders.append(Path(bundle))
        return [str(folder.absolute() / "wintun.dll") for folder in folders]
    if not isinstance(wintun, (str, os.PathLike)):
        raise TypeError(f"wintun is the path of wintun.dll, not {wintun!r}")
    path = Path(wintun).absolute()
    if "\0" in str(path) or "\n" in str(path):
        raise ValueError(f"wintun: {str(path)!r} is no path")
    if path.is_dir():
        path /= "wintun.dll"
    if not path.exists():
        raise TunTapError(errno.ENOENT, "there is no such file; wintun= is the path of wintun.dll", str(path))
    return [str(path)]


def parse_flag(value: object, what: str) -> bool:
    if not isinstance(value, (bool, int)) or value not in (0, 1):
        raise TypeError(f"{what} must be True or False, not {value!r}")
    return bool(value)


def parse_offload(offload: object) -> tuple[bool, bool]:
    """Whether packets get a virtio-net header, and whether super-packets pass whole."""
    if isinstance(offload, str):
        if offload != "superpackets":
            raise ValueError(f'offload is True, False or "superpackets", not {offload!r}')
        return True, True
    return parse_flag(offload, "offload"), False


def parse_offload_names(names: Iterable[str]) -> set[str]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"offload is set to names such as {{'tcp4', 'checksum'}}, not {names!r}")
    found = set(names)
    unknown = found - _core.OFFLOADS.keys()
    if unknown:
        raise ValueError(f"no offload {unknown!r}; there are {', '.join(_core.OFFLOADS)}")
    return found


def check_netns(netns: object) -> None:
    if netns is not None and (isinstance(netns, bool) or not isinstance(netns, (int, str, os.PathLike))):
        raise TypeError(f"netns is a name, a path or a descriptor, not {type(netns).__name__}")
    if isinstance(netns, int) and not 0 <= netns < 2**31:
        raise ValueError(f"netns: {netns} is no descriptor")
    if isinstance(netns, str) and (not netns or "\0" in netns):
        raise ValueError(f"netns: {netns!r} is no name")


@contextmanager
def open_netns(netns: int | str | os.PathLike[str] | None) -> Iterator[int]:
    """The descriptor of a network namespace: -1 for None, a name as in ``ip netns``, a path, an fd."""
    if netns is None or isinstance(netns, int):
        yield -1 if netns is None else netns
        return
    path = os.fspath(netns)
    if isinstance(netns, str) and "/" not in netns:
        path = f"/run/netns/{netns}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        code = error.errno or errno.ENOENT
        kind = PrivilegeError if isinstance(error, PermissionError) else TunTapError
        text = (
            f"open: {os.strerror(code)}; is there such a network namespace, and is it yours? see `ip netns`"
        )
        raise kind(code, text, path) from None
    try:
        yield fd
    finally:
        os.close(fd)
