"""A descriptor that is adopted: what every system can do, on the core of each."""

import socket
import threading

import crossbuild
import fake_kernel
import pytest
from systems import SYSTEMS

# No two systems agree in all of them, so they tell whose core it is that runs.
NUMBERS = {
    "freebsd": {"EAGAIN": 35, "EOPNOTSUPP": 45, "EBADMSG": 89},
    "openbsd": {"EAGAIN": 35, "EOPNOTSUPP": 45, "EBADMSG": 92},
    "netbsd": {"EAGAIN": 35, "EOPNOTSUPP": 45, "EBADMSG": 88},
    "macos": {"EAGAIN": 35, "EOPNOTSUPP": 102, "EBADMSG": 94},
}


@pytest.fixture(params=SYSTEMS)
def system(request):
    return request.param


@pytest.fixture
def kernel(system, elsewhere):
    with elsewhere(system).running() as kernel:
        yield kernel


@pytest.fixture
def ends():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        yield one, other


def test_the_numbers_of_errors_are_the_systems_own(kernel, system):
    assert {name: kernel.errors[name] for name in NUMBERS[system]} == NUMBERS[system]


def test_packets_go_both_ways(kernel, ends):
    one, other = ends
    packet = kernel.tuntap.testing.udp("10.0.0.1", "10.0.0.2", 1, 2, b"adopted")
    with kernel.tuntap.Tun.from_fd(one.fileno(), owned=False) as device:
        kernel.taken()
        assert device.send(packet) == len(packet)
        assert other.recv(100) == packet
        other.send(packet)
        assert device.recv(timeout=1) == packet
        calls = kernel.taken()
        assert [call.name for call in calls] == ["sendmsg", "recvmsg"]
        assert calls[0].arguments[1] == [packet]
        assert calls[0].arguments[2] == kernel.numbers["MSG_DONTWAIT"] | kernel.numbers["MSG_NOSIGNAL"]
        assert calls[1].arguments[2] == kernel.numbers["MSG_DONTWAIT"]
    assert one.send(b"still ours") == 10


def test_nothing_to_receive_is_told_by_the_systems_own_number(kernel, ends):
    """EAGAIN is 35 there and 11 here: with another number the wait would be an error."""
    one, _ = ends
    with kernel.tuntap.Tun.from_fd(one.fileno(), owned=False) as device:
        kernel.taken()
        with pytest.raises(TimeoutError) as caught:
            device.recv(timeout=0.01)
        assert caught.value.errno == kernel.errors["ETIMEDOUT"]
        received, waited = kernel.taken()[:2]
        assert (received.result, received.error) == (-1, "EAGAIN")
        assert waited.name == "poll"
        assert waited.arguments[0][0] == (one.fileno(), 1)


def test_an_interrupt_ends_a_wait(kernel, ends):
    with kernel.tuntap.Tun.from_fd(ends[0].fileno(), owned=False) as device:
        timer = threading.Timer(0.05, device.interrupt)
        timer.start()
        with pytest.raises(kernel.tuntap.InterruptError) as caught:
            device.recv(timeout=5)
        timer.join()
        assert caught.value.errno == kernel.errors["EINTR"]


def test_an_error_keeps_the_systems_own_number(kernel, ends):
    with kernel.tuntap.Tun.from_fd(ends[0].fileno(), owned=False) as device:
        kernel.refuse("sendmsg", "EHOSTUNREACH")
        with pytest.raises(kernel.tuntap.TunTapError) as caught:
            device.send(b"E" * 20)
        assert caught.value.errno == kernel.errors["EHOSTUNREACH"] == 65


def test_the_other_end_is_closed(kernel, ends):
    one, other = ends
    with kernel.tuntap.Tun.from_fd(one.fileno(), owned=False) as device:
        other.close()
        with pytest.raises(kernel.tuntap.DeviceGoneError) as caught:
            device.send(b"E" * 20)
        assert caught.value.errno == kernel.errors["ECONNREFUSED"]


def test_a_descriptor_that_is_not_open(kernel, ends):
    number = ends[0].fileno()
    ends[0].close()
    with pytest.raises(kernel.tuntap.ClosedError):
        kernel.tuntap.Tun.from_fd(number)


def test_what_wakes_a_wait_is_not_inherited_and_does_not_block(kernel, ends):
    with kernel.tuntap.Tun.from_fd(ends[0].fileno(), owned=False):
        calls = [call.arguments for call in kernel.taken() if call.name == "fcntl"]
    assert len(calls) == 5
    assert [call[1:] for call in calls[1:]] == 2 * [
        (kernel.numbers["F_SETFD"], kernel.numbers["FD_CLOEXEC"]),
        (kernel.numbers["F_SETFL"], kernel.numbers["O_NONBLOCK"]),
    ]


def test_no_pipe_for_waking(kernel, ends):
    kernel.refuse("pipe", "EMFILE")
    with pytest.raises(kernel.tuntap.TunTapError, match="pipe") as caught:
        kernel.tuntap.Tun.from_fd(ends[0].fileno(), owned=False)
    assert caught.value.errno == kernel.errors["EMFILE"]


def test_a_call_that_no_kernel_answers_fails_the_build(system, elsewhere, tmp_path, pytestconfig):
    elsewhere(system)
    known = {name: kinds for name, kinds in fake_kernel.SIGNATURES.items() if name != "recvmsg"}
    with pytest.raises(RuntimeError, match="calls what no kernel answers here: recvmsg"):
        crossbuild.build(system, known, tmp_path, pytestconfig.cache.mkdir("elsewhere"))
