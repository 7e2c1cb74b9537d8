# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries out what the home agent decided: forwarding, the home link, datagrams, the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from typing import Final, assert_never

from homeward.agentd.forwarding import Forwarding
from homeward.agentd.home_link import HomeLink
from homeward.agentd.listener import RequestListener
from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics
from homeward.agentd.noted import Noted
from homeward.agents.agent_events import (
    AgentEffect,
    BindingChanged,
    Change,
    Forward,
    PlainGrant,
    ProxyHomeAddress,
    Refused,
    ReleaseHomeAddress,
    Remember,
    RequestArrived,
    RevocationEnded,
    SendReply,
    SendRevocation,
    StopForwarding,
)
from homeward.agents.bindings import Binding
from homeward.agents.grants import binding_of, forward_of
from homeward.agents.tunnel_records import Record
from homeward.model.errors import AdapterError

log: Final = logging.getLogger("mip")
link_log: Final = logging.getLogger("links")

_CHANGES: Final = {change: f"binding-{change.value}" for change in Change}
_LINES: Final = 50
"""So many changes of bindings are logged in a second; at more, the next line says how many were not."""


class Doer:
    """`binding_count` is for the log. What the kernel refuses to forward is tried again by `retry`."""

    def __init__(
        self,
        listener: RequestListener,
        forwarding: Forwarding,
        *,
        metrics: Metrics,
        boot: Callable[[], float],
        binding_count: Callable[[], int],
    ) -> None:
        self.home_link: HomeLink | None = None
        """None as long as it does not run."""
        self._listener = listener
        self._forwarding = forwarding
        self._metrics = metrics
        self._note = Noted(log, metrics, boot)
        self._note_link = Noted(link_log, metrics, boot)
        self._boot = boot
        self._binding_count = binding_count
        self._unapplied: dict[IPv4Address, Forward | StopForwarding] = {}
        self._lines_left, self._lines_since, self._unlogged = _LINES, 0.0, 0

    @property
    def has_failed(self) -> bool:
        """Whether the kernel refused something that is to be tried again."""
        return bool(self._unapplied)

    def retry(self) -> None:
        """Try again what the kernel refused."""
        for change in list(self._unapplied.values()):
            self._apply(change)

    def carry_out(self, effects: Iterable[AgentEffect]) -> None:
        """In their order, but what leaves by UDP last: when it arrives, packets have their way already."""
        now = self._boot()
        if now - self._lines_since >= 1.0:
            self._lines_left, self._lines_since = _LINES, now
        answers: list[tuple[RequestArrived, bytes]] = []
        datagrams: list[SendReply | SendRevocation] = []
        tunnels: list[tuple[int, Record]] = []
        for effect in effects:
            if isinstance(effect, PlainGrant):
                self._lead(effect, tunnels)
                answers.append((effect.arrived, effect.reply))
                continue
            self._lead_all(tunnels)
            match effect:
                case SendReply() | SendRevocation():
                    datagrams.append(effect)
                case Forward() | StopForwarding():
                    self._apply(effect)
                case BindingChanged():
                    self._report(effect)
                case Refused():
                    self._complain(effect)
                case ProxyHomeAddress() | ReleaseHomeAddress():
                    self._tell_home_link(effect)
                case RevocationEnded():
                    self._report_end(effect)
                case Remember():
                    raise AssertionError("it is remembered before anything is carried out")
                case _:
                    assert_never(effect)
        self._lead_all(tunnels)
        self._answer(answers)
        for datagram in datagrams:
            self._send(datagram)

    def _lead(self, grant: PlainGrant, tunnels: list[tuple[int, Record]]) -> None:
        """Add its tunnel to those that are still to be led, and report it."""
        if self._unapplied or not self._forwarding.is_routed(grant.home_address):
            self._lead_all(tunnels)
            self._apply(forward_of(grant))
        else:
            tunnels.append((grant.home_address, Record(grant.tunnel)))
        self._metrics.counts[_CHANGES[grant.change]] += 1
        if self._lines_left:
            self._log(grant.change, binding_of(grant))
        else:
            self._unlogged += 1

    def _lead_all(self, tunnels: list[tuple[int, Record]]) -> None:
        if tunnels:
            self._forwarding.lead(tunnels)
            tunnels.clear()

    def _answer(self, answers: list[tuple[RequestArrived, bytes]]) -> None:
        failures = self._listener.answer(answers)
        for (_, octets), failure in zip(answers, failures, strict=True):
            if failure is None:
                self._metrics.replied(octets)
            else:
                self._note_link("reply-failed", cause=failure)

    def _send(self, effect: SendReply | SendRevocation) -> None:
        is_reply = isinstance(effect, SendReply)
        try:
            self._listener.send(effect)
        except AdapterError as error:
            self._note_link("reply-failed" if is_reply else "revocation-failed", cause=error)
            return
        if is_reply:
            self._metrics.replied(effect.octets)
        else:
            self._metrics.counts["revocations"] += 1

    def _tell_home_link(self, effect: ProxyHomeAddress | ReleaseHomeAddress) -> None:
        if self.home_link is None:
            return
        if isinstance(effect, ProxyHomeAddress):
            self.home_link.proxy(effect.home_address)
        else:
            self.home_link.release(effect.home_address, effect.asked)

    def _apply(self, change: Forward | StopForwarding) -> None:
        if self._unapplied:
            self._unapplied.pop(change.home_address, None)
        try:
            self._forwarding.apply(change)
        except AdapterError as error:
            self._unapplied[change.home_address] = change
            at = change.home_address
            self._note_link("forwarding-failed", level=logging.ERROR, home_address=at, cause=error)

    def _report(self, effect: BindingChanged) -> None:
        self._metrics.counts[_CHANGES[effect.change]] += 1
        if not self._lines_left:
            self._unlogged += 1
        else:
            self._log(effect.change, effect.binding)

    def _log(self, change: Change, binding: Binding) -> None:
        self._lines_left -= 1
        unlogged, self._unlogged = self._unlogged, 0
        log.info(
            entry(
                _CHANGES[change],
                node=binding.node,
                home_address=binding.home_address,
                care_of_address=binding.care_of_address,
                lifetime=binding.lifetime,
                reverse_tunnel="yes" if binding.reverse_tunnel else "no",
                encapsulation=binding.way.encapsulation.value,
                udp=udp_end(binding),
                bindings=self._binding_count(),
                unlogged=unlogged or None,
            )
        )

    def _report_end(self, effect: RevocationEnded) -> None:
        code = "revocation-acknowledged" if effect.acknowledged else "revocation-unanswered"
        self._metrics.counts[code] += 1
        log.info(entry(code, home_address=effect.home_address, peer=effect.peer))

    def _complain(self, effect: Refused) -> None:
        self._note(
            effect.finding.value,
            source=effect.source,
            home_address=effect.home_address,
            code=None if effect.code is None else int(effect.code),
            text=effect.text,
        )


def udp_end(binding: Binding) -> str | None:
    """The other end of a tunnel in UDP, None for other tunnels."""
    way = binding.way
    if not way.udp:
        return None
    return f"{way.endpoint}:{'half-bound' if way.port is None else way.port}"
