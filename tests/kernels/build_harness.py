"""Builds and imports what tests have in Cython: the harness (_harness.pyx) makes every kernel callable."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tuntap

HARNESS = Path(__file__).with_name("_harness.pyx")

# In a process of its own: setuptools changes the working directory, warns, and replaces parts of distutils.
BUILD = """
import os, sys
from Cython.Build import cythonize
from setuptools import Extension, setup

name, source, include, target = sys.argv[1:]
sanitize = os.environ.get("TUNTAP_SANITIZE", "")
flags = [] if sys.platform == "win32" else ["-O1", "-g"]
link = []
if sanitize:
    # Python is built with -fwrapv, under which an overflow is not undefined and is not reported.
    flags += ["-fno-wrapv", f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    flags += ["-fno-sanitize-recover=undefined"]
    link = [f"-fsanitize={sanitize}"]
extension = Extension(name, [source], extra_compile_args=flags, extra_link_args=link)
setup(
    script_args=["-q", "build_ext", "--build-lib", target, "--build-temp", target],
    ext_modules=cythonize(
        extension, build_dir=target, include_path=[include], quiet=True,
        compiler_directives={"language_level": 3, "freethreading_compatible": True},
    ),
)
"""


def load(source=HARNESS):
    """A module, built against the installed package; RuntimeError with what the tools said.

    Where there is no compiler it lies beside its source, from another system.
    """
    for built in source.parent.glob(f"{source.stem}.*.pyd"):
        return module_of(built)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as target:
        # A sanitizer of ours is not to be loaded into the compiler.
        environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        include = str(Path(tuntap.__file__).resolve().parent.parent)
        run = subprocess.run(
            [sys.executable, "-c", BUILD, source.stem, str(source), include, target],
            env=environment, cwd=target, capture_output=True, text=True,
        )  # fmt: skip
        built = [path for path in Path(target).iterdir() if path.suffix in (".so", ".pyd")]
        if run.returncode or not built:
            raise RuntimeError(f"{source.name} cannot be built:\n{run.stdout}{run.stderr}")
        return module_of(built[0])


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem.split(".")[0], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
