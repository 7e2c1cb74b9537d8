# SPDX-License-Identifier: GPL-2.0-or-later
"""What the mobile node does about each code of a Registration Reply, and what it tells the user (R-154 to R-159).

A foreign agent's codes are hints at most (R-150): all that they lead to is another request along a path that was
proved trusted without them, or leaving the agent. Who wrote the reply, and whether it is signed, is checked before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from homeward.model.encapsulation import Encapsulation
from homeward.model.reply_codes import ReplyCode, is_from_foreign_agent, sentence_for


class Action(Enum):
    """What to do next. Every one of the repeating actions is worth one new series for each attachment, not more."""

    ACCEPTED = "accepted"
    """The registration stands."""
    RESYNCHRONISE = "resynchronise"
    """Follow the home agent's clock or nonce, and ask again."""
    RETRY_WITH_LIFETIME = "retry-with-lifetime"
    """Ask again for no longer than the reply's lifetime."""
    CHANGE_ENCAPSULATION = "change-encapsulation"
    """Ask again for IP-in-IP, which every agent offers (R-233)."""
    WITHOUT_DELIVERY_STYLE = "without-delivery-style"
    """Ask again for direct delivery (R-215)."""
    WITHOUT_FORCED_UDP = "without-forced-udp"
    """Ask again and leave it to the home agent whether a tunnel in UDP is needed (R-234)."""
    WITHOUT_UDP_TUNNEL = "without-udp-tunnel"
    """Ask again without a UDP Tunnel Request."""
    WITHOUT_NAI = "without-nai"
    """Ask again by the home address alone."""
    NEW_CHALLENGE = "new-challenge"
    """Answer another challenge, never an older one (R-276); ask for one where none is there."""
    TRY_OTHER_CARE_OF = "try-other-care-of"
    """Ask the same agent for the next care-of address that it advertises (R-114)."""
    NEEDS_HOME_ADDRESS = "needs-home-address"
    """This agent cannot serve a node without a home address: have one assigned along another path first."""
    BUSY_RETRY_LATER = "busy-retry-later"
    """No room now: keep away for a while, then ask again."""
    LEAVE_AGENT = "leave-agent"
    """This foreign agent is of no use now: another one, or a care-of address of our own."""
    ADMINISTRATOR = "administrator"
    """Somebody has to change something: ask again rarely, and say so."""
    GIVE_UP = "give-up"
    """Denied for no reason that anything could be done about: ask again rarely."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the denied request contained, as far as a code can be about it.

    `encapsulation` is what was asked for, with flags or inside UDP; `has_home_address` is false where one was to be
    assigned.
    """

    through_agent: bool = False
    encapsulation: Encapsulation = Encapsulation.IP_IN_IP
    udp_tunnel: bool = False
    forced_udp: bool = False
    nai: bool = False
    has_home_address: bool = True
    delivery_style: bool = False


@dataclass(frozen=True, slots=True)
class Reaction:
    """What follows from a code. `sentence` is what the agent said, `advice` what the user can do about it.

    `is_security_exception`: somebody could not be authenticated, which is to be logged as such (R-158).
    """

    code: int
    action: Action
    sentence: str
    advice: str
    is_security_exception: bool


_SECURITY: Final = frozenset({67, 68, 104, 107, 108, 109, 131, 132, 144})

_ALWAYS: Final[dict[int, Action]] = {
    0: Action.ACCEPTED,
    1: Action.ACCEPTED,  # One care-of address only, which is all that we ever ask for.
    66: Action.BUSY_RETRY_LATER,
    69: Action.RETRY_WITH_LIFETIME,
    77: Action.TRY_OTHER_CARE_OF,
    104: Action.NEW_CHALLENGE,
    105: Action.NEW_CHALLENGE,
    106: Action.NEW_CHALLENGE,
    108: Action.NEW_CHALLENGE,
    128: Action.BUSY_RETRY_LATER,
    130: Action.BUSY_RETRY_LATER,
    131: Action.ADMINISTRATOR,
    132: Action.LEAVE_AGENT,
    133: Action.RESYNCHRONISE,
    134: Action.ADMINISTRATOR,  # Also an old home agent's answer to the T bit, for 137.
    135: Action.BUSY_RETRY_LATER,
    136: Action.ADMINISTRATOR,
    137: Action.ADMINISTRATOR,
    138: Action.ADMINISTRATOR,
    140: Action.ADMINISTRATOR,
    141: Action.LEAVE_AGENT,
    143: Action.ADMINISTRATOR,
    144: Action.ADMINISTRATOR,
    145: Action.ADMINISTRATOR,
    146: Action.ADMINISTRATOR,
    147: Action.ADMINISTRATOR,
    148: Action.ADMINISTRATOR,
    149: Action.ADMINISTRATOR,
    150: Action.ADMINISTRATOR,
    151: Action.ADMINISTRATOR,
}

