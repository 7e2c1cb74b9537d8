# SPDX-License-Identifier: GPL-2.0-or-later
"""The other end of the control socket: what commands ask a running agent (agentd/control.py)."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from homeward.agentd.control import OrderRefused
from homeward.model.errors import NotPermitted, Unavailable

SECONDS_TO_ANSWER: Final = 60.0
"""A hundred thousand nodes are read again within a few."""

_HUNG_UP: Final = "it hung up; too many commands at once, or it is stopping"
_LONGEST_ANSWER: Final = 64 * 1024 * 1024


class AgentAbsent(Unavailable):
    """No agent answers at the control socket."""


def ask(place: Path | None, order: str, **fields: object) -> dict[str, Any]:
    """One order and its answer. OrderRefused as the agent says it; AgentAbsent, NotPermitted, Unavailable."""
    return list(ask_for_all(place, order, **fields))[-1]


def ask_for_all(place: Path | None, order: str, **fields: object) -> Iterator[dict[str, Any]]:
    """One order, and each of its answers as it comes. Errors as with `ask`."""
    action = f"asking the agent at {place}"
    if place is None:
        raise AgentAbsent("asking the agent", 'its configuration says `control = "none"`')
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as made:
        made.settimeout(SECONDS_TO_ANSWER)
        _connect(made, place, action)
        try:
            made.sendall(json.dumps({**fields, "order": order}).encode() + b"\n")
            with made.makefile("rb") as lines:
                yield from _answers(lines, action)
        except TimeoutError as error:
            raise Unavailable(action, f"no answer within {SECONDS_TO_ANSWER:g} s") from error
        except ConnectionError as error:
            raise Unavailable(action, _HUNG_UP) from error
        except OSError as error:
            raise Unavailable(action, error.strerror or str(error)) from error


def _connect(made: socket.socket, place: Path, action: str) -> None:
    """AgentAbsent only where certainly nobody is: whoever revokes a key must not take a busy agent for none."""
    for last in (*[False] * 19, True):
        try:
            made.connect(str(place))
            return
        except BlockingIOError as error:  # others stand in line
            if last:
                raise Unavailable(action, "too many others ask it; try again") from error
            time.sleep(0.1)
        except PermissionError as error:
            raise NotPermitted(action, "only root may; try it with sudo") from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            advice = "Is it running? `systemctl status homeward-agent`"
            raise AgentAbsent(action, f"nobody answers ({error.strerror}). {advice}") from error
        except OSError as error:
            raise Unavailable(action, error.strerror or str(error)) from error


def _answers(lines: Any, action: str) -> Iterator[dict[str, Any]]:
    while True:
        line = lines.readline(_LONGEST_ANSWER)
        if not line.endswith(b"\n"):
            raise Unavailable(action, _HUNG_UP)
        answer = json.loads(line)
        if not answer.pop("ok"):
            raise OrderRefused(answer.get("error", "refused without a reason"))
        more = answer.pop("more", False)
        yield answer
        if not more:
            return
