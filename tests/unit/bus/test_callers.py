# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is calling is known for each call apart, and nobody calls too often."""

import asyncio

import pytest
from dbus_fast import Message, MessageFlag, MessageType

from homeward.bus.callers import CALLS_AT_ONCE, CALLS_PER_SECOND, Callers, RateLimit, Verdict
from homeward.bus.control import Caller
from homeward.bus.errors import Refused

USERS = {":1.1": 0, ":1.2": 65534, ":1.3": 4242}


async def user_id(name: str) -> int:
    await asyncio.sleep(0)
    return USERS[name]


def call(sender: str, *, interface: str | None = "org.homeward.Daemon1", flags: int = 0) -> Message:
    return Message(
        path="/a", interface=interface, member="M", sender=sender, serial=1, flags=MessageFlag(flags)
    )


def test_a_user_gets_a_burst_and_then_a_rate() -> None:
    limit = RateLimit(frozenset({0}))
    verdicts = [limit.judge(1000, 10.0) for _ in range(CALLS_AT_ONCE + 60)]
    assert verdicts.count(Verdict.SERVE) == CALLS_AT_ONCE
    assert verdicts.index(Verdict.REFUSE) == CALLS_AT_ONCE
    assert verdicts.count(Verdict.REFUSE) == 50
    assert verdicts[-1] is Verdict.DROP
    second_later = [limit.judge(1000, 11.0) for _ in range(30)]
    assert second_later.count(Verdict.SERVE) == CALLS_PER_SECOND


def test_users_do_not_pay_for_each_other_and_root_not_at_all() -> None:
    limit = RateLimit(frozenset({0}))
    for _ in range(1000):
        limit.judge(1000, 1.0)
        assert limit.judge(0, 1.0) is Verdict.SERVE
    assert limit.judge(1001, 1.0) is Verdict.SERVE


def test_the_memory_is_bounded() -> None:
    limit = RateLimit(frozenset())
    for number in range(10_000):
        limit.judge(f":1.{number}", 1.0)
    assert len(limit._buckets) <= 4096


async def test_each_task_knows_its_own_caller() -> None:
    callers = Callers(user_id)
    found: list[tuple[str, Caller]] = []

    async def serve(sender: str) -> None:
        await asyncio.sleep(0.001)
        found.append((sender, await callers.current()))

    tasks = []
    for _ in range(20):
        for sender in USERS:
            assert callers.admit(call(sender)) is None
            tasks.append(asyncio.create_task(serve(sender)))
    await asyncio.gather(*tasks)
    assert len(found) == 60
    assert all(caller.bus_name == sender and caller.uid == USERS[sender] for sender, caller in found)
    assert {caller.user_name for _sender, caller in found} >= {"root", "4242"}


async def test_a_call_that_names_no_interface_is_not_served_as_the_last_callers() -> None:
    callers = Callers(user_id)
    callers.admit(call(":1.1"))
    callers.admit(call(":1.2", interface=None))
    assert (await callers.current()).uid == 65534


async def test_one_question_for_each_connection() -> None:
    asked: list[str] = []

    async def ask(name: str) -> int:
        asked.append(name)
        return await user_id(name)

    callers = Callers(ask)
    for _ in range(5):
        callers.admit(call(":1.2"))
        await callers.current()
    assert asked == [":1.2"]


async def test_a_caller_that_has_left_is_refused() -> None:
    async def gone(name: str) -> int:
        raise LookupError("NameHasNoOwner")

    callers = Callers(gone)
    callers.admit(call(":1.9"))
    with pytest.raises(Refused, match="does not say who is calling"):
        await callers.current()


async def test_an_answer_that_did_not_come_is_asked_for_again() -> None:
    """A bus that was slow once must not lock a connection out for its whole life."""
    failures = [TimeoutError("no answer"), None]

    async def ask(name: str) -> int:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        return await user_id(name)

    callers = Callers(ask)
    callers.admit(call(":1.2"))
    with pytest.raises(Refused):
        await callers.current()
    callers.admit(call(":1.2"))
    assert (await callers.current()).uid == await user_id(":1.2")


async def test_signals_of_strangers_go_no_further() -> None:
    callers = Callers(user_id)
    signal = Message(
        path="/a", interface="org.a.B", member="S", sender=":1.2", serial=1, message_type=MessageType.SIGNAL
    )
    assert callers.admit(signal) is True
    driver = Message(
        path="/a",
        interface="org.a.B",
        member="S",
        sender="org.freedesktop.DBus",
        serial=1,
        message_type=MessageType.SIGNAL,
    )
    assert callers.admit(driver) is None


async def test_oversize_calls_are_answered_or_dropped() -> None:
    callers = Callers(user_id)
    answer = callers.admit(call(":1.2", flags=0x80))
    assert isinstance(answer, Message)
    assert answer.error_name == "org.freedesktop.DBus.Error.LimitsExceeded"
    assert callers.admit(call(":1.2", flags=0x81)) is True
