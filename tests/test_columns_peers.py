"""Columns beside what tshark and scapy say of the same packets: made and mutated ones, and real traffic.

A field is compared where it is claimed, that is, where its mark is there.  The other way round, where tshark
shows a header that is not claimed, another mark has to say why.
"""

import contextlib
import ipaddress
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import hypothesis
import pytest
from programs import program, watchdog
from threads import PATIENCE, CallThread

from tuntap import ClosedError, InterruptError, PacketBatch, PacketError, Tap, Tun
from tuntap.columns import Mark

sys.path.insert(0, str(Path(__file__).parent / "kernels"))

import kinds

COUNT = 100_000
SAMPLE = 5_000  # of these for scapy, which takes a while; all with --hypothesis-profile=ci
ECHOES = {4: (0, 8), 6: (128, 129)}
UPPER = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 58: "icmpv6", 132: "sctp", 136: "udplite"}


@pytest.fixture(autouse=True)
def _watchdog():
    with watchdog(240):
        yield


# --- packets ---


def generate(count, seed):
    """(Packet, whether it is a frame), of every kind, more than half of them changed somewhere."""
    rng = random.Random(seed)
    made = []
    while len(made) < count:
        for packet in (*kinds.right(rng).values(), *kinds.right(rng).values(), *kinds.wrong(rng).values()):
            is_frame = rng.random() < 0.5
            if is_frame:
                frames = kinds.links(rng, packet)
                if rng.random() < 0.1:
                    frames = kinds.other_frames(rng, packet)
                packet = rng.choice(list(frames.values()))
            made.append((mutated(rng, packet) if rng.random() < 0.6 else packet, is_frame))
    return made[:count]


def mutated(rng, packet):
    packet = bytearray(packet)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        packet[rng.randrange(min(len(packet), 100))] = rng.choice((0, 255, rng.getrandbits(8)))
    if rng.random() < 0.3:
        del packet[rng.randrange(1, len(packet) + 1) :]
    elif rng.random() < 0.1:
        packet += rng.randbytes(rng.randrange(1, 20))
    return bytes(packet)


def rows(packets, is_frame):
    """What the columns say, a dict for each packet."""
    batch = PacketBatch(len(packets), max(map(len, packets)))
    assert batch.fill(packets) == len(packets)
    batch.layer = 2 if is_frame else 3
    return listed(batch.columns())


def listed(table):
    columns = {name: table[name].tolist() for name in table.dtype.names}
    for name in ("src6", "dst6"):
        columns[name] = [row.tobytes() for row in table[name]]
    columns["marks"] = [Mark(marks) for marks in columns["marks"]]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# --- tshark ---

# Nothing above these is looked at, and nothing is guessed from ports.
PROTOCOLS = """
    frame eth eth_maybefcs eth_withfcs eth_withoutfcs ethertype vlan ieee8021ad raw ip ipv6 ipv6.hopopts
    ipv6.routing ipv6.fraghdr ipv6.dstopts ah mipv6 hip shim6 tcp udp udplite sctp dccp icmp icmpv6
"""
OPTIONS = """
    ip.defragment ipv6.defragment ip.tso_support ip.check_checksum tcp.check_checksum udp.check_checksum
    tcp.desegment_tcp_streams tcp.analyze_sequence_numbers tcp.relative_sequence_numbers sctp.reassembly
"""
FIELDS = """
    frame.protocols eth.dst eth.src eth.type vlan.id vlan.priority ieee8021ad.id ieee8021ad.priority
    ip.version ip.dsfield.dscp ip.dsfield.ecn ip.len ip.id ip.flags ip.frag_offset ip.ttl ip.proto
    ip.src ip.dst ipv6.version ipv6.tclass.dscp ipv6.tclass.ecn ipv6.flow ipv6.plen ipv6.nxt ipv6.hlim
    ipv6.src ipv6.dst ipv6.fraghdr.nxt ipv6.fraghdr.offset ipv6.fraghdr.more ipv6.fraghdr.ident
    tcp.srcport tcp.dstport tcp.seq_raw tcp.ack_raw tcp.flags tcp.window_size_value tcp.len udp.srcport
    udp.dstport udp.length sctp.srcport sctp.dstport dccp.srcport dccp.dstport icmp.type icmp.code
    icmp.ident icmp.seq icmpv6.type icmpv6.code icmpv6.echo.identifier icmpv6.echo.sequence_number
    _ws.expert.message
"""
GAVE_UP = "Malformed Packet (Exception occurred)", "Unreassembled fragment"  # the same of a first fragment
EXTENSIONS = {"ipv6.hopopts", "ipv6.routing", "ipv6.fraghdr", "ipv6.dstopts", "ah", "shim6"}


