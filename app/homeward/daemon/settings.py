# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles: TOML files that root put into one directory, read strictly.

A profile names the key that decides what is trusted, so who may write it decides that too: a file, or a directory,
that anybody but root can write to is refused.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

from homeward.daemon.fingerprint import FORM_IN_WORDS, is_fingerprint
from homeward.daemon.profile_table import Fault, Table, is_host
from homeward.model.errors import ProfileError
from homeward.model.profile import GatewaySettings, HomeAgentSettings, Profile, SecretReference, Timers
from homeward.model.registration import AuthenticationAlgorithm, nai_fault

VERSION: Final = 1
PROFILE_SUFFIX: Final = ".toml"
MACHINE: Final = "machine"
"""The owner of a profile whose secrets only root may supply."""
ROOT_ONLY: Final = frozenset({0})

_LARGEST_FILE: Final = 64 * 1024
_DEFAULT_TIMERS: Final = Timers()
_EVERYWHERE: Final = (IPv4Network("0.0.0.0/0"),)
_ALGORITHMS: Final = tuple(algorithm.value for algorithm in AuthenticationAlgorithm)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._@-]{0,63}\$?")
_HOST: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_PROPOSAL: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_LONGEST_IDENTITY: Final = 255

_KEYS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("version", "name", "owner"),
    "home_agent": ("address", "home_address", "spi", "algorithm", "key", "nai"),
    "vpn": (
        "gateway",
        "local_identity",
        "remote_identity",
        "pre_shared_key",
        "remote_networks",
        "proposals",
        "esp_proposals",
    ),
    "policy": ("destinations", "keep_vpn_inside", "nat_inside"),
    "timers": tuple(timer.name for timer in fields(Timers)),
}
_PLACE_OF: Final = {
    key: f"{table}.{key}" if table else f"{key} at the top of the file, above the first [table]"
    for table, keys in _KEYS_OF.items()
    for key in keys
}
"""Where a key belongs that somebody put into the wrong table."""


@dataclass(frozen=True, slots=True)
class ProfileFault:
    """A file that cannot be used, and why; `name` is the file's name without its suffix."""

    name: str
    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles of a directory: those that can be used, by name, and what is wrong with the others."""

    usable: Mapping[str, Profile] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[ProfileFault, ...] = ()


def load_profiles(directory: Path, *, writers: frozenset[int] = ROOT_ONLY) -> Profiles:
    """Read every *.toml of the directory; one bad file spoils no other. `writers`: user ids that may own the files."""
    usable: dict[str, Profile] = {}
    files: dict[str, str] = {}
    faults: list[ProfileFault] = []
    try:
        _check_writers(os.stat(directory), str(directory), writers)
        paths = sorted(path for path in directory.iterdir() if path.suffix == PROFILE_SUFFIX)
    except (OSError, ProfileError) as error:
        text = str(error) if isinstance(error, ProfileError) else _unreadable(directory, error)
        return Profiles(faults=(ProfileFault("", str(directory), text),))
    for path in paths:
        try:
            profile = read_profile(path, writers=writers)
            if profile.name in usable:
                raise ProfileError(
                    f"{path}: name: found “{profile.name}”, which {files[profile.name]} has already; "
                    "allowed is a name that no other profile has"
                )
        except ProfileError as error:
            faults.append(ProfileFault(path.stem, str(path), str(error)))
        else:
            usable[profile.name] = profile
            files[profile.name] = str(path)
    return Profiles(usable, files, tuple(faults))


def read_profile(path: Path, *, writers: frozenset[int] | None = ROOT_ONLY) -> Profile:
    """Read one profile; ProfileError with file, key, what was found and what is allowed, one line for each fault.

    `writers` None skips the question of who may change the file, for drafts.
    """
    try:
        # O_NONBLOCK: opening a named pipe must not hang a root process.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ProfileError(_unreadable(path, error)) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ProfileError(f"{path}: this is no regular file; a profile is a TOML text file")
        if writers is not None:
            _check_writers(status, str(path), writers)
        octets = file.read(_LARGEST_FILE + 1)
    if len(octets) > _LARGEST_FILE:
        raise ProfileError(f"{path}: larger than {_LARGEST_FILE} octets; a profile is a short TOML text file")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: not UTF-8 text at octet {error.start}; save it as UTF-8") from None
    return parse_profile(text, str(path))


def parse_profile(text: str, source: str) -> Profile:
    """The profile that this TOML text describes; ProfileError names `source` in each line."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{source}: not valid TOML: {error}") from None
    except RecursionError:
        raise ProfileError(f"{source}: not valid TOML: nested too deeply") from None
    faults: list[Fault] = []
    top = Table(values, "", faults, elsewhere=_PLACE_OF)
    if top.whole("version", VERSION, VERSION) != VERSION and "version" in values:
        raise ProfileError(f"{source}: {faults[0]} (this homeward reads profiles of version {VERSION})")
    profile = _profile(top)
    if not faults:
        faults.extend(_contradictions(profile))
    if faults:
        raise ProfileError("\n".join(f"{source}: {fault}" for fault in faults))
    return profile


