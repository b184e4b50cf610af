"""A section of a Markdown page that a command writes: what stands between two marks, `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""

from pathlib import Path

from clmm_core.errors import ConfigError
from clmm_core.files import replace_file


def check_marks(page: Path, name: str) -> tuple[str, str]:
    """Return what stands before and after the section of this name.

    Raises:
        ConfigError: the page cannot be read, or does not have each of the two marks once, in order.
    """
    begin, end = _marks(name)
    try:
        content = page.read_bytes().decode("utf-8")  # line ends stay what they are
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{page}: expected a Markdown page with the marks {begin} and {end}, cannot read it: {error}") from error
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise ConfigError(
            f"{page}: expected each of the marks {begin} and {end} once, in this order, "
            f"found {content.count(begin)} and {content.count(end)}: add the two lines where the section should be"
        )
    return content[: content.index(begin)], content[content.index(end) + len(end) :]


def replace_between_marks(page: Path, name: str, text: str) -> None:
    """Put the text between the marks of this name, and keep all else.

    Raises:
        ConfigError: see `check_marks`.
    """
    (begin, end), (before, after) = _marks(name), check_marks(page, name)
    replace_file(page, f"{before}{begin}\n{text}\n{end}{after}")


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
