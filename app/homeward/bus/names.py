# SPDX-License-Identifier: GPL-2.0-or-later
"""What both ends of the bus must spell alike, and the bounds that the service puts on its callers."""

from typing import Final

from homeward.model.names import BUS_INTERFACE, BUS_NAME, BUS_PATH

__all__ = [
    "ADDRESS_VARIABLE",
    "BUS_INTERFACE",
    "BUS_NAME",
    "BUS_PATH",
    "DRIVER_INTERFACE",
    "DRIVER_NAME",
    "DRIVER_PATH",
    "ERROR_PREFIX",
    "MAXIMUM_MESSAGE_OCTETS",
    "MAXIMUM_NAME_CHARACTERS",
    "MAXIMUM_SECRET_OCTETS",
    "PROPERTIES_INTERFACE",
]

ADDRESS_VARIABLE: Final = "HOMEWARD_BUS"
"""Environment variable: which bus the daemon is on, when the command line does not say."""

ERROR_PREFIX: Final = "org.homeward.Error."

DRIVER_NAME: Final = "org.freedesktop.DBus"
DRIVER_PATH: Final = "/org/freedesktop/DBus"
DRIVER_INTERFACE: Final = "org.freedesktop.DBus"
PROPERTIES_INTERFACE: Final = "org.freedesktop.DBus.Properties"

MAXIMUM_MESSAGE_OCTETS: Final = 64 * 1024
"""A longer message is thrown away unread: a bus lets any local user send 32 MiB, and unpacking that takes a second."""
MAXIMUM_NAME_CHARACTERS: Final = 128
"""Longest profile name or secret reference that a caller may give."""
MAXIMUM_SECRET_OCTETS: Final = 4096
