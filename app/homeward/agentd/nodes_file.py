# SPDX-License-Identifier: GPL-2.0-or-later
"""The nodes that commands manage: one text file, one line for each security association.

    # NAME    HOME_ADDRESS|PREFIX|-  SPI    ALGORITHM    KEY        [nai=NAI] [replay=nonces] [retired]
    laptop    10.77.0.10             0x100  hmac-sha256  hex:0011…
    laptop    -                      0x101  hmac-sha256  hex:2233…                                # its second key
    roamer    10.77.0.128/25         0x102  hmac-sha256  base64:…   nai=roamer@example.test

NAME is without white space, and everything that has a name is one node. PREFIX: it gets one of these home addresses.
`-`: whatever stands in the node's line above, its NAI and replay protection included. KEY as in a key file. `retired`:
nothing new rests on this key. What follows a `#` at the beginning of a line or behind white space is a comment.

The file holds secrets: it belongs to root, and nobody else may read it.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from socket import AF_INET, inet_pton
from typing import Final

from homeward.agentd.key_file import key_octets, read_private
from homeward.agentd.toml_values import nearest
from homeward.agents.policy import Node
from homeward.model.errors import ProfileError
from homeward.model.profile import ReplayStyle
from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation, Spi, nai_fault
from homeward.model.secret import Secret

LARGEST_POOL: Final = 16  # bits of prefix: 65,536 addresses are searched in a moment, 16 million are not
RETIRED: Final = "retired"

_LARGEST: Final = 64 * 1024 * 1024
_ALGORITHMS: Final = {each.value: each for each in AuthenticationAlgorithm}
_REPLAYS: Final = {each.value: each for each in ReplayStyle}
_FIELDS: Final = "NAME HOME_ADDRESS|PREFIX|- SPI ALGORITHM KEY"
_NOTHING: Final[tuple[str | None, ReplayStyle, bool]] = (None, ReplayStyle.TIMESTAMPS, False)


def read_nodes(path: Path, *, owner: int = 0) -> Iterator[Node]:
    """The nodes of the file, in its order. ProfileError, with the line's number and never with a key."""
    octets = read_private(path, what="nodes file", longest=_LARGEST + 1, owner=owner)
    if len(octets) > _LARGEST:
        raise ProfileError(f"nodes file {path}: longer than {_LARGEST} octets")
    return nodes_of(octets, f"nodes file {path}")


def nodes_of(octets: bytes, which: str) -> Iterator[Node]:
    """The nodes that such a file's octets say. ProfileError begins with `which`."""
    reader = _Reader()
    collecting = gc.isenabled()
    gc.disable()  # a hundred thousand nodes are no garbage, and looking for some doubles the time
    try:
        for number, words in lines_of(octets):
            try:
                if words:
                    yield reader.read(words)
            except ProfileError as error:
                raise ProfileError(f"{which}, line {number}: {error}") from None
    except UnicodeDecodeError:
        raise ProfileError(f"{which}: is not text in UTF-8") from None
    finally:
        if collecting:
            gc.enable()


def check_nodes(octets: bytes, which: str) -> None:
    """ProfileError where they are no nodes file."""
    for _ in nodes_of(octets, which):
        pass


def lines_of(octets: bytes) -> Iterator[tuple[int, list[str]]]:
    """The number of each line, and its words. UnicodeDecodeError."""
    # Line by line, because a hundred thousand of them as one list and one text are memory that never comes back.
    for number, line in enumerate(io.TextIOWrapper(io.BytesIO(octets), "utf-8", newline="\n"), 1):
        words = line.split()
        yield number, _without_comment(words) if "#" in line else words


def _without_comment(words: list[str]) -> list[str]:
    for position, word in enumerate(words):
        if word[0] == "#":
            return words[:position]
    return words


