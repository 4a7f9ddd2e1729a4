"""Recorded runs: what the file holds and does not, that today's code reads it, and what is refused."""

import getpass
import io
import json
import socket
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustft import recorded
from robustft.__main__ import main
from robustft.moments import get_moments
from robustft.neighborhoods import get_neighborhood, get_overlap, measured_tasks
from robustft.pipeline import get_wise
from robustft.samples import ALL_DOMAINS, get_answers, get_samples
from robustft.store import list_runs, read_run, run_folder
from robustft.types import RunRecord, UserError


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded.unpack(recorded.DEMO, tmp_path_factory.mktemp("recorded") / "demo")


def test_the_demo_is_small_and_tells_nothing_of_who_made_it() -> None:
    assert recorded.DEMO.stat().st_size <= 20_000_000
    with zipfile.ZipFile(recorded.DEMO) as archive:
        names = archive.namelist()
        text = "\n".join(archive.read(name).decode() for name in names if name.endswith((".json", ".jsonl")))
    assert not [name for name in names if "theta" in name or "checkpoint" in name or name.endswith((".pt", ".pkl"))]
    for secret in ("/home/", "/root", "/tmp", "/work", '"pid"', socket.gethostname(), f"/{getpass.getuser()}"):
        assert secret not in text, secret


def test_todays_code_reads_all_that_pages_show(demo: Path) -> None:
    records = list_runs(root=demo)
    assert {record.config.method for record in records} == {"zero_shot", "ft", "lp_ft", "l2_sp", "ldifs", "fda"}
    for record in records:
        assert record.is_finished and len(get_wise(record.run_id, demo)) == 11
        for task, domain in (("food", "color"), ("food", "line"), ("food", ALL_DOMAINS), ("digits", "optical"), ("faces", "line")):
            hood = get_neighborhood(record.run_id, task, domain, 50, demo)
            assert hood.maps.kind == "UMAP" and len(hood.data) == len(hood.kept) and get_answers(record.run_id, task, domain, demo) is not None
            assert (hood.floor is None) == (domain == ALL_DOMAINS)


def test_recorded_graphs_say_what_the_runs_measured(demo: Path) -> None:
    for record in list_runs(root=demo):
        lost = {(s.dataset, s.domain): s.value for s in record.scores if s.metric == "drift_neighbors_lost"}
        for place in (("food", "color"), ("scripts", "bold"), ("digits", "mnist")):
            assert 1 - get_neighborhood(record.run_id, *place, 10, demo).kept.mean() == pytest.approx(lost[place], abs=1e-6)
        for row in get_moments(record.run_id, demo)[::5]:
            hood = get_neighborhood(record.run_id, "food", "color", 10, demo, row["moment"])
            assert hood.kept.mean() == pytest.approx(row["kept"], abs=1e-6)


def test_a_second_unpack_changes_nothing(demo: Path) -> None:
    mark = demo / "mark"
    mark.write_text("mine")
    assert recorded.unpack(recorded.DEMO, demo) == demo and mark.read_text() == "mine"


def test_record_and_unpack_give_back_what_pages_show(finished_run: RunRecord, world_cache: Path, tmp_path: Path) -> None:
    out = recorded.record([finished_run.run_id], tmp_path / "one.zip", world_cache)
    root = recorded.unpack(out, tmp_path / "cache")
    assert read_run(finished_run.run_id, root=root).scores == finished_run.scores
    for moment in ("", "step 3", "alpha 0.5"):
        was, now = (get_neighborhood(finished_run.run_id, "food", "color", 20, where, moment) for where in (world_cache, root))
        assert (was.graph_1.indices == now.graph_1.indices).all() and np.abs(was.graph_1.similarities - now.graph_1.similarities).max() < 1e-4
        assert np.allclose(was.maps.after, now.maps.after) and (was.kept == now.kept).all()
    was, now = (get_samples("digits", "optical", where) for where in (world_cache, root))
    assert (np.asarray(was.labels) == np.asarray(now.labels)).all() and was.fingerprint == now.fingerprint
    assert np.abs(np.asarray(was.images).astype(float) - np.asarray(now.images)).mean() < 20
    assert not (run_folder(finished_run.run_id, root) / "theta_1.safetensors").exists()


def test_every_domain_of_every_task_opens_at_every_moment(demo: Path) -> None:
    records = list_runs(root=demo)
    for record in records:
        for task, domains in measured_tasks(record.config).items():
            moments = [row["moment"] for row in get_moments(record.run_id, demo)] if task == record.config.dataset else []
            for domain in domains:
                for moment in ("", *moments[:: 3 if record is not records[0] else 1]):
                    assert get_overlap(record.run_id, task, domain, 50, demo, moment).floor is not None


