# SPDX-License-Identifier: GPL-2.0-or-later
"""The network plan, carried out: what differs from the plan applied last, in the order close, path, addresses, open.

Everything that we put into the kernel is named by us (device, table, rule preferences, nftables tables), and what is
not (settings of others' links) is written down first; so a later life undoes all by applying the empty plan.
Unmarked traffic looks into our own table first, which leads it into the home device; packets that carry one of our
marks skip it and meet the system's routes, and the VPN's. The routes into the device name the program that may take
packets past it, where there is one.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final, Protocol

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

import homeward.model.access as access
from homeward.adapters.netlink_plan.rules import NEWS, RULES, deleted_routes, tells_of_a_deleted_rule
from homeward.model.errors import AdapterError, PlanError
from homeward.model.names import HOME_DEVICE, ROUTING_TABLE, TUNNEL_TABLE
from homeward.model.plan import AtHome, Fence, Held, NetworkPlan, Traffic, Tunnelled, ViaAgent
from homeward.model.traffic_counts import TrafficCounts
from homeward.model.tunnel_engine import TunnelEngine

log = logging.getLogger("plan")

ADVERTISED_MSS: Final = 1360
"""The segment size that our TCP asks for in every mode: what fits through the VPN behind NAT on paths of 1500 octets.

The device's MTU follows each path, and so do our own segments. But the other end learns our wish only once, when the
connection begins: had it heard of a trusted network's 1440, its full segments would be lost after a move outside
wherever ICMP is filtered (R-289, S16).
"""

PROGRAM: Final = "homeward_out"
"""What routes into the device call the program that may take packets past it."""

_IP_AND_TCP = 40

Flowing = Tunnelled | ViaAgent | AtHome
"""Traffic that is not held."""


class Tunnel(Protocol):
    """The home device, as TunnelDevice offers it."""

    on_lost: Callable[[], None]

    @property
    def route_program(self) -> int: ...
    @property
    def engine(self) -> TunnelEngine | None: ...
    def attach(self, home_address: IPv4Address) -> None: ...
    def detach(self) -> None: ...
    def clear_away(self) -> None: ...
    def refuse_shortcut(self, why: str) -> None: ...
    def hold(self) -> None: ...
    def prepare(self, traffic: Flowing, device: int) -> None: ...
    def open(self, *, linger: bool) -> None: ...
    def counters(self) -> tuple[int, int]: ...
    def traffic(self) -> TrafficCounts: ...


class Wall(Protocol):
    """The fence, as NftFence offers it."""

    def put_up(
        self,
        fence: Fence,
        home_address: IPv4Address | None,
        *,
        vpn_device: str | None = None,
        lingering: Traffic | None = None,
    ) -> None: ...
    def take_down(self) -> None: ...
    def close(self) -> None: ...


class Switches(Protocol):
    """Settings of other people's links, as KernelSwitches offers them."""

    def set_for(self, access_links: frozenset[str], tunnels: frozenset[str]) -> None: ...
    def restore(self) -> None: ...


def may_linger(before: Flowing, now: Flowing) -> bool:
    """Whether packets still in flight on the way before may come in after a hand-over.

    Not in clear once the VPN carries the traffic: outside, a packet in clear may come from anybody. Not on the path
    that stays, when it is used in another way: once a tunnel is in UDP, nothing else is taken (R-229). And not as at
    home on the link that we left home by: there anybody may send to the home address.
    """
    if before.path == now.path:
        return False
    if isinstance(now.path, access.VpnPath):
        return isinstance(before.path, access.VpnPath)
    return not isinstance(before, AtHome) or before.path.link_index != now.path.link_index


