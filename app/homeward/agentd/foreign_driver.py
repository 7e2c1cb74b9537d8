# SPDX-License-Identifier: GPL-2.0-or-later
"""The process around the foreign agent's decisions: links and home agents in, effects out in order, one timer."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final, assert_never

from homeward.adapters.agent_link import AgentLink, HeardPacket
from homeward.adapters.boottime_clock import BoottimeClock
from homeward.agentd.companion import Companion
from homeward.agentd.foreign_forwarding import VisitorForwarding
from homeward.agentd.foreign_settings import ForeignSettings
from homeward.agentd.foreign_uplink import HomeAgentPort, HomeDatagram, TooBigReported
from homeward.agentd.inside_links import InsideLinks
from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.agentd.noted import Noted
from homeward.agents.advertiser import (
    AdvertisedService,
    Advertiser,
    SendAdvertisement,
    SolicitationHeard,
    SolicitationIgnored,
)
from homeward.agents.foreign_agent import ForeignAgent
from homeward.agents.foreign_events import (
    Admit,
    Expel,
    ForeignEffect,
    ForeignInput,
    HomeAgentSpoke,
    MobileNodeSpoke,
    Rejected,
    RelayFailed,
    SendToHomeAgent,
    SendToMobileNode,
    TellLostVisitor,
    VisitorChanged,
)
from homeward.agents.foreign_keepalives import Keepalives
from homeward.agents.foreign_rules import AccessLink, ForeignPolicy
from homeward.agents.offered_challenges import OfferedChallenges
from homeward.agents.visitors import Visitor
from homeward.model.agent import AgentFlags
from homeward.model.errors import AdapterError, WireError
from homeward.model.inputs import DeadlinePassed
from homeward.model.names import REGISTRATION_PORT
from homeward.wire import agent_advertisement
from homeward.wire.datagram import UDP, read_udp_packet
from homeward.wire.ip_in_ip import open_outer
from homeward.wire.link_frames import ipv4, udp
from homeward.wire.udp_tunnel import TUNNEL_DATA_TYPE

log: Final = logging.getLogger("mip")
link_log: Final = logging.getLogger("links")

ENGINE: Final = "tun"
"""A foreign agent's packets go through its device, all of them."""

_SOONEST: Final = 0.001
_CARE_INTERVAL: Final = 10.0
"""Seconds between two looks at what others may have taken away; and lifetimes run on while the machine sleeps, though
asyncio's clock does not."""
_REPLY_TTL: Final = 255


