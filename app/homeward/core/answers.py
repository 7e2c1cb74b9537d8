# SPDX-License-Identifier: GPL-2.0-or-later
"""What the answers to registrations lead to: a proof, a binding, another try, or a refusal in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from homeward.core import picture
from homeward.core.boundary import Reason
from homeward.core.nearby import back_to_co_located
from homeward.core.registration import (
    Accepted,
    Denied,
    DeniedByAgent,
    Ignored,
    RegistrationSeries,
    Resynchronise,
)
from homeward.core.reply_actions import Action, Asked, Reaction, react
from homeward.core.revocation import revoked
from homeward.core.timing import RETRY_TUNNEL, begin_keepalive
from homeward.core.vicinity import PAUSE_REFUSED, PAUSE_SILENT
from homeward.model.access import AgentPath, ClearPath, HomePath, VpnPath
from homeward.model.effects import Effect
from homeward.model.encapsulation import Encapsulation
from homeward.model.health import Severity
from homeward.model.inputs import DatagramReceived
from homeward.model.instant import Instant
from homeward.model.names import REGISTRATION_PORT
from homeward.model.plan import Tunnelled
from homeward.model.status import Trust
from homeward.wire import revocation, udp_tunnel

if TYPE_CHECKING:
    from homeward.core.coordinator import Coordinator


def received(core: Coordinator, datagram: DatagramReceived, at: Instant) -> list[Effect]:
    """A datagram on a registration socket."""
    if core.boundary is None:
        return []
    match datagram.octets[0] if datagram.octets else None:
        case udp_tunnel.TUNNEL_DATA_TYPE:
            return _tunnel_answered(core, datagram, at)
        case revocation.REVOCATION_TYPE:
            return revoked(core, datagram, at)
    series = core.registrar.series_for(datagram.path)
    if series is None:
        _another_link_answered(core, datagram, at)
        return []
    match series.judge(datagram, at):
        case Ignored(why, alarm):
            severity = Severity.ALARM if alarm else Severity.WARNING
            text = f"Not trusted: {why}, on {core.boundary.attachment.link_name} from {datagram.source}"
            core.health.note("reply-rejected", text, at.boot, severity=severity)
            return []
        case Resynchronise(request, identification):
            core.registrar.source.resynchronise(identification, request.sent)
            text = f"The home agent's clock differs from ours by {core.registrar.source.offset:.0f} s"
            core.health.note("clock-differs", text, at.boot, severity=Severity.INFO)
            if not core.resynchronised:
                core.resynchronised = True
                core.start_again(series.path, at)
            return core.transmit(at)
        case Denied() as denial:
            return _denied(core, series, denial, at)
        case DeniedByAgent() as denial:
            return _denied_by_agent(core, series, denial, at)
        case Accepted() as answer:
            return _accepted(core, series, answer, at)


def _tunnel_answered(core: Coordinator, datagram: DatagramReceived, at: Instant) -> list[Effect]:
    """An echo through the tunnel in UDP: only from the other end of it, by the way it leads (R-231, R-237)."""
    tunnel = core.plan.traffic if core.plan is not None else None
    by_the_way = isinstance(tunnel, Tunnelled) and tunnel.udp and tunnel.path == datagram.path
    from_its_end = (datagram.source, datagram.source_port) == (
        core.profile.home_agent.address,
        REGISTRATION_PORT,
    )
    if by_the_way and from_its_end and core.keepalive is not None:
        core.keepalive.answered(datagram.octets, at.boot)
    return []


# --- refusals ---------------------------------------------------------------------------------------------------------


def _denied(core: Coordinator, series: RegistrationSeries, denial: Denied, at: Instant) -> list[Effect]:
    """The home agent's own word, signed."""
    core.registrar.denied(denial.reply)
    reaction = _reaction(core, series, denial.code)
    if _asks_for_less(core, reaction.action):
        core.start_again(series.path, at)
        return core.transmit(at)
    text = f"{denial.sentence} (code {denial.code})"
    severity = Severity.ALARM if reaction.is_security_exception else Severity.WARNING
    core.health.note("home-agent-refused", text, at.boot, severity=severity, advice=reaction.advice)
    if isinstance(series.path, AgentPath | HomePath):
        return back_to_co_located(core, at)
    core.registrar.binding = None
    if isinstance(series.path, ClearPath):
        assert core.boundary is not None
        core.boundary.refused(Reason.HOME_AGENT_REFUSED, f"Not trusted: {text}", at.boot)
        core.monitor_until = None
    else:
        core.registrar.tunnel = None
        core.registrar.retry_tunnel_at = at.boot + RETRY_TUNNEL
    return []


def _reaction(core: Coordinator, series: RegistrationSeries, code: int) -> Reaction:
    tunnel = series.terms.udp_tunnel
    return react(
        code,
        Asked(
            through_agent=isinstance(series.path, AgentPath),
            encapsulation=series.terms.encapsulation,
            udp_tunnel=tunnel is not None,
            forced_udp=tunnel is not None and tunnel.force,
            has_home_address=core.registrar.home_address is not None,
        ),
    )


