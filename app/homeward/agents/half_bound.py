# SPDX-License-Identifier: GPL-2.0-or-later
"""The first keepalive of a half-bound tunnel in UDP (RFC 3519 sections 4.6 and 4.11).

A co-located mobile node that registers through a foreign agent behind a NAT sends its data past that agent, through a
port of the NAT that nobody knows yet. The first keepalive shows it. Its address must be the request's: whoever sees
the registration can still send a false one, and then reach another port of the same NAT (RFC 3519 section 6.1.2).
"""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

from homeward.agents.agent_events import Refused, RequestArrived
from homeward.agents.bindings import Binding
from homeward.agents.findings import Finding
from homeward.model.errors import WireError
from homeward.model.nat_traversal import TunnelKind
from homeward.wire import udp_tunnel
from homeward.wire.echo import Echo, decode_echo


def complete(
    arrived: RequestArrived, binding_of: Callable[[IPv4Address], Binding | None], agent: IPv4Address
) -> Binding | Refused:
    """The binding with the port that a datagram shows, or why it shows none."""

    def stray(text: str) -> Refused:
        return Refused(Finding.STRAY_KEEPALIVE, text, source=arrived.source)

    try:
        data = udp_tunnel.decode_tunnel_data(arrived.octets)
        echo = _keepalive(arrived.octets, data.kind)
    except (WireError, ValueError) as error:
        return stray(str(error))
    binding = binding_of(echo.source)
    if binding is None or not binding.way.udp or binding.way.port is not None:
        return stray(f"no half-bound tunnel waits for {echo.source}")
    if echo.is_reply or echo.destination != agent:
        return stray("it is no echo request from the home address to the home agent")
    if binding.way.endpoint != arrived.source:
        return stray(f"the registration came from {binding.way.endpoint}")
    if data.kind != binding.way.encapsulation.protocol:
        return stray(f"it carries {data.kind}, {binding.way.encapsulation.protocol} was agreed on")
    return replace(binding, way=replace(binding.way, port=arrived.source_port))


def _keepalive(octets: bytes, kind: int) -> Echo:
    return decode_echo(udp_tunnel.unwrap(octets, TunnelKind(kind)))
