"""What is said about runs: names and notes, causes of failures; and records that are remembered."""

import json
import shutil
from pathlib import Path

import pytest

from robustft import bench_run, failures, jobs, notes, pipeline, remembered, store
from robustft.types import RunConfig, Score, UserError

CONFIG = RunConfig("glyphclip", "food", "ft")


def finished(root: Path, seed: int = 0) -> str:
    config = RunConfig("glyphclip", "food", "ft", seed)
    return store.finish_run(config, [Score("food", "color", "id_accuracy", 0.5, 10)], root=root).run_id


# --- notes


def test_a_note_is_kept_and_shown_by_the_view(tmp_path: Path) -> None:
    run_id = finished(tmp_path)
    assert pipeline.get_runs(tmp_path)[0].name == ""
    pipeline.set_note(run_id, " best ", "line 1\r\nline 2", tmp_path)
    (view,) = pipeline.get_runs(tmp_path)
    assert (view.name, view.note) == ("best", "line 1\nline 2") and pipeline.get_run(run_id, tmp_path) == view
    pipeline.set_note(run_id, "", "", tmp_path)
    assert pipeline.get_runs(tmp_path)[0].note == ""


@pytest.mark.parametrize(("name", "note"), [("a\nb", ""), ("\x1b[31m", ""), ("\u202egnp", ""), ("a" * 61, ""), ("", "\x00"), ("", "n" * 1001), ("\ud800", "")])
def test_other_notes_are_refused(tmp_path: Path, name: str, note: str) -> None:
    run_id = finished(tmp_path)
    with pytest.raises(UserError, match=r"at most|only characters"):
        notes.write_note(run_id, name, note, tmp_path)
    assert notes.read_note(run_id, tmp_path) == notes.NO_NOTE


@pytest.mark.parametrize("content", ["[]", "{", '{"name": "a\\nb"}', '{"note": "\\u0000"}'])
def test_a_damaged_note_is_no_note(tmp_path: Path, content: str) -> None:
    run_id = finished(tmp_path)
    (store.run_folder(run_id, tmp_path) / notes.NOTE_FILE).write_text(content)
    assert notes.read_note(run_id, tmp_path) == notes.NO_NOTE and len(pipeline.get_runs(tmp_path)) == 1


def test_a_note_needs_its_run_and_a_dashboard_that_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ft-food-s0-00000000", "../x"):
        with pytest.raises(store.RunNotFound):
            notes.write_note(name, "a", "", tmp_path)
    monkeypatch.setenv("ROBUSTFT_READ_ONLY", "1")
    with pytest.raises(UserError, match="read-only"):
        pipeline.set_note(finished(tmp_path), "a", "", tmp_path)


# --- failures


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB", "out of memory"),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: not enough memory", "out of memory"),
        ("the loss is nan at step 12; it is not finite.", "loss not finite"),
        ("the score delta_zs on food is inf; a run with it is not stored. Look for a diverged model.", "loss not finite"),
        ("the file 'theta_1' cannot be written (the disk is full); choose another folder", "disk full"),
        ("[Errno 2] No such file or directory: 'x'", "missing file"),
        ("Error(s) in loading state_dict: size mismatch for head.weight", "mismatch"),
        ("Killed", "killed"),
        ("something else", "unknown"),
    ],
)
def test_a_message_has_a_cause_and_something_to_do(message: str, kind: str) -> None:
    found = failures.explain(message)
    assert found.kind == kind and found.cause.endswith(".") and found.advice.endswith(".")


def test_the_log_is_asked_where_the_message_says_nothing() -> None:
    assert failures.explain("odd", "line\n" * 50 + "RuntimeError: CUDA out of memory").kind == "out of memory"
    assert failures.explain("odd", "out of memory\n" + "line\n" * 50).kind == "unknown"
    assert failures.explain("", "", is_lost=True).kind == "lost"


# --- what is remembered


def test_unchanged_runs_are_not_read_again_and_changed_ones_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = finished(tmp_path), finished(tmp_path, 1)
    begun = store.begin_run(RunConfig("glyphclip", "food", "ft", 2), tmp_path)
    read: list[str] = []
    real = store.read_run
    monkeypatch.setattr(store, "read_run", lambda run_id, *, root: (read.append(run_id), real(run_id, root=root))[1])
    assert {found.record.run_id for found in remembered.list_runs(tmp_path)} == {first, second, begun} == set(read)
    read.clear()
    assert remembered.list_runs(tmp_path)[0].record == real(begun, root=tmp_path) and not read
    (store.run_folder(begun, tmp_path) / "status.json").write_text(json.dumps({"stage": "stopped"}))
    notes.write_note(first, "a", "", tmp_path)
    remembered.list_runs(tmp_path)
    assert sorted(read) == sorted([begun, first])


def test_a_deleted_run_is_forgotten_and_one_made_anew_is_read(tmp_path: Path) -> None:
    run_id = finished(tmp_path)
    assert pipeline.get_runs(tmp_path)[0].state == "finished"
    pipeline.delete(run_id, tmp_path)
    assert pipeline.get_runs(tmp_path) == []
    store.begin_run(CONFIG, tmp_path)
    assert pipeline.get_runs(tmp_path)[0].state == "unfinished"
    finished(tmp_path)
    assert pipeline.get_runs(tmp_path)[0].summary["id_accuracy"] == 0.5
    (store.run_folder(run_id, tmp_path) / "config.json").write_text("{")
    assert pipeline.get_runs(tmp_path) == [] == store.list_runs(root=tmp_path)
    shutil.rmtree(tmp_path / "runs")
    assert pipeline.get_runs(tmp_path) == []


def test_runs_come_as_the_store_lists_them_and_the_queue_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "ensure_supervisor", lambda root: None)
    bench_run.write_many_runs(tmp_path, 12)
    pipeline.submit([RunConfig("glyphclip", "food", "ft", seed) for seed in range(500, 510)], tmp_path)
    opened: list[Path] = []
    real = jobs._path
    monkeypatch.setattr(jobs, "_path", lambda root: (opened.append(root), real(root))[1])
    views = pipeline.get_runs(tmp_path)
    assert len(opened) <= 2
    assert {view.run_id for view in views} == {record.run_id for record in store.list_runs(root=tmp_path)}
    assert sorted(view.place for view in views if view.state == "queued") == list(range(1, 11))


def test_a_waiting_run_moves_to_the_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "ensure_supervisor", lambda root: None)
    names = pipeline.submit([RunConfig("glyphclip", "food", "ft", seed) for seed in range(3)], tmp_path)
    pipeline.move_to_front(names[2], tmp_path)
    assert [pipeline.get_run(name, tmp_path).place for name in names] == [2, 3, 1]
    with pytest.raises(UserError, match="only a queued run"):
        pipeline.move_to_front(finished(tmp_path, 7), tmp_path)
