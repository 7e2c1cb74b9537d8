# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operator does to a real home agent: its keys, its configuration, its maintenance."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from homeward.agentd.control import MOST_CLIENTS
from tests.component.agent_commands import CONFIGURATION, Laptop, Operator
from tests.component.agent_network import CARE_OF, HOME, PEER, AgentNetwork, Namespace, raw

pytestmark = pytest.mark.root

OTHER = IPv4Address("10.77.0.11")


@pytest.fixture(scope="module")
def network() -> Iterator[AgentNetwork]:
    made = AgentNetwork()
    yield made
    made.close()


@pytest.fixture
def operator(network: AgentNetwork, tmp_path: Path) -> Operator:
    return Operator(network.agent, tmp_path)


@pytest.fixture
def laptop(network: AgentNetwork) -> Iterator[Laptop]:
    made = Laptop(network)
    yield made
    made.close()


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_comes_is_rotated_and_revoked_while_the_agent_runs(operator: Operator, laptop: Laptop) -> None:
    operator.nodes.write_text("# ours\n")
    with operator.agent() as agent:
        first = operator.adds()
        assert laptop.asks(first) == 0

        second = operator.adds(more="")
        assert second.spi == first.spi + 1
        refused = operator.types(f"key add laptop --out {operator.folder / 'third'}")
        assert (refused.status, "has 2 keys already" in refused.err) == (1, True)
        assert not (operator.folder / "third").exists()

        said = operator.does("key retire laptop --spi 0x100")
        assert f"the binding of {HOME} still rests on it" in said.err
        (binding,) = operator.does("bindings --json").json["bindings"]
        assert (binding["spi"], binding["retired"]) == (0x100, True), "it stays until it ends"
        assert laptop.asks(first) == 129
        assert laptop.asks(second) == 0
        (binding,) = operator.does("bindings --json").json["bindings"]
        assert (binding["spi"], binding["retired"]) == (0x101, False)
        only = operator.types("key retire laptop --spi 0x101")
        assert (only.status, "is the only key of laptop" in only.err) == (1, True)

        operator.does("key revoke laptop --spi 0x100")
        assert laptop.asks(second) == 0
        assert laptop.asks(first, wait=0.3) is None

        stolen = operator.does("key revoke laptop")
        assert "revoked, 1 key(s) gone, 1 binding(s) ended" in stolen.out
        assert operator.does("bindings --json").json["bindings"] == []
        assert laptop.asks(second, wait=0.3) is None
        third = operator.adds()
        assert third.spi == 0x102, "no number comes again"
        assert laptop.asks(third) == 0
        for association in (first, second, third):
            assert association.key.reveal().hex() not in agent.text()
    lines = operator.nodes.read_text().splitlines()
    assert lines[0] == "# ours"
    assert [line.split(": ")[1] for line in lines if "revoked" in line] == [
        "laptop SPI 0x100",
        "laptop SPI 0x101",
    ]
    for association in (first, second):
        assert association.key.reveal().hex() not in operator.nodes.read_text()


def test_keys_without_a_running_agent(operator: Operator, laptop: Laptop) -> None:
    out = operator.folder / "laptop.secret"
    said = operator.does(f"key add laptop --home-address {HOME} --out {out}")
    assert "no agent answers here" in said.err
    assert out.read_text().split("=hex:")[1].strip() not in said.out + said.err
    assert operator.types(f"key add other --home-address {OTHER} --out {out}").status == 1, (
        "it is somebody's only copy"
    )
    assert "other" not in operator.nodes.read_text()
    listed = operator.does("key list --json").json["keys"]
    assert [(each["node"], each["home_address"], each["spi"]) for each in listed] == [
        ("laptop", str(HOME), 0x100)
    ]
    stolen = operator.does("key revoke laptop")
    assert "no agent answers here" in stolen.err
    assert operator.does("key list --json").json["keys"] == []
    assert operator.types("key revoke laptop").status == 1


