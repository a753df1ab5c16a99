"""Features of an interface, as ethtool(8) shows and sets them (linux/ethtool.h)."""

import ctypes
import fcntl
import socket
import struct

SIOCETHTOOL = 0x8946
GSTRINGS, GSSET_INFO, GFEATURES, SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
FEATURES = 4  # the set of strings


def _ask(name, request):
    memory = ctypes.create_string_buffer(request, len(request))
    with socket.socket() as control:
        fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sQ16x", name.encode(), ctypes.addressof(memory)))
    return memory.raw


def _names(name):
    (count,) = struct.unpack_from("I", _ask(name, struct.pack("IIQI", GSSET_INFO, 0, 1 << FEATURES, 0)), 16)
    strings = _ask(name, struct.pack("III", GSTRINGS, FEATURES, count) + bytes(32 * count))[12:]
    return [strings[i : i + 32].rstrip(b"\0").decode() for i in range(0, 32 * count, 32)]


def features(name):
    """The names of those that are on."""
    names = _names(name)
    blocks = -(-len(names) // 32)
    answer = _ask(name, struct.pack("II", GFEATURES, blocks) + bytes(16 * blocks))
    active = [struct.unpack_from("IIII", answer, 8 + 16 * block)[2] for block in range(blocks)]
    return {feature for i, feature in enumerate(names) if active[i // 32] >> i % 32 & 1}


def switch_on(name, feature):
    names = _names(name)
    block, bit = divmod(names.index(feature), 32)
    request = bytearray(struct.pack("II", SFEATURES, -(-len(names) // 32)) + bytes(-(-len(names) // 32) * 8))
    struct.pack_into("II", request, 8 + 8 * block, 1 << bit, 1 << bit)
    _ask(name, bytes(request))
