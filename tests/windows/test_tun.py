"""A TUN by Wintun: its life, its packets, and the end of its waits."""

import _thread
import contextlib
import errno
import functools
import logging
import threading
import time
import uuid
from pathlib import Path

import fake_wintun
import pytest
from fake_wintun import LIBRARY as WINTUN

import tuntap
from tuntap import PacketBatch, Tun

PACKET = bytes.fromhex("4500002800010000401100000a0000010a000002") + bytes(20)
BUSY_ERRORS = (80, 170, 183, 5010)  # FILE_EXISTS, BUSY, ALREADY_EXISTS, OBJECT_ALREADY_EXISTS


def open_tun(name="tun0", **settings):
    return Tun(name, wintun=WINTUN, **settings)


def numbered(number, size=60):
    return PACKET[:20] + number.to_bytes(4, "big") + bytes(size - 24)


class TestLife:
    def test_open_and_close(self, stack):
        with open_tun() as tun:
            assert (tun.name, tun.is_up, tun.persist, tun.driver_version) == ("tun0", True, False, (0, 14))
            guid, kind, luid = stack.adapter("tun0")
            assert (kind, luid) == ("tuntap", tun.luid)
            counts = stack.counts()
            assert (counts.adapters, counts.sessions) == (1, 1)
        assert stack.adapter("tun0") is None
        counts = stack.counts()
        assert (counts.adapters, counts.sessions, counts.handles) == (0, 0, 0)
        assert (guid.variant, guid.version) == (uuid.RFC_4122, 8)

    def test_the_guid_is_that_of_the_name(self, stack):
        found = []
        for name in ("vpn", "vpn", "other"):
            with open_tun(name):
                found.append(stack.adapter(name)[0])
        assert found[0] == found[1] != found[2]

    def test_what_was_asked_for(self, stack):
        guid = uuid.uuid4()
        with open_tun("Mein Büro - 接口", guid=guid, description="Example", ring_capacity=1 << 17) as tun:
            assert stack.adapter(tun.name)[:2] == (guid, "Example")
            assert tun.name == "Mein Büro - 接口"
        with open_tun(guid=str(guid)):
            assert stack.adapter("tun0")[0] == guid

    def test_a_name_is_found(self, stack, ip):
        ip.interface("tun0")
        with Tun(wintun=WINTUN) as first, Tun(wintun=WINTUN) as second, Tun("vpn%d", wintun=WINTUN) as third:
            assert [first.name, second.name, third.name] == ["tun1", "tun2", "vpn0"]

    def test_an_adapter_that_is_there_is_opened(self, stack):
        owner = fake_wintun.wintun()
        adapter = owner.WintunCreateAdapter("tun7", "Another", uuid.uuid4().bytes_le)
        with open_tun("tun7") as tun:
            assert tun.is_up
            assert stack.inject("tun7", PACKET)
            assert tun.recv(timeout=5) == PACKET
        assert stack.adapter("tun7")[1] == "Another"  # and stays
        with pytest.raises(tuntap.DeviceBusyError):
            open_tun("tun7", exclusive=True)
        owner.WintunCloseAdapter(adapter)

    def test_one_that_somebody_else_uses(self, stack):
        with open_tun(), pytest.raises(tuntap.DeviceBusyError) as caught:
            open_tun()
        assert caught.value.winerror == 1247
        assert "WintunStartSession" in str(caught.value)

    def test_the_name_of_another_interface(self, stack, ip):
        ip.interface("Ethernet")
        start = time.monotonic()
        with pytest.raises(tuntap.DeviceBusyError):
            open_tun("Ethernet")
        assert time.monotonic() - start < 20

    @pytest.mark.parametrize("attempts", [1, 5])
    def test_one_that_was_closed_a_moment_ago(self, stack, attempts):
        stack.linger(attempts)
        for _ in range(3):
            open_tun().close()
        stack.linger(0)
        open_tun().close()

    @pytest.mark.parametrize("error", BUSY_ERRORS)
    def test_a_moment_is_waited_for_what_may_pass(self, stack, error):
        stack.fail("WintunCreateAdapter", error, 3)
        open_tun().close()

    def test_rights(self, stack):
        stack.fail("WintunCreateAdapter", 5)
        with pytest.raises(tuntap.PrivilegeError) as caught:
            open_tun()
        assert isinstance(caught.value, PermissionError)
        assert caught.value.winerror == 5
        assert "administrator" in str(caught.value)
        stack.fail("WintunOpenAdapter", 5)
        stack.fail("WintunCreateAdapter", 5)

    def test_a_session_that_is_refused_leaves_nothing(self, stack):
        stack.fail("WintunStartSession", 8)
        with pytest.raises(tuntap.TunTapError) as caught:
            open_tun()
        assert caught.value.winerror == 8
        assert stack.counts().adapters == 0

    def test_quick_restarts(self, stack):
        for _ in range(100):
            with open_tun() as tun:
                stack.inject("tun0", PACKET)
                assert tun.recv(timeout=5) == PACKET
        assert stack.counts().adapters == 0

    def test_several(self, stack):
        tuns = [open_tun(f"tun{i}") for i in range(8)]
        for i in range(8):
            stack.inject(f"tun{i}", numbered(i))
        assert [tun.recv(timeout=5) for tun in tuns] == [numbered(i) for i in range(8)]
        for tun in tuns:
            tun.close()

    def test_what_wintun_has_not(self, stack):
        for settings in ({"persist": True}, {"mac": "02:00:00:00:00:01"}, {"netns": "x"}, {"queues": 2}):
            with pytest.raises((tuntap.UnsupportedError, ValueError)):
                open_tun(**settings)
        with open_tun() as tun:
            for call in (tun.add_queue, tun.detach, lambda: tun.mac, lambda: tun.tx_queue_len):
                with pytest.raises(tuntap.UnsupportedError) as caught:
                    call()
                assert caught.value.errno == errno.EOPNOTSUPP
        with pytest.raises(tuntap.UnsupportedError):
            Tun.from_fd(3)

    @pytest.mark.parametrize(
        "name",
        ["", "x" * 128, "𝄞" * 64, "a/b", "a:b", "a\\b", "a?", "a\0b", "a\nb", " ", "\ud800", "a%d%d", "a%s"],
    )
    def test_names_that_cannot_be(self, stack, name):
        with pytest.raises(ValueError):
            open_tun(name)

    @pytest.mark.parametrize("name", ["x" * 127, "𝄞" * 63, "a b", "ü", "100%d"])
    def test_names_that_can(self, stack, name):
        with open_tun(name) as tun:
            assert tun.name == name.replace("%d", "0")

    def test_settings_that_cannot_be(self, stack):
        for settings in (
            {"ring_capacity": 1 << 16}, {"ring_capacity": 3 << 16}, {"ring_capacity": 1 << 27},
            {"guid": "x"}, {"description": ""}, {"description": "x" * 128}, {"dns": ["1.2.3"]},
        ):  # fmt: skip
            with pytest.raises(ValueError):
                open_tun(**settings)
        for settings in ({"guid": 7}, {"ring_capacity": "x"}, {"description": 1}, {"dns": "9.9.9.9"}):
            with pytest.raises(TypeError):
                open_tun(**settings)

    def test_one_that_is_down_from_the_beginning(self, stack):
        with open_tun(up=False, persist=False) as tun:
            assert (tun.is_up, stack.counts().sessions) == (False, 0)
            with pytest.raises(tuntap.LinkDownError):
                tun.send(PACKET)
            tun.up()
            assert tun.is_up
            tun.send(PACKET)
        assert stack.counts().adapters == 0

    def test_a_device_that_is_forgotten_closes(self, stack):
        tun = open_tun()
        with pytest.warns(ResourceWarning):
            del tun
        assert stack.counts().adapters == 0


