# SPDX-License-Identifier: GPL-2.0-or-later
"""Install packages as root so that no service starts that did not run before, now or at the next boot.

Run as `python3 -m devtools.install_packages PACKAGE…`. Debian's packages ask `/usr/sbin/policy-rc.d` before they start
or stop a service, and enable units by links below /etc/systemd and /etc/rc2.d to rc5.d. So a policy stands there while
apt runs, unless the administrator has one already, and links that appeared meanwhile are taken away again, which is
what `systemctl disable` and `update-rc.d disable` do.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

POLICY = Path("/usr/sbin/policy-rc.d")
ENABLED = (
    Path("/etc/systemd/system"),
    Path("/etc/systemd/user"),
    *(Path(f"/etc/rc{level}.d") for level in "2345"),
)
MARK = "# Put here by Homeward's ./dev while it installs packages; safe to remove."
_BASE_SYSTEM = ("systemd", "udev", "dbus", "libpam-systemd")
_RUN_LEVEL = re.compile(r"rc[2-5]\.d")
_ATTEMPTS = 3


def policy(running: frozenset[str]) -> str:
    """The text of the policy: services that ran before are their packages' business, all others stay down."""
    allowed = " ".join(sorted(running))
    return f"""#!/bin/sh
{MARK}
while [ "${{1#--}}" != "${{1-}}" ]; do shift; done
case " {allowed} " in
    *" ${{1%.service}} "*) exit 104 ;;
esac
exit 101
"""


def running_services() -> frozenset[str]:
    """Names of the services that systemd has up, empty where there is no systemd."""
    command = ["systemctl", "list-units", "--type=service", "--state=active", "--no-legend", "--plain"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return frozenset()
    units = (line.split()[0] for line in listing.splitlines() if line.strip())
    return frozenset(unit.removesuffix(".service") for unit in units)


@contextmanager
def services_stay_down(where: Path = POLICY, enabled: tuple[Path, ...] = ENABLED) -> Iterator[None]:
    """While inside no new service starts; afterwards none is enabled that was not before. Also when interrupted."""
    if where.exists() and MARK in where.read_text(encoding="utf-8", errors="replace"):
        where.unlink()  # left by a run that was killed outright
    running, before = running_services(), links_below(enabled)
    ours = not where.exists()
    try:
        if ours:
            where.write_text(policy(running), encoding="utf-8")
            where.chmod(0o755)
        yield
    finally:
        if ours:
            where.unlink(missing_ok=True)
        for link in sorted(links_below(enabled) - before):
            if not _is_base_system(link):
                _disable(link)
        if not ours:
            _stop(running_services() - running)


def links_below(folders: tuple[Path, ...]) -> frozenset[Path]:
    """The links by which units are enabled, and init scripts started."""
    found = (path for folder in folders if folder.is_dir() for path in folder.rglob("*"))
    return frozenset(path for path in found if path.is_symlink() and not _is_kill_link(path))


def _is_kill_link(path: Path) -> bool:
    return _RUN_LEVEL.fullmatch(path.parent.name) is not None and path.name.startswith("K")


def _disable(link: Path) -> None:
    """Take away what enables a unit; an init script keeps a link that stops it, so it stays so."""
    if _RUN_LEVEL.fullmatch(link.parent.name):
        link.rename(link.with_name("K" + link.name[1:]))
    else:
        link.unlink(missing_ok=True)
    _say(f"not enabled: {link}")


def _is_base_system(link: Path) -> bool:
    """Whether systemd's own packages brought the unit: where they are new, their links make the machine boot."""
    for target in (
        os.readlink(link),
        str(link.resolve()),
    ):  # /lib is a link, and dpkg knows the one or the other
        command = ["dpkg-query", "--search", os.path.normpath(link.parent / target)]
        owner = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if owner.startswith(_BASE_SYSTEM):
            return True
    return False


def _say(text: str) -> None:
    """Print, even if nobody listens any more: what follows has to be done all the same."""
    try:
        print(text, flush=True)
    except OSError:
        return


def _stop(services: frozenset[str]) -> None:
    for service in sorted(services):
        subprocess.run(["systemctl", "stop", f"{service}.service"], check=False)
        _say(f"stopped: {service}")


class Apt:
    """apt-get, one run at a time, which a signal can stop.

    The handler raises nothing: an exception in the wrong moment would leave the policy there, or apt without it.
    apt-get is interrupted alone, in a session of its own: then it stops a download at once and lets dpkg finish.
    """

    def __init__(self) -> None:
        self._stopped_by = ""
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        self._stopped_by = signal.Signals(number).name
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def stopped_by(self) -> str:
        """The name of the signal that stopped us, empty if none did."""
        return self._stopped_by

    def install(self, packages: list[str]) -> bool:
        """Update the lists and install, a few times over, since mirrors have bad moments."""
        for attempt in range(_ATTEMPTS):
            if attempt and not self.stopped_by():
                _say(f"apt failed; once more in {5 * attempt} s")
                time.sleep(5 * attempt)
            if self._run("update") and self._run("install", "--yes", "--no-install-recommends", *packages):
                return True
        return False

    def _run(self, *arguments: str) -> bool:
        if self.stopped_by():
            return False
        options = ("-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
        self._process = subprocess.Popen(
            ["apt-get", *options, *arguments], stdin=subprocess.DEVNULL, env=env, start_new_session=True
        )
        if self.stopped_by():  # while it was being started
            self._process.send_signal(signal.SIGINT)
        return self._process.wait() == 0


def main(packages: list[str]) -> int:
    apt = Apt()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, apt.stop)
    with services_stay_down():
        installed = apt.install(packages)
    if apt.stopped_by():
        _say(f"stopped by {apt.stopped_by()}; the service policy is taken away again")
        return 130
    return 0 if installed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
