"""Our measures against those of MONAI and SimpleITK (Hausdorff and surface Dice: see test_metrics).

MONAI comes with the extra ``test-peers``; where a peer is absent its tests are skipped.
"""

import warnings

import numpy as np
import pytest
from scipy import ndimage

from cardiacreg import LabelMap
from cardiacreg.metrics import overlap
from tests.helpers.small_hearts import matrix, small_heart

SPACING = (1.25, 1.5, 2.0)


def peer(name):
    """Import a peer, or skip; what it warns about at import is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            name, reason=f"{name} is not installed; see the extra test-peers"
        )


def blobs(seed, shape=(26, 24, 18)):
    """Two overlapping smooth blobs that touch no border."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    distance = np.linalg.norm(np.indices(shape) - np.array(shape)[:, None, None, None] / 2, axis=0)
    first = field / field.std() + 3 - distance / 2 > 0
    second = np.roll(ndimage.binary_dilation(first, iterations=1), (1, -1, 1), axis=(0, 1, 2))
    second &= ndimage.gaussian_filter(rng.normal(size=shape), 2) < 0.05
    return first, second


PAIRS = [blobs(seed) for seed in range(4)]


def maps(pair):
    return tuple(LabelMap(mask.astype(np.uint8), matrix(SPACING)) for mask in pair)


def one_hot(mask):
    torch = peer("torch")
    stacked = np.stack([~mask, mask])[None]
    return torch.from_numpy(stacked.astype(np.float32))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # raised inside MONAI
@pytest.mark.parametrize("pair", PAIRS)
class TestMonai:
    def measure(self, name, pair, **options):
        found = getattr(peer("monai.metrics"), name)(
            one_hot(pair[0]), one_hot(pair[1]), include_background=False, **options
        )
        return float(found)

    def test_dice(self, pair):
        theirs = self.measure("compute_dice", pair)
        assert overlap.dice(*maps(pair), 1) == pytest.approx(theirs, abs=1e-6)

    def test_hausdorff(self, pair):
        theirs = self.measure("compute_hausdorff_distance", pair, spacing=SPACING)
        assert overlap.hausdorff_mm(*maps(pair), 1) == pytest.approx(theirs, abs=1e-4)

    def test_hausdorff95(self, pair):
        theirs = self.measure("compute_hausdorff_distance", pair, spacing=SPACING, percentile=95)
        assert overlap.hausdorff95_mm(*maps(pair), 1) == pytest.approx(theirs, abs=1e-4)

    def test_average_surface_distance(self, pair):
        theirs = self.measure(
            "compute_average_surface_distance", pair, spacing=SPACING, symmetric=True
        )
        assert overlap.average_surface_distance_mm(*maps(pair), 1) == pytest.approx(
            theirs, abs=1e-4
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside SimpleITK
class TestSimpleITK:
    def image(self, array):
        sitk = peer("SimpleITK")
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.astype(np.uint8).T))
        image.SetSpacing(SPACING)
        return image

    @pytest.mark.parametrize("pair", PAIRS)
    def test_dice(self, pair):
        measure = peer("SimpleITK").LabelOverlapMeasuresImageFilter()
        measure.Execute(*(self.image(mask) for mask in pair))
        assert overlap.dice(*maps(pair), 1) == pytest.approx(measure.GetDiceCoefficient())

    def test_volumes_and_components(self):
        sitk = peer("SimpleITK")
        heart = small_heart()
        image = sitk.GetImageFromArray(np.ascontiguousarray(heart.array.T))
        image.SetSpacing([float(step) for step in heart.spacing_mm])
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(image)
        ours = overlap.volumes_ml(heart)
        for label, name in ((1, "LV cavity"), (2, "LV wall"), (4, "RV cavity")):
            assert ours[name] == pytest.approx(shape.GetPhysicalSize(label) / 1000)
            pieces = sitk.ConnectedComponent(image == label, False)
            found = len(np.unique(sitk.GetArrayFromImage(pieces))) - 1
            assert overlap.count_components(heart, label) == found
