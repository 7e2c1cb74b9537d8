# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands between the bus and the daemon: what gets through here is permitted, and names a profile that can be used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from homeward.bus.control import Caller, Control
from homeward.bus.errors import BadProfile, NoSuchProfile, Refused
from homeward.bus.messages import ProfileSummary
from homeward.daemon.permissions import Permissions, require_may_use
from homeward.daemon.settings import PROFILE_SUFFIX, Profiles, known_home_address
from homeward.model.profile import Profile
from homeward.model.secret import Secret
from homeward.model.status import StatusSnapshot

log: Final = logging.getLogger("bus")

_MOST_REMEMBERED: Final = 256


class GuardedControl:
    """A Control that asks permission before it hands a call on to `inner`.

    `profiles` gives the profiles as they are now. Secrets are not judged here: SecretStore does, by their owner.
    """

    def __init__(self, inner: Control, permissions: Permissions, profiles: Callable[[], Profiles]) -> None:
        self._inner = inner
        self._permissions = permissions
        self._profiles = profiles
        self._refused: set[tuple[int, str]] = set()

    async def connect(self, profile: str, caller: Caller) -> None:
        await self._require_may_act(caller, "connect")
        require_may_use(caller, find_profile(self._profiles(), profile))
        log.info("%s connects %s", caller, profile)
        await self._inner.connect(profile, caller)

    async def disconnect(self, caller: Caller) -> None:
        await self._require_may_act(caller, "disconnect")
        log.info("%s disconnects", caller)
        await self._inner.disconnect(caller)

    async def reconnect(self, caller: Caller) -> None:
        await self._require_may_act(caller, "reconnect")
        log.info("%s reconnects", caller)
        await self._inner.reconnect(caller)

    async def offer_secret(self, reference: str, secret: Secret, caller: Caller) -> None:
        await self._inner.offer_secret(reference, secret, caller)

    async def profiles(self) -> tuple[ProfileSummary, ...]:
        return await self._inner.profiles()

    def snapshot(self) -> StatusSnapshot:
        return self._inner.snapshot()

    async def _require_may_act(self, caller: Caller, action: str) -> None:
        try:
            await self._permissions.require_may_act(caller, action)
        except Refused as error:
            # Once for each user and action: whoever is refused must not be able to fill the log.
            if (caller.uid, action) not in self._refused and len(self._refused) < _MOST_REMEMBERED:
                self._refused.add((caller.uid, action))
                log.warning("refused: %s", error)
            raise


def find_profile(profiles: Profiles, name: str) -> Profile:
    """The profile of that name; BadProfile with what is wrong with its file, NoSuchProfile with the others' names."""
    profile = profiles.usable.get(name)
    if profile is not None:
        return profile
    for fault in profiles.faults:
        if fault.name == name:
            raise BadProfile(fault.text)
    there = ", ".join(sorted(profiles.usable)) or "none"
    broken = "".join(f"\n{fault.text}" for fault in profiles.faults)
    raise NoSuchProfile(
        f"there is no profile “{name}”; usable are: {there}. "
        f"The administrator adds one as a {PROFILE_SUFFIX} file (see `homeward profile check`).{broken}"
    )


def summarise(profiles: Profiles) -> tuple[ProfileSummary, ...]:
    """All profiles for ListProfiles, by name, unusable ones with the reason."""
    usable = [
        ProfileSummary(
            profile.name,
            owner=profile.owner,
            file=profiles.files.get(profile.name, ""),
            home_address=known_home_address(profile),
            gateway=profile.gateway.host if profile.gateway else "",
        )
        for profile in profiles.usable.values()
    ]
    faulty = [ProfileSummary(fault.name, file=fault.file, problem=fault.text) for fault in profiles.faults]
    return tuple(sorted((*usable, *faulty), key=lambda summary: (summary.name, summary.file)))
