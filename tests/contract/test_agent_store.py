# SPDX-License-Identifier: GPL-2.0-or-later
"""What the home agent writes down: what the fake and SQLite have in common, and what a file can suffer besides."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.adapters.sqlite_agent_store import VERSION, SqliteAgentStore, check, make_safe
from homeward.adapters.sqlite_agent_store import store as sqlite_store
from homeward.adapters.sqlite_agent_store.records import pack, unpack
from homeward.model.agent_memory import KeptBinding, KeptRevocationPeer, Memory
from homeward.model.encapsulation import Encapsulation
from homeward.model.errors import Unavailable
from homeward.model.memory_records import MemoryRecord, decode, encode, record_plain
from homeward.ports.agent_store import AgentStore, Mark
from tests.world.fake_agent_store import FakeAgentStore

STAMP = (3_990_000_000 << 32) + 12345
PEER = KeptRevocationPeer(
    IPv4Address("10.1.1.52"), 434, 0x200, is_foreign_agent=True, announced=7, heard=2**32 - 1, inform=True
)
BINDING = KeptBinding(
    IPv4Address("10.77.0.10"),
    IPv4Address("10.1.1.50"),
    node="laptop",
    spi=256,
    identification=2**64 - 1,
    lifetime=300,
    since_wall=1_790_000_000.25,
    reverse_tunnel=True,
    co_located=True,
    endpoint=IPv4Address("10.1.1.51"),
    encapsulation=Encapsulation.GRE,
    udp=True,
    port=65535,
    revocation=PEER,
)
BOUND = Memory("10.77.0.10", STAMP, BINDING)
NONCES = Memory("büro@example.test", None, replace(BINDING, port=None, udp=False, revocation=None))
GONE = Memory("10.77.0.12", STAMP << 1, None)
MARK = Mark("a-boot", 1_790_000_020.5, -1.0, 1e9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "agent.sqlite"


@pytest.fixture(params=["fake", "sqlite"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[AgentStore]:
    made: AgentStore = FakeAgentStore() if request.param == "fake" else SqliteAgentStore(path)
    yield made
    made.close()


def kept(store: AgentStore) -> dict[str, Memory]:
    return {memory.identity: memory for memory in store.memories()}


def test_a_record_is_kept_as_the_memory_that_it_is(store: AgentStore) -> None:
    store.open()
    store.save([MemoryRecord(BOUND.identity, encode(BOUND)), NONCES])
    store.save([MemoryRecord(GONE.identity, encode(GONE)), replace(BOUND, stamp=STAMP + 1)])
    assert kept(store) == {each.identity: each for each in (replace(BOUND, stamp=STAMP + 1), NONCES, GONE)}


def test_a_new_store_knows_nothing(store: AgentStore) -> None:
    assert store.open() is None
    assert list(store.memories()) == []


def test_what_is_saved_is_there_in_the_next_life(store: AgentStore) -> None:
    store.open()
    store.save([BOUND, NONCES])
    store.save([GONE])
    store.mark(MARK)
    store.close()
    assert store.open() == MARK
    assert kept(store) == {each.identity: each for each in (BOUND, NONCES, GONE)}


def test_a_memory_replaces_the_one_before_and_the_last_of_a_batch_wins(store: AgentStore) -> None:
    store.open()
    store.save([BOUND, NONCES])
    newer = Memory(BOUND.identity, STAMP + 5, None)
    store.save([replace(newer, stamp=STAMP + 4), newer])
    store.mark(MARK)
    store.mark(replace(MARK, boot_id=""))
    assert kept(store)[BOUND.identity] == newer
    assert kept(store)[NONCES.identity] == NONCES
    store.close()
    assert store.open() == replace(MARK, boot_id="")


def test_flushing_and_settling_change_nothing_that_can_be_seen(store: AgentStore) -> None:
    store.open()
    store.save([BOUND])
    store.flush()
    store.save([GONE])
    store.flush()
    assert not store.settle(1000)
    assert set(kept(store)) == {BOUND.identity, GONE.identity}


def test_a_backup_is_made_while_it_works(store: AgentStore, tmp_path: Path) -> None:
    store.open()
    store.save([BOUND])
    store.mark(MARK)
    store.back_up(tmp_path / "backup")
    store.save([GONE])
    assert set(kept(store)) == {BOUND.identity, GONE.identity}


# --- records ---------------------------------------------------------------------------------------------------------

words = st.integers(0, 2**32 - 1)
addresses = st.builds(IPv4Address, words)
peers = st.builds(
    KeptRevocationPeer,
    addresses,
    st.integers(0, 65535),
    words,
    is_foreign_agent=st.booleans(),
    announced=words,
    heard=words,
    inform=st.booleans(),
)
bindings = st.builds(
    KeptBinding,
    addresses,
    addresses,
    node=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    spi=words,
    identification=st.integers(0, 2**64 - 1),
    lifetime=st.integers(0, 65535),
    since_wall=st.floats(allow_nan=False, allow_infinity=False),
    reverse_tunnel=st.booleans(),
    co_located=st.booleans(),
    endpoint=addresses,
    encapsulation=st.sampled_from(Encapsulation),
    udp=st.booleans(),
    port=st.none() | st.integers(0, 65535),
    revocation=st.none() | peers,
)
memories = st.builds(
    Memory, st.text(max_size=20), st.none() | st.integers(0, 2**96 - 1), st.none() | bindings
)


@given(memories)
def test_every_memory_has_a_record(memory: Memory) -> None:
    assert decode(memory.identity, encode(memory)) == memory


@given(bindings, st.integers(0, 2**96 - 1), st.none() | st.tuples(st.integers(0, 65535), words, words))
def test_a_plain_record_is_that_of_the_memory(
    binding: KeptBinding, stamp: int, peer: tuple[int, int, int] | None
) -> None:
    end = binding.care_of_address
    plain = replace(
        binding,
        endpoint=end,
        encapsulation=Encapsulation.IP_IN_IP,
        co_located=True,
        udp=False,
        port=None,
        revocation=None
        if peer is None
        else KeptRevocationPeer(
            end, peer[0], binding.spi, is_foreign_agent=False, announced=peer[1], heard=peer[2], inform=False
        ),
    )
    record = record_plain(
        str(plain.home_address),
        int(plain.home_address),
        int(end),
        stamp=stamp,
        node=plain.node.encode(),
        spi=plain.spi,
        identification=plain.identification,
        lifetime=plain.lifetime,
        since_wall=plain.since_wall,
        reverse_tunnel=plain.reverse_tunnel,
        peer=peer,
    )
    memory = Memory(str(plain.home_address), stamp, plain)
    assert record == (memory.identity, encode(memory))
    assert decode(*record) == memory


@given(memories, st.data())
def test_no_part_of_a_record_is_a_record_of_something_else(memory: Memory, data: st.DataObject) -> None:
    record = encode(memory)
    name = 0 if memory.binding is None else len(memory.binding.node.encode())
    cut = data.draw(st.integers(0, len(record) - name - 1))
    with pytest.raises(ValueError):
        decode(memory.identity, record[:cut])


@given(st.binary(max_size=90))
def test_octets_are_a_record_or_a_value_error(octets: bytes) -> None:
    try:
        assert encode(decode("x", octets)) == octets
    except ValueError:
        pass


@pytest.mark.parametrize("identity", [None, 7, b"x"])
def test_what_has_no_name_is_no_record(identity: object) -> None:
    with pytest.raises(ValueError):
        decode(identity, encode(GONE))


batches = st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.binary(max_size=100)))


@given(batches)
def test_a_batch_is_what_was_packed(batch: list[tuple[str, bytes]]) -> None:
    packed = pack(batch)
    assert list(unpack(packed)) == batch
    if packed:
        for octets in (packed[:-1], packed + b"\0", packed.hex()):
            with pytest.raises(ValueError):
                list(unpack(octets))


def test_what_has_no_place_in_a_record_is_not_written() -> None:
    for odd in (
        Memory("x", -1, None),
        Memory("x", 2**96, None),
        Memory("x", 0, replace(BINDING, lifetime=65536)),
    ):
        with pytest.raises(ValueError):
            encode(odd)


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(path: Path) -> Path:
    store = SqliteAgentStore(path)
    store.open()
    store.save([BOUND, NONCES, GONE])
    store.mark(MARK)
    store.close()
    return path


def opened(path: Path) -> SqliteAgentStore:
    store = SqliteAgentStore(path)
    store.open()
    return store


def test_only_its_owner_may_read_it(path: Path) -> None:
    old = os.umask(0)
    try:
        store = opened(path)
        store.save([BOUND])
    finally:
        os.umask(old)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


def test_a_file_that_others_may_read_is_refused(full: Path) -> None:
    full.chmod(0o640)
    with pytest.raises(Unavailable, match="chmod 600"):
        opened(full)
    with pytest.raises(Unavailable, match="chmod 600"):
        check(full)


def test_a_planted_link_is_not_followed(full: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted.sqlite"
    planted.symlink_to(full)
    with pytest.raises(Unavailable):
        opened(planted)


def test_two_agents_never_use_one_store(full: Path) -> None:
    store = opened(full)
    with pytest.raises(Unavailable, match="another home agent"):
        opened(full)
    with pytest.raises(Unavailable, match="another home agent"):
        make_safe(full, horizon=0.0)
    store.close()
    opened(full).close()


def edit(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def test_a_newer_version_is_refused_and_stays_as_it_is(full: Path) -> None:
    edit(full, f"PRAGMA user_version = {VERSION + 1}")
    before = full.read_bytes()
    with pytest.raises(Unavailable, match=rf"version {VERSION + 1} .* knows version {VERSION}; install"):
        opened(full)
    with pytest.raises(Unavailable, match="install"):
        check(full)
    assert full.read_bytes() == before


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    path.parent.mkdir()
    edit(path, "CREATE TABLE mine (x)")
    path.chmod(0o600)
    with pytest.raises(Unavailable, match="some other program"):
        opened(path)


def test_an_earlier_version_is_brought_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(path).close()
    added = (*sqlite_store._STEPS, lambda connection: connection.execute("CREATE TABLE later (x)"))
    monkeypatch.setattr(sqlite_store, "_STEPS", added)
    monkeypatch.setattr(sqlite_store, "VERSION", 2)
    opened(path).close()
    assert check(path).version == 2
    edit(path, "SELECT x FROM later")


@pytest.mark.parametrize(
    "damage",
    [
        lambda octets: b"not a database at all, but long enough for a header of one" * 20,
        lambda octets: octets[:1500],
        lambda octets: octets[:1024] + bytes(2048) + octets[3072:],
        lambda octets: octets[:1024] + os.urandom(len(octets) - 1024),
    ],
)
def test_a_damaged_file_says_what_to_do_and_is_kept(full: Path, damage: object) -> None:
    assert callable(damage)
    octets = damage(full.read_bytes())
    full.write_bytes(octets)
    with pytest.raises(Unavailable, match=r"damaged: .*mv .*agent.sqlite.bad.* register again"):
        list(opened(full).memories())
    assert full.read_bytes() == octets
    with pytest.raises(Unavailable, match="damaged"):
        check(full)


@pytest.mark.parametrize("batch", ["x'ff'", "x'0001000178ff'", "'text'"])
def test_a_batch_that_is_not_understood_says_what_to_do(full: Path, batch: str) -> None:
    edit(full, "INSERT INTO journal (records) VALUES (batch)".replace("batch", batch))
    with pytest.raises(Unavailable, match=r"damaged: (a batch of records|the record of 'x')"):
        list(opened(full).memories())


def test_a_record_that_is_not_understood_says_what_to_do(full: Path) -> None:
    before = opened(full)
    before.settle(1000)
    before.close()
    edit(full, "UPDATE memory SET record = x'ff'")
    store = opened(full)
    with pytest.raises(Unavailable, match="damaged: the record of"):
        list(store.memories())
    store.close()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("")
    with pytest.raises(Unavailable, match="open the store"):
        opened(tmp_path / "in-the-way" / "agent.sqlite")


def test_a_backup_is_one_whole_private_file_without_a_boot(full: Path, tmp_path: Path) -> None:
    store = opened(full)
    store.save([Memory("late", 1, None)])
    backup = tmp_path / "backup.sqlite"
    worker = threading.Thread(target=store.back_up, args=(backup,))
    worker.start()
    worker.join()
    store.close()
    assert set(os.listdir(tmp_path)) == {"state", "backup.sqlite"}
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert check(backup).records == 4
    again = SqliteAgentStore(backup)
    assert again.open() == replace(MARK, boot_id="")
    assert kept(again)[BOUND.identity] == BOUND
    again.close()


def test_a_restored_file_is_made_safe(full: Path) -> None:
    make_safe(full, horizon=MARK.horizon + 100)
    store = SqliteAgentStore(full)
    assert store.open() == replace(MARK, boot_id="", horizon=MARK.horizon + 100, floor=MARK.horizon + 100)
    store.close()
    make_safe(full, horizon=5.0)
    assert store.open() == replace(MARK, boot_id="", horizon=MARK.horizon + 100, floor=MARK.horizon + 100)
    store.close()


def test_looking_changes_nothing(full: Path) -> None:
    before = full.read_bytes()
    assert check(full).records == 3
    assert full.read_bytes() == before
    store = opened(full)
    store.save([Memory("late", 1, None)])
    assert check(full).records == 4  # also one in use
    store.close()


class Small:
    """A store with little room in its journal, beside a plain dict that says what it has to know."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_store, "_MOST_UNSETTLED", 60)
        monkeypatch.setattr(sqlite_store, "_UNSETTLED", 10)
        self.path = path
        self.store = opened(path)
        self.known: dict[str, Memory] = {}
        self.chance = random.Random(5944)

    def save(self, stamp: int) -> None:
        names = self.chance.sample(range(50), self.chance.randrange(1, 6))
        batch = [Memory(f"10.0.0.{each}", stamp, None) for each in names]
        self.store.save(batch)
        self.known |= {each.identity: each for each in batch}

    def rows(self) -> int:
        with closing(sqlite3.connect(self.path)) as reader:
            return int(reader.execute("SELECT count(*) FROM journal").fetchone()[0])


