"""Packets between a device and the kernel, byte for byte, good ones and bad ones."""

import array
import contextlib
import socket
import struct
import threading
import time
import tracemalloc

import numpy as np
import pytest

import tuntap
from tuntap import PacketBatch, PacketError, Tap, Tun
from tuntap.testing import icmp_echo, icmp_reply, ip_packet, pair, tcp, udp

scapy = pytest.importorskip("scapy.all", reason="scapy dissects what the kernel sends")

HOST4, PEER4 = "10.7.0.1", "10.7.0.2"
HOST6, PEER6 = "fd07::1", "fd07::2"
GUARD = 0xA5


@pytest.fixture
def tun(net, local_route):
    with Tun(addresses=[f"{HOST4}/24", f"{HOST6}/64"], mtu=1500, quiet=True) as tun:
        local_route(HOST6)
        yield tun


@pytest.fixture
def tap(net, local_route):
    with Tap(addresses=[f"{HOST4}/24", f"{HOST6}/64"], mac="02:00:00:00:07:01", quiet=True) as tap:
        local_route(HOST6)
        yield tap


@pytest.fixture(params=["device", "pair"])
def ends(request):
    """(what sends, what receives): a device and the kernel's echo of it, or a pair."""
    if request.param == "pair":
        one, other = pair()
        with one, other:
            yield one, other
    else:
        request.getfixturevalue("net")
        with Tun(addresses=[f"{HOST4}/24"], quiet=True) as tun:
            yield None, tun


def put(ends, *packets):
    """Let the receiving end have the UDP payloads, as packets."""
    sender, receiver = ends
    if sender is None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((HOST4, 7000))
            for payload in packets:
                client.sendto(payload, (PEER4, 7001))
    else:
        for payload in packets:
            sender.send(udp(HOST4, PEER4, 7000, 7001, payload), timeout=1)
    return receiver


def payload_of(packet):
    return bytes(packet[28:])


def udp_server(family, host, port):
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.settimeout(2)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    server.bind((host, port))
    return server


def receive(device, want, timeout=2.0):
    """The next packet that `want` accepts: the kernel may say things of its own."""
    deadline = time.monotonic() + timeout
    while True:
        packet = device.recv(timeout=max(deadline - time.monotonic(), 0))
        if want(packet):
            return packet


class TestFromTheKernel:
    @pytest.mark.parametrize(("host", "peer"), [(HOST4, PEER4), (HOST6, PEER6)])
    def test_tcp_syn(self, tun, host, peer):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
            client.setblocking(False)
            assert client.connect_ex((peer, 80)) != 0
            packet = receive(tun, lambda p: scapy.TCP in (scapy.IPv6 if ":" in host else scapy.IP)(p))
            local_port = client.getsockname()[1]
        segment = (scapy.IPv6 if ":" in host else scapy.IP)(packet)[scapy.TCP]
        assert segment.flags == "S"
        assert (segment.sport, segment.dport) == (local_port, 80)
        assert ("MSS", 1460 if ":" not in host else 1440) in segment.options

    @pytest.mark.parametrize(("host", "peer"), [(HOST4, PEER4), (HOST6, PEER6)])
    def test_icmp_error_for_what_was_sent(self, tun, host, peer):
        """A datagram for a port where nobody listens: the kernel quotes it back."""
        sent = udp(peer, host, 5, 59999, b"nobody listens")
        tun.send(sent)
        reply = receive(tun, lambda p: p[20 if p[0] >> 4 == 4 else 40] in (1, 3))
        offset = 28 if ":" not in host else 48
        assert reply[offset:] == sent

    def test_ping_of_the_host_is_answered_by_the_kernel(self, tun):
        request = icmp_echo(PEER4, HOST4, 0x1234, 7, b"payload of the request")
        assert tun.send(request) == len(request)
        reply = receive(tun, lambda p: p[9:10] == b"\x01")
        assert reply[20:] == icmp_echo(HOST4, PEER4, 0x1234, 7, b"payload of the request", reply=True)[20:]

    def test_what_python_answers_the_kernel_takes(self, tun):
        """icmp_reply and the kernel's own reply agree."""
        request = icmp_echo(PEER6, HOST6, 1, 2, b"abc")
        tun.send(request)
        reply = receive(tun, lambda p: p[0] >> 4 == 6 and p[40] == 129)
        ours = icmp_reply(request)
        assert reply[8:] == ours[8:]

    def test_packets_of_every_size(self, tun):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for size in (0, 1, 2, 3, 63, 64, 65, 1471, 1472):
                client.sendto(bytes([size % 256]) * size, (PEER4, 9))
                packet = tun.recv(timeout=2)
                assert len(packet) == size + 28
                assert payload_of(packet) == bytes([size % 256]) * size

    def test_fragments_of_a_datagram_above_the_mtu(self, tun):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"f" * 4000, (PEER4, 9))
        batch = tun.batch(8)
        count = tun.recv_batch(batch, timeout=2)
        while count < 3:
            count += tun.recv_batch(batch, timeout=2)
        assert count == 3
        assert max(batch.lengths[:count]) <= 1500


