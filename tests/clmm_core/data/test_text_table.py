import numpy as np
import pytest

from clmm_core.data.datasets.text_table import read_text_table
from clmm_core.errors import DataError


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        (b"1,2.5,-3e2\n4,5,6\n", ","),
        (b"1, 2.5, -3e2\r\n4, 5, 6", ","),
        (b"% a header; with; words\n     \n1;2.5;-3e2\n\n4;5;6\n", ";"),
        (b"  1 2.5\t-300\n4  5 6\n", None),
    ],
)
def test_rows_of_numbers(content: bytes, delimiter: str | None) -> None:
    table = read_text_table(content, columns=3, delimiter=delimiter, where="here")
    np.testing.assert_array_equal(table, [[1, 2.5, -300], [4, 5, 6]])


def test_one_row_is_a_table() -> None:
    assert read_text_table(b"1 2 3", columns=3, delimiter=None, where="here").shape == (1, 3)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "lines of 3 numbers, found none"),
        (b"% only a header\n  \n", "lines of 3 numbers, found none"),
        (b"1 2\n3 4\n", "lines of 3 numbers, found 2 in a line"),
        (b"1 2 3\n4 5\n", "lines of 3 numbers, cannot read them"),
        (b"1 2 three\n", "lines of 3 numbers, cannot read them"),
        (b"\xff\xfe\x00binary\n", "lines of 3 numbers, cannot read them"),
        (b"1 2 3\n4 nan 6\n", "finite numbers, found nan in row 2, column 2"),
    ],
)
def test_what_is_no_such_table_is_named(content: bytes, found: str) -> None:
    with pytest.raises(DataError, match=rf"^folder/file\.txt: expected {found}"):
        read_text_table(content, columns=3, delimiter=None, where="folder/file.txt")
