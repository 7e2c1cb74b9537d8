# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is calling, and how often: every message to the service passes here first."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Final

from dbus_fast import ErrorType, Message, MessageFlag, MessageType

from homeward.bus.bounded import was_oversize
from homeward.bus.control import Caller
from homeward.bus.errors import Refused
from homeward.bus.names import DRIVER_NAME, MAXIMUM_MESSAGE_OCTETS

_MOST_REMEMBERED: Final = 4096

CALLS_AT_ONCE: Final = 100
CALLS_PER_SECOND: Final = 20.0
_STRANGER_AT_ONCE: Final = 500
"""For a connection whose user is not known yet: its first calls all arrive before the bus has said who it is."""
_REFUSALS_AT_ONCE: Final = 50
_REFUSALS_PER_SECOND: Final = 5.0


class Verdict(Enum):
    """What becomes of a call."""

    SERVE = "serve"
    REFUSE = "refuse"
    """Answered by an error."""
    DROP = "drop"
    """Not answered at all: an answer costs more than the call."""


class _Bucket:
    """Tokens that refill with time."""

    __slots__ = ("_at", "_most", "_per_second", "_tokens")

    def __init__(self, most: float, per_second: float, at: float) -> None:
        self._most, self._per_second = most, per_second
        self._tokens, self._at = float(most), at

    def take(self, at: float) -> bool:
        self._tokens = min(self._most, self._tokens + (at - self._at) * self._per_second)
        self._at = at
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class RateLimit:
    """So many calls for each user; root and the daemon's own user are not limited."""

    def __init__(self, exempt: frozenset[int]) -> None:
        self._exempt = exempt
        self._buckets: OrderedDict[int | str, tuple[_Bucket, _Bucket]] = OrderedDict()

    def judge(self, who: int | str, at: float) -> Verdict:
        """`who` is a user id, or the name of a connection whose user is not known yet; `at` in seconds."""
        if who in self._exempt:
            return Verdict.SERVE
        pair = self._buckets.get(who)
        if pair is None:
            most = _STRANGER_AT_ONCE if isinstance(who, str) else CALLS_AT_ONCE
            pair = (_Bucket(most, CALLS_PER_SECOND, at), _Bucket(_REFUSALS_AT_ONCE, _REFUSALS_PER_SECOND, at))
            self._buckets[who] = pair
            if len(self._buckets) > _MOST_REMEMBERED:
                self._buckets.popitem(last=False)
        calls, refusals = pair
        if calls.take(at):
            return Verdict.SERVE
        return Verdict.REFUSE if refusals.take(at) else Verdict.DROP


@dataclass(frozen=True, slots=True)
class _Call:
    sender: str
    reply_expected: bool


_current: ContextVar[_Call] = ContextVar("current bus call")
"""A task inherits it from the message that it was made for; a global would name whoever called last (measured)."""


def reply_expected() -> bool:
    """Whether the call being served wants an answer."""
    return _current.get().reply_expected


class Callers:
    """The message handler in front of the service, and the memory of who is who.

    `ask_user_id` asks the bus for the user behind a connection. A connection never changes its user, and a unique
    name is never used twice in a bus's life, so that an answer holds as long as our own connection does.
    """

    def __init__(self, ask_user_id: Callable[[str], Awaitable[int]]) -> None:
        self._ask_user_id = ask_user_id
        self._limit = RateLimit(frozenset({0, os.geteuid()}))
        self._known: OrderedDict[str, asyncio.Future[int]] = OrderedDict()

    def admit(self, message: Message) -> Message | bool | None:
        """dbus-fast's message handler: None lets the message through, True drops it, a Message answers it."""
        if message.message_type is not MessageType.METHOD_CALL:
            # Signals and stray replies come from whoever likes to send them; our own calls' answers from the driver.
            return None if message.sender == DRIVER_NAME else True
        sender = message.sender or ""
        expected = not message.flags & MessageFlag.NO_REPLY_EXPECTED
        # Set for each call, whatever interface it names: one that names none must not run under the last caller's.
        _current.set(_Call(sender, expected))
        verdict = self._limit.judge(self._who(sender), asyncio.get_running_loop().time())
        if verdict is Verdict.SERVE and not was_oversize(message):
            return None
        if verdict is Verdict.DROP or not expected:
            return True
        if verdict is Verdict.REFUSE:
            text = "too many calls from this user; wait a few seconds and try again"
        else:
            text = f"a message to this service has at most {MAXIMUM_MESSAGE_OCTETS} octets"
        return Message.new_error(message, ErrorType.LIMITS_EXCEEDED, text)

    async def current(self) -> Caller:
        """Who made the call that this task serves; Refused if the bus does not know."""
        sender = _current.get().sender
        try:
            # Shielded: one caller's cancelled task must not take the answer from another's.
            uid = await asyncio.shield(self._user_id(sender))
        except (OSError, LookupError, TimeoutError) as error:
            raise Refused(f"the bus does not say who is calling ({error}); try again") from error
        return Caller(uid, sender, await asyncio.to_thread(user_name, uid))

    def _who(self, sender: str) -> int | str:
        answer = self._user_id(sender)
        if answer.done() and not _failed(answer):
            return answer.result()
        return sender

    def _user_id(self, sender: str) -> asyncio.Future[int]:
        known = self._known.get(sender)
        if known is None or _failed(known):
            known = asyncio.ensure_future(self._ask_user_id(sender))
            known.add_done_callback(_retrieve)
            self._known[sender] = known
            if len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
        return known


def user_name(uid: int) -> str:
    """The user's name, or the digits of a user id that has none. May ask the network (NSS): not on the event loop."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _failed(answer: asyncio.Future[int]) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)


def _retrieve(answer: asyncio.Future[int]) -> None:
    """A caller that is gone before we asked who it is is no news."""
    if not answer.cancelled():
        answer.exception()