_ADVICE: Final[dict[Action, str]] = {
    Action.ACCEPTED: "Nothing to do.",
    Action.RESYNCHRONISE: "Nothing to do: the home agent's clock is followed. Check the date if it happens often.",
    Action.RETRY_WITH_LIFETIME: "Nothing to do: the shorter lifetime is asked for.",
    Action.CHANGE_ENCAPSULATION: "Nothing to do now: the encapsulation that all agents offer is asked for."
    " Take `encapsulation` out of the profile if it stays so.",
    Action.WITHOUT_DELIVERY_STYLE: "Nothing to do: the ordinary delivery style is asked for.",
    Action.WITHOUT_FORCED_UDP: "The home agent may forbid tunnels in UDP where no address translator needs them."
    " Take `force_udp` out of the profile, or ask your administrator to allow them.",
    Action.WITHOUT_UDP_TUNNEL: "Nothing to do now: the tunnel goes without UDP, which an address translator may stop.",
    Action.WITHOUT_NAI: "Nothing to do: the home address alone is used.",
    Action.NEW_CHALLENGE: "Nothing to do: the agent's next challenge is answered. If it stays so, check the keys for"
    " foreign agents in the profile.",
    Action.TRY_OTHER_CARE_OF: "Nothing to do: the agent's next care-of address is asked for.",
    Action.NEEDS_HOME_ADDRESS: "Nothing to do: this foreign agent is not used until a home address has been assigned.",
    Action.BUSY_RETRY_LATER: "Nothing to do: it is asked again after a while.",
    Action.LEAVE_AGENT: "Nothing to do: this foreign agent is not used.",
    Action.ADMINISTRATOR: "Ask your administrator; the sentence above is the home agent's reason."
    " Asking again goes on, rarely.",
    Action.GIVE_UP: "Ask your administrator what the home agent means by it. Asking again goes on, rarely.",
}

_CODE_ADVICE: Final[dict[int, str]] = {
    65: "Ask the administrator of this network if the foreign agent ought to serve you; it is not used until then.",
    67: "Check the key for this foreign agent in the profile; the agent is not used until then.",
    75: "Ask the administrator of this network to look at the foreign agent: the request did ask for reverse"
    " tunnelling. It is not used until then.",
    107: "The foreign agent needs keys from a server; ask the administrator of this network. It is not used.",
    108: "Check the key for the server of foreign networks ([aaa]) in the profile.",
    129: "Ask your administrator: the home agent knows this home address but does not let it register from here."
    " It may forbid tunnels in UDP behind an address translator.",
    131: "The key does not match: ask your administrator whether the MN-HA key or its number (SPI) was changed,"
    " and store the new one.",
    134: "Ask your administrator: an old home agent answers so when it does not offer reverse tunnelling.",
    136: "Check the home agent's address in the profile.",
    137: "Ask your administrator to allow reverse tunnelling; without it this computer does not register.",
    143: "Ask your administrator which home agent the profile should name.",
}


def react(code: int, asked: Asked | None = None) -> Reaction:
    """What follows from this code as the answer to such a request; LEAVE_AGENT or GIVE_UP for codes without a name."""
    action = _action(code, asked or Asked())
    return Reaction(
        code,
        action,
        sentence_for(code),
        _CODE_ADVICE.get(code, _ADVICE[action]) if action in _BY_CODE else _ADVICE[action],
        is_security_exception=code in _SECURITY,
    )


_BY_CODE: Final = frozenset({Action.ADMINISTRATOR, Action.LEAVE_AGENT, Action.NEW_CHALLENGE})


def _action(code: int, asked: Asked) -> Action:
    wish = _about_a_wish(code, asked)
    if wish is not None:
        return wish
    always = _ALWAYS.get(code)
    if always is not None:
        # What only a foreign agent can have caused is nobody's fault where there is none.
        return Action.ADMINISTRATOR if always is Action.LEAVE_AGENT and not asked.through_agent else always
    return Action.LEAVE_AGENT if is_from_foreign_agent(code) else Action.GIVE_UP


def _about_a_wish(code: int, asked: Asked) -> Action | None:
    """The action where the code denies something that can be done without; None for the other codes."""
    match code:
        case ReplyCode.FOREIGN_AGENT_ENCAPSULATION_UNAVAILABLE:
            return _simpler(asked, otherwise=Action.LEAVE_AGENT)
        case ReplyCode.ENCAPSULATION_UNAVAILABLE:
            return _simpler(asked, otherwise=Action.ADMINISTRATOR)
        case ReplyCode.UDP_TUNNEL_ENCAPSULATION_UNAVAILABLE:
            otherwise = Action.WITHOUT_UDP_TUNNEL if asked.udp_tunnel else Action.ADMINISTRATOR
            return _simpler(asked, otherwise=otherwise)
        case ReplyCode.ADMINISTRATIVELY_PROHIBITED:
            return Action.WITHOUT_FORCED_UDP if asked.forced_udp else Action.ADMINISTRATOR
        case ReplyCode.FOREIGN_AGENT_DELIVERY_STYLE_NOT_SUPPORTED:
            return Action.WITHOUT_DELIVERY_STYLE if asked.delivery_style else Action.LEAVE_AGENT
        case ReplyCode.FOREIGN_AGENT_NON_ZERO_HOME_ADDRESS_REQUIRED:
            return Action.LEAVE_AGENT if asked.has_home_address else Action.NEEDS_HOME_ADDRESS
        case (
            ReplyCode.FOREIGN_AGENT_MISSING_NAI
            | ReplyCode.FOREIGN_AGENT_MISSING_HOME_AGENT
            | ReplyCode.FOREIGN_AGENT_MISSING_HOME_ADDRESS
        ):
            # It looks for them in the reply only where the request had an identifier (RFC 2794 section 3).
            if not asked.has_home_address:
                return Action.NEEDS_HOME_ADDRESS
            return Action.WITHOUT_NAI if asked.nai else Action.LEAVE_AGENT
    return None


def _simpler(asked: Asked, *, otherwise: Action) -> Action:
    return otherwise if asked.encapsulation is Encapsulation.IP_IN_IP else Action.CHANGE_ENCAPSULATION
