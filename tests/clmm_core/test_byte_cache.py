import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.byte_cache import ByteCache


def cache(max_bytes: int) -> ByteCache[str, bytearray]:
    return ByteCache(max_bytes, len)


def of_size(num_bytes: int) -> Callable[[], bytearray]:
    return lambda: bytearray(num_bytes)


def test_what_is_kept_is_the_same_object_and_not_made_again() -> None:
    kept = cache(10)
    first = kept.get("a", of_size(4))
    assert kept.get("a", lambda: pytest.fail("made again")) is first


def test_what_was_not_used_for_longest_goes_first() -> None:
    kept = cache(10)
    a, b = kept.get("a", of_size(5)), kept.get("b", of_size(5))
    kept.get("a", of_size(5))
    kept.get("c", of_size(1))
    assert kept.get("a", of_size(5)) is a
    assert kept.get("b", of_size(5)) is not b


def test_what_is_larger_than_all_is_kept_until_the_next_comes() -> None:
    kept = cache(10)
    large = kept.get("large", of_size(100))
    assert kept.get("large", of_size(100)) is large
    kept.get("small", of_size(1))
    assert kept.get("large", of_size(100)) is not large


def test_an_error_is_raised_every_time_and_keeps_nothing() -> None:
    def fail() -> bytearray:
        raise ValueError

    kept = cache(10)
    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011
            kept.get("a", fail)
    assert len(kept.get("a", of_size(3))) == 3


def test_what_is_made_may_ask_for_something_else() -> None:
    kept = cache(10)
    assert kept.get("a", lambda: kept.get("b", of_size(2)) + b"x") == bytearray(2) + b"x"
    assert kept.get("b", lambda: pytest.fail("made again")) == bytearray(2)


def test_nothing_is_left_after_clear() -> None:
    kept = cache(10)
    a = kept.get("a", of_size(10))
    kept.clear()
    b = kept.get("b", of_size(4))
    assert kept.get("a", of_size(6)) is not a
    assert kept.get("b", of_size(4)) is b


def test_threads_that_make_the_same_at_once_see_one_object() -> None:
    kept, together, found = cache(10), threading.Barrier(2), []

    def make() -> bytearray:
        together.wait()
        return bytearray(1)

    threads = [threading.Thread(target=lambda: found.append(kept.get("a", make))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1]


@given(asked=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 30)), max_size=40))
def test_it_never_keeps_more_than_the_bound_but_for_the_last(asked: list[tuple[str, int]]) -> None:
    kept = cache(40)
    for key, num_bytes in asked:
        last = kept.get(key, of_size(num_bytes))
        sizes = [size for _, size in kept._kept.values()]
        assert sum(sizes) == kept._num_bytes
        assert sum(sizes) <= 40
        assert kept.get(key, of_size(num_bytes)) is last
