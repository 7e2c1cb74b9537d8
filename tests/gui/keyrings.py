# SPDX-License-Identifier: GPL-2.0-or-later
"""A real gnome-keyring on a private session bus."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import secretstorage
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from tests.gui.session import ended, need


@contextmanager
def connected(address: str) -> Iterator[DBusConnection]:
    connection = open_dbus_connection(address)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def gnome_keyring(address: str, folder: Path) -> Iterator[None]:
    """A keyring unlocked with a throw-away password."""
    need("gnome-keyring-daemon")
    (folder / "data").mkdir()
    process = subprocess.Popen(
        ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "DBUS_SESSION_BUS_ADDRESS": address,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
        },
    )
    assert process.stdin is not None
    process.stdin.write(b"throw-away")
    process.stdin.close()
    try:
        with connected(address) as connection:
            deadline = time.monotonic() + 10
            while not secretstorage.check_service_availability(connection):
                assert time.monotonic() < deadline, "gnome-keyring did not come up"
                time.sleep(0.02)
        yield
    finally:
        ended(process)


def lock(address: str) -> None:
    with connected(address) as connection:
        secretstorage.get_default_collection(connection).lock()
