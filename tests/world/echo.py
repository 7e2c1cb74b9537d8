# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic through the VPN between two charons, and our own rules around it."""

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

from homeward.model.names import HOME_DEVICE, MARK_BASE, MARK_IKE, MARK_MASK, MARK_TUNNEL, ROUTING_TABLE
from tests.world.two_charons import INSIDE, TwoCharons


class Echo:
    """A datagram through the VPN every 2 ms, sent back by the gateway's inside: how long is it silent?"""

    def __init__(self, hosts: TwoCharons, inner: IPv4Address) -> None:
        def opened(address: IPv4Address, port: int, device: str = "", mark: int = 0) -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.settimeout(0.2)
            if device:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
                made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            made.bind((str(address), port))
            return made

        self._far = hosts.gateway.inside(lambda: opened(INSIDE, 7777))
        self._near = hosts.laptop.inside(lambda: opened(inner, 0, "ipsec0", MARK_TUNNEL))
        self._ends = threading.Event()
        self.came: list[float] = []
        self._threads = [threading.Thread(target=each) for each in (self._reflect, self._send, self._count)]
        for thread in self._threads:
            thread.start()

    def _reflect(self) -> None:
        while not self._ends.is_set():
            with contextlib.suppress(TimeoutError):
                self._far.sendto(*self._far.recvfrom(100))

    def _send(self) -> None:
        number = 0
        while not self._ends.wait(0.002):
            number += 1
            with contextlib.suppress(OSError):
                self._near.sendto(struct.pack("!I", number), (str(INSIDE), 7777))

    def _count(self) -> None:
        while not self._ends.is_set():
            with contextlib.suppress(TimeoutError):
                self._near.recv(100)
                self.came.append(time.monotonic())

    def gap(self, since: float) -> float:
        """The longest silence from then on, in milliseconds."""
        came = [since, *(moment for moment in self.came if moment > since)]
        return max((later - earlier) * 1000 for earlier, later in itertools.pairwise(came))

    def close(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        self._far.close()
        self._near.close()


@contextlib.contextmanager
def echo(hosts: TwoCharons, inner: IPv4Address) -> Iterator[Echo]:
    with contextlib.closing(Echo(hosts, inner)) as made:
        time.sleep(0.1)
        yield made


def lay_our_rules(hosts: TwoCharons) -> None:
    """The rules and the holding device as the network plan lays them."""
    hosts.laptop.run("ip", "tuntap", "add", "dev", HOME_DEVICE, "mode", "tun")
    hosts.laptop.ip(
        f"link set {HOME_DEVICE} up",
        f"address add 10.77.0.10/32 dev {HOME_DEVICE}",
        f"route add default dev {HOME_DEVICE} src 10.77.0.10 table {ROUTING_TABLE}",
        f"rule add pref 200 fwmark {MARK_IKE:#x} lookup main",
        f"rule add pref 209 not fwmark {MARK_BASE:#x}/{MARK_MASK:#x} lookup {ROUTING_TABLE}",
    )


def route(hosts: TwoCharons, destination: IPv4Address, *more: str) -> str:
    return hosts.laptop.run("ip", "route", "get", str(destination), *more).splitlines()[0]