def _asks_for_less(core: Coordinator, action: Action) -> bool:
    """Whether the wish that was refused can be given up, and has not been before (R-233, R-234)."""
    wishes = core.registrar.wishes
    before = replace(wishes)
    match action:
        case Action.CHANGE_ENCAPSULATION:
            wishes.encapsulation = Encapsulation.IP_IN_IP
        case Action.WITHOUT_FORCED_UDP:
            wishes.force_udp = False
        case Action.WITHOUT_UDP_TUNNEL:
            wishes.udp_tunnel = False
    return wishes != before


def _denied_by_agent(
    core: Coordinator, series: RegistrationSeries, denial: DeniedByAgent, at: Instant
) -> list[Effect]:
    """A foreign agent's word: a reason to ask it otherwise, or to do without it. Trust and traffic stay as they are."""
    path, vicinity = series.path, core.vicinity
    assert isinstance(path, AgentPath)
    if denial.relayed is not None:
        core.registrar.denied(denial.relayed)
    reaction = _reaction(core, series, denial.code)
    again = False
    match reaction.action:
        case Action.RETRY_WITH_LIFETIME:
            again = vicinity.refuse_lifetime(path, denial.lifetime)
        case Action.NEW_CHALLENGE:
            again = vicinity.refuse_challenge(path, denial.challenge, at.boot)
        case Action.CHANGE_ENCAPSULATION:
            again = vicinity.encapsulation is None
            vicinity.encapsulation = Encapsulation.IP_IN_IP
        case Action.TRY_OTHER_CARE_OF:
            pass
        case _:
            vicinity.leave_agent(path, at.boot)
    if again and denial.relayed is None:
        core.start_again(path, at)
        return core.transmit(at)
    text = f"The foreign agent {path.agent} does not serve us: {denial.sentence} (code {denial.code})"
    severity = Severity.WARNING if reaction.is_security_exception else Severity.INFO
    core.health.note("foreign-agent-refused", text, at.boot, severity=severity, advice=reaction.advice)
    return back_to_co_located(core, at, pause=PAUSE_SILENT if denial.relayed else PAUSE_REFUSED)


# --- acceptances ------------------------------------------------------------------------------------------------------


def _accepted(core: Coordinator, series: RegistrationSeries, answer: Accepted, at: Instant) -> list[Effect]:
    newest = core.registrar.is_newest(answer)
    if core.registrar.home_address not in (None, answer.reply.home_address):
        text = f"The home agent has assigned {answer.reply.home_address} after {core.registrar.home_address}"
        core.health.note("reply-rejected", text, at.boot)
        return []
    if core.registrar.home_address is None:
        core.registrar.adopt(answer)
        core.adopt(answer.reply.home_address)
    core.health.mended("home-agent-refused", "home-agent-silent", "registration-not-sent")
    core.message = answer.reply.message or ""
    match series.path:
        case VpnPath():
            # TNC says nothing here: the request went through the VPN, whose addresses the agent trusts.
            core.registrar.accepted(series, answer)
            core.registrar.tunnel = None
            if core.registrar.binding is None:
                # Granted for no time at all: asking again at once would be a storm.
                core.registrar.retry_tunnel_at = at.boot + RETRY_TUNNEL
            core.roams.note("registered", at.boot)
            return begin_keepalive(core, at)
        case ClearPath():
            why = _not_a_proof(core, answer)
            if why:
                return _not_vouched_for(core, why, answer, at)
            return _proved(core, series, answer, newest=newest, at=at)
        case AgentPath() | HomePath():
            return _proved_nearby(core, series, answer, newest=newest, at=at)
    assert_never(series.path)


def _not_a_proof(core: Coordinator, answer: Accepted) -> str:
    """Why an authentic acceptance proves nothing about this network, empty when it does."""
    tunnel = answer.udp_tunnel
    forced = tunnel is not None and tunnel.forced and core.profile.force_udp
    if tunnel is not None and not forced and not core.profile.nat_inside:
        # Inside nothing stands between: this is an alarm and no proof.
        return "the home agent sees a NAT on the way to it"
    if not answer.trusted_networks_configured:
        return "the home agent answered without vouching for this network (no TNC extension)"
    return ""


def _not_vouched_for(core: Coordinator, why: str, answer: Accepted, at: Instant) -> list[Effect]:
    """R-78: the agent can be reached but does not vouch for this network; it now holds a binding into the open."""
    assert core.boundary is not None
    core.registrar.noticed(answer)
    core.registrar.binding = None
    text = f"Not trusted: {why}"
    core.health.note("no-trusted-networks", text, at.boot, severity=Severity.ALARM)
    core.boundary.refused(Reason.NO_TRUSTED_NETWORKS, text, at.boot)
    core.monitor_until = core.reprobe_at = None
    return list(core.vicinity.leave())


