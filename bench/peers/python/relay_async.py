"""Packets from one TUN to another with tuntap.aio: a task for each direction, as relay.py has a thread.

    relay_async.py LOOP MODE NETNS NETNS NAME

opens an interface of that name in each network namespace, says "ready" and relays until it is killed.
LOOP is asyncio, uvloop or trio, with both tasks in one loop, or two-loops: asyncio in two threads, a task in
each.  MODE is plain or offload.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable

from relay import BATCH, TUNTAP

from tuntap import aio


async def relay(source: aio.Tun, sink: aio.Tun) -> None:
    batch = source.batch(BATCH)
    while True:
        await source.recv_batch(batch)
        await sink.send_batch(batch)


async def in_asyncio(a: aio.Tun, b: aio.Tun) -> None:
    print("ready", flush=True)
    await asyncio.gather(relay(a, b), relay(b, a))


async def in_trio(a: aio.Tun, b: aio.Tun) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, a, b)
        nursery.start_soon(relay, b, a)
        print("ready", flush=True)


def in_two_loops(a: aio.Tun, b: aio.Tun) -> None:
    threading.Thread(target=run, args=[asyncio.run, relay(b, a)], daemon=True).start()
    print("ready", flush=True)
    asyncio.run(relay(a, b))


def run(function: Callable, *arguments: object) -> None:
    """Either direction that ends ends the program."""
    try:
        function(*arguments)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def main() -> None:
    loop, mode, *spaces, name = sys.argv[1:]
    a, b = (aio.Tun(name, netns=space, up=False, **TUNTAP[mode]) for space in spaces)
    if loop == "asyncio":
        run(asyncio.run, in_asyncio(a, b))
    elif loop == "uvloop":
        import uvloop

        run(uvloop.run, in_asyncio(a, b))
    elif loop == "trio":
        import trio

        run(trio.run, in_trio, a, b)
    else:
        run(in_two_loops, a, b)


if __name__ == "__main__":
    main()
