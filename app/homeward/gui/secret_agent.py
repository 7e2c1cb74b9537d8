# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers the daemon's need for secrets from the user's keyring, and asks the user once where that fails.

The root daemon has no session bus, so the keyring is read here, in the user's session. Only what the status names and
only what belongs to this user is ever offered. Only the Secret Service is used: other keyring backends keep plain text
without saying so.
"""

import asyncio
import logging
import os
import pwd
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, TypeVar

from keyring.backends import SecretService
from keyring.errors import InitError, KeyringLocked

from homeward.bus.errors import SecretRefused
from homeward.bus.secret_text import secret_from_text
from homeward.model.errors import HomewardError, ProfileError
from homeward.model.health import HealthItem, Severity
from homeward.model.secret import Secret
from homeward.model.status import SecretNeeded

_log: Final = logging.getLogger("gui")
_T = TypeVar("_T")

KEYRING_SERVICE: Final = "homeward"
"""The `service` attribute of our entries; `username` is the reference that the profile gives."""

PATIENCE: Final = 60.0
"""Seconds that the keyring may take. A locked one shows a dialog of its own and waits for it without any limit."""


class Trouble(Enum):
    """Why there is no secret to offer, or why the offer was refused."""

    LOCKED = "locked"
    ABSENT = "absent"
    NOT_FOUND = "not-found"
    TIMED_OUT = "timed-out"
    UNREADABLE = "unreadable"
    """There is an entry, and it is not a secret in one line."""
    WRONG = "wrong"
    """The daemon refused it: not the one whose fingerprint the profile gives."""
    FAILED = "failed"
    GIVEN_UP = "given-up"
    """The user was asked and closed the question."""


_ADVICE: Final = {
    Trouble.LOCKED: "Unlock the keyring (after an automatic log-in it stays locked until you give its password), then"
    " choose “Give the secret…”.",
    Trouble.ABSENT: "Start a password store (gnome-keyring, KeePassXC), or choose “Give the secret…” and type it in"
    " each time.",
    Trouble.NOT_FOUND: "Choose “Give the secret…” and type it in; tick the box there to keep it.",
    Trouble.TIMED_OUT: "The password store may be waiting behind a window of its own: answer that one. Or choose"
    " “Give the secret…”.",
    Trouble.UNREADABLE: "Choose “Give the secret…”, type it in and keep it again.",
    Trouble.WRONG: "Ask your administrator for the present one, then choose “Give the secret…” and type it in.",
    Trouble.FAILED: "See the password store's own messages, or choose “Give the secret…” and type it in.",
    Trouble.GIVEN_UP: "Choose “Give the secret…” when you have it. Until then nothing is sent.",
}


class NoSecret(Exception):
    """There is nothing to offer; `trouble` says why, the text says it in words and holds no secret."""

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble


class Keyring(Protocol):
    """Where secrets lie, one line each."""

    async def read(self, reference: str) -> str:
        """The line; NoSecret."""

    async def store(self, reference: str, line: str) -> None:
        """Keep the line in place of an earlier one; NoSecret."""


class SecretServiceKeyring:
    """The keyring behind org.freedesktop.secrets. Each call has a thread of its own, which can be given up."""

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        self.busy = False
        """Whether a call is still with the keyring, perhaps one that was given up."""

    async def read(self, reference: str) -> str:
        """The line stored for this reference; NoSecret."""
        line = await self._in_thread(lambda: _pinned().get_password(KEYRING_SERVICE, reference))
        if line is None:
            raise NoSecret(
                Trouble.NOT_FOUND, f"the keyring has no entry “{reference}” of service “{KEYRING_SERVICE}”"
            )
        return line

    async def store(self, reference: str, line: str) -> None:
        """Keep the line under this reference; NoSecret."""
        if not line.isprintable():
            raise NoSecret(Trouble.UNREADABLE, "a secret in the keyring must be one line")
        await self._in_thread(lambda: _pinned().set_password(KEYRING_SERVICE, reference, line))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        """Run `work` in a daemon thread: one that blocks for ever must keep neither the loop nor the exit waiting."""
        if self.busy:
            raise NoSecret(Trouble.TIMED_OUT, "the keyring has still not answered an earlier question")
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_T] = loop.create_future()

        def tell(result: _T | None, error: BaseException | None) -> None:
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)  # type: ignore[arg-type]  # without an error there is a result

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except Exception as caught:  # whatever the libraries below raise ends as a sentence for the user
                error = _in_words(caught)
            self.busy = False
            try:
                loop.call_soon_threadsafe(tell, result, error)
            except RuntimeError:
                pass  # the loop has closed meanwhile: nobody waits any more

        self.busy = True
        threading.Thread(target=run, name="keyring", daemon=True).start()
        try:
            async with asyncio.timeout(self._patience):
                return await outcome
        except TimeoutError:
            raise NoSecret(
                Trouble.TIMED_OUT, f"the keyring has not answered for {self._patience:g} seconds"
            ) from None


class _Backend(Protocol):
    """The part of keyring's untyped backend that is used here."""

    def get_password(self, service: str, username: str) -> str | None: ...

    def set_password(self, service: str, username: str, password: str) -> None: ...


def _pinned() -> _Backend:
    """The Secret Service and no other backend, whatever keyring's configuration or environment says."""
    try:
        _ = SecretService.Keyring.priority
    except RuntimeError as error:
        raise NoSecret(Trouble.ABSENT, f"no password store answers in this session ({error})") from None
    backend: _Backend = SecretService.Keyring()  # type: ignore[no-untyped-call]
    return backend


