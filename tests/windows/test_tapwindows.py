"""A TAP by tap-windows6, or a TUN: its life, its packets, and what the driver does by itself (fake_tap.c)."""

import asyncio
import contextlib
import socket
import struct
import threading
import time

import pytest
import trio
from fake_tap import Driver

import tuntap
from tuntap import DhcpLease, PacketBatch, Tap, Tun, _core, aio

FRAME = bytes.fromhex("02005e005307 02005e005308 0800") + bytes(46)
ABORTED, GEN_FAILURE = 995, 31
NEW = ["SetupDiCreateDeviceInfo Net 1", r"SetupDiSetDeviceRegistryProperty 1 root\tap0901"]
INSTALLED = [*NEW, "DIF_SELECTBESTCOMPATDRV", "DIF_REGISTERDEVICE", "DIF_INSTALLDEVICE"]


def numbered(number, size=60):
    return FRAME[:14] + number.to_bytes(4, "big") + bytes(size - 18)


def traffic(driver, number, is_over):
    """The network stack sends and receives."""
    while not is_over.is_set():
        driver.inject(number, FRAME)
        driver.take(number)


def control(number):
    """CTL_CODE(FILE_DEVICE_UNKNOWN, number, METHOD_BUFFERED, FILE_ANY_ACCESS)."""
    return f"DeviceIoControl {0x22 << 16 | 0 << 14 | number << 2 | 0:08x}"


def media(is_up):
    """The cable goes in or out: a ULONG, and room for an answer."""
    return f"{control(6)} {struct.pack('<I', is_up).hex()} 4"


@pytest.fixture
def driver(ip):
    driver = Driver()
    driver.reset()
    yield driver
    assert driver.faults() == (0, "")
    assert driver.reset() == 0, "files, sets, keys or operations were left"


@pytest.fixture
def number(driver):
    """A TAP that is there."""
    return driver.add("Ethernet 2")


@pytest.fixture
def tap(driver, number):
    with Tap("Ethernet 2", up=True) as tap:
        yield tap


class TestLife:
    def test_calls(self, driver, number):
        with Tap("Ethernet 2", up=True) as tap:
            path = rf"\\.\Global\{driver.state(number).id}.tap"
            assert driver.calls() == [
                f"CreateFile {path} c0000000 0 3 40000004",
                f"{control(2)} {bytes(12).hex()} 12",
                media(True),
                "ReadFile 65554",
            ]
            assert (tap.name, tap.is_up, tap.persist) == ("Ethernet 2", True, True)
            assert (tap.driver_version, tap.luid) == ((9, 24), driver.state(number).luid)
        assert driver.calls() == [media(False), "CancelIoEx read", "CloseHandle"]
        assert driver.state(number).is_present

    def test_requests_that_take_their_time(self, driver, number):
        driver.options(slow=True)
        with Tap("Ethernet 2", up=True) as tap:
            assert tap.driver_version == (9, 24)
            assert driver.state(number).media

    def test_a_name_of_other_case(self, driver, number):
        with Tap("ETHERNET 2") as tap:
            assert tap.name == "Ethernet 2"

    def test_the_first_that_is_free(self, driver):
        numbers = [driver.add(f"Ethernet {i}") for i in range(3)]
        driver.do(numbers[0], "open")
        with Tap() as first, Tap() as second:
            assert [first.name, second.name] == ["Ethernet 1", "Ethernet 2"]
        driver.do(numbers[0], "close")

    @pytest.mark.parametrize(
        ("hardware", "is_tap"),
        [
            (("tap0901",), True), (("TAP0901",), True), (("Root\\Tap0901",), True),
            (("other", "tap0901"), True),
            (("tap0801",), False), (("tap09011",), False), (("root\\tap",), False), (("wintun",), False),
            (("PCI\\VEN_8086&DEV_100E", "PCI\\CC_0200"), False),
        ],
    )  # fmt: skip
    def test_which_devices_are_taps(self, driver, hardware, is_tap):
        driver.add("Ethernet 2", hardware)
        assert tuntap.interfaces() == (["Ethernet 2"] if is_tap or hardware == ("wintun",) else [])
        if is_tap:
            Tap("Ethernet 2").close()
        else:
            with pytest.raises(tuntap.DeviceBusyError):
                Tap("Ethernet 2")
            assert not [call for call in driver.calls() if call.startswith("CreateFile")]

    def test_a_new_one(self, driver):
        other = driver.add("Ethernet 2")
        with Tap("My TAP") as tap:
            assert (tap.name, tap.persist) == ("My TAP", False)
            assert driver.calls()[:5] == INSTALLED
            made = driver.state(1)
            assert (made.is_present, made.is_open) == (1, 1)
        assert driver.calls()[-1] == f"DIF_REMOVE {made.id}"
        assert (driver.state(1).is_present, driver.state(other).is_present) == (0, 1)

    def test_names_by_pattern(self, driver, ip):
        ip.interface("vpn0")
        with Tap("vpn%d") as first, Tap("vpn%d") as second:
            assert [first.name, second.name] == ["vpn1", "vpn2"]

    def test_one_that_lasts(self, driver):
        with Tap("My TAP", persist=True):
            pass
        assert driver.state(0).is_present
        assert tuntap.interfaces() == ["My TAP"]

    def test_deletion(self, driver, number):
        other = driver.add("Ethernet 3")
        tuntap.delete("Ethernet 3")
        assert (driver.state(number).is_present, driver.state(other).is_present) == (1, 0)
        with pytest.raises(tuntap.TunTapError):
            tuntap.delete("Ethernet 3")

    def test_exclusive(self, driver, number):
        with pytest.raises(tuntap.DeviceBusyError):
            Tap("Ethernet 2", exclusive=True)
        with Tap(exclusive=True) as tap:
            assert tap.name != "Ethernet 2"

    def test_one_that_another_program_has(self, driver, number):
        driver.do(number, "open")
        with pytest.raises(tuntap.DeviceBusyError) as caught:
            Tap("Ethernet 2")
        assert caught.value.winerror == GEN_FAILURE
        assert "CreateFile(.tap)" in str(caught.value)
        driver.do(number, "close")

    def test_one_that_is_disabled(self, driver, number):
        driver.do(number, "disable")
        with pytest.raises(tuntap.DeviceGoneError):
            Tap("Ethernet 2")

    def test_no_driver(self, driver):
        driver.fail("DIF_SELECTBESTCOMPATDRV", 0xE0000228)
        with pytest.raises(tuntap.UnsupportedError, match="tap-windows6"):
            Tap("My TAP")

    def test_rights(self, driver):
        driver.fail("DIF_REGISTERDEVICE", 5)
        with pytest.raises(tuntap.PrivilegeError, match="administrator"):
            Tap("My TAP")

    @pytest.mark.parametrize(
        "function",
        [
            "SetupDiCreateDeviceInfoList", "SetupDiCreateDeviceInfoW", "SetupDiSetDeviceRegistryPropertyW",
            "SetupDiBuildDriverInfoList", "DIF_SELECTBESTCOMPATDRV", "DIF_INSTALLDEVICE",
        ],
    )  # fmt: skip
    def test_what_fails_leaves_nothing(self, driver, function):
        driver.fail(function, 1450)
        with pytest.raises(tuntap.TunTapError) as caught:
            Tap("My TAP")
        assert caught.value.winerror == 1450
        assert not driver.state(0).is_present

    def test_a_driver_that_does_not_answer_leaves_nothing(self, driver):
        driver.fail("DeviceIoControl", 1450, 10_000)
        with pytest.raises(tuntap.TunTapError) as caught:
            Tap("My TAP")
        assert caught.value.winerror == 1450
        assert not driver.state(0).is_present

    def test_a_device_that_comes_slowly(self, driver):
        driver.options(id_delay=3, luid_delay=3, open_delay=3)
        with Tap("My TAP") as tap:
            assert tap.name == "My TAP"

    @pytest.mark.parametrize("what", ["id_delay", "luid_delay", "open_delay"])
    def test_a_device_that_never_comes(self, driver, what):
        driver.options(**{what: 1_000_000})
        start = time.monotonic()
        with pytest.raises(tuntap.TunTapError):
            Tap("My TAP")
        assert 4 < time.monotonic() - start < 30
        assert not driver.state(0).is_present

    def test_a_name_that_is_refused_leaves_nothing(self, driver, ip):
        ip.options(nci=False)
        with contextlib.suppress(tuntap.TunTapError):
            Tap("My TAP").close()
        assert not driver.state(0).is_present

    def test_quick_restarts(self, driver, number):
        for i in range(50):
            with Tap("Ethernet 2", up=True) as tap:
                assert driver.inject(number, numbered(i))
                assert tap.recv(timeout=5) == numbered(i)


