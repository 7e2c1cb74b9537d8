# SPDX-License-Identifier: GPL-2.0-or-later
"""Links and addresses as the kernel has them. A netlink event is a wake-up: what counts is the picture after it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from homeward.adapters.netlink_links.judgement import judge
from homeward.adapters.netlink_links.messages import Questions, open_wake_up
from homeward.adapters.netlink_links.tables import News, Tables
from homeward.model.access import Link
from homeward.model.errors import LinkError

log = logging.getLogger("links")

QUIET: Final = 0.001
"""Seconds from an event to the picture: the events of one change come within that."""
FOREIGN_QUIET: Final = 0.05
"""The same for links that can never be access links: a hundred container events per second are twenty pictures."""
_AGAIN: Final = 0.005


class NetlinkLinks:
    """The links of this network namespace."""

    def __init__(self) -> None:
        self.on_failed: Callable[[BaseException], None] = lambda error: None
        """Called when the watch ended of an error of ours: from then on no move is noticed."""
        self._observer: Callable[[tuple[Link, ...]], None] | None = None
        self._questions: Questions | None = None
        self._wake_up: socket.socket | None = None
        self._tables = Tables()
        self._news = News()
        self._foreign: frozenset[int] = frozenset()
        self._were_routed: set[int] = set()
        self._last: tuple[Link, ...] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, observer: Callable[[tuple[Link, ...]], None]) -> None:
        """Call `observer` with the whole picture now and after every change, QUIET seconds after the first event of it.

        Changes of nothing but links that can never be access links may be told FOREIGN_QUIET later. Raises LinkError.
        """
        self._observer = observer
        self._last = None
        try:
            self._wake_up = open_wake_up()
            self._questions = Questions()
            self._news = News()
            self._news.lost()
            self._read()
        except OSError as error:
            await self.stop()
            raise LinkError("reading the links", error.errno or str(error)) from error
        asyncio.get_running_loop().add_reader(self._wake_up, self._wake)
        self._tell()

    async def stop(self) -> None:
        """Stop watching."""
        self._observer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._wake_up is not None:
            asyncio.get_running_loop().remove_reader(self._wake_up)
            self._wake_up.close()
            self._wake_up = None
        if self._questions is not None:
            self._questions.close()
            self._questions = None

    def _wake(self) -> None:
        """Take note of what changed; the picture is drawn when the news have come to rest."""
        assert self._wake_up is not None
        quiet = None
        while True:
            try:
                octets = self._wake_up.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: events were lost, so anything may have changed
                self._news.lost()
                quiet = QUIET
                continue
            touched, relevant = self._news.hear(octets, self._foreign)
            if touched:
                quiet = QUIET if relevant or quiet == QUIET else FOREIGN_QUIET
        if quiet is not None:
            self._call_in(quiet)

    def _call_in(self, quiet: float) -> None:
        """Take the picture after this many seconds, or earlier if that was promised already."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + quiet:
                return
            self._timer.cancel()
        self._timer = loop.call_later(quiet, self._look)

    def _look(self) -> None:
        self._timer = None
        try:
            self._read()
            self._tell()
        except OSError as error:
            # The tables changed under the reader (EBUSY, EINTR), or memory is short: the picture is still due.
            log.warning("the links could not be read: %s", error)
            self._news.lost()
            self._call_in(_AGAIN)
        except Exception as error:
            # Nobody would notice a move any more: whoever relies on us must know.
            self.on_failed(error)

    def _read(self) -> None:
        """Bring the picture up to date with what was heard since the last one."""
        assert self._questions is not None
        news, self._news = self._news, News()
        self._tables.bring_up_to_date(news, self._questions)
        if news.links or news.named or "links" in news.stale:
            self._foreign = self._tables.foreign()

    def _tell(self) -> None:
        """Report the picture if it differs from the last one."""
        tables = self._tables
        tables.forget_stations()
        # A link that was an access link does not stop being one while its cable is out.
        self._were_routed = (self._were_routed | tables.routes.keys()) & tables.links.keys()
        links = tuple(self._link(index) for index in sorted(tables.links))
        if links != self._last and self._observer is not None:
            self._last = links
            self._observer(links)

    def _link(self, index: int) -> Link:
        tables = self._tables
        facts = tables.links[index]
        metric, gateway = tables.routes.get(index, (None, None))
        access, why = judge(facts, tables.links, routed=index in self._were_routed, lent=tables.lent(index))
        return Link(
            index,
            facts.name,
            access,
            why,
            facts.carrier,
            mtu=facts.mtu,
            addresses=tables.addresses(index),
            gateway=gateway,
            metric=metric,
            carrier_changes=facts.carrier_changes,
            station=tables.stations.get((index, gateway), "") if gateway is not None else "",
        )
