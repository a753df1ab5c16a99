"""FreeBSD: how an interface is opened, renamed and closed, call for call."""

import struct

import pytest
from fake_bsd import UP
from layouts import ifreq

ON = struct.pack("i", 1)
OFF = struct.pack("i", 0)
TUN_DOWN = struct.pack("H", 0x8050)  # RUNNING, POINTOPOINT, MULTICAST
TAP_DOWN = struct.pack("H", 0x8842)  # RUNNING, BROADCAST, SIMPLEX, MULTICAST
OPEN = 0x2 | 0x4 | 0x100000  # O_RDWR | O_NONBLOCK | O_CLOEXEC, fcntl.h


@pytest.fixture
def kernel(elsewhere):
    with elsewhere("freebsd").running() as kernel:
        yield kernel


def test_flags_of_open(kernel):
    names = ("O_RDWR", "O_NONBLOCK", "O_CLOEXEC")
    assert sum(kernel.numbers[name] for name in names) == OPEN


def test_a_tun_of_any_name(kernel):
    with kernel.tuntap.Tun(up=False) as tun:
        assert tun.name == "tun0"
        assert kernel.told() == [
            ("SIOCIFCREATE", ifreq("tun")),
            ("open", "/dev/tun0", OPEN),
            ("TUNSIFHEAD", ON),
            ("TUNSTRANSIENT", ON),
            ("SIOCSIFFLAGS", ifreq("tun0", TUN_DOWN)),
        ]
    assert kernel.told() == []  # the interface goes with its descriptor
    assert kernel.interfaces == {}


def test_the_next_unit_that_is_free(kernel):
    kernel.make("tun0")
    with kernel.tuntap.Tun() as tun:
        assert tun.name == "tun1"
        assert set(kernel.interfaces) == {"tun0", "tun1"}
    assert set(kernel.interfaces) == {"tun0"}


def test_a_tun_of_the_drivers_name(kernel):
    with kernel.tuntap.Tun("tun5", up=False) as tun:
        assert tun.name == "tun5"
        assert kernel.told() == [
            ("SIOCIFCREATE", ifreq("tun5")),
            ("open", "/dev/tun5", OPEN),
            ("TUNSIFHEAD", ON),
            ("TUNSTRANSIENT", ON),
            ("SIOCSIFFLAGS", ifreq("tun5", TUN_DOWN)),
        ]


def test_a_tap(kernel):
    with kernel.tuntap.Tap(up=False) as tap:
        assert tap.name == "tap0"
        assert kernel.told() == [
            ("SIOCIFCREATE", ifreq("tap")),
            ("open", "/dev/tap0", OPEN),
            ("TUNSTRANSIENT", ON),
            ("SIOCSIFFLAGS", ifreq("tap0", TAP_DOWN)),
        ]
    assert kernel.interfaces == {}


def test_a_name_of_ones_own(kernel):
    """Made under the name of the driver, and renamed: the new name lies where the request points to."""
    with kernel.tuntap.Tun("vpn0", up=False) as tun:
        assert tun.name == "vpn0"
        created, opened, renamed, head, transient, flags = kernel.told()
    assert created == ("SIOCIFCREATE", ifreq("tun"))
    assert opened == ("open", "/dev/tun0", OPEN)
    assert renamed[0] == "SIOCSIFNAME"
    assert renamed[1][:16] == b"tun0".ljust(16, b"\0")
    assert head == ("TUNSIFHEAD", ON)
    assert transient == ("TUNSTRANSIENT", ON)
    assert flags == ("SIOCSIFFLAGS", ifreq("vpn0", TUN_DOWN))
    assert kernel.interfaces == {}


def test_a_pattern(kernel):
    kernel.make("tun0").name = "vpn0"
    kernel.interfaces["vpn0"] = kernel.interfaces.pop("tun0")
    with kernel.tuntap.Tun("vpn%d") as tun:
        assert tun.name == "vpn1"
        assert kernel.interfaces["vpn1"].kind == "tun"


def test_one_that_is_up(kernel):
    with kernel.tuntap.Tun():
        assert kernel.told()[-1] == ("SIOCSIFFLAGS", ifreq("tun0", struct.pack("H", 0x8051)))


def test_the_high_flags_stay(kernel):
    """SIOCSIFFLAGS sets ifr_flagshigh too: what was there is handed back."""
    kernel.high_flags = 0x2
    with kernel.tuntap.Tun(up=False) as tun:
        kernel.taken()
        tun.up()
        assert kernel.told() == [("SIOCSIFFLAGS", ifreq("tun0", struct.pack("HH", 0x8051, 0x2)))]


