"""Children of a process with threads, for tests."""

import contextlib
import os
import signal
import warnings

import pytest


@contextlib.contextmanager
def many_threads_may_fork():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork with threads
        yield


def fork(function):
    """Run the function in a child; its process id.  A hanging child is killed by its own alarm."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    with many_threads_may_fork():
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(8)
            function()  # faulthandler's own thread stayed in the parent
            status = 0
        except BaseException as error:
            os.write(2, f"child: {error!r}\n".encode())
        finally:
            os._exit(status)
    return pid


def reap(pid):
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status != -signal.SIGALRM, "the child hung"
    assert status == 0
    return status
