"""macOS: a TAP is one end of a pair of feth; BPF and AF_NDRV have the other."""

import struct

import layouts
import pytest
from fake_bsd import RUNNING, UP
from layouts import if_fake_request, ifdrv, ifreq, sockaddr_ndrv

ON, OFF = struct.pack("I", 1), struct.pack("I", 0)
ASKED = 1 << 17  # bytes of one read
BPF = ("open", "/dev/bpf0", 0x2 | 0x1000000)  # O_RDWR | O_CLOEXEC, fcntl.h
FRAMES = [bytes([0xFF] * 6 + [2, 0, 0, 0, 0, n, 8, 0]) + bytes([n]) * (50 * n + n) for n in (1, 2, 3)]


@pytest.fixture
def kernel(elsewhere):
    with elsewhere("macos").running() as kernel:
        yield kernel


@pytest.fixture
def tap(kernel):
    with kernel.tuntap.Tap("feth4", peer_name="feth5") as device:
        kernel.taken()
        yield device


def steps(kernel):
    """What the kernel was told, without descriptors and questions."""
    kept = []
    for call in kernel.taken():
        if call.name == "open":
            kept.append((call.name, *call.arguments))
        elif call.name == "ioctl" and not call.arguments[1].startswith("SIOCG"):
            kept.append(call.arguments[1:])
        elif call.name in ("bind", "connect"):
            kept.append((call.name, call.arguments[1]))
    return kept


def flags(name, value):
    return "SIOCSIFFLAGS", ifreq(name, struct.pack("H", value))


def mtu(name, value):
    return "SIOCSIFMTU", ifreq(name, struct.pack("i", value))


def paired(name, peer):
    return "SIOCSDRVSPEC", ifdrv(name, 1, 160) + if_fake_request(peer)


def looked_at(peer):
    """The size of a read is told before the interface, and what the interface is for after it."""
    return [
        BPF,
        ("BIOCSBLEN", struct.pack("I", ASKED)),
        ("BIOCIMMEDIATE", ON),
        ("BIOCSSEESENT", OFF),
        ("BIOCSETIF", ifreq(peer)),
        ("BIOCSHDRCMPLT", ON),
        ("BIOCPROMISC", b""),
        ("bind", sockaddr_ndrv(peer)),
        ("connect", sockaddr_ndrv(peer)),
    ]


