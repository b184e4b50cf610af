"""Sections of a page that a command writes."""

from pathlib import Path

import pytest

from clmm_core.errors import ConfigError
from simulation.marks import replace_between_marks

BEGIN, END = "<!-- study parts: begin -->", "<!-- study parts: end -->"


def test_a_section_replaces_what_was_between_its_marks_and_nothing_else(tmp_path: Path):
    page = tmp_path / "page.md"
    others = "<!-- study whole: begin -->\nkept\n<!-- study whole: end -->"
    page.write_bytes(f"# Title\r\nwords é\r\n{BEGIN}\r\nold\n{END}\n{others}\nafter".encode())
    for text in ("new\n\n| table |", "newer"):
        replace_between_marks(page, "study parts", text)
        assert page.read_bytes().decode() == f"# Title\r\nwords é\r\n{BEGIN}\n{text}\n{END}\n{others}\nafter"
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


@pytest.mark.parametrize(
    "content",
    ["no marks", f"{BEGIN}\n", f"{END}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n", BEGIN.replace("parts", "other") + END],
)
def test_a_page_without_the_marks_is_left_alone_and_the_error_says_which(tmp_path: Path, content: str):
    page = tmp_path / "page.md"
    page.write_text(content)
    with pytest.raises(ConfigError, match=f"page.md: expected each of the marks {BEGIN} and {END} once.*add the two lines"):
        replace_between_marks(page, "study parts", "new")
    assert page.read_text() == content


def test_a_page_that_cannot_be_read_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=f"absent.md: expected a Markdown page with the marks {BEGIN}"):
        replace_between_marks(tmp_path / "absent.md", "study parts", "new")
    (tmp_path / "bytes.md").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"bytes\.md: expected a Markdown page"):
        replace_between_marks(tmp_path / "bytes.md", "study parts", "new")