def _profile(top: Table) -> Profile:
    name = top.text("name", _allowed_name)
    owner = top.text("owner", _allowed_owner)
    home_agent = _home_agent(top)
    gateway = _gateway(top)
    policy = top.table("policy", required=False) or Table({}, "policy", [])
    profile = Profile(
        name,
        owner,
        home_agent=home_agent,
        gateway=gateway,
        destinations=policy.networks("destinations", default=_EVERYWHERE),
        timers=_timers(top),
        keep_vpn_inside=policy.flag("keep_vpn_inside", default=False),
        nat_inside=policy.flag("nat_inside", default=False),
    )
    policy.no_others()
    top.no_others()
    return profile


def _home_agent(top: Table) -> HomeAgentSettings:
    table = top.table("home_agent", required=True) or Table({}, "home_agent", [])
    address = table.address("address")
    home_address = table.address("home_address")
    spi = table.whole("spi", 256, 0xFFFFFFFF)
    algorithm = table.text("algorithm", _allowed_algorithm)
    key = _secret(table, "key")
    nai = table.text("nai", _allowed_nai, default="")
    table.no_others()
    return HomeAgentSettings(
        address,
        home_address,
        spi=spi,
        algorithm=AuthenticationAlgorithm(algorithm or _ALGORITHMS[0]),
        key=key,
        nai=nai or None,
    )


def _gateway(top: Table) -> GatewaySettings | None:
    table = top.table("vpn", required=False)
    if table is None:
        return None
    settings = GatewaySettings(
        table.text("gateway", _allowed_host),
        table.text("local_identity", _allowed_identity),
        remote_identity=table.text("remote_identity", _allowed_identity),
        pre_shared_key=_secret(table, "pre_shared_key"),
        remote_networks=table.networks("remote_networks"),
        proposals=table.texts("proposals", _allowed_proposal, default=_default(GatewaySettings, "proposals")),
        esp_proposals=table.texts(
            "esp_proposals", _allowed_proposal, default=_default(GatewaySettings, "esp_proposals")
        ),
    )
    table.no_others()
    return settings


def _secret(parent: Table, key: str) -> SecretReference:
    table = parent.table(
        key,
        required=True,
        secret=True,
        why='{ secret = "its name in the keyring", fingerprint = "scrypt:…" }',
    )
    if table is None:
        return SecretReference("", "")
    reference = SecretReference(
        table.text("secret", _allowed_reference, secret=True),
        table.text("fingerprint", _allowed_fingerprint, secret=True),
    )
    table.no_others()
    return reference


def _timers(top: Table) -> Timers:
    table = top.table("timers", required=False)
    if table is None:
        return _DEFAULT_TIMERS
    known = _DEFAULT_TIMERS
    timers = Timers(
        lifetime=table.whole("lifetime", 1, 0xFFFE, default=known.lifetime),
        monitor=table.seconds("monitor", 1, 86400, default=known.monitor),
        monitor_grace=table.seconds("monitor_grace", 0, 3600, default=known.monitor_grace),
        probe_timeout=table.seconds("probe_timeout", 1, 60, default=known.probe_timeout),
        probe_transmissions=table.whole("probe_transmissions", 1, 10, default=known.probe_transmissions),
        proof_max_age=table.seconds("proof_max_age", 0.1, 60, default=known.proof_max_age),
        vpn_retry=table.seconds("vpn_retry", 0.5, 3600, default=known.vpn_retry),
        vpn_retry_max=table.seconds("vpn_retry_max", 0.5, 86400, default=known.vpn_retry_max),
        vpn_answer=table.seconds("vpn_answer", 1, 3600, default=known.vpn_answer),
    )
    table.no_others()
    return timers


