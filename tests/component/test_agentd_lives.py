# SPDX-License-Identifier: GPL-2.0-or-later
"""One life of a home agent after another: killed, robbed of power, left standing, on a full disk.

The attack is always the same: everything that was ever accepted is recorded, and played again afterwards.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import IP

from homeward.adapters.sqlite_agent_store import make_safe
from homeward.model.errors import Unavailable
from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.secret import Secret
from homeward.wire import authenticator, registration
from homeward.wire.decoded import DecodedReply
from homeward.wire.identification import from_time
from tests.component.agent_network import (
    AGENT,
    CARE_OF,
    DEVICE,
    HOME,
    OTHER_HOME,
    PEER,
    AgentNetwork,
    AgentProcess,
    raw,
    udp,
)

pytestmark = pytest.mark.root

KEY = os.urandom(32)
SA = MobilitySecurityAssociation(Spi(0x100), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(KEY))
D_T = RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL
MISMATCH = 133
TOLERANCE = 7.0

NODE = """[[node]]
name = "{name}"
home_address = "{home}"
spi = 0x100
algorithm = "hmac-sha256"
key_file = "key"
"""
CONFIGURATION = f"""version = 1
address = "{AGENT}"
inside_interfaces = ["inside"]
trusted_prefixes = ["10.1.0.0/16"]
home_network = "10.77.0.0/24"
store = "STORE"
""" + "".join(NODE.format(name=f"node-{home}", home=home) for home in (HOME, OTHER_HOME))


@pytest.fixture(scope="module")
def network() -> Iterator[AgentNetwork]:
    made = AgentNetwork()
    yield made
    made.close()


class World:
    """One agent's folder, its present life, and what was recorded of everything that it accepted."""

    def __init__(self, network: AgentNetwork, folder: Path, store: Path | None = None) -> None:
        self.network = network
        self.folder = folder
        self.store = store or folder / "state" / "agent.sqlite"
        (folder / "key").write_text(KEY.hex())
        (folder / "key").chmod(0o600)
        self.config = folder / "agent.toml"
        self.config.write_text(CONFIGURATION.replace("STORE", str(self.store)))
        self.config.chmod(0o644)
        self.accepted: list[bytes] = []
        self.homes = {home: udp(network.node, CARE_OF) for home in (HOME, OTHER_HOME)}
        self.life = self.begin()

    def begin(self) -> AgentProcess:
        self.life = AgentProcess(self.network.agent, self.config, self.folder / "log")
        self.life.wait_for("ready ")
        return self.life

    def close(self) -> None:
        for each in self.homes.values():
            each.close()
        self.life.kill()
        assert "Traceback" not in (self.folder / "log").read_text()

    def send(self, octets: bytes, home: IPv4Address = HOME, wait: float = 3.0) -> RegistrationReply | None:
        signalling = self.homes[home]
        signalling.settimeout(wait)
        signalling.sendto(octets, (str(AGENT), 434))
        try:
            answer = signalling.recv(2048)
        except TimeoutError:
            return None
        decoded = registration.decode(answer)
        assert isinstance(decoded, DecodedReply)
        assert authenticator.verify(answer, decoded, SA)
        return decoded.message

    def register(
        self, home: IPv4Address = HOME, *, ahead: float = 0.0, lifetime: int = 300, wait: float = 3.0
    ) -> RegistrationReply | None:
        """Register, with a clock so far ahead; what is accepted is recorded."""
        octets = request(home, ahead=ahead, lifetime=lifetime)
        reply = self.send(octets, home, wait)
        if reply is not None and reply.code == 0:
            self.accepted.append(octets)
        return reply

    def replay(self) -> list[int]:
        """Play everything that was accepted again; the codes of the answers."""
        codes = []
        for octets in self.accepted:
            reply = self.send(octets, HOME)
            assert reply is not None
            codes.append(reply.code)
        return codes

    def bindings(self) -> dict[str, dict[str, object]]:
        return {each["home_address"]: each for each in self.life.dump()["bindings"]}


def request(home: IPv4Address = HOME, *, ahead: float = 0.0, lifetime: int = 300) -> bytes:
    message = RegistrationRequest(
        lifetime,
        home,
        home_agent=AGENT,
        care_of_address=CARE_OF,
        identification=from_time(time.time() + ahead, time.monotonic_ns()),
        flags=D_T,
    )
    return registration.encode_request(message, SA)


@pytest.fixture
def world(network: AgentNetwork, tmp_path: Path) -> Iterator[World]:
    made = World(network, tmp_path)
    yield made
    made.close()


def edit(store: Path, statement: str) -> list[tuple[object, ...]]:
    """Something in the store of an agent that does not run."""
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def code(reply: RegistrationReply | None) -> int | None:
    return None if reply is None else reply.code


