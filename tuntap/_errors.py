"""The error hierarchy.

Every error is an ``OSError`` with ``errno`` set, and its message names the call that failed, the
interface, and what to do next.  This module imports nothing, so that the compiled core can raise
from it without looking upwards.
"""

__all__ = [
    "ClosedError",
    "DeviceBusyError",
    "DeviceGoneError",
    "InterruptError",
    "LinkDownError",
    "PacketError",
    "PrivilegeError",
    "TunTapError",
    "UnsupportedError",
]


class TunTapError(OSError):
    """Root of every error that tuntap raises from the operating system."""


class ClosedError(TunTapError):
    """The device was closed or shut down; open it anew."""


class InterruptError(TunTapError):
    """``interrupt()`` ended this call; nothing is lost, call again when ready."""


class DeviceGoneError(TunTapError):
    """The interface was deleted under the open device; close it and open anew."""


class LinkDownError(TunTapError):
    """The interface is down; bring it up with ``up()`` and send again."""


class UnsupportedError(TunTapError):
    """The operating system, kernel or kind of descriptor cannot do it; the message says why."""


class DeviceBusyError(TunTapError):
    """The name or the interface is in use by something else."""


class PrivilegeError(TunTapError, PermissionError):
    """The rights are missing; the message says how to get them."""


class PacketError(TunTapError):
    """One packet was refused, or did not fit its buffer; the device goes on working."""
