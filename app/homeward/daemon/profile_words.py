# SPDX-License-Identifier: GPL-2.0-or-later
"""What a profile's texts may be: each check says in words what is allowed when the text is not, else None."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Final

from homeward.bus.fingerprint import FORM_IN_WORDS, is_fingerprint
from homeward.daemon.profile_table import is_host
from homeward.model.registration import AuthenticationAlgorithm, nai_fault

MACHINE: Final = "machine"
"""The owner of a profile whose secrets only root may supply."""
ALGORITHMS: Final = tuple(algorithm.value for algorithm in AuthenticationAlgorithm)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._@-]{0,63}\$?")
_HOST: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_PROPOSAL: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_LONGEST_IDENTITY: Final = 255


def allowed_name(text: str) -> str | None:
    """A profile's name."""
    return None if _NAME.fullmatch(text) else "allowed are up to 64 letters, digits, “.”, “_” and “-”"


def allowed_owner(text: str) -> str | None:
    """Who supplies the secrets."""
    return None if _USER.fullmatch(text) else f"allowed is “{MACHINE}” or the name of a user"


def allowed_algorithm(text: str) -> str | None:
    """How an authenticator is made."""
    return None if text in ALGORITHMS else f"allowed is {' or '.join(ALGORITHMS)}"


def allowed_nai(text: str) -> str | None:
    """A network access identifier."""
    fault = nai_fault(text)
    return (
        None
        if fault is None
        else f"allowed is a network access identifier such as user@example.org ({fault})"
    )


def allowed_host(text: str) -> str | None:
    """A name or an address of one host."""
    allowed = "allowed is a host name such as gw.example.org, or the IPv4 address of one host"
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return None if is_host(IPv4Address(text)) else allowed
        except ValueError:
            return allowed
    return None if _HOST.fullmatch(text) else allowed


def allowed_identity(text: str) -> str | None:
    """An IKE identity."""
    if text and len(text) <= _LONGEST_IDENTITY and text.isprintable() and text == text.strip():
        return None
    return f"allowed is an IKE identity of 1 to {_LONGEST_IDENTITY} printable characters, such as laptop@example.org"


def allowed_proposal(text: str) -> str | None:
    """What strongSwan proposes."""
    return (
        None
        if _PROPOSAL.fullmatch(text)
        else "allowed is a strongSwan proposal such as aes128gcm16-prfsha256-curve25519"
    )


def allowed_reference(text: str) -> str | None:
    """The name of a secret in a keyring."""
    return (
        None
        if _NAME.fullmatch(text)
        else (
            "allowed is the name of a secret in the keyring, up to 64 letters, digits, “.”, “_” and “-”; "
            "never put the secret itself here"
        )
    )


def allowed_fingerprint(text: str) -> str | None:
    """The fingerprint of a secret."""
    return None if is_fingerprint(text) else f"allowed is {FORM_IN_WORDS}"
