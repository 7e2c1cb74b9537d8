# SPDX-License-Identifier: GPL-2.0-or-later
"""vici's messages read into values, and a failed try's log read into a cause."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from homeward.adapters.strongswan.configuration import PREFIX
from homeward.model.errors import IkeError
from homeward.model.profile import GatewaySettings
from homeward.model.vpn import VpnFailed


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """One of our IKE_SAs as vici describes it; `carries` says whether it has a CHILD_SA that carries traffic."""

    name: str
    number: int
    """Charon's own count: a younger one is larger."""
    local: IPv4Address
    remote: IPv4Address
    inner: IPv4Address | None
    behind_nat: bool
    carries: bool
    tasks: tuple[str, ...]
    """What it is doing: exchanges that are in flight."""
    peer_ends: bool
    """Whether the gateway is deleting it."""


def associations(message: Mapping[str, Any]) -> tuple[SecurityAssociation, ...]:
    """Our IKE_SAs in a `list-sa`, `ike-*` or `child-*` message; other people's are left out. IkeError if unreadable."""
    try:
        return tuple(
            _association(name, section)
            for name, section in message.items()
            if isinstance(section, dict) and name.startswith(PREFIX)
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IkeError("read what charon says of an SA", repr(error)) from error


def _association(name: str, section: Mapping[str, Any]) -> SecurityAssociation:
    children = section.get("child-sas", {}).values()
    inner = section.get("local-vips", [])
    return SecurityAssociation(
        name=name,
        number=int(section.get("uniqueid", 0)),
        local=address(section["local-host"]),
        remote=address(section["remote-host"]),
        inner=IPv4Address(inner[0]) if inner else None,
        behind_nat=section.get("nat-local") == "yes",
        carries=any(child.get("state") == "INSTALLED" for child in children),
        tasks=tuple(section.get("tasks-active", ())),
        peer_ends="IKE_DELETE" in section.get("tasks-passive", ()),
    )


def address(text: str) -> IPv4Address:
    """An address as charon writes it: one that is not known yet is %any."""
    return IPv4Address("0.0.0.0") if text == "%any" else IPv4Address(text)


def why_lost(association: SecurityAssociation, *, child_only: bool = False) -> str:
    """Why an SA went down that nobody here wanted down, from what it was doing at that moment."""
    if association.peer_ends or child_only:
        return "the gateway closed the VPN"
    if "IKE_DELETE" in association.tasks:
        return "another program on this machine closed the VPN"
    return f"the gateway {association.remote} no longer answers"


MOBIKE_AGREED: Final = "peer supports MOBIKE"


def agreed_to_mobike(lines: Iterable[str]) -> bool:
    """Whether the gateway returned MOBIKE_SUPPORTED; vici itself does not say (R-246)."""
    return MOBIKE_AGREED in lines


_AUTHENTICATION: Final = "authentication-failed"
_REFUSED: Final = "gateway-refused"
_UNREACHABLE: Final = "gateway-unreachable"
_ENGINE: Final = "engine-failed"

# In the order in which they are looked for; the texts are charon's own, of level 1 (tests hold them to 5.9.8).
_SIGNS: Final[Sequence[tuple[str, str, str]]] = (
    (
        r"received AUTHENTICATION_FAILED",
        _AUTHENTICATION,
        "the gateway {gateway} did not accept the pre-shared key, or does not know {local} or {remote}",
    ),
    (
        r"but MAC mismatched",
        _AUTHENTICATION,
        "{gateway} does not know the pre-shared key itself: it may not be the gateway",
    ),
    (r"no shared key found", _AUTHENTICATION, "there is no pre-shared key for {local} and {remote}"),
    (
        r"identity '.*' required|constraint check failed|no alternative config found",
        _AUTHENTICATION,
        "{gateway} did not prove that it is {remote}",
    ),
    (r"INVALID_MAJOR_VERSION", _REFUSED, "the gateway {gateway} does not speak IKEv2"),
    (
        # An answer to the first message may mean no more than that nothing is configured for IKEv2.
        r"received NO_PROPOSAL_CHOSEN notify error",
        _REFUSED,
        "the gateway {gateway} accepts none of the cipher proposals in the profile, or does not speak IKEv2",
    ),
    (
        r"NO_PROPOSAL_CHOSEN|no acceptable proposal|proposals? (selection )?(invalid|unacceptable)",
        _REFUSED,
        "the gateway {gateway} accepts none of the cipher proposals in the profile",
    ),
    (
        r"TS_UNACCEPTABLE|no acceptable traffic selectors",
        _REFUSED,
        "the gateway {gateway} does not offer the networks in the profile",
    ),
    (r"INTERNAL_ADDRESS_FAILURE", _REFUSED, "the gateway {gateway} has no inner address to give"),
    (r"received (\w+) notify", _REFUSED, "the gateway {gateway} refused: {match}"),
    (
        r"unable to install|installing virtual IP .* failed|unable to allocate|key derivation failed|not supported",
        _ENGINE,
        "the IKE service could not set the VPN up: {line}",
    ),
)
_HALF_WAY: Final = "parsed IKE_SA_INIT response"
_SILENT: Final = ("giving up after", "peer not responding")


def why_failed(lines: Sequence[str], settings: GatewaySettings, gateway: IPv4Address) -> VpnFailed:
    """What a try failed of, from what charon logged about it; `lines` as its control-log sent them."""
    words = {"gateway": gateway, "local": settings.local_identity, "remote": settings.remote_identity}
    for pattern, code, text in _SIGNS:
        for line in lines:
            if found := re.search(pattern, line):
                match = found.group(1) if found.groups() and found.group(1) else found.group()
                return VpnFailed(code, text.format(**words, match=match, line=line))
    if any(sign in line for line in lines for sign in _SILENT):
        if any(_HALF_WAY in line for line in lines):
            cause = (
                f"the gateway {gateway} answered on UDP 500 and then fell silent: is UDP 4500 blocked here?"
            )
        else:
            cause = f"no answer from the gateway {gateway}"
        return VpnFailed(_UNREACHABLE, cause)
    return VpnFailed(_ENGINE, f"the IKE service gave up: {lines[-1] if lines else 'it did not say why'}")
