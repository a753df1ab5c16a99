"""What the kernel refuses: super-packets that it should take, and headers that no kernel takes."""

import contextlib
import errno
import fcntl
import os
import random

import ethtool
import old_kernel
import pytest
import superpackets as make
from superpackets import KINDS, Watch, header_for, packet

import tuntap
from tuntap import offload
from tuntap.offload import HEADER

pytestmark = pytest.mark.skipif(
    old_kernel.WRITEV is None, reason="seccomp's numbers of this CPU are not known"
)

ALL = {"checksum", "tcp4", "tcp6", "udp"}
TYPES = {"tcp4": make.TCPV4, "tcp6": make.TCPV6, "udp4": make.UDP_L4, "udp6": make.UDP_L4}
FEATURES = {"tcp4": "tx-tcp-segmentation", "tcp6": "tx-tcp6-segmentation", "udp": "tx-udp-segmentation"}
MODES = [True, "superpackets"]


def flow(kind, count=5, size=1000):
    fields = [{"ident": i} | ({"seq": i * size} if kind[:3] == "tcp" else {}) for i in range(count)]
    return [packet(kind, bytes([i]) * size, **fields[i]) for i in range(count)]


def offload_of(kind):
    return "udp" if kind[:3] == "udp" else kind


def fill(batch, kind, mode, count=5):
    """Packets of a flow, or the super-packet of them; answers the packets."""
    packets = flow(kind, count)
    batch.fill(packets)
    if mode == "superpackets":
        ((header, data),) = offload.coalesce(packets)
        batch.fill([data])
        batch.headers[0] = header
    return packets


def send_all(queue, batch):
    sent = 0
    while sent < batch.count:
        sent += queue.send_batch(batch, start=sent)


def refusing(kind, error=errno.EINVAL):
    """What an old kernel says of one kind of super-packet."""
    return lambda header: error if header["gso_type"] == TYPES[kind] else 0


def plain(packets):
    return [((0, 0, 0, 0, 0, 0), one) for one in packets]


def seen(watch):
    return [(header.tolist(), data) for header, data in watch.everything()]


@pytest.fixture
def opened(net):
    """A device of a mode, what it writes, and a batch for it."""
    with contextlib.ExitStack() as stack:

        def open_device(mode, **options):
            tun = stack.enter_context(tuntap.Tun("old0", offload=mode, quiet=True, **options))
            return tun, stack.enter_context(Watch("old0")), tun.batch(128)

        yield open_device


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO])
@pytest.mark.parametrize("kind", KINDS)
def test_a_type_that_the_kernel_refuses_is_split_and_switched_off(opened, kind, error, mode):
    tun, watch, batch = opened(mode)
    packets = fill(batch, kind, mode)
    old_kernel.run(lambda: send_all(tun, batch), refusing(kind, error))
    assert seen(watch) == plain(packets)
    assert tun.offload == ALL - {offload_of(kind)}
    on = ethtool.features("old0")
    assert {name for name, feature in FEATURES.items() if feature in on} == set(FEATURES) - {offload_of(kind)}

    # Not even tried again, though this kernel would take it; the other types are.
    for other in KINDS:
        packets = fill(batch, other, mode)
        send_all(tun, batch)
        if offload_of(other) == offload_of(kind):
            assert seen(watch) == plain(packets)
        else:
            ((header, data),) = watch.everything()
            assert header["gso_type"] == TYPES[other]
            assert offload.split(data, header) == packets

    tun.offload = ALL
    fill(batch, kind, mode)
    send_all(tun, batch)
    assert [header["gso_type"] for header, _ in watch.everything()] == [TYPES[kind]]


def test_all_three_types_go_one_after_the_other(opened):
    tun, watch, batch = opened(True)
    left = set(ALL)
    for kind in ("tcp4", "tcp6", "udp4"):
        packets = fill(batch, kind, True)
        old_kernel.run(lambda: send_all(tun, batch), lambda header: errno.EINVAL if header["gso_type"] else 0)
        left.discard(offload_of(kind))
        assert tun.offload == left
        assert seen(watch) == plain(packets)
    assert ethtool.features("old0").isdisjoint(FEATURES.values())


