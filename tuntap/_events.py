"""What happens to an interface, as the operating system tells it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from tuntap._config import AddressEntry, Interface
from tuntap._deadline import Deadline
from tuntap._errors import ClosedError, DeviceGoneError

if TYPE_CHECKING:
    from tuntap._core import ChangeTuple
    from tuntap._device import Device

Kind = Literal[
    "up", "down", "running", "not_running", "mtu", "name", "address_added", "address_removed", "gone"
]  # fmt: skip


class LinkEvent(NamedTuple):
    """Something that happened to an interface.

    Attributes
    ----------
    kind : str
        "up", "down": somebody switched the interface on or off.  "running", "not_running": it became
        operational, or ceased to be.  "mtu", "name": it changed.  "address_added",
        "address_removed".  "gone": the interface was deleted; nothing comes after it.
    value : int, str, ipaddress interface or None
        The new MTU, the new name, the address.
    """

    kind: Kind
    value: int | str | Interface | None = None


class _Link(NamedTuple):
    up: bool
    running: bool
    mtu: int
    name: str


class EventSource:
    """What an iterator over events knows: the last state, and what has changed since and was not told yet."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._untold: deque[LinkEvent] = deque()
        self._is_gone = False
        self._must_look = False
        self._watcher = device._watch()
        self._link, self._addresses = self._look()

    def fileno(self) -> int:
        """A descriptor that is readable when something may have happened; it may change after each event.

        One notification may be several events: get them until `TimeoutError` before waiting on it.

        Returns
        -------
        int
        """
        return self._watcher.fileno()

    def _look(self) -> tuple[_Link, dict[object, Interface]]:
        device = self._device
        link = _Link(device.is_up, device.is_running, device.mtu, device.name)
        return link, {entry.key: entry.interface for entry in device._entries()}

    def _next(self) -> LinkEvent | None:
        """The next event, if there is one by now."""
        while not self._untold:
            if self._is_gone:
                self._device._get_name()  # raises what there is to say
            change: ChangeTuple | None = ("lost",) if self._must_look else self._watcher.next()
            if change is None:
                return None
            if change[0] == "link":
                self._note_link(_Link(*change[1:]))
            elif change[0] == "added" or change[0] == "removed":
                entry = AddressEntry(*change[1])
                self._note_address(entry.key, entry.interface, change[0] == "added")
            else:
                self._look_again()
        return self._untold.popleft()

    def _look_again(self) -> None:
        """The interface has left its namespace, or notifications were dropped.

        Those that still wait are older than what is seen now, and may be followed by none: they go with
        their watcher.
        """
        self._must_look = True  # also the next time, if this one fails
        try:
            self._device._get_name()
            self._watcher = self._device._watch()
            link, addresses = self._look()
        except DeviceGoneError:
            self._is_gone = True
            self._untold.append(LinkEvent("gone"))
            return
        self._must_look = False
        self._note_link(link)
        for key, interface in self._addresses.copy().items():
            if key not in addresses:
                self._note_address(key, interface, False)
        for key, interface in addresses.items():
            self._note_address(key, interface, True)

    def _note_link(self, link: _Link) -> None:
        before, self._link = self._link, link
        if link.name != before.name:
            self._untold.append(LinkEvent("name", link.name))
        if link.mtu != before.mtu:
            self._untold.append(LinkEvent("mtu", link.mtu))
        if link.up != before.up:
            self._untold.append(LinkEvent("up" if link.up else "down"))
        if link.running != before.running:
            self._untold.append(LinkEvent("running" if link.running else "not_running"))

    def _note_address(self, key: object, interface: Interface, is_there: bool) -> None:
        if is_there and key not in self._addresses:
            self._addresses[key] = interface
            self._untold.append(LinkEvent("address_added", interface))
        elif not is_there and self._addresses.pop(key, None) is not None:
            self._untold.append(LinkEvent("address_removed", interface))


class Events(EventSource):
    """Iterator over what happens to the interface of a device, from its making on.

    It ends when the device is closed or shut down, and after "gone".
    """

    def get(self, timeout: float | None = None) -> LinkEvent:
        """Wait for the next event.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; None waits for ever, 0 does not wait.

        Raises
        ------
        TimeoutError
            Nothing happened in time.
        DeviceGoneError
            The interface was deleted, and that was told already.
        ClosedError, InterruptError
            As for a receive.
        """
        deadline = Deadline(timeout)
        while (event := self._next()) is None:
            self._device._wait_beside(self._watcher.fileno(), deadline.left())
        return event

    def __iter__(self) -> Iterator[LinkEvent]:
        return self

    def __next__(self) -> LinkEvent:
        try:
            return self.get()
        except (ClosedError, DeviceGoneError):
            raise StopIteration from None
