# SPDX-License-Identifier: GPL-2.0-or-later
"""The story of each roam: which step came when."""

from dataclasses import replace

from homeward.model.status import Roam, RoamPhase

KEPT = 8
PHASES_KEPT = 16


class RoamLog:
    """The last few roams, newest last. Phases, in the usual order: link, probe, gateway, verdict, registered, open."""

    def __init__(self) -> None:
        self._serial = 0
        self.roams: tuple[Roam, ...] = ()

    def begin(self, at: float) -> None:
        """Connectivity changed; an unfinished roam goes on, since the user sees one interruption."""
        if self.roams and not self.roams[-1].finished:
            self.note("link", at, again=True)
            return
        self._serial += 1
        self.roams = (*self.roams, Roam(self._serial, "", (RoamPhase("link", at),), False))[-KEPT:]

    def note(self, name: str, at: float, *, again: bool = False) -> None:
        """A step was reached; on each network only the first time counts, unless `again`."""
        if not self.roams or self.roams[-1].finished:
            return
        roam = self.roams[-1]
        if not again and name in _since_link(roam):
            return
        # How long it takes is counted from the first one, which therefore stays.
        first, *others = (*roam.phases, RoamPhase(name, at))
        phases = (first, *others[-(PHASES_KEPT - 1) :])
        self.roams = (*self.roams[:-1], replace(roam, phases=phases))

    def on_link(self, name: str) -> None:
        """The link on which the present roam goes on."""
        if self.roams and not self.roams[-1].finished:
            self.roams = (*self.roams[:-1], replace(self.roams[-1], link=name))

    def finish(self, at: float) -> None:
        """Packets flow again."""
        self.note("open", at)
        if self.roams:
            self.roams = (*self.roams[:-1], replace(self.roams[-1], finished=True))


def _since_link(roam: Roam) -> list[str]:
    """The steps since the last change of connectivity, that one included."""
    names = [phase.name for phase in roam.phases]
    return names[len(names) - 1 - names[::-1].index("link") :]
