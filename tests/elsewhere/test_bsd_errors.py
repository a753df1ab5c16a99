"""What errors mean on the BSDs, and what is said of them."""

import os
import socket

import pytest
from systems import BSDS

PACKET = b"E" * 20


@pytest.fixture(params=BSDS)
def system(request):
    return request.param


@pytest.fixture
def kernel(system, elsewhere):
    with elsewhere(system).running() as kernel:
        yield kernel


@pytest.fixture
def tun(kernel):
    with kernel.tuntap.Tun("tun0") as device:
        yield device


def refused(kernel, error, work):
    """The exception that a call of the user's ends with."""
    with pytest.raises(kernel.tuntap.TunTapError) as caught:
        work()
    assert caught.value.errno == kernel.errors[error]
    return caught.value


EVERYWHERE = {
    "ENXIO": "DeviceGoneError", "ENODEV": "DeviceGoneError", "EBADF": "ClosedError",
    "ECONNREFUSED": "DeviceGoneError", "ECONNRESET": "DeviceGoneError", "ENOTCONN": "DeviceGoneError",
    "EPIPE": "DeviceGoneError", "ENETDOWN": "LinkDownError", "EBADMSG": "PacketError",
    "ENOMEM": "TunTapError", "EPERM": "TunTapError", "ENOTSUP": "TunTapError",
}  # fmt: skip
RECEIVED = {**EVERYWHERE, "EINVAL": "TunTapError", "EMSGSIZE": "TunTapError", "EIO": "DeviceGoneError"}
SENT = {
    **EVERYWHERE, "EHOSTDOWN": "LinkDownError", "EINVAL": "PacketError", "EMSGSIZE": "PacketError",
    "EAFNOSUPPORT": "PacketError",
}  # fmt: skip


@pytest.mark.parametrize("error", RECEIVED)
def test_receiving(kernel, tun, error):
    kernel.refuse("readv", error)
    failure = refused(kernel, error, lambda: tun.recv(timeout=1))
    assert type(failure).__name__ == RECEIVED[error]
    assert "readv" in str(failure)


@pytest.mark.parametrize("error", SENT)
def test_sending(kernel, tun, error):
    kernel.refuse("writev", error)
    failure = refused(kernel, error, lambda: tun.send(PACKET))
    assert type(failure).__name__ == SENT[error]
    assert "writev" in str(failure)


def test_a_packet_that_is_too_large(kernel, system, tun):
    """FreeBSD and NetBSD say EIO, which on OpenBSD means that the node was revoked."""
    kernel.refuse("writev", "EIO")
    failure = refused(kernel, "EIO", lambda: tun.send(PACKET))
    assert type(failure).__name__ == ("DeviceGoneError" if system == "openbsd" else "PacketError")


CONFIGURED = {
    "EPERM": "PrivilegeError", "EACCES": "PrivilegeError", "EBUSY": "DeviceBusyError",
    "EEXIST": "DeviceBusyError",
    "ENXIO": "DeviceGoneError", "ENODEV": "DeviceGoneError", "EBADF": "ClosedError",
    "EOPNOTSUPP": "UnsupportedError", "ENOTTY": "UnsupportedError", "ENOSYS": "UnsupportedError",
    "EAFNOSUPPORT": "UnsupportedError", "ENOMEM": "TunTapError", "EINVAL": "TunTapError",
    "ENOENT": "TunTapError",
}  # fmt: skip


@pytest.mark.parametrize("error", CONFIGURED)
def test_configuring(kernel, tun, error):
    def change():
        tun.mtu = 1400

    kernel.refuse("ioctl(SIOCSIFMTU)", error)
    failure = refused(kernel, error, change)
    assert type(failure).__name__ == CONFIGURED[error]
    assert "ioctl(SIOCSIFMTU)" in str(failure)
    advice = {"EPERM": "this takes root", "EACCES": "this takes root", "EBUSY": "close it first"}
    for words in {*advice.values(), "is no interface", "takes no such address", "has this address"}:
        assert (words in str(failure)) == (advice.get(error) == words)


