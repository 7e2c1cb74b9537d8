# SPDX-License-Identifier: GPL-2.0-or-later
"""StrongSwanEngine: the port VpnEngine, over a private charon.

Everything that charon says arrives as news in one queue and is taken in by one task, so that no two reports can
overtake each other. What is told to charon goes through `Commands`.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final, assert_never

from homeward.adapters.strongswan import Section
from homeward.adapters.strongswan.commands import Commands, Wish
from homeward.adapters.strongswan.configuration import new_name
from homeward.adapters.strongswan.devices import device_with_address
from homeward.adapters.strongswan.reports import (
    SecurityAssociation,
    address,
    agreed_to_mobike,
    associations,
    why_failed,
    why_lost,
)
from homeward.adapters.strongswan.watch import (
    Attempt,
    Ended,
    EngineWatch,
    Found,
    Gone,
    Happened,
    News,
    in_words,
)
from homeward.model.errors import AdapterError, IkeError, NotPermitted, Unavailable
from homeward.model.names import VICI_SOCKET
from homeward.model.profile import GatewaySettings
from homeward.model.secret import Secret
from homeward.model.vpn import (
    EngineFound,
    EngineLost,
    VpnAnswered,
    VpnEstablished,
    VpnFailed,
    VpnLost,
    VpnMoved,
    VpnReport,
)

log: Final = logging.getLogger("ike")

ROAM_SOCKET: Final = "/run/charon.roam"
"""Where a charon with our roam-now plugin takes the word to roam at once; stock charon has no such socket."""
ROAM_PAUSE: Final = 0.003
"""Seconds until that word is given: charon's own picture of the addresses must have changed before."""
CHECK_LIMIT: Final = 10.0
"""Seconds within which a rekeying counts as the answer to `check`."""
STUCK_AFTER: Final = 0.4
"""Seconds after a move when an SA whose old exchange blocks MOBIKE is overtaken (charon's roam delay is 0.1)."""
SILENT_ENGINE_PAUSE: Final = 2.0
"""Seconds until a charon that is there but does not answer is asked again."""


@dataclass(frozen=True, slots=True)
class _Held:
    """The VPN that was reported as established."""

    name: str
    local: IPv4Address
    mobike: bool
    check_until: float = 0.0
    """Until when, by the loop's clock, a rekeying counts as the answer to `check`."""


