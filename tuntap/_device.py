"""Device, Tun and Tap: open or adopt, configure, close.  Packets move in `_core.Port`."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

from tuntap import _config, _core
from tuntap._batch import PacketBatch
from tuntap._config import (
    AddressEntry,
    AddressLike,
    AddressOnly,
    DhcpLease,
    Interface,
    NetworkLike,
    Statistics,
)
from tuntap._errors import ClosedError, PrivilegeError, TunTapError, UnsupportedError
from tuntap._events import Events

_D = TypeVar("_D", bound="Device")

_LAYER_TAP = 2
_LAYER_TUN = 3
LINK_PATIENCE = 2.0  # seconds; the kernel looks at links once a second
_OPEN_EXCLUSIVE = 1
_OPEN_PACKET_INFORMATION = 2
_OPEN_VIRTIO_HEADER = 4
_OPEN_MULTI_QUEUE = 8
_OPEN_BY_TAP_DRIVER = 16
_QUEUES_MAX = 256  # MAX_TAP_QUEUES, drivers/net/tun.c
_TCP_OFFLOAD = _core.OFFLOADS["checksum"] | _core.OFFLOADS["tcp4"] | _core.OFFLOADS["tcp6"]


class Queue(_core.Port):
    """One of the queues of a device: it receives and sends, at best from a thread of its own.

    A `Tun` or `Tap` is its own first queue.  See `Device.queues`.
    """

    _layer = 0
    _overhead = 0  # bytes of a packet beside its MTU
    _packet_information = False
    _whole = False
    _queues: dict[Queue, None] | None = None  # the queues of the device beside the first, in order

    def batch(self, capacity: int = 64, headroom: int = 0) -> PacketBatch:
        """A batch whose slots hold any packet of this device as it is configured now.

        Parameters
        ----------
        capacity : int, optional
            Number of packets.  With ``offload=True`` most super-packets fit one call from 64 on; with
            ``offload="superpackets"`` each slot has 64 KiB.
        headroom : int, optional
            Bytes of free space in front of each packet.
        """
        try:
            slot_size = self._get("mtu") + self._overhead + 4 * self._packet_information
        except (UnsupportedError, PrivilegeError):
            slot_size = _config.TUN_MTU_MAX  # an adopted descriptor that does not tell
        if self._whole:
            slot_size = _config.TUN_MTU_MAX + self._overhead
        return PacketBatch(capacity, -(-slot_size // 64) * 64, headroom)

    @property
    def is_attached(self) -> bool:
        """bool: Whether this queue takes part; see `detach`."""
        return bool(self._get("attached"))

    def attach(self) -> None:
        """Let a queue that was detached take part again."""
        self._set("attached", 1)

    def detach(self) -> None:
        """Let the other queues carry the packets, and keep this one for later.

        Packets that wait for it in the kernel are lost.  Sending raises `LinkDownError` and receiving
        waits until `attach`.

        Raises
        ------
        UnsupportedError
            The device has a single queue.
        """
        self._set("attached", 0)

    def close(self) -> None:
        super().close()
        if self._queues is not None:
            self._queues.pop(self, None)


class Device(Queue):
    """What `Tun` and `Tap` have in common; open one of those.

    Parameters
    ----------
    name : str, optional
        Interface to make, or to attach to if it is there; a pattern such as ``"vpn%d"`` is
        completed by the kernel, and None leaves the name to it.
    addresses : list, optional
        ``["10.0.0.1/24", "fd00::1/64"]``, also ``ipaddress`` interfaces and point-to-point pairs
        ``("10.0.0.1", "10.0.0.2")``.  Added if not there yet.
    mtu : int, optional
        68 to 65535 (TAP: 65521); with IPv6 at least 1280.
    up : bool, optional
        Bring the interface up or down.  None: up if it was made here, left alone if it was there.
    offload : bool or str, optional
        True: the kernel hands over super-packets of up to 64 KiB, which are split into ordinary
        packets with valid checksums on receive, and packets are coalesced on send.
        ``"superpackets"``: batches carry super-packets whole, and `PacketBatch.headers` says what
        they are; calls for one packet work as with True.  What the kernel granted is in `offload`.
    udp_gso : bool, optional
        Whether super-packets of UDP datagrams are used too.  Some kernels corrupt them.
    checksums : bool, optional
        False leaves checksums to the caller, for a tunnel that authenticates its payload: with
        offload, received packets hold unfinished TCP and UDP checksums, and whatever is sent is
        taken to be right.  Both ends must do so.
    queues : int, optional
        Number of queues, 1 to 256; see the property.
    multi_queue : bool, optional
        Whether the interface may have several queues, of other programs too.  None: if `queues` is
        more than 1.
    mac : str or bytes, optional
        TAP only.
    persist : bool, optional
        Keep the interface after close, or (False) let it go.
    owner, group : int or str, optional
        Who may attach to it without further rights.  Without either, whoever may open
        ``/dev/net/tun`` may attach to a persistent interface; with both, both must fit.
    tx_queue_len : int, optional
        Packets the kernel keeps for us before it drops.
    netns : str, path or int, optional
        Network namespace of the interface: a name as in ``ip netns``, a path, a descriptor.
    exclusive : bool
        Fail with `DeviceBusyError` if the interface exists.
    packet_information : bool
        Keep the 4-byte header of the OS (flags, Ethernet type) in front of each packet.
    quiet : bool
        No IPv6 link-local address, and so no router solicitation: a TUN is silent until somebody
        sends.  (A TAP with IPv6 addresses still reports its multicast groups.)
    route : bool
        Whether an address brings the route to its subnet along.
    metric : int, optional
        Metric of that route; on Windows of the interface.
    peer_name : str, optional
        Of the other end of the pair that a TAP is on macOS ("feth7").
    dns : list, optional
        Windows: addresses of the name servers to ask through this interface.
    guid : uuid.UUID or str, optional
        Windows, of a new TUN: by this Windows knows the network again.  None makes it of the name.
    ring_capacity : int, optional
        Windows, of a TUN: bytes that each direction holds, a power of two from 128 KiB to 64 MiB; 8 MiB
        otherwise.
    wintun : str or path, optional
        Windows: where ``wintun.dll`` is, or its folder; see docs/platforms/windows.md.
    description : str, optional
        Windows, of a new TUN: what kind of adapter Windows calls it.
    driver : str, optional
        Windows: ``"wintun"``, as a TUN has it otherwise, or ``"tap-windows6"``, as a TAP always has.
    dhcp : DhcpLease, optional
        Windows, of tap-windows6: the IPv4 address that the driver gives Windows by DHCP when the interface
        comes up, which takes no administrator.

    Raises
    ------
    ValueError, TypeError
        An argument cannot be right; no system call was made.
    PrivilegeError, DeviceBusyError, UnsupportedError, TunTapError
        See there.  Whatever was done by then has been undone.
    """

    _queue_type = Queue
    _mtu_max = _config.TUN_MTU_MAX
    _route = True
    _metric = 0

    def __init__(
        self,
        name: str | None = None,
        *,
        addresses: Iterable[AddressLike] = (),
        mtu: int | None = None,
        up: bool | None = None,
        offload: bool | Literal["superpackets"] = False,
        udp_gso: bool = True,
        checksums: bool = True,
        queues: int = 1,
        multi_queue: bool | None = None,
        mac: str | bytes | None = None,
        persist: bool | None = None,
        owner: int | str | None = None,
        group: int | str | None = None,
        tx_queue_len: int | None = None,
        netns: int | str | os.PathLike[str] | None = None,
        exclusive: bool = False,
        packet_information: bool = False,
        quiet: bool = False,
        route: bool = True,
        metric: int | None = None,
        guid: uuid.UUID | str | None = None,
        ring_capacity: int | None = None,
        wintun: str | os.PathLike[str] | None = None,
        dns: Iterable[AddressOnly] | None = None,
        peer_name: str | None = None,
        description: str | None = None,
        driver: Literal["wintun", "tap-windows6"] | None = None,
        dhcp: DhcpLease | None = None,
    ) -> None:
        if not self._layer:
            raise TypeError("open a Tun or a Tap")
        if name is not None:
            name = _config.parse_name(name)
        if mtu is not None:
            mtu = self._parse_mtu(mtu)
        wanted = _config.parse_addresses(addresses)
        for entry in wanted:
            _config.refuse_unusable(entry)
        if mtu is not None:
            _config.check_ipv6_mtu(wanted, mtu)
        if peer_name is not None:
            if self._layer != _LAYER_TAP:
                raise ValueError("a TUN is no pair of interfaces: peer_name is of a Tap")
            peer_name = _config.parse_name(peer_name)
        if mac is not None:
            if self._layer != _LAYER_TAP:
                raise ValueError("a TUN carries IP packets and has no MAC address; open a Tap")
            mac = _config.parse_mac(mac)
        if owner is not None:
            owner = _config.parse_user(owner)
        if group is not None:
            group = _config.parse_group(group)
        if tx_queue_len is not None:
            tx_queue_len = _config.parse_queue_len(tx_queue_len)
        if metric is not None:
            metric = self._metric = _config.parse_integer(metric, "metric", 0, 2**32 - 1)
        if up is not None:
            up = _config.parse_flag(up, "up")
        if persist is not None:
            persist = _config.parse_flag(persist, "persist")
        exclusive = _config.parse_flag(exclusive, "exclusive")
        packet_information = _config.parse_flag(packet_information, "packet_information")
        quiet = _config.parse_flag(quiet, "quiet")
        self._route = _config.parse_flag(route, "route")
        _config.check_netns(netns)
        has_offload, self._whole = _config.parse_offload(offload)
        wanted_offload = _config.parse_flag(udp_gso, "udp_gso") * _core.OFFLOADS["udp"]
        wanted_offload |= _TCP_OFFLOAD
        checksums = _config.parse_flag(checksums, "checksums")
        if not checksums and not has_offload:
            raise ValueError("checksums=False leaves to you what offload=... computes: open with offload")
        if has_offload and packet_information:
            raise ValueError("offload and packet_information cannot be had together")
        queues = _config.parse_integer(queues, "queues", 1, _QUEUES_MAX)
        multi_queue = queues > 1 if multi_queue is None else _config.parse_flag(multi_queue, "multi_queue")
        if queues > 1 and not multi_queue:
            raise ValueError(f"{queues} queues take a multi-queue interface")
        _refuse_unsupported(
            offload=offload or None, queues=multi_queue or None,
            quiet=quiet or None, packet_information=packet_information or None,
            persist=persist, owner=owner, group=group, tx_queue_len=tx_queue_len, netns=netns,
            metric=metric, dns=dns, peer_name=peer_name,
        )  # fmt: skip
        if "wintun" not in _core.capabilities():
            _refuse_unsupported(
                guid=guid, ring_capacity=ring_capacity, wintun=wintun, description=description,
                driver=driver, dhcp=dhcp,
            )  # fmt: skip
        guid_bytes = None if guid is None else _config.parse_guid(guid)
        if ring_capacity is not None:
            ring_capacity = _config.parse_ring_capacity(ring_capacity)
        libraries = _config.wintun_files(wintun)
        servers = None if dns is None else _config.parse_servers(dns)
        if description is not None:
            description = _config.parse_description(description)
        by_tap_driver = _config.parse_driver(driver, self._layer == _LAYER_TAP)
        lease = None if dhcp is None else _config.parse_lease(dhcp)
        if lease is not None:
            if not by_tap_driver:
                raise ValueError("Wintun has no DHCP: a TUN with dhcp takes driver='tap-windows6'")
            if any(entry.ip == lease[0] for entry in wanted):
                raise ValueError(f"address {ipaddress.ip_address(lease[0])} is given twice")

        flags = _OPEN_EXCLUSIVE * exclusive | _OPEN_PACKET_INFORMATION * packet_information
        flags |= _OPEN_VIRTIO_HEADER * has_offload | _OPEN_MULTI_QUEUE * multi_queue
        flags |= _OPEN_BY_TAP_DRIVER * by_tap_driver
        with _config.open_netns(netns) as netns_fd:
            created = self._open(
                name or "", self._layer, flags, netns_fd, peer_name or "",
                "\n".join(libraries), description or "", guid_bytes, ring_capacity or 0, lease,
            )  # fmt: skip
        self._packet_information = packet_information
        try:
            if has_offload:
                self._set("offload", wanted_offload)
                self._use_offload(self._layer == _LAYER_TAP, self._whole, not checksums)
            for _ in range(1, queues):
                self.add_queue()
            self._configure(
                created,
                mtu=mtu, tx_queue_len=tx_queue_len, mac=mac, quiet=quiet, addresses=wanted,
                up=True if up is None and created else up, owner=owner, group=group, persist=persist,
                metric=metric if "interface_metric" in _core.capabilities() else None, servers=servers,
            )  # fmt: skip
            if not created:
                self._await_link()
        except BaseException:
            self.close()
            raise

    def _await_link(self) -> None:
        """After an attach the kernel switches the link on a moment later, and drops packets until then."""
        deadline = time.monotonic() + LINK_PATIENCE
        while self.is_up and not self.is_running and time.monotonic() < deadline:
            time.sleep(0.005)

    def _configure(
        self,
        created: bool,
        *,
        mtu: int | None,
        tx_queue_len: int | None,
        mac: bytes | None,
        quiet: bool,
        addresses: list[AddressEntry],
        up: bool | None,
        owner: int | None,
        group: int | None,
        persist: bool | None,
        metric: int | None,
        servers: list[bytes] | None,
    ) -> None:
        """Apply the settings in order, or none of them.

        What was made here goes with its descriptor; on an interface that was there, every step
        taken is taken back.
        """
        with contextlib.ExitStack() as undo:

            def change(setting: str, value: int | None) -> None:
                if value is None:
                    return
                before = -1 if created else self._get(setting)
                if value != before:
                    self._set(setting, value)
                    if before >= 0:
                        undo.callback(self._set, setting, before)

            if mtu is not None and not created:
                self._check_addresses_survive(mtu)
            change("mtu", mtu)
            change("tx_queue_len", tx_queue_len)
            change("interface_metric", metric)
            if mac is not None:
                before = self._get_mac()
                if mac != before:
                    self._set_mac(mac)
                    undo.callback(self._set_mac, before)
            change("quiet", quiet or None)
            if addresses:
                _config.check_ipv6_mtu(addresses, self.mtu)
                present = {entry.key for entry in self._entries()}
                for entry in addresses:
                    if entry.key not in present:
                        self._add(entry)
                        undo.callback(self._remove, entry)
            if servers is not None:
                servers_before = self._get_dns()
                if servers != servers_before:
                    self._set_dns(servers)
                    undo.callback(self._set_dns, servers_before)
            change("up", up)
            # Last, because Linux cannot take an owner away again.
            change("owner", owner)
            change("group", group)
            change("persist", persist)
            undo.pop_all()

    @classmethod
    def from_fd(
        cls: type[_D], fd: int, owned: bool = True, *,
        offload: bool | Literal["superpackets"] | None = None, checksums: bool = True,
    ) -> _D:  # fmt: skip
        """Adopt the descriptor of a TUN/TAP device, or of a datagram socket that carries packets.

        Parameters
        ----------
        fd : int
            From Android's VpnService, a privileged helper, or ``socket.socketpair()``.
        owned : bool, optional
            True: close() closes it, and it is made non-blocking.  False: it is borrowed; it is
            never closed and none of its flags is changed.
        offload : bool or str, optional
            How to treat super-packets, as when a device is opened, if packets have a virtio-net
            header.  A TUN/TAP descriptor says so itself (None is True then); of a socket it must be
            said.  What was negotiated with the kernel stays.
        checksums : bool, optional
            As when a device is opened.

        Raises
        ------
        ClosedError
            The descriptor is not open.
        UnsupportedError
            It is neither.
        ValueError
            It is a TAP adopted as a TUN, or the reverse, or `offload` is not what the descriptor is.
        """
        if not cls._layer:
            raise TypeError("adopt it as a Tun or a Tap")
        fd = _config.parse_integer(fd, "fd", 0, 2**31 - 1)
        owned = _config.parse_flag(owned, "owned")
        checksums = _config.parse_flag(checksums, "checksums")
        has_offload, whole = _config.parse_offload(False if offload is None else offload)
        device = cls.__new__(cls)
        layer = device._adopt(fd, cls._layer)
        if layer not in (0, cls._layer):
            device.close()
            other = "Tap" if layer == _LAYER_TAP else "Tun"
            raise ValueError(f"descriptor {fd} is a {other.upper()}: use {other}.from_fd()")
        if layer == 0 and has_offload:
            device._put_virtio_header()
        framed = device._has_virtio_header()
        if layer and offload is not None and has_offload != framed:
            device.close()
            raise ValueError(f"descriptor {fd} was made with{'' if framed else 'out'} a virtio-net header")
        if framed:
            device._whole = whole
            device._use_offload(cls._layer == _LAYER_TAP, whole, not checksums)
        if owned:
            device._own()
        return device

    @property
    def name(self) -> str:
        """str: Name of the interface as it is now; settable (rename)."""
        return self._get_name()

    @name.setter
    def name(self, name: str) -> None:
        name = _config.parse_name(name)
        if "%" in name:
            raise ValueError(f"a rename takes a whole name, not a pattern: {name!r}")
        self._set_name(name)

    @property
    def index(self) -> int:
        """int: Index of the interface."""
        return self._get("index")

    @property
    def mtu(self) -> int:
        """int: Bytes of the largest packet, on a TAP without the Ethernet header; settable."""
        return self._get("mtu")

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        mtu = self._parse_mtu(mtu)
        self._check_addresses_survive(mtu)
        self._set("mtu", mtu)

    def _check_addresses_survive(self, mtu: int) -> None:
        """Below the MTU of IPv6 the kernel drops the IPv6 addresses without a word."""
        if mtu < _config.IPV6_MTU_MIN:
            _config.check_ipv6_mtu((entry for entry in self._entries() if not entry.automatic), mtu)

    def _parse_mtu(self, mtu: int) -> int:
        return _config.parse_integer(mtu, "mtu", _core.MTU_MIN, self._mtu_max)

    @property
    def mtu_v6(self) -> int:
        """int: The MTU of IPv6, where that is another one (Windows); settable.  `mtu` sets both."""
        return self._get("mtu_v6")

    @mtu_v6.setter
    def mtu_v6(self, mtu: int) -> None:
        self._set("mtu_v6", _config.parse_integer(mtu, "mtu_v6", _config.IPV6_MTU_MIN, self._mtu_max))

    @property
    def metric(self) -> int | None:
        """Int or None: Metric of the interface (Windows), None if the system chooses; settable."""
        return _none_if_negative(self._get("interface_metric"))

    @metric.setter
    def metric(self, metric: int | None) -> None:
        number = -1 if metric is None else _config.parse_integer(metric, "metric", 0, 2**32 - 1)
        self._set("interface_metric", number)

    @property
    def luid(self) -> int:
        """int: What Windows calls the interface (NET_LUID)."""
        return self._get("luid") & 2**64 - 1

    @property
    def driver_version(self) -> tuple[int, int]:
        """Tuple of int: Major and minor version of the driver (Windows)."""
        version = self._get("driver_version")
        return version >> 16, version & 0xFFFF

    @property
    def dns(self) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        """List of ipaddress addresses: Name servers to ask through this interface (Windows); settable."""
        return [ipaddress.ip_address(server) for server in self._get_dns()]

    @dns.setter
    def dns(self, servers: Iterable[AddressOnly]) -> None:
        self._set_dns(_config.parse_servers(servers))

    @property
    def is_up(self) -> bool:
        """bool: Whether the interface is administratively up; settable."""
        return bool(self._get("up"))

    @is_up.setter
    def is_up(self, up: bool) -> None:
        self._set("up", _config.parse_flag(up, "is_up"))

    def up(self) -> None:
        """Bring the interface up."""
        self._set("up", 1)

    def down(self) -> None:
        """Take the interface down: sends raise `LinkDownError`, receives wait until it is up."""
        self._set("up", 0)

    @property
    def is_running(self) -> bool:
        """bool: Whether the interface is operational (up, and its carrier present)."""
        return bool(self._get("running"))

    @property
    def carrier(self) -> bool:
        """bool: Whether the link has a carrier; settable, as pulling and plugging the cable."""
        return bool(self._get("carrier"))

    @carrier.setter
    def carrier(self, carrier: bool) -> None:
        self._set("carrier", _config.parse_flag(carrier, "carrier"))

    @property
    def tx_queue_len(self) -> int:
        """int: Packets the kernel keeps for us before it drops; settable."""
        return self._get("tx_queue_len")

    @tx_queue_len.setter
    def tx_queue_len(self, length: int) -> None:
        self._set("tx_queue_len", _config.parse_queue_len(length))

    @property
    def persist(self) -> bool:
        """bool: Whether the interface stays after close; settable."""
        return bool(self._get("persist"))

    @persist.setter
    def persist(self, persist: bool) -> None:
        self._set("persist", _config.parse_flag(persist, "persist"))

    @property
    def owner(self) -> int | None:
        """Int or None: User id that may attach without further rights; settable, also by name."""
        return _none_if_negative(self._get("owner"))

    @owner.setter
    def owner(self, owner: int | str) -> None:
        self._set("owner", _config.parse_user(owner))

    @property
    def group(self) -> int | None:
        """Int or None: Group id that may attach without further rights; settable, also by name."""
        return _none_if_negative(self._get("group"))

    @group.setter
    def group(self, group: int | str) -> None:
        self._set("group", _config.parse_group(group))

    @property
    def stats(self) -> Statistics:
        """Statistics: Counters of the interface."""
        return Statistics(*self._get_statistics())

    @property
    def capabilities(self) -> frozenset[str]:
        """Frozenset of str: Settings this operating system can change or tell."""
        return _core.capabilities()

    @property
    def queues(self) -> tuple[Queue, ...]:
        """Tuple of Queue: What receives and sends, at best each in a thread of its own.

        The first is the device itself.  The kernel remembers which queue a flow was last sent
        through, and hands its packets over on the same; a flow it does not know goes by a hash.
        """
        return (self, *self._others())

    def _others(self) -> tuple[Queue, ...]:
        """The queues beside the first, as they are at this moment: other threads add and close some."""
        return tuple((self._queues or {}).copy())  # copied first: that is atomic, iteration is not

    def add_queue(self) -> Queue:
        """Open one more queue; the device must have been opened with ``multi_queue=True`` or several.

        Returns
        -------
        Queue
            It closes with the device, or by its own close().

        Raises
        ------
        DeviceBusyError
            The interface has a single queue, or as many as the kernel allows.
        ClosedError
            The device was closed or shut down, perhaps while the queue was being opened.
        """
        queue = self._queue_type()
        queue._layer, queue._overhead = self._layer, self._overhead
        queue._whole, queue._packet_information = self._whole, self._packet_information
        queue._open_queue(self)
        queue._queues = vars(self).setdefault("_queues", {})
        queue._queues[queue] = None
        try:
            # A close() or shutdown() in the meantime has not seen this queue.
            self._must_be_open()
        except ClosedError:
            queue.close()
            raise
        return queue

    @property
    def offload(self) -> frozenset[str]:
        """Frozenset of str: Of "checksum", "tcp4", "tcp6" and "udp", what is in use; settable.

        A kind of super-packet that the kernel refuses to take is switched off by itself.  Setting
        what the kernel does not offer raises `UnsupportedError`.
        """
        bits = self._get_offload()
        return frozenset(name for name, bit in _core.OFFLOADS.items() if bits & bit)

    @offload.setter
    def offload(self, offload: Iterable[str]) -> None:
        wanted = _config.parse_offload_names(offload)
        self._set_offload(sum(_core.OFFLOADS[name] for name in wanted))
        missing = wanted - self.offload
        if missing:
            raise UnsupportedError(
                errno.EOPNOTSUPP, f"the kernel does not offer {', '.join(sorted(missing))}"
            )

    # --- events ---

    def events(self) -> Events:
        """What happens to the interface from now on, whoever does it: link, MTU, name, addresses, deletion.

        Returns
        -------
        Events
            An iterator over `LinkEvent`, for one thread; each has its own view, and any number may be had.
        """
        return Events(self)

    def _watch(self) -> _core.Watcher:
        return _core.Watcher(self)

    # --- addresses ---

    @property
    def addresses(self) -> list[Interface]:
        """List of ipaddress interfaces: Every address, each with its `peer` or None; settable."""
        return [entry.interface for entry in self._entries()]

    @addresses.setter
    def addresses(self, addresses: Iterable[AddressLike]) -> None:
        self.set_addresses(addresses)

    def add_address(self, address: AddressLike) -> None:
        """Add one address, in any of the forms that `addresses` takes.

        Raises
        ------
        DeviceBusyError
            The interface has it already.
        """
        entry = _config.parse_address(address)
        _config.refuse_unusable(entry)
        if len(entry.ip) == 16:
            _config.check_ipv6_mtu([entry], self.mtu)
        self._add(entry)

    def remove_address(self, address: AddressLike) -> None:
        """Remove one address; without a prefix, whatever prefix it has.

        Addresses of the same subnet stay, although the kernel removes them with their primary.

        Raises
        ------
        TunTapError
            The interface has no such address (EADDRNOTAVAIL).
        """
        wanted = _config.parse_address(address)
        bare = "/" not in str(address) and wanted.peer is None
        for entry in self._entries():
            if entry.ip == wanted.ip if bare else entry.key == wanted.key:
                self._remove(entry)
                return
        code = errno.EADDRNOTAVAIL
        raise TunTapError(
            code, f"the interface has no address {wanted.interface}; see `addresses`", self.name
        )

    def set_addresses(self, addresses: Iterable[AddressLike]) -> None:
        """Replace all addresses, or none if one is refused.

        Addresses that stay are not touched, nor is the link-local one that the kernel made.
        """
        wanted = _config.parse_addresses(addresses)
        present = {entry.key: entry for entry in self._entries()}
        new = [entry for entry in wanted if entry.key not in present]
        for entry in new:
            _config.refuse_unusable(entry)
        if wanted:
            _config.check_ipv6_mtu(wanted, self.mtu)
        keep = {entry.key for entry in wanted}
        old = [entry for entry in present.values() if entry.key not in keep and not entry.automatic]
        # The new ones come first, so that one that is refused leaves everything as it was; only where
        # an address cannot be there twice does one whose prefix or peer changes make room for itself.
        with contextlib.ExitStack() as undo:
            for entry in new:
                try:
                    self._add(entry)
                except TunTapError:
                    in_the_way = [other for other in old if other.ip == entry.ip]
                    if not in_the_way:
                        raise
                    for other in in_the_way:
                        old.remove(other)
                        self._remove(other)
                        undo.callback(self._add, other)
                    self._add(entry)
                undo.callback(self._remove, entry)
            undo.pop_all()
        for entry in old:
            self._remove(entry)

    def _entries(self) -> list[AddressEntry]:
        return [AddressEntry(*entry) for entry in self._get_addresses()]

    def _add(self, entry: AddressEntry) -> None:
        """Add an address read from an interface as it was, one that was asked for as settings say."""
        ethernet = self._layer == _LAYER_TAP and len(entry.ip) == 4 and entry.peer is None
        if ethernet and entry.broadcast is None and entry.prefix < 31:
            entry = entry._replace(broadcast=entry.interface.network.broadcast_address.packed)
        self._add_address(
            entry.ip, entry.prefix, entry.peer, entry.broadcast,
            entry.route and self._route, entry.metric or self._metric,
        )  # fmt: skip

    def _remove(self, entry: AddressEntry) -> None:
        """Remove one address alone: with the first of a subnet the kernel removes the others of it."""
        others = [
            other
            for other in self._entries()
            if len(entry.ip) == len(other.ip) == 4
            and other.key != entry.key
            and other.interface.network == entry.interface.network
        ]
        self._remove_address(*entry.key)
        left = {other.key for other in self._entries()} if others else set()
        for other in others:
            if other.key not in left:
                self._add(other)

    # --- routes ---

    def add_route(
        self, network: NetworkLike, gateway: AddressOnly | None = None, *, metric: int | None = None
    ) -> None:
        """Send what is for a network through this interface; the route goes with it.

        Addresses bring the routes to their subnets along: this is for others.  The interface has to be up.

        Parameters
        ----------
        network : str or ipaddress network
            ``"10.1.0.0/16"``, ``"::/0"``.
        gateway : str or ipaddress address, optional
            Who takes it from there; None: whoever is in the network is on the link, as on a TUN.
        metric : int, optional
            Of the route, for the system to choose among several.

        Raises
        ------
        DeviceBusyError
            There is such a route.
        LinkDownError
            The interface is down (Linux).
        UnsupportedError
            macOS and the BSDs.
        """
        entry = _config.parse_route(network, gateway)
        number = 0 if metric is None else _config.parse_integer(metric, "metric", 0, 2**32 - 1)
        self._change_route(True, *entry, number)

    def remove_route(self, network: NetworkLike, gateway: AddressOnly | None = None) -> None:
        """Take back what `add_route` was told with the same network and gateway.

        Raises
        ------
        TunTapError
            There is no such route.
        """
        self._change_route(False, *_config.parse_route(network, gateway), 0)

    @property
    def broadcast(self) -> ipaddress.IPv4Address | None:
        """IPv4Address or None: Broadcast address of the first IPv4 address; settable."""
        for entry in self._entries():
            if len(entry.ip) == 4:
                return None if entry.broadcast is None else ipaddress.IPv4Address(entry.broadcast)
        return None

    @broadcast.setter
    def broadcast(self, broadcast: str | ipaddress.IPv4Address) -> None:
        if not isinstance(broadcast, (str, ipaddress.IPv4Address)):
            raise TypeError(f"a broadcast address is a str or an IPv4Address, not {broadcast!r}")
        packed = ipaddress.IPv4Address(broadcast).packed
        others = [entry for entry in self._entries() if len(entry.ip) == 4][1:]
        self._set_broadcast(packed)
        # The kernel takes the address off and on again: it comes last, and its subnet is gone.
        for entry in others:
            if any(entry.key == present.key for present in self._entries()):
                self._remove_address(*entry.key)
            self._add(entry)

    @property
    def mac(self) -> str:
        """str: MAC address of a TAP; settable there."""
        if self._layer != _LAYER_TAP:
            raise UnsupportedError(errno.EOPNOTSUPP, "a TUN has no MAC address")
        return _config.format_mac(self._get_mac())

    @mac.setter
    def mac(self, mac: str | bytes) -> None:
        if self._layer != _LAYER_TAP:
            raise UnsupportedError(errno.EOPNOTSUPP, "a TUN has no MAC address")
        self._set_mac(_config.parse_mac(mac))

    # --- packets ---

    # What ends a device ends each of its queues.

    def interrupt(self) -> None:
        super().interrupt()
        for queue in self._others():
            queue.interrupt()

    def shutdown(self) -> None:
        super().shutdown()
        for queue in self._others():
            queue.shutdown()

    def close(self) -> None:
        super().close()  # first: from now on add_queue() adds none
        for queue in self._others():
            queue.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._label!r}{' closed' if self.closed else ''}>"

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        # The names of this module may be gone when the interpreter ends.
        if not self.closed:
            _warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()


def delete_driver(wintun: str | os.PathLike[str] | None = None) -> None:
    """Remove Wintun's driver from Windows, as an uninstaller does; the next TUN installs it again.

    Parameters
    ----------
    wintun : str or path, optional
        Where ``wintun.dll`` is, as for `Tun`.

    Raises
    ------
    TunTapError
        An adapter of it is there, of this program or of another.
    UnsupportedError
        Other operating systems bring their drivers along.
    """
    _core.delete_driver("\n".join(_config.wintun_files(wintun)))


def _none_if_negative(number: int) -> int | None:
    return None if number < 0 else number


def _refuse_unsupported(**settings: object) -> None:
    capabilities = _core.capabilities()
    for setting, value in settings.items():
        if value is not None and setting not in capabilities:
            raise UnsupportedError(errno.EOPNOTSUPP, f"{setting} means nothing on this operating system")


class Tun(Device):
    __doc__ = (
        "A TUN interface: IP packets without a link-layer header.\n"
        + (Device.__doc__ or "").partition("\n")[2]
    )
    _layer = _LAYER_TUN


class Tap(Device):
    __doc__ = "A TAP interface: Ethernet frames.\n" + (Device.__doc__ or "").partition("\n")[2]
    _layer = _LAYER_TAP
    _mtu_max = _config.TAP_MTU_MAX
    _overhead = 18  # Ethernet header and one VLAN tag
