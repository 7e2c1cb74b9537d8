# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the kernel of tests/kernel is looked for, and what the builder makes of a source that lacks an option."""

from pathlib import Path

import pytest

from devtools import __main__ as commands
from devtools import kernel, packages
from devtools.console import Failed
from devtools.machine import Caller


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


def test_a_changed_fragment_means_another_kernel(tmp_path: Path) -> None:
    fragment = tmp_path / "uml.config"
    fragment.write_text("CONFIG_NET=y\n")
    before = kernel.place({"HOME": "/h"}, fragment)
    fragment.write_text("CONFIG_NET=y\nCONFIG_INET=y\n")
    assert kernel.place({"HOME": "/h"}, fragment) != before


def test_the_cache_is_the_users_and_may_be_moved() -> None:
    assert kernel.place({"HOME": "/h"}).is_relative_to("/h/.cache/homeward")
    assert kernel.place({"HOME": "/h", "XDG_CACHE_HOME": "/c"}).is_relative_to("/c/homeward")
    assert kernel.place({"HOME": "/h", "XDG_CACHE_HOME": "relative"}).is_relative_to("/h/.cache/homeward")


def test_a_named_kernel_comes_before_the_one_that_was_built(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    assert kernel.find(environment) is None
    built = executable(kernel.place(environment))
    assert kernel.find(environment) == built
    named = tmp_path / "named"
    assert kernel.find({**environment, kernel.VARIABLE: str(named)}) is None, (
        "a name that is wrong is not passed over"
    )
    assert kernel.find({**environment, kernel.VARIABLE: str(executable(named))}) == named


def test_a_kernel_that_is_there_is_not_built_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = executable(tmp_path / "linux")
    monkeypatch.setenv(kernel.VARIABLE, str(named))
    monkeypatch.setattr(packages, "missing", lambda _groups: pytest.fail("asked for packages"))
    monkeypatch.setattr(kernel, "build", lambda *_args, **_more: pytest.fail("built"))
    assert commands.main(["kernel"]) == 0
    assert capsys.readouterr().out == f"{named}\n"


def test_a_named_kernel_that_is_not_there_is_not_built_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(kernel.VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(Failed, match=kernel.VARIABLE):
        kernel.build(Caller(uid=0, gid=0, is_root=True), jobs=1)


def test_options_that_the_source_does_not_take_are_found() -> None:
    fragment = "# why\nCONFIG_A=y\n\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\n"
    config = "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\n"
    assert kernel.not_held(fragment, config) == ["CONFIG_B=y"]
    assert kernel.not_held(fragment, "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=y\n") == ["# CONFIG_C is not set"]


def test_the_fragment_says_nothing_twice() -> None:
    options = [line for line in kernel.FRAGMENT.read_text().splitlines() if "CONFIG_" in line]
    assert len(options) == len(set(options))
    assert all(line.startswith(("CONFIG_", "# CONFIG_")) for line in options)
