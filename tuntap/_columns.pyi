from typing import Any

import numpy as np
import numpy.typing as npt

from tuntap._core import Slots

FIELDS: tuple[tuple[str, str, int], ...]
ROW_SIZE: int
MARKS: dict[str, int]
UPDATABLE: dict[str, int]
BUILDABLE: set[str]

class Plan:
    def __new__(cls, offsets: dict[str, int], itemsize: int = 0) -> Plan: ...

class ColumnMemory:
    @property
    def capacity(self) -> int: ...
    def __new__(cls, arrays: dict[str, npt.NDArray[Any]], rows: int = -1) -> ColumnMemory: ...

def read_columns(batch: Slots, count: int, memory: ColumnMemory, symmetric: bool, seed: int) -> None: ...
def read_table(
    batch: Slots, count: int, array: npt.NDArray[Any], plan: Plan, symmetric: bool, seed: int
) -> None: ...
def fix_batch(batch: Slots, chosen: bytes | None) -> int: ...
def update_batch(batch: Slots, memory: ColumnMemory, fields: int, chosen: bytes | None) -> int: ...
def build_batch(
    batch: Slots, memory: ColumnMemory, payload: npt.NDArray[np.uint8] | None, has_tag: bool
) -> int: ...