class TestMac:
    def test_restart(self, driver, number, tap):
        """The driver reads its own value, as text, when its device starts."""
        driver.calls()
        tap.mac = "02:00:5e:00:53:0a"
        assert bytes(driver.state(number).mac) == bytes.fromhex("02005e00530a")
        calls = driver.calls()
        assert calls[0] == "RegSetValueEx MAC 1 02005E00530A 26"
        for earlier, later in [
            ("RegSetValueEx MAC 1 02005E00530A 26", "DIF_PROPERTYCHANGE disable"),
            (media(False), "CloseHandle"), ("CloseHandle", "DIF_PROPERTYCHANGE disable"),
            ("DIF_PROPERTYCHANGE disable", "DIF_PROPERTYCHANGE enable"),
            ("DIF_PROPERTYCHANGE enable", media(True)), (media(True), "ReadFile 65554"),
        ]:  # fmt: skip
            assert calls.index(earlier) < calls.index(later)
        assert driver.state(number).starts == 2
        assert driver.inject(number, FRAME)
        assert tap.recv(timeout=5) == FRAME

    def test_a_device_that_starts_slowly(self, driver, number, tap):
        driver.options(open_delay=3)
        tap.mac = "02:00:5e:00:53:0a"
        tap.send(FRAME)
        assert driver.take(number) == FRAME

    def test_under_a_receiver(self, driver, number, tap):
        received = []
        thread = threading.Thread(target=lambda: received.append(tap.recv(timeout=20)))
        thread.start()
        time.sleep(0.2)
        tap.mac = "02:00:5e:00:53:0a"
        assert driver.inject(number, FRAME)
        thread.join()
        assert received == [FRAME]

    @pytest.mark.parametrize("function", ["RegSetValueExW", "SetupDiOpenDevRegKey"])
    def test_a_value_that_is_refused(self, driver, number, tap, function):
        driver.fail(function, 5)
        with pytest.raises(tuntap.PrivilegeError):
            tap.mac = "02:00:5e:00:53:0a"
        assert driver.inject(number, FRAME)
        assert tap.recv(timeout=5) == FRAME


