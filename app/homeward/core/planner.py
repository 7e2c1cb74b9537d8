# SPDX-License-Identifier: GPL-2.0-or-later
"""From what is known to the whole wished state of the kernel. Whatever is not proved is held."""

from homeward.core.binding import Binding
from homeward.core.boundary import Boundary
from homeward.core.secure_path import SecurePath
from homeward.model.access import ClearPath, VpnPath
from homeward.model.plan import Fence, Held, NetworkPlan, Traffic, Tunnelled
from homeward.model.profile import Profile
from homeward.model.status import Trust
from homeward.model.vpn import VpnState

OVERHEAD_CLEAR = 20
"""IP-in-IP (wire-formats.md section 14)."""
OVERHEAD_VPN = 100
"""IP-in-IP inside ESP inside UDP is at most 85; rounded up so that 1500 gives the usual 1400."""


def wished_traffic(
    profile: Profile, boundary: Boundary | None, binding: Binding | None, secure_path: SecurePath | None
) -> Traffic:
    """Where packets of the home address may go now.

    In clear only along the very attachment that is proved trusted; through the VPN only while the gateway answers here.
    """
    if boundary is None or binding is None:
        return Held()
    attachment, trust = boundary.attachment, boundary.verdict.trust
    match binding.path:
        case ClearPath(index, _, source) as path:
            here = index == attachment.link_index and source == attachment.care_of_address
            if trust is Trust.TRUSTED and here:
                return Tunnelled(path, profile.home_agent.address, attachment.mtu - OVERHEAD_CLEAR)
        case VpnPath(inner) as path:
            up = secure_path is not None and secure_path.state is VpnState.UP and secure_path.inner == inner
            if trust is not Trust.UNKNOWN and up:
                return Tunnelled(path, profile.home_agent.address, attachment.mtu - OVERHEAD_VPN)
    return Held()


def make_plan(
    profile: Profile,
    access_links: tuple[str, ...],
    *,
    traffic: Traffic,
    secure_path: SecurePath | None,
) -> NetworkPlan:
    """The whole plan for this traffic."""
    return NetworkPlan(
        profile.home_agent.home_address,
        profile.destinations,
        traffic,
        Fence(
            profile.home_agent.address,
            secure_path.addresses if secure_path is not None else (),
            access_links,
            traffic,
            secure_path.inner if secure_path is not None else None,
        ),
    )
