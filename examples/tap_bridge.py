"""A learning switch between TAPs.

    sudo ip netns add blue
    sudo python examples/tap_bridge.py red0 blue0@blue
    sudo ip address add 10.7.0.1/24 dev red0
    sudo ip -n blue address add 10.7.0.2/24 dev blue0
    ping 10.7.0.2

Makes a TAP for each NAME or NAME@NETNS.  A frame goes to the port behind which its destination was last
seen; to all others if that is not known, or if it is for many.  One task for each port.
"""

import argparse
import asyncio
import contextlib
import time

import tuntap
from tuntap import aio

MAX_AGE = 300.0  # seconds after which a station that is silent is forgotten
MAX_STATIONS = 4096


class MacTable:
    """Behind which port each station is."""

    def __init__(self):
        self.stations = {}  # {MAC: (port, when it was seen last)}

    def learn(self, mac, port):
        if mac[0] & 1:
            return  # for many: not of a station
        now = time.monotonic()
        if len(self.stations) >= MAX_STATIONS and mac not in self.stations:
            self.stations = {m: seen for m, seen in self.stations.items() if now - seen[1] < MAX_AGE}
        if len(self.stations) < MAX_STATIONS or mac in self.stations:
            self.stations[mac] = port, now

    def find(self, mac):
        """The port, or None."""
        port, seen = self.stations.get(mac, (None, 0.0))
        return port if time.monotonic() - seen < MAX_AGE else None


def main():
    parser = argparse.ArgumentParser(description="A learning switch between TAPs.")
    parser.add_argument("ports", nargs="+", metavar="NAME[@NETNS]", help="of a TAP, and where to make it")
    args = parser.parse_args()
    asyncio.run(bridge(args.ports))


async def bridge(names):
    async with contextlib.AsyncExitStack() as stack:
        ports = []
        for text in names:
            name, _, netns = text.partition("@")
            ports.append(await stack.enter_async_context(aio.Tap(name, netns=netns or None)))
        table = MacTable()
        async with asyncio.TaskGroup() as tasks:
            for port in ports:
                tasks.create_task(serve(port, ports, table))
            print(f"a switch with ports {', '.join(port.name for port in ports)}", flush=True)


async def serve(port, ports, table):
    """Pass on what comes in at one port."""
    batch = port.batch(64)
    while True:
        await port.recv_batch(batch)
        for frame in batch:
            destination, source = frame[:6].tobytes(), frame[6:12].tobytes()
            table.learn(source, port)
            known = table.find(destination)
            for out in ports if known is None else [known]:
                if out is not port:
                    # Dropped if that port is down.
                    with contextlib.suppress(tuntap.LinkDownError):
                        await out.send(frame)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
