"""OTDD values beside each other: what of their settings a reader has to know."""

import pytest

from robustft.otdd_settings import held_out_settings, unlike_settings

ALIKE = {"solver": "exact", "n_0": 384, "n_components": 64, "shrinkage": 0.1, "epsilon": 0.0}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({}, ""),
        ({"n_0": 700}, ""),
        ({"solver": "sinkhorn", "epsilon": 0.1}, "1 exact and 1 by Sinkhorn"),
        ({"n_0": 5000}, "from 384 to 5,000 images"),
        ({"n_components": 32}, "dimensions 32, 64"),
        ({"shrinkage": 0.5, "n_0": 10}, "from 10 to 384 images; shrinkage 0.1, 0.5"),
    ],
)
def test_only_what_differs_is_said(other: dict, says: str) -> None:
    sentence = unlike_settings([ALIKE, {**ALIKE, **other}])
    assert says in sentence and bool(sentence) == bool(says)


def test_what_older_runs_did_not_store_is_no_difference() -> None:
    assert unlike_settings([]) == unlike_settings([{}, ALIKE]) == ""


def test_downstream_task_and_damage_are_passed_over() -> None:
    details = {"otdd": {"food color": ALIKE, "digits mnist": {**ALIKE, "n_0": 500}, "torn": 3}, "l2": {}}
    assert held_out_settings(details, "food") == [{**ALIKE, "n_0": 500}]
    assert held_out_settings({"otdd": None}, "food") == held_out_settings({}, "food") == []
