# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may supply which secret, what becomes of the others, and that none can be seen."""

import asyncio
import logging
import pickle

import pytest

from homeward.bus.errors import SecretRefused
from homeward.daemon.secret_store import FOREIGN_SECRET, WRONG_SECRET, SecretStore
from homeward.model.errors import LocalProtocolError
from homeward.model.health import Severity
from homeward.model.profile import Profile
from homeward.model.secret import Secret
from tests.unit.daemon.parts import (
    AAA,
    ALICE,
    BOB,
    FOREIGN,
    KEY,
    PSK,
    ROOT,
    WRONG,
    profile,
    reference,
    with_foreign_agents,
    with_key,
)


def store() -> SecretStore:
    return SecretStore(lambda: 42.0)


async def refusal(kept: SecretStore, name: str, octets: bytes, caller: object, *profiles: Profile) -> str:
    secret = Secret(octets)
    with pytest.raises(SecretRefused) as caught:
        await kept.offer(name, secret, caller, profiles=profiles)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError):
        secret.reveal()  # what is refused is wiped
    return str(caught.value)


async def test_the_owner_supplies_both() -> None:
    kept, office = store(), profile()
    assert [need.reference for need in kept.needed(office)] == ["mn-ha", "psk"]
    assert kept.needed(office)[0].owner == "alice"
    assert "10.0.0.2" in kept.needed(office)[0].purpose
    assert kept.secrets_of(office) is None
    assert await kept.offer("mn-ha", Secret(KEY), ALICE, profiles=[office]) == {"office"}
    assert [need.reference for need in kept.needed(office)] == ["psk"]
    assert kept.secrets_of(office) is None
    assert await kept.offer("psk", Secret(PSK), ALICE, profiles=[office]) == {"office"}
    assert kept.needed(office) == ()
    secrets = kept.secrets_of(office)
    assert secrets is not None
    assert secrets.key.reveal() == KEY
    assert secrets.pre_shared_key is not None
    assert secrets.pre_shared_key.reveal() == PSK
    assert kept.health == ()


async def test_root_supplies_for_everybody() -> None:
    kept = store()
    for owned in (profile(owner="alice"), profile("kiosk", owner="machine"), profile("ops", owner="root")):
        assert owned.name in await kept.offer("mn-ha", Secret(KEY), ROOT, profiles=[owned])


@pytest.mark.parametrize("owner", ["alice", "machine", "root"])
async def test_a_second_user_is_never_trusted_and_it_shows(owner: str) -> None:
    kept, office = store(), profile(owner=owner)
    text = await refusal(kept, "mn-ha", KEY, BOB, office)  # even the right one
    assert owner in text
    assert len(kept.needed(office)) == 2
    (alarm,) = kept.health
    assert (alarm.code, alarm.severity, alarm.since) == (FOREIGN_SECRET, Severity.ALARM, 42.0)
    assert "bob (user id 1002)" in alarm.text
    assert "“office”" in alarm.text
    assert alarm.advice


async def test_nobody_but_root_speaks_for_the_machine_whatever_his_name() -> None:
    kept = store()
    called_machine = type(ALICE)(1003, ":1.9", "machine")
    await refusal(kept, "mn-ha", KEY, called_machine, profile(owner="machine"))


async def test_the_wrong_secret_of_the_right_owner() -> None:
    kept, office = store(), profile()
    text = await refusal(kept, "mn-ha", WRONG, ALICE, office)
    assert "fingerprint differs" in text
    (alarm,) = kept.health
    assert (alarm.code, alarm.severity) == (WRONG_SECRET, Severity.ALARM)
    await kept.offer("mn-ha", Secret(KEY), ALICE, profiles=[office])
    assert kept.health == ()  # the right one settles it


async def test_a_secret_for_the_other_purpose_is_refused() -> None:
    kept = store()
    await refusal(kept, "mn-ha", PSK, ALICE, profile())
    await refusal(kept, "psk", KEY, ALICE, profile())


async def test_a_secret_that_nobody_asked_for() -> None:
    kept = store()
    assert "no profile asks" in await refusal(kept, "other", KEY, ALICE, profile())
    assert kept.health == ()


async def test_one_users_secret_does_not_serve_anothers_profile() -> None:
    kept, hers, his = store(), profile(), profile("home", owner="bob")
    assert await kept.offer("mn-ha", Secret(KEY), ALICE, profiles=[hers, his]) == {"office"}
    assert len(kept.needed(his)) == 2


async def test_profiles_of_one_owner_share_what_is_the_same_and_only_that() -> None:
    kept, office, other = store(), profile(), profile("travel")
    changed = with_key(profile("lab"), reference("mn-ha", WRONG))
    assert await kept.offer("mn-ha", Secret(KEY), ALICE, profiles=[office, other, changed]) == {
        "office",
        "travel",
    }
    assert len(kept.needed(changed)) == 2


async def test_a_short_key_is_refused_even_if_the_profile_names_it() -> None:
    kept = store()
    short = with_key(profile(), reference("mn-ha", b"fifteen octets!"))
    text = await refusal(kept, "mn-ha", b"fifteen octets!", ALICE, short)
    assert "at least 16" in text


