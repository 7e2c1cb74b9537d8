# SPDX-License-Identifier: GPL-2.0-or-later
"""What strongSwan says on the wire for us: RFC 4555 and RFC 7296 as far as a gateway's log and a capture show."""

import asyncio
import contextlib
import itertools
import re
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw

from homeward.adapters.strongswan.engine import StrongSwanEngine
from homeward.model.vpn import VpnEstablished, VpnFailed, VpnLost, VpnMoved, VpnReport
from tests.component.strongswan.steps import connected
from tests.world.echo import echo
from tests.world.stations import eventually
from tests.world.two_charons import EXT1, GATEWAY, LAPTOP_CONFIGURATION
from tests.world.vpn_worlds import NETWORKS, SETTINGS, RealVpnWorld, Reports, secret

pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]

ANYTHING: tuple[type[VpnReport], ...] = (VpnLost, VpnFailed, VpnMoved, VpnEstablished)


def messages(world: RealVpnWorld, kind: str) -> list[tuple[str, frozenset[str]]]:
    """What the gateway read and wrote of a kind, in order: request or response, and what was in it."""
    log = world.hosts.gateway_charon.log.read_text()
    found = re.findall(rf"(?:parsed|generating) {kind} (request|response) \d+ \[ (.*) \]", log)
    return [(way, frozenset(content.split())) for way, content in found]


