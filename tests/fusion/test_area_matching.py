"""Every acquired slice shows each structure as large as it was drawn; nothing else changes."""

import numpy as np
from hypothesis import given, strategies as st
from scipy import ndimage

from cardiacreg import LabelMap
from cardiacreg.fusion import area_matching
from cardiacreg.fusion.area_matching import _LARGEST_OFFSET, match_areas, slice_offsets
from cardiacreg.geometry import LV_CAVITY, LV_WALL, N_LABELS, RV_CAVITY, RV_WALL
from cardiacreg.transforms.resampling import Lattice
from tests.helpers.strategies import light

DRAWN = (RV_CAVITY, LV_CAVITY, LV_WALL)
SIZE = 72
N_ATLASES = 5


def plane(*, cavity=11.0, wall=16.0, rv=14.0):
    """One slice: an LV ring, and an RV crescent with a thin wall beside it; no two pixels are alike."""
    i, j = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    from_lv = np.hypot(i - 42.31, j - 36.17)
    from_rv = np.hypot(i - 28.13, (j - 35.79) / 1.2)
    array = np.where(from_rv < rv + 2, RV_WALL, 0)
    array[from_rv < rv] = RV_CAVITY
    array[from_lv < wall] = LV_WALL
    array[from_lv < cavity] = LV_CAVITY
    return array.astype(np.uint8)


def soft(labels, width=2.0):
    """Shares of votes with soft edges, shape (..., N_LABELS), that add up to 1."""
    sigma = (width,) * 2 + (0,) * (labels.ndim - 2)
    shares = [
        ndimage.gaussian_filter((labels == n).astype(float), sigma, mode="nearest")
        for n in range(N_LABELS)
    ]
    return np.stack(shares, axis=-1)


def areas(shares, offsets=0.0):
    """Pixels that each label wins."""
    return np.bincount((shares + offsets).argmax(axis=-1).ravel(), minlength=N_LABELS)


def one_slice(drawn, model, width=2.0):
    """Shares of a model's slice, and offsets for a drawn one."""
    shares = soft(model, width).reshape(-1, N_LABELS)
    return shares, slice_offsets(shares, drawn.ravel(), DRAWN)


sizes = st.fixed_dictionaries(
    {"cavity": st.floats(10.6, 11.4), "wall": st.floats(15.6, 16.4), "rv": st.floats(13.6, 14.4)}
)


class TestOffsets:
    @light
    @given(sizes, sizes)
    def test_areas_come_close_to_those_drawn(self, drawn, model):
        """Labels are matched in turn, and each moves its neighbours again: a few pixels are left."""
        for found, wanted in self.matched(drawn, model):
            assert abs(found - wanted) <= 0.025 * wanted

    def test_areas_are_those_drawn_to_a_pixel_in_the_end(self, monkeypatch):
        monkeypatch.setattr(area_matching, "_ROUNDS", 100)
        for drawn, model in (
            ((11.2, 15.9, 14.1), (11.0, 16.0, 14.0)),
            ((10.8, 16.1, 13.9), (11, 16, 14)),
        ):
            pairs = [
                dict(zip(("cavity", "wall", "rv"), each, strict=True)) for each in (drawn, model)
            ]
            counted = self.matched(*pairs)
            assert len(counted) == 4
            assert all(abs(found - wanted) <= 1 for found, wanted in counted)

    def matched(self, drawn, model):
        """Pixels won, and wanted, of every label; nothing where an offset reached its limit."""
        own = plane(**drawn)
        shares, offsets = one_slice(own, plane(**model))
        assert (np.abs(offsets) <= _LARGEST_OFFSET).all() and offsets[0] == 0
        if (np.abs(offsets) == _LARGEST_OFFSET).any():
            return []
        found, before = areas(shares, offsets), areas(shares)
        wanted = {label: int((own == label).sum()) for label in DRAWN} | {
            RV_WALL: int(before[RV_WALL])
        }
        return [(int(found[label]), count) for label, count in wanted.items()]

    def test_where_areas_match_nothing_changes(self):
        shares = soft(plane()).reshape(-1, N_LABELS)
        won = shares.argmax(axis=1).astype(np.uint8)
        offsets = slice_offsets(shares, won, DRAWN)
        np.testing.assert_array_equal((shares + offsets).argmax(axis=1), won)

    def test_a_shifted_outline_of_the_same_size_leaves_no_trace(self):
        model = plane()
        shares = soft(model).reshape(-1, N_LABELS)
        moved = np.roll(shares.argmax(axis=1).reshape(SIZE, SIZE), (3, -2), axis=(0, 1))
        offsets = slice_offsets(shares, moved.ravel().astype(np.uint8), DRAWN)
        np.testing.assert_array_equal((shares + offsets).argmax(axis=1), shares.argmax(axis=1))

    def test_labels_are_categories(self):
        """Trading the labels of the left cavity and wall trades their offsets."""
        own = plane(cavity=12.0).ravel()
        shares = soft(plane()).reshape(-1, N_LABELS)
        offsets = slice_offsets(shares, own, DRAWN)
        order = np.arange(N_LABELS)
        order[[LV_CAVITY, LV_WALL]] = LV_WALL, LV_CAVITY
        traded = slice_offsets(shares[:, order], order[own], tuple(order[list(DRAWN)]))
        np.testing.assert_allclose(traded, offsets[order], rtol=0, atol=1e-12)

    def test_a_structure_that_a_slice_does_not_show_wins_nothing_there(self):
        own = plane()
        own[own == RV_CAVITY] = 0
        own[own == RV_WALL] = 0
        shares, offsets = one_slice(own, np.where(plane(rv=5.0) == RV_WALL, 0, plane(rv=5.0)))
        assert areas(shares)[RV_CAVITY] > 0
        assert -_LARGEST_OFFSET < offsets[RV_CAVITY] < 0
        assert areas(shares, offsets)[RV_CAVITY] == 0

    def test_a_structure_that_neither_slice_nor_model_shows_is_not_lifted(self):
        """Its offset would make it larger between this slice and the next, which does show it."""
        own = np.where(np.isin(plane(), (RV_CAVITY, RV_WALL)), 0, plane())
        _, offsets = one_slice(own, own)
        assert offsets[RV_CAVITY] == offsets[RV_WALL] == 0

    def test_offsets_are_bounded(self):
        shares, offsets = one_slice(plane(cavity=14.0, wall=25.0), plane(cavity=5.0, wall=8.0))
        assert np.abs(offsets).max() == _LARGEST_OFFSET
        assert areas(shares, offsets)[LV_CAVITY] > areas(shares)[LV_CAVITY]

    def test_a_structure_without_outlines_is_left_alone(self):
        own = plane()
        offsets = slice_offsets(soft(own).reshape(-1, N_LABELS), own.ravel(), (LV_CAVITY,))
        assert not offsets[[0, LV_WALL, RV_WALL, RV_CAVITY]].any()


