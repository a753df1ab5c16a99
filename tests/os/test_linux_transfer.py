"""Much data through a relay of two devices, in each mode: what arrives is what was sent."""

import contextlib
import hashlib
import os
import random
import socket
import subprocess
import threading
import time

import pytest

import tuntap

TCP_BYTES = 300_000_000
UDP_BYTES = 60_000_000
BLOCK = random.Random(1).randbytes(1 << 20)
MODES = {
    "plain": {},
    "split": {"offload": True},
    "superpackets": {"offload": "superpackets"},
    "unchecked": {"offload": True, "checksums": False},
    "queues": {"offload": True, "queues": 2},
    "small batches": {"offload": True},
}
CAPACITY = {"small batches": 5, "superpackets": 8}
ADDRESSES = {socket.AF_INET: "10.0.0.{}", socket.AF_INET6: "fd00::{}"}
UDP_SEGMENT = 103  # linux/udp.h


@pytest.fixture
def third_netns(net):
    process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    path = f"/proc/{process.pid}/ns/net"
    while os.readlink(path) == os.readlink("/proc/self/ns/net"):
        time.sleep(0.005)
    yield path
    process.kill()
    process.wait()


@pytest.fixture
def relay(other_netns, third_netns, enter_netns, local_route):
    """Two namespaces with a relay between them in some mode; answers their paths."""
    with contextlib.ExitStack() as stack:

        def start(mode):
            devices = []
            for i, path in enumerate((other_netns, third_netns)):
                addresses = [f"10.0.0.{i + 1}/24", f"fd00::{i + 1}/64"]
                device = tuntap.Tun(
                    f"relay{i}", netns=path, addresses=addresses, quiet=True, tx_queue_len=2000, **MODES[mode]
                )
                devices.append(stack.enter_context(device))
                enter_netns(path, lambda i=i: local_route(f"fd00::{i + 1}"))
            threads = []
            for source, target in (devices, devices[::-1]):
                for one, other in zip(source.queues, target.queues, strict=True):
                    arguments = one, other, CAPACITY.get(mode, 64), failures
                    threads.append(threading.Thread(target=shovel, args=arguments))
                    threads[-1].start()
            stack.callback(lambda: [thread.join() for thread in threads])
            for device in devices:
                stack.callback(device.shutdown)
            return other_netns, third_netns

        failures = []
        yield start
    assert not failures


def shovel(source, target, capacity, failures):
    batch = source.batch(capacity)
    try:
        while True:
            received = source.recv_batch(batch)
            assert not batch.truncated
            sent = 0
            while sent < received:
                sent += target.send_batch(batch, start=sent)
    except tuntap.ClosedError:
        pass
    except BaseException as error:
        failures.append(error)


def make_socket(enter_netns, path, family, kind, address=None):
    """A socket of a namespace; bound if an address is given."""

    def make():
        made = socket.socket(family, kind)
        made.settimeout(30)
        if address:
            made.bind((address, 0))
        return made

    return enter_netns(path, make)


@pytest.mark.parametrize("family", ADDRESSES)
@pytest.mark.parametrize("mode", MODES)
def test_tcp_arrives_intact(relay, enter_netns, mode, family):
    here, there = relay(mode)
    address = ADDRESSES[family].format(2)
    received = hashlib.sha256()
    with (
        make_socket(enter_netns, there, family, socket.SOCK_STREAM, address) as server,
        make_socket(enter_netns, here, family, socket.SOCK_STREAM) as client,
    ):
        server.listen()

        def receive():
            connection, _ = server.accept()
            buffer = bytearray(1 << 20)
            with connection:
                connection.settimeout(30)
                while size := connection.recv_into(buffer):
                    received.update(memoryview(buffer)[:size])

        thread = threading.Thread(target=receive)
        thread.start()
        sent = hashlib.sha256()
        try:
            client.connect(server.getsockname()[:2])
            left = TCP_BYTES
            while left:
                # A block that begins elsewhere each time, and now and then a short one.
                start = left % 60_013
                block = memoryview(BLOCK)[start : start + min(left, len(BLOCK) - start)]
                client.sendall(block)
                sent.update(block)
                left -= len(block)
            client.shutdown(socket.SHUT_WR)
        finally:
            thread.join()
    assert received.hexdigest() == sent.hexdigest()


@pytest.mark.parametrize("segments", [0, 40], ids=["datagrams", "UDP GSO"])
@pytest.mark.parametrize("family", ADDRESSES)
@pytest.mark.parametrize("mode", MODES)
def test_udp_arrives_intact(relay, enter_netns, mode, family, segments):
    """Datagrams of one size and a short one, a few at a time so that no queue overflows."""
    here, there = relay(mode)
    address = ADDRESSES[family].format(2)
    size, group = 1300, 40
    sent, received = hashlib.sha256(), hashlib.sha256()
    with (
        make_socket(enter_netns, there, family, socket.SOCK_DGRAM, address) as server,
        make_socket(enter_netns, here, family, socket.SOCK_DGRAM) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        if segments:
            client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        client.connect(server.getsockname()[:2])
        for number in range(UDP_BYTES // (size * group)):
            last = 1 + number % size
            payload = BLOCK[number : number + size * (group - 1) + last]
            if segments:
                client.send(payload)
            else:
                for start in range(0, len(payload), size):
                    client.send(payload[start : start + size])
            sent.update(payload)
            sizes = []
            for _ in range(group):
                datagram = server.recv(2048)
                sizes.append(len(datagram))
                received.update(datagram)
            assert sizes == [size] * (group - 1) + [last]
    assert received.hexdigest() == sent.hexdigest()
