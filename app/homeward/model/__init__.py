# SPDX-License-Identifier: GPL-2.0-or-later
"""The vocabulary: frozen values, enums and errors that every other layer speaks in; no I/O and no clock."""
