"""Requests for maps and their worker, on real processes with a tiny thing to draw."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustft.files import read_json, replacing, write_json
from robustft.map_requests import SWITCH, ensure_worker, path_of, request, requests_in, state
from robustft.map_worker import MOST_TRIES, work
from robustft.types import UserError

FORK = multiprocessing.get_context("fork")  # no imports anew: a worker of a test starts at once
Process = multiprocessing.process.BaseProcess


@pytest.fixture(autouse=True)
def switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "off")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Process]]:
    """Starts workers, and kills those that a test leaves running."""
    workers = []

    def begin(draw: Callable[[Mapping[str, str]], None] | None = None, **options: Any) -> Process:
        options = {"warm_up": lambda: None, "idle_seconds": 0.3, "poll_seconds": 0.02} | options
        worker = FORK.Process(target=work, args=(root, draw or drawer(root)), kwargs=options)
        worker.start()
        workers.append(worker)
        return worker

    yield begin
    for worker in workers:
        worker.kill()
        worker.join()


def drawer(root: Path) -> Callable[[Mapping[str, str]], None]:
    """What stands for the drawing of maps: does what the name of the run says, and writes down that it was done."""

    def draw(asked: Mapping[str, str]) -> None:
        assert set(asked) == {"run_id", "dataset", "domain", "moment"}
        name = asked["run_id"]
        (root / "begun").open("a").write(name + "\n")
        if name.startswith("refused"):
            raise UserError("16 samples are too few.")
        if name.startswith("odd"):
            raise KeyError("/secret/path")
        if name.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        with replacing(root / "drawn" / name) as temporary:
            temporary.write_text(json.dumps(dict(asked)))
            while name.startswith("slow") and not (root / "go").exists():
                time.sleep(0.01)

    return draw


def ask(root: Path, *names: str) -> None:
    for name in names:
        request(root, name, "food", "color", argv=["false"])
        time.sleep(0.002)  # so that their times differ


def drawn(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "drawn").glob("*"))


def begun(root: Path) -> list[str]:
    return (root / "begun").read_text().split() if (root / "begun").exists() else []


def standing(root: Path, name: str) -> tuple[str | None, str]:
    return state(root, name, "food", "color")


def wait_for(claim: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def end_of(worker: Process) -> int | None:
    worker.join(10)
    return worker.exitcode


# --- asking -----------------------------------------------------------------------------------------------------------


def test_asking_twice_is_asking_once_and_starts_nothing_when_switched_off(root: Path) -> None:
    assert standing(root, "a") == (None, "") and not root.exists()
    ask(root, "a")
    (path,) = (root / "maps/requests").iterdir()
    before = path.read_bytes()
    ask(root, "a")
    assert [path] == list((root / "maps/requests").iterdir()) and path.read_bytes() == before
    assert [entry.name for entry in (root / "maps").iterdir()] == ["requests"]
    assert standing(root, "a") == ("waiting", "The process that draws maps is not running yet.")
    assert standing(root, "b") == (None, "")


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@given(one=st.tuples(words, words, words), other=st.tuples(words, words, words))
def test_whatever_is_asked_for_lies_in_the_folder_and_by_itself(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    root = Path("/root of nothing")
    assert path_of(root, *one).resolve().parent == root / "maps" / "requests" and len(path_of(root, *one).name) < 60
    assert (path_of(root, *one) == path_of(root, *other)) == (one == other)


def test_a_worker_outlives_who_asked_for_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH)
    monkeypatch.setenv("ROBUSTFT_JOB", "7@1.0")
    code = (
        "import os, json; from pathlib import Path; from robustft.map_worker import work; root = Path(os.sys.argv[1])\n"
        "def draw(asked):\n"
        "    seen = [os.getsid(0) == os.getpid(), os.nice(0), os.environ['CUDA_VISIBLE_DEVICES'], 'ROBUSTFT_JOB' in os.environ, os.sys.stdin.read()]\n"
        "    (root / 'seen').write_text(json.dumps([os.getpid(), seen]))\n"
        "work(root, draw, warm_up=lambda: None, idle_seconds=20)"
    )
    argv = [sys.executable, "-c", code, str(root)]
    request(root, "a", "food", "color", argv=argv)
    wait_for(lambda: read_json(root / "seen") and standing(root, "a") == (None, ""), 60)
    pid, seen = read_json(root / "seen")
    assert seen == [True, max(5, os.nice(0)), "", False, ""]
    assert not ensure_worker(root, argv), "one is at work"
    psutil.Process(pid).terminate()
    wait_for(lambda: not psutil.pid_exists(pid))
    assert "drew 'a' 'food' 'color' in" in (root / "maps/worker.log").read_text()
    assert ensure_worker(root, ["true"])


# --- drawing ----------------------------------------------------------------------------------------------------------


def test_requests_are_served_oldest_first_and_removed(root: Path, start: Callable[..., Process]) -> None:
    ask(root, "c", "a", "b")
    assert end_of(start()) == 0
    assert begun(root) == ["c", "a", "b"] and drawn(root) == ["a", "b", "c"]
    assert requests_in(root / "maps") == [] and standing(root, "a") == (None, "")


def test_a_warm_worker_takes_what_comes_later(root: Path, start: Callable[..., Process]) -> None:
    worker = start(warm_up=lambda: (root / "warm").open("a").write("x"), idle_seconds=30.0)
    wait_for((root / "warm").exists)
    for name in "ab":
        ask(root, name)
        wait_for(lambda name=name: standing(root, name) == (None, ""))
    assert drawn(root) == ["a", "b"] and (root / "warm").read_text() == "x" and worker.is_alive()


def test_failures_say_why_and_stop_nobody(root: Path, start: Callable[..., Process], capfd: pytest.CaptureFixture[str]) -> None:
    ask(root, "refused", "odd", "good")
    assert end_of(start()) == 0
    assert standing(root, "refused") == ("failed", "16 samples are too few.")
    assert standing(root, "odd") == ("failed", "Something went wrong inside robustft (KeyError); maps/worker.log has the details.")
    assert drawn(root) == ["good"]
    assert "Traceback" in capfd.readouterr().err

    ask(root, "odd")
    assert standing(root, "odd")[0] == "waiting" and len(list((root / "maps/requests").iterdir())) == 2
    assert end_of(start(lambda asked: None)) == 0
    assert standing(root, "odd") == (None, "") and standing(root, "refused")[0] == "failed"


def test_a_warm_up_that_fails_is_told_to_all(root: Path, start: Callable[..., Process]) -> None:
    ask(root, "a", "b")
    worker = start(warm_up=lambda: __import__("no_such_package"))
    assert end_of(worker) == 0
    assert {standing(root, name)[1].split("(")[1][:19] for name in "ab"} == {"ModuleNotFoundError"}


def test_a_damaged_request_is_cleared_away(root: Path, start: Callable[..., Process]) -> None:
    ask(root, "torn", "good")
    path_of(root, "torn", "food", "color").write_text('{"run_id": "to')
    assert end_of(start()) == 0
    assert standing(root, "torn") == ("failed", "The request's file was damaged.") and drawn(root) == ["good"]


def test_what_is_said_while_waiting_is_true(root: Path, start: Callable[..., Process]) -> None:
    ask(root, "slow", "b", "c")
    start(warm_up=lambda: wait_for((root / "warm").exists))
    wait_for(lambda: "compiles UMAP" in standing(root, "slow")[1])
    (root / "warm").touch()
    wait_for(lambda: begun(root))
    assert [standing(root, name)[1] for name in ("slow", "b", "c")] == ["It is being drawn now.", "It is next.", "1 other map comes first."]
    (root / "go").touch()
    wait_for(lambda: standing(root, "c") == (None, ""))


# --- ends of all kinds ------------------------------------------------------------------------------------------------


def test_a_second_worker_ends_at_once(root: Path, start: Callable[..., Process]) -> None:
    ask(root, "slow")
    first = start()
    wait_for(lambda: begun(root))
    second = start(warm_up=lambda: (root / "second").touch())
    assert end_of(second) == 0 and first.is_alive() and not (root / "second").exists() and begun(root) == ["slow"]


def test_a_killed_worker_loses_nothing(root: Path, start: Callable[..., Process]) -> None:
    ask(root, "slow", "b")
    worker = start()
    wait_for(lambda: begun(root))
    worker.kill()
    worker.join()
    assert drawn(root) != ["slow"] and standing(root, "slow") == ("waiting", "The process that draws maps is not running yet.")
    (root / "go").touch()
    assert end_of(start()) == 0
    assert {"b", "slow"} <= set(drawn(root)) and requests_in(root / "maps") == []


def test_a_request_that_kills_the_worker_blocks_nobody_for_ever(root: Path, start: Callable[..., Process]) -> None:
    ask(root, "poison", "b")
    assert [end_of(start()) for _ in range(MOST_TRIES)] == [-signal.SIGKILL] * MOST_TRIES
    assert drawn(root) == ["b"], "it goes to the end of the line"
    assert end_of(start()) == 0
    assert begun(root).count("poison") == MOST_TRIES
    assert standing(root, "poison") == ("failed", "The process that draws maps died 3 times while it drew this one; maps/worker.log may tell why.")


def test_sigterm_ends_amid_a_map_and_leaves_no_half_file(root: Path, start: Callable[..., Process]) -> None:
    ask(root, "slow")
    before = path_of(root, "slow", "food", "color").read_bytes()
    worker = start()
    wait_for(lambda: list((root / "drawn").glob(".slow.*")) if (root / "drawn").exists() else None)
    worker.terminate()
    assert end_of(worker) == 0
    assert list((root / "drawn").iterdir()) == [] and not list((root / "maps").rglob(".*"))
    assert path_of(root, "slow", "food", "color").read_bytes() == before, "being told to end is no failed try"


def test_sigterm_ends_an_idle_worker(root: Path, start: Callable[..., Process]) -> None:
    worker = start(idle_seconds=30.0)
    wait_for(lambda: (read_json(root / "maps/worker.json") or {}).get("stage") == "waiting")
    worker.terminate()
    assert end_of(worker) == 0


@pytest.mark.parametrize("vanishes", ["root", "moved", "lock"])
def test_a_worker_ends_with_its_place(root: Path, start: Callable[..., Process], vanishes: str) -> None:
    worker = start(idle_seconds=30.0)
    wait_for(lambda: (read_json(root / "maps/worker.json") or {}).get("stage") == "waiting")
    if vanishes == "root":
        shutil.rmtree(root)
    elif vanishes == "moved":
        root.rename(root.with_name("elsewhere"))
    else:
        (root / "maps/worker.lock").unlink()
    assert end_of(worker) == 0
    assert root.exists() == (vanishes == "lock")


def test_a_map_whose_folder_vanishes_brings_it_not_back(root: Path, start: Callable[..., Process]) -> None:
    ask(root, "a")

    def draw(asked: Mapping[str, str]) -> None:
        shutil.rmtree(root)
        raise UserError("gone")

    assert end_of(start(draw)) == 0 and not root.exists()


def test_a_full_disk_is_outlived(root: Path, start: Callable[..., Process]) -> None:
    worker = start(idle_seconds=30.0)
    wait_for(lambda: (read_json(root / "maps/worker.json") or {}).get("stage") == "waiting")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, limits[1]))  # no file may grow, as if the disk were full
    ask(root, "a")
    time.sleep(0.3)
    assert worker.is_alive() and standing(root, "a")[0] == "waiting" and begun(root) == []
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, limits)
    wait_for(lambda: drawn(root) == ["a"])


def test_what_is_asked_for_at_the_moment_of_ending_is_served(root: Path, start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch) -> None:
    close = os.close

    def late(handle: int) -> None:
        close(handle)
        if not (root / "late").exists():
            (root / "late").touch()
            write_json(path_of(root, "a", "food", "color"), {"run_id": "a", "dataset": "food", "domain": "color", "asked": 0.0, "tries": 0})

    monkeypatch.setattr("robustft.map_worker.os.close", late)
    root.mkdir()
    worker = start()
    monkeypatch.undo()
    assert end_of(worker) == 0 and drawn(root) == ["a"]
