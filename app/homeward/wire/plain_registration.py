# SPDX-License-Identifier: GPL-2.0-or-later
"""The registration that nearly all are, past the framework of extensions: a request is read, its acceptance written.

A plain request has its fixed part, perhaps an unforced UDP Tunnel Request, perhaps Revocation Support, and MN-HA at its
very end. What is read and written here is what ``registration`` would have read and written, which a property test
says; whatever else arrives is left to it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from homeward.model.nat_traversal import UdpTunnelCode, UdpTunnelReply
from homeward.model.registration import AuthenticationAlgorithm, Identification, Spi
from homeward.wire import udp_tunnel
from homeward.wire.authenticator import digest, is_equal
from homeward.wire.extensions import ExtensionType
from homeward.wire.registration import REPLY_TYPE, REQUEST_TYPE, TRUSTED

_FIXED: Final = struct.Struct("!BBHIIIQ")
_TUNNEL: Final = struct.Struct("!BBBxBxH")
_SUPPORT: Final = struct.Struct("!BBxxI")
_PROOF: Final = struct.Struct("!BBI")
_LEAST: Final = _FIXED.size + _TUNNEL.size + _SUPPORT.size + _PROOF.size
"""A request without the two in the middle is as long by its authenticator, so all of them can be looked for."""

_MOBILE_HOME: Final = int(ExtensionType.MOBILE_HOME_AUTHENTICATION)
_BEFORE_SUPPORT: Final = bytes((ExtensionType.REVOCATION_SUPPORT, _SUPPORT.size - 2))
_BEFORE_TUNNEL: Final = bytes((ExtensionType.UDP_TUNNEL_REQUEST, _TUNNEL.size - 2, 0))
_FORCE: Final = 0x80
_SPI_OCTETS: Final = 4
_REPLY: Final = struct.Struct("!BBHIIQ")
_DECLINED: Final = udp_tunnel.encode_reply(UdpTunnelReply(UdpTunnelCode.DECLINED))


class PlainRequest(NamedTuple):
    """What it says, its addresses as numbers. `revocable` is the time stamp of its Revocation Support, if any.

    Its authenticator is computed over the first `covered` octets. `udp_tunnel`: it asks for one, if there is a NAT.
    """

    flags: int
    lifetime: int
    home_address: int
    home_agent: int
    care_of_address: int
    identification: Identification
    udp_tunnel: bool
    revocable: int | None
    spi: Spi
    authenticator: bytes
    covered: int


def read(octets: bytes) -> PlainRequest | None:
    """The request, not yet verified; None where it is anything but plain, or ends too early."""
    if len(octets) < _LEAST or octets[0] != REQUEST_TYPE:
        return None
    _, flags, lifetime, home, agent, care_of, identification = _FIXED.unpack_from(octets)
    at, revocable = _FIXED.size, None
    wants_tunnel = octets.startswith(_BEFORE_TUNNEL, at)
    if wants_tunnel:
        _, _, _, wish, reserved = _TUNNEL.unpack_from(octets, at)
        if wish & _FORCE or reserved:
            return None
        at += _TUNNEL.size
    if octets.startswith(_BEFORE_SUPPORT, at):
        _, _, revocable = _SUPPORT.unpack_from(octets, at)
        at += _SUPPORT.size
    kind, size, spi = _PROOF.unpack_from(octets, at)
    covered = at + _PROOF.size
    if kind != _MOBILE_HOME or size <= _SPI_OCTETS or covered - _SPI_OCTETS + size != len(octets):
        return None
    return PlainRequest(
        flags,
        lifetime,
        home,
        agent,
        care_of,
        identification,
        wants_tunnel,
        revocable,
        spi,
        octets[covered:],
        covered,
    )


def is_proved(octets: bytes, asked: PlainRequest, key: bytes, algorithm: AuthenticationAlgorithm) -> bool:
    """Whether the holder of the key made these octets, which `asked` was read from."""
    return is_equal(digest(key, octets[: asked.covered], algorithm), asked.authenticator)


def accept(
    asked: PlainRequest,
    key: bytes,
    algorithm: AuthenticationAlgorithm,
    *,
    lifetime: int,
    revocable: int | None,
) -> bytes:
    """Code 0 with a word about trust, and with our time stamp `revocable` where revocation is agreed on.

    Only for a request that this key has proved. A tunnel in UDP that it asks for is declined: there is no NAT.
    """
    said = _REPLY.pack(REPLY_TYPE, 0, lifetime, asked.home_address, asked.home_agent, asked.identification)
    said += _DECLINED + TRUSTED if asked.udp_tunnel else TRUSTED
    if revocable is not None:
        said += _BEFORE_SUPPORT + revocable.to_bytes(6, "big")
    said += _PROOF.pack(_MOBILE_HOME, _SPI_OCTETS + len(asked.authenticator), asked.spi)
    return said + digest(key, said, algorithm)
