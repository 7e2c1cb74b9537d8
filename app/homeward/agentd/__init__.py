# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward-agent: the process around the home agent's decisions."""
