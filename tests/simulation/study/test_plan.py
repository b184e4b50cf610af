import re
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clmm_core.errors import ConfigError
from clmm_core.models.config import Branches, Fusion
from clmm_core.report.records import RunInfo
from clmm_core.report.run_folder import RunFolder, check_name
from server.federation import run_stage_one
from server.run_config import parse_run_config
from server.stage_one import StageOne
from simulation.in_process import InProcessHosts
from simulation.overrides import Value
from simulation.study.plan import ADDED, AFTER_STAGE_ONE, OF_TREES, Cell, Method, Split, Study, by_stage_one, cells_of, read_study

PROJECT = Path(__file__).parents[3]
WHOLE = """
title: What stage one is worth
reference: CLMM
splits: [{test: "1,2"}, {test: "3,4", validation: "5"}]
seeds: [0, 1]
run: {labels.per-class: 2}
settings:
  few labels: {labels.num-devices: 1}
  all labels: {labels.per-class: 0}
methods:
  CLMM: {}
  no stage one: {set: {pretrain.rounds: 0, personalise.per-class: 0}}
  trees: {classifier: extra-trees}
figure: settings
"""
NEVER_COUNTS = {"results-dir", "run-name", "resume", "data.path", "round-timeout-s", "hosts-timeout-s"}
OTHER_WORDS: dict[str, Value] = {
    "labels.unit": "window",
    "model.fusion": "uniform",
    "model.branches": "linear",
    "finetune.decay": "none",
    "finetune.server-optimizer": "fedadam",
    "results-dir": "elsewhere",
    "run-name": "another",
}
"""Other values of what follows stage one and is said in words."""

RunConfig = Callable[..., dict[str, Value]]


