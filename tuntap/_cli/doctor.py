"""`tuntap doctor`: what works here, and what to type where something does not.

Run as a module of its own it is the probe, a child process that enters a private network and opens
devices in it, so that no interface of this machine is touched.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import tuntap
from tuntap import DeviceBusyError, Tap, Tun, TunTapError, _core, testing
from tuntap._cli import alone

_NODE = "/dev/net/tun"
_NODE_NUMBERS = (10, 200)  # Documentation/admin-guide/devices.txt
_MAKE_NODE = (
    f"sudo mkdir -p /dev/net && sudo mknod {_NODE} c {_NODE_NUMBERS[0]} {_NODE_NUMBERS[1]} "
    f"&& sudo chmod 666 {_NODE}"
)
_CONTAINER = f"in a container: docker run --device {_NODE} --cap-add NET_ADMIN ..."
_CAP_NET_ADMIN = 12  # linux/capability.h
_IMPOSSIBLE_NAME = "/"
_LAYER_TUN = 3
_OPEN_EXCLUSIVE = 1
_PROBE_SECONDS = 30.0


@dataclass
class Check:
    """One line of the report."""

    mark: str  # "ok", "warn" or "FAIL"
    text: str
    fixes: list[str] = field(default_factory=list)  # each does; what to type

    def show(self) -> None:
        print(f"{self.mark:<5} {self.text}")
        for fix in self.fixes:
            print(f"      -> {fix}")
        sys.stdout.flush()


def run() -> int:
    """Print the report; 0 if a device can be opened here without more ado, else 1."""
    Check("ok", f"tuntap {tuntap.__version__}, Python {platform.python_version()}, {_system()}").show()
    if platform.system() != "Linux":
        return _run_elsewhere()
    capability = _check_capability()
    capability.show()
    works = _report_device_file() and _report_rights(capability)
    for check in _check_private_network():
        check.show()
    _check_ipv6().show()
    if works:
        print("A device can be opened: `tuntap demo` shows one at work.")
    else:
        print("No device can be opened yet.  Of the arrows below a line type one, then ask the doctor again.")
        print("`tuntap demo` works all the same, if need be with devices in memory.")
    return 0 if works else 1


def _system() -> str:
    return f"{platform.system()} {platform.release()} ({platform.machine()})"


def _run_elsewhere() -> int:
    capabilities = _core.capabilities()
    if not capabilities & {"tun", "tap"}:
        advice = "Tun.from_fd() adopts a descriptor, tuntap.testing.pair() works in memory"
        Check("FAIL", f"tuntap opens no devices on {platform.system()}", [advice]).show()
        return 1
    Check("ok", f"supported on {platform.system()}: {', '.join(sorted(capabilities))}").show()
    return 0


# --- the device file ---


def _report_device_file() -> bool:
    """Whether the device file can be opened."""
    for check_one in (_check_node, _check_opening):
        check = check_one()
        check.show()
        if check.mark == "FAIL":
            return False
    return True


def _check_node() -> Check:
    """Whether the device file is there and is what it should be."""
    path = Path(_NODE)
    was_missing = not path.exists()
    if was_missing:
        with contextlib.suppress(TunTapError):
            tuntap.features()  # who may make the file makes it by opening a device
    try:
        found = path.stat()
    except OSError as error:
        text = f"{_NODE}: {error.strerror}; the kernel module is not loaded, or this is a container"
        return Check("FAIL", text, ["sudo modprobe tun", _MAKE_NODE, _CONTAINER])
    numbers = (os.major(found.st_rdev), os.minor(found.st_rdev))
    if not stat.S_ISCHR(found.st_mode) or numbers != _NODE_NUMBERS:
        text = f"{_NODE} is there, but it is not the TUN device (character device 10, 200)"
        return Check("FAIL", text, [f"sudo rm -r {_NODE}; {_MAKE_NODE}"])
    state = "was missing and has been made" if was_missing else "is there"
    return Check("ok", f"{_NODE} {state}, mode {stat.S_IMODE(found.st_mode):04o}")


def _check_opening() -> Check:
    """Whether this user may open the device file; opening it makes no interface."""
    user = f"user {_user()} (uid {os.geteuid()})"
    try:
        os.close(os.open(_NODE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        fixes = {
            errno.EACCES: [f"sudo chmod 666 {_NODE}"],
            errno.EPERM: [_CONTAINER],  # the container's device list forbids it
        }.get(error.errno or 0, ["sudo modprobe tun", _CONTAINER])
        return Check("FAIL", f"{user} cannot open {_NODE}: {error.strerror}", fixes)
    return Check("ok", f"{user} may open {_NODE}")


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "without a name"


# --- rights and features, in the network we are in ---


def _report_rights(capability: Check) -> bool:
    """Whether a device can be opened: made anew, or attached to as its owner."""
    creating = _check_creating()
    if creating.mark == "FAIL" and not capability.fixes:
        creating.fixes = _rights()  # it is for another network than this one
    attachable = _attachable() if creating.mark == "FAIL" else []
    if attachable:
        creating.mark = "warn"
    creating.show()
    if attachable:
        Check("ok", f"this user may attach to: {', '.join(attachable)}").show()
    _check_features().show()
    return creating.mark != "FAIL"


def _check_capability() -> Check:
    """Whether the process has CAP_NET_ADMIN at all (the kernel may still want more)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            if int(value, 16) >> _CAP_NET_ADMIN & 1:
                return Check("ok", "this process has the capability CAP_NET_ADMIN")
            return Check("warn", f"this process has no CAP_NET_ADMIN (CapEff {value.strip()})", _rights())
    return Check("warn", "the kernel does not tell the capabilities of this process", _rights())


