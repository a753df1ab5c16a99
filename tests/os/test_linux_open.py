"""Opening: new interfaces, interfaces that are there, and whatever else has the name."""

import errno
import fcntl
import grp
import os
import pwd
import subprocess
from pathlib import Path

import pytest

import tuntap
from tuntap import DeviceBusyError, PrivilegeError, Tap, Tun, TunTapError

KINDS = pytest.mark.parametrize(("kind", "mode"), [(Tun, "tun"), (Tap, "tap")])


def fds():
    """Descriptors that are open, without the one that reads the list."""
    names = os.listdir("/proc/self/fd")
    return {int(name) for name in names if os.path.lexists(f"/proc/self/fd/{name}")}


# --- names ---


@KINDS
def test_kernel_chooses_a_name(ip, kind, mode):
    with kind() as one, kind() as other:
        assert ip.names() == sorted([one.name, other.name])
        assert one.name.startswith(mode)
        assert ip.tun(one.name)["type"] == mode
        assert ip.tun(one.name)["pi"] is False
        assert ip.tun(one.name)["persist"] is False
        assert ip.is_up(one.name)
    assert ip.names() == []


@pytest.mark.parametrize("name", ["vpn7", "x" * 15, "a.b-c_d@e", "0", "%d"])
def test_given_name(ip, name):
    with Tun(name) as tun:
        assert ip.names() == [tun.name] == [name.replace("%d", "0")]


def test_pattern_twice(ip):
    with Tun("vpn%d") as one, Tun("vpn%d") as other:
        assert {one.name, other.name} == {"vpn0", "vpn1"}
        assert ip.names() == ["vpn0", "vpn1"]


def test_pattern_does_not_take_what_is_there(ip, make_persistent):
    make_persistent("vpn0", up=True)
    before = ip.state("vpn0")
    with Tun("vpn%d") as tun:
        assert tun.name == "vpn1"
        assert ip.state("vpn0") == before


@pytest.mark.parametrize("up", [None, True, False])
@KINDS
def test_up_of_a_new_interface(ip, kind, mode, up):
    with kind("x0", up=up) as device:
        assert ip.is_up("x0") is (up is not False)
        assert device.is_up is (up is not False)


# --- interfaces that are there ---


@pytest.mark.parametrize("up", [True, False])
@KINDS
def test_attach_leaves_alone_what_was_not_asked_for(ip, make_persistent, strangers, kind, mode, up):
    user, group = strangers
    make_persistent("p0", mode, "user", user, "group", group, up=up)
    ip("link", "set", "p0", "mtu", 1400, "txqueuelen", 77, "addrgenmode", "none")
    ip("addr", "add", "10.0.0.1/24", "metric", 5, "dev", "p0")
    ip("addr", "add", "10.0.0.2/24", "dev", "p0")
    ip("addr", "add", "fd00::1/64", "dev", "p0", "nodad")
    before = ip.state("p0")
    with kind("p0") as device:
        assert device.name == "p0"
        assert ip.state("p0") == before
        assert (device.mtu, device.tx_queue_len, device.is_up) == (1400, 77, up)
        assert (device.persist, device.owner, device.group) == (True, user, group)
    assert ip.state("p0") == before


@pytest.mark.parametrize("was_up", [True, False])
@pytest.mark.parametrize("up", [True, False])
def test_attach_and_ask_for_up_or_down(ip, make_persistent, was_up, up):
    make_persistent("p0", up=was_up)
    with Tun("p0", up=up):
        assert ip.is_up("p0") is up
    assert ip.is_up("p0") is up


def test_attach_changes_what_was_asked_for_and_only_that(ip, make_persistent):
    make_persistent("p0", up=True)
    ip("addr", "add", "10.0.0.1/24", "dev", "p0")
    before = ip.state("p0")
    with Tun("p0", mtu=1400, tx_queue_len=9, addresses=["10.0.1.1/24"]):
        after = ip.state("p0")
    assert (after["mtu"], after["txqlen"], after["up"]) == (1400, 9, True)
    assert ip.addresses("p0") == ["10.0.0.1/24", "10.0.1.1/24"]
    assert after["tun"] == before["tun"]


