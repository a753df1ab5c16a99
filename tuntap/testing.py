"""For tests of programs that use tuntap: devices without rights, packets, and a slow checksum.

`pair` gives two connected devices in memory with the whole device API; `private_network` moves the
process to a network of its own, in which it may open real ones.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
import socket
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from tuntap import _core, aio
from tuntap._batch import PacketBatch, selection
from tuntap._config import AddressEntry, parse_offload
from tuntap._device import Device, Tap, Tun
from tuntap._errors import (
    DeviceBusyError,
    LinkDownError,
    PacketError,
    TunTapError,
    UnsupportedError,
)
from tuntap._turns import call

__all__ = [
    "checksum",
    "ethernet",
    "icmp_echo",
    "icmp_reply",
    "ip_packet",
    "pair",
    "private_network",
    "tcp",
    "udp",
]

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tuntap._core import AddressTuple, ChangeTuple, Event, Readable, Writable

_D = TypeVar("_D", bound=Device)
_M = TypeVar("_M", bound="_Memory")
_T = TypeVar("_T")

private_network = _core.private_network
_numbers = itertools.count(1)


class _MemoryWatcher:
    """What is told about a device in memory, as `_core.Watcher` tells it of a real one."""

    def __init__(self, device: _Memory) -> None:
        self._device = device
        self._changes: deque[ChangeTuple] = deque()
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
            weakref.finalize(self, end.close)  # no __del__: another thread could tell it in there

    def fileno(self) -> int:
        return self._reader.fileno()

    def tell(self, change: ChangeTuple) -> None:
        self._changes.append(change)
        self._signal()

    def _signal(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is readable
            self._writer.send(b"!")

    def next(self) -> ChangeTuple | None:
        self._device._must_be_open()
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(1 << 16)
        if not self._changes:
            return None
        change = self._changes.popleft()
        if self._changes:
            self._signal()
        return change


class _Memory(Device):
    """One end of a pair: packets go through a socket, settings live in a dict."""

    _lock: threading.RLock  # for what a kernel does in one piece; a signal handler may come in between
    _settings: dict[str, int]
    _watchers: list[weakref.ref[_MemoryWatcher]]
    _address_list: list[AddressEntry]
    _routes: set[tuple[bytes, int, bytes | None]]
    _counters: list[int]

    @classmethod
    def _make(
        cls: type[_M], fd: int, name: str, mtu: int, offload: bool | Literal["superpackets"]
    ) -> _M:  # fmt: skip
        device = cls.from_fd(fd, offload=offload)
        device._lock = threading.RLock()
        number = next(_numbers)
        device._settings = {
            "index": number, "mtu": mtu, "up": 1, "carrier": 1, "tx_queue_len": 500, "persist": 0,
            "owner": -1, "group": -1, "quiet": 0, "packet_information": 0,
            "attached": 1,
        }  # fmt: skip
        device._watchers = []
        device._address_list = []
        device._routes = set()
        device._counters = [0] * 8
        device._name = name
        device._mac_bytes = b"\x02\x00" + number.to_bytes(4, "big")
        return device

    # What a real device asks the kernel; a closed one answers as closed.

    def _require_open(self) -> None:
        if self.closed:
            super()._get("index")

    def _get(self, setting: str) -> int:
        self._require_open()
        if setting == "running":
            return self._settings["up"] & self._settings["carrier"]
        return self._settings[setting] if setting in self._settings else super()._get(setting)

    def _set(self, setting: str, value: int) -> None:
        self._require_open()
        if setting == "attached" or setting not in self._settings:
            super()._set(setting, value)
        else:
            with self._lock:
                self._settings[setting] = int(value)
                self._tell_link()

    def _watch(self) -> _MemoryWatcher:  # type: ignore[override]
        self._require_open()
        watcher = _MemoryWatcher(self)
        self._watchers.append(weakref.ref(watcher, self._watchers.remove))
        return watcher

    def _tell(self, change: ChangeTuple) -> None:
        for reference in self._watchers.copy():
            watcher = reference()
            if watcher is not None:
                watcher.tell(change)

    def _tell_link(self) -> None:
        self._tell(("link", self.is_up, self.is_running, self.mtu, self._name))

    def _get_name(self) -> str:
        self._require_open()
        return self._name

    def _set_name(self, name: str) -> None:
        self._require_open()
        with self._lock:
            self._name = name
            self._tell_link()

    def _get_mac(self) -> bytes:
        self._require_open()
        return self._mac_bytes

    def _set_mac(self, mac: bytes) -> None:
        self._require_open()
        self._mac_bytes = mac

    def _get_addresses(self) -> list[AddressTuple]:
        self._require_open()
        return [entry[:] for entry in self._address_list.copy()]

    def _add_address(
        self, ip: bytes, prefix: int, peer: bytes | None, broadcast: bytes | None, route: bool, metric: int
    ) -> None:
        self._require_open()
        entry = AddressEntry(ip, prefix, peer, broadcast, route, metric)
        with self._lock:
            if any(entry.key == other.key for other in self._address_list):
                raise DeviceBusyError(errno.EEXIST, "the interface has this address already", self._name)
            self._address_list.append(entry)
            self._tell(("added", entry[:]))

    def _remove_address(self, ip: bytes, prefix: int, peer: bytes | None) -> None:
        self._require_open()
        key = (ip, prefix, peer)
        with self._lock:
            for entry in self._address_list:
                if entry.key == key:
                    self._address_list.remove(entry)
                    self._tell(("removed", entry[:]))
                    return
        raise TunTapError(errno.EADDRNOTAVAIL, "the interface has no such address", self._name)

    def _change_route(
        self, adds: bool, network: bytes, prefix: int, gateway: bytes | None, metric: int
    ) -> None:  # fmt: skip
        self._require_open()
        route = network, prefix, gateway
        with self._lock:
            if adds and route in self._routes:
                raise DeviceBusyError(errno.EEXIST, "the interface has this route already", self._name)
            if not adds and route not in self._routes:
                raise TunTapError(errno.ESRCH, "the interface has no such route", self._name)
            self._routes ^= {route}

    def _set_broadcast(self, broadcast: bytes) -> None:
        self._require_open()
        with self._lock:
            for i, entry in enumerate(self._address_list):
                if len(entry.ip) == 4:
                    self._address_list[i] = entry._replace(broadcast=broadcast)
                    return
        raise TunTapError(errno.EADDRNOTAVAIL, "no IPv4 address to broadcast from", self._name)

    def _get_statistics(self) -> tuple[int, ...]:
        self._require_open()
        return tuple(self._counters)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()  # a thread of the parent may have held it
        super()._after_fork()

    # Packets: the compiled path of every device, with what a kernel would check in front of it.

    def _require_up(self) -> None:
        if not self.closed and not self._settings["up"]:
            raise LinkDownError(errno.EIO, "the interface is down: bring it up with up()", self._name)

    def _takes(self, first_byte: int) -> bool:
        return self._layer != Tun._layer or first_byte >> 4 in (4, 6)

    def _refusal(self) -> PacketError:
        return PacketError(errno.EINVAL, "a TUN takes IPv4 and IPv6 packets", self._name)

    def _count(self, first: int, packets: int, size: int) -> None:
        with self._lock:
            self._counters[first] += packets
            self._counters[first + 2] += size

    def recv(self, timeout: float | None = None, *, event: Event | None = None) -> bytes:
        packet = super().recv(timeout, event=event)
        if packet:
            self._count(1, 1, len(packet))
        return packet

    def recv_into(
        self, buffer: Writable, timeout: float | None = None, *, event: Event | None = None
    ) -> int:  # fmt: skip
        size = super().recv_into(buffer, timeout, event=event)
        self._count(1, size > 0, size)
        return size

    def recv_vectored(
        self, buffers: Sequence[Writable], timeout: float | None = None, *, event: Event | None = None
    ) -> int:
        size = super().recv_vectored(buffers, timeout, event=event)
        self._count(1, size > 0, size)
        return size

    def recv_batch(
        self, batch: _core.Slots, timeout: float | None = None, *, event: Event | None = None
    ) -> int:
        count = super().recv_batch(batch, timeout, event=event)
        if isinstance(batch, PacketBatch):
            self._count(1, count, int(batch.lengths[:count].sum()))
        return count

    def send(self, packet: Readable, timeout: float | None = None, *, event: Event | None = None) -> int:
        self._require_up()
        with contextlib.suppress(TypeError, ValueError):  # those are for the compiled path to refuse
            first = memoryview(packet).cast("B")[:1].tolist()  # type: ignore[arg-type]
            if first and not self.closed and not self._takes(first[0]):
                raise self._refusal()
        size = super().send(packet, timeout, event=event)
        self._count(0, size > 0, size)
        return size

    def send_batch(
        self, batch: _core.Slots, timeout: float | None = None, *,
        start: int = 0, stop: int | None = None, where: npt.ArrayLike | None = None,
        event: Event | None = None,
    ) -> int:  # fmt: skip
        order = None if where is None else selection(where, len(batch))
        stop = self._take_up_to(batch, start, stop, order)
        count = super().send_batch(batch, timeout, start=start, stop=stop, where=order, event=event)
        self._count_batch(batch, start, count, order)
        return count

    def _take_up_to(
        self, batch: _core.Slots, start: int, stop: int | None, order: npt.NDArray[np.int32] | None
    ) -> int | None:
        """Where a batch ends for this device: before the first packet that it does not take."""
        self._require_up()
        if isinstance(batch, PacketBatch) and not self.closed:
            count, lengths, first_bytes = batch.count, batch.lengths, batch.data[:, 0]
            if order is not None:
                count, lengths, first_bytes = order.size, lengths[order], first_bytes[order]
            last = count if stop is None else stop
            if 0 <= start < last <= lengths.size:
                lengths = lengths[start:last]
                right = bool(((lengths >= 1) & (lengths <= batch.slot_size)).all())
                bad = [i for i in range(start, last) if right and not self._takes(int(first_bytes[i]))]
                if bad and bad[0] == start:
                    raise self._refusal()
                return bad[0] if bad else last
        return stop

    def _count_batch(
        self, batch: _core.Slots, start: int, count: int, order: npt.NDArray[np.int32] | None
    ) -> None:
        if isinstance(batch, PacketBatch):
            lengths = batch.lengths if order is None else batch.lengths[order]
            self._count(0, count, int(lengths[start : start + count].sum()))


class MemoryTun(_Memory, Tun):
    """A TUN that exists in memory only."""


class MemoryTap(_Memory, Tap):
    """A TAP that exists in memory only."""


class _AsyncMemory(aio._AsyncDevice, _Memory):
    """Either, asynchronous."""

    def _call(
        self, path: int, timeout: float | None, method: Callable[..., _T], *arguments: object
    ) -> Coroutine[Any, Any, _T]:
        return call(self, path, timeout, method, self, *arguments, _core.NO_WAIT)

    def recv(  # type: ignore[override]
        self, timeout: float | None = None
    ) -> Coroutine[Any, Any, bytes]:
        return self._call(_core.RECV, timeout, _Memory.recv)

    def recv_into(  # type: ignore[override]
        self, buffer: Writable, timeout: float | None = None
    ) -> Coroutine[Any, Any, int]:
        return self._call(_core.RECV, timeout, _Memory.recv_into, buffer)

    def recv_vectored(  # type: ignore[override]
        self, buffers: Sequence[Writable], timeout: float | None = None
    ) -> Coroutine[Any, Any, int]:
        return self._call(_core.RECV, timeout, _Memory.recv_vectored, list(buffers))

    def recv_batch(  # type: ignore[override]
        self, batch: _core.Slots, timeout: float | None = None
    ) -> Coroutine[Any, Any, int]:
        return self._call(_core.RECV, timeout, _Memory.recv_batch, batch)

    def send(  # type: ignore[override]
        self, packet: Readable, timeout: float | None = None
    ) -> Coroutine[Any, Any, int]:
        return self._call(_core.SEND, timeout, _Memory.send, packet)

    def send_vectored(  # type: ignore[override]
        self, buffers: Sequence[Readable], timeout: float | None = None
    ) -> Coroutine[Any, Any, int]:
        return self.send(self._joined(buffers), timeout)

    async def send_batch(  # type: ignore[override]
        self, batch: _core.Slots, timeout: float | None = None, *,
        start: int = 0, stop: int | None = None, where: npt.ArrayLike | None = None,
    ) -> int:  # fmt: skip
        order = None if where is None else selection(where, len(batch))
        stop = self._take_up_to(batch, start, stop, order)
        count = await super().send_batch(batch, timeout, start=start, stop=stop, where=order)
        self._count_batch(batch, start, count, order)
        return count

    def _send_now(self, packet: Readable) -> int:
        return _Memory.send(self, packet, _core.NO_WAIT)


class AsyncMemoryTun(_AsyncMemory, aio.Tun, MemoryTun):
    """An asynchronous TUN that exists in memory only."""


class AsyncMemoryTap(_AsyncMemory, aio.Tap, MemoryTap):
    """An asynchronous TAP that exists in memory only."""


_KINDS: dict[type[Device], type[_Memory]] = {
    Tun: MemoryTun, Tap: MemoryTap, aio.Tun: AsyncMemoryTun, aio.Tap: AsyncMemoryTap,
}  # fmt: skip


@overload
def pair(
    *, mtu: int = 1500, names: tuple[str, str] = ..., offload: bool | Literal["superpackets"] = False
) -> tuple[Tun, Tun]: ...


@overload
def pair(
    kind: type[_D],
    *,
    mtu: int = 1500,
    names: tuple[str, str] = ...,
    offload: bool | Literal["superpackets"] = False,
) -> tuple[_D, _D]: ...


def pair(
    kind: type[Device] = Tun,
    *,
    mtu: int = 1500,
    names: tuple[str, str] = ("mem0", "mem1"),
    offload: bool | Literal["superpackets"] = False,
) -> tuple[Device, Device]:
    """Two connected devices in memory: what one sends the other receives.

    Parameters
    ----------
    kind : type, optional
        `Tun` or `Tap`, of `tuntap` or of `tuntap.aio`.
    mtu : int, optional
        Of both.
    names : tuple of str, optional
        Of the one and the other.
    offload : bool or str, optional
        As for a real device: what one coalesces the other splits.

    Returns
    -------
    tuple of Device
        Each with the whole device API: packets take the compiled path of a real device, settings
        are kept in memory.  Closing one end lets the other raise `DeviceGoneError`.

    Notes
    -----
    Unlike a kernel, which drops when its queue is full, a full pair lets send() wait, so that
    nothing is lost and time-outs of send() can be tested.
    """
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise UnsupportedError(errno.EOPNOTSUPP, "this system has no local datagram sockets")
    if kind not in _KINDS:
        raise TypeError(f"a pair is of Tun or Tap, of tuntap or of tuntap.aio, not {kind!r}")
    made = _KINDS[kind]
    parse_offload(offload)
    one, other = socket.socketpair(family, getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM))
    try:
        for end in (one, other):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        first = made._make(one.detach(), names[0], mtu, offload)
        return first, made._make(other.detach(), names[1], mtu, offload)
    finally:
        one.close()
        other.close()


def checksum(data: bytes, initial: int = 0) -> int:
    """The Internet checksum as RFC 1071 writes it down, word by word: slow and obvious."""
    total = initial
    for i in range(0, len(data) - 1, 2):
        total += data[i] << 8 | data[i + 1]
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return total ^ 0xFFFF


def ip_packet(source: str, destination: str, protocol: int, payload: bytes, *, ttl: int = 64) -> bytes:
    """An IPv4 or IPv6 packet around a payload.

    Parameters
    ----------
    source, destination : str
        Addresses of one family.
    protocol : int
        Of the payload: 1 ICMP, 6 TCP, 17 UDP, 58 ICMPv6.
    payload : bytes
        Everything behind the IP header.
    ttl : int, optional
        Time to live, or hop limit.
    """
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if a.version != b.version:
        raise ValueError(f"{source} and {destination} are of different families")
    if a.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl) + a.packed + b.packed + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, ttl, protocol, 0)
    header += a.packed + b.packed
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def _pseudo_header(source: str, destination: str, protocol: int, length: int) -> int:
    data = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    return sum(words) + protocol + length


def udp(source: str, destination: str, sport: int, dport: int, payload: bytes = b"") -> bytes:
    """A UDP datagram in its IP packet, checksums valid."""
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    initial = _pseudo_header(source, destination, 17, len(datagram))
    datagram = datagram[:6] + (checksum(datagram, initial) or 0xFFFF).to_bytes(2, "big") + datagram[8:]
    return ip_packet(source, destination, 17, datagram)


def tcp(
    source: str, destination: str, sport: int, dport: int, payload: bytes = b"",
    *, seq: int = 0, ack: int = 0, flags: int = 0x10, window: int = 65535,
) -> bytes:  # fmt: skip
    """A TCP segment without options in its IP packet, checksums valid."""
    segment = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, window, 0, 0) + payload
    initial = _pseudo_header(source, destination, 6, len(segment))
    segment = segment[:16] + checksum(segment, initial).to_bytes(2, "big") + segment[18:]
    return ip_packet(source, destination, 6, segment)


def icmp_echo(
    source: str, destination: str, identifier: int = 0, sequence: int = 0, payload: bytes = b"",
    *, reply: bool = False,
) -> bytes:  # fmt: skip
    """An ICMP or ICMPv6 echo request (or reply) in its IP packet, checksums valid."""
    version = ipaddress.ip_address(source).version
    protocol = 1 if version == 4 else 58
    kind = (0 if reply else 8) if version == 4 else (129 if reply else 128)
    message = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence) + payload
    initial = 0 if version == 4 else _pseudo_header(source, destination, protocol, len(message))
    message = message[:2] + checksum(message, initial).to_bytes(2, "big") + message[4:]
    return ip_packet(source, destination, protocol, message)


def icmp_reply(packet: Readable) -> bytes | None:
    """The answer to an ICMP or ICMPv6 echo request; None if the packet is none."""
    packet = bytes(packet)
    if len(packet) >= 28 and packet[0] >> 4 == 4:
        start = (packet[0] & 15) * 4
        source, destination = packet[12:16], packet[16:20]
        request = packet[9] == 1 and packet[start : start + 1] == b"\x08"
        end = int.from_bytes(packet[2:4], "big")
    elif len(packet) >= 48 and packet[0] >> 4 == 6:
        start = 40
        source, destination = packet[8:24], packet[24:40]
        request = packet[6] == 58 and packet[40] == 128
        end = 40 + int.from_bytes(packet[4:6], "big")
    else:
        return None
    if not request or not start + 8 <= end <= len(packet):
        return None
    identifier, sequence = struct.unpack_from("!HH", packet, start + 4)
    return icmp_echo(
        str(ipaddress.ip_address(destination)), str(ipaddress.ip_address(source)), identifier, sequence,
        bytes(packet[start + 8 : end]), reply=True,
    )  # fmt: skip


def ethernet(source: str, destination: str, payload: bytes, *, ethertype: int | None = None) -> bytes:
    """An Ethernet frame; the type of an IP payload is found by itself."""
    if ethertype is None:
        ethertype = 0x86DD if payload[:1] and payload[0] >> 4 == 6 else 0x0800
    macs = [bytes.fromhex(mac.replace(":", "")) for mac in (destination, source)]
    return macs[0] + macs[1] + ethertype.to_bytes(2, "big") + payload
