"""The `tuntap` command: every subcommand, as a user runs it."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from scapy.layers import inet, inet6, l2  # noqa: F401 - so that scapy knows them
from scapy.utils import rdpcap

import tuntap
from tuntap import _core, capture, cli, testing
from tuntap._cli import doctor, dump

COMMAND = [sys.executable, "-m", "tuntap"]
NO_SUCH_NETNS = "netns means nothing on this operating system"
if "netns" in _core.capabilities():
    NO_SUCH_NETNS = "/run/netns/no-such-netns: open: No such file"
MAC = "02:00:00:00:00:01"
PATIENCE = 20


def run(*arguments, prefix=(), timeout=60):
    """The command as a process; a traceback is never an answer."""
    done = subprocess.run([*prefix, *COMMAND, *arguments], capture_output=True, text=True, timeout=timeout)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@contextlib.contextmanager
def running(*arguments, wait_for="listening on", **popen):
    """The command, once it has said on standard error that it listens."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **popen
    ) as process:
        try:
            said = process.stderr.readline().decode()
            assert wait_for in said, said + process.stderr.read().decode()
            yield process
        finally:
            process.kill()


def finish(process):
    """(status, standard output, standard error) of a process that ends by itself."""
    output, errors = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in errors, errors.decode()
    return process.returncode, output, errors.decode()


def send_udp(address, payload=b"hello", port=4242):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(payload, (address, port))
        return sender.getsockname()[1]


# --- the words of the command line ---


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"tuntap {tuntap.__version__}\n")


@pytest.mark.parametrize(
    "command", [[], ["doctor"], ["demo"], ["list"], ["add"], ["delete"], ["dump"], ["replay"]]
)
def test_help(command, capsys):
    assert cli.main([*command, "--help"]) == 0
    assert "usage: tuntap" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["delete"], ["list", "--wrong"], ["demo", "--seconds", "0"],
     ["demo", "--seconds", "nan"], ["demo", "--seconds", "x"], ["dump", "x", "-c", "0"],
     ["dump", "x", "-c", "many"], ["dump", "x", "--timeout", "-1"], ["add", "--mtu", "big"],
     ["replay"], ["replay", "x", "y", "--speed", "0"], ["replay", "x", "y", "--speed", "nan"],
     ["replay", "x", "y", "--loop", "-1"], ["replay", "x", "y", "--loop", "some"]],
)  # fmt: skip
def test_wrong_usage_is_status_2(arguments, capsys):
    assert cli.main(arguments) == 2
    assert "usage: tuntap" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "a:b"], "an interface name has no"),
        (["add", "n" * 128], "an interface name has 1 to 1"),
        (["add", "--address", "10.0.0.0/24", "--tap"], "the address of the network"),
        (["add", "x", "--address", "10.0.0.1/24", "nonsense"], "'nonsense' is no address"),
        (["add", "x", "--mtu", "1"], "mtu must be 68 to 65535, not 1"),
        (["add", "x", "--mtu", "1000", "--address", "fd00::1/64"], "needs an MTU of at least 1280"),
        (["add", "x", "--mac", "01:00:00:00:00:00"], "no unicast address"),
        (["add", "x", "--owner", "no-such-user"], "there is no user 'no-such-user'"),
        (["add", "x", "--group", "no-such-group"], "there is no group 'no-such-group'"),
        (["add", "x", "--netns", "no-such-netns"], NO_SUCH_NETNS),
        (["dump", "a/b"], "an interface name has no"),
        (["replay", "x", "a/b"], "an interface name has no"),
    ],
)
def test_bad_values_are_status_1(arguments, message, capsys):
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("tuntap: ")
    assert message in error
    assert error.count("\n") == 1


def test_as_a_module():
    done = run("delete", "a/b")
    assert done.returncode == 1
    assert done.stderr.startswith("tuntap: a/b: ")


# --- add, list, delete ---


