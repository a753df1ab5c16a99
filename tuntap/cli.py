"""The `tuntap` command."""

from __future__ import annotations

import argparse
import errno
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tuntap
from tuntap import DeviceBusyError, DeviceGoneError, Tap, Tun, TunTapError, _config
from tuntap._cli.ending import exit_status

_LAYER_TAP = 2
_DEMO_SECONDS = 10.0

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 done, 1 failed, 2 wrong usage."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as end:  # --help, --version, or wrong usage that argparse has explained
        return end.code if isinstance(end.code, int) else 1
    return exit_status(lambda: options.run(options))


# --- doctor, demo: each has a module of its own ---


def _doctor(options: argparse.Namespace) -> int:
    from tuntap._cli.doctor import run

    return run()


def _demo(options: argparse.Namespace) -> int:
    from tuntap._cli.demo import run

    return run(options.seconds)


# --- list ---


def _list(options: argparse.Namespace) -> int:
    found = [facts for name in tuntap.interfaces() if (facts := _facts(name)) is not None]
    if options.json:
        print(json.dumps(found, indent=2))
    elif found:
        _print_table([_HEADINGS, *(_row(facts) for facts in found)])
    else:
        print("no TUN or TAP interfaces; `tuntap add` makes one", file=sys.stderr)
    return 0


def _inspect(name: str) -> Tun | Tap:
    """The configuration of an interface, without attaching to it; close it."""
    with Tun.__new__(Tun) as device:
        device._inspect(name)
        is_tap = device._get_layer() == _LAYER_TAP
    found = Tap.__new__(Tap) if is_tap else Tun.__new__(Tun)
    found._inspect(name)
    return found


def _facts(name: str) -> dict[str, Any] | None:
    """What there is to say about an interface; None if it has just gone."""
    try:
        with _inspect(name) as device:
            is_tap = isinstance(device, Tap)
            return {
                "name": name,
                "kind": "tap" if is_tap else "tun",
                "index": device.index,
                "up": device.is_up,
                "running": device.is_running,
                "mtu": device.mtu,
                "mac": device.mac if is_tap else None,
                "addresses": [_address_text(address) for address in device.addresses],
                **{
                    setting: getattr(device, setting) if setting in device.capabilities else None
                    for setting in ("owner", "group", "persist")
                },
            }
    except DeviceGoneError:
        return None


def _address_text(address: _config.Interface) -> str:
    """An address as `--address` takes it."""
    if address.peer is None:
        return str(address)
    return f"{address.ip} peer {address.peer}/{address.network.prefixlen}"


_HEADINGS = ["NAME", "KIND", "STATE", "MTU", "OWNER", "GROUP", "PERSIST", "ADDRESSES"]


def _row(facts: dict[str, Any]) -> list[str]:
    # Up, but not running: there is no program at the other end.
    state = "down" if not facts["up"] else "up" if facts["running"] else "up, unused"
    return [
        facts["name"], facts["kind"], state, str(facts["mtu"]), _user_name(facts["owner"]),
        _group_name(facts["group"]), "yes" if facts["persist"] else "no",
        ", ".join(facts["addresses"]) or "-",
    ]  # fmt: skip


def _user_name(number: int | None) -> str:
    if number is None:
        return "-"
    import pwd  # not on Windows, where nothing has an owner

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group_name(number: int | None) -> str:
    if number is None:
        return "-"
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# --- add, delete ---


def _add(options: argparse.Namespace) -> int:
    settings = _settings(options)
    kind = Tap if options.tap or options.mac is not None else Tun
    try:
        device = kind(
            mac=options.mac,
            persist=True,
            owner=options.owner,
            group=options.group,
            exclusive=True,
            **settings,
        )
    except DeviceBusyError as error:
        if error.errno != errno.EBUSY:
            raise
        advice = "it exists already: choose another name (`tuntap delete NAME` removes a TUN or TAP)"
        raise DeviceBusyError(errno.EBUSY, advice, settings["name"]) from None
    with device:
        print(device.name)
    return 0


