"""What `tuntap.testing` gives to others: a pair in memory, packets, a slow checksum, an echo."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import select
import socket
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from threads import PATIENCE, CallThread

import tuntap
from tuntap import (
    ClosedError,
    DeviceGoneError,
    LinkDownError,
    PacketBatch,
    PacketError,
    Tap,
    Tun,
    aio,
    testing,
)
from tuntap.testing import checksum, ethernet, icmp_echo, icmp_reply, ip_packet, pair, tcp, udp

scapy = pytest.importorskip("scapy.all", reason="scapy builds the packets to compare with")

V4, W4 = "192.0.2.1", "198.51.100.7"
V6, W6 = "2001:db8::1", "fd00::ff:7"
ENDS = [(V4, W4), (V6, W6)]
PAYLOADS = [b"", b"x", b"odd", b"even", bytes(range(256)) * 5]


@pytest.fixture(params=[Tun, Tap], ids=["Tun", "Tap"])
def ends(request):
    one, other = pair(request.param)
    with one, other:
        yield one, other


class TestPair:
    def test_is_two_devices_of_the_kind_asked_for(self, ends):
        for device in ends:
            assert isinstance(device, tuntap.Device)
        assert type(ends[0]) is type(ends[1])
        one, other = pair(Tap)
        with one, other:
            assert isinstance(one, Tap)
            assert not isinstance(one, Tun)

    def test_every_way_of_sending_meets_every_way_of_receiving(self, ends):
        packet = udp(V4, W4, 1, 2, b"payload")
        for one, other in (ends, ends[::-1]):
            batch, room = one.batch(3), other.batch(5)
            batch.fill([packet] * 3)
            assert one.send(packet) == len(packet)
            assert one.send_batch(batch) == 3
            assert one.send(np.frombuffer(packet, np.uint8)) == len(packet)
            assert other.recv(timeout=1) == packet
            buffer = bytearray(100)
            assert other.recv_into(buffer, timeout=1) == len(packet)
            assert buffer[: len(packet)] == packet
            assert other.recv_batch(room, timeout=1) == 3
            assert [bytes(p) for p in room] == [packet] * 3

    def test_a_packet_of_the_largest_size(self, ends):
        packet = b"\x45" * 65535
        assert ends[0].send(packet) == 65535
        assert ends[1].recv(timeout=1) == packet
        with pytest.raises(ValueError):
            ends[0].send(packet + b"x")

    def test_settings_are_kept(self, ends):
        one, other = ends
        one.mtu = 1400
        one.name = "renamed"
        one.tx_queue_len = 77
        one.carrier = False
        one.persist = True
        one.owner, one.group = 1000, 1001
        assert (one.mtu, one.name, one.tx_queue_len, one.carrier, one.persist) == (
            1400,
            "renamed",
            77,
            False,
            True,
        )
        assert (one.owner, one.group) == (1000, 1001)
        assert (other.mtu, other.carrier, other.persist, other.owner) == (1500, True, False, None)
        one.down()
        assert not one.is_up
        assert not one.is_running
        one.up()
        one.carrier = True
        assert one.is_running
        assert one.index != other.index
        assert one.batch().slot_size >= 1400

    def test_addresses_behave_as_on_an_interface(self, ends):
        one, other = ends
        one.add_address("10.0.0.1/24")
        one.add_address("fd00::1/64")
        assert [str(address) for address in one.addresses] == ["10.0.0.1/24", "fd00::1/64"]
        assert isinstance(one.addresses[0], ipaddress.IPv4Interface)
        with pytest.raises(tuntap.DeviceBusyError):
            one.add_address("10.0.0.1/24")
        one.remove_address("10.0.0.1")
        with pytest.raises(tuntap.TunTapError):
            one.remove_address("10.0.0.1/24")
        one.addresses = ["10.0.1.1/24"]
        assert [str(address) for address in one.addresses] == ["10.0.1.1/24"]
        assert other.addresses == []
        for bad in ("10.0.0.0/24", "nonsense", "224.0.0.1/4"):
            with pytest.raises(ValueError):
                one.add_address(bad)

    @pytest.mark.parametrize("mtu", [67, 0, -1, 65536, 2**40])
    def test_an_mtu_out_of_range(self, ends, mtu):
        with pytest.raises(ValueError):
            ends[0].mtu = mtu
        assert ends[0].mtu == 1500

    def test_only_a_tap_has_a_mac(self):
        one, other = pair(Tap)
        with one, other:
            assert one.mac != other.mac
            one.mac = "02:00:00:00:00:99"
            assert one.mac == "02:00:00:00:00:99"
            with pytest.raises(ValueError):
                one.mac = "01:00:00:00:00:99"
        one, other = pair(Tun)
        with one, other, pytest.raises(tuntap.UnsupportedError):
            _ = one.mac

    def test_statistics_count_as_an_interface_does(self, ends):
        one, other = ends
        packet = udp(V4, W4, 1, 2, b"x")
        batch = one.batch(4)
        batch.fill([packet] * 4)
        one.send(packet)
        one.send_batch(batch)
        other.recv(timeout=1)
        other.recv_batch(other.batch(8), timeout=1)
        assert (one.stats.rx_packets, one.stats.rx_bytes) == (5, 5 * len(packet))
        assert (other.stats.tx_packets, other.stats.tx_bytes) == (5, 5 * len(packet))
        assert (one.stats.tx_packets, other.stats.rx_packets) == (0, 0)

    def test_the_names_and_the_mtu_asked_for(self):
        one, other = pair(Tun, mtu=9000, names=("left", "right"))
        with one, other:
            assert (one.name, other.name, one.mtu, other.mtu) == ("left", "right", 9000, 9000)

    def test_closing_one_end_is_the_end_of_the_other(self, ends):
        one, other = ends
        packet = udp(V4, W4, 1, 2)
        one.send(packet)
        one.close()
        assert other.recv(timeout=1) == packet
        for call in (
            other.recv,
            lambda: other.recv_into(bytearray(100)),
            lambda: other.recv_batch(other.batch()),
            lambda: other.send(packet),
            lambda: other.recv(timeout=0),
        ):
            with pytest.raises(DeviceGoneError):
                call()
        with pytest.raises(ClosedError):
            one.recv()
        assert other.mtu == 1500

    def test_closing_with_packets_unread(self, ends):
        one, other = ends
        one.send(udp(V4, W4, 1, 2))
        other.close()
        with pytest.raises(DeviceGoneError):
            one.recv(timeout=1)
        with pytest.raises(DeviceGoneError):
            one.send(udp(V4, W4, 1, 2))

    def test_a_full_pair(self, ends):
        one, other = ends
        packet = udp(V4, W4, 1, 2, b"x" * 1000)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000:
                one.send(packet, timeout=0)
                sent += 1
        with pytest.raises(TimeoutError) as caught:
            one.send(packet, timeout=0)
        assert caught.value.errno == errno.ETIMEDOUT
        assert sent > 10
        batch = one.batch(8)
        batch.fill([packet] * 8)
        with pytest.raises(TimeoutError):
            one.send_batch(batch, timeout=0.01)
        received = 0
        with contextlib.suppress(TimeoutError):
            while True:
                assert other.recv(timeout=0) == packet
                received += 1
        assert received == sent
        assert one.send(packet, timeout=0) == len(packet)

    def test_a_part_of_a_batch_that_found_room(self, ends):
        one, other = ends
        packets = [udp(V4, W4, 1, 2, i.to_bytes(2, "big") + b"x" * 500) for i in range(5000)]
        batch = PacketBatch(5000, 600)
        batch.fill(packets)
        sent = one.send_batch(batch, timeout=0)
        assert 0 < sent < 5000
        room, seen = PacketBatch(5000, 600), []
        while len(seen) < 5000:
            with contextlib.suppress(TimeoutError):
                other.recv_batch(room, timeout=0)
                seen += [bytes(packet) for packet in room]
            if sent < 5000:
                sent += one.send_batch(batch, timeout=0, start=sent)
        assert seen == packets

    def test_a_tun_takes_ip_alone(self):
        one, other = pair(Tun)
        good, bad = udp(V4, W4, 1, 2), b"\x05" * 40
        with one, other:
            for kind in (bytes, bytearray, memoryview, lambda p: np.frombuffer(p, np.uint8)):
                with pytest.raises(PacketError):
                    one.send(kind(bad))
            batch = one.batch(4)
            batch.fill([good, good, bad, good])
            assert one.send_batch(batch) == 2
            with pytest.raises(PacketError):
                one.send_batch(batch, start=2)
            assert one.send_batch(batch, start=3) == 1
            assert other.recv_batch(other.batch(8), timeout=1) == 3

    def test_a_length_that_cannot_be_stops_everything(self):
        """As on an interface, also behind a packet that would be refused."""
        one, other = pair(Tun)
        with one, other:
            batch = one.batch(4)
            batch.fill([udp(V4, W4, 1, 2), b"\x05" * 40, udp(V4, W4, 1, 2)])
            for position in range(3):
                batch.lengths[:3] = 28
                batch.lengths[position] = 0
                with pytest.raises(ValueError):
                    one.send_batch(batch)
            with pytest.raises(TimeoutError):
                other.recv(timeout=0)

    def test_a_tap_takes_any_frame(self):
        one, other = pair(Tap)
        with one, other:
            assert one.send(b"\x00" * 14) == 14
            assert other.recv(timeout=1) == b"\x00" * 14

    def test_down_is_down(self, ends):
        one, _ = ends
        packet = udp(V4, W4, 1, 2)
        batch = one.batch(1)
        batch.fill([packet])
        one.down()
        for kind in (bytes, bytearray, memoryview, lambda p: np.frombuffer(p, np.uint8)):
            with pytest.raises(LinkDownError):
                one.send(kind(packet))
        with pytest.raises(LinkDownError):
            one.send_batch(batch)
        one.up()
        assert one.send(packet) == len(packet)

    @pytest.mark.parametrize("kind", [None, 5, "Tun", Tun.__new__])
    def test_what_is_no_kind_of_device(self, kind):
        with pytest.raises(TypeError):
            pair(kind)

    def test_many_pairs_leave_nothing_open(self):
        for _ in range(200):
            for device in pair():
                device.close()

    def test_a_relay_as_in_the_documentation(self):
        """A program under test sits between two pairs."""
        client, left = pair()
        right, server = pair()
        with client, left, right, server:
            batch = left.batch()
            for i in range(100):
                client.send(udp(V4, W4, 1, 2, bytes([i])))
            moved = 0
            while moved < 100:
                moved += left.recv_batch(batch, timeout=1)
                assert right.send_batch(batch) == batch.count
            assert [server.recv(timeout=1)[28:] for _ in range(100)] == [bytes([i]) for i in range(100)]


def told(events):
    """What is told without waiting."""
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(events.get(timeout=0))
    return found


class TestEvents:
    """As those of a real device, which tests/os looks at."""

    def test_everything_that_can_be_changed(self, ends):
        device, other = ends
        events = device.events()
        address = ipaddress.ip_interface("10.9.0.1/24")
        device.down()
        device.up()
        device.carrier = False
        device.carrier = True
        device.mtu = 1400
        device.name = "other9"
        device.add_address("10.9.0.1/24")
        device.add_address(("10.9.1.1", "10.9.1.2"))
        device.remove_address("10.9.0.1/24")
        device.tx_queue_len = 7  # no event is about this
        other.mtu = 1300  # nor about the other end
        found = told(events)
        assert [event.kind for event in found] == [
            "down", "not_running", "up", "running", "not_running", "running", "mtu", "name",
            "address_added", "address_added", "address_removed",
        ]  # fmt: skip
        assert [found[6].value, found[7].value, found[8].value, found[10].value] == [
            1400, "other9", address, address,
        ]  # fmt: skip
        assert found[9].value.peer == ipaddress.ip_address("10.9.1.2")
        assert told(events) == []
        assert told(device.events()) == []

    def test_what_is_as_before_is_none(self, ends):
        events = ends[0].events()
        ends[0].up()
        ends[0].mtu = ends[0].mtu
        ends[0].name = ends[0].name
        ends[0].set_addresses([])
        assert told(events) == []

    def test_a_thread_that_waits_for_them(self, ends):
        events = ends[0].events()
        thread = CallThread(lambda: [event.kind for event in events])
        for mtu in range(1300, 1400):
            ends[0].mtu = mtu
        while events._watcher._changes:
            assert thread.is_alive()
        thread.wait_until_blocked()
        ends[0].close()
        thread.join(PATIENCE)
        assert thread.error is None
        assert thread.result == ["mtu"] * 100
        with pytest.raises(ClosedError):
            events.get()

    def test_nobody_has_to_read_them(self, ends):
        events = ends[0].events()
        thread = CallThread(lambda: [setattr(ends[0], "mtu", 1300 + i % 2) for i in range(2000)])
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert [event.value for event in told(events)] == [1300, 1301] * 1000

    def test_a_descriptor_to_wait_on(self, ends):
        events = ends[0].events()
        for _ in range(3):
            assert select.select([events], [], [], 0)[0] == []
            ends[0].mtu = 1300
            ends[0].mtu = 1301
            for mtu in (1300, 1301):
                assert select.select([events], [], [], 0)[0] == [events]
                assert events.get(0) == ("mtu", mtu)

    def test_nothing_is_kept_for_a_view_that_is_gone(self, ends):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            ends[0].events()
        ends[0].mtu = 1300
        assert len(os.listdir("/proc/self/fd")) == before

    def test_asynchronous_ones(self):
        async def run():
            one, other = pair(aio.Tun)
            async with one, other:
                events = one.events()
                task = asyncio.create_task(events.get())
                await asyncio.sleep(0.01)
                one.mtu = 1300
                assert await asyncio.wait_for(task, PATIENCE) == ("mtu", 1300)
                with pytest.raises(TimeoutError):
                    await events.get(0)
                with pytest.raises(TimeoutError):
                    await events.get(0.01)
                one.close()
                assert [event async for event in events] == []

        asyncio.run(run())


def flow(count, size, start=0, make=udp):
    """Datagrams of one flow, each with an identification of its own, of which the last may be smaller."""
    packets = []
    for number in range(start, start + count):
        packet = make(V4, W4, 7, 9, bytes([number % 256]) * size)
        head = packet[:4] + number.to_bytes(2, "big") + packet[6:10] + b"\0\0" + packet[12:20]
        packets.append(head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + packet[20:])
    return packets


def received(device, count, capacity=64):
    """So many packets, in batches."""
    batch, packets = device.batch(capacity), []
    while len(packets) < count:
        device.recv_batch(batch, timeout=1)
        assert not batch.truncated
        packets += [bytes(packet) for packet in batch]
    assert device.pending == 0
    with pytest.raises(TimeoutError):
        device.recv(timeout=0)
    return packets


def framed(device, packet):
    """What a device of this kind carries: the packet, or a frame around it."""
    return ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", packet) if isinstance(device, Tap) else packet


class TestPairWithOffload:
    @pytest.fixture(params=[Tun, Tap], ids=["Tun", "Tap"])
    def kind(self, request):
        return request.param

    def test_what_one_coalesces_the_other_splits(self, kind):
        one, other = pair(kind, offload=True)
        with one, other:
            packets = [framed(one, packet) for packet in flow(100, 500)]
            batch = one.batch(128)
            batch.fill(packets)
            assert one.send_batch(batch) == 100
            first = other.batch(128)
            assert 1 < other.recv_batch(first, timeout=1) <= 100
            assert not first.headers["gso_type"].any()
            rest = received(other, 100 - first.count)
            assert [bytes(packet) for packet in first] + rest == packets

    def test_it_goes_in_super_packets(self):
        """One read of a plain socket is what many packets became."""
        one, other = pair(offload=True)
        with one, other:
            batch = one.batch(64)
            batch.fill(flow(60, 500))
            one.send_batch(batch)
            with socket.socket(fileno=os.dup(other.fileno())) as sock:
                whole = sock.recv(100_000)
            assert whole[:10] == struct.pack("=BBHHHH", 1, 5, 28, 500, 20, 6)
            assert tuntap.offload.split(whole[10:], whole[:10]) == flow(60, 500)

    def test_more_segments_than_slots(self, kind):
        one, other = pair(kind, offload=True)
        with one, other:
            packets = [framed(one, packet) for packet in flow(60, 500)]
            batch, few = one.batch(64), other.batch(7)
            batch.fill(packets)
            one.send_batch(batch)
            assert other.pending == 0
            seen = []
            for expected in (53, 46, 39):
                assert other.recv_batch(few, timeout=0) == 7
                assert other.pending == expected
                seen += [bytes(packet) for packet in few]
            assert select.select([other], [], [], 0)[0] == [], (
                "they wait in memory, where select sees nothing"
            )
            seen.append(other.recv(timeout=0))
            buffer = bytearray(600)
            size = other.recv_into(buffer, timeout=0)
            seen.append(bytes(buffer[:size]))
            assert other.pending == 37
            one.send(framed(one, udp(V4, W4, 1, 2, b"behind")))
            seen += received(other, 38, 10)
            assert seen == [*packets, framed(one, udp(V4, W4, 1, 2, b"behind"))]

    def test_what_is_pending_is_lost_at_the_end(self):
        one, other = pair(offload=True)
        with one, other:
            batch = one.batch(8)
            batch.fill(flow(8, 500))
            one.send_batch(batch)
            other.recv(timeout=1)
            assert other.pending == 7
            other.shutdown()
            with pytest.raises(ClosedError):
                other.recv()
            other.close()
            assert other.pending == 0

    def test_what_is_pending_comes_before_the_end_of_the_other(self):
        one, other = pair(offload=True)
        with one, other:
            batch = one.batch(8)
            batch.fill(flow(8, 500))
            one.send_batch(batch)
            one.close()
            assert [other.recv(timeout=1) for _ in range(8)] == flow(8, 500)
            with pytest.raises(DeviceGoneError):
                other.recv(timeout=1)

    def test_super_packets_as_they_are(self, kind):
        one, other = pair(kind, offload="superpackets")
        with one, other:
            ((header, packet),) = tuntap.offload.coalesce(flow(30, 1000))
            link = len(framed(one, b""))
            header["csum_start"] += link
            packet, plain = framed(one, packet), framed(one, udp(V4, W4, 1, 2, b"plain"))
            batch, room = one.batch(4), other.batch(4)
            assert room.slot_size >= 65535
            batch.fill([packet, plain, packet])
            batch.headers[0] = batch.headers[2] = header
            assert one.send_batch(batch) == 3
            count = 0
            while count < 3:
                count += other.recv_batch(room, timeout=1)
            assert [bytes(p) for p in room] == [packet, plain, packet]
            assert room.headers[0] == room.headers[2] == header
            assert room.headers[1].tobytes() == bytes(10)
            # Calls for one packet move ordinary ones.
            one.send_batch(batch, start=0, stop=1)
            expected = [framed(one, p) for p in flow(30, 1000)]
            assert [other.recv(timeout=1) for _ in range(30)] == expected
            assert other.pending == 0
            one.send(plain)
            assert other.recv_batch(room, timeout=1) == 1
            assert room.headers[0].tobytes() == bytes(10)

    def test_the_largest_super_packet(self):
        one, other = pair(offload="superpackets")
        with one, other:
            packets = flow(64, 1023)
            ((header, packet),) = tuntap.offload.coalesce(packets)
            batch, room = one.batch(1), other.batch(1)
            batch.fill([packet])
            batch.headers[0] = header
            one.send_batch(batch)
            assert other.recv_batch(room, timeout=1) == 1
            assert bytes(room[0]) == packet
            assert tuntap.offload.split(room[0], room.headers[0]) == packets

    def test_what_is_in_use(self):
        everything = {"checksum", "tcp4", "tcp6", "udp"}
        for offload in (True, "superpackets"):
            one, other = pair(offload=offload)
            with one, other:
                assert one.offload == other.offload == everything
                one.offload = {"checksum", "tcp4"}
                assert (one.offload, other.offload) == ({"checksum", "tcp4"}, everything)
        one, other = pair()
        with one, other:
            assert one.offload == frozenset()
            with pytest.raises(tuntap.UnsupportedError, match="without offload"):
                one.offload = {"checksum"}

    def test_what_is_switched_off_is_not_merged(self):
        one, other = pair(offload=True)
        with one, other:
            one.offload = {"checksum", "tcp4", "tcp6"}
            batch = one.batch(8)
            batch.fill(flow(8, 500))
            assert one.send_batch(batch) == 8
            other.recv(timeout=1)
            assert other.pending == 0
            assert len(received(other, 7)) == 7

    def test_statistics_count_packets(self):
        one, other = pair(offload=True)
        with one, other:
            packets = flow(60, 500)
            batch = one.batch(64)
            batch.fill(packets)
            one.send_batch(batch)
            assert received(other, 60) == packets
            assert (one.stats.rx_packets, other.stats.tx_packets) == (60, 60)
            assert one.stats.rx_bytes == other.stats.tx_bytes == sum(map(len, packets))

    @pytest.mark.parametrize("offload", [True, "superpackets"])
    def test_a_full_pair(self, offload):
        """What did not find room goes when there is some; each packet arrives in its order."""
        one, other = pair(offload=offload)
        with one, other:
            batch = one.batch(64)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 60_000:
                    batch.fill(flow(50, 400, sent))
                    count = one.send_batch(batch, timeout=0)
                    sent += count
                    if count < 50:
                        break
            last = flow(1, 400, 65_000)[0]
            with contextlib.suppress(TimeoutError):
                while sent < 60_000:
                    one.send(last, timeout=0)
                    sent += 1
            with pytest.raises(TimeoutError):
                one.send(last, timeout=0)
            packets = []
            with contextlib.suppress(TimeoutError):
                while True:
                    packets.append(other.recv(timeout=0))
            assert len(packets) == sent > 50
            numbers = [int.from_bytes(packet[4:6], "big") for packet in packets if packet[4:6] != b"\xfd\xe8"]
            assert numbers == [*range(len(numbers))]
            assert one.send(packets[0], timeout=0) == len(packets[0])

    @pytest.mark.parametrize("offload", ["yes", "", 2, None, 1.5, b"superpackets"])
    def test_what_is_no_choice(self, offload):
        with pytest.raises((TypeError, ValueError), match="offload"):
            pair(offload=offload)
        if offload is not None:  # which lets the descriptor say
            one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            with one, other, pytest.raises((TypeError, ValueError), match="offload"):
                Tun.from_fd(one.fileno(), owned=False, offload=offload)

    def test_a_header_that_fits_nothing_costs_one_packet(self):
        """The other end may be a program of anybody's."""
        for offload in (True, "superpackets"):
            one, other = pair(offload=offload)
            with one, other, socket.socket(fileno=os.dup(one.fileno())) as sock:
                good = udp(V4, W4, 1, 2, b"good")
                hostile = struct.pack("=BBHHHH", 1, 5, 28, 100, 20, 6) + b"\0" * 300
                for data in (bytes(10) + good, hostile, b"short", bytes(10), bytes(10) + good):
                    sock.send(data)
                assert other.recv(timeout=1) == good
                for _ in range(3):
                    with pytest.raises(PacketError):
                        other.recv(timeout=1)
                assert other.recv(timeout=1) == good