class TestToTheKernel:
    @pytest.mark.parametrize(("host", "peer"), [(HOST4, PEER4), (HOST6, PEER6)])
    @pytest.mark.parametrize("how", ["send", "send_batch"])
    def test_a_thousand_datagrams_in_order(self, tun, host, peer, how):
        payloads = [struct.pack("!I", i) + bytes([i % 256]) * (i % 600) for i in range(1000)]
        with udp_server(socket.AF_INET6 if ":" in host else socket.AF_INET, host, 6001) as server:
            batch = tun.batch(50)
            for start in range(0, 1000, 50):
                packets = [udp(peer, host, 6000, 6001, p) for p in payloads[start : start + 50]]
                if how == "send":
                    for packet in packets:
                        assert tun.send(packet) == len(packet)
                else:
                    batch.fill(packets)
                    assert tun.send_batch(batch) == 50
                assert [server.recv(2000) for _ in range(50)] == payloads[start : start + 50]

    @pytest.mark.parametrize(
        "make",
        [bytes, bytearray, memoryview, lambda p: np.frombuffer(p, np.uint8), lambda p: array.array("B", p)],
        ids=["bytes", "bytearray", "memoryview", "ndarray", "array"],
    )
    def test_every_kind_of_buffer(self, tun, make):
        with udp_server(socket.AF_INET, HOST4, 6001) as server:
            assert tun.send(make(udp(PEER4, HOST4, 6000, 6001, b"hello"))) == 33
            assert server.recv(100) == b"hello"

    def test_a_subclass_of_bytes(self, tun):
        class Mine(bytes):
            pass

        with udp_server(socket.AF_INET, HOST4, 6001) as server:
            tun.send(Mine(udp(PEER4, HOST4, 6000, 6001, b"hello")))
            assert server.recv(100) == b"hello"

    def test_a_row_of_a_larger_array_and_a_wide_dtype(self, tun):
        packet = udp(PEER4, HOST4, 6000, 6001, b"hell")
        rows = np.zeros((4, len(packet)), np.uint8)
        rows[2] = np.frombuffer(packet, np.uint8)
        with udp_server(socket.AF_INET, HOST4, 6001) as server:
            assert tun.send(rows[2]) == len(packet)
            assert tun.send(np.frombuffer(packet, np.uint32)) == len(packet)
            assert [server.recv(100) for _ in range(2)] == [b"hell"] * 2

    def test_start_and_stop(self, tun):
        batch = tun.batch(10)
        batch.fill([udp(PEER4, HOST4, 6000, 6001, bytes([i])) for i in range(10)])
        with udp_server(socket.AF_INET, HOST4, 6001) as server:
            assert tun.send_batch(batch, start=3, stop=6) == 3
            batch.count = 2
            assert tun.send_batch(batch, start=1) == 1
            assert tun.send_batch(batch, stop=9, start=8) == 1
            assert tun.send_batch(batch, start=2) == 0
            assert tun.send_batch(batch, start=5, stop=5) == 0
            assert [server.recv(10) for _ in range(5)] == [bytes([i]) for i in (3, 4, 5, 1, 8)]

    @pytest.mark.parametrize(
        ("start", "stop"),
        [(-1, None), (3, None), (2, 1), (0, 11), (11, 11), (0, -1), (2**31, 2**31), (0, 2**70)],
    )
    def test_start_and_stop_outside(self, ends, start, stop):
        device = ends[1]
        batch = device.batch(10)
        batch.fill([udp(PEER4, HOST4, 6000, 6001)] * 2)
        with pytest.raises(ValueError):
            device.send_batch(batch, start=start, stop=stop)

    def test_headers_put_in_front_in_place(self, tun):
        """What headroom is for: payloads become packets without being moved."""
        batch = PacketBatch(3, 100, headroom=28)
        batch.fill([b"one", b"two", b"three"])
        full = PacketBatch.wrap(batch.buffer, batch.lengths)
        for i in range(3):
            whole = udp(PEER4, HOST4, 6000, 6001, bytes(batch[i]))
            batch.with_headroom(i, 28)[:28] = np.frombuffer(whole[:28], np.uint8)
        batch.lengths[:3] += 28
        with udp_server(socket.AF_INET, HOST4, 6001) as server:
            assert tun.send_batch(full, stop=3) == 3
            assert [server.recv(10) for _ in range(3)] == [b"one", b"two", b"three"]


