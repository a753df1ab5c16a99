from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import numpy.typing as npt

from tuntap._core import Port, Readable, Slots, Writable

_T = TypeVar("_T")

class Source(Protocol):
    def fileno(self) -> int: ...

def running_trio() -> Any: ...  # noqa: ANN401
def call(
    port: Port,
    path: int,
    timeout: float | None,
    attempt: Callable[..., _T | None],
    *arguments: object,
    source: Source | None = None,
) -> Coroutine[Any, Any, _T]: ...

class AsyncCalls:
    def recv(self, timeout: float | None = None) -> Coroutine[Any, Any, bytes]: ...
    def recv_into(self, buffer: Writable, timeout: float | None = None) -> Coroutine[Any, Any, int]: ...
    def recv_vectored(
        self, buffers: Sequence[Writable], timeout: float | None = None
    ) -> Coroutine[Any, Any, int]: ...
    def recv_batch(self, batch: Slots, timeout: float | None = None) -> Coroutine[Any, Any, int]: ...
    def send(self, packet: Readable, timeout: float | None = None) -> Coroutine[Any, Any, int]: ...
    def send_vectored(
        self, buffers: Sequence[Readable], timeout: float | None = None
    ) -> Coroutine[Any, Any, int]: ...
    def send_batch(
        self,
        batch: Slots,
        timeout: float | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        where: npt.ArrayLike | None = None,
    ) -> Coroutine[Any, Any, int]: ...
    def _send_now(self, packet: Readable) -> int: ...
