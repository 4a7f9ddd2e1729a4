"""The queue and its supervisor, on real processes: short `python -c` and `sh` scripts in temporary folders."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from robustft import detached, jobs, supervisor
from robustft.jobs import Job, cancel, claim, ensure_supervisor, is_alive, list_jobs, move_to_front, places, record_process, submit, take_lock, verdict
from robustft.supervisor import job_environment, supervise

PROJECT = Path(jobs.__file__).parents[1]
FAST = {"poll_seconds": 0.02, "grace_seconds": 0.5, "idle_seconds": 0.1}
SLEEP = ["sleep", "60"]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A place for a queue. Whatever a test leaves running is killed, so that one failure does not slow the next test."""
    root = tmp_path / "root"
    yield root
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("ROBUSTFT_TEST") == str(root):
                process.kill()
        except (psutil.Error, OSError):
            continue


@pytest.fixture(autouse=True)
def tagged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTFT_TEST", str(root))


def wait_for(claim_: Callable[[], object], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim_():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def add(root: Path, name: str, argv: list[str], **options: int) -> Job:
    return submit(root, name, argv, folder=root / "runs" / name, **options)


def job(root: Path, job_id: int) -> Job:
    return next(row for row in list_jobs(root) if row.job_id == job_id)


def states(root: Path) -> list[str]:
    return [row.state for row in list_jobs(root)]


def is_state(root: Path, job_id: int, state: str) -> Callable[[], bool]:
    return lambda: job(root, job_id).state == state


def has_process(root: Path, job_id: int) -> Callable[[], bool]:
    return lambda: job(root, job_id).pid is not None


def breathes(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def supervisor_argv(root: Path, **options: object) -> list[str]:
    code = f"from pathlib import Path; from robustft.supervisor import supervise; supervise(Path({str(root)!r}), **{FAST | options!r})"
    return [sys.executable, "-c", code]


def start_supervisor(root: Path, **options: object) -> subprocess.Popen[bytes]:
    root.mkdir(exist_ok=True)
    with (root / "supervisor.log").open("ab") as log:
        return subprocess.Popen(supervisor_argv(root, idle_seconds=30.0, **options), stderr=log, cwd=PROJECT, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@pytest.fixture
def at_work(root: Path) -> Iterator[None]:
    """A supervisor in a thread, until the queue is empty."""
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(supervise, root, **FAST | {"idle_seconds": 0.3})
        yield
        ended.result(10)


def hold(root: Path, name: str) -> list[str]:
    """Argv of a job that says when it has begun and ends, done, when a file says so."""
    begun, go, done = (root / "runs" / name / file for file in ("begun", "go", "done"))
    return ["sh", "-c", f"touch {begun}; while [ ! -e {go} ]; do sleep 0.02; done; touch {done}"]


def let_go(root: Path, name: str) -> None:
    (root / "runs" / name / "go").touch()


# --- the queue alone


def test_an_absent_queue_is_empty_and_stays_absent(root: Path) -> None:
    assert list_jobs(root) == []
    assert places(list_jobs(root)) == {}
    with pytest.raises(LookupError, match="no job 7"):
        cancel(root, 7)
    assert not root.exists()


def test_a_submitted_job_is_listed_as_given(root: Path) -> None:
    given = add(root, "a", ["echo", "ä\n;$(x)"])
    assert list_jobs(root) == [given]
    assert (given.state, given.argv, given.folder) == ("queued", ("echo", "ä\n;$(x)"), str((root / "runs/a").absolute()))


def test_places_follow_submission_and_close_up_when_one_is_cancelled(root: Path) -> None:
    first, second, third = (add(root, name, SLEEP).job_id for name in "abc")
    assert places(list_jobs(root)) == {first: 1, second: 2, third: 3}
    assert cancel(root, first).state == "cancelled"
    assert places(list_jobs(root)) == {second: 1, third: 2}


def test_a_job_moved_to_the_front_is_next(root: Path) -> None:
    first, second, third = (add(root, name, ["true"]).job_id for name in "abc")
    assert move_to_front(root, third).priority == 1
    assert places(list_jobs(root)) == {third: 1, first: 2, second: 3}
    move_to_front(root, second)
    assert places(list_jobs(root)) == {second: 1, third: 2, first: 3}
    supervise(root, **FAST)
    begun = {row.job_id: row.started or 0.0 for row in list_jobs(root)}
    assert sorted(begun, key=begun.__getitem__) == [second, third, first]
    assert move_to_front(root, first).state == "done" and places(list_jobs(root)) == {}
    with pytest.raises(LookupError, match="no job 99"):
        move_to_front(root, 99)


def test_a_file_from_before_there_was_an_order_still_opens(root: Path) -> None:
    root.mkdir()
    with closing(sqlite3.connect(root / "jobs.sqlite")) as database, database:
        database.execute(jobs._SCHEMA.replace(", priority INTEGER NOT NULL DEFAULT 0", ""))
        for name in "ab":
            database.execute("INSERT INTO jobs (run_id, argv, folder, state, submitted) VALUES (?, '[\"true\"]', '/tmp', 'queued', 1.0)", (name,))
    assert [(row.run_id, row.priority) for row in list_jobs(root)] == [("a", 0), ("b", 0)]
    move_to_front(root, 2)
    add(root, "c", ["true"])
    assert [row.run_id for row in jobs.waiting(list_jobs(root))] == ["b", "a", "c"]


def test_cancelling_an_ended_job_changes_nothing(root: Path) -> None:
    ended = cancel(root, add(root, "a", SLEEP).job_id)
    assert cancel(root, ended.job_id) == ended
    with pytest.raises(LookupError, match="no job 99"):
        cancel(root, 99)


@pytest.mark.parametrize("state", ["queued", "running", "stopping"])
def test_a_run_that_waits_or_runs_is_not_queued_again(root: Path, state: str) -> None:
    first = add(root, "a", SLEEP)
    if state != "queued":
        claim(root, first.job_id, 0)
    if state == "stopping":
        cancel(root, first.job_id)
    assert add(root, "a", ["other"]).job_id == first.job_id
    assert states(root) == [state]


def test_a_run_that_ended_may_be_queued_again(root: Path) -> None:
    first = cancel(root, add(root, "a", SLEEP).job_id)
    assert add(root, "a", SLEEP).job_id != first.job_id


def test_many_at_once_submit_one_job_into_a_queue_that_none_has_made(root: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = {pool.submit(add, root, "a", SLEEP) for _ in range(16)}
    assert {future.result().job_id for future in numbers} == {1}


def test_a_full_queue_says_how_many_wait(root: Path) -> None:
    first = add(root, "a", SLEEP, most=2)
    add(root, "b", SLEEP, most=2)
    with pytest.raises(ValueError, match="2 jobs are waiting and 2 are allowed; cancel"):
        add(root, "c", SLEEP, most=2)
    assert add(root, "a", SLEEP, most=2) == first
    claim(root, first.job_id, 0)
    assert add(root, "c", SLEEP, most=2).state == "queued"


@pytest.mark.parametrize("argv", [[], "sleep 60", ["a\0b"]])
def test_an_argv_that_cannot_run_is_refused(root: Path, argv: list[str]) -> None:
    with pytest.raises(ValueError, match="argv"):
        add(root, "a", argv)
    assert list_jobs(root) == []


def test_a_damaged_file_is_named_with_what_to_do(root: Path) -> None:
    root.mkdir()
    (root / "jobs.sqlite").write_bytes(b"not a database at all" * 100)
    for ask in (lambda: list_jobs(root), lambda: add(root, "a", SLEEP), lambda: cancel(root, 1), lambda: move_to_front(root, 1)):
        with pytest.raises(ValueError, match=r"jobs\.sqlite is damaged .*move it out.*Runs are safe"):
            ask()


def test_a_row_that_cannot_be_read_is_damage_too(root: Path) -> None:
    add(root, "a", SLEEP)
    with sqlite3.connect(root / "jobs.sqlite") as database:
        database.execute("UPDATE jobs SET argv = '[torn'")
    database.close()
    with pytest.raises(ValueError, match="is damaged"):
        list_jobs(root)


def test_a_file_of_another_program_is_damage_too(root: Path) -> None:
    root.mkdir()
    with sqlite3.connect(root / "jobs.sqlite") as database:
        database.execute("CREATE TABLE jobs (name TEXT)")
    database.close()
    for ask in (lambda: list_jobs(root), lambda: add(root, "a", SLEEP), lambda: cancel(root, 1)):
        with pytest.raises(ValueError, match="is damaged"):
            ask()


def test_a_busy_file_is_not_called_damaged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BUSY_SECONDS", 0.05)
    number = add(root, "a", SLEEP).job_id
    other = sqlite3.connect(root / "jobs.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OSError, match="cannot be used now"):
        cancel(root, number)
    assert states(root) == ["queued"]  # reading does not wait for a writer
    other.close()


# --- small laws


def test_a_process_is_known_by_pid_and_time() -> None:
    process = subprocess.Popen(SLEEP)
    begun = psutil.Process(process.pid).create_time()
    assert is_alive(process.pid, begun)
    assert is_alive(process.pid, begun + 0.9)
    assert not is_alive(process.pid, begun - 5)
    process.kill()
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert not is_alive(process.pid, begun)
    process.wait()
    assert not any(is_alive(pid, begun) for pid in (process.pid, 0, -1, 2**70))


@pytest.mark.parametrize(
    ("returncode", "is_stopping", "has_done", "state"),
    [
        (0, False, False, "done"),
        (0, True, False, "done"),
        (1, False, True, "failed"),
        (143, False, False, "failed"),
        (143, True, False, "cancelled"),
        (-9, False, False, "lost"),
        (-15, True, False, "cancelled"),
        (None, False, True, "done"),
        (None, True, True, "done"),
        (None, True, False, "cancelled"),
        (None, False, False, "lost"),
    ],
)
def test_verdicts(returncode: int | None, is_stopping: bool, has_done: bool, state: str) -> None:
    assert verdict(returncode, is_stopping=is_stopping, has_done=has_done) == state


def test_the_environment_is_an_allow_list_without_secrets() -> None:
    parent = {"PATH": "p", "LC_ALL": "C", "OMP_NUM_THREADS": "1", "ROBUSTFT_X": "x", "HF_HOME": "h", "CUDA_VISIBLE_DEVICES": "0,1"}
    secret = {"FAKE_TOKEN": "t", "HF_TOKEN": "t", "ROBUSTFT_TOKEN": "t", "NVIDIA_API_KEY": "t", "AWS_SECRET_ACCESS_KEY": "t", "OTHER": "o"}
    slot = {"CUDA_VISIBLE_DEVICES": "1", "ANY_TOKEN": "given on purpose"}
    assert job_environment(parent | secret, slot) == parent | {"PYTHONUNBUFFERED": "1"} | slot


# --- jobs under a supervisor


def test_one_slot_runs_jobs_in_order_and_one_at_a_time(root: Path) -> None:
    book = root / "book"
    for name in "abc":
        add(root, name, ["sh", "-c", f"echo +{name} >> {book}; sleep 0.05; echo -{name} >> {book}"])
    supervise(root, **FAST)
    assert book.read_text().split() == ["+a", "-a", "+b", "-b", "+c", "-c"]
    assert states(root) == ["done"] * 3
    first = list_jobs(root)[0]
    assert (first.slot, first.returncode) == (0, 0)
    assert first.submitted <= first.started <= first.ended


def test_two_slots_run_two_at_once_each_with_its_environment(root: Path) -> None:
    def meet(name: str, other: str) -> list[str]:
        return ["sh", "-c", f"touch {root}/{name}; until [ -e {root}/{other} ]; do sleep 0.02; done; echo slot $SLOT"]

    add(root, "a", meet("a", "b"))
    add(root, "b", meet("b", "a"))
    supervise(root, slots=[{"SLOT": "zero"}, {"SLOT": "one"}], **FAST)
    assert states(root) == ["done", "done"]
    assert [row.slot for row in list_jobs(root)] == [0, 1]
    assert [(root / "runs" / name / "log.txt").read_text() for name in "ab"] == ["slot zero\n", "slot one\n"]


def test_a_cancelled_job_never_starts(root: Path) -> None:
    cancel(root, add(root, "a", ["touch", str(root / "started")]).job_id)
    add(root, "b", ["true"])
    supervise(root, **FAST)
    assert states(root) == ["cancelled", "done"]
    assert not (root / "started").exists()


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code])
print(os.getpid(), child.pid, flush=True)
time.sleep(60)
"""


def read_log(root: Path, name: str) -> str:
    log = root / "runs" / name / "log.txt"
    return log.read_text() if log.exists() else ""


def test_cancelling_kills_a_tree_that_ignores_sigterm(root: Path, at_work: None) -> None:
    number = add(root, "a", [sys.executable, "-c", STUBBORN]).job_id
    wait_for(lambda: "ready" in read_log(root, "a"))
    pids = [int(word) for word in read_log(root, "a").split() if word.isdigit()]
    assert len(pids) == 2
    asked = time.monotonic()
    assert cancel(root, number).state == "stopping"
    wait_for(is_state(root, number, "cancelled"))
    assert time.monotonic() - asked >= 0.5
    assert not any(breathes(pid) for pid in pids)
    assert job(root, number).returncode == -signal.SIGKILL


def test_a_job_that_leaves_when_asked_is_not_waited_for(root: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); print('ready'); time.sleep(60)"
    number = add(root, "a", [sys.executable, "-c", code]).job_id
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(supervise, root, **FAST | {"grace_seconds": 30.0})
        wait_for(lambda: "ready" in read_log(root, "a"))
        cancel(root, number)
        ended.result(8)
    assert (job(root, number).state, job(root, number).returncode) == ("cancelled", 143)


@pytest.mark.parametrize("cancelled", [False, True])
def test_members_of_the_group_go_before_the_slot_is_free(root: Path, at_work: None, cancelled: bool) -> None:
    """The leader ends and leaves a child that ignores SIGTERM behind."""
    leave = f"sh -c 'trap \"\" TERM; echo $$ > {root}/child; while :; do sleep 0.05; done' & until [ -s {root}/child ]; do sleep 0.02; done; "
    number = add(root, "a", ["sh", "-c", leave + ("sleep 60" if cancelled else "exit 3")]).job_id
    wait_for(lambda: (root / "child").exists() and (root / "child").read_text())
    child = int((root / "child").read_text())
    wait_for(has_process(root, number))
    if cancelled:
        cancel(root, number)
    seen = ""
    while (seen := job(root, number).state) not in jobs.ENDED:
        alive = breathes(child)
        time.sleep(0.01)
    assert seen == ("cancelled" if cancelled else "failed")
    assert not breathes(child), alive


def test_a_failing_job_keeps_its_return_code_and_its_last_words(root: Path) -> None:
    number = add(root, "a", [sys.executable, "-c", "print('out'); raise SystemExit('because')"]).job_id
    supervise(root, **FAST)
    assert (job(root, number).state, job(root, number).returncode) == ("failed", 1)
    assert (root / "runs/a/log.txt").read_text() == "out\nbecause\n"


def test_a_second_attempt_appends_to_the_log(root: Path) -> None:
    for word in ("one", "two"):
        add(root, "a", ["echo", word])
        supervise(root, **FAST)
    assert (root / "runs/a/log.txt").read_text() == "one\ntwo\n"


def test_a_job_that_cannot_start_fails_and_the_next_one_runs(root: Path) -> None:
    add(root, "a", ["/no/such/python", "-m", "x"])
    (root / "file").touch()
    submit(root, "b", ["true"], folder=root / "file" / "below")
    add(root, "c", ["true"])
    supervise(root, **FAST)
    assert states(root) == ["failed", "failed", "done"]
    assert "could not start /no/such/python" in (root / "runs/a/log.txt").read_text()
    assert len((root / "runs/a/log.txt").read_text().splitlines()) == 1


def test_a_killed_job_is_lost(root: Path, at_work: None) -> None:
    number = add(root, "a", SLEEP).job_id
    wait_for(has_process(root, number))
    os.kill(job(root, number).pid, signal.SIGKILL)
    wait_for(is_state(root, number, "lost"))
    assert job(root, number).returncode == -signal.SIGKILL


def test_metacharacters_reach_the_program_verbatim(root: Path) -> None:
    words = ["$(touch x)", "a; b", "`c`", "*", "'\"", "--flag", "", "ä\n", "> out"]
    add(root, "a", [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *words])
    supervise(root, **FAST)
    assert json.loads((root / "runs/a/log.txt").read_text()) == words


def test_a_job_sees_no_token_and_no_input(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TOKEN", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")
    code = "import json, os, sys; print(json.dumps([dict(os.environ), sys.stdin.read(), os.getpid() == os.getsid(0)]))"
    given = add(root, "a", [sys.executable, "-c", code])
    supervise(root, slots=[{"CUDA_VISIBLE_DEVICES": "3"}], **FAST)
    environment, stdin, leads_session = json.loads((root / "runs/a/log.txt").read_text())
    assert "FAKE_TOKEN" not in environment
    assert (environment["CUDA_VISIBLE_DEVICES"], environment[detached.MARKER]) == ("3", given.marker)
    assert (stdin, leads_session) == ("", True)


# --- supervisors that die, meet and leave


def test_a_job_outlives_its_supervisor_and_is_adopted(root: Path) -> None:
    number = add(root, "a", hold(root, "a")).job_id
    first = start_supervisor(root)
    wait_for(has_process(root, number))
    kill(first)
    pid = job(root, number).pid
    add(root, "b", ["true"])
    second = start_supervisor(root)
    wait_for(lambda: take_and_leave(root) is False)
    time.sleep(0.1)  # some looks: the adopted job holds the only slot
    assert states(root) == ["running", "queued"]
    assert breathes(pid)
    let_go(root, "a")
    wait_for(lambda: states(root) == ["done", "done"])
    assert job(root, number).pid == pid
    kill(second)


def take_and_leave(root: Path) -> bool:
    """Whether the lock was free."""
    lock = take_lock(root)
    if lock is not None:
        os.close(lock)
    return lock is not None


def test_an_adopted_job_can_be_cancelled_with_its_tree(root: Path) -> None:
    number = add(root, "a", [sys.executable, "-c", STUBBORN]).job_id
    first = start_supervisor(root)
    wait_for(lambda: "ready" in read_log(root, "a") and job(root, number).pid is not None)
    kill(first)
    cancel(root, number)
    supervise(root, **FAST)
    assert states(root) == ["cancelled"]
    assert not any(breathes(int(word)) for word in read_log(root, "a").split() if word.isdigit())


def test_members_an_adopted_leader_left_behind_are_ended_too(root: Path) -> None:
    number = add(root, "a", ["sh", "-c", "sleep 60 & echo $!; exec sleep 60"]).job_id
    first = start_supervisor(root)
    wait_for(lambda: read_log(root, "a") and job(root, number).pid is not None)
    kill(first)
    os.kill(job(root, number).pid, signal.SIGKILL)
    supervise(root, **FAST)
    assert states(root) == ["lost"]
    assert not breathes(int(read_log(root, "a")))


def test_job_and_supervisor_killed_is_lost_and_stopping_is_cancelled(root: Path) -> None:
    numbers = [add(root, name, SLEEP).job_id for name in "ab"]
    first = start_supervisor(root, slots=({}, {}))
    wait_for(lambda: all(has_process(root, number)() for number in numbers))
    kill(first)
    for number in numbers:
        os.kill(job(root, number).pid, signal.SIGKILL)
    cancel(root, numbers[1])
    supervise(root, **FAST)
    assert states(root) == ["lost", "cancelled"]


def test_sigterm_ends_the_supervisor_and_not_its_job(root: Path) -> None:
    number = add(root, "a", hold(root, "a")).job_id
    first = start_supervisor(root)
    wait_for(has_process(root, number))
    first.terminate()
    assert first.wait(5) == 0
    assert states(root) == ["running"]
    assert breathes(job(root, number).pid)
    let_go(root, "a")
    supervise(root, **FAST)
    assert states(root) == ["done"]


def test_a_second_supervisor_returns_at_once(root: Path) -> None:
    number = add(root, "a", SLEEP).job_id
    first = start_supervisor(root)
    wait_for(has_process(root, number))
    begun = time.monotonic()
    supervise(root, idle_seconds=30.0)
    assert time.monotonic() - begun < 1
    assert states(root) == ["running"]
    cancel(root, number)
    wait_for(is_state(root, number, "cancelled"))
    kill(first)


def test_a_stranger_with_a_reused_pid_is_never_signalled(root: Path) -> None:
    stranger = subprocess.Popen(SLEEP, start_new_session=True)
    for name in "ab":
        claim(root, add(root, name, SLEEP).job_id, 0)
    for row in list_jobs(root):
        record_process(root, row.job_id, stranger.pid, psutil.Process(stranger.pid).create_time() - 100)
    cancel(root, 2)
    supervise(root, **FAST)
    assert states(root) == ["lost", "cancelled"]
    assert stranger.poll() is None
    kill(stranger)


def test_a_set_clock_does_not_make_a_stranger_of_an_adopted_job(root: Path) -> None:
    given = add(root, "a", SLEEP)
    process = subprocess.Popen(SLEEP, start_new_session=True, env={**os.environ, detached.MARKER: given.marker})
    claim(root, given.job_id, 0)
    record_process(root, given.job_id, process.pid, psutil.Process(process.pid).create_time() - 100)
    cancel(root, given.job_id)
    supervise(root, **FAST)
    assert process.wait(1) == -signal.SIGTERM


# --- killed between starting a process and writing down its pid


def test_a_process_that_was_never_written_down_is_found_by_its_marker(root: Path) -> None:
    given = add(root, "a", SLEEP)
    claim(root, given.job_id, 0)
    process = subprocess.Popen(hold(root, "a"), start_new_session=True, env={**os.environ, detached.MARKER: given.marker})
    (root / "runs/a").mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(supervise, root, **FAST)
        wait_for(has_process(root, given.job_id))
        assert (job(root, given.job_id).state, job(root, given.job_id).pid) == ("running", process.pid)
        let_go(root, "a")
        ended.result(8)
    assert process.wait(5) == 0
    assert states(root) == ["done"]


@pytest.mark.parametrize("is_right", [True, False])
def test_or_by_the_status_file_it_writes(root: Path, is_right: bool) -> None:
    given = add(root, "a", SLEEP)
    claim(root, given.job_id, 0)
    process = subprocess.Popen(SLEEP, start_new_session=True)
    status = {"pid": process.pid, "process_started": psutil.Process(process.pid).create_time() - (0 if is_right else 100)}
    (root / "runs/a").mkdir(parents=True)
    (root / "runs/a/status.json").write_text(json.dumps(status))
    cancel(root, given.job_id)
    supervise(root, **FAST)
    assert states(root) == ["cancelled"]
    assert process.poll() == (-signal.SIGTERM if is_right else None)
    kill(process)


@pytest.mark.parametrize("status", [None, "", "[1]", '{"pid": "x"}', '{"pid": 1}', '{"pid": 999999, "process_started": 1.0}'])
def test_or_is_lost(root: Path, status: str | None) -> None:
    given = add(root, "a", ["touch", str(root / "started")])
    claim(root, given.job_id, 0)
    (root / "runs/a").mkdir(parents=True)
    if status is not None:
        (root / "runs/a/status.json").write_text(status)
    supervise(root, **FAST)
    assert states(root) == ["lost"]
    assert not (root / "started").exists()


def test_a_supervisor_killed_right_after_starting_a_process_does_not_start_it_twice(root: Path) -> None:
    given = add(root, "a", ["sh", "-c", f"echo x >> {root}/count; sleep 60"])
    code = (
        "import os; from pathlib import Path; from robustft import supervisor\n"
        "supervisor.record_process = lambda *_: os.kill(os.getpid(), 9)\n"
        f"supervisor.supervise(Path({str(root)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, stderr=subprocess.DEVNULL, check=False).returncode == -signal.SIGKILL
    assert (job(root, given.job_id).state, job(root, given.job_id).pid) == ("running", None)
    wait_for(lambda: (root / "count").exists())
    second = start_supervisor(root)
    wait_for(has_process(root, given.job_id))
    assert (root / "count").read_text() == "x\n"
    cancel(root, given.job_id)
    wait_for(is_state(root, given.job_id, "cancelled"))
    kill(second)


# --- starting supervisors, and leaving when idle


def test_ensure_supervisor_starts_one_that_works_and_only_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    number = add(root, "a", hold(root, "a")).job_id
    argv = supervisor_argv(root, idle_seconds=0.0)
    assert ensure_supervisor(root, argv) is True
    wait_for(has_process(root, number))
    assert ensure_supervisor(root, argv) is False
    let_go(root, "a")
    wait_for(is_state(root, number, "done"))
    wait_for(lambda: take_and_leave(root))
    assert "job 1 done" in (root / "supervisor.log").read_text()


def test_ensure_supervisor_says_when_the_command_is_missing(root: Path) -> None:
    with pytest.raises(OSError, match="no/such"):
        ensure_supervisor(root, ["/no/such/program"])


def test_a_job_submitted_while_the_supervisor_leaves_is_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = supervisor.Supervisor._watch
    late = iter(["a"])

    def watch_then_submit(self: supervisor.Supervisor, *arguments: object) -> None:
        watch(self, *arguments)  # has decided to leave and still holds the lock
        for name in late:
            add(root, name, ["true"])
            assert ensure_supervisor(root, ["/no/such/program"]) is False

    monkeypatch.setattr(supervisor.Supervisor, "_watch", watch_then_submit)
    supervise(root, **FAST)
    assert states(root) == ["done"]


def test_no_job_is_stranded_by_supervisors_that_leave_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    argv = supervisor_argv(root, idle_seconds=0.0, poll_seconds=0.001)
    for name in "abcdef":
        number = add(root, name, ["true"]).job_id
        ensure_supervisor(root, argv)
        wait_for(is_state(root, number, "done"))


def test_a_supervisor_needs_a_slot(root: Path) -> None:
    with pytest.raises(ValueError, match="without slots"):
        supervise(root, slots=())


# --- trouble with the file


def test_a_locked_queue_delays_but_does_not_end_or_repeat(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(jobs, "BUSY_SECONDS", 0.02)
    add(root, "a", ["sh", "-c", f"echo x >> {root}/count"])
    other = sqlite3.connect(root / "jobs.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.4, other.close)
    release.start()
    supervise(root, **FAST | {"idle_seconds": 1.0})
    release.join()
    assert states(root) == ["done"]
    assert (root / "count").read_text() == "x\n"
    assert capsys.readouterr().err.count("will try again") == 1


def test_a_pid_or_an_end_that_could_not_be_written_is_written_later(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(root, "a", ["sh", "-c", f"echo x >> {root}/count; sleep 0.1; exit 3"])
    for name in ("record_process", "finish"):
        monkeypatch.setattr(supervisor, name, failing_once(getattr(supervisor, name)))
    supervise(root, **FAST)
    ended = job(root, 1)
    assert (ended.state, ended.returncode, ended.pid is not None) == ("failed", 3, True)
    assert (root / "count").read_text() == "x\n"


def failing_once(function: Callable[..., None]) -> Callable[..., None]:
    failures = iter([OSError("disk full")])

    def wrapped(*arguments: object) -> None:
        for failure in failures:
            raise failure
        function(*arguments)

    return wrapped


def test_a_queue_damaged_and_moved_away_under_a_supervisor_begins_anew(root: Path) -> None:
    number = add(root, "a", hold(root, "a")).job_id
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(supervise, root, **FAST | {"idle_seconds": 0.5})
        wait_for(has_process(root, number))
        wait_for(lambda: (root / "runs/a/begun").exists())
        (root / "bad").write_bytes(b"damaged" * 1000)
        os.replace(root / "bad", root / "jobs.sqlite")
        time.sleep(0.1)  # some looks at the damage
        for file in root.glob("jobs.sqlite*"):
            shutil.move(file, root / f"old-{file.name}")
        assert add(root, "b", ["true"]).job_id == number
        time.sleep(0.1)
        assert states(root) == ["queued"]  # the old job, which no row names, still has the slot
        let_go(root, "a")
        wait_for(is_state(root, number, "done"))
        ended.result(8)
