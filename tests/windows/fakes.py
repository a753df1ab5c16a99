"""Builds the libraries of drivers that tests put in their place."""

import subprocess
import sys
from pathlib import Path

FLAGS = ["-shared", "-g0", "-O2", "-Wall", "-Wextra", "-Werror"]


def build_wintun(folder: Path, target="x86_64-windows-gnu") -> Path:
    """fake_wintun.c as `folder`/wintun.dll."""
    library = folder / "wintun.dll"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS]
    source = Path(__file__).with_name("fake_wintun.c")
    done = subprocess.run([*command, "-o", library, source], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{source.name} for {target}:\n{done.stderr}")
    return library
