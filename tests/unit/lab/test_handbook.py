# SPDX-License-Identifier: GPL-2.0-or-later
"""The document that a story follows is read to its last command, and all of it is followed."""

from pathlib import Path

import pytest

from homeward.lab import handbook
from homeward.lab.errors import LabError
from homeward.lab.incidents import Follow
from homeward.lab.stories import STORIES
from homeward.lab.units import unit_of

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / handbook.DOCUMENT).read_text()


def test_the_operators_day_follows_every_chapter_with_commands_once_and_in_order() -> None:
    scenes = STORIES["operators-day"].scenes
    doings = [each for scene in scenes for each in (*scene.opening, *scene.meanwhile)]
    followed = [each.chapter for each in doings if isinstance(each, Follow)]
    assert followed == list(handbook.read())


def test_no_command_of_the_document_is_left_out() -> None:
    blocks = [block for chapter in handbook.read().values() for block in chapter]
    assert len(blocks) == sum(line.strip().startswith("```sh") for line in TEXT.splitlines())
    lines = TEXT.splitlines()
    for block in blocks:
        there = lines[block.line - 1 : block.line - 1 + len(block.commands)]
        assert there == list(block.commands)
        assert lines[block.line - 1 + len(block.commands)] == "```"
    # Every other kind of block is for looking at: a shell's would be missed by the words above.
    assert not [line for line in lines if line.startswith(("```bash", "```console", "~~~"))]


def test_commands_are_read_with_their_host_and_their_line() -> None:
    text = "# x\n\n## One\n\n```text\nno\n```\n```sh agent\na b\nc\n```\n## Two\n\n## Three\n```sh outside\nd\n```\n"
    assert handbook.chapters(text) == {
        "One": (handbook.Block("agent", ("a b", "c"), 9),),
        "Three": (handbook.Block("ext1", ("d",), 16),),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("## One\n```sh\na\n```\n", "line 2: `sh` needs one of agent, laptop, outside"),
        ("## One\n```sh nowhere\na\n```\n", "line 2"),
        ("## One\n\n```sh agent\na\n", "the block in line 3 does not end"),
    ],
)
def test_what_cannot_be_followed_is_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(LabError, match=told):
        handbook.chapters(text)


def test_a_unit_is_obeyed_as_it_is_shipped() -> None:
    unit = unit_of("homeward-agent", (ROOT / "packaging/systemd/homeward-agent.service").read_text())
    assert unit.start == ("/usr/bin/homeward-agent", "--config", "/etc/homeward/agent.toml")
    assert unit.reload[:2] == ("/usr/bin/homeward-agent", "reload")
    assert (unit.stop_signal.name, unit.restart_signal.name) == ("SIGTERM", "SIGUSR2")
    assert (unit.state, unit.state_mode, unit.runtime, unit.umask) == ("homeward", "0700", "homeward", "0077")


def test_a_unit_with_a_life_that_is_not_played_is_refused() -> None:
    with pytest.raises(LabError, match="only notify and on-failure"):
        unit_of("other", "[Service]\nType=simple\nExecStart=/bin/true\n")
