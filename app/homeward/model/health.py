# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong, as data: code, severity, since when, and what the user can do about it."""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How much a health item matters."""

    INFO = "info"
    WARNING = "warning"
    ALARM = "alarm"
    """A security matter: somebody or something tried to be trusted and was not."""


@dataclass(frozen=True, slots=True)
class HealthItem:
    """One thing that the user may want to know; `since` on CLOCK_BOOTTIME, `advice` says what to do next."""

    code: str
    severity: Severity
    text: str
    advice: str
    since: float
