"""A thread for tests of calls that block."""

import contextlib
import os
import threading
import time

PATIENCE = 10.0


class CallThread(threading.Thread):
    """Runs a function and keeps what came of it and when."""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self.function, self.arguments = function, arguments
        self.result = self.error = self.ended = None
        self.start()

    def run(self):
        try:
            self.result = self.function(*self.arguments)
        except BaseException as error:
            self.error = error
        self.ended = time.monotonic()

    def wait_until_blocked(self):
        """Until the thread sleeps in the kernel each time one looks."""
        if not os.path.exists("/proc/self/task"):  # elsewhere one cannot look
            self.join(0.2)
            assert self.is_alive(), f"ended before it blocked: {self.error or self.result!r}"
            return self
        seen = 0
        deadline = time.monotonic() + PATIENCE
        while seen < 3:
            assert self.is_alive(), f"ended before it blocked: {self.error or self.result!r}"
            assert time.monotonic() < deadline, "never blocked"
            time.sleep(0.004)
            with contextlib.suppress(OSError), open(f"/proc/self/task/{self.native_id}/stat") as file:
                seen = seen + 1 if file.read().rpartition(")")[2].split()[0] == "S" else 0
        return self
