# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink read by hand: what the kernel sends, in whole, in part, cut off, and in floods."""

import socket
import struct
from ipaddress import IPv4Address, IPv4Interface

import pytest

from homeward.adapters.netlink_links.messages import Questions, attributes
from homeward.adapters.netlink_links.tables import TABLES, News, Tables, default_routes, link_facts

NOBODY: frozenset[int] = frozenset()


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def link(index: int, *about: bytes, family: int = 0, flags: int = 1) -> bytes:
    return struct.pack("=BxHiII", family, 1, index, flags, 0) + b"".join(about)


def named(name: bytes = b"eth0\0", carrier: int = 1) -> tuple[bytes, ...]:
    return attribute(3, name), attribute(33, bytes([carrier])), attribute(4, struct.pack("=I", 1500))


def address(value: str, index: int = 2, *, flags: int = 0x80, scope: int = 0) -> bytes:
    interface = IPv4Interface(value)
    head = struct.pack("=BBBBI", socket.AF_INET, interface.network.prefixlen, flags, scope, index)
    return head + attribute(1, interface.packed) + attribute(2, interface.packed)


def route(*about: bytes, length: int = 0, table: int = 254, kind: int = 1) -> bytes:
    return struct.pack("=BBBBBBBBI", socket.AF_INET, length, 0, 0, table, 3, 0, kind, 0) + b"".join(about)


GATEWAY = attribute(5, IPv4Address("10.1.1.1").packed)


class Kernel(Questions):
    """Answers from what it was given, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.have: dict[str, list[bytes]] = {"links": [], "addresses": [], "routes": [], "link": []}

    def _told(self, what: str) -> list[bytes]:
        self.asked.append(what)
        return self.have[what]

    def links(self) -> list[bytes]:
        return self._told("links")

    def addresses(self) -> list[bytes]:
        return self._told("addresses")

    def routes(self) -> list[bytes]:
        return self._told("routes")

    def link(self, index: int) -> bytes | None:
        return next(iter(self._told("link")), None)

    def neighbour(self, index: int, address: IPv4Address) -> bytes | None:
        return None


def news_of(*octets: bytes) -> News:
    news = News()
    for each in octets:
        news.hear(each, NOBODY)
    return news


def test_a_new_address_and_its_route_cost_one_table() -> None:
    """`at most one kernel dump` in a hand-over: the routes, which the kernel drops without a word."""
    tables, kernel = Tables(), Kernel()
    tables.bring_up_to_date(news_of(message(16, link(2, *named()))), kernel)
    kernel.asked.clear()
    kernel.have["routes"] = [route(GATEWAY, attribute(4, struct.pack("=I", 2)))]
    kernel.have["link"] = [link(2, *named())]
    news = news_of(message(20, address("10.1.1.10/24", flags=0)), message(24, kernel.have["routes"][0]))
    tables.bring_up_to_date(news, kernel)
    assert kernel.asked == ["link", "routes"]
    assert tables.addresses(2) == (IPv4Interface("10.1.1.10/24"),)
    assert tables.lent(2)
    assert tables.routes == {2: (0, IPv4Address("10.1.1.1"))}


def test_lost_news_cost_all_tables_and_what_was_heard_before_counts_no_more() -> None:
    tables, kernel = Tables(), Kernel()
    news = news_of(message(16, link(2, *named())), message(20, address("10.1.1.10/24")))
    news.lost()
    tables.bring_up_to_date(news, kernel)
    assert kernel.asked == ["links", "addresses", "routes"]
    assert (tables.links, tables.addresses(2)) == ({}, ())


def test_a_carrier_is_looked_at_when_an_address_changes() -> None:
    """Its own news may come a second later."""
    tables, kernel = Tables(), Kernel()
    tables.bring_up_to_date(news_of(message(16, link(2, *named(carrier=0)))), kernel)
    assert not tables.links[2].carrier
    kernel.have["link"] = [link(2, *named(carrier=1))]
    tables.bring_up_to_date(news_of(message(20, address("10.1.1.10/24"))), kernel)
    assert tables.links[2].carrier


def test_news_that_say_only_what_is_new_are_asked_about() -> None:
    """Wi-Fi's, which are RTM_NEWLINK with a name and an event."""
    tables, kernel = Tables(), Kernel()
    kernel.have["link"] = [link(3, *named(b"wlan0\0"))]
    wireless = attribute(11, bytes(8))
    tables.bring_up_to_date(news_of(message(16, link(3, attribute(3, b"wlan0\0"), wireless))), kernel)
    assert tables.links[3].mtu == 1500


