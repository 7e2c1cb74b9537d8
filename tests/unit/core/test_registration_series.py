# SPDX-License-Identifier: GPL-2.0-or-later
"""What each request says, and what each kind of answer to it means (RFC 5944 section 3.6)."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from homeward.core.registrar import Registrar
from homeward.core.registration import (
    Accepted,
    Denied,
    Ignored,
    Outcome,
    Peer,
    RegistrationSeries,
    Resynchronise,
)
from homeward.model.access import ClearPath, Path, VpnPath
from homeward.model.effects import SendRegistration
from homeward.model.inputs import DatagramReceived
from homeward.model.instant import Instant
from homeward.model.profile import Timers
from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.reply_codes import ReplyCode
from homeward.model.secret import Secret
from homeward.wire import authenticator
from homeward.wire import registration as codec
from homeward.wire.identification import from_time, high32, join, low32

AGENT, HOME = IPv4Address("10.0.0.2"), IPv4Address("10.77.0.10")
CARE_OF, INNER = IPv4Address("10.1.1.10"), IPv4Address("10.9.0.5")
CLEAR, VPN = ClearPath(2, "eth0", CARE_OF), VpnPath(INNER)
SA = MobilitySecurityAssociation(
    Spi(0x100), AuthenticationAlgorithm.HMAC_SHA256, key=Secret(bytes(range(32)))
)
FORGER = replace(SA, key=Secret(bytes(32)))
PEER = Peer(AGENT, HOME, SA, "laptop@example.test")
NOW = Instant(1000.0, 1_800_000_000.0)


def sent(path: Path, timers: Timers | None = None) -> tuple[SendRegistration, RegistrationRequest]:
    """The first request along a path, as the registrar lets it leave."""
    registrar = Registrar(PEER, timers or Timers(), lambda: 7, restored=None)
    match path:
        case ClearPath():
            registrar.start_clear(path, NOW.boot)
        case VpnPath():
            registrar.start_tunnel(path, NOW.boot)
    (effect,) = [each for each in registrar.transmit_due(NOW)[0] if isinstance(each, SendRegistration)]
    decoded = codec.decode(effect.octets)
    assert authenticator.verify(effect.octets, decoded, SA)
    assert isinstance(decoded.message, RegistrationRequest)
    return effect, decoded.message


@pytest.mark.rows(
    "R-2",
    "R-12",
    "R-57",
    "R-132",
    "R-133",
    "R-137",
    "R-138",
    "R-140",
    "R-141",
    "R-142",
    "R-144",
    "R-187",
    "R-212",
)
@pytest.mark.parametrize("path", [CLEAR, VPN], ids=["c", "mc"])
def test_what_a_request_asks_for(path: Path) -> None:
    effect, request = sent(path)
    assert (effect.path, effect.destination) == (path, AGENT)
    assert request.flags == RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL
    assert (request.home_address, request.home_agent) == (HOME, AGENT)
    assert request.care_of_address == path.source
    assert request.lifetime == 1800


@pytest.mark.rows("R-135", "R-213")
@pytest.mark.parametrize("path", [CLEAR, VPN], ids=["c", "mc"])
def test_a_request_for_a_reverse_tunnel_has_the_largest_ttl(path: Path) -> None:
    assert sent(path)[0].ttl == 255


@pytest.mark.rows("R-51")
def test_the_question_in_clear_does_not_say_who_asks() -> None:
    assert sent(CLEAR)[1].nai is None
    assert b"example" not in sent(CLEAR)[0].octets
    assert sent(VPN)[1].nai == "laptop@example.test"


@pytest.mark.rows("R-169")
@pytest.mark.parametrize("path", [CLEAR, VPN], ids=["c", "mc"])
def test_a_request_ends_with_the_one_authenticator(path: Path) -> None:
    octets = sent(path)[0].octets
    decoded = codec.decode(octets)
    assert len(decoded.authentications) == 1
    assert decoded.unauthenticated == ()
    assert not authenticator.verify(octets, decoded, FORGER)


def series(lifetime: int = 1800) -> RegistrationSeries:
    made = RegistrationSeries(CLEAR, PEER, lifetime=lifetime, timeout=1.0, transmissions=4)
    made.transmit(NOW, from_time(NOW.wall, 7))
    return made


def answer(
    of: RegistrationSeries, *, association: MobilitySecurityAssociation = SA, **changes: object
) -> DatagramReceived:
    """The home agent's answer to the last request, or something else in its place."""
    assert of.pending is not None
    plain = RegistrationReply(
        0, 1800, home_address=HOME, home_agent=AGENT, identification=of.pending.identification
    )
    octets = codec.encode_reply(replace(plain, **changes), association)  # type: ignore[arg-type]
    return DatagramReceived(CLEAR, octets, AGENT, 434, CLEAR.link_index)


