"""The Flower ServerApp: read the run config, train over the hosts that the grid has."""

from logging import ERROR, INFO

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from clmm_core.errors import ClmmError
from server.flower_hosts import FlowerHosts
from server.results import train_and_write
from server.run_config import parse_run_config

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run config describes; the results folder appears whole or not at all."""
    try:
        config = parse_run_config(context.run_config)
        hosts = FlowerHosts(
            grid, min_hosts=config.min_hosts, hosts_timeout_s=config.hosts_timeout_s, round_timeout_s=config.round_timeout_s
        )
        path = train_and_write(hosts, config, context.run_config, lambda line: log(INFO, line), keeps_checkpoints=True)
        log(INFO, "report: %s", path / "report.html")
    except ClmmError as error:
        log(ERROR, "clmm: %s", " ".join(str(error).split()))
        raise
