# SPDX-License-Identifier: GPL-2.0-or-later
"""Every parser against the committed corpus, and a short coverage-guided search from there (tests/fuzz/fuzz.py)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from homeward.model.errors import WireError
from tests.fuzz.parsers import PARSERS

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).resolve().parent / "corpus"
RUNS = 2000
SECONDS = 3
ROUNDS = 500

pytestmark = pytest.mark.rows("R-102", "R-103")


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def accepts(name: str, octets: bytes) -> bool:
    try:
        PARSERS[name].parse(octets)
    except WireError:
        return False
    return True


@pytest.mark.parametrize("name", PARSERS)
def test_the_corpus(name: str) -> None:
    judged = [accepts(name, octets) for octets in corpus(name)]
    assert any(judged), "the corpus has messages that are accepted"


@pytest.mark.parametrize("name", PARSERS)
def test_each_of_them_cut_anywhere(name: str) -> None:
    for octets in corpus(name)[:20]:
        for cut in range(min(len(octets), 120)):
            accepts(name, octets[:cut])


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_at_random_but_always_in_the_same_way(name: str) -> None:
    chance = random.Random(f"port 434 {name}")
    pool = corpus(name)
    refused = 0
    for _ in range(ROUNDS):
        octets = bytearray(chance.choice(pool))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(octets) + 1)
            match chance.randrange(4):
                case 0 if at < len(octets):
                    octets[at] ^= 1 << chance.randrange(8)
                case 1:
                    octets[at:at] = chance.randbytes(chance.randint(1, 4))
                case 2:
                    del octets[at : at + chance.randint(1, 8)]
                case _:
                    octets[at:] = chance.choice(pool)[at:]
        refused += not accepts(name, bytes(octets))
    # "packet" tries all openers and refuses nothing itself; "solicitation" is cut off from most by its first octets.
    assert refused > 0 or name == "packet"


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("name", PARSERS)
def test_a_short_search(name: str, tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    limits = ["-seed=5266", f"-runs={RUNS}", f"-max_total_time={SECONDS}", "-max_len=400", "-timeout=5"]
    command = [sys.executable, "-m", "tests.fuzz.fuzz", name, *limits, f"-artifact_prefix={tmp_path}/"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "app"), str(ROOT), *sys.path])}
    done = subprocess.run(
        [*command, str(found), str(CORPUS / name)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        timeout=50,
        check=False,
    )
    said = done.stderr.decode("utf-8", errors="replace") + done.stdout.decode("utf-8", errors="replace")
    assert done.returncode == 0, said[-3000:]
    assert "DONE" in said, said[-3000:]
