import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.balance import balanced, largest

EQUAL = dict.fromkeys("abcdef", 10)


def every_nth(devices: list[str], num_hosts: int) -> dict[int, list[str]]:
    return {host: devices[host::num_hosts] for host in range(num_hosts)}


def test_by_hand():
    assert balanced({7: "abc", 8: "", 9: "d"}, {"a": 5, "b": 4, "c": 3, "d": 3}) == {7: ("a",), 8: ("b",), 9: ("c", "d")}


def test_devices_stay_where_moving_them_gains_nothing():
    assert balanced({0: "ace", 1: "bdf"}, EQUAL) == {0: ("a", "c", "e"), 1: ("b", "d", "f")}
    assert balanced({0: "ab", 1: "c"}, {"a": 3, "b": 2, "c": 5}) == {0: ("a", "b"), 1: ("c",)}
    assert balanced({0: "a"}, {"a": 3}) == {0: ("a",)}
    assert balanced({0: ""}, {}) == {0: ()}


@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 8), st.randoms())
def test_every_device_has_one_host_and_the_largest_is_near_the_best_possible(sizes: list[int], num_hosts: int, order: random.Random):
    windows = {f"d{number:02d}": size for number, size in enumerate(sizes)}
    shares = every_nth(list(windows), num_hosts)
    found = balanced(shares, windows)
    assert list(found) == list(shares)
    assert sorted(device for devices in found.values() for device in devices) == sorted(windows)
    assert largest(found, windows) <= largest(shares, windows)
    assert largest(found, windows) <= sum(sizes) / num_hosts + max(sizes, default=0), "Graham's bound for any list"
    shuffled = {host: order.sample(list(devices), len(devices)) for host, devices in shares.items()}
    assert balanced(shuffled, windows) == found, "the order in which a host's devices are listed changes nothing"


HAPT = (
    *(620, 537, 599, 522, 495, 757, 516, 495, 495, 577, 512, 509, 544, 528, 534),
    *(657, 635, 660, 574, 585, 627, 552, 592, 624, 647, 638, 578, 613, 568, 663),
)
"""Windows of the data set's 30 subjects, as its real archive gives them."""


@pytest.mark.parametrize(
    ("participation", "num_hosts", "before", "after"),
    [(1.0, 2, 1.022, 1.000), (1.0, 4, 1.126, 1.056), (1.0, 8, 1.146, 1.058), (0.5, 2, 1.138, 1.052), (0.5, 4, 1.405, 1.058)],
)
def test_what_it_gains_on_hapt(participation: float, num_hosts: int, before: float, after: float):
    """Windows of the largest host over the mean, over 50 cohorts: how much longer than needed a round takes, as docs/simulation.md says."""
    names = [f"{number:02d}" for number in range(len(HAPT))]
    of_all, found = dict(zip(names, HAPT, strict=True)), []
    for number in range(50):
        cohort = set(random.Random(number).sample(names, round(participation * len(names))))
        windows = {name: size for name, size in of_all.items() if name in cohort}
        shares = {host: [name for name in here if name in cohort] for host, here in every_nth(names, num_hosts).items()}
        mean = sum(windows.values()) / num_hosts
        found.append((largest(shares, windows) / mean, largest(balanced(shares, windows), windows) / mean))
    assert [sum(each) / len(found) for each in zip(*found, strict=True)] == pytest.approx([before, after], abs=0.001)


def test_a_cohort_drawn_from_many_is_where_it_gains_most():
    """100 of 10,000 equal devices on 20 hosts: a host has 5 in the mean, and the one that a round waits for more than twice as many."""
    shares = every_nth([f"device-{number:05d}" for number in range(10_000)], 20)
    before, after = [], []
    for server_round in range(1, 6):
        cohort = set(random.Random(server_round).sample([f"device-{number:05d}" for number in range(10_000)], 100))
        windows = dict.fromkeys(sorted(cohort), 62)
        here = {host: [device for device in devices if device in cohort] for host, devices in shares.items()}
        before.append(largest(here, windows) / (62 * 5))
        after.append(largest(balanced(here, windows), windows) / (62 * 5))
    assert min(before) >= 1.6
    assert after == pytest.approx([1.0] * 5)
