import torch
from hypothesis import example, given
from hypothesis import strategies as st

from clmm_core.seeds import derive_seed, generator, seeded

names = st.lists(st.integers(0, 99) | st.text(st.characters(exclude_characters="/"), max_size=5), max_size=4)


@given(st.integers(0, 2**32), names, names)
@example(0, [], ["\udcff"])  # what Python makes of a file name that is not valid UTF-8
def test_a_seed_depends_on_every_argument_and_fits_torch(run_seed: int, one: list[int | str], other: list[int | str]):
    assert derive_seed(run_seed, *one) == derive_seed(run_seed, *one)
    assert (derive_seed(run_seed, *one) == derive_seed(run_seed, *other)) == (list(map(str, one)) == list(map(str, other)))
    assert derive_seed(run_seed + 1, *one) != derive_seed(run_seed, *one)
    assert 0 <= derive_seed(run_seed, *one) < 2**63


def test_seeds_are_the_same_on_every_machine():
    """The first 16 digits of `printf 0 | sha256sum` and of `printf 7/pretrain/3/anna | sha256sum`, halved."""
    assert derive_seed(0) == 0x5FECEB66FFC86F38 // 2
    assert derive_seed(7, "pretrain", 3, "anna") == 0xF6F71DAA7B4121B9 // 2


def test_generators_are_fresh():
    one, other = generator(1, "a"), generator(1, "a")
    torch.rand(5, generator=one)
    first = torch.rand(3, generator=other)
    assert torch.equal(first, torch.rand(3, generator=generator(1, "a")))
    assert not torch.equal(first, torch.rand(3, generator=generator(1, "b")))


def test_a_seeded_block_is_reproducible_and_leaves_no_trace():
    before = torch.random.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded(5, "pretrain", 1, "anna"):
            draws.append(torch.rand(3))
        torch.rand(1)  # whatever happens in between
        torch.random.set_rng_state(before)
    assert torch.equal(*draws)
    assert torch.equal(torch.random.get_rng_state(), before)
