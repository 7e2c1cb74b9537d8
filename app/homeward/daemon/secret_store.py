# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets that were handed over, in memory only, and who tried to hand over what without being trusted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from homeward.bus.control import Caller
from homeward.bus.errors import SecretRefused
from homeward.bus.fingerprint import matches
from homeward.daemon.permissions import may_supply
from homeward.model.health import HealthItem, Severity
from homeward.model.profile import Profile, SecretReference
from homeward.model.registration import MINIMUM_KEY_OCTETS
from homeward.model.secret import Secret
from homeward.model.status import SecretNeeded

FOREIGN_SECRET: Final = "foreign-secret"  # noqa: S105 - a health code
"""Health code: somebody offered a secret of a profile that is not his."""
WRONG_SECRET: Final = "wrong-secret"  # noqa: S105 - a health code
"""Health code: the owner offered a secret, and it is not the one that the profile expects."""

_MOST_ALARMS: Final = 8
_MOST_WAITING: Final = 8
"""Offers of one user that wait to be checked: a check costs 50 ms of CPU time, on purpose."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """One secret that a profile expects, and what for."""

    profile: str
    owner: str
    reference: SecretReference
    purpose: str
    shortest: int

    @property
    def slot(self) -> tuple[str, str, str]:
        """Where it is kept. The owner belongs to it: one user's secret never serves another's profile."""
        return (self.owner, self.reference.reference, self.reference.fingerprint)


@dataclass(frozen=True, slots=True)
class ProfileSecrets:
    """The secrets of one profile, all of them; those of foreign agents in the profile's order."""

    key: Secret
    pre_shared_key: Secret | None
    foreign_keys: tuple[Secret, ...] = ()


