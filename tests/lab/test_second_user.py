# SPDX-License-Identifier: GPL-2.0-or-later
"""A second user of the same machine, on its own bus: may look, may not act, and is never trusted with a key.

He runs the real command line in the laptop; what he tries and was refused shows in the first user's status.
"""

import json
import pwd
import sys

import pytest

from homeward.lab import keys, services
from homeward.lab.state import LabState
from homeward.model.health import Severity
from homeward.model.status import ClientState, Trust
from tests.lab.laptop import Laptop, Told, differences

pytestmark = [pytest.mark.root, pytest.mark.lab]

SECOND_USER = "nobody"

# The command line as another user's process. Everything is imported first: the checkout may be somewhere that only
# root may read. From then on the process has no right that this user has not.
AS_SECOND_USER = """
import os, pwd, sys
import homeward.bus.client, homeward.cli.commands, homeward.cli.secrets_in
from homeward.cli.main import main
user = pwd.getpwnam(sys.argv[1])
os.setgroups([])
os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
sys.exit(main(["--bus", "system", *sys.argv[2:]]))
"""


def second_user(laptop: Laptop, *words: str, given: str = "") -> Told:
    done = laptop.host.run(sys.executable, "-c", AS_SECOND_USER, SECOND_USER, *words, text=given, check=False)
    return Told(done.returncode, done.stdout, done.stderr)


def alarm_of(laptop: Laptop) -> str:
    """The text of the one alarm in the first user's `homeward status --json`."""
    shown = json.loads(laptop.homeward("status", "--json").out)
    (alarm,) = [item for item in shown["health"] if item["severity"] == Severity.ALARM.value]
    return str(alarm["text"])


def test_he_may_look(laptop: Laptop, lab: LabState) -> None:
    laptop.plug("trust1")
    assert laptop.connect().status == 0
    shown = second_user(laptop, "status", "--json")
    assert shown.status == 0
    assert json.loads(shown.out)["state"] == ClientState.TRUSTED_C.value
    profiles = second_user(laptop, "profiles")
    assert profiles.status == 0
    assert services.PROFILE in profiles.out
    for secret in (keys.MOBILITY_KEY, keys.PRE_SHARED_KEY):
        value = (lab.keys / secret).read_text().strip().partition(":")[2]
        assert value not in shown.out + profiles.out


def test_he_may_not_act(laptop: Laptop) -> None:
    laptop.plug("trust1")
    assert laptop.connect().status == 0
    before, mark = laptop.network(), laptop.status.mark()
    for words in (("connect", "lab"), ("disconnect",), ("reconnect",)):
        told = second_user(laptop, *words)
        assert told.status == 1
        assert f"may not {words[0]}: only root and the user of the active local session may" in told.err
        assert SECOND_USER in told.err
    assert differences(before, laptop.network()) == []
    assert {each.state for each in laptop.status.since(mark)} == {ClientState.TRUSTED_C}


def test_he_may_not_connect_where_nothing_is_connected(laptop: Laptop) -> None:
    before = laptop.network()
    told = second_user(laptop, "connect", "lab")
    assert told.status == 1
    assert "may not connect" in told.err
    assert differences(before, laptop.network()) == []


@pytest.mark.parametrize("key", ["a key of his own", "even the right one"])
def test_the_key_that_he_offers_is_refused_and_never_trusted(laptop: Laptop, lab: LabState, key: str) -> None:
    """He waits for the moment at which the daemon asks for a secret, on a network where his home agent answers."""
    laptop.plug("trust1")
    assert laptop.homeward("connect", "lab").status == 1, "the secrets are missing"
    mark = laptop.status.mark()
    genuine = (lab.keys / keys.MOBILITY_KEY).read_text().strip()
    offered = genuine if key == "even the right one" else f"hex:{'5a' * 32}"
    told = second_user(
        laptop, "connect", "lab", "--secrets-fd", "0", given=f"{keys.MOBILITY_KEY}={offered}\n"
    )
    assert told.status == 1
    assert f"may not supply the secret “{keys.MOBILITY_KEY}”" in told.err
    assert offered not in told.out + told.err
    told_since = laptop.status.since(mark)
    assert {each.state for each in told_since} == {ClientState.WAITING_FOR_SECRET}
    assert {each.trust for each in told_since} == {Trust.UNKNOWN}
    assert [need.reference for need in told_since[-1].secrets_needed] == [
        keys.MOBILITY_KEY,
        keys.PRE_SHARED_KEY,
    ]
    alarm = alarm_of(laptop)
    assert alarm.startswith(f"{SECOND_USER} (user id {pwd.getpwnam(SECOND_USER).pw_uid}) offered the secret")
    assert "It was not used" in alarm
    assert "!! nobody" in laptop.homeward("status").out


def test_when_he_sits_at_the_machine_he_may_disconnect_and_no_more(laptop: Laptop) -> None:
    """The users were switched: the connection stays, he may end it, and may not use a profile that is not his."""
    laptop.plug("trust1")
    assert laptop.connect().status == 0
    laptop.host.stop("login1")
    uid = str(pwd.getpwnam(SECOND_USER).pw_uid)
    services.start_module(laptop.host, "login1", "homeward.lab.login1", uid, SECOND_USER)
    services.wait_for_name(laptop.host, "login1", "org.freedesktop.login1")
    try:
        told = second_user(laptop, "connect", "lab")
        assert told.status == 1
        assert f"may not use the profile “lab”: it belongs to {services.user_name()}" in told.err
        told = second_user(laptop, "disconnect")
        assert (told.status, told.err) == (0, "")
        laptop.status.until(lambda now: now.state is ClientState.DISCONNECTED, "disconnected")
        assert second_user(laptop, "connect", "lab").status == 1
        assert laptop.status.now is not None
        assert laptop.status.now.state is ClientState.DISCONNECTED
    finally:
        laptop.host.stop("login1")
        services.start_module(laptop.host, "login1", "homeward.lab.login1", "0", services.user_name())
        services.wait_for_name(laptop.host, "login1", "org.freedesktop.login1")
