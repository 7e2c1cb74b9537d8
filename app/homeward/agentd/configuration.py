# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent's file, whichever role it is for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from homeward.agentd import foreign_settings, toml_values
from homeward.agentd import settings as home_settings
from homeward.agentd.foreign_settings import ForeignSettings
from homeward.agentd.settings import AgentSettings
from homeward.model.errors import ProfileError

Settings: TypeAlias = AgentSettings | ForeignSettings


def load(path: Path) -> Settings:
    """What the file says, with the keys read. ProfileError, which begins with the file's name.

    It and what it names belong to root, and the secrets among them to whoever runs this.
    """
    owner = os.geteuid()
    table = toml_values.read_table(path, owner=owner)
    known = home_settings.ROLE, foreign_settings.ROLE
    role = table.get("role", home_settings.ROLE)
    try:
        if role == home_settings.ROLE:
            return home_settings.settings_of(table, path.parent, owner=owner, source=path)
        if role == foreign_settings.ROLE:
            return replace(foreign_settings.settings_of(table, path.parent, owner=owner), source=path)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error
    raise ProfileError(f"{path}: role {role!r} is not known{toml_values.nearest(str(role), known)}")


def role_of(settings: Settings) -> str:
    """The word for it: home or foreign."""
    return foreign_settings.ROLE if isinstance(settings, ForeignSettings) else home_settings.ROLE