@pytest.mark.parametrize("quiet", [0.0, 0.5])
def test_the_journal_stays_short_and_nothing_is_older_than_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, quiet: float
) -> None:
    small = Small(path, monkeypatch)
    longest = 0
    for stamp in range(1, 300):
        small.save(stamp)
        if small.chance.random() < quiet:
            small.store.settle(small.chance.randrange(1, 20))
        assert kept(small.store) == small.known
        longest = max(longest, small.rows())
        if stamp % 37 == 0:  # another process finds it as it would after kill -9
            copy = path.with_name("copy")
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            copy.chmod(0o600)
            assert check(copy).records == len(small.known)
            other = opened(copy)
            assert kept(other) == small.known
            other.close()
    assert longest < 60
    while small.store.settle(7):
        assert kept(small.store) == small.known
    assert small.rows() <= 10
    small.store.close()
    small.store = opened(path)
    assert small.rows() == 0
    assert kept(small.store) == small.known
    small.store.close()


def test_settling_that_fails_forgets_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Small(path, monkeypatch)
    for stamp in range(1, 15):
        small.save(stamp)
    with monkeypatch.context() as patch:  # as by a full disk: when half of it is done
        patch.setattr(sqlite_store, "_FORGET", "DELETE FROM nowhere WHERE number <= ?")
        with pytest.raises(Unavailable):
            small.store.settle(10)
    assert kept(small.store) == small.known
    small.store.settle(100)
    assert small.rows() == 0
    assert kept(small.store) == small.known
    small.store.close()