class TestLibrary:
    def test_a_path_that_is_not_there(self, stack, tmp_path):
        with pytest.raises(tuntap.TunTapError, match="no such file"):
            Tun("x", wintun=tmp_path / "wintun.dll")

    def test_a_folder(self, stack):
        with Tun("x", wintun=Path(WINTUN).parent) as tun:
            assert tun.driver_version == (0, 14)

    def test_messages_go_to_logging(self, stack, caplog):
        with caplog.at_level(logging.DEBUG, "tuntap"):
            with open_tun():
                pass
            levels = {0: logging.INFO, 1: logging.WARNING, 2: logging.ERROR}
            for level, expected in levels.items():
                stack.log(level, f"Nachricht {level} - ü")
                assert caplog.records[-1].levelno == expected
                assert caplog.records[-1].message == f"Nachricht {level} - ü"
            thread = threading.Thread(target=stack.log, args=(1, "of a thread"))
            thread.start()
            thread.join()
            assert caplog.records[-1].message == "of a thread"
        # That there is no adapter to open yet is nothing to complain about.
        assert not [record for record in caplog.records if "Failed" in record.message and record.levelno > 10]


class TestDriver:
    def test_one_that_is_used_stays(self, stack):
        with open_tun():
            with pytest.raises(tuntap.TunTapError, match="WintunDeleteDriver"):
                tuntap.delete_driver(WINTUN)
            assert tuntap.Tun("tun1", wintun=WINTUN).close() is None

    def test_it_comes_again(self, stack):
        open_tun().close()
        tuntap.delete_driver(WINTUN)
        open_tun().close()


