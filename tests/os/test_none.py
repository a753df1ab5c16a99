"""The core for systems without one of their own, built and run here: it adopts, and says no to the rest."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import tuntap

SOURCE = Path(tuntap.__file__).with_name("_os") / "none.pyx"

PROGRAM = """
import os, socket, threading
import pytest, tuntap
from tuntap import UnsupportedError, _core, testing

with pytest.raises(UnsupportedError, match="from_fd"):
    tuntap.Tun()
with pytest.raises(UnsupportedError):
    tuntap.interfaces()
with pytest.raises(UnsupportedError):
    tuntap.features()
with pytest.raises(UnsupportedError):
    testing.private_network()
with pytest.raises(UnsupportedError):
    tuntap.Tun(persist=True)
assert _core.capabilities() == frozenset()

one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
with tuntap.Tun.from_fd(one.fileno(), owned=False) as device:
    packet = testing.udp("10.0.0.1", "10.0.0.2", 1, 2, b"adopted")
    assert device.send(packet) == len(packet)
    assert other.recv(100) == packet
    other.send(packet)
    batch = device.batch(4)
    assert device.recv_batch(batch, timeout=1) == 1
    assert bytes(batch[0]) == packet
    batch.fill([packet + bytes([i]) for i in range(4)])
    assert device.send_batch(batch, where=[3, 1]) == 2
    assert [other.recv(100)[-1] for _ in range(2)] == [3, 1]
    with pytest.raises(TimeoutError):
        device.recv(timeout=0.01)
    threading.Timer(0.05, device.interrupt).start()
    with pytest.raises(tuntap.InterruptError):
        device.recv(timeout=5)
    with pytest.raises(UnsupportedError):
        device.mtu
    with pytest.raises(UnsupportedError):
        device.up()
    assert device.capabilities == frozenset()
assert one.send(b"still ours") == 10

near, far = testing.pair()
with near, far:
    near.send(packet)
    assert far.recv() == packet

if hasattr(os, "fork"):
    reader, writer = os.pipe()
    with tuntap.Tun.from_fd(reader) as device:
        os.write(writer, packet)
        assert device.recv(timeout=1) == packet
    os.close(writer)
print("as it should be")
"""


@pytest.mark.skipif(not SOURCE.exists(), reason="needs the source tree")
def test_an_unknown_system_adopts_and_says_what_it_cannot(tmp_path):
    package = tmp_path / "tuntap"
    shutil.copytree(SOURCE.parent.parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    (package / "_os" / f"native{suffix}").unlink()
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    translate = [sys.executable, "-m", "cython", "-3", "--module-name", "tuntap._os.native"]
    subprocess.run(
        [*translate, "-o", "native.c", package / "_os" / "none.pyx"],
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    compiler = sysconfig.get_config_var("CC").split()
    include = sysconfig.get_paths()["include"]
    command = [*compiler, "-shared", "-fPIC", "-O0", f"-I{include}", "native.c"]
    target = package / "_os" / f"native{suffix}"
    subprocess.run([*command, "-o", target], check=True, cwd=tmp_path, env=environment)

    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout == "as it should be\n", run.stderr