def test_a_bridges_word_about_its_port_is_none_about_the_link() -> None:
    assert News().hear(message(17, link(2, *named(), family=7)), NOBODY) == (False, False)


def test_a_link_that_goes_takes_its_addresses_along() -> None:
    tables, kernel = Tables(), Kernel()
    tables.bring_up_to_date(
        news_of(message(16, link(2, *named())), message(20, address("10.1.1.10/24"))), kernel
    )
    tables.bring_up_to_date(news_of(message(17, link(2))), kernel)
    assert (tables.links, tables.addresses(2)) == ({}, ())


def test_addresses_come_in_the_kernels_order_without_those_of_the_link_alone() -> None:
    tables, kernel = Tables(), Kernel()
    heard = [
        message(20, address(value, flags=flags, scope=scope))
        for value, flags, scope in (
            ("10.1.1.11/24", 0x81, 0),
            ("169.254.1.1/16", 0x80, 253),
            ("10.1.1.10/24", 0x80, 0),
            ("10.1.2.10/24", 0x80, 0),
        )
    ]
    tables.bring_up_to_date(news_of(*heard, message(21, address("10.1.2.10/24"))), kernel)
    assert tables.addresses(2) == (IPv4Interface("10.1.1.10/24"), IPv4Interface("10.1.1.11/24"))
    assert not tables.lent(2)


def test_a_flood_of_addresses_is_not_kept_but_asked_for() -> None:
    news = news_of(*(message(20, address(f"10.2.{n // 250}.{n % 250}/32", 5)) for n in range(2000)))
    assert len(news.addresses) <= 256
    assert "addresses" in news.stale


def test_of_a_flapping_link_the_last_word_counts() -> None:
    news = news_of(*(message(16, link(7, *named(carrier=n % 2))) for n in range(2000)))
    assert len(news.links) == 1


@pytest.mark.parametrize(
    ("bodies", "expected"),
    [
        ([route(attribute(4, struct.pack("=I", 2)))], {2: (0, None)}),
        ([route(GATEWAY, attribute(4, struct.pack("=I", 2)), table=255)], {}),
        ([route(GATEWAY, attribute(4, struct.pack("=I", 2)), attribute(15, struct.pack("=I", 434)))], {}),
        ([route(GATEWAY, attribute(4, struct.pack("=I", 2)), length=24)], {}),
        ([route(GATEWAY, attribute(4, struct.pack("=I", 2)), kind=7)], {}),
        (
            [
                route(attribute(4, struct.pack("=I", 2)), attribute(6, struct.pack("=I", metric)), gateway)
                for metric, gateway in ((600, b""), (100, GATEWAY), (700, b""))
            ],
            {2: (100, IPv4Address("10.1.1.1"))},
        ),
        (
            [
                route(
                    attribute(
                        9, struct.pack("=HBBi", 16, 0, 0, 2) + GATEWAY + struct.pack("=HBBi", 8, 0, 0, 3)
                    )
                )
            ],
            {2: (0, IPv4Address("10.1.1.1")), 3: (0, None)},
        ),
        ([route(attribute(9, bytes(8)))], {}),
    ],
)
def test_the_best_default_route_of_each_link(
    bodies: list[bytes], expected: dict[int, tuple[int, IPv4Address | None]]
) -> None:
    assert default_routes(bodies) == expected


@pytest.mark.parametrize(
    "octets",
    [b"", b"\0" * 15, b"\0" * 64, b"\xff" * 64, b"\x10\0\0\0\x10\0" + bytes(10), b"\x20\0\0\0" + bytes(20)],
)
def test_octets_that_are_no_news_change_nothing(octets: bytes) -> None:
    news = News()
    assert news.hear(octets, NOBODY) == (False, False)
    assert news == News()


@pytest.mark.parametrize("octets", [b"\x03\0\x01\0", b"\xff\xff\x01\0aaaa", b"\x05\0\x01", b"\0" * 12])
def test_attributes_that_are_cut_off_are_none(octets: bytes) -> None:
    assert attributes(octets) == {}


def test_a_link_is_not_made_of_half_a_message() -> None:
    assert link_facts(b"\0" * 15) is None
    assert link_facts(link(2)) is None


def test_everything_can_be_lost() -> None:
    news = News()
    news.lost()
    assert news.stale == set(TABLES)
