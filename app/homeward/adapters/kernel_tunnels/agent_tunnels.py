# SPDX-License-Identifier: GPL-2.0-or-later
"""A home agent's fast path: one pair of programs with one pair of maps for all its tunnels.

The programs outlive the process that loaded them, and go on by what it wrote: each entry says when its binding ends.
The next life makes maps and programs of its own, fills them, and puts them in the place of these.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.kernel_tunnels import IPIP_DEVICE, allowed_engines
from homeward.adapters.kernel_tunnels.bpf import HashMap, ProgramKind, Totals, load_program
from homeward.adapters.kernel_tunnels.entries import ARRIVING, LEAVING, NEVER, Arriving, Carrier
from homeward.adapters.kernel_tunnels.inward import inward, nothing
from homeward.adapters.kernel_tunnels.outward import outward
from homeward.adapters.kernel_tunnels.parts import Side, Total
from homeward.adapters.kernel_tunnels.traffic_control import TrafficControl
from homeward.model.errors import AdapterError, PlanError, Unavailable
from homeward.model.names import REGISTRATION_PORT
from homeward.model.tunnel_engine import TunnelEngine
from homeward.model.values import quick

_INGRESS: Final = "homeward_agent_in"
_SHUT: Final = "homeward_shut"
_PRIORITY: Final = 435
_NANOSECONDS: Final = 1_000_000_000

_UNTIL: Final = struct.Struct("=Q")
_REST: Final = struct.Struct("=HBBII")
_ARRIVES: Final = struct.Struct("=QB7x")
_NO_PORT: Final = bytes(2)
_ANY_LINK: Final = bytes(4)


@quick
@dataclass(frozen=True, slots=True)
class Leaving:
    """The tunnel into which packets for a home address go; addresses and ports in the network's order.

    `room` is the longest packet that goes in, in octets; it ends by itself at the boot time `until`, in seconds.
    """

    home_address: bytes
    carrier: Carrier
    far: bytes
    port: bytes
    _: KW_ONLY
    room: int
    until: float


class AgentTunnels:
    """Programs and maps of one life. Not thread-safe; nothing in it waits.

    `near` is the agent's address, `capacity` how many tunnels there can be, `clamps` leaves segments that open a
    connection to the slow path. Methods raise PlanError (E2BIG where there are too many), NotPermitted and Unavailable.
    """

    def __init__(self, near: IPv4Address, *, capacity: int, clamps: bool) -> None:
        self.capacity = capacity
        self._near = near.packed
        port = REGISTRATION_PORT.to_bytes(2, "big")
        self._tails = {
            carrier: (_NO_PORT if carrier is Carrier.IPIP else port) + struct.pack("=I", carrier)
            for carrier in Carrier
        }
        """What ends keys: our own port, and the carrier."""
        self._clamps = clamps
        self._allowed = allowed_engines()
        self._leaving: HashMap | None = None
        self._arriving: HashMap | None = None
        self._totals: Totals | None = None
        self._programs: list[int] = []
        self._control: TrafficControl | None = None
        self._ipip_device = 0
        self._rests: dict[tuple[int, Carrier], bytes] = {}
        self.route_name = f"homeward_agent_{time.monotonic_ns():x}"
        """By their names alone the kernel tells programs on routes apart: each has to have another one."""

    # --- programs --------------------------------------------------------------------------------------------------

    def open(self, device: int) -> None:
        """Make maps and load programs for the TUN device with this index; nothing passes them yet.

        Raises Unavailable where there is nothing that could be used: then the slow path carries everything.
        """
        if not self._allowed & {TunnelEngine.BPF, TunnelEngine.IPIP}:
            raise Unavailable("opening the fast path", "only the engine tun is allowed")
        try:
            self._leaving = HashMap(
                "hw_leaving", key=4, value=LEAVING.uncounted, entries=self.capacity, preallocate=False
            )
            self._arriving = HashMap(
                "hw_arriving",
                key=Arriving.OCTETS,
                value=ARRIVING.uncounted,
                entries=self.capacity,
                preallocate=False,
            )
            self._totals = Totals("hw_totals", pairs=len(Total))
            code = outward(self._leaving.descriptor, Side.AGENT, None, self._totals.descriptor)
            self._programs.append(load_program(ProgramKind.ROUTE, "homeward_out", code))
            self._programs.append(self._load_ingress(device))
            self._control = TrafficControl(_PRIORITY)
            if TunnelEngine.IPIP in self._allowed:
                self._ipip_device = self._open_ipip_device(self._control)
        except AdapterError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of everything. Programs that stand somewhere keep their maps, and go on by them."""
        for opened in (self._leaving, self._arriving, self._totals, self._control):
            if opened is not None:
                opened.close()
        for descriptor in self._programs:
            os.close(descriptor)
        self._programs.clear()
        self._leaving = self._arriving = self._totals = self._control = None

    @property
    def route_program(self) -> int:
        """The descriptor of the program that routes into the TUN device have to name, as `route_name`."""
        return self._programs[0]

    @property
    def engine(self) -> TunnelEngine:
        """The best that there is here."""
        return TunnelEngine.IPIP if self._ipip_device else TunnelEngine.BPF

    def takes_in(self, carrier: Carrier) -> bool:
        """Whether what comes by such tunnels is carried here."""
        return carrier is Carrier.IPIP or TunnelEngine.BPF in self._allowed

    def sends_out(self, carrier: Carrier) -> bool:
        """Whether what leaves by such tunnels is carried here."""
        return bool(self._ipip_device) if carrier is Carrier.IPIP else TunnelEngine.BPF in self._allowed

    def attach(self, link: int) -> None:
        """Have the program see what comes in by the link with this index, in place of that of an earlier life."""
        assert self._control is not None
        self._control.attach(link, self._programs[1], _INGRESS)

    # --- entries ---------------------------------------------------------------------------------------------------

    def key(self, home_address: bytes, carrier: Carrier, far: bytes, port: bytes) -> bytes:
        """Under this is written down what comes out of a tunnel from a home address, all in the network's order; the
        far end's `port` is zero where the tunnel is not in UDP."""
        return _ANY_LINK + home_address + far + self._near + port + self._tails[carrier]

    def admit(self, key: bytes, until: float) -> None:
        """From the next packet on take what comes out of this tunnel, until this boot time in seconds."""
        assert self._arriving is not None
        self._arriving.put(key, self._arrives(until))

    def refuse(self, *keys: bytes) -> None:
        """From the next packet on leave what comes out of these tunnels to the slow path; never fails."""
        assert self._arriving is not None
        if len(keys) == 1:
            self._arriving.delete(keys[0])
        else:
            self._arriving.delete_all(keys)

    def lead(self, tunnel: Leaving) -> None:
        """From the next packet on have those for this home address leave by this tunnel, and no other."""
        assert self._leaving is not None
        self._leaving.put(tunnel.home_address, self._leaves(tunnel))

    def hold(self, home_address: bytes) -> None:
        """From the next packet on have those for this home address go into the TUN device; never fails."""
        assert self._leaving is not None
        self._leaving.delete(home_address)

    def fill(self, arriving: Iterable[tuple[bytes, float]], leaving: Iterable[Leaving]) -> None:
        """Many at once."""
        assert self._leaving is not None
        assert self._arriving is not None
        self._arriving.put_all((key, self._arrives(until)) for key, until in arriving)
        self._leaving.put_all((each.home_address, self._leaves(each)) for each in leaving)

    def counted(self) -> dict[tuple[str, TunnelEngine], tuple[int, int]]:
        """Packets and octets, by direction ("in", "out") and by what carried them."""
        if self._totals is None:
            return {}
        return {
            ("in", TunnelEngine.BPF): self._totals.read(Total.CAME),
            ("out", TunnelEngine.BPF): self._totals.read(Total.LEFT),
            ("out", TunnelEngine.IPIP): self._totals.read(Total.LEFT_BY_DEVICE),
        }

    # --- parts -----------------------------------------------------------------------------------------------------

    def _arrives(self, until: float) -> bytes:
        return _ARRIVES.pack(_boot_nanoseconds(until), self._clamps)

    def _leaves(self, tunnel: Leaving) -> bytes:
        kind = tunnel.room, tunnel.carrier
        rest = self._rests.get(kind)
        if rest is None:
            rest = _REST.pack(tunnel.room, tunnel.carrier, self._clamps, 0, self._ipip_device)
            self._rests[kind] = rest
        near_port = self._tails[tunnel.carrier][:2]
        ends = tunnel.far + self._near + tunnel.port + near_port
        return _UNTIL.pack(_boot_nanoseconds(tunnel.until)) + ends + rest

    def _load_ingress(self, device: int) -> int:
        """A kernel that cannot tell what came out of IPsec has none, and needs not be asked."""
        assert self._arriving is not None
        assert self._totals is not None
        arriving, totals = self._arriving.descriptor, self._totals.descriptor
        code = inward(arriving, Side.AGENT, device, None, totals)
        try:
            return load_program(ProgramKind.TRAFFIC_CONTROL, _INGRESS, code)
        except PlanError:
            code = inward(arriving, Side.AGENT, device, None, totals, tells_ipsec=False)
            return load_program(ProgramKind.TRAFFIC_CONTROL, _INGRESS, code)

    @staticmethod
    def _open_ipip_device(control: TrafficControl) -> int:
        """The kernel's device, with its own ingress shut; 0 where there is none."""
        try:
            index = control.make_ipip_device(IPIP_DEVICE)
        except Unavailable:
            return 0
        shut = load_program(ProgramKind.TRAFFIC_CONTROL, _SHUT, nothing())
        try:
            control.attach(index, shut, _SHUT)
        except AdapterError:
            control.delete_device(IPIP_DEVICE)
            raise
        finally:
            os.close(shut)
        return index


def detach_from_others(links: Collection[int]) -> None:
    """Take the program, whoever's life attached it, from all links but these. Raises AdapterErrors."""
    control = TrafficControl(_PRIORITY)
    try:
        control.detach_everywhere(_INGRESS, but=links)
    finally:
        control.close()


def remove_all() -> None:
    """Take away what this or an earlier life attached, and the device. Raises AdapterErrors."""
    detach_from_others(())
    control = TrafficControl(_PRIORITY)
    try:
        with suppress(AdapterError):
            control.delete_device(IPIP_DEVICE)
    finally:
        control.close()


def _boot_nanoseconds(until: float) -> int:
    return NEVER if until == math.inf else int(until * _NANOSECONDS)
