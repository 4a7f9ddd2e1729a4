"""The store: what goes in comes out, whole or not at all, and no name leads outside."""

import json
import math
import os
import resource
import shutil
import tempfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import run_requests

from robustft import files, store
from robustft.configs import make_config
from robustft.store import RunNotFound
from robustft.types import RunConfig, Score, StepRecord, UserError

CONFIG = RunConfig("glyphclip", "food", "ft", options={"lr": 1e-3, "bias": None}, held_out=("digits",))
SCORES = [Score("food", "color", "id_accuracy", 0.5, 10), Score("digits", "mnist", "delta_zs", -0.25, 20)]
FINITE = st.floats(allow_nan=False, allow_infinity=False)
RUN_ID = store.run_id_of(CONFIG)


@contextmanager
def fresh_root() -> Iterator[Path]:
    """A root for one example of a property; pytest's own folder lives for all examples."""
    root = Path(tempfile.mkdtemp())
    try:
        yield root
    finally:
        shutil.rmtree(root)


def step(number: int) -> StepRecord:
    return StepRecord(number, 1.5, 1.0, 0.5, 1e-3, 2.0, 0.1, {"clamp_rate": 0.25})


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# --- round trips ------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(request=run_requests(), values=st.lists(st.tuples(st.text(), st.text(), FINITE, st.integers(0, 10**9)), min_size=1))
def test_finished_run_is_read_as_it_was_stored(request: dict[str, Any], values: list[tuple[str, str, float, int]]) -> None:
    config = make_config(**request)
    scores = [Score(dataset, "line", metric, value, n) for dataset, metric, value, n in values]
    with fresh_root() as root:
        record = store.finish_run(config, scores, root=root)
        again = store.read_run(record.run_id, root=root)
        assert again == record and again.config == config and again.scores == tuple(scores) and again.is_finished
        assert store.list_runs(root=root) == [record]
        assert store.run_id_of(again.config) == record.run_id


@settings(max_examples=50)
@given(numbers=st.lists(st.tuples(FINITE, FINITE), max_size=8), extras=st.dictionaries(st.text(), FINITE))
def test_history_is_read_as_it_was_written(numbers: list[tuple[float, float]], extras: dict[str, float]) -> None:
    records = [StepRecord(i + 1, loss, loss, 0.0, lr, 1.0, 0.1, extras) for i, (loss, lr) in enumerate(numbers)]
    with fresh_root() as root:
        run_id = store.begin_run(CONFIG, root)
        for record in records:
            store.append_history(run_id, [record], root)
        assert store.read_history(run_id, root=root) == records
        store.cut_history(run_id, 2, root)
        assert store.read_history(run_id, root=root) == records[:2]


def test_weights_are_read_as_they_were_written(cache_dir: Path) -> None:
    run_id = store.begin_run(CONFIG, cache_dir)
    tensors = {"w": torch.randn(3, 4).T, "n": torch.tensor(7), "h": torch.randn(2).half(), "empty": torch.zeros(0, 3)}
    store.save_weights(run_id, "theta_1", tensors, cache_dir)
    again = store.load_weights(run_id, "theta_1", root=cache_dir)
    assert again is not None and again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) and again[name].dtype == tensors[name].dtype for name in tensors)


def test_same_config_is_the_same_run_and_any_change_another() -> None:
    others = [
        RunConfig("glyphclip", "food", "ft", options={"bias": None, "lr": 1e-3}, held_out=("digits",)),
        RunConfig("glyphclip", "food", "ft", seed=1, options=CONFIG.options, held_out=("digits",)),
        RunConfig("glyphclip", "food", "ft", options={**CONFIG.options, "lr": 2e-3}, held_out=("digits",)),
        RunConfig("glyphclip", "food", "ft", options=CONFIG.options),
    ]
    assert [store.run_id_of(other) == RUN_ID for other in others] == [True, False, False, False]
    assert store.RUN_ID.fullmatch(RUN_ID)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_score_that_is_no_number_is_refused_by_name(value: float, cache_dir: Path) -> None:
    with pytest.raises(UserError, match="delta_zs on digits is (nan|-?inf)"):
        store.finish_run(CONFIG, [SCORES[0], Score("digits", "mnist", "delta_zs", value, 1)], root=cache_dir)
    assert not cache_dir.exists() or not tree(cache_dir)