class TestPackets:
    @pytest.fixture
    def tun(self, stack):
        with open_tun() as tun:
            yield tun

    @pytest.mark.parametrize(
        ("version", "size"), [(4, 20), (4, 21), (4, 1500), (4, 65535), (6, 40), (6, 65535)]
    )
    def test_every_size(self, stack, tun, version, size):
        packet = bytes([version << 4]) + bytes(i % 251 for i in range(size - 1))
        assert stack.inject("tun0", packet)
        assert tun.recv(timeout=5) == packet
        assert tun.send(packet) == size
        assert stack.take("tun0") == packet

    def test_many_laps_of_the_ring(self, stack):
        with open_tun(ring_capacity=1 << 17) as tun:
            batch = tun.batch(64)
            sent = received = 0
            while received < 5000:
                while sent < 5000 and stack.inject("tun0", numbered(sent, 60 + sent % 1400)):
                    sent += 1
                count = tun.recv_batch(batch, timeout=5)
                for i in range(count):
                    number = received + i
                    assert bytes(batch[i]) == numbered(number, 60 + number % 1400)
                received += count

    def test_batches(self, stack, tun):
        batch = tun.batch(64)
        for i in range(100):
            stack.inject("tun0", numbered(i))
        assert tun.recv_batch(batch) == 64
        assert [bytes(packet) for packet in batch] == [numbered(i) for i in range(64)]
        assert tun.recv_batch(batch) == 36
        with pytest.raises(TimeoutError):
            tun.recv_batch(batch, timeout=0)
        batch.fill([numbered(i) for i in range(64)])
        assert tun.send_batch(batch) == 64
        assert [stack.take("tun0") for _ in range(64)] == [numbered(i) for i in range(64)]

    def test_a_selection(self, stack, tun):
        """Of packets that lie apart; what would break the ring does no harm where it is not selected."""
        batch = tun.batch(64)
        batch.fill([numbered(i) if i % 3 else bytes(60) for i in range(64)])
        mask = [i % 3 > 0 for i in range(64)]
        assert tun.send_batch(batch, where=mask) == 42
        assert [stack.take("tun0") for _ in range(43)] == [*(numbered(i) for i in range(64) if i % 3), None]
        order = [5, 1, 5, 0, 2]
        assert tun.send_batch(batch, where=order) == 3
        with pytest.raises(tuntap.PacketError):
            tun.send_batch(batch, where=order, start=3)
        assert tun.send_batch(batch, where=order, start=4) == 1
        assert [stack.take("tun0") for _ in range(5)] == [*map(numbered, (5, 1, 5, 2)), None]

    def test_a_selection_that_waits_for_room(self, stack):
        with open_tun(ring_capacity=1 << 17) as tun:
            stack.consume("tun0", False)
            batch = PacketBatch(300, 1000)
            batch.fill([numbered(i, 1000) for i in range(300)])
            order = [*range(299, -1, -1)]
            sent = tun.send_batch(batch, timeout=0.01, where=order)
            assert 100 < sent < 200
            threading.Timer(0.2, stack.consume, ("tun0", True)).start()
            assert tun.send_batch(batch, timeout=5, where=order, start=sent) == 300 - sent
            assert [stack.take("tun0") for _ in order] == [numbered(i, 1000) for i in order]

    def test_what_does_not_fit_is_cut(self, stack, tun):
        batch = PacketBatch(4, 40)
        for size in (30, 60, 40):
            stack.inject("tun0", numbered(7, size))
        assert tun.recv_batch(batch) == 3
        assert batch.truncated == (1,)
        assert list(batch.lengths[:3]) == [30, 40, 40]
        stack.inject("tun0", numbered(7, 100))
        with pytest.raises(tuntap.PacketError):
            tun.recv_into(bytearray(50))

    def test_vectored(self, stack, tun):
        stack.inject("tun0", PACKET)
        parts = [bytearray(10), bytearray(100)]
        assert tun.recv_vectored(parts, timeout=5) == len(PACKET)
        assert bytes(parts[0]) + bytes(parts[1][:-70]) == PACKET
        tun.send_vectored([PACKET[:7], PACKET[7:]])
        assert stack.take("tun0") == PACKET

    def test_an_empty_packet_is_none(self, stack, tun):
        stack.inject("tun0", b"")
        stack.inject("tun0", PACKET)
        assert tun.recv(timeout=5) == PACKET

    def fill(self, tun):
        """Send until there is no room; how many."""
        count = 0
        with contextlib.suppress(TimeoutError):
            while True:
                tun.send(numbered(count, 1000), timeout=0)
                count += 1
        return count

    def test_a_full_ring_is_waited_for(self, stack):
        with open_tun(ring_capacity=1 << 17) as tun:
            stack.consume("tun0", False)
            count = self.fill(tun)
            assert 100 < count < 200
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                tun.send(numbered(0, 1000), timeout=0.3)
            assert 0.25 < time.monotonic() - start < 2
            batch = PacketBatch(64, 1000)
            batch.fill([numbered(count + i, 1000) for i in range(64)])
            threading.Timer(0.2, stack.consume, ("tun0", True)).start()
            assert tun.send_batch(batch, timeout=5) == 64
            assert [stack.take("tun0") for _ in range(count + 64)] == [
                numbered(i, 1000) for i in range(count + 64)
            ]

    def test_a_receiver_wakes(self, stack, tun):
        threading.Timer(0.3, stack.inject, ("tun0", PACKET)).start()
        start = time.monotonic()
        assert tun.recv() == PACKET
        assert 0.2 < time.monotonic() - start < 2

    def test_looking_takes_nothing(self, stack, tun):
        with pytest.raises(TimeoutError):
            tun.wait_readable(timeout=0)
        stack.inject("tun0", PACKET)
        for _ in range(3):
            tun.wait_readable(timeout=1)
        assert tun.recv(timeout=0) == PACKET
        with pytest.raises(TimeoutError):
            tun.wait_readable(timeout=0.01)
        tun.wait_writable(timeout=0)

    def test_each_packet_goes_to_one_thread(self, stack, tun):
        received, lock = [], threading.Lock()

        def receive():
            while True:
                try:
                    packet = tun.recv(timeout=1)
                except TimeoutError:
                    return
                with lock:
                    received.append(packet)

        threads = [threading.Thread(target=receive) for _ in range(8)]
        for thread in threads:
            thread.start()
        for i in range(3000):
            while not stack.inject("tun0", numbered(i)):
                time.sleep(0.001)
        for thread in threads:
            thread.join()
        assert sorted(received) == [numbered(i) for i in range(3000)]

    def test_a_burst_wakes_all_who_wait(self, stack, tun):
        """An event of Wintun wakes one; each of them takes one packet and leaves."""
        received = []
        threads = [threading.Thread(target=lambda: received.append(tun.recv(timeout=10))) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        start = time.monotonic()
        for i in range(8):
            stack.inject("tun0", numbered(i))
        for thread in threads:
            thread.join()
        assert sorted(received) == [numbered(i) for i in range(8)]
        assert time.monotonic() - start < 3

    def test_a_corrupt_ring(self, stack, tun):
        stack.corrupt("tun0")
        with pytest.raises(tuntap.TunTapError, match="corrupt") as caught:
            tun.recv(timeout=5)
        assert caught.value.winerror == 13

    @pytest.mark.parametrize(
        "packet", [b"x", b"hello", b"\x45" + bytes(18), b"\x60" + bytes(38), bytes(60), b"\x75" + bytes(59)]
    )
    def test_what_is_no_ip_packet_does_not_reach_the_driver(self, stack, tun, packet):
        """It would take nothing more."""
        with pytest.raises(tuntap.PacketError):
            tun.send(packet)
        batch = PacketBatch(3, 100)
        batch.fill([PACKET, packet, PACKET])
        assert tun.send_batch(batch) == 1
        with pytest.raises(tuntap.PacketError):
            tun.send_batch(batch, start=1)
        assert tun.send_batch(batch, start=2) == 1
        assert [stack.take("tun0"), stack.take("tun0")] == [PACKET, PACKET]

    @pytest.mark.parametrize("size", [0, 65536])
    def test_sizes_that_are_none(self, stack, tun, size):
        with pytest.raises(ValueError):
            tun.send(bytes(size))
        batch = PacketBatch(1, 70000)
        batch.lengths[0] = size
        batch.count = 1
        with pytest.raises(ValueError):
            tun.send_batch(batch)

    def test_lengths_that_change_meanwhile(self, stack, tun):
        """A length is looked at, and then too large for its slot."""
        batch = PacketBatch(64, 64)
        is_over = threading.Event()

        def write():
            while not is_over.is_set():
                batch.lengths[32] = 70000
                batch.lengths[32] = 64

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(100):
                with contextlib.suppress(ValueError, tuntap.PacketError):
                    batch.fill([PACKET] * 64)
                    tun.send_batch(batch)
        finally:
            is_over.set()
            thread.join()


class TestEndOfWaits:
    @pytest.fixture
    def tun(self, stack):
        with open_tun() as tun:
            yield tun

    def ended(self, tun, end, threads=4):
        """What the receivers of a device got, when something ends their waits."""
        outcomes = []

        def receive():
            try:
                tun.recv()
            except Exception as error:
                outcomes.append(type(error))

        waiting = [threading.Thread(target=receive) for _ in range(threads)]
        for thread in waiting:
            thread.start()
        time.sleep(0.3)
        start = time.monotonic()
        end()
        for thread in waiting:
            thread.join(10)
            assert not thread.is_alive()
        assert time.monotonic() - start < 3
        return outcomes

    def test_close(self, tun):
        assert self.ended(tun, tun.close) == [tuntap.ClosedError] * 4

    def test_shutdown(self, tun):
        assert self.ended(tun, tun.shutdown) == [tuntap.ClosedError] * 4
        with pytest.raises(tuntap.ClosedError):
            tun.send(PACKET)

    def test_interrupt(self, stack, tun):
        assert self.ended(tun, tun.interrupt) == [tuntap.InterruptError] * 4
        stack.inject("tun0", PACKET)
        assert tun.recv(timeout=5) == PACKET

    def test_removal(self, stack, tun):
        assert self.ended(tun, lambda: stack.terminate("tun0")) == [tuntap.DeviceGoneError] * 4
        with pytest.raises(tuntap.DeviceGoneError) as caught:
            tun.send(PACKET)
        assert caught.value.winerror == 38

    def test_ctrl_c(self, stack, tun):
        threading.Timer(0.3, _thread.interrupt_main).start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            tun.recv()
        assert time.monotonic() - start < 3
        stack.inject("tun0", PACKET)
        assert tun.recv(timeout=5) == PACKET

    def test_an_event(self, stack, tun):
        event = tuntap.Event()
        threading.Timer(0.2, event.set).start()
        with pytest.raises(tuntap.InterruptError):
            tun.recv(event=event)
        event.clear()
        stack.inject("tun0", PACKET)
        assert tun.recv(event=event) == PACKET

    def test_an_event_ends_a_wait_for_room(self, stack):
        with open_tun("tun1", ring_capacity=1 << 17) as tun:
            stack.consume("tun1", False)
            event = tuntap.Event()
            threading.Timer(0.3, event.set).start()
            batch = PacketBatch(1000, 1000)
            batch.fill([numbered(i, 1000) for i in range(1000)])
            assert 100 < tun.send_batch(batch, event=event) < 200
            with pytest.raises(tuntap.InterruptError):
                tun.send(PACKET, event=event)

    def test_down_and_up(self, stack, tun):
        tun.down()
        assert (tun.is_up, stack.counts().sessions) == (False, 0)
        with pytest.raises(tuntap.LinkDownError) as caught:
            tun.send(PACKET)
        assert caught.value.errno == errno.ENETDOWN
        with pytest.raises(TimeoutError):
            tun.recv(timeout=0.1)
        with pytest.raises(TimeoutError):
            tun.wait_writable(timeout=0.1)
        received = []
        thread = threading.Thread(target=lambda: received.append(tun.recv(timeout=10)))
        thread.start()
        time.sleep(0.1)
        tun.up()
        tun.up()
        assert stack.inject("tun0", PACKET)
        thread.join()
        assert received == [PACKET]
        tun.wait_writable(timeout=1)
        tun.send(PACKET)
        assert stack.take("tun0") == PACKET

    def test_a_receiver_survives_down_and_up(self, stack, tun):
        received = []
        thread = threading.Thread(target=lambda: received.append(tun.recv(timeout=10)))
        thread.start()
        time.sleep(0.2)
        for _ in range(20):
            tun.down()
            tun.up()
        assert stack.inject("tun0", PACKET)
        thread.join()
        assert received == [PACKET]

    def test_sessions_end_under_threads(self, stack):
        """Rings that are used after their end are a crash (fake_wintun.c)."""
        tun = open_tun(ring_capacity=1 << 17)
        is_over = threading.Event()
        counts = {"received": 0, "sent": 0}
        problems = []

        def work(call, key):
            while not is_over.is_set():
                try:
                    call()
                    counts[key] += 1
                except (TimeoutError, tuntap.LinkDownError):
                    pass
                except Exception as error:
                    problems.append(error)
                    return

        def inject():
            stack.inject("tun0", PACKET)
            time.sleep(0)

        batch = PacketBatch(8, 100)
        batch.fill([PACKET] * 8)
        room = [PacketBatch(8, 100) for _ in range(2)]
        calls = [
            *((lambda: tun.recv(timeout=0.01), "received"),) * 2,
            (lambda: tun.recv_batch(room[0], timeout=0.01), "received"),
            (lambda: tun.recv_batch(room[1], timeout=0), "received"),
            *((lambda: tun.send(PACKET, timeout=0.01), "sent"),) * 2,
            *((lambda: tun.send_batch(batch, timeout=0.01), "sent"),) * 2,
        ]
        threads = [threading.Thread(target=work, args=call) for call in calls]
        threads.append(threading.Thread(target=work, args=(inject, "injected")))
        counts["injected"] = 0
        for thread in threads:
            thread.start()
        try:
            for _ in range(1000):
                tun.down()
                tun.up()
        finally:
            is_over.set()
            for thread in threads:
                thread.join(30)
        assert not problems
        assert not any(thread.is_alive() for thread in threads)
        assert min(counts.values()) > 0
        tun.close()

    def test_devices_close_under_threads(self, stack):
        def work(call, outcomes):
            while True:
                try:
                    call()
                except TimeoutError:
                    pass
                except Exception as error:
                    outcomes.append(type(error))
                    return

        for _ in range(100):
            tun = open_tun(ring_capacity=1 << 17)
            receive, send = functools.partial(tun.recv, 0.001), functools.partial(tun.send, PACKET, 0.001)
            outcomes = []
            threads = [
                threading.Thread(target=work, args=(call, outcomes)) for call in (tun.recv, receive, send)
            ]
            for thread in threads:
                thread.start()
            tun.close()
            for thread in threads:
                thread.join(10)
            assert outcomes == [tuntap.ClosedError] * 3