def test_attach_again_and_again(ip, make_persistent):
    make_persistent("p0", up=True)
    before = ip.state("p0")
    for _ in range(5):
        with Tun("p0"):
            pass
    assert ip.state("p0") == before


@pytest.mark.parametrize("options", [{}, {"mtu": 1400}, {"up": False}])
def test_two_openers(ip, options):
    with Tun("x0") as tun:
        before = ip.state("x0")
        with pytest.raises(DeviceBusyError, match=r"ioctl\(TUNSETIFF\).*x0") as caught:
            Tun("x0", **options)
        assert caught.value.errno == errno.EBUSY
        assert caught.value.filename == "x0"
        assert ip.state("x0") == before
        assert tun.name == "x0"


def test_two_openers_of_a_persistent_interface(ip, make_persistent):
    make_persistent("p0")
    with Tun("p0"), pytest.raises(DeviceBusyError):
        Tun("p0")
    with Tun("p0"):
        pass


def test_exclusive(ip, make_persistent):
    make_persistent("p0", up=True)
    before = ip.state("p0")
    with pytest.raises(DeviceBusyError) as caught:
        Tun("p0", exclusive=True, mtu=1300)
    assert caught.value.errno == errno.EBUSY
    assert ip.state("p0") == before
    with Tun("x0", exclusive=True), Tun("y%d", exclusive=True):
        assert ip.names() == ["p0", "x0", "y0"]


@pytest.mark.parametrize(("kind", "mode"), [(Tun, "tap"), (Tap, "tun")])
def test_wrong_layer(ip, make_persistent, kind, mode):
    make_persistent("p0", mode, up=True)
    before = ip.state("p0")
    with pytest.raises(DeviceBusyError, match=r"another kind.*p0") as caught:
        kind("p0", mtu=1300)
    assert caught.value.errno == errno.EINVAL
    assert ip.state("p0") == before


def test_wrong_layer_of_a_live_device(ip):
    with Tap("x0"), pytest.raises(TunTapError) as caught:
        Tun("x0")
    assert caught.value.filename == "x0"


def test_multi_queue_interface_of_another_program(ip, make_persistent):
    make_persistent("p0", "tun", "multi_queue", up=True)
    before = ip.state("p0")
    with pytest.raises(TunTapError, match="p0"):
        Tun("p0")
    assert ip.state("p0") == before


@KINDS
def test_loopback_is_not_ours(ip, kind, mode):
    before = ip.ask("link", "show", "lo")
    with pytest.raises(DeviceBusyError, match=r"another kind.*lo"):
        kind("lo", mtu=1300, up=False)
    assert ip.ask("link", "show", "lo") == before


@KINDS
def test_other_kinds_of_interfaces_are_not_ours(ip, kind, mode):
    made = None
    for other in ("bridge", "dummy", "veth", "ifb"):
        try:
            ip("link", "add", "other0", "type", other)
        except RuntimeError:
            continue
        made = other
        break
    if made is None:
        pytest.skip("this kernel makes no bridge, dummy, veth or ifb")
    try:
        before = ip.ask("link", "show", "other0")
        with pytest.raises(DeviceBusyError, match=r"another kind.*other0"):
            kind("other0", mtu=1300)
        assert ip.ask("link", "show", "other0") == before
        assert tuntap.interfaces() == []
        with pytest.raises(tuntap.UnsupportedError):
            tuntap.delete("other0")
        assert "other0" in ip.names()
    finally:
        ip("link", "del", "other0")


@pytest.mark.parametrize("name", ["all", "default"])
def test_names_the_kernel_keeps_for_itself(ip, name):
    # /proc/sys/net/ipv4/conf has these two, so no interface may; it is no other interface's name.
    with pytest.raises((ValueError, TunTapError)) as caught:
        Tun(name)
    assert "another kind of interface" not in str(caught.value)


# --- what other programs leave behind ---


def test_offloads_of_another_program_are_cleared(ip, raw):
    fd = raw.attach("p0", raw.TUN | raw.NO_PI | raw.VNET_HDR)
    fcntl.ioctl(fd, raw.SETPERSIST, 1)
    fcntl.ioctl(fd, raw.SETOFFLOAD, 0x7)
    assert raw.offloads("p0") == (1, 1), "the other program had them on"
    raw.close(fd)
    assert raw.offloads("p0") == (1, 1), "and they outlive it"
    with Tun("p0", persist=False):
        assert raw.offloads("p0") == (0, 0)
        assert ip.tun("p0")["vnet_hdr"] is False
        assert ip.tun("p0")["pi"] is False


