"""The programs we are measured beside: built here, from their registries, and how each is told to relay.

Sources are in the folder `peers`, what is built in `build`.  A peer whose compiler is missing is left out,
and named.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec

HERE = pathlib.Path(__file__).parent
SOURCES = HERE / "peers"
BUILT = HERE / "build"


@dataclasses.dataclass(frozen=True)
class Peer:
    """A program that relays: `relay MODE NETNS NETNS NAME`."""

    name: str
    relay: tuple[str, ...]
    pump: tuple[str, ...] = ()
    """Moves packets when it is told to: `pump NAME`; see peers/tun-rs/src/bin/pump.rs."""


def build() -> dict[str, Peer]:
    """Every peer there can be here, by name."""
    BUILT.mkdir(exist_ok=True)
    found = [_ours("tuntap"), _ours("os.read, os.write"), *_ours_async(), _c()]
    found += [*_tun_rs(), *_wireguard_go()]
    if find_spec("pytun"):
        found.append(_ours("python-pytun"))
    else:
        _leave_out("python-pytun", "not installed")
    return {peer.name: peer for peer in found}


def versions() -> dict[str, str]:
    """Of the peers that are no Python packages, and of what made them."""
    lock = (SOURCES / "tun-rs/Cargo.lock").read_text()
    module = (SOURCES / "wireguard-go/go.mod").read_text()
    asked = {"rustc": ["rustc", "--version"], "go": ["go", "version"], "iperf3": ["iperf3", "--version"]}
    answers = {
        name: subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]
        for name, command in asked.items()
        if shutil.which(command[0])
    }
    return {
        "tun-rs": re.search(r'name = "tun-rs"\nversion = "(.+?)"', lock)[1],
        "wireguard-go": re.search(r"zx2c4.com/wireguard (\S+)", module)[1],
        **answers,
    }


def _ours(name: str) -> Peer:
    """The Python program knows three ways."""
    return Peer(name, (sys.executable, str(SOURCES / "python/relay.py"), name))


def _ours_async() -> list[Peer]:
    """Its asynchronous relay, by the loop that runs it."""
    program = (sys.executable, str(SOURCES / "python/relay_async.py"))
    loops = ["asyncio", "two-loops"]
    for loop in ("uvloop", "trio"):
        if find_spec(loop):
            loops.append(loop)
        else:
            _leave_out(loop, "not installed")
    return [Peer(f"tuntap, {loop}", (*program, loop)) for loop in loops]


def _c() -> Peer:
    target = BUILT / "relay-c"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    _run("the C relay", [*compiler, "-O2", "-pthread", "-o", target, SOURCES / "c/relay.c"])
    return Peer("C", (str(target),))


def _tun_rs() -> list[Peer]:
    if not shutil.which("cargo"):
        return _leave_out("tun-rs", "there is no cargo")
    folder = BUILT / "tun-rs"
    manifest = SOURCES / "tun-rs/Cargo.toml"
    _run("tun-rs", ["cargo", "build", "--release", "--quiet", "--locked", "--manifest-path", manifest,
                    "--target-dir", folder])  # fmt: skip
    programs = folder / "release"
    return [
        Peer("tun-rs", (str(programs / "relay"),), (str(programs / "pump"),)),
        Peer("tun-rs, tokio", (str(programs / "relay_tokio"),)),
    ]


def _wireguard_go() -> list[Peer]:
    if not shutil.which("go"):
        return _leave_out("wireguard-go", "there is no go")
    target = BUILT / "wireguard-go"
    _run("wireguard-go", ["go", "build", "-o", target, "."], cwd=SOURCES / "wireguard-go")
    return [Peer("wireguard-go", (str(target),), (str(target), "pump"))]


def _run(what: str, command: list, **options: object) -> None:
    print(f"building {what}", flush=True)
    subprocess.run(command, check=True, **options)


def _leave_out(name: str, why: str) -> list[Peer]:
    print(f"{name} is left out: {why}", flush=True)
    return []
