"""The process in which the server runs: what it loads. Its whole runs are in test_federation.py and tests/test_flower_run.py."""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
HEAVY = {"torch", "matplotlib", "jinja2", "scipy", "sklearn", "pandas", "pyarrow", "ray"}


def loaded_by(*modules: str) -> set[str]:
    """Return the top-level packages that a fresh process has loaded after importing these modules."""
    code = f"import json, sys, {', '.join(modules)}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_neither_app_loads_what_only_hosts_and_the_report_need():
    # Flower's simulation loads the ClientApp into the server's process too.
    assert loaded_by("server.server_app", "client.client_app").isdisjoint(HEAVY)
