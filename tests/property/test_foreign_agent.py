# SPDX-License-Identifier: GPL-2.0-or-later
"""A foreign agent meets requests, replies, copies, forgeries and time in any order, and keeps its promises."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.agents.foreign_agent import PENDING_PER_STATION, ForeignAgent
from homeward.agents.foreign_events import (
    Admit,
    Expel,
    ForeignEffect,
    Rejected,
    RelayFailed,
    SendToHomeAgent,
    SendToMobileNode,
)
from homeward.agents.visitors import Visitor
from homeward.model.inputs import DeadlinePassed
from homeward.model.registration import RegistrationRequest
from homeward.wire.extensions import Extension, encode
from tests.unit.agents.foreign_scene import (
    CARE_OF,
    FOREIGN_HOME,
    FORGER,
    HOME,
    HOME_AGENT,
    MAC,
    OTHER_HOME,
    OTHER_MAC,
    D,
    T,
    after,
    agent,
    home_spoke,
    octets,
    reply_to,
    request,
    spoke,
)

STATIONS = st.sampled_from([MAC, OTHER_MAC, bytes.fromhex("020000000012")])
LIFETIMES = st.sampled_from([0, 1, 5, 300, 1800, 1801, 0xFFFF])
STEP = st.one_of(
    st.tuples(
        st.just("ask"),
        STATIONS,
        st.sampled_from([HOME, OTHER_HOME]),
        LIFETIMES,
        st.sampled_from([T, T | D, T & ~T]),
        st.integers(0, 255),
    ),
    st.tuples(st.just("visit"), STATIONS, st.sampled_from([HOME, OTHER_HOME]), LIFETIMES),
    st.tuples(st.just("copy"), STATIONS, st.integers(0, 9)),
    st.tuples(st.just("answer"), st.integers(0, 9), st.sampled_from([0, 1, 128, 133]), LIFETIMES),
    st.tuples(st.just("forge"), st.integers(0, 9)),
    st.tuples(st.just("icmp"), st.integers(0, 9), st.integers(0, 60)),
    st.tuples(st.just("noise"), STATIONS, st.binary(max_size=80)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.5, 2.0, 7.0, 400.0])),
)


class Watched:
    """The agent, and what must be true of it whatever happens."""

    def __init__(self) -> None:
        self.agent: ForeignAgent = agent(
            home_agents={HOME_AGENT: FOREIGN_HOME}, pending_max=4, visitors_max=2
        )
        self.at = 0.0
        self.sent: list[tuple[RegistrationRequest, bytes]] = []
        self.carried: dict[object, Visitor] = {}
        self.denied_at: dict[bytes, float] = {}

    def feed(self, arrived: object, *, may_admit: bool = False) -> None:
        before = self.agent.visitors()
        effects = self.agent.handle(arrived, after(self.at))  # type: ignore[arg-type]
        for effect in effects:
            self.judge(effect)
        admitted = [each for each in effects if isinstance(each, Admit)]
        assert may_admit or not admitted, "only a home agent's reply makes a visitor"
        assert set(self.carried.values()) == set(self.agent.visitors()), "what is carried is what is listed"
        assert all(
            each in before or each in [one.visitor for one in admitted] for each in self.agent.visitors()
        )
        assert self.agent.pending_count() <= 4 + 2 * PENDING_PER_STATION
        deadline = self.agent.next_deadline()
        assert deadline is None or deadline > after(self.at).boot

    def judge(self, effect: ForeignEffect) -> None:
        match effect:
            case Admit(visitor):
                assert visitor.home_agent == HOME_AGENT
                assert visitor.care_of_address == CARE_OF
                assert 0 < visitor.lifetime <= 1800
                self.carried[visitor.home_address] = visitor
            case Expel(visitor):
                assert self.carried.pop(visitor.home_address) == visitor
            case SendToHomeAgent():
                assert (effect.destination, effect.port, effect.source) == (HOME_AGENT, 434, CARE_OF)
            case Rejected(code=code) if code is not None and code not in (68, 71, 78, 80, 81, 82, 88):
                assert effect.hardware_address is not None
                last = self.denied_at.get(effect.hardware_address)
                assert last is None or self.at - last >= 0.999, "denied twice within a second"
                self.denied_at[effect.hardware_address] = self.at
            case SendToMobileNode():
                assert len(effect.hardware_address) == 6
            case _:
                pass


@given(st.lists(STEP, max_size=40))
@settings(max_examples=80, deadline=None)
def test_whatever_comes(steps: list[tuple[object, ...]]) -> None:
    watched = Watched()
    for step in steps:
        watched.at += 0.01
        _take(watched, step)
    watched.at += 4000
    watched.feed(DeadlinePassed())
    assert watched.agent.visitors() == ()
    assert watched.agent.pending_count() == 0


def _take(watched: Watched, step: tuple[object, ...]) -> None:
    match step:
        case ("ask", bytes() as station, home, lifetime, flags, int() as ttl):
            care_of = CARE_OF if flags & D == 0 else HOME_AGENT + 40  # type: ignore[operator]
            message = request(
                watched.at, home_address=home, lifetime=lifetime, flags=flags, care_of_address=care_of
            )
            source = care_of if D in message.flags else message.home_address
            watched.sent.append((message, station))
            watched.feed(spoke(message, hardware_address=station, source=source, ttl=255 if ttl % 2 else 64))
        case ("visit", bytes() as station, home, int() as granted):
            message = request(watched.at, home_address=home)
            watched.sent.append((message, station))
            watched.feed(spoke(message, hardware_address=station))
            payload = reply_to(message, lifetime=granted, foreign_home=FOREIGN_HOME)
            watched.feed(home_spoke(payload), may_admit=True)
        case ("noise", bytes() as station, bytes() as noise):
            watched.feed(spoke(noise, hardware_address=station))
            watched.feed(home_spoke(noise))
            extended = octets(request(watched.at)) + encode(Extension(200, noise))
            watched.feed(spoke(extended, hardware_address=station))
        case ("wait", float() as seconds):
            watched.at += seconds
            watched.feed(DeadlinePassed())
        case _ if watched.sent:
            _take_up(watched, step)


def _take_up(watched: Watched, step: tuple[object, ...]) -> None:
    """What refers to a request that was sent before."""
    number = next(each for each in step[1:] if isinstance(each, int))
    message, _ = watched.sent[-1 - number % len(watched.sent)]
    match step:
        case ("copy", bytes() as station, int()):
            watched.feed(spoke(message, hardware_address=station))
        case ("answer", int(), int() as code, int() as lifetime):
            payload = reply_to(message, code, lifetime=lifetime, foreign_home=FOREIGN_HOME)
            watched.feed(home_spoke(payload), may_admit=True)
        case ("forge", int()):
            forged = replace(FORGER, spi=FOREIGN_HOME.spi)
            if message.lifetime and D not in message.flags:
                watched.feed(home_spoke(reply_to(message, foreign_home=forged)))
            watched.feed(spoke(reply_to(message, foreign_home=FOREIGN_HOME)))
        case ("icmp", int(), int() as length):
            watched.feed(RelayFailed(HOME_AGENT, number % 5, octets(message)[:length]))
