"""A row of a page of measurements: what was to be reached, what was found."""


def one_row(name: str, measure: str, reach: str, found: str, *, is_reached: bool) -> str:
    """Return a table of this one row, in Markdown."""
    head = "| id | measure | to reach | found | |\n|---|---|---|---|---|\n"
    return f"{head}| {name} | {measure} | {reach} | {found} | {'reached' if is_reached else '**not reached**'} |"
