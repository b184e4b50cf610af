from collections.abc import Callable
from pathlib import Path

import pytest

from clmm_core.errors import ConfigError
from server.run_config import Value, parse_run_config
from simulation.overrides import apply_overrides
from simulation.scenario import KEYS, LABELLED, Scenario, overrides_of, read_scenario

SHIPPED = Path(__file__).parents[2] / "simulation" / "scenarios"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a scenario file."""

    def make(text: str) -> Path:
        (tmp_path / "fleet.yaml").write_text(text)
        return tmp_path / "fleet.yaml"

    return make


def test_every_key_becomes_its_run_config_values(write, run_config):
    text = """
title: all
devices: 50
missing-share: 0.2
participation: 0.1
drop-out: 0.3
speed-spread: 0.5
windows-per-s: 7
deadline-s: 9
hosts: 3
workers-per-gpu: 4
ray-address: 10.0.0.1:6379
run: {finetune.participation: 1.0}
"""
    scenario = read_scenario(write(text))
    assert (scenario.hosts, scenario.workers_per_gpu, scenario.ray_address) == (3, 4, "10.0.0.1:6379")
    config = parse_run_config(apply_overrides(run_config(), overrides_of(scenario, run_config(), {})))
    assert (config.data.name, config.data.num_devices, config.data.missing_share) == ("synthetic", 50, 0.2)
    assert (config.pretrain_stage.participation, config.finetune_stage.participation) == (0.1, 1.0), "`run` stands over the rest"
    fleet = config.availability
    assert (fleet.drop_out, fleet.speed_spread, fleet.windows_per_s, fleet.deadline_s) == (0.3, 0.5, 7.0, 9.0)


def test_what_it_does_not_say_stays_as_it_is(write, run_config):
    assert overrides_of(read_scenario(write("{title: x, data: spar}")), run_config(), {}) == {"data.name": "spar", "data.path": ""}
    assert set(KEYS) < set(Scenario.__dataclass_fields__)


@pytest.mark.parametrize(("share", "run", "expected"), [(0.1, "", 5), (1.0, "", 47), (0.001, "", 1), (0.1, "run: {split.num-test: 19}", 3)])
def test_a_share_of_labels_is_of_the_devices_that_train(write, run_config, share: float, run: str, expected: int):
    scenario = read_scenario(write(f"title: x\ndevices: 50\nlabel-share: {share}\n{run}\n"))
    assert overrides_of(scenario, run_config(), {})[LABELLED] == expected
    assert overrides_of(scenario, run_config(), {LABELLED: 7})[LABELLED] == 7, "the command line stands over it"


def test_a_share_of_the_people_of_a_data_set(run_config):
    scenario = Scenario(title="x", data="spar", label_share=0.5, run={"split.test": "1,2,3", "split.num-validation": 1})
    assert overrides_of(scenario, run_config(), {})[LABELLED] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: x\ndevices: 5\ndevice: 6\n", r"device: Unexpected keyword argument"),
        ("title: x\ndevices: 5\ndrop_out: 0.1\n", r"drop_out: Unexpected keyword argument"),
        ("title: x\ndevices: 5\ndevices: 6\n", r"found 'devices' twice"),
        ('title: x\ndevices: "5"\n', r"devices: Input should be a valid integer"),
        ("devices: 5\n", r"title: Field required"),
        ("title: ' '\ndevices: 5\n", r"title: expected what the scenario is about"),
        ("title: x\n", r"devices: expected for data: synthetic"),
        ("title: x\ndata: spar\ndevices: 5\n", r"devices: expected for data: synthetic"),
        ("title: x\ndevices: 5\nlabel-share: 0\n", r"label-share: expected a share in \(0, 1\], found 0"),
        ("title: x\ndevices: 5\nrun: {seed: [1]}\n", r"run.seed"),
        ("- title", r"the file"),
        ("a: [", r"expected a scenario file in YAML"),
    ],
)
def test_what_cannot_be_is_refused_with_file_and_key(write, text: str, message: str):
    with pytest.raises(ConfigError, match=rf"fleet\.yaml: .*{message}"):
        read_scenario(write(text))


def test_no_file(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.yaml: expected a scenario file"):
        read_scenario(tmp_path / "none.yaml")


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_what_we_ship_can_run(file: Path, run_config: Callable[..., dict[str, Value]]):
    scenario = read_scenario(file)
    config = parse_run_config(apply_overrides(run_config(), overrides_of(scenario, run_config(), {})))
    assert config.availability.is_simulated
    assert config.split.num_labelled >= 2
    assert config.data.num_devices == scenario.devices


def test_there_is_a_small_one_a_large_one_and_one_of_ten_thousand():
    assert sorted(read_scenario(file).devices or 0 for file in SHIPPED.glob("*.yaml")) == [24, 500, 10_000]
