"""``where=``: what part of a batch is meant, and that exactly this goes, from where it lies."""

import numpy as np
import pytest

from tuntap._batch import selection

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, ">i4", ">u8"]


class TestSelection:
    """How a caller's array becomes numbers of packets."""

    @pytest.mark.parametrize(
        ("where", "chosen"),
        [
            ([True, False, True, True], [0, 2, 3]),
            ([False] * 4, []),
            ([True] * 4, [0, 1, 2, 3]),
            ((False, True, False, False), [1]),
            ([3, 0, 0, 2, 3], [3, 0, 0, 2, 3]),
            (range(1, 4), [1, 2, 3]),
            ([], []),
            ((), []),
            (np.empty(0, np.uint8), []),
            (memoryview(b"\x01\x03"), [1, 3]),
            (np.arange(8)[::-2] // 2, [3, 2, 1, 0]),
            (np.array([1, 0, 9, 0, 0, 0, 1, 0], np.uint8)[::2].astype(bool), [0, 1, 3]),
            (np.array([2, 0, 255, 1], np.uint8).view(bool), [0, 2, 3]),
            (np.array([[True, False]] * 4)[:, 0], [0, 1, 2, 3]),
        ],
    )
    def test_what_is_meant(self, where, chosen):
        found = selection(where, 4)
        assert found.dtype == np.int32
        assert found.flags.c_contiguous
        assert found.tolist() == chosen

    @pytest.mark.parametrize("dtype", INTEGERS)
    def test_integers_of_every_kind(self, dtype):
        assert selection(np.array([3, 0, 3], dtype), 4).tolist() == [3, 0, 3]
        with pytest.raises(IndexError, match="packet 4 of a batch that holds 4"):
            selection(np.array([3, 4], dtype), 4)
        with pytest.raises(IndexError, match=str(np.iinfo(dtype).max)):
            selection(np.array([np.iinfo(dtype).max], dtype), 4)

    @pytest.mark.parametrize("dtype", [kind for kind in INTEGERS if np.dtype(kind).kind == "i"])
    @pytest.mark.parametrize("negative", [-1, -4, -5, -128])
    def test_no_packet_is_counted_from_the_end(self, dtype, negative):
        with pytest.raises(IndexError, match=f"packet {negative} "):
            selection(np.array([0, negative], dtype), 4)

    @pytest.mark.parametrize("count", [0, 3, 5])
    def test_a_mask_of_another_batch(self, count):
        with pytest.raises(ValueError, match=f"mask of 4 packets, but the batch holds {count}"):
            selection([True] * 4, count)

    @pytest.mark.parametrize("where", [3, True, np.int32(1), [[0, 1]], np.ones((4, 1), bool), [[True] * 4]])
    def test_wrong_shapes(self, where):
        with pytest.raises(ValueError, match="1 dimension"):
            selection(where, 4)

    @pytest.mark.parametrize(
        "where",
        [
            [0.0], np.ones(4), np.empty(0), 1.0, "0", ["0"], b"\0", [None], [2**70], slice(2), {0, 1},
            object(), np.array([0], "m8[s]"), np.array([0], complex), np.zeros(4, [("a", bool)]),
        ],
    )  # fmt: skip
    def test_wrong_types(self, where):
        with pytest.raises(TypeError, match="bool or of int"):
            selection(where, 4)

    def test_more_than_a_call_can_count(self):
        with pytest.raises(ValueError, match="at most"):
            selection(np.broadcast_to(np.int8(0), 2**31), 4)

    @pytest.mark.parametrize("where", [np.array([True, False]), np.array([1, 0], np.int32), np.array([1, 0])])
    def test_is_a_copy(self, where):
        found = selection(where, 2)
        before = found.copy()
        where[:] = 1 - where.astype(int)
        assert (found == before).all()
        assert not np.shares_memory(found, where)
