# SPDX-License-Identifier: GPL-2.0-or-later
"""Load for a home agent: many mobile nodes that move all the time, from one process.

Each registration is authentic, co-located (D), comes from the care-of address that it names, and names another one
than the node's last. Every reply is verified. Nothing is sent anywhere but to the address that is given.
"""

from __future__ import annotations

import gc
import hmac
import json
import os
import select
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from homeward.agentd.nodes_file import read_nodes
from homeward.agents.policy import Node
from homeward.lab.errors import LabError, UsageError
from homeward.model.errors import ProfileError
from homeward.model.names import REGISTRATION_PORT
from homeward.model.profile import ReplayStyle
from homeward.model.registration import (
    AuthenticationAlgorithm,
    Identification,
    MobilitySecurityAssociation,
    RegistrationRequest,
    RequestFlags,
)
from homeward.model.reply_codes import sentence_for
from homeward.wire import registration
from homeward.wire.authenticator import AUTHENTICATOR_OCTETS, authenticate
from homeward.wire.identification import NTP_TO_UNIX_SECONDS
from homeward.wire.socket_options import IP_PKTINFO, LEVEL_IP, SO_TIMESTAMPNS

SPI: Final = 0x100
PATIENCE: Final = 1.0
"""Seconds after which a request without an answer counts as lost; mobile nodes wait that long at least (R-163)."""
LEAST_PREFIX: Final = 30