ADDRESSES = {
    "EADDRNOTAVAIL": ("TunTapError", "takes no such address"),
    "EINVAL": ("TunTapError", "takes no such address"),
    "EEXIST": ("DeviceBusyError", "has this address already"),
    "ENOMEM": ("TunTapError", ""),
}


@pytest.mark.parametrize("error", ADDRESSES)
@pytest.mark.parametrize(("request_", "address"), [("", "10.0.0.1/24"), ("_IN6", "fd00::1/64")])
def test_adding_an_address(kernel, tun, error, request_, address):
    kind, advice = ADDRESSES[error]
    call = f"ioctl(SIOCAIFADDR{request_})"
    kernel.refuse(call, error)
    failure = refused(kernel, error, lambda: tun.add_address(address))
    assert type(failure).__name__ == kind
    assert str(failure).startswith(f"[Errno {kernel.errors[error]}] {call}")
    assert advice in str(failure)
    assert ("address" in str(failure).split(call)[1]) == bool(advice)


def test_an_interface_that_is_not_there(kernel):
    failure = refused(kernel, "ENXIO", lambda: kernel.tuntap.delete("tun4"))
    assert type(failure).__name__ == "DeviceGoneError"
    assert "tuntap list" in str(failure)


@pytest.mark.parametrize(("kind", "node"), [("Tun", "/dev/tun"), ("Tap", "/dev/tap")])
@pytest.mark.parametrize(
    ("error", "uid", "meant", "advice"),
    [
        ("ENOENT", 0, "UnsupportedError", "MAKEDEV"), ("ENXIO", 0, "UnsupportedError", "MAKEDEV"),
        ("ENOENT", 1001, "PrivilegeError", "root"), ("ENXIO", 1001, "UnsupportedError", "MAKEDEV"),
        ("EACCES", 1001, "PrivilegeError", "root"), ("ENOMEM", 0, "TunTapError", ""),
    ],
)  # fmt: skip
def test_opening_a_node(kernel, kind, node, error, uid, meant, advice):
    kernel.make(node[5:] + "0")
    kernel.uid = uid
    kernel.refuse("open", error, times=2)
    failure = refused(kernel, error, lambda: getattr(kernel.tuntap, kind)(node[5:] + "0"))
    assert type(failure).__name__ == meant
    assert f"open({node})" in str(failure)
    assert advice in str(failure)
    assert ("MAKEDEV" in str(failure), "root" in str(failure)) == (advice == "MAKEDEV", advice == "root")


def test_what_is_no_tun(kernel):
    kernel.make("em0")
    failure = refused(kernel, "EOPNOTSUPP", lambda: kernel.tuntap.delete("em0"))
    assert "neither a TUN nor a TAP" in str(failure)
    assert "SIOCIFDESTROY" in str(failure)


def test_deleting_that_is_refused(kernel):
    """The advice that it is no TUN is for what is none."""
    kernel.make("tun4")
    kernel.refuse("ioctl(SIOCIFDESTROY)", "EINVAL")
    failure = refused(kernel, "EINVAL", lambda: kernel.tuntap.delete("tun4"))
    assert type(failure).__name__ == "TunTapError"
    assert "neither" not in str(failure)


def test_the_other_kind(kernel, system):
    """Where the driver's own names say it, the name is what is wrong."""
    kernel.make("tap4")
    if system == "freebsd":
        failure = refused(kernel, "EINVAL", lambda: kernel.tuntap.Tun("tap4"))
        assert type(failure).__name__ == "DeviceBusyError"
        assert "the kind of the interface" in str(failure)
        assert "another kind" in str(failure)
    else:
        failure = refused(kernel, "EINVAL", lambda: kernel.tuntap.Tun("tap4"))
        assert type(failure).__name__ == "UnsupportedError"
        assert "the name of the interface" in str(failure)
        assert "a TUN is called tun0" in str(failure)


@pytest.mark.parametrize("system", ["freebsd", "netbsd"])
def test_a_head_that_is_refused(elsewhere, system):
    with elsewhere(system).running() as kernel:
        kernel.refuse("ioctl(TUNSIFHEAD)", "EINVAL")
        failure = refused(kernel, "EINVAL", lambda: kernel.tuntap.Tun("tun0"))
        assert type(failure).__name__ == "DeviceBusyError"
        assert "another kind" in str(failure)


