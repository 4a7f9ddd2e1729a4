"""Every row of the menu can be shown, filled in, trained and written down."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import allowed_values

from robustft.methods import METHODS, average_rule, find_method, method_params, part_options, resolve_options, train_config
from robustft.registry import discover
from robustft.run import make_objective
from robustft.train import TEACHER_NEEDS, TrainConfig
from robustft.types import UserError

NAMES = sorted(METHODS)
TRAINED = [name for name in NAMES if METHODS[name].trains != "none"]


MENU = """zero_shot linear_probe ft lp_ft l1_sp l2_sp ewc kd lwf ldifs fda proxy_fda lora flyp flyp_ce clipood wise_ft ema early_stopping"""


def test_menu_holds_every_method() -> None:
    assert set(NAMES) >= set(MENU.split())


@pytest.mark.parametrize("name", NAMES)
def test_row_tells_its_story(name: str) -> None:
    row = find_method(name)
    assert row.summary.endswith(".") and "\n" not in row.summary
    assert all((row.title, row.equation, row.protects, row.cost, row.source))
    assert row.trains == "none" or row.trains in discover("tuning")
    assert row.task_loss in discover("task_losses")
    assert row.regularizer is None or row.regularizer in discover("regularizers")
    assert row.average is None or row.average in discover("averages")
    assert len({other.title for other in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("name", sorted(discover("regularizers")))
def test_every_regularizer_is_a_row(name: str) -> None:
    row = find_method(name)
    assert row.regularizer == name and row.source == discover("regularizers")[name].source


@pytest.mark.parametrize("name", NAMES)
def test_row_can_be_filled_in_and_written(name: str) -> None:
    params, options = method_params(name), resolve_options(name, {})
    assert list(options) == [p.name for p in params]
    assert len(set(options)) == len(options), "two parameters share a name"
    assert all(p.help and p.source for p in params)
    assert json.loads(json.dumps(options, allow_nan=False)) == options
    assert set(find_method(name).defaults) <= set(options) | {"head_start"}


@pytest.mark.parametrize("name", TRAINED)
def test_row_gives_loop_and_parts_what_they_take(name: str) -> None:
    options, parts = resolve_options(name, {}), find_method(name).parts
    loop, own = train_config(options), {package: part_options(entry, options) for package, entry in parts.items()}
    assert isinstance(loop, TrainConfig) and {"tuning", "task_losses"} <= set(parts)
    assert all(set(own[package]) == {p.name for p in entry.params} for package, entry in parts.items())
    given_to_parts = {key: value for part in own.values() for key, value in part.items()}
    assert {key: value for key, value in vars(loop).items() if key in options} | given_to_parts == options


@pytest.mark.parametrize("name", TRAINED)
def test_row_makes_its_objective_and_its_average(name: str) -> None:
    row, options = find_method(name), resolve_options(name, {})
    objective, rule = make_objective(row, options), average_rule(row, options)
    assert objective.task_loss.name == row.task_loss and (objective.regularizer.name if objective.regularizer else None) == row.regularizer
    assert dict(objective.task_options) == part_options(row.parts["task_losses"], options) and objective.memory is None
    assert (rule is None) == (row.average is None)
    if rule is not None:
        assert all(0 <= rule(step, 30) <= 1 for step in range(1, 31)) and rule(30, 30) > 0


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].trains == "none"])
def test_row_that_trains_nothing_has_nothing_to_set(name: str) -> None:
    row = find_method(name)
    assert row.parts == {} and method_params(name) == () and resolve_options(name, {}) == {}
    assert part_options(None, {}) == {} and average_rule(row, {}) is None


def test_rows_differ_where_they_say() -> None:
    options = {name: resolve_options(name, {}) for name in NAMES}
    assert (options["lp_ft"]["head_start"], options["ft"]["head_start"]) == ("linear_probe", "zero_shot")
    assert {name for name in TRAINED if options[name]["sampler"] == "hard_classes"} == {"fda", "proxy_fda"}
    assert {name for name in TRAINED if options[name].get("patience", 0) > 0} == {"early_stopping"}
    assert {name for name in TRAINED if METHODS[name].average} == {"wise_ft", "ema", "clipood"}
    assert {name for name in TRAINED if METHODS[name].has_text_head} == {"flyp", "flyp_ce"}
    assert options["lora"]["weight_decay"] == 0.0 and {"rank", "lora_alpha"} <= set(options["lora"])


def test_published_values_are_the_defaults() -> None:
    options = {name: resolve_options(name, {}) for name in ("wise_ft", "clipood", "lwf", "kd", "proxy_fda", "flyp")}
    assert options["wise_ft"]["alpha"] == 0.5 and (options["clipood"]["margin"], options["clipood"]["beta"]) == (0.3, 0.5)
    assert (options["lwf"]["temperature"], options["lwf"]["reg_weight"]) == (2.0, 1.0)
    assert options["proxy_fda"]["proxy_share"] == 0.4 and options["flyp"]["soft_labels"] is False


def test_head_that_is_not_trained_from_a_start_offers_none() -> None:
    assert {name for name in TRAINED if "head_start" not in resolve_options(name, {})} == {"flyp", "flyp_ce", "clipood"}
    assert METHODS["clipood"].trains == "frozen_head"
    with pytest.raises(UserError, match="has no option 'head_start'"):
        resolve_options("flyp", {"head_start": "linear_probe"})


def test_teacher_is_cached_only_where_one_is_asked() -> None:
    offered = {name for name in TRAINED if "teacher_cache" in resolve_options(name, {})}
    needs = {name: METHODS[name].regularizer and discover("regularizers")[name].declares("NEEDS", frozenset()) & TEACHER_NEEDS for name in TRAINED}
    assert offered == {name for name in TRAINED if needs[name]} == {"fda", "proxy_fda", "ldifs", "kd", "lwf"}
    assert all(resolve_options(name, {})["teacher_cache"] == "none" for name in offered)


def test_what_is_not_published_says_so() -> None:
    assert "Our reconstruction" in find_method("proxy_fda").source
    assert all("ours" in p.help.lower() for p in method_params("proxy_fda") if p.name in ("n_neighbors", "temperature", "diversity_weight", "proxy_start"))


@pytest.mark.parametrize("name", TRAINED)
@settings(max_examples=40)
@given(data=st.data())
def test_given_options_win_and_the_rest_stays(name: str, data: st.DataObject) -> None:
    param = data.draw(st.sampled_from(method_params(name)))
    value = data.draw(allowed_values(param))
    resolved = resolve_options(name, {param.name: value})
    assert resolved[param.name] == value
    assert {key: v for key, v in resolved.items() if key != param.name} == {k: v for k, v in resolve_options(name, {}).items() if k != param.name}
    written = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
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