PIXEL_MM, DISTANCE_MM, FINE_MM = 1.5, 10.0, 2.0
N_SLICES, BEYOND = 4, 8


def stack(drawn, *, flip=False):
    """Equal slices, the first and the last one empty."""
    array = np.zeros((SIZE, SIZE, N_SLICES + 2), dtype=np.uint8)
    array[:, :, 1:-1] = drawn[:, :, None]
    matrix = np.diag([PIXEL_MM, PIXEL_MM, DISTANCE_MM, 1.0])
    if flip:
        matrix[2, 3] = DISTANCE_MM * (N_SLICES + 1)
        matrix[2, 2] *= -1
    return LabelMap(array, matrix)


def votes_of(model, *, shift=(0, 0)):
    """Votes of the same slice at every height of a finer lattice that goes past the stack."""
    depth = int((N_SLICES + 1) * DISTANCE_MM / FINE_MM) + 2 * BEYOND + 1
    moved = np.roll(soft(model), shift, axis=(0, 1)) * N_ATLASES
    votes = np.repeat(moved[:, :, None], depth, axis=2).astype(np.float32)
    matrix = np.diag([PIXEL_MM, PIXEL_MM, FINE_MM, 1.0])
    matrix[2, 3] = -BEYOND * FINE_MM
    return votes, Lattice(votes.shape[:3], matrix)


def height(k):
    """The lattice's slice at a slice of the stack."""
    return BEYOND + round(k * DISTANCE_MM / FINE_MM)


NO_SHIFTS = np.zeros((N_SLICES + 2, 2))


def matched(votes, *given):
    """The votes after matching; those given stay."""
    return match_areas(votes.copy(), *given)


