# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward: the command line, which shows the daemon's snapshot and passes on what the user wants."""
