"""Ordinary users: what they may do, and how they are told what they may not."""

import errno
import os
import socket
import stat

import pytest

import tuntap
from tuntap import PrivilegeError, Tap, Tun, TunTapError, UnsupportedError, testing

KINDS = pytest.mark.parametrize(("kind", "mode"), [(Tun, "tun"), (Tap, "tap")])
USER, OTHER = 54321, 54999
pytestmark = pytest.mark.usefixtures("net")


def refused(call):
    """The PrivilegeError of a call, as a dict that goes through a pipe."""
    with pytest.raises(PrivilegeError) as caught:
        call()
    error = caught.value
    assert isinstance(error, PermissionError)
    assert isinstance(error, TunTapError)
    return {"errno": error.errno, "text": str(error), "name": error.filename}


# --- the node ---


def test_missing_node_is_made(ip, empty_dev_net, may_make_nodes):
    if not may_make_nodes:
        with pytest.raises(UnsupportedError, match=r"open\(/dev/net/tun\).*modprobe tun"):
            Tun("x0")
        return
    umask = os.umask(0o077)
    try:
        with Tun("x0"):
            assert ip.names() == ["x0"]
    finally:
        os.umask(umask)
    status = (empty_dev_net / "tun").stat()
    assert stat.S_ISCHR(status.st_mode)
    assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (10, 200)
    assert stat.S_IMODE(status.st_mode) == 0o666, "as udev makes it, whatever the umask"


def test_missing_folder_is_made(mount, empty_dev_net, may_make_nodes):
    # A /dev of a container, in which there is no net/ at all.
    mount("-t", "tmpfs", "tmpfs", "/dev")
    if not may_make_nodes:
        with pytest.raises(UnsupportedError, match=r"open\(/dev/net/tun\).*--device /dev/net/tun"):
            Tun("x0")
        return
    with Tun():
        assert stat.S_ISCHR(os.stat("/dev/net/tun").st_mode)
    assert tuntap.features()


def test_missing_node_and_no_right_to_make_it(as_user, empty_dev_net):
    def attempt():
        try:
            Tun("x0")
        except (UnsupportedError, PrivilegeError) as error:
            return str(error)

    text = as_user(attempt)
    assert "open(/dev/net/tun)" in text
    assert "modprobe tun" in text or "root" in text
    assert list(empty_dev_net.iterdir()) == []


@pytest.mark.parametrize("content", ["file", "directory", "null"])
def test_something_else_in_place_of_the_node(ip, empty_dev_net, may_make_nodes, content):
    node = empty_dev_net / "tun"
    if content == "file":
        node.write_text("")
    elif content == "directory":
        node.mkdir()
    elif may_make_nodes:
        os.mknod(node, 0o020666, os.makedev(1, 3))
    else:
        node.symlink_to("/dev/null")
    with pytest.raises(TunTapError, match=r"/dev/net/tun|TUNSETIFF"):
        Tun("x0")
    assert ip.names() == []


def test_node_that_may_not_be_opened(as_user, public_dev_net):
    public_dev_net.chmod(0o600)
    answer = as_user(lambda: refused(lambda: Tun("x0")))
    assert answer["errno"] == errno.EACCES
    assert "open(/dev/net/tun)" in answer["text"]
    assert "chmod 666 /dev/net/tun" in answer["text"]
    assert answer["name"] == "x0"


def test_features_and_interfaces_need_no_rights(as_user, public_dev_net, make_persistent):
    make_persistent("p0")
    assert as_user(lambda: sorted(tuntap.features())) == sorted(tuntap.features())
    assert as_user(tuntap.interfaces) == ["p0"]


# --- new interfaces ---


@KINDS
def test_new_interface_takes_rights(ip, as_user, public_dev_net, kind, mode):
    for name in ("x0", None, "vpn%d"):
        answer = as_user(lambda name=name: refused(lambda: kind(name)))
        assert answer["errno"] == errno.EPERM
        assert "ioctl(TUNSETIFF)" in answer["text"]
        assert "CAP_NET_ADMIN" in answer["text"]
        assert "setcap" in answer["text"]
        assert answer["name"] == (name or None)
    assert ip.names() == []