def test_a_key_can_be_shown_to_somebody_at_a_terminal_alone(operator: Operator, laptop: Laptop) -> None:
    with operator.agent() as agent:
        said = operator.types(f"key add laptop --home-address {HOME} --show", terminal=True)
        key = re.search(r"^laptop-0x100=hex:(\w{64})$", said.out, re.MULTILINE)
        assert key is not None
        assert f"hex:{key[1]}" in operator.nodes.read_text()
        assert key[1] not in agent.text() + said.err + operator.does("key list --json").out


def test_a_revoked_node_stays_away_after_a_crash(operator: Operator, laptop: Laptop) -> None:
    with operator.agent() as agent:
        key = operator.adds()
        assert laptop.asks(key) == 0
        agent.kill()
        operator.does("key revoke laptop")
    with operator.agent():
        assert operator.does("bindings --json").json["bindings"] == []
        assert laptop.asks(key, wait=0.3) is None


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("key add laptop --out x", 2, "needs --home-address"),
        ("key add #x --home-address 10.77.0.10 --out x", 2, "is no name for a node"),
        ("key add laptop --home-addresses 10.77.0.0/25 --out x", 2, "needs an NAI"),
        ("key add laptop --home-address 10.77.0.10", 2, "one of the arguments --out --show is required"),
        ("key add laptop --home-address 10.77.0.10 --show", 2, "--show is for a terminal"),
        ("key add laptop --home-address 10.77.0.10 --spi 5 --out x", 2, "from 256 to"),
        ("key retire nobody --spi 0x100", 1, "there is no node 'nobody'"),
        ("key revoke nobody", 1, "there is no node 'nobody'"),
        ("status", 1, "Is it running?"),
        ("bindings", 1, "Is it running?"),
        ("drain", 1, "Is it running?"),
        ("reload", 1, "Is it running?"),
        ("restore --undo", 1, "there is no restore to undo"),
        ("restore absent", 1, "absent: No such file or directory"),
        ("restore", 2, "one of the arguments"),
        ("explode", 2, "invalid choice"),
    ],
)
def test_mistakes(operator: Operator, line: str, status: int, said: str) -> None:
    heard = operator.types(line)
    assert (heard.status, said in heard.err) == (status, True), heard.err
    assert operator.nodes.read_text() == ""


def test_a_node_of_the_configuration_itself_is_ended_and_pointed_to(
    operator: Operator, laptop: Laptop
) -> None:
    key = operator.folder / "laptop.key"
    node = f'[[node]]\nname = "laptop"\nhome_address = "{HOME}"\nspi = 0x100\nalgorithm = "hmac-sha256"\n'
    key.write_text("0" * 64)
    key.chmod(0o600)
    operator.configure(CONFIGURATION + node + f'key_file = "{key}"\n')
    with operator.agent():
        second = operator.adds(more="")
        assert laptop.asks(second) == 0
        said = operator.types("key revoke laptop")
        assert (said.status, "take its [[node]] out there" in said.err) == (1, True)
        assert operator.does("bindings --json").json["bindings"] == []
        assert operator.types("key retire laptop --spi 0x100").status == 1


# --- reload ----------------------------------------------------------------------------------------------------------


def test_a_reload_loses_nothing(operator: Operator, laptop: Laptop, network: AgentNetwork) -> None:
    with operator.agent():
        key = operator.adds()
        assert laptop.asks(key) == 0
        tunnel = raw(network.node, 4, CARE_OF)
        sender = raw(network.peer, socket.IPPROTO_ICMP, PEER)
        stop = threading.Event()
        sent = []

        def send() -> None:
            while not stop.wait(0.005):
                sender.sendto(b"\x08\x00" + bytes(6) + len(sent).to_bytes(4, "big"), (str(HOME), 0))
                sent.append(1)

        thread = threading.Thread(target=send)
        thread.start()
        for number in range(5):
            operator.adds(f"more{number}", f"--home-address 10.77.0.{20 + number}")
        assert "6 node(s) with 6 key(s)" in operator.does("reload").out
        stop.set()
        thread.join()
        numbers = [int.from_bytes(tunnel.recv(2048)[-4:], "big") for _ in sent]
        assert numbers == list(range(len(sent)))
        assert len(sent) > 20
        sender.close()
        tunnel.close()
        assert len(operator.does("bindings --json").json["bindings"]) == 1


