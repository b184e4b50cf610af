"""The process `flwr-simulation` with a pool that replaces a Ray worker that died. `clmm run` has Flower start this one instead of its own.

Flower's pool puts the actor of a dead worker back on top of the idle ones. It fails the next message at once, is on top again, and so takes
most of a round: of 20 hosts 20, 4, 1 and 1 answered in four rounds, and the run counted as completed. Flower has no public seam for it
(backend and pool are fixed, an actor's `max_restarts` cannot be set), so this puts a subclass of the pool in the pool's place, in this
process alone and before anything is started. Restarting by Ray would be no remedy: while it restarts, an actor fails calls as fast.

It must not import the app's packages: Flower loads those of the app that is run.
"""

import sys
from collections import Counter
from logging import WARNING
from pathlib import Path
from typing import Any

import ray
from flwr import __version__ as flwr_version
from flwr.common.logger import log
from flwr.server.superlink.fleet.vce.backend import raybackend
from flwr.simulation.app import flwr_simulation
from flwr.simulation.ray_transport.ray_actor import BasicActorPool
from ray.exceptions import RayError, RayTaskError

KNOWN_FLOWER = ("1.41.", "1.42.")
"""Beginnings of the versions whose pool this was written for; both have the same."""
START_TIMEOUT_S = 60.0
"""A worker that is not up after this has no place: its node left the cluster."""


class RepairedPool(BasicActorPool):
    """Flower's pool, in which a dead actor's place is taken by a new one, or by a share in another where there is no room for one."""

    def fetch_result_and_return_actor_to_pool(self, future: Any) -> Any:
        """Return an actor's result and put the actor back.

        Raises:
            RayError: it died; what comes back to the pool is its replacement.
            RayTaskError: the app raised something; the actor lives and comes back.
        """
        try:
            return super().fetch_result_and_return_actor_to_pool(future)
        except RayTaskError:
            raise
        except RayError:
            self._future_to_actor[future] = self._instead_of(self._future_to_actor[future])
            raise

    def _instead_of(self, dead: Any) -> Any:
        ray.kill(dead)  # it may only be out of reach, and still hold its CPU
        fresh: Any = self.create_actor_fn()
        try:
            ray.get(fresh.__ray_ready__.remote(), timeout=START_TIMEOUT_S)
        except RayError as error:
            ray.kill(fresh)
            log(WARNING, "A Ray worker died, and there is no room for another (%s): hosts share those that are left", error)
            return self._least_shared(dead)
        log(WARNING, "A Ray worker died and was replaced; its host's devices are missing from this round")
        return fresh

    def _least_shared(self, dead: Any) -> Any:
        """Return the living actor with the fewest places in the pool; Ray lets those who share one wait for each other."""
        others = Counter(actor for actor in (*self.pool, *self._future_to_actor.values()) if actor != dead)
        return min(others, key=lambda actor: others[actor]) if others else dead


def main() -> None:
    """Be `flwr-simulation`."""
    # Ray puts the folder of the program on the workers' path; as Flower's own program would have it, not this package's.
    sys.argv[0] = str(Path(sys.executable).with_name("flwr-simulation"))
    if flwr_version.startswith(KNOWN_FLOWER):
        raybackend.BasicActorPool = RepairedPool
    else:
        log(WARNING, "Flower %s is unknown here, so its pool is left alone: a worker that dies may take the run with it", flwr_version)
    flwr_simulation()


if __name__ == "__main__":
    main()
