"""macOS: settings, descriptors that are adopted, and what the system cannot do."""

import ctypes
import importlib
import json
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_bsd import MULTICAST, POINTOPOINT, RUNNING, UP
from fake_macos import AF_SYSTEM, SYSPROTO_CONTROL
from layouts import ifreq

sys.path.insert(0, str(Path(__file__).parents[1]))

from forks import fork, reap


@pytest.fixture
def kernel(elsewhere):
    with elsewhere("macos").running() as kernel:
        yield kernel


@pytest.fixture
def tun(kernel):
    with kernel.tuntap.Tun("utun3") as device:
        kernel.taken()
        yield device


@pytest.fixture
def tap(kernel):
    with kernel.tuntap.Tap("feth4", peer_name="feth5") as device:
        kernel.taken()
        yield device


def told(kernel):
    return [call for call in kernel.told() if call[0] != "SIOCGDRVSPEC"]


class TestSettings:
    def test_flags_are_told_apart(self, kernel, tun):
        interface = kernel.interfaces["utun3"]
        interface.flags = UP | POINTOPOINT | MULTICAST
        assert (tun.is_up, tun.is_running) == (True, False)
        interface.flags = RUNNING | POINTOPOINT | MULTICAST
        assert (tun.is_up, tun.is_running) == (False, True)

    def test_up_and_down_leave_the_other_flags(self, kernel, tun):
        flags = kernel.interfaces["utun3"].flags = 0x8110  # POINTOPOINT, PROMISC, MULTICAST
        tun.up()
        assert told(kernel) == [("SIOCSIFFLAGS", ifreq("utun3", struct.pack("H", flags | UP)))]
        tun.down()
        assert told(kernel) == [("SIOCSIFFLAGS", ifreq("utun3", struct.pack("H", flags)))]

    def test_index(self, kernel, tun):
        assert tun.index == kernel.interfaces["utun3"].index

    def test_persist_is_of_pairs(self, kernel, tun, tap):
        assert (tun.persist, tap.persist) == (False, False)
        tap.persist = True
        assert tap.persist
        tap.persist = False
        with pytest.raises(kernel.tuntap.UnsupportedError) as caught:
            tun.persist = True
        assert caught.value.errno == kernel.errors["EOPNOTSUPP"]

    def test_what_there_is_not(self, kernel, tun):
        """One queue, which takes part, and no offload."""
        assert tun.offload == frozenset()
        assert tun._get("offload") == 0
        assert tun.is_attached is True
        for use in (
            lambda: tun.carrier, lambda: tun.tx_queue_len, lambda: tun.owner, lambda: tun.metric,
            lambda: setattr(tun, "tx_queue_len", 5), tun.detach, tun.add_queue,
            lambda: setattr(tun, "name", "utun7"),
        ):  # fmt: skip
            kernel.refuse("ioctl(SIOCGIFMTU)", "ENXIO")
            with pytest.raises(kernel.tuntap.DeviceGoneError):  # or the last use would be what is told
                tun.mtu  # noqa: B018 - it raises
            with pytest.raises(kernel.tuntap.UnsupportedError, match="one queue, no offload") as caught:
                use()
            assert caught.value.errno == kernel.errors["EOPNOTSUPP"]
        for use in (lambda: tun.dns, lambda: setattr(tun, "dns", ["10.0.0.1"])):
            with pytest.raises(kernel.tuntap.UnsupportedError, match="name servers") as caught:
                use()
            assert caught.value.errno == kernel.errors["EOPNOTSUPP"]
        assert told(kernel) == []

    @pytest.mark.parametrize("flag", [4, 8])
    def test_flags_of_other_systems(self, kernel, flag):
        """OPEN_VIRTIO_HEADER and OPEN_MULTI_QUEUE, from a caller that did not look at the capabilities."""
        device = kernel.tuntap.Tun.__new__(kernel.tuntap.Tun)
        with pytest.raises(kernel.tuntap.UnsupportedError, match="one queue, no offload") as caught:
            device._open("", device._layer, flag, -1, "", "", "", None, 0)
        assert caught.value.errno == kernel.errors["EOPNOTSUPP"]
        assert kernel.taken() == []

    def test_capabilities(self, tun):
        assert tun.capabilities == {
            "addresses", "broadcast", "events", "index", "mac", "mtu", "packet_information", "peer",
            "peer_name", "persist", "running", "stats", "tap", "tun", "up",
        }  # fmt: skip

    def test_features(self, kernel):
        assert kernel.tuntap.features() == {"tun", "tap"}
        assert kernel.taken() == []

    def test_what_is_of_other_systems(self, kernel):
        for what, call in (
            ("a private network", kernel.tuntap.testing.private_network),
            ("deleting a driver", kernel.tuntap.delete_driver),
        ):
            with pytest.raises(kernel.tuntap.UnsupportedError, match=what) as caught:
                call()
            assert caught.value.errno == kernel.errors["EOPNOTSUPP"]

    def test_interfaces(self, kernel, tun, tap):
        for name in ("en0", "utun", "utun4x", "feth", "xutun1"):
            kernel.make("en0").name = name
            kernel.interfaces[name] = kernel.interfaces.pop("en0")
        assert kernel.tuntap.interfaces() == ["utun3", "feth4", "feth5"]
        assert (tun._get_layer(), tap._get_layer()) == (tun._layer, tap._layer)

    def test_the_longest_name(self, kernel):
        """Fifteen letters and a zero."""
        kernel.make("feth00000000004")
        assert kernel.tuntap.interfaces() == ["feth00000000004"]
        with importlib.import_module("tuntap.cli")._inspect("feth00000000004") as device:
            assert (device.name, device.mtu) == ("feth00000000004", 1500)

    def test_the_command_lists_them(self, kernel, tun, tap, capsys):
        kernel.add("utun3", "10.1.2.3", 24, "10.1.2.3")
        cli = __import__("tuntap.cli").cli
        assert cli.main(["list", "--json"]) == 0
        found = {facts["name"]: facts for facts in json.loads(capsys.readouterr().out)}
        assert {name: facts["kind"] for name, facts in found.items()} == {
            "utun3": "tun", "feth4": "tap", "feth5": "tap",
        }  # fmt: skip
        assert found["utun3"]["addresses"] == ["10.1.2.3/24"]
        assert found["feth4"]["mac"] == "66:65:74:68:00:04"

    def test_a_question_that_is_refused(self, kernel, tun, tap):
        """EPERM is 1: an error that is taken for less than none would be no error."""
        asked = {
            "ioctl(SIOCGIFFLAGS)": [lambda: tun.is_up, tun.up],
            "ioctl(SIOCSIFFLAGS)": [tun.up],
            "ioctl(SIOCGIFMTU)": [lambda: tun.mtu],
            "ioctl(SIOCSIFMTU)": [lambda: setattr(tun, "mtu", 1400), lambda: setattr(tap, "mtu", 1400)],
            "ioctl(SIOCSIFLLADDR)": [lambda: setattr(tap, "mac", "02:00:00:00:00:07")],
            "getifaddrs": [lambda: tap.mac],
            "sysctl": [lambda: tun.stats],
            "getsockopt": [
                lambda: tun.name, lambda: tun.mtu, tun.up, lambda: tun.stats, lambda: tun.addresses,
                lambda: tun.add_address("10.0.0.1/24"), lambda: tun.remove_address("10.0.0.1/24"),
                lambda: setattr(tun, "mtu", 1400), tun.events, tun._get_mac,
                lambda: tun._remove_address(bytes([10, 0, 0, 1]), 24, None),
                lambda: tun._set_mac(bytes(6)), lambda: tun._set_broadcast(bytes(4)),
            ],
            "if_nameindex": [kernel.tuntap.interfaces],
        }  # fmt: skip
        for call, uses in asked.items():
            for use in uses:
                kernel.refuse(call, "EPERM")
                with pytest.raises(kernel.tuntap.PrivilegeError, match="root") as caught:
                    use()
                assert caught.value.errno == kernel.errors["EPERM"] == 1
                assert call.removeprefix("ioctl(").rstrip(")") in str(caught.value)

    def test_a_link_without_a_mac(self, kernel, tap):
        kernel.interfaces["feth4"].mac = b""
        with pytest.raises(kernel.tuntap.UnsupportedError, match="getifaddrs") as caught:
            tap.mac  # noqa: B018 - it raises
        assert caught.value.errno == kernel.errors["EOPNOTSUPP"]

    def test_an_interface_that_is_gone(self, kernel, tap):
        del kernel.interfaces["feth4"]
        for use in (lambda: tap.index, lambda: tap.stats):
            with pytest.raises(
                kernel.tuntap.DeviceGoneError, match=r"if_nametoindex.*no such interface"
            ) as caught:
                use()
            assert caught.value.errno == kernel.errors["ENXIO"]
        with pytest.raises(kernel.tuntap.UnsupportedError):
            tap.mac  # noqa: B018 - it raises

    def test_counters_of_one_that_has_none(self, kernel, tun, monkeypatch):
        monkeypatch.setattr(kernel, "if_msghdr2", lambda interface: b"")
        with pytest.raises(kernel.tuntap.DeviceGoneError, match="NET_RT_IFLIST2") as caught:
            tun.stats  # noqa: B018 - it raises
        assert caught.value.errno == kernel.errors["ENXIO"]

    @pytest.mark.parametrize("size", [0, 2, 50])
    def test_counters_that_are_no_message(self, kernel, tun, monkeypatch, size):
        """A length of 0 has no end, and one that was cut has no counters."""
        whole = kernel.if_msghdr2(kernel.interfaces["utun3"])
        cut = bytes(200) if size == 0 else whole[: len(whole) - size]
        monkeypatch.setattr(kernel, "if_msghdr2", lambda interface: cut)
        with pytest.raises(kernel.tuntap.DeviceGoneError, match="NET_RT_IFLIST2"):
            tun.stats  # noqa: B018 - it raises