def test_what_is_refused_changes_nothing_and_says_why(operator: Operator, laptop: Laptop) -> None:
    with operator.agent() as agent:
        key = operator.adds()
        assert laptop.asks(key) == 0
        for text, said in (
            (CONFIGURATION.replace("trusted_prefixes", "trusted_prefix"), "did you mean 'trusted_prefixes'"),
            (CONFIGURATION.replace('["inside"]', '["inside", "other"]'), "inside_interfaces cannot change"),
            (CONFIGURATION + 'store = "none"\ncontrol = "none"\n', "store cannot change"),
            ('version = 1\nrole = "foreign"\n', "is missing"),
        ):
            operator.configure(text)
            os.kill(agent.pid, signal.SIGHUP)
            agent.wait_for("reload-refused")
            if "control" not in text:
                refused = operator.types("reload")
                assert refused.status in (1, 2)
                assert said in refused.err
        operator.configure(CONFIGURATION)
        operator.nodes.write_text(operator.nodes.read_text() + "broken\n")
        before = operator.nodes.read_bytes()
        assert (
            operator.types(f"key add other --home-address {OTHER} --out {operator.folder / 'x'}").status == 2
        )
        assert operator.nodes.read_bytes() == before
        assert laptop.asks(key) == 0
        operator.nodes.unlink()
        assert "cannot be opened" in operator.types("reload").err, (
            "a file that is gone by accident revokes nobody"
        )
        assert laptop.asks(key) == 0


def test_a_change_that_the_agent_refuses_is_put_back(operator: Operator, laptop: Laptop) -> None:
    with operator.agent():
        key = operator.adds()
        before = operator.nodes.read_bytes()
        operator.configure(CONFIGURATION.replace("10.77.0.0/24", "10.77.0.0/16"))
        out = operator.folder / "other.secret"
        refused = operator.types(f"key add other --home-address {OTHER} --out {out}")
        assert refused.status == 1
        assert "nothing was changed: home_network cannot change" in refused.err
        assert operator.nodes.read_bytes() == before
        assert not out.exists()
        # What was stolen goes all the same.
        stolen = operator.does("key revoke laptop")
        assert "the agent did not read it again" in stolen.err
        assert laptop.asks(key, wait=0.3) is None


def test_trust_is_taken_over(operator: Operator, laptop: Laptop) -> None:
    with operator.agent() as agent:
        key = operator.adds()
        assert laptop.asks(key) == 0
        operator.configure(CONFIGURATION.replace("10.1.0.0/16", "10.2.0.0/16"))
        os.kill(agent.pid, signal.SIGHUP)
        agent.wait_for("reloaded ", times=2)
        assert laptop.asks(key, wait=0.3) is None
        assert operator.does("status --json").json["violations"] == {"wrong-source": 1}


# --- maintenance -----------------------------------------------------------------------------------------------------


def test_drain(operator: Operator, laptop: Laptop) -> None:
    with operator.agent():
        key, other = operator.adds(), operator.adds("other", f"--home-address {OTHER}")
        assert laptop.asks(key) == 0
        assert "no new binding is made; 1 stand" in operator.does("drain").out
        assert laptop.asks(other, home=OTHER) == 130
        assert laptop.asks(key) == 0, "what stands is renewed"
        assert operator.does("status --json").json["draining"] is True
        assert "draining" in operator.does("status").out
        operator.does("drain --undo")
        assert laptop.asks(other, home=OTHER) == 0
        assert "2 were ended" in operator.does("drain --revoke").out
        assert operator.does("bindings").out == "There are no bindings.\n"