class NetlinkPlans:
    """Network plans on Linux. `tunnel_device` names the device that carries a tunnel inner address, or says None."""

    def __init__(
        self,
        tunnel: Tunnel,
        fence: Wall,
        *,
        switches: Switches,
        tunnel_device: Callable[[IPv4Address], str | None],
    ) -> None:
        self._tunnel = tunnel
        self._fence = fence
        self._switches = switches
        self._tunnel_device = tunnel_device
        self._ip: AsyncIPRoute | None = None
        self._lock = asyncio.Lock()
        self._applied: NetworkPlan | None = None
        self._wanted: NetworkPlan | None = None
        self._routed: object = None
        self._open: Flowing | None = None
        self._held = True
        self._holds = 0
        self._rules: socket.socket | None = None
        self._disturbed = ""
        self._mending: asyncio.Task[None] | None = None
        self.on_mended: Callable[[str], None] = lambda what: None
        """Called with words when somebody deleted our device or a rule and it was made anew."""
        self.on_failed: Callable[[str], None] = lambda what: None
        """Called with words when it could not be: packets are held, and wait for a plan to be applied."""
        tunnel.on_lost = lambda: self._taken_away(HOME_DEVICE)

    # --- the port --------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Hold the home address's packets from this very moment."""
        self._holds += 1
        self._held = True
        self._tunnel.hold()

    async def apply(self, plan: NetworkPlan) -> None:
        """Bring the kernel into this state. A hold() that comes meanwhile keeps the plan from opening.

        Raises PlanError with the step that failed; traffic is then held, and the next plan is carried out as a whole.
        """
        await self._apply(plan, self._holds)

    async def _apply(self, plan: NetworkPlan, holds: int) -> None:
        """The same, opening only if there have been no more than so many holds when it comes to that."""
        async with self._lock:
            self._wanted, self._disturbed = plan, ""
            if plan == self._applied and (not self._held or isinstance(plan.traffic, Held)):
                return
            before, self._applied = self._applied, None
            try:
                if plan.home_address is None or plan.home_address.is_unspecified:
                    await self._without_home_address(plan)
                else:
                    await self._carry_out(plan, plan.home_address, before=before, holds=holds)
                if self._disturbed:
                    action = "carrying out the plan"
                    raise PlanError(action, f"another program deleted {self._disturbed} meanwhile")
            except BaseException:
                self.hold()
                self._routed = None
                raise
            self._applied = plan

    def counters(self) -> tuple[int, int]:
        """Packets waiting and packets dropped from the holding queue."""
        return self._tunnel.counters()

    def traffic(self) -> TrafficCounts:
        """What the tunnel has carried so far."""
        return self._tunnel.traffic()

    def engine(self) -> TunnelEngine | None:
        """What carries packets at this moment, None while they are held."""
        return self._tunnel.engine

    async def close(self) -> None:
        """Let go of everything; what the plan put into the kernel stays, and without us lets nothing through."""
        if self._mending is not None:
            self._mending.cancel()
        self._tunnel.detach()
        self._fence.close()
        if self._rules is not None:
            asyncio.get_running_loop().remove_reader(self._rules)
            self._rules.close()
            self._rules = None
        if self._ip is not None:
            self._ip.close()
            self._ip = None

    # --- the steps -------------------------------------------------------------------------------------------------

    async def _carry_out(
        self, plan: NetworkPlan, home_address: IPv4Address, *, before: NetworkPlan | None, holds: int
    ) -> None:
        traffic = plan.traffic
        moves = before is None or before.traffic != traffic or self._held
        if moves:
            self._held = True
            self._tunnel.hold()
        vpn_device = self._find_vpn_device(plan.fence)
        with _Step("closing the fence"):
            self._close(plan, home_address, vpn_device)
        with _Step("preparing the path"):
            self._tunnel.attach(home_address)
            links = frozenset(plan.fence.access_links if plan.fence is not None else ())
            self._switches.set_for(links, frozenset({HOME_DEVICE, *([vpn_device] if vpn_device else [])}))
            if moves and not isinstance(traffic, Held | AtHome):
                self._tunnel.prepare(traffic, _index(traffic.path, vpn_device))
        mss = ADVERTISED_MSS
        if not isinstance(traffic, Held):
            mss = min(mss, traffic.mtu - _IP_AND_TCP)
        await self._put_addresses(home_address, plan.destinations, mss)
        if moves and isinstance(traffic, AtHome):
            with _Step("preparing the path"):  # It begins at the home address, which had to be there first.
                self._tunnel.prepare(traffic, traffic.path.link_index)
        # Whoever held meanwhile knows something newer than this plan.
        if moves and not isinstance(traffic, Held) and holds == self._holds:
            self._tunnel.open(linger=self._open is not None and may_linger(self._open, traffic))
            self._open = traffic
            self._held = False

    async def _without_home_address(self, plan: NetworkPlan) -> None:
        """Nothing to carry, and with a fence, while the home agent has not said which address is ours, nothing that
        may leave; without one nothing at all."""
        if plan.fence is None:
            await self._undo()
            return
        if not isinstance(plan.traffic, Held):
            raise PlanError("carrying out the plan", "there is no home address whose packets could flow")
        self._held = True
        self._tunnel.hold()
        with _Step("closing the fence"):
            self._close(plan, None, self._find_vpn_device(plan.fence))
        with _Step("preparing the links"):
            self._switches.set_for(frozenset(plan.fence.access_links), frozenset())

    def _close(self, plan: NetworkPlan, home_address: IPv4Address | None, vpn_device: str | None) -> None:
        """Put the whole fence up: while packets are held, nobody has anything to send through its traffic's rules."""
        fence = plan.fence
        if fence is None:
            self._fence.take_down()
            return
        _check_second_line(fence)
        old, new = self._open, fence.traffic
        lingers = old is not None and not isinstance(new, Held) and may_linger(old, new)
        self._fence.put_up(fence, home_address, vpn_device=vpn_device, lingering=old if lingers else None)

    async def _put_addresses(
        self, home_address: IPv4Address, destinations: tuple[IPv4Network, ...], mss: int
    ) -> None:
        with _Step("looking at the home device"):
            index = socket.if_nametoindex(HOME_DEVICE)
        routed = (index, home_address, destinations, mss, self._tunnel.route_program)
        if self._routed == routed:
            return
        ip = self._route()
        with _Step("setting the home address"):
            _refuse_ipv6()
            await ip.link("set", index=index, state="up")
            await ip.addr("replace", index=index, address=str(home_address), prefixlen=32)
            stale = [
                shown.get("local")
                async for shown in await ip.get_addr(family=socket.AF_INET, index=index)
                if shown.get("local") != str(home_address)
            ]
            for address in stale:
                await ip.addr("del", index=index, address=address, prefixlen=32)
        with _Step("setting the home routes"):
            await self._put_routes(index, home_address, destinations, mss)
        with _Step("setting the routing rules"):
            self._watch_rules()
            for rule in RULES:
                try:
                    await ip.rule("add", family=socket.AF_INET, **rule)
                except NetlinkError as error:
                    if error.code != errno.EEXIST:
                        raise
        self._routed = (*routed[:-1], self._tunnel.route_program)

    async def _put_routes(
        self, index: int, home_address: IPv4Address, destinations: tuple[IPv4Network, ...], mss: int
    ) -> None:
        for network in destinations:
            route = {
                "dst": str(network),
                "oif": index,
                "table": ROUTING_TABLE,
                "scope": "link",
                "prefsrc": str(home_address),
                "metrics": {"advmss": mss},
            }
            await self._put_route(route)
        await self._drop_routes(ROUTING_TABLE, keep=frozenset(destinations))

    async def _put_route(self, route: dict[str, Any]) -> None:
        """A route into the device, with the program that may take packets past it where the kernel has such routes."""
        ip, program = self._route(), self._tunnel.route_program
        if program >= 0:
            encapsulation = {"type": "bpf", "xmit": {"fd": program, "name": PROGRAM}}
            try:
                await ip.route("replace", **route, encap=encapsulation)
            except NetlinkError as error:
                self._tunnel.refuse_shortcut(f"no route can name a program: {error}")
            else:
                return
        await ip.route("replace", **route)

    async def _drop_routes(self, table: int, keep: frozenset[IPv4Network]) -> None:
        ip = self._route()
        shown = [route async for route in await ip.get_routes(family=socket.AF_INET, table=table)]
        for route in shown:
            network = IPv4Network(f"{route.get('dst') or '0.0.0.0'}/{route['dst_len']}")
            if network not in keep:
                exactly = {
                    "dst": str(network),
                    "table": table,
                    "type": route["type"],
                    "scope": route["scope"],
                }
                await _quietly(ip.route("del", **exactly), errno.ESRCH)

    async def _undo(self) -> None:
        """Leave the machine as it was found, whoever's life the traces are from. The fence goes last."""
        self._held = True
        self._open, self._routed = None, None
        ip = self._route()
        self._tunnel.clear_away()
        with _Step("removing the routing rules"):
            for rule in RULES:
                await _quietly(ip.rule("del", family=socket.AF_INET, **rule), errno.ENOENT)
        with _Step("removing the home routes"):
            for table in (ROUTING_TABLE, TUNNEL_TABLE):
                await self._drop_routes(table, keep=frozenset())
        with _Step("removing the home device"):
            self._tunnel.detach()
            await self._delete_home_device()
        with _Step("restoring settings of links"):
            self._switches.restore()
        with _Step("taking the fence down"):
            self._fence.take_down()

    async def _delete_home_device(self) -> None:
        ip = self._route()
        shown = [link async for link in await ip.get_links() if link.get("ifname") == HOME_DEVICE]
        for link in shown:
            if link.get(("linkinfo", "kind")) != "tun":
                raise PlanError("removing the home device", f"{HOME_DEVICE} is not a TUN device of ours")
            await _quietly(ip.link("del", index=link["index"]), errno.ENODEV)

    # --- what the steps need ---------------------------------------------------------------------------------------

    def _find_vpn_device(self, fence: Fence | None) -> str | None:
        """The device that carries the tunnel inner address; PlanError if it is needed and is not there."""
        if fence is None or fence.vpn_inner_address is None:
            return None
        action = f"finding the VPN's device for {fence.vpn_inner_address}"
        device = self._tunnel_device(fence.vpn_inner_address)
        if device is None and isinstance(fence.path, access.VpnPath):
            raise PlanError(action, "no device has this address")
        if device is not None and device in fence.access_links:
            raise PlanError(
                action, f"it is on the access link {device}, where nothing keeps it inside the VPN"
            )
        return device

    def _route(self) -> AsyncIPRoute:
        if self._ip is None:
            self._ip = AsyncIPRoute()
        return self._ip

    def _watch_rules(self) -> None:
        """Hear of deleted rules and routes: systemd-networkd removes all that it does not know whenever it starts."""
        if self._rules is None:
            self._rules = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
            )
            self._rules.bind((0, NEWS))
            asyncio.get_running_loop().add_reader(self._rules, self._look_at_rules)

    def _look_at_rules(self) -> None:
        assert self._rules is not None
        wanted = frozenset(self._wanted.destinations if self._wanted is not None else ())
        rules = routes = False
        while True:
            try:
                octets = self._rules.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more happened than fits; assume the worst
                rules = True
                continue
            rules |= tells_of_a_deleted_rule(octets)
            routes |= not wanted.isdisjoint(deleted_routes(octets))
        if rules or routes:
            self._taken_away("the routing rules" if rules else "routes into the home device")

    def _taken_away(self, what: str) -> None:
        """Somebody deleted what is ours: carry the plan out anew, and open only what was open."""
        if self._wanted is None or self._wanted.home_address is None:
            return  # it was us
        log.warning("another program deleted %s", what)
        if self._lock.locked():
            self._disturbed = (
                what  # perhaps after the step that made it: the whole plan fails, and is wished anew
            )
            return
        if self._mending is not None and not self._mending.done():
            return  # not begun yet: it makes this anew too
        holds = -1 if self._held else self._holds
        self._held = True
        self._tunnel.hold()
        self._applied, self._routed = None, None
        self._mending = asyncio.get_running_loop().create_task(self._mend(self._wanted, holds, what=what))

    async def _mend(self, plan: NetworkPlan, holds: int, *, what: str) -> None:
        if self._wanted is not plan:
            return  # a newer plan was carried out meanwhile, and as a whole
        try:
            await self._apply(plan, holds)
        except AdapterError as error:
            self.on_failed(f"another program deleted {what}, and it could not be made anew: {error}")
        else:
            self.on_mended(f"another program deleted {what}; it was made anew")


