# SPDX-License-Identifier: GPL-2.0-or-later
"""Feed one parser with what atheris makes of the corpus, guided by the lines that are reached.

    python -m tests.fuzz.fuzz PARSER [libFuzzer's own arguments, such as -max_total_time=600 or a folder]

New inputs go into the first folder that is named, crashes into the current directory. A crash's file, put into
tests/fuzz/corpus/PARSER, is a regression test from then on (test_corpus.py).
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["homeward.wire", "homeward.model"], enable_loader_override=False):
    from homeward.model.errors import WireError
    from tests.fuzz.parsers import PARSERS


def main(argv: list[str]) -> None:
    """Fuzz until libFuzzer's limits say stop; the process then ends, with 0 unless something was found."""
    parse = PARSERS[argv[1]].parse

    def feed(octets: bytes) -> None:
        try:
            parse(octets)
        except WireError:
            return

    atheris.Setup([argv[0], *argv[2:]], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