class TestOpen:
    def test_a_pair_of_any_names(self, kernel):
        with kernel.tuntap.Tap() as tap:
            assert tap.name == "feth0"
            assert steps(kernel) == [
                ("SIOCIFCREATE", ifreq("feth")),
                ("SIOCIFCREATE", ifreq("feth")),
                paired("feth0", "feth1"),
                flags("feth1", 0x8803),  # UP, BROADCAST, SIMPLEX, MULTICAST
                mtu("feth1", 2048),
                *looked_at("feth1"),
                flags("feth0", 0x8803),
            ]
            assert kernel.partners == {"feth0": "feth1", "feth1": "feth0"}
        assert steps(kernel) == [("SIOCIFDESTROY", ifreq("feth0")), ("SIOCIFDESTROY", ifreq("feth1"))]
        assert kernel.interfaces == {}

    @pytest.mark.parametrize(("name", "peer"), [("feth7", "feth3"), ("feth7", None), ("feth%d", "feth%d")])
    def test_names(self, kernel, name, peer):
        with kernel.tuntap.Tap(name, peer_name=peer) as tap:
            own = "feth0" if name == "feth%d" else name
            other = {"feth3": "feth3", None: "feth0", "feth%d": "feth1"}[peer]
            assert tap.name == own
            assert kernel.partners[own] == other
            assert steps(kernel)[:3] == [
                ("SIOCIFCREATE", ifreq("feth" if name == "feth%d" else name)),
                ("SIOCIFCREATE", ifreq("feth3" if peer == "feth3" else "feth")),
                paired(own, other),
            ]
        assert kernel.interfaces == {}

    @pytest.mark.parametrize(
        "options", [{"name": "tap0"}, {"name": "feth"}, {"name": "f"}, {"peer_name": "en0"}]
    )
    def test_a_name_that_cannot_be_had(self, kernel, options):
        with pytest.raises(kernel.tuntap.UnsupportedError, match="feth0, feth1") as caught:
            kernel.tuntap.Tap(**options)
        assert caught.value.errno == kernel.errors["EINVAL"]
        assert kernel.taken() == []

    def test_names_arrive_whole(self, kernel):
        """The longest that a name can be; the system has no interface of such a number."""
        kernel.make("feth5")
        for options in ({"name": "feth12345678901"}, {"name": "feth5", "peer_name": "feth12345678901"}):
            with pytest.raises(kernel.tuntap.TunTapError, match="SIOCIFCREATE") as caught:
                kernel.tuntap.Tap(**options)
            assert caught.value.errno == kernel.errors["EINVAL"]
            assert steps(kernel) == [("SIOCIFCREATE", ifreq("feth12345678901"))]

    def test_a_pair_has_two_ends(self, kernel):
        with pytest.raises(kernel.tuntap.DeviceBusyError, match="two ends") as caught:
            kernel.tuntap.Tap("feth0", peer_name="feth0")
        assert caught.value.errno == kernel.errors["EINVAL"]
        assert kernel.interfaces == {}

    def test_a_system_without_ipv6(self, kernel):
        """What is asked for has nothing to do with it."""
        kernel.families.discard(30)
        with kernel.tuntap.Tap("feth4", persist=True):
            assert kernel.partners["feth4"] == "feth0"
        with kernel.tuntap.Tap("feth4", mtu=1400, mac="02:00:00:00:00:07") as tap:
            assert (tap.mtu, tap.mac) == (1400, "02:00:00:00:00:07")
        kernel.tuntap.delete("feth4")
        assert kernel.interfaces == {}

    def test_nodes_that_others_have(self, kernel):
        kernel.busy_filters = {0, 1, 2}
        with kernel.tuntap.Tap():
            opened = [call for call in kernel.taken() if call.name == "open"]
        assert [call.arguments[0] for call in opened] == [f"/dev/bpf{i}" for i in range(4)]

    def test_others_have_all_nodes(self, kernel):
        kernel.busy_filters = set(range(256))
        with pytest.raises(kernel.tuntap.DeviceBusyError, match="/dev/bpf"):
            kernel.tuntap.Tap()
        assert [call.name for call in kernel.taken()].count("open") == 256
        assert kernel.interfaces == {}

    def test_descriptors_are_not_inherited_and_do_not_block(self, kernel):
        with kernel.tuntap.Tap() as tap:
            told = [call.arguments for call in kernel.taken() if call.name == "fcntl"]
            for descriptor in (tap.fileno(), *kernel.senders):
                assert (descriptor, 2, 1) in told  # F_SETFD, FD_CLOEXEC
                assert (descriptor, 4, 4) in told  # F_SETFL, O_NONBLOCK

    def test_without_rights(self, kernel):
        kernel.uid = 501
        with pytest.raises(kernel.tuntap.PrivilegeError, match="root"):
            kernel.tuntap.Tap()

    def test_an_mtu_that_the_other_end_cannot_have_is_no_failure(self, kernel):
        kernel.refuse("ioctl(SIOCSIFMTU)", "EINVAL")
        with kernel.tuntap.Tap() as tap:
            assert tap.mtu == 1500


STEPS = [("pipe", 0), ("socket", 0), ("socket", 2), ("bind", 0), ("connect", 0), ("open", 0)] + [
    (f"ioctl({name})", 0)
    for name in (
        "SIOCSDRVSPEC", "SIOCGIFFLAGS", "SIOCSIFFLAGS", "BIOCSBLEN", "BIOCIMMEDIATE", "BIOCSSEESENT",
        "BIOCSETIF", "BIOCSHDRCMPLT", "BIOCPROMISC",
    )
]  # fmt: skip


# What an error says that failed, where that is not the call alone.
SAID = {
    ("socket", 0): "socket(AF_INET)", ("socket", 2): "socket(AF_NDRV)", ("bind", 0): "bind(AF_NDRV)",
    ("connect", 0): "connect(AF_NDRV)", ("open", 0): "open(/dev/bpf)",
}  # fmt: skip


