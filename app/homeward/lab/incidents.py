# SPDX-License-Identifier: GPL-2.0-or-later
"""What can happen to the enterprise, or to the laptop's clock, while a story is played; the stagehand does it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kill:
    """A program of a host dies at once, without a word to anybody."""

    host: str
    service: str


@dataclass(frozen=True, slots=True)
class StartForeignAgent:
    """The foreign agent of a network starts, having forgotten everything."""

    network: str


@dataclass(frozen=True, slots=True)
class StartHomeAgent:
    """The home agent starts, and knows from its store whose bindings stood; one that only denied has ended."""


@dataclass(frozen=True, slots=True)
class DenyAll:
    """In the home agent's place answers one that signs a denial with this code, whatever it is asked."""

    code: int


@dataclass(frozen=True, slots=True)
class RebindWhileIdle:
    """The applications rest for so many seconds, and the network's NAT forgets all that it translated.

    From then on it takes other ports.
    """

    network: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SetClock:
    """The laptop's clock is set, so many seconds ahead of what it showed (behind, when negative)."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AskForHomeAddress:
    """The network's router asks by ARP, three times, who has the home address."""

    network: str


@dataclass(frozen=True, slots=True)
class RedirectToNobody:
    """The network's foreign agent tells the laptop by ICMP, three times, of a better router; there is none there."""

    network: str


@dataclass(frozen=True, slots=True)
class Follow:
    """The home agent's operator types what a chapter of docs/agents.md says, word by word."""

    chapter: str


@dataclass(frozen=True, slots=True)
class FindBinding:
    """The operator sees that the laptop's binding stands by this key, its only one."""

    spi: int


@dataclass(frozen=True, slots=True)
class FindBindingAfterReboot:
    """The operator sees that the binding stands and carries data, and that the laptop asked for nothing meanwhile."""

    spi: int


@dataclass(frozen=True, slots=True)
class FindNothing:
    """The operator sees that of the laptop there is no binding and no key, and nobody reaches it."""


@dataclass(frozen=True, slots=True)
class PlayRequestsAgain:
    """Somebody inside sends all requests again that he recorded so far; every one must be refused."""


@dataclass(frozen=True, slots=True)
class FindSilence:
    """The operator sees that nothing came from outside."""


OperatorsDoing = Follow | FindBinding | FindBindingAfterReboot | FindNothing | PlayRequestsAgain | FindSilence
"""What happens only where the story is an operator's."""

Incident = (
    Kill
    | StartForeignAgent
    | StartHomeAgent
    | DenyAll
    | RebindWhileIdle
    | SetClock
    | AskForHomeAddress
    | RedirectToNobody
    | OperatorsDoing
)