# --- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.rows("R-173", "R-194")
def test_after_kill_9_bindings_stand_and_nothing_is_accepted_twice(world: World) -> None:
    for ahead in (0.0, 0.001, TOLERANCE - 1):
        assert code(world.register(ahead=ahead)) == 0
    assert code(world.register(OTHER_HOME, lifetime=1000)) == 0
    time.sleep(1.1)
    world.life.kill()
    world.begin()
    found = world.bindings()
    assert 295 <= found[str(HOME)]["remaining"] <= 299  # type: ignore[operator]
    assert 995 <= found[str(OTHER_HOME)]["remaining"] <= 999  # type: ignore[operator]
    assert set(world.replay()) == {MISMATCH}
    # And nobody else is kept waiting: a newer stamp of the same boot is taken at once.
    assert code(world.register(OTHER_HOME)) == 0
    assert code(world.register(ahead=TOLERANCE - 0.5)) == 0


@pytest.mark.rows("R-173", "R-194", "R-198")
def test_a_binding_that_ended_or_was_ended_does_not_come_back(world: World) -> None:
    assert code(world.register(lifetime=1)) == 0
    assert code(world.register(OTHER_HOME)) == 0
    assert code(world.register(OTHER_HOME, lifetime=0)) == 0
    world.life.kill()
    time.sleep(1.1)
    world.begin()
    assert world.bindings() == {}
    assert f"{OTHER_HOME} dev" not in world.network.agent.ip("route show")
    assert set(world.replay()) == {MISMATCH}


@pytest.mark.rows("R-201")
def test_packets_have_their_way_again_after_kill_9(world: World) -> None:
    assert code(world.register(OTHER_HOME)) == 0
    tunnel = raw(world.network.node, 4, CARE_OF)
    peer = udp(world.network.peer, PEER)
    world.life.kill()
    world.begin()
    peer.sendto(b"after", (str(OTHER_HOME), 7000))
    outer = IP(tunnel.recv(65535))
    assert (outer.src, outer.payload.dst) == (str(AGENT), str(OTHER_HOME))
    assert bytes(outer).endswith(b"after")
    tunnel.close()
    peer.close()


@pytest.mark.slow
@pytest.mark.rows("R-173", "R-194")
def test_killed_in_the_middle_of_a_flood_nothing_that_was_answered_is_accepted_again(world: World) -> None:
    chance = random.Random(3344)
    for life in range(4):
        world.life.wait_for("ready ")
        stop = time.monotonic() + chance.uniform(0.02, 0.3)
        sent: list[bytes] = []
        signalling = world.homes[HOME]
        signalling.settimeout(0)
        answers = 0
        while time.monotonic() < stop:
            octets = request(ahead=chance.uniform(0, 0.0005))
            sent.append(octets)
            signalling.sendto(octets, (str(AGENT), 434))
            time.sleep(0.0005)
            answers += _take_all(signalling, sent, world.accepted)
        world.life.kill()
        answers += _take_all(signalling, sent, world.accepted)
        assert answers, f"life {life} answered nothing"
        world.begin()
        assert set(world.replay()) == {MISMATCH}


def _take_all(signalling: object, sent: list[bytes], accepted: list[bytes]) -> int:
    """The answers that have come; which requests they accept is told by the Identification."""
    count = 0
    while True:
        try:
            answer = signalling.recv(2048)  # type: ignore[attr-defined]
        except (BlockingIOError, TimeoutError):
            return count
        reply = registration.decode(answer).message
        if isinstance(reply, RegistrationReply) and reply.code == 0:
            accepted += [each for each in sent if each[16:24] == reply.identification.to_bytes(8, "big")]
            count += 1


# --- robbed of power -------------------------------------------------------------------------------------------------


def rob_of_power(world: World, keep: Path) -> None:
    """The machine stops and is booted again: the store is as it was when `keep` was copied, and the boot another one.

    The boot id that the store names is changed, not the machine's own: only that they differ matters.
    """
    world.life.kill()
    shutil.rmtree(world.store.parent)
    shutil.copytree(keep, world.store.parent)
    edit(world.store, "UPDATE mark SET boot_id = 'the boot before'")


def horizon(world: World) -> float:
    with closing(sqlite3.connect(f"file:{world.store}?mode=ro", uri=True)) as reader:
        return float(reader.execute("SELECT horizon FROM mark").fetchone()[0])


@pytest.mark.rows("R-173", "R-194")
def test_after_a_loss_of_power_nothing_that_might_have_been_accepted_is_accepted(
    world: World, tmp_path: Path
) -> None:
    assert code(world.register()) == 0
    before = horizon(world)
    shutil.copytree(world.store.parent, tmp_path / "disk")
    for home, ahead in ((HOME, 0.0), (OTHER_HOME, TOLERANCE - 1), (HOME, TOLERANCE - 0.5)):
        assert code(world.register(home, ahead=ahead)) == 0
    assert horizon(world) == before  # else what was copied could not be lost any more
    rob_of_power(world, tmp_path / "disk")
    world.begin()
    assert set(world.replay()) == {MISMATCH}
    assert world.bindings().keys() == {str(HOME)}  # as it was written last
    # In every further life of this boot as well, though the store is exact from now on.
    world.life.kill()
    world.begin()
    assert set(world.replay()) == {MISMATCH}
    assert code(world.register(ahead=TOLERANCE - 0.2)) == MISMATCH
    floor = before - time.time()
    assert TOLERANCE < floor < 15 + TOLERANCE + 1