@pytest.mark.rows("R-198")
def test_backup_and_restore(operator: Operator, laptop: Laptop) -> None:
    backup = operator.folder / "monday"
    with operator.agent():
        key, other = operator.adds(), operator.adds("other", f"--home-address {OTHER}")
        assert laptop.asks(key) == 0
        assert laptop.asks(other, home=OTHER) == 0
        said = operator.does(f"backup {backup}")
        assert str(operator.nodes) in said.out
        assert backup.stat().st_mode & 0o777 == 0o600
        assert operator.types(f"backup {backup}").status == 1, "an older one is not overwritten"
        later = laptop.request(key)
        assert laptop.sends(later, key) is not None
        operator.does("key revoke other")
        assert "an agent runs here" in operator.types(f"restore {backup}").err
    operator.nodes.write_text(operator.nodes.read_text().replace("laptop", "lap"))
    damaged = operator.nodes.read_bytes()
    said = operator.does(f"restore {backup}")
    assert "left out, for they were revoked since: other SPI 0x100" in said.err
    with operator.agent():
        (binding,) = operator.does("bindings --json").json["bindings"]
        assert (binding["node"], binding["home_address"]) == ("laptop", str(HOME))
        played = laptop.sends(later, key)
        assert played is not None
        assert played.code == 133, "what was accepted after the backup is not accepted again"
        assert laptop.asks(other, home=OTHER, wait=0.3) is None
    operator.does("restore --undo")
    assert operator.nodes.read_bytes() == damaged
    assert operator.types("restore --undo").status == 1


def test_a_backup_of_somebody_else_s_making_is_refused(operator: Operator) -> None:
    operator.adds()
    for name, octets in (("text", b"no tar"), ("cut", b"")):
        (operator.folder / name).write_bytes(octets)
    operator.does(f"backup {operator.folder / 'whole'}")
    (operator.folder / "cut").write_bytes((operator.folder / "whole").read_bytes()[:2000])
    before = operator.nodes.read_bytes()
    for name in ("text", "cut"):
        said = operator.types(f"restore {operator.folder / name}")
        assert (said.status, "is no backup of homeward-agent" in said.err) == (1, True)
    (operator.folder / "whole").chmod(0o666)
    assert "somebody else may have written it" in operator.types(f"restore {operator.folder / 'whole'}").err
    assert operator.nodes.read_bytes() == before


# --- looks -----------------------------------------------------------------------------------------------------------


def test_status_and_metrics(operator: Operator, laptop: Laptop, network: AgentNetwork) -> None:
    figures = operator.folder / "agent.prom"
    operator.configure(CONFIGURATION + f'metrics_file = "{figures}"\n')
    with operator.agent():
        key = operator.adds()
        assert laptop.asks(key) == 0
        forged = operator.adds("other", f"--home-address {OTHER}")
        assert (
            laptop.asks(forged, wait=0.3) is None
        )  # the other's key, for the first one's address: SPI 0x100 of both
        status = operator.does("status --json").json
        assert status["role"] == "home"
        assert (status["nodes"], status["keys"], status["bindings"]) == (2, 2, 1)
        assert status["replies"] == {"0": 1}
        assert status["violations"] == {"forged-authenticator": 1}
        assert status["sources"] == [{"kind": "forged-authenticator", "prefix": "10.1.1.0/24", "at_least": 1}]
        assert 0 < status["uptime"] < 60
        text = operator.does("status").out
        assert "forged-authenticator from 10.1.1.0/24: 1 or more" in text
        shown = operator.does("metrics").out
        assert "\nhomeward_agent_bindings 1\n" in shown
        assert 'homeward_agent_registration_replies_total{code="0"} 1\n' in shown
        assert figures.read_text().startswith("# HELP homeward_agent_info ")
        assert re.search(r"^homeward_agent_store_commits_total \d+$", shown, re.MULTILINE)
        table = operator.does("bindings").out.splitlines()
        assert table[0].split() == ["HOME", "ADDRESS", "NODE", "CARE-OF", "ADDRESS", "TUNNEL", "KEY", "LEFT"]
        assert table[1].split()[:5] == [str(HOME), "laptop", str(CARE_OF), "ip-in-ip", "0x100"]
        assert operator.types("visitors").status == 1
        operator.does(f"revoke {HOME}")
        assert operator.types(f"revoke {HOME}").status == 1
    assert not figures.exists()