class TestDelete:
    def test_a_utun_goes_with_its_descriptor(self, kernel, tun):
        with pytest.raises(kernel.tuntap.UnsupportedError, match="a TAP alone can be deleted") as caught:
            kernel.tuntap.delete("utun3")
        assert caught.value.errno == kernel.errors["EOPNOTSUPP"]
        assert told(kernel) == []

    def test_another_interface(self, kernel):
        kernel.make("en0")
        with pytest.raises(kernel.tuntap.UnsupportedError):
            kernel.tuntap.delete("en0")
        assert "en0" in kernel.interfaces
        assert told(kernel) == []

    def test_nothing(self, kernel):
        with pytest.raises(kernel.tuntap.DeviceGoneError, match="no such interface") as caught:
            kernel.tuntap.delete("feth4")
        assert caught.value.errno == kernel.errors["ENXIO"]
        assert told(kernel) == []

    def test_an_end_without_another(self, kernel):
        kernel.make("feth4")
        kernel.tuntap.delete("feth4")
        assert told(kernel) == [("SIOCIFDESTROY", ifreq("feth4"))]

    def test_the_other_end_is_not_told(self, kernel):
        kernel.make("feth4")
        kernel.make("feth5")
        kernel.join("feth4", "feth5")
        kernel.refuse("ioctl(SIOCGDRVSPEC)", "EPERM")
        kernel.tuntap.delete("feth4")
        assert told(kernel) == [("SIOCIFDESTROY", ifreq("feth4"))]

    def test_it_is_refused(self, kernel):
        """Then the other end stays as well."""
        for name in ("feth4", "feth5"):
            kernel.make(name)
        kernel.join("feth4", "feth5")
        kernel.refuse("ioctl(SIOCIFDESTROY)", "EPERM")
        with pytest.raises(kernel.tuntap.PrivilegeError, match="SIOCIFDESTROY"):
            kernel.tuntap.delete("feth4")
        assert set(kernel.interfaces) == {"feth4", "feth5"}

    def test_no_socket_for_it(self, kernel):
        kernel.make("feth4")
        kernel.refuse("socket", "EPERM")
        with pytest.raises(kernel.tuntap.PrivilegeError, match="AF_INET"):
            kernel.tuntap.delete("feth4")
        assert set(kernel.interfaces) == {"feth4"}


