# SPDX-License-Identifier: GPL-2.0-or-later
"""Inside or outside: the verdict about one attachment (RFC 5266 section 3.4, RFC 5265 section 3.2).

Inside needs proof. Outside needs only that the gateway has proved itself here (X-21), or that the home agent refused,
or that nobody answered: all of these lead into the VPN or to a block, never into the clear.
"""

from dataclasses import dataclass
from enum import Enum

from homeward.model.access import Attachment
from homeward.model.status import Proof, Trust


class Reason(Enum):
    """Why a verdict fell."""

    PROVED = "proved"
    GATEWAY_ANSWERED = "gateway-answered"
    NO_TRUSTED_NETWORKS = "no-trusted-networks"
    HOME_AGENT_REFUSED = "home-agent-refused"
    NOBODY_ANSWERED = "nobody-answered"
    NOT_ASKED = "not-asked"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Trusted or not, since when, and why."""

    trust: Trust
    reason: Reason | None = None
    proof: Proof | None = None


class Boundary:
    """The verdict about one attachment; a new attachment gets a new Boundary, and no proof outlives it."""

    def __init__(self, attachment: Attachment, at: float, *, patience: float) -> None:
        self.attachment = attachment
        self.verdict = Verdict(Trust.UNKNOWN)
        self._not_before = at + patience
        self._gateway_proved = False
        self.deadline: float | None = None
        """When a gateway's answer that came early may decide."""

    def proved(self, proof: Proof) -> None:
        """The home agent's signed reply with TNC to a clear request on this attachment, fresh enough."""
        self.verdict = Verdict(Trust.TRUSTED, Reason.PROVED, proof)
        self.deadline = None

    def refused(self, reason: Reason, text: str, at: float) -> None:
        """A verdict of outside for a reason other than the gateway's answer."""
        self.verdict = Verdict(Trust.UNTRUSTED, reason, Proof(text, at=at))
        self.deadline = None

    def gateway_proved(self, at: float) -> None:
        """The gateway proved itself here. Outside at once, unless the home agent's answer may still be on its way."""
        self._gateway_proved = True
        if self.verdict.reason is Reason.NOBODY_ANSWERED:
            self._outside(at)
        if self.verdict.trust is not Trust.UNKNOWN:
            return
        if at < self._not_before:
            self.deadline = self._not_before
            return
        self._outside(at)

    def deadline_passed(self, at: float) -> None:
        """The home agent has had its round trip."""
        if self.deadline is None or at < self.deadline:
            return
        self.deadline = None
        if self._gateway_proved and self.verdict.trust is Trust.UNKNOWN:
            self._outside(at)

    def _outside(self, at: float) -> None:
        text = (
            "Not trusted: the VPN gateway answered here and the home agent has not,"
            " so this network is treated as outside"
        )
        self.verdict = Verdict(Trust.UNTRUSTED, Reason.GATEWAY_ANSWERED, Proof(text, at=at))
        self.deadline = None