_BUFFER: Final = 1 << 22
_LONGEST: Final = 2048
_BATCH: Final = 64
_PAUSE: Final = 0.01
_MOST_UNPROVED: Final = 500_000
_KEY_OCTETS: Final = 32
_CARE_OF_AT, _FIXED = 12, 24  # in a request (RFC 5944 section 3.3)
_OVERHEAD: Final = 6  # of an authentication extension, up to its authenticator
_UNIX_IN_NTP: Final = NTP_TO_UNIX_SECONDS << 32
_STAMP_MASK: Final = (1 << 64) - 1
_DIGESTS: Final = {AuthenticationAlgorithm.HMAC_SHA256: "sha256", AuthenticationAlgorithm.HMAC_MD5: "md5"}
_REPLY_IDENTIFICATION: Final = slice(12, 20)
_REPLY: Final = b"\3"
_ACCEPTED: Final = (0, 1)
_TIME: Final = struct.Struct("=qq")  # struct timespec
_ANCILLARY: Final = socket.CMSG_SPACE(_TIME.size)
_PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: `rate` in registrations per second, None for as fast as answers come with `in_flight` under way.

    It ends after `seconds`, or after `count` registrations where that is given.
    """

    agent: IPv4Address
    nodes: Path
    _: KW_ONLY
    care_of: IPv4Network
    rate: float | None = None
    in_flight: int = 128
    seconds: float = 10.0
    count: int | None = None
    lifetime: int = 1800


@dataclass(slots=True)
class Outcome:
    """What came of it. Latencies in seconds, of accepted registrations, from sending until the reply has arrived.

    Arrived is what its kernel says: how long a reply then waits for us is not the agent's doing.
    """

    seconds: float = 0.0
    sent: int = 0
    unsent: int = 0
    """Were due by the rate while every node still waited for an answer."""
    lost: int = 0
    stray: int = 0
    """Answers to nothing that still waited: they were late, or came twice."""
    forged: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """How many were accepted."""
        return len(self.latencies)

    def per_second(self) -> float:
        """Accepted registrations per second."""
        return self.accepted / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float | None:
        """The latency that so many of a hundred do not exceed, in milliseconds."""
        if not self.latencies:
            return None
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] * 1000

    def plain(self) -> dict[str, Any]:
        """For JSON; times in milliseconds but for `seconds`."""
        shares = {f"p{share:g}_ms": self.percentile(share) for share in (*_PERCENTILES, 100.0)}
        return {
            "seconds": round(self.seconds, 3),
            "sent": self.sent,
            "unsent": self.unsent,
            "accepted": self.accepted,
            "accepted_per_second": round(self.per_second(), 1),
            "denied": {
                str(code): count for code, count in sorted(self.codes.items()) if code not in _ACCEPTED
            },
            "lost": self.lost,
            "stray": self.stray,
            "forged": self.forged,
            **{name: None if value is None else round(value, 3) for name, value in shares.items()},
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        plain = self.plain()
        denied = plain.pop("denied")
        for name, value in plain.items():
            yield f"{name.replace('_', ' '):>22}  {'–' if value is None else value}"
        for code, count in denied.items():
            yield f"{f'denied, code {code}':>22}  {count}  {sentence_for(int(code))}"


@dataclass(slots=True)
class _Requester:
    """One node: what its requests have in common, in parts, and what is under way."""

    association: MobilitySecurityAssociation
    key: bytes = field(repr=False)
    digest: str
    beginning: bytes
    ending: bytes
    care_of: bytes = b""
    identification: bytes = b""

    @classmethod
    def of(cls, node: Node, plan: Plan) -> _Requester:
        assert node.home_address is not None
        request = RegistrationRequest(
            plan.lifetime,
            node.home_address,
            home_agent=plan.agent,
            care_of_address=IPv4Address(0),
            identification=Identification(0),
            flags=RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL,
        )
        octets = registration.encode_request(request, node.association)
        return cls(
            node.association,
            node.association.key.reveal(),
            _DIGESTS[node.association.algorithm],
            octets[:_CARE_OF_AT],
            octets[_FIXED : _FIXED + _OVERHEAD],
        )


class Load:
    """One socket, and all nodes behind it. Raises LabError, UsageError with what to do.

    What it does for each request is done here on the spot and with few calls: it has to be faster than any agent.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._nodes = _requests(plan)
        self._free = deque(range(len(self._nodes)))
        self._waiting: dict[bytes, tuple[int, float]] = {}
        self._unproved: deque[tuple[int, bytes]] = deque()
        self._first_care_of = int(plan.care_of.network_address) + 1
        self._care_of_addresses = plan.care_of.num_addresses - 2
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind(("0.0.0.0", 0))
        self._to = (str(plan.agent), REGISTRATION_PORT)
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Do it."""
        plan, outcome = self._plan, self.outcome
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        collecting = gc.isenabled()
        gc.disable()  # its pauses would look like the agent's
        began = time.perf_counter()
        try:
            while (passed := time.perf_counter() - began) < plan.seconds and not self._is_enough():
                wait = self._send_due(passed)
                if not self._take_answers() and wait > 0:
                    self._prove(_BATCH)
                    poll.poll(wait * 1000)
                self._give_up_before(time.time() - PATIENCE)
            outcome.seconds = time.perf_counter() - began
            while self._waiting and time.perf_counter() - began < outcome.seconds + PATIENCE:
                poll.poll(10)
                self._take_answers()
            outcome.lost += len(self._waiting)
            self._prove(len(self._unproved))
        finally:
            self._socket.close()
            if collecting:
                gc.enable()
        return outcome

    def _is_enough(self) -> bool:
        count = self._plan.count
        return count is not None and self.outcome.accepted >= count

    def _send_due(self, passed: float) -> float:
        """Send what is due; for how many seconds nothing more is."""
        plan, outcome = self._plan, self.outcome
        if plan.rate is None:
            due = min(plan.in_flight - len(self._waiting), len(self._free))
        else:
            due = int(passed * plan.rate) - outcome.sent - outcome.unsent
            if due > len(self._free):
                outcome.unsent += due - len(self._free)
                due = len(self._free)
        if plan.count is not None:
            due = min(due, plan.count - outcome.accepted - len(self._waiting))
        self._send(min(due, _BATCH))
        if due > _BATCH:
            return 0.0
        if plan.rate is None:
            return _PAUSE
        return min(_PAUSE, max(0.0, (outcome.sent + outcome.unsent + 1) / plan.rate - passed))

    def _send(self, count: int) -> None:
        """So many requests, each from and for another care-of address."""
        first, size = self._first_care_of, self._care_of_addresses
        for sent in range(self.outcome.sent, self.outcome.sent + count):
            number = self._free.popleft()
            node = self._nodes[number]
            care_of = (first + sent % size).to_bytes(4, "big")
            if care_of == node.care_of:
                care_of = (first + (sent + 1) % size).to_bytes(4, "big")
            node.care_of = care_of
            # A time stamp of now (RFC 5944 section 5.7.1); what stands below a microsecond tells requests apart.
            stamp = ((time.time_ns() << 20) // 1_000_000_000 << 12) + (sent & 0xFFF) + _UNIX_IN_NTP
            node.identification = identification = (stamp & _STAMP_MASK).to_bytes(8, "big")
            covered = node.beginning + care_of + identification + node.ending
            octets = covered + hmac.digest(node.key, covered, node.digest)
            way = (LEVEL_IP, IP_PKTINFO, b"\0\0\0\0" + care_of + b"\0\0\0\0")
            self._waiting[identification] = number, time.time()
            try:
                self._socket.sendmsg((octets,), (way,), 0, self._to)
            except BlockingIOError:
                pass  # counts as lost
            except OSError as error:
                raise LabError(_unsendable(error, care_of, self._plan)) from error
        self.outcome.sent += max(0, count)

    def _take_answers(self) -> int:
        """What has arrived; how much it was."""
        for taken in range(_BATCH):
            try:
                octets, around, _, _ = self._socket.recvmsg(_LONGEST, _ANCILLARY)
            except BlockingIOError:
                return taken
            except OSError:  # the agent's host says that nobody is there
                continue
            found = self._waiting.get(octets[_REPLY_IDENTIFICATION])
            if found is None and octets[:1] == _REPLY:
                found = self._resynchronised(octets)
            if found is None:
                self.outcome.stray += 1
                continue
            number, since = found
            del self._waiting[self._nodes[number].identification]
            self._free.append(number)
            self._unproved.append((number, octets))
            self.outcome.codes[octets[1]] += 1
            if octets[1] in _ACCEPTED:
                seconds, nanoseconds = _TIME.unpack(around[0][2])
                self.outcome.latencies.append(seconds - since + nanoseconds / 1e9)
        if len(self._unproved) > _MOST_UNPROVED:
            self._prove(_MOST_UNPROVED)
        return _BATCH

    def _prove(self, count: int) -> None:
        """Verify answers: as long as there is something better to do, later."""
        for _ in range(min(count, len(self._unproved))):
            number, octets = self._unproved.popleft()
            association = self._nodes[number].association
            covered = octets[: -_OVERHEAD - AUTHENTICATOR_OCTETS[association.algorithm]]
            if authenticate(covered, association) != octets:
                self.outcome.forged += 1

    def _resynchronised(self, octets: bytes) -> tuple[int, float] | None:
        """A reply with code 133 has other high bits; the low ones are ours (RFC 5944 section 5.7.1)."""
        low = octets[16:20]
        return next((found for each, found in self._waiting.items() if each[4:] == low), None)

    def _give_up_before(self, moment: float) -> None:
        """Those that were sent first stand first."""
        late = list(takewhile(lambda each: each[1][1] < moment, self._waiting.items()))
        for identification, (number, _) in late:
            del self._waiting[identification]
            self._free.append(number)
        self.outcome.lost += len(late)


def write_nodes(place: Path, count: int, homes: IPv4Network) -> None:
    """Write so many nodes with new keys, one home address of the prefix each. UsageError, LabError."""
    if count < 1 or count > homes.num_addresses - 2:
        raise UsageError(f"{homes} has room for {homes.num_addresses - 2} nodes, not for {count}")
    algorithm = AuthenticationAlgorithm.HMAC_SHA256.value
    try:
        descriptor = os.open(
            place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise LabError(f"writing {place}: {error.strerror}; an existing file is left alone") from error
    first = int(homes.network_address) + 1
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        for number in range(count):
            key = os.urandom(_KEY_OCTETS).hex()
            file.write(f"load-{number} {IPv4Address(first + number)} {SPI:#x} {algorithm} hex:{key}\n")


def _requests(plan: Plan) -> list[_Requester]:
    """All nodes, ready to ask."""
    try:
        nodes: Iterable[Node] = read_nodes(plan.nodes, owner=os.geteuid())
    except ProfileError as error:
        raise UsageError(f"{error}; --write-nodes makes such a file") from error
    if plan.care_of.prefixlen > LEAST_PREFIX:
        raise UsageError(f"{plan.care_of} has no room to move in: a prefix of {LEAST_PREFIX} bits at most")
    usable = [_Requester.of(node, plan) for node in nodes if _is_usable(node)]
    if not usable:
        raise UsageError(
            f"{plan.nodes} has no node with a home address of its own, time stamps and"
            f" {' or '.join(each.value for each in _DIGESTS)}"
        )
    return usable


def _is_usable(node: Node) -> bool:
    return (
        node.home_address is not None
        and node.replay is ReplayStyle.TIMESTAMPS
        and not node.retired
        and node.association.algorithm in _DIGESTS
    )


def _unsendable(error: OSError, care_of: bytes, plan: Plan) -> str:
    return (
        f"sending from {IPv4Address(care_of)} to {plan.agent}: {error.strerror}. Is there a route, and is"
        f" {plan.care_of} an address of this host? `ip route add local {plan.care_of} dev lo` makes it one, and"
        " whoever answers needs a route to it"
    )


def as_json(outcome: Outcome) -> str:
    """One line."""
    return json.dumps(outcome.plain())
