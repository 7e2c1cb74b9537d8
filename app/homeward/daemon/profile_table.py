# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads one TOML table key by key and collects everything that is wrong with it, in words."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, TypeVar

Fault = str
Check = Callable[[str], str | None]
"""Says what would be allowed if the text is not, else None."""
Choice = TypeVar("Choice", bound=Enum)

_NOWHERE: Final = IPv4Address(0)
_LONGEST_QUOTE: Final = 60


class Table:
    """One table of a profile; the keys that are asked for are the keys that are known.

    A missing or wrong value is noted in `faults` and read as a harmless one, so that all faults of a file are found
    in one pass; the caller throws the values away when there are faults.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        path: str,
        faults: list[Fault],
        *,
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self._values = values
        self._path = path
        self._faults = faults
        self._elsewhere = elsewhere or {}
        self._known: list[str] = []

    def fault(self, key: str, text: str) -> None:
        """Note that something is wrong with this key."""
        self._faults.append(f"{self.path_of(key)}: {text}")

    def path_of(self, key: str) -> str:
        """The dotted path of a key."""
        return f"{self._path}.{key}" if self._path else key

    def text(self, key: str, check: Check, *, default: str | None = None, secret: bool = False) -> str:
        """A string that `check` allows; what was found is not shown if it may be a `secret`."""
        value = self._take(key, required=default is None, allowed=check("") or "text")
        if value is None:
            return default or ""
        allowed = check(value) if isinstance(value, str) else check("") or "text"
        if allowed is not None:
            self.fault(
                key, f"{'the value found (not shown)' if secret else found(value)} is not allowed; {allowed}"
            )
            return ""
        return str(value)

    def whole(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        """A whole number from `low` to `high`."""
        allowed = f"allowed is a whole number from {low} to {high}"
        value = self._take(key, required=default is None, allowed=allowed)
        if value is None:
            return default or 0
        if type(value) is not int or not low <= value <= high:
            self.fault(key, f"{found(value)}; {allowed}")
            return default or 0
        return value

    def seconds(self, key: str, low: float, high: float, *, default: float) -> float:
        """A number of seconds from `low` to `high`."""
        value = self._take(key, required=False, allowed="")
        if value is None:
            return default
        number = float(value) if type(value) in (int, float) else math.nan
        if not low <= number <= high:
            self.fault(key, f"{found(value)}; allowed is a number of seconds from {low:g} to {high:g}")
            return default
        return number

    def flag(self, key: str, *, default: bool) -> bool:
        """true or false."""
        value = self._take(key, required=False, allowed="")
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fault(key, f"{found(value)}; allowed is true or false")
            return default
        return value

    def choice(self, key: str, default: Choice) -> Choice:
        """One of the words of the default's enumeration."""
        words = {one.value: one for one in type(default)}
        quoted = [f"“{word}”" for word in words]
        allowed = f"allowed is {', '.join(quoted[:-1])} or {quoted[-1]}"
        value = self._take(key, required=False, allowed=allowed)
        if value is None:
            return default
        if not isinstance(value, str) or value not in words:
            self.fault(key, f"{found(value)}; {allowed}")
            return default
        return words[value]

    def address(self, key: str, *, instead: Mapping[str, IPv4Address] | None = None) -> IPv4Address:
        """The IPv4 address of one host, or what one of the words `instead` stands for."""
        words = instead or {}
        also = "".join(f', or "{word}"' for word in words)
        allowed = f'allowed is the IPv4 address of one host, such as "10.0.0.2"{also}'
        value = self._take(key, required=True, allowed=allowed)
        if value is None:
            return _NOWHERE
        if isinstance(value, str) and value in words:
            return words[value]
        try:
            address = IPv4Address(value) if isinstance(value, str) else None
        except ValueError:
            address = None
        if address is None or not is_host(address):
            self.fault(key, f"{found(value)}; {allowed}")
            return _NOWHERE
        return address

    def network(self, key: str) -> IPv4Network | None:
        """One IPv4 prefix; None where the key is left out."""
        allowed = 'allowed is an IPv4 prefix, such as "10.77.0.0/24"'
        value = self._take(key, required=False, allowed=allowed)
        return None if value is None else self._network(key, value, allowed)

    def networks(
        self, key: str, *, default: tuple[IPv4Network, ...] | None = None
    ) -> tuple[IPv4Network, ...]:
        """A list of IPv4 prefixes, at least one."""
        allowed = 'allowed is a list of IPv4 prefixes, such as ["10.0.0.0/8"]'
        value = self._take(key, required=default is None, allowed=allowed)
        if value is None:
            return default or ()
        if not isinstance(value, list) or not value:
            self.fault(key, f"{found(value)}; {allowed}")
            return ()
        return tuple(network for item in value if (network := self._network(key, item, allowed)) is not None)

    def _network(self, key: str, item: Any, allowed: str) -> IPv4Network | None:
        try:
            loose = IPv4Network(item, strict=False) if isinstance(item, str) and "/" in item else None
        except ValueError:
            loose = None
        if loose is None:
            self.fault(key, f"{found(item)}; {allowed}")
            return None
        if str(loose.network_address) != str(item).partition("/")[0]:
            self.fault(key, f"{found(item)} names a host, not a prefix; did you mean “{loose}”?")
            return None
        return loose

    def texts(self, key: str, check: Check, *, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of strings that `check` allows, at least one."""
        value = self._take(key, required=False, allowed="")
        if value is None:
            return default
        if not isinstance(value, list) or not value:
            self.fault(key, f"{found(value)}; allowed is a list of texts with at least one in it")
            return default
        for item in value:
            allowed = check(item) if isinstance(item, str) else check("")
            if allowed is not None:
                self.fault(key, f"{found(item)} is not allowed; {allowed}")
        return tuple(str(item) for item in value)

    def table(self, key: str, *, required: bool, secret: bool = False, why: str = "") -> Table | None:
        """A table inside this one."""
        allowed = why or f"a table [{self.path_of(key)}]"
        value = self._take(key, required=required, allowed=f"needed is {allowed}")
        if value is None:
            return None
        if not isinstance(value, dict):
            shown = "a value (not shown)" if secret else found(value)
            self.fault(key, f"{shown}; needed is {allowed}")
            return None
        return Table(value, self.path_of(key), self._faults, elsewhere=self._elsewhere)

    def tables(self, key: str) -> tuple[Table, ...]:
        """A list of tables, [[key]]; they are counted from 1 in what is said about them."""
        value = self._take(key, required=False, allowed="")
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fault(key, f"{found(value)}; needed is [[{self.path_of(key)}]], once for each")
            return ()
        path = self.path_of(key)
        return tuple(
            Table(item, f"{path}[{number}]", self._faults, elsewhere=self._elsewhere)
            for number, item in enumerate(value, start=1)
        )

    def no_others(self) -> None:
        """Note each key that was not asked for, with the known one that is nearest to it."""
        for key in self._values:
            if key not in self._known:
                nearest = self._nearest(key)
                self.fault(
                    key, f"unknown key; did you mean “{nearest}”? Known here: {', '.join(self._known)}"
                )

    def _nearest(self, key: str) -> str:
        """Of the keys known here the nearest; a key that is spelled right but stands in the wrong table says where."""
        if key in self._elsewhere:
            return self._elsewhere[key]
        (nearest,) = difflib.get_close_matches(key, self._known, n=1, cutoff=0.0)
        return nearest

    def _take(self, key: str, *, required: bool, allowed: str) -> Any:
        self._known.append(key)
        if required and key not in self._values:
            self.fault(key, f"missing; {allowed}")
        return self._values.get(key)


def found(value: Any) -> str:
    """What stands in the file, short enough for one line."""
    if isinstance(value, str):
        shown = "".join(char if char.isprintable() else "�" for char in value)
        return f"found “{shown if len(shown) <= _LONGEST_QUOTE else shown[:_LONGEST_QUOTE] + '…'}”"
    if isinstance(value, dict):
        return "found a table"
    if isinstance(value, list):
        return "found a list" if value else "found an empty list"
    return f"found {str(value).lower() if isinstance(value, bool) else str(value)[:_LONGEST_QUOTE]}"


def is_host(address: IPv4Address) -> bool:
    """Whether one host somewhere else can have this address."""
    return not (
        address.is_multicast
        or address.is_loopback
        or address.is_unspecified
        or address.is_link_local
        or address in IPv4Network("240.0.0.0/4")
        or address in IPv4Network("0.0.0.0/8")
    )
