"""`tuntap plot`: the numbers that it draws, and the picture."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tuntap
from tuntap import cli
from tuntap._cli import plot
from tuntap.capture import Writer

PNG, PDF = b"\x89PNG\r\n\x1a\n", b"%PDF-"
START = 1_700_000_000 * 10**9


@pytest.fixture(scope="session")
def fonts():
    """Whose files matplotlib keeps open."""
    module = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed here")
    figure = module.Figure()
    figure.suptitle("$x^2$")
    figure.subplots().set(xscale="log", title="title")
    figure.savefig(io.BytesIO())


@pytest.fixture
def figure(fonts, monkeypatch):
    """The figure that is drawn last."""
    from matplotlib import figure as module

    made = []

    class Figure(module.Figure):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(module, "Figure", Figure)
    return lambda: made[-1]


def capture(path, sizes, times, **options):
    batch = tuntap.PacketBatch(max(len(sizes), 1), 2000)
    batch.fill([b"E" + bytes(size - 1) for size in sizes])
    with Writer(path, **options) as writer:
        writer.write(batch, np.asarray(times, np.int64))
    return str(path)


def heights(axes):
    return [int(patch.get_height()) for patch in axes.patches]


def test_a_picture_of_three_panels(tmp_path, figure, capsys):
    times = START + np.array([0, 1000, 1000, 1_000_000, 2_000_000_000])
    path = capture(tmp_path / "a.pcapng", [100, 100, 100, 1400, 1400], times, snap_length=64)
    target = tmp_path / "picture.png"
    assert cli.main(["plot", path, "-o", str(target)]) == 0
    assert capsys.readouterr().err == f"written to {target}\n"
    assert target.read_bytes().startswith(PNG)
    throughput, sizes, distances = figure().axes
    assert f"{path}: 5 packets, 3,100 bytes in 2 s, 12.4 kbit/s" == figure()._suptitle.get_text()
    assert [axes.get_title() for axes in figure().axes] == [
        "Throughput", "Packet sizes", "Inter-arrival times"
    ]  # fmt: skip
    assert throughput.get_ylabel() == "bit/s"
    assert throughput.get_xlabel() == "seconds since the first packet, in steps of 10 ms"
    values, edges, _ = throughput.patches[0].get_data()
    assert (values[0], values[200]) == (1700 * 8 / 0.01, 1400 * 8 / 0.01)
    assert np.count_nonzero(values) == 2
    assert edges[-1] == pytest.approx(2.01)
    assert sorted(filter(None, heights(sizes))) == [2, 3]
    assert (sizes.get_xlabel(), sizes.get_ylabel()) == ("bytes", "packets")
    assert sum(heights(distances)) == 3
    assert distances.get_xlabel() == "seconds, besides 1 of 0"
    assert distances.get_xscale() == "log"
    [median, most] = [text.get_text() for text in sizes.get_legend().get_texts()]
    assert (median, most) == ("50 % are up to 100 bytes", "99 % are up to 1,400 bytes")


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize(
    ("sizes", "times"),
    [
        ([1], [START]), ([1, 1500], [START] * 2), ([1] * 3, [0, 0, 0]), ([5, 5], [0, START]),
        ([5, 5], [START + 1, START]), ([5, 5], [1, 2**62]), ([20] * 100, np.arange(100) ** 5 + 1),
    ],
)  # fmt: skip
def test_whatever_there_is_can_be_drawn(tmp_path, figure, sizes, times):
    path = capture(tmp_path / "$a$ \\frac_^{\u4e2d.pcapng", sizes, times)
    assert cli.main(["plot", path, "-o", str(tmp_path / "a.png")]) == 0
    _, packet_sizes, _ = figure().axes
    assert sum(heights(packet_sizes)) == len(sizes)


def test_where_the_picture_goes(tmp_path, figure, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captures").mkdir()
    path = capture(tmp_path / "captures" / "a.b.pcapng", [100] * 2, [START, START + 5])
    assert cli.main(["plot", path]) == 0
    assert (tmp_path / "a.b.png").read_bytes().startswith(PNG)
    assert cli.main(["plot", path, "-o", "a.pdf"]) == 0
    assert (tmp_path / "a.pdf").read_bytes().startswith(PDF)
    with open(path, "rb") as file:
        command = [sys.executable, "-W", "error", "-m", "tuntap", "plot", "-"]
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "written to capture.png\n")
    assert (tmp_path / "capture.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("empty", [], "there is no packet in it"),
        ("missing", [], "No such file or directory"),
        ("damaged", [], "the capture ends at byte"),
        ("good", ["-o", "a.xyz"], "Format 'xyz' is not supported"),
        ("good", ["-o", "/nonexistent/a.png"], "No such file or directory"),
    ],
)
def test_what_cannot_be_drawn_is_said(tmp_path, figure, capsys, monkeypatch, name, arguments, message):
    monkeypatch.chdir(tmp_path)
    capture("good", [100], [START])
    capture("empty", [], [])
    (tmp_path / "damaged").write_bytes((tmp_path / "good").read_bytes()[:-3])
    assert cli.main(["plot", name, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tuntap: ")
    assert message in error
    assert not list(tmp_path.glob("*.png"))


def test_without_matplotlib_it_is_said_what_to_install(tmp_path):
    path = capture(tmp_path / "a.pcap", [100], [START])
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "tuntap", "plot", path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "tuntap: this takes matplotlib: pip install 'tuntap[plot]'\n"


@given(st.lists(st.tuples(st.integers(0, 10**13), st.integers(1, 2**32)), min_size=2, max_size=50))
def test_the_throughput_has_all_bits(packets):
    packets = np.array(sorted(packets), np.int64)
    times, sizes = packets[:, 0] + START, packets[:, 1]
    edges, rates = plot.throughput_of(times, sizes)
    step = edges[1]
    assert len(edges) == len(rates) + 1 <= 203
    assert (rates * step).sum() == pytest.approx(8 * sizes.sum())
    assert edges[-1] >= (times[-1] - times[0]) / 1e9


def test_packets_are_taken_in_the_order_of_their_times(tmp_path):
    path = capture(tmp_path / "a.pcapng", [10, 20, 30, 40], [START + 2, 0, START + 1, START + 3])
    times, sizes = plot.read(path)
    assert (times - START).tolist() == [1, 1, 2, 3]  # one without a time came with the first
    assert sorted(sizes[:2]) == [20, 30]
    assert sizes[2:].tolist() == [10, 40]


def test_times_may_be_as_far_apart_as_can_be():
    edges, rates = plot.throughput_of(np.array([-(2**63), 2**63 - 1]), np.array([1, 1]))
    assert np.count_nonzero(rates) == 2
    assert edges[-1] >= 2**64 / 1e9


@given(st.floats(1e-12, 1e12))
def test_steps_are_round(least):
    step = plot.round_step(least)
    assert step >= least
    assert step <= max(least, 1e-6) * 2.5000001
    assert f"{step:e}"[0] in "125"
    assert set(f"{step:.6e}"[2:8]) == {"0"}
