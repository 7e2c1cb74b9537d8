# SPDX-License-Identifier: GPL-2.0-or-later
"""The one name that must be found while everything is closed: the VPN gateway's.

The query leaves by a marked socket of our own, bound to the link, so that nobody else's resolver needs a hole in the
fence. What comes back is no proof of anything: the gateway proves itself in IKE.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver

from homeward.model.errors import NotPermitted, Unavailable
from homeward.model.names import MARK_NAME_QUERY
from homeward.wire.socket_options import SO_BINDTOIFINDEX

FIRST_TIMEOUT: Final = 1.0
"""Seconds to wait for the first answer; doubled in each further round."""
ROUNDS: Final = 3

_PORT = 53
_LONGEST = 4096
_SILENCE = "no answer"
_LOOK_AGAIN = 0.03  # seconds between two looks at who the name servers are, while a query is out


class DnsGateway:
    """Name queries over DNS. `port` and `root` (where /etc and /run are) are for tests."""

    def __init__(
        self, *, root: Path = Path("/"), port: int = _PORT, first_timeout: float = FIRST_TIMEOUT
    ) -> None:
        self._root = root
        self._port = port
        self._first_timeout = first_timeout

    async def resolve(self, name: str, link_index: int) -> tuple[IPv4Address, ...]:
        """IPv4 addresses of `name`, which is taken as fully qualified; an address stands for itself.

        Raises Unavailable with what was tried, NotPermitted without the right to mark a socket.
        """
        try:
            return (IPv4Address(name),)
        except ValueError:
            pass
        action = f"looking up {name}"
        question = _question(name, action)
        loop = asyncio.get_running_loop()
        settled = loop.time() + self._first_timeout
        servers = name_servers(self._root, link_index)
        while True:
            # An address comes a moment before the name servers that belong to it: those of the network before must
            # not be waited for, nor their refusal be taken for an answer.
            asking = loop.create_task(self._ask_all(servers, question, link_index, action=action))
            others = loop.create_task(self._other_servers(servers, link_index))
            try:
                await asyncio.wait({asking, others}, return_when=asyncio.FIRST_COMPLETED)
                if asking.done() and asking.exception() is not None:
                    await asyncio.wait({others}, timeout=max(0.0, settled - loop.time()))
                if asking.done() and (asking.exception() is None or not others.done()):
                    return asking.result()
                servers = others.result()
            finally:
                asking.cancel()
                others.cancel()
                await asyncio.gather(asking, others, return_exceptions=True)

    async def _other_servers(
        self, servers: tuple[IPv4Address, ...], link_index: int
    ) -> tuple[IPv4Address, ...]:
        """The name servers as soon as they are not these any more."""
        while True:
            await asyncio.sleep(_LOOK_AGAIN)
            now = name_servers(self._root, link_index)
            if now and now != servers:
                return now

    async def _ask_all(
        self, servers: tuple[IPv4Address, ...], question: dns.name.Name, link_index: int, *, action: str
    ) -> tuple[IPv4Address, ...]:
        """Ask each in turn, in rounds; Unavailable with what each said."""
        if not servers:
            raise Unavailable(action, "no name server is known for this link")
        tried: dict[IPv4Address, str] = {}
        for turn in range(ROUNDS):
            for server in servers:
                answer = await self._try(server, question, link_index, timeout=self._first_timeout * 2**turn)
                if isinstance(answer, tuple):
                    return answer
                tried[server] = answer
            if _SILENCE not in tried.values():
                break  # they have all spoken: asking again would only repeat it
        raise Unavailable(action, "; ".join(f"{server}: {what}" for server, what in tried.items()))

    async def _try(
        self, server: IPv4Address, question: dns.name.Name, link_index: int, *, timeout: float
    ) -> tuple[IPv4Address, ...] | str:
        """The addresses, or in words why this server gave none."""
        try:
            return await self._ask(server, question, link_index, timeout=timeout)
        except TimeoutError:
            return _SILENCE
        except PermissionError as error:
            raise NotPermitted(f"asking the name server {server}", error.errno or 0) from error
        except (OSError, dns.exception.DNSException) as error:
            return str(error) or type(error).__name__

    async def _ask(
        self, server: IPv4Address, question: dns.name.Name, link_index: int, *, timeout: float
    ) -> tuple[IPv4Address, ...] | str:
        """What the server says. Raises TimeoutError, OSError, DNSException."""
        query = dns.message.make_query(question, dns.rdatatype.A)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asker:
            asker.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_NAME_QUERY)
            asker.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, link_index)
            # Connected: the kernel takes answers from this server alone, and tells when nobody listens there.
            asker.connect((str(server), self._port))
            async with asyncio.timeout(timeout):
                await loop.sock_sendall(asker, query.to_wire())
                while True:
                    answer = _read(await loop.sock_recv(asker, _LONGEST), query)
                    if answer is not None:
                        return answer


def _question(name: str, action: str) -> dns.name.Name:
    """The name as DNS takes it; Unavailable for what is none."""
    try:
        question = dns.name.from_text(name)
    except dns.exception.DNSException as error:
        raise Unavailable(action, f"not a host name: {error}") from error
    if question == dns.name.root:
        raise Unavailable(action, "not a host name: it is empty")
    return question


def _read(octets: bytes, query: dns.message.Message) -> tuple[IPv4Address, ...] | str | None:
    """What an answer says; None for what does not answer this query."""
    try:
        answer = dns.message.from_wire(octets, ignore_trailing=True)
    except dns.exception.DNSException:
        return None
    if not query.is_response(answer):
        return None
    if answer.rcode() != dns.rcode.NOERROR:
        return f"answered {dns.rcode.to_text(answer.rcode())}"
    # Aliases are followed as far as the answer itself carries them; a truncated one may still name an address.
    assert isinstance(answer, dns.message.QueryMessage)
    found = answer.resolve_chaining().answer
    if found is None:
        return "answered without an IPv4 address"
    return tuple(IPv4Address(record.address) for record in found)


def name_servers(root: Path, link_index: int) -> tuple[IPv4Address, ...]:
    """The servers to ask over this link: the link's own where systemd keeps them, else the system's.

    Servers on the loopback are local stubs, which have no use here: they would ask through whatever route they like.
    """
    for keys, file in (
        (("SERVERS",), root / f"run/systemd/resolve/netif/{link_index}"),
        (("DNS",), root / f"run/systemd/netif/links/{link_index}"),
    ):
        servers = _from_state_file(file, keys)
        if servers:
            return servers
    for file in (root / "run/systemd/resolve/resolv.conf", root / "etc/resolv.conf"):
        servers = _from_resolv_conf(file)
        if servers:
            return servers
    return ()


def _from_state_file(file: Path, keys: tuple[str, ...]) -> tuple[IPv4Address, ...]:
    words: list[str] = []
    for line in _lines(file):
        key, _, value = line.partition("=")
        if key in keys:
            words += value.split()
    return _usable(words)


def _from_resolv_conf(file: Path) -> tuple[IPv4Address, ...]:
    parted = [line.split() for line in _lines(file)]
    return _usable([words[1] for words in parted if len(words) > 1 and words[0] == "nameserver"])


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _usable(words: list[str]) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses among the words, each once, in their order; systemd writes port, link and name behind them."""
    found: dict[IPv4Address, None] = {}
    for word in words:
        try:
            address = IPv4Address(word.partition("#")[0].partition("%")[0].partition(":")[0])
        except ValueError:
            continue
        if not address.is_loopback and not address.is_unspecified:
            found[address] = None
    return tuple(found)
