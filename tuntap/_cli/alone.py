"""Runs a module of this package as a process of its own: it may change its network, we may not.

An ordinary user enters a private network through a user namespace, and the kernel lets only a
process with a single thread do that; numpy starts threads when it is imported, unless told not to.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_PATIENCE = 5.0  # seconds a process that was told to end may take


def _command(module: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _environment() -> dict[str, str]:
    """Ours, with one thread, and the modules found where we found them."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    return {**os.environ, **_ONE_THREAD, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def output_of(module: str, arguments: Sequence[str] = (), *, timeout: float) -> str:
    """What the module prints.

    Raises
    ------
    OSError
        It could not be started, or failed; the message is the last line of what it said.
    subprocess.TimeoutExpired
        It took longer than `timeout` seconds, and was killed.
    """
    done = subprocess.run(
        _command(module, arguments), env=_environment(), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, errors="replace", timeout=timeout,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise OSError(said[-1])
    return done.stdout


def call(module: str, arguments: Sequence[str]) -> int:
    """Run the module on our terminal until it ends; its exit status.

    Raises
    ------
    OSError
        It could not be started.
    KeyboardInterrupt
        We were told to end; so was the module, and it has ended.
    """
    with subprocess.Popen(_command(module, arguments), env=_environment()) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
