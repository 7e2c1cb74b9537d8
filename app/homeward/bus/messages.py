# SPDX-License-Identifier: GPL-2.0-or-later
"""The snapshot as it travels: StatusSnapshot <-> plain values (JSON) <-> D-Bus a{sv}.

Deadlines are seconds of CLOCK_BOOTTIME (a double), addresses and enums are text, what is not there is left out on the
bus and null in JSON. A reader skips what it does not know and fills in what is missing, so that a tray and a daemon
of different age understand each other (S19).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from enum import Enum
from ipaddress import AddressValueError, IPv4Address
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from dbus_fast import Variant
from dbus_fast.unpack import unpack_variants

from homeward.model.health import HealthItem, Severity
from homeward.model.status import Blocked, ClientState, StatusSnapshot

Plain = dict[str, Any]
"""str, bool, int, float, None, and lists and dictionaries of them."""

VERSION_SKEW: Final = "version-skew"
"""Health code: the daemon said something that this program is too old to know."""

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class ProfileSummary:
    """One profile as ListProfiles shows it; `problem` says why it cannot be used, empty when it can."""

    name: str
    owner: str = ""
    file: str = ""
    problem: str = ""
    home_address: IPv4Address | None = None
    gateway: str = ""


class _UnreadableError(Exception):
    """A value that is not what this program expects at this place."""


# --- to plain values and to the bus ----------------------------------------------------------------------------------


def snapshot_to_plain(snapshot: StatusSnapshot) -> Plain:
    """The snapshot as JSON can hold it, every key present."""
    return _record_to_plain(snapshot)


def snapshot_to_bus(snapshot: StatusSnapshot) -> dict[str, Variant]:
    """The snapshot as a D-Bus a{sv}."""
    return _plain_to_bus(_record_to_plain(snapshot))


def profile_to_bus(summary: ProfileSummary) -> dict[str, Variant]:
    """A profile summary as a D-Bus a{sv}."""
    return _plain_to_bus(_record_to_plain(summary))


def _record_to_plain(record: Any) -> Plain:
    return {field.name: _to_plain(getattr(record, field.name)) for field in fields(record)}


def _to_plain(value: Any) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return carriable(value)
        case Enum():
            return value.value
        case IPv4Address():
            return str(value)
        case tuple():
            return [_to_plain(item) for item in value]
        case _ if is_dataclass(value):
            return _record_to_plain(value)
        case _:
            # Also what keeps a Secret out, should a field of that type ever be added to a snapshot.
            raise TypeError(f"a {type(value).__name__} has no place in a snapshot")


def carriable(text: str) -> str:
    """The text as D-Bus can carry it: UTF-8 without NUL; a link's name may hold any octet but '/'."""
    return text.replace("\0", _REPLACEMENT).encode("utf-8", "replace").decode("utf-8")


def _plain_to_bus(plain: Plain) -> dict[str, Variant]:
    return {key: _variant(value) for key, value in plain.items() if value is not None}


def _variant(value: Any) -> Variant:
    match value:
        case bool():
            return Variant("b", value)
        case int():
            return Variant("x", value)
        case float():
            return Variant("d", value)
        case str():
            return Variant("s", value)
        case list():
            return Variant("av", [_variant(item) for item in value])
        case _:
            return Variant("a{sv}", _plain_to_bus(value))


# --- and back --------------------------------------------------------------------------------------------------------


def snapshot_from_plain(plain: Mapping[str, Any]) -> StatusSnapshot:
    """The snapshot; never fails: what cannot be understood is as if it were not there."""
    snapshot: StatusSnapshot = _record_from_plain(StatusSnapshot, plain)
    state = plain.get("state")
    if isinstance(state, str) and state not in {known.value for known in ClientState}:
        return _unknown_state(snapshot, state)
    return snapshot


def snapshot_from_bus(body: Mapping[str, Variant]) -> StatusSnapshot:
    """The snapshot from a D-Bus a{sv}; never fails."""
    return snapshot_from_plain(unpack_variants(dict(body)))


def profile_from_bus(body: Mapping[str, Variant]) -> ProfileSummary:
    """A profile summary from a D-Bus a{sv}; without a name it has an empty one."""
    plain = unpack_variants(dict(body))
    summary: ProfileSummary = _record_from_plain(ProfileSummary, {"name": "", **plain})
    return summary


def _unknown_state(snapshot: StatusSnapshot, state: str) -> StatusSnapshot:
    """A state from the future is shown as blocked: never as something safer than it may be."""
    cause = f"the daemon is in the state “{state}”, which this program is too old to know"
    skew = HealthItem(
        VERSION_SKEW,
        Severity.WARNING,
        text=cause,
        advice="Bring homeward, homeward-tray and homewardd to the same version, then restart the older one.",
        since=0.0,
    )
    return replace(
        snapshot,
        state=ClientState.BLOCKED,
        blocked=Blocked(cause, fence_holds=False),
        health=(skew, *snapshot.health),
    )


_FieldTypes = tuple[tuple[Field[Any], Any], ...]
_field_types_read: dict[type[Any], _FieldTypes] = {}


def _field_types(kind: type[Any]) -> _FieldTypes:
    """Fields and their types; resolving the annotations is slow enough to be done once per type."""
    known = _field_types_read.get(kind)
    if known is None:
        hints = get_type_hints(kind)
        known = _field_types_read[kind] = tuple((field, hints[field.name]) for field in fields(kind))
    return known


def _record_from_plain(kind: type[Any], plain: Mapping[str, Any]) -> Any:
    """Build `kind`; a field that is missing or unreadable takes its default, and without one makes all unreadable."""
    values: dict[str, Any] = {}
    for field, expected in _field_types(kind):
        try:
            values[field.name] = _from_plain(expected, plain.get(field.name))
        except _UnreadableError:
            if field.default is MISSING and field.default_factory is MISSING:
                raise
    return kind(**values)


def _from_plain(expected: Any, value: Any) -> Any:
    origin = get_origin(expected)
    if origin is UnionType or origin is Union:
        return _optional_from_plain(expected, value)
    if origin is tuple:
        return _tuple_from_plain(get_args(expected)[0], value)
    if expected is float and type(value) is int:
        return float(value)
    if expected in (str, bool, int, float) and type(value) is expected:
        return value
    if expected is IPv4Address and isinstance(value, str):
        return _address_from_plain(value)
    if isinstance(expected, type) and issubclass(expected, Enum):
        return _enum_from_plain(expected, value)
    if is_dataclass(expected) and isinstance(expected, type) and isinstance(value, Mapping):
        return _record_from_plain(expected, value)
    raise _UnreadableError


def _optional_from_plain(expected: Any, value: Any) -> Any:
    if value is None:
        return None
    (kind,) = (arm for arm in get_args(expected) if arm is not NoneType)
    return _from_plain(kind, value)


def _tuple_from_plain(kind: Any, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _UnreadableError
    items = []
    for item in value:
        try:
            items.append(_from_plain(kind, item))
        except _UnreadableError:
            continue
    return tuple(items)


def _address_from_plain(value: str) -> IPv4Address:
    try:
        return IPv4Address(value)
    except AddressValueError:
        raise _UnreadableError from None


def _enum_from_plain(expected: type[Enum], value: Any) -> Enum:
    try:
        return expected(value)
    except ValueError:
        if expected is Severity:
            return Severity.WARNING  # a complaint of a kind that we do not know is still a complaint
        raise _UnreadableError from None
