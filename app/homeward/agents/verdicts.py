# SPDX-License-Identifier: GPL-2.0-or-later
"""What a home agent decides about a request of a mobile node that has proved who it is."""

from dataclasses import KW_ONLY, dataclass

from homeward.agents.bindings import Way
from homeward.agents.findings import Finding
from homeward.model.nat_traversal import UdpTunnelReply
from homeward.model.registration import ReplyCode
from homeward.model.values import quick


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is denied: the code for the mobile node, finding and text for the log."""

    code: ReplyCode
    finding: Finding
    text: str


@quick
@dataclass(frozen=True, slots=True)
class Grant:
    """A request can be granted: its packets take this way.

    `nat` says that a NAT was seen in between, `direct` that the mobile node itself sent the request. What is said of
    UDP tunnels is said to whoever asked: the mobile node or its foreign agent.
    """

    way: Way
    _: KW_ONLY
    nat: bool = False
    direct: bool = False
    to_mobile_node: UdpTunnelReply | None = None
    to_foreign_agent: UdpTunnelReply | None = None
