"""Inputs that the fuzzer begins with (tools/fuzz.sh): `python fuzz_seeds.py FOLDER`.

Their form is that of _fuzz.pyx: the target, its options, and what it reads.
"""

import random
import struct
import sys
from pathlib import Path

import kinds
from flows import renumbered
from twins import capture_block, capture_header, capture_interface, capture_record, capture_section, record

from tuntap import _columns, offload, testing

SUMS, HEADERS, GSO, RECORDS, PACKETS, FLOWS, ROWS, LONG_FLOWS = 0, 1, 2, 3, 4, 5, 6, 7
FIX, BUILD, UPDATE = 64, 65, 66
UNFINISHED, RIGHT_BEFORE = 2, 4  # options of these
CAPTURES = 32
IS_FRAME, WITH_CHECKSUM, AROUND_THE_END = 1, 2, 4  # options of GSO
ALL_TYPES, FRAMES, TRUSTED, RENUMBERED, FIXED = 14, 16, 32, 64, 128  # of the three behind it
SMALL, LARGE, REPEATED = 64, 128, 192  # where a packet of a flow has its size from
FLAGS, ZERO = 3 << 3, 7 << 3  # what is wrong with it


def flow(family, protocol, sizes):
    """Packets that follow one another."""
    source, destination = ("10.0.0.1", "10.0.0.2") if family == 4 else ("fd00::1", "fd00::2")
    packets = []
    for number, size in enumerate(sizes):
        payload = bytes([number]) * size
        if protocol == "udp":
            packet = testing.udp(source, destination, 7, 9, payload)
        else:
            packet = testing.tcp(source, destination, 7, 9, payload, seq=sum(sizes[:number]))
        packets.append(renumbered(packet, number))
    return packets


def extended(packet, units):
    """An IPv6 packet with an extension header of 8 * (units + 1) bytes."""
    extension = bytes([packet[6], units]) + bytes(8 * units + 6)
    size = len(packet) - 40 + len(extension)
    return packet[:4] + struct.pack("!HB", size, 60) + packet[7:40] + extension + packet[40:]


def listed(packets):
    return b"".join(struct.pack("!H", len(packet) - 1) + packet for packet in packets)


def captures():
    """Files of each kind, and what can be wrong with them."""
    packets = [testing.udp("10.0.0.1", "10.0.0.2", 7, 9, bytes(size)) for size in (0, 5, 40)]
    for form in ("pcap", "pcapng"):
        for link, head in (
            (101, b""), (1, b"\2" * 12 + b"\x81\0\0\5\x08\0"), (0, b"\2\0\0\0"),
            (113, bytes(14) + b"\x08\0"), (276, b"\x08\0" + bytes(18)), (127, b""),
        ):  # fmt: skip
            records = [capture_record(form, head + packet, 10**18 + 7) for packet in packets]
            yield capture_header(form, link, 65535) + b"".join(records)
            yield capture_header(form, link, 65535) + b"".join(records)[:-3]
        yield capture_header(form, 101, 65535) + capture_record(form, packets[0], 5)[:-1] + b"\1"
    for order, magic in ((">", 0xA1B2C3D4), (">", 0xA1B23C4D), ("<", 0xA1B2C3D4)):
        for version in (1, 2):
            yield (
                struct.pack(order + "IHHIIII", magic, version, 4, 0, 0, 9, 101)
                + struct.pack(order + "IIII", 1, 2, 28, 28)
                + packets[0]
            )
    for order in "<>":
        size = struct.pack(order + "I", 28)
        enhanced = struct.pack(order + "IIIII", 0, 1, 2, 28, 28) + packets[0]
        blocks = capture_block(99, b"what", order) + capture_block(3, size + packets[0], order)
        blocks += capture_block(2, enhanced, order) + capture_block(6, enhanced, order)
        late = capture_block(6, struct.pack(order + "IIIII", 0, 2**32 - 1, 2, 28, 28) + packets[0], order)
        for options in ((), ((9, b"\x09"), (14, bytes(8))), ((9, b"\x83"), (0, b"")), ((9, b"\6\6"),)):
            head = capture_section(order) + capture_interface(101, 60, order, *options)
            yield head + blocks
            yield head + late
            yield head + capture_interface(1, 0, order) + blocks.replace(enhanced, b"\0\0\0\1" + enhanced[4:])
            yield head + blocks[:-4] + size
        yield capture_section(order) + blocks
        yield capture_section(order, (2, 0)) + blocks
    yield b"no capture"


