"""The public checksum and the virtio-net header, against slow twins."""

import array
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tuntap import offload, testing
from tuntap.offload import HEADER, checksum


class TestChecksum:
    def test_every_length_and_alignment(self):
        data = np.random.default_rng(1).integers(0, 256, 2100, np.uint8).tobytes()
        for start in range(4):
            for size in (*range(130), *range(1400, 1420), 2047, 2048, 2049):
                piece = data[start : start + size]
                assert checksum(memoryview(data)[start : start + size]) == testing.checksum(piece), (
                    start,
                    size,
                )

    @given(st.binary(max_size=3000), st.integers(0, 2**64 - 1))
    @settings(max_examples=200, deadline=None)
    @example(b"", 0)
    @example(b"", 2**64 - 1)
    @example(b"\xff" * 3000, 2**64 - 1)
    @example(b"\xff", 0xFFFF)
    @example(b"\0" * 8, 0xFFFF0000)
    def test_agrees_with_the_slow_one(self, data, initial):
        assert checksum(data, initial) == testing.checksum(data, initial)

    @pytest.mark.parametrize("size", [65535, 65536, 1 << 20, (1 << 22) + 1])
    def test_long_data_of_ones(self, size):
        """Where a sum of 32 bits would overflow."""
        data = b"\xff" * size
        expected = 0 if size % 2 == 0 else 0xFFFF ^ 0xFF00
        assert checksum(data) == expected

    def test_a_megabyte_of_noise(self):
        data = np.random.default_rng(2).integers(0, 256, 1_000_001, np.uint8)
        words = np.concatenate([data, np.zeros(1, np.uint8)]).view(">u2")
        total = int(words.astype(np.uint64).sum())
        while total >> 16:
            total = (total >> 16) + (total & 0xFFFF)
        assert checksum(data) == total ^ 0xFFFF

    @given(st.binary(min_size=2, max_size=200))
    @settings(max_examples=100, deadline=None)
    def test_data_that_holds_its_checksum_sums_to_zero(self, data):
        data = data[: len(data) // 2 * 2]
        assert checksum(data + checksum(data).to_bytes(2, "big")) == 0

    def test_a_real_header(self):
        packet = testing.udp("192.0.2.1", "198.51.100.7", 1, 2, b"odd")
        assert checksum(packet[:20]) == 0
        pseudo = packet[12:20] + struct.pack("!HH", 17, len(packet) - 20)
        assert checksum(packet[20:], checksum(pseudo) ^ 0xFFFF) == 0

    def test_every_kind_of_buffer(self):
        data = bytes(range(100))
        expected = testing.checksum(data)
        for kind in (
            bytearray,
            memoryview,
            lambda d: np.frombuffer(d, np.uint8),
            lambda d: array.array("B", d),
        ):
            assert checksum(kind(data)) == expected
        assert checksum(np.frombuffer(data, np.uint32)) == expected
        assert checksum(np.frombuffer(data, np.uint8).reshape(10, 10)) == expected

    @pytest.mark.parametrize("bad", [None, "text", 5, 1.5, [1, 2], object()])
    def test_what_is_no_buffer(self, bad):
        with pytest.raises(TypeError):
            checksum(bad)

    def test_a_strided_view(self):
        for bad in (memoryview(b"abcdef")[::2], np.zeros((4, 4), np.uint8).T):
            with pytest.raises(ValueError):
                checksum(bad)

    @pytest.mark.parametrize("initial", [-1, 2**64, 2**100, -(2**70)])
    def test_an_initial_sum_out_of_range(self, initial):
        with pytest.raises(ValueError):
            checksum(b"x", initial)

    @pytest.mark.parametrize("initial", [None, "1", 1.5, [1]])
    def test_an_initial_sum_of_a_wrong_type(self, initial):
        with pytest.raises(TypeError):
            checksum(b"x", initial)

    def test_lets_go_of_its_buffer(self):
        data = bytearray(10)
        checksum(data)
        data.append(1)


class TestHeader:
    def test_is_struct_virtio_net_hdr(self):
        assert HEADER.itemsize == 10
        assert HEADER.names == ("flags", "gso_type", "hdr_len", "gso_size", "csum_start", "csum_offset")
        assert [HEADER.fields[name][1] for name in HEADER.names] == [0, 1, 2, 4, 6, 8]
        assert [HEADER.fields[name][0].str for name in HEADER.names[2:]] == [np.dtype(np.uint16).str] * 4

    def test_reads_what_a_kernel_wrote(self):
        """A header of a TCP super-packet as Linux gives it (little-endian)."""
        raw = bytes.fromhex("01013400a80514001000")
        header = np.frombuffer(raw, HEADER.newbyteorder("<"))[0]
        assert header.tolist() == (1, 1, 52, 1448, 20, 16)
        assert np.array(header.tolist(), HEADER).tobytes() == struct.pack("=BBHHHH", 1, 1, 52, 1448, 20, 16)

    def test_public_names(self):
        assert {"HEADER", "checksum"} <= set(offload.__all__)
        assert all(hasattr(offload, name) for name in offload.__all__)
