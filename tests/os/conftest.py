"""What the Linux tests share: an independent witness (`ip -j`), users without rights, namespaces."""

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if sys.platform == "linux":
    import fcntl
else:
    collect_ignore_glob = ["test_linux_*.py"]

USER = 54321  # nobody's number


class Witness:
    """What iproute2 says and does; `netns` is the path of another network namespace."""

    def __call__(self, *arguments, netns=None):
        command = ["ip", *map(str, arguments)]
        if netns is not None:
            command = ["nsenter", f"--net={netns}", *command]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if result.returncode:
            raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()}")
        return result.stdout

    def ask(self, *arguments, netns=None):
        return json.loads(self("-j", *arguments, netns=netns) or "[]")

    def names(self, netns=None):
        """Every interface but the loopback."""
        return sorted(entry["ifname"] for entry in self.ask("link", netns=netns) if entry["ifname"] != "lo")

    def link(self, name, netns=None):
        """Everything about one interface, or None if there is none of that name."""
        try:
            return self.ask("-d", "-s", "link", "show", "dev", name, netns=netns)[0]
        except RuntimeError:
            return None

    def tun(self, name, netns=None):
        """What the driver says: type, pi, vnet_hdr, multi_queue, persist, user, group."""
        return self.link(name, netns)["linkinfo"]["info_data"]

    def is_up(self, name, netns=None):
        return "UP" in self.link(name, netns)["flags"]

    def address_entries(self, name, netns=None):
        """Every address; that the link-local one is not tentative any more is no change of ours."""
        entries = self.ask("addr", "show", "dev", name, netns=netns)[0]["addr_info"]
        for entry in entries:
            if entry["scope"] == "link":
                entry.pop("tentative", None)
        return entries

    def addresses(self, name, netns=None):
        """'10.0.0.1/24' or '10.0.0.1 peer 10.0.0.2/32', in order, without IPv6 link-local ones."""
        found = []
        for entry in self.address_entries(name, netns):
            if entry["scope"] == "link" and entry["family"] == "inet6":
                continue
            peer = f" peer {entry['address']}" if "address" in entry else ""
            found.append(f"{entry['local']}{peer}/{entry['prefixlen']}")
        return found

    def routes(self, name, netns=None):
        """Routes of both families through an interface in the main table: {destination: metric}."""
        return {
            entry["dst"]: entry.get("metric", 0)
            for family in ("-4", "-6")
            for entry in self.ask(family, "route", "show", "dev", name, netns=netns)
            if not entry["dst"].startswith(("fe80:", "ff00:", "multicast"))
        }

    def state(self, name, netns=None):
        """All that an attach must leave alone.

        Not the carrier, which comes with a queue, nor the link-local address that the kernel makes
        when there is one.
        """
        link = self.link(name, netns)
        addresses = self.address_entries(name, netns)
        info = {k: v for k, v in link["linkinfo"]["info_data"].items() if k not in ("pi", "vnet_hdr")}
        return {
            "mtu": link["mtu"], "txqlen": link["txqlen"], "up": "UP" in link["flags"],
            "index": link["ifindex"],
            "mac": link.get("address"), "quiet": link.get("inet6_addr_gen_mode") == "none", "tun": info,
            "addresses": [entry for entry in addresses if entry["scope"] != "link"],
            "routes": self.routes(name, netns),
        }  # fmt: skip


@pytest.fixture
def ip(net):
    return Witness()


@pytest.fixture
def make_persistent(ip):
    """Interfaces that another program made: `make_persistent("p0", "tun", "user", 1000)`."""
    made = []

    def make(name="p0", mode="tun", *options, up=False, netns=None):
        ip("tuntap", "add", "dev", name, "mode", mode, *options, netns=netns)
        made.append((name, mode, netns))
        if up:
            ip("link", "set", name, "up", netns=netns)
        return name

    yield make
    for name, _, netns in made:
        if (netns is None or os.path.exists(netns)) and ip.link(name, netns) is not None:
            ip("link", "del", name, netns=netns)


def _run_child(function, user, groups):
    os.setgroups(groups[1:])
    os.setresgid(*[groups[0]] * 3)
    os.setresuid(*[user] * 3)
    effective = [line for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line]
    assert int(effective[0].split()[1], 16) == 0, "the child kept capabilities"
    return function()


@pytest.fixture
def as_user(net):
    """Run a function in a child that is an ordinary user; its result, or its failure, is the test's."""

    def run(function, user=USER, groups=(USER,)):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(reader)
                try:
                    answer = {"value": _run_child(function, user, list(groups))}
                    status = 0
                except BaseException:
                    answer = {"failure": traceback.format_exc()}
                with os.fdopen(writer, "w") as stream:
                    json.dump(answer, stream)
            finally:
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader) as stream:
            text = stream.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer = json.loads(text) if text else {"failure": "the child said nothing"}
        if status or "failure" in answer:
            pytest.fail(f"in the child (exit {status}):\n{answer.get('failure')}")
        return answer["value"]

    if not _can_change_user():
        pytest.skip("this user cannot become another one: run the tests as root")
    return run


