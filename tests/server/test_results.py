import sys
from pathlib import Path

import pytest

from server import results
from server.results import new_folder
from server.run_config import parse_run_config


@pytest.mark.parametrize(
    ("texts", "ends"), [([], "cores"), (["Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n"], "cores, NVIDIA H100 80GB HBM3")]
)
def test_a_record_names_the_gpu_where_there_is_one(
    texts: list[str], ends: str, tmp_path: Path, run_config, monkeypatch: pytest.MonkeyPatch
):
    for number, text in enumerate(texts):
        (tmp_path / f"000{number}").mkdir()
        (tmp_path / f"000{number}" / "information").write_text(text)
    monkeypatch.setattr(results, "GPUS", tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    values = run_config({"results-dir": str(tmp_path / "results")}, small=True)
    _, info = new_folder(parse_run_config(values), values)
    assert info.machine.endswith(ends)
