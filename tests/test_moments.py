"""Moments of a run: what it keeps of its way, and what it does not."""

import numpy as np
import pytest

from robustft import store
from robustft.moments import get_moments, weights_at
from robustft.neighborhoods import get_features_of, get_neighborhood, get_overlap
from robustft.types import RunRecord, UserError


def test_steps_and_alphas_are_kept_in_order(finished_run: RunRecord, world_cache) -> None:
    moments = get_moments(finished_run.run_id, world_cache)
    assert [row["moment"] for row in moments] == ["step 1", "step 3", "step 4", *[f"alpha {k / 10:g}" for k in range(1, 10)]]
    assert len({row["weights"] for row in moments}) == len(moments), "every moment is another model"


def test_what_a_moment_says_is_what_its_features_say(finished_run: RunRecord, world_cache) -> None:
    for row in get_moments(finished_run.run_id, world_cache)[::4]:
        overlap = get_overlap(finished_run.run_id, "food", "color", 10, world_cache, row["moment"])
        assert row["kept"] == pytest.approx(overlap.kept.mean())


def test_models_near_the_start_kept_more_neighbours_than_the_end(finished_run: RunRecord, world_cache) -> None:
    rows = {row["moment"]: row for row in get_moments(finished_run.run_id, world_cache)}
    end = get_overlap(finished_run.run_id, "food", "color", 10, world_cache).kept.mean()
    assert rows["alpha 0.1"]["kept"] > rows["alpha 0.9"]["kept"] and rows["alpha 0.1"]["kept"] > end
    _, before, at = get_features_of(finished_run.run_id, "food", "color", world_cache, "alpha 0.1")
    _, _, after = get_features_of(finished_run.run_id, "food", "color", world_cache)
    assert np.abs(at - before).mean() < np.abs(after - before).mean()


def test_maps_of_a_moment_are_its_own(finished_run: RunRecord, world_cache) -> None:
    whole = get_neighborhood(finished_run.run_id, "food", "color", 10, world_cache)
    early = get_neighborhood(finished_run.run_id, "food", "color", 10, world_cache, "alpha 0.1")
    assert not np.array_equal(whole.maps.after, early.maps.after)


@pytest.mark.parametrize("moment", ["alpha 7", "../../x", "step 1\n", "alpha 0.1/../.."])
def test_unknown_moments_are_refused_with_those_there_are(finished_run: RunRecord, world_cache, moment: str) -> None:
    with pytest.raises(UserError, match="choose among step 1, step 3"):
        weights_at(finished_run.run_id, moment, world_cache)
    with pytest.raises(UserError, match="choose among"):
        get_neighborhood(finished_run.run_id, "food", "color", 10, world_cache, moment)


def test_runs_of_older_versions_have_none(finished_run: RunRecord, world_cache, tmp_path) -> None:
    folder = tmp_path / "runs" / finished_run.run_id
    folder.mkdir(parents=True)
    assert get_moments(finished_run.run_id, tmp_path) == []
    (folder / "moments.json").write_text('[{"moment": "step 1"}, 7]')
    (folder / "wise.json").write_text('[{"alpha": 0.5, "id_accuracy": 0.5}]')
    assert get_moments(finished_run.run_id, tmp_path) == []
    with pytest.raises(UserError, match="older version"):
        weights_at(finished_run.run_id, "step 1", tmp_path)
    assert store.run_folder(finished_run.run_id, tmp_path) == folder
