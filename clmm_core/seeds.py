"""Random numbers from (run seed, purpose, round, device) and nothing else."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(run_seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on every argument, the same on every machine and Python.

    Any name will do: a folder whose name is not valid UTF-8 reaches Python with lone surrogates in it.
    """
    text = "/".join(str(part) for part in (run_seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def generator(run_seed: int, *names: str | int) -> "torch.Generator":
    """Return a fresh CPU generator seeded with `derive_seed` of the same arguments."""
    import torch  # noqa: PLC0415  `derive_seed` is the server's too, which does without PyTorch

    return torch.Generator().manual_seed(derive_seed(run_seed, *names))


@contextmanager
def seeded(run_seed: int, *names: str | int) -> Iterator[None]:
    """Seed torch's own generator for the block, then put it back: parameter initialisation draws from it and offers no other."""
    import torch  # noqa: PLC0415  see `generator`

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive_seed(run_seed, *names))
        yield
