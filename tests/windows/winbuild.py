"""Builds the package for the Python of wine.py: its extensions, and what tests have in Cython, as .pyd."""

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pefile
from wine import VERSION, Unavailable, alone

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "elsewhere"))

import crossbuild
from crossbuild import ROOT

cross = crossbuild.cross()
TARGET = "x86_64-windows-gnu"
SUFFIX = ".cp{}{}-win_amd64.pyd".format(*VERSION)
FLAGS = ["-O2", *cross.WARNINGS, "-D_GNU_SOURCE=1"]
CORE = f"tuntap/_os/{cross.TARGETS[TARGET]}.pyx"
HARNESS = "tests/kernels/_harness.pyx"


def python_headers():
    """The include folder of a Python of this machine that has the version of the one for Windows."""
    if sys.version_info[:2] == VERSION:
        include = sysconfig.get_paths()["include"]
    else:
        name = "python{}.{}".format(*VERSION)
        question = "import sysconfig; print(sysconfig.get_paths()['include'])"
        try:
            done = subprocess.run([name, "-c", question], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            raise Unavailable(f"needs the headers of {name}, which is not here") from None
        include = done.stdout.strip()
    if not (Path(include) / "Python.h").exists():
        raise Unavailable(f"needs Python.h in {include}")
    return Path(include)


class Builder:
    """Compiles for the Python in the folder `python`, and keeps in `cache` what has not changed."""

    def __init__(self, python, cache):
        try:
            crossbuild.check()
        except crossbuild.Unavailable as reason:
            raise Unavailable(*reason.args) from None
        self.python = python
        self.cache = cache
        include = python_headers()
        self.tools = hashlib.sha256(
            repr([python, include, FLAGS, importlib.metadata.version("ziglang"), VERSION]).encode()
            + b"".join(
                (ROOT / path).read_bytes() for path in ("tools/windows/pyconfig.h", "tuntap/_kernels/simd.h")
            )
        )
        folder = cache / self.tools.hexdigest()[:16]
        with alone(folder):
            if not (folder / "python.lib").exists():
                shutil.rmtree(folder, ignore_errors=True)
                cross.windows_headers(include, folder / "include")
                self.make_library(folder / "python.lib")
        self.headers = [f"-I{ROOT / 'tuntap/_kernels'}", f"-I{folder / 'include'}"]
        self.library = folder / "python.lib"

    def make_library(self, library):
        dll = self.python / "python{}{}.dll".format(*VERSION)
        image = pefile.PE(dll, fast_load=True)
        image.parse_data_directories(pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_EXPORT"])
        names = {symbol.name.decode() for symbol in image.DIRECTORY_ENTRY_EXPORT.symbols if symbol.name}
        cross.import_library(TARGET, dll.name, names, library)

    def kept(self, suffix, command, *inputs):
        """The file that a zig command line makes, unless one was made of the same."""
        digest = self.tools.copy()
        digest.update(repr(command).encode())
        for path in inputs:
            digest.update(Path(path).read_bytes())
        target = self.cache / f"{digest.hexdigest()[:24]}{suffix}"
        with alone(target):
            if not target.exists():
                unfinished = target.with_name(f"{target.stem}.unfinished{suffix}")
                crossbuild.zig("-target", TARGET, *command, "-o", unfinished, *inputs)
                unfinished.rename(target)
        return target

    def compiled(self, source):
        """An object file, from C."""
        return self.kept(".o", ["-c", *FLAGS, *self.headers], source)

    def dll(self, source):
        """A library of its own, from C."""
        return self.kept(".dll", ["-shared", *FLAGS], source)

    def extension(self, source, *others):
        """A .pyd from a Cython source and object files, whose functions come before those of the system."""
        libraries = cross.of_setup("LIBRARIES")["windows"] if source == CORE else []
        translated = crossbuild.translate(source, self.cache)
        inputs = [self.compiled(translated), *others, self.library]
        return self.kept(".pyd", ["-shared", *(f"-l{name}" for name in libraries)], *inputs)

    def package(self, folder, *others):
        """The package, in `folder`; `others` are object files for its core."""
        names = shutil.ignore_patterns("*.so", "*.pyd", "*.pyx", "*.h", "__pycache__")
        shutil.copytree(ROOT / "tuntap", folder / "tuntap", ignore=names)
        for source in [*cross.EVERYWHERE, CORE]:
            stem = folder / ("tuntap/_os/native" if source == CORE else source.removesuffix(".pyx"))
            shutil.copyfile(self.extension(source, *(others if source == CORE else ())), f"{stem}{SUFFIX}")
        return folder

    def harness(self, folder):
        """What the tests of the kernels have in Cython, in `folder`."""
        shutil.copyfile(self.extension(HARNESS), folder / f"{Path(HARNESS).stem}{SUFFIX}")
