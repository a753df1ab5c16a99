"""The code in the README and in the pages of docs/ is true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tuntap
from tuntap import cli, testing

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


PAGES = [path for path in sorted(DOCS.glob("*.md")) if python_blocks(path)]


@pytest.fixture
def traffic(net):
    """Somebody has to send what the examples receive."""
    sender = (
        "import socket, time\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for _ in range(3000):\n"
        "    try: s.sendto(b'x', ('10.0.0.2', 9))\n"
        "    except OSError: pass\n"
        "    time.sleep(0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", sender])
    yield
    process.kill()
    process.wait()


def test_the_first_example_runs(traffic):
    [block] = python_blocks(README)
    scope: dict[str, object] = {}
    exec(block, scope)
    assert isinstance(scope["n"], int)
    assert scope["n"] >= 1
    assert tuntap.interfaces() == []


@pytest.mark.parametrize("command", re.findall(r"^    tuntap (\w+)", README.read_text(), re.MULTILINE))
def test_each_command_of_the_readme_exists(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert command in capsys.readouterr().out


def test_the_pages_with_examples_are_found():
    assert {"async", "events", "framed", "offload", "threads"} <= {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run_in_their_order(traffic, page):
    packet = testing.udp("10.0.2.2", "10.0.2.1", 7, 9, b"x")
    scope = {"tuntap": tuntap, "packet": packet}
    for block in python_blocks(page):
        # What an example receives is the traffic, or the router solicitation of its new interface.
        exec(block, scope)
        assert tuntap.interfaces() == []


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_every_file_a_page_links_to_exists(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_readme_links_to_every_page():
    links = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert {f"docs/{page.name}" for page in DOCS.glob("*.md")} <= set(links)
