"""Memory for arrays that others are to share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

#: Bytes, at a multiple of which an array begins: Arrow recommends it, and JAX copies what begins elsewhere.
ALIGNMENT = 64


def allocate(shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
    """`numpy.zeros`, aligned."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT - 1, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
