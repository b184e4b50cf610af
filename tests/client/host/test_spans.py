import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from client.host.spans import Spans, without

SPAN = st.tuples(st.integers(0, 50), st.integers(0, 50))


def times(spans: list[tuple[int, int]]) -> set[int]:
    return {time for start, end in spans for time in range(start, end)}


@given(spans=st.lists(SPAN), first=st.integers(-5, 55), length=st.integers(0, 20))
def test_they_are_the_union(spans, first, length):
    joined, inside = Spans.of(spans), times(spans)
    assert times(list(zip(joined.starts, joined.ends, strict=True))) == inside
    assert all(end < start for end, start in zip(joined.ends, joined.starts[1:], strict=False))
    assert joined.touch(first, first + length) == bool(inside & set(range(first, first + length + 1)))
    every = np.arange(-5, 60)
    assert joined.contain(every).tolist() == [int(time) in inside for time in every]


@given(span=SPAN, cut=SPAN)
def test_what_is_left_is_the_difference(span, cut):
    left = without(span, (min(cut), max(cut)))
    assert times(left) == times([span]) - set(range(min(cut), max(cut)))
    assert all(start < end for start, end in left)
