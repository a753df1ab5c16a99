"""The time of a call that consists of several."""

from __future__ import annotations

import time

from tuntap import _core


class Deadline:
    """When the timeout of a call, checked here, is over."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = _core.seconds(timeout)
        self._end = None if self.timeout is None else time.monotonic() + self.timeout

    def left(self) -> float | None:
        """What a call that is a part of this one gets for its timeout."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def has_passed(self) -> bool:
        """Whether time was given, and is over."""
        return bool(self.timeout) and self.left() == 0
