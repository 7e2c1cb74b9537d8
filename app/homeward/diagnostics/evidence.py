# SPDX-License-Identifier: GPL-2.0-only
"""What the audit is told about a tour: who is who, and what the laptop was supposed to be at which time.

It is read from `evidence.json` beside the captures:

    {"home_address", "home_agent", "gateway", "gateway_name", "cable": {"host", "interface", "hardware_address"},
     "inner_network", "captures": folder, "charon_log": file,
     "stages": [{"name", "inside", "begin", "end", "access_address", "mobike", …}, …]}

`cable` is the far end of the laptop's one access link, where what really left it is seen, and the laptop's own
address there. Times are wall-clock seconds. A stage begins when the cable comes out of the network before and
ends when it comes out of this one, or when something happens where it is. `mobike` says that an existing VPN has to
move into this stage. What else a stage may be told is in `Stage`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Stage:
    """One stay in one network."""

    name: str
    inside: bool
    begin: float
    end: float
    access_address: str
    mobike: bool
    expect: str = ""
    """Where the client was to find itself: c, f, mc, home or none; empty: c inside, mc outside."""
    network: str = ""
    moved: bool = True
    """Whether the cable was moved; if not, what was proved in the stage before is still proved."""
    agent_address: str = ""
    agent_hardware_address: str = ""
    """The foreign agent of the network, empty where there is none."""
    nat: str = ""
    """The address behind which an inside network hides, empty where it does not."""
    incidents: tuple[str, ...] = ()
    """What happened in it besides, by the names that the lab has for it."""
    monitor: float = 60.0
    """Seconds for which a proof of trust is good."""
    wall: float = 0.0
    """Seconds that the wall clock was ahead of a steady one: in the next stage it may be set."""

    @property
    def mode(self) -> str:
        """Where the client was to find itself."""
        return self.expect or ("c" if self.inside else "mc")

    @property
    def is_home(self) -> bool:
        """Whether this is the home link."""
        return self.network == "home"

    def holds(self, at: float) -> bool:
        """Whether this moment lies in the stage."""
        return self.begin <= at < self.end


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the audit knows besides the packets."""

    home_address: str
    home_agent: str
    gateway: str
    gateway_name: str
    cable: Path
    """The capture of the access link."""
    hardware_address: str
    inner_network: IPv4Network
    captures: Path
    charon_log: Path
    stages: tuple[Stage, ...]

    def capture(self, host: str, interface: str) -> Path:
        """The capture taken at that interface of that host."""
        return self.captures / f"{host}-{interface}.pcap"

    def is_inner(self, address: str) -> bool:
        """Whether the address is one that the gateway gives out."""
        return IPv4Address(address) in self.inner_network


def read_evidence(path: Path) -> Evidence:
    """Read the file; OSError, or ValueError with what is wrong in it. Paths in it are relative to its folder."""
    try:
        told: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        captures, cable = path.parent / told["captures"], told["cable"]
        return Evidence(
            home_address=told["home_address"],
            home_agent=told["home_agent"],
            gateway=told["gateway"],
            gateway_name=told["gateway_name"],
            cable=captures / f"{cable['host']}-{cable['interface']}.pcap",
            hardware_address=cable["hardware_address"],
            inner_network=IPv4Network(told["inner_network"]),
            captures=captures,
            charon_log=path.parent / told["charon_log"],
            stages=tuple(
                Stage(**{**stage, "incidents": tuple(stage.get("incidents", ()))}) for stage in told["stages"]
            ),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error} is missing or out of place") from None
