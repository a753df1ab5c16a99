"""cursor.pxd against struct: in range the same value, out of range zero, nothing written, `failed`."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

FORMATS = {1: "B", 2: "H", 4: "I"}
SIZE_MAX = 2 ** (8 * struct.calcsize("N")) - 1
FAR = [SIZE_MAX - i for i in range(9)] + [SIZE_MAX // 2 + i for i in range(-4, 5)] + [2**31, 2**32 - 1]

offsets = st.integers(0, 80) | st.integers(SIZE_MAX - 80, SIZE_MAX) | st.integers(0, SIZE_MAX)


def slow_read(width, data, offset, is_little=False):
    try:
        return *struct.unpack_from("><"[is_little] + FORMATS[width], data, offset), False
    except (struct.error, IndexError, OverflowError):
        return 0, True


def slow_write(width, data, offset, value, is_little=False):
    copy = bytearray(data)
    try:
        struct.pack_into("><"[is_little] + FORMATS[width], copy, offset, value)
    except (struct.error, IndexError, OverflowError):
        return data, True
    return bytes(copy), False


@pytest.mark.parametrize("width", FORMATS)
def test_every_offset(harness, width):
    value = 0x81C3E7FF & (1 << 8 * width) - 1
    for size in range(10):
        data = bytes(range(0xF0, 0xF0 + size))
        for offset in [*range(size + 6), *FAR]:
            for is_little in (False, True):
                found = harness.read(width, data, offset, is_little=is_little)
                assert found == slow_read(width, data, offset, is_little), (size, offset)
                for guard in (0, 16):
                    written = harness.write(width, data, offset, value, guard, is_little)
                    assert written == (*slow_write(width, data, offset, value, is_little), True), (
                        size,
                        offset,
                    )


def test_span(harness):
    for size in range(10):
        for offset in [*range(size + 3), *FAR]:
            for length in [*range(size + 3), *FAR]:
                fits = offset + length <= size
                expected = (offset if fits else None, not fits)
                assert harness.span(bytes(size), offset, length) == expected, (size, offset, length)


@pytest.mark.parametrize("width", FORMATS)
def test_failed_stays_set(harness, width):
    assert harness.read(width, b"\1\2\3\4", 0, failed=True) == (*slow_read(width, b"\1\2\3\4", 0)[:1], True)


@given(
    data=st.binary(max_size=64), offset=offsets, width=st.sampled_from(list(FORMATS)), is_little=st.booleans()
)
def test_read(harness, data, offset, width, is_little):
    found = harness.read(width, data, offset, is_little=is_little)
    assert found == slow_read(width, data, offset, is_little)


@given(
    data=st.binary(max_size=64), offset=offsets, width=st.sampled_from(list(FORMATS)),
    value=st.integers(0, 2**32 - 1), guard=st.sampled_from([0, 16]), is_little=st.booleans(),
)  # fmt: skip
def test_write(harness, data, offset, width, value, guard, is_little):
    value &= (1 << 8 * width) - 1
    written = harness.write(width, data, offset, value, guard, is_little)
    assert written == (*slow_write(width, data, offset, value, is_little), True)


@given(data=st.binary(max_size=64), offset=offsets, length=offsets)
def test_any_span(harness, data, offset, length):
    fits = offset + length <= len(data)
    assert harness.span(data, offset, length) == (offset if fits else None, not fits)