class _Reader:
    """Of most nodes nothing but the address is kept: there may be a hundred thousand."""

    def __init__(self) -> None:
        self._first: dict[str, int | Node] = {}
        self._names: dict[int | str, str] = {}

    def read(self, words: list[str]) -> Node:
        if len(words) < 5:
            raise ProfileError(f"{len(words)} words instead of {_FIELDS}")
        name, where, spi, algorithm, key = words[:5]
        nai, replay, retired = _NOTHING if len(words) == 5 else _options(words[5:])
        if algorithm not in _ALGORITHMS:
            raise ProfileError(
                f"algorithm {algorithm!r} is not known{nearest(algorithm, tuple(_ALGORITHMS))}"
            )
        try:
            octets = key_octets(key)
        except ValueError:  # no cause: its text could quote a part of the key
            raise ProfileError("the key must be hexadecimal digits, or base64") from None
        association = MobilitySecurityAssociation(_spi(spi), _ALGORITHMS[algorithm], key=Secret(octets))
        return self._node(name, where, association, nai, replay, retired)

    def _node(
        self,
        name: str,
        where: str,
        association: MobilitySecurityAssociation,
        nai: str | None,
        replay: ReplayStyle,
        retired: bool,
    ) -> Node:
        known = self._first.get(name)
        if isinstance(known, int):
            known = Node(name, IPv4Address(known), association)
        if where == "-":
            if known is None:
                raise ProfileError(f"'-' means as in the line above, and there is no line of {name!r} above")
            if nai is not None and nai != known.nai:
                raise ProfileError(f"{name!r} has another NAI in its line above")
            return replace(known, association=association, retired=retired)
        address, pool = _place(where, nai)
        made = Node(name, address, association, nai=nai, home_addresses=pool, replay=replay, retired=retired)
        if known is None:
            self._introduce(made)
        elif (address, pool, nai, replay) != (
            known.home_address,
            known.home_addresses,
            known.nai,
            known.replay,
        ):
            raise ProfileError(f"{name!r} is there already, with another address, NAI or replay protection")
        return made

    def _introduce(self, node: Node) -> None:
        if not node.name.isprintable():
            raise ProfileError("the name has characters that do not print")
        plain = node.nai is None and node.replay is ReplayStyle.TIMESTAMPS
        if node.home_address is not None:
            number = int(node.home_address)
            self._claim(number, node.name, node.home_address)
            self._first[node.name] = number if plain else node
        else:
            self._first[node.name] = node
        if node.nai is not None:
            self._claim(node.nai, node.name, node.nai)

    def _claim(self, key: int | str, name: str, shown: object) -> None:
        if self._names.setdefault(key, name) != name:
            raise ProfileError(f"{shown} belongs to {self._names[key]!r} already")


def _place(where: str, nai: str | None) -> tuple[IPv4Address | None, IPv4Network | None]:
    if "/" not in where:
        try:
            return IPv4Address(inet_pton(AF_INET, where)), None  # thrice as fast as from text
        except (OSError, ValueError):
            raise ProfileError(
                f"{where!r} is not an IPv4 address, nor a prefix such as 10.77.0.128/25"
            ) from None
    try:
        pool = IPv4Network(where)
    except ValueError as error:
        raise ProfileError(f"{where!r} is not an IPv4 prefix such as 10.77.0.128/25 ({error})") from None
    if pool.prefixlen < LARGEST_POOL:
        raise ProfileError(f"{pool} is too large, /{LARGEST_POOL} is the most")
    if nai is None:
        raise ProfileError("nai=… is missing: without a home address of its own nothing else names the node")
    return None, pool


def _spi(text: str) -> Spi:
    try:
        return Spi(int(text, 0))
    except ValueError:
        raise ProfileError(f"SPI {text!r} is not a number such as 0x100 or 256") from None


def _options(words: list[str]) -> tuple[str | None, ReplayStyle, bool]:
    nai, replay, retired = _NOTHING
    for word in words:
        key, equals, value = word.partition("=")
        if word == RETIRED:
            retired = True
        elif key == "nai" and equals:
            fault = nai_fault(value)
            if fault is not None:
                raise ProfileError(f"nai: cannot be used: {fault}")
            nai = value
        elif key == "replay" and equals:
            if value not in _REPLAYS:
                raise ProfileError(f"replay {value!r} is not known{nearest(value, tuple(_REPLAYS))}")
            replay = _REPLAYS[value]
        elif equals or word.isalpha():
            raise ProfileError(f"{key!r} is not known{nearest(key, ('nai', 'replay', RETIRED))}")
        else:  # it may be a part of a key
            raise ProfileError("something stands behind the key that is not nai=…, replay=… or retired")
    return nai, replay, retired
