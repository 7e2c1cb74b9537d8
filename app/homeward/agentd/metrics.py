# SPDX-License-Identifier: GPL-2.0-or-later
"""How often things happened, by whom, and which of them are worth a line in the log now."""

from __future__ import annotations

from collections import Counter
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Final

BURST: Final = 5
"""So many lines of one code are written at once ..."""
REFILL_SECONDS: Final = 10.0
"""... and one more each time so many seconds have passed. A flood fills no disk, and a new fault is never drowned."""
SOURCE_PREFIX: Final = 24
"""Violations are told apart by prefixes of so many bits: forged sources would only fill a finer grid."""
SOURCES: Final = 256
"""So many pairs of kind and prefix are remembered."""

_REPLY: Final = bytes([3])  # Registration Reply (RFC 5944 section 3.4)
_KINDS: Final = {
    "wrong-interface": (
        "request-from-outside-interface",
        "tunnel-packet-from-outside-interface",
        "tunnel-packet-from-other-interface",
        "datagram-from-other-interface",
    ),
    "wrong-source": (
        "request-from-untrusted-source",
        "untrusted-care-of-address",
        "request-from-wrong-source",
    ),
    "forged-authenticator": (
        "wrong-authenticator",
        "foreign-agent-failed-authentication",
        "mobile-foreign-authentication-failed",
        "server-authentication-failed",
        "foreign-home-authentication-failed",
    ),
    "unknown-association": (
        "no-authentication",
        "unknown-association",
        "foreign-agent-without-association",
        "retired-association",
    ),
    "replay": ("identification-mismatch", "copied-request"),
    "relayed-request": ("relayed-request",),
    "spoofed-tunnel-packet": (
        "reverse-tunnel-spoofed",
        "reverse-tunnel-not-granted",
        "encapsulation-not-agreed",
        "stray-keepalive",
        "visitor-spoofed",
        "tunnel-packet-not-from-the-home-agent",
        "tunnel-packet-of-another-kind",
    ),
    "forged-revocation": ("revocation-refused", "stray-revocation-acknowledgment", "bad-revocation"),
}
VIOLATIONS: Final = {code: kind for kind, codes in _KINDS.items() for code in codes}
"""What somebody did who should not have, by the code that counts it. `replay` also has clocks that are wrong."""


class Metrics:
    """Counts by code, limits how often each code is logged, and remembers where violations come from.

    `replies` counts Registration Replies by their code (RFC 5944 section 3.4).
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.replies: Counter[int] = Counter()
        self._buckets: dict[str, tuple[float, float]] = {}
        self._suppressed: Counter[str] = Counter()
        self._sources: dict[tuple[str, int], int] = {}

    def count(
        self,
        code: str,
        boot: float,
        *,
        source: IPv4Address | str | None = None,
        burst: float = BURST,
        refill_seconds: float = REFILL_SECONDS,
    ) -> int | None:
        """Count one event. Returns how many like it went unlogged since the last line if this one may be logged,
        None if it may not. `source` is who did it, as far as its packet says."""
        self.counts[code] += 1
        if source is not None and code in VIOLATIONS:
            self._remember(VIOLATIONS[code], source)
        tokens, since = self._buckets.get(code, (burst, boot))
        tokens = min(burst, tokens + (boot - since) / refill_seconds)
        if tokens < 1:
            self._buckets[code] = (tokens, boot)
            self._suppressed[code] += 1
            return None
        self._buckets[code] = (tokens - 1, boot)
        return self._suppressed.pop(code, 0)

    def replied(self, octets: bytes) -> None:
        """Count a message that was sent from port 434; of Registration Replies also the code."""
        self.counts["replies"] += 1
        if octets[:1] == _REPLY:
            self.replies[octets[1]] += 1

    def violations(self) -> dict[str, int]:
        """How often each kind of violation happened, all sources together, exactly."""
        found: Counter[str] = Counter()
        for code, number in self.counts.items():
            if code in VIOLATIONS:
                found[VIOLATIONS[code]] += number
        return dict(sorted(found.items()))

    def sources(self, most: int = 20) -> list[tuple[str, IPv4Network, int]]:
        """The busiest prefixes: kind, prefix, and how many violations of it there were at least."""
        busiest = sorted(self._sources.items(), key=lambda item: (-item[1], item[0]))[:most]
        return [(kind, IPv4Network((prefix, SOURCE_PREFIX)), number) for (kind, prefix), number in busiest]

    def _remember(self, kind: str, source: IPv4Address | str) -> None:
        """The algorithm of Misra and Gries: whoever makes up sources cannot push a busy one out, nor fill memory."""
        try:
            source = IPv4Address(source)
        except AddressValueError:  # of a packet too short to have one
            return
        key = (kind, int(source) >> (32 - SOURCE_PREFIX) << (32 - SOURCE_PREFIX))
        if key in self._sources or len(self._sources) < SOURCES:
            self._sources[key] = self._sources.get(key, 0) + 1
            return
        self._sources = {each: number - 1 for each, number in self._sources.items() if number > 1}
