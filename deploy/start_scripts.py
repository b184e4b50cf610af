"""The programs and settings that `clmm provision` writes: what is started on each machine, and how, in Flower's own words."""

import json
from pathlib import Path

_ENVIRONMENT = """\
set -eu
umask 077
cd "$(dirname "$0")"
# Nothing is reported to Flower's makers, and a run installs nothing.
export FLWR_HOME="$PWD/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
"""

SUPERLINK = f"""\
#!/bin/sh
# Starts the SuperLink: TLS, hosts known by their keys, its state in state.db, control from this machine alone.
{_ENVIRONMENT}exec clmm superlink .
"""

NODE_CONFIG = """\
# What this host tells its ClientApp. The folder of its recordings (docs/data.md), from here or absolute:
recordings = "recordings"
"""


def superexec(address: str) -> str:
    """Return the program that runs the server's part of a run beside the SuperLink, so that it lives on when that one dies."""
    return f"""\
#!/bin/sh
# Starts what runs a run's ServerApp, in a process of its own: should the SuperLink die and come back, the run goes on.
{_ENVIRONMENT}exec flower-superexec --runtime-api-address '{address}' --root-certificates ca.crt
"""


def supernode(name: str, address: str) -> str:
    """Return the program that joins a host."""
    return f"""\
#!/bin/sh
# Joins as host '{name}'. Supervise it (systemd: Restart=always, RestartSec=15): after a crash its old session holds for up to a minute.
# More than one host on a machine: give each its own SUPERNODE_PORT, which only this machine sees.
{_ENVIRONMENT}clmm provision check .
exec flower-supernode --superlink '{address}' --root-certificates ca.crt --auth-supernode-private-key host.key \\
    --node-config node.toml --port "${{SUPERNODE_PORT:-9094}}"
"""


def flwr_config(server: Path, address: str) -> str:
    """Return `config.toml` of the FLWR_HOME in a server folder: `flwr run` then finds the SuperLink without being told."""
    return f"""\
[superlink]
default = "federation"

[superlink.federation]
address = {json.dumps(address)}
root-certificates = {json.dumps(str(server / "ca.crt"), ensure_ascii=False)}
"""