@pytest.mark.parametrize("mode", MODES)
def test_every_queue_stops_what_the_kernel_refused_to_one(opened, mode):
    tun, watch, batch = opened(mode, queues=2)
    other = tun.queues[1]
    fill(batch, "tcp4", mode)
    old_kernel.run(lambda: send_all(other, batch), refusing("tcp4"))
    watch.everything()
    assert tun.offload == ALL - {"tcp4"}
    for queue in (tun, other, tun.add_queue()):
        packets = fill(batch, "tcp4", mode)
        send_all(queue, batch)
        assert seen(watch) == plain(packets)
        fill(batch, "tcp6", mode)
        send_all(queue, batch)
        assert len(watch.everything()) == 1


def test_what_was_negotiated_with_a_descriptor_stays(raw, ip):
    """Its interface hands over what it did, no less and no more: only what we write changes."""
    fd = raw.attach("old0", raw.TUN | raw.NO_PI | raw.VNET_HDR)
    fcntl.ioctl(fd, raw.SETOFFLOAD, 0x03)  # TUN_F_CSUM | TUN_F_TSO4
    before = ethtool.features("old0")
    assert before & set(FEATURES.values()) == {FEATURES["tcp4"]}
    with tuntap.Tun.from_fd(os.dup(fd)) as tun:
        ip("link", "set", "old0", "addrgenmode", "none", "up")
        batch = tun.batch(8)
        with Watch("old0") as watch:
            packets = fill(batch, "udp4", True)
            old_kernel.run(lambda: send_all(tun, batch), refusing("udp4"))
            assert seen(watch) == plain(packets)
        assert tun.offload == ALL - {"udp"}
        assert ethtool.features("old0") == before


@pytest.mark.parametrize("kind", ["tcp4", "udp6"])
def test_a_refusal_in_the_midst_of_other_packets(opened, kind):
    """Nothing is lost, doubled or out of order, whatever else is in the batch."""
    tun, watch, batch = opened(True)
    before, refused, behind = flow("tcp6", 3), flow(kind, 30), flow("udp4", 4)
    if kind[:3] == "udp":
        before, behind = flow("tcp6", 3), flow("tcp4", 4)
    batch.fill([*before, *refused, *behind])
    old_kernel.run(lambda: send_all(tun, batch), refusing(kind))
    found = watch.everything()
    assert [len(offload.split(data, header)) for header, data in found] == [3, *[1] * 30, 4]
    assert [one for header, data in found for one in offload.split(data, header)] == [
        *before, *refused, *behind,
    ]  # fmt: skip


