# SPDX-License-Identifier: GPL-2.0-or-later
"""What README.md tells people to write and to read is there and is accepted."""

import os
import re
from pathlib import Path

import pytest

from homeward.agentd.settings import load
from homeward.daemon.settings import parse_profile
from tests.architecture.tracked import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
FINGERPRINT = f"scrypt:{'0' * 32}:{'0' * 32}"


def test_it_opens_with_the_two_commands() -> None:
    commands = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    ./dev")]
    assert commands[:2] == ["./dev demo", "./dev test"]
    assert README.index("./dev test") < README.index("\n## ")


def test_its_home_agent_s_file_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(EXAMPLES[0])
    (tmp_path / "laptop.key").write_text("00112233445566778899aabbccddeeff" * 2 + "\n")
    (tmp_path / "laptop.key").chmod(0o600)
    settings = load(tmp_path / "agent.toml", owner=os.getuid())
    assert str(settings.policy.address) == "10.0.0.2"


def test_its_profile_is_accepted() -> None:
    profile = parse_profile(EXAMPLES[1].replace("scrypt:SALT:DIGEST", FINGERPRINT), "README.md")
    assert (profile.name, profile.owner) == ("office", "alice")
    assert str(profile.home_agent.address) == "10.0.0.2", "the same as in the home agent's file"


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))
    dead = [link for link in links if not (document.parent / link).exists()]
    assert not dead, dead
