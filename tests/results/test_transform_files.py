"""The transforms of a result: they make its model, other tools apply them, and they come back."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import cardiacreg
from cardiacreg import FFDChain, InvalidInputError, RefineOptions
from cardiacreg.cli.app import main
from cardiacreg.errors import InputWarning
from cardiacreg.fusion.label_fusion import fusion_from_votes
from cardiacreg.geometry import N_LABELS, apply_matrix, voxel_grid
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.results import files, qc_figure, transform_files
from cardiacreg.results.files import FILE_NAMES
from cardiacreg.transforms.resampling import add_label_votes
from tests.helpers.equivalent_inputs import mirrored, moved
from tests.helpers.turned_hearts import rotation_matrix

ATLASES = [make_toy_heart(size=size) for size in (0.9, 0.95)]
LPS = np.array([-1.0, -1.0, 1.0])


@pytest.fixture(autouse=True)
def quick_picture(monkeypatch):
    monkeypatch.setattr(qc_figure, "draw_qc_figure", lambda result: None)
    monkeypatch.setattr(qc_figure, "png_bytes", lambda figure: b"picture")


@pytest.fixture(scope="module")
def oblique():
    """A heart stored mirrored and turned in the world, fused by votes alone."""
    stored = moved(mirrored(make_toy_heart().labels, 1), rotation_matrix((20, -30, 40)))
    options = RefineOptions(n_atlases=2, orientation="as-stored", match_areas=False,
                            clean_topology=False)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return cardiacreg.refine(stored, atlases=ATLASES, spacing_mm=(2.5, 2.5, 4.0),
                                 options=options, threads=2)  # fmt: skip


def model_points(result):
    """Voxel centres all over the model's lattice, its corners among them."""
    grid = voxel_grid(result.labels.shape, result.labels.voxel_to_world)
    corners = grid[np.ix_((0, -1), (0, -1), (0, -1))]
    return np.concatenate([grid[::4, ::4, ::2].reshape(-1, 3), corners.reshape(-1, 3)])


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_mean_displacement_is_applied_by_simpleitk(oblique, tmp_path):
    """Its meaning: the mean, over atlases, of where a point lies in the aligned atlas. ITK: in LPS."""
    sitk = pytest.importorskip("SimpleITK", reason="needs SimpleITK")
    field = cardiacreg.mean_displacement(oblique.transforms, oblique.labels)
    points = model_points(oblique)
    expected = np.mean(
        [each.affine.inverse().apply(each.apply(points)) for each in oblique.transforms], axis=0
    )
    np.testing.assert_allclose(field.apply(points), expected, atol=1e-6)
    assert np.abs(expected - points).max() > 0.5
    cardiacreg.write_displacement_field(tmp_path / "mean.nii.gz", field)
    image = sitk.ReadImage(str(tmp_path / "mean.nii.gz"), sitk.sitkVectorFloat64)
    theirs = sitk.DisplacementFieldTransform(image)
    inner = points[len(points) // 3 :: 200][:20]
    found = np.array([theirs.TransformPoint(point) for point in (inner * LPS).tolist()]) * LPS
    np.testing.assert_allclose(found, field.apply(inner), atol=1e-3)
    with pytest.raises(InvalidInputError) as raised:
        cardiacreg.mean_displacement([], oblique.labels)
    assert raised.value.code == "NO_TRANSFORMS"


def test_the_atlases_under_the_transforms_are_the_model(oblique):
    assert len(oblique.transforms) == len(oblique.atlases) == 2
    votes = np.zeros((*oblique.labels.shape, N_LABELS), dtype=np.float32)
    for report, transform in zip(oblique.atlases, oblique.transforms, strict=True):
        add_label_votes(votes, ATLASES[report.index].labels, transform, oblique.labels)
    values = np.arange(N_LABELS, dtype=np.uint8)
    again = fusion_from_votes(votes, values, oblique.labels.voxel_to_world).labels
    assert (again.array != oblique.labels.array).mean() < 1e-4
    for transform in oblique.transforms:
        shown = cardiacreg.jacobian_map(transform, oblique.labels).array
        assert shown.min() >= oblique.minimum_jacobian - 1e-9


@pytest.mark.parametrize("form", ["tfm", "h5"])
def test_simpleitk_gets_the_same_points(oblique, tmp_path, form):
    sitk = pytest.importorskip("SimpleITK")
    folder = oblique.save(tmp_path / "out", transforms=[form])
    points = model_points(oblique)
    assert len(points) > 500
    for number, transform in enumerate(oblique.transforms, start=1):
        theirs = sitk.ReadTransform(str(folder / f"atlas_{number}.{form}"))
        found = [theirs.TransformPoint(tuple(point)) for point in (points * LPS).tolist()]
        np.testing.assert_allclose(found * LPS, transform.apply(points), atol=1e-3)


def test_simpleitk_resamples_an_atlas_onto_the_model(oblique, tmp_path):
    """The line of the documentation: what SimpleITK calls a transform goes the same way as ours."""
    sitk = pytest.importorskip("SimpleITK")
    folder, atlas = oblique.save(tmp_path / "out", transforms="tfm"), ATLASES[0].labels
    cardiacreg.write_labels(tmp_path / "atlas.nii.gz", atlas)
    (number,) = [n for n, each in enumerate(oblique.atlases, start=1) if each.index == 0]
    found = sitk.Resample(
        sitk.ReadImage(str(tmp_path / "atlas.nii.gz")),
        sitk.ReadImage(str(folder / "labels.nii.gz")),
        sitk.ReadTransform(str(folder / f"atlas_{number}.tfm")),
        sitk.sitkNearestNeighbor,
    )
    array = sitk.GetArrayFromImage(found).transpose(2, 1, 0)
    ours = cardiacreg.warp_labels(atlas, oblique.transforms[number - 1], oblique.labels).array
    for label in (1, 2, 4):
        both = ((array == label) & (ours == label)).sum()
        assert 2 * both / ((array == label).sum() + (ours == label).sum()) > 0.95, label


def test_simpleitk_applies_chains_too(tmp_path):
    """Points where ITK's splines are complete; the link that is first is applied first."""
    sitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(4)
    lattice = np.diag([15.0, 18.0, 20.0, 1.0])
    links = [
        cardiacreg.FFD(cardiacreg.Affine(matrix), rng.normal(0, 2, size=(8, 8, 8, 3)), lattice)
        for matrix in (np.eye(4), np.diag([1.1, 0.9, 1.0, 1.0]))
    ]
    both = FFDChain(tuple(links))
    points = apply_matrix(lattice, rng.uniform(2, 5, size=(50, 3)))
    for form in ("tfm", "h5"):
        cardiacreg.write_itk_transform(tmp_path / f"t.{form}", both)
        theirs = sitk.ReadTransform(str(tmp_path / f"t.{form}"))
        found = [theirs.TransformPoint(tuple(point)) for point in (points * LPS).tolist()]
        np.testing.assert_allclose(found * LPS, both.apply(points), atol=1e-3)


def test_every_format_comes_back(oblique, tmp_path):
    folder = oblique.save(tmp_path / "out", transforms=transform_files.FORMATS)
    singles = {f"atlas_{n}.{form}" for n in (1, 2) for form in ("dof", "tfm", "h5")}
    assert names(folder) == {*FILE_NAMES, "transforms.npz", *singles}
    assert singles <= set(files.ON_REQUEST)
    told = json.loads((folder / "result.json").read_text())["files_sha256"]
    assert set(told) == names(folder) - {"result.json"}
    points = model_points(oblique)
    for number, transform in enumerate(oblique.transforms, start=1):
        from_mirtk = cardiacreg.read_dof(folder / f"atlas_{number}.dof")
        np.testing.assert_allclose(from_mirtk.apply(points), transform.apply(points), atol=1e-5)
        for form in ("tfm", "h5"):
            from_itk = cardiacreg.read_itk_transform(folder / f"atlas_{number}.{form}")
            np.testing.assert_allclose(from_itk.apply(points), transform.apply(points), atol=1e-5)
    found = cardiacreg.load_result(folder)
    assert [type(each) for each in found.transforms] == [type(t) for t in oblique.transforms]
    for one, other in zip(found.transforms, oblique.transforms, strict=True):
        np.testing.assert_array_equal(one.apply(points), other.apply(points))
    read, said = cardiacreg.read_transforms(folder / "transforms.npz")
    assert len(read) == 2 and said == tuple(atlas.name for atlas in oblique.atlases)


def test_a_later_result_removes_them(oblique, tmp_path):
    oblique.save(tmp_path, transforms=("npz", "dof"))
    (tmp_path / "atlas_7.tfm").write_text("of a result with more atlases")
    with pytest.raises(InvalidInputError, match="already"):
        oblique.save(tmp_path, transforms="npz")
    oblique.save(tmp_path, overwrite=True)
    assert names(tmp_path) == set(FILE_NAMES)
    assert cardiacreg.load_result(tmp_path).transforms == ()


@pytest.mark.parametrize("kind", ["changed", "unknown", "fewer"])
def test_a_damaged_bundle_is_noticed(oblique, tmp_path, kind):
    formats = () if kind == "unknown" else ("npz",)
    given = replace(oblique, transforms=oblique.transforms[:1], atlases=oblique.atlases[:1])
    folder = oblique.save(tmp_path / "out", transforms=formats)
    if kind == "changed":
        content = bytearray((folder / "transforms.npz").read_bytes())
        content[-5] ^= 1
        (folder / "transforms.npz").write_bytes(content)
    elif kind == "unknown":
        cardiacreg.write_transforms(folder / "transforms.npz", oblique.transforms, ["a", "b"])
    else:
        given.save(folder, overwrite=True, transforms="npz")
        said = json.loads((folder / "result.json").read_text())
        said["atlases"] *= 2
        (folder / "result.json").write_text(json.dumps(said))
    with pytest.raises(InvalidInputError) as caught:
        cardiacreg.load_result(folder)
    assert caught.value.code == "DAMAGED_RESULT"


def test_without_the_file_there_are_none(oblique, tmp_path):
    folder = oblique.save(tmp_path / "out", transforms="npz")
    (folder / "transforms.npz").unlink()
    assert cardiacreg.load_result(folder).transforms == ()


def test_what_cannot_be_written_is_told_before_anything_is(oblique, tmp_path, monkeypatch):
    first = oblique.transforms[0]
    still = cardiacreg.FFD(cardiacreg.Affine.identity(), first.displacements_mm * 0,
                           first.lattice_to_world)  # fmt: skip
    chains = replace(oblique, transforms=(FFDChain((still, first)), first))
    bare = replace(oblique, transforms=())
    many = replace(oblique, transforms=oblique.transforms * 50)
    for given, formats, code in (
        (oblique, "nii", "BAD_OPTION"),
        (chains, ["tfm", "dof"], "BAD_TYPE"),
        (bare, "npz", "NO_TRANSFORMS"),
        (many, "tfm", "BAD_OPTION"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            given.save(tmp_path / "out", transforms=formats)
        assert caught.value.code == code
    monkeypatch.setattr(transform_files, "find_spec", lambda name: None)
    with pytest.raises(InvalidInputError) as caught:
        oblique.save(tmp_path / "out", transforms="h5")
    assert caught.value.code == "NO_H5PY"
    assert not (tmp_path / "out").exists()
    chains.save(tmp_path / "chains", transforms=("npz", "tfm"))
    found = cardiacreg.load_result(tmp_path / "chains").transforms
    assert [type(each).__name__ for each in found] == ["FFDChain", "FFD"]


class TestCommand:
    def run(self, files_of_heart, output, *more):
        arguments = ["refine", "-i", files_of_heart.labels, "--atlases", files_of_heart.atlases,
                     "--spacing", 2.5, 2.5, 4, "-o", output, "-q", *more]  # fmt: skip
        return CliRunner().invoke(main, [str(each) for each in arguments])

    def test_transforms_are_written(self, tiny_files, tmp_path):
        shown = self.run(tiny_files, tmp_path / "out", "--transforms", "npz,tfm")
        assert shown.exit_code in (0, 3), shown.output
        held = {*FILE_NAMES, "transforms.npz", "atlas_1.tfm", "atlas_2.tfm"}
        assert names(tmp_path / "out") == held
        found = cardiacreg.load_result(tmp_path / "out", segmentation=tiny_files.labels)
        assert len(found.transforms) == 2
        again = self.run(tiny_files, tmp_path / "out", "--transforms", "npz")
        assert again.exit_code == 1 and "OUTPUT_EXISTS" in again.stderr

    def test_wrong_usage_is_told_at_once(self, tiny_files, tmp_path, monkeypatch):
        shown = self.run(tiny_files, tmp_path / "out", "--transforms", "npz,vtk")
        assert shown.exit_code == 2 and "npz, dof, tfm, h5" in shown.stderr
        monkeypatch.setattr(transform_files, "find_spec", lambda name: None)
        shown = self.run(tiny_files, tmp_path / "out", "--transforms", "h5")
        assert shown.exit_code == 1 and "error [NO_H5PY]" in shown.stderr
        assert not (tmp_path / "out").exists()
