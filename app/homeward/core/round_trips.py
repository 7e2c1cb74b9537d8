# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the home agent's answers took, by network: what is waited for, and how old a proof may be."""

MINIMUM_ROUND_TRIPS = 4
"""A proof may be this many round trips old, however slow the path (X-27)."""
REMEMBERED_NETWORKS = 64


class RoundTrips:
    """Round trips of proofs in clear, in seconds; those through the VPN do not count."""

    def __init__(self) -> None:
        self._by_network: dict[object, float] = {}
        self._shortest: float | None = None

    def on(self, network: object) -> float | None:
        """The last one on this network."""
        return self._by_network.get(network)

    def remember(self, network: object, round_trip: float) -> None:
        """A proof took this long. Networks seen longest ago are forgotten."""
        # Of a proof's age only the shortest counts: whoever delays answers must not widen his own window.
        self._shortest = min(round_trip, self._shortest or round_trip)
        self._by_network.pop(network, None)
        self._by_network[network] = round_trip
        if len(self._by_network) > REMEMBERED_NETWORKS:
            del self._by_network[next(iter(self._by_network))]

    def oldest_proof(self, configured: float) -> float:
        """How old, in seconds, a request may be for its reply to prove anything; bounds a relay's window (X-27)."""
        return max(configured, MINIMUM_ROUND_TRIPS * (self._shortest or 0.0))