LAYERS = {"Tun": 3, "Tap": 2}  # native.pxd
FLAGS = {"PACKET_INFORMATION": 2, "VIRTIO_HEADER": 4, "MULTI_QUEUE": 8}


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("Tun", "VIRTIO_HEADER"), ("Tap", "VIRTIO_HEADER"), ("Tun", "MULTI_QUEUE"),
        ("Tap", "PACKET_INFORMATION"),
    ],
)  # fmt: skip
def test_openings_of_other_systems(kernel, kind, flags):
    """The core itself refuses them, if whoever asks it does not."""
    made = getattr(kernel.tuntap, kind)
    failure = refused(
        kernel, "EOPNOTSUPP", lambda: made.__new__(made)._open("", LAYERS[kind], FLAGS[flags], -1)
    )
    assert type(failure).__name__ == "UnsupportedError"
    assert "tun(4)" in str(failure)
    assert kernel.taken() == []


def test_what_is_of_other_systems(kernel):
    for what, call in (
        ("a descriptor from the system", kernel.tuntap.find_utun_fd),
        ("a private network", kernel.tuntap.testing.private_network),
        ("deleting a driver", kernel.tuntap.delete_driver),
    ):
        failure = refused(kernel, "EOPNOTSUPP", call)
        assert type(failure).__name__ == "UnsupportedError"
        assert what in str(failure)
        assert kernel.taken() == []


def test_settings_of_other_systems(kernel, tun):
    def change():
        tun.tx_queue_len = 100

    for failure in (
        refused(kernel, "EOPNOTSUPP", change),
        refused(kernel, "EOPNOTSUPP", lambda: tun.tx_queue_len),
    ):
        assert type(failure).__name__ == "UnsupportedError"
        assert "tun(4)" in str(failure)
        assert "none of this" in str(failure)


def test_what_was_refused_by_whom(kernel, tun):
    """getifaddrs(3) and the sockets, by their names."""
    kernel.refuse("getifaddrs", "ENOMEM")
    assert "getifaddrs" in str(refused(kernel, "ENOMEM", lambda: tun.addresses))
    kernel.refuse("getifaddrs", "ENOMEM")
    assert "getifaddrs" in str(refused(kernel, "ENOMEM", lambda: tun.stats))
    kernel.refuse("if_nameindex", "ENOMEM")
    assert "if_nameindex" in str(refused(kernel, "ENOMEM", kernel.tuntap.interfaces))


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_adopting_what_is_no_device(kernel, system, tmp_path, flags):
    path = tmp_path / "file"
    path.touch()
    with open(os.open(path, flags), "rb") as file:
        failure = refused(kernel, "ENOTTY", lambda: kernel.tuntap.Tun.from_fd(file.fileno(), owned=False))
        assert ("TUNGIFNAME" if system == "freebsd" else "devname") in str(failure)
        os.fstat(file.fileno())


def test_a_socket_has_no_name(kernel, system):
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other, kernel.tuntap.Tun.from_fd(one.fileno(), owned=False) as tun:
        failure = refused(kernel, "ENOTTY", lambda: tun.name)
        assert type(failure).__name__ == "UnsupportedError"
        assert ("TUNGIFNAME" if system == "freebsd" else "devname") in str(failure)


def set_to(device, name, value):
    setattr(device, name, value)