class TestFailure:
    @pytest.mark.parametrize("error", ["ENOMEM", "EPERM"])
    @pytest.mark.parametrize(
        ("call", "after"), [*STEPS, ("ioctl(SIOCIFCREATE)", 0), ("ioctl(SIOCIFCREATE)", 1)]
    )
    def test_nothing_is_left(self, kernel, call, after, error):
        """Whatever the number of the error is; EPERM is 1."""
        kernel.refuse(call, error, after=after)
        with pytest.raises(kernel.tuntap.TunTapError) as caught:
            kernel.tuntap.Tap()
        assert caught.value.errno == kernel.errors[error]
        assert SAID.get((call, after), call) in str(caught.value)
        assert kernel.interfaces == {}
        if (call, after) == ("ioctl(SIOCIFCREATE)", 0):
            assert steps(kernel) == [("SIOCIFCREATE", ifreq("feth"))]

    @pytest.mark.parametrize(("call", "after"), [*STEPS, ("ioctl(SIOCIFCREATE)", 0)])
    def test_what_was_there_is_left_alone(self, kernel, call, after):
        """An end that was there without the other."""
        kernel.make("feth0")
        kernel.refuse(call, "ENOMEM", after=after)
        with pytest.raises(kernel.tuntap.TunTapError):
            kernel.tuntap.Tap("feth0")
        assert set(kernel.interfaces) == {"feth0"}
        assert kernel.partners == {}

    @pytest.mark.parametrize(("call", "after"), [step for step in STEPS if step[0] != "ioctl(SIOCSDRVSPEC)"])
    def test_a_pair_that_was_there_stays_one(self, kernel, call, after):
        kernel.make("feth0")
        kernel.make("feth9")
        kernel.join("feth0", "feth9")
        kernel.refuse(call, "ENOMEM", after=after)
        with pytest.raises(kernel.tuntap.TunTapError):
            kernel.tuntap.Tap("feth0")
        assert set(kernel.interfaces) == set(kernel.partners) == {"feth0", "feth9"}

    def test_a_setting_that_is_refused_takes_the_pair_back(self, kernel):
        with pytest.raises(kernel.tuntap.TunTapError, match="SIOCSIFMTU"):
            kernel.tuntap.Tap(mtu=9000)
        assert kernel.interfaces == {}

    def test_the_call_is_named(self, kernel):
        """And not one that cleans up."""
        kernel.refuse("ioctl(SIOCIFDESTROY)", "EBUSY", times=2)
        kernel.refuse("bind", "EADDRNOTAVAIL")
        with pytest.raises(kernel.tuntap.TunTapError, match="AF_NDRV") as caught:
            kernel.tuntap.Tap()
        assert caught.value.errno == kernel.errors["EADDRNOTAVAIL"] == 49


