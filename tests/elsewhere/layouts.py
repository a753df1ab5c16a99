"""Requests and structures of the BSDs, built from their headers' text by hand: what the cores are held to.

Sizes and order are those of a 64-bit little-endian machine.  Nothing here looks at the sources of the cores,
nor at the compiler's view of the headers, which test_headers.py compares with it.
"""

import ipaddress
import struct

IFNAMSIZ = 16

# sys/ioccom.h
VOID, OUT, IN = 0x20000000, 0x40000000, 0x80000000


def request(direction, group, number, size=0):
    """_IO, _IOR (OUT), _IOW (IN), _IOWR (both): direction, size, group and number in one."""
    return direction | (size & 0x1FFF) << 16 | ord(group) << 8 | number


def pack_name(name):
    return struct.pack("16s", name.encode())


def unpack_name(data):
    return data[:IFNAMSIZ].split(b"\0")[0].decode()


def sockaddr_in(address, family=2):
    """net/if.h, netinet/in.h: length, family, port, address, eight zeros."""
    return struct.pack("BBH4s8x", 16, family, 0, ipaddress.IPv4Address(address).packed)


def sockaddr_in6(address, family, scope=0):
    """Length, family, port, flow, address, scope."""
    return struct.pack("BBHI16sI", 28, family, 0, 0, ipaddress.IPv6Address(address).packed, scope)


def netmask(prefix, width):
    return ((1 << width) - (1 << width - prefix)).to_bytes(width // 8, "big")


def sockaddr_dl(family, index, kind, name, mac=b"", size=20):
    """net/if_dl.h: length, family, index, type, lengths of name, address and selector; then those."""
    body = struct.pack("BBHBBBB", size, family, index, kind, len(name), len(mac), 0) + name.encode() + mac
    return body.ljust(size, b"\0")


def ifreq(name, value=b"", size=32):
    """struct ifreq: a name and a union, which has 16 bytes but on NetBSD."""
    return (pack_name(name) + value).ljust(size, b"\0")


def ifaliasreq(name, address, other, mask, tail=b""):
    """struct ifaliasreq: address, far end or broadcast address, mask; FreeBSD adds a vhid.

    `other` is None where the field is left empty.
    """
    far = sockaddr_in(other) if other else bytes(16)
    return pack_name(name) + sockaddr_in(address) + far + sockaddr_in(mask) + tail


def in6_aliasreq(name, family, address, peer, prefix, flags, scope=0, tail=b""):
    """struct in6_aliasreq: address, far end, mask, flags, lifetimes (for ever); FreeBSD adds a vhid."""
    far = sockaddr_in6(peer, family, scope) if peer else bytes(28)
    mask = sockaddr_in6(netmask(prefix, 128), family)
    lifetime = struct.pack("qqII", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
    packed = pack_name(name) + sockaddr_in6(address, family, scope) + far + mask + struct.pack("i", flags)
    return packed + lifetime + tail


def padded(data, alignment):
    """An address in a message of the routing socket; an empty one takes a word, too."""
    return data.ljust(-(-max(len(data), 1) // alignment) * alignment, b"\0")


class Layout:
    """A structure as a format and the names of its fields."""

    def __init__(self, layout, names):
        self.struct = struct.Struct(layout)
        self.names = names.split()
        self.size = self.struct.size

    def pack(self, **values):
        empty = {"name": b""}
        data = self.struct.pack(*(values.pop(name, empty.get(name, 0)) for name in self.names))
        assert not values, values
        return data

    def unpack(self, data):
        return dict(zip(self.names, self.struct.unpack_from(data), strict=True))

    def offset(self, name):
        """Where a field is, found by filling it."""
        return self.pack(**{name: b"\1" if name == "name" else 1}).index(1)


# net/route.h
RTM_ADD, RTM_DELETE, RTM_GET = 1, 2, 4
RTA_DST, RTA_GATEWAY, RTA_NETMASK, RTA_IFP, RTA_IFA, RTA_BRD = 1, 2, 4, 0x10, 0x20, 0x80
RTF_UP, RTF_GATEWAY, RTF_HOST, RTF_STATIC, RTF_PINNED = 1, 2, 4, 0x800, 0x100000


def route_message(layout, version, alignment, addresses, **fields):
    """A message of the routing socket: its header (`layout`), and addresses behind it."""
    body = b"".join(padded(address, alignment) for address in addresses)
    if "hdrlen" in layout.names:
        fields["hdrlen"] = layout.size
    return layout.pack(msglen=layout.size + len(body), version=version, **fields) + body


def ifdrv(name, command, size):
    """net/if.h of macOS: struct ifdrv up to the pointer, a name, a command and how much the pointer is to."""
    return pack_name(name) + struct.pack("QQ", command, size)


def if_fake_request(peer):
    """net/if_fake_var.h of macOS: four words that are zero, and a union of 128 bytes, here a name."""
    return struct.pack("32x128s", peer.encode())


def sockaddr_ndrv(name):
    """net/ndrv.h of macOS: length, AF_NDRV, a name."""
    return struct.pack("BB16s", 18, 27, name.encode())


def bpf_hdr(captured, original):
    """net/bpf.h of macOS: two words of time, what was captured and of how much, the size of all this."""
    return struct.pack("=IIIIH", 1_700_000_000, 250_000, captured, original, 18)