def test_whatever_carries_packets_they_are_counted(
    operator: Operator, laptop: Laptop, network: AgentNetwork
) -> None:
    with operator.agent():
        assert laptop.asks(operator.adds()) == 0
        tunnel = raw(network.node, 4, CARE_OF)
        sender = raw(network.peer, socket.IPPROTO_ICMP, PEER)
        for number in range(20):
            sender.sendto(b"\x08\x00" + bytes(6) + number.to_bytes(4, "big"), (str(HOME), 0))
            tunnel.recv(2048)
        sender.close()
        tunnel.close()
        operator.configure(CONFIGURATION + "segment_mtu = 1280\n")
        shown = operator.does("metrics").out
        for what, least in (("packets", 20), ("octets", 20 * 32)):
            line = rf'^homeward_agent_tunnel_{what}_total{{direction="out",engine="\w+"}} (\d+)$'
            assert sum(int(each) for each in re.findall(line, shown, re.MULTILINE)) == least
        operator.does("reload")
        assert laptop.asks(operator.adds("other", f"--home-address {OTHER}"), home=OTHER) == 0


def test_check(operator: Operator) -> None:
    operator.adds()
    right = operator.does("check")
    assert "10.0.0.2 is this host's" in right.out
    assert "nothing wrong" in right.out
    assert operator.does("--check").out == right.out
    with operator.agent():
        assert "an agent answers at the control socket" in operator.does("check").out
        assert operator.does("check --json").json["usable"] is True
    for text, what in (
        (CONFIGURATION.replace('["inside"]', '["absent"]'), "there is no interface absent"),
        (CONFIGURATION.replace("10.0.0.2", "10.0.0.3"), "10.0.0.3 is not an address of this host"),
        (CONFIGURATION + 'metrics_file = "/absent/x.prom"\n', "the metrics cannot be written"),
        (CONFIGURATION + f'store = "{operator.nodes}"\n', "database"),
        (CONFIGURATION.replace('["10.1.0.0/16"]', "[]"), "nobody is answered"),
    ):
        operator.configure(text)
        wrong = operator.types("check")
        assert wrong.status == 1, wrong.out
        assert what in wrong.out
        assert "an agent cannot work so" in wrong.out
    operator.configure(CONFIGURATION.replace("trusted_prefixes", "trusted_prefix"))
    wrong = operator.types("check")
    assert (wrong.status, "did you mean 'trusted_prefixes'" in wrong.err) == (2, True)
    operator.configure(CONFIGURATION)
    operator.nodes.chmod(0o644)
    assert "chmod 600 helps" in operator.types("check").err


def test_the_example_is_right_where_its_interfaces_are(operator: Operator, network: AgentNetwork) -> None:
    station = Namespace()
    network.add_home_link(station, "10.77.0.99", "10.77.0.1")
    try:
        operator.configure(operator.does("example home").out)
        assert operator.does("check").out.endswith("nothing wrong\n")
        with operator.agent():
            operator.adds()
    finally:
        network.agent.ip("link delete home")
        station.close()


# --- the control socket's crowd --------------------------------------------------------------------------------------


def test_hostile_clients_hold_up_nobody_else(operator: Operator, laptop: Laptop) -> None:
    with operator.agent() as agent:
        key = operator.adds()
        place = f"{operator.log}.run/agent.control"
        crowd = []
        for number in range(3 * MOST_CLIENTS):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(1.0)
            crowd.append(made)
            try:
                made.connect(place)
                made.sendall((b'{"order"', b"\xff" * 100_000, b'{"order": "bindings"}\n' * 1000)[number % 3])
            except OSError:
                pass  # cut off already
        begun = time.monotonic()
        for _ in range(20):
            assert laptop.asks(key) == 0
        assert time.monotonic() - begun < 5
        for made in crowd:
            made.close()
        for _ in range(100):
            said = operator.types("status --json")
            if said.status == 0:
                break
            time.sleep(0.02)
        assert said.json["bindings"] == 1
        assert "order-failed" not in agent.text()
