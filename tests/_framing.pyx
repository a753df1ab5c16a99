"""Puts a device where only some systems have one: at a descriptor that yields BPF records.

Each packet that is written to the other end of a socket pair is then what one read yields.
"""
from tuntap._core cimport Port
from tuntap._os.native cimport FRAMING_BPF, PATH_RECV


def receive_records(Port port not None, int timestamp_size, int alignment, int buffer):
    """For an adopted descriptor, before the first receive; packets are sent as before."""
    port.handle.framing[PATH_RECV] = FRAMING_BPF
    port.handle.record_timestamp = timestamp_size
    port.handle.record_alignment = alignment
    port.handle.record_buffer = buffer
    port.use_records()
