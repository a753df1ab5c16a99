"""Programs that tests run beside ours."""

import contextlib
import faulthandler
import shutil

import pytest


def program(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"the program {name} is not installed")
    return path


@contextlib.contextmanager
def watchdog(seconds):
    """A program that hangs ends the run instead of blocking it."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
