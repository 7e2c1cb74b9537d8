# SPDX-License-Identifier: GPL-2.0-only
"""The audit of a tour: leaks and proofs from its captures, as one object that a program and a person can read."""

from dataclasses import asdict, dataclass
from typing import Any

from homeward.diagnostics.captures import read
from homeward.diagnostics.evidence import Evidence
from homeward.diagnostics.leaks import Leak, find_leaks
from homeward.diagnostics.proofs import prove
from homeward.diagnostics.seen import Proof


@dataclass(frozen=True, slots=True)
class Audit:
    """What the captures say."""

    leaks: tuple[Leak, ...]
    proofs: tuple[Proof, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing leaked and every claim is borne out."""
        return not self.leaks and all(proof.holds for proof in self.proofs)

    def plain(self) -> dict[str, Any]:
        """For JSON: `{"passed", "leaks": [text…], "proofs": [{"stage","claim","holds","seen"}…]}`."""
        return {
            "passed": self.passed,
            "leaks": [str(leak) for leak in self.leaks],
            "proofs": [asdict(proof) for proof in self.proofs],
        }


def audit(evidence: Evidence) -> Audit:
    """Read the captures and judge them; FileNotFoundError names one that is missing."""
    return Audit(tuple(find_leaks(evidence, read(evidence.cable))), tuple(prove(evidence)))
