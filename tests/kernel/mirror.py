# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests that run inside a guest kernel, and show outside under their own names with their own outcomes.

Outside, each test function below tests/kernel/inside is replaced by a mirror of the same name. When the first test of
this folder is run, a kernel is started with a pytest in it for all that were chosen; reports are taken over as they
come. Tests that want the virtual clock (`@pytest.mark.virtual_clock`) share a second kernel, which runs beside the
first. The folder's other tests run meanwhile: mirrors, which only wait, come last.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.kernel.inside_reports import REPORTS_VARIABLE
from tests.kernel.runner import ROOT, Guest, GuestFailed, NoKernel, Settings, find_kernel

INSIDE: Final = Path(__file__).with_name("inside")
SECONDS: Final = 600.0
SECONDS_WITH_SLOW: Final = 3600.0
"""How long all tests of one kernel may take together, without and with those that are marked slow."""
_MEGABYTES: Final = 2048
_POLL: Final = 0.05
_KEPT: Final = ("PYTHONPYCACHEPREFIX", "HYPOTHESIS_STORAGE_DIRECTORY")


class Mirror(pytest.Item):
    """One test that is run elsewhere: nothing of it happens in this process."""

    def runtest(self) -> None:
        raise AssertionError("its reports come from the guest")


class Boot:
    """One kernel, in which pytest runs the chosen tests one after the other."""

    def __init__(self, config: pytest.Config, mirrors: Iterable[Mirror], *, virtual_clock: bool) -> None:
        self._config = config
        chosen = tuple(mirrors)
        slow = any(mirror.get_closest_marker("slow") is not None for mirror in chosen)
        self._tests = tuple(mirror.nodeid for mirror in chosen)
        self._seconds = SECONDS_WITH_SLOW if slow else SECONDS
        self._virtual_clock = virtual_clock
        self._guest: Guest | None = None
        self._read = 0
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._failure: str | None = None

    def reports(self, test: str) -> Iterator[pytest.TestReport]:
        """The reports of one test, waited for; one that never comes is a failure with the reason."""
        while not self._complete(test) and self._failure is None:
            ended = not self._still_running()
            self._take_in()
            if ended and not self._complete(test):
                self._fail("pytest inside ended without a report on this test")
            time.sleep(0 if ended else _POLL)
        yield from self._reports.pop(test, ())
        if self._failure is not None:
            yield _failed(test, self._failure)

    def close(self) -> None:
        """End the kernel."""
        if self._guest is not None:
            self._guest.__exit__(None, None, None)
            self._guest = None
            shutil.rmtree(self._folder)

    def start(self) -> None:
        """Boot, unless that has been done."""
        if self._guest is not None:
            return
        self._folder = Path(tempfile.mkdtemp(prefix="homeward-reports-"))
        self._file = self._folder / "reports"
        (self._folder / "tests").write_text("".join(f"{test}\n" for test in self._tests))
        argv = [
            sys.executable, "-m", "pytest", "-p", "tests.kernel.inside_reports",
            "--basetemp=/run/pytest", "--color=no", f"@{self._folder / 'tests'}",
        ]  # fmt: skip
        # What the host has compiled already need not be compiled in there.
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment = {REPORTS_VARIABLE: str(self._file), **kept}
        settings = Settings(
            shared=(self._folder,),
            environment=environment,
            seconds=self._seconds,
            megabytes=_MEGABYTES,
            virtual_clock=self._virtual_clock,
        )
        self._guest = Guest(argv, settings).__enter__()

    def _still_running(self) -> bool:
        assert self._guest is not None
        try:
            self._guest.check_time()
        except GuestFailed as failure:
            self._fail(str(failure))
        return self._guest.running

    def _take_in(self) -> None:
        """Read the whole lines that have come since the last time."""
        try:
            with self._file.open("rb") as lines:
                lines.seek(self._read)
                new = lines.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            report = self._config.hook.pytest_report_from_serializable(
                config=self._config, data=json.loads(line)
            )
            if isinstance(report.longrepr, list):
                report.longrepr = tuple(report.longrepr)  # a skip's place and reason: JSON knows no tuples
            self._reports.setdefault(report.nodeid, []).append(report)

    def _complete(self, test: str) -> bool:
        reports = self._reports.get(test)
        return reports is not None and reports[-1].when == "teardown"

    def _fail(self, why: str) -> None:
        assert self._guest is not None
        said = self._guest.said().strip()
        self._failure = f"{why}\n{said[-4000:]}" if said not in why else why