def _can_change_user():
    """Whether other user ids exist here; in a user namespace of an ordinary user none do."""
    lines = Path("/proc/self/uid_map").read_text().split()
    return os.geteuid() == 0 and int(lines[2]) > USER


@pytest.fixture
def strangers(net):
    """A user and a group that may own an interface; in a user namespace there are only our own."""
    return (USER, USER + 1) if _can_change_user() else (0, 0)


@pytest.fixture
def mount(net):
    """Mount something for the length of the test; the process has a mount namespace of its own."""
    done = []

    def do(*arguments):
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
        done.append(arguments[-1])

    yield do
    for where in reversed(done):
        subprocess.run(["umount", "--lazy", where], check=True, capture_output=True)


@pytest.fixture
def empty_dev_net(mount):
    """/dev/net without a node in it."""
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/dev/net")
    return Path("/dev/net")


@pytest.fixture
def may_make_nodes(empty_dev_net):
    """Whether device nodes can be made here; in a user namespace they cannot."""
    node = empty_dev_net / "probe"
    try:
        os.mknod(node, 0o020666, os.makedev(10, 200))
    except PermissionError:
        return False
    node.unlink()
    return True


@pytest.fixture
def public_dev_net(empty_dev_net, may_make_nodes):
    """/dev/net/tun as udev makes it: anybody may open it."""
    if not may_make_nodes:
        pytest.skip("no device node can be made here: run the tests as root")
    node = empty_dev_net / "tun"
    os.mknod(node, 0o020666, os.makedev(10, 200))
    node.chmod(0o666)
    return node


class Raw:
    """tun.c as another program drives it."""

    TUN, TAP, NO_PI, VNET_HDR, MULTI_QUEUE = 0x1, 0x2, 0x1000, 0x4000, 0x100
    SETIFF, GETIFF, SETPERSIST, SETOFFLOAD, SETVNETHDRSZ = (
        0x400454CA, 0x800454D2, 0x400454CB, 0x400454D0, 0x400454D8,
    )  # fmt: skip

    def __init__(self):
        self.open_fds = []

    def node(self, flags=os.O_RDWR):
        """A descriptor of /dev/net/tun that has no interface yet."""
        fd = os.open("/dev/net/tun", flags | os.O_CLOEXEC)
        self.open_fds.append(fd)
        return fd

    def attach(self, name, flags, nonblocking=False):
        fd = self.node(os.O_RDWR | (os.O_NONBLOCK if nonblocking else 0))
        fcntl.ioctl(fd, self.SETIFF, struct.pack("16sH22x", name.encode(), flags))
        return fd

    def forget(self, fd):
        """The descriptor belongs to somebody else now."""
        self.open_fds.remove(fd)

    def close(self, fd):
        self.forget(fd)
        os.close(fd)

    def offloads(self, name):
        """(checksum, TSO) as ethtool's ioctls tell."""
        answers = []
        with socket.socket() as sock:
            for command in (0x16, 0x1E):  # ETHTOOL_GTXCSUM, ETHTOOL_GTSO
                value = (ctypes.c_uint32 * 2)(command, 0)
                request = struct.pack("16sQ16x", name.encode(), ctypes.addressof(value))
                fcntl.ioctl(sock, 0x8946, request)  # SIOCETHTOOL
                answers.append(value[1])
        return tuple(answers)


@pytest.fixture
def raw(net):
    made = Raw()
    yield made
    for fd in made.open_fds:
        os.close(fd)


@pytest.fixture
def enter_netns():
    """Run a function in a thread that has gone to another network namespace; the answer is its result."""

    def run(path, function):
        outcome = {}

        def body():
            try:
                fd = os.open(path, os.O_RDONLY)
                try:
                    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000):  # CLONE_NEWNET
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(fd)
                outcome["value"] = function()
            except BaseException as error:
                outcome["error"] = error

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    return run


@pytest.fixture
def eventually():
    """Wait for what the kernel does in its own time."""

    def wait(condition, seconds=5.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not so within {seconds} s"
            time.sleep(0.01)

    return wait


@pytest.fixture
def sysctl(net):
    """Write settings of this network namespace, and put the old ones back."""
    before = []

    def write(key, value):
        path = Path("/proc/sys") / key
        before.append((path, path.read_text()))
        path.write_text(str(value))

    yield write
    for path, text in reversed(before):
        if path.exists():
            path.write_text(text)