@pytest.fixture(scope="module")
def tshark(tmp_path_factory):
    """A function: what tshark says of packets, a dict of lists of text for each."""
    folder = tmp_path_factory.mktemp("wireshark")
    environment = {
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(folder),
        "WIRESHARK_CONFIG_DIR": str(folder),
    }

    def run(*arguments):
        result = subprocess.run(
            [program("tshark"), *arguments], env=environment, capture_output=True, text=True, timeout=200
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def dissect(packets, is_frame):
        if not (folder / "disabled_protos").exists():
            known = [line.split("\t")[2] for line in run("-G", "protocols").splitlines()]
            (folder / "disabled_protos").write_text(
                "".join(f"{name}\n" for name in known if name not in PROTOCOLS.split())
            )
        file = folder / "packets.pcap"
        with file.open("wb") as out:
            out.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1 if is_frame else 101))
            for packet in packets:
                out.write(struct.pack("=IIII", 0, 0, len(packet), len(packet)) + packet)
        arguments = [
            "-r",
            str(file),
            "-n",
            "-T",
            "fields",
            "-E",
            "separator=/t",
            "-E",
            "occurrence=a",
            "-E",
            "aggregator=;",
        ]
        for option in OPTIONS.split():
            arguments += ["-o", f"{option}:FALSE"]
        for field in FIELDS.split():
            arguments += ["-e", field]
        lines = run(*arguments).split("\n")[:-1]
        assert len(lines) == len(packets)
        return [
            {
                name: text.split(":" if name == "frame.protocols" else ";")
                for name, text in zip(FIELDS.split(), line.split("\t"), strict=True)
                if text
            }
            for line in lines
        ]

    return dissect


class Difference(Exception):
    """What a peer says is not what a column says."""


def agree(name, ours, theirs):
    if ours != theirs:
        raise Difference(f"{name} is {ours!r}, and for the peer {theirs!r}")


def number(seen, field, which=0):
    return int(seen[field][which], 0)


def compare_with_tshark(row, packet, seen, is_frame):
    if not is_frame and packet[1:3] == b"\xff\x03":
        return  # for tshark it is PPP
    path = [name for name in seen["frame.protocols"] if name not in ("ethertype", "eth", "raw", "data")]
    marks = row["marks"]
    tags = 0
    if is_frame and row["length"] >= 14:
        agree("eth_dst", row["eth_dst"], int(seen["eth.dst"][0].replace(":", ""), 16))
        agree("eth_src", row["eth_src"], int(seen["eth.src"][0].replace(":", ""), 16))
        tags = compare_tags(row, seen, path)
    path = path[tags:]
    version = {"ip": 4, "ipv6": 6}.get(path[0] if path else "")
    if not marks & Mark.IP:
        # What is cut or wrong is shown by tshark as far as it goes, and so is what is behind a third tag.
        if version and not marks & (Mark.TRUNCATED | Mark.MALFORMED) and tags <= 2:
            raise Difference("an IP header is not claimed")
        return
    agree("version", row["version"], version)
    # It looks into options and segments, whose own lengths nobody needs who passes over the header.
    is_wrong = any(text.startswith(GAVE_UP) for text in seen.get("_ws.expert.message", ()))
    gave_up = is_wrong and path[-1] in ("ipv6.hopopts", "ipv6.dstopts", "ipv6.routing")
    compare_ip(row, seen, gave_up)
    upper = [name for name in path[1:] if name not in EXTENSIONS][:1]
    if not marks & Mark.TRANSPORT:
        is_other_icmp = upper == ["icmp" if version == 6 else "icmpv6"]
        is_part = marks & (Mark.TRUNCATED | Mark.MALFORMED | Mark.FRAGMENT)
        if upper and upper[0] in UPPER.values() and not is_part and not is_other_icmp:
            raise Difference(f"{upper[0]} is not claimed")
    elif upper not in (["mipv6"], ["hip"]) and not gave_up:  # for tshark nothing is behind those
        agree("protocol", [UPPER[row["protocol"]]], upper)
        compare_transport(row, seen, upper[0])


