# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward-agent key: keys come, are retired, and are revoked; each change is the running agent's at once."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from homeward.agentd import settings as home_settings
from homeward.agentd import toml_values
from homeward.agentd.cli.outcome import OK, CommandFailed, UsageError, say
from homeward.agentd.cli.running import control_of, reload, try_order
from homeward.agentd.configuration import load
from homeward.agentd.control_client import AgentAbsent, ask_for_all
from homeward.agentd.hand_out import new_key, profile_table, secret_line, write_secret
from homeward.agentd.nodes_editor import NodesEditor, editing
from homeward.agentd.settings import AgentSettings
from homeward.agents.policy import Node
from homeward.model.errors import HomewardError, ProfileError
from homeward.model.registration import AuthenticationAlgorithm, MobilitySecurityAssociation, Spi

MOST_KEYS: Final = 2
"""Not retired, of one node at a time: the one in use, and the one that takes its place."""
_FIRST_SPI: Final = 0x100
_STOLEN_FILE: Final = "the nodes file could not be changed, so the node comes back with the next start"


def change_keys(options: argparse.Namespace) -> int:
    """One of the verbs; the exit status."""
    match options.verb:
        case "add":
            return _add(options)
        case "retire":
            return _retire(options.config, options.name, options.spi, force=options.force)
        case "revoke":
            return _revoke(options.config, options.name, options.spi)
        case _:
            return _list(options.config, as_json=options.json)


def _add(options: argparse.Namespace) -> int:
    if options.show and not sys.stdout.isatty():
        raise UsageError("--show is for a terminal: in a pipe or a log the key would stay; use --out FILE")
    settings = _home(options.config)
    place = _nodes_file(settings.nodes_file, options.config)
    with editing(place, owner=os.geteuid()) as editor:
        made = _new_node(options, settings, editor.highest_spi(options.name))
        if options.out is not None:
            _hand_out(options.out, made)
        editor.add(made)
        try:
            note = _apply(editor, options.config)
        except BaseException:
            if options.out is not None:
                options.out.unlink(missing_ok=True)
            raise
    print(f"# For the profile on the computer of {made.name}, in place of its table [home_agent]:")
    print(profile_table(made, settings.policy.address), end="")
    if options.show:
        print(
            f"# The key, for `homeward connect --secrets-fd`: close this window when you have it.\n{secret_line(made)}"
        )
    else:
        say(
            f"the key is in {options.out}; its user needs it once, with `homeward connect --secrets-fd 3 3<FILE`"
        )
    if note:
        say(note)
    return OK


def _new_node(options: argparse.Namespace, settings: AgentSettings, highest: int | None) -> Node:
    name = options.name
    if not name.isprintable() or not name or name[0] == "#" or any(letter.isspace() for letter in name):
        raise UsageError(
            f"{name!r} is no name for a node: printing characters without white space, no # in front"
        )
    known = [node for node in settings.policy.nodes if node.name == name]
    spis = {int(node.association.spi) for node in known}
    # A number that was a revoked key's is not used again: an old backup, or a thief, has that key.
    free = max([*spis, _FIRST_SPI - 1, *(() if highest is None else (highest,))]) + 1
    spi = options.spi if options.spi is not None else free
    if spi in spis:
        raise CommandFailed(
            f"{name} has a key with SPI {spi:#x} already; leave --spi out for the next free one"
        )
    association = MobilitySecurityAssociation(
        Spi(spi), AuthenticationAlgorithm(options.algorithm), key=new_key()
    )
    if not known:
        return _stranger(options, association)
    given = [options.home_address, options.home_addresses, options.nai]
    if any(given) and not _same(known[0], options):
        raise UsageError(
            f"{name} is there already, with another address or NAI; leave them out for another key of it"
        )
    usable = [int(node.association.spi) for node in known if not node.retired]
    if len(usable) >= MOST_KEYS:
        raise CommandFailed(
            f"{name} has {len(usable)} keys already (SPI {_shown(usable)}); first "
            f"`homeward-agent key retire {name} --spi {min(usable):#x}`"
        )
    return replace(known[0], association=association, retired=False)


def _stranger(options: argparse.Namespace, association: MobilitySecurityAssociation) -> Node:
    pool = None
    if options.home_addresses is not None:
        try:
            pool = IPv4Network(options.home_addresses)
        except ValueError as error:
            raise UsageError(f"--home-addresses: {error}") from None
    elif options.home_address is None:
        raise UsageError(
            f"{options.name} is a new node: it needs --home-address, or --home-addresses and --nai"
        )
    try:
        return Node(options.name, options.home_address, association, nai=options.nai, home_addresses=pool)
    except ProfileError as error:
        raise UsageError(str(error)) from None


def _same(known: Node, options: argparse.Namespace) -> bool:
    pool = None if options.home_addresses is None else IPv4Network(options.home_addresses, strict=False)
    return (
        options.home_address in (None, known.home_address)
        and pool in (None, known.home_addresses)
        and options.nai in (None, known.nai)
    )


def _hand_out(place: Path, node: Node) -> None:
    try:
        write_secret(place, node)
    except FileExistsError:
        raise CommandFailed(
            f"{place} is there already; nothing was changed. Give another --out FILE"
        ) from None


