"""Other people's programs against devices that this package opened."""

import contextlib
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from programs import program, watchdog

import tuntap
from tuntap import ClosedError, InterruptError, Tap, Tun
from tuntap.testing import ethernet, icmp_reply, udp

HOST4, PEER4 = "10.9.0.1", "10.9.0.2"
HOST6, PEER6 = "fd09::1", "fd09::2"
PATIENCE = 20


@pytest.fixture(autouse=True)
def _watchdog():
    with watchdog(90):
        yield


@contextlib.contextmanager
def answering(device, answer):
    """A thread that sends what `answer` makes of each packet."""

    def run():
        batch = device.batch(32)
        with contextlib.suppress(ClosedError):
            while True:
                device.recv_batch(batch)
                for packet in batch:
                    reply = answer(bytes(packet))
                    if reply is not None:
                        device.send(reply)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        device.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()


class TestPing:
    @pytest.mark.parametrize("peer", [PEER4, PEER6])
    @pytest.mark.parametrize("size", [0, 56, 1400])
    def test_is_answered_in_python(self, net, local_route, peer, size):
        ping = program("ping")
        with Tun(addresses=[f"{HOST4}/24", f"{HOST6}/64"]) as tun, answering(tun, icmp_reply):
            local_route(HOST6)
            result = subprocess.run(
                [ping, "-n", "-c", "5", "-i", "0.02", "-W", "2", "-s", str(size), peer],
                capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        assert re.search(r"5 packets transmitted, 5 received, 0% packet loss", result.stdout), result.stdout
        assert "DUP" not in result.stdout
        assert "wrong" not in result.stdout

    def test_a_wrong_answer_is_noticed(self, net):
        """The test above can fail: ping looks at what comes back."""
        ping = program("ping")

        def spoil(packet):
            reply = icmp_reply(packet)
            return reply and reply[:-1] + bytes([reply[-1] ^ 1])

        with Tun(addresses=[f"{HOST4}/24"]) as tun, answering(tun, spoil):
            result = subprocess.run(
                [ping, "-n", "-c", "2", "-i", "0.02", "-W", "1", PEER4],
                capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
        assert "wrong data byte" in result.stdout

    def test_through_a_tap_with_arp(self, net):
        ping = program("ping")
        scapy = pytest.importorskip("scapy.all", reason="scapy answers ARP")
        mac = "02:00:00:00:09:02"

        def answer(frame):
            if frame[12:14] == b"\x08\x06":
                asked = scapy.Ether(frame)[scapy.ARP]
                if asked.op != 1 or asked.pdst != PEER4:
                    return None
                return bytes(
                    scapy.Ether(src=mac, dst=asked.hwsrc)
                    / scapy.ARP(op=2, hwsrc=mac, psrc=PEER4, hwdst=asked.hwsrc, pdst=asked.psrc)
                )
            reply = icmp_reply(frame[14:]) if frame[12:14] == b"\x08\x00" else None
            return reply and ethernet(mac, frame[6:12].hex(":"), reply)

        with Tap(addresses=[f"{HOST4}/24"]) as tap, answering(tap, answer):
            result = subprocess.run(
                [ping, "-n", "-c", "5", "-i", "0.02", "-W", "2", PEER4],
                capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr


class TestTcpdump:
    @pytest.mark.parametrize("kind", [Tun, Tap])
    def test_sees_what_python_sends(self, net, tmp_path, kind):
        tcpdump = program("tcpdump")
        scapy = pytest.importorskip("scapy.all", reason="scapy reads what tcpdump wrote")
        file = tmp_path / "seen.pcap"
        with kind(addresses=[f"{HOST4}/24"], quiet=True) as device:
            packets = [udp(PEER4, HOST4, 6000, 6001, bytes([i]) * (i + 1)) for i in range(50)]
            if kind is Tap:
                packets = [ethernet("02:00:00:00:09:02", device.mac, packet) for packet in packets]
            with subprocess.Popen(
                [tcpdump, "-i", device.name, "-Z", "root", "-U", "-w", str(file), "-c", "50", "udp"],
                stderr=subprocess.PIPE, text=True,
            ) as process:  # fmt: skip
                try:
                    while "listening on" not in (line := process.stderr.readline()):
                        if "Couldn't change to" in line:
                            pytest.skip("tcpdump cannot change its user in a user namespace")
                        assert line, "tcpdump did not start"
                    batch = device.batch(50)
                    batch.fill(packets)
                    assert device.send_batch(batch) == 50
                    assert process.wait(PATIENCE) == 0
                finally:
                    process.kill()
        captured = scapy.rdpcap(str(file))
        assert [bytes(packet) for packet in captured] == packets


@contextlib.contextmanager
def relay(one, other):
    """Two threads that pass batches between two devices; yields the number of packets moved."""
    moved = [0, 0]
    errors = []

    def run(source, target, direction):
        batch = source.batch(64)
        try:
            while True:
                count = source.recv_batch(batch)
                done = 0
                while done < count:
                    try:
                        done += target.send_batch(batch, start=done)
                    except tuntap.PacketError:
                        done += 1
                moved[direction] += count
        except (ClosedError, InterruptError):
            pass
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=arguments, daemon=True)
        for arguments in ((one, other, 0), (other, one, 1))
    ]
    for thread in threads:
        thread.start()
    try:
        yield moved
    finally:
        one.shutdown()
        other.shutdown()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert not errors


class TestIperf:
    """A server here and a client in another network, joined by a loop in Python."""

    @pytest.fixture
    def ends(self, other_netns):
        with (
            Tun("here0", addresses=[f"{HOST4}/24"], mtu=1500, quiet=True, tx_queue_len=1000) as here,
            Tun("there0", addresses=[f"{PEER4}/24"], mtu=1500, netns=other_netns, tx_queue_len=1000) as there,
        ):
            yield here, there, other_netns

    def measure(self, ends, *options):
        iperf, nsenter = program("iperf3"), program("nsenter")
        here, there, netns = ends
        with (
            relay(here, there) as moved,
            subprocess.Popen(
                [iperf, "-s", "-1", "-B", HOST4, "--forceflush"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            ) as server,
        ):  # fmt: skip
            try:
                while "listening" not in (line := server.stdout.readline()):
                    assert line, "the server did not start"
                client = subprocess.run(
                    [nsenter, f"--net={netns}", iperf, "-c", HOST4, "-J", *options],
                    capture_output=True, text=True, timeout=PATIENCE,
                )  # fmt: skip
                assert client.returncode == 0, client.stdout + client.stderr
                server.communicate(timeout=PATIENCE)
                assert server.returncode == 0
            finally:
                server.kill()
        report = json.loads(client.stdout)
        assert "error" not in report
        return report["end"], moved

    def test_tcp(self, ends):
        end, moved = self.measure(ends, "-t", "2")
        assert end["sum_received"]["bytes"] > 10_000_000
        assert min(moved) > 100

    def test_tcp_the_other_way(self, ends):
        end, _ = self.measure(ends, "-t", "1", "-R")
        assert end["sum_received"]["bytes"] > 5_000_000

    def test_udp(self, ends):
        end, moved = self.measure(ends, "-t", "1", "-u", "-b", "50M", "-l", "1000")
        assert end["sum"]["bytes"] > 2_000_000
        assert end["sum"]["lost_percent"] < 20
        assert moved[1] > 1000

    def test_a_transfer_arrives_unchanged(self, ends):
        """The bytes themselves, which iperf3 does not look at."""
        nsenter = program("nsenter")
        here, there, netns = ends
        size = 4_000_000
        code = (
            "import hashlib, socket, sys\n"
            f"data = hashlib.shake_128(b'seed').digest({size})\n"
            f"with socket.create_connection(({HOST4!r}, 6100), timeout=15) as s:\n"
            "    s.sendall(data)\n"
        )
        with (
            relay(here, there),
            socket.create_server((HOST4, 6100)) as server,
            subprocess.Popen([nsenter, f"--net={netns}", sys.executable, "-c", code]) as client,
        ):
            server.settimeout(PATIENCE)
            connection, _ = server.accept()
            received = bytearray()
            with connection:
                connection.settimeout(PATIENCE)
                while piece := connection.recv(1 << 16):
                    received += piece
            assert client.wait(PATIENCE) == 0
        assert bytes(received) == hashlib.shake_128(b"seed").digest(size)


class TestScapy:
    @pytest.fixture
    def scapy(self):
        scapy = pytest.importorskip("scapy.all", reason="scapy is the peer")
        scapy.conf.verb = 0
        return scapy

    def test_a_request_over_a_raw_socket_is_answered_in_python(self, net, scapy):
        with Tun(addresses=[f"{HOST4}/24"], quiet=True) as tun, answering(tun, icmp_reply):
            scapy.conf.ifaces.reload()
            scapy.conf.route.resync()
            before, scapy.conf.L3socket = scapy.conf.L3socket, scapy.L3RawSocket
            try:
                reply = scapy.sr1(
                    scapy.IP(src=HOST4, dst=PEER4) / scapy.ICMP(id=77, seq=3) / b"from scapy",
                    timeout=5, iface=tun.name,
                )  # fmt: skip
            finally:
                scapy.conf.L3socket = before
        assert reply is not None
        assert (reply.src, reply[scapy.ICMP].type, reply[scapy.ICMP].id) == (PEER4, 0, 77)
        assert bytes(reply[scapy.Raw]) == b"from scapy"

    def test_a_sniffer_sees_both_directions(self, net, scapy):
        with Tun(addresses=[f"{HOST4}/24"], quiet=True) as tun:
            scapy.conf.ifaces.reload()
            started = threading.Event()
            sniffer = scapy.AsyncSniffer(iface=tun.name, count=2, started_callback=started.set)
            sniffer.start()
            assert started.wait(PATIENCE)
            into = udp(PEER4, HOST4, 1, 59997, b"from python")
            tun.send(into)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"from the kernel", (PEER4, 9))
                sent = tun.recv(timeout=2)
                while sent[9] != 17:
                    sent = tun.recv(timeout=2)
            sniffer.join(PATIENCE)
        seen = {bytes(packet) for packet in sniffer.results}
        assert into in seen
        assert len(seen) == 2


def test_a_program_in_another_language_sends_and_python_counts(net):
    """A shell and its /dev/udp, which is as foreign as it gets."""
    bash = program("bash")
    with Tun(addresses=[f"{HOST4}/24"], quiet=True) as tun:
        code = f'for i in $(seq 20); do printf "line %d" $i > /dev/udp/{PEER4}/9; done'
        subprocess.run([bash, "-c", code], check=True, timeout=PATIENCE)
        batch = tun.batch(64)
        seen, deadline = [], time.monotonic() + 5
        while len(seen) < 20 and time.monotonic() < deadline:
            tun.recv_batch(batch, timeout=2)
            seen += [bytes(packet[28:]).decode() for packet in batch if packet[9] == 17]
    assert seen == [f"line {i}" for i in range(1, 21)]


def test_ctrl_c_reaches_a_python_program_that_pings_itself(net):
    """The signal goes to a whole group of processes; ours ends with it and so does the interface."""
    ping = program("ping")
    with (
        Tun("pinged0", addresses=[f"{HOST4}/24"]) as tun,
        answering(tun, icmp_reply),
        subprocess.Popen([ping, "-n", "-i", "0.02", PEER4], stdout=subprocess.PIPE, text=True) as process,
    ):
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait(PATIENCE) == 0
    assert "0% packet loss" in said
    assert "pinged0" not in tuntap.interfaces()
