import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.machine import (
    Checked,
    check_clock,
    check_disk,
    check_machine,
    check_memory,
    check_packages,
    check_port,
    check_python,
    check_temperature,
)

NOW = datetime(2026, 12, 24, 18, tzinfo=UTC)


def is_fatal(checked: Checked) -> bool:
    return any(finding.is_fatal for finding in checked.found)


def test_this_machine_can_take_part(tmp_path: Path):
    checked = check_machine(tmp_path / "not" / "made" / "yet", [], NOW)
    assert not [each for each in checked if is_fatal(each)]
    assert {"flwr", "torch", "numpy", "onnxruntime", "Python"} <= {each.what.split()[0] for each in checked}


def test_an_old_python_and_a_32_bit_board_are_told():
    assert check_python((3, 11), "aarch64", True).found == []
    assert "Python 3.11 or newer" in check_python((3, 9), "x86_64", True).found[0].text
    for processor, is_64_bit in (("armv7l", False), ("aarch64", False), ("riscv64", True)):
        checked = check_python((3, 12), processor, is_64_bit)
        assert "64-bit system on x86_64 or aarch64" in checked.found[0].text
        assert is_fatal(checked)


def test_a_package_that_is_absent_or_of_another_version_is_told():
    there = {"flwr": "1.50.0", "numpy": "2.4.6", "onnxruntime": "1.32.0"}
    flwr, torch, numpy, onnxruntime = check_packages(there.get)
    assert "pip install 'flwr" in flwr.found[0].text
    assert torch.what == "torch: none"
    assert "https://download.pytorch.org/whl/cpu" in torch.found[0].text
    assert (numpy.found, onnxruntime.found) == ((), ())
    assert is_fatal(flwr)
    assert is_fatal(torch)


def test_a_cpu_build_of_pytorch_is_the_version_it_is_of():
    there = {"flwr": "1.41.0", "numpy": "2.4.6", "torch": "2.13.0+cpu"}
    assert [each.found for each in check_packages(there.get)[:3]] == [(), (), ()]
    assert not is_fatal(check_packages(there.get)[3]), "a host without onnxruntime trains"


def test_cuda_on_a_board_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    there = {"flwr": "1.41.0", "numpy": "2.4.6", "torch": "2.13.0", "onnxruntime": "1.32.0", "nvidia-cuda-runtime": "13.0.1"}
    (told,) = [each for each in check_packages(there.get) if each.found]
    assert "CUDA" in told.found[0].text
    assert not is_fatal(told)


@pytest.mark.parametrize(
    ("free", "fatal", "warned"), [(150_000_000, True, True), (1_500_000_000, False, True), (50_000_000_000, False, False)]
)
def test_room_is_looked_at_where_the_folder_will_be(tmp_path: Path, free: int, fatal: bool, warned: bool):
    asked = []

    def usage(path: Path) -> tuple[int, int, int]:
        asked.append(path)
        return (10**12, 10**12 - free, free)

    checked = check_disk(tmp_path / "later", usage)
    assert asked == [tmp_path]
    assert (is_fatal(checked), bool(checked.found)) == (fatal, warned)


def test_little_memory_is_told(tmp_path: Path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  900000 kB\nMemAvailable:  400000 kB\n")
    checked = check_memory(meminfo)
    assert checked.what == "0.4 GB of memory free"
    assert "0.7 GB" in checked.found[0].text
    meminfo.write_text("MemTotal:  900000 kB\nMemAvailable:  800000 kB\n")
    assert check_memory(meminfo).found == ()


def test_a_clock_that_never_was_set_is_an_error_and_one_that_drifts_a_warning():
    assert is_fatal(check_clock(datetime(1970, 1, 1, tzinfo=UTC), None))
    assert "timedatectl set-ntp true" in check_clock(NOW, False).found[0].text
    assert not is_fatal(check_clock(NOW, False))
    assert check_clock(NOW, True).found == ()
    assert "not known" in check_clock(NOW, None).what


def test_a_hot_processor_is_told_and_a_thermometer_that_is_off_is_not_read(tmp_path: Path):
    for i, text in enumerate(("45000\n", "84500\n", "nothing")):
        (tmp_path / f"thermal_zone{i}").mkdir()
        (tmp_path / f"thermal_zone{i}" / "temp").write_text(text)
    checked = check_temperature(tmp_path)
    assert checked.what.startswith("84 C")
    assert "cool it" in checked.found[0].text
    assert check_temperature(tmp_path / "none").found == ()


def test_a_port_that_somebody_has_is_told():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        checked = check_port(port)
    assert f"port {port} is taken" in checked.what
    assert not is_fatal(checked), "it may be this host itself"
    assert check_port(port).what == f"port {port} is free"
