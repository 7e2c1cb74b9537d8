# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps a translator's state for a tunnel in UDP, and notices when it is lost (RFC 3519 4.9, 4.10)."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Final

from homeward.core.clock_sync import Entropy
from homeward.model.errors import WireError
from homeward.model.nat_traversal import KEEPALIVE_DEFAULT, KEEPALIVE_LEAST, TunnelKind
from homeward.wire.echo import Echo, decode_echo, encode_echo
from homeward.wire.udp_tunnel import unwrap, wrap

TRIES: Final = 4
"""Echo requests without an answer after which the tunnel counts as dead."""
FIRST_WAIT: Final = 1.0
"""Seconds after the first of them; doubled each time, so that a lost tunnel is noticed 15 s after its keepalive."""


class Keepalive:
    """Echoes through the tunnel in UDP of one binding.

    One leaves every interval, whether or not data went the same way: they also tell that the way back is open (R-237).
    All times are boot seconds. The interval is the home agent's, or the configured one where it names none (R-236);
    it is halved each time a tunnel died, and the original again after a move (R-238).
    """

    def __init__(
        self,
        home_address: IPv4Address,
        home_agent: IPv4Address,
        entropy: Entropy,
        *,
        configured: int = KEEPALIVE_DEFAULT,
    ) -> None:
        self._ends = (home_address, home_agent)
        self._entropy = entropy
        self._configured = configured
        self._kind = TunnelKind.IP_IN_IP
        self._shortened: float | None = None
        self._requests: list[Echo] = []
        self._wait = FIRST_WAIT
        self.interval = float(max(configured, KEEPALIVE_LEAST))
        """Seconds between keepalives at present."""
        self.deadline: float | None = None
        """When `due` has something to do; None while no tunnel in UDP stands, or a dead one is not replaced."""
        self.is_dead = False
        """Nothing came back: the binding is to be registered anew, which opens the translator again."""

    def registered(
        self, granted: int, sent: float, *, kind: TunnelKind = TunnelKind.IP_IN_IP, at_once: bool = False
    ) -> None:
        """The home agent granted a tunnel in UDP with this interval (0: ours) to a request sent at `sent`.

        `at_once` where a foreign agent demanded to be registered through: the first echo shows the home agent the port
        (R-235).
        """
        if self.is_dead:
            self._shortened = max(self.interval / 2, KEEPALIVE_LEAST)
        original = float(max(granted or self._configured, KEEPALIVE_LEAST))
        self.interval = original if self._shortened is None else min(original, self._shortened)
        self._kind = kind
        self._stand_by(sent if at_once else sent + self.interval)

    def moved(self) -> None:
        """Another network, maybe another translator: the original interval holds again, once registered (R-238)."""
        self._shortened = None
        self.stop()

    def stop(self) -> None:
        """There is no tunnel in UDP any more."""
        self._stand_by(None)

    def _stand_by(self, deadline: float | None) -> None:
        self._requests.clear()
        self._wait = FIRST_WAIT
        self.is_dead = False
        self.deadline = deadline

    def due(self, at: float) -> bytes | None:
        """The MIP Tunnel Data message to send now, from the tunnel's own port; `is_dead` after the last try."""
        if self.deadline is None or at < self.deadline:
            return None
        if len(self._requests) == TRIES:
            self.is_dead = True
            self.deadline = None
            return None
        source, destination = self._ends
        draw = self._entropy()
        unguessable = self._entropy().to_bytes(4, "big") + self._entropy().to_bytes(4, "big")
        request = Echo(source, destination, draw >> 16 & 0xFFFF, draw & 0xFFFF, data=unguessable)
        self._requests.append(request)
        self.deadline = at + self._wait
        self._wait *= 2
        return wrap(encode_echo(request, packet_identification=draw & 0xFFFF), self._kind)

    def answered(self, octets: bytes, at: float) -> bool:
        """Whether this MIP Tunnel Data message is the home agent's answer to one of the last echoes.

        Whence it came is the caller's to check. An answer that is late, after the tunnel counted as dead, counts not.
        """
        if not self._requests or self.is_dead:
            return False
        try:
            reply = decode_echo(unwrap(octets, self._kind))
        except WireError:
            return False
        if not any(reply.answers(request) for request in self._requests):
            return False
        self._stand_by(at + self.interval)
        return True