def build(layer):
    """What scapy makes of it, checksums and lengths filled in."""
    return bytes(layer)


class TestBuilders:
    @pytest.mark.parametrize(("source", "destination"), ENDS)
    @pytest.mark.parametrize("payload", PAYLOADS, ids=len)
    def test_udp(self, source, destination, payload):
        body = scapy.UDP(sport=1234, dport=53) / scapy.Raw(payload)
        assert udp(source, destination, 1234, 53, payload) == build(self.ip(source, destination) / body)

    @pytest.mark.parametrize(("source", "destination"), ENDS)
    @pytest.mark.parametrize("payload", PAYLOADS, ids=len)
    @pytest.mark.parametrize("flags", [0x02, 0x10, 0x18, 0x11, 0x04])
    def test_tcp(self, source, destination, payload, flags):
        ours = tcp(source, destination, 1234, 80, payload, seq=2**32 - 1, ack=7, flags=flags, window=1000)
        body = scapy.TCP(sport=1234, dport=80, seq=2**32 - 1, ack=7, flags=flags, window=1000) / scapy.Raw(
            payload
        )
        assert ours == build(self.ip(source, destination) / body)

    @pytest.mark.parametrize(("source", "destination"), ENDS)
    @pytest.mark.parametrize("payload", PAYLOADS, ids=len)
    @pytest.mark.parametrize("reply", [False, True])
    def test_icmp_echo(self, source, destination, payload, reply):
        ours = icmp_echo(source, destination, 0xBEEF, 7, payload, reply=reply)
        if ":" in source:
            kind = scapy.ICMPv6EchoReply if reply else scapy.ICMPv6EchoRequest
            body = kind(id=0xBEEF, seq=7, data=payload)
        else:
            body = scapy.ICMP(type=0 if reply else 8, id=0xBEEF, seq=7) / scapy.Raw(payload)
        assert ours == build(self.ip(source, destination) / body)

    @pytest.mark.parametrize(("source", "destination"), ENDS)
    def test_ip_packet(self, source, destination):
        ours = ip_packet(source, destination, 253, b"payload", ttl=3)
        theirs = self.ip(source, destination, ttl=3, protocol=253) / scapy.Raw(b"payload")
        assert ours == build(theirs)

    @staticmethod
    def ip(source, destination, ttl=64, protocol=None):
        if ":" in source:
            extra = {} if protocol is None else {"nh": protocol}
            return scapy.IPv6(src=source, dst=destination, hlim=ttl, **extra)
        extra = {} if protocol is None else {"proto": protocol}
        return scapy.IP(src=source, dst=destination, ttl=ttl, id=0, flags="DF", **extra)

    def test_ethernet(self):
        macs = "02:00:00:00:00:01", "02:00:00:00:00:02"
        for packet, kind in ((udp(V4, W4, 1, 2), 0x0800), (udp(V6, W6, 1, 2), 0x86DD)):
            theirs = scapy.Ether(src=macs[0], dst=macs[1], type=kind) / scapy.Raw(packet)
            assert ethernet(*macs, packet) == build(theirs)
        assert ethernet(*macs, b"x", ethertype=0x88B5)[12:] == b"\x88\xb5x"

    @given(st.binary(max_size=200), st.integers(0, 65535), st.integers(0, 65535), st.sampled_from(ENDS))
    @settings(max_examples=50, deadline=None)
    def test_any_udp_verifies(self, payload, sport, dport, ends):
        packet = udp(*ends, sport, dport, payload)
        start = 40 if ":" in ends[0] else 20
        addresses = packet[8:40] if start == 40 else packet[12:20]
        pseudo = addresses + (17).to_bytes(2, "big") + (len(packet) - start).to_bytes(2, "big")
        assert checksum(pseudo + packet[start:]) == 0
        assert packet[start + 6 : start + 8] != b"\0\0"  # RFC 768: zero says there is none
        if start == 20:
            assert checksum(packet[:20]) == 0

    def test_a_udp_checksum_that_comes_to_zero_is_sent_as_ones(self):
        base = udp(V4, W4, 1, 2, b"\0\0")
        found = int.from_bytes(base[26:28], "big")
        packet = udp(V4, W4, 1, 2, found.to_bytes(2, "big"))
        assert packet[26:28] == b"\xff\xff"

    def test_mixed_families_and_nonsense(self):
        for make in (lambda a, b: udp(a, b, 1, 2), lambda a, b: tcp(a, b, 1, 2), icmp_echo):
            with pytest.raises(ValueError):
                make(V4, W6)
            with pytest.raises(ValueError):
                make("nonsense", V4)


