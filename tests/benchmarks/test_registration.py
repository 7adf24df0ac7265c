"""The parts of the registration benchmarks that must be right for their tables to be."""

import sys

import numpy as np
import pytest

from benchmarks.harness import store
from benchmarks.registration import peer_adapters, peers
from benchmarks.settled import optimisers
from benchmarks.speed import roofline
from cardiacreg import write_labels
from cardiacreg.geometry import voxel_grid
from cardiacreg.phantoms.toy_heart import make_toy_heart


@pytest.fixture
def pair(tmp_path):
    """A folder with one heart twice, and its positions."""
    labels = make_toy_heart().labels
    for name in ("fixed", "moving"):
        write_labels(tmp_path / f"{name}.nii.gz", labels)
    np.savetxt(tmp_path / "affine.txt", np.eye(4))
    return tmp_path, voxel_grid(labels.shape, labels.voxel_to_world)


class TestPeers:
    def test_a_heart_on_itself_scores_perfectly(self, pair):
        folder, positions = pair
        np.save(folder / "map.npy", positions)
        found = peers._scores(folder)
        assert found["mean_dice"] == 1
        assert found["surface_distance_mm"] == 0
        assert found["folded_share"] == 0

    def test_a_mirrored_map_folds_everywhere_and_fits_worse(self, pair):
        folder, positions = pair
        np.save(folder / "map.npy", positions[::-1])
        found = peers._scores(folder)
        assert found["folded_share"] == 1
        assert found["mean_dice"] < 1

    def test_the_affine_peer_runs_as_a_program(self, pair):
        folder, positions = pair
        found = peers._measured(peers._peer("affine alone"), folder)
        assert found["mean_dice"] == 1
        assert found["cpu_seconds"] >= 0
        np.testing.assert_allclose(np.load(folder / "map.npy"), positions, atol=1e-9)

    def test_what_fails_tells_why(self, pair):
        command = [sys.executable, "-c", "raise RuntimeError('not here')"]
        with pytest.raises(peers.NotRun, match="^RuntimeError: not here$"):
            peers._measured(command, pair[0])

    def test_what_takes_too_long_is_stopped_and_says_so(self, pair):
        endless = (
            "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass"
        )
        found = peers._measured([sys.executable, "-c", endless], pair[0])
        assert found == {"reason": f"stopped at {peers.LIMIT_SECONDS} processor seconds"}

    def test_what_did_not_run_is_a_row(self, monkeypatch, tmp_path):
        monkeypatch.setattr(store, "FOLDER", tmp_path)
        command = [sys.executable, "-c", "raise RuntimeError('not here')"]
        unit = peers._unit("synthetic", peers._tiny_pair, "some peer", command)
        records = [peers._with_reason(r) for r in store.gather("peers", [unit])]
        reason = "RuntimeError: not here"
        assert records == [{"pair": "synthetic", "method": "some peer", "reason": reason}]
        table = peers.tables({"records": records})["peers-synthetic"]
        assert f"| some peer | {reason} |" in table
        assert not list(tmp_path.rglob("*.json"))

    def test_the_front_takes_the_cheapest_of_ours_that_is_as_close_and_does_not_fold(self):
        def record(method, cpu_seconds, distance_mm, folded=0.0):
            return {
                "pair": "synthetic", "method": method, "cpu_seconds": cpu_seconds,
                "first_cpu_seconds": 2 * cpu_seconds, "peak_memory_mib": 1.0, "mean_dice": 0.9,
                "dice": {"1": 0.9}, "surface_distance_mm": distance_mm, "folded_share": folded,
                "least_determinant": 0.1,
            }  # fmt: skip

        records = [
            record("cardiacreg 8 mm", 0.25, 0.3), record("cardiacreg 4 mm", 2.0, 0.1),
            record("cardiacreg 5 mm", 1.0, 0.2), record("cardiacreg 6 mm", 0.5, 0.2, folded=0.1),
            record("a peer", 20.0, 0.25), record("a closer peer", 30.0, 0.05),
        ]  # fmt: skip
        rows = peers.tables({"records": records})["peers-synthetic-front"].splitlines()[2:]
        assert [cell.strip() for cell in rows[0].strip("|").split("|")] == [
            "a peer", "0.250", "20.0", "5 mm", "0.200", "1.00", "20", "10",
        ]  # fmt: skip
        assert "none" in rows[1]

    def test_itk_displacements_become_positions(self, pair):
        folder, positions = pair
        given = peer_adapters.Pair(folder, 1)
        moved = np.zeros((*positions.shape[:3][::-1], 3))
        moved[3, 2, 1] = (1.0, 2.0, 3.0)
        found = given.total(moved) - positions
        np.testing.assert_allclose(found[1, 2, 3], (-1.0, -2.0, 3.0), atol=1e-9)


def test_conjugate_gradients_find_the_minimum_of_a_quadratic():
    matrix = np.diag([1.0, 4.0, 9.0])

    def function(x):
        return float((x - 1) @ matrix @ (x - 1)) / 2, matrix @ (x - 1)

    found = optimisers.conjugate_gradients(
        function, np.zeros(3), iterations=60, first_step=0.5, tolerance=0.0,
        largest_change=lambda d: float(np.abs(d).max()),
    )  # fmt: skip
    np.testing.assert_allclose(found.x, 1, atol=1e-3)


def test_limits_are_plausible():
    assert 0.1 < roofline._peak_gflops() < 1000
    assert 0.1 < roofline._bandwidth_gbytes() < 5000
