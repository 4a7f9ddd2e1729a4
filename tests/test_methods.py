"""Every row of the menu can be shown, filled in, trained and written down."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import allowed_values

from robustft.methods import METHODS, find_method, method_params, regularizer_of, regularizer_options, resolve_options, train_config
from robustft.registry import discover
from robustft.train import TrainConfig
from robustft.types import UserError

NAMES = sorted(METHODS)
TRAINED = [name for name in NAMES if METHODS[name].trains == "tower"]


def test_menu_holds_the_first_methods() -> None:
    assert set(NAMES) >= {"zero_shot", "linear_probe", "ft", "lp_ft", "l2_sp", "ldifs", "fda"}


@pytest.mark.parametrize("name", NAMES)
def test_row_tells_its_story(name: str) -> None:
    row = find_method(name)
    assert row.summary.endswith(".") and "\n" not in row.summary
    assert all((row.title, row.equation, row.protects, row.cost, row.source))
    assert row.trains in ("none", "tower")
    assert row.regularizer is None or row.regularizer in discover("regularizers")


@pytest.mark.parametrize("name", NAMES)
def test_row_can_be_filled_in_and_written(name: str) -> None:
    params, options = method_params(name), resolve_options(name, {})
    assert list(options) == [p.name for p in params]
    assert len(set(options)) == len(options), "two parameters share a name"
    assert all(p.help and p.source for p in params)
    assert json.loads(json.dumps(options, allow_nan=False)) == options
    assert set(find_method(name).defaults) <= set(options) | {"head_start"}


@pytest.mark.parametrize("name", TRAINED)
def test_row_gives_loop_and_regularizer_what_they_take(name: str) -> None:
    options = resolve_options(name, {})
    loop, own = train_config(options), regularizer_options(name, options)
    assert isinstance(loop, TrainConfig)
    entry = regularizer_of(find_method(name))
    assert set(own) == ({p.name for p in entry.params} if entry else set())
    assert {**vars(loop), **own} == options


def test_rows_differ_where_they_say() -> None:
    assert resolve_options("lp_ft", {})["head_start"] == "linear_probe"
    assert resolve_options("ft", {})["head_start"] == "zero_shot"
    assert resolve_options("fda", {})["sampler"] == "class_balanced"
    assert method_params("zero_shot") == method_params("linear_probe") == ()


@pytest.mark.parametrize("name", TRAINED)
@given(data=st.data())
def test_given_options_win_and_the_rest_stays(name: str, data: st.DataObject) -> None:
    param = data.draw(st.sampled_from(method_params(name)))
    value = data.draw(allowed_values(param))
    resolved = resolve_options(name, {param.name: value})
    assert resolved[param.name] == value
    assert {key: v for key, v in resolved.items() if key != param.name} == {k: v for k, v in resolve_options(name, {}).items() if k != param.name}
    written = "none" if value is None else str(value)
    assert resolve_options(name, {param.name: written}) == resolved


@pytest.mark.parametrize(("name", "option"), [("ft", "reg_weight"), ("l2_sp", "temperature"), ("ft", ""), ("ft", "Steps"), ("zero_shot", "lr")])
def test_unknown_option_is_refused_with_the_known_ones(name: str, option: str) -> None:
    with pytest.raises(UserError, match=f"method '{name}' has no option '{option}'; ") as caught:
        resolve_options(name, {"batch_size": 8, option: 1} if name != "zero_shot" else {option: 1})
    assert all(p.name in str(caught.value) for p in method_params(name))


@pytest.mark.parametrize("name", ["", "FT", "ldfis", "../ft", "ft "])
def test_unknown_method_is_refused_with_the_known_ones(name: str) -> None:
    for ask in (find_method, method_params, lambda n: resolve_options(n, {})):
        with pytest.raises(UserError) as caught:
            ask(name)
        assert repr(name) in str(caught.value) and all(known in str(caught.value) for known in METHODS)


@pytest.mark.parametrize(
    ("option", "value"), [("steps", "0"), ("batch_size", 1), ("warmup", 0.95), ("head_start", "random"), ("sampler", None), ("clip_norm", 0)]
)
def test_bad_value_is_refused(option: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{option} = "):
        resolve_options("ft", {option: value})
