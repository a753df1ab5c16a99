"""A plugin of pytest, for Python under Wine 8: what modules that the tests import use, and Wine has not."""

import ctypes
import types

import trio._core._io_windows
from trio._core._windows_cffi import ffi

# scapy looks it up when it is imported, and calls it for Kerberos.
ctypes.windll.secur32.SspiGetTargetHostName = types.SimpleNamespace()


def underlying_socket(sock, **_):
    """Of a socket that nothing is layered on, as all are here; trio asks Windows (SIO_BASE_HANDLE)."""
    return ffi.cast("HANDLE", sock if isinstance(sock, int) else sock.fileno())


trio._core._io_windows._get_underlying_socket = underlying_socket
