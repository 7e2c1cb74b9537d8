# SPDX-License-Identifier: GPL-2.0-or-later
"""The mobile node's decisions: facts in, effects and a picture out (RFC 5266 section 3.4; requirements.md section K).

On each change of connectivity, in one step: traffic is held, MOBIKE is told to move the VPN (or a VPN is begun), and an
un-tunnelled Registration Request leaves for the home agent. A signed answer with TNC means inside; the gateway's answer
without one means outside. Everything else waits.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import assert_never

from homeward.core import picture, planner
from homeward.core.attachment import Attachments
from homeward.core.boundary import Boundary, Reason
from homeward.core.clock_sync import Entropy
from homeward.core.health import Health
from homeward.core.other_links import OtherLinks
from homeward.core.registrar import Registrar
from homeward.core.registration import Accepted, Denied, Ignored, Peer, RegistrationSeries, Resynchronise
from homeward.core.roam_log import RoamLog
from homeward.core.round_trips import RoundTrips
from homeward.core.secure_path import SecurePath
from homeward.model.access import ClearPath, VpnPath
from homeward.model.effects import ApplyPlan, Effect
from homeward.model.health import Severity
from homeward.model.inputs import (
    DatagramReceived,
    DeadlinePassed,
    EffectFailed,
    GatewayResolved,
    Input,
    LinksObserved,
    PlanApplied,
    ReconnectRequested,
    Resumed,
    VpnReported,
)
from homeward.model.instant import Instant
from homeward.model.journal import IdentificationState
from homeward.model.plan import Held, NetworkPlan, Traffic, Tunnelled
from homeward.model.profile import Profile
from homeward.model.registration import MobilitySecurityAssociation
from homeward.model.status import StatusSnapshot, Trust
from homeward.model.vpn import VpnState

RETRY_TUNNEL = 30.0
"""Seconds between series through the VPN while the home agent stays silent or refuses."""
RETRY_PROBE = 15.0
"""Seconds before the first new probe where nobody answered; doubled up to RETRY_PROBE_MAX."""
RETRY_PROBE_MAX = 120.0
RETRY_PLAN = 1.0
PATIENCE = 1.5
"""How many known round trips a gateway's early answer waits for the home agent's (X-21)."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one input led to; `changed` says that the snapshot is a new one."""

    effects: tuple[Effect, ...]
    changed: bool


