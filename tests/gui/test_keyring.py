# SPDX-License-Identifier: GPL-2.0-or-later
"""The real keyring library against a real gnome-keyring on a private session bus, in all its moods."""

import gc
import os
import subprocess
import sys
import time
import warnings
from contextlib import closing
from pathlib import Path

import pytest
import secretstorage
from dbus_fast.aio import MessageBus

from homeward.gui.secret_agent import KEYRING_SERVICE, NoSecret, SecretServiceKeyring, Trouble
from tests.gui.keyrings import gnome_keyring, lock
from tests.gui.session import SOURCE, until

# The keyring library leaves its connection open where the keyring is locked; that is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LINE = "hex:000102030405060708090a0b0c0d0e0f"


@pytest.fixture(autouse=True)
def nobody_elses_session(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test may reach the keyring of whoever runs it."""
    if "session" in request.fixturenames:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", request.getfixturevalue("session"))
    else:
        monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "PYTHON_KEYRING_BACKEND"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.rows("R-97")
async def test_a_secret_is_kept_and_read_again(session, tmp_path):
    with gnome_keyring(session, tmp_path):
        keyring = SecretServiceKeyring()
        await keyring.store("office-key", LINE)
        assert await keyring.read("office-key") == LINE
        await keyring.store("office-key", "text:another")
        assert await keyring.read("office-key") == "text:another"


@pytest.mark.rows("R-97")
async def test_what_is_kept_lies_on_the_disk_encrypted(session, tmp_path):
    with gnome_keyring(session, tmp_path):
        await SecretServiceKeyring().store("office-key", LINE)
        files = [file.read_bytes() for file in (tmp_path / "data").rglob("*.keyring")]
    assert files
    assert not any(LINE[4:].encode() in content for content in files)


async def test_a_secret_that_is_not_there(session, tmp_path):
    with (
        gnome_keyring(session, tmp_path),
        pytest.raises(NoSecret, match="no entry “office-key”") as caught,
    ):
        await SecretServiceKeyring().read("office-key")
    assert caught.value.trouble is Trouble.NOT_FOUND


async def test_a_locked_keyring_without_anybody_to_unlock_it(session, tmp_path):
    with gnome_keyring(session, tmp_path):
        await SecretServiceKeyring().store("office-key", LINE)
        lock(session)
        for attempt in (SecretServiceKeyring().read("office-key"), SecretServiceKeyring().store("x", LINE)):
            with pytest.raises(NoSecret, match="locked") as caught:
                await attempt
            assert caught.value.trouble is Trouble.LOCKED


async def test_no_password_store_on_the_bus(session):
    with pytest.raises(NoSecret, match="no password store") as caught:
        await SecretServiceKeyring().read("office-key")
    assert caught.value.trouble is Trouble.ABSENT


async def test_no_session_bus_at_all():
    with pytest.raises(NoSecret, match="no password store") as caught:
        await SecretServiceKeyring().read("office-key")
    assert caught.value.trouble is Trouble.ABSENT


async def test_a_password_store_that_never_answers_is_given_up(session):
    """What a locked keyring looks like while its own dialog waits for somebody."""
    mute = await MessageBus(bus_address=session).connect()
    await mute.request_name("org.freedesktop.secrets")
    mute.add_message_handler(lambda message: True)
    keyring = SecretServiceKeyring(patience=0.3)
    started = time.monotonic()
    with pytest.raises(NoSecret, match=r"not answered for 0\.3 seconds") as caught:
        await keyring.read("office-key")
    assert caught.value.trouble is Trouble.TIMED_OUT
    with pytest.raises(NoSecret, match="still not answered"):
        await keyring.read("office-key")
    assert time.monotonic() - started < 2
    mute.disconnect()
    await mute.wait_for_disconnect()
    await until(lambda: not keyring.busy, "the thread to end")
    # The library leaves its connection to the garbage collector, which would warn in the middle of another test.
    del caught
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def test_a_configured_plain_text_backend_is_not_used(session, tmp_path, monkeypatch):
    """The library would take whatever its configuration names; we take the Secret Service or nothing."""
    written = tmp_path / "plain.txt"
    (tmp_path / "plain_backend.py").write_text(
        "from keyring.backend import KeyringBackend\n"
        "class Plain(KeyringBackend):\n"
        "    priority = 100\n"
        f"    def set_password(self, s, u, p): open({str(written)!r}, 'w').write(p)\n"
        "    def get_password(self, s, u): return 'text:from a plain file'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "plain_backend.Plain")
    for attempt in (
        SecretServiceKeyring().read("office-key"),
        SecretServiceKeyring().store("office-key", LINE),
    ):
        with pytest.raises(NoSecret) as caught:
            await attempt
        assert caught.value.trouble is Trouble.ABSENT
    assert not written.exists()


async def test_several_lines_are_never_stored(session, tmp_path):
    with gnome_keyring(session, tmp_path):
        with pytest.raises(NoSecret, match="one line"):
            await SecretServiceKeyring().store("office-key", "text:one\ntwo")
        with pytest.raises(NoSecret, match="no entry"):
            await SecretServiceKeyring().read("office-key")


async def test_an_entry_that_is_no_text(session, tmp_path):
    with gnome_keyring(session, tmp_path):
        with closing(secretstorage.dbus_init()) as connection:
            secretstorage.get_default_collection(connection).create_item(
                "odd", {"service": KEYRING_SERVICE, "username": "office-key"}, b"\xff\xfe"
            )
        with pytest.raises(NoSecret, match="no text") as caught:
            await SecretServiceKeyring().read("office-key")
        assert caught.value.trouble is Trouble.UNREADABLE


def keep(address: str, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "homeward.gui.main", "--keep-secret", "office-key"],
        input=line,
        capture_output=True,
        text=True,
        env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": address, "PYTHONPATH": str(SOURCE)},
        check=False,
        timeout=30,
    )


async def test_a_secret_can_be_kept_from_a_pipe(session, tmp_path):
    with gnome_keyring(session, tmp_path):
        done = keep(session, LINE + "\n")
        assert (done.returncode, done.stderr) == (0, "")
        assert LINE[4:] not in done.stdout
        assert await SecretServiceKeyring().read("office-key") == LINE


@pytest.mark.parametrize(
    ("line", "words"), [("hex:xyz\n", "hexadecimal"), ("\n", "empty"), (LINE, "no password store")]
)
def test_keeping_a_secret_fails_in_words(session, line, words):
    done = keep(session, line)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "xyz" not in done.stderr
