# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import errno

import pytest

from homeward.model import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.Truncated,
        errors.TrailingOctets,
        errors.BadExtension,
        errors.UnknownCriticalExtension,
        errors.UnknownMessage,
        errors.BadChecksum,
        errors.NotFromThisLink,
    ],
)
def test_wire_errors_are_one_family_of_value_errors(error: type[Exception]) -> None:
    assert issubclass(error, errors.WireError)
    assert issubclass(error, errors.HomewardError)
    assert issubclass(error, ValueError)


@pytest.mark.parametrize(
    "error",
    [errors.LinkError, errors.IkeError, errors.PlanError, errors.NotPermitted, errors.Unavailable],
)
def test_adapter_errors_carry_what_was_tried_and_why_it_failed(error: type[errors.AdapterError]) -> None:
    by_number = error("add rule 209", errno.EPERM)
    assert (by_number.action, by_number.cause) == ("add rule 209", errno.EPERM)
    assert str(by_number) == "add rule 209: EPERM (1)"
    assert str(error("add rule 209", 9999)) == "add rule 209: errno (9999)"
    assert str(error("load connection", "no such proposal")) == "load connection: no such proposal"
    assert isinstance(by_number, errors.HomewardError)
    assert not isinstance(by_number, ValueError)


@pytest.mark.parametrize("error", [errors.LocalProtocolError, errors.ProfileError])
def test_the_others_are_ours_too(error: type[Exception]) -> None:
    assert issubclass(error, errors.HomewardError)
    assert not issubclass(error, errors.WireError | errors.AdapterError)
