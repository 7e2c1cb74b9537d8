# SPDX-License-Identifier: GPL-2.0-or-later
"""What a driver starts when its agent is ready and stops before anything else of it."""

from __future__ import annotations

from typing import Protocol


class Companion(Protocol):
    """Something that lives beside an agent, on the same event loop."""

    def start(self) -> None:
        """Begin. Raises AdapterErrors; then the agent does not start either."""
        ...

    def stop(self) -> None:
        """End; also when it never began."""
        ...
