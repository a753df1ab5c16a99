"""Runs a module of this package as a process of its own: it may change its network, we may not.

An ordinary user enters a private network through a user namespace, and the kernel lets only a
process with a single thread do that; numpy starts threads when it is imported, unless told not to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

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


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM raise KeyboardInterrupt, and none after it.

    Ctrl-C reaches every process on the terminal, and a parent passes it on: the second signal must
    not disturb what the first one lets a program finish.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def end(signum: int, frame: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = True
            raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
