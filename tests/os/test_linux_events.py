"""What `events()` tells of an interface: by us or by `ip`, here or in another namespace, until its end."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import resource
import select
import socket
import subprocess
import time

import pytest
from forks import fork, reap
from threads import PATIENCE, CallThread

import tuntap
from tuntap import ClosedError, DeviceGoneError, InterruptError, LinkEvent, Tap, Tun, UnsupportedError, aio

USER = 54321
LINK_LOCAL = ipaddress.ip_network("fe80::/64")


class Sync:
    """An iterator of `Tun.events()`."""

    def __init__(self, device):
        self.device = device
        self.events = device.events()

    def get(self, timeout=PATIENCE):
        return self.events.get(timeout)


class Async:
    """An iterator of `aio.Tun.events()`, and a loop that runs while a call waits."""

    def __init__(self, device):
        self.device = device
        self.events = device.events()
        self.runner = asyncio.Runner()

    def get(self, timeout=PATIENCE):
        return self.runner.run(self.events.get(timeout))


def told(view, last):
    """The events up to one of a kind, without the link-local address that the kernel makes."""
    found = []
    while not found or found[-1].kind != last:
        event = view.get()
        if not (event.kind.startswith("address") and event.value.network == LINK_LOCAL):
            found.append(event)
    return found


def rest(view, seconds=0.05):
    """What else is told within a short time."""
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(view.get(seconds))
    return found


@pytest.fixture(params=["sync", "asyncio"])
def make(request, net):
    """Opens a device and looks at its events: `make(Tap, up=False)`; answers (device, view)."""
    with contextlib.ExitStack() as stack:

        def open_one(kind=Tun, *arguments, **settings):
            settings = {"quiet": True, **settings}
            if request.param == "asyncio":
                kind = {Tun: aio.Tun, Tap: aio.Tap}[kind]
            device = kind(*arguments, **settings)
            stack.callback(device.close)
            return device, watch(device)

        def watch(device):
            view = Async(device) if isinstance(device, aio.Tun | aio.Tap) else Sync(device)
            if isinstance(view, Async):
                stack.callback(view.runner.close)
            return view

        open_one.watch = watch
        yield open_one


@pytest.fixture
def tun(net):
    with Tun(quiet=True) as tun:
        yield tun


def ip_interface(text, peer=None):
    interface = ipaddress.ip_interface(text)
    interface.peer = peer and ipaddress.ip_address(peer)
    return interface


class TestLink:
    @pytest.mark.parametrize("by", ["us", "ip"])
    def test_up_and_down(self, make, ip, by):
        device, view = make(up=False)
        for state in ("up", "down", "up"):
            if by == "us":
                getattr(device, state)()
            else:
                ip("link", "set", device.name, state)
            assert [event for event in told(view, state) if event.kind in ("up", "down")] == [(state, None)]
        assert [event for event in rest(view) if event.kind in ("up", "down")] == []

    def test_an_interface_that_comes_up_runs_and_one_that_goes_down_does_not(self, make):
        device, view = make(up=False)
        device.up()
        assert told(view, "running") == [("up", None), ("running", None)]
        device.down()
        events = told(view, "down")
        while events[-1].kind != "not_running" and len(events) < 2:
            events += told(view, "not_running")
        assert sorted(event.kind for event in events) == ["down", "not_running"]
        assert rest(view) == []

    @pytest.mark.parametrize("by", ["us", "ip"])
    def test_the_carrier(self, make, ip, eventually, by):
        device, view = make()
        eventually(lambda: device.is_running)
        rest(view)
        for carrier, kind in ((False, "not_running"), (True, "running")):
            if by == "us":
                device.carrier = carrier
            else:
                ip("link", "set", device.name, "carrier", "on" if carrier else "off")
            assert told(view, kind) == [(kind, None)]

    @pytest.mark.parametrize("by", ["us", "ip"])
    def test_the_mtu(self, make, ip, by):
        device, view = make(up=False)
        if by == "us":
            device.mtu = 1400
            device.mtu = 1400
        else:
            ip("link", "set", device.name, "mtu", 1400)
        assert view.get() == LinkEvent("mtu", 1400) == ("mtu", 1400)
        assert rest(view) == []

    @pytest.mark.parametrize("by", ["us", "ip"])
    def test_a_new_name(self, make, ip, by):
        device, view = make(up=False)
        if by == "us":
            device.name = "renamed0"
        else:
            ip("link", "set", device.name, "name", "renamed0")
        assert view.get() == ("name", "renamed0")
        device.mtu = 1300  # the view goes by the index
        assert view.get() == ("mtu", 1300)

    def test_what_one_notification_says_at_once_is_an_event_each(self, make, ip):
        device, view = make(up=False)
        ip("link", "set", device.name, "mtu", 1300, "up")
        events = told(view, "up")
        assert ("mtu", 1300) in events
        assert len(events) == 2

    def test_what_was_so_before_is_no_event(self, make):
        device, view = make(up=False)
        device.mtu = 1400
        other = make.watch(device)
        assert view.get() == ("mtu", 1400)
        assert rest(other) == []

    def test_settings_that_no_event_is_about(self, make):
        device, view = make(Tap, up=False)
        device.tx_queue_len = 7
        device.mac = "02:00:00:00:00:07"
        device.mtu = 1499
        assert view.get() == ("mtu", 1499)

    def test_changes_of_other_interfaces(self, make, ip):
        device, view = make(up=False)
        with Tun(up=False, addresses=["10.9.0.1/24"], quiet=True) as other:
            other.mtu = 1300
            other.up()
            other.add_address("fd09::1/64")
            other.remove_address("10.9.0.1/24")
            other.name = "other9"
        assert rest(view) == []
        device.mtu = 1400
        assert view.get() == ("mtu", 1400)

    def test_every_view_is_told_everything(self, make):
        device, view = make(up=False)
        other = make.watch(device)
        device.mtu = 1400
        device.mtu = 1300
        assert [view.get(), view.get()] == [("mtu", 1400), ("mtu", 1300)]
        assert [other.get(), other.get()] == [("mtu", 1400), ("mtu", 1300)]

    def test_a_port_of_a_bridge(self, make, ip):
        device, view = make(Tap, up=False)
        ip("link", "add", "br9", "type", "bridge")
        try:
            ip("link", "set", device.name, "master", "br9")
            ip("link", "set", device.name, "up")
            assert told(view, "up") == [("up", None)]
            ip("link", "set", "dev", device.name, "type", "bridge_slave", "cost", 7)
            ip("link", "set", device.name, "nomaster")
        finally:
            ip("link", "del", "br9")
        device.mtu = 1400
        assert told(view, "mtu")[-1] == ("mtu", 1400)
        assert {event.kind for event in rest(view)} <= {"running", "not_running"}


class TestAddresses:
    @pytest.mark.parametrize("by", ["us", "ip"])
    @pytest.mark.parametrize("address", ["10.9.0.1/24", "10.9.0.1/32", "fd09::1/64", "fd09::1/128"])
    def test_come_and_go(self, make, ip, address, by):
        device, view = make()
        for _ in range(2):  # the same again is told again
            if by == "us":
                device.add_address(address)
            else:
                ip("addr", "add", address, "dev", device.name)
            event = told(view, "address_added")[-1]
            assert event == ("address_added", ip_interface(address))
            assert event.value.peer is None
            if by == "us":
                device.remove_address(address)
            else:
                ip("addr", "del", address, "dev", device.name)
            assert told(view, "address_removed") == [("address_removed", ip_interface(address))]

    @pytest.mark.parametrize(("local", "peer"), [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")])
    @pytest.mark.parametrize("by", ["us", "ip"])
    def test_with_a_peer(self, make, ip, by, local, peer):
        device, view = make()
        rest(view)
        if by == "us":
            device.add_address((local, peer))
        else:
            ip("addr", "add", local, "peer", peer, "dev", device.name)
        events = [view.get()]  # the kernel tells of an IPv6 address some time later, if it is still there
        if by == "us":
            device.remove_address((local, peer))
        else:
            ip("addr", "del", local, "peer", peer, "dev", device.name)
        events.append(view.get())
        assert [event.kind for event in events] == ["address_added", "address_removed"]
        assert [str(event.value.ip) for event in events] == [local] * 2
        assert [event.value.peer for event in events] == [ipaddress.ip_address(peer)] * 2

    def test_one_address_with_two_peers_is_two(self, make):
        device, view = make()
        rest(view)
        device.add_address(("10.9.0.1", "10.9.0.2"))
        device.add_address(("10.9.0.1", "10.9.0.3"))
        device.remove_address(("10.9.0.1", "10.9.0.2"))
        assert [(event.kind, str(event.value.peer)) for event in (view.get(), view.get(), view.get())] == [
            ("address_added", "10.9.0.2"), ("address_added", "10.9.0.3"), ("address_removed", "10.9.0.2"),
        ]  # fmt: skip

    def test_that_the_kernel_has_looked_for_duplicates_is_no_event(self, make, ip, eventually):
        device, view = make(Tap)
        eventually(lambda: device.is_running)
        rest(view)
        ip("addr", "add", "fd09::1/64", "dev", device.name)  # tentative until the kernel has looked
        eventually(lambda: not any(entry.get("tentative") for entry in ip.address_entries(device.name)))
        ip("addr", "change", "fd09::1/64", "dev", device.name, "preferred_lft", 1000, "valid_lft", 2000)
        assert told(view, "address_added") == [("address_added", ip_interface("fd09::1/64"))]
        assert rest(view) == []

    def test_a_link_local_one_that_the_kernel_makes(self, make):
        device, view = make(up=False, quiet=False)
        device.up()
        event = view.get()
        while event.kind != "address_added":
            event = view.get()
        assert event.value.network == LINK_LOCAL
        assert device.addresses == [event.value]

    def test_those_that_go_with_the_link(self, make):
        device, view = make(addresses=["fd09::1/64", "10.9.0.1/24"])
        rest(view)
        device.down()
        assert ("address_removed", ip_interface("fd09::1/64")) in told(view, "address_removed")
        assert device.addresses == [ip_interface("10.9.0.1/24")]

    def test_those_that_go_with_the_first_of_their_subnet(self, make, ip):
        device, view = make(addresses=["10.9.0.1/24", "10.9.0.2/24"])
        rest(view)
        ip("addr", "del", "10.9.0.1/24", "dev", device.name)
        assert {view.get(), view.get()} == {
            ("address_removed", ip_interface("10.9.0.1/24")),
            ("address_removed", ip_interface("10.9.0.2/24")),
        }
        assert device.addresses == []

    def test_the_whole_of_them_at_once(self, make, ip):
        device, view = make(addresses=["10.9.0.1/24"])
        rest(view)
        device.set_addresses(["10.9.0.1/24", "10.9.1.1/24", "fd09::1/64"])
        assert {view.get().value, view.get().value} == {
            ip_interface("10.9.1.1/24"),
            ip_interface("fd09::1/64"),
        }
        assert rest(view) == []


class TestNamespaces:
    def test_a_device_in_another_one(self, make, ip, other_netns):
        device, view = make(netns=other_netns, up=False)
        ip("link", "set", device.name, "up", netns=other_netns)
        assert told(view, "up") == [("up", None)]
        ip("addr", "add", "10.9.0.1/24", "dev", device.name, netns=other_netns)
        assert told(view, "address_added")[-1] == ("address_added", ip_interface("10.9.0.1/24"))

    def test_there_and_back_again(self, make, ip, other_netns):
        device, view = make(addresses=["10.9.0.1/24"])
        rest(view)
        name = device.name
        own = f"/proc/{os.getpid()}/ns/net"
        home, away = (None, own), (other_netns, other_netns)
        for here, there in ((home, away), (away, home)):
            ip("link", "set", name, "netns", there[1], netns=here[0])
            kinds = {event.kind for event in told(view, "address_removed")} | {e.kind for e in rest(view)}
            assert {"down", "address_removed"} <= kinds
            assert "gone" not in kinds
            ip("link", "set", name, "mtu", 1400, netns=there[0])
            assert told(view, "mtu") == [("mtu", 1400)]
            ip("link", "set", name, "mtu", 1500, "up", netns=there[0])
            assert ("up", None) in told(view, "up")
            ip("addr", "add", "10.9.0.1/24", "dev", name, netns=there[0])
            event = told(view, "address_added")[-1]
            assert event == ("address_added", ip_interface("10.9.0.1/24"))
            rest(view)

    def test_a_namesake_and_the_same_index_where_it_was(self, make, ip, other_netns):
        device, view = make(Tun, "tunx", up=False)
        index = device.index
        ip("link", "set", "tunx", "netns", other_netns)
        ip("link", "add", "tunx", "index", index, "type", "bridge")
        try:
            ip("link", "set", "tunx", "mtu", 1111)
            assert "mtu" not in [event.kind for event in rest(view)]
            ip("link", "set", "tunx", "mtu", 1222, netns=other_netns)
            assert told(view, "mtu") == [("mtu", 1222)]
        finally:
            ip("link", "del", "tunx")

    def test_a_new_name_on_the_way(self, make, ip, other_netns):
        device, view = make(Tun, "tunx", up=False)
        ip("link", "set", "tunx", "netns", other_netns, "name", "tuny")
        assert told(view, "name") == [("name", "tuny")]
        assert device.name == "tuny"


class TestEnd:
    @pytest.mark.parametrize("by", ["us", "ip"])
    def test_of_the_interface(self, make, ip, by):
        device, view = make(up=False)
        device.mtu = 1400
        tuntap.delete(device.name) if by == "us" else ip("link", "del", device.name)
        assert view.get() == ("mtu", 1400)
        assert told(view, "gone") == [("gone", None)]
        for _ in range(2):
            with pytest.raises(DeviceGoneError):
                view.get(0)
        with pytest.raises(DeviceGoneError):
            device.events()

    def test_of_the_interface_with_its_namespace(self, make, ip, eventually):
        device, view = make(up=False)
        own = os.readlink("/proc/self/ns/net")
        with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as process:
            try:
                eventually(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != own)
                ip("link", "set", device.name, "netns", process.pid)
            finally:
                process.kill()
        assert told(view, "gone")[-1] == ("gone", None)

    def test_iteration_ends_behind_gone(self, tun):
        events = tun.events()
        thread = CallThread(list, events).wait_until_blocked()
        tuntap.delete(tun.name)
        thread.join(PATIENCE)
        assert thread.result[-1] == ("gone", None)
        assert list(events) == []

    def test_asynchronous_iteration_ends_behind_gone(self, net):
        async def run():
            async with aio.Tun(quiet=True) as tun:
                task = asyncio.create_task(collect(tun.events()))
                await asyncio.sleep(0.01)
                tuntap.delete(tun.name)
                return await asyncio.wait_for(task, PATIENCE)

        async def collect(events):
            return [event async for event in events]

        assert asyncio.run(run())[-1] == ("gone", None)

    @pytest.mark.parametrize("end", ["close", "shutdown"])
    def test_iteration_ends_with_the_device(self, tun, end):
        events = tun.events()
        thread = CallThread(lambda: [event.kind for event in events]).wait_until_blocked()
        getattr(tun, end)()
        thread.join(PATIENCE)
        assert set(thread.result) <= {"running", "not_running"}
        with pytest.raises(ClosedError):
            events.get()
        assert list(events) == []

    @pytest.mark.parametrize("end", ["close", "shutdown"])
    def test_asynchronous_iteration_ends_with_the_device(self, net, end):
        async def run():
            tun = aio.Tun(quiet=True, up=False)
            events = tun.events()

            async def collect():
                return [event async for event in events]

            tasks = [asyncio.create_task(collect()) for _ in range(2)]
            await asyncio.sleep(0.01)
            getattr(tun, end)()
            found = await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
            with pytest.raises(ClosedError):
                await events.get()
            tun.close()
            return found

        assert asyncio.run(run()) == [[], []]

    def test_what_was_not_told_yet_is_not_told_after_the_end(self, make):
        device, view = make(up=False)
        device.mtu = 1400
        device.close()
        with pytest.raises(ClosedError):
            view.get(0)

    def test_a_device_that_is_closed(self, make):
        device, _ = make()
        device.close()
        with pytest.raises(ClosedError):
            device.events()

    def test_an_interrupt_ends_the_wait_and_no_more(self, net):
        with Tun(up=False, quiet=True) as tun:
            view = Sync(tun)
            thread = CallThread(view.get, None).wait_until_blocked()
            tun.interrupt()
            thread.join(PATIENCE)
            assert isinstance(thread.error, InterruptError)
            tun.mtu = 1400
            assert view.get() == ("mtu", 1400)

    def test_an_interrupt_before_it_does_not_keep_back_an_event(self, make):
        device, view = make(up=False)
        device.interrupt()
        device.mtu = 1400
        assert view.get() == ("mtu", 1400)
        with pytest.raises(InterruptError):
            view.get()
        with pytest.raises(TimeoutError):
            view.get(0.01)


class TestTime:
    @pytest.mark.parametrize("timeout", [0, 1e-9, 0.03])
    def test_is_over(self, make, timeout):
        device, view = make(up=False)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            view.get(timeout)
        assert time.monotonic() - begin >= timeout
        device.mtu = 1400
        assert view.get(timeout) == ("mtu", 1400)

    @pytest.mark.parametrize("timeout", [-1, -1e-9, float("nan"), float("-inf")])
    @pytest.mark.parametrize("is_there", [False, True])
    def test_that_is_none(self, make, timeout, is_there):
        device, view = make(up=False)
        if is_there:
            device.mtu = 1400
        with pytest.raises(ValueError, match="timeout"):
            view.get(timeout)
        assert rest(view) == [("mtu", 1400)] * is_there

    @pytest.mark.parametrize("timeout", ["1", True, b"", object()])
    def test_that_is_no_number(self, make, timeout):
        _, view = make(up=False)
        with pytest.raises(TypeError):
            view.get(timeout)

    def test_of_the_whole_call_although_others_change(self, net):
        with Tun(up=False, quiet=True) as tun, Tun(up=False, quiet=True) as other:
            view = Sync(tun)
            thread = CallThread(view.get, 0.3).wait_until_blocked()
            while thread.is_alive():
                other.mtu = 1400
                other.mtu = 1500
                time.sleep(0.002)
            assert isinstance(thread.error, TimeoutError)

    def test_a_descriptor_to_wait_on(self, make):
        device, view = make(up=False)
        assert select.select([view.events], [], [], 0)[0] == []
        device.mtu = 1400
        assert select.select([view.events], [], [], PATIENCE)[0] == [view.events]
        assert view.get(0) == ("mtu", 1400)
        with pytest.raises(TimeoutError):
            view.get(0)
        assert select.select([view.events], [], [], 0)[0] == []


class TestLost:
    """The kernel keeps some hundred notifications for a reader, and drops what comes then."""

    def flood(self, device):
        for i in range(3000):
            device.mtu = 1300 + i % 100

    def test_what_is_told_leads_to_what_is_so(self, make):
        device, view = make(addresses=["10.9.0.1/24", "10.9.1.1/24"])
        self.flood(device)
        device.mtu = 1450
        device.remove_address("10.9.1.1/24")
        device.add_address("10.9.2.1/24")
        device.name = "after9"
        device.down()
        events = rest(view)
        assert len(events) < 3000
        assert [event.value for event in events if event.kind == "mtu"][-1] == 1450
        assert [event for event in events if event.kind in ("up", "down")] == [("down", None)]
        assert [event for event in events if event.kind == "name"] == [("name", "after9")]
        assert [event for event in events if event.kind.startswith("address")] == [
            ("address_removed", ip_interface("10.9.1.1/24")),
            ("address_added", ip_interface("10.9.2.1/24")),
        ]
        device.mtu = 1460
        assert view.get() == ("mtu", 1460)
        assert rest(view) == []

    def test_an_end_among_them(self, make):
        device, view = make(up=False)
        self.flood(device)
        tuntap.delete(device.name)
        assert told(view, "gone")[-1] == ("gone", None)

    def test_a_move_among_them(self, make, ip, other_netns):
        device, view = make(Tun, "tunx", up=False)
        self.flood(device)
        ip("link", "set", "tunx", "netns", other_netns)
        ip("link", "set", "tunx", "mtu", 1450, netns=other_netns)
        events = rest(view)
        assert events[-1] == ("mtu", 1450)
        ip("link", "set", "tunx", "mtu", 1460, netns=other_netns)
        assert view.get() == ("mtu", 1460)

    def test_while_they_are_read(self, net):
        with Tun(up=False, quiet=True) as tun:
            view = Sync(tun)
            thread = CallThread(lambda: told(view, "up"))
            for _ in range(3):
                self.flood(tun)
            tun.mtu = 1450
            tun.up()
            thread.join(PATIENCE)
            assert [event for event in thread.result if event.kind == "mtu"][-1] == ("mtu", 1450)

    def test_a_look_that_fails_is_taken_again(self, net, monkeypatch):
        with Tun(up=False, quiet=True) as tun:
            view = Sync(tun)
            self.flood(tun)
            watch = tun._watch
            monkeypatch.setattr(tun, "_watch", lambda: os.open("/nowhere", os.O_RDONLY))
            with pytest.raises(FileNotFoundError):
                view.get()
            monkeypatch.setattr(tun, "_watch", watch)
            tun.mtu = 1450
            assert rest(view)[-1] == ("mtu", 1450)


class TestKinds:
    def test_a_socket_has_no_interface(self, net):
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with other, Tun.from_fd(one.detach()) as tun, pytest.raises(UnsupportedError):
            tun.events()

    @pytest.mark.parametrize("owned", [False, True])
    def test_an_adopted_descriptor(self, ip, raw, owned):
        fd = raw.attach("raw9", raw.TUN | raw.NO_PI)
        if owned:
            raw.forget(fd)
        with Tun.from_fd(fd, owned=owned) as tun:
            view = Sync(tun)
            ip("link", "set", "raw9", "mtu", 1400)
            assert view.get() == ("mtu", 1400)
            ip("link", "del", "raw9")
            assert told(view, "gone")[-1] == ("gone", None)

    def test_a_device_with_queues(self, ip):
        with Tun(queues=2, up=False, quiet=True) as tun:
            view = Sync(tun)
            tun.queues[1].close()
            tun.mtu = 1400
            assert told(view, "mtu")[-1] == ("mtu", 1400)

    def test_an_ordinary_user(self, as_user, make_persistent, public_dev_net):
        make_persistent("p9", "tun", "user", USER)

        def body():
            with Tun("p9") as tun:
                return next(event.kind for event in tun.events() if event.kind == "mtu")

        change = "while ip link set p9 mtu 1400 && ip link set p9 mtu 1401; do sleep 0.01; done"
        root = subprocess.Popen(["sh", "-c", change], stderr=subprocess.DEVNULL)
        try:
            assert as_user(body) == "mtu"
        finally:
            root.kill()
            root.wait()


class TestResources:
    def test_many_views_leave_nothing_open(self, make):
        device, view = make(up=False)
        assert rest(view) == []  # the loop has its own descriptors by now
        before = len(os.listdir("/proc/self/fd"))
        for i in range(20):
            events = device.events()
            device.mtu = 1400 + i
            assert view.get() == ("mtu", 1400 + i)
            assert select.select([events], [], [], PATIENCE)[0]
            del events
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_view_that_outlives_its_device(self, net):
        before = len(os.listdir("/proc/self/fd"))
        views = []
        for _ in range(5):
            with Tun(up=False, quiet=True) as tun:
                views.append(tun.events())
        for view in views:
            with pytest.raises(ClosedError):
                view.get()
        del tun, view
        views.clear()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_no_descriptor_left(self, net):
        with Tun(up=False, quiet=True) as tun:
            before = len(os.listdir("/proc/self/fd"))
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
            try:
                with pytest.raises(OSError) as caught:
                    tun.events()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert caught.value.errno == errno.EMFILE
            assert len(os.listdir("/proc/self/fd")) == before
            events = tun.events()
            tun.mtu = 1400
            assert events.get() == ("mtu", 1400)

    def test_views_in_a_thread_each_while_others_change(self, net):
        with Tun(up=False, quiet=True) as tun:
            threads = [CallThread(lambda view: told(view, "up"), Sync(tun)) for _ in range(3)]
            for mtu in range(1400, 1450):
                tun.mtu = mtu
            tun.up()
            for thread in threads:
                thread.join(PATIENCE)
                assert [event.value for event in thread.result if event.kind == "mtu"] == list(
                    range(1400, 1450)
                )

    def test_a_blocked_view_lets_settings_and_packets_through(self, tun, eventually):
        eventually(lambda: tun.is_running)
        thread = CallThread(Sync(tun).get).wait_until_blocked()
        receiver = CallThread(tun.recv, PATIENCE).wait_until_blocked()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            tun.add_address("10.9.0.1/24")
            sock.sendto(b"x", ("10.9.0.2", 9))
        receiver.join(PATIENCE)
        assert receiver.result[-1:] == b"x"
        thread.join(PATIENCE)
        assert thread.result == ("address_added", ip_interface("10.9.0.1/24"))


class TestFork:
    def test_parent_and_child_are_told_everything_each(self, make):
        device, view = make(up=False)
        ready, go = os.pipe()

        def child():
            os.read(ready, 1)
            device.mtu = 1401
            assert rest(view) == [("mtu", 1401)]  # it looks anew
            device.mtu = 1402
            assert view.get() == ("mtu", 1402)

        pid = fork(child)
        device.mtu = 1400
        os.write(go, b"!")
        reap(pid)
        os.close(ready)
        os.close(go)
        assert [view.get().value for _ in range(3)] == [1400, 1401, 1402]
        assert rest(view) == []

    def test_a_child_that_closes_ends_no_view_of_the_parent(self, tun, eventually):
        view = Sync(tun)
        rest(view)
        thread = CallThread(lambda: told(view, "mtu")).wait_until_blocked()
        reap(fork(tun.close))
        tun.mtu = 1400
        thread.join(PATIENCE)
        assert thread.result[-1] == ("mtu", 1400)
