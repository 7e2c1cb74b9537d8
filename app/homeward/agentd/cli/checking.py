# SPDX-License-Identifier: GPL-2.0-or-later
"""homeward-agent check: says of everything an agent needs whether it is right, and what to do where it is not."""

from __future__ import annotations

import json
from pathlib import Path

from homeward.agentd.cli.outcome import FAILED, OK
from homeward.agentd.configuration import load
from homeward.agentd.examination import Grade, examine


def check(config: Path, *, as_json: bool) -> int:
    """The exit status: 1 where an agent could not work so. ProfileError where the configuration itself is wrong."""
    findings = examine(load(config), config)
    worst = FAILED if any(finding.grade is Grade.WRONG for finding in findings) else OK
    if as_json:
        shown = [
            {"grade": each.grade.value, "what": each.what, "text": each.text, "advice": each.advice}
            for each in findings
        ]
        print(json.dumps({"format": 1, "usable": worst == OK, "findings": shown}, indent=1))
        return worst
    for each in findings:
        print(f"{each.grade.value:<8} {each.what}: {each.text}")
        if each.advice:
            print(f"         {each.advice}")
    print(f"{config}: {'nothing wrong' if worst == OK else 'an agent cannot work so'}")
    return worst