@pytest.mark.parametrize(("pauses", "refused"), [((2,), 2), ((3, 6, 7), 1), ((9,), 1)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pause_in_the_midst_of_a_split(opened, kind, mode, pauses, refused):
    """When the kernel takes no more for now, the rest goes later, and no segment twice.

    Once one segment went the super-packet is not tried again, though it would be taken then.
    """
    tun, watch, batch = opened(mode)
    packets = fill(batch, kind, mode, 8)
    writes = []

    def answer(header):
        writes.append(header["gso_type"])
        if header["gso_type"]:
            return errno.EINVAL if len(writes) <= 3 else 0
        return errno.EAGAIN if len(writes) in pauses else 0

    old_kernel.run(lambda: send_all(tun, batch), answer)
    assert seen(watch) == plain(packets)
    assert [bool(gso_type) for gso_type in writes].count(True) == refused
    assert tun.offload == ALL - {offload_of(kind)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO, errno.ENOMEM])
def test_a_kernel_that_takes_nothing_is_an_error_and_switches_nothing_off(opened, error, mode):
    tun, watch, batch = opened(mode)
    fill(batch, "tcp4", mode)
    wanted = {errno.EINVAL: tuntap.PacketError, errno.EIO: tuntap.LinkDownError}.get(
        error, tuntap.TunTapError
    )
    with pytest.raises(wanted):
        old_kernel.run(lambda: send_all(tun, batch), lambda _: error)
    assert tun.offload == ALL
    fill(batch, "tcp4", mode)
    send_all(tun, batch)
    assert [header["gso_type"] for header, _ in watch.everything()] == [make.TCPV4]


@pytest.mark.parametrize("size", [999, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_segment_that_an_old_kernel_refuses(opened, kind, size):
    """Linux 6.6.44 took no super-packet that is one segment only: it goes as an ordinary packet."""
    tun, watch, batch = opened("superpackets")
    data = packet(kind, bytes([7]) * size, partial=True)
    batch.fill([data])
    batch.headers[0] = header_for(data, 1000)
    old_kernel.run(lambda: send_all(tun, batch), refusing(kind))
    ((header, entered),) = watch.everything()
    assert header["gso_type"] == 0
    assert entered == data
    assert offload.split(entered, header) == [packet(kind, bytes([7]) * size)]
    assert tun.offload == ALL


# --- headers that no kernel takes ---


def changed(name, value):
    def change(header):
        header[name] = value

    return change


HOSTILE = {
    "no segment size": changed("gso_size", 0),
    "an unknown type": changed("gso_type", 2),
    "the type of the other transport": lambda h: changed("gso_type", {5: 1}.get(int(h["gso_type"]), 5))(h),
    "ECN of UDP": changed("gso_type", make.UDP_L4 | make.ECN),
    "headers longer than the packet": changed("hdr_len", 65535),
    "a checksum behind the packet": changed("csum_start", 5100),
    "a checksum far behind the packet": changed("csum_offset", 65535),
    "a checksum that begins too early": changed("csum_start", 0),
}


@pytest.mark.parametrize(
    ("kind", "hostile"),
    [(k, h) for k in KINDS for h in HOSTILE if not (h == "ECN of UDP" and k[:3] == "tcp")],
)
def test_a_wrong_header_is_an_error_of_its_packet_alone(opened, kind, hostile):
    """What was sent before it counts, the next call raises, and what is behind it can be sent."""
    tun, watch, batch = opened("superpackets")
    fill(batch, kind, "superpackets")
    good = batch.data[0, : batch.lengths[0]].tobytes()
    header = batch.headers[0].copy()
    batch.fill([good] * 3)
    batch.headers[:3] = header
    HOSTILE[hostile](batch.headers[1])
    assert tun.send_batch(batch) == 1
    with pytest.raises(tuntap.PacketError):
        tun.send_batch(batch, start=1)
    assert tun.send_batch(batch, start=2) == 1
    assert [(h["gso_type"], data) for h, data in watch.everything()] == [(TYPES[kind], good)] * 2
    assert tun.offload == ALL


def test_any_header_is_taken_or_an_error(opened):
    """Nothing that a caller writes there costs another packet, or the offload."""
    tun, watch, batch = opened("superpackets")
    rng = random.Random(5)
    taken = 0
    for _ in range(1500):
        kind = rng.choice(KINDS)
        fill(batch, kind, "superpackets")
        good = batch.headers[0].copy()
        for name in rng.sample(HEADER.names, rng.randint(1, 3)):
            small = rng.choice([0, 1, 2, 3, 4, 5, 8, 20, 40, 0x81, 0x84, 0x85, 1000, 5000, 65535])
            batch.headers[0][name] = rng.choice([small, rng.randrange(65536)]) & (
                0xFF if HEADER[name].itemsize == 1 else 0xFFFF
            )
        with contextlib.suppress(tuntap.PacketError):
            taken += tun.send_batch(batch)
        assert tun.offload == ALL, (kind, batch.headers[0], good)
        watch.everything()
        batch.headers[0] = good
        assert tun.send_batch(batch) == 1
        ((header, data),) = watch.everything()
        assert header["gso_type"] == TYPES[kind]
        assert len(data) == batch.lengths[0]
    assert 100 < taken < 1400
