# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from homeward.agentd import metrics_file
from homeward.agentd.exposition import Figures, exposition, write_file
from homeward.agentd.metrics import SOURCES, VIOLATIONS, Metrics
from homeward.agentd.metrics_file import MetricsFile
from homeward.agents.findings import Finding
from homeward.agents.foreign_events import ForeignFinding
from homeward.agents.foreign_tunnels import VisitorDrop
from homeward.agents.tunnels import Dropped

LINE = re.compile(
    r'([a-z_]+)(?:\{([a-z_]+="(?:[^"\\\n]|\\[\\"n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\[\\"n])*")*)\})? (\S+)'
)


def parsed(text: str) -> dict[str, float]:
    """As Prometheus reads it: HELP, TYPE, then all samples of a metric, each metric once."""
    found: dict[str, float] = {}
    seen: list[str] = []
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            seen.append(line.split()[2])
            assert seen.count(seen[-1]) == 1
            continue
        if line.startswith("# TYPE "):
            assert line.split()[2] == seen[-1]
            assert line.split()[3] in ("counter", "gauge")
            assert seen[-1].endswith("_total") == (line.split()[3] == "counter")
            continue
        sample = LINE.fullmatch(line)
        assert sample is not None, line
        assert sample[1] == seen[-1]
        found[f"{sample[1]}{{{sample[2]}}}" if sample[2] else sample[1]] = float(sample[3])
    return found


def figures(metrics: Metrics) -> Figures:
    return Figures(
        "home",
        engine="bpf",
        started=1e9,
        metrics=metrics,
        gauges={"bindings": ("Bindings.", 3)},
        traffic={("in", "bpf"): (10, 1000), ("out", "bpf"): (20, 2000)},
    )


def test_what_is_counted_is_told() -> None:
    metrics = Metrics()
    for code in ("wrong-authenticator", "wrong-authenticator", "no-binding"):
        metrics.count(code, 0.0)
    metrics.counts.update({"binding-made": 4, "packets-in": 5, "octets-in": 500, "packets-out": 6})
    for octets in (b"\x03\x00", b"\x03\x85", b"\x03\x00", b"\x0f\x00"):
        metrics.replied(octets)
    found = parsed(exposition(figures(metrics)))
    assert found["homeward_agent_bindings"] == 3
    assert found['homeward_agent_violations_total{kind="forged-authenticator"}'] == 2
    assert found['homeward_agent_violations_total{kind="replay"}'] == 0, "a counter is there before it counts"
    assert found['homeward_agent_registration_replies_total{code="0"}'] == 2
    assert found['homeward_agent_registration_replies_total{code="133"}'] == 1
    assert found['homeward_agent_changes_total{change="made"}'] == 4
    assert found['homeward_agent_refused_total{reason="wrong-authenticator"}'] == 2
    assert found['homeward_agent_events_total{event="no-binding"}'] == 1
    assert found['homeward_agent_tunnel_packets_total{direction="in",engine="tun"}'] == 5
    assert found['homeward_agent_tunnel_octets_total{direction="in",engine="tun"}'] == 500
    assert found['homeward_agent_tunnel_packets_total{direction="out",engine="bpf"}'] == 20
    assert found['homeward_agent_tunnel_octets_total{direction="out",engine="bpf"}'] == 2000
    assert found["homeward_agent_start_time_seconds"] == 1e9


def test_no_label_can_break_a_line() -> None:
    metrics = Metrics()
    metrics.counts['evil"} 1\nx{\\'] = 1
    assert (
        sum(name.startswith("homeward_agent_events_total") for name in parsed(exposition(figures(metrics))))
        == 1
    )


def test_violations_are_codes_that_something_counts() -> None:
    codes = {each.value for kind in (Finding, ForeignFinding, Dropped, VisitorDrop) for each in kind}
    from_interfaces = {
        "tunnel-packet-from-outside-interface",
        "tunnel-packet-from-other-interface",
        "datagram-from-other-interface",
    }
    assert set(VIOLATIONS) - codes == from_interfaces


@pytest.mark.rows("R-94")
def test_sources_of_violations_take_bounded_memory_and_the_busy_ones_stay() -> None:
    metrics = Metrics()
    busy = IPv4Address("198.51.100.7")
    for number in range(50_000):
        metrics.count("wrong-authenticator", 0.0, source=IPv4Address(0x0B000000 + (number << 8)))
        if number % 50 == 0:
            metrics.count("request-from-outside-interface", 0.0, source=busy)
        assert len(metrics._sources) <= SOURCES
    kind, prefix, at_least = metrics.sources(1)[0]
    assert (kind, str(prefix)) == ("wrong-interface", "198.51.100.0/24")
    assert 700 <= at_least <= 1000
    assert metrics.violations() == {"forged-authenticator": 50_000, "wrong-interface": 1000}


def test_what_is_no_violation_or_has_no_source_is_not_remembered() -> None:
    metrics = Metrics()
    metrics.count("no-binding", 0.0, source=IPv4Address("10.0.0.1"))
    metrics.count("wrong-authenticator", 0.0)
    metrics.count("reverse-tunnel-spoofed", 0.0, source="?")
    assert metrics.sources() == []
    assert metrics.violations() == {"forged-authenticator": 1, "spoofed-tunnel-packet": 1}


def test_the_file_is_replaced_at_once(tmp_path: Path) -> None:
    place = tmp_path / "agent.prom"
    write_file(place, "one\n")
    with place.open() as open_before:
        write_file(place, "two\n")
        assert open_before.read() == "one\n"
    assert place.read_text() == "two\n"
    assert place.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [place]


async def test_the_file_comes_moves_and_goes_with_the_agent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_file, "INTERVAL", 0.01)
    places = [tmp_path / "a.prom"]
    written = MetricsFile(lambda: places[-1], lambda: "figures\n")
    written.start()
    assert places[0].read_text() == "figures\n"
    places.append(tmp_path / "b.prom")
    written._tick()
    assert os.listdir(tmp_path) == ["b.prom"]
    places.append(tmp_path / "absent" / "c.prom")
    for _ in range(3):
        written._tick()
    assert caplog.text.count("metrics-not-written") == 1
    places.append(tmp_path / "b.prom")
    written._tick()
    written.stop()
    assert os.listdir(tmp_path) == []
