"""Errors: one root, errno kept, and a message that says what failed, where, and what to do."""

import copy
import errno
import os
import pickle

import pytest

import tuntap
from tuntap import (
    ClosedError,
    DeviceBusyError,
    DeviceGoneError,
    InterruptError,
    LinkDownError,
    PacketError,
    PrivilegeError,
    Tap,
    Tun,
    TunTapError,
    UnsupportedError,
    _core,
)
from tuntap.testing import pair

KINDS = [
    ClosedError, DeviceBusyError, DeviceGoneError, InterruptError, LinkDownError, PacketError, PrivilegeError,
    UnsupportedError,
]  # fmt: skip


class TestHierarchy:
    @pytest.mark.parametrize("kind", [TunTapError, *KINDS])
    def test_all_are_os_errors_of_one_root(self, kind):
        assert issubclass(kind, OSError)
        assert issubclass(kind, TunTapError)
        assert kind.__doc__

    def test_privilege_is_a_permission_error(self):
        assert issubclass(PrivilegeError, PermissionError)
        assert not any(issubclass(kind, PermissionError) for kind in KINDS if kind is not PrivilegeError)

    def test_they_are_siblings(self):
        for kind in KINDS:
            assert [other for other in KINDS if issubclass(kind, other)] == [kind]

    def test_all_are_public(self):
        for kind in [TunTapError, *KINDS]:
            assert getattr(tuntap, kind.__name__) is kind
            assert kind.__name__ in tuntap.__all__

    def test_an_errno_does_not_change_the_kind(self):
        """OSError(ENOENT) becomes FileNotFoundError; ours stay what they are."""
        for kind in [TunTapError, *KINDS]:
            for number in (errno.ENOENT, errno.EPERM, errno.EEXIST, errno.EINTR, errno.ETIMEDOUT):
                error = kind(number, "text", "tun0")
                assert type(error) is kind
                assert (error.errno, error.strerror, error.filename) == (number, "text", "tun0")

    @pytest.mark.parametrize("kind", [TunTapError, *KINDS])
    def test_pickle_and_copy_keep_everything(self, kind):
        for arguments in ((errno.EBUSY, "text", "tun0"), (errno.EBUSY, "text")):
            error = kind(*arguments)
            for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
                assert type(again) is kind
                assert str(again) == str(error)
                assert again.args == error.args
                assert (again.errno, again.strerror, again.filename) == (
                    error.errno, error.strerror, error.filename,
                )  # fmt: skip

    def test_a_time_out_is_the_builtin_one(self):
        one, other = pair()
        with one, other, pytest.raises(TimeoutError) as caught:
            one.recv(timeout=0)
        assert caught.value.errno == errno.ETIMEDOUT


def caught(call, kind):
    with pytest.raises(kind) as info:
        call()
    error = info.value
    assert type(error) is kind
    assert error.errno
    assert error.strerror
    assert pickle.loads(pickle.dumps(error)).args == error.args
    return error