def _in_words(error: Exception) -> NoSecret:
    if isinstance(error, NoSecret):
        return error
    if isinstance(error, KeyringLocked):
        return NoSecret(Trouble.LOCKED, "the keyring is locked")
    if isinstance(error, InitError):
        return NoSecret(Trouble.ABSENT, f"the password store does not open ({error})")
    if isinstance(error, UnicodeDecodeError):  # its own text would show what was found
        return NoSecret(Trouble.UNREADABLE, "the entry in the keyring is no text")
    return NoSecret(Trouble.FAILED, f"the keyring failed ({type(error).__name__}: {error})")


@dataclass(frozen=True, slots=True)
class Question:
    """What the user is asked: for which secret, and why the keyring did not do."""

    needed: SecretNeeded
    why: str
    may_keep: bool
    """Whether there is a keyring that could keep the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the user typed; `keep` if it should be kept in the keyring."""

    line: str
    keep: bool

    def __repr__(self) -> str:
        return f"Answer(line=redacted, keep={self.keep})"


class Screen(Protocol):
    """What the agent needs of its surroundings."""

    async def ask(self, question: Question) -> Answer | None:
        """Ask the user; None if the question was closed. Cancelling takes the question off the screen."""

    def note(self, item: HealthItem) -> None:
        """Show that something is wrong."""

    def settle(self, code: str) -> None:
        """It is right again."""


Offer = Callable[[str, Secret], Awaitable[None]]


class SecretAgent:
    """Offers what the daemon names and this user owns: from the keyring first, then by asking once.

    One need is one (reference, fingerprint) as long as the status names it; the user is not asked twice for the same
    need unless `again` says so.
    """

    def __init__(
        self,
        keyring: Keyring,
        offer: Offer,
        *,
        screen: Screen,
        now: Callable[[], float],
        user: str | None = None,
    ) -> None:
        self._keyring = keyring
        self._offer = offer
        self._screen = screen
        self._now = now
        self._user = user if user is not None else user_name()
        self._needs: dict[SecretNeeded, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()

    def needed(self, secrets: tuple[SecretNeeded, ...]) -> None:
        """The status names these now; call it with every snapshot."""
        mine = {secret for secret in secrets if secret.owner == self._user}
        for gone in self._needs.keys() - mine:
            self._needs.pop(gone).cancel()
            self._screen.settle(_code(gone))
        for secret in mine - self._needs.keys():
            self._begin(secret)

    def again(self) -> None:
        """The user wants to give what is missing: look into the keyring once more, and ask again."""
        for secret, task in tuple(self._needs.items()):
            if task.done():
                self._begin(secret)

    async def stop(self) -> None:
        """Take questions off the screen and forget everything."""
        tasks = tuple(self._needs.values())
        self._needs.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- inside ---

    def _begin(self, secret: SecretNeeded) -> None:
        task = asyncio.ensure_future(self._provide(secret))
        self._needs[secret] = task
        task.add_done_callback(_report)

    async def _provide(self, secret: SecretNeeded) -> None:
        async with self._one_at_a_time:  # two dialogs at once would be two too many
            try:
                await self._from_keyring(secret)
            except NoSecret as failed:
                self._note(secret, failed)
                await self._from_user(secret, failed)

    async def _from_keyring(self, secret: SecretNeeded) -> None:
        line = await self._keyring.read(secret.reference)
        try:
            value = secret_from_text(line)
        except ProfileError as error:
            raise NoSecret(
                Trouble.UNREADABLE, f"the keyring's entry “{secret.reference}” is damaged: {error}"
            ) from None
        await self._hand_over(secret, value)

    async def _from_user(self, secret: SecretNeeded, failed: NoSecret) -> None:
        may_keep = failed.trouble not in {Trouble.ABSENT, Trouble.TIMED_OUT, Trouble.FAILED}
        while True:
            answer = await self._screen.ask(Question(secret, str(failed), may_keep))
            if answer is None:
                self._note(
                    secret, NoSecret(Trouble.GIVEN_UP, f"secret “{secret.reference}” was not given; {failed}")
                )
                return
            try:
                await self._hand_over(secret, secret_from_text(answer.line))
            except ProfileError as error:
                failed = NoSecret(Trouble.UNREADABLE, str(error))
            except NoSecret as error:
                failed = error
            else:
                if answer.keep:
                    await self._keep(secret, answer.line)
                return

    async def _hand_over(self, secret: SecretNeeded, value: Secret) -> None:
        try:
            await self._offer(secret.reference, value)
        except SecretRefused as error:
            raise NoSecret(Trouble.WRONG, f"secret “{secret.reference}” was not accepted: {error}") from None
        except HomewardError as error:
            raise NoSecret(
                Trouble.FAILED, f"secret “{secret.reference}” could not be handed over: {error}"
            ) from None
        finally:
            value.wipe()
        self._screen.settle(_code(secret))

    async def _keep(self, secret: SecretNeeded, line: str) -> None:
        try:
            await self._keyring.store(secret.reference, line)
        except NoSecret as error:
            self._note(
                secret,
                NoSecret(error.trouble, f"secret “{secret.reference}” is in use but was not kept: {error}"),
            )

    def _note(self, secret: SecretNeeded, failed: NoSecret) -> None:
        text = str(failed)
        self._screen.note(
            HealthItem(
                code=_code(secret),
                severity=Severity.WARNING,
                text=text[:1].upper() + text[1:],
                advice=_ADVICE[failed.trouble],
                since=self._now(),
            )
        )


def user_name() -> str:
    """Who we are, by user id: the environment may say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _code(secret: SecretNeeded) -> str:
    return f"secret:{secret.reference}"


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("the secret agent failed", exc_info=task.exception())
