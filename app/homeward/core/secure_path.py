# SPDX-License-Identifier: GPL-2.0-or-later
"""The VPN as the IKE engine reports it, and what to ask of the engine next.

IKEv2, MOBIKE and ESP belong to the engine; this machine only knows what it said, on which attachment the gateway has
proved itself (X-21), and when to try again.
"""

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from homeward.model.access import Attachment
from homeward.model.effects import CheckVpn, Effect, MoveVpn, ResolveGateway, StartVpn, StopVpn
from homeward.model.profile import GatewaySettings, Timers
from homeward.model.vpn import (
    EngineFound,
    EngineLost,
    VpnAnswered,
    VpnEstablished,
    VpnFailed,
    VpnLost,
    VpnMoved,
    VpnReport,
    VpnState,
)

CONNECT_LIMIT = 60.0
"""Seconds for a name query and an attempt together; whoever says nothing for so long has lost the order."""


@dataclass(frozen=True, slots=True)
class SecurePathStep:
    """What a report led to. `proved`: the gateway has just proved itself on the present attachment."""

    effects: tuple[Effect, ...] = ()
    proved: bool = False


class SecurePath:
    """One VPN to one gateway."""

    def __init__(self, settings: GatewaySettings, timers: Timers) -> None:
        self.settings = settings
        self._timers = timers
        self.state = VpnState.DOWN
        self.inner: IPv4Address | None = None
        self.mobike: bool | None = None
        self.cause = ""
        self.code = ""
        self.addresses = _literal(settings.host)
        self._local: IPv4Address | None = None
        self._attachment: Attachment | None = None
        self._wanted = False
        self._closed = False
        self._engine = True
        self._failures = 0
        self.deadline: float | None = None
        """When, in boot seconds, to try again or to stop waiting for an answer."""

    @property
    def gateway(self) -> IPv4Address | None:
        """The gateway's address in use, None while its name is unresolved."""
        return self.addresses[0] if self.addresses else None

    def attach(self, attachment: Attachment, at: float, *, rebuild: bool = False) -> tuple[Effect, ...]:
        """Connectivity changed: move the VPN, or start one straight away (RFC 5266 section 3.4.2 step 1)."""
        self._attachment = attachment
        self._wanted, self._closed = True, False
        self._failures = 0
        effects: list[Effect] = []
        if rebuild and self.state is not VpnState.DOWN:
            effects.append(StopVpn("the user asked for a new start"))
            self._forget()
        if self.state in (VpnState.UP, VpnState.MOVING):
            unchanged = attachment.care_of_address == self._local
            self.state = VpnState.MOVING
            self.deadline = at + self._timers.vpn_answer
            # With an unchanged address the engine sees nothing to move and would say nothing.
            return (*effects, CheckVpn() if unchanged else MoveVpn(attachment.care_of_address))
        if self.state is VpnState.CONNECTING:
            effects.append(StopVpn("the access address changed before the VPN was up"))
        return (*effects, *self._begin(at))

    def detach(self) -> None:
        """No usable link: wait for one. The SAs stay, so that MOBIKE can move them."""
        self._attachment = None
        self.deadline = None
        if self.state in (VpnState.CONNECTING, VpnState.WAITING):
            self.state = VpnState.DOWN

    def close(self, why: str) -> tuple[Effect, ...]:
        """The VPN is not needed here: delete the SAs and any attempt."""
        self._wanted, self._closed = False, True
        self.deadline = None
        if self.state in (VpnState.DOWN, VpnState.NO_ENGINE):
            return ()
        self._forget()
        return (StopVpn(why),)

    def keep(self) -> None:
        """The VPN is not needed here but may stay up as it is; no further tries."""
        self._wanted = False
        self.deadline = None

    def require(self, at: float) -> tuple[Effect, ...]:
        """The VPN is needed on the present attachment; starts one unless it is there or on its way."""
        self._wanted, self._closed = True, False
        if self.state is VpnState.DOWN and self.deadline is None:
            return self._begin(at)
        return ()

    def resolved(self, addresses: tuple[IPv4Address, ...], cause: str, at: float) -> tuple[Effect, ...]:
        """The gateway's name was looked up. An answer that nobody waits for any more, from a link before, is none."""
        if self.state is not VpnState.CONNECTING or self.gateway is not None:
            return ()
        if not addresses:
            return self._fail("gateway-unknown", cause, at)
        self.addresses = addresses
        if self._wanted:
            return self._begin(at)
        self._forget()
        return ()

    def report(self, report: VpnReport, at: float) -> SecurePathStep:
        """Take in what the engine says."""
        match report:
            case VpnEstablished():
                return self._established(report)
            case VpnMoved(local, _) | VpnAnswered(local):
                return self._answered(local)
            case VpnLost(cause):
                if self.state in (VpnState.DOWN, VpnState.NO_ENGINE):
                    return SecurePathStep()
                return SecurePathStep(self._fail("vpn-lost", cause, at))
            case VpnFailed(code, cause):
                if not self._wanted or not self._engine:
                    self._forget()
                    return SecurePathStep()
                return SecurePathStep(self._fail(code, cause, at))
            case EngineLost(cause):
                self._engine = False
                self._forget()
                self.state, self.code, self.cause = VpnState.NO_ENGINE, "engine-missing", cause
                self.deadline = None
                return SecurePathStep()
            case EngineFound():
                return SecurePathStep(self._engine_found(at))

    def deadline_passed(self, at: float) -> tuple[Effect, ...]:
        """Try again, or give the silent gateway up and start afresh."""
        if self.deadline is None or at < self.deadline:
            return ()
        self.deadline = None
        if not self._wanted:
            return ()
        if self.state is VpnState.MOVING:
            self._forget()
            return (StopVpn("the gateway did not answer from the new address"), *self._begin(at))
        if self.state is VpnState.CONNECTING:
            cause = f"the IKE service said nothing for {CONNECT_LIMIT:.0f} s"
            return (StopVpn(cause), *self._fail("engine-failed", cause, at))
        return self._begin(at)

    def _begin(self, at: float) -> tuple[Effect, ...]:
        if self._attachment is None:
            return ()
        if not self._engine:
            self.state = VpnState.NO_ENGINE
            return ()
        self.state = VpnState.CONNECTING
        self.deadline = at + CONNECT_LIMIT
        if self.gateway is None:
            return (ResolveGateway(self.settings.host, self._attachment.link_index),)
        return (StartVpn(self.gateway, self._attachment.care_of_address),)

    def _established(self, report: VpnEstablished) -> SecurePathStep:
        if self._closed:
            # The answer overtook our order to stop.
            self._forget()
            return SecurePathStep((StopVpn("the VPN is not needed here"),))
        self.state = VpnState.UP
        self.inner, self.mobike, self._local = report.inner, report.mobike, report.local
        if report.remote not in self.addresses:
            # It stood before we did: the fence must let the gateway through, whose name nobody has looked up yet.
            self.addresses = (report.remote, *self.addresses)
        self.cause = self.code = ""
        self._failures = 0
        self.deadline = None
        return SecurePathStep(proved=self._is_here(report.local))

    def _answered(self, local: IPv4Address) -> SecurePathStep:
        if self.inner is None or self.state not in (VpnState.UP, VpnState.MOVING):
            return SecurePathStep()
        self._local = local
        if not self._is_here(local):
            return SecurePathStep()
        self.state = VpnState.UP
        self.deadline = None
        return SecurePathStep(proved=True)

    def _is_here(self, local: IPv4Address) -> bool:
        return self._attachment is not None and local == self._attachment.care_of_address

    def _fail(self, code: str, cause: str, at: float) -> tuple[Effect, ...]:
        self._forget()
        self.code, self.cause = code, cause
        self._failures += 1
        if self._failures > 1:
            self.addresses = _literal(self.settings.host)  # A name may have moved to another address.
        if self._wanted and self._attachment is not None:
            self.state = VpnState.WAITING
            pause = self._timers.vpn_retry * 2 ** min(self._failures - 1, 16)
            self.deadline = at + min(pause, self._timers.vpn_retry_max)
        return ()

    def _engine_found(self, at: float) -> tuple[Effect, ...]:
        self._engine = True
        if self.state is not VpnState.NO_ENGINE:
            return ()
        self.state, self.cause, self.code = VpnState.DOWN, "", ""
        return self._begin(at) if self._wanted else ()

    def _forget(self) -> None:
        self.state = VpnState.DOWN if self._engine else VpnState.NO_ENGINE
        self.inner = self._local = self.mobike = None
        self.deadline = None


def _literal(host: str) -> tuple[IPv4Address, ...]:
    try:
        return (IPv4Address(host),)
    except AddressValueError:
        return ()