@dataclass(frozen=True, slots=True)
class Absent:
    """Stands in for a boot where there is no kernel: every test is skipped, with the reason."""

    reason: str

    def start(self) -> None:
        """There is nothing to start."""

    def reports(self, test: str) -> Iterator[pytest.TestReport]:
        """One report, as pytest makes it for a test that is skipped before it begins."""
        where = (str(ROOT / test.partition("::")[0]), 0, f"Skipped: {self.reason}")
        yield pytest.TestReport(test, _location(test), {}, "skipped", where, "setup")

    def close(self) -> None:
        """Nothing was started."""


def _failed(test: str, why: str) -> pytest.TestReport:
    return pytest.TestReport(test, _location(test), {}, "failed", why, "call")


def _location(test: str) -> tuple[str, None, str]:
    file, _, name = test.partition("::")
    return file, None, name


def replace_by_mirrors(items: list[pytest.Item]) -> None:
    """Make a mirror of each test that is to run inside, and put the mirrors behind all others."""
    for number, item in enumerate(items):
        if not item.path.is_relative_to(INSIDE):
            continue
        assert item.parent is not None
        mirror = Mirror.from_parent(item.parent, name=item.name)
        mirror.own_markers = list(item.own_markers)
        mirror.keywords.update(item.keywords)
        # The time limit is kept where the test runs; here it would also count the others that run before it.
        mirror.add_marker(pytest.mark.timeout(0), append=False)
        items[number] = mirror
    items.sort(key=lambda item: isinstance(item, Mirror))


class Stage:
    """Runs the mirrors of one session."""

    def __init__(self) -> None:
        self._boots: dict[bool, Boot | Absent] = {}

    def open(self, config: pytest.Config, items: Iterable[pytest.Item]) -> None:
        """Plan one kernel for each kind of clock that the chosen tests want; none is started yet."""
        chosen: dict[bool, list[Mirror]] = {}
        for item in items:
            if isinstance(item, Mirror):
                chosen.setdefault(_wants_virtual_clock(item), []).append(item)
        for virtual_clock, mirrors in chosen.items():
            self._boots[virtual_clock] = _boot(config, mirrors, virtual_clock=virtual_clock)

    def start(self) -> None:
        """Boot what is not booted yet."""
        # All at once: each is one process that computes, and there is mostly more than one processor.
        for boot in self._boots.values():
            boot.start()

    def play(self, mirror: Mirror) -> None:
        """Report what happened to one test inside."""
        boot = self._boots[_wants_virtual_clock(mirror)]
        mirror.ihook.pytest_runtest_logstart(nodeid=mirror.nodeid, location=mirror.location)
        for report in boot.reports(mirror.nodeid):
            mirror.ihook.pytest_runtest_logreport(report=report)
        mirror.ihook.pytest_runtest_logfinish(nodeid=mirror.nodeid, location=mirror.location)

    def close(self) -> None:
        """End the kernels that run."""
        for boot in self._boots.values():
            boot.close()


def _boot(config: pytest.Config, mirrors: Iterable[Mirror], *, virtual_clock: bool) -> Boot | Absent:
    try:
        find_kernel()
    except NoKernel as missing:
        return Absent(str(missing))
    return Boot(config, mirrors, virtual_clock=virtual_clock)


def _wants_virtual_clock(item: pytest.Item) -> bool:
    return item.get_closest_marker("virtual_clock") is not None
