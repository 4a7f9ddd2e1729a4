"""The feature cache: whole or absent under any writer, mapped and not read, and never above its size."""

import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustft.feature_cache import cache_use, clear_oldest, limit_bytes, read_features, read_graph, write_features, write_graph
from robustft.graph import knn_graph
from robustft.types import UserError


def table(seed: int, n: int = 20, d: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


@given(seed=st.integers(0, 99), n=st.integers(1, 30), d=st.integers(1, 5))
def test_features_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, d: int) -> None:
    root = tmp_path_factory.mktemp("cache")
    write_features("key", table(seed, n, d), root)
    np.testing.assert_array_equal(read_features("key", root), table(seed, n, d))
    assert read_features("other key", root) is None


def test_features_are_mapped_and_torch_takes_them(tmp_path: Path) -> None:
    write_features("key", table(0), tmp_path)
    found = read_features("key", tmp_path)
    assert isinstance(found, np.memmap)
    torch.from_numpy(np.asarray(found)).add_(1)  # without a warning, and without reaching the disk
    np.testing.assert_array_equal(read_features("key", tmp_path), table(0))


def test_half_precision_is_stored_in_full(tmp_path: Path) -> None:
    write_features("key", table(0).astype(np.float16), tmp_path)
    assert read_features("key", tmp_path).dtype == np.float32


@pytest.mark.parametrize("damage", [b"", b"torn", "half", "wide", "pickle"])
def test_damaged_file_is_absent(damage: bytes | str, tmp_path: Path) -> None:
    write_features("key", table(0, 50, 8), tmp_path)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    if damage == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "wide":
        np.save(path.open("wb"), table(0).astype(np.float64))
    elif damage == "pickle":
        np.save(path.open("wb"), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(damage)
    assert read_features("key", tmp_path) is None


def test_graph_is_read_as_it_was_written_and_a_torn_one_is_absent(tmp_path: Path) -> None:
    graph = knn_graph(table(0), 5)
    write_graph("key", graph, tmp_path)
    found = read_graph("key", tmp_path)
    np.testing.assert_array_equal(found.indices, graph.indices)
    np.testing.assert_array_equal(found.similarities, graph.similarities)
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    assert read_graph("key", tmp_path) is None and read_graph("none", tmp_path) is None


# --- several writers --------------------------------------------------------------------------------------------------


def write_many(root: str) -> None:
    for _ in range(150):
        write_features("shared", table(7, 400, 32), Path(root))


def test_two_processes_that_write_one_key_never_show_a_torn_table(tmp_path: Path) -> None:
    writers = [multiprocessing.get_context("spawn").Process(target=write_many, args=(str(tmp_path),)) for _ in range(2)]
    for writer in writers:
        writer.start()
    expected, seen = table(7, 400, 32), 0
    while any(writer.is_alive() for writer in writers):
        found = read_features("shared", tmp_path)
        if found is not None:
            np.testing.assert_array_equal(found, expected)
            seen += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen > 10 and len(files(tmp_path)) == 1


def test_two_threads_of_one_process_do_not_share_a_half_written_file(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(60):
                write_features("shared", table(7, 100, 16), tmp_path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(files(tmp_path)) == 1
    np.testing.assert_array_equal(read_features("shared", tmp_path), table(7, 100, 16))


# --- size -------------------------------------------------------------------------------------------------------------


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(4):
        write_features(f"key {index}", table(index, 250, 1), tmp_path)  # 1,000 bytes and a header of 128
        os.utime(files(tmp_path)[0].parent)
    for index, path in enumerate(sorted(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (index, index))  # used at second 0, 1, 2 and 3
    assert read_features("key 0", tmp_path) is not None  # and key 0 again just now
    monkeypatch.setenv("ROBUSTFT_FEATURES_GB", "2.4e-6")
    assert clear_oldest(tmp_path) == 2 * 1128
    kept = [index for index in range(4) if read_features(f"key {index}", tmp_path) is not None]
    assert kept == [0, 3]
    assert cache_use(tmp_path).bytes == 2 * 1128 and cache_use(tmp_path).files == 2


def test_writing_keeps_to_the_size_and_to_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTFT_FEATURES_GB", "1e-9")
    for index in range(3):
        write_features(f"key {index}", table(index), tmp_path)
        assert read_features(f"key {index}", tmp_path) is not None, "what was just written is needed now"
        assert len(files(tmp_path)) == 1


def test_mapped_table_outlives_its_clearing(tmp_path: Path) -> None:
    write_features("key", table(0), tmp_path)
    found = read_features("key", tmp_path)
    assert clear_oldest(tmp_path, 0) > 0 and read_features("key", tmp_path) is None
    np.testing.assert_array_equal(found, table(0))


def test_only_features_and_graphs_are_cleared(tmp_path: Path) -> None:
    for name in ("runs/a/theta_1.safetensors", "datasets/x.safetensors", "features/.half.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    write_graph("key", knn_graph(table(0), 3), tmp_path)
    clear_oldest(tmp_path, 0)
    assert [path.read_bytes() for path in files(tmp_path)] == [b"mine"] * 3
    assert clear_oldest(tmp_path / "absent", 0) == 0 and cache_use(tmp_path / "absent").files == 0


@pytest.mark.parametrize("words", ["0", "-1", "many", "nan", "inf"])
def test_size_that_is_none_is_refused(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTFT_FEATURES_GB", words)
    with pytest.raises(UserError, match="ROBUSTFT_FEATURES_GB = .* give a positive number of gigabytes"):
        limit_bytes()


def test_size_without_a_word_is_five_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROBUSTFT_FEATURES_GB", raising=False)
    assert limit_bytes() == 5_000_000_000


def test_what_a_killed_writer_left_is_swept_once_it_is_old(tmp_path: Path) -> None:
    write_features("key", table(0), tmp_path)
    young, old = tmp_path / "features" / ".a.npy.1-1.part", tmp_path / "features" / ".b.npy.1-1.part"
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    write_features("other", table(1), tmp_path)
    assert young.exists() and not old.exists()
