# SPDX-License-Identifier: GPL-2.0-or-later
"""Load for a home agent: many mobile nodes that move all the time, from one process.

Each registration is authentic, co-located (D), comes from the care-of address that it names, and names another one
than the node's last. Every reply is verified. Nothing is sent anywhere but to the address that is given.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from ipaddress import IPv4Address, IPv4Network
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
from homeward.wire.identification import from_time
from homeward.wire.socket_options import IP_PKTINFO, LEVEL_IP

SPI: Final = 0x100
PATIENCE: Final = 1.0
"""Seconds after which a request without an answer counts as lost; mobile nodes wait that long at least (R-163)."""
LEAST_PREFIX: Final = 30

_BUFFER: Final = 1 << 22
_LONGEST: Final = 2048
_BATCH: Final = 64
_KEY_OCTETS: Final = 32
_PACKET_INFO: Final = struct.Struct("=i4s4s")
_CARE_OF_AT, _IDENTIFICATION_AT, _FIXED = 12, 16, 24  # in a request (RFC 5944 section 3.3)
_REPLY_IDENTIFICATION: Final = slice(12, 20)
_REPLY: Final = 3
_ACCEPTED: Final = (0, 1)
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
    """What came of it. Latencies in seconds, of accepted registrations, from sending to having the reply."""

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


class Load:
    """One socket, and all nodes behind it. Raises LabError, UsageError with what to do."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._associations, self._fixed = _associations_and_requests(plan)
        self._free = deque(range(len(self._fixed)))
        self._waiting: dict[bytes, tuple[int, float]] = {}
        self._care_of = int(plan.care_of.network_address) + 1
        self._last_care_of = int(plan.care_of.broadcast_address) - 1
        self._next_care_of = self._care_of
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._socket.bind(("0.0.0.0", 0))
        self._to = (str(plan.agent), REGISTRATION_PORT)
        self._buffer = bytearray(_LONGEST)
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
                self._take_answers()
                if wait > 0:
                    poll.poll(wait * 1000)
                self._give_up_before(time.perf_counter() - PATIENCE)
            outcome.seconds = time.perf_counter() - began
            while self._waiting and time.perf_counter() - began < outcome.seconds + PATIENCE:
                poll.poll(10)
                self._take_answers()
            outcome.lost += len(self._waiting)
        finally:
            self._socket.close()
            if collecting:
                gc.enable()
        return outcome

    def _is_enough(self) -> bool:
        count = self._plan.count
        return count is not None and self.outcome.accepted >= count

    def _send_due(self, passed: float) -> float:
        """Send what is due; how many seconds nothing is."""
        plan, outcome = self._plan, self.outcome
        left = None if plan.count is None else plan.count - outcome.accepted - len(self._waiting)
        if plan.rate is None:
            due = min(plan.in_flight - len(self._waiting), len(self._free))
        else:
            due = int(passed * plan.rate) - outcome.sent - outcome.unsent
            if due > len(self._free):
                outcome.unsent += due - len(self._free)
                due = len(self._free)
        if left is not None:
            due = min(due, left)
        for _ in range(min(due, _BATCH)):
            self._send_one()
        if due > _BATCH:
            return 0.0
        if plan.rate is None or left == 0:
            return 0.01
        return max(0.0, (outcome.sent + outcome.unsent + 1) / plan.rate - passed)

    def _send_one(self) -> None:
        number = self._free.popleft()
        care_of = self._next_care_of.to_bytes(4, "big")
        self._next_care_of = (
            self._care_of if self._next_care_of >= self._last_care_of else self._next_care_of + 1
        )
        fixed = self._fixed[number]
        if care_of == fixed[_CARE_OF_AT:_IDENTIFICATION_AT]:
            self._free.append(number)
            self._send_one()
            return
        identification = from_time(time.time(), self.outcome.sent).to_bytes(8, "big")
        fixed = self._fixed[number] = fixed[:_CARE_OF_AT] + care_of + identification
        octets = authenticate(fixed, self._associations[number])
        way = (LEVEL_IP, IP_PKTINFO, _PACKET_INFO.pack(0, care_of, b"\0\0\0\0"))
        self._waiting[identification] = number, time.perf_counter()
        try:
            self._socket.sendmsg([octets], [way], 0, self._to)
        except BlockingIOError:
            pass  # counts as lost
        except OSError as error:
            prefix = self._plan.care_of
            raise LabError(
                f"sending from {IPv4Address(care_of)} to {self._to[0]}: {error.strerror}. Is there a route, and is"
                f" {prefix} an address of this host? `ip route add local {prefix} dev lo` makes it one, and whoever"
                " answers needs a route to it"
            ) from error
        self.outcome.sent += 1

    def _take_answers(self) -> None:
        buffer = self._buffer
        for _ in range(_BATCH):
            try:
                size = self._socket.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError:  # the agent's host says that nobody is there
                continue
            self._take(bytes(memoryview(buffer)[:size]))

    def _take(self, octets: bytes) -> None:
        found = self._waiting.get(octets[_REPLY_IDENTIFICATION])
        if found is None and octets[:1] == bytes([_REPLY]):
            found = self._resynchronised(octets)
        if found is None:
            self.outcome.stray += 1
            return
        number, since = found
        association = self._associations[number]
        covered = octets[: -AUTHENTICATOR_OCTETS[association.algorithm] - 6]
        if authenticate(covered, association) != octets:
            self.outcome.forged += 1
            return
        del self._waiting[self._fixed[number][_IDENTIFICATION_AT:_FIXED]]
        self._free.append(number)
        self.outcome.codes[octets[1]] += 1
        if octets[1] in _ACCEPTED:
            self.outcome.latencies.append(time.perf_counter() - since)

    def _resynchronised(self, octets: bytes) -> tuple[int, float] | None:
        """A reply with code 133 has other high bits; the low ones are ours (RFC 5944 section 5.7.1)."""
        low = octets[16:20]
        return next((found for each, found in self._waiting.items() if each[4:] == low), None)

    def _give_up_before(self, moment: float) -> None:
        """Those that were sent first stand first."""
        for identification, (number, since) in self._waiting.items():
            if since >= moment:
                return
            del self._waiting[identification]
            self._free.append(number)
            self.outcome.lost += 1
            return


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


def _associations_and_requests(plan: Plan) -> tuple[list[MobilitySecurityAssociation], list[bytes]]:
    """Of each node its association and the fixed part of its next request."""
    try:
        nodes: Sequence[Node] = read_nodes(plan.nodes, owner=os.geteuid())
    except ProfileError as error:
        raise UsageError(f"{error}; --write-nodes makes such a file") from error
    if plan.care_of.prefixlen > LEAST_PREFIX:
        raise UsageError(f"{plan.care_of} has no room to move in: a prefix of {LEAST_PREFIX} bits at most")
    usable = [
        node
        for node in nodes
        if node.home_address is not None and node.replay is ReplayStyle.TIMESTAMPS and not node.retired
    ]
    if not usable:
        raise UsageError(f"{plan.nodes} has no node with a home address of its own and time stamps")
    fixed = []
    for node in usable:
        assert node.home_address is not None
        request = RegistrationRequest(
            plan.lifetime,
            node.home_address,
            home_agent=plan.agent,
            care_of_address=IPv4Address(0),
            identification=Identification(0),
            flags=RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL,
        )
        fixed.append(registration.encode_request(request, node.association)[:_FIXED])
    return [node.association for node in usable], fixed


def as_json(outcome: Outcome) -> str:
    """One line."""
    return json.dumps(outcome.plain())