def compare_tags(row, seen, path):
    """How many tags there are."""
    places = {"vlan": 0, "ieee8021ad": 0}
    whole = (row["length"] - 14) // 4  # as many as there is room for: tshark shows half a tag
    tags = []
    for name in path:
        if name not in places:
            break
        at = places[name]
        # A tag that is cut has no fields.
        if len(seen.get(f"{name}.id", ())) > at:
            tags.append((number(seen, f"{name}.id", at), number(seen, f"{name}.priority", at)))
        places[name] += 1
    if row["marks"] & Mark.VLAN:
        agree("vlan", (row["vlan"], row["vlan_priority"]), tags[0])
        agree("vlan_inner", row["vlan_inner"], tags[1][0] if len(tags) > 1 and whole > 1 else 0)
    elif tags and not row["marks"] & Mark.TRUNCATED:
        raise Difference("a tag is not claimed")
    elif "eth.type" in seen:
        agree("ethertype", row["ethertype"], number(seen, "eth.type"))
    return sum(places.values())


def compare_ip(row, seen, gave_up):
    if row["version"] == 4:
        for name, field in (
            ("dscp", "ip.dsfield.dscp"), ("ecn", "ip.dsfield.ecn"), ("ip_length", "ip.len"),
            ("ip_id", "ip.id"), ("ip_flags", "ip.flags"), ("ttl", "ip.ttl"), ("protocol", "ip.proto"),
        ):  # fmt: skip
            agree(name, row[name], number(seen, field))
        agree("fragment_offset", row["fragment_offset"], 8 * number(seen, "ip.frag_offset"))
        for name in ("src", "dst"):
            agree(name, row[f"{name}4"], int(ipaddress.IPv4Address(seen[f"ip.{name}"][0])))
        return
    for name, field in (
        ("dscp", "ipv6.tclass.dscp"), ("ecn", "ipv6.tclass.ecn"), ("flow_label", "ipv6.flow"),
        ("ttl", "ipv6.hlim"),
    ):  # fmt: skip
        agree(name, row[name], number(seen, field))
    agree("ip_length", row["ip_length"], 40 + number(seen, "ipv6.plen"))
    for name in ("src", "dst"):
        agree(name, row[f"{name}6"], ipaddress.IPv6Address(seen[f"ipv6.{name}"][0]).packed)
    if not row["marks"] & Mark.OPTIONS:
        agree("protocol", row["protocol"], number(seen, "ipv6.nxt"))
    if row["marks"] & Mark.FRAGMENT and not gave_up:
        last = [number(seen, f"ipv6.fraghdr.{name}", -1) for name in ("offset", "more", "ident")]
        found = [row[name] for name in ("fragment_offset", "ip_flags", "ip_id")]
        agree("fragment", found, [8 * last[0], *last[1:]])
        if row["fragment_offset"]:
            agree("protocol", row["protocol"], number(seen, "ipv6.fraghdr.nxt", -1))


def compare_transport(row, seen, name):
    marks = row["marks"]
    if name in ("icmp", "icmpv6"):
        agree("type", row["icmp_type"], number(seen, f"{name}.type"))
        agree("code", row["icmp_code"], number(seen, f"{name}.code"))
        if row["icmp_type"] in ECHOES[row["version"]]:
            places = ("ident", "seq") if name == "icmp" else ("echo.identifier", "echo.sequence_number")
            for column, field in zip(("icmp_id", "icmp_seq"), places, strict=True):
                agree(column, row[column], number(seen, f"{name}.{field}"))
        return
    prefix = name.removesuffix("lite")
    agree("src_port", row["src_port"], number(seen, f"{prefix}.srcport"))
    agree("dst_port", row["dst_port"], number(seen, f"{prefix}.dstport"))
    if name == "tcp":
        for column, field in (
            ("tcp_seq", "seq_raw"), ("tcp_ack", "ack_raw"), ("tcp_flags", "flags"),
            ("tcp_window", "window_size_value"),
        ):  # fmt: skip
            agree(column, row[column], number(seen, f"tcp.{field}"))
    # The peer takes for there what was cut.
    if not marks & (Mark.TRUNCATED | Mark.FRAGMENT):
        if name == "tcp":
            agree("payload_length", row["payload_length"], number(seen, "tcp.len"))
        elif name == "udp":
            agree("payload_length", row["payload_length"], number(seen, "udp.length") - 8)


def differences(compare, packets, is_frame, table, peer):
    """Text that says where, for the first few."""
    found = []
    for packet, row, seen in zip(packets, table, peer, strict=True):
        try:
            compare(row, packet, seen, is_frame)
        except (Difference, KeyError, IndexError, AttributeError) as error:
            found.append(f"{error!r}, {row['marks']!r}, {packet.hex()}, {is_frame}, {seen}")
    return found


