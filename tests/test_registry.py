"""What can be chosen explains itself, and what a person types is either the right value or a sentence that says what is."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest

from robustft.registry import PACKAGES, Entry, Param, discover, find, parse_value, read_params
from robustft.train import TrainConfig
from robustft.types import Range, UserError

ENTRIES = [(package, name) for package in PACKAGES for name in discover(package)]


def entry_of(package: str, name: str) -> Entry:
    return discover(package)[name]


def test_registries_are_those_of_the_house() -> None:
    assert set(discover("regularizers")) >= {"fda", "l2_sp", "ldifs"}
    assert set(discover("datasets")) >= {"animals", "food", "travel", "activities", "objects", "symbols", "faces", "people", "digits", "scripts"}
    assert set(discover("tuning")) >= {"full", "frozen_head", "lora"} and set(discover("averages")) >= {"beta", "ema", "wise"}
    assert set(discover("task_losses")) >= {"contrastive", "cross_entropy", "margin_softmax"}
    assert "glyphclip" in discover("backbones") and "accuracy" in discover("metrics") and "l2" in discover("drift")


@pytest.mark.parametrize(("package", "name"), ENTRIES)
def test_entry_explains_itself(package: str, name: str) -> None:
    entry = entry_of(package, name)
    assert entry.name == name and entry.function.__name__ == name
    assert entry.summary.endswith((".", "?")) and len(entry.summary) < 200
    assert entry.source, f"{name} needs a Source section"
    assert not name.startswith("_")


def params_of_everything() -> Mapping[str, Param]:
    every = {f"{name}.{p.name}": p for package, name in ENTRIES for p in entry_of(package, name).params}
    return every | {f"loop.{p.name}": p for p in read_params(TrainConfig)}


@pytest.mark.parametrize("where", sorted(params_of_everything()))
def test_parameter_can_be_drawn_and_checked(where: str) -> None:
    param = params_of_everything()[where]
    assert param.help and not param.help.startswith(param.name), f"{where} needs a line under Args"
    if param.kind in (int, float) and where.split(".")[1] != "seed":
        assert param.low is not None and param.high is not None and param.low < param.high, f"{where} needs a Range"
    assert param.kind in (int, float, bool, str)
    assert parse_value(param, param.default) == param.default, f"the default of {where} lies outside its own range"
    assert param.allowed


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"regularizers has no 'ldfis'; choose one of .*ldifs.* or add robustft/regularizers/ldfis\.py"):
        find("regularizers", "ldfis")
    with pytest.raises(UserError, match="no registry 'losses'; choose one of .*regularizers"):
        discover("losses")


@pytest.mark.parametrize("name", ["", "../secret", "a\nb", "\x1b[31mred", "x" * 5000])
def test_refusal_is_one_short_plain_line(name: str) -> None:
    with pytest.raises(UserError) as caught:
        find("datasets", name)
    words = str(caught.value)
    assert words.isprintable() and len(words) < 1000


# --- parse_value ------------------------------------------------------------------------------------------------------

WHOLE = Param("steps", int, 100, 1, 1000)
NUMBER = Param("lr", float, 0.1, 0.0, 1.0)
MAYBE = Param("bias", float, None, -10.0, 10.0, is_optional=True)
FLAG = Param("mined", bool, False)
WORD = Param("sampler", str, "uniform", choices=("uniform", "class_balanced"))
TEXT = Param("domain", str, "color")

GOOD: list[tuple[Param, Any, Any]] = [
    (WHOLE, 1, 1),
    (WHOLE, "1000", 1000),
    (WHOLE, " 7 ", 7),
    (WHOLE, 250.0, 250),
    (WHOLE, "٣", 3),  # a digit of another script is a digit; what is stored is the plain number
    (NUMBER, 0, 0.0),
    (NUMBER, 1, 1.0),
    (NUMBER, "1e-3", 0.001),
    (NUMBER, "1", 1.0),
    (MAYBE, None, None),
    (MAYBE, "none", None),
    (MAYBE, "-10", -10.0),
    (FLAG, True, True),
    (FLAG, "true", True),
    (FLAG, "false", False),
    (WORD, "class_balanced", "class_balanced"),
    (TEXT, "line", "line"),
]
BAD: list[tuple[Param, Any]] = [
    *((WHOLE, value) for value in (0, 1001, -1, 1.5, "1.5", "1e2", "", " ", "many", "nan", "inf", float("nan"), float("inf"))),
    *((WHOLE, value) for value in (None, "none", True, False, [3], {"a": 1}, (1,), 10**400, "9" * 5000, "0x10", "½", "²")),
    *((NUMBER, value) for value in (-0.001, 1.001, "nan", "-nan", "inf", "1e400", float("nan"), float("inf"), 10**400, "", "0,5", "1/2")),
    *((NUMBER, value) for value in (None, True, False, [0.5], {}, 1j)),
    *((MAYBE, value) for value in ("", "None ", "null", 10.5, "nan", True, "1e400")),
    *((FLAG, value) for value in (0, 1, "", "True", "yes", "1", None, 0.0, [])),
    *((WORD, value) for value in ("", "Uniform", "uniform ", "random", None, 1, True, ["uniform"])),
    *((TEXT, value) for value in (None, 1, 1.0, True, ["line"])),
]


@pytest.mark.parametrize(("param", "value", "expected"), GOOD, ids=repr)
def test_good_value_is_turned_into_its_type(param: Param, value: Any, expected: Any) -> None:
    parsed = parse_value(param, value)
    assert parsed == expected and type(parsed) is type(expected)


@pytest.mark.parametrize(("param", "value"), BAD, ids=lambda value: repr(value)[:40])
def test_bad_value_is_refused_by_name(param: Param, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{param.name} = .* is not allowed; give ") as caught:
        parse_value(param, value)
    assert str(caught.value).endswith(f"{param.allowed}.") and len(str(caught.value)) < 500


def test_signature_is_read() -> None:
    def sample(batch: Any, *, strength: Annotated[float | None, Range(0, 2)] = None, how: Literal["a", "b"] = "a", n: int = 3, on: bool = True) -> None:
        """Does nothing.

        Args:
            batch: Ignored.
            strength: How strong it is,
                and more of it.
            how: Which way.
        """

    strength, how, n, on = read_params(sample)
    assert strength == Param("strength", float, None, 0, 2, (), "How strong it is, and more of it.", True)
    assert how == Param("how", str, "a", choices=("a", "b"), help="Which way.")
    assert (n.kind, n.default, n.low) == (int, 3, None) and (on.kind, on.allowed) == (bool, "true or false")
