# SPDX-License-Identifier: GPL-2.0-or-later
"""The decisions of the mobile node; pure: no I/O, no clock, no randomness of its own."""