class TestMessages:
    """Each with the call that failed (if one did), the interface, and advice."""

    def test_closed(self):
        one, other = pair(names=("left0", "right0"))
        with one, other:
            one.close()
            error = caught(one.recv, ClosedError)
        assert error.errno == errno.EBADF
        assert "open" in str(error)

    def test_closed_names_the_interface(self, net):
        with Tun("named0") as tun:
            tun.shutdown()
            assert "named0" in str(caught(tun.recv, ClosedError))
            tun.close()
            assert "named0" in str(caught(tun.recv, ClosedError))
            assert "named0" in str(caught(lambda: tun.mtu, ClosedError))

    def test_interrupted(self, net):
        with Tun("named0", quiet=True) as tun:
            tun.interrupt()
            error = caught(tun.recv, InterruptError)
        assert error.errno == errno.EINTR
        assert "named0" in str(error)
        assert "again" in str(error)

    def test_gone(self, net):
        with Tun("named0") as tun:
            tuntap.delete("named0")
            for call, what in (
                (tun.recv, "read"), (lambda: tun.send(b"\x45" * 20), "write"), (lambda: tun.mtu, "ioctl(")
            ):  # fmt: skip
                error = caught(call, DeviceGoneError)
                assert what in str(error)
                assert "named0" in str(error)
                assert "anew" in str(error)

    def test_down(self, net):
        with Tun("named0", up=False) as tun:
            error = caught(lambda: tun.send(b"\x45" * 20), LinkDownError)
        assert error.errno == errno.EIO
        for part in ("write", "named0", "up()"):
            assert part in str(error)

    def test_packet(self, net):
        with Tun("named0") as tun:
            error = caught(lambda: tun.send(b"\x05" * 20), PacketError)
            assert error.errno == errno.EINVAL
            for part in ("write", "named0", "IPv4"):
                assert part in str(error)

    def test_busy(self, net):
        with Tun("named0"):
            for call in (lambda: Tun("named0"), lambda: Tun("named0", exclusive=True), lambda: Tap("named0")):
                error = caught(call, DeviceBusyError)
                for part in ("TUNSETIFF", "named0", "another name"):
                    assert part in str(error)

    def test_busy_by_something_that_is_no_tun(self, net):
        error = caught(lambda: Tun("lo"), DeviceBusyError)
        assert "lo" in str(error)

    def test_an_address_that_is_there(self, net):
        with Tun("named0", addresses=["10.0.0.1/24"]) as tun:
            error = caught(lambda: tun.add_address("10.0.0.1/24"), DeviceBusyError)
        assert error.errno == errno.EEXIST
        assert "named0" in str(error)
        assert "RTM_NEWADDR" in str(error)

    def test_unsupported(self):
        of_others = [{"guid": "x"}, {"wintun": "x"}, {"ring_capacity": 1}]
        if "wintun" in _core.capabilities():
            of_others = [{"netns": "x"}, {"owner": 0}, {"tx_queue_len": 1}]
        for settings in of_others:
            error = caught(lambda settings=settings: Tun(**settings), UnsupportedError)
            assert next(iter(settings)) in str(error)

    def test_unsupported_descriptor(self):
        with open(os.devnull, "rb") as file:
            error = caught(lambda: Tun.from_fd(file.fileno()), UnsupportedError)
            assert str(file.fileno()) in str(error)
            os.fstat(file.fileno())  # a refused descriptor stays the caller's

    @pytest.mark.skipif(os.name == "nt", reason="no descriptor is a device there, open or not")
    def test_a_descriptor_that_is_not_open(self):
        fd = os.open(os.devnull, os.O_RDONLY)
        os.close(fd)
        error = caught(lambda: Tun.from_fd(fd), ClosedError)
        assert error.errno == errno.EBADF

    def test_no_such_interface_to_delete(self, net):
        error = caught(lambda: tuntap.delete("nowhere0"), DeviceGoneError)
        assert "nowhere0" in str(error)

    def test_no_such_namespace(self):
        if "netns" not in _core.capabilities():
            assert "netns" in str(caught(lambda: Tun(netns="there-is-none"), UnsupportedError))
            return
        error = caught(lambda: Tun(netns="there-is-none"), TunTapError)
        assert error.errno == errno.ENOENT
        assert "there-is-none" in str(error)
        assert "netns" in str(error)


class TestArguments:
    """What cannot be right is refused before any system call, with the usual exceptions."""

    @pytest.mark.parametrize(
        "settings",
        [
            {"name": ""}, {"name": "x" * 128}, {"name": "a:b"}, {"name": "a/b"}, {"mtu": 67}, {"mtu": 65536},
            {"addresses": ["nonsense"]}, {"queues": 0}, {"metric": -1}, {"tx_queue_len": -1}, {"netns": -5},
        ],
        ids=str,
    )  # fmt: skip
    def test_values(self, settings):
        with pytest.raises(ValueError) as info:
            Tun(**settings)
        assert not isinstance(info.value, OSError)

    @pytest.mark.parametrize(
        "settings",
        [
            {"name": 5}, {"name": b"tun0"}, {"mtu": "1500"}, {"mtu": 1500.0}, {"mtu": True}, {"queues": 1.0},
            {"addresses": "10.0.0.1"}, {"addresses": [5]}, {"up": "yes"}, {"exclusive": None}, {"owner": 1.5},
            {"nonsense": 1},
        ],
        ids=str,
    )  # fmt: skip
    def test_types(self, settings):
        with pytest.raises(TypeError):
            Tun(**settings)
