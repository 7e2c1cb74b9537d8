# SPDX-License-Identifier: GPL-2.0-or-later
from dataclasses import replace
from ipaddress import IPv4Address

from homeward.agents.bindings import Binding, BindingTable, Way
from homeward.model.registration import LIFETIME_INFINITE, Spi
from tests.unit.agents.scene import CARE_OF, HOME, OTHER_HOME, stamp


def binding(**changes: object) -> Binding:
    plain = Binding(
        HOME,
        CARE_OF,
        node="laptop",
        spi=Spi(0x100),
        identification=stamp(0),
        lifetime=60,
        since=1000.0,
        reverse_tunnel=True,
        co_located=True,
        way=Way(CARE_OF),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_remaining_never_exceeds_what_was_granted() -> None:
    assert binding().remaining(1000.0) == 60
    assert binding().remaining(1000.1) == 59
    assert binding().remaining(1060.0) == 0
    assert binding().remaining(2000.0) == 0
    assert binding(lifetime=LIFETIME_INFINITE).remaining(1e9) == LIFETIME_INFINITE


def test_ends_at_its_time_and_not_before() -> None:
    table = BindingTable()
    table.put(binding())
    assert table.next_expiry() == 1060.0
    assert table.expire(1059.999) == []
    assert table.expire(1060.0) == [binding()]
    assert len(table) == 0
    assert table.next_expiry() is None


def test_a_renewal_outlives_its_predecessor() -> None:
    table = BindingTable()
    table.put(binding())
    table.put(binding(since=1030.0))
    assert table.expire(1060.0) == []
    assert table.next_expiry() == 1090.0


def test_a_shorter_renewal_ends_earlier() -> None:
    table = BindingTable()
    table.put(binding(lifetime=1800))
    table.put(binding(since=1010.0, lifetime=10))
    assert table.expire(1020.0) == [binding(since=1010.0, lifetime=10)]
    assert table.next_expiry() is None


def test_for_ever_has_no_deadline() -> None:
    table = BindingTable()
    table.put(binding())
    table.put(binding(lifetime=LIFETIME_INFINITE))
    assert table.next_expiry() is None
    assert table.expire(1e9) == []


def test_a_removed_binding_does_not_come_back_as_expired() -> None:
    table = BindingTable()
    table.put(binding())
    assert table.remove(HOME) == binding()
    assert table.remove(HOME) is None
    table.put(binding(home_address=OTHER_HOME, lifetime=90))
    assert table.next_expiry() == 1090.0
    assert table.expire(1080.0) == []


def test_renewals_do_not_pile_up() -> None:
    table = BindingTable()
    for step in range(10_000):
        table.put(binding(since=float(step), lifetime=1800))
    assert len(table) == 1
    assert len(table._expiries) < 100
    assert table.next_expiry() == 9_999.0 + 1800


def test_many_end_in_order() -> None:
    table = BindingTable()
    for step in range(100):
        table.put(
            binding(home_address=IPv4Address(int(HOME) + (step * 37) % 100), lifetime=10 + (step * 37) % 100)
        )
    gone = table.expire(1000.0 + 10 + 49)
    assert len(gone) == 50
    assert len(table) == 50
