"""Which devices this host serves, and where their recordings are."""

import os
from collections.abc import Mapping
from dataclasses import replace

from clmm_core.data.fleet import DataConfig, device_names
from clmm_core.errors import DataError

NodeConfig = Mapping[str, bool | int | float | str]


WINDOWS_FOLDER = "CLMM_WINDOWS"
"""Environment variable of a simulation's workers: a folder of their machine through which they share windows."""


def local_data(data: DataConfig, node_config: NodeConfig) -> DataConfig:
    """Return where this host's recordings are: its own folder if `--node-config 'recordings="PATH"'` names one, else the run's.

    Those of a simulation share their windows where the environment names a folder for it; a host with its own keeps them to itself.
    """
    if "recordings" in node_config:
        return replace(data, name="folder", path=str(node_config["recordings"]), shared_folder="")
    return replace(data, shared_folder=os.environ.get(WINDOWS_FOLDER, ""))


def shares_data(node_config: NodeConfig) -> bool:
    """Return whether this host reads the run's recordings, as every host of a simulation, and has none of its own."""
    return "recordings" not in node_config


def devices_of_host(data: DataConfig, node_config: NodeConfig) -> tuple[str, ...]:
    """Return this host's devices: all in its own folder, or in a simulation every n-th of the data set.

    Those it profiles; which it trains, the server says, and spreads a simulation's devices so that hosts have about as many windows.

    Raises:
        DataError: the data are not there, or the host knows neither a folder nor its place in a simulation.
    """
    names = device_names(data)
    if "recordings" in node_config:
        return names
    if "partition-id" not in node_config:
        raise DataError(
            "this host has no recordings: start its SuperNode with --node-config 'recordings=\"PATH\"' (a folder as in docs/data.md)"
        )
    return names[int(node_config["partition-id"]) :: int(node_config["num-partitions"])]