async def test_a_profile_that_changed_asks_anew() -> None:
    kept = store()
    await kept.offer("mn-ha", Secret(KEY), ALICE, profiles=[profile()])
    changed = with_key(profile(), reference("mn-ha", KEY, salt=9))
    assert len(kept.needed(changed)) == 2
    taken_over = profile(owner="bob")
    assert len(kept.needed(taken_over)) == 2


async def test_foreign_agents_keys_are_needed_and_come_in_the_profiles_order() -> None:
    kept, office = store(), with_foreign_agents(profile(vpn=False))
    assert [need.reference for need in kept.needed(office)] == ["mn-ha", "mn-fa", "mn-aaa"], "one serves two"
    assert "10.1.3.1 (SPI 512)" in kept.needed(office)[1].purpose
    assert "server" in kept.needed(office)[2].purpose
    for name, octets in (("mn-aaa", AAA), ("mn-ha", KEY)):
        await kept.offer(name, Secret(octets), ALICE, profiles=[office])
        assert kept.secrets_of(office) is None
    assert "at least 16" not in await refusal(kept, "mn-fa", WRONG, ALICE, office)
    await kept.offer("mn-fa", Secret(FOREIGN), ALICE, profiles=[office])
    secrets = kept.secrets_of(office)
    assert secrets is not None
    assert secrets.pre_shared_key is None
    assert [key.reveal() for key in (secrets.key, *secrets.foreign_keys)] == [KEY, FOREIGN, FOREIGN, AAA]


async def test_with_a_gateway_the_foreign_agents_keys_follow_its_own() -> None:
    kept, office = store(), with_foreign_agents(profile())
    for name, octets in (("mn-fa", FOREIGN), ("psk", PSK), ("mn-aaa", AAA), ("mn-ha", KEY)):
        assert kept.secrets_of(office) is None
        await kept.offer(name, Secret(octets), ALICE, profiles=[office])
    secrets = kept.secrets_of(office)
    assert secrets is not None
    assert secrets.pre_shared_key is not None
    assert secrets.pre_shared_key.reveal() == PSK
    assert [key.reveal() for key in secrets.foreign_keys] == [FOREIGN, FOREIGN, AAA]


async def test_forgetting_wipes() -> None:
    kept, office = store(), profile(vpn=False)
    await kept.offer("mn-ha", Secret(KEY), ALICE, profiles=[office])
    secrets = kept.secrets_of(office)
    assert secrets is not None
    assert secrets.pre_shared_key is None
    kept.forget()
    assert len(kept.needed(office)) == 1
    with pytest.raises(LocalProtocolError):
        secrets.key.reveal()
    kept.forget()  # twice does no harm


async def test_what_the_next_profile_shares_with_the_last_is_not_forgotten() -> None:
    kept, office, home = store(), profile(), profile("home", vpn=False)
    for name, octets in (("mn-ha", KEY), ("psk", PSK)):
        await kept.offer(name, Secret(octets), ALICE, profiles=[office, home])
    kept.forget(but_for=home)
    assert kept.needed(home) == ()
    assert [need.reference for need in kept.needed(office)] == ["psk"]


async def test_alarms_are_bounded_and_one_for_each_user() -> None:
    kept, office = store(), profile()
    for _ in range(3):
        await refusal(kept, "mn-ha", KEY, BOB, office)
    assert len(kept.health) == 1
    for uid in range(2000, 2020):
        await refusal(kept, "mn-ha", KEY, type(BOB)(uid, ":1.5", f"user{uid}"), office)
    assert len(kept.health) == 8
    kept.forget_alarms()
    assert kept.health == ()


async def test_offers_of_one_user_are_checked_one_after_another_and_not_too_many() -> None:
    kept, office = store(), profile()
    offers = [kept.offer("mn-ha", Secret(WRONG), ALICE, profiles=[office]) for _ in range(20)]
    results = await asyncio.gather(*offers, return_exceptions=True)
    assert sum("waiting to be checked" in str(result) for result in results) == 12
    assert sum("fingerprint differs" in str(result) for result in results) == 8
    await kept.offer("mn-ha", Secret(KEY), ALICE, profiles=[office])


async def test_no_secret_can_be_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kept, office = store(), profile()
    await kept.offer("mn-ha", Secret(KEY), ALICE, profiles=[office])
    secrets = kept.secrets_of(profile(vpn=False))
    shown = [repr(kept.__dict__), repr(secrets), str(secrets), repr(kept.needed(office)), caplog.text]
    for octets in (WRONG, PSK):
        shown.append(await refusal(kept, "mn-ha", octets, ALICE, office))
    shown.append(repr(kept.health))
    for text in shown:
        for octets in (KEY, PSK, WRONG):
            assert octets.decode() not in text
            assert octets.hex() not in text
            assert repr(octets) not in text
    with pytest.raises(TypeError):
        pickle.dumps(secrets)
