# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays a story in a lab that stands: plugs the cable, watches the client and the kernel, starts the traffic."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address
from typing import Final

from homeward.bus.client import DaemonClient
from homeward.lab import keys, services
from homeward.lab.access import Cable, Move
from homeward.lab.applications import Applications, Connections
from homeward.lab.build import laptop_addresses
from homeward.lab.errors import LabError
from homeward.lab.host import Host, program
from homeward.lab.incidents import RebindWhileIdle
from homeward.lab.stagehand import Stagehand
from homeward.lab.state import LabState
from homeward.lab.story import Scene, Story
from homeward.lab.topology import ACCESS_NETWORKS, CABLE, HOME_ADDRESS, LAPTOP
from homeward.model.access import AccessMode
from homeward.model.status import Blocked, ClientState, StatusSnapshot

Say = Callable[[str, str], None]
"""Told what happens as it happens: a word for the margin, and a line."""

_WATCHER: Final = "link-watch"
_SECONDS_TO_CONNECT: Final = 20.0
_SECONDS_WITHOUT_DAEMON: Final = 3.0
_SECONDS_AFTERWARDS: Final = 1.5
"""At least so long a scene goes on after it got where it was to get, however late that was."""
_OPEN: Final = frozenset(
    {ClientState.TRUSTED_C, ClientState.TRUSTED_F, ClientState.OUTSIDE_MC, ClientState.HOME}
)


@dataclass(frozen=True, slots=True)
class Played:
    """One scene after it was played. Times are CLOCK_MONOTONIC seconds, None where the moment never came."""

    scene: Scene
    move: Move
    address: str
    address_at: float | None
    verdict_at: float | None
    open_at: float | None
    snapshot: StatusSnapshot | None
    """What the client said at the end of the scene."""
    moved: bool = True
    """Whether the scene began with a move of the cable."""
    resumed: float | None = None
    """When the applications went on, if they rested."""
    over: float | None = None
    """When the scene was over; what opens the next one comes later."""


class Watch:
    """The client's status as it comes over the bus, and when it came."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._changed = asyncio.Event()
        self.latest: StatusSnapshot | None = None
        self.connected_at: float | None = None
        """When the client first had something to find out, behind its fence, CLOCK_MONOTONIC seconds."""
        self._told = ""

    def __call__(self, snapshot: StatusSnapshot | None) -> None:
        self.latest = snapshot
        if self.connected_at is None and snapshot is not None and snapshot.roams:
            self.connected_at = snapshot.roams[0].phases[0].at - _asleep()
        line = in_one_line(snapshot)
        if line != self._told:
            self._told = line
            self._say("client", line)
        self._changed.set()

    async def until(self, wanted: Callable[[StatusSnapshot], bool], seconds: float) -> StatusSnapshot | None:
        """The first status that is as wanted; None when the time is over, LabError when the daemon has gone."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._changed.clear()
            if self.latest is not None and wanted(self.latest):
                return self.latest
            patience = left if self.latest is not None else min(left, _SECONDS_WITHOUT_DAEMON)
            try:
                await asyncio.wait_for(self._changed.wait(), patience)
            except TimeoutError:
                if self.latest is None:
                    raise LabError("homewardd is not on its bus any more; its log says why") from None
        return None


def in_one_line(snapshot: StatusSnapshot | None) -> str:
    """The status as one line of the live timeline."""
    if snapshot is None:
        return "no daemon on the bus"
    parts = [snapshot.state.value]
    if snapshot.state in _OPEN:
        parts.append(f"care-of {snapshot.care_of_address}")
        if snapshot.lifetime is not None:
            parts.append(f"for {snapshot.lifetime} s")
        if snapshot.proof is not None:
            parts.append(snapshot.proof.text)
    elif isinstance(snapshot.blocked, Blocked):
        parts.append(snapshot.blocked.cause)
    parts.append(f"VPN {snapshot.vpn.value}")
    return "; ".join(parts)