def test_one_that_is_there_is_left_when_it_is_closed(kernel):
    kernel.make("tun3")
    with kernel.tuntap.Tun("tun3") as tun:
        assert kernel.told() == [("open", "/dev/tun3", OPEN), ("TUNSIFHEAD", ON)]
        assert not tun.is_up
        assert tun.persist
    assert kernel.told() == []
    assert "tun3" in kernel.interfaces


def test_one_that_is_there_but_must_not_be(kernel):
    kernel.make("tun3")
    with pytest.raises(kernel.tuntap.DeviceBusyError, match="if_nametoindex") as caught:
        kernel.tuntap.Tun("tun3", exclusive=True)
    assert caught.value.errno == kernel.errors["EEXIST"]
    assert kernel.told() == []


@pytest.mark.parametrize("kind", ["Tun", "Tap"])
def test_a_name_of_the_other_kind(kernel, kind):
    """Its name tells nothing of an interface that was renamed."""
    before = "tap0" if kind == "Tun" else "tun0"
    kernel.make(before).name = "office"
    kernel.interfaces["office"] = kernel.interfaces.pop(before)
    with pytest.raises(kernel.tuntap.DeviceBusyError, match="another kind"):
        getattr(kernel.tuntap, kind)("office")
    assert set(kernel.interfaces) == {"office"}


def test_one_that_another_has_open(kernel):
    with kernel.tuntap.Tun("tun3"):
        with pytest.raises(kernel.tuntap.DeviceBusyError) as caught:
            kernel.tuntap.Tun("tun3")
        assert caught.value.errno == kernel.errors["EBUSY"]
        assert set(kernel.interfaces) == {"tun3"}


def test_an_old_kernel_removes_by_request_once_the_descriptor_is_closed(kernel):
    kernel.has_transient = False
    with kernel.tuntap.Tun(up=False):
        kernel.taken()
    told = kernel.told()
    assert told[-1] == ("SIOCIFDESTROY", ifreq("tun0"))
    assert kernel.interfaces == {}


def test_an_old_kernel_and_a_child_that_has_the_device_too(kernel):
    """The request would sleep until the child closes it."""
    kernel.has_transient = False
    with kernel.tuntap.Tun(up=False):
        kernel.held.add("tun0")
        kernel.taken()
    assert "SIOCIFDESTROY" not in [call[0] for call in kernel.told()]
    kernel.held.clear()


def test_persist(kernel):
    with kernel.tuntap.Tun(persist=True, up=False) as tun:
        assert kernel.told()[-1] == ("TUNSTRANSIENT", OFF)
        assert tun.persist
        tun.persist = False
        assert kernel.told() == [("TUNSTRANSIENT", ON)]
        tun.persist = True
    assert "tun0" in kernel.interfaces


def test_rename(kernel):
    with kernel.tuntap.Tun("tun0", up=False) as tun:
        kernel.taken()
        tun.name = "office"
        ((name, data),) = kernel.told()
        assert name == "SIOCSIFNAME"
        assert data[:16] == b"tun0".ljust(16, b"\0")
        assert data[24:] == bytes(8)
        assert tun.name == "office"
        tun.mtu = 1400
        assert kernel.interfaces["office"].mtu == 1400
    assert kernel.interfaces == {}


def test_a_name_of_the_drivers_own_is_for_the_driver(kernel):
    """Its node would be in the way of a unit that the kernel makes; back to one's own it goes."""
    with kernel.tuntap.Tun("tun0", up=False) as tun:
        kernel.taken()
        with pytest.raises(kernel.tuntap.UnsupportedError):
            tun.name = "tun9"
        assert kernel.told() == []
        tun.name = "office"
        tun.name = "tun0"
        assert [call[0] for call in kernel.told()] == ["SIOCSIFNAME", "SIOCSIFNAME"]
        assert tun.name == "tun0"


def test_renamed_by_somebody_else(kernel):
    with kernel.tuntap.Tun("tun0", up=False) as tun:
        kernel.interfaces["office"] = kernel.interfaces.pop("tun0")
        kernel.interfaces["office"].name = "office"
        assert tun.name == "office"
        tun.up()
        assert kernel.interfaces["office"].flags & UP


def test_the_driver_is_loaded(kernel):
    kernel.has_driver = False
    with kernel.tuntap.Tun(up=False) as tun:
        assert tun.name == "tun0"
        assert kernel.told()[:3] == [
            ("SIOCIFCREATE", ifreq("tun")),
            ("kldload", "if_tuntap"),
            ("SIOCIFCREATE", ifreq("tun")),
        ]


