"""The parts of `tuntap demo`; the whole is in test_cli."""

import io
import re
import sys
import threading
import time

import pytest

import tuntap
from tuntap import testing
from tuntap._cli import demo, traffic
from tuntap._cli.meter import Meter


def test_a_phase_that_fails_is_told():
    class Broken(traffic.MemoryTraffic):
        def flood(self, stop):
            raise OSError("no flood today")

    device, other = testing.pair()
    with device, other:
        lines, worked = demo.show_phases(device, Broken(other), 0.8)
    assert not worked
    assert "receive  failed: no flood today" in lines
    assert any(line.startswith("tcp") and "failed" not in line for line in lines)


def test_damage_is_noticed(monkeypatch):
    def swap_and_damage(batch, count):
        batch.data[:count, 100] ^= 1

    monkeypatch.setattr(demo, "swap_addresses", swap_and_damage)
    device, other = testing.pair()
    with device, other, pytest.raises(OSError, match="arrived damaged"):
        demo.show_reflecting(device, traffic.MemoryTraffic(other), 0.1)


def test_swap_addresses_keeps_checksums():
    batch = tuntap.PacketBatch(4, 1500)
    batch.fill(
        [testing.tcp("10.0.0.1", "10.0.0.2", 1, 2, b"there"), testing.udp("10.0.0.3", "10.0.0.4", 1, 2)]
    )
    demo.swap_addresses(batch, 2)
    assert batch[0].tobytes() == testing.tcp("10.0.0.2", "10.0.0.1", 1, 2, b"there")
    assert batch[1].tobytes() == testing.udp("10.0.0.4", "10.0.0.3", 1, 2)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("5 packets transmitted, 4 received, 20% packet loss, time 801ms\n"
         "rtt min/avg/max/mdev = 0.1/0.2/0.3/0.050 ms\n",
         "5 sent, 4 received, rtt min/avg/max 0.1/0.2/0.3 ms"),
        ("3 packets transmitted, 3 packets received, 0% packet loss\n"
         "round-trip min/avg/max = 0.083/0.084/0.086 ms\n",
         "3 sent, 3 received, rtt min/avg/max 0.083/0.084/0.086 ms"),
        ("2 packets transmitted, 0 received, 100% packet loss, time 9ms\n", "2 sent, 0 received"),
        ("ping: socket: Operation not permitted\n", "ping said: ping: socket: Operation not permitted"),
        ("", "ping said: nothing"),
    ],
)  # fmt: skip
def test_read_ping(text, result):
    assert traffic.read_ping(text) == result


def test_ping_is_not_installed(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert traffic.KernelTraffic().ping(1, threading.Event()) == "the program ping is not installed"


def test_meter_updates_one_line_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    with Meter("receive") as meter:
        for _ in range(3):
            time.sleep(0.12)
            meter.add(1000, 125_000)
    shown = screen.getvalue()
    assert "\n" not in shown
    assert shown.count("\r  receive ") == 3
    assert max(map(len, shown.split("\r"))) <= 79
    assert shown.endswith(" \r")
    assert re.fullmatch(r"[\d,]+ packets/s, [\d.]+ Gbit/s, [\d.]+ us of CPU per packet", str(meter))
    assert meter.bytes == 375_000
    assert 5000 < meter.packets / meter.seconds < 3000 / 0.36 + 1