class TestErrors:
    """What a number means, by where it comes from."""

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ("ENETDOWN", "LinkDownError"), ("ENXIO", "DeviceGoneError"), ("ENODEV", "DeviceGoneError"),
            ("ECONNREFUSED", "DeviceGoneError"), ("ECONNRESET", "DeviceGoneError"),
            ("ENOTCONN", "DeviceGoneError"), ("EPIPE", "DeviceGoneError"), ("EBADF", "ClosedError"),
            ("EBADMSG", "PacketError"), ("EINVAL", "PacketError"), ("EMSGSIZE", "PacketError"),
            ("EAFNOSUPPORT", "PacketError"), ("EHOSTUNREACH", "TunTapError"), ("EPERM", "TunTapError"),
        ],
    )  # fmt: skip
    def test_of_packets(self, kernel, tun, error, kind):
        kernel.refuse("writev", error)
        with pytest.raises(kernel.tuntap.TunTapError, match="writev") as caught:
            tun.send(b"E" * 20)
        assert type(caught.value).__name__ == kind
        assert caught.value.errno == kernel.errors[error]
        assert "BPF" not in str(caught.value)
        kernel.refuse("readv", error)
        with pytest.raises(kernel.tuntap.TunTapError, match="readv") as caught:
            tun.recv(timeout=0)
        if error in ("EINVAL", "EMSGSIZE", "EAFNOSUPPORT"):
            kind = "TunTapError"
        assert type(caught.value).__name__ == kind

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ("EBUSY", "DeviceBusyError"), ("EEXIST", "DeviceBusyError"), ("ENXIO", "DeviceGoneError"),
            ("ENODEV", "DeviceGoneError"), ("EBADF", "ClosedError"), ("EOPNOTSUPP", "UnsupportedError"),
            ("ENOTTY", "UnsupportedError"), ("ENOSYS", "UnsupportedError"), ("ENOENT", "UnsupportedError"),
            ("EAFNOSUPPORT", "UnsupportedError"), ("EPERM", "PrivilegeError"), ("EACCES", "PrivilegeError"),
            ("EIO", "TunTapError"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("call", ["SIOCSIFMTU", "SIOCGIFMTU"])
    def test_of_settings(self, kernel, tun, error, kind, call):
        kernel.refuse(f"ioctl({call})", error)
        with pytest.raises(kernel.tuntap.TunTapError, match=call) as caught:
            tun.mtu if call == "SIOCGIFMTU" else setattr(tun, "mtu", 1400)
        assert type(caught.value).__name__ == kind
        assert caught.value.errno == kernel.errors[error]
        assert ("this takes root" in str(caught.value)) == (kind == "PrivilegeError")
        assert "no such interface" not in str(caught.value)

    @pytest.mark.parametrize(
        ("call", "error", "kind", "said"),
        [
            ("connect", "ENOENT", "UnsupportedError", None), ("connect", "EEXIST", "DeviceBusyError", None),
            ("socket", "EAFNOSUPPORT", "UnsupportedError", None), ("pipe", "EMFILE", "TunTapError", None),
        ],
    )  # fmt: skip
    def test_of_an_open(self, kernel, call, error, kind, said):
        kernel.refuse(call, error)
        with pytest.raises(kernel.tuntap.TunTapError) as caught:
            kernel.tuntap.Tun("utun3")
        assert type(caught.value).__name__ == kind
        assert "another process" not in str(caught.value)

    @pytest.mark.parametrize("error", ["ESRCH", "EIO", "ERANGE", "EINPROGRESS"])
    def test_beside_those_that_are_none(self, kernel, tun, tap, error):
        """Numbers next to those that say to try again (EINTR, EAGAIN)."""
        batch = kernel.tuntap.PacketBatch(2, 1600)
        batch.fill([b"E" * 20] * 2)
        for call, use in (
            ("sendmsg_x", lambda: tun.send_batch(batch, timeout=0)),
            ("write", lambda: tap.send_batch(batch, timeout=0)),
            ("recvmsg_x", lambda: tun.recv_batch(batch, timeout=0)),
        ):
            kernel.refuse(call, error)
            with pytest.raises(kernel.tuntap.TunTapError, match=call) as caught:
                use()
            assert caught.value.errno == kernel.errors[error]


class TestEvents:
    def told(self, events):
        found = []
        while True:
            try:
                found.append(events.get(timeout=0))
            except TimeoutError:
                return found

    def test_the_far_end_of_an_address(self, kernel, tun):
        events = tun.events()
        kernel.notify(kernel.address_message(kernel.RTM_NEWADDR, "utun3", "10.1.2.3", 32, "10.9.9.9"))
        assert str(self.told(events)[0].value.peer) == "10.9.9.9"

    def test_a_broadcast_address_is_no_far_end(self, kernel, tap):
        events = tap.events()
        kernel.notify(kernel.address_message(kernel.RTM_NEWADDR, "feth4", "10.1.2.3", 24, "10.1.2.255"))
        event = self.told(events)[0]
        assert (str(event.value), event.value.peer) == ("10.1.2.3/24", None)

    def test_an_interface_that_went(self, kernel, tap):
        """Nothing says so but a message about what has no name any more."""
        events = tap.events()
        message = kernel.link_message("feth4")
        del kernel.interfaces["feth4"]
        kernel.notify(message)
        assert events.get(timeout=0).kind == "gone"

    def test_they_cannot_be_had(self, kernel, tun):
        """And what was not opened is not closed."""
        for call in ("getsockopt", "socket"):
            kernel.taken()
            kernel.refuse(call, "EPERM")
            with pytest.raises(
                kernel.tuntap.PrivilegeError, match="UTUN_OPT_IFNAME" if call != "socket" else "PF_ROUTE"
            ):
                tun.events()
            assert "close" not in [taken.name for taken in kernel.taken()]

    @pytest.mark.parametrize(("error", "kind"), [("EIO", "TunTapError"), ("EPERM", "PrivilegeError")])
    def test_they_end(self, kernel, tun, error, kind):
        events = tun.events()
        kernel.notify(b"\0")
        kernel.refuse("read", error)
        with pytest.raises(kernel.tuntap.TunTapError) as caught:
            events.get(timeout=0)
        assert (type(caught.value).__name__, caught.value.errno) == (kind, kernel.errors[error])
        del events, caught

    def test_interrupted_by_a_signal(self, kernel, tun):
        events = tun.events()
        kernel.interfaces["utun3"].flags &= ~UP
        kernel.notify(kernel.link_message("utun3"))
        kernel.refuse("read", "EINTR", times=2)
        assert [event.kind for event in self.told(events)] == ["down"]


class TestPacketInformation:
    def test_the_family_is_the_callers(self, kernel):
        packet = struct.pack(">I", 30) + b"\x60" + bytes(39)
        with kernel.tuntap.Tun("utun3", packet_information=True) as tun:
            tun.send(packet)
            assert kernel.wire("utun3").recv(100) == packet
            kernel.wire("utun3").send(packet)
            assert tun.recv(timeout=1) == packet
            batch = tun.batch(2)
            batch.fill([packet, packet])
            assert tun.send_batch(batch) == 2
            assert [kernel.wire("utun3").recv(100) for _ in range(2)] == [packet] * 2
            assert tun._get("packet_information") == 1

    def test_without(self, tun):
        assert tun._get("packet_information") == 0

    def test_exclusive_is_another_flag(self, kernel):
        with kernel.tuntap.Tun("utun3", exclusive=True) as tun:
            assert tun._get("packet_information") == 0

    def test_not_of_a_tap(self, kernel):
        with pytest.raises(kernel.tuntap.UnsupportedError, match="one queue, no offload") as caught:
            kernel.tuntap.Tap(packet_information=True)
        assert caught.value.errno == kernel.errors["EOPNOTSUPP"]
        assert kernel.taken() == []


class TestAdopt:
    @pytest.fixture
    def descriptor(self, kernel):
        descriptor = kernel.socket(AF_SYSTEM, 2, SYSPROTO_CONTROL)
        kernel.make("utun5").device = descriptor
        return descriptor

    def test_one_of_our_own(self, kernel, descriptor):
        """It is made non-blocking, read like one that was opened, and closed; the interface goes with it."""
        os.set_blocking(descriptor, True)
        with kernel.tuntap.Tun.from_fd(descriptor) as tun:
            calls = kernel.taken()
            assert next(call.arguments for call in calls if call.name == "fcntl") == (
                descriptor,
                3,
            )  # F_GETFL
            assert (descriptor, 4, 4) in [call.arguments for call in calls if call.name == "fcntl"]
            assert not os.get_blocking(descriptor)
            assert tun.persist
            kernel.taken()
            tun.send(b"E" * 20)
            assert [call.name for call in kernel.taken()] == ["writev"]
        assert kernel.interfaces == {}
        assert kernel.devices == {}

    def test_the_longest_name(self, kernel, descriptor):
        """Fifteen letters and a zero."""
        kernel.interfaces["utun00000000005"] = kernel.interfaces.pop("utun5")
        kernel.interfaces["utun00000000005"].name = "utun00000000005"
        with kernel.tuntap.Tun.from_fd(descriptor) as tun:
            assert (tun.name, tun.mtu) == ("utun00000000005", 1500)

    def test_one_that_is_borrowed(self, kernel, descriptor):
        """Its flags stay, so each call says that it does not want to wait."""
        os.set_blocking(descriptor, True)
        with kernel.tuntap.Tun.from_fd(descriptor, owned=False) as tun:
            assert os.get_blocking(descriptor)
            tun.send(b"E" * 20)
            kernel.wire("utun5").send(struct.pack(">I", 2) + b"E" * 20)
            assert tun.recv(timeout=1) == b"E" * 20
            assert {"sendmsg", "recvmsg"} <= {call.name for call in kernel.taken()}
        os.fstat(descriptor)
        assert set(kernel.interfaces) == {"utun5"}
        kernel.close(descriptor)

    def test_flags_that_cannot_be_set(self, kernel, descriptor):
        """Then each call says it, as of one that is borrowed."""
        kernel.refuse("fcntl", "EPERM", after=5)
        with kernel.tuntap.Tun.from_fd(descriptor) as tun:
            kernel.taken()
            tun.send(b"E" * 20)
            assert [call.name for call in kernel.taken()] == ["sendmsg"]

    def test_a_pipe(self, kernel):
        """It is waited for by poll() before each read: its flags are not ours, nor is it a socket."""
        reading, writing = os.pipe()
        try:
            with kernel.tuntap.Tun.from_fd(reading, owned=False) as tun:
                kernel.taken()
                with pytest.raises(TimeoutError):
                    tun.recv(timeout=0)
                os.write(writing, b"E" * 20)
                assert tun.recv(timeout=1) == b"E" * 20
                assert [call.name for call in kernel.taken()] == ["poll"] * 3 + ["readv"]
        finally:
            os.close(reading)
            os.close(writing)

    def test_another_kind_of_socket_has_no_interface(self, kernel):
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with one, other, kernel.tuntap.Tun.from_fd(one.fileno(), owned=False) as tun:
            for use in (lambda: tun.name, lambda: tun.mtu, tun.up, lambda: tun.addresses, lambda: tun.stats):
                with pytest.raises(kernel.tuntap.UnsupportedError, match="UTUN_OPT_IFNAME") as caught:
                    use()
                assert caught.value.errno == kernel.errors["ENOTTY"]

    def test_one_that_is_not_open(self, kernel):
        with pytest.raises(kernel.tuntap.ClosedError, match=r"fcntl\(F_GETFL\)") as caught:
            kernel.tuntap.Tun.from_fd(1000)
        assert caught.value.errno == kernel.errors["EBADF"]

    def test_a_control_of_another_kind_is_no_utun(self, kernel):
        descriptor = kernel.socket(AF_SYSTEM, 2, SYSPROTO_CONTROL)
        kernel.control_ids[descriptor] = 6
        tun = kernel.tuntap.Tun.from_fd(descriptor)
        with tun, pytest.raises(kernel.tuntap.UnsupportedError):
            tun.name  # noqa: B018 - it raises

    def test_nothing_is_left_of_a_failure(self, kernel, descriptor):
        kernel.refuse("pipe", "EPERM")
        with pytest.raises(kernel.tuntap.PrivilegeError, match="pipe"):
            kernel.tuntap.Tun.from_fd(descriptor)
        os.fstat(descriptor)
        kernel.close(descriptor)


class TestDescriptorZero:
    """Which a process gets that closed its standard input: it is a descriptor like any other."""

    @pytest.fixture
    def zero(self, kernel, monkeypatch):
        """A function that lets what `is_it` accepts of socket() or open() be descriptor 0, once."""
        kept = os.dup(0)
        tables = (
            kernel.sockets,
            kernel.devices,
            kernel.controls,
            kernel.filters,
            kernel.senders,
            kernel.route_ends,
        )

        def let(call, is_it):
            original = getattr(kernel, call)

            def moved(*arguments):
                descriptor = original(*arguments)
                if descriptor and is_it(*arguments) and not kernel.got_zero:
                    kernel.got_zero = True
                    os.dup2(descriptor, 0, inheritable=True)
                    os.close(descriptor)
                    for table in tables:
                        if descriptor in table:
                            table[0] = table.pop(descriptor)
                    kernel.route_numbers.add(0)
                    return 0
                return descriptor

            kernel.got_zero = False
            monkeypatch.setattr(kernel, call, moved)

        yield let
        assert kernel.got_zero
        os.dup2(kept, 0)
        os.close(kept)

    @pytest.mark.parametrize("family", [2, 30, AF_SYSTEM])
    def test_of_a_tun(self, kernel, zero, family):
        zero("socket", lambda each, *_: each == family)
        with kernel.tuntap.Tun("utun3", mtu=1400, addresses=["fd00::1/64"]) as tun:
            assert (tun.name, tun.mtu) == ("utun3", 1400)
            tun.remove_address("fd00::1/64")
        assert 0 in [call.arguments[0] for call in kernel.taken() if call.name == "close"]

    @pytest.mark.parametrize("call", ["open", "socket"])
    def test_of_a_tap(self, kernel, zero, call):
        kernel.busy_filters = {0}  # its EBUSY is the last error that there was
        zero(call, lambda each, *_: each in (27, "/dev/bpf1"))
        with kernel.tuntap.Tap("feth4", peer_name="feth5") as tap:
            tap.send(b"E" * 60)
            kernel.transmit("feth4", b"F" * 60)
            assert tap.recv(timeout=1) == b"F" * 60
        assert kernel.interfaces == {}

    def test_of_a_routing_socket(self, kernel, zero, tun):
        zero("socket", lambda each, *_: each == 17)
        tun.add_address("10.1.2.3/24")
        assert kernel.routes == {("10.1.2.0", 24): tun.index}

    def test_of_another_routing_socket(self, kernel, zero, tun):
        tun.add_address("10.1.2.3/24")
        zero("socket", lambda each, *_: each == 17)
        tun.remove_address("10.1.2.3/24")
        assert kernel.routes == {}

    def test_of_notifications(self, kernel, zero, tun):
        zero("socket", lambda each, *_: each == 17)
        events = tun.events()
        kernel.interfaces["utun3"].flags &= ~UP
        kernel.notify(kernel.link_message("utun3"))
        assert events.get(timeout=0).kind == "down"


class TestWaiting:
    def test_an_interrupt_ends_a_wait_at_once(self, kernel, tun):
        timer = threading.Timer(0.05, tun.interrupt)
        timer.start()
        begin = time.monotonic()
        with pytest.raises(kernel.tuntap.InterruptError):
            tun.recv(timeout=5)
        assert time.monotonic() - begin < 2
        timer.join()

    def test_an_interrupt_is_over_when_it_was_seen(self, kernel, tun):
        """What woke the wait is taken out: the next one sleeps."""
        timer = threading.Timer(0.05, tun.interrupt)
        timer.start()
        with pytest.raises(kernel.tuntap.InterruptError):
            tun.recv(timeout=5)
        timer.join()
        kernel.taken()
        with pytest.raises(TimeoutError):
            tun.recv(timeout=0.1)
        assert [call.name for call in kernel.taken()].count("poll") == 1

    def test_a_descriptor_that_broke_is_ready(self, kernel, tun, monkeypatch):
        """Poll(2) says POLLERR: what is wrong is told by the call that follows."""
        kernel.refuse("writev", "EAGAIN")

        def poll(entries, count, timeout):
            ctypes.memmove(entries, struct.pack("@ihh", tun.fileno(), 4, 8), 8)  # struct pollfd, POLLERR
            return 1

        monkeypatch.setattr(kernel, "poll", poll)
        assert tun.send(b"E" * 20, timeout=1) == 20
        tun.wait_writable(timeout=1)

    def test_where_an_event_loop_looks(self, tun):
        """At the device itself, for writing."""
        assert tun._target(0, tun) == (tun.fileno(), False)
        assert tun._target(1, tun) == (tun.fileno(), True)

    def test_a_child_does_not_take_the_pair_along(self, kernel, tap):
        """After a fork it is the parent's; and what wakes the child is its own."""

        def child():
            tap.send(b"E" * 60)
            kernel.taken()
            tap.close()
            assert "SIOCIFDESTROY" not in [call[0] for call in kernel.told()]

        reap(fork(child))
