# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward-tray: the icon, its menu and the secret agent in the user's session."""
