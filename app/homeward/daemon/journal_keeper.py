# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps the journal current without making a hand-over wait for the disk."""

import asyncio
import logging
from dataclasses import replace

from homeward.model.errors import AdapterError
from homeward.model.journal import IdentificationState, Journal
from homeward.ports.world import Journals

log = logging.getLogger("plan")


class JournalKeeper:
    """The journal in memory, and its way to the disk: at once for what was wanted, soon for Identifications.

    Identifications are kept for ever, by `journals`. What was wanted is kept until the next boot, by `until_reboot`: a
    block belongs to a daemon that was killed, and a machine that starts again is not to find itself shut.
    """

    def __init__(self, journals: Journals, until_reboot: Journals) -> None:
        self._journals = journals
        self._until_reboot = until_reboot
        self.unreadable = ""
        """Why nobody knows what was wanted; whoever may have left a block must not be taken for one who left none."""
        self._journal = self._load_identifications()
        self._wanted = self._load_wanted()
        self._writing: asyncio.Task[None] | None = None
        self._dirty = False

    @property
    def wanted(self) -> str | None:
        """The profile that was connected and never disconnected."""
        return self._wanted

    def want(self, profile: str | None) -> None:
        """Remember what the user wants, on disk before this returns. Raises AdapterError."""
        self._wanted, self.unreadable = profile, ""
        self._until_reboot.save(Journal(wanted=profile))

    def identification_for(self, home_agent: str, spi: int) -> IdentificationState | None:
        """What was used up towards this home agent."""
        return next(
            (s for s in self._journal.identifications if (s.home_agent, s.spi) == (home_agent, spi)), None
        )

    def identification(self, home_agent: str, spi: int, *, last: int, offset: float) -> None:
        """Remember a used Identification; written soon, from another thread."""
        others = [s for s in self._journal.identifications if (s.home_agent, s.spi) != (home_agent, spi)]
        state = IdentificationState(spi, home_agent, last, offset)
        self._journal = replace(self._journal, identifications=(*others, state))
        self._dirty = True
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._dirty:
            self._dirty = False
            try:
                await asyncio.to_thread(self._journals.save, self._journal)
            except AdapterError as error:
                log.error("the journal cannot be written: %s", error)

    async def flush(self) -> None:
        """Wait until all is on disk."""
        if self._writing is not None:
            await self._writing

    def _load_identifications(self) -> Journal:
        try:
            return self._journals.load()
        except AdapterError as error:
            # Not worth refusing to start for: without them the home agent resynchronises us by code 133.
            log.error("the journal cannot be read and is begun anew: %s", error)
            return Journal()

    def _load_wanted(self) -> str | None:
        try:
            return self._until_reboot.load().wanted
        except AdapterError as error:
            self.unreadable = str(error)
            return None