class _Step:
    """Names the step in which a part of the plan failed."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        log.debug("%s", self._action)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case PlanError() | None:
                return
            case AdapterError():
                raise PlanError(self._action, str(error)) from error
            case NetlinkError():
                raise PlanError(self._action, int(error.code)) from error
            case OSError():
                raise PlanError(self._action, error.errno or str(error)) from error


def _index(path: access.Path, vpn_device: str | None) -> int:
    """The interface index of a path's device."""
    if not isinstance(path, access.VpnPath):
        return path.link_index
    assert vpn_device is not None, "checked when the device was looked for"
    return socket.if_nametoindex(vpn_device)


def _check_second_line(fence: Fence) -> None:
    """Frames of our own meet the second line of the fence alone, so it has to stand where they leave. PlanError."""
    for path in (fence.path, fence.foreign_agent, fence.home_link):
        if isinstance(path, access.AgentPath | access.HomePath) and path.link_name not in fence.access_links:
            raise PlanError(f"sending frames by {path.link_name}", "it is not an access link")


def _refuse_ipv6() -> None:
    """No IPv6 on the home device: its packets could not be tunnelled, and link-local chatter would fill the queue."""
    try:
        Path(f"/proc/sys/net/ipv6/conf/{HOME_DEVICE}/disable_ipv6").write_text("1")
    except FileNotFoundError:
        pass  # a kernel without IPv6


async def _quietly(request: Any, *expected: int) -> None:
    """Carry a request out, taking for done what the kernel says is not there."""
    try:
        await request
    except NetlinkError as error:
        if error.code not in expected:
            raise