def test_add_list_delete(net):
    done = run(
        "add",
        "vpn0",
        "--address",
        "10.9.0.1/24",
        "fd09::1/64",
        "--mtu",
        "1400",
        "--owner",
        "0",
        "--group",
        "0",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "vpn0\n", "")
    [facts] = json.loads(run("list", "--json").stdout)
    automatic = [address for address in facts["addresses"] if address.startswith("fe80:")]
    assert [a for a in facts.pop("addresses") if a not in automatic] == ["10.9.0.1/24", "fd09::1/64"]
    assert facts.pop("index") == socket.if_nametoindex("vpn0")
    assert facts == {
        "name": "vpn0", "kind": "tun", "up": True, "running": False, "mtu": 1400, "mac": None,
        "owner": 0, "group": 0, "persist": True,
    }  # fmt: skip
    done = run("delete", "vpn0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert tuntap.interfaces() == []


def test_add_a_tap(net, capsys):
    assert cli.main(["add", "vpn%d", "--tap", "--no-up"]) == 0
    assert cli.main(["add", "vpn%d", "--mac", MAC, "--address", "10.0.0.1 peer 10.0.0.2"]) == 0
    assert capsys.readouterr().out == "vpn0\nvpn1\n"
    assert cli.main(["list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["kind"], first["up"], first["owner"]) == ("tap", False, None)
    assert (second["kind"], second["up"], second["mac"]) == ("tap", True, MAC)
    assert second["addresses"][0] == "10.0.0.1 peer 10.0.0.2/32"
    for name in ("vpn0", "vpn1"):
        assert cli.main(["delete", name]) == 0


def test_list_is_a_table(net, capsys):
    assert cli.main(["add", "--address", "10.9.0.1/24", "t1"]) == 0, "the name may follow the addresses"
    assert cli.main(["add", "t2", "--no-up", "--owner", "0"]) == 0
    capsys.readouterr()
    with tuntap.Tap("t3", mtu=1300):
        assert cli.main(["list"]) == 0
    heading, *rows = [re.split(r" {2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert heading == ["NAME", "KIND", "STATE", "MTU", "OWNER", "GROUP", "PERSIST", "ADDRESSES"]
    assert rows[0][:7] == ["t1", "tun", "up, unused", "1500", "-", "-", "yes"]
    assert rows[0][7].startswith("10.9.0.1/24")
    assert rows[1] == ["t2", "tun", "down", "1500", "root", "-", "yes", "-"]
    assert rows[2][:7] == ["t3", "tap", "up", "1300", "-", "-", "no"]
    for name in ("t1", "t2"):
        assert cli.main(["delete", name]) == 0


def test_list_of_nothing(net, capsys):
    assert cli.main(["list"]) == 0
    assert "no TUN or TAP interfaces" in capsys.readouterr().err
    assert cli.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_list_when_an_interface_vanishes(net, capsys, monkeypatch):
    monkeypatch.setattr(tuntap, "interfaces", lambda: ["gone0", "here0"])
    with tuntap.Tun("here0"):
        assert cli.main(["list", "--json"]) == 0
    assert [facts["name"] for facts in json.loads(capsys.readouterr().out)] == ["here0"]


def test_add_what_exists(net, capsys):
    with tuntap.Tun("vpn0", persist=True) as tun:
        tun.persist = True
    assert cli.main(["add", "vpn0"]) == 1
    assert "tuntap: vpn0: it exists already" in capsys.readouterr().err
    assert cli.main(["add", "lo", "--tap"]) == 1
    assert "tuntap: lo: it exists already" in capsys.readouterr().err
    tuntap.delete("vpn0")


def test_add_in_another_network(net, other_netns, capsys):
    assert cli.main(["add", "vpn0", "--netns", other_netns]) == 0
    assert capsys.readouterr().out == "vpn0\n"
    assert tuntap.interfaces() == []
    tuntap.Tun("vpn0", netns=other_netns, persist=False).close()


@pytest.mark.parametrize("name", ["nothing0", "lo"])
def test_delete_what_is_no_tun(net, name, capsys):
    assert cli.main(["delete", name]) == 1
    assert f"tuntap: {name}: there is no TUN or TAP interface of this name" in capsys.readouterr().err


# --- dump ---


def test_dump_prints_and_writes(net, tmp_path):
    path = tmp_path / "packets.pcap"
    persistent_tun()
    before = time.time()
    with running("dump", "tun0", "-c", "2", "-x", "-w", str(path)) as process:
        port = send_udp("10.0.0.2", b"hello")
        second_port = send_udp("fd00::2", b"to the end")
        status, output, errors = finish(process)
    assert status == 0
    first, second = [line for line in output.decode().splitlines() if not line.startswith(" ")]
    assert re.match(r"\d\d:\d\d:\d\d\.\d{6} ", first)
    assert first[16:] == f"UDP 10.0.0.1:{port} > 10.0.0.2:4242 data 5, 33 bytes"
    assert second[16:] == f"UDP [fd00::1]:{second_port} > [fd00::2]:4242 data 10, 58 bytes"
    assert "to the end" in output.decode()
    assert "2 packets, 91 bytes in " in errors
    assert f"written to {path}" in errors
    first, second = read_pcap(path)
    assert (first["IP"].dst, first["UDP"].sport, bytes(first["UDP"].payload)) == ("10.0.0.2", port, b"hello")
    assert bytes(second["UDP"].payload) == b"to the end"
    assert before <= first.time <= time.time()
    tuntap.delete("tun0")


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def persistent_tun():
    """An interface to which the kernel sends nothing of its own accord."""
    addresses = ["10.0.0.1/24", "fd00::1/64"]
    tuntap.Tun("tun0", addresses=addresses, persist=True, quiet=True).close()


def read_pcap(path):
    return rdpcap(str(path))


def test_dump_is_read_by_tcpdump(net, tmp_path):
    if shutil.which("tcpdump") is None:
        pytest.skip("tcpdump is not installed")
    path = tmp_path / "packets.pcap"
    persistent_tun()
    with running("dump", "tun0", "-c", "1", "-q", "-w", str(path)) as process:
        port = send_udp("10.0.0.2")
        assert finish(process)[:2] == (0, b"")
    tuntap.delete("tun0")
    done = subprocess.run(["tcpdump", "-n", "-r", path], capture_output=True, text=True, timeout=PATIENCE)
    if "Couldn't change to" in done.stderr:
        pytest.skip("tcpdump wants a user of its own, which a user namespace does not have")
    assert f"IP 10.0.0.1.{port} > 10.0.0.2.4242: UDP, length 5" in done.stdout
    assert "link-type RAW" in done.stderr


def test_dump_of_a_tap_to_standard_output(net, tmp_path):
    path = tmp_path / "frames.pcap"
    tuntap.Tap("tap0", addresses=["10.0.0.1/24"], persist=True, quiet=True).close()
    with running("dump", "tap0", "-c", "1", "-w", "-") as process:  # a TAP, found by itself
        send_udp("10.0.0.2")
        status, output, errors = finish(process)
    assert (status, "1 packet, 42 bytes in" in errors) == (0, True)
    path.write_bytes(output)
    [frame] = read_pcap(path)
    assert (frame["Ether"].dst, frame["ARP"].pdst) == ("ff:ff:ff:ff:ff:ff", "10.0.0.2")
    tuntap.delete("tap0")


def test_dump_stops_after_a_time(net):
    started = time.monotonic()
    done = run("dump", "--address", "10.0.0.1/24", "--timeout", "0.5", "tun3")
    assert 0.5 <= time.monotonic() - started < PATIENCE
    assert done.returncode == 0
    assert "listening on tun3 (TUN)" in done.stderr
    assert re.search(r"\d+ packets?, \d+ bytes in 0\.[56] s", done.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dump_ends_cleanly_on_a_signal(net, tmp_path, number):
    path = tmp_path / "packets.pcap"
    persistent_tun()
    with running("dump", "tun0", "-w", str(path)) as process:
        send_udp("10.0.0.2")
        assert b"10.0.0.2:4242" in process.stdout.readline()
        wait_until(lambda: len(read_pcap(path)) == 1)  # without waiting for more, or the end
        process.send_signal(number)
        status, _, errors = finish(process)
    assert status == 0
    assert "1 packet, 33 bytes in" in errors
    tuntap.delete("tun0")


def test_dump_when_the_interface_is_deleted(net):
    with running("dump", "tun0", "--address", "10.0.0.1/24") as process:
        tuntap.delete("tun0")
        status, _, errors = finish(process)
    assert status == 1
    assert "tuntap: tun0: the interface was deleted" in errors
    assert re.search(r"\d packets?, ", errors)


def test_dump_into_a_closed_pipe(net):
    persistent_tun()
    with running("dump", "tun0") as process:
        process.stdout.close()
        send_udp("10.0.0.2")
        process.wait(PATIENCE)
        errors = process.stderr.read().decode()
    assert process.returncode == 141
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    tuntap.delete("tun0")


def test_dump_leaves_the_packets_after_its_count(net, capsys):
    with tuntap.Tun("tun0", addresses=["10.0.0.1/24"], quiet=True) as tun:
        for payload in (b"one", b"two", b"three"):
            send_udp("10.0.0.2", payload)
        totals = dump.dump(tun, dump.Options(count=2))
        assert (totals.packets, totals.bytes) == (2, 62)
        assert tun.recv(timeout=1)[28:] == b"three"
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_dump_writes_pcapng_unless_the_name_says_pcap(net, tmp_path):
    persistent_tun()
    for name, start in (
        ("x", b"\x0a\x0d\x0d\x0a"),
        ("x.pcapng", b"\x0a\x0d\x0d\x0a"),
        ("x.pcap", b"\x4d\x3c\xb2\xa1"),
    ):
        path = tmp_path / name
        with running("dump", "tun0", "-c", "1", "-q", "-w", str(path)) as process:
            send_udp("10.0.0.2")
            assert finish(process)[0] == 0
        assert path.read_bytes()[:4] == start
        [packet] = read_pcap(path)
        assert bytes(packet["UDP"].payload) == b"hello"
    tuntap.delete("tun0")


def test_dump_of_an_interface_that_is_down(net, capsys):
    assert cli.main(["dump", "tun0", "--no-up", "--timeout", "0.1"]) == 0
    assert "tun0 is down and gets no packets" in capsys.readouterr().err


def test_dump_to_a_file_that_cannot_be_written(net, capsys):
    assert cli.main(["dump", "tun0", "-w", "/nonexistent/file", "--timeout", "0.1"]) == 1
    assert capsys.readouterr().err == "tuntap: /nonexistent/file: No such file or directory\n"


# --- replay ---


def write_capture(path, packets, distance, layer=3):
    with capture.Writer(path, layer=layer) as writer:
        for number, packet in enumerate(packets):
            writer.write_packet(packet, 10**18 + number * distance)


@pytest.fixture
def answered(net):
    """A persistent TUN, and a socket at 10.0.0.1:4242 that gets what is sent into it."""
    persistent_tun()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("10.0.0.1", 4242))
        receiver.settimeout(PATIENCE)
        yield receiver
    tuntap.delete("tun0")


REPLAYED = [testing.udp("10.0.0.2", "10.0.0.1", 7, 4242, bytes([n])) for n in range(5)]


def test_replay(answered, tmp_path):
    path = tmp_path / "x.pcap"
    frames = [b"\2" * 12 + b"\x08\0" + packet for packet in REPLAYED]
    for packets, layer in ((REPLAYED, 3), (frames, 2)):
        write_capture(path, packets, 100_000_000, layer)
        done = run("replay", str(path), "tun0", "--speed", "2", "--loop", "2")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"10 packets, 290 bytes in 0\.[4-9] s, at most \d+\.\d ms late\n", done.stderr)
        assert [answered.recv(9) for _ in range(10)] == [bytes([n]) for n in range(5)] * 2


def test_replay_of_standard_input(answered, tmp_path):
    path = tmp_path / "x"
    write_capture(path, [b"\x15" + bytes(40), REPLAYED[3]], 10**12)
    command = [*COMMAND, "replay", "-", "tun0", "--speed", "inf"]
    done = subprocess.run(command, input=path.read_bytes(), capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert b"1 packet, 29 bytes in" in done.stderr
    assert b"late, 1 not sent" in done.stderr
    assert answered.recv(9) == b"\3"


def test_replay_into_a_new_interface(net, tmp_path):
    frame = b"\2" * 12 + b"\x08\0" + REPLAYED[0]
    write_capture(tmp_path / "frames", [frame], 0, 2)
    write_capture(tmp_path / "packets", REPLAYED, 0, 3)
    assert run("replay", str(tmp_path / "frames"), "tap5", "--tap").returncode == 0
    assert run("replay", str(tmp_path / "packets"), "--address", "10.0.0.1/24", "tun5").returncode == 0
    done = run("replay", str(tmp_path / "packets"), "--tap")
    assert (done.returncode, "replay them into a Tun" in done.stderr) == (1, True)
    assert tuntap.interfaces() == []


def test_replay_of_what_is_no_capture(net, tmp_path):
    done = run("replay", str(tmp_path / "nothing"), "tun0")
    assert (done.returncode, done.stderr) == (1, f"tuntap: {tmp_path}/nothing: No such file or directory\n")
    (tmp_path / "text").write_text("no capture")
    done = run("replay", str(tmp_path / "text"), "tun0")
    assert done.returncode == 1
    assert "tuntap: what begins at byte 0 is the beginning of no pcap" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_replay_ends_on_a_signal(answered, tmp_path, number):
    write_capture(tmp_path / "x", REPLAYED[:2], 3600 * 10**9)
    with subprocess.Popen(
        [*COMMAND, "replay", str(tmp_path / "x"), "tun0"], stderr=subprocess.PIPE
    ) as process:
        assert answered.recv(9) == b"\0"
        process.send_signal(number)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b""


# --- doctor ---

WITHOUT_NODE = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none /dev/net && exec "$@"', "sh"]
WRONG_NODE = [
    "unshare", "--mount", "sh", "-c",
    'mount -t tmpfs none /dev/net && touch /dev/net/tun && exec "$@"', "sh",
]  # fmt: skip
WITHOUT_CAPABILITY = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", "--ambient-caps=-all"]


def marks(report):
    return [line.split()[0] for line in report.splitlines()[:-1] if not line.startswith((" ", "No ", "`"))]


def test_doctor_of_the_healthy(net):
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    assert set(marks(done.stdout)) == {"ok"}
    for text in (
        "CAP_NET_ADMIN",
        "may open /dev/net/tun",
        "multi_queue",
        "a TUN was opened",
        "a TAP was opened",
        "IPv6",
    ):
        assert text in done.stdout
    assert done.stdout.endswith("A device can be opened: `tuntap demo` shows one at work.\n")


def test_doctor_without_a_device_file(net):
    done = run("doctor", prefix=WITHOUT_NODE)
    assert done.returncode == 1
    assert "FAIL  /dev/net/tun: No such file or directory" in done.stdout
    for fix in ("sudo modprobe tun", "mknod /dev/net/tun c 10 200", "docker run --device /dev/net/tun"):
        assert f"-> {fix}" in done.stdout or f"&& sudo {fix}" in done.stdout or f": {fix}" in done.stdout
    assert "FAIL  a TUN cannot be opened in a private network: open(/dev/net/tun)" in done.stdout
    assert "interfaces can" not in done.stdout, "there is no point in trying the rest"
    assert "No device can be opened yet" in done.stdout


def test_doctor_with_a_wrong_device_file(net):
    done = run("doctor", prefix=WRONG_NODE)
    assert done.returncode == 1
    assert "FAIL  /dev/net/tun is there, but it is not the TUN device" in done.stdout


def test_doctor_without_the_capability(net):
    done = run("doctor", prefix=WITHOUT_CAPABILITY)
    assert done.returncode == 1
    assert "warn  this process has no CAP_NET_ADMIN (CapEff" in done.stdout
    assert f"setcap cap_net_admin+ep {os.path.realpath(sys.executable)}" in done.stdout
    assert "FAIL  interfaces cannot be made in this network: ioctl(TUNSETIFF)" in done.stdout
    assert tuntap.interfaces() == [], "trying has made nothing"


def test_doctor_knows_interfaces_of_the_user(net):
    tuntap.Tun("mine0", persist=True, owner=os.geteuid()).close()
    done = run("doctor", prefix=WITHOUT_CAPABILITY)
    tuntap.delete("mine0")
    assert done.returncode == 0, done.stdout
    assert "\nok    this user may attach to: mine0\n" in done.stdout


@pytest.mark.parametrize(
    ("owner", "group", "may"),
    [(None, None, True), (1000, None, True), (1001, None, False), (None, 7, True), (1000, 7, True),
     (None, 8, False), (1000, 8, False), (1001, 7, False)],
)  # fmt: skip
def test_who_may_attach(owner, group, may, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    monkeypatch.setattr(os, "getegid", lambda: 7, raising=False)
    monkeypatch.setattr(os, "getgroups", lambda: [7], raising=False)
    assert doctor._may_attach(owner, group) is may


def test_doctor_of_another_system(capsys, monkeypatch):
    monkeypatch.setattr(doctor.platform, "system", lambda: "Plan 9")
    assert doctor.run() == 0
    assert "supported on Plan 9: " in capsys.readouterr().out
    monkeypatch.setattr(_core, "capabilities", frozenset)
    assert doctor.run() == 1
    assert "FAIL  tuntap opens no devices on Plan 9" in capsys.readouterr().out


def test_doctor_without_a_child_process(capsys, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    [check] = doctor._check_private_network()
    assert (check.mark, "no child process" in check.text) == ("warn", True)


# --- demo ---


def test_demo(net):
    started = time.monotonic()
    done = run("demo", "--seconds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < PATIENCE
    assert "in a private network: 10.0.0.1 is the kernel" in done.stdout
    check_summary(done.stdout)
    assert tuntap.interfaces() == []


def check_summary(output):
    summary = output.partition("\nSummary: ")[2]
    ping = re.search(r"ping +(\d+) sent, (\d+) received, rtt min/avg/max [\d./]+ ms", summary)
    if ping is None:
        assert shutil.which("ping") is None, summary
    else:
        assert int(ping[1]) == int(ping[2]) >= 2
    for phase in ("receive", "send", "tcp"):
        found = re.search(
            rf"{phase} +([\d,]+) packets/s, [\d.]+ Gbit/s, [\d.]+ us of CPU per packet", summary
        )
        assert int(found[1].replace(",", "")) > 100
    sent, arrived = re.search(r"([\d,]+) packets by send_batch; ([\d,]+) arrived", summary).groups()
    assert 0 < int(arrived.replace(",", "")) <= int(sent.replace(",", ""))
    assert int(re.search(r"([\d,]+) MB arrived intact", summary)[1].replace(",", "")) >= 1


def test_demo_in_memory(net):
    done = run("demo", "--seconds", "2", prefix=WITHOUT_NODE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No device can be opened here: open(/dev/net/tun): No such file or directory" in done.stdout
    assert "Summary: a pair of devices in memory" in done.stdout
    check_summary(done.stdout)


def test_demo_without_a_child_process(capsys, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert cli.main(["demo", "--seconds", "0.8"]) == 0
    assert "No device can be opened here: cannot start /nonexistent/python" in capsys.readouterr().out


@pytest.mark.parametrize("delay", [0.2, 2.0, 4.0])
def test_demo_ends_on_a_signal(net, delay):
    """Whatever it does just now, and with nothing left behind."""
    with subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "8"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert b"private network" in process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        status, _, _ = finish(process)
    assert status == 130
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_demo_into_a_closed_pipe(net):
    with subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "4"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        process.wait(PATIENCE)
        assert process.stderr.read() == b""
    assert process.returncode == 141
