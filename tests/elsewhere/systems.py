"""The kernel of each system that has a core."""

from fake_bsd import FreeBSD, NetBSD, OpenBSD
from fake_macos import MacOS

BSDS = {"freebsd": FreeBSD, "openbsd": OpenBSD, "netbsd": NetBSD}
SYSTEMS = {**BSDS, "macos": MacOS}
