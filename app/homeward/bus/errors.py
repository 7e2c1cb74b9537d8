# SPDX-License-Identifier: GPL-2.0-or-later
"""What a call to the daemon can end in, the same types on both ends; every text says what to do next."""

from __future__ import annotations

from typing import ClassVar, Final

from homeward.bus.names import ERROR_PREFIX
from homeward.model.errors import HomewardError


class ServiceError(HomewardError):
    """The daemon refused or failed; the text is meant for the user's eyes.

    The service turns it into a D-Bus error of the name `wire_name`, the client turns that back into the type.
    """

    wire_name: ClassVar[str] = ERROR_PREFIX + "Failed"


class Refused(ServiceError):
    """The caller may not do that; the text says who may."""

    wire_name = ERROR_PREFIX + "NotPermitted"


class NoSuchProfile(ServiceError):
    """No profile has that name; the text lists those that there are."""

    wire_name = ERROR_PREFIX + "NoSuchProfile"


class BadProfile(ServiceError):
    """The profile's file cannot be used; the text says which key, what was found and what is allowed."""

    wire_name = ERROR_PREFIX + "BadProfile"


class SecretRefused(ServiceError):
    """The secret was not taken: nobody asked for it, it is the wrong one, or the caller is not its owner."""

    wire_name = ERROR_PREFIX + "SecretRefused"


class Failed(ServiceError):
    """It was allowed and did not work."""


class DaemonAbsent(HomewardError):
    """Nobody owns the daemon's name on this bus, or its owner does not answer."""


class BusUnreachable(HomewardError):
    """The bus itself cannot be reached."""


_BY_WIRE_NAME: Final[dict[str, type[ServiceError]]] = {
    kind.wire_name: kind for kind in (Refused, NoSuchProfile, BadProfile, SecretRefused, Failed)
}


def service_error(wire_name: str, text: str) -> ServiceError:
    """The typed error for a D-Bus error name; Failed for names that this program does not know."""
    return _BY_WIRE_NAME.get(wire_name, Failed)(text)