@pytest.fixture(scope="module")
def packets():
    made = generate(COUNT, 5)
    return {is_frame: [packet for packet, of in made if of == is_frame] for is_frame in (False, True)}


@pytest.mark.parametrize("is_frame", [False, True], ids=["packets", "frames"])
def test_tshark_agrees(tshark, packets, is_frame):
    mine = packets[is_frame]
    table = rows(mine, is_frame)
    found = differences(compare_with_tshark, mine, is_frame, table, tshark(mine, is_frame))
    assert not found, f"{len(found)}: " + "\n".join(found[:5])
    of_each = {mark: sum(mark in row["marks"] for row in table) for mark in Mark}
    assert min(count for mark, count in of_each.items() if mark != Mark.VLAN or is_frame) > 1000, of_each


# --- scapy ---


@pytest.fixture(scope="module")
def scapy():
    """A function: what scapy makes of packets."""
    scapy = pytest.importorskip("scapy.all", reason="scapy is the peer")

    def dissect(packet, is_frame):
        version = packet[0] >> 4
        kind = scapy.Ether if is_frame else {4: scapy.IP, 6: scapy.IPv6}.get(version, scapy.Raw)
        try:
            return kind(packet)
        except (struct.error, IndexError):  # a header is not whole
            return None

    return lambda packets, is_frame: [dissect(packet, is_frame) for packet in packets]


def names_of(seen):
    """The layers from the outermost to the innermost."""
    while seen:
        yield type(seen).__name__, seen
        seen = seen.payload


def compare_with_scapy(row, packet, seen, is_frame):
    layers = list(names_of(seen))
    marks = row["marks"]
    # It fails at IPv6 with less than 3 bytes of an extension header.
    is_short = row["version"] == 6 and row["transport_offset"] == row["network_offset"] + 40
    is_short = is_short and marks & Mark.OPTIONS and row["payload_length"] < 3
    if not layers:
        agree("marks", is_short or marks == Mark.TRUNCATED, True)
        return
    if is_frame and row["length"] >= 14:
        _, link = layers.pop(0)
        agree("eth_dst", row["eth_dst"], int(link.dst.replace(":", ""), 16))
        agree("eth_src", row["eth_src"], int(link.src.replace(":", ""), 16))
        tags = []
        while layers and layers[0][0] in ("Dot1Q", "Dot1AD"):
            tags.append(layers.pop(0)[1])
        if marks & Mark.VLAN:
            agree("vlan", (row["vlan"], row["vlan_priority"]), (tags[0].vlan, tags[0].prio))
            agree("vlan_inner", row["vlan_inner"], tags[1].vlan if len(tags) > 1 else 0)
        if marks & Mark.IP:
            agree("ethertype", row["ethertype"], (tags[-1:] or [link])[0].type)
    if not marks & Mark.IP or (is_short and layers[0][0] == "Raw"):
        return
    name, ip = layers.pop(0)
    agree("version", row["version"], {"IP": 4, "IPv6": 6}.get(name))
    tos = ip.tos if name == "IP" else ip.tc
    agree("dscp, ecn", (row["dscp"], row["ecn"]), (tos >> 2, tos & 3))
    if name == "IP":
        found = [
            row[field] for field in ("ip_length", "ip_id", "ip_flags", "fragment_offset", "ttl", "protocol")
        ]
        agree("IPv4", found, [ip.len, ip.id, int(ip.flags), 8 * ip.frag, ip.ttl, ip.proto])
        ends = [ipaddress.IPv4Address(row[f"{end}4"]) for end in ("src", "dst")]
        agree("transport_offset", row["transport_offset"], row["network_offset"] + 4 * ip.ihl)
    else:
        found = [row[field] for field in ("ip_length", "flow_label", "ttl")]
        agree("IPv6", found, [40 + ip.plen, ip.fl, ip.hlim])
        ends = [ipaddress.IPv6Address(row[f"{end}6"]) for end in ("src", "dst")]
    agree("addresses", list(map(str, ends)), [ip.src, ip.dst])
    protocol = ip.proto if name == "IP" else ip.nh
    passed = name
    while layers and layers[0][0].startswith(("IPv6ExtHdr", "AH")):
        passed, extension = layers.pop(0)
        protocol = extension.nh
        if passed == "IPv6ExtHdrSegmentRouting" and 2 * extension.lastentry >= extension.len:
            return  # it believes that rather than the length of the header
        # It shows what there is of a header.
        is_whole = marks & Mark.FRAGMENT or not marks & (Mark.TRUNCATED | Mark.MALFORMED)
        if passed == "IPv6ExtHdrFragment" and is_whole:
            fragment = [8 * extension.offset, extension.m, extension.id]
            agree("fragment", [row[field] for field in ("fragment_offset", "ip_flags", "ip_id")], fragment)
    if not marks & Mark.TRANSPORT:
        return
    name, transport = layers[0]
    # It does not know what is behind Mobility, HIP and Shim6, nor an extension header behind AH.
    unknown = (135, 139, 140) if passed != "AH" else (0, 43, 44, 51, 60, 135, 139, 140)
    if row["version"] == 6 and protocol in unknown:
        return
    agree("protocol", row["protocol"], protocol)
    if name in ("TCP", "UDP", "SCTP"):
        agree("ports", [row["src_port"], row["dst_port"]], [transport.sport, transport.dport])
    if name == "TCP":
        found = [row[f"tcp_{field}"] for field in ("seq", "ack", "flags", "window")]
        flags = transport.reserved << 9 | int(transport.flags)
        agree("TCP", found, [transport.seq, transport.ack, flags, transport.window])
        agree("payload_offset", row["payload_offset"], row["transport_offset"] + 4 * transport.dataofs)
    if name == "UDP" and not marks & (Mark.TRUNCATED | Mark.FRAGMENT):
        agree("payload_length", row["payload_length"], transport.len - 8)
    if name.startswith("ICMP"):
        code = transport.res if name == "ICMPv6MLReport2" else transport.code  # RFC 3810 calls it reserved
        agree("type", [row["icmp_type"], row["icmp_code"]], [transport.type, code])
        if row["icmp_type"] in ECHOES[row["version"]]:
            agree("echo", [row["icmp_id"], row["icmp_seq"]], [transport.id, transport.seq])