class Director:
    """One performance. `say` is told what happens while it happens.

    With `real_clock` a story that sets the clock sets the machine's own, for everybody on it.
    """

    def __init__(self, state: LabState, say: Say, *, real_clock: bool = False) -> None:
        self._state = state
        self._say = say
        self._cable = Cable(state)
        self._laptop = Host(state, LAPTOP)
        self._applications = Applications(state, HOME_ADDRESS)
        self._hand = Stagehand(state, self._applications, say, real_clock=real_clock)
        self._profile = services.PROFILE
        self._running = False
        self._lost = True
        self.played: list[Played] = []
        self.connections: Connections | None = None
        self.ended = 0.0
        self.connected_at = 0.0
        """Before this moment nothing is claimed of the laptop, CLOCK_MONOTONIC seconds."""

    @property
    def applications(self) -> Applications:
        """What ran between the home address and the correspondent."""
        return self._applications

    async def perform(self, story: Story) -> None:
        """Play all scenes. A scene that does not reach what it expects is recorded, and the story goes on."""
        address = f"unix:path={self._state.short()}/hosts/{LAPTOP}/run/{services.SYSTEM_BUS}"
        self._watch_links()
        self._profile = await asyncio.to_thread(self._hand.set_up, story)
        async with DaemonClient(address) as client:
            watch = Watch(self._say)
            await client.watch(watch)
            if story.operated:
                await asyncio.to_thread(self._plug_in, story.networks[0])
            else:
                await self._connect(client, watch)
            try:
                for scene in story.scenes:
                    await self._play(scene, watch)
                self.ended = time.monotonic()
            finally:
                self.ended = self.ended or time.monotonic()
                if story.operated:
                    self.connected_at = watch.connected_at or self.ended
                await asyncio.to_thread(self._finish)

    async def _connect(self, client: DaemonClient, watch: Watch) -> None:
        """Connect without a network, and hand over the secrets that the profile names, as its owner would."""
        await client.connect(self._profile)
        drawn = keys.read(self._state)
        for reference, secret in (
            (keys.MOBILITY_KEY, drawn.mobility),
            (keys.PRE_SHARED_KEY, drawn.pre_shared),
        ):
            await client.offer_secret(reference, secret)
        ready = await watch.until(lambda now: now.state is ClientState.NO_NETWORK, _SECONDS_TO_CONNECT)
        if ready is None:
            raise LabError(f"the client does not get ready to roam: {in_one_line(watch.latest)}")

    async def _play(self, scene: Scene, watch: Watch) -> None:
        self._say(scene.network, scene.prose)
        self._lost = True
        moved = not scene.opening or scene.network != self._cable.plugged_into()
        move, resumed = await asyncio.to_thread(self._open, scene, moved=moved)
        reached = await watch.until(partial(_arrived, scene), scene.patience)
        self._lost = reached is None or scene.expect is AccessMode.NONE
        if reached is None:
            self._say(scene.network, f"expected {scene.expect.value}, but: {in_one_line(watch.latest)}")
        elif not self._running and not self._lost:
            await asyncio.to_thread(self._start_applications)
        for incident in scene.meanwhile:
            await asyncio.to_thread(self._hand.carry_out, incident)
        undisturbed = time.monotonic() + _SECONDS_AFTERWARDS
        await asyncio.sleep(max(move.pulled + scene.seconds, undisturbed) - time.monotonic())
        recorded = self._record(scene, move, watch.latest, moved=moved)
        self.played.append(replace(recorded, resumed=resumed, over=time.monotonic()))

    def _plug_in(self, network: str) -> None:
        move = self._cable.plug(network)
        deadline = time.monotonic() + _SECONDS_TO_CONNECT
        while self._usable_address(network, move)[1] is None:
            if time.monotonic() > deadline:
                raise LabError(f"no address in {network}")
            time.sleep(0.02)

    def _open(self, scene: Scene, *, moved: bool) -> tuple[Move, float | None]:
        """What the scene begins with, when that was, and when the applications went on, if it made them rest."""
        began, resumed = time.monotonic(), None
        for incident in scene.opening:
            self._hand.carry_out(incident)
            if isinstance(incident, RebindWhileIdle):
                resumed = time.monotonic()
        if not moved:
            # By the wall clock that captures count by from now on: it may just have been set.
            return Move(scene.network, began, began, time.time() - time.monotonic()), resumed
        move = self._cable.plug(scene.network)
        self._say(scene.network, "the cable is in")
        return move, resumed

    def _record(self, scene: Scene, move: Move, snapshot: StatusSnapshot | None, *, moved: bool) -> Played:
        if not moved:
            address = self.played[-1].address if self.played else laptop_addresses(self._state)[0]
            return Played(scene, move, address, None, None, None, snapshot, moved=False)
        address, address_at = self._usable_address(scene.network, move)
        asked_at = _phase(snapshot, "probe", move)
        if address_at is not None and asked_at is not None:
            # On a busy machine our watcher may hear of the address after the client, which cannot ask without one.
            address_at = min(address_at, asked_at)
        return Played(
            scene,
            move,
            address,
            address_at,
            _phase(snapshot, "verdict", move),
            _phase(snapshot, "open", move),
            snapshot,
        )

    def tidy_up(self, story: Story, *, lab_stays: bool) -> None:
        """Leave the machine's clock right, and a lab that stays as it was before."""
        self._hand.set_clock_right()
        if lab_stays:
            self._hand.tidy_up(story)

    # --- what runs beside the story ---

    def _watch_links(self) -> None:
        self._laptop.start(_WATCHER, *program("link_watch.py"), CABLE)

    def _usable_address(self, network: str, move: Move) -> tuple[str, float | None]:
        """The address of this stay and the moment when both it and its default route were there."""
        address, address_at = "", None
        for line in self._state.log(LAPTOP, _WATCHER).read_text().splitlines():
            _, moment, event, *about = line.split()
            at = float(moment)
            if at < move.pulled:
                continue
            if event == "address" and IPv4Address(about[0]) in ACCESS_NETWORKS[network].prefix:
                address, address_at = about[0], None
            elif event == "route" and address and address_at is None:
                address_at = at
        return address, address_at

    def _start_applications(self) -> None:
        self._applications.start_tcp()
        self._applications.start_udp()
        self._running = True
        self._say(
            "traffic", f"from {HOME_ADDRESS}: a TCP connection up, one down, a datagram every 5 ms each way"
        )

    def _finish(self) -> None:
        if self._running:
            self._applications.stop_udp()
            # Over a path that is not there nothing more comes, however long one waits.
            self.connections = self._applications.finish_tcp(seconds=2.0 if self._lost else 10.0)


def _arrived(scene: Scene, now: StatusSnapshot) -> bool:
    """Whether the client has found itself where the scene expects it; expecting none, that nothing passes any more."""
    if scene.expect is AccessMode.NONE:
        return now.mode is AccessMode.NONE and now.state not in _OPEN
    here = now.access_address is not None and now.access_address in ACCESS_NETWORKS[scene.network].prefix
    return here and now.mode is scene.expect and now.state in _OPEN


def _phase(snapshot: StatusSnapshot | None, name: str, move: Move) -> float | None:
    """When the client's last roam reached a phase, if it belongs to this move. The client counts by CLOCK_BOOTTIME."""
    if snapshot is None or not snapshot.roams:
        return None
    asleep = _asleep()
    moments = [phase.at - asleep for phase in snapshot.roams[-1].phases if phase.name == name]
    return next((moment for moment in moments if moment >= move.pulled), None)


def _asleep() -> float:
    """What CLOCK_BOOTTIME, by which the client counts, is ahead of CLOCK_MONOTONIC."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
