# SPDX-License-Identifier: GPL-2.0-or-later
import socket

import pytest

from homeward.agentd.inside_links import InsideLinks

LOOPBACK = socket.if_nametoindex("lo")


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_names_of_links() -> None:
    links = InsideLinks(frozenset({"lo"}), Time())
    assert links.name_of(LOOPBACK) == "lo"
    assert links.name_of(0) == ""
    assert links.name_of(2**31 - 1) == ""


def test_only_configured_links_are_inside() -> None:
    assert InsideLinks(frozenset({"lo"}), Time()).has(LOOPBACK)
    assert not InsideLinks(frozenset({"eth7"}), Time()).has(LOOPBACK)
    assert not InsideLinks(frozenset(), Time()).has(LOOPBACK)
    assert not InsideLinks(frozenset({"lo"}), Time()).has(0)


def test_a_link_that_was_renamed_is_inside_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    links = InsideLinks(frozenset({"inside"}), time)
    name = "inside"
    monkeypatch.setattr(socket, "if_indextoname", lambda index: name)
    assert links.has(7)
    name = "outside"
    assert links.has(7), "within a second the kernel is not asked again"
    time.now += 1.0
    assert not links.has(7)
