# SPDX-License-Identifier: GPL-2.0-or-later
"""The page at the end of a story: one HTML file that needs nothing else, from timeline.json and what lies beside it.

Run as `python -m homeward.lab.page FOLDER` to write FOLDER/index.html.
"""

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from homeward.lab.page_map import draw
from homeward.lab.page_story import Proof, Stage, Story, mode_words, read_proofs, read_story, transfer_words
from homeward.lab.page_strip import milliseconds, strip

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_NEXT = (
    (
        "Look around in the lab first.",
        """<code>./dev lab up</code> builds the same enterprise and leaves it standing; <code>./dev lab plug ext1</code>
        moves the laptop's cable, <code>./dev lab exec laptop ip address</code> looks into a host,
        <code>./dev lab down</code> leaves nothing behind.""",
    ),
    (
        "Put a home agent inside.",
        """<code>homeward-agent --config FILE</code> runs on one host of the inner network, to which the prefix of the
        home addresses is routed. It must not be reachable from outside: an answer from it is what proves that the
        laptop is inside.""",
    ),
    (
        "Have a VPN gateway that speaks IKEv2 with MOBIKE.",
        "It is reachable from outside on UDP 500 and 4500, and reaches the home agent on its inner side.",
    ),
    (
        "Give the laptop a profile.",
        """A TOML file in <code>/etc/homeward/profiles.d/</code> names the home address, the home agent, the gateway
        and the fingerprints of the two secrets; the secrets themselves stay in your keyring.""",
    ),
    (
        "Start it and walk out of the door.",
        """<code>homewardd</code> runs as root beside charon, <code>homeward-tray</code> in your session;
        <code>homeward status</code> says the same as the tray: where you are, and why it thinks so.""",
    ),
)


@dataclass(frozen=True, slots=True)
class Beside:
    """What lies in the page's folder: names relative to it, what the captures prove, a picture of the tray."""

    results: tuple[str, ...] = ("timeline.json",)
    captures: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    screenshot: bytes | None = None
    proofs: tuple[Proof, ...] = ()


def render(timeline: Mapping[str, object], beside: Beside, style: str) -> str:
    """The whole page. Everything that comes from the timeline or from file names is escaped."""
    story = read_story(timeline)
    word = "passed" if story.passed else "failed"
    title = f"Homeward: {story.name or 'the story'} {word}"
    sections = (
        _headline(story, word, beside.proofs),
        _section("The journey", f'<div class="scroll">{draw(story.stages)}</div>') if story.stages else "",
        _section("How long each move took", strip(story.stages)) if story.stages else "",
        _section("Where it thought it was, and why", _verdicts(story.stages)) if story.stages else "",
        _section("The connection that had to survive", _transfer(story)),
        _section("What left the laptop", _leaks(story)),
        _section("What the captures prove", _proofs(beside.proofs)) if beside.proofs else "",
        _section("What the tray showed", _screenshot(beside.screenshot)) if beside.screenshot else "",
        _section("The evidence", _evidence(beside)),
        _section("On a real network", _next_steps()),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f'<body class="{word}"><main>{"".join(sections)}</main></body></html>\n'
    )


def _section(title: str, body: str) -> str:
    return f"\n<section><h2>{escape(title)}</h2>{body}</section>"


def _headline(story: Story, word: str, proofs: Sequence[Proof]) -> str:
    mark = "✓" if story.passed else "✗"
    named = f"The {story.name.replace('-', ' ')}" if story.name else "The story"
    unproved = (f"{proof.stage}: not so: {proof.claim}" for proof in proofs if not proof.holds)
    reasons = () if story.passed else (*story.shortcomings(), *unproved)
    listed = (
        f'<ul class="reasons">{"".join(f"<li>{escape(reason)}</li>" for reason in reasons)}</ul>'
        if reasons
        else ""
    )
    said = (
        f"One laptop moved through {len(story.stages)} networks and kept one address and its connections."
        if story.passed
        else "What was expected did not happen."
    )
    return (
        f'<header><p class="story">Homeward · {escape(story.name)}</p>'
        f'<h1><span class="badge" aria-hidden="true">{mark}</span>{escape(named)} {word}</h1>'
        f'<p class="lead">{escape(said)}</p>{listed}{_figures(story)}</header>'
    )


def _figures(story: Story) -> str:
    right = sum(stage.as_expected for stage in story.stages)
    leaks = "not examined" if story.leaks is None else str(len(story.leaks))
    figures = (
        (f"{right} of {len(story.stages)}", "networks judged as expected"),
        (
            milliseconds(_most(stage.outage_up_ms for stage in story.stages)),
            "longest outage, laptop to office",
        ),
        (
            milliseconds(_most(stage.outage_down_ms for stage in story.stages)),
            "longest outage, office to laptop",
        ),
        (leaks, "leaks"),
    )
    shown = "".join(f"<div><dd>{escape(value)}</dd><dt>{escape(what)}</dt></div>" for value, what in figures)
    return f'<dl class="figures">{shown}</dl>'


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _verdicts(stages: Sequence[Stage]) -> str:
    head = ("network", "where", "trusted", "proof", "care-of address", "binding", "VPN", "lost up / down")
    rows = "".join(_verdict_row(stage) for stage in stages)
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>'