class StrongSwanEngine:
    """VpnEngine over vici.

    What `disconnect` ends is not reported as lost, and a try that it cancels is not reported as failed: news is what
    nobody here ordered.
    """

    def __init__(self, path: str = VICI_SOCKET, *, roam_socket: str = ROAM_SOCKET) -> None:
        self._path = path
        self._roam_socket = roam_socket
        self._observer: Callable[[VpnReport], None] = lambda report: None
        self._commands = Commands(path)
        self._orders = asyncio.Lock()
        self._news: asyncio.Queue[News] = asyncio.Queue()
        self._tasks: set[asyncio.Future[None]] = set()
        self._seen = asyncio.Event()
        self._watch: EngineWatch | None = None
        self._again: asyncio.TimerHandle | None = None
        self._wish: Wish | None = None
        self._attempt: Attempt | None = None
        self._begun: SecurityAssociation | None = None
        self._held: _Held | None = None
        self._inner: IPv4Address | None = None
        self._stuck: asyncio.TimerHandle | None = None

    # --- the port -----------------------------------------------------------------------------------------------------

    async def start(self, observer: Callable[[VpnReport], None]) -> None:
        """Watch charon, again after a stop; returns when it was found, or was not, for the first time."""
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        # Nothing that was heard in a life before is news in this one: what still stands is found and told again.
        self._news = asyncio.Queue()
        self._seen.clear()
        self._held = None
        self._spawn(self._take_in())
        self._watch = EngineWatch(self._path, self._tell)
        self._watch.start()
        await self._seen.wait()

    async def configure(self, settings: GatewaySettings, gateway: IPv4Address, secret: Secret) -> None:
        """Load secret and connection, and remember them for a charon that restarts. Raises IkeError, Unavailable."""
        if self._wish is not None:
            self._wish.secret.wipe()
            if (self._wish.settings, self._wish.gateway) != (settings, gateway):
                self._inner = None
        self._wish = Wish(settings, gateway, Secret(secret.reveal()))
        # Each order to connect loads its own; this one has charon refuse at once what it cannot read.
        await self._commands.load(self._wish, new_name(), inner=None, keep=self._names())

    async def connect(self, source: IPv4Address) -> None:
        """Begin a fresh IKE_SA, beside one that stands; when it is up the other goes.

        `source` is what the kernel prefers for our mark: charon asks the kernel, and is not pinned to an address.
        """
        if self._wish is None:
            raise IkeError("connect", "no gateway has been configured")
        async with self._orders:
            await self._begin(self._wish)

    async def move(self, source: IPv4Address) -> None:
        """Connectivity changed.

        Stock charon cannot be told: its own netlink events start MOBIKE after its fixed 100 ms. A charon with our
        roam-now plugin is told. A gateway without MOBIKE gets a new VPN at once (R-247), and an exchange that blocks
        MOBIKE, because it goes on being sent from the old address, is overtaken by a fresh VPN.
        """
        self._forget_stuck()
        if self._held is None or self._held.local == source:
            return
        if self._held.mobike:
            self._loop.call_later(ROAM_PAUSE, self._say_roam)
            self._stuck = self._loop.call_later(STUCK_AFTER, lambda: self._spawn(self._overtake(source)))
        else:
            await self._replace()

    async def check(self) -> None:
        """Have the CHILD_SA rekeyed: the one exchange whose answer vici reports (X-24). Raises Unavailable."""
        if self._held is None:
            return
        self._held = replace(self._held, check_until=self._loop.time() + CHECK_LIMIT)
        try:
            await self._commands.rekey(self._held.name)
        except IkeError as error:
            log.info("%s", error)  # It went down in this moment; its event is on the way.

    async def disconnect(self) -> None:
        """Delete our SAs and any try; a gateway that does not answer is given 0.3 s each."""
        async with self._orders:
            names = self._names()
            self._drop_attempt()
            self._held = None
            self._forget_stuck()
            try:
                await self._commands.end_all(*names)
            except (Unavailable, NotPermitted) as error:
                log.info("nothing to disconnect: %s", error)

    async def stop(self) -> None:
        """Stop watching; the SAs stay, and so does a try that is under way."""
        self._forget_stuck()
        if self._again is not None:
            self._again.cancel()
        self._drop_attempt()
        if self._watch is not None:
            await asyncio.to_thread(self._watch.stop)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._commands.close()
        if self._wish is not None:
            self._wish.secret.wipe()
            self._wish = None

    def tunnel_device(self, inner: IPv4Address) -> str | None:
        """Name of the device that carries the inner address."""
        return device_with_address(inner)

    # --- what charon says ---------------------------------------------------------------------------------------------

    def _tell(self, news: News) -> None:
        """Called from the threads that listen to charon."""
        try:
            self._loop.call_soon_threadsafe(self._news.put_nowait, news)
        except RuntimeError:
            pass  # The loop is closed: nobody listens any more.

    async def _take_in(self) -> None:
        while True:
            news = await self._news.get()
            match news:
                case Found():
                    await self._found(news)
                case Gone(cause):
                    self._gone(cause)
                case Happened(event, message):
                    try:
                        self._happened(event, message)
                    except (IkeError, KeyError, ValueError):
                        log.exception("charon's event %s is not as expected", event)
                case Ended():
                    self._ended(news)
                case _:
                    assert_never(news)

    async def _found(self, found: Found) -> None:
        """Give charon again what it may have lost, then tell what it still holds."""
        wish = self._wish
        try:
            standing = await self._commands.standing()
            if wish is not None:
                await self._commands.load(wish, new_name(), inner=None, keep=[each.name for each in standing])
        except AdapterError as error:
            self._again = self._loop.call_later(SILENT_ENGINE_PAUSE, self._news.put_nowait, found)
            self._report(EngineLost(in_words(error)))
            self._seen.set()
            return
        self._report(EngineFound(found.version))
        carrying = [each for each in standing if each.carries and each.inner is not None]
        if carrying:
            # vici does not say whether MOBIKE was agreed to. We take it that it was: if not, the gateway will not
            # answer from the next address, and the core's time limit for that starts a fresh VPN.
            self._established(carrying[-1], mobike=True)
            self._retire(each.name for each in standing if each.name != carrying[-1].name)
        self._seen.set()

    def _gone(self, cause: str) -> None:
        if self._again is not None:
            self._again.cancel()
        self._drop_attempt()
        self._held = None
        self._forget_stuck()
        self._report(EngineLost(cause))
        self._seen.set()

    def _happened(self, event: str, message: Section) -> None:
        up = message.get("up") == "yes"
        for association in associations(message):
            name = association.name
            if event == "child-updown" and up:
                self._child_up(association)
            elif self._held is None or name != self._held.name or up:
                continue
            elif event in ("child-updown", "ike-updown"):
                self._down(association, child_only=event == "child-updown")
            elif event == "ike-update":
                self._moved(self._held, message)
            elif event == "child-rekey":
                self._rekeyed(self._held, association)

    def _child_up(self, association: SecurityAssociation) -> None:
        if self._attempt is not None and association.name == self._attempt.name:
            self._begun = association
            self._conclude()
        elif self._held is not None and association.name == self._held.name:
            if association.inner is not None:
                self._established(association, mobike=self._held.mobike)
        else:
            log.info("%s came up after it was given up", association.name)
            self._retire([association.name])

    def _down(self, association: SecurityAssociation, *, child_only: bool) -> None:
        self._held = None
        self._forget_stuck()
        if child_only:
            self._retire([association.name])  # An IKE_SA without a CHILD_SA is no VPN.
        self._report(VpnLost(why_lost(association, child_only=child_only)))

    def _moved(self, held: _Held, message: Section) -> None:
        local = address(message["local-host"])
        self._held = replace(held, local=local)
        self._forget_stuck()
        self._report(VpnMoved(local, address(message["remote-host"])))

    def _rekeyed(self, held: _Held, association: SecurityAssociation) -> None:
        if self._loop.time() < held.check_until:
            self._held = replace(held, check_until=0.0)
            self._report(VpnAnswered(association.local))

    def _ended(self, ended: Ended) -> None:
        attempt = self._attempt
        if attempt is None or attempt.name != ended.name:
            return
        if ended.refusal is None:
            attempt.up, attempt.mobike = True, agreed_to_mobike(ended.lines)
            self._conclude()
            return
        self._attempt = self._begun = None
        if self._wish is not None:
            self._report(why_failed(ended.lines, self._wish.settings, self._wish.gateway))

    def _conclude(self) -> None:
        """A try is up when charon has said so on both connections: the addresses on one, MOBIKE on the other."""
        attempt, association = self._attempt, self._begun
        if attempt is None or association is None or not attempt.up:
            return
        self._attempt = self._begun = None
        if association.inner is None:
            self._retire([association.name])
            self._report(
                VpnFailed("gateway-refused", f"the gateway {association.remote} gave no inner address")
            )
            return
        former = self._held
        self._established(association, mobike=attempt.mobike)
        if former is not None:
            self._retire([former.name])

    def _established(self, association: SecurityAssociation, *, mobike: bool) -> None:
        assert association.inner is not None
        self._held = _Held(association.name, association.local, mobike)
        self._inner = association.inner
        self._forget_stuck()
        self._report(
            VpnEstablished(
                local=association.local,
                remote=association.remote,
                inner=association.inner,
                mobike=mobike,
                behind_nat=association.behind_nat,
            )
        )

    def _report(self, report: VpnReport) -> None:
        log.info("%s", report)
        self._observer(report)

    # --- what charon is told ------------------------------------------------------------------------------------------

    async def _begin(self, wish: Wish) -> None:
        """Start a try, in place of one that is under way."""
        if self._attempt is not None:
            self._retire([self._attempt.name])
            self._drop_attempt()
        name = new_name()
        try:
            await self._commands.load(wish, name, inner=self._inner, keep=self._names())
        except (Unavailable, NotPermitted) as error:
            self._report(VpnFailed("engine-missing", in_words(error)))
            return
        self._attempt = Attempt(self._path, name, self._tell)
        self._attempt.start()

    def _drop_attempt(self) -> None:
        """Wait no longer for the outcome of a try; charon itself goes on with it."""
        if self._attempt is not None:
            self._attempt.abandon()
        self._attempt = self._begun = None

    async def _overtake(self, source: IPv4Address) -> None:
        """Start a fresh VPN when another exchange, retried for seconds from the old address, keeps MOBIKE waiting."""
        held = self._held
        if held is None or held.local == source or self._attempt is not None:
            return
        try:
            for each in await self._commands.standing():
                if each.name == held.name and each.tasks and "IKE_MOBIKE" not in each.tasks:
                    log.info(
                        "%s is busy with %s from its old address: a fresh VPN overtakes it",
                        each.name,
                        each.tasks,
                    )
                    await self._replace()
        except AdapterError as error:
            log.info("%s", error)

    async def _replace(self) -> None:
        """A fresh VPN instead of one that cannot be moved.

        The old one is dropped first: charon then tells the gateway that this is its only one (INITIAL_CONTACT), and the
        gateway gives the same inner address again instead of a second one.
        """
        async with self._orders:
            held, self._held = self._held, None
            if held is not None and self._wish is not None:
                await self._commands.drop([held.name])
                await self._begin(self._wish)

    def _say_roam(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as word:
            try:
                word.sendto(b"roam", self._roam_socket)
            except OSError:
                pass  # Stock charon: it will notice by itself.

    def _retire(self, names: Iterable[str]) -> None:
        """Have charon drop these SAs, in the background and without a report."""
        unwanted = tuple(names)
        if unwanted:
            self._spawn(self._drop(unwanted))

    async def _drop(self, names: tuple[str, ...]) -> None:
        try:
            await self._commands.drop(names)
        except AdapterError as error:
            log.info("%s", error)

    def _names(self) -> list[str]:
        return [each.name for each in (self._held, self._attempt) if each is not None]

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget_stuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