KILLED = """
import sys, itertools
from pathlib import Path
from homeward.adapters.sqlite_agent_store import SqliteAgentStore
from homeward.model.agent_memory import Memory
store = SqliteAgentStore(Path(sys.argv[1]))
store.open()
for number in itertools.count(1):
    store.save([Memory(f"10.0.0.{each}", number, None) for each in range(50)])
    print(number, flush=True)
    if number % 20 == 0:
        store.flush()
"""


def test_kill_9_loses_nothing_that_was_saved_and_leaves_no_half_of_a_batch(path: Path) -> None:
    for delay in (0.01, 0.03, 0.06):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"1\n"
        threading.Event().wait(delay)
        writer.kill()
        told, _ = writer.communicate()
        said = int(told.split(b"\n")[-2]) if told.count(b"\n") else 1
        store = opened(path)
        (stamp,) = {memory.stamp for memory in store.memories()}
        assert stamp is not None
        assert stamp >= said
        store.close()


@pytest.mark.root
def test_a_full_disk_keeps_all_or_nothing_and_recovers(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)], check=True)
    try:
        store = opened(tmp_path / "agent.sqlite")
        store.save([BOUND])
        (tmp_path / "filler").write_bytes(bytes(shutil.disk_usage(tmp_path).free))
        batch = [Memory(f"10.0.{high}.{low}", STAMP, None) for high in range(8) for low in range(200)]
        with pytest.raises(Unavailable, match="full") as caught:
            store.save(batch)
        assert "damaged" not in str(caught.value)
        assert set(kept(store)) == {BOUND.identity}
        (tmp_path / "filler").unlink()
        store.save(batch)
        store.flush()
        store.close()
        store = opened(tmp_path / "agent.sqlite")
        assert len(kept(store)) == 1601
        store.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.root
def test_a_store_that_became_read_only_refuses_and_recovers(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    try:
        store = opened(place / "agent.sqlite")
        store.save([BOUND])
        store.close()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with pytest.raises(Unavailable):
            opened(place / "agent.sqlite")
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        store = opened(place / "agent.sqlite")
        assert set(kept(store)) == {BOUND.identity}
        store.close()
    finally:
        subprocess.run(["umount", str(place)], check=True)
