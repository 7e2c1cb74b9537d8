# SPDX-License-Identifier: GPL-2.0-or-later
"""timeline.json: what a story measured, in the form that pages, tests and people read."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage. Milliseconds are None where nothing was measured, as outages are in the first stage.

    `expected` and `reached` are c, f, mc, home or none. `address_ms` counts from the moment the cable is out of
    the network before, `verdict_ms` from the usable address. `reached` is what holds at the end of the stage.
    """

    name: str
    expected: str
    reached: str
    trusted: bool
    proof: str
    address_ms: float | None
    verdict_ms: float | None
    outage_up_ms: float | None
    outage_down_ms: float | None
    lost_up: int | None
    lost_down: int | None
    care_of: str
    lifetime_s: int | None
    vpn: str


@dataclass(frozen=True, slots=True)
class TcpResult:
    """The two connections that ran through the whole story, counted at the receivers."""

    up_bytes: int
    down_bytes: int
    sha256_equal: bool
    resets: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """A whole story."""

    story: str
    passed: bool
    stages: tuple[StageResult, ...]
    tcp: TcpResult
    leaks: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """For JSON, keys in their order."""
        return asdict(self)

    def write(self, folder: Path) -> Path:
        """Write timeline.json into the folder; its path."""
        path = folder / "timeline.json"
        path.write_text(json.dumps(self.plain(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path