def test_the_recording_says_what_it_is(finished_run: RunRecord, world_cache: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(recorded.record([finished_run.run_id], tmp_path / "one.zip", world_cache, "tiny")) as archive:
        about = json.loads(archive.read("manifest.json"))
    assert (about["study"], about["seeds"], about["runs"]) == ("tiny", [finished_run.config.seed], [finished_run.run_id])
    assert {"torch", "umap-learn", "pillow"} <= about["packages"].keys() and about["format"] == recorded.FORMAT


def test_another_recording_or_other_code_opens_the_folder_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, root = tmp_path / "a.zip", tmp_path / "cache"
    for text in ("old", "new"):
        path.write_bytes(packed(("runs/a/log", text)).getvalue())
        assert (recorded.unpack(path, root) / "runs" / "a" / "log").read_text() == text
    (root / "runs" / "a" / "log").write_text("drawn by older code")
    monkeypatch.setattr(recorded.metadata, "version", lambda package: "another")
    assert (recorded.unpack(path, root) / "runs" / "a" / "log").read_text() == "new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.zip", "cache"]


def test_a_folder_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    path, root = tmp_path / "a.zip", tmp_path / "cache"
    path.write_bytes(packed(("runs/a/log", "x")).getvalue())
    (root / "runs").mkdir(parents=True)
    (root / "runs" / "mine").write_text("precious")
    with pytest.raises(UserError, match="holds something"):
        recorded.unpack(path, root)
    assert (root / "runs" / "mine").read_text() == "precious"


def test_killed_midway_nothing_half_is_there(tmp_path: Path) -> None:
    path, root = tmp_path / "a.zip", tmp_path / "cache"
    path.write_bytes(packed(("runs/a/log", "x")).getvalue())
    code = (
        "import os, sys; from pathlib import Path; from robustft import recorded\n"
        "recorded.write_json = lambda *_: os._exit(9)\n"  # all is written but the manifest
        "recorded.unpack(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path), str(root)], check=False, cwd=Path(__file__).parent.parent).returncode == 9
    assert not root.exists()
    assert (recorded.unpack(path, root) / "runs" / "a" / "log").read_text() == "x"


def packed(*entries: tuple[str, str], about: dict | None = None) -> io.BytesIO:
    """Makes an archive with a manifest and other files."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"format": recorded.FORMAT, "runs": []} if about is None else about))
        for name, text in entries:
            archive.writestr(name, text)
    return written


def with_link() -> io.BytesIO:
    written = packed()
    with zipfile.ZipFile(written, "a") as archive:
        entry = zipfile.ZipInfo("runs/a/config.json")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return written


def with_picture(picture: bytes) -> io.BytesIO:
    note = {"labels": [0], "class_names": ["a"], "templates": ["{}"], "fingerprint": "x", "side": 8}
    written = packed(("samples/food/color.json", json.dumps(note)))
    with zipfile.ZipFile(written, "a") as archive:
        archive.writestr("samples/food/color.webp", picture)
    return written


def huge_picture() -> bytes:
    written = io.BytesIO()
    Image.new("1", (16_000, 16_000)).save(written, "PNG")
    return written.getvalue()


def with_torn_stream() -> io.BytesIO:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("manifest.json", json.dumps({"format": recorded.FORMAT, "runs": []}))
    torn = bytearray(written.getvalue())
    begin = torn.find(b"manifest.json") + len("manifest.json") + 12
    torn[begin : begin + 20] = bytes(byte ^ 0x5A for byte in torn[begin : begin + 20])
    return io.BytesIO(bytes(torn))


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (packed(("runs/../../out", "x")), "outside its folder"),
        (packed(("/etc/out", "x")), "outside its folder"),
        (packed(("runs/a/../../../out", "x")), "outside its folder"),
        (packed(("runs\\..\\out", "x")), "outside its folder"),
        (with_link(), "holds a link"),
        (with_picture(b"no picture"), "damaged or no recording"),
        (with_picture(huge_picture()), "damaged or no recording"),
        (with_torn_stream(), "damaged or no recording"),
        (packed(about={"format": 99}), "format 99"),
        (packed(about={}), "damaged or no recording"),
        (packed(("graphs/0.json", "{torn")), "damaged or no recording"),
        (packed(("graphs/0.json", '{"key": "k", "shape": [3, 2]}')), "damaged or no recording"),
        (io.BytesIO(b"no zip"), "damaged or no recording"),
    ],
)
def test_what_is_no_recording_is_refused_whole(archive: io.BytesIO, words: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / "bad.zip"
    path.parent.mkdir()
    path.write_bytes(archive.getvalue())
    with pytest.raises(UserError, match=words):
        recorded.unpack(path, tmp_path / "in" / "cache")
    assert [entry.name for entry in (tmp_path / "in").iterdir()] == ["bad.zip"] and not (tmp_path / "out").exists()


def test_an_archive_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_UNPACKED", 1000)
    path = tmp_path / "bomb.zip"
    path.write_bytes(packed(("runs/a/log", "0" * 2000)).getvalue())
    with pytest.raises(UserError, match="unpacks to more than"):
        recorded.unpack(path, tmp_path / "cache")


def test_too_large_a_recording_leaves_nothing(finished_run: RunRecord, world_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="are allowed"):
        recorded.record([finished_run.run_id], tmp_path / "one.zip", world_cache)
    assert not list(tmp_path.iterdir())


def test_unfinished_studies_are_not_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "demo", "--runs-dir", str(tmp_path), "--out", str(tmp_path / "x.zip")]) == 2
    assert "6 of 6 runs of the study demo are not finished" in capsys.readouterr().err
