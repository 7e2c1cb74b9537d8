# SPDX-License-Identifier: GPL-2.0-or-later
"""The hand-overs of tests/component/test_hand_over.py where the kernel's `ipip` device carries the tunnel.

Once it is over, what comes in by the old link is the process's business whatever carried it before: the cases about
that are for ./dev test --all.
"""

from __future__ import annotations

import pytest

from homeward.model.tunnel_engine import TunnelEngine
from tests.component import test_hand_over as moves
from tests.component.test_hand_over import Networks, networks

__all__ = ["networks"]

by_the_device = pytest.mark.parametrize(
    "networks", [(TunnelEngine.IPIP, "ip-in-ip")], indirect=True, ids=["ipip"]
)


@by_the_device
async def test_every_packet_leaves_once(networks: Networks) -> None:
    await moves.test_every_packet_leaves_once_by_the_old_link_before_and_by_the_new_one_after(networks)


@pytest.mark.slow
@by_the_device
async def test_nothing_leaves_by_the_old_link_any_more(networks: Networks) -> None:
    """On its one processor a sender that never pauses lets nobody else come to anything."""
    await moves.move_while_it_sends(networks, "0.0002")


@pytest.mark.slow
@by_the_device
async def test_the_old_link_is_heard_for_two_seconds(networks: Networks) -> None:
    await moves.test_what_is_in_flight_on_the_old_link_comes_in_for_two_seconds_and_no_longer(networks)


@pytest.mark.slow
@by_the_device
async def test_what_is_still_taken_is_judged_as_before(networks: Networks) -> None:
    await moves.test_what_is_still_taken_from_the_old_link_is_judged_as_before(networks)
