# SPDX-License-Identifier: GPL-2.0-or-later
"""Strict reading of an agent's TOML file: who may have written it, which keys it may hold, what each value may be.

A reader takes what TOML gave and raises ValueError with what is wrong; `required` and `optional` put the key's name
before it and make a ProfileError of it.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final, TypeVar

from homeward.agentd.key_file import place_of, read_key
from homeward.model.errors import ProfileError
from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation, Spi
from homeward.model.secret import Secret

LONGEST_FILE: Final = 4 * 1024 * 1024
ASSOCIATION_KEYS: Final = ("spi", "algorithm", "key_file")
"""What `association` reads of a table."""

_LONGEST_INTERFACE_NAME: Final = 15

_Value = TypeVar("_Value")
_Word = TypeVar("_Word", bound=Enum)


def read_table(path: Path, *, owner: int = 0) -> Mapping[str, Any]:
    """The whole file, which nobody but root and the user with the number `owner` may be able to write.

    ProfileError, which begins with the file's name, when it cannot be read, is longer than 4 MiB or is not TOML.
    """
    try:
        with path.open("rb") as file:
            _require_unwritable(os.fstat(file.fileno()), path, owner)
            text = file.read(LONGEST_FILE + 1)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > LONGEST_FILE:
        raise ProfileError(f"{path}: longer than {LONGEST_FILE} octets")
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: is not TOML: {error}") from error


def _require_unwritable(found: os.stat_result, path: Path, owner: int) -> None:
    if found.st_uid not in (0, owner) or found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        raise ProfileError(
            f"{path}: belongs to user {found.st_uid} with mode {mode:04o}; only root may write it"
        )


def refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """ProfileError for the first key that is not among the known ones, with the nearest of them."""
    for key in table:
        if key not in known:
            raise ProfileError(f"{where}the key {key!r} is not known{nearest(key, known)}")


def nearest(word: str, known: tuple[str, ...]) -> str:
    """The end of a sentence about an unknown word: what may have been meant, or everything that is known."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def required(table: Mapping[str, Any], key: str, read: Callable[[Any], _Value]) -> _Value:
    """The value of a key that must be there."""
    if key not in table:
        raise ProfileError(f"the key {key!r} is missing")
    try:
        return read(table[key])
    except ValueError as error:
        raise ProfileError(f"{key}: {error}") from error


def optional(table: Mapping[str, Any], key: str, read: Callable[[Any], _Value], otherwise: _Value) -> _Value:
    """The value of a key that may be left out, or what holds then."""
    return required(table, key, read) if key in table else otherwise


def association(table: Mapping[str, Any], folder: Path, owner: int) -> MobilitySecurityAssociation:
    """The security association of a table with `spi`, `algorithm` and `key_file`."""
    algorithms = {each.value: each for each in AuthenticationAlgorithm}
    algorithm = required(table, "algorithm", text)
    if algorithm not in algorithms:
        raise ProfileError(f"algorithm {algorithm!r} is not known{nearest(algorithm, tuple(algorithms))}")
    return MobilitySecurityAssociation(
        Spi(required(table, "spi", integer(0, 0xFFFFFFFF))),
        algorithms[algorithm],
        key=key_in(table, folder, owner),
    )


def key_in(table: Mapping[str, Any], folder: Path, owner: int) -> Secret:
    """The key in the file that a table names by `key_file`: relative to `folder`, or a credential of systemd."""
    return read_key(place_of(required(table, "key_file", text), folder), owner=owner)


def wrong(key: str, text: str) -> ProfileError:
    """What is wrong with the value of a key, to be raised."""
    return ProfileError(f"{key}: {text}")


def text(value: Any) -> str:
    """A text that is not empty and can be printed."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("must be a text that is not empty and prints")
    return value


def boolean(value: Any) -> bool:
    """true or false, never a number."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def integer(least: int, most: int) -> Callable[[Any], int]:
    """A reader of whole numbers from `least` to `most`."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return read


def seconds(least: float, most: float) -> Callable[[Any], float]:
    """A reader of numbers of seconds from `least` to `most`."""

    def read(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a number of seconds from {least:g} to {most:g}")
        return float(value)

    return read


def address(value: Any) -> IPv4Address:
    """An IPv4 address."""
    try:
        return IPv4Address(text(value))
    except AddressValueError as error:
        raise ValueError(f"{value!r} is not an IPv4 address") from error


def network(value: Any) -> IPv4Network:
    """An IPv4 prefix, without bits behind it."""
    try:
        return IPv4Network(text(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not an IPv4 prefix such as 10.1.0.0/16 ({error})") from error


def interface(value: Any) -> str:
    """The name of a network interface, which need not be there yet."""
    name = text(value)
    if len(name) > _LONGEST_INTERFACE_NAME or "/" in name or " " in name or name in (".", ".."):
        raise ValueError(f"{name!r} is not the name of a network interface")
    return name


def one_of(words: type[_Word]) -> Callable[[Any], _Word]:
    """A reader of one of an enumeration's values, which are words."""
    known = {str(each.value): each for each in words}

    def read(value: Any) -> _Word:
        word = text(value)
        if word not in known:
            raise ValueError(f"{word!r} is not known{nearest(word, tuple(known))}")
        return known[word]

    return read


def table_of(name: str) -> Callable[[Any], Mapping[str, Any]]:
    """A reader of one of the tables that the file calls `name`, for example [[node]]."""

    def read(value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"must be {name} tables")
        return value

    return read


def list_of(read: Callable[[Any], _Value]) -> Callable[[Any], list[_Value]]:
    """A reader of lists, all of one kind of value."""

    def read_all(value: Any) -> list[_Value]:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        return [read(each) for each in value]

    return read_all
