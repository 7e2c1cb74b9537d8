# SPDX-License-Identifier: GPL-2.0-or-later
"""The page at the end of the tour: it shows what the timeline says, no better and no worse, and runs nothing."""

import json
import re
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from homeward.lab.page import Beside, look_beside, main, octets, render, style_sheet, write_page
from homeward.lab.page_story import Proof, read_proofs, read_story
from homeward.lab.page_strip import milliseconds, scale_for

EVIL = """"'><script>alert(1)</script><img src=x onerror=alert(2)>&lt;"""


def stage(name: str, mode: str, **changed: Any) -> dict[str, Any]:
    return {
        "name": name, "expected": mode, "reached": mode, "trusted": mode == "c", "proof": f"proof of {name}",
        "address_ms": 400.0, "verdict_ms": 12.5, "outage_up_ms": 431.0, "outage_down_ms": 520.25, "lost_up": 0,
        "lost_down": 84, "care_of": "10.1.2.31", "lifetime_s": 1800, "vpn": "none",
    } | changed  # fmt: skip


TOUR: dict[str, Any] = {
    "story": "grand-tour",
    "passed": True,
    "stages": [
        stage("trust1", "c", outage_up_ms=None, outage_down_ms=None),
        stage("ext1", "mc", outage_down_ms=1045.0, care_of="10.9.0.1", vpn="established"),
        stage("trust1", "c"),
    ],
    "tcp": {"up_bytes": 48_123_904, "down_bytes": 51_773_440, "sha256_equal": True, "resets": 0},
    "leaks": [],
}


class Reader(HTMLParser):
    """Elements, attributes and text of a page, and whether every element is closed in turn."""

    EMPTY = frozenset({"meta", "img", "br", "rect", "line", "circle", "path"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"closed but never opened: {tag}"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(timeline: dict[str, Any], beside: Beside | None = None) -> Reader:
    return Reader(render(timeline, beside or Beside(), style_sheet()))


def changed(**changes: Any) -> dict[str, Any]:
    return deepcopy(TOUR) | changes


def test_a_passed_tour_says_so_with_its_figures() -> None:
    text = read(TOUR).text
    assert "The grand tour passed" in text
    assert "3 of 3 networks judged as expected" in text
    assert "1045 ms longest outage, office to laptop" in text
    assert "48.1 MB" in text
    assert "Byte for byte the same, no reset." in text
    for named in ("trust1", "ext1", "proof of ext1", "10.9.0.1", "1800 s", "0 / 84", "established"):
        assert named in text


def test_a_failed_tour_says_why() -> None:
    failed = changed(passed=False, leaks=["tcp from 10.77.0.10 in clear"])
    failed["stages"][1]["reached"] = "none"
    failed["tcp"] |= {"sha256_equal": False, "resets": 2}
    text = read(failed).text
    assert "The grand tour failed" in text
    assert "ext1: expected outside, through the VPN, reached no binding" in text
    assert "the content differs, 2 resets" in text
    assert "tcp from 10.77.0.10 in clear" in text
    assert "passed" not in text


def test_the_page_never_upgrades_what_the_lab_says() -> None:
    assert "The grand tour failed" in read(changed(passed=False)).text
    assert "The grand tour failed" in read(changed(passed="true")).text


def test_leaks_that_nobody_looked_for_are_not_called_clean() -> None:
    unexamined = deepcopy(TOUR)
    del unexamined["leaks"]
    text = read(unexamined).text
    assert "The captures were not examined." in text
    assert "not examined leaks" in text


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"passed": False, "stages": None, "tcp": None, "leaks": None},
        {"passed": False, "stages": [{}], "tcp": {}, "leaks": [None, 3]},
        {"passed": False, "stages": ["x", 1, None], "tcp": [], "leaks": {}},
        {
            "passed": False,
            "stages": [stage("a", "c", address_ms="soon", verdict_ms=float("nan"), lost_up=True)],
        },
        {"passed": False, "stages": [stage("a", "c", address_ms=float("inf"), outage_up_ms=-5)]},
    ],
)
def test_a_tour_that_broke_off_still_gets_its_page(broken: dict[str, Any]) -> None:
    assert "failed" in read(broken).text


def with_evil_everywhere() -> dict[str, Any]:
    evil_stage = dict.fromkeys(TOUR["stages"][0], EVIL)
    return {
        "story": EVIL,
        "passed": False,
        "stages": [evil_stage],
        "tcp": {"up_bytes": EVIL},
        "leaks": [EVIL],
    }


def test_nothing_that_the_world_said_becomes_markup() -> None:
    evil_names = Beside(
        captures=(f"{EVIL}.pcap", "javascript:alert(3)"),
        logs=("http://example.test/x",),
        proofs=(Proof(EVIL, EVIL, holds=False, seen=EVIL),),
    )
    page = read(with_evil_everywhere(), evil_names)
    assert not [
        element for element, _ in page.elements if element in {"script", "img", "iframe", "object", "form"}
    ]
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") >= 8, "shown, as text"
    links = [attributes["href"] or "" for element, attributes in page.elements if element == "a"]
    assert len(links) == 4
    assert all(re.fullmatch(r"\./[A-Za-z0-9_.%/-]+", link) for link in links), links


def test_the_page_loads_nothing() -> None:
    picture = b"\x89PNG\r\n\x1a\n not really"
    page = read(TOUR, Beside(captures=("gateway.pcap",), logs=("logs/homewardd.log",), screenshot=picture))
    sources = [a["src"] for _, a in page.elements if "src" in a]
    assert sources == ["data:image/png;base64,iVBORw0KGgogbm90IHJlYWxseQ=="]
    assert not [element for element, _ in page.elements if element in {"link", "script", "base"}]
    assert "url(" not in style_sheet()
    assert "@import" not in style_sheet()
    policy = [a["content"] for e, a in page.elements if e == "meta" and a.get("http-equiv")]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


