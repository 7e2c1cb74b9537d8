# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may do what: root, and whoever sits at the machine; everybody else is refused and told why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from homeward.bus.callers import user_name
from homeward.bus.control import Caller
from homeward.bus.errors import Refused
from homeward.daemon.profile_words import MACHINE
from homeward.model.errors import AdapterError
from homeward.model.profile import Profile

ROOT = 0


class Sessions(Protocol):
    """Knows who sits at the machine (systemd-logind)."""

    async def active_local_users(self) -> frozenset[int]:
        """User ids of the sessions that are active on a seat of this machine and not remote.

        Raises Unavailable when nobody can say.
        """


class Permissions:
    """Decides on callers. `name_of` turns a user id into a name and may wait for the network."""

    def __init__(self, sessions: Sessions, *, name_of: Callable[[int], str] = user_name) -> None:
        self._sessions = sessions
        self._name_of = name_of

    async def require_may_act(self, caller: Caller, action: str) -> None:
        """Let root and the owner of the active local session pass; Refused for everybody else.

        Asked anew for each call: a session that was active a moment ago may not be after switching users.
        """
        if caller.uid == ROOT:
            return
        try:
            active = await self._sessions.active_local_users()
        except AdapterError as error:
            raise Refused(
                f"{caller} may not {action}: only root may while systemd-logind cannot say who sits at the machine "
                f"({error}). Use sudo."
            ) from error
        if caller.uid not in active:
            raise Refused(
                f"{caller} may not {action}: only root and the user of the active local session may "
                f"({await self._in_words(active)}). Log in at the machine itself, or use sudo."
            )

    async def _in_words(self, users: frozenset[int]) -> str:
        if not users:
            return "nobody is logged in at the machine itself"
        names = await asyncio.gather(*(asyncio.to_thread(self._name_of, uid) for uid in sorted(users)))
        return f"that is {' and '.join(names)}"


def require_may_use(caller: Caller, profile: Profile) -> None:
    """A user's own profile is for that user and root; Refused for others.

    Its secrets may still be in the daemon's memory when somebody else sits down at the machine.
    """
    if caller.uid == ROOT or profile.owner in (MACHINE, caller.user_name):
        return
    raise Refused(
        f"{caller} may not use the profile “{profile.name}”: it belongs to {profile.owner}. "
        f"Use a profile of your own, or ask the administrator for one whose owner is “{MACHINE}”."
    )


def may_supply(caller: Caller, owner: str) -> bool:
    """Whether this caller may hand over the secrets of a profile with this owner.

    Whoever supplies the home agent's key decides which network is trusted. Only root speaks for the machine.
    """
    return caller.uid == ROOT or (owner != MACHINE and owner == caller.user_name)
