"""virtio.pxd against struct and against the numpy dtype of the public header."""

import errno
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuntap.offload import HEADER

LAYOUT = struct.Struct("=BBHHHH")  # struct virtio_net_hdr, linux/virtio_net.h
UNTOUCHED = LAYOUT.unpack(b"\xa5" * 10)
# linux/virtio_net.h
CONSTANTS = {
    "VIRTIO_HEADER_SIZE": 10,
    "VIRTIO_F_NEEDS_CSUM": 1,
    "VIRTIO_F_DATA_VALID": 2,
    "VIRTIO_GSO_NONE": 0,
    "VIRTIO_GSO_TCPV4": 1,
    "VIRTIO_GSO_UDP": 3,
    "VIRTIO_GSO_TCPV6": 4,
    "VIRTIO_GSO_UDP_L4": 5,
    "VIRTIO_GSO_ECN": 0x80,
}
byte, word = st.integers(0, 255), st.integers(0, 65535)
fields = st.tuples(byte, byte, word, word, word, word)


def test_constants(harness):
    assert harness.VIRTIO_CONSTANTS == CONSTANTS


def test_constants_are_those_of_the_header():
    path = Path("/usr/include/linux/virtio_net.h")
    if not path.exists():
        pytest.skip(f"there is no {path} to compare with")
    text = path.read_text()
    for name, value in CONSTANTS.items():
        found = re.findall(rf"#define {name.replace('VIRTIO_', 'VIRTIO_NET_HDR_')}\s+(\w+)", text)
        # The size is in no header, and UDP_L4 came with Linux 6.2.
        assert [int(number, 0) for number in found] == [value] or name in (
            "VIRTIO_HEADER_SIZE", "VIRTIO_GSO_UDP_L4",
        ), name  # fmt: skip


def test_dtype_is_the_layout():
    assert HEADER.itemsize == LAYOUT.size == 10
    assert [HEADER.fields[name][1] for name in HEADER.names] == [0, 1, 2, 4, 6, 8]


def test_too_short(harness):
    for size in range(10):
        data = bytes(range(size))
        assert harness.virtio_decode(data) == (-errno.EINVAL, UNTOUCHED)
        for guard in (0, 16):
            assert harness.virtio_encode(data, (1, 2, 3, 4, 5, 6), guard) == (-errno.EINVAL, data, True)


@given(data=st.binary(min_size=10, max_size=30))
def test_decode(harness, data):
    result, decoded = harness.virtio_decode(data)
    assert result == 0
    assert decoded == LAYOUT.unpack_from(data)
    assert decoded == np.frombuffer(data, HEADER, 1)[0].item()


@given(fields=fields, data=st.binary(min_size=10, max_size=30), guard=st.sampled_from([0, 16]))
def test_encode(harness, fields, data, guard):
    encoded = np.array(fields, HEADER).tobytes()
    assert encoded == LAYOUT.pack(*fields)
    assert harness.virtio_encode(data, fields, guard) == (0, encoded + data[10:], True)
    assert harness.virtio_decode(encoded) == (0, fields)
