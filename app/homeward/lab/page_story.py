# SPDX-License-Identifier: GPL-2.0-or-later
"""What the page tells, read from timeline.json: tolerant of what a broken-off tour left out, and never guessing."""

from collections.abc import Mapping
from dataclasses import dataclass

OUTSIDE_MODES = frozenset({"mc"})


@dataclass(frozen=True, slots=True)
class Stage:
    """One attachment of the tour. Times are milliseconds, None where the tour did not measure them.

    `address_ms` counts from the plug, `verdict_ms` from the usable address. The first stage has no outages.
    """

    name: str
    expected: str
    reached: str
    trusted: bool | None
    proof: str
    address_ms: float | None
    verdict_ms: float | None
    outage_up_ms: float | None
    outage_down_ms: float | None
    lost_up: int | None
    lost_down: int | None
    care_of: str
    lifetime_s: float | None
    vpn: str

    @property
    def as_expected(self) -> bool:
        return self.reached == self.expected != ""

    @property
    def is_outside(self) -> bool:
        return self.expected in OUTSIDE_MODES


@dataclass(frozen=True, slots=True)
class Transfer:
    """The one TCP connection in each direction that ran through the whole tour."""

    up_bytes: int | None
    down_bytes: int | None
    sha256_equal: bool | None
    resets: int | None

    @property
    def survived(self) -> bool:
        return (
            self.sha256_equal is True and self.resets == 0 and bool(self.up_bytes) and bool(self.down_bytes)
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """One claim about a stage that was checked against the captures: whether it holds, and what was seen."""

    stage: str
    claim: str
    holds: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Story:
    """The whole timeline. `passed` is the lab's word; the page never upgrades it."""

    name: str
    passed: bool
    stages: tuple[Stage, ...]
    transfer: Transfer
    leaks: tuple[str, ...] | None
    """None where the captures were not examined, which is not the same as clean."""

    def shortcomings(self) -> tuple[str, ...]:
        """Why the tour did not pass, in words, as far as the timeline says."""
        found = [
            f"{stage.name}: expected {mode_words(stage.expected)}, reached {mode_words(stage.reached)}"
            for stage in self.stages
            if not stage.as_expected
        ]
        if not self.stages:
            found.append("no stage was reached")
        if not self.transfer.survived:
            found.append(f"the TCP transfer: {transfer_words(self.transfer)}")
        if self.leaks is None:
            found.append("the captures were not examined for leaks")
        elif self.leaks:
            kinds = (
                "one kind of packet was"
                if len(self.leaks) == 1
                else f"{len(self.leaks)} kinds of packets were"
            )
            found.append(f"{kinds} seen where it must not be")
        return tuple(found)


def read_proofs(audit: Mapping[str, object]) -> tuple[Proof, ...]:
    """The proofs of a parsed audit.json; one whose `holds` is not true does not hold."""
    proofs = audit.get("proofs")
    if not isinstance(proofs, list):
        return ()
    return tuple(
        Proof(
            stage=_text(raw.get("stage")),
            claim=_text(raw.get("claim")),
            holds=raw.get("holds") is True,
            seen=_text(raw.get("seen")),
        )
        for raw in proofs
        if isinstance(raw, Mapping)
    )


def read_story(timeline: Mapping[str, object]) -> Story:
    """The story of a parsed timeline.json; what is missing or of another type becomes None or empty."""
    stages = timeline.get("stages")
    leaks = timeline.get("leaks")
    tcp = timeline.get("tcp")
    return Story(
        name=_text(timeline.get("story")),
        passed=timeline.get("passed") is True,
        stages=tuple(_stage(raw) for raw in stages if isinstance(raw, Mapping))
        if isinstance(stages, list)
        else (),
        transfer=_transfer(tcp if isinstance(tcp, Mapping) else {}),
        leaks=tuple(_text(leak) for leak in leaks) if isinstance(leaks, list) else None,
    )


def mode_words(mode: str) -> str:
    """An access mode of RFC 5265 in words that a person understands."""
    words = {
        "c": "inside, directly",
        "f": "inside, through a foreign agent",
        "mc": "outside, through the VPN",
        "home": "at home",
        "none": "no binding",
    }
    return words.get(mode, mode or "nothing")


def transfer_words(transfer: Transfer) -> str:
    """How the transfer went, in one clause."""
    if transfer.up_bytes is None and transfer.down_bytes is None:
        return "no result"
    content = {
        True: "byte for byte the same",
        False: "the content differs",
        None: "the content was not compared",
    }
    resets = "resets unknown" if transfer.resets is None else f"{transfer.resets} resets"
    if transfer.resets == 0:
        resets = "no reset"
    elif transfer.resets == 1:
        resets = "1 reset"
    return f"{content[transfer.sha256_equal]}, {resets}"


def _stage(raw: Mapping[str, object]) -> Stage:
    trusted = raw.get("trusted")
    return Stage(
        name=_text(raw.get("name")),
        expected=_text(raw.get("expected")),
        reached=_text(raw.get("reached")),
        trusted=trusted if isinstance(trusted, bool) else None,
        proof=_text(raw.get("proof")),
        address_ms=_number(raw.get("address_ms")),
        verdict_ms=_number(raw.get("verdict_ms")),
        outage_up_ms=_number(raw.get("outage_up_ms")),
        outage_down_ms=_number(raw.get("outage_down_ms")),
        lost_up=_count(raw.get("lost_up")),
        lost_down=_count(raw.get("lost_down")),
        care_of=_text(raw.get("care_of")),
        lifetime_s=_number(raw.get("lifetime_s")),
        vpn=_text(raw.get("vpn")),
    )


def _transfer(raw: Mapping[str, object]) -> Transfer:
    equal = raw.get("sha256_equal")
    return Transfer(
        up_bytes=_count(raw.get("up_bytes")),
        down_bytes=_count(raw.get("down_bytes")),
        sha256_equal=equal if isinstance(equal, bool) else None,
        resets=_count(raw.get("resets")),
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _number(value: object) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable and value == value and abs(value) != float("inf") else None  # type: ignore[arg-type]


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