@pytest.mark.parametrize("is_frame", [False, True], ids=["packets", "frames"])
def test_scapy_agrees(scapy, packets, is_frame):
    at_length = hypothesis.settings().max_examples > 1000
    mine = packets[is_frame][: COUNT if at_length else SAMPLE // 2]
    found = differences(compare_with_scapy, mine, is_frame, rows(mine, is_frame), scapy(mine, is_frame))
    assert not found, f"{len(found)}: " + "\n".join(found[:5])


# --- real traffic ---

HOST4, PEER4, HOST6, PEER6 = "10.9.8.1", "10.9.8.2", "fd98::1", "fd98::2"


class Wire:
    """Two devices, one in another network, joined by threads that keep what passes and its columns."""

    def __init__(self, here, there):
        self.ends = here, there
        self.packets, self.rows, self.lock = [], [], threading.Lock()

    def carry(self, source, target):
        batch = source.batch(64)
        with contextlib.suppress(ClosedError, InterruptError):
            while True:
                source.recv_batch(batch)
                table = batch.columns()
                with self.lock:
                    self.packets += [bytes(packet) for packet in batch]
                    self.rows += listed(table)
                done = 0
                while done < batch.count:
                    try:
                        done += target.send_batch(batch, start=done)
                    except PacketError:
                        done += 1

    def __enter__(self):
        here, there = self.ends
        self.threads = [CallThread(self.carry, here, there), CallThread(self.carry, there, here)]
        return self

    def __exit__(self, *_):
        for end in self.ends:
            end.shutdown()
        for thread in self.threads:
            thread.join(PATIENCE)
        assert [thread.error for thread in self.threads] == [None, None]


def ping(*arguments):
    # Until the other network has its routes, and both know the other's address.
    result = subprocess.run(
        [program("ping"), "-n", "-c", "3", "-i", "0.05", "-w", "10", *arguments],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


ECHO = """
import socket, sys
family, host = (socket.AF_INET6, sys.argv[2]) if ":" in sys.argv[2] else (socket.AF_INET, sys.argv[2])
data = bytes(range(256)) * 400
with socket.socket(family, socket.SOCK_DGRAM) as client:
    client.settimeout(10)
    for size in (0, 1, 1000, 5000):
        client.sendto(data[:size], (host, 7000))
        assert client.recv(10000) == data[:size]
with socket.create_connection((host, 7000), timeout=10) as client:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    received = b""
    while piece := client.recv(65536):
        received += piece
    assert received == data
"""


def exchange(netns, host):
    """UDP and TCP from the other network to this one, which sends back what it gets."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 7000), family=family) as server,
        socket.socket(family, socket.SOCK_DGRAM) as datagrams,
    ):
        server.settimeout(PATIENCE)
        datagrams.bind((host, 7000))
        datagrams.settimeout(PATIENCE)

        def serve():
            for _ in range(4):
                data, address = datagrams.recvfrom(10_000)
                datagrams.sendto(data, address)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(PATIENCE)
                while piece := connection.recv(1 << 16):
                    connection.sendall(piece)

        thread = CallThread(serve)
        client = [program("nsenter"), f"--net={netns}", sys.executable, "-c", ECHO, "x", host]
        subprocess.run(client, check=True, timeout=PATIENCE)
        thread.join(PATIENCE)
        assert thread.error is None


def check_traffic(wire, is_frame, tshark, scapy):
    """Every packet is whole, and all three say the same of it."""
    packets, table = wire.packets, wire.rows
    for compare, peer in ((compare_with_tshark, tshark), (compare_with_scapy, scapy)):
        found = differences(compare, packets, is_frame, table, peer(packets, is_frame))
        assert not found, f"{len(found)}: " + "\n".join(found[:5])
    assert not any(row["marks"] & (Mark.MALFORMED | Mark.TRUNCATED) for row in table)
    seen = set()
    for row in table:
        if row["marks"] & Mark.TRANSPORT:
            seen.add((row["version"], UPPER[row["protocol"]]))
        if row["marks"] & Mark.FRAGMENT:
            seen.add((row["version"], "fragment" if row["fragment_offset"] else "first fragment"))
    return seen


def test_traffic_of_a_tun(net, other_netns, local_route, tshark, scapy):
    addresses = [f"{HOST4}/24", f"{HOST6}/64"], [f"{PEER4}/24", f"{PEER6}/64"]
    with (
        Tun("here0", addresses=addresses[0], mtu=1400) as here,
        Tun("there0", addresses=addresses[1], mtu=1400, netns=other_netns) as there,
        Wire(here, there) as wire,
    ):
        local_route(HOST6)
        for size in ("56", "4000"):
            ping("-s", size, PEER4)
            ping("-6", "-s", size, PEER6)
        for host in (HOST4, HOST6):
            exchange(other_netns, host)
    assert check_traffic(wire, False, tshark, scapy) >= {
        (version, kind)
        for version, icmp in ((4, "icmp"), (6, "icmpv6"))
        for kind in (icmp, "udp", "tcp", "fragment", "first fragment")
    }
    payload = sum(
        row["payload_length"] for row in wire.rows if row["protocol"] == 6 and row["dst_port"] == 7000
    )
    assert payload >= 2 * 102_400  # a segment may be sent twice


def test_traffic_of_a_tap(net, other_netns, tshark, scapy):
    """Tags come from a raw socket: not every kernel has VLAN devices."""
    with (
        Tap("here0", addresses=[f"{HOST4}/24"], mtu=1400) as here,
        Tap("there0", addresses=[f"{PEER4}/24"], mtu=1400, netns=other_netns) as there,
        Wire(here, there) as wire,
    ):
        for size in ("10", "4000"):
            ping("-s", size, PEER4)
        exchange(other_netns, HOST4)
        datagram = next(
            packet for packet, row in zip(wire.packets, wire.rows, strict=True) if row["src_port"] == 7000
        )
        tags = b"\x81\0\xa0\x4d", b"\x88\xa8\x60\5\x81\0\xa0\x4d"
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((here.name, 0))
            for tag in tags:
                raw.send(datagram[:12] + tag + datagram[12:])
        deadline = time.monotonic() + PATIENCE
        while sum(bool(row["marks"] & Mark.VLAN) for row in wire.rows) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    seen = check_traffic(wire, True, tshark, scapy)
    assert seen >= {(4, kind) for kind in ("icmp", "udp", "tcp", "fragment", "first fragment")}
    assert {row["ethertype"] for row in wire.rows} >= {0x0800, 0x0806}
    tagged = [row for row in wire.rows if row["marks"] & Mark.VLAN]
    assert [(row["vlan"], row["vlan_priority"], row["vlan_inner"]) for row in tagged] == [
        (77, 5, 0),
        (5, 3, 77),
    ]
    assert [row["src_port"] for row in tagged] == [7000, 7000]