def _verdict_row(stage: Stage) -> str:
    trusted = {True: "yes", False: "no", None: "no verdict"}[stage.trusted]
    where = f"{escape(mode_words(stage.reached))} <small>({escape(stage.reached or '–')})</small>"
    if not stage.as_expected:
        where += f'<br><strong class="bad">expected: {escape(mode_words(stage.expected))}</strong>'
    lifetime = "–" if stage.lifetime_s is None else f"{stage.lifetime_s:.0f} s"
    lost = f"{_counted(stage.lost_up)} / {_counted(stage.lost_down)}"
    return (
        f'<tr><th scope="row">{escape(stage.name)}</th><td class="where">{where}</td>'
        f'<td><span class="trust {"yes" if stage.trusted else "no"}">{trusted}</span></td>'
        f'<td class="proof">{escape(stage.proof or "–")}</td><td class="figure">{escape(stage.care_of or "–")}</td>'
        f'<td class="figure">{lifetime}</td><td>{escape(stage.vpn or "–")}</td><td class="figure">{lost}</td></tr>'
    )


def _counted(value: int | None) -> str:
    return "–" if value is None else str(value)


def _transfer(story: Story) -> str:
    transfer = story.transfer
    verdict = "good" if transfer.survived else "bad"
    return (
        f'<p class="{verdict}">{escape(transfer_words(transfer).capitalize())}.</p>'
        '<dl class="pairs">'
        f"<dt>laptop to office</dt><dd>{escape(octets(transfer.up_bytes))}</dd>"
        f"<dt>office to laptop</dt><dd>{escape(octets(transfer.down_bytes))}</dd></dl>"
        "<p>One TCP connection in each direction, opened in the first network and closed in the last, "
        "compared by SHA-256 of what was sent and what arrived.</p>"
    )


def octets(count: int | None) -> str:
    """A number of bytes for reading, exact as well as round."""
    if count is None:
        return "not known"
    exact = f"{count:,} bytes".replace(",", "\u202f")
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit} ({exact})"
    return exact


def _leaks(story: Story) -> str:
    if story.leaks is None:
        return '<p class="bad">The captures were not examined.</p>'
    if not story.leaks:
        clean = "Nothing but what docs/security.md allows in each state, by the captures at every hop."
        return f'<p class="good">{clean}</p>'
    listed = "".join(f"<li>{escape(leak)}</li>" for leak in story.leaks)
    return f'<p class="bad">Seen where it must not be:</p><ul class="leaks">{listed}</ul>'


def _proofs(proofs: Sequence[Proof]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(proof.stage)}</th>'
        f'<td class="{"holds" if proof.holds else "fails"}">{"✓" if proof.holds else "✗ not so"}</td>'
        f"<td>{escape(proof.claim)}</td><td><small>{escape(proof.seen)}</small></td></tr>"
        for proof in proofs
    )
    return f'<div class="scroll"><table class="proofs"><tbody>{rows}</tbody></table></div>'


def _screenshot(picture: bytes | None) -> str:
    encoded = base64.b64encode(picture or b"").decode("ascii")
    return f'<img alt="The tray icon and its menu" src="data:image/png;base64,{encoded}">'


def _evidence(beside: Beside) -> str:
    kinds = (("results", beside.results), ("captures, one per hop", beside.captures), ("logs", beside.logs))
    lists = "".join(
        f"<div><h3>{escape(kind)}</h3><ul>{_links(names)}</ul></div>" for kind, names in kinds if names
    )
    hint = "<p>Open a capture with <code>wireshark</code> or <code>tshark -r</code>.</p>"
    return f'<div class="evidence">{lists}</div>{hint}'


def _links(names: Iterable[str]) -> str:
    # The leading ./ makes each a path in this folder, whatever a file is called.
    return "".join(f'<li><a href="./{quote(name)}">{escape(name)}</a></li>' for name in names)


def _next_steps() -> str:
    steps = "".join(f"<li><b>{escape(title)}</b> {text}</li>" for title, text in _NEXT)
    return f"<ol>{steps}</ol><p>README.md goes through it step by step.</p>"


def style_sheet() -> str:
    """The page's style sheet, as it is installed with the lab."""
    return (files("homeward.data") / "lab" / "page.css").read_text(encoding="utf-8")


def look_beside(folder: Path) -> Beside:
    """Read what a story left in its folder. Raises OSError when it cannot be read."""
    picture = folder / "screenshot.png"
    logs = (path for path in (folder / "logs").rglob("*") if path.is_file() and path.stat().st_size)
    return Beside(
        results=_names(folder, folder.glob("*.json")),
        captures=_names(folder, folder.rglob("*.pcap")),
        logs=_names(folder, logs),
        screenshot=picture.read_bytes() if picture.is_file() else None,
        proofs=read_proofs(_parsed(folder / "audit.json")),
    )


def _parsed(path: Path) -> Mapping[str, object]:
    """A JSON object from a file that may be missing; one that is broken says nothing either."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _names(folder: Path, found: Iterable[Path]) -> tuple[str, ...]:
    return tuple(sorted(path.relative_to(folder).as_posix() for path in found if path.is_file()))


def write_page(folder: Path) -> Path:
    """Render the folder's timeline.json into its index.html; the page's path. OSError or ValueError when it cannot."""
    timeline = json.loads((folder / "timeline.json").read_text(encoding="utf-8"))
    if not isinstance(timeline, dict):
        raise ValueError("timeline.json is not an object")
    page = folder / "index.html"
    page.write_text(render(timeline, look_beside(folder), style_sheet()), encoding="utf-8")
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """The program: 0 when the page is written, 1 when it cannot be, 2 for wrong usage."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 1:
        print("usage: python -m homeward.lab.page FOLDER", file=sys.stderr)
        return 2
    try:
        page = write_page(Path(given[0]))
    except (OSError, ValueError) as error:
        print(f"the page could not be written: {error}", file=sys.stderr)
        return 1
    print(f"\nThe whole story, with captures and logs:\n  {page.resolve().as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