def test_finished_run_never_changes(cache_dir: Path) -> None:
    record = store.finish_run(CONFIG, SCORES, root=cache_dir)
    assert store.finish_run(CONFIG, SCORES, root=cache_dir) == record
    with pytest.raises(UserError, match=f"{RUN_ID} is finished with other scores"):
        store.finish_run(CONFIG, SCORES[:1], root=cache_dir)
    assert store.read_run(RUN_ID, root=cache_dir) == record


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "../../etc", "a/b", "/etc/passwd", "a\\b", "~", "a\0b", "\0", "a b", "a\n", "-rf", ".hidden", "x" * 300, "é", "١", "%2e%2e"],
)
def test_name_that_no_run_can_have_is_not_found(name: str, cache_dir: Path) -> None:
    (cache_dir / "runs").mkdir(parents=True)
    before = tree(cache_dir.parent)
    attempts: list[Callable[[], object]] = [
        lambda: store.read_run(name, root=cache_dir),
        lambda: store.read_history(name, root=cache_dir),
        lambda: store.load_weights(name, "theta_1", root=cache_dir),
        lambda: store.tail_log(name, root=cache_dir),
        lambda: store.trash_run(name, root=cache_dir),
        lambda: store.write_status(name, cache_dir, stage="training"),
        lambda: store.append_history(name, [step(1)], cache_dir),
        lambda: store.run_lock(name, cache_dir).__enter__(),
    ]
    for attempt in attempts:
        with pytest.raises(RunNotFound) as caught:
            attempt()
        assert len(str(caught.value)) < 200
    assert tree(cache_dir.parent) == before


def test_run_that_is_absent_is_not_found(cache_dir: Path) -> None:
    for ask in (store.read_run, store.trash_run):
        with pytest.raises(RunNotFound, match="there is no run 'ft-food-s0-00000000'"):
            ask("ft-food-s0-00000000", root=cache_dir)
    assert store.list_runs(root=cache_dir) == []


# --- damage -----------------------------------------------------------------------------------------------------------


def test_torn_last_line_of_a_history_is_passed_over(cache_dir: Path) -> None:
    run_id = store.begin_run(CONFIG, cache_dir)
    store.append_history(run_id, [step(1), step(2), step(3)], cache_dir)
    path = store.run_folder(run_id, cache_dir) / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert store.read_history(run_id, root=cache_dir) == [step(1), step(2)]
    store.cut_history(run_id, 2, cache_dir)
    store.append_history(run_id, [step(3)], cache_dir)
    assert store.read_history(run_id, root=cache_dir) == [step(1), step(2), step(3)]


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "7", '"x"', '{"held_out": 3}', '{"held_out": [], "odd": 1}', "[" * 50_000, "\xff\xfe"])
def test_run_of_a_damaged_config_is_not_found(text: str, cache_dir: Path) -> None:
    store.begin_run(CONFIG, cache_dir)
    (cache_dir / "runs" / RUN_ID / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunNotFound):
        store.read_run(RUN_ID, root=cache_dir)
    assert store.list_runs(root=cache_dir) == []


@pytest.mark.parametrize("text", ["", "{", "null", "{}", "[[]]", '[{"odd": 1}]', "7"])
def test_run_of_damaged_scores_is_not_finished(text: str, cache_dir: Path) -> None:
    store.finish_run(CONFIG, SCORES, root=cache_dir)
    (cache_dir / "runs" / RUN_ID / "scores.json").write_text(text)
    record = store.read_run(RUN_ID, root=cache_dir)
    assert (record.is_finished, record.scores, record.config) == (False, (), CONFIG)


def test_run_of_damaged_scores_can_be_finished_again(cache_dir: Path) -> None:
    record = store.finish_run(CONFIG, SCORES, root=cache_dir)
    (cache_dir / "runs" / RUN_ID / "scores.json").write_text("{")
    assert store.finish_run(CONFIG, SCORES, root=cache_dir) == record


