# SPDX-License-Identifier: GPL-2.0-or-later
"""The running agent, as commands find it: by the control socket that the configuration names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from homeward.agentd import toml_values
from homeward.agentd.control_client import AgentAbsent, ask
from homeward.agentd.places import control_place, runtime_folder


def control_of(config: Path) -> Path | None:
    """The socket. What else may be wrong with the configuration is no matter; without any, the usual place."""
    if not config.exists():
        place = runtime_folder() / "agent.control"
        if place.exists():
            return place
    return control_place(toml_values.read_table(config, owner=os.geteuid()))


def reload(config: Path) -> str | None:
    """Have the running agent take the configuration over; None when it did, else what to tell about it.

    OrderRefused when it did not want to: then it goes on as before.
    """
    try:
        ask(control_of(config), "reload")
    except AgentAbsent:
        return "no agent answers here; it takes this over when one starts"
    return None


def try_order(config: Path, order: str, **fields: object) -> dict[str, Any] | None:
    """An order to the agent, if there is one; None when nobody answers."""
    try:
        return ask(control_of(config), order, **fields)
    except AgentAbsent:
        return None
