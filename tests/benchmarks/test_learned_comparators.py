"""The networks of Table V and a network's labels, as the benchmarks use them; training takes seconds."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.harness import cases, measuring  # noqa: E402
from benchmarks.network import learned_comparators as learned, network_labels  # noqa: E402
from cardiacreg import LabelMap, sample_heart  # noqa: E402
from cardiacreg.geometry import STRUCTURES  # noqa: E402

TINY = learned.Effort(hearts=1, steps=2, batch=1)


class Whole(torch.nn.Module):
    """A network that gives back what it is given."""

    def forward(self, x):
        return 20.0 * x


def shares():
    """One degraded heart and its truth as label shares."""
    boxes = learned._boxes(learned._heart(0), seed=3)
    return [learned._shares(torch.from_numpy(box[None])) for box in boxes]


@pytest.fixture(scope="module")
def heart():
    """A heart whose case has coarse voxels."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (cases, network_labels):
            patch.setattr(module, "sample_heart", partial(sample_heart, spacing_mm=(2.5, 2.5, 4.0)))
        cases._synthetic_case.cache_clear()
        yield cases.synthetic_hearts(1)[0]
        cases._synthetic_case.cache_clear()


class TestLearned:
    def test_a_network_that_changes_nothing_gives_the_repeated_slices_back(self, heart):
        case = heart.case()
        found = learned.complete(case, Whole())
        expected = learned.baselines.interpolate_nearest(case.target.labels, case.truth)
        assert found.shape == case.truth.shape
        assert (found.array == expected.array).mean() > 0.97

    def test_pairs_are_shares_of_one_place(self):
        given, wanted = shares()
        assert given.shape == wanted.shape == (1, 5, *(n // 2 for n in learned.BOX))
        torch.testing.assert_close(wanted.sum(1), torch.ones_like(wanted[:, 0]))
        middle = wanted[0, 1:].sum(0).nonzero().float().mean(0)
        assert (middle - torch.tensor(given.shape[2:]) / 2).abs().max() < 6
        agreement = (given.argmax(1) == wanted.argmax(1)).float().mean()
        assert 0.9 < agreement < 1

    def test_training_hearts_are_in_no_bank_and_in_no_evaluation(self):
        evaluated = {heart.seed for heart in cases.synthetic_hearts(1000)}
        assert not evaluated & set(range(learned.FIRST_SEED, learned.FIRST_SEED + 1000))

    def test_an_interrupted_training_ends_with_the_same_weights(self, tmp_path, monkeypatch):
        whole = learned.trained("3D-Seg", TINY, tmp_path / "whole")
        monkeypatch.setattr(learned, "_EVERY_STEPS", 1)
        batch = learned._batch

        def stop(step, effort, device):
            if step == 1:
                raise KeyboardInterrupt
            return batch(step, effort, device)

        monkeypatch.setattr(learned, "_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            learned.trained("3D-Seg", TINY, tmp_path / "halves")
        monkeypatch.setattr(learned, "_batch", batch)
        again = learned.trained("3D-Seg", TINY, tmp_path / "halves")
        assert again.about["steps"] == 2 and again.about["losses"] == whole.about["losses"]
        for first, second in zip(
            whole.network.parameters(), again.network.parameters(), strict=True
        ):
            assert torch.equal(first, second)

    def test_kept_stacks_come_back_and_weights_from_a_gpu_are_preferred(
        self, tmp_path, monkeypatch
    ):
        effort = learned.Effort(hearts=1, steps=1, batch=2, views=2)
        kept = [learned._boxes(learned._heart(0), seed) for seed in (0, 1)]
        monkeypatch.setattr(learned, "_kept_pairs", lambda _: [kept])
        x, y = learned._batch(0, effort, torch.device("cpu"))
        own = [learned._shares(torch.from_numpy(box[None])) for box, _ in kept]
        assert all(any(torch.equal(row, each[0]) for each in own) for row in x)
        assert torch.equal(y[0], y[1])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert learned.best_effort(tmp_path) is learned.EFFORT
        for name in learned.NAMES:
            learned._weights(name, learned.GPU_EFFORT, tmp_path).touch()
        assert learned.best_effort(tmp_path) is learned.GPU_EFFORT

    def test_codes_of_equal_shapes_cost_nothing_and_others_something(self):
        network = learned._built("3D-AE").eval()
        _, wanted = shares()
        given = torch.nn.functional.one_hot(wanted.argmax(1), 5).movedim(4, 1).float()
        plain = learned._loss("3D-ACNN", Whole(), None, given, given)
        same = learned._loss("3D-ACNN", Whole(), network, given, given)
        other = learned._loss("3D-ACNN", Whole(), network, given.roll(3, 2), given)
        torch.testing.assert_close(same, plain, rtol=0, atol=1e-3)
        assert other > learned._loss("3D-ACNN", Whole(), None, given.roll(3, 2), given)


class TestNetworkLabels:
    def test_the_wider_image_belongs_to_the_same_stack(self, heart):
        target, wide = heart.case().target.labels, network_labels.wide_stack(heart)
        width = (wide.labels.shape[0] - target.shape[0]) // 2
        inner = wide.labels.array[width:-width, width:-width]
        assert width > 0 and (inner == target.array).all()
        shift = wide.labels.voxel_to_world[:3, :3] @ [width, width, 0]
        np.testing.assert_allclose(
            wide.labels.voxel_to_world[:3, 3] + shift, target.voxel_to_world[:3, 3]
        )
        assert wide.image.shape == wide.labels.shape

    def test_true_labels_agree_with_themselves(self, heart):
        case = heart.case()
        labels = LabelMap(case.target.labels.array, case.target.labels.voxel_to_world)
        assert set(network_labels._slice_dice(labels, case).values()) == {1.0}

    def test_tables_have_a_row_per_network_and_count_failures(self, heart):
        case, records = heart.case(), []
        for source in (network_labels.TRUE, *network_labels.NETWORKS):
            for way in (network_labels.SIMPLE, network_labels.REFINED):
                own = measuring.scored(case, f"{source}, {way}", case.truth, 0.0)
                records.append(own | {"slice_dice": dict.fromkeys(STRUCTURES.values(), 0.5)})
        crash = {"case": "other", "method": "U-Net, refined", "error": "x"}
        found = network_labels.tables({"records": [*records, crash]})
        assert found["network-labels-in"].count("0.500 ± 0.000") == 2 * len(STRUCTURES)
        assert "SSLLN, refined minus true labels, refined" in found["network-labels-significance"]
        assert "| U-Net, refined | 2 | 1 |" in found["network-labels-robustness"]
