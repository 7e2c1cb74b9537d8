# SPDX-License-Identifier: GPL-2.0-or-later
"""What carries the home agent's tunnels, from one life of the agent to the next, and when links and settings change."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP

from homeward.model.tunnel_engine import TunnelEngine
from tests.component.agent_modes import CONFIGURATION, running
from tests.component.agent_network import AGENT, HOME, PEER, AgentNetwork, Namespace, raw
from tests.component.agent_tunnels import BY_KERNEL, BY_SOCKETS, Peer, Share, Tunnel, by_kernel, wait_for

pytestmark = pytest.mark.root

CLAMPING = CONFIGURATION.replace("segment_mtu = 0", "segment_mtu = 1200")


@pytest.fixture(scope="module", params=[BY_KERNEL, pytest.param(BY_SOCKETS, marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """What carries: on its own choice, or "tun"."""
    before = os.environ.get("HOMEWARD_ENGINES")
    if request.param == BY_SOCKETS:
        os.environ["HOMEWARD_ENGINES"] = "tun"
    yield request.param
    if before is None:
        os.environ.pop("HOMEWARD_ENGINES", None)
    else:
        os.environ["HOMEWARD_ENGINES"] = before


@pytest.fixture(scope="module")
def network() -> Iterator[AgentNetwork]:
    made, station = AgentNetwork(), Namespace()
    made.add_home_link(station, "10.79.0.20", "10.79.0.1")
    for host in (made.agent, made.router):
        host.setting("ipv4/icmp_ratelimit", "0")
    yield made
    made.close()
    station.close()


@pytest.fixture
def peer(network: AgentNetwork) -> Iterator[Peer]:
    made = Peer(network)
    yield made
    made.opened.close()


def test_a_dead_agents_tunnels_end_with_their_bindings(
    network: AgentNetwork, engine: str, tmp_path: Path, peer: Peer
) -> None:
    with running(network, tmp_path) as process:
        carried = by_kernel(process, engine)
        tunnel = Tunnel(network, lifetime=2)
        bound = time.monotonic()
        process.kill()
        tunnel.put(peer.inner(b"while it was to last"))
        peer.send(b"back")
        if carried:
            assert peer.hears()[0] == b"while it was to last"
            assert bytes(tunnel.take()[0][UDP].payload) == b"back"
        time.sleep(max(0.0, bound + 2.05 - time.monotonic()))
        tunnel.put(peer.inner(b"too late"))
        peer.send(b"too late")
        assert tunnel.takes_nothing(0.1)
        with pytest.raises(TimeoutError):
            peer.hears(0.1)
        tunnel.station.close()
    with running(network, tmp_path):
        pass  # which takes away what the dead one left


def rules_of(host: Namespace) -> str:
    """All that an agent could leave behind."""
    found = [host.ip("link show"), host.ip("route show table all"), host.run("nft", "list", "ruleset")]
    found += [host.run("tc", "qdisc", "show")]
    for link in ("inside", "outside", "home", "lo"):
        found.append(host.run("tc", "filter", "show", "dev", link, "ingress"))
    return "\n".join(found)


@pytest.mark.parametrize("ended", ["asked", "killed before"])
def test_an_end_leaves_nothing(network: AgentNetwork, engine: str, tmp_path: Path, ended: str) -> None:
    before = rules_of(network.agent)
    if ended == "killed before":
        with running(network, tmp_path) as process:
            Tunnel(network).station.close()
            assert rules_of(network.agent) != before
            process.kill()
        assert rules_of(network.agent) != before
    with running(network, tmp_path):
        Tunnel(network, "ip-in-ip").station.close()
    assert rules_of(network.agent) == before


def test_a_life_without_programs_takes_away_those_of_the_life_before(
    network: AgentNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: Peer
) -> None:
    monkeypatch.delenv("HOMEWARD_ENGINES", raising=False)
    with running(network, tmp_path) as process:
        tunnel = Tunnel(network)
        process.kill()
    monkeypatch.setenv("HOMEWARD_ENGINES", TunnelEngine.TUN.value)
    with running(network, tmp_path) as process:
        tunnel.put(peer.inner(b"by the process"))
        assert peer.hears()[0] == b"by the process"
        peer.send(b"by the process")
        assert bytes(tunnel.take()[0][UDP].payload) == b"by the process"
        assert process.dump()["traffic"] == {}
        assert "bpf" not in rules_of(network.agent)
    tunnel.station.close()


class Streams:
    """A packet each way every 5 ms from the beginning of a block until `stop`, and which of them were lost."""

    def __init__(self, tunnel: Tunnel, peer: Peer) -> None:
        self._tunnel = tunnel
        self._peer = peer
        self._over = threading.Event()
        self._sent = 0
        self._came: tuple[set[int], set[int]] = set(), set()
        self._threads = [threading.Thread(target=each) for each in (self._send, self._out, self._back)]

    def __enter__(self) -> Streams:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send nothing more, and wait for what is under way."""
        self._over.set()
        for each in self._threads:
            each.join()

    def lost(self) -> tuple[list[int], list[int]]:
        """What the mobile node sent, and what the correspondent sent."""
        assert self._sent > 100
        out, back = (sorted(set(range(self._sent)) - came) for came in self._came)
        return out, back

    def _send(self) -> None:
        while not self._over.is_set():
            data = self._sent.to_bytes(4, "big")
            self._tunnel.put(self._peer.inner(data))
            self._peer.send(data)
            self._sent += 1
            time.sleep(0.005)

    def _out(self) -> None:
        with suppress(TimeoutError):
            while True:
                self._came[0].add(int.from_bytes(self._peer.hears(0.5)[0], "big"))

    def _back(self) -> None:
        with suppress(TimeoutError):
            while True:
                inner = self._tunnel.take(0.5)[0]
                self._came[1].add(int.from_bytes(bytes(inner[UDP].payload), "big"))


