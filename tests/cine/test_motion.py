"""A cine is read back as it was, follows points as it did, and tells its motion as a field."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, replace

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

import cardiacreg
from cardiacreg import FFD, Affine, FFDChain, InvalidInputError, Lattice, RefineOptions
from cardiacreg.cine.files import FILE_NAMES
from cardiacreg.cli.app import main
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import LabelMap, voxel_grid
from cardiacreg.phantoms.toy_heart import make_toy_heart
from tests.helpers.equivalent_inputs import mirrored, moved
from tests.helpers.turned_hearts import rotation_matrix

SIZES = (1.0, 0.92, 0.84, 0.9)
SAME = ("orientation", "ends", "findings", "warnings", "provenance", "atlases", "timings_seconds",
        "minimum_jacobian", "ed", "es", "ejection_fractions")  # fmt: skip
OF_FRAMES = ("number", "agreement", "volumes", "findings", "minimum_jacobian", "filled_in",
             "time_ms", "volumes_ml")  # fmt: skip


@pytest.fixture(scope="module")
def cine():
    """Four frames, stored mirrored and turned in the world; the last has no labels."""
    world = rotation_matrix((20, -30, 40))
    series = [moved(mirrored(make_toy_heart(size=size).labels, 1), world) for size in SIZES]
    series[3] = LabelMap(np.zeros(series[3].shape, np.uint8), series[3].voxel_to_world)
    atlases = [make_toy_heart(size=size) for size in (0.8, 0.9, 1.02)]
    options = RefineOptions(n_atlases=2, orientation="as-stored", affine_candidates=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return cardiacreg.refine_cine(
            series, atlases=atlases, spacing_mm=(2.5, 2.5, 4.0), options=options, threads=2,
            times_ms=[0.0, 150.0, 300.0, 450.0],
        )  # fmt: skip


@pytest.fixture
def folder(cine, tmp_path):
    return cine.save(tmp_path / "out", transforms=True)


def heart_points(cine):
    """Voxel centres in the muscle at end-diastole."""
    labels = cine.frames[cine.ed].labels
    grid = voxel_grid(labels.shape, labels.voxel_to_world)
    return grid[labels.array == 2][::20]


class TestReadingBack:
    def test_everything_comes_back(self, cine, folder):
        assert {path.name for path in folder.iterdir()} == {*FILE_NAMES, "transforms.npz"}
        found = cardiacreg.load_cine(folder)
        for name in SAME:
            assert getattr(found, name) == getattr(cine, name), name
        np.testing.assert_array_equal(found.slice_shifts_mm, cine.slice_shifts_mm)
        np.testing.assert_allclose(found.landmarks.points_mm, cine.landmarks.points_mm)
        assert found.landmarks.names == cine.landmarks.names
        assert found.options["n_atlases"] == cine.options.n_atlases
        for ours, theirs in zip(found.frames, cine.frames, strict=True):
            for name in OF_FRAMES:
                assert getattr(ours, name) == getattr(theirs, name), name
            np.testing.assert_array_equal(ours.labels.array, theirs.labels.array)
        assert [frame.filled_in for frame in found.frames] == [False, False, False, True]

    def test_points_are_followed_to_the_same_places(self, cine, folder):
        found, points = cardiacreg.load_cine(folder), heart_points(cine)
        for frame, since in ((cine.es, None), (cine.ed, cine.es), (3, 1)):
            np.testing.assert_array_equal(
                found.follow(points, frame, since=since), cine.follow(points, frame, since=since)
            )

    def test_without_transforms_nothing_is_followed(self, cine, tmp_path):
        found = cardiacreg.load_cine(cine.save(tmp_path / "out"))
        assert all(frame.transforms == () for frame in found.frames)
        for work in (lambda: found.follow([[0.0, 0.0, 0.0]], 0), lambda: found.motion(1)):
            with pytest.raises(InvalidInputError) as caught:
                work()
            assert caught.value.code == "NO_TRANSFORMS"

    def test_one_frame_is_a_cine_too(self, cine, tmp_path):
        alone = replace(cine, frames=cine.frames[:1], ed=0, es=0)
        found = cardiacreg.load_cine(alone.save(tmp_path / "out", transforms=True))
        np.testing.assert_array_equal(found.frames[0].labels.array, cine.frames[0].labels.array)
        assert len(found.frames[0].transforms) == 2

    def test_a_later_cine_removes_them(self, cine, folder):
        cine.save(folder, overwrite=True)
        assert {path.name for path in folder.iterdir()} == set(FILE_NAMES)

    def test_no_transforms_cannot_be_saved(self, cine, tmp_path):
        bare = replace(cine, frames=tuple(replace(f, transforms=()) for f in cine.frames))
        with pytest.raises(InvalidInputError) as caught:
            bare.save(tmp_path / "out", transforms=True)
        assert caught.value.code == "NO_TRANSFORMS" and not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", ["labels.nii.gz", "transforms.npz"])
    def test_changed_files_are_refused(self, folder, name):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
        assert self.code_of(cardiacreg.load_cine, folder) == "DAMAGED_RESULT"

    @pytest.mark.parametrize("key", ["landmarks", "frames", "slice_shifts_mm", "es_frame", "ends"])
    def test_a_summary_that_lacks_something_is_refused(self, folder, key):
        self.change(folder, lambda said: said.pop(key))
        assert self.code_of(cardiacreg.load_cine, folder) == "DAMAGED_RESULT"

    def test_another_number_of_transforms_is_refused(self, folder):
        self.change(folder, lambda said: said["atlases"].append("a third"))
        assert self.code_of(cardiacreg.load_cine, folder) == "DAMAGED_RESULT"

    def test_chains_are_refused(self, cine, tmp_path):
        first = cine.frames[0]
        link = first.transforms[0]
        still = FFD(Affine.identity(), 0 * link.displacements_mm, link.lattice_to_world)
        chained = replace(first, transforms=(FFDChain((still, link)), link))
        folder = replace(cine, frames=(chained, *cine.frames[1:])).save(tmp_path, transforms=True)
        assert self.code_of(cardiacreg.load_cine, folder) == "DAMAGED_RESULT"

    def test_an_older_cine_is_of_another_version(self, folder):
        self.change(folder, lambda said: said.update(schema_version=1))
        assert self.code_of(cardiacreg.load_cine, folder) == "RESULT_VERSION"

    def test_each_kind_of_folder_names_its_reader(self, folder, tmp_path):
        with pytest.raises(InvalidInputError, match="load_cine") as caught:
            cardiacreg.load_result(folder)
        assert caught.value.code == "NO_RESULT"
        (tmp_path / "single").mkdir()
        (tmp_path / "single" / "result.json").write_text("{}")
        with pytest.raises(InvalidInputError, match="load_result") as caught:
            cardiacreg.load_cine(tmp_path / "single")
        assert caught.value.code == "NO_RESULT"
        assert self.code_of(cardiacreg.load_cine, tmp_path) == "NO_RESULT"

    @staticmethod
    def change(folder, work):
        said = json.loads((folder / "cine.json").read_text(encoding="utf-8"))
        work(said)
        (folder / "cine.json").write_text(json.dumps(said), encoding="utf-8")

    @staticmethod
    def code_of(load, folder):
        with pytest.raises(InvalidInputError) as caught:
            load(folder)
        return caught.value.code


class TestMotion:
    def test_a_field_is_follow_at_every_voxel(self, cine, folder, tmp_path):
        field = cine.motion(cine.es)
        labels = cine.frames[cine.ed].labels
        np.testing.assert_array_equal(field.voxel_to_world, labels.voxel_to_world)
        points = heart_points(cine)
        moved_points = cine.follow(points, cine.es)
        assert np.linalg.norm(moved_points - points, axis=1).max() > 2
        np.testing.assert_allclose(field.apply(points), moved_points, atol=1e-6)
        between = points[:-1] + 0.3 * (points[1:] - points[:-1])
        np.testing.assert_allclose(field.apply(between), cine.follow(between, cine.es), atol=0.15)
        cardiacreg.write_displacement_field(tmp_path / "motion.nii.gz", field)
        back = cardiacreg.read_displacement_field(tmp_path / "motion.nii.gz")
        np.testing.assert_allclose(back.apply(points), moved_points, atol=1e-3)
        saved = cardiacreg.load_cine(folder).motion(cine.es)
        np.testing.assert_allclose(saved.apply(points), moved_points, atol=1e-3)

    def test_simpleitk_moves_points_by_the_written_field(self, cine, tmp_path):
        sitk = pytest.importorskip("SimpleITK")
        cardiacreg.write_displacement_field(tmp_path / "m.nii.gz", cine.motion(cine.es))
        image = sitk.Cast(sitk.ReadImage(str(tmp_path / "m.nii.gz")), sitk.sitkVectorFloat64)
        field = sitk.DisplacementFieldTransform(image)
        lps, points = np.array([-1.0, -1.0, 1.0]), heart_points(cine)
        found = [field.TransformPoint(tuple(point)) for point in (points * lps).tolist()]
        np.testing.assert_allclose(found * lps, cine.follow(points, cine.es), atol=1e-3)

    def test_the_heart_contracts(self, cine):
        """What is labelled cavity at end-systole comes from the cavity at end-diastole."""
        field = cine.motion(cine.ed, since=cine.es)
        es, ed = cine.frames[cine.es].labels, cine.frames[cine.ed].labels
        grid = voxel_grid(es.shape, es.voxel_to_world)
        inside = grid[es.array == 1]
        voxels = Affine(ed.voxel_to_world).inverse().apply(field.apply(inside))
        index = tuple(np.rint(voxels).astype(int).T)
        assert (ed.array[index] == 1).mean() > 0.9

    def test_on_another_lattice(self, cine):
        matrix = np.diag([9.0, 9.0, 9.0, 1.0])
        matrix[:3, 3] = heart_points(cine).mean(axis=0) - 13.0
        field = cine.motion(cine.es, since=1, grid=Lattice((4, 4, 4), matrix))
        corners = voxel_grid((4, 4, 4), matrix).reshape(-1, 3)
        expected = cine.follow(corners, cine.es, since=1)
        np.testing.assert_allclose(field.apply(corners), expected, atol=1e-6)

    def test_threads_and_parts_change_nothing(self, cine, monkeypatch):
        whole = cine.motion(1, threads=1)
        monkeypatch.setattr("cardiacreg.cine.motion._AT_ONCE", 7001)
        parts = cine.motion(1, threads=2)
        np.testing.assert_array_equal(parts.displacements_mm, whole.displacements_mm)

    @pytest.mark.parametrize("frame", [-1, 4, 1.5, "ES"])
    def test_other_frames_are_refused(self, cine, frame):
        for work in (
            lambda: cine.motion(frame), lambda: cine.follow([[0.0, 0, 0]], 0, since=frame)
        ):  # fmt: skip
            with pytest.raises(InvalidInputError) as caught:
                work()
            assert caught.value.code == "BAD_FRAME"

    @pytest.mark.parametrize("points", [[0.0, 0, 0], [[0.0, 0]], [[np.nan, 0, 0]]])
    def test_other_points_are_refused(self, cine, points):
        with pytest.raises(InvalidInputError) as caught:
            cine.follow(points, 1)
        assert caught.value.code == "BAD_SHAPE"

    def test_an_atlas_that_folds_is_left_out_and_none_is_an_error(self, cine):
        """Nothing maps to a point that a fold jumps over."""
        ed, es = cine.frames[cine.ed], cine.frames[cine.es]
        good = es.transforms[0]
        rng = np.random.default_rng(0)
        folded = FFD(good.affine, rng.normal(0, 90, good.displacements_mm.shape),
                     good.lattice_to_world)  # fmt: skip
        points = heart_points(cine)

        def with_es(*transforms):
            frames = list(cine.frames)
            frames[cine.ed] = replace(ed, transforms=ed.transforms[:1] * len(transforms))
            frames[cine.es] = replace(es, transforms=transforms)
            return replace(cine, frames=tuple(frames))

        with pytest.raises(InvalidInputError) as caught:
            with_es(folded).follow(points, cine.es)
        assert caught.value.code == "NO_INVERSE"
        alone = with_es(good).follow(points, cine.es)
        both = with_es(good, folded).follow(points, cine.es)
        assert np.isfinite(both).all() and (both == alone).all(axis=1).any()


class TestCommand:
    @pytest.fixture
    def series(self, tmp_path):
        frames = [make_toy_heart(size=size).labels for size in (1.0, 0.85)]
        array = np.stack([each.array for each in frames], axis=-1)
        nibabel.save(nibabel.Nifti1Image(array, frames[0].voxel_to_world), tmp_path / "c.nii.gz")
        return tmp_path / "c.nii.gz"

    def run(self, series, files, *more):
        arguments = ["refine", "-i", series, "--atlases", files.atlases, "--spacing", 2.5, 2.5, 4,
                     "--orientation", "as-stored", "-o", series.parent / "out", "--frames", "all",
                     "-q", *more]  # fmt: skip
        return CliRunner().invoke(main, [str(each) for each in arguments])

    def test_transforms_are_written_and_read(self, series, tiny_files):
        shown = self.run(series, tiny_files, "--transforms", "npz")
        assert shown.exit_code in (0, 3), shown.output
        found = cardiacreg.load_cine(series.parent / "out")
        points = heart_points(found)
        assert (found.follow(points, found.es) != points).any()
        again = self.run(series, tiny_files)
        assert again.exit_code == 1 and "OUTPUT_EXISTS" in again.stderr

    def test_other_formats_are_of_single_frames(self, series, tiny_files):
        shown = self.run(series, tiny_files, "--transforms", "npz,tfm")
        assert shown.exit_code == 2 and "npz only" in shown.stderr
        assert not (series.parent / "out").exists()


def test_options_are_said_as_json_holds_them(cine, folder):
    known = json.loads(json.dumps(asdict(cine.options)))
    assert cardiacreg.load_cine(folder).options == known
