# SPDX-License-Identifier: GPL-2.0-or-later
"""What is put into the kernel's routing for agents: a home agent's routes into its device, a foreign agent's ways."""
