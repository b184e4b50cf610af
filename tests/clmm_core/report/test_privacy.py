from dataclasses import replace

import pytest

from clmm_core.report.lines import describe_round
from clmm_core.report.page import render
from clmm_core.report.privacy import NOT_COVERED, Privacy, not_covered, privacy_in_words, privacy_of
from clmm_core.report.run_json import summary_of


@pytest.fixture
def private(make_run):
    """Make a run whose rounds cost a tenth of epsilon each."""
    run = make_run()
    rounds = [replace(each, epsilon=each.server_round / 10, clip=0.5) if each.server_round else each for each in run.rounds]
    keys = {"privacy.delta": 1e-5, "privacy.budget": 8, "privacy.noise-multiplier": 1.5}
    return replace(run, rounds=tuple(rounds), info=replace(run.info, run_config={**run.info.run_config, **keys}))


def test_the_run_cost_what_its_last_round_says(private):
    last = max(record.server_round for record in private.rounds if record.server_round)
    found = privacy_of(private)
    assert found == Privacy(epsilon=last / 10, delta=1e-5, budget=8, noise_multiplier=1.5, clip=0.5)
    expected = f"epsilon {last / 10:.3g} of 8 at delta 1e-05, for one device's whole contribution"
    assert privacy_in_words(found) == f"{expected} (noise multiplier 1.5, clip 0.5 in the last round)"
    assert summary_of(private).privacy == found


def test_the_page_says_what_it_covers_and_what_not(private, make_run):
    page = render(private)
    assert "Differential privacy" in page
    assert NOT_COVERED in page
    for word in ("profiles", "normalised", "quality", "evaluation counts", "embedding picture"):
        assert word in NOT_COVERED
    assert "knows the run's seed" in not_covered(private)
    keys = {**private.info.run_config, "privacy.secret-file": "~/noise.key"}
    assert "has the server's secret file" in not_covered(replace(private, info=replace(private.info, run_config=keys)))
    assert "Differential privacy" not in render(make_run())


def test_a_run_without_noise_says_nothing(make_run):
    assert privacy_of(make_run()) is None
    assert summary_of(make_run()).privacy is None


def test_a_round_says_what_was_spent(private):
    record = next(each for each in private.rounds if each.server_round == 3)
    assert "  epsilon 0.3  clip 0.5  " in describe_round(record, 35)
    assert "epsilon" not in describe_round(replace(record, epsilon=None, clip=None), 35)
