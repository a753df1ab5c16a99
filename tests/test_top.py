"""`tuntap top`: what it counts, shows, and leaves behind; with an interface, a capture, a terminal."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tuntap
from tuntap import cli, testing
from tuntap._cli import top, watch
from tuntap.capture import Writer

COMMAND = [sys.executable, "-m", "tuntap", "top"]
PATIENCE = 30


def run(*arguments, prefix=(), **options):
    done = subprocess.run(
        [*prefix, *COMMAND, *arguments], capture_output=True, timeout=PATIENCE, **{"text": True, **options}
    )
    assert "Traceback" not in str(done.stderr), done.stderr
    return done


def facts(*arguments, **options):
    done = run(*arguments, "--json", **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextlib.contextmanager
def started(*arguments):
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_packet_socket(process):
    """Whether it watches already."""
    sockets = Path("/proc/thread-self/net/packet").read_text().splitlines()[1:]
    wanted = {f"socket:[{line.split()[-1]}]" for line in sockets}
    with contextlib.suppress(OSError):
        return any(os.readlink(path) in wanted for path in Path(f"/proc/{process.pid}/fd").iterdir())
    return False


def shown(source, capsys, **options):
    """What `tuntap top --json` says of the packets that wait there."""
    with source:
        assert top.top(source, top.Options(json=True, window=0.3, **options)) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def tun(net):
    with tuntap.Tun("tun0", addresses=["10.0.0.1/24", "fd00::1/64"], quiet=True) as device:
        yield device


# --- an interface that another program drives ---


def test_both_directions_of_a_watched_interface_are_counted_and_nothing_is_taken(tun, capsys):
    source = watch.Watched("tun0")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender6,
    ):
        sender.connect(("10.0.0.2", 53))
        sender6.connect(("fd00::2", 53))
        for _ in range(20):
            sender.send(bytes(100))
            sender6.send(bytes(10))
        port, port6 = sender.getsockname()[1], sender6.getsockname()[1]
        for _ in range(5):
            tun.send(testing.udp("10.0.0.2", "10.0.0.1", 53, port, bytes(1000)))
        found = shown(source, capsys)
        for _ in range(40):  # all are still there for the program that drives it
            tun.recv(timeout=1)
    assert (found["source"], found["packets"], found["missed"]) == ("tun0, watched", 45, 0)
    assert found["bytes"] == 20 * 128 + 20 * 58 + 5 * 1028
    [one, other] = found["flows"]
    assert 0 < one["first"] <= one["last"] <= time.time_ns()
    del one["first"], one["last"], other["first"], other["last"]
    assert one == {
        "version": 4, "protocol": 17, "source": "10.0.0.1", "destination": "10.0.0.2", "source_port": port,
        "destination_port": 53, "packets": 20, "bytes": 2560, "reply_packets": 5, "reply_bytes": 5140,
    }  # fmt: skip
    assert other == {
        "version": 6, "protocol": 17, "source": "fd00::1", "destination": "fd00::2", "source_port": port6,
        "destination_port": 53, "packets": 20, "bytes": 1160, "reply_packets": 0, "reply_bytes": 0,
    }  # fmt: skip


def test_frames_of_a_watched_tap_are_seen_without_their_ethernet_header(net, capsys):
    with tuntap.Tap("tap0", addresses=["10.0.0.1/24"], quiet=True) as tap:
        source = watch.Watched("tap0")
        packet = testing.udp("10.0.0.2", "10.0.0.9", 1, 2, bytes(100))
        tap.send(testing.ethernet("02:00:00:00:00:09", tap.mac, packet))
        mac = bytes.fromhex(tap.mac.replace(":", ""))
        tap.send(mac + mac + b"\x12\x34" + bytes(100))
        found = shown(source, capsys)
    flows = {(row["source"], row["destination"]): (row["packets"], row["bytes"]) for row in found["flows"]}
    assert flows == {("10.0.0.2", "10.0.0.9"): (1, 128), (None, None): (1, 100)}


def test_packets_for_which_there_was_no_room_are_told(tun):
    with watch.Watched("tun0") as source, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("10.0.0.2", 53))
        sent = 0
        while not source.missed():
            sent += 1
            sender.send(bytes(1400))
        missed = source.missed()
        batch, came = tuntap.PacketBatch(64, 2000), 0
        with contextlib.suppress(TimeoutError):
            while True:
                came += len(source.receive(batch, 0.1)[0])
        assert came + missed == sent
        assert source.missed() == missed


def test_a_watched_interface_goes_down_and_up_and_away(net):
    with tuntap.Tun("tun0", addresses=["10.0.0.1/24"], quiet=True) as tun:
        source = watch.Watched("tun0")
        batch = tuntap.PacketBatch(64, 2000)
        with source, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("10.0.0.2", 9))
            assert len(source.receive(batch, 1.0)[0]) == 1
            tun.down()
            assert len(source.receive(batch, 1.0)[0]) == batch.count == 0
            tun.up()
            sender.sendto(b"x", ("10.0.0.2", 9))
            lengths, _ = source.receive(batch, 1.0)
            assert lengths.tolist() == [29]
            with pytest.raises(TimeoutError):
                source.receive(batch, 0.0)
            tun.name = "tun9"  # the same interface
            with pytest.raises(TimeoutError):
                source.receive(batch, 0.0)
            tun.down()
            source.receive(batch, 1.0)
            tun.close()  # of one that is down nothing more is told
            with pytest.raises(tuntap.DeviceGoneError, match="the interface was deleted"):
                source.receive(batch, 0.0)


def test_a_watched_interface_that_is_deleted_is_an_error(net):
    with tuntap.Tun("tun0", quiet=True) as tun, started("tun0", "--once", "--window", "600") as process:
        wait_until(lambda: has_packet_socket(process))
        tun.close()
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (1, "")
    assert errors == "tuntap: tun0: the interface was deleted\n"


def test_watching_takes_a_right(tun):
    prefix = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-all", "--ambient-caps=-all"]
    done = run("tun0", "--once", prefix=prefix)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"tuntap: tun0: .* takes CAP_NET_RAW: run as root, or .*\n", done.stderr)


# --- an interface of its own ---


def test_what_the_kernel_sends_to_an_interface_of_its_own(net, capsys):
    tun = tuntap.Tun("tun0", addresses=["10.0.0.1/24"], quiet=True)
    with watch.Attached(tun) as source, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            sender.sendto(bytes(12), ("10.0.0.2", 53))
        assert top.top(source, top.Options(once=True, window=0.3)) == 0
    output, errors = capsys.readouterr()
    heading, row = output.splitlines()
    assert heading.split() == ["PROTO", "SOURCE", "DESTINATION", "BIT/S", "BACK", "PACKET/S", "BACK"]
    assert re.match(r"UDP +10\.0\.0\.1:\d+ +10\.0\.0\.2:53 +\d\.\d\dk +0 +\d", row)
    assert re.fullmatch(r"tun0 \(TUN\), .*: 1 flow in 0\.\d s; 3 packets, 120 bytes\n", errors)


@pytest.mark.parametrize("kind", [tuntap.Tun, tuntap.Tap])
def test_an_interface_that_nobody_drives_is_attached_to(net, kind):
    kind("tun0", addresses=["10.0.0.1/24"], persist=True, quiet=True).close()
    try:
        found = facts("tun0", "--window", "0.1")
    finally:
        tuntap.delete("tun0")
    assert found["source"] == f"tun0 ({kind.__name__.upper()}), what the kernel sends to it"


def test_an_interface_of_its_own_that_is_deleted(net):
    source = watch.Attached(tuntap.Tun("tun0"))
    tuntap.delete("tun0")
    with source, pytest.raises(tuntap.DeviceGoneError, match="the interface was deleted"):
        source.receive(tuntap.PacketBatch(1, 100), 1.0)


def test_one_that_is_not_there_is_made(net):
    found = facts("tun5", "--address", "10.0.0.1/24", "--window", "0.1")
    assert found["source"] == "tun5 (TUN), what the kernel sends to it"
    assert 0.1 <= found["seconds"] < PATIENCE
    assert tuntap.interfaces() == []


# --- captures ---


def capture(path, packets, times, layer=3, **options):
    batch = batch_of(*packets)
    batch.layer = layer
    with Writer(path, layer=layer, **options) as writer:
        writer.write(batch, times)
    return path


PACKETS = [
    testing.udp("10.0.0.1", "10.0.0.2", 4000, 53, bytes(100)),
    testing.udp("10.0.0.2", "10.0.0.1", 53, 4000, bytes(1000)),
    testing.udp("10.0.0.1", "10.0.0.2", 4000, 53, bytes(100)),
    testing.tcp("fd00::1", "fd00::2", 4000, 80, bytes(1000)),
]


def test_the_rates_of_a_capture_are_those_of_its_own_time(tmp_path):
    path = capture(tmp_path / "a.pcapng", PACKETS, 10**18 + np.array([0, 1, 2, 4]) * 10**9)
    found = facts("--read", path)
    assert (found["seconds"], found["packets"], found["bytes"]) == (4.0, 4, 128 + 1028 + 128 + 1060)
    assert [row["source_port"] for row in found["flows"]] == [4000, 4000]
    assert found["flows"][0]["first"] == 10**18
    done = run("--read", path)
    assert done.stdout.splitlines() == [
        "PROTO  SOURCE          DESTINATION   BIT/S   BACK  PACKET/S  BACK",
        "UDP    10.0.0.1:4000   10.0.0.2:53     512  2.06k      0.50  0.25",
        "TCP    [fd00::1]:4000  [fd00::2]:80  2.12k      0      0.25     0",
    ]
    assert done.stderr == f"{path}: 2 flows in 4.0 s; 4 packets, 2,344 bytes\n"


def test_packets_that_were_cut_count_whole(tmp_path):
    path = capture(tmp_path / "a.pcap", PACKETS[:1], 10**18, snap_length=60)
    assert facts("-r", path)["bytes"] == 128
    assert "UDP    10.0.0.1:4000  10.0.0.2:53      -     -         -     -" in run("-r", path).stdout


def test_frames_of_a_capture(tmp_path):
    frame = testing.ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", PACKETS[0])
    path = capture(tmp_path / "a.pcapng", [frame, bytes(60)], [0, 10**9], layer=2)
    flows = {row["source"]: row["bytes"] for row in facts("-r", path)["flows"]}
    assert flows == {"10.0.0.1": 142, None: 60}


def test_the_order_and_the_number_of_flows(tmp_path):
    small = testing.udp("10.0.0.1", "10.0.0.3", 1, 2, b"")
    path = capture(tmp_path / "a.pcapng", [*PACKETS, *[small] * 9], 10**18)
    ports = lambda *options: [row["source_port"] for row in facts("-r", path, *options)["flows"]]  # noqa: E731
    assert ports() == [4000, 4000, 1]
    assert ports("--sort", "packets") == [1, 4000, 4000]
    assert ports("--sort", "packets", "--count", "1") == [1]
    assert len(run("-r", path, "-c", "2").stdout.splitlines()) == 3
    many = [testing.udp("10.0.0.1", "10.0.0.3", port, 2, b"") for port in range(1, 100)]
    path = capture(tmp_path / "b.pcapng", many, 10**18)
    assert len(run("-r", path).stdout.splitlines()) == 21
    assert len(facts("-r", path)["flows"]) == 99


def test_a_capture_comes_through_a_pipe(tmp_path):
    path = capture(tmp_path / "a.pcapng", PACKETS * 100, 10**18)
    reading, writing = os.pipe()
    with started_with_input(reading, "-r", "-", "--json", "--window", "600") as process:
        os.close(reading)
        data = path.read_bytes()
        for i in range(0, len(data), 5000):
            os.write(writing, data[i : i + 5000])
            time.sleep(0.01)
        os.close(writing)
        found = json.loads(process.communicate(timeout=PATIENCE)[0])
    assert (found["source"], found["packets"], found["bytes"]) == ("standard input", 400, 234_400)


@contextlib.contextmanager
def started_with_input(fd, *arguments):
    process = subprocess.Popen([*COMMAND, *arguments], stdin=fd, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_packets_that_came_together_do_not_wait_for_others(tmp_path):
    data = capture(tmp_path / "a.pcapng", PACKETS * 25, 10**18).read_bytes()
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writing = os.open(path, os.O_RDWR)
    try:
        with watch.Captured(str(path)) as source:
            assert not source.is_recorded
            assert os.write(writing, data) == len(data)
            batch = tuntap.PacketBatch(64, 2000)
            assert [len(source.receive(batch, 0.0)[0]) for _ in range(2)] == [64, 36]
            with pytest.raises(TimeoutError):
                source.receive(batch, 0.0)
    finally:
        os.close(writing)


def test_a_pipe_that_says_nothing_is_waited_for_one_window_only():
    reading, writing = os.pipe()
    try:
        done = run("-r", "-", "--once", "--window", "0.2", stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "tuntap: "), (b"nonsense" * 10, "tuntap: "), (None, "No such file")]
)
def test_what_is_no_capture_is_an_error(tmp_path, capsys, data, message):
    path = tmp_path / "x.pcap"
    if data is not None:
        path.write_bytes(data)
    assert cli.main(["top", "-r", str(path)]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


# --- the terminal ---

ENTER, LEAVE, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Terminal:
    """A pseudo terminal, and the command on it."""

    def __init__(self, *arguments, width=80, height=24, environment=None):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.fd, self.theirs = ours, theirs
        self.before = termios.tcgetattr(theirs)
        environment = {**os.environ, "TERM": "xterm", **(environment or {})}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.said = b""

    def read_until(self, pattern):
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.said):
            assert time.monotonic() < deadline, self.said
            if select.select([self.fd], [], [], 0.1)[0]:
                self.said += os.read(self.fd, 65536)
        return self.said

    def press(self, key):
        os.write(self.fd, key)

    def end(self):
        status = self.process.wait(PATIENCE)
        while select.select([self.fd], [], [], 0.1)[0]:
            self.said += os.read(self.fd, 65536)
        return status

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
        os.close(self.theirs)


def need_rich():
    pytest.importorskip("rich", reason="rich is not installed here")


@pytest.fixture
def traffic(tun):
    """Two flows that go on."""
    stop = threading.Event()

    def send():
        with (
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        ):
            sender.connect(("fd00::2", 4321))
            other.connect(("10.0.0.2", 1234))
            with contextlib.suppress(OSError):  # the interface may go
                while not stop.wait(0.02):
                    sender.send(bytes(100))
                    other.send(b"")

    thread = threading.Thread(target=send)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.parametrize("end", ["ctrl-c", "SIGTERM"])
def test_the_table_changes_and_the_terminal_comes_back(traffic, end):
    need_rich()
    with contextlib.closing(Terminal("tun0", "--interval", "0.2", width=100)) as terminal:
        terminal.read_until(rb"UDP +\[fd00::1\]:\d+ +\[fd00::2\]:4321 +[\d.]+k +0 +[\d.]+ +0")
        count = len(re.findall(rb"tun0, watched: ", terminal.said))
        terminal.read_until(rb"(?s)(tun0, watched: .*){%d}" % (count + 2))
        assert terminal.said.count(ENTER) == 1
        assert LEAVE not in terminal.said
        if end == "ctrl-c":
            terminal.press(b"\x03")
        else:
            terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0
        after = terminal.said.split(LEAVE)[1]
        assert terminal.said.count(LEAVE) == 1
        assert SHOW_CURSOR in terminal.said.split(ENTER)[1]
        assert re.fullmatch(rb"tun0, watched: [\d,]+ packets, [\d,]+ bytes\r\n", after)
        assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_the_terminal_comes_back_after_an_error(tun, traffic):
    need_rich()
    with contextlib.closing(Terminal("tun0", "--interval", "0.2")) as terminal:
        terminal.read_until(rb"4321")
        tun.close()
        assert terminal.end() == 1
        assert terminal.said.endswith(LEAVE + b"tuntap: tun0: the interface was deleted\r\n")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 3), (30, 4), (60, 10)])
def test_a_terminal_of_any_size_will_do(traffic, width, height):
    need_rich()
    with contextlib.closing(Terminal("tun0", "--interval", "0.1", width=width, height=height)) as terminal:
        terminal.read_until(rb"(?s)(\x1b\[H.*){4}")
        terminal.press(b"\x03")
        assert terminal.end() == 0


def test_only_so_many_flows_are_shown(traffic):
    need_rich()
    with contextlib.closing(Terminal("tun0", "--interval", "0.1", "--count", "1")) as terminal:
        terminal.read_until(rb"(?s)(2 flows in.*){3}")
        terminal.press(b"\x03")
        assert terminal.end() == 0
        assert b"[fd00::2]:4321" in terminal.said
        assert b"10.0.0.2:1234" not in re.sub(rb"(?s)^.*? 2 flows in", b"", terminal.said)


def test_without_rich_it_is_said_what_to_install(tun, tmp_path):
    (tmp_path / "rich.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with contextlib.closing(Terminal("tun0", environment={"PYTHONPATH": path})) as terminal:
        assert terminal.end() == 1
        assert b"pip install 'tuntap[top]'" in terminal.said
        assert terminal.said.count(b"\n") == 1
    # What prints one table does without.
    assert facts("tun0", "--window", "0.1", env={**os.environ, "PYTHONPATH": path})["packets"] >= 0


# --- its parts ---


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def monotonic(self):
        return self.now

    def time_ns(self):
        return int(self.now * 1e9)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(top, "time", clock)
    return clock


def batch_of(*packets):
    batch = tuntap.PacketBatch(len(packets), 2000)
    batch.fill(packets)
    return batch


def test_rates_are_of_the_last_seconds_only(clock):
    rates = top.Rates(3.0)
    seen = []
    for second in range(1, 9):
        if second in (1, 2, 5):
            batch = batch_of(PACKETS[0])
            rates.add(batch, batch.lengths, clock.time_ns())
        clock.now += 1
        table, seconds = rates.turn()
        seen.append((table.packets, seconds))
    assert seen == [(1, 1), (2, 2), (2, 3), (1, 3), (1, 3), (1, 3), (1, 3), (0, 3)]
    assert (rates.packets, rates.bytes) == (3, 3 * 128)
    assert len(rates._parts) <= 5


def test_more_flows_than_there_is_room_for_are_counted_but_not_kept(clock, monkeypatch):
    monkeypatch.setattr(top, "_MAX_FLOWS", 10)
    rates = top.Rates(3.0)
    for port in range(1, 101):
        batch = batch_of(testing.udp("10.0.0.1", "10.0.0.2", port, 53, b""))
        rates.add(batch, batch.lengths, clock.time_ns())
        clock.now += 0.001
    assert [len(table) for _, table in rates._parts] == [10]
    table, _ = rates.turn()
    assert [len(table) for _, table in rates._parts] == [10, 0]
    assert sorted(table.to_table()["src_port"]) == list(range(91, 101))
    assert (rates.packets, table.packets) == (100, 100)


@given(
    st.lists(st.sampled_from([*PACKETS, b"\xff" * 30]), max_size=10), st.integers(1, 200), st.integers(1, 50)
)
def test_lines_fit_the_screen(packets, width, height):
    rates = top.Rates(1.0)
    if packets:
        batch = batch_of(*packets)
        rates.add(batch, batch.lengths, 0)
    rows = rates.turn()[0].conversations()
    view = top.View("x" * 30, 1.0, rows, 1, 2, 3)
    title, heading, *lines = top.screen_lines(view, width, height)
    assert max(map(len, (title, heading, *lines))) <= width
    assert len(lines) == min(len(rows), max(height - 3, 0))
    assert "\n" not in "".join([title, heading, *lines])


@given(st.text("abc:.[]0123", max_size=60), st.integers(1, 60))
def test_what_is_too_long_loses_its_middle(text, width):
    short = top.shortened(text, width)
    if len(text) <= width:
        assert short == text
    else:
        head, tail = short.split("…")
        assert len(short) == width
        assert text.startswith(head)
        assert text.endswith(tail)
        assert 0 <= len(head) - len(tail) <= 1


@pytest.mark.parametrize(
    ("amount", "seconds", "text"),
    [(0, 1, "0"), (7, 1, "7"), (7, 2, "3.50"), (1, 3, "0.33"), (123, 10, "12.3"), (999, 1, "999"),
     (9996, 10, "1.00k"), (1000, 1, "1k"), (1234, 1, "1.23k"), (12345, 1, "12.3k"), (123456, 1, "123k"),
     (999_499, 1, "999k"), (999_500, 1, "1.00M"), (10**12, 1, "1T"), (5, 0, "-")],
)  # fmt: skip
def test_rates_have_three_digits(amount, seconds, text):
    assert top._rate(amount, seconds) == text


@given(st.integers(0, 2**67), st.floats(1e-9, 1e9))
def test_every_rate_has_room(amount, seconds):
    assert len(top._rate(amount, seconds)) <= 8


def test_where_there_are_no_packet_sockets_it_attaches(net, monkeypatch, capsys):
    monkeypatch.delattr(socket, "AF_PACKET")
    with tuntap.Tun("tun0", quiet=True):
        assert cli.main(["top", "tun0", "--once", "--window", "0.1"]) == 1
    assert re.search("tun0: .*(in use|another program|busy)", capsys.readouterr().err)


@pytest.mark.parametrize(
    "arguments", [["--count", "0"], ["--interval", "0"], ["--window", "x"], ["--sort", "name"]]
)
def test_wrong_usage(arguments, capsys):
    assert cli.main(["top", *arguments]) == 2
    assert "usage: tuntap top" in capsys.readouterr().err
