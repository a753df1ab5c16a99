"""The other end of a device: IP packets both ways, whatever is around them and between them.

We are the host's one neighbour, `PEER`.  On a TAP we have a MAC address and answer when it is asked for.
What a system says of its own accord (router solicitations, multicast reports, DHCP, mDNS) is passed over.
"""

import contextlib
import ipaddress
import socket
import time
from typing import NamedTuple

from tuntap import Tap
from tuntap.testing import checksum, ethernet, ip_packet, udp

# Nobody's networks, since a system without network namespaces lends us its own.
HOST = {4: "10.213.17.1", 6: "fd00:213:17::1"}
PEER = {4: "10.213.17.2", 6: "fd00:213:17::2"}
ADDRESSES = {4: f"{HOST[4]}/24", 6: f"{HOST[6]}/64"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PEER_MAC = "02:00:5e:00:53:02"

PORT, PROBE = 9, 7  # of the peer; what goes to PROBE is no packet of a test
PATIENCE = 10.0  # seconds; a system that looks for duplicates of an IPv6 address takes some of them
UDP, ICMPV6 = 17, 58
SOLICITATION, ADVERTISEMENT = 135, 136  # of a neighbour


class Datagram(NamedTuple):
    version: int
    source: str
    sport: int
    payload: bytes


def eventually(condition, seconds=PATIENCE):
    """Wait for what a system does in its own time; the last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.01)
    return answer


def source_towards(version, destination=None):
    """The address that the system would send from, or None if it knows no way there."""
    with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((destination or PEER[version], PORT))
        except OSError:
            return None
        return sock.getsockname()[0]


def can_bind(address):
    """Whether the system has the address."""
    with socket.socket(FAMILY[ipaddress.ip_address(address).version], socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def host_socket(version):
    """A UDP socket on the device's address."""
    with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        sock.settimeout(PATIENCE)
        sock.bind((HOST[version], 0))
        yield sock


def _parse(packet):
    """(version, protocol, source, destination, payload) of a valid IP packet, or None."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        assert checksum(packet[:size]) == 0, f"bad IPv4 header: {packet[:size].hex()}"
        end = int.from_bytes(packet[2:4], "big")
        fields = 4, packet[9], packet[12:16], packet[16:20]
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        size, end = 40, 40 + int.from_bytes(packet[4:6], "big")
        fields = 6, packet[6], packet[8:24], packet[24:40]
    else:
        return None
    version, protocol, source, destination = fields
    names = [str(ipaddress.ip_address(address)) for address in (source, destination)]
    return version, protocol, *names, packet[size:end]


class Wire:
    def __init__(self, device):
        self.device = device
        self.mac = device.mac if isinstance(device, Tap) else None

    # --- what is around an IP packet ---

    @property
    def overhead(self):
        """Bytes in front of an IP packet."""
        return 14 if self.mac else 0

    def frame(self, packet):
        """What to send into the device for the host to get an IP packet."""
        return ethernet(PEER_MAC, self.mac, packet) if self.mac else packet

    def packet(self, frame):
        """The IP packet that the device was given for the peer; None if it is something else."""
        if not self.mac:
            assert frame[0] >> 4 in (4, 6), f"no IP packet: {frame[:8].hex()}"
            return frame
        assert len(frame) > 14, f"no Ethernet frame: {frame.hex()}"
        if frame[6:12].hex(":") != self.mac or frame[:6].hex(":") != PEER_MAC:
            return None
        return frame[14:] if frame[12:14] in (b"\x08\x00", b"\x86\xdd") else None

    def _answer(self, frame):
        """What a neighbour says to this; None if it is no question for it."""
        if frame[12:14] == b"\x08\x06":
            kind, asker, wanted = frame[20:22], frame[22:32], frame[38:42]
            ours = ipaddress.ip_address(PEER[4]).packed
            if kind == b"\0\1" and wanted == ours:
                arp = frame[14:20] + b"\0\2" + bytes.fromhex(PEER_MAC.replace(":", "")) + ours + asker
                return ethernet(PEER_MAC, self.mac, arp, ethertype=0x0806)
        elif frame[12:14] == b"\x86\xdd" and (parsed := _parse(frame[14:])):
            _, protocol, source, _, message = parsed
            ours = ipaddress.ip_address(PEER[6])
            asked = protocol == ICMPV6 and message[0] == SOLICITATION and message[8:24] == ours.packed
            if asked and source != "::":
                return ethernet(PEER_MAC, self.mac, _advertisement(ours, ipaddress.ip_address(source)))
        return None

    # --- packets ---

    def datagram(self, version, port, payload):
        """What to send into the device for a UDP port of the host."""
        return self.frame(udp(PEER[version], HOST[version], PORT, port, payload))

    def read(self, frame, port=PORT):
        """The datagram that a frame brings to a port of the peer; None for anything else."""
        if self.mac and (answer := self._answer(frame)):
            self.device.send(answer)
        packet = self.packet(frame)
        parsed = packet and _parse(packet)
        if not parsed:
            return None
        version, protocol, source, destination, rest = parsed
        if protocol != UDP or destination != PEER[version] or rest[2:4] != port.to_bytes(2, "big"):
            return None
        sport, payload = int.from_bytes(rest[:2], "big"), rest[8:]
        whole = udp(source, destination, sport, port, payload)
        assert whole.endswith(rest), "length or checksum is bad"
        return Datagram(version, source, sport, payload)

    def receive(self, count=1, call=None, port=PORT, timeout=PATIENCE):
        """The next datagrams for the peer; `call(timeout)` receives a list of frames."""
        call = call or (lambda timeout: [self.device.recv(timeout)])
        deadline = time.monotonic() + timeout
        found = []
        while len(found) < count:
            frames = call(max(deadline - time.monotonic(), 0))
            found += filter(None, [self.read(frame, port) for frame in frames])
        return found

    def settle(self, *versions):
        """Wait until packets pass both ways, and the system knows where its neighbour is."""
        for version in versions or (4, 6):
            eventually(lambda version=version: self._passes(version))
        return self

    def _passes(self, version):
        try:
            with host_socket(version) as sock:
                sock.settimeout(0.05)
                # Inwards first: a host that does not know its own address yet loses what a neighbour answers.
                self.device.send(self.datagram(version, sock.getsockname()[1], b"in"))
                assert sock.recv(100) == b"in"
                sock.sendto(b"out", (PEER[version], PROBE))
                return self.receive(port=PROBE, timeout=0.1)
        except OSError:
            return False


def _advertisement(ours, asker):
    """A neighbour advertisement, solicited, that says where we are (RFC 4861, section 4.4)."""
    option = b"\2\1" + bytes.fromhex(PEER_MAC.replace(":", ""))
    message = bytes([ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0]) + ours.packed + option
    words = ours.packed + asker.packed + len(message).to_bytes(4, "big") + ICMPV6.to_bytes(4, "big")
    sum_ = checksum(words + message).to_bytes(2, "big")
    return ip_packet(str(ours), str(asker), ICMPV6, message[:2] + sum_ + message[4:], ttl=255)


def receiver(device, way):
    """A function of a time-out that receives a list of frames in one of the ways there are."""
    if way == "recv_into":
        buffer = bytearray(4096)
        return lambda timeout=None: [bytes(buffer[: device.recv_into(buffer, timeout)])]
    if way == "recv_vectored":
        parts = [bytearray(14), bytearray(4096)]

        def vectored(timeout=None):
            size = device.recv_vectored(parts, timeout)
            return [b"".join(parts)[:size]]

        return vectored
    if way == "recv_batch":
        batch = device.batch(8)

        def batched(timeout=None):
            count = device.recv_batch(batch, timeout)
            assert 1 <= count == batch.count
            return [bytes(frame) for frame in batch]

        return batched
    return lambda timeout=None: [device.recv(timeout)]


def sender(device, way):
    """A function that sends a list of frames in one of the ways there are."""
    if way == "send_batch":

        def send(frames):
            batch = device.batch(len(frames))
            batch.fill(frames)
            sent = 0
            while sent < len(frames):
                moved = device.send_batch(batch, PATIENCE, start=sent)
                assert 1 <= moved <= len(frames) - sent
                sent += moved

    else:

        def send(frames):
            for frame in frames:
                size = (
                    device.send(frame, PATIENCE)
                    if way == "send"
                    else device.send_vectored([frame[:14], b"", frame[14:]], PATIENCE)
                )
                assert size == len(frame)

    return send


RECEIVES = ["recv", "recv_into", "recv_vectored", "recv_batch"]
SENDS = ["send", "send_vectored", "send_batch"]
