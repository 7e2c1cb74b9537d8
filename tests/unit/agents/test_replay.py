# SPDX-License-Identifier: GPL-2.0-or-later
from dataclasses import replace

import pytest

from homeward.agents.nodes import Identity
from homeward.agents.replay import Freshness, ReplayGuard, floor_at
from homeward.model.instant import Instant
from homeward.model.registration import Identification, RegistrationRequest, Spi
from homeward.wire import registration as codec
from homeward.wire.decoded import Authentication
from homeward.wire.identification import from_time, high32, low32
from tests.unit.agents.scene import HOME, OTHER_HOME, SA, T0, after, octets, request, stamp

SPI = Spi(0x100)
ME, OTHER = int(HOME), int(OTHER_HOME)
FLOOR = floor_at(T0)


class Judge:
    """A guard that is shown whole requests."""

    def __init__(self, floor: int | None = FLOOR) -> None:
        self.guard = ReplayGuard(7.0, floor)

    def judge(self, who: Identity, asked: RegistrationRequest, *, spi: Spi = SPI, at: Instant) -> Freshness:
        return self.guard.judge(who, asked.identification, by=authenticated(asked, spi), at=at)

    def accept(self, who: Identity, asked: RegistrationRequest, *, spi: Spi = SPI, at: Instant) -> None:
        answered = self.guard.accept(who, asked.identification, by=authenticated(asked, spi), at=at)
        assert answered == asked.identification


def authenticated(asked: RegistrationRequest, spi: Spi) -> Authentication:
    authentication = codec.decode(octets(asked, replace(SA, spi=spi))).authentication
    assert authentication is not None
    return authentication


def guard() -> Judge:
    return Judge()


@pytest.mark.rows("R-173")
@pytest.mark.parametrize(
    ("skew", "freshness"),
    [
        (0.0, Freshness.FRESH),
        (5.0, Freshness.FRESH),
        (-5.0, Freshness.FRESH),
        (6.99, Freshness.FRESH),
        (-6.99, Freshness.FRESH),
        (7.01, Freshness.SKEWED),
        (-7.01, Freshness.SKEWED),
        (10.0, Freshness.SKEWED),
        (-10.0, Freshness.SKEWED),
        (3600.0, Freshness.SKEWED),
        (68 * 365 * 86400.0, Freshness.SKEWED),
        (-68 * 365 * 86400.0, Freshness.SKEWED),
    ],
)
def test_tolerance(skew: float, freshness: Freshness) -> None:
    assert guard().judge(ME, request(100 + skew), spi=SPI, at=after(100)) is freshness


@pytest.mark.parametrize("number", [0, 1, (1 << 64) - 1, 1 << 63])
def test_absurd_time_stamps(number: int) -> None:
    asked = request(identification=Identification(number))
    assert guard().judge(ME, asked, spi=SPI, at=after(100)) is Freshness.SKEWED


@pytest.mark.rows("R-173")
def test_only_greater_than_everything_accepted() -> None:
    memory = guard()
    memory.accept(ME, request(100), spi=SPI, at=after(100))
    assert memory.judge(ME, request(99.9), spi=SPI, at=after(100.5)) is Freshness.USED
    one_less = request(identification=Identification(stamp(100) - 1))
    one_more = request(identification=Identification(stamp(100) + 1))
    assert memory.judge(ME, one_less, spi=SPI, at=after(100.5)) is Freshness.USED
    assert memory.judge(ME, one_more, spi=SPI, at=after(100.5)) is Freshness.FRESH


@pytest.mark.rows("R-173")
def test_a_rejected_stamp_may_be_undercut() -> None:
    # a fast clock is told so, comes back with a lower stamp, and must be let in.
    memory = guard()
    assert memory.judge(ME, request(103600), spi=SPI, at=after(100)) is Freshness.SKEWED
    assert memory.judge(ME, request(101), spi=SPI, at=after(101)) is Freshness.FRESH


def test_the_very_same_request_is_a_duplicate() -> None:
    memory = guard()
    memory.accept(ME, request(100), spi=SPI, at=after(100))
    assert memory.judge(ME, request(100), spi=SPI, at=after(100)) is Freshness.DUPLICATE


@pytest.mark.parametrize(
    "other",
    [
        request(100, lifetime=301),
        request(100, lifetime=0),
        request(100, care_of_address=OTHER_HOME),
        request(100, nai="someone@example.test"),
    ],
)
def test_the_same_stamp_on_another_request_is_used_up(other: object) -> None:
    memory = guard()
    memory.accept(ME, request(100), spi=SPI, at=after(100))
    assert memory.judge(ME, other, spi=SPI, at=after(100)) is Freshness.USED  # type: ignore[arg-type]


def test_a_duplicate_ages_like_any_other() -> None:
    memory = guard()
    memory.accept(ME, request(100), spi=SPI, at=after(100))
    assert memory.judge(ME, request(100), spi=SPI, at=after(108)) is Freshness.SKEWED


def test_nodes_do_not_share_their_memory_and_keys_of_a_node_do() -> None:
    memory = guard()
    memory.accept(ME, request(100), spi=SPI, at=after(100))
    assert (
        memory.judge(OTHER, request(99, home_address=OTHER_HOME), spi=SPI, at=after(100)) is Freshness.FRESH
    )
    assert memory.judge(ME, request(99), spi=Spi(0x101), at=after(100)) is Freshness.USED
    assert memory.judge(ME, request(100), spi=Spi(0x101), at=after(100)) is Freshness.USED


def test_nothing_from_before_the_start() -> None:
    assert guard().judge(ME, request(-0.5), spi=SPI, at=after(1)) is Freshness.BEFORE_START
    assert guard().judge(ME, request(0.001), spi=SPI, at=after(1)) is Freshness.FRESH


def test_the_wrap_of_2036() -> None:
    wrap = 2_085_978_496.0  # Unix time at which the 32 bits of seconds begin again
    assert high32(from_time(wrap, 0)) == 0
    memory = Judge(floor_at(Instant(0.0, wrap - 100)))
    before = replace(request(), identification=from_time(wrap - 1, 0))
    behind = replace(request(), identification=from_time(wrap + 1, 0))
    memory.accept(ME, before, spi=SPI, at=Instant(100.0, wrap - 0.5))
    assert memory.judge(ME, behind, spi=SPI, at=Instant(101.0, wrap)) is Freshness.FRESH
    memory.accept(ME, behind, spi=SPI, at=Instant(101.0, wrap))
    again = replace(request(), identification=from_time(wrap - 0.5, 0))
    assert memory.judge(ME, again, spi=SPI, at=Instant(101.5, wrap + 1.5)) is Freshness.USED


def test_resynchronisation_has_our_seconds_and_their_low_half() -> None:
    asked = request(100 - 3600)
    answer = guard().guard.resynchronise(ME, asked.identification, after(100.7))
    assert high32(answer) == high32(stamp(100))
    assert low32(answer) == low32(asked.identification)
