from pathlib import Path

import pytest

from client.host.models import CURRENT, GOLDEN, MODEL, PREVIOUS, Models
from clmm_core.errors import ModelFileError


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path / "models")


def test_before_the_first_there_is_none_and_nothing_to_go_back_to(models: Models):
    assert models.current() is None
    with pytest.raises(ModelFileError, match="nothing to go back to"):
        models.roll_back()


def test_the_newest_is_the_current_one_and_the_one_before_is_kept(models: Models):
    places = [models.install(content, "golden") for content in (b"one", b"two", b"three")]
    current = models.current()
    assert current == places[2]
    assert current is not None
    assert current.read_bytes() == b"three"
    assert (current.parent / GOLDEN).read_text() == "golden"
    assert sorted(each.name for each in models.folder.iterdir() if each.is_dir()) == sorted(each.parent.name for each in places[1:])


def test_going_back_twice_is_where_one_was(models: Models):
    models.install(b"one", "")
    models.install(b"two", "")
    assert models.roll_back().read_bytes() == b"one"
    assert models.current() == models.folder / (models.folder / CURRENT).read_text() / MODEL
    assert models.roll_back().read_bytes() == b"two"


def test_the_same_model_again_changes_nothing(models: Models):
    models.install(b"one", "")
    models.install(b"two", "")
    models.install(b"two", "")
    assert models.roll_back().read_bytes() == b"one"


def test_a_pointer_to_what_is_gone_is_no_model(models: Models):
    models.install(b"one", "")
    (models.folder / PREVIOUS).write_text("nowhere")
    with pytest.raises(ModelFileError, match="nothing to go back to"):
        models.roll_back()
    (models.folder / CURRENT).write_text("nowhere")
    assert models.current() is None