@pytest.mark.parametrize("content", [b"", b"x" * 1000, None], ids=["empty", "garbage", "cut"])
def test_damaged_weights_are_absent(content: bytes | None, cache_dir: Path) -> None:
    run_id = store.begin_run(CONFIG, cache_dir)
    store.save_weights(run_id, "checkpoint", {"w": torch.ones(100)}, cache_dir)
    path = cache_dir / "runs" / run_id / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    assert store.load_weights(run_id, "checkpoint", root=cache_dir) is None
    assert files.read_arrays(path) is None


def test_run_without_its_marker_is_not_finished(cache_dir: Path) -> None:
    store.finish_run(CONFIG, SCORES, root=cache_dir)
    (cache_dir / "runs" / RUN_ID / "done").unlink()
    record = store.read_run(RUN_ID, root=cache_dir)
    assert not record.is_finished and not record.scores
    assert store.finish_run(CONFIG, SCORES[:1], root=cache_dir).scores == tuple(SCORES[:1])


def test_what_is_no_run_is_passed_over(cache_dir: Path) -> None:
    record = store.finish_run(CONFIG, SCORES, root=cache_dir)
    (cache_dir / "runs" / "empty").mkdir()
    (cache_dir / "runs" / "a file").write_text("x")
    (cache_dir / "runs" / ".hidden").mkdir()
    assert store.list_runs(root=cache_dir) == [record]


def test_trash_keeps_everything(cache_dir: Path) -> None:
    store.finish_run(CONFIG, SCORES, root=cache_dir)
    before = tree(cache_dir / "runs" / RUN_ID)
    store.trash_run(RUN_ID, root=cache_dir)
    assert store.list_runs(root=cache_dir) == []
    (kept,) = (cache_dir / "trash").iterdir()
    assert tree(kept) == before
    store.finish_run(CONFIG, SCORES, root=cache_dir)
    store.trash_run(RUN_ID, root=cache_dir)
    assert len(list((cache_dir / "trash").iterdir())) == 2


# --- crashes and full disks -------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process dies here."""

    def __str__(self) -> str:
        return "the process dies"