class TestThere:
    """Of a pair that was there before."""

    @pytest.fixture(autouse=True)
    def pair(self, kernel):
        for name in ("feth0", "feth9"):
            kernel.make(name)
        kernel.join("feth0", "feth9")
        kernel.interfaces["feth9"].mtu = 1700

    def test_it_is_left_when_the_device_is_closed(self, kernel):
        with kernel.tuntap.Tap("feth0") as tap:
            assert steps(kernel) == [flags("feth9", 0x8803), *looked_at("feth9")]
            assert tap.persist
            assert not tap.is_up
        assert steps(kernel) == []
        assert kernel.partners == {"feth0": "feth9", "feth9": "feth0"}
        assert kernel.interfaces["feth9"].mtu == 1700

    @pytest.mark.parametrize("peer", ["feth9", "feth%d"])
    def test_the_other_end_may_be_named(self, kernel, peer):
        with kernel.tuntap.Tap("feth0", peer_name=peer) as tap:
            assert tap.name == "feth0"
        assert kernel.partners == {"feth0": "feth9", "feth9": "feth0"}

    @pytest.mark.parametrize(
        ("error", "kind"), [("EOPNOTSUPP", "DeviceBusyError"), ("EPERM", "PrivilegeError")]
    )
    @pytest.mark.parametrize("request_", ["SIOCGDRVSPEC", "SIOCSDRVSPEC"])
    def test_an_interface_that_is_no_pair(self, kernel, error, kind, request_):
        """Of another kind, whatever it is called."""
        kernel.make("feth7")
        kernel.refuse(f"ioctl({request_})", error)
        with pytest.raises(kernel.tuntap.TunTapError, match=rf"ioctl\({request_}\)") as caught:
            kernel.tuntap.Tap("feth7")
        assert type(caught.value).__name__ == kind
        assert ("another kind of interface" in str(caught.value)) == (kind == "DeviceBusyError")
        assert caught.value.errno == kernel.errors[error]
        assert set(kernel.interfaces) == {"feth0", "feth7", "feth9"}

    @pytest.mark.parametrize("name", ["feth0", "feth3"])
    def test_another_end_than_it_has(self, kernel, name):
        """Or an end that is in a pair already."""
        kernel.make("feth8")
        peer = "feth8" if name == "feth0" else "feth9"
        with pytest.raises(kernel.tuntap.DeviceBusyError, match="peer_name") as caught:
            kernel.tuntap.Tap(name, peer_name=peer)
        assert caught.value.errno == kernel.errors["EBUSY"]
        assert set(kernel.interfaces) == {"feth0", "feth8", "feth9"}

    def test_another_end_of_one_letter(self, kernel):
        """Whatever it is called, it is that of the pair."""
        kernel.part("feth0")
        kernel.make("feth8")
        kernel.interfaces["x"] = kernel.interfaces.pop("feth9")
        kernel.interfaces["x"].name = "x"
        kernel.join("feth0", "x")
        with pytest.raises(kernel.tuntap.DeviceBusyError, match="peer_name"):
            kernel.tuntap.Tap("feth0", peer_name="feth8")
        with kernel.tuntap.Tap("feth0") as tap:
            kernel.taken()
            tap.mtu = 1400
            assert steps(kernel) == [mtu("x", 1400), mtu("feth0", 1400)]
        kernel.refuse("ioctl(SIOCIFDESTROY)", "EINVAL", after=1)
        kernel.tuntap.delete("feth0")
        assert steps(kernel) == [("SIOCIFDESTROY", ifreq("feth0")), ("SIOCIFDESTROY", ifreq("x"))]

    def test_one_that_must_not_be_there(self, kernel):
        with pytest.raises(kernel.tuntap.DeviceBusyError, match="if_nametoindex") as caught:
            kernel.tuntap.Tap("feth0", exclusive=True)
        assert caught.value.errno == kernel.errors["EEXIST"]
        assert steps(kernel) == []

    def test_the_other_end_alone_was_there(self, kernel):
        kernel.part("feth0")
        del kernel.interfaces["feth0"]
        with kernel.tuntap.Tap("feth0", peer_name="feth9"):
            assert kernel.partners["feth0"] == "feth9"
            assert kernel.interfaces["feth9"].mtu == 1700
        assert set(kernel.interfaces) == {"feth9"}

    def test_this_end_alone_was_there(self, kernel):
        """What it was given stays with it."""
        kernel.part("feth0")
        del kernel.interfaces["feth9"]
        with kernel.tuntap.Tap("feth0"):
            assert kernel.partners["feth0"] == "feth1"
        assert kernel.partners == {"feth0": "feth1", "feth1": "feth0"}

    def test_delete(self, kernel):
        kernel.tuntap.delete("feth0")
        assert steps(kernel) == [("SIOCIFDESTROY", ifreq("feth0")), ("SIOCIFDESTROY", ifreq("feth9"))]
        assert kernel.interfaces == {}


class TestPersist:
    def test_both_ends_stay(self, kernel):
        with kernel.tuntap.Tap(persist=True) as tap:
            assert tap.persist
        assert kernel.partners == {"feth0": "feth1", "feth1": "feth0"}
        with kernel.tuntap.Tap("feth0") as tap:
            assert tap.persist
        assert set(kernel.interfaces) == {"feth0", "feth1"}

    def test_it_is_taken_back(self, kernel):
        with kernel.tuntap.Tap() as tap:
            assert not tap.persist
            tap.persist = True
            tap.persist = False
        assert kernel.interfaces == {}