class TestChecksum:
    @given(st.binary(max_size=300))
    @settings(max_examples=200, deadline=None)
    @example(b"")
    @example(b"\xff")
    @example(b"\xff\xff" * 10)
    @example(b"\0" * 7)
    def test_agrees_with_scapy(self, data):
        assert checksum(data) == scapy.checksum(data)

    @given(st.binary(max_size=100).filter(lambda d: len(d) % 2 == 0), st.binary(max_size=100))
    @settings(max_examples=50, deadline=None)
    def test_initial_is_what_came_before(self, first, rest):
        assert checksum(rest, checksum(first) ^ 0xFFFF) % 0xFFFF == checksum(first + rest) % 0xFFFF

    def test_the_example_of_rfc_1071(self):
        assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


class TestIcmpReply:
    @pytest.mark.parametrize(("source", "destination"), ENDS)
    @pytest.mark.parametrize("payload", PAYLOADS, ids=len)
    def test_is_the_reply_to_a_request(self, source, destination, payload):
        reply = icmp_reply(icmp_echo(source, destination, 5, 9, payload))
        assert reply == icmp_echo(destination, source, 5, 9, payload, reply=True)
        assert icmp_reply(reply) is None

    def test_options_and_padding(self):
        request = scapy.IP(src=V4, dst=W4, options=[scapy.IPOption_RR()]) / scapy.ICMP(id=1, seq=2) / b"data"
        reply = icmp_reply(bytes(request) + b"padding")
        assert reply == icmp_echo(W4, V4, 1, 2, b"data", reply=True)

    @pytest.mark.parametrize(
        "packet",
        [
            b"", b"\x45", b"\x60", b"\x45" * 27, b"\x60" * 47, udp(V4, W4, 1, 2), udp(V6, W6, 1, 2),
            tcp(V4, W4, 1, 2), icmp_echo(V4, W4, reply=True), icmp_echo(V6, W6, reply=True),
            icmp_echo(V4, W4, 1, 2, b"abc")[:-1], icmp_echo(V6, W6, 1, 2, b"abc")[:-1],
            b"\x00" * 100, b"\xff" * 100, b"\x50" + icmp_echo(V4, W4)[1:],
        ],
    )  # fmt: skip
    def test_what_is_no_request(self, packet):
        assert icmp_reply(packet) is None

    @given(st.binary(max_size=120))
    @settings(max_examples=300, deadline=None)
    def test_garbage(self, packet):
        self.check(packet)

    @given(
        st.sampled_from([icmp_echo(V4, W4, 1, 2, b"payload"), icmp_echo(V6, W6, 1, 2, b"payload")]),
        st.lists(st.tuples(st.integers(0, 50), st.integers(0, 255)), max_size=4),
        st.integers(0, 60),
    )
    @settings(max_examples=300, deadline=None)
    def test_requests_with_bytes_changed_and_cut(self, packet, changes, end):
        packet = bytearray(packet)
        for position, value in changes:
            packet[position % len(packet)] = value
        self.check(bytes(packet[:end]))

    @staticmethod
    def check(packet):
        """None, or a well-formed reply no longer than the request and its header."""
        reply = icmp_reply(packet)
        if reply is None:
            return
        assert reply[0] in (0x45, 0x60)
        start = 20 if reply[0] == 0x45 else 40
        assert len(reply) <= len(packet)
        assert reply[start] == (0 if start == 20 else 129)
        if start == 20:
            assert checksum(reply[:20]) == 0
            assert checksum(reply[20:]) == 0
            assert reply[16:20] == packet[12:16]
        else:
            assert reply[24:40] == packet[8:24]

    def test_takes_every_kind_of_bytes(self):
        request = icmp_echo(V4, W4, 1, 2, b"x")
        for kind in (bytes, bytearray, memoryview, lambda p: np.frombuffer(p, np.uint8)):
            assert icmp_reply(kind(request)) == icmp_reply(request)


def test_every_public_name_exists_and_is_documented():
    for name in testing.__all__:
        assert getattr(testing, name).__doc__