def _proved(
    core: Coordinator, series: RegistrationSeries, answer: Accepted, *, newest: bool, at: Instant
) -> list[Effect]:
    """Inside, by a proof in clear with our own care-of address."""
    assert core.boundary is not None
    timers = core.profile.timers
    if answer.round_trip > core.round_trips.oldest_proof(timers.proof_max_age):
        # Too old to prove where we are now; the answer to a fresh question will.
        core.start_again(series.path, at)
        return core.transmit(at)
    attachment = core.boundary.attachment
    first = core.boundary.verdict.trust is not Trust.TRUSTED
    _trust(core, series, answer, at)
    core.round_trips.remember(attachment.gateway, answer.round_trip)
    if first:
        core.roams.note("verdict", at.boot)
    if not newest:
        # A request through the VPN left later, so the binding may be there: ask again, and move data then.
        core.registrar.noticed(answer)
        core.start_again(series.path, at)
        return core.transmit(at)
    core.registrar.accepted(series, answer)
    core.registrar.finish_series()
    core.roams.note("registered", at.boot)
    return [*begin_keepalive(core, at), *_rest_the_vpn(core)]


def _trust(core: Coordinator, series: RegistrationSeries, answer: Accepted, at: Instant) -> None:
    assert core.boundary is not None
    proof = picture.proof_of(core.profile, core.boundary.attachment, series.path, answer, at)
    core.boundary.proved(proof)
    core.monitor_until = answer.request.sent.boot + core.profile.timers.monitor
    core.reprobe_at = None
    core.health.mended("no-trusted-networks", "clock-differs")


def _rest_the_vpn(core: Coordinator) -> tuple[Effect, ...]:
    if core.secure_path is None:
        return ()
    core.health.mended("gateway-unreachable", "gateway-unknown", "vpn-lost")
    if core.profile.keep_vpn_inside:
        core.secure_path.keep()
        return ()
    return core.secure_path.close("the network is trusted")


def _proved_nearby(
    core: Coordinator, series: RegistrationSeries, answer: Accepted, *, newest: bool, at: Instant
) -> list[Effect]:
    """Through a foreign agent or at home: the second registration counts only if it is a proof as well (R-17)."""
    path = series.path
    assert isinstance(path, AgentPath | HomePath)
    trusted = core.boundary is not None and core.boundary.verdict.trust is Trust.TRUSTED
    if not answer.trusted_networks_configured and isinstance(path, AgentPath) and path.is_co_located:
        return _relayed(core, path, answer, at)
    if not answer.trusted_networks_configured:
        core.registrar.noticed(answer)
        who = (
            f"through the foreign agent {path.agent}" if isinstance(path, AgentPath) else "from the home link"
        )
        text = f"The home agent does not vouch for this network when it is asked {who}"
        core.health.note("agent-not-vouched-for", text, at.boot, severity=Severity.ALARM)
        # The home agent's signed word against what the last proof said, and it sends to that agent now: nothing flows
        # until the next proof.
        core.registrar.binding = None
        return back_to_co_located(core, at, pause=PAUSE_SILENT)
    late = answer.round_trip > core.round_trips.oldest_proof(core.profile.timers.proof_max_age)
    if not trusted or not newest or late:
        core.registrar.noticed(answer)
        return back_to_co_located(core, at, pause=PAUSE_SILENT)
    _trust(core, series, answer, at)
    core.registrar.accepted(series, answer)
    if core.registrar.binding is None:
        return back_to_co_located(core, at, pause=PAUSE_SILENT)
    core.registrar.finish_series()
    core.vicinity.accepted(path, answer.challenge)
    core.health.mended("foreign-agent-refused", "agent-not-vouched-for", "agent-left")
    core.roams.note("registered", at.boot)
    return begin_keepalive(core, at)


def _relayed(core: Coordinator, path: AgentPath, answer: Accepted, at: Instant) -> list[Effect]:
    """The agent's demand is met (R-117): the binding of our own address, registered through it, stays as it was.

    Whoever relays is not where the care-of address is, so that the home agent does not vouch (X-28). That says nothing
    against the network, whose proof our own requests repeat.
    """
    core.registrar.noticed(answer)
    core.registrar.local = None
    core.vicinity.leave_agent(path, at.boot)
    return list(core.vicinity.leave(at.boot))


# --- links that do not carry the home address -------------------------------------------------------------------------


def _another_link_answered(core: Coordinator, datagram: DatagramReceived, at: Instant) -> None:
    series = core.other_links.series_for(datagram.path)
    if series is None:
        return
    outcome = series.judge(datagram, at)
    oldest = core.round_trips.oldest_proof(core.profile.timers.proof_max_age)
    core.other_links.answered(series, outcome, core.registrar.source, oldest=oldest)
    if isinstance(outcome, Ignored) and outcome.alarm:
        text = f"Not trusted: {outcome.why}, from {datagram.source}"
        core.health.note("reply-rejected", text, at.boot, severity=Severity.ALARM)
