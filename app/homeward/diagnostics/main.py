# SPDX-License-Identifier: GPL-2.0-only
"""The scapy room's program: `python -m homeward.diagnostics.main audit EVIDENCE.json [--out FILE]`."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

# scapy warns on import about missing routes of a machine that it is not asked to talk to.
logging.getLogger("scapy").setLevel(logging.ERROR)

from homeward.diagnostics.audit import audit  # noqa: E402
from homeward.diagnostics.evidence import read_evidence  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when nothing leaked and every claim holds, 1 when not or when the captures cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m homeward.diagnostics.main", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    auditing = commands.add_parser("audit", help="judge the captures of a tour")
    auditing.add_argument("evidence", type=Path, help="evidence.json, which names captures and stages")
    auditing.add_argument("--out", type=Path, help="write the findings there as JSON")
    options = parser.parse_args(arguments)
    try:
        findings = audit(read_evidence(options.evidence))
    except (OSError, ValueError) as error:
        print(f"the captures cannot be audited: {error}", file=sys.stderr)
        return 1
    for proof in findings.proofs:
        print(f"  {'✓' if proof.holds else '✗'} {proof.stage}: {proof.claim} ({proof.seen})")
    for leak in findings.leaks:
        print(f"  ✗ leak in {leak}")
    if not findings.leaks:
        print("  ✓ nothing left the access link but what docs/security.md allows")
    if options.out is not None:
        options.out.write_text(
            json.dumps(findings.plain(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return 0 if findings.passed else 1


if __name__ == "__main__":
    sys.exit(main())
