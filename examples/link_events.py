"""Tells what happens to an interface, until it is deleted.

    sudo python examples/link_events.py tun7
    sudo ip link set tun7 mtu 1400
    sudo ip address add 10.4.0.1/24 dev tun7
    sudo ip link delete tun7

Makes the TUN, or attaches to it if it is there and persistent.
"""

import argparse
import contextlib

import tuntap


def main():
    parser = argparse.ArgumentParser(description="Tell what happens to a TUN.")
    parser.add_argument("name", help="of the interface")
    args = parser.parse_args()

    with tuntap.Tun(args.name) as tun:
        events = tun.events()
        print(f"{tun.name}: mtu {tun.mtu}, {'up' if tun.is_up else 'down'}", flush=True)
        for event in events:
            print(event.kind, "" if event.value is None else event.value, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
