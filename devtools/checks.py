# SPDX-License-Identifier: GPL-2.0-or-later
"""The static checks, and the tests in layers with one closing line for their sum."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from devtools import conformance, console, kernel
from devtools.machine import BUILD, CACHE, LOGS, ROOT, Caller, run, settings
from devtools.venv import program

REPORTS = BUILD / "reports"
_NOTHING_COLLECTED = 5
_LONGEST_FINDING = 400
"""Lines of a static check's output that are shown."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Test folders that run together, and the minutes they may take."""

    name: str
    folders: tuple[str, ...]
    minutes: float


LAYERS = (
    Layer("decisions and codec", ("unit", "property", "oracle", "fuzz", "scenarios", "architecture"), 5),
    Layer("components and tray", ("contract", "component", "gui"), 4),
    Layer("lab", ("lab",), 6),
    Layer("kernel", ("kernel",), 4),
)
_NO_TESTS = frozenset({"world", "bench"})
"""Folders that no layer runs: what tests stand on, and what `./dev bench` runs on an idle machine."""
_STATIC_MINUTES = 2.0
_PATIENCE = 4.0
"""A layer is interrupted after this many times its budget: it hangs."""


@dataclass(slots=True)
class Tally:
    """What has been counted so far; `reasons` says how often each reason for a skip was given."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    reports: list[Path] = field(default_factory=list)

    def add_report(self, report: Path) -> None:
        """Add pytest's report. One that is missing or broken off means that pytest itself died: one failure."""
        self.reports.append(report)
        try:
            suites = list(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314 - we just wrote it
        except (OSError, ElementTree.ParseError):
            self.failed += 1
            return
        for suite in suites:
            count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
            bad = count["failures"] + count["errors"]
            self.failed += bad
            self.skipped += count["skipped"]
            self.passed += max(0, count["tests"] - bad - count["skipped"])
            self.reasons.update(skip.get("message", "no reason") for skip in suite.iter("skipped"))

    def closing_line(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def environment(who: Caller) -> dict[str, str]:
    return who.user_environment() | settings() | kernel.setting(who) | {"QT_API": "pyside6"}


def static(who: Caller) -> list[str]:
    """Run every static check; the names of those that failed."""
    python = ("app", "devtools", "tests")
    checks = {
        "ruff check": [program("ruff"), "check", *python],
        "ruff format": [program("ruff"), "format", "--check", *python],
        "mypy": [program("mypy"), "--no-error-summary"],
        "lint-imports": [program("lint-imports"), "--cache-dir", str(CACHE / "import_linter")],
    }
    console.heading("static checks")
    started, failures = time.monotonic(), []
    for name, command in checks.items():
        log = LOGS / f"{name.replace(' ', '-')}.log"
        try:
            console.watch(
                name, command, log=log, env=environment(who), become=who.as_user, keep=_LONGEST_FINDING
            )
        except console.Failed as failure:
            console.say(str(failure))
            failures.append(name)
    _report_time("static checks", started, _STATIC_MINUTES)
    return failures


def test(who: Caller, *, thorough: bool, arguments: Sequence[str]) -> int:
    """`./dev test`: everything, or with pytest's own arguments only what they choose."""
    failures = [] if arguments else static(who)
    tally = Tally()
    REPORTS.mkdir(exist_ok=True)
    if arguments:
        _run_layer(Layer("chosen tests", (), 60), who, tally, list(arguments))
    else:
        for layer in LAYERS:
            chosen = _present(layer)
            if chosen:
                _run_layer(layer, who, tally, [*chosen, *_marks(thorough=thorough)])
    unshown = [] if arguments else conformance.check(tally.reports, root=ROOT, thorough=thorough)
    console.heading("sum")
    for reason, count in tally.reasons.most_common():
        console.say(f"   skipped {count}: {reason}")
    for name in failures:
        console.say(f"   failed static check: {name}")
    for fault in unshown:
        console.say(f"   conformance: {fault}")
    if tally.passed + tally.failed == 0:
        console.say("   no test was run")
    console.say(tally.closing_line())
    return 1 if failures or unshown or tally.failed or not tally.passed else 0


def _present(layer: Layer) -> list[str]:
    """The layer's folders that have tests in them."""
    folders = (f"tests/{name}" for name in layer.folders)
    return [folder for folder in folders if any((ROOT / folder).rglob("test_*.py"))]


def _marks(*, thorough: bool) -> list[str]:
    return [] if thorough else ["-m", "not slow"]


def _run_layer(layer: Layer, who: Caller, tally: Tally, arguments: list[str]) -> None:
    """Run a layer once; where a user can become root, once as the user and once as root for what needs root."""
    console.heading(f"tests: {layer.name}")
    started = time.monotonic()
    slug = layer.name.replace(" ", "-")
    if (
        who.uid == 0 or not who.can_become_root()
    ):  # in the second case what needs root is skipped, and counted
        _pytest(arguments, layer, slug, tally, command=[], env=environment(who), become={})
    else:
        own, roots = _narrow(arguments, "not root"), _narrow(arguments, "root")
        _pytest(own, layer, slug, tally, command=[], env=environment(who), become=who.as_user())
        sudo = who.as_root([], settings())
        _pytest(roots, layer, f"{slug}-root", tally, command=sudo, env=dict(os.environ), become={})
    _report_time(layer.name, started, layer.minutes)


def _narrow(arguments: list[str], expression: str) -> list[str]:
    """Add a marker expression to those that the arguments have already."""
    narrowed = list(arguments)
    if "-m" in narrowed[:-1]:
        at = narrowed.index("-m") + 1
        narrowed[at] = f"({narrowed[at]}) and {expression}"
        return narrowed
    return [*narrowed, "-m", expression]


def _pytest(
    arguments: list[str],
    layer: Layer,
    slug: str,
    tally: Tally,
    *,
    command: list[str],
    env: Mapping[str, str],
    become: Mapping[str, object],
) -> None:
    report = REPORTS / f"{slug}.xml"
    report.unlink(missing_ok=True)
    argv = [*command, program("python"), "-m", "pytest", f"--junitxml={report}", *arguments]
    status = _run_limited(argv, env=env, become=become, seconds=layer.minutes * 60 * _PATIENCE)
    if status == _NOTHING_COLLECTED:
        return
    before = tally.failed
    tally.add_report(report)
    if status != 0 and tally.failed == before:
        tally.failed += 1  # pytest ended badly without saying which test it was


def _run_limited(
    argv: Sequence[str], *, env: Mapping[str, str], become: Mapping[str, object], seconds: float
) -> int:
    """Run with output shown; after `seconds` interrupt it as Ctrl-C would, so that the lab is taken down."""
    process = subprocess.Popen(list(argv), cwd=ROOT, env=dict(env), stdin=subprocess.DEVNULL, **become)  # type: ignore[call-overload]
    deadline = time.monotonic() + seconds

    def watch_the_clock() -> None:
        if time.monotonic() > deadline:
            console.say(f"   taking longer than {seconds:.0f} s: interrupted")
            process.send_signal(signal.SIGINT if time.monotonic() < deadline + 60 else signal.SIGKILL)

    return console.wait_patiently(process, watch_the_clock, every=20)


def _report_time(name: str, started: float, minutes: float) -> None:
    took = time.monotonic() - started
    budget = "" if took <= minutes * 60 else f", OVER its budget of {minutes:g} min"
    console.say(f"   {name}: {took:.0f} s{budget}")


def tidy(who: Caller) -> int:
    """`./dev fmt`: what ruff can put right by itself."""
    folders = ("app", "devtools", "tests")
    fixed = run([program("ruff"), "check", "--fix", *folders], env=environment(who), become=who.as_user())
    return run([program("ruff"), "format", *folders], env=environment(who), become=who.as_user()) or fixed


def folders_without_a_layer(names: Iterable[str]) -> set[str]:
    """Test folders that no layer runs: there must be none."""
    run_somewhere = {folder for layer in LAYERS for folder in layer.folders}
    return set(names) - run_somewhere - _NO_TESTS
