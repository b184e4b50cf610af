from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.data.labels import LabelDraw
from clmm_core.errors import ConfigError, DataError
from clmm_core.federated.messages import DeviceProfile
from clmm_core.report.records import Split
from server.run_config import SplitConfig, parse_run_config
from server.split import draw_split

Draw = Callable[..., Split]
WANTED = SplitConfig(seed=0, test=(), validation=(), num_test=2, num_validation=1, labelled=(), num_labelled=2)


def fleet(count: int, *, without_labels: tuple[str, ...] = ()) -> dict[str, DeviceProfile]:
    names = [f"s{i:02d}" for i in range(count)]
    labels: dict[str, dict[str, int]] = {name: {} if name in without_labels else {"walk": 2, "run": 2} for name in names}
    return {name: DeviceProfile(device=name, num_windows=4, modalities={}, labelled_windows=labels[name]) for name in names}


@pytest.fixture(scope="session")
def draw(run_config) -> Draw:
    base = parse_run_config(run_config())

    def make(devices: Mapping[str, DeviceProfile], **wanted: object) -> Split:
        return draw_split(replace(base, split=replace(WANTED, **wanted)), devices, ("run", "walk"))

    return make


@given(seed=st.integers(0, 2**40), count=st.integers(5, 30), num_test=st.integers(0, 2), num_validation=st.integers(0, 2))
def test_everyone_is_in_one_group(draw: Draw, seed: int, count: int, num_test: int, num_validation: int):
    split = draw(fleet(count), seed=seed, num_test=num_test, num_validation=num_validation)
    assert sorted((*split.test, *split.validation, *split.training)) == sorted(fleet(count))
    assert (len(split.test), len(split.validation), len(split.labelled)) == (num_test, num_validation, min(2, len(split.training)))
    assert set(split.labelled) <= set(split.training)
    for group in (split.test, split.validation, split.training, split.labelled):
        assert list(group) == sorted(group)


@given(seed=st.integers(0, 2**40), order=st.permutations(sorted(fleet(9))))
def test_the_seed_alone_decides(draw: Draw, seed: int, order: list[str]):
    devices = fleet(9)
    assert draw(devices, seed=seed) == draw({name: devices[name] for name in order}, seed=seed)


def test_another_seed_draws_others(draw: Draw):
    drawn = [draw(fleet(12), seed=seed) for seed in range(60)]
    assert len({split.test for split in drawn}) > 10
    assert len({split.labelled for split in drawn}) > 10
    assert set(chain.from_iterable(split.test for split in drawn)) == set(fleet(12))


def test_the_purposes_draw_apart(draw: Draw):
    """How many are kept for choices does not change who is tested: results stay comparable."""
    assert draw(fleet(12), num_validation=0).test == draw(fleet(12), num_validation=4).test


@given(seed=st.integers(0, 1000))
def test_named_subjects_are_taken_as_named(draw: Draw, seed: int):
    split = draw(fleet(8), seed=seed, test=("s03", "s01"), validation=("s07",), labelled=("s05", "s00"))
    assert (split.test, split.validation, split.labelled) == (("s01", "s03"), ("s07",), ("s00", "s05"))
    assert split.training == ("s00", "s02", "s04", "s05", "s06")


@given(seed=st.integers(0, 1000))
def test_a_subject_named_for_one_purpose_is_never_drawn_for_another(draw: Draw, seed: int):
    split = draw(fleet(5), seed=seed, labelled=("s02",), validation=("s04",), num_test=2)
    assert (split.labelled, split.validation) == (("s02",), ("s04",))
    assert {"s02", "s04"}.isdisjoint(split.test)
    split = draw(fleet(5), seed=seed, labelled=("s02", "s03"), num_test=1, num_validation=1)
    assert {"s02", "s03"} <= set(split.training)


def test_what_was_asked_is_kept_with_it(draw: Draw, run_config):
    config = replace(parse_run_config(run_config()), labels=LabelDraw(per_class=3, unit="window", seed=4), split=replace(WANTED, seed=4))
    split = draw_split(config, fleet(6), ("run", "walk"))
    assert (split.seed, split.labels_per_class, split.label_unit, split.classes) == (4, 3, "window", ("run", "walk"))


@pytest.mark.parametrize(
    ("count", "wanted", "message"),
    [
        (4, {"test": ("s09",)}, "no host has a subject 's09'; there are s00, s01, s02, s03"),
        (4, {"labelled": ("eve",)}, "no host has a subject 'eve'"),
        (4, {"test": ("s01",), "validation": ("s01",)}, "subject 's01' is named twice"),
        (4, {"test": ("s01",), "labelled": ("s01",)}, "subject 's01' is named twice"),
        (4, {"labelled": ("s01", "s01")}, "subject 's01' is named twice"),
        (3, {"num_test": 4}, r"expected at least 4 subject\(s\) to draw for test, found 3"),
        (3, {"num_test": 2, "num_validation": 2}, r"expected at least 2 subject\(s\) to draw for validation, found 1"),
        (3, {"num_test": 3, "validation": ("s00",)}, r"expected at least 3 subject\(s\) to draw for test, found 2"),
        (3, {"num_test": 2, "num_validation": 1}, "none is left to train on"),
        (2, {"test": ("s00", "s01"), "num_validation": 0}, "none is left to train on"),
    ],
)
def test_a_split_that_cannot_be_says_why(draw: Draw, count: int, wanted: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        draw(fleet(count), **wanted)


def test_only_devices_with_labels_are_drawn_as_labelled(draw: Draw):
    unable = ("s00", "s02", "s04", "s06")
    for seed in range(20):
        split = draw(fleet(8, without_labels=unable), seed=seed, num_labelled=1, num_test=1)
        assert set(split.labelled).isdisjoint(unable)


def test_all_that_have_labels_are_taken_where_more_are_wanted(draw: Draw):
    split = draw(fleet(6, without_labels=("s00", "s01")), num_test=0, num_validation=0, num_labelled=9)
    assert split.labelled == ("s02", "s03", "s04", "s05")


def test_a_named_device_without_labels_is_refused(draw: Draw):
    with pytest.raises(DataError, match=r"labels.devices: subject\(s\) s03 have no labelled window: label some, or name others"):
        draw(fleet(6, without_labels=("s03",)), labelled=("s02", "s03"))


def test_no_label_on_any_training_device_is_refused(draw: Draw):
    with pytest.raises(DataError, match="none of the 2 training devices has a label: stage two needs at least one labelled device"):
        draw(fleet(3, without_labels=("s01", "s02")), test=("s00",), num_validation=0)
