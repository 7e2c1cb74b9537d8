# SPDX-License-Identifier: GPL-2.0-or-later
"""The fast path: tunnels that the kernel carries by itself, for as long as nothing about a packet is unusual.

It is a shortcut past a TUN device and the process behind it, the slow path, which goes on having every rule:

- outwards, the route into the TUN device names a program (`route_program`). It puts the outer headers on for home
  addresses that `lead` has written down, and lets everything else go on into the device.
- inwards, a program at the ingress of the path's link takes the headers off what `admit` has written down, and has the
  inner packet come in by the TUN device. Everything else goes on to the slow path's sockets.

So holding a home address's packets is one entry less, and opening its way one more; neither waits for anything.

On a laptop the fast path does not outlive the daemon: where the laptop is has to be decided anew whenever it may
have moved, and a dead, stuck or sleeping process decides nothing. So it is good for ALIVE seconds at a time, of a clock
that counts sleep, and prolonged by a timer; after that everything goes into the TUN device, and waits there.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Final

from homeward.adapters.kernel_tunnels import entries
from homeward.adapters.kernel_tunnels.bpf import HashMap, ProgramKind, load_program
from homeward.adapters.kernel_tunnels.entries import ARRIVING, LEAVING, NEVER, Arriving, Carrier, Ends
from homeward.adapters.kernel_tunnels.inward import inward, nothing
from homeward.adapters.kernel_tunnels.outward import outward
from homeward.adapters.kernel_tunnels.parts import Side
from homeward.adapters.kernel_tunnels.traffic_control import TrafficControl
from homeward.model.errors import AdapterError, PlanError, Unavailable
from homeward.model.names import IPIP_DEVICE
from homeward.model.tunnel_engine import TunnelEngine

__all__ = ["IPIP_DEVICE", "NEVER", "Carrier", "Ends", "KernelTunnels", "Side", "allowed_engines"]

ALIVE: Final = 3.0
"""Seconds for which a laptop's fast path goes on by itself."""

_PROLONGED_EVERY: Final = 1.0
_INGRESS: Final = "homeward_in"
_PRIORITY: Final = 434
_SHUT: Final = "homeward_shut"
_CAPACITY: Final = 16
_ALLOWED: Final = "HOMEWARD_ENGINES"


def allowed_engines() -> frozenset[TunnelEngine]:
    """What HOMEWARD_ENGINES names, separated by commas; all where it is not set. Unknown names are passed over."""
    named = os.environ.get(_ALLOWED)
    if named is None:
        return frozenset(TunnelEngine)
    return frozenset(engine for engine in TunnelEngine if engine.value in named.split(","))


