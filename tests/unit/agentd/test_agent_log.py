# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import logging
import os
import socket
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from homeward.agentd.log import JournalHandler, entry, journal_datagram, start_logging
from homeward.model.secret import Secret


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "event"),
        ({"a": 1, "b": None, "c": "x"}, "event a=1 c=x"),
        (
            {"address": IPv4Address("10.0.0.2"), "net": IPv4Network("10.0.0.0/8")},
            "event address=10.0.0.2 net=10.0.0.0/8",
        ),
        ({"seconds": 1.23456}, "event seconds=1.235"),
        ({"text": "two words"}, 'event text="two words"'),
        ({"text": ""}, 'event text=""'),
        ({"text": "x b=1"}, 'event text="x b=1"'),
        ({"text": 'a"b'}, 'event text="a\\"b"'),
        ({"text": "a\nb\x1b[2J"}, 'event text="a\\nb\\u001b[2J"'),
        ({"text": "\N{RIGHT-TO-LEFT OVERRIDE}"}, 'event text="\\u202e"'),
        ({"key": Secret(b"sixteen octets!!")}, 'event key="Secret(redacted)"'),
    ],
)
def test_no_value_can_end_a_line_or_pass_for_another_field(fields: dict[str, object], line: str) -> None:
    assert entry("event", **fields) == line


def record(message: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("mip", level, __file__, 1, message, (), None)


def test_the_journal_gets_the_fields_one_by_one() -> None:
    octets = journal_datagram(
        record(entry("binding-made", node="laptop", home_address=IPv4Address("10.77.0.10")))
    )
    assert octets.splitlines() == [
        b"MESSAGE=binding-made node=laptop home_address=10.77.0.10",
        b"PRIORITY=6",
        b"SYSLOG_IDENTIFIER=homeward-agent",
        b"HOMEWARD_LOGGER=mip",
        b"HOMEWARD_EVENT=binding-made",
        b"HOMEWARD_NODE=laptop",
        b"HOMEWARD_HOME_ADDRESS=10.77.0.10",
    ]
    assert b"PRIORITY=4" in journal_datagram(record("plain", logging.WARNING))
    assert b"PRIORITY=7" in journal_datagram(record("plain", logging.DEBUG))


def test_no_value_can_pass_for_another_field_of_the_journal() -> None:
    octets = journal_datagram(
        record(entry("refused", text="x\nPRIORITY=0\nHOMEWARD_NODE=forged", key=Secret(b"s" * 16)))
    )
    assert (
        b"\nHOMEWARD_TEXT\n" + (33).to_bytes(8, "little") + b"x\nPRIORITY=0\nHOMEWARD_NODE=forged\n" in octets
    )
    assert octets.count(b"\nPRIORITY=6\n") == 1
    assert b"ssss" not in octets


def test_a_line_that_the_journal_does_not_take_is_not_lost(tmp_path: Path) -> None:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        handler = JournalHandler(str(tmp_path / "journal"), Kept())
        handler.handle(record(entry("first")))
        assert journal.recv(1000).startswith(b"MESSAGE=first\n")
        handler.handle(record("x" * 10_000_000))
        assert [len(line) for line in lines] == [10_000_000]
    handler.handle(record("nobody listens"))
    assert lines[-1] == "nobody listens"
    handler.close()


def test_only_the_stream_that_systemd_gave_is_the_journal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = list(logging.root.handlers), logging.root.level
    try:
        with (tmp_path / "stderr").open("w") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            monkeypatch.setenv("JOURNAL_STREAM", "1:2")
            start_logging()
            logging.getLogger("mip").info(entry("ready", address="10.0.0.2"))
        line = (tmp_path / "stderr").read_text()
        assert line.endswith(" INFO mip ready address=10.0.0.2\n")
        assert os.environ["JOURNAL_STREAM"] == "1:2"
    finally:
        logging.root.handlers[:], logging.root.level = kept[0], kept[1]
