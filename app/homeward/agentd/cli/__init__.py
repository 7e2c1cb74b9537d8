# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward-agent: the commands of whoever operates an agent."""
