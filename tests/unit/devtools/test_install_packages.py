# SPDX-License-Identifier: GPL-2.0-or-later
"""Services stay down while packages are installed, and the policy that sees to it goes away again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devtools.install_packages import MARK, links_below, policy, services_stay_down

ROOT = Path(__file__).resolve().parents[3]
ALLOWED, FORBIDDEN = 104, 101


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder like /etc/systemd/system with one enabled unit."""
    wants = tmp_path / "system" / "multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "ssh.service").symlink_to("/lib/systemd/system/ssh.service")
    return tmp_path / "system"


def answer(text: str, folder: Path, *arguments: str) -> int:
    script = folder / "policy"
    script.write_text(text)
    return subprocess.run(["sh", str(script), *arguments], check=False).returncode


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["strongswan-starter", "start"], FORBIDDEN),
        (["strongswan-starter.service", "start"], FORBIDDEN),
        (["ssh", "restart"], ALLOWED),
        (["ssh.service", "restart"], ALLOWED),
        (["--quiet", "ssh", "(start)"], ALLOWED),
        (["ss", "start"], FORBIDDEN),
        ([], FORBIDDEN),
    ],
)
def test_the_policy_lets_alone_what_ran_before(tmp_path: Path, arguments: list[str], status: int) -> None:
    assert answer(policy(frozenset({"cron", "ssh"})), tmp_path, *arguments) == status


def test_without_systemd_the_policy_forbids_everything(tmp_path: Path) -> None:
    assert answer(policy(frozenset()), tmp_path, "ssh", "start") == FORBIDDEN


def test_the_policy_is_there_inside_and_gone_afterwards(tmp_path: Path, units: Path) -> None:
    where = tmp_path / "policy-rc.d"
    with services_stay_down(where, (units,)):
        assert where.stat().st_mode & 0o777 == 0o755
        assert subprocess.run([str(where), "dnsmasq", "start"], check=False).returncode == FORBIDDEN
    assert not where.exists()


def test_the_policy_goes_when_the_installation_fails(tmp_path: Path, units: Path) -> None:
    where = tmp_path / "policy-rc.d"
    with pytest.raises(KeyboardInterrupt), services_stay_down(where, (units,)):
        raise KeyboardInterrupt
    assert not where.exists()


def test_the_administrators_policy_is_left_alone(tmp_path: Path, units: Path) -> None:
    where = tmp_path / "policy-rc.d"
    where.write_text("#!/bin/sh\nexit 0\n")
    with services_stay_down(where, (units,)):
        assert where.read_text() == "#!/bin/sh\nexit 0\n"
    assert where.read_text() == "#!/bin/sh\nexit 0\n"


def test_a_policy_of_ours_that_a_killed_run_left_is_replaced_and_removed(tmp_path: Path, units: Path) -> None:
    where = tmp_path / "policy-rc.d"
    where.write_text(f"#!/bin/sh\n{MARK}\nexit 0\n")
    with services_stay_down(where, (units,)):
        assert subprocess.run([str(where), "dnsmasq", "start"], check=False).returncode == FORBIDDEN
    assert not where.exists()


def test_units_that_were_enabled_meanwhile_are_not_any_more(tmp_path: Path, units: Path) -> None:
    wants = units / "multi-user.target.wants"
    before = links_below((units,))
    with services_stay_down(tmp_path / "policy-rc.d", (units,)):
        (wants / "strongswan-starter.service").symlink_to(tmp_path / "strongswan-starter.service")
    assert links_below((units,)) == before == {wants / "ssh.service"}


def test_an_init_script_that_came_meanwhile_is_not_started_at_boot(tmp_path: Path) -> None:
    level = tmp_path / "rc2.d"
    level.mkdir()
    (level / "S01ssh").symlink_to("../init.d/ssh")
    with services_stay_down(tmp_path / "policy-rc.d", (level,)):
        (level / "S01ipsec").symlink_to("../init.d/ipsec")
        (level / "K01other").symlink_to("../init.d/other")
    assert sorted(path.name for path in level.iterdir()) == ["K01ipsec", "K01other", "S01ssh"]


def test_what_makes_the_machine_boot_stays_enabled(tmp_path: Path, units: Path) -> None:
    wants = units / "multi-user.target.wants"
    unit = Path("/lib/systemd/system/dbus.service")
    assert unit.exists(), "the package dbus is one of those that ./dev installs"
    with services_stay_down(tmp_path / "policy-rc.d", (units,)):
        (wants / "dbus.service").symlink_to(unit)
    assert (wants / "dbus.service").is_symlink()


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_signal_takes_the_policy_away(tmp_path: Path, seconds: float) -> None:
    """The real program, with an apt-get that hangs, ended from outside."""
    bin_folder, where = tmp_path / "bin", tmp_path / "policy-rc.d"
    bin_folder.mkdir()
    apt = bin_folder / "apt-get"
    apt.write_text("#!/bin/sh\nexec sleep 60\n")
    apt.chmod(0o755)
    program = (
        "import sys; from pathlib import Path; import devtools.install_packages as ip\n"
        f"ip.services_stay_down.__wrapped__.__defaults__ = (Path({str(where)!r}), ())\n"
        "sys.exit(ip.main(['no-such-package']))"
    )
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 20
        while not where.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=20)
    assert "stopped by SIGTERM" in said
    assert process.returncode == 130
    assert not where.exists()