@pytest.mark.parametrize("error", ["EPERM", "EACCES"])
def test_without_rights(kernel, error):
    kernel.uid = 1001
    kernel.refuse("ioctl(SIOCIFCREATE)", error)
    with pytest.raises(kernel.tuntap.PrivilegeError) as caught:
        kernel.tuntap.Tun()
    assert caught.value.errno == kernel.errors[error]


def test_without_rights_there_is_no_node(kernel):
    """An ordinary user gets ENOENT for a node that is there."""
    kernel.make("tun0")
    kernel.uid = 1001
    with pytest.raises(kernel.tuntap.PrivilegeError) as caught:
        kernel.tuntap.Tun("tun0")
    assert caught.value.errno == kernel.errors["ENOENT"]


@pytest.mark.parametrize("call", ["open", "ioctl(TUNSIFHEAD)", "socket", "pipe"])
def test_nothing_is_left_of_an_open_that_failed(kernel, call):
    kernel.refuse(call, "ENOMEM")
    with pytest.raises(kernel.tuntap.TunTapError) as caught:
        kernel.tuntap.Tun()
    assert caught.value.errno == kernel.errors["ENOMEM"]
    assert kernel.interfaces == {}


def test_a_setting_that_is_refused_takes_the_interface_back(kernel):
    kernel.refuse("ioctl(SIOCSIFMTU)", "EINVAL")
    with pytest.raises(kernel.tuntap.TunTapError, match="SIOCSIFMTU"):
        kernel.tuntap.Tun(mtu=1400)
    assert kernel.interfaces == {}


class TestAdopt:
    @pytest.fixture
    def descriptor(self, kernel):
        descriptor = kernel.open("/dev/tun7", 0x2, 0)
        yield descriptor
        if descriptor in kernel.devices:
            kernel.close(descriptor)

    def test_borrowed(self, kernel, descriptor):
        with kernel.tuntap.Tun.from_fd(descriptor, owned=False) as tun:
            flags = [call.arguments[1:] for call in kernel.taken() if call.arguments[:1] == (descriptor,)]
            assert flags[0] == (3,)  # F_GETFL, and no F_SETFL
            assert tun.name == "tun7"
            assert tun.persist
            assert kernel.told() == []
        assert descriptor in kernel.devices

    def test_owned(self, kernel, descriptor):
        with kernel.tuntap.Tun.from_fd(descriptor) as tun:
            calls = kernel.taken()
            assert [call.arguments[1] for call in calls if call.name == "ioctl"][-1] == "TUNSIFPID"
            assert (descriptor, 4, 4) in [call.arguments for call in calls]  # F_SETFL, O_NONBLOCK
            with pytest.raises(TimeoutError):
                tun.recv(timeout=0)
            assert kernel.taken()[0].name == "read"  # which need not ask whether it would wait
        assert "tun7" in kernel.interfaces  # whoever made it says when it goes
        assert descriptor not in kernel.devices

    def test_with_and_without_the_family_in_front(self, kernel, descriptor):
        packet = kernel.tuntap.testing.udp("10.0.0.1", "10.0.0.2", 1, 2, b"x")
        interface = kernel.interfaces["tun7"]
        interface.flags |= UP
        for head, sent in ((0, packet), (1, b"\0\0\0\x02" + packet)):
            interface.head = head
            with kernel.tuntap.Tun.from_fd(descriptor, owned=False) as tun:
                tun.send(packet)
                assert kernel.wire("tun7").recv(2000) == sent

    def test_a_tap(self, kernel):
        descriptor = kernel.open("/dev/tap2", 0x2, 0)
        with pytest.raises(ValueError, match="Tap"):
            kernel.tuntap.Tun.from_fd(descriptor)
        with kernel.tuntap.Tap.from_fd(descriptor) as tap:
            assert tap.name == "tap2"