class TestReceive:
    def test_several_records_with_one_read(self, kernel, tap):
        for frame in FRAMES:
            kernel.transmit("feth4", frame)
        assert [tap.recv(timeout=1) for _ in FRAMES] == FRAMES
        calls = [call for call in kernel.taken() if call.name != "poll"]
        assert [(call.name, call.arguments[1]) for call in calls] == [("read", ASKED)]
        with pytest.raises(TimeoutError):
            tap.recv(timeout=0)

    def test_a_batch(self, kernel, tap):
        for frame in FRAMES:
            kernel.transmit("feth4", frame)
        batch = tap.batch(2)
        assert tap.recv_batch(batch, timeout=1) == 2
        assert tap.pending == 1
        assert [bytes(frame) for frame in batch] == FRAMES[:2]
        assert tap.recv_batch(batch, timeout=1) == 1
        assert [bytes(frame) for frame in batch] == FRAMES[2:]

    def test_reads_are_as_large_as_the_kernel_said(self, kernel):
        """Which may be less than it was asked for; it refuses any other size."""
        kernel.largest_read = 1024
        with kernel.tuntap.Tap("feth4") as tap:
            kernel.taken()
            frames = [bytes([n]) * 450 for n in range(5)]
            for frame in frames:
                kernel.transmit("feth4", frame)
            batch = tap.batch(64)
            assert tap.recv_batch(batch, timeout=1) == 5
            assert [bytes(frame) for frame in batch] == frames
            assert {call.arguments[1] for call in kernel.taken() if call.name == "read"} == {1024}

    def test_a_frame_that_was_cut(self, kernel):
        kernel.largest_read = 128
        with kernel.tuntap.Tap("feth4") as tap:
            kernel.transmit("feth4", b"E" * 300)
            with pytest.raises(kernel.tuntap.PacketError, match="first 110 bytes"):
                tap.recv(timeout=1)
            kernel.transmit("feth4", b"F" * 300)
            batch = tap.batch(2)
            assert tap.recv_batch(batch, timeout=1) == 1
            assert batch.truncated == (0,)
            assert bytes(batch[0]) == b"F" * 110

    @pytest.mark.parametrize(
        "broken",
        [
            b"\1",
            layouts.bpf_hdr(60, 60) + bytes(59),
            layouts.bpf_hdr(60, 59) + bytes(60),
            layouts.bpf_hdr(0xFFFFFFFF, 0xFFFFFFFF) + bytes(60),
        ],
        ids=["no_header", "behind_the_end", "more_than_there_was", "huge"],
    )
    def test_what_is_no_record(self, kernel, tap, broken):
        """Those before it are delivered, and so is what comes later."""
        kernel.transmit("feth4", FRAMES[0])
        kernel.looking_at("feth5").send(broken)
        assert tap.recv(timeout=1) == FRAMES[0]
        with pytest.raises(kernel.tuntap.PacketError, match="BPF") as caught:
            tap.recv(timeout=1)
        assert caught.value.errno == kernel.errors["EBADMSG"]
        kernel.transmit("feth4", FRAMES[1])
        assert tap.recv(timeout=1) == FRAMES[1]

    def test_its_own_frames_are_not_heard(self, kernel, tap):
        tap.send(FRAMES[0])
        with pytest.raises(TimeoutError):
            tap.recv(timeout=0)

    def test_the_pair_was_destroyed(self, kernel, tap):
        for name in ("feth4", "feth5"):
            kernel.SIOCIFDESTROY(None, ifreq(name))
        with pytest.raises(kernel.tuntap.DeviceGoneError) as caught:
            tap.recv(timeout=0)
        assert caught.value.errno == kernel.errors["ENXIO"]
        with pytest.raises(kernel.tuntap.DeviceGoneError):
            tap.send(FRAMES[0])


