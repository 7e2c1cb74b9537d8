# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of `./dev`."""

import argparse
import sys
from collections.abc import Iterable, Sequence

from devtools import bench, checks, conformance, console, demo, kernel, packages, venv
from devtools.machine import BUILD, Caller, caller, give_back, make_build_folder, run, settings

_EXPLANATION = """\
Homeward: keeps a laptop's address and connections while it moves between networks.

    ./dev demo [--headless] [--yes]   play the grand tour in a lab on this machine and show what happened:
                                      with the tray on your desktop, or under a virtual screen;
                                      --headless leaves the tray out
    ./dev test [--all] [--yes] [PYTEST ARGUMENTS]
                                      run every check and test; --all adds the slow ones;
                                      with pytest's arguments only the tests that they choose

    ./dev lint                        style, types and who imports whom
    ./dev fmt                         put right what can be put right by itself
    ./dev conformance                 make docs/conformance.md anew: which row of the RFCs is shown by which test
    ./dev lab [ARGUMENTS]             the lab itself, as root: up, down, play, exec, list
    ./dev bench [NAME] [--anyway REASON] [--yes]
                                      measure on an idle machine and write docs/performance.md; exit status 1 when
                                      a goal is missed; without a name the list of benches
    ./dev kernel [--jobs N] [--yes]   build the kernel that tests/kernel boots: once, 7 minutes, kept in ~/.cache

Each sets up what it needs first: packages of the distribution (shown, and asked for once; --yes is the answer for
scripts) and a Python environment in build/. Nothing else of this machine is changed, and everything made is in build/,
but for the kernel.
"""


def main(arguments: Sequence[str]) -> int:
    command, *rest = arguments or ("help",)
    who = caller()
    match command:
        case "help" | "-h" | "--help":
            console.say(_EXPLANATION)
            return 0
        case "demo":
            options = _demo_options(rest)
            _set_up(who, with_lab=True, with_screen=not options.headless, yes=options.yes, insist=True)
            return demo.play(who, headless=options.headless)
        case "test":
            return _test(who, rest)
        case "lint" | "fmt" | "conformance":
            if rest:
                raise console.Failed(f"./dev {command} takes no arguments.", 2)
            if command == "conformance":
                return conformance.write_page()
            _set_up(who, with_lab=False, with_screen=False, yes=False, insist=True)
            return (1 if checks.static(who) else 0) if command == "lint" else checks.tidy(who)
        case "lab":
            _set_up(who, with_lab=True, with_screen=False, yes=False, insist=True)
            env = settings() | who.session()
            status = run(who.as_root([venv.program("homeward-lab"), *rest], env), env=who.user_environment())
            give_back(who, BUILD / "cache", BUILD / "lab")
            return status
        case "bench":
            return _bench(who, rest)
        case "kernel":
            return _kernel(who, rest)
        case _:
            console.say(_EXPLANATION)
            raise console.Failed(f"There is no command {command!r}.", 2)


def _demo_options(rest: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev demo", allow_abbrev=False)
    parser.add_argument(
        "--headless", action="store_true", help="without the tray: no screen, no desktop packages"
    )
    parser.add_argument("--yes", action="store_true", help="install what is missing without asking")
    return parser.parse_args(rest)


def _test(who: Caller, rest: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev test", allow_abbrev=False, add_help=False)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--yes", action="store_true")
    options, for_pytest = parser.parse_known_args(rest)
    _set_up(who, with_lab=True, with_screen=True, yes=options.yes, insist=False)
    try:
        return checks.test(who, thorough=options.all, arguments=for_pytest)
    finally:
        give_back(who, BUILD / "cache", checks.REPORTS)


def _bench(who: Caller, rest: Sequence[str]) -> int:
    options = bench.options(rest)
    if options.name is None:
        bench.list_all()
        return 0
    chosen = bench.find(options.name)
    bench.check_kernel(chosen, who)
    _add_packages(
        (*packages.needed(with_lab=True, with_screen=False), bench.NEEDED), who, yes=options.yes, insist=True
    )
    venv.ensure(who)
    return bench.measure(chosen, who, bench.check_load(options.anyway))


def _kernel(who: Caller, rest: Sequence[str]) -> int:
    options = kernel.options(rest)
    if kernel.find(who.user_environment()) is None:
        _add_packages((packages.KERNEL,), who, yes=options.yes, insist=True)
        kernel.build(who, jobs=options.jobs)
    console.say(str(kernel.find(who.user_environment())))
    return 0


def _set_up(who: Caller, *, with_lab: bool, with_screen: bool, yes: bool, insist: bool) -> None:
    """Packages, then the environment. `insist` on an answer, or go on where there is nobody to ask."""
    _add_packages(packages.needed(with_lab=with_lab, with_screen=with_screen), who, yes=yes, insist=insist)
    venv.ensure(who)


def _add_packages(groups: Iterable[packages.Group], who: Caller, *, yes: bool, insist: bool) -> None:
    lacking = packages.missing(groups)
    if lacking:
        console.heading("set-up")
        console.say(packages.describe(lacking))
        if not yes and sys.stdin.isatty():
            if not console.ask("Go on?"):
                raise console.Failed("Nothing was changed.")
        elif not yes and insist:
            raise console.Failed("There is no terminal to ask on: say --yes.", 2)
    make_build_folder(who)
    if lacking:
        packages.install(lacking, who)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except console.Failed as failure:
        print(f"./dev: {failure}", file=sys.stderr)
        sys.exit(failure.status)
    except KeyboardInterrupt:
        print("\n./dev: interrupted", file=sys.stderr)
        sys.exit(130)
