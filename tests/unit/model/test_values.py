# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import copy
import pickle
from dataclasses import KW_ONLY, FrozenInstanceError, dataclass, field, replace

import pytest

from homeward.model.values import quick


@quick
@dataclass(frozen=True, slots=True)
class Point:
    """A place."""

    x: int
    _: KW_ONLY
    y: int = 7
    name: str = "somewhere"

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError(self.x)


@dataclass(frozen=True, slots=True)
class Base:
    first: int


@quick
@dataclass(frozen=True, slots=True)
class Derived(Base):
    second: int


def test_it_is_the_dataclass_that_it_was() -> None:
    point = Point(1, y=2)
    assert (point.x, point.y, point.name) == (1, 2, "somewhere")
    assert type(point) is Point
    assert repr(point) == "Point(x=1, y=2, name='somewhere')"
    assert point == Point(1, y=2) != Point(1)
    assert hash(point) == hash(Point(1, y=2))
    assert replace(point, x=3) == Point(3, y=2)
    assert copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point  # noqa: S301
    assert not hasattr(point, "__dict__")
    match point:
        case Point(x):
            assert x == 1


def test_it_is_as_frozen_as_it_was() -> None:
    for value, name in ((Point(1), "x"), (Derived(1, 2), "first"), (Derived(1, 2), "second")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, 1)
        with pytest.raises(FrozenInstanceError):
            delattr(value, name)


def test_it_takes_what_it_took() -> None:
    with pytest.raises(ValueError, match="-1"):
        Point(-1)
    with pytest.raises(ValueError, match="-2"):
        replace(Point(1), x=-2)
    for wrong in (lambda: Point(), lambda: Point(1, 2), lambda: Point(1, z=2)):  # type: ignore[call-arg,misc]
        with pytest.raises(TypeError):
            wrong()


def test_what_it_cannot_fill_is_said_at_once() -> None:
    with pytest.raises(TypeError, match=r"Late\.made"):

        @quick
        @dataclass(frozen=True, slots=True)
        class Late:
            made: list[int] = field(default_factory=list)