@pytest.mark.parametrize(
    "call",
    [
        lambda tap: tap.name, lambda tap: set_to(tap, "name", "office"), lambda tap: tap.mtu,
        lambda tap: set_to(tap, "mtu", 1400), lambda tap: tap.is_up, lambda tap: tap.up(),
        lambda tap: tap.mac, lambda tap: set_to(tap, "mac", "02:01:03:05:07:09"), lambda tap: tap.addresses,
        lambda tap: tap.add_address("10.1.2.3/24"), lambda tap: tap.add_address("fd00::1/64"),
        lambda tap: tap.remove_address("10.0.0.1/24"), lambda tap: tap.stats, lambda tap: tap.events(),
        lambda tap: tap._remove_address(bytes([10, 0, 0, 1]), 24, None),
        lambda tap: tap._set_broadcast(bytes([10, 0, 0, 255])),
    ],
)  # fmt: skip
def test_a_name_that_is_not_told(elsewhere, call):
    """Nothing is asked or changed then.  The first number of an error is 1."""
    with elsewhere("freebsd").running() as kernel, kernel.tuntap.Tap("tap0", up=False) as tap:
        kernel.add("tap0", "10.0.0.1", 24, "10.0.0.255")
        kernel.taken()
        kernel.refuse("ioctl(TUNGIFNAME)", "EPERM", times=2)
        failure = refused(kernel, "EPERM", lambda: call(tap))
        assert "ioctl(TUNGIFNAME)" in str(failure)
        assert {call.name for call in kernel.taken()} == {"ioctl"}
        kernel.refusals.clear()


@pytest.mark.parametrize(
    "call",
    [lambda tuntap: tuntap.interfaces(), lambda tuntap: tuntap.delete("tun4"), lambda tuntap: tuntap.Tun()],
)
def test_no_socket_for_configuration(kernel, call):
    kernel.make("tun4")
    kernel.refuse("socket", "EPERM")
    failure = refused(kernel, "EPERM", lambda: call(kernel.tuntap))
    assert type(failure).__name__ == "PrivilegeError"
    assert "socket(AF_INET)" in str(failure)
    assert list(kernel.interfaces) == ["tun4"]


@pytest.mark.parametrize(
    ("call", "sockets"),
    [
        (lambda tap: tap.mtu, 1), (lambda tap: tap.up(), 1),
        (lambda tap: set_to(tap, "mac", "02:01:03:05:07:09"), 1),
        (lambda tap: tap._remove_address(bytes([10, 0, 0, 1]), 24, None), 2),
        (lambda tap: tap._remove_address(bytes([0xFD, *range(15)]), 64, None), 2),
    ],
)  # fmt: skip
def test_no_socket_for_an_adopted_one(kernel, call, sockets):
    """They are opened when they are needed; the second is that of the routes."""
    kernel.make("tap2")
    descriptor = kernel.open("/dev/tap2", 0x2, 0)
    with kernel.tuntap.Tap.from_fd(descriptor) as tap:
        kernel.refuse("socket", "EPERM", times=sockets)
        failure = refused(kernel, "EPERM", lambda: call(tap))
        assert "socket(AF_INET)" in str(failure)


def test_a_mac_that_is_refused(kernel, system):
    call = "SIOCALIFADDR" if system == "netbsd" else "SIOCSIFLLADDR"
    with kernel.tuntap.Tap("tap0") as tap:
        kernel.refuse(f"ioctl({call})", "EPERM")
        failure = refused(kernel, "EPERM", lambda: set_to(tap, "mac", "02:01:03:05:07:09"))
        assert type(failure).__name__ == "PrivilegeError"
        assert "SIOCSIFLLADDR" in str(failure)


def test_no_mac(kernel):
    with kernel.tuntap.Tap("tap0") as tap:
        kernel.interfaces["tap0"].mac = b""
        failure = refused(kernel, "EOPNOTSUPP", lambda: tap.mac)
        assert type(failure).__name__ == "UnsupportedError"
        assert "getifaddrs" in str(failure)


def test_no_list_for_a_mac(kernel):
    with kernel.tuntap.Tap("tap0") as tap:
        kernel.refuse("getifaddrs", "ENOMEM")
        assert "getifaddrs" in str(refused(kernel, "ENOMEM", lambda: tap.mac))


def test_counters_of_one_that_is_gone(kernel, system):
    """On FreeBSD its descriptor says so, and elsewhere the list, where it is missing."""
    with kernel.tuntap.Tun("tun0") as tun:
        kernel.make("tun1")
        gone = kernel.interfaces.pop("tun0")
        failure = refused(kernel, "ENXIO", lambda: tun.stats)
        kernel.interfaces["tun0"] = gone
        assert type(failure).__name__ == "DeviceGoneError"
        assert ("TUNGIFNAME" if system == "freebsd" else "getifaddrs") in str(failure)