@pytest.mark.rows("R-246", "R-266")
async def test_mobike_and_nat_detection_are_offered_from_the_beginning(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    assert (await connected(world, engine, reports)).mobike
    way, first = messages(world, "IKE_SA_INIT")[0]
    assert way == "request"
    assert {"N(NATD_S_IP)", "N(NATD_D_IP)"} <= first
    request, response = messages(world, "IKE_AUTH")[:2]
    assert (request[0], response[0]) == ("request", "response")
    assert "N(MOBIKE_SUP)" in request[1] & response[1]


@pytest.mark.rows("R-248")
async def test_ike_goes_to_port_4500_though_there_is_no_nat(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    assert not (await connected(world, engine, reports)).behind_nat
    log = world.hosts.gateway_charon.log.read_text()
    ports = re.findall(rf"received packet: from {NETWORKS[0]}\[(\d+)\] to {GATEWAY}\[(\d+)\]", log)
    assert ports[0] == ("500", "500")
    assert set(ports[1:]) == {("4500", "4500")}


@pytest.mark.rows("R-251", "R-257")
async def test_a_move_updates_the_addresses_with_a_cookie_that_comes_back(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    await connected(world, engine, reports)
    before = len(messages(world, "INFORMATIONAL"))
    await engine.move(await world.attach(1))
    await reports.get(VpnMoved)

    def update() -> tuple[frozenset[str], frozenset[str]] | None:
        """The update and its answer, which may come a round trip after the path was found to work."""
        exchanged = messages(world, "INFORMATIONAL")[before:]
        for (_, said), (way, answered) in itertools.pairwise(exchanged):
            if "N(UPD_SA_ADDR)" in said and way == "response":
                return said, answered
        return None

    said, answered = await eventually(update)
    assert {"N(NATD_S_IP)", "N(NATD_D_IP)", "N(COOKIE2)"} <= said
    assert "N(COOKIE2)" in answered


@pytest.mark.rows("R-3")
async def test_a_gateway_that_speaks_the_old_version_only_is_refused_in_words(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    with world.hosts.gateway_charon.session() as session:
        session.unload_conn({"name": "roadwarrior"})
        side = world.hosts._side
        assert side is not None
        session.load_conn(
            {"old": side.connection() | {"version": "1", "proposals": ["aes128-sha256-modp2048"]}}
        )
    await engine.configure(SETTINGS, world.gateway, secret())
    await engine.connect(NETWORKS[0])
    failed = await reports.get(VpnFailed)
    assert failed.code == "gateway-refused"
    assert "IKEv2" in failed.cause
    assert messages(world, "IKE_SA_INIT")
    assert "ID_PROT" not in world.hosts.laptop_charon.log.read_text()


@pytest.mark.slow
@pytest.mark.rows("R-43")
async def test_renewed_keys_are_no_news_and_cost_no_packet(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    inner = (await connected(world, engine, reports)).inner
    hosts = world.hosts
    with echo(hosts, inner) as traffic:
        for charon in (hosts.gateway_charon, hosts.laptop_charon):
            [(name, _)] = charon.sas()
            with charon.session() as session:
                session.rekey({"ike": name})
                await asyncio.sleep(0.4)
                session.rekey({"child": next(iter(charon.sas()[0][1]["child-sas"])).rsplit("-", 1)[0]})
            await asyncio.sleep(0.4)
        before = len(traffic.came)
        await asyncio.sleep(0.3)
        assert len(traffic.came) > before
    await reports.stay_without(*ANYTHING)
    log = hosts.laptop_charon.log.read_text()
    assert len(re.findall(r"IKE_SA .* rekeyed between", log)) == 2
    # The VPN can still be moved under its new keys.
    await engine.move(await world.attach(1))
    assert (await reports.get(VpnMoved)).local == NETWORKS[1]


@pytest.mark.rows("R-253", "R-265")
async def test_anybodys_word_that_the_gateway_is_unreachable_changes_nothing(
    world: RealVpnWorld, engine: StrongSwanEngine, reports: Reports
) -> None:
    inner = (await connected(world, engine, reports)).inner
    hosts = world.hosts
    router = hosts.router.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
    quoted = IP(src=str(NETWORKS[0]), dst=str(GATEWAY)) / UDP(sport=4500, dport=4500) / Raw(bytes(8))
    with router, echo(hosts, inner) as traffic:
        for code in (0, 1, 3, 13):
            told = IP(src=str(EXT1.router.ip), dst=str(NETWORKS[0])) / ICMP(type=3, code=code) / quoted
            for _ in range(5):
                router.sendto(bytes(told), (str(NETWORKS[0]), 0))
            await asyncio.sleep(0.2)
        before = len(traffic.came)
        await asyncio.sleep(0.3)
        assert len(traffic.came) > before
    await reports.stay_without(*ANYTHING)


# --- keeping a NAT's mapping (RFC 3948 section 2.3) ------------------------------------------------------------------


@contextlib.contextmanager
def outer_link(world: RealVpnWorld) -> Iterator[socket.socket]:
    """What comes to the router from the laptop, frame by frame."""
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
    heard = world.hosts.router.inside(lambda: socket.socket(socket.AF_PACKET, kind, socket.htons(3)))
    with heard:
        world.hosts.router.inside(lambda: heard.bind(("cable", 3)))
        yield heard


def keepalives(heard: socket.socket) -> int:
    """How many one-octet datagrams of 0xFF went to port 4500 since the last call."""
    count = 0
    while True:
        try:
            frame, address = heard.recvfrom(2000)
        except BlockingIOError:
            return count
        datagram = frame[14 + 20 :]
        if address[2] != 4 and frame[23] == 17 and datagram[2:4] == (4500).to_bytes(2, "big"):
            count += datagram[4:6] == (9).to_bytes(2, "big") and datagram[8:9] == b"\xff"


@pytest.fixture
async def hasty(world: RealVpnWorld) -> RealVpnWorld:
    """Charon as it is configured, but that it keeps mappings every second."""
    text = LAPTOP_CONFIGURATION.read_text()
    assert text.count("keep_alive = 20s") == 1
    charon = world.hosts.laptop_charon
    charon.configuration = charon.log.with_name("hasty.conf")
    charon.configuration.write_text(text.replace("keep_alive = 20s", "keep_alive = 1s"))
    await world.engine_runs(False)
    await world.engine_runs(True)
    return world


@pytest.mark.slow
@pytest.mark.rows("R-268")
async def test_a_nats_mapping_is_kept_while_nothing_is_sent(hasty: RealVpnWorld, reports: Reports) -> None:
    engine = hasty.engine()
    await engine.start(reports)
    try:
        with outer_link(hasty) as heard:
            await connected(hasty, engine, reports)
            await asyncio.sleep(2.5)
            assert keepalives(heard) == 0, "there is no NAT here"
            await engine.move(await hasty.attach(1))
            await reports.get(VpnMoved)
            keepalives(heard)
            await asyncio.sleep(3.5)
            assert keepalives(heard) >= 2
            await reports.stay_without(VpnLost)
    finally:
        await engine.stop()
