# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/agents.md, the man page and the unit say what the program does; tests/lab types the document's blocks."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from homeward.agentd import foreign_settings, peer_settings, settings
from homeward.agentd.cli.arguments import parser
from homeward.agentd.main import main

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs/agents.md").read_text()
MANUAL = re.sub(r"\\f[BIR]", "", (ROOT / "packaging/man/homeward-agent.8").read_text()).replace("\\-", "-")
UNIT = (ROOT / "packaging/systemd/homeward-agent.service").read_text()
BLOCKS = re.findall(r"^```sh (\w+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
LINES = [(host, line) for host, block in BLOCKS for line in block.splitlines()]


def commands(made: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for action in made._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                found += commands(each, (*words, name)) or [(*words, name)]
    return found


def test_every_block_says_where_it_is_typed() -> None:
    assert DOCUMENT.count("```") == 2 * len(BLOCKS)
    assert {host for host, _ in BLOCKS} == {"agent", "laptop", "outside"}
    assert all(line and not line.startswith(("#", "$")) and not line.endswith("\\") for _, line in LINES)


@pytest.mark.parametrize("line", [line for _, line in LINES if line.startswith("homeward-agent ")])
def test_every_command_is_understood(line: str) -> None:
    words = shlex.split(line.split(">")[0].split("|")[0])[1:]
    assert parser().parse_args(words).command == words[0]


@pytest.mark.parametrize("words", commands(parser()), ids="-".join)
def test_every_command_is_in_the_manual_and_has_a_help(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(rf"\b{' '.join(words)}\b", MANUAL), "it is not in the man page"
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: homeward-agent {' '.join(words)}")


def test_every_key_of_a_home_agent_is_in_the_manual() -> None:
    keys = {
        *settings._KEYS,
        *peer_settings._NODE_KEYS,
        *peer_settings._FOREIGN_AGENT_KEYS,
        *peer_settings._PATH_KEYS,
    }
    assert [key for key in sorted(keys) if not re.search(rf"\b{key}\b", MANUAL)] == []


def test_every_key_of_a_foreign_agent_stands_in_its_settings() -> None:
    assert foreign_settings.__doc__ is not None
    missing = [key for key in foreign_settings._KEYS if key not in foreign_settings.__doc__]
    assert missing == []


def test_the_unit_says_what_the_document_relies_on() -> None:
    for line in (
        "RestartKillSignal=SIGUSR2",
        "StateDirectory=homeward",
        "RuntimeDirectory=homeward",
        "Type=notify",
    ):
        assert f"\n{line}\n" in UNIT
    assert "ExecReload=/usr/bin/homeward-agent reload " in UNIT
    assert "LoadCredentialEncrypted=nodes:" in UNIT
