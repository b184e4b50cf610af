"""How long Ray itself takes to start here: to be one of its processes, `python -m simulation.bench.ray_start WORKERS`."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from clmm_core.errors import ClmmError


class RayStartError(ClmmError):
    """Ray did not start; the message is its own."""


class _Worker:
    def is_up(self) -> bool:
        return True


def ray_start_s(num_workers: int) -> float:
    """Return the seconds from `ray.init` to the first answers of that many workers, in a process of its own.

    Raises:
        RayStartError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local", "RAY_TMPDIR": folder, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "simulation.bench.ray_start", str(num_workers)]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RayStartError(f"Ray alone, with {num_workers} workers, does not start: {done.stderr.strip()[-500:]}")
    return float(done.stdout.split()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Start Ray and its workers, and print how long it took, in seconds."""
    import ray  # noqa: PLC0415  its import is not Ray's start

    num_workers = int((arguments or sys.argv[1:])[0])
    since_s = time.perf_counter()
    ray.init(num_cpus=num_workers, include_dashboard=False, log_to_driver=False)
    workers = [ray.remote(_Worker).options(num_cpus=1).remote() for _ in range(num_workers)]
    ray.get([worker.is_up.remote() for worker in workers])
    sys.stdout.write(f"{time.perf_counter() - since_s}\n")
    ray.shutdown()


if __name__ == "__main__":
    main()