def test_packet_information_of_another_program(ip, raw):
    fd = raw.attach("p0", raw.TUN)
    fcntl.ioctl(fd, raw.SETPERSIST, 1)
    raw.close(fd)
    with Tun("p0", persist=False):
        assert ip.tun("p0")["pi"] is False


# --- persist, owner, group ---


@KINDS
def test_persist_and_let_go(ip, kind, mode):
    with kind("x0", persist=True, mtu=1400) as device:
        assert device.persist
        assert ip.tun("x0")["persist"] is True
    assert ip.names() == ["x0"]
    with kind("x0") as device:
        assert device.persist
    assert ip.names() == ["x0"]
    with kind("x0", persist=False) as device:
        assert not device.persist
        assert device.mtu == 1400
        assert ip.tun("x0")["persist"] is False
    assert ip.names() == []


def test_persist_is_settable(ip):
    with Tun("x0") as tun:
        tun.persist = True
        assert ip.tun("x0")["persist"] is True
        tun.persist = False
        assert ip.tun("x0")["persist"] is False
        tun.persist = True
    assert ip.names() == ["x0"]
    tuntap.delete("x0")
    assert ip.names() == []


@pytest.mark.parametrize("number", [0, 1, 1000, 54321, 2**31, 2**32 - 2])
def test_owner_and_group_by_number(ip, number):
    # The value itself, not the address of it: 1000 must not become 575499008.
    if number and int(Path("/proc/self/uid_map").read_text().split()[2]) < 2**32 - 1:
        pytest.skip("this user namespace has no such user: run the tests as root")
    with Tun("x0", owner=number) as tun, Tun("x1", group=number) as other:
        shown = ip.tun("x0")["user"]
        assert shown in (number, name_of(pwd.getpwuid, number))
        assert "group" not in ip.tun("x0")
        shown = ip.tun("x1")["group"]
        assert shown in (number, name_of(grp.getgrgid, number))
        assert "user" not in ip.tun("x1")
        assert (tun.owner, tun.group, other.owner, other.group) == (number, None, None, number)


def name_of(lookup, number):
    try:
        return lookup(number)[0]
    except (KeyError, OverflowError):
        return number


def test_owner_and_group_by_name(ip):
    user, group = pwd.getpwall()[0], grp.getgrall()[0]
    with Tun("x0", owner=user.pw_name, group=group.gr_name) as tun:
        assert ip.tun("x0")["user"] in (user.pw_name, user.pw_uid)
        assert ip.tun("x0")["group"] in (group.gr_name, group.gr_gid)
        assert (tun.owner, tun.group) == (user.pw_uid, group.gr_gid)


def test_owner_and_group_are_settable(ip):
    with Tun("x0") as tun:
        assert (tun.owner, tun.group) == (None, None)
        tun.owner, tun.group = 0, 0
        assert ip.tun("x0")["user"] in (0, "root")
        assert ip.tun("x0")["group"] in (0, "root")
        assert (tun.owner, tun.group) == (0, 0)


@pytest.mark.parametrize("attribute", ["owner", "group"])
def test_owner_none_takes_it_away_or_says_that_it_cannot(ip, attribute):
    with Tun("x0", **{attribute: 0}) as tun:
        try:
            setattr(tun, attribute, None)
        except (TypeError, ValueError, tuntap.UnsupportedError):
            assert getattr(tun, attribute) == 0
        else:
            assert getattr(tun, attribute) is None


# --- nothing is left behind ---


class LateError(Exception):
    pass


FAILURES = [
    pytest.param({"addresses": ["10.1.0.1/24", "::1/128"]}, TunTapError, id="address the kernel refuses"),
    pytest.param({"addresses": ["10.1.0.1/24"]}, LateError, id="late step"),
    pytest.param({"addresses": ["10.1.0.1/24"]}, KeyboardInterrupt, id="interrupt in a late step"),
]


def break_late_step(monkeypatch, error):
    """The last of all settings fails."""
    real = tuntap.Device._set

    def broken(self, setting, value):
        if setting == "persist":
            raise error("late")
        return real(self, setting, value)

    monkeypatch.setattr(tuntap.Device, "_set", broken)