class TestTap:
    def test_arp_is_asked_and_answered_and_the_datagram_follows(self, tap):
        mac = "02:00:00:00:07:02"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"behind ARP", (PEER4, 9))
            request = scapy.Ether(receive(tap, lambda f: f[12:14] == b"\x08\x06"))
            assert request.dst == "ff:ff:ff:ff:ff:ff"
            assert request.src == tap.mac
            assert (request[scapy.ARP].op, request[scapy.ARP].pdst, request[scapy.ARP].psrc) == (
                1,
                PEER4,
                HOST4,
            )
            answer = scapy.Ether(src=mac, dst=tap.mac) / scapy.ARP(
                op=2, hwsrc=mac, psrc=PEER4, hwdst=tap.mac, pdst=HOST4
            )
            tap.send(bytes(answer))
            frame = scapy.Ether(receive(tap, lambda f: f[12:14] == b"\x08\x00"))
        assert (frame.src, frame.dst) == (tap.mac, mac)
        assert bytes(frame[scapy.UDP].payload) == b"behind ARP"

    def test_a_vlan_frame_of_full_size_fits_a_batch(self, tap):
        tap.mtu = 1500
        assert tap.batch().slot_size >= 1518

    def test_any_first_byte_will_do(self, tap):
        for first in (0x00, 0x50, 0xF0):
            assert tap.send(bytes([first]) + bytes(59)) == 60