class TestVotes:
    def test_areas_match_at_the_slices_and_between_them(self):
        drawn, (votes, lattice) = plane(cavity=11.5, wall=16.3), votes_of(plane())
        found = matched(votes, lattice, stack(drawn), NO_SHIFTS)
        assert found.shape == votes.shape and found.dtype == np.float32
        for z in range(height(1), height(N_SLICES) + 1):
            counted = areas(found[:, :, z])
            for label in DRAWN:
                wanted = int((drawn == label).sum())
                assert abs(int(counted[label]) - wanted) <= 0.025 * wanted

    def test_offsets_that_enlarge_fade_over_one_slice_distance_beyond_the_labels(self):
        votes, lattice = votes_of(plane())
        added = matched(votes, lattice, stack(plane(cavity=12.0)), NO_SHIFTS) - votes
        np.testing.assert_allclose(added, np.broadcast_to(added[:1, :1], added.shape), atol=1e-5)
        offsets = added[0, 0]
        at_slice = offsets[height(1)]
        assert at_slice[LV_CAVITY] > 0.01 and at_slice.min() < -0.01
        kept = np.minimum(at_slice, 0)
        for share in (0.2, 0.4, 0.8):
            for faded in (offsets[height(1 - share)], offsets[height(N_SLICES + share)]):
                expected = np.where(at_slice > 0, (1 - share) * at_slice, kept)
                np.testing.assert_allclose(faded, expected, atol=1e-5)
        for beyond in (offsets[: height(0) + 1], offsets[height(N_SLICES + 1) :]):
            np.testing.assert_allclose(beyond, np.broadcast_to(kept, beyond.shape), atol=1e-5)

    def test_a_small_structure_does_not_swell_before_it_ends(self):
        """Drawn small in two slices; the atlases have it large until shortly before the third."""
        votes, lattice = votes_of(plane())
        gone = height(2.7)
        votes[:, :, gone:, LV_WALL] += votes[:, :, gone:, LV_CAVITY]
        votes[:, :, gone:, LV_CAVITY] = 0
        shown, absent = plane(cavity=9.5), plane()
        absent[absent == LV_CAVITY] = LV_WALL
        drawn = stack(shown)
        array = drawn.array.copy()
        array[:, :, 3:-1] = absent[:, :, None]
        found = matched(votes, lattice, LabelMap(array, drawn.voxel_to_world), NO_SHIFTS)
        offsets = (found - votes)[0, 0, :, LV_CAVITY]
        assert offsets[height(2)] < -0.01
        np.testing.assert_allclose(offsets[height(2) : gone], offsets[height(2)], atol=1e-5)

    def test_a_stack_stored_from_the_other_end_gives_the_same(self):
        votes, lattice = votes_of(plane())
        drawn = stack(plane(cavity=12.0))
        other = LabelMap(drawn.array[:, :, ::-1], stack(plane(), flip=True).voxel_to_world)
        np.testing.assert_allclose(
            matched(votes, lattice, other, NO_SHIFTS),
            matched(votes, lattice, drawn, NO_SHIFTS),
            atol=1e-5,
        )

    def test_slices_are_looked_at_where_they_truly_lie(self):
        drawn = stack(plane(cavity=12.0))
        votes, lattice = votes_of(plane())
        expected = matched(votes, lattice, drawn, NO_SHIFTS) - votes
        moved, lattice = votes_of(plane(), shift=(2, -3))
        shifts = np.tile([2 * PIXEL_MM, -3 * PIXEL_MM], (N_SLICES + 2, 1))
        found = matched(moved, lattice, drawn, shifts) - moved
        np.testing.assert_allclose(found[0, 0], expected[0, 0], atol=1e-5)

    def test_slices_differ_and_offsets_between_them_are_interpolated(self):
        drawn = np.array(stack(plane()).array)
        drawn[:, :, 2] = plane(cavity=12.5, wall=17.5)
        votes, lattice = votes_of(plane())
        target = LabelMap(drawn, stack(plane()).voxel_to_world)
        offsets = (matched(votes, lattice, target, NO_SHIFTS) - votes)[0, 0]
        between = (offsets[height(1)] * 2 + offsets[height(2)] * 3) / 5
        np.testing.assert_allclose(offsets[height(1.6)], between, atol=1e-5)
        assert offsets[height(2)][LV_CAVITY] > offsets[height(1)][LV_CAVITY] + 0.05


class TestCertainty:
    """A structure that is drawn with doubt is matched in part."""

    def matched(self, sure):
        drawn = np.repeat(plane(cavity=12.5, wall=16.0)[..., None], 3, axis=2)
        matrix = np.diag([1.5, 1.5, 8.0, 1.0])
        votes = (N_ATLASES * soft(np.repeat(plane()[..., None], 3, axis=2))).astype(np.float32)
        certainty = None if sure is None else np.full(drawn.shape, sure, np.float32)
        target = LabelMap(drawn, matrix)
        found = match_areas(
            votes.copy(), Lattice(drawn.shape, matrix), target, np.zeros((3, 2)), certainty
        )
        return found, votes

    def test_half_sure_is_sure_enough(self):
        plain, _ = self.matched(None)
        for sure in (1.0, 0.5):
            np.testing.assert_array_equal(self.matched(sure)[0], plain)

    def test_less_is_matched_in_part_and_nothing_not_at_all(self):
        plain, votes = self.matched(None)
        part, none = self.matched(0.25)[0], self.matched(0.0)[0]
        wall = LV_WALL
        np.testing.assert_allclose(
            (part - votes)[..., wall], 0.5 * (plain - votes)[..., wall], atol=1e-4
        )
        np.testing.assert_array_equal(none[..., wall], votes[..., wall])
