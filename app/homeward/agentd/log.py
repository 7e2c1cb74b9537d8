# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's log: one event a line, as `event key=value …`, on standard error, where systemd picks it up."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/,+-]+")


def entry(event: str, **fields: object) -> str:
    """One line; fields that are None are left out, and no value can end the line or pass for another field."""
    return " ".join(
        [event, *(f"{key}={_shown(value)}" for key, value in fields.items() if value is not None)]
    )


def _shown(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class _LineFormatter(logging.Formatter):
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self.converter = time.gmtime


def start_logging(level: int = logging.INFO) -> None:
    """Send every logger's lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