class SecretStore:
    """What the daemon knows until it ends; `boot` reads CLOCK_BOOTTIME."""

    def __init__(self, boot: Callable[[], float]) -> None:
        self._boot = boot
        self._kept: dict[tuple[str, str, str], Secret] = {}
        self._alarms: dict[tuple[str, int], HealthItem] = {}
        self._waiting: Counter[int] = Counter()
        self._checking = asyncio.Lock()

    def needed(self, profile: Profile) -> tuple[SecretNeeded, ...]:
        """The secrets of this profile that nobody has supplied yet; one that serves twice is needed once."""
        missing: dict[tuple[str, str, str], SecretNeeded] = {}
        for expected in _expected_by(profile):
            if expected.slot not in self._kept:
                needed = SecretNeeded(
                    expected.reference.reference,
                    expected.purpose,
                    owner=expected.owner,
                    fingerprint=expected.reference.fingerprint,
                )
                missing.setdefault(expected.slot, needed)
        return tuple(missing.values())

    def secrets_of(self, profile: Profile) -> ProfileSecrets | None:
        """All secrets of this profile, or None while one is missing. forget() wipes them."""
        found = [
            secret
            for expected in _expected_by(profile)
            if (secret := self._kept.get(expected.slot)) is not None
        ]
        if len(found) < len(tuple(_expected_by(profile))):
            return None
        key, *others = found
        pre_shared_key = others.pop(0) if profile.gateway is not None else None
        return ProfileSecrets(key, pre_shared_key, tuple(others))

    @property
    def health(self) -> tuple[HealthItem, ...]:
        """Refused offers, the oldest first: one for each user and reason, however often it happened."""
        return tuple(self._alarms.values())

    async def offer(
        self, reference: str, secret: Secret, caller: Caller, *, profiles: Iterable[Profile]
    ) -> frozenset[str]:
        """Take a secret over if a profile expects it from this caller; the names of the profiles that have it now.

        SecretRefused, with the reason in words and in `health`. A secret that is not taken is wiped.
        """
        asking = [
            expected
            for profile in profiles
            for expected in _expected_by(profile)
            if expected.reference.reference == reference
        ]
        try:
            self._require_owner(reference, asking, caller)
            expecting = [expected for expected in asking if may_supply(caller, expected.owner)]
            return await self._take(secret, expecting, caller)
        except SecretRefused:
            secret.wipe()
            raise

    def forget(self, *, but_for: Profile | None = None) -> None:
        """Wipe all secrets but those that this profile expects; to be called when nothing uses them any more."""
        needed = {expected.slot for expected in _expected_by(but_for)} if but_for is not None else set()
        for slot in [slot for slot in self._kept if slot not in needed]:
            self._kept.pop(slot).wipe()

    def forget_alarms(self) -> None:
        """The user has seen them."""
        self._alarms.clear()

    def _require_owner(self, reference: str, asking: list[_Expected], caller: Caller) -> None:
        if not asking:
            raise SecretRefused(
                f"no profile asks for a secret named “{reference}”; `homeward profiles` lists the profiles, "
                "and `homeward status` the secrets that are missing"
            )
        if any(may_supply(caller, expected.owner) for expected in asking):
            return
        owners = " or ".join(sorted({expected.owner for expected in asking}))
        self._alarm(
            FOREIGN_SECRET,
            caller,
            f"{caller} offered the secret “{reference}” of {_profiles_in_words(asking)}, which is {owners}'s to "
            "supply. It was not used.",
            "Nothing was changed. If you do not know why this happened, ask who else uses this machine.",
        )
        raise SecretRefused(
            f"{caller} may not supply the secret “{reference}”: it belongs to {owners}. "
            "Have its owner hand it over, or root."
        )

    async def _take(self, secret: Secret, expecting: list[_Expected], caller: Caller) -> frozenset[str]:
        fitting = await self._fitting(secret, expecting, caller)
        if not fitting:
            reference = expecting[0].reference.reference
            self._alarm(
                WRONG_SECRET,
                caller,
                f"{caller} supplied a secret “{reference}” that is not the one whose fingerprint stands in "
                f"{_profiles_in_words(expecting)}. It was not used.",
                "Supply the right secret; if it was changed on purpose, put the new fingerprint into the profile "
                "(`homeward profile fingerprint` makes it).",
            )
            raise SecretRefused(
                f"this is not the secret “{reference}” that {_profiles_in_words(expecting)} expects: its fingerprint "
                "differs. Check what you typed, or what the keyring holds."
            )
        shortest = max(expected.shortest for expected in fitting)
        if len(secret) < shortest:
            raise SecretRefused(
                f"the key has {len(secret)} octets, and a key that decides what is trusted needs at least {shortest} "
                "(RFC 5265 section 6.1). Agree on a longer random one with the home agent's administrator."
            )
        self._alarms.pop((WRONG_SECRET, caller.uid), None)
        for expected in fitting:
            self._kept.setdefault(expected.slot, Secret(secret.reveal()))
        secret.wipe()
        return frozenset(expected.profile for expected in fitting)

    async def _fitting(self, secret: Secret, expecting: list[_Expected], caller: Caller) -> list[_Expected]:
        if self._waiting[caller.uid] >= _MOST_WAITING:
            raise SecretRefused(
                f"{caller} has {_MOST_WAITING} offers waiting to be checked; try again in a moment"
            )
        self._waiting[caller.uid] += 1
        try:
            async with self._checking:
                return [
                    expected
                    for expected in expecting
                    if await asyncio.to_thread(matches, secret, expected.reference.fingerprint)
                ]
        finally:
            self._waiting[caller.uid] -= 1

    def _alarm(self, code: str, caller: Caller, text: str, advice: str) -> None:
        """One alarm for each user and reason: who tries often fills neither the status nor the log."""
        if (code, caller.uid) in self._alarms:
            return
        if len(self._alarms) >= _MOST_ALARMS:
            self._alarms.pop(next(iter(self._alarms)))
        self._alarms[code, caller.uid] = HealthItem(
            code, Severity.ALARM, text=text, advice=advice, since=self._boot()
        )


def _expected_by(profile: Profile) -> Iterator[_Expected]:
    """The home agent's key first, then the gateway's, then those of foreign agents in their order."""
    agent, gateway = profile.home_agent, profile.gateway
    yield _Expected(
        profile.name,
        profile.owner,
        agent.key,
        purpose=f"the key shared with the home agent {agent.address} (SPI {agent.spi})",
        shortest=MINIMUM_KEY_OCTETS,
    )
    if gateway is not None:
        yield _Expected(
            profile.name,
            profile.owner,
            gateway.pre_shared_key,
            purpose=f"the key shared with the VPN gateway {gateway.host}",
            shortest=1,
        )
    for one in profile.foreign_agents:
        whom = "the server that foreign agents ask" if one.agent is None else f"the foreign agent {one.agent}"
        yield _Expected(
            profile.name,
            profile.owner,
            one.key,
            purpose=f"the key shared with {whom} (SPI {one.spi})",
            shortest=MINIMUM_KEY_OCTETS,
        )


def _profiles_in_words(expected: list[_Expected]) -> str:
    names = " and ".join(f"“{name}”" for name in sorted({entry.profile for entry in expected}))
    return f"the profile {names}"
