# SPDX-License-Identifier: GPL-2.0-or-later
"""The decisions of the other side: home agent and foreign agent, as pure as the core."""