class TestFrames:
    @pytest.mark.parametrize("synchronous", [False, True])
    @pytest.mark.parametrize("size", [14, 15, 60, 1514, 9014, 65535])
    def test_every_size(self, driver, number, tap, size, synchronous):
        driver.options(synchronous=synchronous)
        frame = FRAME[:14] + bytes(i % 251 for i in range(size - 14))
        for _ in range(3):
            assert driver.inject(number, frame)
            assert tap.recv(timeout=5) == frame
            assert tap.send(frame) == size
            assert driver.take(number) == frame

    @pytest.mark.parametrize("synchronous", [False, True])
    def test_batches(self, driver, number, tap, synchronous):
        driver.options(synchronous=synchronous)
        batch = tap.batch(64)
        for i in range(100):
            assert driver.inject(number, numbered(i))
        assert tap.recv_batch(batch) == 64
        assert [bytes(frame) for frame in batch] == [numbered(i) for i in range(64)]
        assert tap.recv_batch(batch) == 36
        with pytest.raises(TimeoutError):
            tap.recv_batch(batch, timeout=0)
        batch.fill([numbered(i) for i in range(64)])
        assert tap.send_batch(batch) == 64
        assert [driver.take(number) for _ in range(64)] == [numbered(i) for i in range(64)]

    @pytest.mark.parametrize("synchronous", [False, True])
    def test_a_selection(self, driver, number, tap, synchronous):
        """Of frames that lie apart; one that is too short does no harm where it is not selected."""
        driver.options(synchronous=synchronous)
        batch = PacketBatch(5, 60)
        batch.fill([bytes(13), *map(numbered, range(1, 5))])
        assert tap.send_batch(batch, where=[False, True, False, True, True]) == 3
        assert tap.send_batch(batch, where=[4, 4, 0, 2]) == 2
        with pytest.raises(tuntap.PacketError):
            tap.send_batch(batch, where=[4, 4, 0, 2], start=2)
        assert tap.send_batch(batch, where=[4, 4, 0, 2], start=3) == 1
        frames = [driver.take(number) for _ in range(7)]
        assert frames == [*map(numbered, (1, 3, 4, 4, 4, 2)), None]

    def test_what_does_not_fit_its_slot_is_cut(self, driver, number, tap):
        batch = PacketBatch(4, 40)
        for size in (30, 60, 40):
            driver.inject(number, numbered(7, size))
        assert tap.recv_batch(batch) == 3
        assert batch.truncated == (1,)
        assert list(batch.lengths[:3]) == [30, 40, 40]

    def test_what_the_driver_could_not_hand_over_is_lost_alone(self, driver, number, tap):
        for frame in (numbered(1), numbered(2, 70000), numbered(3)):
            driver.inject(number, frame)
        assert [tap.recv(timeout=5), tap.recv(timeout=5)] == [numbered(1), numbered(3)]

    @pytest.mark.parametrize("size", [1, 13])
    def test_less_than_a_header_does_not_reach_the_driver(self, driver, number, tap, size):
        driver.calls()
        with pytest.raises(tuntap.PacketError):
            tap.send(bytes(size))
        batch = PacketBatch(3, 100)
        batch.fill([FRAME, bytes(size), FRAME])
        assert tap.send_batch(batch) == 1
        with pytest.raises(tuntap.PacketError):
            tap.send_batch(batch, start=1)
        assert tap.send_batch(batch, start=2) == 1
        assert driver.calls() == ["WriteFile 60"] * 2
        assert [driver.take(number), driver.take(number)] == [FRAME, FRAME]

    def test_order_of_writes_that_the_driver_keeps(self, driver, number, tap):
        driver.options(holds=True)
        batch = PacketBatch(100, 60)
        batch.fill([numbered(i) for i in range(100)])
        is_over = threading.Event()

        def complete():
            while not is_over.is_set():
                driver.complete(number)
                time.sleep(0.001)

        thread = threading.Thread(target=complete)
        thread.start()
        sent = 0
        while sent < 100:
            sent += tap.send_batch(batch, start=sent, timeout=5)
        is_over.set()
        thread.join()
        driver.complete(number)
        assert [driver.take(number) for _ in range(101)] == [*(numbered(i) for i in range(100)), None]

    def test_a_write_that_is_kept_is_waited_for(self, driver, number, tap):
        driver.options(holds=True)
        tap.send(numbered(1))
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            tap.send(numbered(2), timeout=0.3)
        with pytest.raises(TimeoutError):
            tap.wait_writable(timeout=0)
        assert 0.25 < time.monotonic() - start < 3
        threading.Timer(0.2, driver.complete, (number,)).start()
        tap.send(numbered(2), timeout=5)
        driver.complete(number)
        assert [driver.take(number), driver.take(number)] == [numbered(1), numbered(2)]

    def test_what_became_of_a_frame_is_told_by_the_next_call(self, driver, number, tap):
        driver.options(holds=True)
        tap.send(numbered(1))
        driver.complete(number, 1450)
        with pytest.raises(tuntap.TunTapError) as caught:
            tap.send(numbered(2), timeout=5)
        assert caught.value.winerror == 1450
        tap.send(numbered(3), timeout=5)
        driver.complete(number)
        assert [driver.take(number), driver.take(number)] == [numbered(3), None]

    def test_a_write_that_is_refused(self, driver, number, tap):
        driver.fail("WriteFile", 1450)
        with pytest.raises(tuntap.TunTapError) as caught:
            tap.send(FRAME)
        assert caught.value.winerror == 1450
        tap.send(FRAME)
        assert driver.take(number) == FRAME

    def test_looking_takes_nothing(self, driver, number, tap):
        with pytest.raises(TimeoutError):
            tap.wait_readable(timeout=0)
        driver.inject(number, FRAME)
        for _ in range(3):
            tap.wait_readable(timeout=1)
        assert tap.recv(timeout=0) == FRAME
        with pytest.raises(TimeoutError):
            tap.wait_readable(timeout=0.01)
        tap.wait_writable(timeout=0)

    def test_each_frame_goes_to_one_thread(self, driver, number, tap):
        received, lock = [], threading.Lock()

        def receive():
            while True:
                try:
                    frame = tap.recv(timeout=2)
                except TimeoutError:
                    return
                with lock:
                    received.append(frame)

        threads = [threading.Thread(target=receive) for _ in range(4)]
        for thread in threads:
            thread.start()
        for i in range(1000):
            while not driver.inject(number, numbered(i)):
                time.sleep(0.001)
        for thread in threads:
            thread.join()
        assert sorted(received) == [numbered(i) for i in range(1000)]


class TestDown:
    def test_down_and_up(self, driver, number, tap):
        tap.down()
        assert (tap.is_up, driver.state(number).media) == (False, 0)
        with pytest.raises(tuntap.LinkDownError):
            tap.send(FRAME)
        with pytest.raises(TimeoutError):
            tap.recv(timeout=0.1)
        received = []
        thread = threading.Thread(target=lambda: received.append(tap.recv(timeout=10)))
        thread.start()
        time.sleep(0.1)
        tap.up()
        assert driver.inject(number, FRAME)
        thread.join()
        assert received == [FRAME]
        tap.wait_writable(timeout=1)
        tap.send(FRAME)
        assert driver.take(number) == FRAME

    def test_never_up(self, driver, number):
        with Tap("Ethernet 2", up=False) as tap:
            assert not tap.is_up
            with pytest.raises(tuntap.LinkDownError):
                tap.send(FRAME)
            with pytest.raises(TimeoutError):
                tap.recv(timeout=0.05)
            assert not [call for call in driver.calls() if call.startswith("ReadFile")]

    def test_down_while_the_driver_keeps_a_write(self, driver, number, tap):
        driver.options(holds=True)
        tap.send(numbered(1))
        tap.down()
        with pytest.raises(tuntap.LinkDownError):
            tap.send(numbered(2), timeout=1)
        tap.up()
        driver.complete(number)
        tap.send(numbered(2), timeout=5)
        driver.complete(number)
        assert [driver.take(number), driver.take(number)] == [numbered(1), numbered(2)]

    def test_a_wait_while_it_is_down_does_not_spin(self, driver, number, tap):
        tap.send(FRAME)  # its event stays set
        tap.down()
        start = time.process_time()
        with pytest.raises(TimeoutError):
            tap.wait_writable(timeout=1)
        assert time.process_time() - start < 0.5

    def test_a_frame_from_before(self, driver, number, tap):
        driver.inject(number, FRAME)
        tap.down()
        assert tap.recv(timeout=1) == FRAME


