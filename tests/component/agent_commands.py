# SPDX-License-Identifier: GPL-2.0-or-later
"""An operator at the home agent's host: its configuration, its process, and the commands, as he types them."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from homeward.agentd.main import main
from homeward.model.registration import (
    AuthenticationAlgorithm,
    MobilitySecurityAssociation,
    RegistrationReply,
    RegistrationRequest,
    RequestFlags,
    Spi,
)
from homeward.model.secret_line import secret_from_line
from homeward.wire import authenticator, registration
from homeward.wire.identification import from_time
from tests.component.agent_network import (
    AGENT,
    CARE_OF,
    HOME,
    AgentNetwork,
    AgentProcess,
    Namespace,
    agent_environment,
    udp,
)

CONFIGURATION = f"""version = 1
address = "{AGENT}"
inside_interfaces = ["inside"]
trusted_prefixes = ["10.1.0.0/16"]
home_network = "10.77.0.0/24"
nodes_file = "nodes"
"""
D_T = RequestFlags.DECAPSULATE_SELF | RequestFlags.REVERSE_TUNNEL


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)


class Terminal(io.StringIO):
    """Where somebody reads along."""

    def isatty(self) -> bool:
        return True


class Operator:
    """Types commands at a host. They run in this process, in that host's network; tests/lab types them into a shell."""

    def __init__(self, host: Namespace, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.config = folder / "agent.toml"
        self.log = folder / "log"
        self.nodes = folder / "nodes"
        self.nodes.touch(mode=0o600)
        self.configure(CONFIGURATION)

    def configure(self, text: str) -> None:
        """Write the configuration."""
        self.config.write_text(text)
        self.config.chmod(0o644)

    def types(self, line: str, *, terminal: bool = False) -> Said:
        """One command line, without the program's name; it ends in time and without a traceback."""
        out, err = Terminal() if terminal else io.StringIO(), io.StringIO()
        before = dict(os.environ)
        os.environ.update(agent_environment(self.log))
        words = [*line.split(), "--config", str(self.config)]
        try:
            with self.host.entered(), redirect_stdout(out), redirect_stderr(err):
                try:
                    status = main(words)
                except SystemExit as ended:  # argparse
                    status = int(ended.code or 0)
        finally:
            os.environ.clear()
            os.environ.update(before)
        said = Said(status, out.getvalue(), err.getvalue())
        assert "Traceback" not in said.out + said.err
        return said

    def does(self, line: str) -> Said:
        """The same, and it works."""
        said = self.types(line)
        assert said.status == 0, f"{line}: {said.out}{said.err}"
        return said

    @contextmanager
    def agent(self) -> Iterator[AgentProcess]:
        """The agent runs."""
        process = AgentProcess(self.host, self.config, self.log)
        try:
            process.wait_for("ready ")
            yield process
        finally:
            process.stop()
        assert "Traceback" not in process.text()

    def adds(self, name: str = "laptop", more: str = f"--home-address {HOME}") -> MobilitySecurityAssociation:
        """`key add`, and the association as its user gets it."""
        out = self.folder / f"{name}-{len(list(self.folder.glob('*.secret')))}.secret"
        said = self.does(f"key add {name} {more} --out {out}")
        return handed_out(out, said.out)


def handed_out(secret: Path, table: str) -> MobilitySecurityAssociation:
    """What the user of a laptop makes of the file and of the table for the profile."""
    assert secret.stat().st_mode & 0o777 == 0o600
    _, _, value = secret.read_text().partition("=")
    spi = re.search(r"^spi = (\w+)$", table, re.MULTILINE)
    algorithm = re.search(r'^algorithm = "(.+)"$', table, re.MULTILINE)
    assert spi is not None
    assert algorithm is not None
    key = secret_from_line(value)
    assert key.reveal().hex() not in table
    return MobilitySecurityAssociation(Spi(int(spi[1], 0)), AuthenticationAlgorithm(algorithm[1]), key=key)


class Laptop:
    """A mobile node at the care-of address."""

    def __init__(self, network: AgentNetwork) -> None:
        self._signalling = udp(network.node, CARE_OF)

    def close(self) -> None:
        """Be gone."""
        self._signalling.close()

    def asks(
        self,
        association: MobilitySecurityAssociation,
        *,
        home: IPv4Address = HOME,
        lifetime: int = 300,
        wait: float = 3.0,
    ) -> int | None:
        """Register; the code of the signed reply, None for silence."""
        reply = self.sends(self.request(association, home=home, lifetime=lifetime), association, wait=wait)
        return None if reply is None else reply.code

    @staticmethod
    def request(
        association: MobilitySecurityAssociation, *, home: IPv4Address = HOME, lifetime: int = 300
    ) -> bytes:
        """A request made now."""
        made = RegistrationRequest(
            lifetime,
            home,
            home_agent=AGENT,
            care_of_address=CARE_OF,
            identification=from_time(time.time(), time.monotonic_ns()),
            flags=D_T,
        )
        return registration.encode_request(made, association)

    def sends(
        self, octets: bytes, association: MobilitySecurityAssociation, *, wait: float = 3.0
    ) -> RegistrationReply | None:
        """Send a request; the reply, if it is signed."""
        self._signalling.settimeout(wait)
        self._signalling.sendto(octets, (str(AGENT), 434))
        try:
            answer = self._signalling.recv(2048)
        except TimeoutError:
            return None
        decoded = registration.decode(answer)
        assert authenticator.verify(answer, decoded, association)
        assert isinstance(decoded.message, RegistrationReply)
        return decoded.message