def _check_creating() -> Check:
    """Whether we may make an interface here, found out without making one.

    The kernel looks at the rights before it looks at the name: asked for an impossible name, it
    refuses the one or the other.
    """
    port = _core.Port()
    try:
        port._open(_IMPOSSIBLE_NAME, _LAYER_TUN, _OPEN_EXCLUSIVE, -1)
    except DeviceBusyError:
        return Check("ok", "interfaces can be made in this network")
    except TunTapError as error:
        what = str(error.strerror).partition("; ")[0]
        return Check("FAIL", f"interfaces cannot be made in this network: {what}")
    port.close()
    return Check("ok", "interfaces can be made in this network")


def _rights() -> list[str]:
    """The ways to the right to make an interface."""
    ourselves = f"{shlex.quote(sys.executable)} -m tuntap"
    interpreter = shlex.quote(os.path.realpath(sys.executable))
    return [
        f"sudo {ourselves} add tun0 --owner {_user()} --address 10.0.0.1/24   (then open 'tun0' as yourself)",
        f"sudo setcap cap_net_admin+ep {interpreter}   (for every program it runs)",
        "sudo YOUR-PROGRAM",
        _CONTAINER,
    ]


def _attachable() -> list[str]:
    """Interfaces to which this user may attach without further rights."""
    found = []
    for name in tuntap.interfaces():
        with Tun.__new__(Tun) as device:
            try:
                device._inspect(name)
                owner, group = device.owner, device.group
            except TunTapError:
                continue  # it has just gone
        if _may_attach(owner, group):
            found.append(name)
    return found


def _may_attach(owner: int | None, group: int | None) -> bool:
    """As drivers/net/tun.c decides: what is set has to fit, and what is not set fits everybody."""
    return owner in (None, os.geteuid()) and group in (None, os.getegid(), *os.getgroups())


def _check_features() -> Check:
    try:
        found = tuntap.features()
    except TunTapError as error:
        return Check("warn", f"the kernel does not tell its features: {error.strerror}")
    missing = {"tun", "tap", "multi_queue", "virtio_header"} - found
    text = f"features of the kernel: {', '.join(sorted(found))}"
    if not missing:
        return Check("ok", text)
    return Check("warn", f"{text}; missing: {', '.join(sorted(missing))}", ["use a newer kernel"])


# --- a private network, tried in a child process ---


class _Probe(NamedTuple):
    """What the probe found; each of the three None, or why it failed."""

    by_user_namespace: bool
    network: str | None
    tun: str | None = None
    tap: str | None = None


def _check_private_network() -> Iterator[Check]:
    """Whether `tuntap.testing.private_network` works, and devices in it."""
    try:
        found = _Probe(**json.loads(alone.output_of("tuntap._cli.doctor", timeout=_PROBE_SECONDS)))
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        yield Check("warn", f"a private network could not be tried, no child process: {error}")
        return
    if found.network is not None:
        what = found.network.partition("; ")[0]
        yield Check("warn", f"no private network for tests and demo: {what}", _namespace_fixes())
        return
    way = (
        "through a user namespace, which gives CAP_NET_ADMIN in it" if found.by_user_namespace else "directly"
    )
    yield Check("ok", f"a private network can be entered {way}")
    for kind, failure in (("TUN", found.tun), ("TAP", found.tap)):
        if failure is None:
            yield Check("ok", f"a {kind} was opened in a private network")
        else:
            what, _, advice = failure.partition("; ")
            yield Check(
                "FAIL", f"a {kind} cannot be opened in a private network: {what}", [advice] * bool(advice)
            )


def _namespace_fixes() -> list[str]:
    """The switches that forbid user namespaces, as they are set here."""
    fixes = []
    for path, forbids, setting in (
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ):
        file = Path("/proc/sys") / path
        if file.exists() and file.read_text().strip() == forbids:
            fixes.append(f"sudo sysctl -w {setting}")
    return fixes or ["in a container: docker run --cap-add SYS_ADMIN ..., or --privileged"]


def _probe() -> _Probe:
    """Enter a private network and open devices there; only in a process of its own."""
    before = os.readlink("/proc/self/ns/user")  # noqa: PTH115
    try:
        testing.private_network()
    except TunTapError as error:
        return _Probe(False, error.strerror)
    by_user_namespace = os.readlink("/proc/self/ns/user") != before  # noqa: PTH115
    failures: list[str | None] = []
    for kind in (Tun, Tap):
        try:
            kind(addresses=["10.0.0.1/24"]).close()
            failures.append(None)
        except TunTapError as error:
            failures.append(error.strerror)
    return _Probe(by_user_namespace, None, *failures)


# --- IPv6 ---


def _check_ipv6() -> Check:
    settings = Path("/proc/sys/net/ipv6/conf")
    if not settings.exists():
        text = "the kernel runs without IPv6: addresses such as fd00::1/64 will be refused"
        return Check("warn", text, ["remove ipv6.disable=1 from the kernel's command line"])
    off = [
        name for name in ("all", "default") if (settings / name / "disable_ipv6").read_text().strip() == "1"
    ]
    if off:
        fix = "sudo sysctl -w " + " ".join(f"net.ipv6.conf.{name}.disable_ipv6=0" for name in off)
        return Check("warn", "IPv6 is switched off for new interfaces", [fix])
    return Check("ok", "IPv6 is on")


if __name__ == "__main__":
    print(json.dumps(_probe()._asdict()))
