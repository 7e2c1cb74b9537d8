# SPDX-License-Identifier: GPL-2.0-or-later
"""The mobile node's decisions: facts in, effects and a picture out (RFC 5266 section 3.4; requirements.md section K).

On each change of connectivity, in one step: traffic is held, MOBIKE is told to move the VPN (or a VPN is begun), and an
un-tunnelled Registration Request leaves for the home agent. A signed answer with TNC means inside; the gateway's answer
without one means outside. Everything else waits.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import assert_never

from homeward.core import answers, nearby, picture, planner, timing
from homeward.core.attachment import Attachments
from homeward.core.boundary import Boundary, Reason
from homeward.core.challenges import ForeignKeys
from homeward.core.clock_sync import Entropy
from homeward.core.health import Health
from homeward.core.keepalive import Keepalive
from homeward.core.other_links import OtherLinks
from homeward.core.registrar import Registrar, Wishes
from homeward.core.registration import Peer
from homeward.core.roam_log import RoamLog
from homeward.core.round_trips import RoundTrips
from homeward.core.secure_path import SecurePath
from homeward.core.vicinity import Vicinity
from homeward.model.access import AgentPath, Attachment, ClearPath, HomePath, Path, VpnPath
from homeward.model.effects import ApplyPlan, Effect
from homeward.model.inputs import (
    AgentAdvertised,
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
from homeward.model.plan import Held, NetworkPlan, Traffic
from homeward.model.profile import ASSIGNED, Profile
from homeward.model.registration import MobilitySecurityAssociation
from homeward.model.status import StatusSnapshot, Trust
from homeward.model.vpn import VpnState

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
    """The mobile node of one profile. `handle`, `next_deadline` and `snapshot` are the whole surface.

    What it knows lies open to the modules that it is made of: `answers` (what home agent and foreign agents say),
    `nearby` (home link and foreign agents), `timing` (deadlines), `planner` and `picture`.
    """

    def __init__(
        self,
        profile: Profile,
        association: MobilitySecurityAssociation,
        *,
        entropy: Entropy,
        restored: IdentificationState | None = None,
        foreign_keys: ForeignKeys | None = None,
    ) -> None:
        self.profile = profile
        agent = profile.home_agent
        peer = Peer(
            agent.address,
            agent.home_address,
            association,
            agent.nai,
            agent.replay,
            assigned=agent.home_address == ASSIGNED,
        )
        wishes = Wishes(agent.encapsulation, force_udp=profile.force_udp, lifetime=profile.timers.lifetime)
        self.attachments = Attachments(agent.home_address)
        self.registrar = Registrar(peer, profile.timers, entropy, restored=restored, wishes=wishes)
        self.vicinity = Vicinity(profile, entropy, keys=foreign_keys or ForeignKeys())
        self.other_links = OtherLinks(peer, profile.timers)
        self.secure_path = SecurePath(profile.gateway, profile.timers) if profile.gateway else None
        self.boundary: Boundary | None = None
        self.keepalive: Keepalive | None = None
        self.health = Health()
        self.roams = RoamLog()
        self.round_trips = RoundTrips()
        self.entropy = entropy
        self.message = ""
        """What the home agent's last answer says to people (RFC 4917)."""
        self.plan: NetworkPlan | None = None
        self.plan_number = 0
        self.plan_applied = 0
        self.applied_traffic: Traffic | None = None
        self.fence_stands = False
        self.resynchronised = False
        self.monitor_until: float | None = None
        self.reprobe_at: float | None = None
        self.replan_at: float | None = None
        self._reprobe_pause = RETRY_PROBE
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
        return timing.next_deadline(self)

    def snapshot(self) -> StatusSnapshot:
        """The picture after the last input."""
        return self._snapshot

    def _dispatch(self, fact: Input, at: Instant) -> list[Effect]:
        match fact:
            case LinksObserved(links):
                changed = self.attachments.observe(links)
                others = (other for other in self.attachments.others if self._may_be_asked(other))
                self.other_links.observe(tuple(others), at.boot)
                self.health.no_address(self.attachments.links_without_address, at.boot)
                effects = self.connectivity_changed(at) if changed else []
                self.vicinity.look_around(self.attachments.waiting, at.boot)
                return effects
            case Resumed():
                return self.connectivity_changed(at) if self.attachments.renew() else []
            case ReconnectRequested():
                return self.connectivity_changed(at, rebuild=True) if self.attachments.renew() else []
            case DatagramReceived():
                return answers.received(self, fact, at)
            case AgentAdvertised():
                return nearby.advertised(self, fact, at)
            case VpnReported():
                return self._vpn_reported(fact, at)
            case GatewayResolved(_, addresses, cause):
                return self._gateway_resolved(addresses, cause, at)
            case DeadlinePassed():
                return timing.deadline_passed(self, at)
            case PlanApplied(number):
                self._plan_applied(number, at)
                return []
            case EffectFailed(code, cause):
                self._effect_failed(code, cause, at)
                return []
        assert_never(fact)

    # --- a change of connectivity -------------------------------------------------------------------------------------

    def connectivity_changed(self, at: Instant, *, rebuild: bool = False) -> list[Effect]:
        """RFC 5266 section 3.4: proof is void, and both questions leave in this very step (R-33, R-64)."""
        effects = list(self.vicinity.leave())
        self.registrar.drop_series()
        if self.registrar.binding and not isinstance(self.registrar.binding.path, VpnPath):
            self.registrar.binding = self.keepalive = None
        self.boundary = None
        self.monitor_until = self.reprobe_at = None
        self._reprobe_pause = RETRY_PROBE
        self.resynchronised = False
        self.roams.begin(at.boot)
        attachment = self.attachments.current
        if attachment is None:
            self.vicinity.discovery.detach()
            if self.secure_path:
                self.secure_path.detach()
            return effects
        self.roams.on_link(attachment.link_name)
        known = self.round_trips.on(attachment.gateway)
        self.registrar.round_trip = known
        self.boundary = Boundary(attachment, at.boot, patience=PATIENCE * (known or 0.0))
        if not self._may_be_asked(attachment):
            self.vicinity.discovery.detach()
            text = "Not trusted: the profile says never to ask the home agent in clear on this network"
            self.boundary.refused(Reason.NOT_ASKED, text, at.boot)
        else:
            self.vicinity.attach(attachment, self.attachments.carrier_changes, at.boot)
            self.registrar.start_clear(self.clear_path(), at.boot)
            asked = self.transmit(at)
            if asked:
                self.roams.note("probe", at.boot)
            effects += asked
        if self.secure_path:
            effects += self.secure_path.attach(attachment, at.boot, rebuild=rebuild)
        return effects

    def _may_be_asked(self, attachment: Attachment) -> bool:
        """Whether the profile lets the home agent be asked in clear there (R-51)."""
        return not any(attachment.care_of_address in network for network in self.profile.ask_not_on)

    def clear_path(self) -> ClearPath:
        """The path in clear from the attachment in use."""
        assert self.boundary is not None
        attachment = self.boundary.attachment
        return ClearPath(attachment.link_index, attachment.link_name, attachment.care_of_address)

    def start_again(self, path: Path, at: Instant) -> None:
        """A new series along a path."""
        match path:
            case ClearPath():
                self.registrar.repeat_clear(path, at.boot)
            case VpnPath():
                self.registrar.start_tunnel(path, at.boot)
            case AgentPath() | HomePath():
                nearby.start(self, path, at)
            case _:
                assert_never(path)

    def adopt(self, home_address: IPv4Address) -> None:
        """The home agent has assigned this home address (R-274)."""
        self.attachments.home_address = home_address
        self.other_links.peer = self.registrar.peer

    def transmit(self, at: Instant) -> list[Effect]:
        """Whatever request is due now."""
        return timing.transmit(self, at)

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

    def may_ask_about_others(self) -> bool:
        """Only when our own registrations rest: the home agent takes no Identification below one it has seen."""
        judged = self.boundary is not None and self.boundary.verdict.trust is not Trust.UNKNOWN
        return judged and self.registrar.next_deadline() is None and self.registrar.home_address is not None

    def _ask_about_others(self, at: Instant) -> list[Effect]:
        if not self.may_ask_about_others():
            return []
        current, binding = self.attachments.current, self.registrar.binding
        taken = frozenset(
            ([current.care_of_address] if current else [])
            + ([binding.path.care_of_address] if binding else [])
            + ([self.secure_path.inner] if self.secure_path and self.secure_path.inner else [])
        )
        effects = self.other_links.transmit_due(at, self.registrar.source, taken)
        return [*effects, self.registrar.remember()] if effects else []

    # --- after every input --------------------------------------------------------------------------------------------

    def _settle(self, at: Instant) -> list[Effect]:
        """What a verdict asks for: outside the VPN and a binding of its inner address, inside the best way there is."""
        boundary = self.boundary
        if boundary is None:
            return []
        match boundary.verdict.trust:
            case Trust.UNKNOWN:
                return []
            case Trust.TRUSTED:
                return nearby.settle(self, at)
            case Trust.UNTRUSTED:
                return [*self.vicinity.leave(), *self._settle_outside(boundary, at)]

    def _settle_outside(self, boundary: Boundary, at: Instant) -> list[Effect]:
        """RFC 5266 section 3.4.2 step 4."""
        secure_path, registrar = self.secure_path, self.registrar
        registrar.local = None
        self.roams.note("verdict", at.boot)
        effects = list(secure_path.require(at.boot)) if secure_path else []
        if secure_path is None or secure_path.state is not VpnState.UP or secure_path.inner is None:
            self._keep_asking(boundary, at)
            return effects
        self.reprobe_at = None
        path = VpnPath(secure_path.inner)
        if registrar.tunnel is not None and registrar.tunnel.path != path:
            registrar.tunnel = None
        bound = registrar.binding is not None and registrar.binding.path == path
        waiting = registrar.retry_tunnel_at is not None and at.boot < registrar.retry_tunnel_at
        running = registrar.tunnel is not None and not registrar.tunnel.exhausted
        if not bound and not running and not waiting:
            registrar.start_tunnel(path, at.boot)
        return effects + self.transmit(at)

    def _keep_asking(self, boundary: Boundary, at: Instant) -> None:
        """Outside without a VPN the question is repeated, more and more seldom; not where it was answered (R-77)."""
        answered = boundary.verdict.reason in (Reason.NO_TRUSTED_NETWORKS, Reason.NOT_ASKED)
        if self.reprobe_at is None and not answered and not self.registrar.probing:
            self.reprobe_at = at.boot + self._reprobe_pause
            self._reprobe_pause = min(2 * self._reprobe_pause, RETRY_PROBE_MAX)

    def _replan(self) -> tuple[Effect, ...]:
        traffic = planner.wished_traffic(self)
        plan = planner.make_plan(self, traffic)
        if plan == self.plan:
            return ()
        self.plan = plan
        self.plan_number += 1
        if isinstance(traffic, Held):
            self.applied_traffic = None
        self.replan_at = None
        return (ApplyPlan(plan, self.plan_number),)

    def _plan_applied(self, number: int, at: Instant) -> None:
        self.plan_applied = max(self.plan_applied, number)
        self.fence_stands = True
        self.health.mended("plan-failed")
        if number != self.plan_number or self.plan is None:
            return
        self.replan_at = None
        self.applied_traffic = self.plan.traffic
        if self.traffic_flows:
            self.roams.finish(at.boot)

    def _effect_failed(self, code: str, cause: str, at: Instant) -> None:
        self.health.note(code, cause, at.boot)
        if code == "plan-failed":
            self.applied_traffic = None
        if code == "plan-failed" and self.replan_at is None:
            self.replan_at = at.boot + RETRY_PLAN

    @property
    def traffic_flows(self) -> bool:
        """Whether packets of the home address pass at this moment, as far as the kernel has confirmed."""
        return self.applied_traffic is not None and not isinstance(self.applied_traffic, Held)