class TestPackets:
    @pytest.fixture
    def tun(self, kernel):
        with kernel.tuntap.Tun() as tun:
            yield tun

    def packets(self, kernel):
        testing = kernel.tuntap.testing
        return testing.udp("10.0.0.1", "10.0.0.2", 1, 2, b"4"), testing.udp("fd00::1", "fd00::2", 1, 2, b"6")

    def test_the_family_goes_in_front(self, kernel, tun):
        for packet, family in zip(self.packets(kernel), (2, 28), strict=True):
            assert tun.send(packet) == len(packet)
            assert kernel.wire("tun0").recv(2000) == struct.pack(">I", family) + packet

    def test_and_is_taken_off(self, kernel, tun):
        for packet, family in zip(self.packets(kernel), (2, 28), strict=True):
            kernel.wire("tun0").send(struct.pack(">I", family) + packet)
            assert tun.recv(timeout=1) == packet

    def test_a_batch(self, kernel, tun):
        four, six = self.packets(kernel)
        batch = tun.batch(4)
        batch.fill([four, six])
        assert tun.send_batch(batch) == 2
        assert kernel.wire("tun0").recv(2000) == b"\0\0\0\x02" + four
        assert kernel.wire("tun0").recv(2000) == b"\0\0\0\x1c" + six
        kernel.wire("tun0").send(b"\0\0\0\x1c" + six)
        kernel.wire("tun0").send(b"\0\0\0\x02" + four)
        assert tun.recv_batch(batch, timeout=1) == 2
        assert [bytes(packet) for packet in batch] == [six, four]

    def test_one_that_is_down_takes_nothing_and_says_so(self, kernel, tun):
        """write() returns 0 there."""
        tun.down()
        with pytest.raises(kernel.tuntap.LinkDownError):
            tun.send(self.packets(kernel)[0])
        batch = tun.batch(4)
        batch.fill(self.packets(kernel))
        with pytest.raises(kernel.tuntap.LinkDownError):
            tun.send_batch(batch)

    def test_reading_before_it_is_up_waits(self, kernel):
        with kernel.tuntap.Tun(up=False) as tun:
            with pytest.raises(TimeoutError):
                tun.recv(timeout=0.01)
            with pytest.raises(TimeoutError):
                tun.recv_batch(tun.batch(2), timeout=0.01)

    def test_no_buffers(self, kernel, tun):
        """poll(2) would say that there is room: it sleeps, longer each time, and the packet goes at last."""
        packet = self.packets(kernel)[0]
        kernel.refuse("writev", "ENOBUFS", times=3)
        kernel.taken()
        tun.send(packet)
        pauses = [call.arguments[0] for call in kernel.taken() if call.name == "nanosleep"]
        assert pauses == [(0, 250_000), (0, 500_000), (0, 1_000_000)]
        assert kernel.wire("tun0").recv(2000) == b"\0\0\0\x02" + packet

    def test_a_selection(self, kernel, tun):
        """Each packet behind its own family, whatever lies between; where there is no room it goes on."""
        four, six = self.packets(kernel)
        batch = tun.batch(4)
        batch.fill([four, bytes(40), six])
        kernel.refuse("writev", "ENOBUFS", after=1)
        assert tun.send_batch(batch, where=[2, 0, 2]) == 3
        families = {four: b"\0\0\0\x02", six: b"\0\0\0\x1c"}
        for packet in (six, four, six):
            assert kernel.wire("tun0").recv(2000) == families[packet] + packet

    def test_no_buffers_for_the_second_of_a_batch(self, kernel, tun):
        batch = tun.batch(2)
        packets = self.packets(kernel)
        batch.fill(packets)
        kernel.refuse("writev", "ENOBUFS", after=1)
        assert tun.send_batch(batch) == 2
        assert [kernel.wire("tun0").recv(2000)[4:] for _ in packets] == list(packets)

    def test_the_interface_is_destroyed(self, kernel, tun):
        kernel.refuse("readv", "ENXIO")
        with pytest.raises(kernel.tuntap.DeviceGoneError):
            tun.recv(timeout=1)

    def test_packet_information_is_the_family(self, kernel):
        packet = b"\0\0\0\x02" + self.packets(kernel)[0]
        with kernel.tuntap.Tun(packet_information=True) as tun:
            tun.send(packet)
            assert kernel.wire("tun0").recv(2000) == packet
            kernel.wire("tun0").send(packet)
            assert tun.recv(timeout=1) == packet

    def test_a_tap_carries_frames_as_they_are(self, kernel):
        with kernel.tuntap.Tap() as tap:
            frame = bytes(6) + tap.mac.replace(":", "").encode() + b"\x08\x00" + b"E" * 40
            tap.send(frame)
            assert kernel.wire("tap0").recv(2000) == frame
            kernel.wire("tap0").send(frame)
            assert tap.recv(timeout=1) == frame


class TestMac:
    def test_is_set(self, kernel):
        with kernel.tuntap.Tap(up=False) as tap:
            kernel.taken()
            tap.mac = "02:01:03:05:07:09"
            sockaddr = bytes([6, 18]) + b"\x02\x01\x03\x05\x07\x09"
            assert kernel.told() == [("SIOCSIFLLADDR", ifreq("tap0", sockaddr))]
            assert tap.mac == "02:01:03:05:07:09"
