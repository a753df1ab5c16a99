"""The suite in a Python for Windows, under Wine: what needs no device, and tests/windows.

The package is built twice.  In tests/windows its core calls fake_*.c instead of Windows, where those have a
function, and finds a wintun.dll beside the tests.
"""

import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "tests/windows"
sys.path.insert(0, str(OURS))

# Modules that need no device, and no devices in memory for most of what they test.
KERNELS = ["bpf", "checksum", "cursor", "gro", "gso", "pcap", "twins", "virtio"]
OTHERS = [
    "batch",
    "bpf",
    "capture",
    "cli",
    "config",
    "demo",
    "describe",
    "errors",
    "event",
    "offload",
    "testing",
]
PORTABLE = [f"tests/kernels/test_{name}.py" for name in KERNELS]
PORTABLE += [f"tests/test_{name}.py" for name in OTHERS]
WINDOWS = [f"tests/windows/{path.name}" for path in sorted(OURS.glob("test_*.py"))]


class Windows:
    """The package and its tests, built in `folder`, and what became of the tests."""

    def __init__(self, wine, python, builder, folder):
        self.wine, self.python, self.folder = wine, python, folder
        self.reports = {}
        generated = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
        shutil.copytree(ROOT / "tests", folder / "tests", ignore=generated)
        shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
        builder.package(folder / "real")
        builder.harness(folder / "tests/kernels")
        fakes = [path for path in sorted(OURS.glob("fake_*.c")) if path.name != "fake_wintun.c"]
        builder.package(folder / "faked", *map(builder.compiled, fakes))
        wintun = OURS / "fake_wintun.c"
        if wintun.exists():
            shutil.copyfile(builder.dll(wintun), folder / "tests/windows/wintun.dll")

    def run(self, modules, package):
        """Run test modules in one process; what it printed, and the cases of its report."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [self.python / "python.exe", "-m", "pytest", "-v", "--no-header", "-p", "no:cacheprovider"]
        command += ["-p", "wine_lacks", f"--junit-xml={report.name}", *modules]
        places = f"{package};tests/windows"
        _, output = self.wine.run(command, timeout=300, cwd=self.folder, PYTHONPATH=places)
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
        return output, cases

    def outcomes(self, module):
        """The tests of a module: how many passed, how many were skipped, and the others in full."""
        group, package = (tuple(PORTABLE), "real") if module in PORTABLE else ((module,), "faked")
        if group not in self.reports:
            self.reports[group] = self.run(group, package)
        output, cases = self.reports[group]
        name = module.removesuffix(".py").replace("/", ".")
        own = [case for case in cases if f"{case.get('classname')}.".startswith(f"{name}.")]
        if not own:  # Python crashed, hung, or could not import it
            return 0, 0, [output[-8000:]]
        wrong = [
            f"{case.get('name')}: {problem.text}"
            for case in own
            for kind in ("failure", "error")
            for problem in case.iter(kind)
        ]
        skipped = sum(case.find("skipped") is not None for case in own)
        return len(own) - skipped - len(wrong), skipped, wrong


@pytest.fixture(scope="module")
def windows(request, tmp_path_factory):
    import wine

    try:
        wine.check()
        import winbuild

        python = wine.python(wine.CACHE)
        builder = winbuild.Builder(python, wine.CACHE / "objects")
    except (wine.Unavailable, ImportError) as reason:
        give_up = pytest.fail if request.config.getoption("--require-wine") else pytest.skip
        give_up(f"no Windows to run in: {reason}")
    with wine.Wine(wine.CACHE) as running:
        yield Windows(running, python, builder, tmp_path_factory.mktemp("windows"))


@pytest.mark.parametrize("module", [*PORTABLE, *WINDOWS])
def test_module(windows, module):
    passed, skipped, wrong = windows.outcomes(module)
    print(f"{module}: {passed} passed, {skipped} skipped")
    assert not wrong, "\n".join(wrong)[:20_000]
    assert passed
