"""One line per packet: what `tuntap dump` prints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuntap import testing
from tuntap._cli.describe import describe, hex_lines

MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"

SYN = testing.tcp("10.0.0.1", "10.0.0.2", 1000, 80, seq=7, flags=0x02, window=512)
UDP4 = testing.udp("10.0.0.1", "10.0.0.2", 1000, 53, b"abc")
UDP6 = testing.udp("fd00::1", "fd00::2", 1000, 53, b"abc")
FRAGMENT = UDP4[:6] + b"\x00\x02" + UDP4[8:]
EXTENDED = testing.ip_packet(
    "fd00::1", "fd00::2", 0, b"\x3c\x00" + bytes(6) + b"\x11\x00" + bytes(6) + UDP6[40:]
)
FRAGMENT6 = testing.ip_packet("fd00::1", "fd00::2", 44, b"\x11\x00\x05\xa9" + bytes(4) + b"rest")
SOLICITATION = testing.ip_packet("fe80::1", "ff02::1", 58, b"\x87\x00" + bytes(6) + UDP6[24:40])
ARP = bytes.fromhex("0001080006040001 020000000001 0a000001 000000000000 0a000002")


@pytest.mark.parametrize(
    ("packet", "line"),
    [
        (b"", "empty packet, 0 bytes"),
        (b"\x00", "no IP packet (version 0), 1 bytes"),
        (UDP4, "UDP 10.0.0.1:1000 > 10.0.0.2:53 data 3, 31 bytes"),
        (UDP6, "UDP [fd00::1]:1000 > [fd00::2]:53 data 3, 51 bytes"),
        (UDP4[:19], "truncated IPv4 header, 19 bytes"),
        (UDP6[:39], "truncated IPv6 header, 39 bytes"),
        (UDP4[:22], "UDP 10.0.0.1 > 10.0.0.2 truncated UDP header [IPv4 length 31 is wrong], 22 bytes"),
        (UDP4[:24],
         "UDP 10.0.0.1:1000 > 10.0.0.2:53 truncated UDP header [IPv4 length 31 is wrong], 24 bytes"),
        (b"\x4f" + UDP4[1:], "IPv4 10.0.0.1 > 10.0.0.2 header length 60 is wrong, 31 bytes"),
        (FRAGMENT, "UDP 10.0.0.1 > 10.0.0.2 fragment at 16, 31 bytes"),
        (FRAGMENT6, "UDP fd00::1 > fd00::2 fragment at 1448, 52 bytes"),
        (EXTENDED, "UDP [fd00::1]:1000 > [fd00::2]:53 data 3, 67 bytes"),
        (EXTENDED[:44], "IPv6 fd00::1 > fd00::2 truncated extension header 0, 44 bytes"),
        (SYN, "TCP 10.0.0.1:1000 > 10.0.0.2:80 [SYN] seq 7 win 512 data 0, 40 bytes"),
        (SYN[:39],
         "TCP 10.0.0.1:1000 > 10.0.0.2:80 truncated TCP header [IPv4 length 40 is wrong], 39 bytes"),
        (SYN[:33] + b"\x19" + SYN[34:],
         "TCP 10.0.0.1:1000 > 10.0.0.2:80 [FIN,PSH,ACK] seq 7 ack 0 win 512 data 0, 40 bytes"),
        (SYN[:32] + b"\xf0" + SYN[33:],
         "TCP 10.0.0.1:1000 > 10.0.0.2:80 [SYN] seq 7 header length 60 is wrong, 40 bytes"),
        (testing.icmp_echo("10.0.0.1", "10.0.0.2", 5, 6),
         "ICMP 10.0.0.1 > 10.0.0.2 echo request id 5 seq 6, 28 bytes"),
        (testing.icmp_echo("fd00::1", "fd00::2", 5, 6, reply=True),
         "ICMPv6 fd00::1 > fd00::2 echo reply id 5 seq 6, 48 bytes"),
        (testing.ip_packet("10.0.0.1", "10.0.0.2", 1, b"\x03\x01" + bytes(6)),
         "ICMP 10.0.0.1 > 10.0.0.2 destination unreachable code 1, 28 bytes"),
        (SOLICITATION, "ICMPv6 fe80::1 > ff02::1 neighbor solicitation fd00::2, 64 bytes"),
        (testing.ip_packet("10.0.0.1", "10.0.0.2", 89, b""), "OSPF 10.0.0.1 > 10.0.0.2, 20 bytes"),
        (testing.ip_packet("10.0.0.1", "10.0.0.2", 254, b""), "protocol 254 10.0.0.1 > 10.0.0.2, 20 bytes"),
    ],
)  # fmt: skip
def test_line_of_an_ip_packet(packet, line):
    assert describe(packet) == line


@pytest.mark.parametrize(
    ("payload", "ethertype", "line"),
    [
        (UDP4, None, "UDP 10.0.0.1:1000 > 10.0.0.2:53 data 3, 45 bytes"),
        (UDP6, None, "UDP [fd00::1]:1000 > [fd00::2]:53 data 3, 65 bytes"),
        (ARP, 0x0806, "ARP who-has 10.0.0.2 tell 10.0.0.1, 42 bytes"),
        (ARP[:7] + b"\x02" + ARP[8:], 0x0806, "ARP reply 10.0.0.1 is-at 02:00:00:00:00:01, 42 bytes"),
        (ARP[:20], 0x0806, "truncated ARP, 34 bytes"),
        (b"\x00\x05\x08\x06" + ARP, 0x8100, "vlan 5 ARP who-has 10.0.0.2 tell 10.0.0.1, 46 bytes"),
        (b"\x00\x05\x81\x00\x00\x06\x08\x00" + UDP4, 0x88A8,
         "vlan 5 vlan 6 UDP 10.0.0.1:1000 > 10.0.0.2:53 data 3, 53 bytes"),
        (b"\x00\x05", 0x8100, "truncated VLAN tag, 16 bytes"),
        (b"", 0x88CC, "LLDP, 14 bytes"),
        (b"", 0x1234, "type 0x1234, 14 bytes"),
        (b"abc", 3, "802.3, 17 bytes"),
    ],
)  # fmt: skip
def test_line_of_a_frame(payload, ethertype, line):
    frame = testing.ethernet(MAC, OTHER_MAC, payload, ethertype=ethertype)
    assert describe(frame, is_frame=True) == f"{MAC} > {OTHER_MAC} {line}"


def test_line_of_a_cut_frame():
    assert describe(bytes(13), is_frame=True) == "truncated Ethernet frame, 13 bytes"


ECHO = testing.icmp_echo("10.0.0.1", "10.0.0.2", 5, 6)
SAMPLES = [SYN, UDP4, UDP6, ECHO, FRAGMENT, EXTENDED, FRAGMENT6, SOLICITATION]


@pytest.mark.parametrize("packet", SAMPLES)
def test_cut_packets_are_described(packet):
    for size in range(len(packet)):
        text = describe(packet[:size])
        assert is_one_line(text)
        assert "truncated" in text or "wrong" in text or size == 0
        frame = testing.ethernet(MAC, OTHER_MAC, packet)[:size]
        assert is_one_line(describe(frame, is_frame=True))


@st.composite
def hostile_packets(draw):
    """Packets that were right once: cut, and with some bytes changed."""
    packet = bytearray(draw(st.sampled_from(SAMPLES)))
    for position, value in draw(st.lists(st.tuples(st.integers(0, len(packet) - 1), st.integers(0, 255)))):
        packet[position] = value
    return bytes(packet[: draw(st.integers(0, len(packet)))])


def is_one_line(text):
    return text.isascii() and text.isprintable()


@given(st.binary(max_size=200) | hostile_packets())
def test_hostile_packets_are_described(packet):
    assert is_one_line(describe(packet))


@given(
    st.binary(max_size=200) | hostile_packets(), st.sampled_from([0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 3])
)
def test_hostile_frames_are_described(payload, ethertype):
    frame = testing.ethernet(MAC, OTHER_MAC, payload, ethertype=ethertype)
    assert is_one_line(describe(frame, is_frame=True))
    assert is_one_line(describe(payload, is_frame=True))


@given(st.binary(max_size=100))
def test_hex_lines_show_every_byte(packet):
    lines = list(hex_lines(packet))
    assert all(map(is_one_line, lines))
    assert bytes.fromhex("".join(line[11:50] for line in lines)) == packet
    assert "".join(line[52:] for line in lines) == "".join(chr(b) if 32 <= b < 127 else "." for b in packet)