def test_delete_takes_rights(ip, as_user, make_persistent):
    make_persistent("p0")
    answer = as_user(lambda: refused(lambda: tuntap.delete("p0")))
    assert "p0" in answer["text"]
    assert ip.names() == ["p0"]


# --- persistent interfaces ---


@KINDS
@pytest.mark.parametrize("who", ["owner", "group", "other group"])
def test_attach_as_owner_or_group(ip, as_user, public_dev_net, make_persistent, kind, mode, who):
    make_persistent("p0", mode, *(["user", USER] if who == "owner" else ["group", OTHER]), up=True)
    ip("addr", "add", "10.0.0.1/24", "dev", "p0")
    ip("link", "set", "p0", "mtu", 1400, "txqueuelen", 77, "addrgenmode", "none")
    before = ip.state("p0")
    groups = {"owner": (USER,), "group": (OTHER,), "other group": (USER, OTHER)}[who]

    def attach():
        with kind("p0") as device:
            packet = testing.udp("10.0.0.2", "10.0.0.1", 1, 2, b"x")
            device.send(packet if kind is Tun else testing.ethernet("02:00:00:00:00:02", device.mac, packet))
            assert device.name == "p0"
            assert device.is_up
            assert device.persist
            assert device.stats.rx_packets >= 1
            return [device.mtu, device.tx_queue_len, str(device.addresses[0]), device.owner, device.group]

    owner, group = (USER, None) if who == "owner" else (None, OTHER)
    assert as_user(attach, USER, groups) == [1400, 77, "10.0.0.1/24", owner, group]
    assert ip.state("p0") == before


@KINDS
def test_attach_to_what_belongs_to_others(ip, as_user, public_dev_net, make_persistent, kind, mode):
    make_persistent("p0", mode, "user", OTHER, up=True)
    make_persistent("p1", mode, "group", OTHER, up=True)
    before = ip.state("p0"), ip.state("p1")
    for name in ("p0", "p1"):
        answer = as_user(lambda name=name: refused(lambda: kind(name)))
        assert answer["errno"] == errno.EPERM
        assert "ioctl(TUNSETIFF)" in answer["text"]
        assert "--owner" in answer["text"]
        assert answer["name"] == name
    assert (ip.state("p0"), ip.state("p1")) == before


def test_asking_for_what_is_so_already_takes_no_rights(ip, as_user, public_dev_net, make_persistent):
    make_persistent("p0", "tap", "user", USER, up=True)
    for address in ("10.0.0.1/24", "fd00::1/64"):
        ip("addr", "add", address, "dev", "p0", "nodad")
    ip("link", "set", "p0", "mtu", 1400, "txqueuelen", 77, "address", "02:00:00:00:00:07")
    before = ip.state("p0")

    def attach(**options):
        with Tap("p0", **options) as tap:
            return tap.name

    for options in (
        {"addresses": ["10.0.0.1/24", "fd00::1/64"]}, {"up": True}, {"mtu": 1400}, {"tx_queue_len": 77},
        {"persist": True}, {"mac": "02:00:00:00:00:07"},
    ):  # fmt: skip
        assert as_user(lambda options=options: attach(**options)) == "p0"
    assert ip.state("p0") == before


@pytest.mark.parametrize(
    "options",
    [
        {"mtu": 1300},
        {"up": False},
        {"addresses": ["10.0.0.1/24", "10.9.0.1/24"]},
        {"tx_queue_len": 3},
        {"quiet": True},
        {"mac": "02:00:00:00:00:03"},
        {"mtu": 1300, "persist": False},
        {"owner": USER, "group": USER, "mtu": 1300},
    ],
    ids=lambda options: "+".join(options),
)
def test_changing_what_is_there_takes_rights(ip, as_user, public_dev_net, make_persistent, options):
    make_persistent("p0", "tap", "user", USER, up=True)
    ip("addr", "add", "10.0.0.1/24", "dev", "p0")
    before = ip.state("p0")
    answer = as_user(lambda: refused(lambda: Tap("p0", **options)))
    assert "netlink(RTM_" in answer["text"]
    assert "CAP_NET_ADMIN" in answer["text"]
    assert answer["name"] == "p0"
    assert ip.state("p0") == before


