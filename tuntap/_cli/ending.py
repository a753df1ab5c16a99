"""How a command ends: signals, errors and a closed pipe become an exit status."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_FAILED = 1
_INTERRUPTED = 130  # as a shell reports a program that SIGINT ended
_BROKEN_PIPE = 141  # and one that SIGPIPE ended


def exit_status(run: Callable[[], int]) -> int:
    """Run a command; what it returns, or what its end means.  Errors are printed, not raised."""
    try:
        with ended_by_signals():
            status = run()
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read our output has enough; Python must not try to flush the rest at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (OSError, ValueError) as error:
        print(f"tuntap: {_message(error)}", file=sys.stderr)
        return _FAILED


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


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
