# SPDX-License-Identifier: GPL-2.0-or-later
"""Batches of datagrams against the socket module: what one side sends, the other takes, octet by octet."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from homeward.agentd.datagram_batches import BATCH, SHORT, Leaving, Received, Receiver, Sender
from homeward.wire.socket_options import IP_PKTINFO, IP_RECVTOS

HERE = IPv4Address("127.0.0.1")
THERE = IPv4Address("127.1.2.3")
LOOPBACK = socket.if_nametoindex("lo")


@pytest.fixture
def port() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        for option in (IP_PKTINFO, IP_RECVTOS):
            made.setsockopt(socket.IPPROTO_IP, option, 1)
        made.bind(("0.0.0.0", 0))
        yield made


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((str(THERE), 0))
        made.settimeout(5)
        yield made


def taken(port: socket.socket, receiver: Receiver) -> list[Received]:
    assert select.select([port], [], [], 5)[0]
    return list(receiver.receive(port))


def test_what_was_sent_is_taken_with_all_that_is_known_of_it(
    port: socket.socket, peer: socket.socket
) -> None:
    peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB8)
    sizes = [0, 1, 70, 1500, 65507]
    for number, size in enumerate(sizes):
        peer.sendto(bytes([number]) * size, ("127.0.0.9", port.getsockname()[1]))
    own = IPv4Address("127.0.0.9").packed
    source, its_port = int(THERE), peer.getsockname()[1]
    receiver = Receiver()
    assert taken(port, receiver) == [
        Received(bytes([number]) * size, source, its_port, LOOPBACK, own, own, 0xB8)
        for number, size in enumerate(sizes)
    ]
    assert list(receiver.receive(port)) == []


def test_a_batch_has_its_limit_and_the_rest_comes_with_the_next(
    port: socket.socket, peer: socket.socket
) -> None:
    for number in range(BATCH + 3):
        peer.sendto(number.to_bytes(2, "big") + bytes(number), ("127.0.0.1", port.getsockname()[1]))
    receiver = Receiver()
    batches = [taken(port, receiver), taken(port, receiver)]
    assert [len(batch) for batch in batches] == [BATCH, 3]
    assert [each.octets for batch in batches for each in batch] == [
        number.to_bytes(2, "big") + bytes(number) for number in range(BATCH + 3)
    ]


def test_what_is_sent_arrives_from_the_address_that_was_named(
    port: socket.socket, peer: socket.socket
) -> None:
    its_port = peer.getsockname()[1]
    leaving = [
        Leaving(bytes([number]) * (number % SHORT + 1), int(THERE), its_port, bytes([127, 0, 1, number + 1]))
        for number in range(BATCH + 5)
    ]
    sender = Sender()
    assert sender.send(port, leaving) == [0] * len(leaving)
    for octets, _, _, source in leaving:
        assert peer.recvfrom(2048) == (octets, (str(IPv4Address(source)), port.getsockname()[1]))
    assert sender.send(port, [Leaving(bytes(SHORT), int(THERE), its_port, HERE.packed)]) == [0]
    assert peer.recv(2048) == bytes(SHORT)


def test_one_that_cannot_leave_keeps_no_other_back(port: socket.socket, peer: socket.socket) -> None:
    def to(destination: str, source: IPv4Address = HERE) -> Leaving:
        return Leaving(b"x", int(IPv4Address(destination)), peer.getsockname()[1], source.packed)

    good, foreign = to(str(THERE)), to(str(THERE), IPv4Address("198.51.100.1"))
    outcomes = Sender().send(port, [foreign, good, foreign, foreign, good, foreign])
    assert [bool(each) for each in outcomes] == [True, False, True, True, False, True]
    assert errno.errorcode[outcomes[0]] in ("EINVAL", "ENETUNREACH", "EADDRNOTAVAIL")
    assert [peer.recv(9) for _ in range(2)] == [b"x", b"x"]
    assert Sender().send(port, []) == []


def test_a_closed_socket_has_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        pass
    assert list(Receiver().receive(closed)) == []
