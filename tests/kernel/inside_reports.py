# SPDX-License-Identifier: GPL-2.0-or-later
"""pytest's plugin inside the guest: every report, as it is made, as one line of JSON in a folder of the host's."""

import json
import os
from pathlib import Path
from typing import Final

import pytest

REPORTS_VARIABLE: Final = "HOMEWARD_GUEST_REPORTS"
"""Names the file; where it is set, we are in the guest."""


class Reporter:
    """Writes what pytest reports."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        self._config = config
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        # Opened each time: a line is then as a whole with the host, even if the kernel dies in the next moment.
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(data) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Reporter(config, Path(os.environ[REPORTS_VARIABLE])))
