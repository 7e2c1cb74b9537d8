# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of foreign agents reach the core under the right address and number."""

from ipaddress import IPv4Address

import pytest

from homeward.daemon.driver import _foreign_keys
from homeward.model.secret import Secret
from tests.unit.daemon.parts import AAA, FOREIGN, KEY, profile, with_foreign_agents

FIRST, SECOND = IPv4Address("10.1.3.1"), IPv4Address("10.1.4.1")


@pytest.mark.rows("R-275")
def test_each_key_finds_its_agent() -> None:
    keys = _foreign_keys(with_foreign_agents(profile()), (Secret(FOREIGN), Secret(KEY), Secret(AAA)))
    first, second = keys.mobile_foreign(FIRST), keys.mobile_foreign(SECOND)
    assert first is not None
    assert second is not None
    assert keys.server is not None
    assert (first.spi, first.key.reveal()) == (512, FOREIGN)
    assert (second.spi, second.key.reveal()) == (513, KEY)
    assert (keys.server.spi, keys.server.key.reveal()) == (768, AAA)
    assert keys.mobile_foreign(IPv4Address("10.1.5.1")) is None


def test_a_profile_without_any_has_none() -> None:
    keys = _foreign_keys(profile(), ())
    assert not keys.can_answer(FIRST)


def test_a_missing_key_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        _foreign_keys(with_foreign_agents(profile()), (Secret(FOREIGN),))