class TestRemoval:
    @pytest.mark.parametrize("how", ["disable", "remove"])
    def test_under_receivers(self, driver, number, tap, how):
        outcomes = []

        def receive():
            try:
                tap.recv(timeout=20)
            except Exception as error:
                outcomes.append(error)

        threads = [threading.Thread(target=receive) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        start = time.monotonic()
        driver.do(number, how)
        for thread in threads:
            thread.join(10)
        assert time.monotonic() - start < 3
        assert [type(error) for error in outcomes] == [tuntap.DeviceGoneError] * 3
        assert outcomes[0].winerror == ABORTED
        with pytest.raises(tuntap.DeviceGoneError):
            tap.send(FRAME)
        tap.wait_readable(timeout=1)  # broken, which a receive tells
        with pytest.raises(tuntap.DeviceGoneError):
            tap.recv(timeout=1)

    def test_a_cancelled_read_is_begun_again(self, driver, number, tap):
        driver.abort(number)
        with pytest.raises(TimeoutError):
            tap.recv(timeout=0.05)
        assert driver.inject(number, FRAME)
        assert tap.recv(timeout=5) == FRAME

    def test_a_device_that_is_back(self, driver, number, tap):
        """As after sleep."""
        driver.do(number, "disable")
        with pytest.raises(tuntap.DeviceGoneError):
            tap.recv(timeout=5)
        driver.do(number, "enable")
        with pytest.raises(TimeoutError):
            tap.recv(timeout=0.05)
        assert driver.inject(number, FRAME)
        assert tap.recv(timeout=5) == FRAME


class TestClose:
    """What the driver has is not freed: fake_tap.c looks."""

    def test_while_a_write_goes_its_way(self, driver, number):
        driver.options(holds=True)
        tap = Tap("Ethernet 2", up=True)
        tap.send(FRAME)
        threading.Timer(0.3, driver.complete, (number,)).start()
        start = time.monotonic()
        tap.close()
        assert 0.2 < time.monotonic() - start < 5
        assert driver.take(number) == FRAME
        assert not driver.state(number).is_open

    def test_a_driver_that_gives_nothing_back(self, driver, number):
        driver.options(holds=True, stubborn=True)
        tap = Tap("Ethernet 2", up=True)
        tap.send(FRAME)
        start = time.monotonic()
        tap.close()
        assert time.monotonic() - start < 15
        assert (driver.state(number).reads, driver.state(number).writes) == (1, 1)
        # It writes where the core has left its buffers, and its events.
        assert driver.complete(number)
        assert driver.abort(number)
        assert driver.take(number) == FRAME
        assert not driver.state(number).is_open
        driver.options()
        Tap("Ethernet 2").close()

    @pytest.mark.parametrize("end", ["close", "shutdown"])
    def test_under_receivers(self, driver, number, end):
        tap = Tap("Ethernet 2", up=True)
        outcomes = []

        def receive():
            try:
                tap.recv()
            except Exception as error:
                outcomes.append(type(error))

        threads = [threading.Thread(target=receive) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        getattr(tap, end)()
        for thread in threads:
            thread.join(10)
        assert outcomes == [tuntap.ClosedError] * 4
        tap.close()

    @pytest.mark.parametrize("synchronous", [False, True])
    def test_under_threads(self, driver, number, synchronous):
        driver.options(synchronous=synchronous)

        def work(call, outcomes):
            while True:
                try:
                    call()
                except TimeoutError:
                    pass
                except Exception as error:
                    outcomes.append(type(error))
                    return

        for _ in range(30):
            tap = Tap("Ethernet 2", up=True)
            outcomes, is_over = [], threading.Event()
            calls = [
                lambda tap=tap: tap.recv(timeout=0.001), tap.recv,
                lambda tap=tap: tap.send(FRAME, timeout=0.001), lambda tap=tap: tap.send(FRAME),
            ]  # fmt: skip
            threads = [threading.Thread(target=work, args=(call, outcomes)) for call in calls]
            stack = threading.Thread(target=traffic, args=(driver, number, is_over))
            for thread in [*threads, stack]:
                thread.start()
            time.sleep(0.01)
            tap.close()
            is_over.set()
            for thread in [*threads, stack]:
                thread.join(10)
            assert outcomes == [tuntap.ClosedError] * 4
            while driver.take(number):
                pass

    def test_down_and_up_under_threads(self, driver, number, tap):
        is_over, problems = threading.Event(), []
        counts = {"received": 0, "sent": 0}

        def work(call, key):
            while not is_over.is_set():
                try:
                    call()
                    counts[key] += 1
                except (TimeoutError, tuntap.LinkDownError):
                    pass
                except Exception as error:
                    problems.append(error)
                    return

        calls = [
            (lambda: tap.recv(timeout=0.01), "received"),
            (lambda: tap.send(FRAME, timeout=0.01), "sent"),
        ]
        threads = [threading.Thread(target=work, args=call) for call in calls * 2]
        threads.append(threading.Thread(target=traffic, args=(driver, number, is_over)))
        for thread in threads:
            thread.start()
        try:
            for _ in range(200):
                tap.down()
                tap.up()
        finally:
            is_over.set()
            for thread in threads:
                thread.join(30)
        assert not problems
        assert min(counts.values()) > 0


class TestLoops:
    @pytest.fixture(params=["proactor", "selector", "trio"])
    def run(self, request):
        def on_asyncio(main):
            loop = asyncio.ProactorEventLoop if request.param == "proactor" else asyncio.SelectorEventLoop
            with asyncio.Runner(loop_factory=loop) as runner:
                return runner.run(main())

        return trio.run if request.param == "trio" else on_asyncio

    def test_frames(self, driver, number, run):
        async def main():
            async with aio.Tap("Ethernet 2", up=True) as tap:
                threading.Timer(0.2, driver.inject, (number, FRAME)).start()
                assert await tap.recv(timeout=10) == FRAME
                driver.options(holds=True)
                await tap.send(numbered(1))
                threading.Timer(0.2, driver.complete, (number,)).start()
                await tap.send(numbered(2), timeout=10)
                driver.complete(number)
            assert [driver.take(number), driver.take(number)] == [numbered(1), numbered(2)]

        run(main)

    def test_removal(self, driver, number, run):
        async def main():
            async with aio.Tap("Ethernet 2", up=True) as tap:
                threading.Timer(0.2, driver.do, (number, "remove")).start()
                for _ in range(2):
                    with pytest.raises(tuntap.DeviceGoneError):
                        await tap.recv(timeout=10)

        run(main)


LEASE = DhcpLease("10.8.0.2/24")


def masquerade(ip, mask, server, seconds):
    """The driver plays a DHCP server: addresses as on the wire, the time as in the host."""
    told = b"".join(map(socket.inet_aton, (ip, mask, server))) + struct.pack("<I", seconds)
    return f"{control(7)} {told.hex()} 16"


LENT = masquerade("10.8.0.2", "255.255.255.0", "10.8.0.0", 31_536_000)


def addresses(device):
    return sorted(map(str, device.addresses))


class TestDhcp:
    def test_calls(self, driver, number):
        with Tap("Ethernet 2", up=True, dhcp=LEASE) as tap:
            assert driver.calls()[2:] == [LENT, media(True), "ReadFile 65554"]
            assert addresses(tap) == ["10.8.0.2/24"]

    def test_nothing_unless_asked(self, driver, number, tap):
        assert not [call for call in driver.calls() if call.startswith((control(7), control(9)))]
        assert not driver.state(number).plays_dhcp

    def test_options(self, driver, number):
        lease = DhcpLease(
            "10.8.0.2/24", dns=["10.8.0.1", "9.9.9.9"], wins=["10.8.0.3"], domain="example.org",
            options={46: b"\x02"},
        )  # fmt: skip
        expected = bytes.fromhex("0608 0a080001 09090909  2c04 0a080003  0f0b") + b"example.org\x2e\x01\x02"
        with Tap("Ethernet 2", up=True, dhcp=lease) as tap:
            set_options = f"{control(9)} {expected.hex()} {len(expected)}"
            assert driver.calls()[2:] == [LENT, set_options, media(True), "ReadFile 65554"]
            state = driver.state(number)
            assert bytes(state.options[: state.options_size]) == expected
            assert addresses(tap) == ["10.8.0.2/24"]

    @pytest.mark.parametrize(
        ("address", "server", "seconds", "told"),
        [
            ("10.8.0.2/24", "10.8.0.254", 3600, ("10.8.0.2", "255.255.255.0", "10.8.0.254", 3600)),
            ("10.8.1.1/23", None, 1, ("10.8.1.1", "255.255.254.0", "10.8.0.0", 1)),
            ("10.1.2.3/8", None, 2**32 - 1, ("10.1.2.3", "255.0.0.0", "10.0.0.0", 2**32 - 1)),
            ("192.0.2.5/30", "192.0.2.6", 60, ("192.0.2.5", "255.255.255.252", "192.0.2.6", 60)),
            ("192.0.2.5/31", None, 60, ("192.0.2.5", "255.255.255.254", "192.0.2.4", 60)),
            ("192.0.2.5/255.255.255.0", None, 60, ("192.0.2.5", "255.255.255.0", "192.0.2.0", 60)),
        ],
    )
    def test_every_value(self, driver, number, address, server, seconds, told):
        with Tap("Ethernet 2", up=True, dhcp=DhcpLease(address, server, seconds)) as tap:
            assert masquerade(*told) in driver.calls()
            assert [address.ip.compressed for address in tap.addresses] == [told[0]]

    def test_each_time_the_cable_comes_in(self, driver, number):
        with Tap("Ethernet 2", dhcp=LEASE) as tap:
            assert LENT not in driver.calls()
            assert addresses(tap) == []
            for _ in range(2):
                tap.up()
                assert driver.calls()[:2] == [LENT, media(True)]
                assert addresses(tap) == ["10.8.0.2/24"]
                driver.calls()
                tap.down()
                assert driver.calls()[0] == media(False)
                assert addresses(tap) == []

    def test_a_driver_that_was_opened_anew(self, driver, number):
        with Tap("Ethernet 2", up=True, dhcp=DhcpLease("10.8.0.2/24", dns=["9.9.9.9"])) as tap:
            driver.calls()
            tap.mac = "02:00:5e:00:53:0a"
            calls = driver.calls()
            told = [call for call in calls if call.startswith((control(7), control(9), control(6)))]
            assert told == [media(False), LENT, f"{control(9)} 060409090909 6", media(True)]
            assert calls.index("DIF_PROPERTYCHANGE enable") < calls.index(LENT)

    def test_windows_configures_nothing_else(self, driver, number, ip):
        """So it takes no administrator."""
        with Tap("Ethernet 2", up=True, dhcp=LEASE):
            assert not [call for call in ip.calls() if call.startswith(("Create", "Set", "Delete", "Nci"))]

    def test_beside_other_addresses(self, driver, number):
        with Tap("Ethernet 2", up=True, addresses=["fd00::1/64", "192.0.2.1/24"], dhcp=LEASE) as tap:
            assert addresses(tap) == ["10.8.0.2/24", "192.0.2.1/24", "fd00::1/64"]

    def test_options_as_long_as_the_answer_has_room(self, driver, number):
        with Tap("Ethernet 2", up=True, dhcp=DhcpLease("10.8.0.2/24", options={43: bytes(232)})) as tap:
            assert driver.state(number).options_size == 234
            assert addresses(tap) == ["10.8.0.2/24"]

    def test_more_options_than_the_driver_keeps(self, driver, number):
        """What Python has not looked at does not go past the room that the core has."""
        lease = (b"\n\x08\0\2", 24, b"\n\x08\0\0", 60, bytes(257))
        with pytest.raises(tuntap.TunTapError, match="DHCP options"):
            _core.Port()._open("Ethernet 2", 2, 0, -1, lease=lease)
        assert driver.calls() == []

    def test_options_that_are_too_long(self, driver, number):
        """The driver would take them, and answer Windows nothing."""
        with pytest.raises(ValueError, match="234"):
            Tap("Ethernet 2", dhcp=DhcpLease("10.8.0.2/24", options={43: bytes(233)}))
        assert driver.calls() == []

    def test_slow_requests(self, driver, number):
        driver.options(slow=True)
        with Tap("Ethernet 2", up=True, dhcp=DhcpLease("10.8.0.2/24", domain="x")) as tap:
            assert bytes(driver.state(number).options[:3]) == b"\x0f\x01x"
            assert addresses(tap) == ["10.8.0.2/24"]

    def test_windows_that_does_not_ask(self, driver, number):
        """As with an adapter that somebody gave a fixed address."""
        driver.lease_delay(-1)
        start = time.monotonic()
        with Tap("Ethernet 2", up=True, dhcp=LEASE) as tap:
            assert 4 < time.monotonic() - start < 20
            assert addresses(tap) == []
            assert driver.inject(number, FRAME)
            assert tap.recv(timeout=5) == FRAME

    @pytest.mark.parametrize(("request_", "name"), [(7, "CONFIG_DHCP_MASQ"), (9, "CONFIG_DHCP_SET_OPT")])
    def test_a_request_that_is_refused(self, driver, number, request_, name):
        with Tap("Ethernet 2", dhcp=DhcpLease("10.8.0.2/24", domain="x")) as tap:
            driver.fail(f"DeviceIoControl {request_}", 87)
            with pytest.raises(tuntap.TunTapError, match=name) as caught:
                tap.up()
            assert caught.value.winerror == 87
            assert (tap.is_up, driver.state(number).media) == (False, 0)
            tap.up()
            assert addresses(tap) == ["10.8.0.2/24"]

    def test_a_driver_that_does_not_know_it(self, driver):
        driver.fail("DeviceIoControl 7", 1)
        with pytest.raises(tuntap.UnsupportedError, match="CONFIG_DHCP_MASQ"):
            Tap("My TAP", dhcp=LEASE)
        assert not driver.state(0).is_present

    @pytest.mark.parametrize("value", ["10.8.0.2/24", True, {"address": "10.8.0.2/24"}, b"", object()])
    def test_what_is_no_lease(self, driver, number, value):
        with pytest.raises(TypeError, match="DhcpLease"):
            Tap("Ethernet 2", dhcp=value)
        assert driver.calls() == []

    def test_an_address_that_is_given_twice(self, driver, number):
        with pytest.raises(ValueError, match="twice"):
            Tap("Ethernet 2", addresses=["10.8.0.2/24"], dhcp=LEASE)
        assert driver.calls() == []

    def test_not_by_wintun(self, driver):
        with pytest.raises(ValueError, match="tap-windows6"):
            Tun(dhcp=LEASE)


def ipv4(size=20, last=0):
    return bytes((0x45, *bytes(15), 10, 8, 0, last)) + bytes(size - 20)


def ipv6(size=40):
    return b"\x60" + bytes(size - 1)


class TestTun:
    @pytest.fixture
    def tun(self, driver, number):
        with Tun("Ethernet 2", driver="tap-windows6", addresses=["10.8.0.2/24", "fd00::1/64"]) as tun:
            yield tun

    def frame(self, driver, number, packet):
        """What the network stack hands to the driver."""
        state = driver.state(number)
        return bytes(state.neighbour) + bytes(state.mac) + self.type_of(packet) + packet

    def type_of(self, packet):
        return b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\0"

    def arp(self, driver, number, sender, target):
        mac = bytes(driver.state(number).mac)
        packet = bytes.fromhex("0001 0800 06 04 0001") + mac + socket.inet_aton(sender)
        return bytes([255] * 6) + mac + b"\x08\x06" + packet + bytes(6) + socket.inet_aton(target)

    def solicitation(self, target):
        """Of IPv6 (RFC 4861), without an option."""
        head = b"\x60\0\0\0\0\x18\x3a\xff" + bytes(32) + b"\x87" + bytes(7)
        return bytes(12) + b"\x86\xdd" + head + socket.inet_pton(socket.AF_INET6, target)

    def local(self, driver, number):
        """Our address, and the network for which the driver answers, as it was told."""
        told = bytes(driver.state(number).tun)
        return tuple(socket.inet_ntoa(told[i : i + 4]) for i in (0, 4, 8))

    NOBODY = ("0.0.0.0", "255.255.255.255", "255.255.255.255")
    ANYBODY = ("0.0.0.0", "0.0.0.0")

    def test_calls(self, driver, number):
        with Tun("Ethernet 2", driver="tap-windows6") as tun:
            assert driver.calls()[1:] == [
                f"{control(2)} {bytes(12).hex()} 12",
                f"{control(10)} {'00' * 4}{'ff' * 8} 12",
                media(True),
                "ReadFile 65554",
            ]
            tun.add_address("10.8.0.2/24")
            assert driver.calls() == [f"{control(10)} 0a080002{'00' * 8} 12"]
            assert (tun.name, tun.is_up, tun.persist, tun.driver_version) == (
                "Ethernet 2",
                True,
                True,
                (9, 24),
            )
            assert driver.state(number).is_tun
        assert driver.calls() == [media(False), "CancelIoEx read", "CloseHandle"]
        assert driver.state(number).is_present

    def test_a_new_one(self, driver):
        with Tun("My TUN", driver="tap-windows6", addresses=["10.8.0.2/24"]) as tun:
            assert (tun.name, tun.is_up, tun.persist) == ("My TUN", True, False)
            assert self.local(driver, 0) == ("10.8.0.2", *self.ANYBODY)
        assert not driver.state(0).is_present

    def test_one_that_lasts(self, driver):
        with Tun("My TUN", driver="tap-windows6", persist=True):
            pass
        assert tuntap.interfaces() == ["My TUN"]
        with Tap("My TUN", up=True) as tap:
            assert not driver.state(0).is_tun
            assert driver.inject(0, FRAME)
            assert tap.recv(timeout=5) == FRAME

    def test_the_first_that_is_free(self, driver):
        numbers = [driver.add(f"Ethernet {i}") for i in range(2)]
        with Tap() as tap, Tun(driver="tap-windows6") as tun:
            assert [tap.name, tun.name] == ["Ethernet 0", "Ethernet 1"]
            assert [driver.state(number).is_tun for number in numbers] == [0, 1]

    def test_exclusive(self, driver, number):
        with pytest.raises(tuntap.DeviceBusyError):
            Tun("Ethernet 2", driver="tap-windows6", exclusive=True)

    @pytest.mark.parametrize("synchronous", [False, True])
    @pytest.mark.parametrize("packet", [ipv4(), ipv4(1500), ipv6(), ipv6(1500), ipv4(65535)])
    def test_packets(self, driver, number, tun, packet, synchronous):
        driver.options(synchronous=synchronous)
        for _ in range(3):
            assert driver.inject(number, self.frame(driver, number, packet))
            assert tun.recv(timeout=5) == packet
            assert tun.send(packet) == len(packet)
            state = driver.state(number)
            expected = bytes(state.mac) + bytes(state.neighbour) + self.type_of(packet) + packet
            assert driver.take(number) == expected

    def test_batches(self, driver, number, tun):
        batch = tun.batch(64)
        packets = [ipv4(30 + i, i) for i in range(64)]
        for packet in packets:
            assert driver.inject(number, self.frame(driver, number, packet))
        assert tun.recv_batch(batch) == 64
        assert [bytes(packet) for packet in batch] == packets
        assert tun.send_batch(batch) == 64
        assert [driver.take(number)[14:] for _ in range(64)] == packets

    @pytest.mark.parametrize(
        "packet", [b"\x45", ipv4()[:19], ipv6()[:39], bytes(40), FRAME, b"\x50" + bytes(39)]
    )
    def test_what_is_no_packet_does_not_reach_the_driver(self, driver, number, tun, packet):
        driver.calls()
        with pytest.raises(tuntap.PacketError):
            tun.send(packet)
        batch = PacketBatch(3, 100)
        batch.fill([ipv4(), packet, ipv4()])
        assert tun.send_batch(batch) == 1
        assert driver.calls() == ["WriteFile 20"]

    def test_what_slipped_in_is_left_out(self, driver, number, tun):
        """The driver hands out frames for the moment in which it is configured."""
        for what in (FRAME, bytes(20), ipv4()):
            driver.slip(number, what)
        assert tun.recv(timeout=5) == ipv4()
        with pytest.raises(TimeoutError):
            tun.recv(timeout=0)

    def test_arp(self, driver, number, tun):
        for target in ("10.8.0.1", "10.8.0.0", "192.0.2.1", "255.255.255.254"):
            assert driver.answers(number, self.arp(driver, number, "10.8.0.2", target))
        # Who looks for a duplicate must find none.
        for sender, target in [("0.0.0.0", "10.8.0.2"), ("10.8.0.2", "10.8.0.2"), ("0.0.0.0", "10.8.0.9")]:
            assert not driver.answers(number, self.arp(driver, number, sender, target))
        with pytest.raises(TimeoutError):
            tun.recv(timeout=0.05)

    def test_no_address(self, driver, number):
        with Tun("Ethernet 2", driver="tap-windows6"):
            assert self.local(driver, number) == self.NOBODY
            for target in ("10.8.0.2", "169.254.1.1", "0.0.0.0"):
                assert not driver.answers(number, self.arp(driver, number, "0.0.0.0", target))

    def test_which_address(self, driver, number, tun):
        assert self.local(driver, number) == ("10.8.0.2", *self.ANYBODY)
        tun.add_address("192.0.2.1/24")
        assert self.local(driver, number) == ("10.8.0.2", *self.ANYBODY)
        tun.remove_address("10.8.0.2/24")
        assert self.local(driver, number) == ("192.0.2.1", *self.ANYBODY)
        tun.remove_address("192.0.2.1/24")
        assert self.local(driver, number) == self.NOBODY

    def test_not_one_that_windows_makes_up(self, driver, number):
        with Tun("Ethernet 2", driver="tap-windows6", addresses=["169.254.7.7/16"]) as tun:
            assert self.local(driver, number)[0] == "169.254.7.7"
            tun.add_address("10.8.0.2/24")
            assert self.local(driver, number)[0] == "10.8.0.2"

    def test_an_address_that_is_there(self, driver, number):
        with Tun("Ethernet 2", driver="tap-windows6", addresses=["10.8.0.2/24"]):
            pass
        with Tun("Ethernet 2", driver="tap-windows6"):
            assert self.local(driver, number)[0] == "10.8.0.2"

    def test_point_to_point(self, driver, number, ip):
        with Tun("Ethernet 2", driver="tap-windows6", addresses=[("10.8.0.2", "10.8.0.1")]) as tun:
            assert [(str(one), str(one.peer)) for one in tun.addresses] == [("10.8.0.2/32", "10.8.0.1")]
            assert driver.answers(number, self.arp(driver, number, "10.8.0.2", "10.8.0.1"))
            assert "10.8.0.1/32 via 0.0.0.0" in ip.routes()

    def test_ipv6_goes_to_the_neighbour_of_the_driver(self, driver, number, tun, ip):
        assert ip.routes().count("fd00::/64 via fe80::8") == 1
        assert "CreateIpForwardEntry2 fd00::/64 via fe80::8 metric=0 0" in ip.calls()
        assert driver.answers(number, self.solicitation("fe80::8"))
        assert not driver.answers(number, self.solicitation("fd00::2"))
        assert "fd00::1/64" in addresses(tun)
        tun.add_address("fd00::5/64")
        tun.remove_address("fd00::1/64")
        assert ip.routes().count("fd00::/64 via fe80::8") == 1
        tun.remove_address("fd00::5/64")
        assert not [route for route in ip.routes() if route.startswith("fd00:")]

    def test_ipv6_point_to_point(self, driver, number, ip):
        with Tun("Ethernet 2", driver="tap-windows6", addresses=[("fd00::1", "fd00::2")]) as tun:
            assert "fd00::2/128 via fe80::8" in ip.routes()
            assert [str(one.peer) for one in tun.addresses] == ["fd00::2"]
            tun.remove_address(("fd00::1", "fd00::2"))
            assert not [route for route in ip.routes() if route.startswith("fd00:")]

    def test_ipv6_network_of_a_peer(self, driver, number, ip):
        with Tun("Ethernet 2", driver="tap-windows6", addresses=[("fd00::1", "fd00:7::2/64")]):
            assert "fd00:7::/64 via fe80::8" in ip.routes()

    @pytest.mark.parametrize(("address", "route"), [("fd00::1/64", False), ("fd00::1/128", True)])
    def test_ipv6_without_a_route(self, driver, number, ip, address, route):
        with Tun("Ethernet 2", driver="tap-windows6", addresses=[address], route=route):
            assert not [route for route in ip.routes() if "fe80::8" in route]

    def test_what_windows_makes_needs_no_route(self, driver, number, ip):
        ip.automatic(driver.state(number).luid, "fe80::1234/64")
        with Tun("Ethernet 2", driver="tap-windows6"):
            assert ip.routes() == []

    def test_routes(self, driver, number, tun, ip):
        before = ip.routes()
        added = [("2001:db8::/32", None), ("2001:db8:1::/48", "fd00::9"), ("192.0.2.0/24", None)]
        for network, gateway in added:
            tun.add_route(network, gateway)
        assert sorted(set(ip.routes()) - set(before)) == [
            "192.0.2.0/24 via 0.0.0.0", "2001:db8:1::/48 via fd00::9", "2001:db8::/32 via fe80::8",
        ]  # fmt: skip
        for network, gateway in added:
            tun.remove_route(network, gateway)
        assert ip.routes() == before

    def test_a_frame_is_led_as_ever(self, driver, number, ip):
        """What is of a TUN alone is not done to a TAP."""
        with Tap("Ethernet 2", up=True, addresses=["10.8.0.2/24", "fd00::1/64"]) as tap:
            tap.add_route("2001:db8::/32")
            assert not [route for route in ip.routes() if "fe80::8" in route]
            assert not [call for call in driver.calls() if call.startswith(control(10))]

    def test_an_address_whose_route_is_refused(self, driver, number, tun, ip):
        ip.fail("CreateIpForwardEntry2", 5)
        with pytest.raises(tuntap.PrivilegeError, match="CreateIpForwardEntry2"):
            tun.add_address("fd01::1/64")
        assert addresses(tun) == ["10.8.0.2/24", "fd00::1/64"]

    def test_an_address_that_the_driver_refuses(self, driver, number, tun):
        driver.fail("DeviceIoControl 10", 87)
        with pytest.raises(tuntap.TunTapError, match="CONFIG_TUN"):
            tun.add_address("192.0.2.1/24")
        assert addresses(tun) == ["10.8.0.2/24", "fd00::1/64"]

    def test_a_driver_that_does_not_know_it(self, driver):
        driver.fail("DeviceIoControl 10", 1, 10)
        with pytest.raises(tuntap.UnsupportedError, match="CONFIG_TUN"):
            Tun("My TUN", driver="tap-windows6")
        assert not driver.state(0).is_present

    def test_dhcp(self, driver, number):
        with Tun("Ethernet 2", driver="tap-windows6", dhcp=LEASE) as tun:
            config_tun = f"{control(10)} 0a080002{'00' * 8} 12"
            assert driver.calls()[2:] == [config_tun, LENT, media(True), "ReadFile 65554"]
            assert addresses(tun) == ["10.8.0.2/24"]
            tun.down()
            assert addresses(tun) == []
            tun.up()
            assert addresses(tun) == ["10.8.0.2/24"]
            assert self.local(driver, number)[0] == "10.8.0.2"

    def test_down_and_up(self, driver, number, tun):
        tun.down()
        with pytest.raises(tuntap.LinkDownError):
            tun.send(ipv4())
        with pytest.raises(TimeoutError):
            tun.recv(timeout=0.1)
        tun.up()
        tun.send(ipv4())
        assert driver.take(number)[14:] == ipv4()

    def test_no_mac(self, tun):
        with pytest.raises(tuntap.UnsupportedError):
            tun.mac = "02:00:5e:00:53:0a"

    def test_removal(self, driver, number, tun):
        threading.Timer(0.2, driver.do, (number, "remove")).start()
        with pytest.raises(tuntap.DeviceGoneError):
            tun.recv(timeout=10)

    def test_addresses_under_threads(self, driver, number, tun):
        """For the moment in which the driver is told it has a TAP: what it gets and gives is frames."""
        is_over, received, taken = threading.Event(), [], []

        def work(call):
            while not is_over.is_set():
                with contextlib.suppress(TimeoutError):
                    call()

        def send():
            tun.send(ipv4(60))
            taken.append(driver.take(number))

        frame = self.frame(driver, number, ipv4(60))
        calls = [
            lambda: received.append(tun.recv(timeout=0.01)), send, lambda: driver.inject(number, frame)
        ]  # fmt: skip
        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        try:
            for _ in range(50):
                tun.add_address("192.0.2.1/24")
                tun.remove_address("192.0.2.1/24")
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert set(received) == {ipv4(60)}
        assert {packet[14:] for packet in taken} == {ipv4(60)}

    def test_loops(self, driver, number):
        async def main():
            async with aio.Tun("Ethernet 2", driver="tap-windows6", addresses=["10.8.0.2/24"]) as tun:
                frame = self.frame(driver, number, ipv4(100))
                threading.Timer(0.2, driver.inject, (number, frame)).start()
                assert await tun.recv(timeout=10) == ipv4(100)
                await tun.send(ipv6())

        for run in (lambda: asyncio.run(main()), lambda: trio.run(main)):
            run()
            assert driver.take(number)[14:] == ipv6()

    @pytest.mark.parametrize("value", ["", "tap", "Wintun", "tap-windows6 ", 7, True, b"wintun", ["wintun"]])
    def test_what_is_no_driver(self, driver, number, value):
        for kind in (Tun, Tap):
            with pytest.raises((TypeError, ValueError), match="driver"):
                kind("Ethernet 2", driver=value)
        assert driver.calls() == []

    def test_drivers_of_a_tap(self, driver, number):
        with pytest.raises(ValueError, match="tap-windows6"):
            Tap("Ethernet 2", driver="wintun")
        with Tap("Ethernet 2", driver="tap-windows6"):
            assert not driver.state(number).is_tun