def _contradictions(profile: Profile) -> list[Fault]:
    """What is right key by key and wrong together."""
    faults: list[Fault] = []
    agent, gateway, timers = profile.home_agent, profile.gateway, profile.timers
    if agent.home_address == agent.address:
        faults.append(
            f"home_agent.home_address: found {agent.home_address}, which is the home agent's own address"
        )
    if timers.vpn_retry_max < timers.vpn_retry:
        faults.append(
            f"timers.vpn_retry_max: found {timers.vpn_retry_max:g}; "
            f"allowed is no less than timers.vpn_retry ({timers.vpn_retry:g})"
        )
    if timers.monitor_grace >= timers.monitor:
        faults.append(
            f"timers.monitor_grace: found {timers.monitor_grace:g}; allowed is less than timers.monitor "
            f"({timers.monitor:g}), or the home agent would be asked without a pause"
        )
    if gateway is None:
        return faults
    for path, address in (
        ("home_agent.address", agent.address),
        ("home_agent.home_address", agent.home_address),
    ):
        if gateway.host == str(address):
            faults.append(
                f"vpn.gateway: found {gateway.host}, which is {path} as well; the gateway stands at the edge and the "
                "home agent inside (RFC 5266 section 3): allowed are two different hosts"
            )
    if not any(agent.address in network for network in gateway.remote_networks):
        faults.append(
            f"vpn.remote_networks: none of the prefixes holds the home agent {agent.address}, "
            "so that it could not be reached through the VPN; add one that does"
        )
    if gateway.pre_shared_key.reference == agent.key.reference:
        faults.append(
            "vpn.pre_shared_key.secret: the same secret as home_agent.key.secret; allowed are two different ones, "
            "since whoever knows the home agent's key decides what is trusted"
        )
    return faults


# --- what is allowed, in words; None when the text is --------------------------------------------------------------


def _allowed_name(text: str) -> str | None:
    return None if _NAME.fullmatch(text) else "allowed are up to 64 letters, digits, “.”, “_” and “-”"


def _allowed_owner(text: str) -> str | None:
    return None if _USER.fullmatch(text) else f"allowed is “{MACHINE}” or the name of a user"


def _allowed_algorithm(text: str) -> str | None:
    return None if text in _ALGORITHMS else f"allowed is {' or '.join(_ALGORITHMS)}"


def _allowed_nai(text: str) -> str | None:
    fault = nai_fault(text)
    return (
        None
        if fault is None
        else f"allowed is a network access identifier such as user@example.org ({fault})"
    )


def _allowed_host(text: str) -> str | None:
    allowed = "allowed is a host name such as gw.example.org, or the IPv4 address of one host"
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return None if is_host(IPv4Address(text)) else allowed
        except ValueError:
            return allowed
    return None if _HOST.fullmatch(text) else allowed


def _allowed_identity(text: str) -> str | None:
    if text and len(text) <= _LONGEST_IDENTITY and text.isprintable() and text == text.strip():
        return None
    return f"allowed is an IKE identity of 1 to {_LONGEST_IDENTITY} printable characters, such as laptop@example.org"


def _allowed_proposal(text: str) -> str | None:
    return (
        None
        if _PROPOSAL.fullmatch(text)
        else "allowed is a strongSwan proposal such as aes128gcm16-prfsha256-curve25519"
    )


def _allowed_reference(text: str) -> str | None:
    return (
        None
        if _NAME.fullmatch(text)
        else (
            "allowed is the name of a secret in the keyring, up to 64 letters, digits, “.”, “_” and “-”; "
            "never put the secret itself here"
        )
    )


def _allowed_fingerprint(text: str) -> str | None:
    return None if is_fingerprint(text) else f"allowed is {FORM_IN_WORDS}"


def _default(kind: type[Any], name: str) -> Any:
    return kind.__dataclass_fields__[name].default


def _check_writers(status: os.stat_result, path: str, writers: frozenset[int]) -> None:
    if status.st_uid not in writers:
        raise ProfileError(
            f"{path}: owned by user id {status.st_uid}, who could change what is trusted; "
            f"allowed is root as owner (`chown root:root {path}`)"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ProfileError(
            f"{path}: others than its owner may write to it (mode {stat.S_IMODE(status.st_mode):04o}), "
            f"and so change what is trusted; take that away with `chmod go-w {path}`"
        )


def _unreadable(path: Path, error: OSError) -> str:
    advice = "create it, owned by root" if isinstance(error, FileNotFoundError) else "check its permissions"
    return f"{path}: cannot be read ({error.strerror}); {advice}"
