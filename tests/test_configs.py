"""Configs: what was asked is refused in one sentence or survives file and command line unchanged."""

import inspect
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import run_requests

import robustft.run
from robustft.__main__ import main
from robustft.configs import CONFIG_BYTES, command_line, config_json, config_of, make_config, read_config
from robustft.registry import discover
from robustft.store import run_id_of
from robustft.types import RunConfig, RunRecord, UserError
from robustft.ui import words_of

GOOD: dict[str, Any] = {"model": "glyphclip", "dataset": "food", "method": "ft"}

unhooked = inspect.unwrap(make_config)  # the shape hook of the tests would answer first to what is no text

BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": "clip"}, "'clip'; choose one of glyphclip"),
    ({"dataset": "cars"}, "'cars'; choose one of .*food"),
    ({"method": "ldfis"}, "'ldfis'; choose one of .*ldifs"),
    ({"device": "tpu"}, "'tpu' is unknown; give auto, cpu, cuda"),
    ({"device": "cuda:x"}, "'cuda:x' is unknown"),
    ({"device": "cpu:0"}, "'cpu:0' is unknown"),
    ({"model": 3}, "model = 3"),
    ({"dataset": None}, "dataset = None"),
    ({"method": ["ft"]}, r"method = \['ft'\]"),
    ({"seed": -1}, "seed = -1 .* from 0 to"),
    ({"seed": 2**31}, "seed = 2147483648"),
    ({"seed": "1.5"}, "seed = '1.5'"),
    ({"seed": None}, "seed = None"),
    ({"seed": True}, "seed = True"),
    ({"options": {"lrr": 1}}, "has no option 'lrr'; choose among .*lr"),
    ({"options": {"lr": "fast"}}, "lr = 'fast' .* from 1e-08 to 1"),
    ({"options": {"steps": float("nan")}}, "steps = nan"),
    ({"curve": "maybe"}, "curve = 'maybe' is not allowed; give true or false"),
    ({"curve": 1}, "curve = 1"),
    ({"curve": None}, "curve = None"),
    ({"held_out": ["cars"]}, "'cars'; choose one of"),
    ({"held_out": ["digits", "food"]}, "'food' is the downstream task itself"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_bad_request_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        unhooked(**GOOD | change)


@pytest.mark.parametrize(("change", "words"), BAD)
def test_bad_request_keeps_its_words_on_a_page(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        unhooked(**GOOD | change)
    assert words_of(caught.value) == str(caught.value)


def test_defaults_are_filled_in() -> None:
    config = make_config(**GOOD)
    assert config.held_out == tuple(name for name in discover("datasets") if name != "food") and len(config.held_out) == 9
    assert config.options["steps"] == 120 and (config.seed, config.device) == (0, "auto")
    assert make_config(**GOOD, held_out=[]).held_out == ()
    assert make_config(**GOOD, held_out=["digits", "digits"]).held_out == ("digits",)
    assert make_config(**GOOD, seed="7").seed == 7
    assert config.curve is True and unhooked(**GOOD, curve="false").curve is False


# --- files ------------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request_=run_requests())
def test_file_is_read_as_it_was_written(request_: dict[str, Any], tmp_path: Path) -> None:
    config = make_config(**request_)
    (tmp_path / "run.json").write_text(config_json(config))
    assert read_config(tmp_path / "run.json") == config
    assert config_of(json.loads(config_json(config))) == config


def test_config_of_before_there_was_a_curve_has_one() -> None:
    old = {key: value for key, value in json.loads(config_json(make_config(**GOOD, curve=False))).items() if key != "curve"}
    assert config_of(old).curve is True


def test_curve_is_part_of_a_run() -> None:
    assert run_id_of(make_config(**GOOD)) != run_id_of(make_config(**GOOD, curve=False))


FOREIGN: list[tuple[bytes, str]] = [
    (b"", "not a run's config"),
    (b"{", "not a run's config"),
    (b"null", "not a run's config"),
    (b"[1, 2]", "not a run's config"),
    (b"\xff\xfe\x00", "not a run's config"),
    (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a run's config"),
    (b"[" * 90_000, "not a run's config"),
    (b'{"a":' * 15_000, "not a run's config"),
    (b" " * (CONFIG_BYTES + 1) + b"{}", "not a run's config"),
    (b"{}", "lacks 'model'"),
    (b'{"model": "glyphclip", "dataset": "food"}', "lacks 'method'"),
    (b'{"name": "demo", "version": "1.0"}', "unknown key 'name'; known ones are curve, dataset, device, held_out"),
    (b'{"model": "glyphclip", "dataset": "food", "method": "ft", "options": []}', r"options = \[\]"),
    (b'{"model": "glyphclip", "dataset": "food", "method": "ft", "options": {"lr": NaN}}', "lr = nan"),
    (b'{"model": "glyphclip", "dataset": "food", "method": "ft", "options": {"lr": 1e999}}', "lr = inf"),
    (b'{"model": "glyphclip", "dataset": "food", "method": "ft", "held_out": "digits"}', "held_out = 'digits'"),
    (b'{"model": "glyphclip", "dataset": "food", "method": "ft", "held_out": [1]}', r"held_out = \[1\]"),
    (b'{"model": "glyphclip", "dataset": "food", "method": "ft", "seed": 1.5}', "seed = 1.5"),
    (b'{"model": "glyphclip", "dataset": "food", "method": "ft", "curve": "no"}', "curve = 'no'"),
    (b'{"model": "glyphclip", "dataset": "food", "method": "ft", "curve": 0}', "curve = 0"),
]


@pytest.mark.parametrize(("content", "words"), FOREIGN, ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else None)
def test_foreign_file_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_config(tmp_path / "run.json")
    assert len(str(caught.value)) < 500 and str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.json", "folder", "absent/run.json", "x" * 300 + ".json", "nul\0.json"])
def test_unreadable_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="give a (JSON )?file that Launch or a run wrote"):
        read_config(tmp_path / name)


# --- command lines ----------------------------------------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch, cache_dir: Path) -> Callable[[str], RunConfig]:
    """Gives a command line to the real parser and returns the config that would be run."""
    asked: list[RunConfig] = []

    def remember(config: RunConfig, **_: Any) -> RunRecord:
        asked.append(config)
        return RunRecord("x", config, True)

    monkeypatch.setattr(robustft.run, "run", remember)

    def parse(line: str) -> RunConfig:
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "robustft"] and main(words[3:]) == 0
        return asked.pop()

    return parse


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request_=run_requests())
def test_command_line_asks_for_the_same_run(request_: dict[str, Any], parsed: Callable[[str], RunConfig]) -> None:
    config = make_config(**request_)
    assert parsed(command_line(config)) == config


def test_command_line_leaves_defaults_out() -> None:
    line = command_line(make_config(**GOOD, options={"steps": 10, "lr": 1e-3}))
    assert line == "python -m robustft train --model glyphclip --dataset food --method ft --set steps=10 --seed 0 --device auto"


def test_command_line_says_that_no_curve_is_wanted(parsed: Callable[[str], RunConfig]) -> None:
    wanted, unwanted = (make_config(**GOOD, curve=curve) for curve in (True, False))
    assert command_line(unwanted) == f"{command_line(wanted)} --no-curve"
    assert parsed(command_line(unwanted)).curve is False and parsed(command_line(wanted)).curve is True
