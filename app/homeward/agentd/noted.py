# SPDX-License-Identifier: GPL-2.0-or-later
"""Events that are always counted, and logged as long as there are not too many of their kind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from homeward.agentd.log import entry
from homeward.agentd.metrics import Metrics

_DOERS: Final = ("source", "outer_source")


class Noted:
    """Counts in `metrics`; a line that is written says how many of its kind were not since the one before."""

    def __init__(self, log: logging.Logger, metrics: Metrics, boot: Callable[[], float]) -> None:
        self._log = log
        self._metrics = metrics
        self._boot = boot

    def __call__(self, code: str, /, *, level: int = logging.WARNING, **fields: object) -> None:
        """One event, and what a line says of it; `source` or `outer_source` in it is who did it."""
        by = next((fields[each] for each in _DOERS if isinstance(fields.get(each), IPv4Address | str)), None)
        assert by is None or isinstance(by, IPv4Address | str)
        unlogged = self._metrics.count(code, self._boot(), source=by)
        if unlogged is not None:
            self._log.log(level, entry(code, **fields, unlogged=unlogged or None))