PROOFS = (
    Proof("1. trust1", "no data crosses the gateway", holds=True, seen="0 ESP packets"),
    Proof("4. ext2", "the VPN moves by MOBIKE", holds=False, seen="2 IKE_SA_INIT"),
)


def test_proofs_are_shown_with_what_was_seen_and_a_missing_one_is_a_reason() -> None:
    text = read(changed(passed=False), Beside(proofs=PROOFS)).text
    assert "4. ext2: not so: the VPN moves by MOBIKE" in text
    assert "✓ no data crosses the gateway 0 ESP packets" in text
    assert "✗ not so the VPN moves by MOBIKE 2 IKE_SA_INIT" in text


def test_a_proof_that_is_not_plainly_true_does_not_hold() -> None:
    raw = {
        "proofs": [{"stage": "s", "claim": "c", "seen": 3, "holds": word} for word in (True, "true", 1, None)]
    }
    assert [proof.holds for proof in read_proofs(raw)] == [True, False, False, False]
    assert read_proofs({"proofs": "all of them"}) == ()


def test_every_class_that_the_page_uses_has_a_style_or_needs_none() -> None:
    page = read(changed(leaks=["x"], passed=False), Beside(screenshot=b"x", proofs=PROOFS))
    used = {name for _, a in page.elements for name in (a.get("class") or "").split()}
    styled = set(re.findall(r"\.([a-z]+)", style_sheet()))
    assert used - styled == {"leaks"}, "failed is styled, passed is the plain page"


def bars(page: Reader, kind: str) -> list[tuple[float, float]]:
    """Left edge and width in per cent of the bars of a kind, without the one in the legend."""
    styles = [a.get("style") or "" for e, a in page.elements if e == "i" and a.get("class") == f"bar {kind}"]
    found = (re.fullmatch(r"left:([\d.]+)%;width:([\d.]+)%", style) for style in styles if style)
    return [(float(match[1]), float(match[2])) for match in found if match]


def test_bars_are_to_scale_and_stand_where_their_phase_begins() -> None:
    page = read(TOUR)
    address, verdict, up, down = (bars(page, kind) for kind in ("address", "verdict", "up", "down"))
    assert len(address) == len(verdict) == 3
    assert len(up) == len(down) == 2, "no outage in the first network"
    per_cent_of_one_ms = 100 / scale_for(1045.0).end
    assert address[0] == (0.0, pytest.approx(400 * per_cent_of_one_ms, abs=0.01))
    assert verdict[0][0] == pytest.approx(address[0][1], abs=0.01)
    assert down[0][1] / up[0][1] == pytest.approx(1045 / 431, rel=0.001)


def test_a_phase_that_was_not_measured_has_no_bar() -> None:
    failed = changed(passed=False)
    failed["stages"][1] |= {"verdict_ms": None, "outage_up_ms": None}
    page = read(failed)
    assert len(bars(page, "verdict")) == 2
    assert len(bars(page, "up")) == 1
    assert "400 ms no verdict" in page.text


@pytest.mark.parametrize("longest", [0.0, 0.4, 9.0, 83.0, 145.0, 1045.0, 9_999.0, 61_000.0])
def test_the_scale_has_room_for_everything_and_round_steps(longest: float) -> None:
    scale = scale_for(longest)
    assert 1 <= scale.intervals <= 5
    assert longest < scale.end <= max(longest * 2.5, 12.0)
    assert f"{scale.step:e}"[:3] in {"1.0", "2.0", "2.5", "5.0"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0 ms"),
        (9.84, "9.8 ms"),
        (104.4, "104 ms"),
        (9_999.0, "9999 ms"),
        (15_200.0, "15.2 s"),
    ],
)
def test_durations(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "not known"),
        (0, "0 bytes"),
        (999, "999 bytes"),
        (48_123_904, "48.1 MB (48\u202f123\u202f904 bytes)"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert octets(count) == text


def test_shortcomings_of_a_clean_tour_are_none() -> None:
    assert read_story(TOUR).shortcomings() == ()


def test_a_transfer_of_nothing_has_not_survived() -> None:
    empty = changed()
    empty["tcp"]["down_bytes"] = 0
    assert read_story(empty).shortcomings() == ("the TCP transfer: byte for byte the same, no reset",)


def test_the_program_writes_the_page_with_what_lies_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "homewardd.log").write_text("up")
    (tmp_path / "logs" / "quiet.log").touch()
    (tmp_path / "audit.json").write_text(
        '{"proofs": [{"stage": "s", "claim": "c", "holds": true, "seen": "x"}]}'
    )
    (tmp_path / "gateway.pcap").touch()
    (tmp_path / "timeline.json").write_text(json.dumps(TOUR))
    assert look_beside(tmp_path) == Beside(
        results=("audit.json", "timeline.json"),
        captures=("gateway.pcap",),
        logs=("logs/homewardd.log",),
        proofs=(Proof("s", "c", holds=True, seen="x"),),
    )
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "index.html").as_uri() in capsys.readouterr().out
    page = Reader((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert {"./timeline.json", "./gateway.pcap", "./logs/homewardd.log"} <= {
        a.get("href") for _, a in page.elements
    }


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_the_program_says_when_there_is_nothing_to_show(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "timeline.json").write_text(content)
    assert main([str(tmp_path)]) == 1
    assert main([]) == 2
    with pytest.raises((OSError, ValueError)):
        write_page(tmp_path)
