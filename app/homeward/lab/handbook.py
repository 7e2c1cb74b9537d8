# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/agents.md as a story follows it: what is typed where, chapter by chapter, and nothing of it kept elsewhere."""

import re
from dataclasses import dataclass
from typing import Final

from homeward.lab.errors import LabError
from homeward.lab.state import checkout
from homeward.lab.topology import AGENT, LAPTOP

DOCUMENT: Final = "docs/agents.md"
HOSTS: Final = {"agent": AGENT, "laptop": LAPTOP, "outside": "ext1"}
"""Which of the lab's hosts is meant by the word behind `sh`."""

_FENCE: Final = re.compile(r"^\s*```\s*(.*?)\s*$")


@dataclass(frozen=True, slots=True)
class Block:
    """Commands of one host, one a line; `line` is where the first stands in the document."""

    host: str
    commands: tuple[str, ...]
    line: int


def read() -> dict[str, tuple[Block, ...]]:
    """The document of this checkout: the blocks of each chapter that has any. LabError where it cannot be followed."""
    root = checkout()
    if root is None:
        raise LabError(f"this story follows {DOCUMENT}, which only a checkout has")
    try:
        return chapters((root / DOCUMENT).read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"{DOCUMENT}: {error.strerror}") from error


def chapters(text: str) -> dict[str, tuple[Block, ...]]:
    """The blocks of shell commands in a text, by the headings of the second level. LabError names the line."""
    found: dict[str, list[Block]] = {}
    title, inside, commands, begin = "", None, list[str](), 0
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if inside is not None and fence is None:
            commands += [line] if line.strip() else []
        elif inside is not None:
            if inside[:1] == ["sh"]:
                found.setdefault(title, []).append(Block(_host(inside, begin), tuple(commands), begin))
            inside = None
        elif fence is not None:
            inside, commands, begin = fence[1].split(), [], number + 1
        elif line.startswith("## "):
            title = line.removeprefix("## ").strip()
    if inside is not None:
        raise LabError(f"{DOCUMENT}: the block in line {begin - 1} does not end")
    return {title: tuple(blocks) for title, blocks in found.items()}


def _host(words: list[str], line: int) -> str:
    if len(words) != 2 or words[1] not in HOSTS:
        raise LabError(f"{DOCUMENT}, line {line - 1}: `sh` needs one of {', '.join(HOSTS)} behind it")
    return HOSTS[words[1]]
