# SPDX-License-Identifier: GPL-2.0-or-later
"""The home agent's memories in one SQLite file."""

from homeward.adapters.sqlite_agent_store.store import (
    VERSION,
    SqliteAgentStore,
    StoreFacts,
    check,
    make_safe,
)

__all__ = ["VERSION", "SqliteAgentStore", "StoreFacts", "check", "make_safe"]
