"""A kernel that answers otherwise, or later: a seccomp filter asks us about some calls of a thread."""

import ctypes
import errno
import fcntl
import os
import platform
import select
import struct
import threading

import numpy as np

from tuntap.offload import HEADER

PR_SET_NO_NEW_PRIVS = 38
SECCOMP, WRITEV, POLL = {"x86_64": (317, 20, 7), "aarch64": (277, 66, 73)}.get(
    platform.machine(), (None, None, None)
)  # the C library's poll() is ppoll(2) where there is no other
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER = 1, 8
SECCOMP_RET_USER_NOTIF, SECCOMP_RET_ALLOW = 0x7FC00000, 0x7FFF0000
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101
FLAG_CONTINUE = 1
BPF_LD_NR, BPF_JEQ, BPF_RET = 0x20, 0x15, 0x06


def _ask_about(call):
    """Install the filter in this thread, for the rest of its life; the descriptor that asks."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = struct.pack(
        "HBBI" * 4,
        *(BPF_LD_NR, 0, 0, 0),
        *(BPF_JEQ, 0, 1, call),
        *(BPF_RET, 0, 0, SECCOMP_RET_USER_NOTIF),
        *(BPF_RET, 0, 0, SECCOMP_RET_ALLOW),
    )
    instructions = ctypes.create_string_buffer(program, len(program))
    request = ctypes.create_string_buffer(struct.pack("H6xQ", 4, ctypes.addressof(instructions)), 16)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    fd = libc.syscall(SECCOMP, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, request)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return fd


def run(function, answer, call=WRITEV):
    """Run a function in a thread; `answer(header)` says how each write ends: an errno, or as ever (0).

    It is asked before the kernel does anything.  About another call than writev it is asked without a header.
    """
    outcome = {}
    installed = threading.Event()

    def body():
        try:
            outcome["fd"] = _ask_about(call)
            installed.set()
            outcome["value"] = function()
        except BaseException as error:
            outcome["error"] = error
        finally:
            installed.set()

    thread = threading.Thread(target=body)
    thread.start()
    installed.wait()
    if "fd" in outcome:
        try:
            _serve(outcome["fd"], answer, call)
        finally:
            os.close(outcome["fd"])
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def _header(question):
    """The virtio-net header that a writev begins with."""
    (parts,) = struct.unpack_from("Q", question, 16 + 16 + 8)
    (base,) = struct.unpack("Q", ctypes.string_at(parts, 8))
    return np.frombuffer(ctypes.string_at(base, HEADER.itemsize), HEADER)[0]


def _serve(fd, answer, call):
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while True:
        ((_, events),) = poller.poll()
        if events & select.POLLHUP:
            return  # the thread is gone
        question = bytearray(80)
        fcntl.ioctl(fd, NOTIF_RECV, question)
        (number,) = struct.unpack_from("Q", question)
        try:
            error = answer(_header(question)) if call == WRITEV else answer()
        except BaseException:
            error = errno.EPROTO
        fcntl.ioctl(
            fd, NOTIF_SEND, struct.pack("QqiI", number, 0, -error, 0 if error else FLAG_CONTINUE)
        )  # fmt: skip
