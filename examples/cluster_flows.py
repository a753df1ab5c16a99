"""One flow table of many hosts: each captures on a device of its own, a Dask cluster puts it together.

    pip install distributed
    sudo python examples/cluster_flows.py --hosts 3 --packets 10000

Without sudo it does the same in a user namespace.  The hosts are network namespaces of this machine.  In
each, ordinary sockets send a known number of packets into a TUN: UDP over IPv4 and IPv6, and attempts to
connect by TCP.  For each there is a Dask worker, which owns the TUN, makes columns of the batches that come,
and counts flows; what the workers have counted goes into one table on the cluster.  At the end that must say
what was sent, to the packet and to the byte.

docs/cluster.md tells how it works, and what changes on many machines.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import socket
import sys
import tempfile
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # only a process with one thread may enter a user namespace

from distributed import Client, LocalCluster, WorkerPlugin, get_worker

import tuntap
from tuntap import testing
from tuntap.flows import FIELDS, FlowTable, endpoints

SECONDS = 0.5  # that a worker captures for in one go
TCP, UDP = 6, 17
PORT = 9
UDP_FLOWS = 8  # of a host, for each version of IP
ATTEMPTS = 50  # to connect, for each version of IP; each is a flow
PAYLOADS = (0, 100, 1200)
IP_HEADER = {socket.AF_INET: 20, socket.AF_INET6: 40}
UDP_HEADER = 8
SYN_HEADER = 40  # with the options of Linux: segment size, SACK, time stamps, window scale
SHARED = ("192.0.2.1", 5000, "192.0.2.2")  # a flow that all hosts have


# --- on the cluster ---


class Device(WorkerPlugin):
    """Opens the TUN of a worker when that starts, and closes it at its end.

    `netns` are the namespaces by number of the worker; the worker itself stays where the cluster is.  `room`
    is how many packets may wait in the TUN between one `capture` and the next.
    """

    def __init__(self, netns, room):
        self.netns, self.room = netns, room

    def setup(self, worker):
        addresses = [f"10.0.{worker.name}.1/24", f"fd00:a{worker.name}::1/64", f"{SHARED[0]}/24"]
        netns = self.netns[worker.name]
        worker.tun = tuntap.Tun(addresses=addresses, netns=netns, tx_queue_len=self.room, quiet=True)

    def teardown(self, worker):
        worker.tun.close()


class Total:
    """The one flow table.  It lives on some worker; all others have a handle of it (a Dask actor)."""

    def __init__(self):
        self.table = FlowTable()

    def merge(self, table):
        self.table.merge(table)

    def size(self):
        return len(self.table), self.table.packets

    def get(self):
        return self.table


def capture(total):
    """Count what comes to the TUN of this worker for a while; how many packets."""
    tun = get_worker().tun
    batch, mine = tun.batch(256), FlowTable()
    deadline = time.monotonic() + SECONDS
    with contextlib.suppress(TimeoutError):
        while (left := deadline - time.monotonic()) > 0:
            tun.recv_batch(batch, timeout=left)
            mine.add(batch.columns(FIELDS))
    total.merge(mine).result()  # raises, unless it is counted now
    return mine.packets


# --- the traffic of a host ---


class Host:
    """A process in a network namespace of its own, which sends when it is told to."""

    def __init__(self, number, packets):
        context = multiprocessing.get_context("fork")
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=self.run, args=(other_end, number, packets), daemon=True)
        self.process.start()
        other_end.close()
        self.pipe.recv()
        self.netns = f"/proc/{self.process.pid}/ns/net"

    def run(self, pipe, number, packets):
        self.pipe.close()
        testing.private_network()
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            pipe.send("ready")
            pipe.recv()
            pipe.send(send_udp(number, packets) + send_syns(number))
            pipe.recv()

    def close(self):
        self.pipe.close()
        self.process.join()


def send_udp(host, packets):
    """Send datagrams of several flows in turn; each flow with how many packets and bytes those were."""
    with contextlib.ExitStack() as stack:
        flows = []
        for family, source, port, destination in [(socket.AF_INET, *SHARED), *ends_of(host) * UDP_FLOWS]:
            sender = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            sender.bind((source, port))
            sender.connect((destination, PORT))
            flows.append((sender, flow_of(UDP, sender, destination), [0, 0]))
        turns = itertools.islice(itertools.cycle(flows), packets)
        for (sender, _, counts), size in zip(turns, itertools.cycle(PAYLOADS), strict=False):
            sender.send(bytes(size))
            counts[0] += 1
            counts[1] += IP_HEADER[sender.family] + UDP_HEADER + size
        return [(flow, counts) for _, flow, counts in flows]


def send_syns(host):
    """Begin to connect, and leave it at that; each attempt is a flow of one packet."""
    flows = []
    for family, source, port, destination in ends_of(host) * ATTEMPTS:
        with socket.socket(family, socket.SOCK_STREAM) as sender:
            sender.bind((source, port))
            sender.setblocking(False)
            sender.connect_ex((destination, PORT))
            flows.append((flow_of(TCP, sender, destination), [1, IP_HEADER[family] + SYN_HEADER]))
    return flows


def ends_of(host):
    """An address of the kernel and one behind the TUN, for each version of IP, and a port: any."""
    return [
        (socket.AF_INET, f"10.0.{host}.1", 0, f"10.0.{host}.2"),
        (socket.AF_INET6, f"fd00:a{host}::1", 0, f"fd00:a{host}::2"),
    ]


def flow_of(protocol, sender, destination):
    """As `name_of` names it."""
    ends = (sender.getsockname()[:2], (destination, PORT))
    return protocol, *(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in ends)


# --- both together ---


def main():
    parser = argparse.ArgumentParser(description="One flow table of many hosts, by a Dask cluster.")
    parser.add_argument("--hosts", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--packets", type=int, default=10000, help="UDP packets of each host (default 10000)")
    args = parser.parse_args()

    testing.private_network()
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(contextlib.closing(Host(i, args.packets))) for i in range(args.hosts)]
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=args.hosts, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
                local_directory=directory,
            )
        )  # fmt: skip
        client = stack.enter_context(Client(cluster))
        client.register_plugin(Device([host.netns for host in hosts], args.packets + 2 * ATTEMPTS))
        expected, table = count(client, hosts)
    return tell(expected, table)


def count(client, hosts):
    """What the hosts have sent, by flow, and what the cluster has counted."""
    total = client.submit(Total, actor=True).result()
    expected = {}
    for host in hosts:
        host.pipe.send("go")
    is_sent, came = False, True
    while came or not is_sent:  # once all is sent, until there is no more
        is_sent = all(host.pipe.poll() for host in hosts)
        rounds = [client.submit(capture, total, workers=[i], pure=False) for i in range(len(hosts))]
        came = any(client.gather(rounds))
        print("{} flows, {} packets".format(*total.size().result()), flush=True)
    for flow, (packets, size) in itertools.chain.from_iterable(host.pipe.recv() for host in hosts):
        before = expected.get(flow, (0, 0))
        expected[flow] = (before[0] + packets, before[1] + size)
    return expected, total.get().result()


def tell(expected, table):
    """Print the largest flows, and whether all are as they were sent; the exit status."""
    rows = table.to_table()
    for row in rows[:5]:
        print("{:3} {} > {}: {} packets, {} bytes".format(*name_of(row), row["packets"], row["bytes"]))
    counted = {name_of(row): (int(row["packets"]), int(row["bytes"])) for row in rows}
    wrong = {flow for flow in expected.keys() | counted.keys() if expected.get(flow) != counted.get(flow)}
    for flow in sorted(wrong)[:5]:
        print(f"{flow}: sent {expected.get(flow)}, counted {counted.get(flow)}")
    sent = sum(packets for packets, _ in expected.values())
    print(f"sent {sent} packets in {len(expected)} flows; {len(wrong) or 'no'} flows differ")
    return bool(wrong)


def name_of(row):
    return (int(row["protocol"]), *endpoints(row))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