def seeds():
    for number, data in enumerate(captures()):
        for layer in (0, 2, 3):
            yield bytes([CAPTURES, layer, 7 * number & 0xFF]) + data
    for size in (0, 63, 64, 300, 4000):
        yield struct.pack("!BBHQHH", SUMS, 3, size, 2**64 - 1, 1, 2) + bytes(range(7))
    for options, layout in enumerate([(8, 4), (16, 4), (8, 8), (16, 8)]):
        for sizes in ([5], [60, 0, 3], [100] * 5):
            read = b"".join(record(bytes(size), layout, original=size + len(sizes) - 1) for size in sizes)
            yield bytes([RECORDS, options]) + read
            yield bytes([RECORDS, options]) + read[:-9]
    for family in (4, 6):
        for protocol in ("tcp", "udp"):
            packets = flow(family, protocol, [40, 40, 40, 7])
            link = b"\2\0\0\0\0\1\2\0\0\0\0\2" + (b"\x08\x00" if family == 4 else b"\x86\xdd")
            for is_frame, head in (
                (0, b""),
                (IS_FRAME, link),
                (IS_FRAME, link[:12] + b"\x81\0\0\5" + link[12:]),
            ):
                yield struct.pack("!BBH", HEADERS, is_frame, 20) + head + packets[0]
                ((header, packet),) = offload.coalesce(packets)
                header["csum_start"] += len(head)
                start = struct.pack("!BBH", GSO, WITH_CHECKSUM | is_frame, 60)
                yield start + header.tobytes() + head + packet
                header["gso_type"] = header["gso_size"] = 0
                yield start + header.tobytes() + head + packet
                yield bytes([GSO, AROUND_THE_END]) + start[2:] + header.tobytes() + head + packet
                yield bytes([PACKETS, ALL_TYPES | FRAMES * is_frame]) + listed([head + p for p in packets])
            if family == 4:
                options = [bytes([0x46]) + packet[1:20] + b"\1\1\1\0" + packet[20:] for packet in packets]
                yield bytes([PACKETS, ALL_TYPES | TRUSTED]) + listed(
                    [packet[:2] + struct.pack("!H", len(packet)) + packet[4:] for packet in options]
                )
            else:
                for units in (0, 20, 30):
                    longer = [extended(packet, units) for packet in packets]
                    yield struct.pack("!BBH", HEADERS, 0, 20) + longer[0]
                    yield bytes([PACKETS, ALL_TYPES]) + listed(longer)
    for options in (0, FRAMES, TRUSTED, RENUMBERED | FIXED):
        start = bytes([FLOWS, ALL_TYPES | options])
        for kind in range(4):
            yield start + bytes([kind | SMALL, 50, kind, kind | SMALL, 10, kind | FLAGS, 0x18, kind | ZERO])
            yield start + bytes([kind | LARGE, 30, 0, kind, kind, kind])
        start = bytes([LONG_FLOWS]) + start[1:]
        yield start + bytes([value for kind in range(4) for value in (kind | REPEATED, 15)] * 5)
        yield start + bytes([2 | REPEATED, 15] * 20)
    rng = random.Random(1)
    for packet in (kinds.right(rng) | kinds.wrong(rng)).values():
        yield bytes([ROWS, 0]) + packet
    for frame in kinds.links(rng, flow(6, "tcp", [9])[0]).values():
        yield bytes([ROWS, IS_FRAME]) + frame
    yield from seeds_of_rewriting()


def seeds_of_rewriting():
    rng = random.Random(2)
    right = list(kinds.right(rng).values())
    wrong = list(kinds.wrong(rng).values())
    frames = list(kinds.links(rng, flow(4, "udp", [9])[0]).values())
    for options in (0, UNFINISHED):
        for packet in right + wrong:
            yield bytes([FIX, options]) + packet
    for is_frame, packets in ((0, right + wrong), (IS_FRAME, frames)):
        yield from (bytes([FIX, is_frame]) + packet for packet in packets)
        for packet in packets:
            for options in (0, RIGHT_BEFORE, RIGHT_BEFORE | UNFINISHED):
                fields = rng.choice([2**21 - 1, rng.getrandbits(21)])
                start = bytes([UPDATE, is_frame | options]) + struct.pack("!I", fields)
                yield start + rng.randbytes(_columns.ROW_SIZE) + packet
    offset = {name: offset for name, _, offset in _columns.FIELDS}["protocol"]
    for options in range(16):
        for protocol in (1, 6, 17, 47, 58):
            row = bytearray(rng.randbytes(_columns.ROW_SIZE))
            row[offset] = protocol
            yield struct.pack("!BBHH", BUILD, options | 4, 50, 130) + row
            yield struct.pack("!BBHH", BUILD, options | 4 | 16, 0, 130) + row + b"payload"
            yield struct.pack("!BBHH", BUILD, options, 0xFFFF, 130) + row


for number, seed in enumerate(seeds()):
    Path(sys.argv[1], f"seed{number:03}").write_bytes(seed)