@pytest.mark.slow
@pytest.mark.parametrize("ended", ["killed", "left standing"])
def test_no_packet_is_lost_while_one_life_follows_another(
    network: AgentNetwork, tmp_path: Path, peer: Peer, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOMEWARD_ENGINES", raising=False)
    with running(network, tmp_path) as process:
        assert process.dump()["engine"] != "tun"
        tunnel = Tunnel(network, lifetime=60)
        with Streams(tunnel, peer) as streams:
            time.sleep(0.3)
            if ended == "killed":
                process.kill()
            else:
                assert process.stop_standing() == 0
            time.sleep(0.3)
            with running(network, tmp_path) as second:
                before = sum(second.dump()["traffic"].values())
                time.sleep(0.5)
                assert sum(second.dump()["traffic"].values()) > before + 50
                time.sleep(0.1)
                streams.stop()
        assert streams.lost() == ([], [])
        tunnel.station.close()


@pytest.mark.rows("R-287", "R-288")
def test_what_the_kernel_learned_of_a_path_in_another_life_costs_no_packet(
    network: AgentNetwork, engine: str, tmp_path: Path, peer: Peer
) -> None:
    """It goes by that for ten minutes when it sends what sockets give it, and says so to nobody but us."""
    icmp = raw(network.peer, socket.IPPROTO_ICMP, PEER)
    with running(network, tmp_path):
        tunnel = Tunnel(network)
        network.router.ip("link set to-node mtu 1300")
        peer.send(bytes(1400))
        assert IP(icmp.recv(2000))[ICMP].nexthopmtu == 1268
        network.router.ip("link set to-node mtu 1500")
    with running(network, tmp_path) as process:
        tunnel.register()
        peer.send(bytes(1400))
        if by_kernel(process, engine):  # which asks the way anew
            assert tunnel.take()[0].len == 1428
        else:
            told = IP(icmp.recv(2000))
            assert (told.src, told[ICMP].code, told[ICMP].nexthopmtu) == (str(AGENT), 4, 1268)
        tunnel.close()
    for host in (network.agent, network.peer):
        host.ip("route flush cache")
    icmp.close()


@pytest.mark.rows("R-289")
def test_connections_are_opened_with_segments_that_fit(
    network: AgentNetwork, engine: str, tmp_path: Path
) -> None:
    with running(network, tmp_path, CLAMPING) as process:
        tunnel, icmp = Tunnel(network), raw(network.peer, socket.IPPROTO_TCP, PEER)
        share = Share(process)
        opening = IP(src=str(HOME), dst=str(PEER)) / TCP(sport=7001, dport=99, options=[("MSS", 1440)])
        tunnel.put(IP(bytes(opening)))
        arrived = IP(icmp.recv(2000))
        assert dict(arrived[TCP].options)["MSS"] == 1160
        (answer,) = [tunnel.take()[0]]  # nobody listens there: a reset, which passes as any packet
        assert "R" in answer[TCP].flags
        with network.peer.entered():
            opener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        opener.connect_ex((str(HOME), 99))
        opened = tunnel.take()[0]
        assert dict(opened[TCP].options)["MSS"] == 1160
        opener.close()
        icmp.close()
        assert share.since() == ({"in": 0, "out": 1} if by_kernel(process, engine) else {"in": 0, "out": 0})
        tunnel.close()


def test_inside_links_are_followed(network: AgentNetwork, engine: str, tmp_path: Path, peer: Peer) -> None:
    """A link that is inside no more by its name has nothing taken from it; one that is made anew has."""
    with running(network, tmp_path) as process:
        carried = by_kernel(process, engine)
        tunnel = Tunnel(network)
        network.agent.ip("link set inside down")
        network.agent.ip("link set inside name elsewhere")
        network.agent.ip("link set elsewhere up")
        network.agent.ip("route add default via 10.0.0.1")
        try:
            time.sleep(1.1)  # so long an index is believed to be the same link
            outside = process.counter("tunnel-packet-from-outside-interface")
            tunnel.put(peer.inner(b"from elsewhere"))
            wait_for(process, "tunnel-packet-from-outside-interface", outside + 1)
            assert "homeward" not in network.agent.run("tc", "filter", "show", "dev", "elsewhere", "ingress")
        finally:
            network.agent.ip("link set elsewhere down")
            network.agent.ip("link set elsewhere name inside")
            network.agent.ip("link set inside up")
            network.agent.ip("route add default via 10.0.0.1")
        time.sleep(1.1)
        share = Share(process)
        tunnel.put(peer.inner(b"genuine"))
        assert peer.hears()[0] == b"genuine"
        assert share.since()["in"] == int(carried)
        tunnel.close()
