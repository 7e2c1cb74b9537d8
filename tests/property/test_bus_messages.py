# SPDX-License-Identifier: GPL-2.0-or-later
"""Any snapshot survives the bus and JSON, and no dictionary makes a reader stumble."""

import json

from hypothesis import given
from hypothesis import strategies as st

from homeward.bus.messages import snapshot_from_bus, snapshot_from_plain, snapshot_to_bus, snapshot_to_plain
from homeward.model.health import HealthItem
from homeward.model.status import Blocked, Proof, Roam, RoamPhase, SecretNeeded, StatusSnapshot

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
TIME = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**63 - 1)

st.register_type_strategy(str, TEXT)
st.register_type_strategy(float, TIME)
st.register_type_strategy(int, COUNT)

SNAPSHOTS = st.builds(
    StatusSnapshot,
    proof=st.none() | st.from_type(Proof),
    blocked=st.none() | st.from_type(Blocked),
    secrets_needed=st.lists(st.from_type(SecretNeeded), max_size=3).map(tuple),
    health=st.lists(st.from_type(HealthItem), max_size=3).map(tuple),
    roams=st.lists(
        st.builds(Roam, phases=st.lists(st.from_type(RoamPhase), max_size=3).map(tuple)), max_size=3
    ).map(tuple),
)

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(SNAPSHOTS)
def test_round_trip(snapshot: StatusSnapshot) -> None:
    assert snapshot_from_bus(snapshot_to_bus(snapshot)) == snapshot
    assert snapshot_from_plain(json.loads(json.dumps(snapshot_to_plain(snapshot)))) == snapshot


@given(
    SNAPSHOTS, st.dictionaries(st.sampled_from(sorted(snapshot_to_plain(StatusSnapshot()))), JUNK, max_size=4)
)
def test_a_reader_never_fails(snapshot: StatusSnapshot, damage: dict[str, object]) -> None:
    seen = snapshot_from_plain(snapshot_to_plain(snapshot) | damage)
    # What was understood is a snapshot like any other, and reads back as itself.
    assert snapshot_from_plain(snapshot_to_plain(seen)) == seen
