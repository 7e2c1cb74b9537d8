# SPDX-License-Identifier: GPL-2.0-or-later
"""Homeward keeps a laptop's address and connections across the enterprise's edge (RFC 5266)."""

__version__ = "0.1.0"
