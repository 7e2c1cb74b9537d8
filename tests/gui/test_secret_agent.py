# SPDX-License-Identifier: GPL-2.0-or-later
"""What the secret agent offers, to whom, and what it says when it cannot."""

import asyncio
import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from homeward.bus.errors import DaemonAbsent, SecretRefused
from homeward.gui.secret_agent import Answer, NoSecret, Question, SecretAgent, Trouble, user_name
from homeward.model.health import HealthItem
from homeward.model.secret import Secret
from homeward.model.status import SecretNeeded
from tests.gui.session import until

KEY = SecretNeeded("office-key", "the home agent's key", owner="alice", fingerprint="scrypt:00:11")
PSK = SecretNeeded("office-psk", "the VPN's pre-shared key", owner="alice", fingerprint="scrypt:22:33")
OTHERS = SecretNeeded("bobs-key", "the home agent's key", owner="bob", fingerprint="scrypt:44:55")
MACHINES = SecretNeeded("machine-key", "the home agent's key", owner="machine", fingerprint="scrypt:66:77")
OCTETS = bytes(range(16))
LINE = f"hex:{OCTETS.hex()}"


class Drawer:
    """A keyring in memory."""

    def __init__(self, **lines: str) -> None:
        self.lines = {name.replace("_", "-"): line for name, line in lines.items()}
        self.trouble: NoSecret | None = None
        self.read_for: list[str] = []

    async def read(self, reference: str) -> str:
        self.read_for.append(reference)
        if self.trouble is not None:
            raise self.trouble
        if reference not in self.lines:
            raise NoSecret(Trouble.NOT_FOUND, f"the keyring has no entry “{reference}”")
        return self.lines[reference]

    async def store(self, reference: str, line: str) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.lines[reference] = line


class World:
    """Daemon, user and screen."""

    def __init__(self) -> None:
        self.offered: list[tuple[str, bytes]] = []
        self.right: dict[str, bytes] = {}
        self.failure: Exception | None = None
        self.secrets: list[Secret] = []
        self.questions: list[Question] = []
        self.answers: asyncio.Queue[Answer | None] = asyncio.Queue()
        self.asking = False
        self.notes: dict[str, HealthItem] = {}

    async def offer(self, reference: str, secret: Secret) -> None:
        self.secrets.append(secret)
        self.offered.append((reference, secret.reveal()))
        if self.failure is not None:
            raise self.failure
        if self.right.get(reference, secret.reveal()) != secret.reveal():
            raise SecretRefused("its fingerprint differs")

    async def ask(self, question: Question) -> Answer | None:
        assert not self.asking, "two questions at once"
        self.questions.append(question)
        self.asking = True
        try:
            return await self.answers.get()
        finally:
            self.asking = False

    def note(self, item: HealthItem) -> None:
        self.notes[item.code] = item

    def settle(self, code: str) -> None:
        self.notes.pop(code, None)


@asynccontextmanager
async def agent_of(drawer: Drawer, world: World) -> AsyncIterator[SecretAgent]:
    agent = SecretAgent(drawer, world.offer, screen=world, now=lambda: 1.0, user="alice")
    try:
        yield agent
    finally:
        await agent.stop()


async def test_what_the_status_names_is_offered_from_the_keyring():
    drawer, world = Drawer(office_key=LINE, office_psk="text:open sesame", spare="hex:ff"), World()
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY, PSK))
        await until(lambda: len(world.offered) == 2, "offers")
    assert sorted(world.offered) == [("office-key", OCTETS), ("office-psk", b"open sesame")]
    assert not world.questions
    assert not world.notes


async def test_only_this_users_secrets_are_even_looked_up():
    drawer, world = Drawer(bobs_key=LINE, machine_key=LINE), World()
    async with agent_of(drawer, world) as agent:
        agent.needed((OTHERS, MACHINES))
        await asyncio.sleep(0.05)
    assert not drawer.read_for
    assert not world.offered
    assert not world.questions


async def test_nothing_is_offered_that_nobody_asked_for():
    drawer, world = Drawer(office_key=LINE), World()
    async with agent_of(drawer, world) as agent:
        agent.needed(())
        agent.again()
        await asyncio.sleep(0.05)
    assert not drawer.read_for


async def test_a_need_is_answered_once_however_often_the_status_names_it():
    drawer, world = Drawer(office_key=LINE), World()
    async with agent_of(drawer, world) as agent:
        for _ in range(5):
            agent.needed((KEY,))
            await asyncio.sleep(0.01)
    assert drawer.read_for == ["office-key"]


async def test_a_need_that_comes_again_is_answered_again():
    drawer, world = Drawer(office_key=LINE), World()
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        await until(lambda: world.offered, "offer")
        agent.needed(())
        agent.needed((KEY,))
        await until(lambda: len(world.offered) == 2, "second offer")


async def test_offered_secrets_are_wiped():
    drawer, world = Drawer(office_key=LINE), World()
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        await until(lambda: world.secrets, "offer")
        await asyncio.sleep(0.01)
    assert [len(secret) for secret in world.secrets] == [0]


