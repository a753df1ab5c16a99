"""The code in the README is true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tuntap
from tuntap import cli, testing

README = Path(__file__).parent.parent / "README.md"
OFFLOAD = README.parent / "docs" / "offload.md"


def test_the_first_example_runs(net):
    [block] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    # Somebody has to send what it receives.
    sender = (
        "import socket, time\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for _ in range(500):\n"
        "    try: s.sendto(b'x', ('10.0.0.2', 9))\n"
        "    except OSError: pass\n"
        "    time.sleep(0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", sender])
    try:
        scope: dict[str, object] = {}
        exec(block, scope)
    finally:
        process.kill()
        process.wait()
    assert isinstance(scope["n"], int)
    assert scope["n"] >= 1
    assert tuntap.interfaces() == []


@pytest.mark.parametrize("command", re.findall(r"^    tuntap (\w+)", README.read_text(), re.MULTILINE))
def test_each_command_of_the_readme_exists(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize("number", range(3))
def test_the_examples_of_offload_run(net, number):
    blocks = re.findall(r"```python\n(.*?)```", OFFLOAD.read_text(), re.DOTALL)
    assert len(blocks) == 3
    packet = testing.udp("10.0.2.2", "10.0.2.1", 7, 9, b"x")
    # The router solicitation of the new interface is what it receives.
    exec(blocks[number], {"tuntap": tuntap, "packet": packet})
    assert tuntap.interfaces() == []


def test_every_file_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert links
    for link in links:
        assert (README.parent / link).exists(), link
