# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong before and while a user connects: each a clear message with what to do.

Exit status 2 for wrong usage or a wrong profile, 1 for anything else. An order that is refused leaves the network as it
was; one that was taken and cannot be carried out leaves the block of docs/security.md, which Disconnect lifts.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from homeward.bus.fingerprint import fingerprint
from homeward.lab import keys, services
from homeward.lab.state import LabState
from homeward.lab.topology import CABLE
from homeward.model.access import AccessMode
from homeward.model.health import Severity
from homeward.model.secret import Secret
from homeward.model.status import Trust
from tests.lab.enterprise import agent_with_key, dropping, gateway_with_key, no_agent
from tests.lab.laptop import HASTY, Laptop, Status, differences, reason

pytestmark = [pytest.mark.root, pytest.mark.lab]
SHARES_LAB = True

ANOTHER_KEY = bytes(range(32))


@pytest.fixture(scope="module", autouse=True)
def hasty_profile(lab: LabState, status: Status) -> None:
    Laptop(lab, status).write_profile("hasty", more=HASTY)


@contextmanager
def nothing_changes(laptop: Laptop) -> Iterator[None]:
    """The laptop's network is the same afterwards, to the last setting."""
    before = laptop.network()
    yield
    assert differences(before, laptop.network()) == []


@contextmanager
def a_block_that_disconnect_lifts(laptop: Laptop) -> Iterator[None]:
    """Meanwhile the fence stands and nothing is trusted; after Disconnect the network is as before."""
    before, mark = laptop.network(), laptop.status.mark()
    yield
    assert laptop.blocks()
    told = laptop.status.since(mark)
    assert not [each for each in told if each.trust is Trust.TRUSTED or each.mode is not AccessMode.NONE]
    laptop.disconnect()
    assert differences(before, laptop.network()) == []


# --- refused: nothing has changed -----------------------------------------------------------------------------------


def test_a_malformed_profile_is_told_with_the_key_that_was_meant(laptop: Laptop) -> None:
    laptop.plug("ext1")
    laptop.write_profile("typo", {"home_address": "home_adress"})
    with nothing_changes(laptop):
        told = laptop.connect("typo")
    assert told.status == 2
    assert "/etc/homeward/profiles.d/typo.toml" in told.err
    assert "home_agent.home_adress: unknown key; did you mean “home_address”?" in told.err
    assert "home_agent.home_adress" in laptop.homeward("profiles").out
    laptop.remove_profile("typo")


def test_a_profile_that_others_could_change_is_refused(laptop: Laptop) -> None:
    laptop.write_profile("open")
    laptop.host.run("chmod", "o+w", "/etc/homeward/profiles.d/open.toml")
    with nothing_changes(laptop):
        told = laptop.connect("open")
    assert told.status == 2
    assert "chmod go-w /etc/homeward/profiles.d/open.toml" in told.err
    laptop.remove_profile("open")


def test_an_unknown_profile_is_answered_with_those_that_there_are(laptop: Laptop) -> None:
    with nothing_changes(laptop):
        told = laptop.connect("offcie")
    assert told.status == 2
    assert "no profile “offcie”; usable are: hasty, lab" in told.err


@pytest.mark.parametrize(
    ("words", "given", "named"),
    [
        ((), "", "COMMAND"),
        (("connct", "lab"), "", "connct"),
        (("connect", "lab", "--wait", "soon"), "", "soon"),
        (("connect", "lab", "--secrets-fd", "99"), "", "99"),
        (("connect", "lab", "--secrets-fd", "0"), "no equals sign", "line 1"),
        (("connect", "lab", "--secrets-fd", "0"), f"{keys.PRE_SHARED_KEY}=hex:0x", "line 1"),
        (("connect",), "", "hasty, lab"),
    ],
)
def test_wrong_usage(laptop: Laptop, words: tuple[str, ...], given: str, named: str) -> None:
    with nothing_changes(laptop):
        told = laptop.homeward(*words, given=given)
    assert told.status == 2
    assert named in told.err
    assert "0x" not in told.err, "what was given as a secret is not repeated"


def test_a_key_that_is_not_the_profiles_is_refused(laptop: Laptop) -> None:
    with nothing_changes(laptop):
        told = laptop.connect(mobility=f"hex:{ANOTHER_KEY.hex()}")
    assert told.status == 1
    assert f"this is not the secret “{keys.MOBILITY_KEY}” that the profile" in told.err
    (item,) = laptop.status.until(lambda now: reason(now, "wrong-secret"), "the wrong secret is told").health
    assert item.severity is Severity.ALARM
    assert "homeward profile fingerprint" in laptop.homeward("status").out


def test_a_profile_with_the_fingerprint_of_another_key_takes_no_other(laptop: Laptop, lab: LabState) -> None:
    profile = laptop.host.run("cat", "/etc/homeward/profiles.d/lab.toml").stdout
    genuine = next(word for word in profile.split('"') if word.startswith("scrypt:"))
    laptop.write_profile(
        "other", {genuine: fingerprint(Secret(ANOTHER_KEY), bytes(16)), keys.MOBILITY_KEY: "other-key"}
    )
    mobility = (lab.keys / keys.MOBILITY_KEY).read_text()
    with nothing_changes(laptop):
        told = laptop.homeward("connect", "other", "--secrets-fd", "0", given=f"other-key={mobility}")
    assert told.status == 1
    assert "its fingerprint differs" in told.err
    laptop.remove_profile("other")