class TestPacketInformation:
    @pytest.fixture
    def tun(self, net, local_route):
        with Tun(addresses=[f"{HOST4}/24", f"{HOST6}/64"], packet_information=True, quiet=True) as tun:
            local_route(HOST6)
            yield tun

    def test_the_header_is_in_front(self, tun):
        for family, peer, header in (
            (socket.AF_INET, PEER4, b"\0\0\x08\x00"),
            (socket.AF_INET6, PEER6, b"\0\0\x86\xdd"),
        ):
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.sendto(b"hello", (peer, 9))
            packet = tun.recv(timeout=2)
            assert packet[:4] == header
            assert packet.endswith(b"hello")
            assert packet[4] >> 4 == (4 if family == socket.AF_INET else 6)

    def test_the_header_is_expected(self, tun):
        with udp_server(socket.AF_INET, HOST4, 6001) as server:
            packet = udp(PEER4, HOST4, 6000, 6001, b"hello")
            assert tun.send(b"\0\0\x08\x00" + packet) == len(packet) + 4
            assert server.recv(10) == b"hello"

    def test_a_batch_has_room_for_it(self, tun):
        tun.mtu = 1536
        assert tun.batch().slot_size >= 1540
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x" * (1536 - 28), (PEER4, 9))
        batch = tun.batch(4)
        assert tun.recv_batch(batch, timeout=2) == 1
        assert (batch.truncated, batch.lengths[0]) == ((), 1540)

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 36])
    def test_a_buffer_that_is_too_small(self, tun, size):
        """Even one that has no room for the header is a matter of this packet alone."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", (PEER4, 9))
            with pytest.raises(PacketError):
                tun.recv_into(bytearray(size), timeout=2)
            client.sendto(b"again", (PEER4, 9))
        assert tun.recv(timeout=2).endswith(b"again")

    @pytest.mark.parametrize("size", [1, 3])
    def test_less_than_the_header_to_send(self, tun, size):
        with pytest.raises(PacketError):
            tun.send(b"\0" * size)

    def test_the_largest_packet_with_it(self, tun):
        tun.mtu = 65535
        packet = udp(PEER4, HOST4, 6000, 6001, b"x" * (65535 - 28))
        with udp_server(socket.AF_INET, HOST4, 6001) as server:
            assert tun.send(b"\0\0\x08\x00" + packet) == 65539
            assert len(server.recv(70_000)) == 65535 - 28
        with pytest.raises(ValueError):
            tun.send(b"\0\0\x08\x00" + packet + b"x")


class TestTruncation:
    @pytest.mark.parametrize("room", [1, 2, 20, 127])
    def test_a_small_buffer(self, ends, room):
        receiver = put(ends, b"x" * 100, b"next")
        memory = np.full(room + 64, GUARD, np.uint8)
        with pytest.raises(PacketError, match=str(room)) as caught:
            receiver.recv_into(memory[32 : 32 + room], timeout=2)
        assert caught.value.errno
        assert (memory[:32] == GUARD).all()
        assert (memory[32 + room :] == GUARD).all()
        assert memory[32] == 0x45
        assert payload_of(receiver.recv(timeout=2)) == b"next"

    def test_a_buffer_that_just_fits(self, ends):
        receiver = put(ends, b"x" * 100, b"y" * 100)
        memory = np.full(129, GUARD, np.uint8)
        assert receiver.recv_into(memory[:128], timeout=2) == 128
        assert memory[128] == GUARD
        assert receiver.recv_into(memory, timeout=2) == 128
        assert memory[127] == ord("y")

    @pytest.mark.parametrize("headroom", [0, 1, 14])
    @pytest.mark.parametrize("position", [0, 2, 4])
    def test_a_slot_that_is_too_small(self, ends, headroom, position):
        """Only that packet is cut; the bytes around the slots are as they were."""
        payloads = [bytes([i]) * 4 for i in range(5)]
        payloads[position] = b"L" * 100
        receiver = put(ends, *payloads)
        memory = np.full(5 * (32 + headroom) + 64, GUARD, np.uint8)
        rows = memory[32:-32].reshape(5, 32 + headroom)
        batch = PacketBatch.wrap(rows, np.zeros(5, np.int32), headroom)
        assert receiver.recv_batch(batch, timeout=2) == 5
        assert batch.truncated == (position,)
        assert [payload_of(packet) for packet in batch] == [p[:4] for p in payloads]
        assert batch.lengths.tolist() == [32] * 5
        assert (memory[:32] == GUARD).all()
        assert (memory[-32:] == GUARD).all()
        assert (rows[:, :headroom] == GUARD).all()

    def test_the_bytes_behind_a_cut_slot_are_those_of_its_neighbour(self, ends):
        """A slot that is not received into keeps what it holds, first byte included."""
        receiver = put(ends, b"L" * 100)
        batch = PacketBatch(2, 40)
        batch.buffer[:] = GUARD
        assert receiver.recv_batch(batch, timeout=2) == 1
        assert batch.truncated == (0,)
        assert (batch.data[1] == GUARD).all()

    def test_all_of_them(self, ends):
        receiver = put(ends, *[b"L" * 100] * 6)
        batch = PacketBatch(6, 21)
        assert receiver.recv_batch(batch, timeout=2) == 6
        assert batch.truncated == tuple(range(6))
        put(ends, b"")
        assert receiver.recv_batch(PacketBatch(1, 28), timeout=2) == 1
        put(ends, b"")
        assert receiver.recv_batch(batch, timeout=2) == 1
        assert batch.truncated == (0,)

    def test_is_forgotten_by_the_next_call(self, ends):
        receiver = put(ends, b"L" * 100)
        batch = PacketBatch(2, 60)
        receiver.recv_batch(batch, timeout=2)
        assert batch.truncated == (0,)
        put(ends, b"short")
        receiver.recv_batch(batch, timeout=2)
        assert batch.truncated == ()
        with pytest.raises(TimeoutError):
            receiver.recv_batch(batch, timeout=0)
        assert (batch.count, batch.truncated) == (0, ())

    def test_two_devices_that_fill_one_batch_at_once(self):
        """A misuse, but no crash: the list of cut packets never outgrows the batch."""
        ends = [pair(), pair()]
        batch = PacketBatch(64, 4)
        packet = udp(HOST4, PEER4, 1, 2)
        longest = []

        def run(sender, receiver):
            for _ in range(100):
                for _ in range(64):
                    sender.send(packet)
                barrier.wait(10)
                with contextlib.suppress(TimeoutError):
                    receiver.recv_batch(batch, timeout=1)
                longest.append(len(batch.truncated))
                barrier.wait(10)

        barrier = threading.Barrier(2)
        threads = [threading.Thread(target=run, args=end) for end in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        for device in (*ends[0], *ends[1]):
            device.close()
        assert len(longest) == 200
        assert max(longest) <= 64


class TestBadPackets:
    def still_works(self, tun):
        with udp_server(socket.AF_INET, HOST4, 6001) as server:
            tun.send(udp(PEER4, HOST4, 6000, 6001, b"alive"))
            assert server.recv(10) == b"alive"

    @pytest.mark.parametrize("packet", [b"", bytearray(), memoryview(b""), np.zeros(0, np.uint8)])
    def test_an_empty_packet(self, tun, packet):
        with pytest.raises(ValueError, match="1 to 65535"):
            tun.send(packet)
        self.still_works(tun)

    @pytest.mark.parametrize("size", [65536, 65540, 1 << 20])
    def test_a_packet_above_65535_bytes(self, tun, size):
        with pytest.raises(ValueError, match="65535"):
            tun.send(b"\x45" * size)
        self.still_works(tun)

    @pytest.mark.parametrize(
        "packet", [b"\x45", b"\x60", b"\x45" * 19, b"\x45" * 20, b"\x4f" * 40, b"\x60" * 39]
    )
    def test_garbage_behind_the_version_harms_nobody(self, tun, packet):
        with contextlib.suppress(PacketError):
            tun.send(packet)
        self.still_works(tun)

    @pytest.mark.parametrize("bad", ["text", 5, None, [1, 2], 4.5, object(), (b"E",)])
    def test_what_is_no_packet(self, ends, bad):
        device = ends[1]
        with pytest.raises(TypeError):
            device.send(bad)
        with pytest.raises(TypeError):
            device.send_batch(bad)
        with pytest.raises(TypeError):
            device.recv_batch(bad, timeout=0)
        with pytest.raises(TypeError):
            device.recv_into(bad, timeout=0)

    def test_a_strided_view(self, ends):
        device = ends[1]
        for bad in (memoryview(b"EEEEEE")[::2], np.full(20, 0x45, np.uint8)[::2]):
            with pytest.raises(ValueError):
                device.send(bad)
        for bad in (
            memoryview(bytearray(40))[::2],
            np.zeros(40, np.uint8)[::-1],
            np.zeros((8, 8), np.uint8).T,
        ):
            with pytest.raises(ValueError):
                device.recv_into(bad, timeout=0)

    def test_no_room_to_receive(self, ends):
        receiver = put(ends, b"kept")
        for bad in (bytes(100), memoryview(bytes(100)), bytearray(), np.zeros(0, np.uint8)):
            with pytest.raises((ValueError, TypeError)):
                receiver.recv_into(bad, timeout=0)
        assert payload_of(receiver.recv(timeout=2)) == b"kept"

    @pytest.mark.parametrize("length", [0, -1, -(2**31), 101, 65536, 2**31 - 1])
    @pytest.mark.parametrize("position", [0, 1, 3])
    def test_a_length_that_cannot_be(self, tun, length, position):
        """Nothing is sent, not even what is in front of it."""
        batch = PacketBatch(4, 100)
        batch.fill([udp(PEER4, HOST4, 6000, 6001, b"no")] * 4)
        batch.lengths[position] = length
        before = tun.stats
        with pytest.raises(ValueError, match=f"packet {position}"):
            tun.send_batch(batch)
        assert tun.stats.rx_packets == before.rx_packets
        self.still_works(tun)

    @pytest.mark.parametrize("length", [65536, 70_000])
    def test_a_length_above_65535_in_a_large_slot(self, tun, length):
        batch = PacketBatch(2, 70_000)
        batch.fill([b"\x45" * 100])
        batch.lengths[0] = length
        with pytest.raises(ValueError):
            tun.send_batch(batch)

    def test_the_error_is_raised_once(self, tun):
        batch = tun.batch(2)
        batch.fill([udp(PEER4, HOST4, 6000, 6001, b"x"), b"\x05" * 40])
        assert tun.send_batch(batch) == 1
        with pytest.raises(PacketError):
            tun.send(udp(PEER4, HOST4, 6000, 6001, b"y"))
        assert tun.send(udp(PEER4, HOST4, 6000, 6001, b"z")) == 29

    def test_an_error_of_sending_leaves_receiving_alone(self, tun):
        batch = tun.batch(2)
        batch.fill([udp(PEER4, HOST4, 6000, 6001, b"x"), b"\x05" * 40])
        assert tun.send_batch(batch) == 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", (PEER4, 9))
        assert payload_of(receive(tun, lambda p: p[9] == 17)) == b"hello"


class TestReceivingBatches:
    def test_takes_what_is_there_and_does_not_wait_for_more(self, ends):
        receiver = put(ends, *[bytes([i]) for i in range(5)])
        batch = receiver.batch(64)
        begin = time.monotonic()
        assert receiver.recv_batch(batch, timeout=5) == 5
        assert time.monotonic() - begin < 1
        assert [payload_of(packet) for packet in batch] == [bytes([i]) for i in range(5)]

    def test_takes_what_it_has_room_for_and_leaves_the_rest(self, ends):
        receiver = put(ends, *[bytes([i]) for i in range(10)])
        batch = receiver.batch(4)
        seen = []
        for expected in (4, 4, 2):
            assert receiver.recv_batch(batch, timeout=2) == expected == batch.count
            seen += [payload_of(packet) for packet in batch]
        assert seen == [bytes([i]) for i in range(10)]
        with pytest.raises(TimeoutError):
            receiver.recv_batch(batch, timeout=0)
        assert batch.count == 0

    def test_the_arrays_of_the_caller_are_filled(self, ends):
        receiver = put(ends, b"first", b"second")
        data, lengths = np.zeros((8, 1600), np.uint8), np.zeros(8, np.int32)
        batch = PacketBatch.wrap(data, lengths)
        assert receiver.recv_batch(batch, timeout=2) == 2
        assert lengths[:2].tolist() == [33, 34]
        assert data[1, 28:34].tobytes() == b"second"

    def test_a_flood_beyond_the_queue_is_dropped_and_receiving_goes_on(self, net):
        with Tun(addresses=[f"{HOST4}/24"], tx_queue_len=50, quiet=True) as tun:
            batch = tun.batch(200)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for i in range(500):
                    with contextlib.suppress(OSError):  # ENOBUFS tells the sender so
                        client.sendto(struct.pack("!I", i), (PEER4, 9))
                count = tun.recv_batch(batch, timeout=2)
                assert 50 <= count < 200
                seen = [struct.unpack("!I", payload_of(packet))[0] for packet in batch]
                assert seen == list(range(count))
                assert tun.stats.tx_dropped >= 500 - count
                client.sendto(b"after", (PEER4, 9))
            assert tun.recv_batch(batch, timeout=2) == 1
            assert payload_of(batch[0]) == b"after"

    def test_nothing_is_allocated_per_packet(self):
        one, other = pair()
        packets = one.batch(8)
        packets.fill([udp(HOST4, PEER4, 1, 2, b"x" * 64)] * 8)
        batch = other.batch(8)
        port_send, port_recv = tuntap._core.Port.send_batch, tuntap._core.Port.recv_batch

        def run(times):
            for _ in range(times):
                port_send(one, packets)
                port_recv(other, batch)

        with one, other:
            run(100)
            tracemalloc.start()
            try:
                run(10)
                before = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                run(10_000)
                after, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert after - before < 2048
        assert peak - before < 4096

    def test_recv_gives_each_packet_its_own_bytes(self, ends):
        receiver = put(ends, b"one", b"two")
        first = receiver.recv(timeout=2)
        second = receiver.recv(timeout=2)
        assert (payload_of(first), payload_of(second)) == (b"one", b"two")


class TestTwoDevices:
    def test_a_batch_received_here_is_sent_there(self, net):
        with (
            Tun(addresses=["10.7.1.1/24"], quiet=True) as one,
            Tun(addresses=["10.7.2.1/24"], quiet=True) as other,
            udp_server(socket.AF_INET, "10.7.2.1", 6001) as server,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            batch = one.batch(16)
            for i in range(10):
                client.sendto(bytes([i]) * 10, ("10.7.1.9", 6001))
            assert one.recv_batch(batch, timeout=2) == 10
            for i in range(10):
                packet = udp("10.7.2.9", "10.7.2.1", 6000, 6001, payload_of(batch[i]))
                batch[i][:] = np.frombuffer(packet, np.uint8)
            assert other.send_batch(batch) == 10
            assert [server.recv(100) for _ in range(10)] == [bytes([i]) * 10 for i in range(10)]

    def test_a_batch_too_small_for_the_other_device(self):
        """Slots of one device, packets of another: cut, listed, nothing else harmed."""
        small, small_peer = pair(mtu=576)
        large, large_peer = pair(mtu=9000)
        with small, small_peer, large, large_peer:
            large.send(udp(HOST4, PEER4, 1, 2, b"x" * 5000))
            batch = small.batch(2)
            assert large_peer.recv_batch(batch, timeout=1) == 1
            assert batch.truncated == (0,)
            assert batch.lengths[0] == batch.slot_size


class TestLargePackets:
    @pytest.fixture
    def tun(self, net, local_route):
        with Tun(addresses=[f"{HOST4}/24", f"{HOST6}/64"], mtu=65535, quiet=True) as tun:
            local_route(HOST6)
            yield tun

    def test_of_65535_bytes_from_the_kernel(self, tun):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            payload = bytes(range(256)) * 255 + bytes(227)
            assert len(payload) == 65507
            for _ in range(3):
                client.sendto(payload, (PEER4, 9))
            packet = tun.recv(timeout=2)
            assert (len(packet), payload_of(packet)) == (65535, payload)
            buffer = bytearray(65535)
            assert tun.recv_into(buffer, timeout=2) == 65535
            assert payload_of(buffer) == payload
            batch = tun.batch(2)
            assert tun.recv_batch(batch, timeout=2) == 1
            assert (batch.lengths[0], batch.truncated) == (65535, ())
            assert payload_of(batch[0]) == payload

    @pytest.mark.parametrize("how", ["send", "send_batch"])
    def test_of_65535_bytes_to_the_kernel(self, tun, how):
        payload = bytes(range(256)) * 255 + bytes(227)
        packet = udp(PEER4, HOST4, 6000, 6001, payload)
        assert len(packet) == 65535
        with udp_server(socket.AF_INET, HOST4, 6001) as server:
            if how == "send":
                assert tun.send(packet) == 65535
            else:
                batch = tun.batch(2)
                batch.fill([packet, packet])
                assert tun.send_batch(batch) == 2
            assert server.recv(70_000) == payload

    def test_cut_by_one_byte(self, tun):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(bytes(65507), (PEER4, 9))
            with pytest.raises(PacketError):
                tun.recv_into(bytearray(65534), timeout=2)
            client.sendto(bytes(65507), (PEER4, 9))
            huge = bytearray(b"\xa5" * 200_000)
            assert tun.recv_into(huge, timeout=2) == 65535
            assert set(huge[65535:]) == {GUARD}

    def test_a_slot_far_above_65535(self, tun):
        batch = PacketBatch(2, 200_000, headroom=7)
        batch.buffer[:] = GUARD
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(bytes(65507), (PEER4, 9))
        assert tun.recv_batch(batch, timeout=2) == 1
        assert (batch.lengths[0], batch.truncated) == (65535, ())
        assert (batch.data[0, 65535:] == GUARD).all()
        assert (batch.buffer[1] == GUARD).all()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no local datagram sockets")
class TestAdoptedSockets:
    """from_fd with a datagram socket: the same packet path without any interface."""

    @pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
    @pytest.mark.parametrize("owned", [True, False])
    def test_packets_pass_both_ways(self, kind, owned):
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with contextlib.closing(theirs), contextlib.closing(ours):
            fd = ours.detach() if owned else ours.fileno()
            with Tun.from_fd(fd, owned=owned) as tun:
                theirs.send(b"Ehello")
                assert tun.recv(timeout=1) == b"Ehello"
                assert tun.send(b"Eback") == 5
                assert theirs.recv(100) == b"Eback"
                theirs.send(b"E" * 200)
                with pytest.raises(PacketError):
                    tun.recv_into(bytearray(199), timeout=1)
                theirs.send(b"E" * 70_000)
                with pytest.raises(PacketError):
                    tun.recv(timeout=1)
                theirs.send(b"Eagain")
                assert tun.recv(timeout=1) == b"Eagain"

    def test_an_empty_datagram_is_no_end(self):
        """Hostile input: whoever holds the other end must not make the device seem gone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.closing(theirs), Tun.from_fd(ours.detach()) as tun:
            batch = tun.batch(4)
            for packet in (b"Eone", b"", b"Etwo"):
                theirs.send(packet)
            seen = []
            with contextlib.suppress(TimeoutError):
                while True:
                    tun.recv_batch(batch, timeout=0)
                    seen += [bytes(packet) for packet in batch if len(packet)]
            assert seen == [b"Eone", b"Etwo"]

    def test_a_borrowed_blocking_socket_is_not_waited_in(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.closing(theirs), contextlib.closing(ours):
            ours.setblocking(True)
            with Tun.from_fd(ours.fileno(), owned=False) as tun:
                begin = time.monotonic()
                with pytest.raises(TimeoutError):
                    tun.recv(timeout=0)
                with pytest.raises(TimeoutError):
                    tun.recv(timeout=0.02)
                assert time.monotonic() - begin < 0.5
            assert ours.getblocking()
            theirs.send(b"still open")
            assert ours.recv(100) == b"still open"


class TestTcp:
    def test_a_handshake_and_data_spoken_by_python(self, tun):
        """A TCP client in Python on one side, a kernel's server on the other."""
        with socket.create_server((HOST4, 6002)) as server:
            server.settimeout(2)
            tun.send(tcp(PEER4, HOST4, 5555, 6002, seq=1000, flags=0x02))
            answer = scapy.IP(receive(tun, lambda p: p[9] == 6))[scapy.TCP]
            assert answer.flags == "SA"
            assert answer.ack == 1001
            tun.send(tcp(PEER4, HOST4, 5555, 6002, seq=1001, ack=answer.seq + 1))
            tun.send(tcp(PEER4, HOST4, 5555, 6002, b"over TCP", seq=1001, ack=answer.seq + 1, flags=0x18))
            connection, address = server.accept()
            with connection:
                assert address == (PEER4, 5555)
                connection.settimeout(2)
                assert connection.recv(100) == b"over TCP"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def test_raw_protocols_pass_unchanged(self, tun):
        """A protocol nobody knows is only bytes."""
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as raw:
            raw.settimeout(2)
            packet = ip_packet(PEER4, HOST4, 253, b"experimental")
            tun.send(packet)
            assert raw.recv(100)[20:] == b"experimental"
            raw.sendto(b"back", (PEER4, 0))
            assert receive(tun, lambda p: p[9] == 253)[20:] == b"back"
