"""Import typer once with its own warning allowed: Flower pins typer below 0.21, which imports names that click 8.4 deprecates."""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r"'click\.", category=DeprecationWarning)
    import typer  # noqa: F401
