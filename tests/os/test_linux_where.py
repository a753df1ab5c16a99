"""A selection and segmentation offload: what is selected is coalesced across its gaps, and nothing else."""

import contextlib
import errno
import socket

import numpy as np
import old_kernel
import pytest
import superpackets as make
from superpackets import KINDS, Watch, header_for, layout_of, packet

import tuntap
from tuntap import offload

ALL = {"checksum", "tcp4", "tcp6", "udp"}
SIZE, COUNT = 500, 12
MODES = [True, "superpackets"]

needs_old_kernel = pytest.mark.skipif(
    old_kernel.WRITEV is None, reason="seccomp's numbers of this CPU are not known"
)


def flow(kind, sport=7, count=COUNT):
    """Packets that make one super-packet; the payload of each says its place."""
    fields = [{"ident": i} | ({"seq": i * SIZE} if kind[:3] == "tcp" else {}) for i in range(count)]
    return [packet(kind, bytes([i]) * SIZE, sport=sport, **fields[i]) for i in range(count)]


def whole(packets):
    """The super-packet of them, and its header."""
    ((header, data),) = offload.coalesce(packets)
    return data, header


def entered(watch):
    """What entered the kernel: the packets of each write."""
    return [offload.split(data, header) for header, data in watch.everything()]


@pytest.fixture
def opened(net):
    with contextlib.ExitStack() as stack:

        def open_device(mode=True, kind=tuntap.Tun, **options):
            device = stack.enter_context(kind("o0", offload=mode, quiet=True, **options))
            return device, stack.enter_context(Watch("o0"))

        yield open_device


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_between_others_is_one_super_packet(opened, kind):
    tun, watch = opened()
    wanted, other = flow(kind), flow(kind, sport=8)
    batch = tun.batch(64)
    batch.fill([one for both in zip(other, wanted, strict=True) for one in both])
    # Packets that would end the flow, were they sent, or that could not be.
    batch.data[0:24:2, :20] = 0xFF
    batch.lengths[0:24:2] = np.resize([0, -5, 2**31 - 1], 12)
    mask = np.arange(24) % 2 == 1
    assert tun.send_batch(batch, where=mask) == COUNT
    assert entered(watch) == [wanted]
    assert tun.send_batch(batch, where=np.flatnonzero(mask)) == COUNT
    assert entered(watch) == [wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_an_order_that_sorts_is_one_super_packet(opened, kind):
    """What lies in the batch in any order is coalesced in the order in which it is named."""
    tun, watch = opened()
    wanted = flow(kind)
    places = np.random.default_rng(4).permutation(COUNT)
    batch = tun.batch(64)
    batch.fill([wanted[i] for i in places])
    assert tun.send_batch(batch, where=np.argsort(places)) == COUNT
    assert entered(watch) == [wanted]
    # And what is in order is not, when it is named in another.
    batch.fill(wanted)
    assert tun.send_batch(batch, where=places) == COUNT
    assert [one for write in entered(watch) for one in write] == [wanted[i] for i in places]


@pytest.mark.parametrize("kind", KINDS)
def test_one_packet_again_and_again(opened, kind):
    tun, watch = opened()
    wanted = flow(kind, count=3)
    batch = tun.batch(64)
    batch.fill(wanted)
    order = [1, 1, 0, 1, 2, 2, 2] * 50  # more than are looked at together
    assert tun.send_batch(batch, where=order) == len(order)
    # An IPv4 packet that may not be fragmented may get another identification.
    found = [one[layout_of(one)[1] :] for write in entered(watch) for one in write]
    assert found == [wanted[i][layout_of(wanted[i])[1] :] for i in order]


@pytest.mark.parametrize("start", [0, 1, 7, COUNT])
def test_a_part_of_a_selection(opened, start):
    tun, watch = opened()
    wanted = flow("tcp4")
    batch = tun.batch(64)
    batch.fill([one for one in wanted for _ in range(2)])
    assert tun.send_batch(batch, where=np.arange(24) % 2 == 0, start=start) == COUNT - start
    assert entered(watch) == ([wanted[start:]] if start < COUNT else [])


@pytest.mark.parametrize("kind", KINDS)
def test_super_packets_go_with_the_headers_of_their_slots(opened, kind):
    tun, watch = opened("superpackets")
    flows = [flow(kind, sport, count) for sport, count in ((1, 2), (2, 3), (3, 4), (4, 5))]
    batch = tun.batch(8)
    supers = [whole(packets) for packets in flows]
    batch.fill([data for data, _ in supers])
    for i, (_, header) in enumerate(supers):
        batch.headers[i] = header
    batch.headers[1] = (255,) * 6  # of one that is not selected
    batch.lengths[1] = 0
    order = [3, 0, 2, 0]
    assert tun.send_batch(batch, where=order) == 4
    assert entered(watch) == [flows[i] for i in order]
    assert tun.offload == ALL


def test_a_wrong_header_is_an_error_of_its_place(opened):
    tun, watch = opened("superpackets")
    data, header = whole(flow("tcp4"))
    batch = tun.batch(8)
    batch.fill([data] * 4)
    batch.headers[:4] = header
    batch.headers[0]["csum_start"] = 60_000
    order = [3, 2, 0, 1]
    assert tun.send_batch(batch, where=order) == 2
    with pytest.raises(tuntap.PacketError):
        tun.send_batch(batch, where=order, start=2)
    assert tun.send_batch(batch, where=order, start=3) == 1
    assert len(entered(watch)) == 3


@needs_old_kernel
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_an_old_kernel_refuses_goes_packet_by_packet(opened, kind, mode):
    """Also when it takes no more for now, in the midst of it: the rest goes later, no packet twice."""
    tun, watch = opened(mode)
    wanted, other = flow(kind), flow(kind, sport=8)
    batch = tun.batch(64)
    if mode == "superpackets":
        (data, header), (noise, _) = whole(wanted), whole(other)
        batch.fill([noise, noise, data, noise])
        batch.headers[2] = header
        batch.headers[3] = (255,) * 6
        order = [2]
    else:
        batch.fill([*other, *wanted[::-1]])
        order = list(range(2 * COUNT))[: COUNT - 1 : -1]
    writes = []

    def answer(header):
        writes.append(header)
        if header["gso_type"]:
            return errno.EINVAL
        return errno.EAGAIN if len(writes) in (2, 5, 6) else 0

    sent = old_kernel.run(lambda: tun.send_batch(batch, where=order), answer)
    assert sent == len(order)
    assert [data for _, data in watch.everything()] == wanted
    assert tun.offload != ALL


@needs_old_kernel
@pytest.mark.parametrize("taken", range(1, 5))
def test_a_kernel_that_is_full_between_super_packets(opened, taken):
    """A part is a result, counted in packets of the selection; the next call goes on with the same one."""
    tun, watch = opened()
    flows = [flow("tcp4", sport, 4) for sport in range(1, 7)]
    batch = tun.batch(64)
    batch.fill([one for packets in flows for one in packets])
    order = np.arange(24)[::-1].reshape(6, 4)[:, ::-1].ravel()  # flow by flow, the last one first
    writes = []

    def answer(header):
        writes.append(header)
        return errno.EAGAIN if len(writes) > taken else 0

    sent = old_kernel.run(lambda: tun.send_batch(batch, timeout=0, where=order), answer)
    assert sent == 4 * taken
    assert entered(watch) == flows[::-1][:taken]
    assert tun.send_batch(batch, where=order, start=sent) == 24 - sent
    assert entered(watch) == flows[::-1][taken:]


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tap(opened, kind, mode):
    tap, watch = opened(mode, tuntap.Tap, mac="02:00:00:00:00:01")
    link = bytes.fromhex("020000000001 020000000002") + (b"\x08\0" if kind[3] == "4" else b"\x86\xdd")
    wanted = [link + one for one in flow(kind)]
    batch = tap.batch(64)
    batch.fill([one for frame in wanted for one in (link + b"\xff" * 40, frame)])
    assert tap.send_batch(batch, where=np.arange(24) % 2 == 1) == COUNT
    found = watch.everything()
    if not mode:
        assert [data for _, data in found] == wanted
    else:
        ((header, data),) = found
        header["csum_start"] -= len(link)
        assert [link + one for one in offload.split(data[len(link) :], header)] == wanted


def test_a_socket_gets_every_datagram_that_was_selected(net):
    """The kernel's own receiver, which knows nothing of it: those and no others, in their order."""
    with (
        tuntap.Tun("o0", offload=True, addresses=["10.0.0.1/24"], quiet=True) as tun,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
    ):
        server.bind(("10.0.0.1", 9))
        server.settimeout(10)
        batch = tun.batch(64)
        batch.fill(
            [packet("udp4", bytes([i]) * 700, hosts=("10.0.0.2", "10.0.0.1"), ident=i) for i in range(40)]
        )
        order = np.random.default_rng(6).integers(0, 40, 40)
        before = tun.stats.rx_packets
        assert tun.send_batch(batch, where=order) == 40
        assert [server.recv(2000)[0] for _ in order] == order.tolist()
        assert tun.stats.rx_packets - before < 40
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(2000)


def test_one_batch_and_two_devices(net):
    """Super-packets are moved whole, each with its header, from one device to two others."""
    source, target = (tuntap.Tun(name, offload="superpackets", quiet=True) for name in ("s0", "t0"))
    with source, target, Watch("s0") as one, Watch("t0") as other:
        data, header = whole(flow("tcp4"))
        partial = packet("udp4", bytes(3000), partial=True)
        batch = source.batch(8)
        batch.fill([data, partial, data, partial])
        batch.headers[[0, 2]] = header
        batch.headers[[1, 3]] = header_for(partial, 1000)
        is_tcp = batch.headers[: batch.count]["gso_type"] == make.TCPV4
        assert source.send_batch(batch, where=is_tcp) == 2
        assert target.send_batch(batch, where=~is_tcp) == 2
        assert [header["gso_type"] for header, _ in one.everything()] == [make.TCPV4] * 2
        assert [header["gso_type"] for header, _ in other.everything()] == [make.UDP_L4] * 2


def test_a_queue(net):
    with tuntap.Tun("o0", queues=2, quiet=True) as tun, Watch("o0") as watch:
        batch = tun.batch(64)
        wanted = flow("udp6")
        batch.fill(wanted)
        for queue in tun.queues:
            assert queue.send_batch(batch, where=[3, 1]) == 2
            assert [data for _, data in watch.everything()] == [wanted[3], wanted[1]]