@pytest.mark.parametrize("trouble", [trouble for trouble in Trouble if trouble is not Trouble.GIVEN_UP])
async def test_every_trouble_is_told_with_what_to_do_and_the_user_is_asked_once(trouble):
    drawer, world = Drawer(), World()
    drawer.trouble = NoSecret(trouble, "the keyring is in a bad mood")
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        await until(lambda: world.asking, "question")
        note = world.notes["secret:office-key"]
        assert note.text == "The keyring is in a bad mood"
        assert len(note.advice) > 20
        world.answers.put_nowait(None)
        await until(lambda: "was not given" in world.notes["secret:office-key"].text, "giving up")
        agent.needed((KEY,))
        await asyncio.sleep(0.05)
    assert len(world.questions) == 1
    assert world.questions[0].needed == KEY
    assert "bad mood" in world.questions[0].why


async def test_what_the_user_types_is_offered_and_kept_only_if_asked():
    drawer, world = Drawer(), World()
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY, PSK))
        await until(lambda: world.asking, "question")
        for _ in range(2):
            first = world.questions[-1].needed.reference
            world.answers.put_nowait(Answer(LINE, keep=first == "office-key"))
            await until(lambda seen=first: any(name == seen for name, _ in world.offered), "offer")
            await until(lambda: world.asking or len(world.offered) == 2, "next question")
        await asyncio.sleep(0.01)
    assert drawer.lines == {"office-key": LINE}
    assert not world.notes


async def test_two_missing_secrets_are_asked_for_one_after_the_other():
    drawer, world = Drawer(), World()
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY, PSK))
        await until(lambda: world.asking, "question")
        await asyncio.sleep(0.05)
        assert len(world.questions) == 1
        world.answers.put_nowait(Answer(LINE, keep=False))
        await until(lambda: len(world.questions) == 2, "second question")


async def test_a_wrong_entry_in_the_keyring_is_told_and_asked_for():
    drawer, world = Drawer(office_key="hex:ffff"), World()
    world.right["office-key"] = OCTETS
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        await until(lambda: world.asking, "question")
        assert "its fingerprint differs" in world.notes["secret:office-key"].text
        assert "administrator" in world.notes["secret:office-key"].advice
        world.answers.put_nowait(Answer(LINE, keep=True))
        await until(lambda: drawer.lines["office-key"] == LINE, "the right one in the keyring")
    assert not world.notes


async def test_wrong_answers_are_asked_again_with_the_reason_and_never_kept():
    drawer, world = Drawer(), World()
    world.right["office-key"] = OCTETS
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        for wrong, reason in (
            ("hex:zz", "hexadecimal"),
            ("", "empty"),
            ("text:guess", "fingerprint differs"),
        ):
            await until(lambda: world.asking, "question")
            world.answers.put_nowait(Answer(wrong, keep=True))
            await until(
                lambda reason=reason: reason in world.questions[-1].why, f"a question that says {reason}"
            )
        assert drawer.lines == {}
        world.answers.put_nowait(Answer(LINE, keep=True))
        await until(lambda: drawer.lines, "the right one")
    assert drawer.lines == {"office-key": LINE}


async def test_a_damaged_entry_is_told_without_what_is_in_it():
    drawer, world = Drawer(office_key="hex:thisisnothex"), World()
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        await until(lambda: world.asking, "question")
    assert "damaged" in world.questions[0].why
    assert "thisisnothex" not in world.questions[0].why


async def test_where_there_is_no_keyring_nothing_offers_to_keep_it():
    drawer, world = Drawer(), World()
    drawer.trouble = NoSecret(Trouble.ABSENT, "no password store answers")
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        await until(lambda: world.asking, "question")
    assert not world.questions[0].may_keep


async def test_a_secret_that_could_not_be_kept_is_in_use_all_the_same():
    drawer, world = Drawer(), World()
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        await until(lambda: world.asking, "question")
        drawer.trouble = NoSecret(Trouble.LOCKED, "the keyring is locked")
        world.answers.put_nowait(Answer(LINE, keep=True))
        await until(lambda: world.offered, "offer")
        await until(lambda: "not kept" in world.notes["secret:office-key"].text, "note")


async def test_a_need_that_goes_takes_the_question_off_the_screen():
    drawer, world = Drawer(), World()
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        await until(lambda: world.asking, "question")
        agent.needed(())
        await until(lambda: not world.asking, "the question to go")
        assert not world.notes


async def test_giving_the_secret_looks_into_the_keyring_again():
    drawer, world = Drawer(), World()
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        await until(lambda: world.asking, "question")
        agent.again()  # the question is on the screen already
        world.answers.put_nowait(None)
        await until(lambda: not world.asking, "the question to go")
        await asyncio.sleep(0.01)
        drawer.lines["office-key"] = LINE  # unlocked, or stored, meanwhile
        agent.again()
        await until(lambda: world.offered == [("office-key", OCTETS)], "offer")
    assert len(world.questions) == 1
    assert not world.notes


async def test_a_daemon_that_goes_meanwhile_is_told():
    drawer, world = Drawer(office_key=LINE), World()
    world.failure = DaemonAbsent("homewardd is not running on this bus")
    async with agent_of(drawer, world) as agent:
        agent.needed((KEY,))
        await until(lambda: world.asking, "question")
    assert "not running" in world.questions[0].why


def test_the_user_is_who_the_kernel_says(monkeypatch):
    monkeypatch.setenv("USER", "mallory")
    monkeypatch.setenv("LOGNAME", "mallory")
    assert user_name() == pwd.getpwuid(os.getuid()).pw_name


def test_an_answer_does_not_show_what_was_typed():
    answer = Answer("text:open sesame", keep=True)
    assert "sesame" not in f"{answer} {answer!r}"