def test_without_keyring_and_terminal_a_missing_secret_is_named_with_its_owner(laptop: Laptop) -> None:
    """What the command line meets where no tray fetches it: the keyring is locked, or there is none."""
    assert laptop.connect("nowhere").status == 2, "an order that is refused leaves no secret with the daemon"
    with nothing_changes(laptop):
        told = laptop.homeward("connect", "lab")
        assert told.status == 1
        assert f"“{keys.MOBILITY_KEY}” of {services.user_name()}" in told.err
        assert "homeward-tray" in told.err
        assert "--secrets-fd" in told.err
        shown = laptop.homeward("status")
        assert "waiting for a secret" in shown.out
        assert keys.PRE_SHARED_KEY in shown.out
        assert "homeward connect" in shown.out
        reconnecting = laptop.homeward("reconnect")
        assert reconnecting.status == 1
        assert "unlock the keyring" in reconnecting.err


def test_nothing_to_reconnect(laptop: Laptop) -> None:
    with nothing_changes(laptop):
        told = laptop.homeward("reconnect")
    assert told.status == 1
    assert "homeward connect" in told.err


def test_without_daemon(laptop: Laptop) -> None:
    laptop.kill("homewardd", signal.SIGTERM)
    with nothing_changes(laptop):
        for words in (("status",), ("connect", "lab"), ("disconnect",)):
            told = laptop.homeward(*words)
            assert told.status == 1
            assert "systemctl start homewardd" in told.err


def test_without_bus(laptop: Laptop) -> None:
    told = laptop.homeward("status", bus="unix:path=/run/nobody-listens-here")
    assert told.status == 1
    assert "Check that dbus is running" in told.err


# --- taken, and cannot be carried out: blocked, with the reason -----------------------------------------------------


@pytest.mark.slow
def test_a_gateway_that_cannot_be_reached(laptop: Laptop, lab: LabState) -> None:
    laptop.plug("ext1")
    with dropping(lab, "ext1", "forward", "meta l4proto udp"), a_block_that_disconnect_lifts(laptop):
        told = laptop.connect("hasty", wait=1.5)
        assert told.status == 1
        assert "not connected within 1.5 s" in told.err
        laptop.status.until(lambda now: reason(now, "gateway-unreachable"), "the gateway is silent")
        shown = laptop.homeward("status")
        assert shown.status == 0
        assert "blocked; nothing passes" in shown.out
        assert "the fence holds" in shown.out
        assert "no answer from the gateway 192.0.2.1" in shown.out
        assert "Check that this network reaches the Internet" in shown.out


def test_a_gateway_whose_name_is_not_known(laptop: Laptop) -> None:
    laptop.plug("ext1")
    laptop.write_profile(
        "nameless", {'gateway = "gw.example.test"': 'gateway = "gw.nowhere.test"'}, more=HASTY
    )
    with a_block_that_disconnect_lifts(laptop):
        assert laptop.connect("nameless", wait=0.3).status == 1
        laptop.status.until(lambda now: reason(now, "gateway-unknown"), "the name is unknown")
        shown = laptop.homeward("status").out
        assert "looking up gw.nowhere.test" in shown
        assert "Check the name in the profile" in shown
    laptop.remove_profile("nameless")


def test_a_gateway_that_knows_another_pre_shared_key(laptop: Laptop, lab: LabState) -> None:
    laptop.plug("ext1")
    with gateway_with_key(lab, ANOTHER_KEY), a_block_that_disconnect_lifts(laptop):
        assert laptop.connect("hasty", wait=0.3).status == 1
        laptop.status.until(lambda now: reason(now, "authentication-failed"), "the key is refused")
        shown = laptop.homeward("status").out
        assert "did not accept the pre-shared key" in shown
        assert "Check the key in the keyring" in shown


def test_without_charon_and_when_it_comes(laptop: Laptop) -> None:
    laptop.plug("ext1")
    before = laptop.network()
    laptop.kill("charon")
    assert laptop.connect("hasty", wait=0.3).status == 1
    missed = laptop.status.until(
        lambda now: now.blocked and reason(now, "engine-missing"), "charon is missed"
    )
    assert missed.mode is AccessMode.NONE
    assert laptop.blocks()
    shown = laptop.homeward("status").out
    assert "the IKE service is not there" in shown
    assert "systemctl start homeward-ike" in shown
    assert "strongswan-charon" in shown
    laptop.start_charon()
    found = laptop.status.until(lambda now: now.mode is AccessMode.MC, "charon is found without an order")
    assert not reason(found, "engine-missing")
    assert laptop.homeward("disconnect").status == 0
    assert differences(before, laptop.network()) == []


def test_a_network_that_lends_no_address(laptop: Laptop, lab: LabState) -> None:
    laptop.plug("ext1")
    with dropping(lab, "ext2", "input", "udp dport 67"):
        laptop.plug_without_address("ext2")
        with a_block_that_disconnect_lifts(laptop):
            told = laptop.connect("hasty", wait=1)
            assert told.status == 1
            assert "no network" in told.err
            assert f"There is a network on {CABLE}, but it has given us no address yet" in told.out
            assert "DHCP" in told.out


@pytest.mark.parametrize("trouble", ["down", "another key"])
def test_a_home_agent_that_answers_nobody_inside_s11(laptop: Laptop, lab: LabState, trouble: str) -> None:
    """The gateway answers, so this is outside; through the VPN the agent is as silent, and in clear nothing passes."""
    laptop.plug("trust1")
    with (
        no_agent(lab) if trouble == "down" else agent_with_key(lab, ANOTHER_KEY),
        a_block_that_disconnect_lifts(laptop),
    ):
        assert laptop.connect("hasty", wait=0.3).status == 1
        laptop.status.until(lambda now: reason(now, "home-agent-silent"), "the home agent is missed")
        shown = laptop.homeward("status").out
        assert "the VPN is up, but the home agent did not register us through it" in shown
        assert "whether the home agent runs" in shown
