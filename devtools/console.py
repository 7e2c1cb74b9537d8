# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees: headings, questions, and signs of life from commands that take longer than a second."""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

_TAIL = 25
_QUIET_INTERVAL = 10.0
"""Seconds between signs of life where there is no terminal whose line could be rewritten."""


class Failed(Exception):
    """Something that the person has to know about ended the command; the message says what to do."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def say(text: str = "") -> None:
    print(text, flush=True)


def heading(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    say(f"\n{bold}== {text}{plain}")


def ask(question: str) -> bool:
    """Ask once on the terminal; an empty answer means yes, the end of input means no."""
    try:
        return input(f"{question} [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def watch(
    title: str,
    argv: Sequence[str],
    *,
    log: Path,
    env: dict[str, str] | None = None,
    become: Callable[[], dict[str, object]] = dict,
    keep: int = _TAIL,
) -> None:
    """Run a command with its output in `log` and one moving line on the terminal.

    Failed, with the last `keep` lines of the output, when it does not end with status 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: deque[str] = deque(maxlen=keep)
    started = time.monotonic()
    with log.open("w", encoding="utf-8", errors="replace") as kept:
        process = subprocess.Popen(  # type: ignore[call-overload]
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            **become(),
        )
        reader = threading.Thread(target=_copy, args=(process, kept, tail), daemon=True)
        reader.start()
        status = wait_patiently(process, lambda: _sign_of_life(title, started, tail), every=0.25)
        reader.join()
    _finish_line(title, started, ok=status == 0)
    if status != 0:
        last = "".join(f"    {line}\n" for line in tail)
        raise Failed(f"{title}: failed with status {status}. The end of {log}:\n{last.rstrip()}")


def wait_patiently(
    process: subprocess.Popen[str] | subprocess.Popen[bytes], meanwhile: Callable[[], None], *, every: float
) -> int:
    """Wait for a child; on Ctrl-C, which it gets too, let it clean up after itself before we go."""
    try:
        return _wait(process, meanwhile, every)
    except KeyboardInterrupt:
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.terminate()
        raise


def _wait(
    process: subprocess.Popen[str] | subprocess.Popen[bytes], meanwhile: Callable[[], None], every: float
) -> int:
    while True:
        try:
            return process.wait(timeout=every)
        except subprocess.TimeoutExpired:
            meanwhile()


def _copy(process: subprocess.Popen[str], kept: object, tail: deque[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        kept.write(line)  # type: ignore[attr-defined]
        if line.strip():
            tail.append(line.rstrip())


_said: dict[str, float] = {}


def _sign_of_life(title: str, started: float, tail: deque[str]) -> None:
    elapsed = time.monotonic() - started
    newest = tail[-1].strip() if tail else ""
    if sys.stdout.isatty():
        width = _columns() - 1
        text = f"   {title} … {elapsed:.0f} s  {newest}"[:width]
        print(f"\r\033[K{text}", end="", flush=True)
    elif elapsed - _said.get(title, 0.0) >= _QUIET_INTERVAL:
        _said[title] = elapsed
        say(f"   {title} … {elapsed:.0f} s  {newest[:90]}")


def _finish_line(title: str, started: float, *, ok: bool) -> None:
    _said.pop(title, None)
    lead = "\r\033[K" if sys.stdout.isatty() else ""
    say(f"{lead}   {title}: {'done' if ok else 'FAILED'}, {time.monotonic() - started:.1f} s")


def _columns() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 80