@pytest.mark.parametrize(("options", "error"), FAILURES)
@KINDS
def test_failure_leaves_no_new_interface(ip, monkeypatch, kind, mode, options, error):
    if error is not TunTapError:
        break_late_step(monkeypatch, error)
    before = fds()
    extra = {"mac": "02:00:00:00:00:07"} if kind is Tap else {}
    with pytest.raises(error):
        kind("x0", mtu=1400, tx_queue_len=9, owner=0, persist=True, quiet=True, **extra, **options)
    assert ip.names() == []
    assert fds() == before


@pytest.mark.parametrize(("options", "error"), FAILURES)
@pytest.mark.parametrize("up", [True, False])
@KINDS
def test_failure_undoes_every_step_on_an_interface_that_was_there(
    ip, monkeypatch, make_persistent, strangers, kind, mode, up, options, error
):
    make_persistent("p0", mode, "user", strangers[0], "group", strangers[1], up=up)
    ip("addr", "add", "10.0.0.1/24", "dev", "p0")
    ip("link", "set", "p0", "addrgenmode", "eui64")
    if error is not TunTapError:
        break_late_step(monkeypatch, error)
    before = ip.state("p0")
    descriptors = fds()
    extra = {"mac": "02:00:00:00:00:07"} if kind is Tap else {}
    with pytest.raises(error):
        kind("p0", mtu=1400, tx_queue_len=9, owner=0, group=0, up=True, persist=False, quiet=True,
             **extra, **options)  # fmt: skip
    assert ip.state("p0") == before
    assert fds() == descriptors


def test_failure_with_an_interface_that_had_no_owner(ip, make_persistent):
    # The kernel does not take an owner away again, so nothing may fail once it is set.
    make_persistent("p0")
    before = ip.state("p0")
    with pytest.raises(TunTapError, match=r"RTM_NEWADDR") as caught:
        Tun("p0", owner=0, group=0, addresses=["::1/128"])
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert ip.state("p0") == before


def test_failure_keeps_the_ipv6_addresses_that_were_there(ip, make_persistent):
    make_persistent("p0", up=True)
    ip("addr", "add", "fd00::1/64", "dev", "p0")
    before = ip.state("p0")
    with pytest.raises((ValueError, TunTapError)):
        Tun("p0", mtu=1000, addresses=["10.0.0.1/24"])
    assert ip.state("p0") == before, "the kernel drops IPv6 below an MTU of 1280"


def test_device_that_did_not_open_is_closed(net):
    tun = Tun.__new__(Tun)
    assert tun.closed
    assert tun.fileno() == -1
    for attribute in ("name", "mtu", "index", "addresses", "stats", "is_up", "owner"):
        with pytest.raises(tuntap.ClosedError):
            getattr(tun, attribute)
    tun.close()
    with pytest.raises(tuntap.ClosedError):
        tun.recv(timeout=0)


def test_opening_an_open_device_again_is_refused(ip):
    with Tun("x0") as tun:
        with pytest.raises(RuntimeError):
            tun.__init__("x1")
        assert ip.names() == ["x0"]
        assert tun.name == "x0"


# --- descriptors ---


@KINDS
def test_descriptors(net, kind, mode):
    before = fds()
    with kind() as device:
        new = fds() - before
        targets = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in new}
        assert targets[device.fileno()] == "/dev/net/tun"
        assert sum(target == "/dev/net/tun" for target in targets.values()) == 1
        for fd, target in targets.items():
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC, target
            assert target == "/dev/net/tun" or target.startswith(("socket:", "anon_inode:[eventfd]")), target
        assert device.mtu
        assert device.addresses is not None
        assert fds() - before == new, "asking opens nothing that stays"
    assert fds() == before
    assert device.fileno() == -1


def test_descriptors_are_not_inherited(net):
    with Tun() as tun:
        opened = {os.readlink(f"/proc/self/fd/{fd}") for fd in fds()}
        run = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True
        )
        assert os.readlink(f"/proc/self/fd/{tun.fileno()}") in opened
    assert "/proc/" in run.stdout
    assert "/dev/net/tun" not in run.stdout
    assert "eventfd" not in run.stdout
    assert not [link for link in opened if link.startswith("socket:") and link in run.stdout]


