# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes happen in a lab what a story says: before the curtain, between the scenes, and afterwards the tidying up."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, assert_never

from homeward.lab import services, shifted_daemon
from homeward.lab.applications import Applications
from homeward.lab.errors import LabError
from homeward.lab.host import Host, program
from homeward.lab.incidents import (
    AskForHomeAddress,
    DenyAll,
    FindBinding,
    FindBindingAfterReboot,
    FindNothing,
    FindSilence,
    Follow,
    Incident,
    Kill,
    OperatorsDoing,
    PlayRequestsAgain,
    RebindWhileIdle,
    RedirectToNobody,
    SetClock,
    StartForeignAgent,
    StartHomeAgent,
)
from homeward.lab.operator import Operator
from homeward.lab.state import LabState
from homeward.lab.story import Setting, Story
from homeward.lab.topology import (
    ACCESS_NETWORKS,
    AGENT,
    CABLE,
    CORRESPONDENT_ADDRESS,
    HOME_ADDRESS,
    HOSTS,
    LAPTOP,
    foreign_agent,
    hardware_address,
)
from homeward.model.names import BUS_NAME

_DENYING: Final = "denying-agent"
# Ports that no socket of a laptop has by itself: a NAT keeps a port that is in its range.
_OTHER_PORTS: Final = """
table ip rebound {
    chain postrouting {
        type nat hook postrouting priority srcnat - 1; policy accept;
        oifname "uplink" meta l4proto udp masquerade to :20000-29999
    }
}
"""