def after(seconds: float) -> Instant:
    return Instant(NOW.boot + seconds, NOW.wall + seconds)


@pytest.mark.rows("R-130")
def test_what_is_remembered_of_a_request() -> None:
    asked = series()
    assert asked.pending is not None
    assert asked.path == CLEAR
    assert asked.pending.sent == NOW
    assert asked.pending.lifetime == 1800
    assert asked.pending.identification == from_time(NOW.wall, 7)


@pytest.mark.rows("R-164")
def test_each_request_waits_twice_as_long_as_the_one_before() -> None:
    asked, due = series(), []
    at = NOW
    for number in range(3):
        assert asked.deadline is not None
        due.append(asked.deadline - at.boot)
        at = after(asked.deadline - NOW.boot)
        asked.transmit(at, from_time(at.wall, number))
    assert due == [1, 2, 4]


@pytest.mark.rows("R-152")
@pytest.mark.parametrize(("asked", "granted", "counts"), [(300, 120, 120), (300, 300, 300), (300, 1800, 300)])
def test_the_smaller_lifetime_counts(asked: int, granted: int, counts: int) -> None:
    request = series(asked)
    outcome = request.judge(answer(request, lifetime=granted), after(2))
    assert isinstance(outcome, Accepted)
    assert outcome.lifetime == counts
    assert outcome.request.sent == NOW


@pytest.mark.rows("R-159")
@pytest.mark.parametrize("code", [ReplyCode.ACCEPTED, ReplyCode.ACCEPTED_WITHOUT_SIMULTANEOUS_BINDINGS])
def test_both_codes_of_success_are_success(code: int) -> None:
    request = series()
    assert isinstance(request.judge(answer(request, code=code), after(1)), Accepted)


HOME_AGENTS_DENIALS = [
    code for code in ReplyCode if code.by_home_agent and not code.is_success and code != 133
]


@pytest.mark.rows("R-153", "R-154")
@pytest.mark.parametrize("code", HOME_AGENTS_DENIALS, ids=lambda code: code.name)
def test_a_denial_says_why_and_grants_nothing_whatever_lifetime_it_carries(code: ReplyCode) -> None:
    request = series()
    outcome = request.judge(
        answer(request, code=code, lifetime=600, trusted_networks_configured=True), after(1)
    )
    assert isinstance(outcome, Denied)
    assert (outcome.code, outcome.sentence) == (code, code.sentence)
    assert request.deadline is None, "a denied request is not sent again"


@pytest.mark.rows("R-150", "R-214")
@pytest.mark.parametrize(
    "code", [code for code in ReplyCode if code.by_foreign_agent], ids=lambda code: code.name
)
def test_a_foreign_agents_denial_is_no_ground_to_act(code: ReplyCode) -> None:
    request = series()
    outcome = request.judge(answer(request, code=code), after(1))
    assert isinstance(outcome, Ignored)
    assert code.sentence in outcome.why
    assert request.deadline is not None
    assert isinstance(request.judge(answer(request), after(1)), Accepted)


@pytest.mark.rows("R-156")
def test_the_answer_that_tells_the_agents_clock() -> None:
    request = series()
    assert request.pending is not None
    told = join(high32(from_time(NOW.wall + 100, 0)), low32(request.pending.identification))
    outcome = request.judge(answer(request, code=133, lifetime=0, identification=told), after(1))
    assert isinstance(outcome, Resynchronise)
    assert outcome.identification == told
    assert outcome.request.sent == NOW


@pytest.mark.rows("R-147", "R-175")
@pytest.mark.parametrize("forgery", ["another key", "another low half"])
def test_a_forged_answer_tells_no_clock(forgery: str) -> None:
    request = series()
    assert request.pending is not None
    low = low32(request.pending.identification) ^ (forgery == "another low half")
    told = join(high32(from_time(NOW.wall + 100, 0)), low)
    association = FORGER if forgery == "another key" else SA
    false = answer(request, association=association, code=133, identification=told)
    assert isinstance(request.judge(false, after(1)), Ignored)
    assert isinstance(request.judge(answer(request), after(1)), Accepted), "the genuine answer still counts"


@pytest.mark.rows("R-148")
@pytest.mark.parametrize("code", [0, 1, 128, 131, 133, 136])
@pytest.mark.parametrize("authenticators", [0, 2])
def test_the_home_agents_answer_has_exactly_one_authenticator(code: int, authenticators: int) -> None:
    request = series()
    genuine = answer(request, code=code)
    octets = genuine.octets[:20] if not authenticators else authenticator.authenticate(genuine.octets, SA)
    outcome: Outcome = request.judge(replace(genuine, octets=octets), after(1))
    assert isinstance(outcome, Ignored)
    assert outcome.alarm