class ForeignDriver:
    """One running foreign agent."""

    def __init__(self, settings: ForeignSettings) -> None:
        self._settings = settings
        self._clock = BoottimeClock()
        self._metrics = Metrics()
        self._note = Noted(log, self._metrics, self._boot)
        policy = settings.policy
        uplinks = InsideLinks(settings.uplinks, self._boot)
        self._port = HomeAgentPort(uplinks)
        self._port.on_datagram = self._from_home
        self._port.on_failure = self._failed
        self._port.on_stranger = self._stranger
        self._keepalives = Keepalives(_entropy, interval=settings.keepalive)
        self._forwarding = VisitorForwarding(
            settings, uplinks, keepalives=self._keepalives, metrics=self._metrics, boot=self._boot
        )
        challenges = OfferedChallenges(_entropy) if policy.challenge else None
        own = self._forwarding.own_addresses()
        self._agent = ForeignAgent(policy, own_addresses=own, challenges=challenges)
        self._links = {link.interface: AgentLink(link.interface, link.address) for link in policy.links}
        started = self._clock.now()
        self._advertisers = {
            link.interface: Advertiser(
                _service(policy, link, settings), entropy=_entropy, started=started, challenges=challenges
            )
            for link in policy.links
        }
        self._timer: asyncio.TimerHandle | None = None
        self._cared = started.boot
        self.control: Companion | None = None

    async def run(self, end: asyncio.Event) -> bool:
        """Serve until `end` is set; False when the device was taken away and the agent could not go on.

        Raises AdapterErrors and OSErrors when it cannot begin, with nothing left behind.
        """
        lost = False

        def device_lost() -> None:
            nonlocal lost
            lost = True
            end.set()

        self._forwarding.on_lost = device_lost
        try:
            # The port first: whoever has it already keeps its device.
            self._port.start()
            self._forwarding.start()
            for name, link in self._links.items():
                link.start(lambda heard, name=name: self._heard(name, heard))  # type: ignore[misc]
            self._tick()
            if self.control is not None:
                self.control.start()
            log.info(
                entry(
                    "ready",
                    role="foreign",
                    care_of=",".join(map(str, self._settings.policy.care_of_addresses)),
                    links=",".join(self._links),
                )
            )
            await end.wait()
        finally:
            self._stop()
        return not lost

    @property
    def settings(self) -> ForeignSettings:
        """Those in force."""
        return self._settings

    @property
    def agent(self) -> ForeignAgent:
        """The decisions, to be looked at only."""
        return self._agent

    @property
    def metrics(self) -> Metrics:
        """What was counted."""
        return self._metrics

    @property
    def clock(self) -> BoottimeClock:
        """Its clock."""
        return self._clock

    @property
    def engine(self) -> str:
        """What carries the packets."""
        return ENGINE

    def adopt(self, settings: ForeignSettings) -> None:
        """Go by these from now on; what they cannot change was refused before."""
        self._agent.adopt(settings.policy)
        self._settings = settings

    def dump(self) -> None:
        """Write all visitors and counters into the log, as JSON."""
        now = self._boot()
        told = {
            "visitors": [described(visitor, now) for visitor in self._agent.visitors()],
            "pending": self._agent.pending_count(),
            "busy": self._agent.is_busy,
            "counters": dict(sorted(self._metrics.counts.items())),
        }
        log.info("visitors %s", json.dumps(told))

    # --- what comes in ---

    def _heard(self, interface: str, heard: HeardPacket) -> None:
        if len(heard.packet) > 9 and heard.packet[9] == UDP:
            self._heard_datagram(interface, heard)
        else:
            self._heard_solicitation(interface, heard)

    def _heard_datagram(self, interface: str, heard: HeardPacket) -> None:
        try:
            datagram = read_udp_packet(heard.packet, checksummed=heard.checksummed)
        except WireError as error:
            self._note("damaged-request", cause=error)
            return
        if datagram.destination_port == REGISTRATION_PORT:
            self._handle(
                MobileNodeSpoke(
                    datagram.payload,
                    datagram.source,
                    source_port=datagram.source_port,
                    destination=datagram.destination,
                    ttl=datagram.ttl,
                    hardware_address=heard.hardware_address,
                    interface=interface,
                )
            )

    def _heard_solicitation(self, interface: str, heard: HeardPacket) -> None:
        try:
            octets = open_outer(heard.packet, agent_advertisement.PROTOCOL)
        except WireError as error:
            self._note("damaged-solicitation", cause=error)
            return
        source = IPv4Address(heard.packet[12:16])
        solicitation = SolicitationHeard(octets, source, heard.hardware_address)
        for answer in self._advertisers[interface].heard(solicitation, self._clock.now()):
            if isinstance(answer, SolicitationIgnored):
                self._metrics.counts["solicitations-ignored"] += 1
            else:
                self._advertise(interface, answer)
        self._arm()

    def _from_home(self, datagram: HomeDatagram) -> None:
        if datagram.octets[:1] == bytes([TUNNEL_DATA_TYPE]):
            self._forwarding.take_tunnel_data(datagram)
            return
        self._handle(
            HomeAgentSpoke(
                datagram.octets,
                datagram.source,
                source_port=datagram.source_port,
                destination=datagram.destination,
            )
        )

    def _failed(self, failure: RelayFailed | TooBigReported) -> None:
        if isinstance(failure, TooBigReported):
            self._forwarding.path_mtu_reported(failure)
        else:
            self._handle(failure)

    def _stranger(self, source: IPv4Address) -> None:
        self._note("datagram-from-other-interface", source=source)

    # --- what goes out ---

    def _handle(self, arrived: ForeignInput) -> None:
        at = self._clock.now()
        waiting = list(self._agent.handle(arrived, at))
        while waiting:
            failed = self._carry_out(waiting)
            waiting = [effect for each in failed for effect in self._agent.handle(each, at)]
        for advertiser in self._advertisers.values():
            advertiser.set_busy(self._agent.is_busy, at)
        self._arm()

    def _carry_out(self, effects: Iterable[ForeignEffect]) -> list[RelayFailed]:
        """Execute effects in order; returns the relays of which the kernel says at once that they are in vain."""
        failed: list[RelayFailed] = []
        for effect in effects:
            match effect:
                case SendToHomeAgent():
                    failure = self._relay(effect)
                    if failure is not None:
                        failed.append(failure)
                case SendToMobileNode():
                    self._reply(effect)
                case Admit(visitor):
                    self._try("visitor-not-carried", visitor, admit=True)
                case Expel(visitor):
                    self._try("visitor-not-removed", visitor, admit=False)
                case TellLostVisitor(visitor):
                    self._tell_lost(visitor)
                case VisitorChanged():
                    self._report(effect)
                case Rejected():
                    self._complain(effect)
                case _:
                    assert_never(effect)
        return failed

    def _relay(self, effect: SendToHomeAgent) -> RelayFailed | None:
        try:
            failure = self._port.send(effect)
        except AdapterError as error:
            self._note("relay-failed", cause=error)
            return None
        if failure is None:
            self._metrics.counts["relayed"] += 1
        return failure

    def _reply(self, effect: SendToMobileNode) -> None:
        packet = udp(
            (effect.source, REGISTRATION_PORT),
            (effect.destination, effect.port),
            effect.octets,
            ttl=_REPLY_TTL,
        )
        try:
            self._links[effect.interface].send(packet, effect.hardware_address)
        except AdapterError as error:
            self._note("reply-failed", cause=error)
        else:
            self._metrics.replied(effect.octets)

    def _try(self, code: str, visitor: Visitor, *, admit: bool) -> None:
        try:
            if admit:
                self._forwarding.admit(visitor)
            else:
                self._forwarding.expel(visitor)
        except AdapterError as error:
            self._note(code, home_address=visitor.home_address, cause=error)

    def _tell_lost(self, visitor: Visitor) -> None:
        advertiser = self._advertisers[visitor.interface]
        self._advertise(
            visitor.interface, advertiser.lost_visitor(visitor.home_address, visitor.hardware_address)
        )

    def _advertise(self, interface: str, what: SendAdvertisement) -> None:
        packet = ipv4(
            what.source,
            what.destination,
            agent_advertisement.PROTOCOL,
            what.octets,
            ttl=agent_advertisement.TTL,
        )
        try:
            if what.hardware_address is None:
                self._links[interface].send_to_group(packet, what.destination)
            else:
                self._links[interface].send(packet, what.hardware_address)
        except AdapterError as error:
            self._note("advertisement-failed", cause=error)
        else:
            self._metrics.counts["advertisements"] += 1

    def _report(self, effect: VisitorChanged) -> None:
        visitor = effect.visitor
        self._metrics.counts[f"visitor-{effect.change.value}"] += 1
        log.info(
            entry(
                f"visitor-{effect.change.value}",
                home_address=visitor.home_address,
                home_agent=visitor.home_agent,
                care_of_address=visitor.care_of_address,
                interface=visitor.interface,
                lifetime=visitor.lifetime,
                encapsulation=visitor.encapsulation.value,
                udp="yes" if visitor.udp else "no",
                visitors=len(self._agent.visitors()),
            )
        )

    def _complain(self, effect: Rejected) -> None:
        self._note(
            effect.finding.value,
            source=effect.source,
            station=None if effect.hardware_address is None else effect.hardware_address.hex(":"),
            home_address=effect.home_address,
            code=None if effect.code is None else int(effect.code),
            text=effect.text,
        )

    # --- time ---

    def _tick(self) -> None:
        self._timer = None
        at = self._clock.now()
        for name, advertiser in self._advertisers.items():
            for what in advertiser.due(at):
                self._advertise(name, what)
        for visitor in self._forwarding.keep_alive():
            self._note("tunnel-lost", home_address=visitor.home_address, home_agent=visitor.home_agent)
            self._tell_lost(visitor)
        if at.boot - self._cared >= _CARE_INTERVAL:
            self._cared = at.boot
            self._care()
        self._handle(DeadlinePassed())

    def _care(self) -> None:
        try:
            self._forwarding.restore()
            for link in self._links.values():
                link.refresh()
        except AdapterError as error:
            self._note("not-restored", cause=error)

    def _arm(self) -> None:
        moments = [each.next_deadline() for each in self._advertisers.values()]
        moments += [
            each
            for each in (self._agent.next_deadline(), self._keepalives.next_deadline())
            if each is not None
        ]
        moments.append(self._cared + _CARE_INTERVAL)
        if self._timer is not None:
            self._timer.cancel()
        wait = max(_SOONEST, min(moments) - self._boot())
        self._timer = asyncio.get_running_loop().call_later(wait, self._tick)

    def _stop(self) -> None:
        if self.control is not None:
            self.control.stop()
        if self._timer is not None:
            self._timer.cancel()
        for name, link in self._links.items():
            if link.is_open:
                self._advertise(name, self._advertisers[name].farewell())
            link.stop()
        self._port.stop()
        self._forwarding.stop()
        log.info(entry("stopped", visitors=len(self._agent.visitors())))

    def _boot(self) -> float:
        return self._clock.now().boot


def described(visitor: Visitor, now: float) -> dict[str, object]:
    """A visitor as commands and the log show it; `remaining` in seconds."""
    return {
        "home_address": str(visitor.home_address),
        "home_agent": str(visitor.home_agent),
        "care_of_address": str(visitor.care_of_address),
        "interface": visitor.interface,
        "hardware_address": visitor.hardware_address.hex(":"),
        "lifetime": visitor.lifetime,
        "remaining": visitor.remaining(now),
        "reverse_tunnel": visitor.reverse_tunnel,
        "encapsulating": visitor.encapsulating,
        "encapsulation": visitor.encapsulation.value,
        "udp": visitor.udp,
    }


def _service(policy: ForeignPolicy, link: AccessLink, settings: ForeignSettings) -> AdvertisedService:
    flags: AgentFlags = policy.flags
    return AdvertisedService(
        link.address,
        flags,
        registration_lifetime=policy.lifetime_max,
        care_of_addresses=policy.care_of_addresses,
        interval=settings.advertisement_interval,
        subnet_prefix=link.network.prefixlen if settings.advertise_prefixes else None,
    )


def _entropy() -> int:
    return secrets.randbits(32)