def test_setters_take_rights(ip, as_user, public_dev_net, make_persistent):
    make_persistent("p0", "tap", "user", USER, up=True)
    ip("addr", "add", "10.0.0.1/24", "dev", "p0")
    before = ip.state("p0")

    def attempts():
        with Tap("p0") as tap:

            def setter(attribute, value):
                return lambda: setattr(tap, attribute, value)  # fmt: skip

            return [
                refused(call)["text"]
                for call in (
                    setter("mtu", 1300), setter("is_up", False), setter("tx_queue_len", 3),
                    setter("carrier", False), setter("name", "q0"), setter("mac", "02:00:00:00:00:03"),
                    setter("broadcast", "10.0.0.9"),
                    setter("addresses", ["10.9.0.1/24"]), setter("addresses", []),
                    tap.down, lambda: tap.add_address("10.9.0.1/24"), lambda: tap.remove_address("10.0.0.1"),
                )
            ]  # fmt: skip

    for text in as_user(attempts):
        assert "CAP_NET_ADMIN" in text
        assert "p0" in text
    assert ip.state("p0") == before


def test_privileges_lost_while_open(ip, as_user):
    """Open as root, then become an ordinary user: packets flow, settings are refused, close works."""
    with Tun("x0", addresses=["10.0.0.1/24"], owner=USER) as tun:
        before = ip.state("x0")

        def use():
            tun.send(testing.udp("10.0.0.2", "10.0.0.1", 1, 2, b"x"))
            refused(tun.down)
            answer = [tun.name, tun.mtu, str(tun.addresses[0])]
            tun.close()
            return answer

        assert as_user(use) == ["x0", 1500, "10.0.0.1/24"]
        assert ip.state("x0") == before


# --- namespaces ---


def test_other_netns_takes_rights(ip, as_user, public_dev_net, other_netns):
    fd = os.open(other_netns, os.O_RDONLY)
    try:
        answer = as_user(lambda: refused(lambda: Tun("x0", netns=fd)))
        assert answer["errno"] == errno.EPERM
        assert "setns" in answer["text"]
        answer = as_user(lambda: refused(lambda: Tun("x0", netns=other_netns)))
        assert answer["errno"] in (errno.EACCES, errno.EPERM)
        assert other_netns in answer["text"]
    finally:
        os.close(fd)
    assert ip.names(other_netns) == []


# --- descriptors from a helper with rights ---


def test_descriptor_handed_to_an_ordinary_user(ip, raw, as_user):
    for flags in (raw.TUN | raw.NO_PI, raw.TUN):
        fd = raw.attach("x0", flags)
        ip("addr", "add", "10.0.0.1/24", "dev", "x0")
        ip("link", "set", "x0", "mtu", 1400, "addrgenmode", "none")
        ip("link", "set", "x0", "up")
        before = ip.state("x0")

        def use(fd=fd):
            with Tun.from_fd(fd) as tun:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.bind(("10.0.0.1", 5000))
                    sock.settimeout(2)
                    sock.sendto(b"out", ("10.0.0.2", 6000))
                    packet = tun.recv(timeout=2)
                    assert packet[0] == 0x45
                    assert packet.endswith(b"out")
                    tun.send(testing.udp("10.0.0.2", "10.0.0.1", 6000, 5000, b"in"))
                    assert sock.recv(10) == b"in"
                refused(lambda: setattr(tun, "mtu", 1300))
                return [tun.name, tun.mtu]

        assert as_user(use) == ["x0", 1400]
        assert ip.state("x0") == before
        raw.close(fd)


def test_descriptor_of_another_netns_does_not_lead_to_a_namesake(ip, raw, as_user, other_netns, enter_netns):
    fd = enter_netns(other_netns, lambda: raw.attach("x0", raw.TUN | raw.NO_PI))
    with Tun("x0", mtu=1234, addresses=["10.0.0.1/24"]):
        before = ip.state("x0")

        def use():
            with Tun.from_fd(fd) as tun:
                refused(lambda: setattr(tun, "mtu", 1300))
                refused(tun.down)
                refused(lambda: tun.add_address("10.9.0.1/24"))
                return tun.name

        assert as_user(use) == "x0"
        assert ip.state("x0") == before
