# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of links under /proc/sys/net; those of other people's links are put back at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from homeward.adapters.netlink_routes.rtnetlink import refusal

_SYSCTL: Final = Path("/proc/sys/net")


class LinkSettings:
    """Sets, and remembers what was there before."""

    def __init__(self) -> None:
        self._before: dict[Path, str] = {}

    def put(self, name: str, value: str, *, keep: bool, optional: bool = False) -> None:
        """Write a setting; with `keep`, note the value before, to be put back. Raises PlanError, NotPermitted.

        An `optional` one may be missing: a kernel without IPv6 has none of its settings.
        """
        path = _SYSCTL / name
        if optional and not path.exists():
            return
        try:
            before = path.read_text()
            if before.strip() == value:
                return
            path.write_text(value)
        except OSError as error:
            raise refusal(f"setting {path} to {value}", error.errno or 0) from error
        if keep:
            self._before.setdefault(path, before)

    def loosen(self, link: str, *, keep: bool) -> None:
        """Let packets come in by a link although the way back to their source leads elsewhere. Raises as `put`.

        The kernel goes by the larger one of the link's own value and that for all links.
        """
        values = [int((_SYSCTL / f"ipv4/conf/{each}/rp_filter").read_text()) for each in ("all", link)]
        if max(values) == 1:
            self.put(f"ipv4/conf/{link}/rp_filter", "2", keep=keep)

    def put_back(self) -> None:
        """Give the links that are still there their settings back."""
        for path, value in self._before.items():
            if path.exists():
                path.write_text(value)
        self._before.clear()