def test_failing_opens_leave_no_descriptor(ip, make_persistent):
    make_persistent("p0", "tap")
    before = fds()
    for _ in range(20):
        with pytest.raises(TunTapError):
            Tun("p0")
        with pytest.raises(TunTapError):
            Tun("lo")
        with pytest.raises(TunTapError):
            Tun("x0", netns="/nonexistent")
        with pytest.raises(TunTapError):
            Tun("x0", netns="/dev/null")
    assert fds() == before


def test_many_cycles(ip):
    before = fds()
    for i in range(300):
        with (Tun, Tap)[i % 2](f"x{i % 7}", up=i % 3 == 0):
            pass
    assert fds() == before
    assert ip.names() == []


def test_close_twice_and_in_any_order(ip):
    one, other = Tun("x0"), Tun("x1")
    one.close()
    one.close()
    assert ip.names() == ["x1"]
    other.close()
    assert ip.names() == []


# --- the functions beside the classes ---


def test_interfaces_and_delete(ip, make_persistent):
    make_persistent("p0", "tap")
    with Tun("x0"):
        assert sorted(tuntap.interfaces()) == ["p0", "x0"]
        tuntap.delete("x0")
        assert ip.names() == ["p0"]
        with pytest.raises(TunTapError, match="x0"):
            tuntap.delete("x0")
    tuntap.delete("p0")
    assert tuntap.interfaces() == ip.names() == []


def test_delete_takes_nothing_that_is_not_named_exactly(ip, make_persistent):
    name = make_persistent("a" * 15)
    make_persistent("p0")
    for wrong, error in [
        (name + "a", (ValueError, TunTapError)),
        ("p0\0x", (ValueError, TunTapError)),
        ("", (ValueError, TunTapError)),
        (None, TypeError),
        (b"p0", TypeError),
        ("p%d", (ValueError, TunTapError)),
    ]:
        with pytest.raises(error):
            tuntap.delete(wrong)
        assert ip.names() == [name, "p0"], wrong


def test_delete_leaves_the_loopback(ip):
    with pytest.raises(tuntap.UnsupportedError, match="lo"):
        tuntap.delete("lo")
    assert ip.ask("link", "show", "lo")


def test_capabilities_and_features(net):
    with Tun() as tun:
        assert {
            "tun", "tap", "mtu", "up", "carrier", "persist", "owner", "group", "tx_queue_len", "quiet",
            "rename", "mac", "broadcast", "addresses", "peer", "stats", "netns", "metric",
        } <= tun.capabilities  # fmt: skip
        assert isinstance(tun.capabilities, frozenset)
    assert {"tun", "tap"} <= tuntap.features()


def test_error_types_are_what_callers_catch(net):
    assert issubclass(PrivilegeError, PermissionError)
    for kind in (tuntap.DeviceBusyError, tuntap.DeviceGoneError, tuntap.UnsupportedError, PrivilegeError):
        assert issubclass(kind, TunTapError)
    assert issubclass(TunTapError, OSError)


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "x" * 16},
        {"name": "a/b"},
        {"name": b"x0"},
        {"mtu": 67},
        {"mtu": 65536},
        {"mtu": "1500"},
        {"addresses": ["10.0.0.0/24"]},
        {"addresses": ["10.0.0.1/33"]},
        {"addresses": ["10.0.0.1/24", "10.0.0.1/24"]},
        {"addresses": ["::ffff:10.0.0.1"]},
        {"addresses": ["fd00::1/64"], "mtu": 1279},
        {"addresses": "10.0.0.1/24"},
        {"mac": "02:00:00:00:00:01"},
        {"owner": "no such user"},
        {"tx_queue_len": -1},
        {"metric": -1},
        {"netns": 1.5},
        {"up": "yes"},
    ],
    ids=repr,
)
def test_bad_arguments_come_before_any_system_call(ip, empty_dev_net, options):
    """The node is missing, and would be made by the first call to open it."""
    with pytest.raises((TypeError, ValueError)) as caught:
        Tun(**options)
    assert not isinstance(caught.value, OSError)
    assert list(empty_dev_net.iterdir()) == []
    assert ip.names() == []