class KernelTunnels:
    """The fast path of a laptop's TUN device. Not thread-safe; nothing in it waits.

    Methods raise PlanError, NotPermitted and Unavailable. An agent's are in `agent_tunnels`.
    """

    def __init__(self, *, allowed: frozenset[TunnelEngine] | None = None) -> None:
        self._allowed = allowed_engines() if allowed is None else allowed
        self._control: TrafficControl | None = None
        self._leaving: HashMap | None = None
        self._arriving: HashMap | None = None
        self._route_program = -1
        self._ingress_program = -1
        self._ipip_device = 0
        self._links: set[int] = set()
        self._alive: HashMap | None = None
        self._prolonging: asyncio.TimerHandle | None = None

    def open(self, device: int) -> None:
        """Load the programs for the TUN device with this index; nothing passes them yet.

        Raises Unavailable where there is nothing that could be used: then the slow path carries everything.
        """
        if not self._allowed & {TunnelEngine.BPF, TunnelEngine.IPIP}:
            raise Unavailable("opening the fast path", "only the engine tun is allowed")
        try:
            self._leaving = HashMap("hw_leaving", key=4, value=LEAVING.octets, entries=_CAPACITY)
            self._arriving = HashMap(
                "hw_arriving", key=Arriving.OCTETS, value=ARRIVING.octets, entries=_CAPACITY
            )
            self._alive = HashMap("hw_alive", key=4, value=8, entries=1)
            leaving, alive = self._leaving.descriptor, self._alive.descriptor
            self._route_program = load_program(
                ProgramKind.ROUTE, "homeward_out", outward(leaving, Side.MOBILE_NODE, alive)
            )
            self._ingress_program = self._load_ingress(self._arriving.descriptor, device, alive)
            self._control = TrafficControl(_PRIORITY)
            self._ipip_device = self._open_ipip_device() if TunnelEngine.IPIP in self._allowed else 0
        except AdapterError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of everything. Programs that still stand somewhere keep their maps, and go on by them."""
        if self._prolonging is not None:
            self._prolonging.cancel()
            self._prolonging = None
        for opened in (self._leaving, self._arriving, self._alive, self._control):
            if opened is not None:
                opened.close()
        for descriptor in (self._route_program, self._ingress_program):
            if descriptor >= 0:
                os.close(descriptor)
        self._leaving = self._arriving = self._alive = None
        self._control = None
        self._route_program = self._ingress_program = -1
        self._ipip_device = 0
        self._links.clear()

    def remove(self) -> None:
        """Take from links what this or an earlier life attached, and the device; open or not, it ends with `close`."""
        control = self._control or TrafficControl(_PRIORITY)
        control.detach_everywhere(_INGRESS)
        with suppress(AdapterError):
            control.delete_device(IPIP_DEVICE)
        if control is not self._control:
            control.close()
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether there is a fast path."""
        return self._leaving is not None

    @property
    def route_program(self) -> int:
        """The file descriptor of the program that the route into the TUN device has to name (`encap bpf xmit`)."""
        return self._route_program

    def engine_for(self, carrier: Carrier) -> TunnelEngine:
        """What carries such tunnels here."""
        if not self.is_open:
            return TunnelEngine.TUN
        if carrier is Carrier.IPIP:
            return TunnelEngine.IPIP if self._ipip_device else TunnelEngine.TUN
        return TunnelEngine.BPF if TunnelEngine.BPF in self._allowed else TunnelEngine.TUN

    # --- links -----------------------------------------------------------------------------------------------------

    def watch(self, link: int) -> None:
        """Have the program see what comes in by the link with this index, unless it does; others can detach it."""
        control = self._open_control()
        if link not in self._links or not control.is_attached(link, _INGRESS):
            control.attach(link, self._ingress_program, _INGRESS)
            self._links.add(link)

    def leave(self, link: int) -> None:
        """Let the link be as it was; never fails."""
        self._links.discard(link)
        with suppress(AdapterError):
            self._open_control().detach(link, _INGRESS)

    # --- entries ---------------------------------------------------------------------------------------------------

    def lead(self, home_address: IPv4Address, ends: Ends, *, room: int, mark: int = 0) -> None:
        """From the next packet on, those of this home address leave by this tunnel and no other.

        `room` is the longest packet that goes in, in octets; the outer packets get `mark`.
        """
        assert self._leaving is not None
        entry = entries.leaving(ends, room=room, mark=mark, device=self._ipip_device, clamps=False)
        self._prolong()
        self._leaving.put(home_address.packed, entry)

    def hold(self, home_address: IPv4Address) -> None:
        """From the next packet on, those of this home address go into the TUN device; never fails."""
        if self._leaving is not None:
            self._leaving.delete(home_address.packed)

    def admit(self, home_address: IPv4Address, ends: Ends, *, ipsec: bool = False) -> None:
        """Take what comes out of this tunnel for this home address.

        With `ipsec` it is what came out of the kernel's IPsec; without it, what did not.
        """
        assert self._arriving is not None
        self._prolong()
        self._arriving.put(ends.arriving(home_address), entries.arriving(clamps=False, ipsec=ipsec))

    def refuse(self, home_address: IPv4Address, ends: Ends) -> None:
        """Take it no more; never fails."""
        if self._arriving is not None:
            self._arriving.delete(ends.arriving(home_address))

    def counted(self, home_address: IPv4Address, ends: Ends) -> tuple[tuple[int, int], tuple[int, int]]:
        """Packets and octets that left since `lead`, and that came in since `admit`."""
        if self._leaving is None or self._arriving is None:
            return (0, 0), (0, 0)
        left = self._leaving.get(home_address.packed)
        came = self._arriving.get(ends.arriving(home_address))
        return entries.counted(left) if left else (0, 0), entries.counted(came) if came else (0, 0)

    def rest(self) -> None:
        """From the next packet on nothing passes, until the next `lead` or `admit`; never fails."""
        if self._prolonging is not None:
            self._prolonging.cancel()
            self._prolonging = None
        if self._alive is not None:
            self._alive.delete(bytes(4))

    def kind_of(self, link: int) -> str:
        """The kind of a virtual device ("xfrm"), empty for others and where there is none."""
        return self._open_control().kind_of(link)

    def _prolong(self) -> None:
        """Say that somebody is alive who decides, and go on saying so. Needs a running event loop."""
        assert self._alive is not None
        until = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(ALIVE * 1e9)
        self._alive.put(bytes(4), struct.pack("=Q", until))
        if self._prolonging is not None:
            self._prolonging.cancel()
        self._prolonging = asyncio.get_running_loop().call_later(_PROLONGED_EVERY, self._prolong)

    # --- parts -----------------------------------------------------------------------------------------------------

    def _load_ingress(self, arriving: int, device: int, alive: int) -> int:
        """A kernel that cannot tell what came out of IPsec has none, and needs not be asked."""

        def load(*, tells_ipsec: bool) -> int:
            code = inward(arriving, Side.MOBILE_NODE, device, alive, tells_ipsec=tells_ipsec)
            return load_program(ProgramKind.TRAFFIC_CONTROL, _INGRESS, code)

        try:
            return load(tells_ipsec=True)
        except PlanError:
            return load(tells_ipsec=False)

    def _open_control(self) -> TrafficControl:
        if self._control is None:
            raise PlanError("attaching a program", "the fast path is not open")
        return self._control

    def _open_ipip_device(self) -> int:
        """The kernel's device, with its own ingress shut; 0 where there is none."""
        control = self._open_control()
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
