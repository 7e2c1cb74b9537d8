# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever the world does, in whatever order: never in clear outside, never stuck, never spinning."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from homeward.model.access import AccessMode, AgentPath
from homeward.model.agent import AgentFlags
from homeward.model.inputs import DatagramReceived, EffectFailed, LinksObserved, ReconnectRequested, Resumed
from homeward.model.status import Trust
from homeward.model.vpn import EngineFound, EngineLost, VpnFailed
from tests.scenarios.office import AGENT, HARDWARE, OTHER_HARDWARE, SERVES, Agent, Office
from tests.scenarios.simulation import ETHERNET, HOME_AGENT

pytestmark = pytest.mark.rows("R-20", "R-21", "R-58", "R-60", "R-86")


class AnyStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = Office()
        self.engine_up = True
        self.replies: list[bytes] = []
        deliver = self.world.deliver

        def record(request: object, octets: bytes, place: object) -> None:
            self.replies.append(octets)
            deliver(request, octets, place)  # type: ignore[arg-type]

        self.world.deliver = record  # type: ignore[method-assign]
        by_agent = self.world.deliver_by_agent

        def record_relayed(request: object, octets: bytes, place: object, agent: object) -> None:
            self.replies.append(octets)
            by_agent(request, octets, place, agent)  # type: ignore[arg-type]

        self.world.deliver_by_agent = record_relayed  # type: ignore[method-assign]

    @rule(place=st.sampled_from(["trust1", "trust2", "trust3", "home", "ext1", "ext2", "ext3"]))
    def plug(self, place: str) -> None:
        self.world.plug(place)

    @rule()
    def unplug(self) -> None:
        self.world.unplug()

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.02, 0.05, 0.13, 1.0, 7.0, 61.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule()
    def sleep(self) -> None:
        self.world.feed(Resumed())

    @rule()
    def reconnect(self) -> None:
        self.world.feed(ReconnectRequested())

    @rule(share=st.sampled_from([0.0, 0.3, 1.0]))
    def lose_datagrams(self, share: float) -> None:
        self.world.drop = lambda _direction: self.world.random.random() < share

    @rule(up=st.booleans())
    def home_agent(self, up: bool) -> None:
        self.world.agent_up = up

    @rule(works=st.booleans())
    def gateway(self, works: bool) -> None:
        self.world.engine.works = works

    @rule(hardware=st.sampled_from([HARDWARE, OTHER_HARDWARE, b""]), ttl=st.sampled_from([1, 1, 255]))
    def somebody_advertises(self, hardware: bytes, ttl: int) -> None:
        self.world.advertise(self.world.agent_here, hardware=hardware, ttl=ttl)

    @rule(up=st.booleans(), flags=st.sampled_from([SERVES, SERVES | AgentFlags.BUSY]))
    def foreign_agent(self, up: bool, flags: AgentFlags) -> None:
        self.world.agent_here.up, self.world.agent_here.flags = up, flags

    @rule(code=st.sampled_from([0, 65, 69, 77, 78, 105]), error=st.sampled_from([None, 78]))
    def foreign_agent_denies(self, code: int, error: int | None) -> None:
        agent = self.world.agent_here
        agent.error = error
        agent.deny = {len(agent.requests) + 1: code} if code else {}

    @rule()
    def foreign_agent_restarts(self) -> None:
        self.world.agent_here.sequence = -1

    @rule()
    def vpn_lost(self) -> None:
        self.world.lose_vpn()

    @rule(text=st.sampled_from(["gateway-refused", "authentication-failed"]))
    def vpn_failed(self, text: str) -> None:
        self.world._report(VpnFailed(text, "said the gateway"))

    @rule()
    def engine_gone(self) -> None:
        self.engine_up = False
        self.world.engine.attempt += 1
        self.world.engine.inner = None
        self.world._report(EngineLost("charon ended"))

    @rule()
    def engine_back(self) -> None:
        self.engine_up = True
        self.world._report(EngineFound("5.9.8"))

    @rule(step=st.sampled_from([1.0, 100.0, 3600.0]))
    def agents_clock_steps(self, step: float) -> None:
        """Forward only: an agent whose clock goes back must refuse everybody until it has caught up (R-173)."""
        self.world.agent_clock_ahead += step

    @rule(step=st.sampled_from([-3600.0, -1.0, 1.0, 100.0]))
    def our_clock_steps(self, step: float) -> None:
        self.world.wall_offset += step
        self.world.agent_clock_ahead -= step

    @rule()
    def plan_fails(self) -> None:
        self.world.feed(EffectFailed("plan-failed", "no such device"))

    @rule(index=st.integers(0, 50))
    def replay(self, index: int) -> None:
        if self.replies and self.world.sent:
            octets = self.replies[index % len(self.replies)]
            path = self.world.sent[-1][1].path
            source = AGENT if isinstance(path, AgentPath) else HOME_AGENT
            self.world.feed(DatagramReceived(path, octets, source, 434, ETHERNET))

    @rule()
    def noise(self) -> None:
        self.world.feed(LinksObserved(self.world._links()))

    @invariant()
    def trusted_only_inside(self) -> None:
        if self.world.status().trust is Trust.TRUSTED:
            assert self.world.place is not None
            assert self.world.place.inside

    @invariant()
    def clear_mode_only_inside(self) -> None:
        if self.world.mode() in (AccessMode.C, AccessMode.F, AccessMode.HOME):
            assert self.world.place is not None
            assert self.world.place.inside

    @invariant()
    def wished_plan_is_never_stale(self) -> None:
        """What was ordered last holds for this very moment, whatever failed before (R-64)."""
        if self.world.plans:
            self.world._check_never_in_the_open(self.world.plans[-1][1])

    def teardown(self) -> None:
        """However bad it was: when the world is well again, the connection comes back by itself."""
        self.world.drop = lambda _direction: False
        self.world.agent_up = self.world.engine.works = True
        self.world.agents["trust3"] = [Agent()]
        self.world._report(EngineFound("5.9.8"))
        for place, mode in (
            ("ext1", AccessMode.MC),
            ("trust2", AccessMode.C),
            ("trust3", AccessMode.F),
            ("home", AccessMode.HOME),
        ):
            self.world.plug(place)
            self.world.run_with_agents(200)
            assert self.world.mode() is mode


AnyStory.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestAnyStory = AnyStory.TestCase
