"""Packets that carry a number, and what a thread does with them on an asynchronous device, at once."""

import contextlib

import tuntap
from tuntap.testing import udp

HOST, PEER = "10.8.0.1", "10.8.0.2"
TEMPLATE = udp(HOST, PEER, 1, 2, b"....")

put, take = tuntap.Tun.send, tuntap.Tun.recv


def numbered(number):
    return TEMPLATE[:-4] + number.to_bytes(4, "big")


def number_of(packet):
    return int.from_bytes(bytes(packet[-4:]), "big")


def take_all(device):
    """The numbers of the packets that are there."""
    numbers = []
    with contextlib.suppress(TimeoutError):
        while True:
            numbers.append(number_of(take(device, 0)))
    return numbers


def fill(device):
    """Send until there is no more room; how many packets that took."""
    number = 0
    with contextlib.suppress(TimeoutError):
        while True:
            put(device, numbered(number), 0)
            number += 1
    return number