def test_after_the_horizon_everybody_is_served_again(world: World, tmp_path: Path) -> None:
    assert code(world.register()) == 0
    world.life.kill()
    edit(
        world.store,
        "UPDATE mark SET boot_id = 'the boot before', horizon = (julianday() - 2440587.5) * 86400 + 5",
    )
    world.begin()
    assert set(world.replay()) == {MISMATCH}
    assert code(world.register()) == MISMATCH
    assert code(world.register(ahead=TOLERANCE - 1)) == 0


@pytest.mark.rows("R-173", "R-194")
def test_a_backup_that_is_put_back_by_hand_is_no_way_to_replay(world: World, tmp_path: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{world.store}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(tmp_path / "backup")) as copy,
    ):
        source.backup(copy)
    assert code(world.register(ahead=TOLERANCE - 1)) == 0
    with pytest.raises(Unavailable, match="another home agent"):
        make_safe(world.store, horizon=0)
    world.life.kill()
    for file in world.store.parent.iterdir():
        file.unlink()
    shutil.copy(tmp_path / "backup", world.store)
    world.store.chmod(0o600)
    make_safe(world.store, horizon=time.time() + TOLERANCE)
    world.begin()
    assert set(world.replay()) == {MISMATCH}


# --- left standing ---------------------------------------------------------------------------------------------------


def test_sigusr2_leaves_what_the_next_life_takes_over(world: World) -> None:
    assert code(world.register()) == 0
    assert world.life.stop_standing() == 0
    assert "standing=yes" in world.life.text()
    world.begin()
    assert world.bindings().keys() == {str(HOME)}
    assert set(world.replay()) == {MISMATCH}
    assert world.life.stop() == 0
    assert DEVICE not in world.network.agent.ip("link show")
    world.begin()
    assert world.bindings().keys() == {str(HOME)}


def test_two_agents_with_one_store(world: World, network: AgentNetwork) -> None:
    second = AgentProcess(network.peer, world.config, world.folder / "second.log")
    assert second.wait() == 1
    assert "another home agent is using it" in second.text()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda store: store.write_bytes(b"no database" * 400), "mv "),
        (lambda store: edit(store, "PRAGMA user_version = 99"), "install the later homeward-agent"),
        (lambda store: store.chmod(0o644), "chmod 600"),
    ],
)
def test_a_store_that_cannot_be_used_says_what_to_do(
    world: World, damage: Callable[[Path], object], said: str
) -> None:
    assert world.life.stop() == 0
    damage(world.store)
    life = AgentProcess(world.network.agent, world.config, world.folder / "log")
    assert life.wait() == 1
    assert said in life.text()
    assert DEVICE not in world.network.agent.ip("link show")


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.rows("R-173", "R-194")
def test_on_a_full_disk_nobody_is_answered_and_it_recovers_by_itself(
    network: AgentNetwork, tmp_path: Path, small_disk: Path
) -> None:
    world = World(network, tmp_path, small_disk / "agent.sqlite")
    try:
        assert code(world.register()) == 0
        filler = small_disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
        replies = [world.register(OTHER_HOME, wait=0.05) for _ in range(40)]
        assert replies[-1] is None
        accepted_before = len(world.accepted)
        assert world.life.counter("request-not-remembered") > 0
        world.life.wait_for("store-failed")
        assert world.life.text().count("store-failed") < 10
        # What stood, stands; what was not answered is no binding for anybody else to see.
        tunnel = raw(network.node, 4, CARE_OF)
        peer = udp(network.peer, PEER)
        peer.sendto(b"meanwhile", (str(HOME), 7000))
        assert bytes(tunnel.recv(65535)).endswith(b"meanwhile")
        tunnel.close()
        peer.close()
        filler.unlink()
        world.life.wait_for("store-works-again")
        assert code(world.register(OTHER_HOME)) == 0
        assert accepted_before < len(world.accepted)
        world.life.kill()
        world.begin()
        assert world.bindings().keys() == {str(HOME), str(OTHER_HOME)}
        assert set(world.replay()) == {MISMATCH}
    finally:
        world.close()


def test_without_a_store_it_says_so_and_works(network: AgentNetwork, tmp_path: Path) -> None:
    world = World(network, tmp_path, Path("none"))
    try:
        world.life.wait_for("nothing-kept")
        assert code(world.register()) == 0
        world.life.kill()
        world.begin()
        assert world.bindings() == {}
        assert set(world.replay()) == {MISMATCH}
    finally:
        world.close()
