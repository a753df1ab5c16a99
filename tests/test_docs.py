"""The code in the README and in the pages of docs/ is true."""

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tuntap
from tuntap import cli, testing

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


EVERY_PAGE = sorted(DOCS.rglob("*.md"))
PAGES = [path for path in EVERY_PAGE if python_blocks(path)]
OPTIONAL = {"interchange": ["pyarrow", "pandas", "polars"], "pipelines": ["sklearn"]}


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
    block, _ = python_blocks(README)
    scope: dict[str, object] = {}
    exec(block, scope)
    assert isinstance(scope["n"], int)
    assert scope["n"] >= 1
    assert tuntap.interfaces() == []


def test_the_second_example_sends_what_it_selects():
    _, block = python_blocks(README)
    batch = tuntap.PacketBatch(4, 1500)
    batch.fill([testing.udp("10.0.0.1", "10.0.0.2", 5000, port, b"x") for port in (53, 54, 53)])
    other, far_end = testing.pair()
    with other, far_end:
        exec(block, {"batch": batch, "other": other})
        received = [far_end.recv(timeout=5) for _ in range(2)]
        assert [packet[8] for packet in received] == [63, 63]
        with pytest.raises(TimeoutError):
            far_end.recv(timeout=0)


@pytest.mark.parametrize("command", re.findall(r"^    tuntap (\w+)", README.read_text(), re.MULTILINE))
def test_each_command_of_the_readme_exists(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert command in capsys.readouterr().out


def test_the_pages_with_examples_are_found():
    wanted = {"async", "batches", "capture", "events", "framed", "interchange", "ios", "offload", "pipelines"}
    assert wanted | {"threads"} <= {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run_in_their_order(traffic, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for library in OPTIONAL.get(page.stem, ()):
        pytest.importorskip(library, reason=f"{library} is not installed here")
    packet = testing.udp("10.0.2.2", "10.0.2.1", 7, 9, b"x")
    scope = {"tuntap": tuntap, "packet": packet}
    for block in python_blocks(page):
        # What an example receives is the traffic, or the router solicitation of its new interface.
        exec(block, scope)
        assert tuntap.interfaces() == []
    if page.stem == "pipelines":  # its model has to find what it is there for
        assert scope["caught"] > 0.9
        assert scope["false_alarms"] < 0.2


def test_the_tunnel_of_the_ios_page_carries_packets_until_it_is_stopped():
    [block] = python_blocks(DOCS / "platforms/ios.md")
    scope = {}
    exec(block, scope)
    packet = testing.udp("10.0.0.2", "10.0.0.1", 7, 9, b"x")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.settimeout(5)
        for _ in range(2):  # the system starts it again in the same process
            thread = threading.Thread(target=scope["run"], args=(theirs.fileno(),))
            thread.start()
            ours.send(packet)
            assert ours.recv(100) == packet
            scope["stop"]()
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.parametrize("page", [README, *EVERY_PAGE], ids=lambda page: page.name)
def test_every_file_a_page_links_to_exists(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_readme_links_to_every_page():
    links = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert {str(page.relative_to(README.parent)) for page in EVERY_PAGE} <= set(links)
