"""Each program of examples/ does what it says, on traffic of the kernel, and Ctrl-C ends it in order."""

import ast
import contextlib
import hashlib
import importlib.util
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from threads import CallThread

import tuntap
from tuntap import offload, testing

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not beside the tests")

PATIENCE = 30


def inside(netns, *command):
    return [*(["nsenter", f"--net={netns}"] if netns else []), *map(str, command)]


def run(*command, netns=None):
    """A command that must succeed, and what it said."""
    result = subprocess.run(inside(netns, *command), capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def ping(address, *options, count=20, netns=None):
    """So many replies; requests are sent until they have come."""
    return run("ping", "-c", count, "-i", "0.002", "-w", "10", *options, address, netns=netns)


def unanswered(address, *options):
    """What ping says when nobody answers."""
    command = ["ping", "-c", "3", "-i", "0.05", "-W", "0.2", *options, address]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


def received_packets(name):
    lines = run("ip", "-s", "link", "show", "dev", name).splitlines()
    [at] = [i for i, line in enumerate(lines) if "RX:" in line]
    return int(lines[at + 1].split()[1])


class Program:
    """An example that runs; it has said its first line."""

    def __init__(self, name, *arguments, netns=None):
        command = inside(netns, sys.executable, "-W", "default", EXAMPLES / name, *arguments)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.patience = threading.Timer(PATIENCE, self.process.kill)
        self.patience.start()
        self.first_line = self.read_line()

    def read_line(self):
        line = self.process.stdout.readline()
        assert line, f"ended with {self.process.wait()}: {self.process.stderr.read()}"
        return line

    def end(self, ctrl_c=True):
        if ctrl_c:
            self.process.send_signal(signal.SIGINT)
        output, errors = self.process.communicate()
        assert errors == ""
        assert self.process.returncode in ((0, 130) if ctrl_c else (0,))
        return output

    def clean_up(self):
        self.patience.cancel()
        self.patience.join()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(net):
    """Start an example; those that still run at the end of the test are ended by Ctrl-C, and must."""
    with contextlib.ExitStack() as stack:
        programs = []

        def start_one(name, *arguments, netns=None):
            program = Program(name, *arguments, netns=netns)
            stack.callback(program.clean_up)
            programs.append(program)
            return program

        yield start_one
        for program in programs:
            if program.process.returncode is None:
                assert program.process.poll() is None, program.process.stderr.read()
                program.end()


@pytest.fixture
def cable(other_netns):
    """A link between this network namespace and another one; the path of that."""
    pid = other_netns.split("/")[2]
    run("ip", "link", "add", "here0", "type", "veth", "peer", "name", "there0", "netns", pid)
    for name, netns, host in (("here0", None, 1), ("there0", other_netns, 2)):
        run("ip", "address", "add", f"192.0.2.{host}/24", "dev", name, netns=netns)
        run("ip", "address", "add", f"2001:db8::{host}/64", "dev", name, "nodad", netns=netns)
        run("ip", "link", "set", name, "up", netns=netns)
    yield other_netns
    run("ip", "link", "delete", "here0")


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def need(module):
    """Skip where a module is not to be had; it is not imported here."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def test_every_example_is_run_by_a_test():
    named = re.findall(r'"(\w+\.py)"', Path(__file__).read_text())
    assert set(named) == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_says_how_to_run_it(path):
    assert f"sudo python examples/{path.name} " in ast.get_docstring(ast.parse(path.read_text()))


def test_pings_to_every_address_of_a_subnet_are_answered(start):
    name = start("icmp_responder.py", "10.9.0.1/24", "fd00:9::1/64").first_line.split(":")[0]
    for size in (0, 55, 1400):
        ping("10.9.0.77", "-s", size)
        ping("fd00:9::abcd", "-s", size)
    ping("10.9.0.200", "-R", count=1)  # with an IP option
    run("ip", "route", "add", "10.99.0.0/24", "dev", name)
    before = received_packets(name)
    unanswered("10.99.0.1")
    unanswered("10.9.0.77", "-s", "3000")  # in fragments
    assert received_packets(name) == before


TUNNELS = {
    "sync": ["udp_tunnel_sync.py"],
    "asyncio": ["udp_tunnel_asyncio.py"],
    "uvloop": ["udp_tunnel_asyncio.py", "--uvloop"],
    "trio": ["udp_tunnel_trio.py"],
}
JUNK = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], 5555))
    for datagram in (b"", bytes(2), bytes([0, 0, 0, 1]), bytes([0, 0, 0, 1]) + bytes(30), bytes(60)):
        sock.sendto(datagram, (sys.argv[2], 5555))
"""


@pytest.mark.parametrize(
    ("one", "other", "here", "there"),
    [
        ("sync", "asyncio", "192.0.2.1", "192.0.2.2"),
        ("asyncio", "sync", "2001:db8::1", "2001:db8::2"),
        ("uvloop", "trio", "2001:db8::1", "2001:db8::2"),
        ("trio", "uvloop", "192.0.2.1", "192.0.2.2"),
    ],
)
def test_a_tunnel_carries_packets_between_two_hosts(cable, start, one, other, here, there):
    for name in {one, other} & {"trio", "uvloop"}:
        need(name)
    program, *options = TUNNELS[one]
    start(program, here, there, *options, "--address", "10.8.0.1/24", "fd00:8::1/64")
    unanswered("10.8.0.2")  # nobody is at the other end, and its kernel says so
    run(sys.executable, "-ISc", JUNK, there, here, netns=cable)
    program, *options = TUNNELS[other]
    start(program, there, here, *options, "--address", "10.8.0.2/24", "fd00:8::2/64", netns=cable)
    for size in (0, 1372):
        ping("10.8.0.2", "-s", size)
        ping("fd00:8::2", "-s", min(size, 1352), netns=None)
    ping("10.8.0.1", netns=cable)


def test_a_tunnel_does_not_take_packets_of_another(cable, start):
    start("udp_tunnel_sync.py", "192.0.2.1", "192.0.2.2", "--address", "10.8.0.1/24")
    start(
        "udp_tunnel_sync.py", "192.0.2.2", "192.0.2.1", "--number", "2", "--address", "10.8.0.2/24",
        netns=cable,
    )  # fmt: skip
    unanswered("10.8.0.2")


RECEIVER = """
import hashlib, socket
with socket.create_server(("10.7.0.2", 9)) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    with connection:
        data = hashlib.sha256()
        while block := connection.recv(65536):
            data.update(block)
        connection.sendall(data.digest())
"""


def test_a_switch_connects_its_ports_and_learns(other_netns, start):
    start("tap_bridge.py", "red0", f"blue0@{other_netns}", "green0")
    run("ip", "address", "add", "10.7.0.1/24", "dev", "red0")
    run("ip", "address", "add", "10.7.0.2/24", "dev", "blue0", netns=other_netns)
    run("ip", "address", "add", "fd00:7::1/64", "dev", "red0", "nodad")
    run("ip", "address", "add", "fd00:7::2/64", "dev", "blue0", "nodad", netns=other_netns)
    ping("10.7.0.2", count=1)
    before = received_packets("green0")
    ping("10.7.0.2", count=100)
    ping("fd00:7::2", count=100)
    ping("10.7.0.1", count=100, netns=other_netns)
    # Who has which address is asked of all; 600 frames besides went to one port each.
    assert received_packets("green0") - before < 100
    # A port that is down takes nothing, and nothing ends for that.
    run("ip", "link", "set", "green0", "down")
    run("ip", "neighbour", "flush", "dev", "red0")
    ping("10.7.0.2", count=1)

    receiver = subprocess.Popen(inside(other_netns, sys.executable, "-ISc", RECEIVER), stdout=subprocess.PIPE)
    try:
        assert receiver.stdout.readline() == b"listening\n"
        data = bytes(range(256)) * 8192
        with socket.create_connection(("10.7.0.2", 9), timeout=PATIENCE) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(32) == hashlib.sha256(data).digest()
        assert receiver.wait(PATIENCE) == 0
    finally:
        receiver.kill()
        receiver.wait()
        receiver.stdout.close()


def test_a_switch_forgets_stations():
    bridge = load("tap_bridge")
    table = bridge.MacTable()
    station, many = bytes.fromhex("020000000001"), bytes.fromhex("ffffffffffff")
    table.learn(station, "a")
    table.learn(many, "a")
    assert (table.find(station), table.find(many)) == ("a", None)
    table.learn(station, "b")
    assert table.find(station) == "b"
    bridge.MAX_AGE = 0.0
    assert table.find(station) is None
    # Many that are made up do not fill the memory, and make room when they are old.
    for number in range(2 * bridge.MAX_STATIONS):
        table.learn(b"\x02" + number.to_bytes(5, "big"), "a")
        assert len(table.stations) <= bridge.MAX_STATIONS


def test_a_router_passes_packets_on_and_counts_them_down(other_netns, start):
    errors = [checksum_errors(netns) for netns in (None, other_netns)]
    start(
        "router.py", "--left", "10.1.0.1/24", "fd00:1::1/64", "--right", "10.2.0.1/24", "fd00:2::1/64",
        "--right-netns", other_netns,
    )  # fmt: skip
    run("ip", "route", "add", "10.2.0.0/24", "dev", "left")
    run("ip", "route", "add", "fd00:2::/64", "dev", "left")
    run("ip", "route", "add", "10.1.0.0/24", "dev", "right", netns=other_netns)
    run("ip", "route", "add", "fd00:1::/64", "dev", "right", netns=other_netns)
    for size in (0, 1400):
        assert "ttl=63" in ping("10.2.0.1", "-s", size)
        assert "ttl=63" in ping("fd00:2::1", "-s", size)
    ping("10.1.0.1", netns=other_netns)
    assert "ttl=63" in ping("10.2.0.1", "-t", "2", count=1)
    assert "From 10.1.0.254 icmp_seq=1 Time to live exceeded" in unanswered("10.2.0.1", "-t", "1")
    router = "fd00:1::ffff:ffff:ffff:fffe"
    assert f"From {router} icmp_seq=1 Time exceeded: Hop limit" in unanswered("fd00:2::1", "-t", "1")
    with echo_server(other_netns):
        for server in ("10.2.0.1", "fd00:2::1"):
            assert_echoes(server)
    assert [checksum_errors(netns) for netns in (None, other_netns)] == errors
    run("ip", "link", "set", "right", "down", netns=other_netns)
    unanswered("10.2.0.1")
    run("ip", "link", "set", "right", "up", netns=other_netns)
    run("ip", "route", "add", "10.1.0.0/24", "dev", "right", netns=other_netns)
    ping("10.2.0.1", count=1)


# Says back what it is told, and who said it.
ECHO = """
import socket, threading

def serve_tcp(connection):
    with connection:
        connection.sendall(connection.getpeername()[0].removeprefix("::ffff:").encode().ljust(40))
        while block := connection.recv(65536):
            connection.sendall(block)

def serve_udp(sock):
    while True:
        question, sender = sock.recvfrom(65536)
        sock.sendto(sender[0].removeprefix("::ffff:").encode().ljust(40) + question, sender)

server = socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True)
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
sock.bind(("::", 7))
threading.Thread(target=serve_udp, args=(sock,), daemon=True).start()
print("listening", flush=True)
while True:
    threading.Thread(target=serve_tcp, args=(server.accept()[0],), daemon=True).start()
"""


@contextlib.contextmanager
def echo_server(netns):
    server = subprocess.Popen(inside(netns, sys.executable, "-ISc", ECHO), stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"listening\n"
        yield
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def assert_echoes(server, *, source=None, port=0, size=1 << 20):
    """Of datagrams and of a stream; who the server takes us for."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    names = []
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((source or "", port))
        sock.connect((server, 7))
        sock.settimeout(PATIENCE)
        for question in (b"", b"odd", bytes(1000), b"\xff" * 1401):
            sock.send(question)
            answer = sock.recv(65536)
            assert answer[40:] == question
            names.append(answer[:40])
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((source or "", port))
        sock.connect((server, 7))
        data = hashlib.sha512(server.encode()).digest() * (size // 64)
        sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        sender.start()
        with sock.makefile("rb") as stream:
            names.append(stream.read(40))
            assert stream.read() == data
        sender.join()
    [name] = set(names)
    return name.decode().strip()


def checksum_errors(netns):
    """Packets that a kernel has dropped for one."""
    lines = run("cat", "/proc/net/snmp", netns=netns).splitlines()
    names, values = lines[::2], lines[1::2]
    found = {
        (name.split()[0], field): int(value)
        for name, row in zip(names, values, strict=True)
        for field, value in zip(name.split()[1:], row.split()[1:], strict=True)
    }
    lines = run("cat", "/proc/net/snmp6", netns=netns).splitlines()
    found |= {("6", name): int(value) for name, value in map(str.split, lines)}
    errors = [value for (_, field), value in found.items() if field.endswith("InCsumErrors")]
    assert len(errors) >= 6  # of ICMP, TCP and UDP; of IPv6, too
    return sum(errors) + found["Ip:", "InHdrErrors"] + found["6", "Ip6InHdrErrors"]


@pytest.mark.parametrize("options", [[], ["--superpackets"]])
def test_a_nat_stands_for_all_that_is_inside(other_netns, start, options):
    errors = [checksum_errors(netns) for netns in (None, other_netns)]
    start(
        "nat.py", "--inside", "10.1.0.1/24", "--outside", "192.0.2.1/24", "--outside-netns", other_netns,
        "--public", "192.0.2.254", *options,
    )  # fmt: skip
    run("ip", "address", "add", "10.1.0.2/24", "dev", "inside")
    run("ip", "route", "add", "192.0.2.0/24", "dev", "inside")
    for size in (0, 1, 55, 1400):
        assert "ttl=63" in ping("192.0.2.1", "-s", size)
    with echo_server(other_netns):
        assert assert_echoes("192.0.2.1") == "192.0.2.254"
        # Two of the same port at once have a port each.
        clients = [
            CallThread(lambda host=host: assert_echoes("192.0.2.1", source=f"10.1.0.{host}", port=5000))
            for host in (1, 2)
        ]
        for client in clients:
            client.join()
            assert client.error is None
            assert client.result == "192.0.2.254"
    unanswered("192.0.2.1", "-t", "1")
    unanswered("192.0.2.1", "-s", "3000")  # in fragments
    assert [checksum_errors(netns) for netns in (None, other_netns)] == errors
    # A kernel believes a checksum that it is to finish: tests/os/test_linux_rewrite.py looks at those.
    # 3 MiB have come back, by many packets or by few.
    assert (received_packets("inside") < 1500) == bool(options)
    # Nobody inside has asked for what begins outside.
    result = subprocess.run(
        inside(other_netns, "ping", "-c", "2", "-i", "0.05", "-W", "0.2", "192.0.2.254"),
        capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert result.returncode == 1


def test_the_nat_gives_ports_back():
    nat = load("nat")
    nat.FIRST_PORT = 65500
    ports, one = nat.Ports(), np.ones(1, np.uint32)
    udp, tcp = np.full(1, nat.UDP, np.uint8), np.full(1, nat.TCP, np.uint8)
    first = ports.outward(udp, 10 * one, 7 * one)
    assert ports.outward(udp, 10 * one, 7 * one) == first == 65500
    assert ports.outward(tcp, 10 * one, 7 * one) == first
    assert ports.outward(udp, 10 * one, 8 * one) == first + 1
    assert ports.inward(udp, first + 1) == (10, 8)
    assert ports.inward(udp, first + 2) == (0, 0)
    many = np.arange(40, dtype=np.uint32)
    found = ports.outward(np.full(40, nat.UDP, np.uint8), many + 1000, many % 5 + 1)
    assert sorted(found) == [0] * 6 + [*range(65502, 65536)]
    assert ports.outward(udp, 11 * one, 7 * one) == 0
    ports.last_used[nat.UDP] -= 2 * nat.IDLE
    assert ports.outward(udp, 11 * one, 7 * one) == first
    assert ports.inward(udp, first) == (11, 7)
    assert ports.outward(udp, 10 * one, 7 * one) == first + 1
    assert ports.inward(udp, first + 1) == (10, 7)
    assert len(ports.port_of) == 37


def test_the_router_sums_as_the_kernel_does():
    packets = np.zeros((65536, 20), np.uint8)
    packets[:, 0], packets[:, 3], packets[:, 8] = 0x45, 20, 64
    identification = np.arange(65536)  # so that there is every checksum
    packets[:, 4], packets[:, 5] = identification >> 8, identification & 0xFF
    for packet in packets:
        packet[10:12] = np.frombuffer(offload.checksum(packet).to_bytes(2, "big"), np.uint8)
    batch = tuntap.PacketBatch.wrap(packets, np.full(65536, 20, np.int32))
    table = batch.columns(load("router").FIELDS)
    table["ttl"] -= 1
    assert batch.update(table, ["ttl"]) == 65536
    assert (packets[:, 8] == 63).all()
    for packet in packets:
        found = packet[10:12].tobytes()
        packet[10:12] = 0
        assert found == offload.checksum(packet).to_bytes(2, "big")


def test_the_router_tells_nobody_about_icmp_errors():
    router = load("router")

    def may_be_answered(packet):
        batch = tuntap.PacketBatch(1, 1500)
        batch.fill([packet])
        [answer] = router.may_be_answered(batch.columns(router.FIELDS))
        return answer

    error4 = testing.ip_packet("10.1.0.1", "10.2.0.1", 1, bytes([3, 1]) + bytes(20))
    error6 = testing.ip_packet("fd00:1::1", "fd00:2::1", 58, bytes([1, 0]) + bytes(20))
    fragment = bytearray(testing.udp("10.1.0.1", "10.2.0.1", 1, 2, bytes(20)))
    fragment[7] = 3
    assert not may_be_answered(error4)
    assert not may_be_answered(error6)
    assert not may_be_answered(fragment)
    assert may_be_answered(testing.icmp_echo("10.1.0.1", "10.2.0.1"))
    assert may_be_answered(testing.icmp_echo("fd00:1::1", "fd00:2::1"))
    assert may_be_answered(testing.udp("10.1.0.1", "10.2.0.1", 1, 2))


def ask(address, port, question):
    """What a UDP service answers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        sock.settimeout(PATIENCE)
        sock.send(question)
        return sock.recv(65536)


def test_datagrams_as_dataclasses_come_back_in_capitals(start, local_route):
    start("framed_dataclass.py", "10.5.0.1/24", "fd00:5::1/64")
    local_route("fd00:5::1")
    for address in ("10.5.0.7", "10.5.0.8", "fd00:5::7"):
        for question in (b"quiet, odd", b"quiet, even", b"", bytes(1000)):
            assert ask(address, 7, question) == question.upper()


def test_packets_of_scapy_answer_questions(start, local_route):
    need("scapy")
    start("framed_scapy.py", "10.6.0.1/24", "fd00:6::1/64", "--answer", "192.0.2.7")
    local_route("fd00:6::1")
    question = struct.pack("!HHHHHH", 77, 0x0100, 1, 0, 0, 0) + b"\7example\3org\0" + struct.pack("!HH", 1, 1)
    for address in ("10.6.0.53", "fd00:6::53"):
        send_junk(address)
        answer = ask(address, 53, question)
        number, flags, questions, answers = struct.unpack_from("!HHHH", answer)
        assert (number, flags >> 15, questions, answers) == (77, 1, 1, 1)
        assert answer.endswith(socket.inet_aton("192.0.2.7"))


def send_junk(address):
    """Datagrams that are no questions."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for datagram in (b"", b"x", bytes(12), b"\xff" * 100):
            sock.sendto(datagram, (address, 53))


def test_what_happens_to_an_interface_is_told(start):
    program = start("link_events.py", "tun7")
    assert program.first_line == "tun7: mtu 1500, up\n"
    run("ip", "link", "set", "tun7", "mtu", "1400")
    assert program.read_line() == "mtu 1400\n"
    run("ip", "address", "add", "10.4.0.1/24", "dev", "tun7")
    assert program.read_line() == "address_added 10.4.0.1/24\n"
    run("ip", "link", "set", "tun7", "down")
    told = set()
    while "down" not in told:
        told.add(program.read_line().strip())
    run("ip", "link", "delete", "tun7")
    assert program.end(ctrl_c=False).endswith("gone \n")


def test_telling_ends_by_ctrl_c(start):
    start("link_events.py", "tun7")


def living_processes(session):
    """Of a session: what `start_new_session` has started, and all that came of it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, number = path.read_text().rpartition(") ")[2].split()[:4]
            if int(number) == session and state not in "ZX":
                found.append(path.parent.name)
    return found


def test_a_cluster_counts_what_its_hosts_have_sent(net):
    need("distributed")
    command = [sys.executable, "-W", "default", EXAMPLES / "cluster_flows.py", "--packets", "10000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
    try:
        output, errors = process.communicate(timeout=2 * PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, errors) == (0, ""), output
    *_, last = output.splitlines()
    flows = int(re.fullmatch(r"sent 30300 packets in (\d+) flows; no flows differ", last)[1])
    # An attempt to connect may have had the port of an earlier one.
    assert 1 + 3 * (16 + 90) <= flows <= 1 + 3 * (16 + 100)
    assert "17 192.0.2.1:5000 > 192.0.2.2:9: 1767 packets, 813876 bytes" in output  # of all three hosts
    deadline = time.monotonic() + 5
    while left := living_processes(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


COMPARISON = """
import runpy, sys
import tuntap
from tuntap import testing
from tuntap.flows import FIELDS, FlowTable
batch, table = tuntap.PacketBatch(4, 100), FlowTable()
batch.fill([testing.udp("10.0.0.1", "10.0.0.2", port, 9, b"x") for port in (1, 1, 2)])
table.add(batch.columns(FIELDS))
tell = runpy.run_path(sys.argv[1])["tell"]
one, two = (17, "10.0.0.1:1", "10.0.0.2:9"), (17, "10.0.0.1:2", "10.0.0.2:9")
assert not tell({one: (2, 58), two: (1, 29)}, table)
for wrong in (
    {}, {one: (2, 58)}, {one: (1, 58), two: (1, 29)}, {one: (2, 57), two: (1, 29)},
    {one: (1, 29), two: (2, 58)},
    {one: (2, 58), two: (1, 29), (6, *two[1:]): (1, 40)},
):
    assert tell(wrong, table), wrong
"""


def test_a_cluster_that_had_lost_or_mixed_up_packets_would_say_so():
    need("distributed")
    run(sys.executable, "-W", "default", "-c", COMPARISON, EXAMPLES / "cluster_flows.py")
