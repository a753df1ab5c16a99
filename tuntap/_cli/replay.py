"""`tuntap replay`: sends the packets of a capture into an interface."""

from __future__ import annotations

import sys

from tuntap import Tap, Tun
from tuntap.capture import replay


def run(file: str, device: Tun | Tap, speed: float, loop: int | None) -> int:
    """Send them, and say on standard error what was sent."""
    done = replay(sys.stdin.buffer if file == "-" else file, device, speed=speed, loop=loop)
    dropped = f", {done.dropped} not sent" if done.dropped else ""
    print(
        f"{done.packets} packet{'s' * (done.packets != 1)}, {done.bytes} bytes in {done.seconds:.1f} s, "
        f"at most {done.lateness * 1000:.1f} ms late{dropped}",
        file=sys.stderr,
    )
    return 0