def _delete(options: argparse.Namespace) -> int:
    try:
        tuntap.delete(options.name)
    except (DeviceGoneError, tuntap.UnsupportedError):
        if options.name in tuntap.interfaces():
            raise
        advice = "there is no TUN or TAP interface of this name here; see `tuntap list`"
        raise TunTapError(errno.ENODEV, advice, options.name) from None
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of a device that commands share."""
    name, addresses = options.name, list(options.address)
    if name is None and addresses and not _is_address(addresses[-1]):
        name = addresses.pop()  # `--address A NAME`: the option has swallowed the name
    return {
        "name": name, "addresses": addresses, "mtu": options.mtu, "up": options.up, "netns": options.netns,
    }  # fmt: skip


def _is_address(text: str) -> bool:
    try:
        _config.parse_address(text)
    except ValueError:
        return False
    return True


def _attach(options: argparse.Namespace) -> Tun | Tap:
    """The device that `_describe_device` describes: there already, or new."""
    settings = _settings(options)
    is_tap = options.tap or _is_so(settings, lambda device: isinstance(device, Tap))
    return (Tap if is_tap else Tun)(**settings)


def _is_so(settings: dict[str, Any], question: Callable[[Tun | Tap], bool]) -> bool:
    """Whether the interface is there, and the answer is yes."""
    if settings["name"] is None or settings["netns"] is not None:
        return False
    try:
        with _inspect(settings["name"]) as device:
            return question(device)
    except TunTapError:
        return False


# --- dump ---


def _dump(options: argparse.Namespace) -> int:
    from tuntap._cli.dump import Options, dump

    with _attach(options) as device:
        dump(device, Options(options.write, options.count, options.timeout, options.hex, options.quiet))
    return 0


# --- replay ---


def _replay(options: argparse.Namespace) -> int:
    from tuntap._cli.replay import run

    with _attach(options) as device:
        return run(options.file, device, options.speed, options.loop or None)


# --- top, plot ---


def _top(options: argparse.Namespace) -> int:
    from tuntap._cli.top import Options, top
    from tuntap._cli.watch import Attached, Captured, Watched, can_watch

    shown = Options(
        options.count, options.interval, options.window, options.sort, options.once, options.json
    )  # fmt: skip
    if options.read is not None:
        with Captured(options.read) as capture:
            return top(capture, shown)
    settings = _settings(options)
    if can_watch() and _is_so(settings, lambda device: device.is_running):
        with Watched(settings["name"]) as watched:
            return top(watched, shown)
    with Attached(_attach(options)) as attached:
        return top(attached, shown)


def _plot(options: argparse.Namespace) -> int:
    from tuntap._cli.plot import plot

    return plot(options.file, options.output)


# --- the words of the command line ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tuntap",
        description="TUN and TAP interfaces: see what is there, make, watch and try them.",
        epilog="`tuntap COMMAND --help` tells more about each.",
    )
    parser.add_argument("--version", action="version", version=f"tuntap {tuntap.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_command(commands, "doctor", _doctor, "tell what works here, and how to mend what does not")
    _describe_demo(_add_command(commands, "demo", _demo, "move real packets, in a private network"))
    listing = _add_command(commands, "list", _list, "show the TUN and TAP interfaces")
    listing.add_argument("--json", action="store_true", help="for programs")
    _describe_add(_add_command(commands, "add", _add, "make an interface that stays"))
    deleting = _add_command(commands, "delete", _delete, "remove an interface")
    deleting.add_argument("name", metavar="NAME")
    _describe_dump(_add_command(commands, "dump", _dump, "print what the kernel sends to an interface"))
    _describe_top(_add_command(commands, "top", _top, "show the flows of an interface by their rates"))
    _describe_plot(_add_command(commands, "plot", _plot, "draw what a capture has"))
    _describe_replay(
        _add_command(commands, "replay", _replay, "send the packets of a capture into an interface")
    )
    return parser


def _add_command(
    commands: _Commands, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.set_defaults(run=run)
    return command


def _describe_demo(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Ping, UDP and TCP between the kernel and Python, through a TUN in a network of its own: "
        "no interface of this machine is touched and nothing stays behind.  Without the rights for "
        "that, the same on a pair of devices in memory."
    )
    command.add_argument(
        "--seconds", type=_positive_number, default=_DEMO_SECONDS, help="how long, all phases (default 10)"
    )


def _describe_add(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Make a TUN (or TAP) interface that stays until `tuntap delete`, and print its name.  "
        "Its owner, and its group, may attach to it without further rights; if both are set, both "
        "have to fit, and if none is, everybody may who can open /dev/net/tun."
    )
    _describe_device(command, up=True)
    command.add_argument("--owner", type=_number_or_name, metavar="USER", help="who may attach to it")
    command.add_argument("--group", type=_number_or_name, metavar="GROUP", help="which group may")
    command.add_argument("--mac", help="MAC address, makes it a TAP")


def _describe_dump(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Attach to an interface (or make one, which goes at the end) and print each packet that the "
        "kernel sends to it.  The packets are consumed: this is the program at the other end of the "
        "interface.  The time is when a batch of packets was received."
    )
    _describe_device(command, up=None)
    command.add_argument(
        "-w",
        "--write",
        metavar="FILE",
        help="write a capture, pcapng unless FILE ends in .pcap; - for standard output",
    )
    command.add_argument("-c", "--count", type=_positive_integer, help="stop after so many packets")
    command.add_argument("--timeout", type=_positive_number, metavar="S", help="stop after S seconds")
    command.add_argument("-x", "--hex", action="store_true", help="print the bytes as well")
    command.add_argument("-q", "--quiet", action="store_true", help="print no packets, only the summary")


def _describe_replay(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Send the packets of a pcap or pcapng file into an interface (or make one, which goes at the end), "
        "with the distances in time that they have there.  Into a TUN go IP packets, those in Ethernet "
        "frames, too; into a TAP go frames."
    )
    command.add_argument("file", metavar="FILE", help="the capture; - for standard input")
    _describe_device(command, up=None)
    command.add_argument(
        "--speed", type=_speed, default=1.0, metavar="X", help="so many times as fast; inf: as fast as can be"
    )
    command.add_argument(
        "--loop", type=_whole_number, default=1, metavar="N", help="so many times over; 0: until Ctrl-C"
    )


def _describe_top(command: argparse.ArgumentParser) -> None:
    command.description = (
        "A table of flows, those with the highest rates first, that changes while packets flow.  An "
        "interface that another program drives is watched, in both directions and without disturbing it, "
        "which takes CAP_NET_RAW.  To any other this attaches as `tuntap dump` does, and shows what the "
        "kernel sends to it.  Of a capture that is a file it shows one table, of all its time."
    )
    _describe_device(command, up=None)
    command.add_argument("-r", "--read", metavar="FILE", help="a capture instead; - for a pipe")
    command.add_argument("-c", "--count", type=_positive_integer, help="show so many flows at most")
    command.add_argument("-s", "--sort", choices=["bits", "packets"], default="bits", help="(default bits)")
    command.add_argument(
        "--interval", type=_positive_number, default=1.0, metavar="S",
        help="seconds between tables (default 1)",
    )  # fmt: skip
    command.add_argument(
        "--window", type=_positive_number, default=5.0, metavar="S",
        help="rates are the mean of so many seconds (default 5)",
    )  # fmt: skip
    command.add_argument("--once", action="store_true", help="print one table after one window, and end")
    command.add_argument("--json", action="store_true", help="the same for programs")


def _describe_plot(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Draw the throughput over time, the sizes of packets and the times between them of a capture."
    )
    command.add_argument("file", metavar="FILE", help="a pcap or pcapng file; - for standard input")
    command.add_argument(
        "-o", "--output", metavar="FILE",
        help="a png, svg or pdf by its suffix (default: NAME.png for NAME.pcap)",
    )  # fmt: skip


def _describe_device(command: argparse.ArgumentParser, *, up: bool | None) -> None:
    command.add_argument(
        "name", metavar="NAME", nargs="?", help="or a pattern such as vpn%%d; left out, the kernel chooses"
    )
    command.add_argument("--tap", action="store_true", help="Ethernet frames instead of IP packets")
    command.add_argument(
        "--address", action="extend", nargs="+", default=[], metavar="A",
        help="such as 10.0.0.1/24 or fd00::1/64 or '10.0.0.1 peer 10.0.0.2'",
    )  # fmt: skip
    command.add_argument("--mtu", type=int, help="bytes of the largest packet")
    command.add_argument(
        "--up", action=argparse.BooleanOptionalAction, default=up, help="bring it up, or down"
    )
    command.add_argument("--netns", metavar="N", help="network namespace, as in `ip netns`, or a path")


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _positive_integer(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number


def _whole_number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return number


def _speed(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number


def _positive_number(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, not {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
