"""TUN and TAP interfaces, with packets in batches of numpy arrays."""

from importlib.metadata import PackageNotFoundError, version

from tuntap import bpf, capture, columns, flows, framed, interchange, offload
from tuntap._batch import PacketBatch
from tuntap._config import DhcpLease, Statistics
from tuntap._core import Event, delete, features, find_utun_fd, interfaces
from tuntap._device import Device, Queue, Tap, Tun, delete_driver
from tuntap._errors import (
    ClosedError,
    DeviceBusyError,
    DeviceGoneError,
    InterruptError,
    LinkDownError,
    PacketError,
    PrivilegeError,
    TunTapError,
    UnsupportedError,
)
from tuntap._events import Events, LinkEvent

try:
    __version__ = version("tuntap")
except PackageNotFoundError:  # imported from a source tree that is not installed
    __version__ = "0"

__all__ = [
    "ClosedError",
    "Device",
    "DeviceBusyError",
    "DeviceGoneError",
    "DhcpLease",
    "Event",
    "Events",
    "InterruptError",
    "LinkDownError",
    "LinkEvent",
    "PacketBatch",
    "PacketError",
    "PrivilegeError",
    "Queue",
    "Statistics",
    "Tap",
    "Tun",
    "TunTapError",
    "UnsupportedError",
    "bpf",
    "capture",
    "columns",
    "delete",
    "delete_driver",
    "features",
    "find_utun_fd",
    "flows",
    "framed",
    "interchange",
    "interfaces",
    "offload",
]
