"""Updates of several devices in one message come apart again as they were."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.federated.arrays import Arrays, part_of
from clmm_core.federated.individual import apart, placed

NAMES = st.sampled_from(["modalities.imu.encoder.weight", "modalities.heart_rate.projection.bias", "fusion.head", "shared.weight"])
UPDATES = st.lists(st.dictionaries(NAMES, st.integers(0, 9).map(lambda value: np.full((2, 3), value, np.float32))), max_size=12)


@given(UPDATES)
def test_what_was_placed_comes_apart_as_it_was(updates: list[Arrays]):
    back = apart(placed(updates), len(updates))
    assert [list(each) for each in back] == [list(each) for each in updates]
    assert all(back[i][name] is updates[i][name] for i in range(len(updates)) for name in updates[i])


@given(UPDATES)
def test_an_array_stays_in_its_part(updates: list[Arrays]):
    assert sorted(map(part_of, placed(updates))) == sorted(part_of(name) for update in updates for name in update)


@pytest.mark.parametrize(
    "name", ["fusion.head", "fusion.head@", "fusion.head@2", "fusion.head@-1", "fusion.head@x", "@1", "fusion.head@\u00b2"]
)
def test_a_name_without_the_place_of_a_device_is_refused(name: str):
    with pytest.raises(ValueError, match=r"expected arrays whose names end with @ and the place of one of 2 device\(s\), found"):
        apart({"fusion.head@0": np.zeros(1, np.float32), name: np.zeros(1, np.float32)}, 2)