class TestSend:
    def test_a_frame(self, kernel, tap):
        assert tap.send(FRAMES[0]) == len(FRAMES[0])
        (call,) = kernel.taken()
        assert (call.name, call.arguments) == ("write", (next(iter(kernel.senders)), FRAMES[0]))
        assert kernel.arrived == {"feth4": [FRAMES[0]]}

    def test_a_batch(self, kernel, tap):
        batch = tap.batch(4)
        batch.fill(FRAMES)
        assert tap.send_batch(batch) == 3
        assert kernel.arrived["feth4"] == FRAMES

    def test_a_selection(self, kernel, tap):
        """Of frames that lie apart; a part of it is continued."""
        batch = tap.batch(4)
        batch.fill(FRAMES)
        batch.lengths[1] = 0
        kernel.refuse("write", "EAGAIN", after=1, times=100)
        assert tap.send_batch(batch, timeout=0, where=[2, 0, 2]) == 1
        kernel.refusals.clear()
        assert tap.send_batch(batch, timeout=0, where=[2, 0, 2], start=1) == 2
        assert kernel.arrived["feth4"] == [FRAMES[2], FRAMES[0], FRAMES[2]]

    @pytest.mark.parametrize("error", ["ENOBUFS", "ENOSPC"])
    def test_no_room(self, kernel, tap, error):
        """Nothing is lost, and nothing sent twice."""
        kernel.refuse("write", error, times=2, after=1)
        batch = tap.batch(4)
        batch.fill(FRAMES)
        assert tap.send_batch(batch) == 3
        assert kernel.arrived["feth4"] == FRAMES
        pauses = [call.arguments[0] for call in kernel.taken() if call.name == "nanosleep"]
        assert pauses == [(0, 250_000), (0, 500_000)]

    def test_a_frame_that_is_too_large(self, kernel, tap):
        batch = kernel.tuntap.PacketBatch(3, 9000)
        batch.fill([FRAMES[0], bytes(8193), FRAMES[1]])
        assert tap.send_batch(batch) == 1
        with pytest.raises(kernel.tuntap.PacketError) as caught:
            tap.send(FRAMES[2])
        assert caught.value.errno == kernel.errors["EMSGSIZE"]
        tap.send(FRAMES[2])
        assert kernel.arrived["feth4"] == [FRAMES[0], FRAMES[2]]

    def test_interrupted_by_a_signal(self, kernel, tap):
        """In the middle of a batch, too: nobody is told later."""
        kernel.refuse("write", "EINTR", after=1)
        batch = tap.batch(4)
        batch.fill(FRAMES)
        assert tap.send_batch(batch, timeout=0) == 3
        tap.send(FRAMES[0], timeout=0)
        assert kernel.arrived["feth4"] == [*FRAMES, FRAMES[0]]

    def test_no_room_for_the_rest(self, kernel, tap):
        """What went is a result, and the next call starts anew."""
        kernel.refuse("write", "EAGAIN", after=1, times=100)
        batch = tap.batch(4)
        batch.fill(FRAMES)
        assert tap.send_batch(batch, timeout=0) == 1
        kernel.refusals.clear()
        tap.send(FRAMES[1], timeout=0)
        assert kernel.arrived["feth4"] == FRAMES[:2]

    def test_a_frame_of_one_byte(self, kernel, tap):
        """The rest is the system's to refuse."""
        assert tap.send(b"E") == 1
        assert kernel.arrived["feth4"] == [b"E"]

    @pytest.mark.parametrize("length", [0, -1, 1537])
    def test_a_length_that_changes(self, kernel, tap, monkeypatch, length):
        """The array is the caller's, where another thread may write when it was checked already."""
        batch = tap.batch(3)
        batch.fill(FRAMES)
        write = kernel.write

        def written(*arguments):
            batch.lengths[1] = length
            return write(*arguments)

        monkeypatch.setattr(kernel, "write", written)
        assert tap.send_batch(batch) == 1
        with pytest.raises(kernel.tuntap.PacketError, match="write:") as caught:
            tap.send(FRAMES[2])
        assert caught.value.errno == kernel.errors["EINVAL"]
        assert kernel.arrived["feth4"] == FRAMES[:1]

    def test_the_other_end_is_down(self, kernel, tap):
        kernel.interfaces["feth5"].flags &= ~UP
        with pytest.raises(kernel.tuntap.LinkDownError):
            tap.send(FRAMES[0])


class TestSettings:
    def test_the_mtu_is_of_both_ends(self, kernel, tap):
        tap.mtu = 1400
        assert steps(kernel) == [mtu("feth5", 1400), mtu("feth4", 1400)]
        assert tap.mtu == 1400

    def test_an_mtu_that_is_refused(self, kernel, tap):
        with pytest.raises(kernel.tuntap.TunTapError, match="SIOCSIFMTU") as caught:
            tap.mtu = 2049
        assert caught.value.errno == kernel.errors["EINVAL"]
        assert tap.mtu == 1500

    def test_up_and_down(self, kernel, tap):
        """Of this end: the other is looked at for as long as the device is open."""
        tap.down()
        assert steps(kernel) == [flags("feth4", 0x8842)]
        assert not tap.is_up
        assert kernel.interfaces["feth5"].flags & (UP | RUNNING) == UP | RUNNING

    def test_mac(self, kernel, tap):
        assert tap.mac == "66:65:74:68:00:04"
        tap.mac = "02:00:00:00:00:07"
        told = b"\x06\x12\x02\0\0\0\0\x07"  # length, AF_LINK, address
        assert steps(kernel) == [("SIOCSIFLLADDR", ifreq("feth4", told))]
        assert tap.mac == "02:00:00:00:00:07"

    def test_an_address(self, kernel, tap):
        """On a broadcast link, which has the other ends of its subnet by itself."""
        tap.add_address("10.1.2.3/24")
        (address,) = kernel.interfaces["feth4"].addresses
        assert (address.ip, address.prefix, address.other) == ("10.1.2.3", 24, "10.1.2.255")

    def test_list(self, kernel, tap):
        kernel.make("en0")
        assert kernel.tuntap.interfaces() == ["feth4", "feth5"]
