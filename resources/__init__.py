# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that the programs read at run time; installed as `homeward.data` and read by importlib.resources only."""