class Coordinator:
    """The mobile node of one profile. `handle`, `next_deadline` and `snapshot` are the whole surface."""

    def __init__(
        self,
        profile: Profile,
        association: MobilitySecurityAssociation,
        *,
        entropy: Entropy,
        restored: IdentificationState | None = None,
    ) -> None:
        self.profile = profile
        agent = profile.home_agent
        peer = Peer(agent.address, agent.home_address, association, agent.nai)
        self.attachments = Attachments(agent.home_address)
        self.registrar = Registrar(peer, profile.timers, entropy, restored=restored)
        self.other_links = OtherLinks(peer, profile.timers)
        self.secure_path = SecurePath(profile.gateway, profile.timers) if profile.gateway else None
        self.boundary: Boundary | None = None
        self.health = Health()
        self.roams = RoamLog()
        self.plan: NetworkPlan | None = None
        self.plan_number = 0
        self.plan_applied = 0
        self.applied_traffic: Traffic | None = None
        self.fence_stands = False
        self._monitor_until: float | None = None
        self._reprobe_at: float | None = None
        self._reprobe_pause = RETRY_PROBE
        self._replan_at: float | None = None
        self._resynchronised = False
        self._round_trips = RoundTrips()
        self._snapshot = StatusSnapshot()

    def handle(self, fact: Input, at: Instant) -> Step:
        """Take in one fact; the effects are to be carried out in their order."""
        effects = self._dispatch(fact, at)
        effects += self._settle(at)
        effects += self._ask_about_others(at)
        plan = self._replan()
        snapshot = picture.draw(self, self._snapshot.revision)
        changed = snapshot != self._snapshot
        if changed:
            self._snapshot = picture.next_revision(snapshot)
        return Step((*plan, *effects), changed)

    def next_deadline(self) -> float | None:
        """When, in boot seconds, `DeadlinePassed` is due; None when nothing is awaited."""
        return min((moment for moment in self._deadlines() if moment is not None), default=None)

    def snapshot(self) -> StatusSnapshot:
        """The picture after the last input."""
        return self._snapshot

    def _dispatch(self, fact: Input, at: Instant) -> list[Effect]:
        match fact:
            case LinksObserved(links):
                changed = self.attachments.observe(links)
                self.other_links.observe(self.attachments.others, at.boot)
                self.health.no_address(self.attachments.links_without_address, at.boot)
                return self._connectivity_changed(at) if changed else []
            case Resumed():
                return self._connectivity_changed(at) if self.attachments.renew() else []
            case ReconnectRequested():
                return self._connectivity_changed(at, rebuild=True) if self.attachments.renew() else []
            case DatagramReceived():
                return self._datagram_received(fact, at)
            case VpnReported():
                return self._vpn_reported(fact, at)
            case GatewayResolved(_, addresses, cause):
                return self._gateway_resolved(addresses, cause, at)
            case DeadlinePassed():
                return self._deadline_passed(at)
            case PlanApplied(number):
                self._plan_applied(number, at)
                return []
            case EffectFailed(code, cause):
                self._effect_failed(code, cause, at)
                return []
        assert_never(fact)

    # --- a change of connectivity -------------------------------------------------------------------------------------

    def _connectivity_changed(self, at: Instant, *, rebuild: bool = False) -> list[Effect]:
        """RFC 5266 section 3.4: proof is void, and both questions leave in this very step (R-33, R-64)."""
        self.registrar.drop_series()
        if self.registrar.binding and isinstance(self.registrar.binding.path, ClearPath):
            self.registrar.binding = None
        self.boundary = None
        self._monitor_until = self._reprobe_at = None
        self._reprobe_pause = RETRY_PROBE
        self._resynchronised = False
        self.roams.begin(at.boot)
        attachment = self.attachments.current
        if attachment is None:
            if self.secure_path:
                self.secure_path.detach()
            return []
        self.roams.on_link(attachment.link_name)
        known = self._round_trips.on(attachment.gateway)
        self.registrar.round_trip = known
        self.boundary = Boundary(attachment, at.boot, patience=PATIENCE * (known or 0.0))
        self.registrar.start_clear(self._clear_path(), at.boot)
        effects = self._transmit(at)
        if effects:
            self.roams.note("probe", at.boot)
        if self.secure_path:
            effects += self.secure_path.attach(attachment, at.boot, rebuild=rebuild)
        return effects

    def _clear_path(self) -> ClearPath:
        assert self.boundary is not None
        attachment = self.boundary.attachment
        return ClearPath(attachment.link_index, attachment.link_name, attachment.care_of_address)

    # --- what the home agent says -------------------------------------------------------------------------------------

    def _datagram_received(self, datagram: DatagramReceived, at: Instant) -> list[Effect]:
        series = self.registrar.series_for(datagram.path)
        if self.boundary is None:
            return []
        if series is None:
            self._another_link_answered(datagram, at)
            return []
        match series.judge(datagram, at):
            case Ignored(why, alarm):
                severity = Severity.ALARM if alarm else Severity.WARNING
                text = f"Not trusted: {why}, on {self.boundary.attachment.link_name} from {datagram.source}"
                self.health.note("reply-rejected", text, at.boot, severity=severity)
                return []
            case Resynchronise(request, identification):
                self.registrar.source.resynchronise(identification, request.sent)
                text = f"The home agent's clock differs from ours by {self.registrar.source.offset:.0f} s"
                self.health.note("clock-differs", text, at.boot, severity=Severity.INFO)
                if not self._resynchronised:
                    self._resynchronised = True
                    self._restart(series, at)
                return self._transmit(at)
            case Denied(code, sentence):
                return self._denied(series, f"{sentence} (code {code})", at)
            case Accepted() as answer:
                return self._accepted(series, answer, at)

    def _restart(self, series: RegistrationSeries, at: Instant) -> None:
        match series.path:
            case ClearPath() as path:
                self.registrar.start_clear(path, at.boot)
            case VpnPath() as path:
                self.registrar.start_tunnel(path, at.boot)

    def _denied(self, series: RegistrationSeries, text: str, at: Instant) -> list[Effect]:
        self.health.note("home-agent-refused", text, at.boot)
        self.registrar.binding = None
        if isinstance(series.path, ClearPath):
            assert self.boundary is not None
            self.boundary.refused(Reason.HOME_AGENT_REFUSED, f"Not trusted: {text}", at.boot)
            self._monitor_until = None
        else:
            self.registrar.tunnel = None
            self.registrar.retry_tunnel_at = at.boot + RETRY_TUNNEL
        return []

    def _accepted(self, series: RegistrationSeries, answer: Accepted, at: Instant) -> list[Effect]:
        newest = self.registrar.is_newest(answer)
        self.health.mended("home-agent-refused", "home-agent-silent", "registration-not-sent")
        match series.path:
            case VpnPath() if answer.udp_tunnel:
                return self._denied(series, "The home agent asks for a tunnel in UDP, which is not built", at)
            case VpnPath() as path:
                # TNC says nothing here: the request went through the VPN, whose addresses the agent trusts.
                self.registrar.accepted(path, answer)
                self.registrar.tunnel = None
                if self.registrar.binding is None:
                    # Granted for no time at all: asking again at once would be a storm.
                    self.registrar.retry_tunnel_at = at.boot + RETRY_TUNNEL
                self.roams.note("registered", at.boot)
                return []
            case ClearPath() as path:
                if answer.udp_tunnel:
                    # Inside nothing stands between: this is an alarm and no proof.
                    return self._not_vouched_for("the home agent sees a NAT on the way to it", answer, at)
                if not answer.trusted_networks_configured:
                    why = "the home agent answered without vouching for this network (no TNC extension)"
                    return self._not_vouched_for(why, answer, at)
                return self._proved(path, answer, newest=newest, at=at)

    def _not_vouched_for(self, why: str, answer: Accepted, at: Instant) -> list[Effect]:
        """R-78: the agent can be reached but does not vouch for this network; it now holds a binding into the open."""
        assert self.boundary is not None
        self.registrar.source.accepted(answer.request.identification)
        self.registrar.binding = None
        text = f"Not trusted: {why}"
        self.health.note("no-trusted-networks", text, at.boot, severity=Severity.ALARM)
        self.boundary.refused(Reason.NO_TRUSTED_NETWORKS, text, at.boot)
        self._monitor_until = self._reprobe_at = None
        return []

    def _proved(self, path: ClearPath, answer: Accepted, *, newest: bool, at: Instant) -> list[Effect]:
        assert self.boundary is not None
        timers = self.profile.timers
        if answer.round_trip > self._round_trips.oldest_proof(timers.proof_max_age):
            # Too old to prove where we are now; the answer to a fresh question will.
            self.registrar.start_clear(path, at.boot)
            return self._transmit(at)
        attachment = self.boundary.attachment
        first = self.boundary.verdict.trust is not Trust.TRUSTED
        self.boundary.proved(picture.proof_of(self.profile, attachment, answer, at))
        self._monitor_until = answer.request.sent.boot + timers.monitor
        self._reprobe_at = None
        self._round_trips.remember(attachment.gateway, answer.round_trip)
        if first:
            self.roams.note("verdict", at.boot)
        self.health.mended("no-trusted-networks", "clock-differs")
        if not newest:
            # A request through the VPN left later, so the binding may be there: ask again, and move data then.
            self.registrar.source.accepted(answer.request.identification)
            self.registrar.start_clear(path, at.boot)
            return self._transmit(at)
        self.registrar.accepted(path, answer)
        self.registrar.drop_series()
        self.roams.note("registered", at.boot)
        if self.secure_path is None:
            return []
        self.health.mended("gateway-unreachable", "gateway-unknown", "vpn-lost")
        if self.profile.keep_vpn_inside:
            self.secure_path.keep()
            return []
        return list(self.secure_path.close("the network is trusted"))

    # --- what the engine says -----------------------------------------------------------------------------------------

    def _vpn_reported(self, reported: VpnReported, at: Instant) -> list[Effect]:
        if self.secure_path is None:
            return []
        step = self.secure_path.report(reported.report, at.boot)
        self.health.vpn_reported(reported.report, self.secure_path.state, at.boot)
        self._note_failure(self.secure_path, at)
        if step.proved and self.boundary:
            self.roams.note("gateway", at.boot)
            self.boundary.gateway_proved(at.boot)
        return list(step.effects)

    def _gateway_resolved(self, addresses: tuple[IPv4Address, ...], cause: str, at: Instant) -> list[Effect]:
        if self.secure_path is None:
            return []
        effects = list(self.secure_path.resolved(addresses, cause, at.boot))
        self._note_failure(self.secure_path, at)
        return effects

    def _note_failure(self, secure_path: SecurePath, at: Instant) -> None:
        if secure_path.state is VpnState.WAITING:
            self.health.note(secure_path.code, f"VPN: {secure_path.cause}", at.boot)

    # --- links that do not carry the home address -------------------------------------------------------------------

    def _may_ask_about_others(self) -> bool:
        """Only when our own registrations rest: the home agent takes no Identification below one it has seen."""
        judged = self.boundary is not None and self.boundary.verdict.trust is not Trust.UNKNOWN
        return judged and self.registrar.next_deadline() is None

    def _ask_about_others(self, at: Instant) -> list[Effect]:
        if not self._may_ask_about_others():
            return []
        current, binding = self.attachments.current, self.registrar.binding
        taken = frozenset(
            ([current.care_of_address] if current else [])
            + ([binding.path.source] if binding else [])
            + ([self.secure_path.inner] if self.secure_path and self.secure_path.inner else [])
        )
        effects = self.other_links.transmit_due(at, self.registrar.source, taken)
        return [*effects, self.registrar.remember()] if effects else []

    def _another_link_answered(self, datagram: DatagramReceived, at: Instant) -> None:
        series = self.other_links.series_for(datagram.path)
        if series is None:
            return
        outcome = series.judge(datagram, at)
        oldest = self._round_trips.oldest_proof(self.profile.timers.proof_max_age)
        self.other_links.answered(series, outcome, self.registrar.source, oldest=oldest)
        if isinstance(outcome, Ignored) and outcome.alarm:
            text = f"Not trusted: {outcome.why}, from {datagram.source}"
            self.health.note("reply-rejected", text, at.boot, severity=Severity.ALARM)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _deadlines(self) -> tuple[float | None, ...]:
        binding = self.registrar.binding
        renew = self._renew_at()
        return (
            self.registrar.next_deadline(),
            self.registrar.retry_tunnel_at,
            renew,
            binding.expires if binding else None,
            self._monitor_until,
            self._reprobe_at,
            self._replan_at,
            self.boundary.deadline if self.boundary else None,
            self.secure_path.deadline if self.secure_path else None,
            self.other_links.next_deadline() if self._may_ask_about_others() else None,
        )

    def _renew_at(self) -> float | None:
        """When to renew: inside by T_MONITOR (R-66), outside by the lifetime (R-73). None while a series runs."""
        binding = self.registrar.binding
        if binding is None or self.boundary is None or self.registrar.series_for(binding.path) is not None:
            return None
        if not isinstance(binding.path, ClearPath):
            return binding.renew if self._traffic_flows() else None
        monitor = binding.since + self.profile.timers.monitor - self.profile.timers.monitor_grace
        return monitor if binding.renew is None else min(monitor, binding.renew)

    def _deadline_passed(self, at: Instant) -> list[Effect]:
        effects: list[Effect] = []
        if self._monitor_until is not None and at.boot >= self._monitor_until:
            # no proof for T_MONITOR seconds; close, and begin again as after a change of connectivity.
            return self._connectivity_changed(at) if self.attachments.renew() else []
        if self.boundary:
            self.boundary.deadline_passed(at.boot)
        binding = self.registrar.binding
        if binding and binding.expires is not None and at.boot >= binding.expires:
            self.registrar.binding = None
            if isinstance(binding.path, ClearPath) and self.attachments.renew():
                return self._connectivity_changed(at)
        retry = self.registrar.retry_tunnel_at
        if retry is not None and at.boot >= retry:
            self.registrar.retry_tunnel_at = self.registrar.tunnel = None
        renew = self._renew_at()
        if renew is not None and at.boot >= renew:
            self.registrar.renew(at.boot)
        if self._reprobe_at is not None and at.boot >= self._reprobe_at:
            self._reprobe_at = None
            self.registrar.start_clear(self._clear_path(), at.boot)
        if self._replan_at is not None and at.boot >= self._replan_at:
            self._replan_at = None
            self.plan = None
        if self.secure_path:
            effects += self.secure_path.deadline_passed(at.boot)
        return effects + self._transmit(at)

    def _transmit(self, at: Instant) -> list[Effect]:
        effects, exhausted = self.registrar.transmit_due(at)
        for series in exhausted:
            if isinstance(series.path, ClearPath):
                self._probe_exhausted(at)
            else:
                text = "The home agent does not answer through the VPN"
                self.health.note("home-agent-silent", text, at.boot)
                self.registrar.retry_tunnel_at = at.boot + RETRY_TUNNEL
        return effects

    def _probe_exhausted(self, at: Instant) -> None:
        assert self.boundary is not None
        if self.boundary.verdict.trust is Trust.TRUSTED:
            return  # T_MONITOR decides.
        if self.boundary.verdict.trust is Trust.UNKNOWN:
            text = "Not trusted: neither the home agent nor the VPN gateway answered on this network"
            self.boundary.refused(Reason.NOBODY_ANSWERED, text, at.boot)

    # --- after every input --------------------------------------------------------------------------------------------

    def _settle(self, at: Instant) -> list[Effect]:
        """Outside: see to the VPN, and to a binding of its inner address (RFC 5266 section 3.4.2 step 4)."""
        boundary, secure_path, registrar = self.boundary, self.secure_path, self.registrar
        if boundary is None or boundary.verdict.trust is not Trust.UNTRUSTED:
            return []
        self.roams.note("verdict", at.boot)
        effects = list(secure_path.require(at.boot)) if secure_path else []
        if secure_path is None or secure_path.state is not VpnState.UP or secure_path.inner is None:
            self._keep_asking(boundary, at)
            return effects
        self._reprobe_at = None
        path = VpnPath(secure_path.inner)
        if registrar.tunnel is not None and registrar.tunnel.path != path:
            registrar.tunnel = None
        bound = registrar.binding is not None and registrar.binding.path == path
        waiting = registrar.retry_tunnel_at is not None and at.boot < registrar.retry_tunnel_at
        running = registrar.tunnel is not None and not registrar.tunnel.exhausted
        if not bound and not running and not waiting:
            registrar.start_tunnel(path, at.boot)
        return effects + self._transmit(at)

    def _keep_asking(self, boundary: Boundary, at: Instant) -> None:
        """Outside without a VPN the question is repeated, more and more seldom; not where it was answered (R-77)."""
        answered = boundary.verdict.reason is Reason.NO_TRUSTED_NETWORKS
        if self._reprobe_at is None and not answered and not self.registrar.probing:
            self._reprobe_at = at.boot + self._reprobe_pause
            self._reprobe_pause = min(2 * self._reprobe_pause, RETRY_PROBE_MAX)

    def _replan(self) -> tuple[Effect, ...]:
        traffic = planner.wished_traffic(
            self.profile, self.boundary, self.registrar.binding, self.secure_path
        )
        plan = planner.make_plan(
            self.profile, self.attachments.access_links, traffic=traffic, secure_path=self.secure_path
        )
        if plan == self.plan:
            return ()
        self.plan = plan
        self.plan_number += 1
        if isinstance(traffic, Held):
            self.applied_traffic = None
        self._replan_at = None
        return (ApplyPlan(plan, self.plan_number),)

    def _plan_applied(self, number: int, at: Instant) -> None:
        self.plan_applied = max(self.plan_applied, number)
        self.fence_stands = True
        self.health.mended("plan-failed")
        if number != self.plan_number or self.plan is None:
            return
        self._replan_at = None
        self.applied_traffic = self.plan.traffic
        if isinstance(self.plan.traffic, Tunnelled):
            self.roams.finish(at.boot)

    def _effect_failed(self, code: str, cause: str, at: Instant) -> None:
        self.health.note(code, cause, at.boot)
        if code == "plan-failed":
            self.applied_traffic = None
        if code == "plan-failed" and self._replan_at is None:
            self._replan_at = at.boot + RETRY_PLAN

    def _traffic_flows(self) -> bool:
        return isinstance(self.applied_traffic, Tunnelled)
