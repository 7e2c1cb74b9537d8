# SPDX-License-Identifier: GPL-2.0-or-later
"""homewardd: the root process that holds the mobility core."""

import argparse
import asyncio
import logging
import os
import secrets
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import homeward
from homeward.adapters import core_dumps
from homeward.adapters.boottime_clock import BoottimeClock
from homeward.adapters.dns_gateway import DnsGateway
from homeward.adapters.file_journal import FileJournals
from homeward.adapters.home_link import ArpHomeLinks
from homeward.adapters.icmp_agents import IcmpAgents
from homeward.adapters.kernel_switches import KernelSwitches
from homeward.adapters.kernel_tunnels.shortcut import Shortcut
from homeward.adapters.netlink_links import NetlinkLinks
from homeward.adapters.netlink_plan import NetlinkPlans
from homeward.adapters.nftables.fence import NftFence
from homeward.adapters.strongswan.engine import StrongSwanEngine
from homeward.adapters.system_bus_logind import LogindSessions
from homeward.adapters.tunnel_device import TunnelDevice
from homeward.adapters.udp_registration import UdpRegistrations
from homeward.bus.server import BusServer
from homeward.daemon.client import Client
from homeward.daemon.executor import World
from homeward.daemon.guard import GuardedControl
from homeward.daemon.journal_keeper import JournalKeeper
from homeward.daemon.permissions import Permissions
from homeward.daemon.secret_store import SecretStore
from homeward.daemon.settings import load_profiles
from homeward.model import names
from homeward.model.errors import HomewardError
from homeward.model.plan import EMPTY_PLAN

log = logging.getLogger("plan")

RUNTIME_DIRECTORY = "/run/homeward"
STATE_FILE = "journal.json"
WANTED_FILE = "wanted.json"


def main() -> int:
    """Run until a signal ends it; 0 after SIGTERM, SIGINT or SIGUSR1, 1 on failure, 2 for wrong usage."""
    options = _options()
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    if os.geteuid() != 0:
        print("homewardd: must run as root (it sets up routes, rules and a fence)", file=sys.stderr)
        return 1
    core_dumps.switch_off()
    try:
        return asyncio.run(_clean_up(options) if options.cleanup else _serve(options))
    except HomewardError as error:
        print(f"homewardd: {error}", file=sys.stderr)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="homewardd",
        description="Keeps this machine's home address and connections while it moves (RFC 5266).",
        epilog="SIGTERM disconnects and undoes everything; SIGUSR1 ends but leaves the fence up for the next start.",
    )
    add = parser.add_argument
    add("--bus", default="system", metavar="ADDRESS", help="D-Bus to serve on (default: the system bus)")
    add(
        "--config",
        type=Path,
        default=Path(names.PROFILE_DIRECTORY),
        metavar="DIR",
        help="profiles (%(default)s)",
    )
    add("--state", type=Path, default=Path(names.STATE_DIRECTORY), metavar="DIR", help="state (%(default)s)")
    add(
        "--runtime",
        type=Path,
        default=Path(RUNTIME_DIRECTORY),
        metavar="DIR",
        help="until reboot (%(default)s)",
    )
    add("--vici", default=names.VICI_SOCKET, metavar="SOCKET", help="strongSwan's vici socket (%(default)s)")
    add(
        "--cleanup", action="store_true", help="undo what a killed homewardd left, lifting its block, and end"
    )
    add("--verbose", action="store_true", help="log more")
    add("--version", action="version", version=f"homewardd {homeward.__version__}")
    return parser.parse_args()


async def _clean_up(options: argparse.Namespace) -> int:
    """End the VPN of a killed daemon, lift its block and forget what was wanted."""
    engine = StrongSwanEngine(options.vici)
    try:
        await engine.disconnect()
    except HomewardError as error:
        log.warning("the VPN could not be ended: %s", error)
    await engine.stop()
    plans = NetlinkPlans(
        TunnelDevice(shortcut=Shortcut()),
        NftFence(),
        switches=KernelSwitches(options.runtime),
        tunnel_device=lambda _inner: None,
    )
    await plans.apply(EMPTY_PLAN)
    await plans.close()
    JournalKeeper(FileJournals(options.state / STATE_FILE), FileJournals(options.runtime / WANTED_FILE)).want(
        None
    )
    return 0


async def _serve(options: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    for directory in (options.state, options.runtime):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    clock = BoottimeClock()
    engine = StrongSwanEngine(options.vici)
    fence = NftFence()
    registrations = UdpRegistrations(engine.tunnel_device)
    tunnel = TunnelDevice(datagrams=registrations, shortcut=Shortcut())
    registrations.on_tunnel_data = tunnel.take_datagram
    registrations.on_new_port = tunnel.follow_port
    plans = NetlinkPlans(
        tunnel, fence, switches=KernelSwitches(options.runtime), tunnel_device=engine.tunnel_device
    )
    world = World(
        registrations,
        plans,
        engine,
        DnsGateway(),
        JournalKeeper(FileJournals(options.state / STATE_FILE), FileJournals(options.runtime / WANTED_FILE)),
        IcmpAgents(),
        ArpHomeLinks(),
    )
    profiles = partial(load_profiles, options.config)
    server: BusServer | None = None

    def publish() -> None:
        if server is not None:
            server.publish()

    links = NetlinkLinks()
    client = Client(
        profiles=profiles,
        store=SecretStore(lambda: clock.now().boot),
        clock=clock,
        links=links,
        world=world,
        entropy=lambda: secrets.randbits(32),
        publish=publish,
    )
    links.on_failed = client.broken
    tunnel.on_engine = client.redraw
    fence.on_tampered = partial(client.noticed, "fence-restored")
    plans.on_mended = partial(client.noticed, "device-restored")
    plans.on_failed = partial(client.noticed, "plan-failed")
    control = GuardedControl(client, Permissions(LogindSessions(options.bus)), profiles)
    # The block of a killed life is taken over before anybody can give orders.
    await client.resume()
    server = BusServer(control, options.bus, version=homeward.__version__)
    await server.start()
    stop: asyncio.Future[bool] = loop.create_future()

    def end(keep_block: bool) -> None:
        if not stop.done():
            stop.set_result(keep_block)

    for number, keep_block in ((signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGUSR1, True)):
        loop.add_signal_handler(number, end, keep_block)
    log.info("homewardd %s is ready", homeward.__version__)
    try:
        ends: set[asyncio.Future[Any]] = {stop, client.failed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if client.failed.done():
            log.critical("an error of ours; the fence stays", exc_info=client.failed.exception())
            await client.end(keep_block=True)
            return 1
        await client.end(keep_block=stop.result())
        return 0
    finally:
        await server.stop()
        await plans.close()


if __name__ == "__main__":
    sys.exit(main())
