# SPDX-License-Identifier: GPL-2.0-or-later
"""Where an agent keeps control socket, store and metrics: in the folders that systemd names, else in the usual ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from homeward.agentd import toml_values as values

CONFIGURATION: Final = Path("/etc/homeward/agent.toml")
NONE: Final = "none"
"""Instead of a path: without it."""
PLACE_KEYS: Final = ("control", "metrics_file")
"""What `control_place` and `metrics_place` read."""

_LONGEST_SOCKET_NAME: Final = 107  # what the kernel takes as the name of a socket
_LONGEST: Final = 4096


def runtime_folder() -> Path:
    """Where the control socket is unless the file says otherwise (RuntimeDirectory= of the unit)."""
    return Path(os.environ.get("RUNTIME_DIRECTORY", "/run/homeward").split(":")[0])


def state_folder() -> Path:
    """Where the store is unless the file says otherwise (StateDirectory= of the unit)."""
    return Path(os.environ.get("STATE_DIRECTORY", "/var/lib/homeward").split(":")[0])


def control_place(table: Mapping[str, Any]) -> Path | None:
    """The control socket of a file's table, None for none. ProfileError."""
    if "control" not in table:
        return runtime_folder() / "agent.control"
    return values.required(table, "control", _socket)


def store_place(table: Mapping[str, Any]) -> Path | None:
    """The store of a file's table, None for none. ProfileError."""
    if "store" not in table:
        return state_folder() / "agent.sqlite"
    return values.required(table, "store", _file_or_none)


def metrics_place(table: Mapping[str, Any]) -> Path | None:
    """The file for node_exporter of a file's table, None for none. ProfileError."""
    place = values.optional(table, "metrics_file", _file_or_none, None)
    if place is not None and place.suffix != ".prom":
        raise values.wrong("metrics_file", "node_exporter reads only files whose name ends in .prom")
    return place


def _socket(value: Any) -> Path | None:
    place = _file_or_none(value)
    if place is not None and len(str(place).encode()) > _LONGEST_SOCKET_NAME:
        raise ValueError(f"must be an absolute path of at most {_LONGEST_SOCKET_NAME} octets")
    return place


def _file_or_none(value: Any) -> Path | None:
    if values.text(value) == NONE:
        return None
    place = Path(value)
    if not place.is_absolute() or len(str(place).encode()) > _LONGEST:
        raise ValueError(f"must be an absolute path, or {NONE!r}")
    return place
