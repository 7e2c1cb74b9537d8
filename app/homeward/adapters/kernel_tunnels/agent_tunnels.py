# SPDX-License-Identifier: GPL-2.0-or-later
"""A home agent's fast path: one pair of programs with one pair of maps for all its tunnels.

The programs outlive the process that loaded them, and go on by what it wrote: each entry says when its binding ends.
The next life makes maps and programs of its own, fills them, and puts them in the place of these.
"""

from __future__ import annotations

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

_INGRESS: Final = "homeward_agent_in"
_SHUT: Final = "homeward_shut"
_PRIORITY: Final = 435
_NANOSECONDS: Final = 1_000_000_000

_KEY: Final = struct.Struct("!IIIIHH4s")
_ENDS: Final = struct.Struct("!IIHH")
_UNTIL: Final = struct.Struct("=Q")
_REST: Final = struct.Struct("=HBBII")
_ARRIVES: Final = struct.Struct("=QB7x")
_CARRIERS: Final = {carrier: struct.pack("=I", carrier) for carrier in Carrier}


@dataclass(frozen=True, slots=True)
class KernelTunnel:
    """One home address's tunnel, addresses as numbers. `port` is the far end's where it is in UDP, 0 otherwise.

    `room` is the longest packet that goes in, in octets. It ends at the boot time `until`, in seconds, None for never.
    `comes` says whether anything is taken out of it, `leaves` whether anything is put in.
    """

    home_address: int
    far: int
    carrier: Carrier
    _: KW_ONLY
    port: int
    room: int
    until: float | None
    comes: bool
    leaves: bool


class AgentTunnels:
    """Programs and maps of one life. Not thread-safe; nothing in it waits.

    `near` is the agent's address, `capacity` how many tunnels there can be, `clamps` leaves segments that open a
    connection to the slow path. Methods raise PlanError (E2BIG where there are too many), NotPermitted and Unavailable.
    """

    def __init__(self, near: IPv4Address, *, capacity: int, clamps: bool) -> None:
        self.capacity = capacity
        self._near = int(near)
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

    def put(self, tunnel: KernelTunnel) -> None:
        """From the next packet on, this home address has this tunnel; what comes by another one still may."""
        assert self._leaving is not None
        assert self._arriving is not None
        if tunnel.comes:
            self._arriving.put(self._key(tunnel), self._arrives(tunnel))
        if tunnel.leaves:
            self._leaving.put(tunnel.home_address.to_bytes(4, "big"), self._leaves(tunnel))

    def hold(self, home_address: int) -> None:
        """From the next packet on, those for this home address go into the TUN device; never fails."""
        assert self._leaving is not None
        self._leaving.delete(home_address.to_bytes(4, "big"))

    def refuse(self, tunnel: KernelTunnel) -> None:
        """From the next packet on, those out of this tunnel go to the slow path; never fails."""
        assert self._arriving is not None
        self._arriving.delete(self._key(tunnel))

    def fill(self, tunnels: Iterable[KernelTunnel]) -> None:
        """Many at once."""
        assert self._leaving is not None
        assert self._arriving is not None
        known = list(tunnels)
        self._arriving.put_all((self._key(each), self._arrives(each)) for each in known if each.comes)
        self._leaving.put_all(
            (each.home_address.to_bytes(4, "big"), self._leaves(each)) for each in known if each.leaves
        )

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

    def _key(self, tunnel: KernelTunnel) -> bytes:
        near_port = REGISTRATION_PORT if tunnel.carrier is not Carrier.IPIP else 0
        return _KEY.pack(
            0, tunnel.home_address, tunnel.far, self._near, tunnel.port, near_port, _CARRIERS[tunnel.carrier]
        )

    def _arrives(self, tunnel: KernelTunnel) -> bytes:
        return _ARRIVES.pack(_boot_nanoseconds(tunnel.until), self._clamps)

    def _leaves(self, tunnel: KernelTunnel) -> bytes:
        kind = tunnel.room, tunnel.carrier
        rest = self._rests.get(kind)
        if rest is None:
            rest = self._rests[kind] = _REST.pack(
                tunnel.room, tunnel.carrier, self._clamps, 0, self._ipip_device
            )
        near_port = REGISTRATION_PORT if tunnel.carrier is not Carrier.IPIP else 0
        ends = _ENDS.pack(tunnel.far, self._near, tunnel.port, near_port)
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


def _boot_nanoseconds(until: float | None) -> int:
    return NEVER if until is None else int(until * _NANOSECONDS)
