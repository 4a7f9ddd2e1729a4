"""Sweeps: what is typed, and the runs it makes."""

import pytest

from robustft import configs, store, sweep
from robustft.methods import METHODS
from robustft.sweep import Sweep
from robustft.types import UserError


@pytest.mark.parametrize(("text", "seeds"), [("0-2", (0, 1, 2)), ("0, 1, 5", (0, 1, 5)), ("3 - 4;4 9", (3, 4, 9)), (" 7 ", (7,))])
def test_seeds_are_read_as_typed(text: str, seeds: tuple[int, ...]) -> None:
    assert sweep.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", ",", "a", "-1", "2-0", "0-100", "0-9999999999", "1.5", "1--2", "٣", "0," * 101 + "1"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"seeds? .*; (give|a range)|seed = "):
        sweep.parse_seeds(text)


def test_strengths_are_checked_by_their_setting() -> None:
    assert sweep.parse_strengths("0.1,1 10", "l2_sp") == (0.1, 1.0, 10.0)
    with pytest.raises(UserError, match="alpha = '2' is not allowed"):
        sweep.parse_strengths("0.5, 2", "wise_ft")
    with pytest.raises(UserError, match="has no strength"):
        sweep.parse_strengths("1", "ft")


def test_every_strength_names_a_setting_of_its_method() -> None:
    for name in METHODS:
        setting = sweep.strength_setting(name)
        if setting:
            runs = sweep.plan(Sweep("glyphclip", "food", [name], strengths={name: sweep.usual_strengths(name)}))
            assert len({run.options[setting] for run in runs}) == max(1, len(sweep.usual_strengths(name)))


def test_a_run_of_a_sweep_is_the_run_that_the_form_would_make() -> None:
    (run,) = sweep.plan(Sweep("glyphclip", "food", ["fda"], seeds=[3], shared={"steps": 20, "reg_weight": 2.0}, held_out=["digits"], curve=False))
    assert run == configs.make_config("glyphclip", "food", "fda", seed=3, options={"steps": 20, "reg_weight": 2.0}, held_out=["digits"], curve=False)


def test_shared_settings_go_only_to_methods_that_have_them_and_runs_come_once() -> None:
    runs = sweep.plan(Sweep("glyphclip", "food", ["zero_shot", "ft", "l2_sp"], [0, 1], {"ft": [1.0], "l2_sp": [0.5, 0.5]}, {"steps": 9}))
    assert [(run.method, run.seed) for run in runs] == [("zero_shot", 0), ("ft", 0), ("l2_sp", 0), ("ft", 1), ("l2_sp", 1)]
    assert all(run.options.get("steps", 9) == 9 for run in runs) and len({store.run_id_of(run) for run in runs}) == 5


def test_a_sweep_has_from_one_to_a_hundred_runs() -> None:
    assert len(sweep.plan(Sweep("glyphclip", "food", ["ft"], range(100)))) == 100
    with pytest.raises(UserError, match=r"has 101 runs; at most 100"):
        sweep.plan(Sweep("glyphclip", "food", ["ft"], range(101)))
    with pytest.raises(UserError, match="has no runs"):
        sweep.plan(Sweep("glyphclip", "food", []))
    with pytest.raises(UserError, match="steps = 'many' is not allowed"):
        sweep.plan(Sweep("glyphclip", "food", ["ft"], shared={"steps": "many"}))
    with pytest.raises(UserError, match="no method"):
        sweep.plan(Sweep("glyphclip", "food", ["nonsense"]))
