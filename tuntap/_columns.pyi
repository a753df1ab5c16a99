from typing import Any

import numpy.typing as npt

from tuntap._core import Slots

FIELDS: tuple[tuple[str, str, int], ...]
ROW_SIZE: int
MARKS: dict[str, int]

class Plan:
    def __new__(cls, offsets: dict[str, int], itemsize: int = 0) -> Plan: ...

class ColumnMemory:
    @property
    def capacity(self) -> int: ...
    def __new__(cls, arrays: dict[str, npt.NDArray[Any]]) -> ColumnMemory: ...

def read_columns(batch: Slots, memory: ColumnMemory, symmetric: bool, seed: int) -> None: ...
def read_table(batch: Slots, array: npt.NDArray[Any], plan: Plan, symmetric: bool, seed: int) -> None: ...
