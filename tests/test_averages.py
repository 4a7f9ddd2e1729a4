"""Averages of weights: shares are shares, and what the loop adds up online is the weighted sum that the papers write."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution
from strategies import allowed_values

from robustft.averages.beta import beta
from robustft.averages.ema import ema
from robustft.averages.wise import wise
from robustft.registry import discover

ENTRIES = discover("averages")
ALL = sorted(ENTRIES)
RUNS = st.lists(st.floats(-10.0, 10.0), min_size=2, max_size=60).map(np.array)  # theta_0, theta_1, ..., theta_N


def averaged(name: str, thetas: np.ndarray, **options: float) -> float:
    """The average after the last update: it begins with the start, and each update moves it by the share of the newest."""
    average, steps = thetas[0], len(thetas) - 1
    for step in range(1, steps + 1):
        share = ENTRIES[name].function(step, steps, **options)
        average = (1 - share) * average + share * thetas[step]
    return average


@pytest.mark.parametrize("name", ALL)
def test_explains_itself(name: str) -> None:
    assert ENTRIES[name].source and ENTRIES[name].summary and all(p.help for p in ENTRIES[name].params)


@pytest.mark.parametrize("name", ALL)
@given(steps=st.integers(1, 10_000), data=st.data())
def test_shares_are_shares_at_every_step(name: str, steps: int, data: st.DataObject) -> None:
    options = {p.name: data.draw(allowed_values(p)) for p in ENTRIES[name].params}
    for step in {1, steps, data.draw(st.integers(1, steps))}:
        share = ENTRIES[name].function(step, steps, **options)
        assert isinstance(share, float | int) and 0 <= share <= 1


@pytest.mark.parametrize("name", ALL)
@given(thetas=RUNS, data=st.data())
def test_average_lies_among_the_weights_of_the_run(name: str, thetas: np.ndarray, data: st.DataObject) -> None:
    options = {p.name: data.draw(allowed_values(p)) for p in ENTRIES[name].params}
    assert thetas.min() - 1e-9 <= averaged(name, thetas, **options) <= thetas.max() + 1e-9


@pytest.mark.parametrize("name", ALL)
@given(theta=st.floats(-10.0, 10.0), steps=st.integers(1, 60))
def test_average_of_weights_that_rest_is_those_weights(name: str, theta: float, steps: int) -> None:
    assert averaged(name, np.full(steps + 1, theta)) == pytest.approx(theta)


# --- EMA --------------------------------------------------------------------------------------------------------------


@given(thetas=RUNS, decay=st.floats(0.0, 1.0))
def test_ema_equals_its_closed_form(thetas: np.ndarray, decay: float) -> None:
    steps = len(thetas) - 1
    shares = [decay**steps] + [(1 - decay) * decay ** (steps - i) for i in range(1, steps + 1)]
    assert sum(shares) == pytest.approx(1)
    assert averaged("ema", thetas, ema_decay=decay) == pytest.approx(float(np.dot(shares, thetas)), abs=1e-9)


@given(thetas=RUNS)
def test_ema_at_its_ends(thetas: np.ndarray) -> None:
    assert averaged("ema", thetas, ema_decay=0.0) == thetas[-1]
    assert averaged("ema", thetas, ema_decay=1.0) == thetas[0]


def test_ema_by_hand() -> None:
    # From 0 by half to 4, 2, and by half to 8: 5.
    assert averaged("ema", np.array([0.0, 4.0, 8.0]), ema_decay=0.5) == 5.0 and ema(1, 2, ema_decay=0.75) == 0.25


# --- WiSE-FT ----------------------------------------------------------------------------------------------------------


@given(thetas=RUNS, alpha=st.floats(0.0, 1.0))
def test_wise_is_between_start_and_end_whatever_came_between(thetas: np.ndarray, alpha: float) -> None:
    assert averaged("wise", thetas, alpha=alpha) == (1 - alpha) * thetas[0] + alpha * thetas[-1]


@given(thetas=RUNS)
def test_wise_at_its_ends(thetas: np.ndarray) -> None:
    assert averaged("wise", thetas, alpha=0.0) == thetas[0] and averaged("wise", thetas, alpha=1.0) == thetas[-1]


def test_wise_counts_the_last_update_alone() -> None:
    assert [wise(step, 3, alpha=0.25) for step in (1, 2, 3)] == [0.0, 0.0, 0.25]


# --- Beta -------------------------------------------------------------------------------------------------------------


@given(thetas=RUNS, shape=st.floats(0.01, 10.0))
def test_beta_online_equals_the_offline_weighted_sum(thetas: np.ndarray, shape: float) -> None:
    steps = len(thetas) - 1
    weights = np.array([beta_distribution.pdf((i + 0.5) / (steps + 1), shape, shape) for i in range(steps + 1)])
    assert averaged("beta", thetas, beta=shape) == pytest.approx(float((weights * thetas).sum() / weights.sum()), abs=1e-9)


@given(thetas=RUNS)
def test_beta_of_one_is_the_plain_mean_with_the_start(thetas: np.ndarray) -> None:
    assert averaged("beta", thetas, beta=1.0) == pytest.approx(thetas.mean(), abs=1e-9)


@given(steps=st.integers(4, 60), place=st.integers(0, 60))
def test_beta_counts_start_and_end_alike_and_most_below_one(steps: int, place: int) -> None:
    counted = {i: averaged("beta", np.eye(steps + 1)[i], beta=0.5) for i in (0, steps // 2, steps, min(place, steps))}
    assert counted[0] == pytest.approx(counted[steps])
    assert counted[steps // 2] < counted[0] >= counted[min(place, steps)] - 1e-12


def test_beta_by_hand() -> None:
    # Over two updates the middles are 1/6, 1/2, 5/6. Of Beta(2, 2), 6 t (1 - t), that is 5/6, 3/2, 5/6.
    assert beta(1, 2, beta=2.0) == pytest.approx((3 / 2) / (5 / 6 + 3 / 2))
    assert beta(2, 2, beta=2.0) == pytest.approx((5 / 6) / (5 / 6 + 3 / 2 + 5 / 6))
