# SPDX-License-Identifier: GPL-2.0-only
"""All captures of a tour in memory, by where and when, and a proof: one claim with what was seen."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from homeward.diagnostics.captures import Packet, read
from homeward.diagnostics.evidence import Evidence, Stage
from homeward.diagnostics.registrations import Message, messages

SETTLE: Final = 0.1
"""Seconds after an agent's answer for what is still in somebody's queues."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One claim about one stage, whether the captures bear it out, and by what."""

    stage: str
    claim: str
    holds: bool
    seen: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.claim}: {'yes' if self.holds else 'NO'}, {self.seen}"


@dataclass(slots=True)
class Seen:
    """The captures, each read once. FileNotFoundError names one that is missing."""

    evidence: Evidence
    _read: dict[str, list[Packet]] = field(default_factory=dict)

    @property
    def link(self) -> list[Packet]:
        """The laptop's access link, at its far end."""
        if "" not in self._read:
            self._read[""] = list(read(self.evidence.cable))
        return self._read[""]

    def hop(self, host: str, interface: str) -> list[Packet]:
        """What passed an interface of a host."""
        key = f"{host} {interface}"
        if key not in self._read:
            self._read[key] = list(read(self.evidence.capture(host, interface)))
        return self._read[key]

    def on_link(self, stage: Stage, since: float = 0.0) -> Iterator[Packet]:
        """The packets on the access link in a stage, from a moment on."""
        return (packet for packet in self.link if stage.holds(packet.at) and packet.at >= since)

    def said(self, stage: Stage) -> list[Message]:
        """The registration messages on the access link in a stage, both ways."""
        return list(messages(self.on_link(stage)))

    def in_stay(self, stage: Stage) -> Iterator[Packet]:
        """The packets on the access link since the laptop came to the stage's network, maybe stages ago."""
        stay: list[Stage] = []
        for each in self.evidence.stages:
            stay = [each] if each.moved else [*stay, each]
            if each == stage:
                break
        return (packet for each in stay for packet in self.on_link(each))

    def is_sent(self, packet: Packet) -> bool:
        """Whether the laptop sent it."""
        return packet.sender == self.evidence.hardware_address

    def count(self, packets: Iterator[Packet], which: Callable[[Packet], object]) -> int:
        """How many of the packets are such ones."""
        return sum(bool(which(packet)) for packet in packets)
