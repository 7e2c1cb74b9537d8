# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps that these tests share."""

from collections.abc import Callable

from homeward.adapters.strongswan.engine import StrongSwanEngine
from homeward.model.profile import GatewaySettings
from homeward.model.vpn import VpnEstablished
from tests.world.vpn_worlds import NETWORKS, SETTINGS, RealVpnWorld, Reports, secret

Measured = Callable[[str, object], None]
"""pytest's record_property: the figure goes into the report."""


async def connected(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports, settings: GatewaySettings = SETTINGS
) -> VpnEstablished:
    """Configure, connect, and forget the reports of that."""
    await engine.configure(settings, world.gateway, secret())
    await engine.connect(NETWORKS[0])
    established = await reports.get(VpnEstablished)
    reports.forget()
    return established