class Stagehand:
    """Everything in one lab that is neither cable nor client."""

    def __init__(
        self,
        state: LabState,
        applications: Applications,
        say: Callable[[str, str], None],
        *,
        real_clock: bool,
    ) -> None:
        self._state = state
        self._operator = Operator(state, say)
        self._applications = applications
        self._real_clock = real_clock
        self._ahead = 0.0

    # --- before and after ---

    def set_up(self, story: Story) -> str:
        """Make the laptop what the story wants it to be; the name of the profile to connect by."""
        if story.moves_clock and not self._real_clock:
            self._shift_clock_of_daemon()
        if story.operated:
            Host(self._state, AGENT).stop(services.AGENT_SERVICE)
            self._operator.begin()
        if story.setting == Setting():
            return services.PROFILE
        self._write_profile(story)
        return story.name

    def tidy_up(self, story: Story) -> None:
        """Leave the lab as it was, for whoever looks into it next."""
        for host in {
            each.network
            for scene in story.scenes
            for each in scene.opening
            if isinstance(each, RebindWhileIdle)
        }:
            Host(self._state, host).run("nft", "delete table ip rebound", check=False)
        if story.operated:
            self._operator.end()
            for host in (AGENT, LAPTOP):
                self._write_files(host)
        agents = {ACCESS_NETWORKS[name].foreign_agent for name in ACCESS_NETWORKS} - {None}
        for host in (AGENT, *sorted(filter(None, agents))):
            if Host(self._state, host).services().get(services.AGENT_SERVICE, 0) is not None:
                self._start_agent(host)
        if story.moves_clock and not self._real_clock:
            self._restart_daemon(None)
        Host(self._state, LAPTOP).run("rm", "-f", services.profile_path(story.name))

    def _write_files(self, name: str) -> None:
        host = Host(self._state, name)
        for path, mode, text in services.files(self._state, name):
            host.run("install", "-D", "-m", f"{mode:o}", "/dev/stdin", path, text=text)

    def _write_profile(self, story: Story) -> None:
        text = services.profile(self._state, story.name, story.setting)
        Host(self._state, LAPTOP).run("tee", services.profile_path(story.name), text=text)

    # --- incidents ---

    def carry_out(self, incident: Incident) -> None:
        """Make it happen; it has happened when this returns. LabError when it cannot."""
        match incident:
            case Kill(host, service):
                Host(self._state, host).stop(service, signal.SIGKILL)
            case StartForeignAgent(network):
                self._start_agent(foreign_agent(network).host)
            case StartHomeAgent():
                Host(self._state, AGENT).stop(_DENYING, signal.SIGKILL)
                self._start_agent(AGENT)
            case DenyAll(code):
                self._deny(code)
            case RebindWhileIdle(network, seconds):
                self._rebind(network, seconds)
            case SetClock(seconds):
                self._set_clock(seconds)
            case AskForHomeAddress(network):
                self._ask_for_home_address(network)
            case RedirectToNobody(network):
                self._redirect(network)
            case (
                Follow()
                | FindBinding()
                | FindBindingAfterReboot()
                | FindNothing()
                | PlayRequestsAgain()
                | FindSilence()
            ):
                self._operate(incident)
            case _:
                assert_never(incident)

    def _operate(self, doing: OperatorsDoing) -> None:
        match doing:
            case Follow(chapter):
                self._operator.follow(chapter)
            case FindBinding(spi):
                self._operator.look_for_binding(spi)
            case FindBindingAfterReboot(spi):
                self._operator.look_for_survival(spi)
            case FindNothing():
                self._operator.look_for_nothing()
            case PlayRequestsAgain():
                self._operator.look_for_replays()
            case FindSilence():
                self._operator.look_for_silence()
            case _:
                assert_never(doing)

    def _start_agent(self, host: str) -> None:
        log = self._state.log(host, services.AGENT_SERVICE)
        lives = log.read_text().count(" ready ") if log.exists() else 0
        services.start_agent(self._state, host)
        services.wait_for_agent(self._state, host, lives + 1)

    def _deny(self, code: int) -> None:
        host = Host(self._state, AGENT)
        host.stop(services.AGENT_SERVICE, signal.SIGKILL)
        services.start_module(host, _DENYING, "homeward.lab.denying_agent", str(code))
        deadline = time.monotonic() + 10
        log = self._state.log(AGENT, _DENYING)
        while "ready" not in (log.read_text() if log.exists() else ""):
            if time.monotonic() > deadline:
                raise LabError(f"the denying home agent does not start; its log is {log}")
            time.sleep(0.02)

    def _rebind(self, network: str, seconds: float) -> None:
        self._applications.rest()
        try:
            time.sleep(0.2)  # what they sent last is on its way
            router = Host(self._state, network)
            router.run("nft", "-f", "-", text=_OTHER_PORTS)
            # A NAT that masquerades forgets what went by a link that goes down; so do the routes.
            routes = [f"route add {route.to} via {route.via}" for route in HOSTS[network].routes]
            router.ip("link set uplink down", "link set uplink up", *routes)
            time.sleep(seconds)
        finally:
            self._applications.go_on()

    def _ask_for_home_address(self, network: str) -> None:
        place = ACCESS_NETWORKS[network]
        words = (place.interface, "who-has", str(HOME_ADDRESS), str(place.router))
        Host(self._state, place.host).run(*program("link_words.py"), *words)

    def _redirect(self, network: str) -> None:
        agent = foreign_agent(network)
        nobody = str(ACCESS_NETWORKS[network].prefix[66])
        told = (hardware_address(LAPTOP, CABLE), str(HOME_ADDRESS), str(agent.address), nobody)
        about = (str(HOME_ADDRESS), str(CORRESPONDENT_ADDRESS))
        Host(self._state, agent.host).run(*program("link_words.py"), agent.leg, "redirect", *told, *about)

    # --- the laptop's clock ---

    def set_clock_right(self) -> None:
        """Take back what was done to the machine's own clock."""
        if self._real_clock and self._ahead:
            self._set_clock(-self._ahead)

    def _set_clock(self, seconds: float) -> None:
        self._ahead += seconds
        if self._real_clock:
            time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
            return
        self._note_clock()
        Host(self._state, LAPTOP).signal(shifted_daemon.WORD, "homewardd")

    def _note_clock(self) -> None:
        note = Path(self._state.run(LAPTOP), shifted_daemon.AHEAD)
        note.with_suffix(".new").write_text(f"{self._ahead}\n")
        note.with_suffix(".new").rename(note)

    def _shift_clock_of_daemon(self) -> None:
        self._note_clock()
        self._restart_daemon("homeward.lab.shifted_daemon")

    def _restart_daemon(self, module: str | None) -> None:
        laptop = Host(self._state, LAPTOP)
        laptop.stop("homewardd", signal.SIGTERM, grace=10)
        if module is None:
            services.start_daemon(self._state)
        else:
            services.start_module(laptop, "homewardd", module, "--bus", "system")
        services.wait_for_name(laptop, "homewardd", BUS_NAME)
