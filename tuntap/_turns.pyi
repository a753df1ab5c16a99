from asyncio import AbstractEventLoop
from collections.abc import Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

from tuntap._core import Port

class Source(Protocol):
    def fileno(self) -> int: ...

_T = TypeVar("_T")

def has_share() -> bool: ...

class Call(Generic[_T]):
    def __new__(
        cls,
        port: Port,
        path: int,
        source: Source,
        timeout: float | None,
        attempt: Callable[..., _T | None],
        arguments: tuple[object, ...],
    ) -> Call[_T]: ...
    def __await__(self) -> Generator[Any, None, _T]: ...

class AsyncioWaits:
    def __new__(cls, port: Port, loop: AbstractEventLoop) -> AsyncioWaits: ...
    def wake_soon(self) -> None: ...
    def release(self) -> None: ...
    def forget(self) -> None: ...
