# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong, as types.

What a peer or the world does is never an exception above the edge of the program: the wire errors below are
caught where octets are decoded, the adapter errors where an effect is executed, and both become values there.
"""

from __future__ import annotations

import errno


class HomewardError(Exception):
    """Any failure that this program names itself."""


class WireError(HomewardError, ValueError):
    """Octets that are not a message we may act on; the receiver drops the datagram and counts it."""


class Truncated(WireError):
    """The octets end before the field that they announce."""


class TrailingOctets(WireError):
    """Octets are left over after the last field of a structure of fixed size."""


class BadExtension(WireError):
    """An extension that we understand, with content or in a number that its definition does not allow."""


class UnknownCriticalExtension(WireError):
    """An extension of type 1 to 127 that we do not understand: the whole message is dropped (RFC 5944 1.8)."""


class UnknownMessage(WireError):
    """The first octet names no message that this decoder reads."""


class BadChecksum(WireError):
    """Octets that were damaged on their way, or made by somebody who cannot count."""


class NotFromThisLink(WireError):
    """A message of agent discovery whose TTL shows that it may have come from elsewhere (RFC 3543 6.1)."""


class LocalProtocolError(HomewardError):
    """Our own code asked for something that the protocol forbids: a bug here, never the peer's doing."""


class AdapterError(HomewardError):
    """Something outside the program refused or failed.

    ``action`` says in words what was tried. ``cause`` is an errno (int), or a text: the other side's own
    code or sentence. A number that is no errno is given as text, so that it is never misnamed.
    """

    def __init__(self, action: str, cause: str | int) -> None:
        super().__init__(action, cause)
        self.action = action
        self.cause = cause

    def __str__(self) -> str:
        if isinstance(self.cause, int):
            return f"{self.action}: {errno.errorcode.get(self.cause, 'errno')} ({self.cause})"
        return f"{self.action}: {self.cause}"


class LinkError(AdapterError):
    """A network link could not be read or changed."""


class IkeError(AdapterError):
    """The IKE daemon refused or failed."""


class PlanError(AdapterError):
    """A part of the network plan could not be put in place or taken away."""


class NotPermitted(AdapterError):
    """The caller, or this process, lacks the right to do it."""


class Unavailable(AdapterError):
    """The thing outside is not there, or does not answer."""


class ProfileError(HomewardError):
    """A profile or a configuration file says something that cannot be used; the text names what and why."""
