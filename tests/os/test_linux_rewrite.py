"""Packets whose checksums the kernel has only begun are rewritten, and then finished rightly."""

import contextlib
import socket

import numpy as np
import pytest

import tuntap
from tuntap import PacketBatch, offload

SOL_UDP, UDP_SEGMENT = 17, 103  # linux/udp.h
CHANGES = {
    "src4": "192.0.2.9", "dst4": 0xFFFFFFFE, "src6": "2001:db8::9", "dst6": "ff02::fffe", "src_port": 40_000,
    "dst_port": 1, "ttl": 9, "tcp_seq": 5, "dscp": 63,
}  # fmt: skip


def finished(batch):
    """The ordinary packets that a batch of super-packets stands for, in a batch."""
    packets = []
    for packet, header in zip(batch, batch.headers, strict=False):
        packets += offload.split(packet.tobytes(), header)
    made = PacketBatch(len(packets), 2000)
    made.fill(packets)
    return made


@pytest.mark.parametrize(
    ("family", "own", "other"),
    [(socket.AF_INET, "10.0.0.1", "10.0.0.2"), (socket.AF_INET6, "fd00::1", "fd00::2")],
)
def test_what_the_kernel_has_begun(net, family, own, other):
    prefix = 24 if family == socket.AF_INET else 64
    with (
        tuntap.Tun("tun0", addresses=[f"{own}/{prefix}"], offload="superpackets", quiet=True) as tun,
        socket.socket(family, socket.SOCK_DGRAM) as datagrams,
        socket.socket(family, socket.SOCK_STREAM) as stream,
    ):
        datagrams.connect((other, 9))
        datagrams.send(b"odd")
        datagrams.setsockopt(SOL_UDP, UDP_SEGMENT, 1000)
        datagrams.send(bytes(range(250)) * 20)
        stream.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            stream.connect((other, 9))
        batch = tun.batch(16)
        total = 0
        while total < 7:  # datagrams, and a SYN
            tun.recv_batch(batch, timeout=10)
            assert (batch.headers["flags"][: batch.count] == 1).all()
            expected = finished(batch)
            total += expected.count
            assert expected.fix_checksums() == expected.count
            assert expected.update(CHANGES) == expected.count
            before = [packet.tobytes() for packet in expected]
            assert expected.fix_checksums() == expected.count
            assert [packet.tobytes() for packet in expected] == before
            assert batch.update(CHANGES) == batch.count
            assert [packet.tobytes() for packet in finished(batch)] == before
            batch.data[:, np.arange(12, 16)] = 1  # addresses of IPv4, or part of one of IPv6
            assert batch.fix_checksums() == batch.count
            after = finished(batch)
            right = [packet.tobytes() for packet in after]
            assert after.fix_checksums() == after.count
            assert [packet.tobytes() for packet in after] == right
            assert right != before
