# SPDX-License-Identifier: GPL-2.0-or-later
"""What is due when: renewals, retransmissions, the end of a proof, and everything else that only time brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeward.core.boundary import Reason
from homeward.core.keepalive import Keepalive
from homeward.core.nearby import back_to_co_located
from homeward.core.vicinity import PAUSE_SILENT
from homeward.model.access import AgentPath, ClearPath, HomePath, VpnPath
from homeward.model.effects import Effect, SendRegistration
from homeward.model.health import Severity
from homeward.model.instant import Instant
from homeward.model.nat_traversal import TunnelKind
from homeward.model.plan import Tunnelled
from homeward.model.status import Trust
from homeward.wire.ip_in_ip import TUNNEL_TTL

if TYPE_CHECKING:
    from homeward.core.coordinator import Coordinator
    from homeward.core.registration import RegistrationSeries

RETRY_TUNNEL = 30.0
"""Seconds between series through the VPN while the home agent stays silent or refuses."""

RETRY_CLOCK = 5.0
"""Seconds between series to which the home agent answers that it does not accept our time stamp: it is there, and one
that has just begun again after a loss of power refuses everybody for some seconds."""


def next_deadline(core: Coordinator) -> float | None:
    """The nearest moment at which `deadline_passed` has something to do."""
    return min((moment for moment in _deadlines(core) if moment is not None), default=None)


def _deadlines(core: Coordinator) -> tuple[float | None, ...]:
    binding = core.registrar.binding
    return (
        core.registrar.next_deadline(),
        core.registrar.retry_tunnel_at,
        _renew_at(core),
        binding.expires if binding else None,
        core.monitor_until,
        core.reprobe_at,
        core.replan_at,
        core.boundary.deadline if core.boundary else None,
        core.secure_path.deadline if core.secure_path else None,
        core.vicinity.next_deadline(),
        core.keepalive.deadline if core.keepalive and _tunnel_flows(core) else None,
        core.other_links.next_deadline() if core.may_ask_about_others() else None,
    )


def _renew_at(core: Coordinator) -> float | None:
    """When to renew: inside by T_MONITOR (R-66), outside by the lifetime (R-73). None while a series runs."""
    binding = core.registrar.binding
    if binding is None or core.boundary is None or core.registrar.series_for(binding.path) is not None:
        return None
    if isinstance(binding.path, VpnPath):
        return binding.renew if core.traffic_flows else None
    if not isinstance(binding.path, ClearPath) and binding.path != core.vicinity.path:
        return None  # It is being left for a care-of address of our own.
    timers = core.profile.timers
    monitor = binding.since + timers.monitor - timers.monitor_grace
    return monitor if binding.renew is None else min(monitor, binding.renew)


def deadline_passed(core: Coordinator, at: Instant) -> list[Effect]:
    """Do what is due."""
    effects: list[Effect] = []
    if core.monitor_until is not None and at.boot >= core.monitor_until:
        # no proof for T_MONITOR seconds; close, and begin again as after a change of connectivity.
        return core.connectivity_changed(at) if core.attachments.renew() else []
    if core.boundary:
        core.boundary.deadline_passed(at.boot)
    binding = core.registrar.binding
    if binding and binding.expires is not None and at.boot >= binding.expires:
        core.registrar.binding = core.keepalive = None
        if not isinstance(binding.path, VpnPath) and core.attachments.renew():
            return core.connectivity_changed(at)
    retry = core.registrar.retry_tunnel_at
    if retry is not None and at.boot >= retry:
        core.registrar.retry_tunnel_at = core.registrar.tunnel = None
    _renew(core, at)
    if core.reprobe_at is not None and at.boot >= core.reprobe_at:
        core.reprobe_at = None
        core.registrar.repeat_clear(core.clear_path(), at.boot)
    if core.replan_at is not None and at.boot >= core.replan_at:
        core.replan_at = None
        core.plan = None
    if core.secure_path:
        effects += core.secure_path.deadline_passed(at.boot)
    effects += core.vicinity.deadline_passed(at.boot)
    effects += _keep_alive(core, at)
    return effects + transmit(core, at)


def _renew(core: Coordinator, at: Instant) -> None:
    due, binding = _renew_at(core), core.registrar.binding
    if due is not None and binding is not None and at.boot >= due:
        core.start_again(binding.path, at)


def _tunnel_flows(core: Coordinator) -> bool:
    """Whether packets go through the tunnel in UDP of the present binding, as far as the kernel has confirmed."""
    binding, traffic = core.registrar.binding, core.applied_traffic
    return binding is not None and isinstance(traffic, Tunnelled) and traffic.udp


def begin_keepalive(core: Coordinator, at: Instant) -> list[Effect]:
    """After a registration: see to the keepalives of its tunnel in UDP, or that there are none (R-236)."""
    binding, home_address = core.registrar.binding, core.registrar.home_address
    if binding is None or binding.udp_tunnel is None or home_address is None:
        core.keepalive = None
        return []
    if core.keepalive is None:
        agent, configured = core.profile.home_agent.address, core.profile.timers.keepalive
        core.keepalive = Keepalive(home_address, agent, core.entropy, configured=configured)
    kind = TunnelKind(binding.encapsulation.protocol)
    at_once = isinstance(binding.path, AgentPath)
    core.keepalive.registered(binding.udp_tunnel.keepalive, binding.since, kind=kind, at_once=at_once)
    core.health.mended("tunnel-silent")
    return _keep_alive(core, at)


def _keep_alive(core: Coordinator, at: Instant) -> list[Effect]:
    """R-236; and R-238: a translator that has forgotten us is told anew where we are by a registration."""
    keepalive, binding = core.keepalive, core.registrar.binding
    if keepalive is None or binding is None or not _tunnel_flows(core):
        return []
    octets = keepalive.due(at.boot)
    if keepalive.is_dead and core.registrar.series_for(binding.path) is None:
        text = (
            "The tunnel in UDP is silent: its address translator has forgotten it, and it is registered anew"
        )
        core.health.note("tunnel-silent", text, at.boot, severity=Severity.INFO)
        core.start_again(binding.path, at)
    if octets is None:
        return []
    path = binding.path
    if isinstance(path, AgentPath):
        # The agent relays registrations only: the tunnel runs straight from our own care-of address.
        path = ClearPath(path.link_index, path.link_name, path.source)
    return [SendRegistration(path, core.profile.home_agent.address, octets, TUNNEL_TTL)]


def transmit(core: Coordinator, at: Instant) -> list[Effect]:
    """Requests that are due now, and what follows from those that nobody answered."""
    effects, exhausted = core.registrar.transmit_due(at)
    for series in exhausted:
        match series.path:
            case ClearPath():
                _probe_exhausted(core, series, at)
            case VpnPath() if series.clock_refused:
                core.registrar.retry_tunnel_at = at.boot + RETRY_CLOCK
            case VpnPath():
                text = "The home agent does not answer through the VPN"
                core.health.note("home-agent-silent", text, at.boot)
                core.registrar.retry_tunnel_at = at.boot + RETRY_TUNNEL
            case AgentPath() | HomePath():
                effects += back_to_co_located(core, at, pause=PAUSE_SILENT)
    return effects


def _probe_exhausted(core: Coordinator, series: RegistrationSeries, at: Instant) -> None:
    assert core.boundary is not None
    if core.boundary.verdict.trust is Trust.TRUSTED:
        return  # T_MONITOR decides.
    who = "neither the home agent nor the VPN gateway answered on this network"
    if series.clock_refused:
        core.registrar.repeat_clear(core.clear_path(), at.boot + RETRY_CLOCK)
        who = "the home agent does not accept our time stamps yet, and the VPN gateway did not answer"
    if core.boundary.verdict.trust is Trust.UNKNOWN:
        core.boundary.refused(Reason.NOBODY_ANSWERED, f"Not trusted: {who}", at.boot)
