# SPDX-License-Identifier: GPL-2.0-or-later
"""On a trusted link: from the co-located care-of address to a foreign agent's, or home, and back (R-17, R-126)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeward.core.agent_discovery import Change
from homeward.core.vicinity import PAUSE_REFUSED
from homeward.model.access import AgentPath, ClearPath, HomePath
from homeward.model.effects import AnnounceHomeAddress, Effect
from homeward.model.health import Severity
from homeward.model.inputs import AgentAdvertised
from homeward.model.instant import Instant

if TYPE_CHECKING:
    from homeward.core.coordinator import Coordinator


def advertised(core: Coordinator, fact: AgentAdvertised, at: Instant) -> list[Effect]:
    """An agent was heard. Whether it is of use is decided when the network is proved trusted, and not before."""
    heard = core.vicinity.heard(fact, at.boot)
    if heard.suspicious:
        core.health.note("agent-rejected", f"Somebody sent {heard.why}", at.boot)
    path = core.vicinity.path
    serves = heard.agent is not None and isinstance(path, AgentPath) and path.agent == heard.agent.address
    if serves and heard.change is Change.RESTARTED and core.registrar.local is None:
        # It has lost its visitors.
        assert isinstance(path, AgentPath)
        start(core, path, at)
        return core.transmit(at)
    return []


def settle(core: Coordinator, at: Instant) -> list[Effect]:
    """Go the best way that the trusted link offers, once a binding stands to fall back on (make before break)."""
    boundary, registrar, vicinity = core.boundary, core.registrar, core.vicinity
    assert boundary is not None
    binding = registrar.binding
    if binding is None or registrar.next_deadline() is not None:
        return []
    wish = vicinity.wish(boundary.attachment, registrar.home_address, at.boot)
    if wish is None:
        if isinstance(binding.path, ClearPath):
            return list(vicinity.leave())
        return back_to_co_located(core, at, come_back=True)
    if wish == binding.path == vicinity.path:
        return []
    effects = list(vicinity.leave())
    vicinity.path = wish
    if isinstance(wish, HomePath):
        # ARP first, then the deregistration.
        effects.append(AnnounceHomeAddress(wish))
    start(core, wish, at)
    return effects + core.transmit(at)


def start(core: Coordinator, path: AgentPath | HomePath, at: Instant) -> None:
    """A new series by an agent or from the home link."""
    vicinity = core.vicinity
    if isinstance(path, HomePath):
        core.registrar.start_local(path, at.boot)
        return
    core.registrar.start_local(
        path,
        at.boot,
        lifetime=vicinity.lifetime_at(path),
        share=vicinity.share_with(path),
        encapsulation=vicinity.encapsulation,
        udp_tunnel=vicinity.udp_tunnel_through(path),
    )


def back_to_co_located(
    core: Coordinator, at: Instant, *, come_back: bool = False, pause: float = PAUSE_REFUSED
) -> list[Effect]:
    """Leave agent or home link, and register the care-of address of our own anew.

    With `come_back` the way may be tried again at once when it shows up again, as after an agent that fell silent;
    else nothing nearby is tried for `pause` seconds or longer.
    """
    if core.vicinity.path is not None and not come_back:
        where = core.vicinity.path
        who = f"foreign agent {where.agent}" if isinstance(where, AgentPath) else "home link"
        core.health.note(
            "agent-left", f"The {who} is left alone for a while", at.boot, severity=Severity.INFO
        )
    effects = list(core.vicinity.leave(None if come_back else at.boot, pause=pause))
    core.registrar.local = None
    core.registrar.repeat_clear(core.clear_path(), at.boot)
    return effects + core.transmit(at)
