"""The command line: what it prints for programs, and one sentence with exit code 2 for whatever is wrong."""

import io
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

import robustft.run
from robustft.__main__ import main
from robustft.configs import make_config
from robustft.methods import METHODS, method_params
from robustft.registry import discover
from robustft.store import read_run
from robustft.types import RunRecord

PROJECT = Path(__file__).parents[1]
TRAIN = ["train", "--dataset", "food", "--method", "ft"]
CONFIG = {"model": "glyphclip", "dataset": "food", "method": "ft"}


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the one sentence that a command is refused with."""
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert "Traceback" not in err and len(err) < 1000
    return err.removeprefix("error: ").rstrip("\n")


def test_methods_are_listed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(METHODS)
    for name, row in rows.items():
        assert row["summary"] and row["source"] and row["equation"]
        shown = {p["name"]: (p["kind"], p["default"], p["low"], p["high"], tuple(p["choices"])) for p in row["parameters"]}
        assert shown == {p.name: (p.kind.__name__, p.default, p.low, p.high, p.choices) for p in method_params(name)}
        assert all(p["help"] and p["source"] and p["allowed"] for p in row["parameters"])


@pytest.mark.parametrize(("what", "package"), [("models", "backbones"), ("datasets", "datasets"), ("metrics", "metrics")])
def test_entries_are_listed(what: str, package: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(discover(package))
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(discover(package)) and all(len(line.split()) > 2 for line in lines)


def test_finished_run_is_listed_and_named_on_the_last_line(finished_run: RunRecord, world_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "runs", "--json", "--runs-dir", str(world_cache)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["summary"]) == (finished_run.run_id, "finished") and 0 <= row["scores"]["id_accuracy"] <= 1
    assert main(["train", "--config", str(world_cache / "runs" / finished_run.run_id / "config.json"), "--runs-dir", str(world_cache)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == finished_run.run_id


# --- what a finished run measured -------------------------------------------------------------------------------------


def printed(arguments: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*arguments, "--runs-dir", str(root)]) == 0
    return capsys.readouterr().out


def table_row(text: str, *place: str) -> list[str]:
    """Returns the cells of the row of one task and domain."""
    return next(line.split() for line in text.splitlines() if line.split()[:2] == list(place))


def score(record: RunRecord, dataset: str, domain: str, metric: str) -> float:
    (found,) = [s.value for s in record.scores if (s.dataset, s.domain, s.metric) == (dataset, domain, metric)]
    return found


def test_evaluate_prints_summary_and_every_task(finished_run: RunRecord, world_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["evaluate", finished_run.run_id], world_cache, capsys)
    summary = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
    assert float(summary["id_accuracy"]) == pytest.approx(score(finished_run, "food", "color", "id_accuracy"), abs=1e-4)
    assert {"mean_delta_zs", "id_ece", "id_nll", "mean_drift_otdd"} <= summary.keys()
    row = table_row(text, "digits", "mnist")
    assert float(row[4]) == pytest.approx(100 * score(finished_run, "digits", "mnist", "delta_zs"), abs=0.05)


def test_otdd_prints_values_and_their_settings(finished_run: RunRecord, world_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["otdd", finished_run.run_id], world_cache, capsys)
    for place in (("food", "color"), ("digits", "optical")):
        assert float(table_row(text, *place)[2]) == pytest.approx(score(finished_run, *place, "drift_otdd"), abs=1e-4)
    assert "halved and un-rooted" in text and "solver exact" in text and "PCA 64" in text
    assert sum(line.startswith("weights ") for line in text.splitlines()) > 5


def test_neighbors_prints_kept_beside_noise(finished_run: RunRecord, world_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["neighbors", finished_run.run_id, "--no-maps"], world_cache, capsys)
    kept, low, high, floor = (float(cell) for cell in table_row(text, "food", "color")[2:6])
    assert kept == pytest.approx(1 - score(finished_run, "food", "color", "drift_neighbors_lost"), abs=1e-3)
    assert floor == pytest.approx(score(finished_run, "food", "color", "overlap_floor"), abs=1e-3)
    assert low < kept < high < 1 and 0 < floor < 1
    assert "maps of food (color)" in text and "trustworthiness" in text


def test_interpolate_without_alpha_prints_the_curve(finished_run: RunRecord, world_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(["interpolate", finished_run.run_id], world_cache, capsys)
    rows = [line.split() for line in text.splitlines()[1:12]]
    assert [float(row[0]) for row in rows] == pytest.approx([step / 10 for step in range(11)])
    assert float(rows[-1][1]) == pytest.approx(100 * score(finished_run, "food", "color", "id_accuracy"), abs=0.05)
    assert "Best alpha by the rule" in text


@pytest.mark.parametrize("command", ["evaluate", "otdd", "neighbors", "interpolate"])
def test_second_time_is_equal_and_needs_no_model(
    command: str, finished_run: RunRecord, world_cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [command, finished_run.run_id, *(["--no-maps"] if command == "neighbors" else [])]
    first = printed(words, world_cache, capsys)
    monkeypatch.setattr(robustft.run, "remeasure", lambda *_, **__: pytest.fail("everything was cached"))
    assert printed(words, world_cache, capsys) == first


def test_what_was_cleared_is_computed_again_and_equal(finished_run: RunRecord, world_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("datasets", "runs"):
        shutil.copytree(world_cache / kind, tmp_path / kind)
    folder = tmp_path / "runs" / finished_run.run_id
    for name in ("analysis.json", "encoders.json", "wise.json"):
        (folder / name).unlink()
    for command in (["evaluate"], ["otdd"], ["neighbors", "--no-maps"], ["interpolate"]):
        words = [command[0], finished_run.run_id, *command[1:]]
        assert printed(words, tmp_path, capsys) == printed(words, world_cache, capsys)
    assert read_run(finished_run.run_id, root=tmp_path).scores == finished_run.scores
    assert json.loads((folder / "wise.json").read_text()) == json.loads((world_cache / "runs" / finished_run.run_id / "wise.json").read_text())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["neighbors", "--k", "51"], "n_neighbors = 51 is not allowed for a graph of 50"),
        (["neighbors", "--k", "0"], "n_neighbors = 0 is not allowed"),
        (["neighbors", "--dataset", "animals"], "did not measure 'animals'"),
        (["neighbors", "--domain", "mnist"], "did not measure 'food' in domain 'mnist'; choose among food"),
        (["interpolate", "--alpha", "0.5"], "--alpha and --out go together"),
    ],
)
def test_question_that_a_run_cannot_answer(
    words: list[str], sentence: str, finished_run: RunRecord, world_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([words[0], finished_run.run_id, *words[1:], "--runs-dir", str(world_cache)]) == 2
    assert sentence in capsys.readouterr().err


def test_settings_reach_the_run(monkeypatch: pytest.MonkeyPatch, cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(robustft.run, "run", lambda config, **rest: asked.append((config, rest)) or RunRecord("the-run", config, True))
    assert main([*TRAIN, "--set", "lr=0.01", "steps=3", "--set", "batch_size=8", "--seed", "5", "--device", "cpu", "--held-out", "digits,scripts"]) == 0
    ((config, rest),) = asked
    assert (config.options["lr"], config.options["steps"], config.options["batch_size"]) == (0.01, 3, 8)
    assert (config.seed, config.device, config.held_out, rest["root"]) == (5, "cpu", ("digits", "scripts"), cache_dir)
    assert config.curve is True and capsys.readouterr().out == "the-run\n"
    assert main([*TRAIN, "--no-curve"]) == 0
    assert asked[-1][0].curve is False and asked[-1][0].options == make_config("glyphclip", "food", "ft").options


BAD: list[tuple[list[str], str]] = [
    (["train"], "needs --dataset and --method"),
    (["train", "--dataset", "food"], "needs --dataset and --method"),
    ([*TRAIN, "--model", "clip"], "'clip'; choose one of glyphclip"),
    (["train", "--dataset", "cars", "--method", "ft"], "'cars'; choose one of activities"),
    (["train", "--dataset", "../food", "--method", "ft"], "'../food'; choose one of"),
    (["train", "--dataset", "food", "--method", "ldfis"], "'ldfis'; choose one of zero_shot"),
    ([*TRAIN, "--set", "reg_weight=1"], "has no option 'reg_weight'; choose among label_smoothing, steps"),
    ([*TRAIN, "--set", "lr=fast"], "lr = 'fast' is not allowed; give a number from 1e-08 to 1"),
    ([*TRAIN, "--set", "lr=nan"], "lr = 'nan' is not allowed"),
    ([*TRAIN, "--set", "steps=1.5"], "steps = '1.5' is not allowed; give a whole number from 1"),
    ([*TRAIN, "--set", "steps=0"], "steps = '0' is not allowed"),
    ([*TRAIN, "--set", "steps"], "'steps' is not of the form key=value"),
    ([*TRAIN, "--set", "=3"], "'=3' is not of the form key=value"),
    ([*TRAIN, "--set", "sampler=random"], "sampler = 'random' is not allowed; give one of uniform, class_balanced"),
    (["train", "--dataset", "food", "--method", "zero_shot", "--set", "lr=1"], "'zero_shot' has no option 'lr'; it has none"),
    ([*TRAIN, "--seed", "-1"], "seed = '-1' is not allowed; give a whole number from 0"),
    ([*TRAIN, "--seed", "one"], "seed = 'one' is not allowed"),
    ([*TRAIN, "--device", "tpu"], "device 'tpu' is unknown"),
    ([*TRAIN, "--device", "cuda:999"], "device 'cuda:999' is not here"),
    ([*TRAIN, "--held-out", "cars"], "'cars'; choose one of"),
    ([*TRAIN, "--held-out", "food"], "held-out task 'food' is the downstream task itself"),
    (["train", "--config", "absent.json"], "'absent.json' cannot be read"),
    (["study", "grand"], "no study 'grand'; choose one of demo"),
    (["evaluate", "ft-food-s0-00000000"], "no run 'ft-food-s0-00000000'"),
    (["evaluate", "../../etc/passwd"], "no run of that name"),
    (["neighbors", "../x"], "no run of that name"),
    (["estimate", "--config", "absent.json"], "'absent.json' cannot be read"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_bad_input_is_one_sentence_and_code_2(arguments: list[str], words: str, cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in refusal(arguments, capsys)
    assert not list(cache_dir.rglob("*.safetensors")) and not list(cache_dir.rglob("*.part"))


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 50_000, "x" * 200_000, '{"weights": 1}', "\0"], ids=lambda text: repr(text[:15]))
@pytest.mark.parametrize("where", ["file", "-"])
def test_foreign_config_is_one_sentence_and_code_2(
    text: str, where: str, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text(text)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    refusal(["train", "--config", str(tmp_path / "run.json") if where == "file" else "-"], capsys)
    assert not cache_dir.exists()


@pytest.mark.parametrize("command", [TRAIN, ["study", "demo"]], ids=["train", "study"])
def test_runs_folder_that_cannot_be_written_is_one_sentence_and_code_2(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert "cannot be written" in refusal([*command, "--runs-dir", str(tmp_path / "file")], capsys)


@pytest.mark.parametrize("command", [TRAIN, ["study", "demo"]], ids=["train", "study"])
def test_full_disk_is_one_sentence_and_code_2(command: list[str], cache_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 0))
    assert "only 0 MB are free" in refusal(command, capsys)
    assert not list(cache_dir.rglob("config.json"))


@pytest.mark.parametrize(
    "arguments",
    [[*TRAIN, "--set", "lr=fast"], ["train", "--config", "-"], ["dance"], ["list", "colours"], ["train", "--seed"]],
    ids=lambda value: " ".join(value),
)
def test_real_process_ends_with_code_2_and_no_traceback(arguments: list[str], tmp_path: Path) -> None:
    foreign = json.dumps({**CONFIG, "model": {"a": 1}})
    words = [sys.executable, "-m", "robustft", *arguments]
    result = subprocess.run(words, input=foreign, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False)
    assert result.returncode == 2 and result.stdout == ""
    assert "Traceback" not in result.stderr and "error: " in result.stderr.splitlines()[-1]