@pytest.mark.parametrize("dies", [Crash(), OSError(28, "No space left on device")], ids=["killed", "full disk"])
def test_write_that_does_not_end_leaves_the_old_file_whole(dies: BaseException, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = store.begin_run(CONFIG, cache_dir)
    store.append_history(run_id, [step(1), step(2)], cache_dir)
    store.save_weights(run_id, "checkpoint", {"w": torch.zeros(3)}, cache_dir)
    store.write_status(run_id, cache_dir, stage="training")
    before = tree(cache_dir)

    def die(*_: object) -> None:
        raise dies

    monkeypatch.setattr(os, "replace", die)
    writes: list[Callable[[], object]] = [
        lambda: store.save_weights(run_id, "checkpoint", {"w": torch.ones(3)}, cache_dir),
        lambda: store.cut_history(run_id, 1, cache_dir),
        lambda: store.write_status(run_id, cache_dir, stage="measuring"),
        lambda: store.finish_run(CONFIG, SCORES, root=cache_dir),
        lambda: files.write_arrays(cache_dir / "features" / "x.safetensors", {"a": np.ones(2)}),
    ]
    for write in writes:
        with pytest.raises(Crash if isinstance(dies, Crash) else UserError, match="disk is full|process dies"):
            write()
    assert tree(cache_dir) == before
    assert not store.read_run(run_id, root=cache_dir).is_finished


@pytest.mark.parametrize("marker", ["scores.json", "done"])
def test_crash_while_finishing_leaves_an_unfinished_run_that_can_be_finished(marker: str, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def die_at(source: Path, target: Path) -> None:
        if Path(target).name == marker:
            raise Crash
        replace(source, target)

    monkeypatch.setattr(os, "replace", die_at)
    with pytest.raises(Crash):
        store.finish_run(CONFIG, SCORES, root=cache_dir)
    monkeypatch.undo()
    assert not store.read_run(RUN_ID, root=cache_dir).is_finished
    assert store.finish_run(CONFIG, SCORES[:1], root=cache_dir).scores == tuple(SCORES[:1])


def test_leftovers_of_a_killed_writer_are_swept(cache_dir: Path) -> None:
    run_id = store.begin_run(CONFIG, cache_dir)
    before, folder = tree(cache_dir), cache_dir / "runs" / run_id
    (folder / "maps").mkdir()
    for leftover in (folder / ".checkpoint.safetensors.1.part", folder / "maps" / ".food-color.safetensors.1.part"):
        leftover.write_bytes(b"half")
    store.clear_leftovers(run_id, cache_dir)
    assert tree(cache_dir) == before


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Makes the system refuse to write beyond a size, in the middle of a write, as a full disk or a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["weights", "arrays", "json", "history"])
def test_disk_that_refuses_in_mid_write_is_one_sentence(kind: str, cache_dir: Path) -> None:
    run_id = store.begin_run(CONFIG, cache_dir)
    before = tree(cache_dir)
    write: dict[str, Callable[[], object]] = {
        "weights": lambda: store.save_weights(run_id, "theta_1", {"w": torch.ones(10_000)}, cache_dir),
        "arrays": lambda: files.write_arrays(cache_dir / "features" / "x.safetensors", {"a": np.ones(10_000)}),
        "json": lambda: files.write_json(cache_dir / "runs" / run_id / "scores.json", list(range(10_000))),
        "history": lambda: store.append_history(run_id, [step(i) for i in range(1000)], cache_dir),
    }
    with files_of_at_most(4096), pytest.raises(UserError, match="cannot be written .* choose another folder"):
        write[kind]()
    if kind != "history":
        assert tree(cache_dir) == before
    else:
        assert all(a == b for a, b in zip(store.read_history(run_id, root=cache_dir), map(step, range(1000)), strict=False))


def test_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"the runs folder .* cannot be written .* --runs-dir"):
            store.check_root(root)
        with pytest.raises(UserError, match="cannot be written"):
            store.finish_run(CONFIG, SCORES, root=root)


def test_little_room_is_refused(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 50 * 2**20))
    with pytest.raises(UserError, match="only 50 MB are free .* needs 200 MB"):
        store.check_root(cache_dir)


# --- locks and small files --------------------------------------------------------------------------------------------


def test_run_has_one_holder_at_a_time(cache_dir: Path) -> None:
    with store.run_lock(RUN_ID, cache_dir):
        with pytest.raises(UserError, match=f"{RUN_ID} is being worked on"), store.run_lock(RUN_ID, cache_dir):
            pass
        with store.run_lock("another", cache_dir):
            pass
    with store.run_lock(RUN_ID, cache_dir):
        pass


def test_lock_is_given_back_on_an_error(cache_dir: Path) -> None:
    with pytest.raises(Crash), store.run_lock(RUN_ID, cache_dir):
        raise Crash
    with store.run_lock(RUN_ID, cache_dir):
        pass


def test_status_names_its_writer(cache_dir: Path) -> None:
    run_id = store.begin_run(CONFIG, cache_dir)
    store.write_status(run_id, cache_dir, stage="training", step=3)
    status = store.read_run(run_id, root=cache_dir).status
    assert (status["stage"], status["step"], status["pid"]) == ("training", 3, os.getpid()) and status["updated"] > status["process_started"]


def test_log_tail_is_its_end(cache_dir: Path) -> None:
    run_id = store.begin_run(CONFIG, cache_dir)
    assert store.tail_log(run_id, root=cache_dir) == ""
    (cache_dir / "runs" / run_id / "log.txt").write_bytes(b"\xff" + b"a" * 100 + b"end\n")
    assert store.tail_log(run_id, root=cache_dir, size=6) == "aaend\n"
    assert store.tail_log(run_id, root=cache_dir).endswith("end\n")


def test_json_that_is_none_is_not_written(cache_dir: Path) -> None:
    path = cache_dir / "x.json"
    with pytest.raises(ValueError):
        files.write_json(path, {"a": math.nan})
    assert not path.exists()
    files.write_json(path, {"é": [1, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == files.read_json(path) == {"é": [1, None]}
