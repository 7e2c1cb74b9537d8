# SPDX-License-Identifier: GPL-2.0-or-later
"""Journals: what the fake and the file have in common, and what a file can suffer besides."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from homeward.adapters.file_journal import FileJournals
from homeward.model.errors import Unavailable
from homeward.model.journal import IdentificationState, Journal
from homeward.ports.world import Journals
from tests.world.fakes import FakeJournals

FULL = Journal(
    "büro",
    (
        IdentificationState(256, "10.0.0.2", 2**64 - 1, -1.5),
        IdentificationState(4294967295, "10.0.0.3", 0, 0.0),
    ),
)


@pytest.fixture(params=["fake", "file"])
def journals(request: pytest.FixtureRequest, tmp_path: Path) -> Journals:
    return FakeJournals() if request.param == "fake" else FileJournals(tmp_path / "state" / "journal.json")


def test_nothing_saved_is_an_empty_journal(journals: Journals) -> None:
    assert journals.load() == Journal()


@pytest.mark.rows("R-172")
@pytest.mark.parametrize("journal", [Journal(), Journal("x"), FULL])
def test_what_is_saved_is_loaded(journals: Journals, journal: Journal) -> None:
    journals.save(FULL)
    journals.save(journal)
    assert journals.load() == journal


def test_what_cannot_be_done_is_unavailable(tmp_path: Path) -> None:
    refusing = FakeJournals()
    refusing.refuses = Unavailable("read the journal", "refused")
    (tmp_path / "in-the-way").write_text("")
    for journals in (refusing, FileJournals(tmp_path / "in-the-way" / "journal.json")):
        with pytest.raises(Unavailable):
            journals.save(FULL)
        with pytest.raises(Unavailable):
            journals.load()


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.json"


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        FileJournals(tmp_path / "new" / "journal.json").save(FULL)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new" / "journal.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_it_is_versioned_json(path: Path) -> None:
    FileJournals(path).save(FULL)
    plain = json.loads(path.read_text())
    assert plain["version"] == 1
    assert plain["wanted"] == "büro"


WHOLE = json.dumps({"version": 1, "wanted": None, "identifications": []})
ROW = '{"version": 1, "wanted": null, "identifications": [%s]}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        WHOLE[:-1],
        WHOLE + "x",
        "[]",
        "null",
        "\0" * 100,
        "{}",
        WHOLE.replace("1", "2"),
        WHOLE.replace("1", '"1"'),
        WHOLE.replace("null", "7"),
        WHOLE.replace("[]", "{}"),
        ROW % "1",
        ROW % "{}",
        ROW % '{"spi": -1, "home_agent": "a", "last": 1, "offset": 0}',
        ROW % '{"spi": 1, "home_agent": "a", "last": 18446744073709551616, "offset": 0}',
        ROW % '{"spi": 1, "home_agent": "a", "last": 1, "offset": NaN}',
        ROW % '{"spi": 1, "home_agent": 2, "last": 1, "offset": 0}',
        ROW % '{"spi": true, "home_agent": "a", "last": 1, "offset": 0}',
        "[" * 100_000,
        " " * 1_100_000 + WHOLE,
    ],
)
def test_what_is_not_a_journal_says_what_to_do(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(Unavailable, match=r"read the journal .*\. Move it away \(`mv ") as caught:
        FileJournals(path).load()
    assert len(str(caught.value)) < 600
    assert path.read_text() == text  # kept for who wants to know
    FileJournals(path).save(FULL)
    assert FileJournals(path).load() == FULL


def test_not_utf_8(path: Path) -> None:
    path.write_bytes(WHOLE.encode("utf-16"))
    FileJournals(path).load()  # JSON may be that as well
    path.write_bytes(b'{"version": 1, "wanted": "\xff"}')
    with pytest.raises(Unavailable):
        FileJournals(path).load()


def test_a_failed_write_leaves_the_old_journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journals = FileJournals(path)
    journals.save(FULL)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match=r"write the journal .*ENOSPC"):
        journals.save(Journal("other"))
    monkeypatch.undo()
    assert journals.load() == FULL
    assert os.listdir(path.parent) == [path.name]


def test_what_a_killed_life_left_is_in_nobodys_way(path: Path) -> None:
    journals = FileJournals(path)
    journals.save(FULL)
    path.with_name("journal.json.new").write_text('{"vers')
    assert journals.load() == FULL
    journals.save(Journal("next"))
    assert journals.load() == Journal("next")
    assert os.listdir(path.parent) == [path.name]


def test_a_planted_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.with_name("journal.json.new").symlink_to(victim)
    FileJournals(path).save(FULL)
    assert victim.read_text() == "precious"
    assert FileJournals(path).load() == FULL


def test_threads_take_turns(path: Path) -> None:
    journals = FileJournals(path)
    threads = [
        threading.Thread(target=lambda name=name: [journals.save(Journal(name)) for _ in range(20)])  # type: ignore[misc]
        for name in ("a", "b", "c")
    ]
    for thread in threads:
        thread.start()
    seen = {journals.load().wanted for _ in range(200)}
    for thread in threads:
        thread.join()
    assert journals.load().wanted in {"a", "b", "c"}
    assert seen <= {None, "a", "b", "c"}


KILLED = """
import sys, itertools
from pathlib import Path
from homeward.adapters.file_journal import FileJournals
from homeward.model.journal import IdentificationState, Journal
journals = FileJournals(Path(sys.argv[1]))
print("ready", flush=True)
for number in itertools.count():
    journals.save(Journal(str(number), (IdentificationState(256, "10.0.0.2", number, 0.0),) * 50))
"""


def test_kill_9_in_the_middle_of_writing_leaves_one_whole_journal(path: Path) -> None:
    for delay in (0.01, 0.03, 0.05, 0.08):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        threading.Event().wait(delay)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        journal = FileJournals(path).load()
        assert journal.wanted is not None or journal == Journal()
        assert all(str(state.last) == journal.wanted for state in journal.identifications)
