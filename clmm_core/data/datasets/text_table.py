"""A table of numbers in a text file, as most official archives hold them."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from clmm_core.errors import DataError


def read_text_table(content: bytes, *, columns: int, delimiter: str | None, where: str, allow_lost: bool = False) -> NDArray[np.float64]:
    """Return `[rows, columns]`, at least one row; `delimiter` None splits at blanks, and lines that start with `%` are comments.

    With `allow_lost` a number may be NaN or infinite: a lost sample.

    Raises:
        DataError: no row, another number of columns, or something that is no finite number; starts with `where`.
    """
    lines = [line for line in content.splitlines() if line.strip() and not line.startswith(b"%")]
    if not lines:
        raise DataError(f"{where}: expected lines of {columns} numbers, found none: get the official file again")
    try:
        table = np.loadtxt(BytesIO(b"\n".join(lines)), delimiter=delimiter, comments=None, ndmin=2)
    except ValueError as error:
        raise DataError(f"{where}: expected lines of {columns} numbers, cannot read them ({error}): get the official file again") from error
    if table.shape[1] != columns:
        raise DataError(f"{where}: expected lines of {columns} numbers, found {table.shape[1]} in a line: get the official file again")
    if not allow_lost and not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0] + 1
        raise DataError(f"{where}: expected finite numbers, found {table[row - 1, column - 1]} in row {row}, column {column}: correct it")
    return table
