# SPDX-License-Identifier: GPL-2.0-or-later
"""From what is known to the whole wished state of the kernel. Whatever is not proved is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from homeward.core.binding import Binding
from homeward.model.access import AgentPath, Attachment, ClearPath, HomePath, VpnPath
from homeward.model.overhead import inner_mtu, layer_of
from homeward.model.plan import AtHome, Fence, Held, NetworkPlan, Traffic, Tunnelled, ViaAgent
from homeward.model.status import Trust
from homeward.model.vpn import VpnState

if TYPE_CHECKING:
    from homeward.core.coordinator import Coordinator

OVERHEAD_VPN: Final = 100
"""IP-in-IP inside ESP inside UDP is at most 85; rounded up so that 1500 gives the usual 1400."""
OVERHEAD_VPN_UDP: Final = 112
"""The same with a tunnel in UDP inside."""


def wished_traffic(core: Coordinator) -> Traffic:
    """Where packets of the home address may go now.

    Without the VPN only on the very attachment that is proved trusted; through the VPN only while the gateway answers.
    """
    boundary, binding = core.boundary, core.registrar.binding
    if boundary is None or binding is None or core.registrar.home_address is None:
        return Held()
    attachment, trust = boundary.attachment, boundary.verdict.trust
    path = binding.path
    if isinstance(path, VpnPath):
        return _through_vpn(core, binding, path, attachment) if trust is not Trust.UNKNOWN else Held()
    if trust is not Trust.TRUSTED or path.link_index != attachment.link_index:
        return Held()
    match path:
        case ClearPath():
            return _in_clear(core, binding, path, attachment)
        case AgentPath() if path.is_co_located:
            own = ClearPath(path.link_index, path.link_name, path.source)
            return _in_clear(core, binding, own, attachment)
        case AgentPath():
            # The agent tunnels, and a path of the same width is all that is known of its way to the home agent.
            return ViaAgent(path, inner_mtu(attachment.mtu, [layer_of(binding.encapsulation, udp=False)]))
        case HomePath():
            return AtHome(path, attachment.mtu)


def _in_clear(core: Coordinator, binding: Binding, path: ClearPath, attachment: Attachment) -> Traffic:
    if path.source != attachment.care_of_address:
        return Held()
    udp = binding.udp_tunnel is not None
    mtu = inner_mtu(attachment.mtu, [layer_of(binding.encapsulation, udp=udp)])
    return Tunnelled(path, core.profile.home_agent.address, mtu, binding.encapsulation, udp)


def _through_vpn(core: Coordinator, binding: Binding, path: VpnPath, attachment: Attachment) -> Traffic:
    vpn = core.secure_path
    if vpn is None or vpn.state is not VpnState.UP or vpn.inner != path.source:
        return Held()
    udp = binding.udp_tunnel is not None
    mtu = attachment.mtu - (OVERHEAD_VPN_UDP if udp else OVERHEAD_VPN)
    return Tunnelled(path, core.profile.home_agent.address, mtu, binding.encapsulation, udp)


def make_plan(core: Coordinator, traffic: Traffic) -> NetworkPlan:
    """The whole plan for this traffic."""
    home_address, vpn, nearby = core.registrar.home_address, core.secure_path, core.vicinity.path
    fence = Fence(
        core.profile.home_agent.address,
        vpn.addresses if vpn is not None else (),
        core.attachments.access_links,
        traffic,
        vpn.inner if vpn is not None else None,
        foreign_agent=nearby if isinstance(nearby, AgentPath) else None,
        home_link=nearby if isinstance(nearby, HomePath) else None,
    )
    return NetworkPlan(home_address, core.profile.destinations, traffic, fence)