def write(folder: Path, text: str) -> Path:
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def other(key: str, value: Value) -> Value:
    """Return another value that the key takes."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 or 0.5
        case _:
            return OTHER_WORDS[key]


def cell(values: dict[str, Value], **more) -> Cell:
    whole = {"setting": "", "method": "CLMM", "split": Split(test="1"), "seed": 0, "classifier": "clmm", **more}
    return Cell(**whole, values=values)


def test_a_study_file_is_what_it_says(tmp_path: Path):
    study = read_study(write(tmp_path, WHOLE))
    assert study == Study(
        title="What stage one is worth",
        reference="CLMM",
        splits=(Split(test="1,2"), Split(test="3,4", validation="5")),
        seeds=(0, 1),
        run={"labels.per-class": 2},
        settings={"few labels": {"labels.num-devices": 1}, "all labels": {"labels.per-class": 0}},
        methods={
            "CLMM": Method(),
            "no stage one": Method(set={"pretrain.rounds": 0, "personalise.per-class": 0}),
            "trees": Method(classifier="extra-trees"),
        },
        figure="settings",
    )
    assert list(study.settings) == ["few labels", "all labels"]
    assert list(study.methods) == ["CLMM", "no stage one", "trees"]


@pytest.mark.parametrize("file", sorted((PROJECT / "simulation" / "studies").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_projects_own_studies_can_be_run(file: Path, run_config: RunConfig):
    assert cells_of(read_study(file), run_config(), {"data.path": "somewhere"})


def test_the_documented_study_can_be_run(tmp_path: Path, run_config: RunConfig):
    (text,) = re.findall(r"```yaml\n(.*?)```", (PROJECT / "docs" / "studies.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert cells_of(read_study(write(tmp_path, text)), run_config(), {"data.path": "somewhere"})


def test_settings_run_and_figure_can_be_left_out(tmp_path: Path):
    study = read_study(write(tmp_path, "{title: T, reference: A, splits: [{test: '1'}], seeds: [0], methods: {A: {}}}"))
    assert (dict(study.settings), dict(study.run), study.figure, study.judged_on) == ({"": {}}, {}, "none", "unseen")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: What stage one is worth\n", "", "title: "),
        ("title: What", "titel: What", "title: |titel: "),
        ("reference: CLMM", "reference: CLM", "one of the methods CLMM, no stage one, trees, found 'CLM'"),
        ("seeds: [0, 1]", "seeds: []", "at least one of seeds"),
        ("seeds: [0, 1]", "seeds: [0, 1, 0]", "seeds: every one once, found 0; 1; 0"),
        ("seeds: [0, 1]", "seeds: [0.5]", "seeds.0: "),
        ("seeds: [0, 1]", "seeds: [true]", "seeds.0: "),
        ("seeds: [0, 1]", "seeds: 0", "seeds: "),
        ('splits: [{test: "1,2"}, {test: "3,4", validation: "5"}]', "splits: []", "at least one of splits"),
        ('{test: "1,2"}', '{test: "3,4"}', "splits: every one once"),
        ('{test: "1,2"}', '{test: " ,"}', "splits: expected test subjects in every split"),
        ('{test: "1,2"}', "{test: 12}", "splits.0.test: "),
        ('{test: "1,2"}', "{validation: '7'}", "splits.0.test: "),
        ("figure: settings", "figure: pie", "figure: "),
        ("figure: settings", "judged_on: validation", "judged_on: validation: expected validation subjects in every split"),
        ("figure: settings", "judged_on: seen", "judged_on: "),
        ("classifier: extra-trees", "classifier: forest", "methods.trees.classifier: "),
        ("CLMM: {}", "CLMM: {pretrain.rounds: 1}", "methods.CLMM.pretrain.rounds: "),
        ("CLMM: {}", "CLMM:", "methods.CLMM: "),
        ("{pretrain.rounds: 0,", "{pretrain: {rounds: 0},", "methods.no stage one.set.pretrain"),
        ("{labels.per-class: 2}", "{labels.per-class: [2]}", "run.labels.per-class"),
        ("{labels.per-class: 2}", "{labels.per-class: null}", "run.labels.per-class"),
        ("{labels.per-class: 2}", "{labels.per-class: 2026-01-01}", "cannot read it: .*date"),
        ("{labels.per-class: 2}", "{seed: 2}", "run: seed follows from the study's splits"),
        ("{labels.per-class: 0}", "{split.test: '1'}", "settings.all labels: split.test follows"),
        ("{pretrain.rounds: 0,", "{run-name: x,", "methods.no stage one.set: run-name follows"),
        ("no stage one:", "CLMM:", "found 'CLMM' twice"),
        ("all labels:", "few labels:", "found 'few labels' twice"),
        ("methods:", "methods: [", "cannot read it"),
        (WHOLE, "", "the file: "),
        (WHOLE, "- one", "the file: "),
    ],
)
def test_a_mistake_in_a_study_file_names_the_file_and_the_key(tmp_path: Path, old: str, new: str, message: str):
    assert old in WHOLE
    file = write(tmp_path, WHOLE.replace(old, new))
    with pytest.raises(ConfigError, match=f"study.yaml: .*({message})"):
        read_study(file)


def test_a_file_that_is_not_there_or_not_text_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"absent.yaml: expected a study file"):
        read_study(tmp_path / "absent.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"bytes.yaml: expected a study file"):
        read_study(tmp_path / "bytes.yaml")


def test_every_combination_is_a_cell_with_its_own_folder_and_the_last_word_wins(tmp_path: Path, run_config: RunConfig):
    study = read_study(write(tmp_path, WHOLE))
    cells = cells_of(study, run_config(), {"personalise.local-epochs": 7})
    assert len(cells) == len({each.name for each in cells}) == 2 * 2 * 2 * 3
    assert [(each.seed, each.split.test, each.setting, each.method) for each in cells[:4]] == [
        *((0, "1,2", "few labels", method) for method in study.methods),
        (0, "1,2", "all labels", "CLMM"),
    ]
    for each in cells:
        check_name(each.name)
        assert each.values.keys() == run_config().keys()
        assert each.values["seed"] == each.seed
        assert (each.values["split.test"], each.values["split.validation"]) == (each.split.test, each.split.validation)
        assert each.values["split.num-test"] == each.values["split.num-validation"] == 0
        assert each.values["labels.per-class"] == (0 if each.setting == "all labels" else 2)
        assert each.values["labels.num-devices"] == (1 if each.setting == "few labels" else run_config()["labels.num-devices"])
        assert each.values["pretrain.rounds"] == (0 if each.method == "no stage one" else run_config()["pretrain.rounds"])
        assert each.values["personalise.local-epochs"] == 7
        assert each.classifier == ("extra-trees" if each.method == "trees" else "clmm")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pretrain.round": 1}, "setting 'few labels', method 'CLMM': .*did you mean 'pretrain.rounds'"),
        ({"pretrain.rounds": -1}, "setting 'few labels', method 'CLMM': pretrain.rounds: expected"),
        ({"labels.unit": "minute"}, "setting 'few labels', method 'CLMM': labels.unit: expected"),
    ],
)
def test_a_run_config_that_cannot_be_is_found_before_anything_runs(tmp_path, run_config: RunConfig, overrides: dict[str, Value], message):
    with pytest.raises(ConfigError, match=message):
        cells_of(read_study(write(tmp_path, WHOLE)), run_config(), overrides)


def test_a_folder_says_what_it_is_and_fits_a_file_system(run_config: RunConfig):
    plain = cell(run_config(), setting="1 trial, 50 % off", method="CLMM (ours)", split=Split(test="S01,S02"), seed=3)
    assert re.fullmatch(r"spar-test-S01-S02-seed3-[0-9a-f]{10}", plain.name)
    long = cell(run_config(), split=Split(test=",".join(f"device-{number:05d}" for number in range(60))))
    assert len(long.name) < 255
    check_name(cell(run_config(), setting="µ", method="→").name)


def test_each_key_counts_where_it_should(run_config: RunConfig):
    """Left out: neither folder nor stage one. After stage one: the folder only. Every other key, one added tomorrow too: both."""
    config = run_config({"selftrain.rounds": 1})
    base = cell(config)
    for key, value in config.items():
        changed = cell({**config, key: f"{value}x" if isinstance(value, str) else other(key, value)})
        is_after = key.startswith(AFTER_STAGE_ONE)
        assert (changed.name == base.name) == (key in NEVER_COUNTS), key
        assert (changed.stage_one == base.stage_one) == (is_after or key in NEVER_COUNTS), key
    for beginning in AFTER_STAGE_ONE:
        assert any(key.startswith(beginning) for key in config), f"{beginning} is no key any more"


def test_how_self_training_would_go_on_does_not_count_where_there_is_none(run_config: RunConfig):
    without, with_it = (
        [cell(run_config({"selftrain.rounds": rounds, "selftrain.align": align})) for align in (False, True)] for rounds in (0, 2)
    )
    assert len({each.name for each in without}) == 1
    assert len({each.name for each in with_it}) == 2


def test_trees_depend_on_what_they_look_at_alone(run_config: RunConfig):
    base = cell(run_config(), classifier="extra-trees")
    for key, value in run_config().items():
        changed = cell({**run_config(), key: f"{value}x" if isinstance(value, str) else other(key, value)}, classifier="extra-trees")
        assert (changed.name != base.name) == (key.startswith(OF_TREES) and key not in NEVER_COUNTS), key


def test_a_key_that_came_later_and_does_nothing_leaves_a_run_its_name(run_config: RunConfig):
    config = run_config()
    for key, nothing in ADDED.items():
        assert config[key] == nothing, "a new run has it off, like one from before"
        assert cell({name: value for name, value in config.items() if name != key}).name == cell(config).name


def test_the_classifier_counts_and_trees_share_no_stage_one(run_config: RunConfig):
    clmm, trees = cell(run_config()), cell(run_config(), classifier="extra-trees")
    assert clmm.name != trees.name
    assert (trees.stage_one, bool(clmm.stage_one)) == ("", True)


def test_cells_are_grouped_by_the_stage_one_they_need(tmp_path: Path, run_config: RunConfig):
    groups = by_stage_one(cells_of(read_study(write(tmp_path, WHOLE)), run_config(), {}))
    # A split, a seed and the rounds of stage one make another; labels and personalisation do not; trees have none.
    assert len(groups) == 1 + 2 * 2 * 2
    assert {each.classifier for each in groups[""]} == {"extra-trees"}
    for key, group in groups.items():
        if key:
            assert {each.setting for each in group} == {"few labels", "all labels"}
            assert len({(each.seed, each.split, each.method) for each in group}) == 1


@pytest.fixture(scope="module")
def stage_one_of(tmp_path_factory: pytest.TempPathFactory, run_config: RunConfig) -> Callable[[dict[str, Value]], StageOne]:
    torch.set_num_threads(1)
    config = run_config({"data.num-devices": 5, "report.points-per-device": 0}, small=True)

    def run(overrides: dict[str, Value]) -> StageOne:
        info = RunInfo(name="x", run_config={}, versions={}, machine="", started_at="")
        folder = RunFolder.create(tmp_path_factory.mktemp("stage-one"), "x")
        return run_stage_one(InProcessHosts(1), parse_run_config({**config, **overrides}), info, folder, lambda _: None)

    return run


@pytest.fixture(scope="module")
def plain(stage_one_of: Callable[[dict[str, Value]], StageOne]) -> StageOne:
    return stage_one_of({})


def after_stage_one(config: dict[str, Value]) -> dict[str, Value]:
    return {key: other(key, value) for key, value in config.items() if key.startswith(AFTER_STAGE_ONE)}


def assert_same(one: StageOne, other_one: StageOne) -> None:
    assert one.record.quality == other_one.record.quality
    assert one.arrays.keys() == other_one.arrays.keys()
    for name, values in one.arrays.items():
        assert values.tobytes() == other_one.arrays[name].tobytes(), name


def test_what_is_said_to_follow_stage_one_changes_none_of_its_arrays(run_config: RunConfig, stage_one_of, plain: StageOne):
    """All of it at once, and every way to build what comes after the encoders, which draws its first weights from the same seed."""
    everything = after_stage_one(run_config())
    assert_same(stage_one_of(everything), plain)
    for fusion, branches in zip(cycle(get_args(Fusion)), get_args(Branches), strict=False):
        assert_same(stage_one_of({"model.fusion": fusion, "model.branches": branches}), plain)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_part_of_it_may_change(run_config: RunConfig, stage_one_of, plain: StageOne, data: st.DataObject):
    changes = after_stage_one(run_config())
    chosen = data.draw(st.sets(st.sampled_from(sorted(changes)), min_size=1))
    assert_same(stage_one_of({key: changes[key] for key in chosen}), plain)