def _retire(config: Path, name: str, spi: int, *, force: bool) -> int:
    settings = _home(config)
    known = [node for node in settings.policy.nodes if node.name == name]
    meant = [node for node in known if int(node.association.spi) == spi]
    if not meant:
        raise CommandFailed(_unknown(name, spi, known))
    others = [node for node in known if not node.retired and node not in meant]
    if not others and not force:
        raise CommandFailed(
            f"SPI {spi:#x} is the only key of {name}: it could not register any more. First "
            f"`homeward-agent key add {name} --out FILE`, or --force"
        )
    with editing(_nodes_file(settings.nodes_file, config), owner=os.geteuid()) as editor:
        if not editor.retire(name, spi):
            raise CommandFailed(
                f"SPI {spi:#x} of {name} stands in {config}, not in the nodes file: change it there"
            )
        note = _apply(editor, config)
    print(f"{name}: SPI {spi:#x} makes no binding any more")
    for binding in _bindings(config):
        if binding["node"] == name and binding["spi"] == spi:
            say(
                f"the binding of {binding['home_address']} still rests on it, for {binding['remaining']} s at most; "
                f"its user needs the other key before that"
            )
    if note:
        say(note)
    return OK


def _revoke(config: Path, name: str, spi: int | None) -> int:
    """The running agent first: whatever is wrong with files must not keep a thief connected."""
    told = None if spi is not None else try_order(config, "revoke-node", name=name)
    table = toml_values.read_table(config, owner=os.geteuid())
    place = home_settings.nodes_place(table, config.parent)
    in_table = any(entry.get("name") == name for entry in table.get("node", ()) if isinstance(entry, dict))
    removed = 0
    note: str | None = None
    if place is not None:
        try:
            removed, note = _take_out(place, config, name, spi)
        except (HomewardError, OSError) as error:
            raise CommandFailed(f"{_so_far(name, told)}{_STOLEN_FILE}: {error}") from error
    if in_table:
        raise CommandFailed(
            f"{_so_far(name, told)}{name} stands in {config} too: take its [[node]] out there, or it comes back "
            "with the next start or reload"
        )
    if not removed and (told is None or not told["keys"]):
        raise CommandFailed(_unknown(name, spi, []))
    what = name if spi is None else f"{name}: SPI {spi:#x}"
    ended = "" if told is None else f", {told['bindings_ended']} binding(s) ended"
    print(f"{what}: revoked, {removed} key(s) gone{ended}")
    if note:
        say(note)
    return OK


def _take_out(place: Path, config: Path, name: str, spi: int | None) -> tuple[int, str | None]:
    """Out of the file, and that is left so whatever a reload says: what was stolen does not come back."""
    with editing(place, owner=os.geteuid()) as editor:
        removed = editor.remove(name, spi)
        if not removed:
            return 0, None
        editor.write()
        try:
            return removed, reload(config)
        except HomewardError as error:
            return removed, f"the keys are gone from the file, but the agent did not read it again: {error}"


def _list(config: Path, *, as_json: bool) -> int:
    nodes = _home(config).policy.nodes
    if as_json:
        print(json.dumps({"format": 1, "keys": [_described(node) for node in nodes]}, indent=1))
        return OK
    if not nodes:
        print("There are no nodes; `homeward-agent key add NAME --home-address A --out FILE` makes one.")
    for node in nodes:
        where = node.home_address if node.home_address is not None else node.home_addresses
        spi = f"{int(node.association.spi):#x}"
        more = " ".join(
            word for word in (node.nai and f"nai={node.nai}", "retired" if node.retired else None) if word
        )
        print(
            f"{node.name:<20} {where!s:<18} {spi:<10} {node.association.algorithm.value:<12} {more}".rstrip()
        )
    return OK


def _described(node: Node) -> dict[str, object]:
    return {
        "node": node.name,
        "home_address": None if node.home_address is None else str(node.home_address),
        "home_addresses": None if node.home_addresses is None else str(node.home_addresses),
        "nai": node.nai,
        "spi": int(node.association.spi),
        "algorithm": node.association.algorithm.value,
        "replay": node.replay.value,
        "retired": node.retired,
    }


def _apply(editor: NodesEditor, config: Path) -> str | None:
    """Write, and have the agent take it over; what is refused is put back. A note where no agent is there."""
    editor.write()
    try:
        load(config)  # also what the nodes file cannot know: nodes of the configuration itself
        return reload(config)
    except HomewardError as error:
        editor.put_back()
        raise CommandFailed(f"nothing was changed: {error}") from error


def _home(config: Path) -> AgentSettings:
    settings = load(config)
    if not isinstance(settings, AgentSettings):
        raise CommandFailed(
            f"{config} is a foreign agent's; the keys of its neighbours stand in that file itself"
        )
    return settings


def _nodes_file(place: Path | None, config: Path) -> Path:
    if place is None:
        raise CommandFailed(
            f'{config} names no nodes_file, where commands keep keys: add `nodes_file = "nodes"`, and make it with '
            f"`install -m 0600 /dev/null {config.parent / 'nodes'}`"
        )
    return place


def _bindings(config: Path) -> Sequence[dict[str, object]]:
    try:
        return [each for answer in ask_for_all(control_of(config), "bindings") for each in answer["bindings"]]
    except AgentAbsent:
        return ()


def _so_far(name: str, told: dict[str, object] | None) -> str:
    return "" if told is None else f"the running agent has forgotten {name}, but "


def _unknown(name: str, spi: int | None, known: Sequence[Node]) -> str:
    if spi is not None and known:
        return (
            f"{name} has no key with SPI {spi:#x}, but {_shown(int(node.association.spi) for node in known)}"
        )
    return f"there is no node {name!r}; `homeward-agent key list` shows them"


def _shown(spis: Iterable[int]) -> str:
    return ", ".join(f"{spi:#x}" for spi in sorted(spis))
