"""Two hosts with one link between them, and that link is a relay: a program with a TUN on either side.

The hosts are network namespaces below the private network of the benchmark.  Nothing else connects
them, so what arrives went through the relay.  They end with this process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

NAME = "relay0"
MTU = 1500
QUEUE = 1000  # packets the kernel keeps for a relay before it drops
ADDRESSES = ("10.97.0.1", "10.97.0.2")
PATIENCE = 20.0  # seconds for anything that takes none
ATTEMPTS = 3  # at a measurement, before a loss on the way ends the benchmark
DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL"]

Measured = TypeVar("Measured")


class RelayError(RuntimeError):
    """A relay died, or moved nothing."""


@dataclasses.dataclass(frozen=True)
class Relay:
    """A program that relays: the command, to which the namespaces and the name are appended."""

    name: str
    command: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What one iperf3 run moved, and what the relay spent on it."""

    seconds: float
    bytes: int
    relay_cpu: float  # seconds, user and system


@contextlib.contextmanager
def hosts() -> Iterator[list[str]]:
    """Paths of two network namespaces."""
    with contextlib.ExitStack() as stack:
        spaces = []
        for _ in range(2):
            # A namespace lives as long as a process is in it; cat ends with its input.
            holder = stack.enter_context(
                subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            stack.callback(holder.kill)
            holder.stdin.write(b"ready\n")
            holder.stdin.flush()
            if holder.stdout.readline() != b"ready\n":
                raise RuntimeError("no network namespace could be made")
            spaces.append(f"/proc/{holder.pid}/ns/net")
            # Or the kernel looks for routers, through a relay that is not up yet.
            enter = [*inside(spaces[-1]), "tee", "/proc/sys/net/ipv6/conf/default/disable_ipv6"]
            subprocess.run(enter, input=b"1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield spaces


def inside(netns: str) -> list[str]:
    return ["nsenter", f"--net={netns}"]


class Link:
    """A running relay between two hosts."""

    def __init__(self, relay: Relay, spaces: list[str]) -> None:
        self.relay = relay
        self._spaces = spaces
        self._process = subprocess.Popen(
            [*DIE_WITH_US, *relay.command, *spaces, NAME],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @classmethod
    @contextlib.contextmanager
    def between(cls, spaces: list[str], relay: Relay) -> Iterator[Link]:
        """Start the relay, give its interfaces addresses, and stop it afterwards."""
        link = cls(relay, spaces)
        try:
            link._bring_up()
            yield link
            link._require_alive()
        finally:
            link._process.kill()
            link._process.communicate()

    def _bring_up(self) -> None:
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise RelayError(f"{self.relay.name} did not get ready")
        if self._process.stdout.readline() != "ready\n":
            self._require_alive()
        # The MTU and the queue first: the kernel makes its queue when the interface comes up.
        for space, address in zip(self._spaces, ADDRESSES, strict=True):
            settings = (
                f"link set {NAME} mtu {MTU} txqueuelen {QUEUE}\n"
                f"address add {address}/24 dev {NAME}\n"
                f"link set {NAME} up\n"
            )
            subprocess.run([*inside(space), "ip", "-batch", "-"], input=settings, text=True, check=True)

    def _require_alive(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that stopped relaying may still be about to die.
            self._process.wait(0.01)
            raise RelayError(f"{self.relay.name} died: {self._process.stderr.read().strip()}")

    def cpu(self) -> float:
        """Seconds of CPU the relay has used, in user and kernel mode, threads that ended included."""
        # CPUCLOCK_SCHED of another process: man clock_getcpuclockid; /proc/PID/stat counts in 10 ms.
        return time.clock_gettime(~self._process.pid << 3 | 2)

    def peak_memory(self) -> int:
        """Bytes of resident memory the relay has had at most."""
        return peak_memory(self._process.pid)

    def transfer(self, seconds: float, flows: int = 1) -> Transfer:
        """TCP from the first host to the second, as fast as it goes."""
        server = subprocess.Popen(
            [*DIE_WITH_US, *inside(self._spaces[1]), "iperf3", "--server", "--one-off", "--forceflush"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            while "listening" not in server.stdout.readline():
                if server.poll() is not None:
                    raise RuntimeError("the iperf3 server did not start")
            before = self.cpu()
            client = subprocess.run(
                [*inside(self._spaces[0]), "iperf3", "--client", ADDRESSES[1], "--time", f"{seconds:g}",
                 "--parallel", str(flows), "--connect-timeout", "5000", "--json"],
                stdout=subprocess.PIPE, text=True, timeout=seconds + PATIENCE,
            )  # fmt: skip
            self._require_alive()
            cpu = self.cpu() - before
        except subprocess.TimeoutExpired:
            self._require_alive()
            raise RelayError(f"{self.relay.name}: iperf3 did not end") from None
        finally:
            server.send_signal(signal.SIGKILL)
            server.communicate()
        report = json.loads(client.stdout)
        if client.returncode or "error" in report:
            raise RelayError(f"{self.relay.name}: iperf3: {report.get('error', client.returncode)}")
        received = report["end"]["sum_received"]
        if received["bytes"] < 1e6:
            raise RelayError(f"{self.relay.name}: {received['bytes']} bytes arrived")
        return Transfer(received["seconds"], received["bytes"], cpu)

    def round_trips(self, count: int, interval: float) -> list[float]:
        """Seconds of each ping from the first host to the second, on an otherwise idle link."""
        ping = subprocess.run(
            [*inside(self._spaces[0]), "ping", "-n", "-D", "-c", str(count), "-i", f"{interval:g}",
             "-W", "1", ADDRESSES[1]],
            stdout=subprocess.PIPE, text=True, timeout=count * interval + PATIENCE,
        )  # fmt: skip
        self._require_alive()
        times = [float(line.split("time=")[1].split()[0]) / 1e3 for line in ping.stdout.splitlines()
                 if "time=" in line]  # fmt: skip
        if len(times) != count:
            raise RelayError(f"{self.relay.name}: {len(times)} of {count} pings came back")
        return times


def attempt(measure: Callable[..., Measured], *args: float) -> Measured:
    """What `measure` returns when no packet is lost on the way: a relay may drop now and then."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(RelayError):
            return measure(*args)
    return measure(*args)


def peak_memory(pid: int) -> int:
    """Bytes of resident memory a process has had at most (VmHWM)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")
