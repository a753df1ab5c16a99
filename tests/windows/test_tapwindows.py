"""A TAP by tap-windows6: its life, its frames, and what the driver does of its own accord (fake_tap.c)."""

import asyncio
import contextlib
import struct
import threading
import time

import pytest
import trio
from fake_tap import Driver

import tuntap
from tuntap import PacketBatch, Tap, aio

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
