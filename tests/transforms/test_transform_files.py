"""Transforms in and out: against SimpleITK, against hand-made bytes, and round trips."""

import gzip
import re
import struct
import warnings

import numpy as np
import pytest

from cardiacreg import (
    FFD,
    Affine,
    DisplacementField,
    InputWarning,
    InvalidInputError,
    LabelMap,
    Lattice,
    Volume,
    dense_displacement,
    jacobian_map,
    read_displacement_field,
    read_dof,
    read_itk_transform,
    warp_labels,
    warp_volume,
    write_displacement_field,
    write_dof,
    write_itk_transform,
)
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.transforms.files_mirtk import matrix_from_parameters, parameters_from_matrix
from tests.helpers import naive
from tests.helpers.strategies import oblique_matrix, well_conditioned_matrix

LPS = np.array([-1.0, -1.0, 1.0])


def affine(seed=0):
    return Affine(well_conditioned_matrix(np.random.default_rng(seed)))


def deformation(seed=0, *, affine_part=None):
    rng = np.random.default_rng(seed)
    matrix = oblique_matrix(rng, (12.0, 15.0, 18.0))
    return FFD(affine_part or affine(seed), rng.normal(size=(7, 6, 5, 3)), matrix)


def inner_points(ffd, seed=1, count=20):
    """Points where all control points around exist."""
    rng = np.random.default_rng(seed)
    upper = np.array(ffd.displacements_mm.shape[:3]) - 2.001
    return Affine(ffd.lattice_to_world).apply(rng.uniform(1.001, upper, size=(count, 3)))


def code_of(call, *arguments, **keywords):
    with pytest.raises(InvalidInputError) as caught:
        call(*arguments, **keywords)
    return caught.value.code


class TestMirtk:
    @pytest.mark.parametrize("name", ["a.dof", "a.dof.gz"])
    def test_affines_survive(self, tmp_path, name):
        for seed in range(8):
            given = affine(seed)
            if seed % 2:
                given = Affine(given.matrix @ np.diag([1.0, -1.0, 1.0, 1.0]))
            write_dof(tmp_path / name, given)
            np.testing.assert_allclose(read_dof(tmp_path / name).matrix, given.matrix, atol=1e-9)

    @pytest.mark.parametrize("flavour", ["mirtk", "irtk"])
    def test_deformations_survive(self, tmp_path, flavour):
        given = deformation()
        write_dof(tmp_path / "t.dof.gz", given, flavour=flavour)
        found = read_dof(tmp_path / "t.dof.gz")
        points = inner_points(given)
        np.testing.assert_allclose(found.apply(points), given.apply(points), atol=1e-8)

    def test_parameters_mean_what_the_format_says(self):
        """A quarter turn about z takes x to minus y in this convention; scales are percent."""
        parameters = np.array([1.0, 2.0, 3.0, 0, 0, 90, 200, 100, 100, 0, 0, 0])
        expected = np.array([[0, 1, 0, 1], [-2, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1.0]])
        np.testing.assert_allclose(matrix_from_parameters(parameters), expected, atol=1e-12)
        shear = np.array([0.0] * 6 + [100.0] * 3 + [10.0, 20.0, 30.0])
        found = matrix_from_parameters(shear)[:3, :3]
        tangents = np.tan(np.radians([10.0, 20.0, 30.0]))
        np.testing.assert_allclose([found[0, 1], found[1, 2], found[0, 2]], tangents)
        np.testing.assert_allclose(parameters_from_matrix(matrix_from_parameters(shear)), shear)

    @pytest.mark.parametrize("count", [6, 7, 9])
    def test_shorter_affines_are_completed(self, tmp_path, count):
        given = np.array([1.0, 2, 3, 10, 20, 30, 110, 120, 130])[:count]
        (tmp_path / "a.dof").write_bytes(struct.pack(f">III{count}d", 815007, 3, count, *given))
        full = np.array([*given[:6], 100, 100, 100, 0, 0, 0], dtype=float)
        full[6:9] = {6: 100.0, 7: given[-1], 9: given[6:9] if count == 9 else 0}[count]
        found = read_dof(tmp_path / "a.dof").matrix
        np.testing.assert_allclose(found, matrix_from_parameters(full), atol=1e-12)

    @pytest.mark.parametrize(
        ("kind", "given"),
        [(2, [1, 2, 3, 10, 20, 30]), (22, [1, 2, 3, 10, 20, 30, 110]), (22, [1, 2, 3, 10, 20, 30])],
    )
    @pytest.mark.parametrize("inside", [False, True])
    def test_rigid_and_similarity_files(self, tmp_path, kind, given, inside):
        """Alone, and as the first level of a multi-level transformation."""
        content = struct.pack(f">III{len(given)}d", 815007, kind, len(given), *given)
        head = struct.pack(">IIi", 815007, 7, 0) if inside else b""
        (tmp_path / "a.dof").write_bytes(head + content)
        scale = given[6] if len(given) == 7 else 100
        full = np.array([*given[:6], scale, scale, scale, 0, 0, 0], dtype=float)
        found = read_dof(tmp_path / "a.dof").matrix
        np.testing.assert_allclose(found, matrix_from_parameters(full), atol=1e-12)
        assert np.linalg.det(found[:3, :3]) == pytest.approx((scale / 100) ** 3)

    @pytest.mark.parametrize(
        ("kind", "count"), [(2, 7), (22, 9), (3, 15), (16, 6), (1, 16), (99, 6)]
    )
    def test_other_kinds_say_how_to_convert(self, tmp_path, kind, count):
        content = struct.pack(f">III{count}d", 815007, kind, count, *range(count))
        (tmp_path / "a.dof").write_bytes(content)
        with pytest.raises(InvalidInputError) as caught:
            read_dof(tmp_path / "a.dof")
        assert caught.value.code == "BAD_FILE_TYPE"
        assert kind in (2, 3, 22) or "f3d_disp_field" in str(caught.value)

    @pytest.mark.parametrize("kind", [4, 12, 56, 76])
    def test_hand_made_splines_are_placed_as_the_format_says(self, tmp_path, kind):
        """One control point moved; the lattice is centred on its origin field; order of triplets."""
        shape, spacing, centre = (5, 4, 6), (10.0, 20.0, 5.0), (7.0, -3.0, 11.0)
        axes = [0, 1, 0, -1, 0, 0, 0, 0, 1][: 6 if kind == 4 else 9]
        values = np.zeros((*shape, 3))
        values[2, 1, 3] = (1.0, 2.0, 3.0)
        stored = values if kind in (4, 12) else values.transpose(2, 1, 0, 3)
        content = struct.pack(">II3i", 815007, kind, *shape)
        content += struct.pack(f">{len(axes)}d", *axes) + struct.pack(">6d", *spacing, *centre)
        content += struct.pack(">I", 2) if kind == 76 else b""
        content += np.ascontiguousarray(stored).astype(">f8").tobytes() + bytes(4 * values.size)
        (tmp_path / "f.dof").write_bytes(content)
        found = read_dof(tmp_path / "f.dof")
        place = np.array(centre) + 0 * np.array([0, 1, 0])
        place = place + (2 - 2.0) * 10 * np.array([0, 1, 0]) + (1 - 1.5) * 20 * np.array([-1, 0, 0])
        place = place + (3 - 2.5) * 5 * np.array([0, 0, 1])
        expected = (2 / 3) ** 3 * np.array([1.0, 2.0, 3.0])
        np.testing.assert_allclose(found.displacement(place), expected, atol=1e-12)

    def test_the_spline_is_added_after_the_affine(self, tmp_path):
        """T(x) = A x + v(x): where v is zero or not, against the sum written out."""
        given = deformation(3)
        write_dof(tmp_path / "t.dof", given)
        content = (tmp_path / "t.dof").read_bytes()
        magic, kind, levels = struct.unpack(">IIi", content[:12])
        assert (magic, kind, levels) == (815007, 7, 1)
        size = 12 + 12 + 96
        (tmp_path / "spline.dof").write_bytes(content[size:])
        spline = read_dof(tmp_path / "spline.dof")
        points = inner_points(given)
        summed = given.affine.apply(points) + spline.displacement(points)
        np.testing.assert_allclose(given.apply(points), summed, atol=1e-9)

    def test_two_levels_on_one_lattice_are_summed_and_others_refused(self, tmp_path):
        first = deformation(4, affine_part=Affine.identity())
        second = FFD(first.affine, 2 * first.displacements_mm, first.lattice_to_world)
        other = deformation(5, affine_part=Affine.identity())

        def record(ffd):
            write_dof(tmp_path / "one.dof", ffd)
            content = (tmp_path / "one.dof").read_bytes()[12:]
            return content[:108], content[108:]

        for partner, expected in ((second, 3.0), (other, None)):
            head, spline = record(first)
            levels = struct.pack(">IIi", 815007, 7, 2) + head + spline + record(partner)[1]
            (tmp_path / "two.dof").write_bytes(levels)
            if expected is None:
                assert code_of(read_dof, tmp_path / "two.dof") == "BAD_LATTICE"
            else:
                found = read_dof(tmp_path / "two.dof").displacements_mm
                np.testing.assert_allclose(found, 3 * first.displacements_mm, atol=1e-12)

    def test_extrapolation_other_than_zero_is_told(self, tmp_path):
        write_dof(tmp_path / "t.dof", deformation())
        content = bytearray((tmp_path / "t.dof").read_bytes())
        at = 12 + 108 + 8 + 12 + 72 + 48
        assert content[at : at + 4] == struct.pack(">I", 2)
        content[at : at + 4] = struct.pack(">I", 5)
        (tmp_path / "t.dof").write_bytes(content)
        with pytest.warns(InputWarning, match="extrapolates"):
            read_dof(tmp_path / "t.dof")

    def test_damage_is_told(self, tmp_path):
        file = tmp_path / "bad.dof"
        assert code_of(read_dof, file) == "FILE_NOT_FOUND"
        write_dof(file, deformation())
        content = file.read_bytes()
        for cut in (3, 50, 400, len(content) - 1):
            file.write_bytes(content[:cut])
            assert code_of(read_dof, file) == "TRUNCATED_FILE"
        file.write_bytes(b"abcdefgh" + content)
        assert code_of(read_dof, file) == "BAD_FILE_TYPE"
        file.write_bytes(struct.pack(">II", 815007, 78))
        assert code_of(read_dof, file) == "BAD_FILE_TYPE"
        file.write_bytes(gzip.compress(content)[:-40])
        assert code_of(read_dof, file) == "TRUNCATED_FILE"
        flipped = bytearray(gzip.compress(content))
        flipped[-6] ^= 1
        file.write_bytes(flipped)
        assert code_of(read_dof, file) == "CORRUPT_FILE"
        huge = struct.pack(">II3i", 815007, 76, 2**30, 2**30, 2**30)
        file.write_bytes(huge)
        assert code_of(read_dof, file) == "BAD_LATTICE"
        assert code_of(write_dof, file, affine(), flavour="vtk") == "BAD_OPTION"


class TestItk:
    sitk = pytest.importorskip("SimpleITK")

    @pytest.mark.parametrize("suffix", [".tfm", ".txt", ".mat", ".h5"])
    def test_simpleitk_reads_our_affines_and_we_its(self, tmp_path, suffix):
        if suffix == ".h5":
            pytest.importorskip("h5py")
        given, points = affine(1), np.random.default_rng(2).normal(size=(5, 3)) * 50
        write_itk_transform(tmp_path / f"ours{suffix}", given)
        theirs = self.sitk.ReadTransform(str(tmp_path / f"ours{suffix}"))
        for point in points:
            moved = np.array(theirs.TransformPoint((point * LPS).tolist())) * LPS
            np.testing.assert_allclose(moved, given.apply(point), atol=1e-9)
        centred = self.sitk.AffineTransform(3)
        centred.SetMatrix(given.matrix[:3, :3].ravel().tolist())
        centred.SetCenter((3.0, -4.0, 5.0))
        centred.SetTranslation((1.0, 2.0, 3.0))
        self.sitk.WriteTransform(centred, str(tmp_path / f"theirs{suffix}"))
        found = read_itk_transform(tmp_path / f"theirs{suffix}")
        for point in points:
            moved = np.array(centred.TransformPoint((point * LPS).tolist())) * LPS
            np.testing.assert_allclose(found.apply(point), moved, atol=1e-9)

    @pytest.mark.parametrize("suffix", [".tfm", ".h5"])
    def test_simpleitk_reads_our_deformations(self, tmp_path, suffix):
        if suffix == ".h5":
            pytest.importorskip("h5py")
        given = deformation(2)
        write_itk_transform(tmp_path / f"t{suffix}", given)
        theirs = self.sitk.ReadTransform(str(tmp_path / f"t{suffix}"))
        back = read_itk_transform(tmp_path / f"t{suffix}")
        for point in inner_points(given):
            moved = np.array(theirs.TransformPoint((point * LPS).tolist())) * LPS
            np.testing.assert_allclose(moved, given.apply(point), atol=1e-9)
            np.testing.assert_allclose(back.apply(point), given.apply(point), atol=1e-9)

    @pytest.mark.parametrize("suffix", [".tfm", ".h5"])
    def test_we_read_simpleitks_splines(self, tmp_path, suffix):
        if suffix == ".h5":
            pytest.importorskip("h5py")
        image = self.sitk.Image([40, 30, 20], self.sitk.sitkFloat32)
        image.SetSpacing((2.0, 2.5, 3.0))
        image.SetOrigin((-20.0, 5.0, 7.0))
        spline = self.sitk.BSplineTransformInitializer(image, [3, 4, 2], 3)
        rng = np.random.default_rng(5)
        spline.SetParameters(rng.normal(size=len(spline.GetParameters())).tolist())
        self.sitk.WriteTransform(spline, str(tmp_path / f"b{suffix}"))
        found = read_itk_transform(tmp_path / f"b{suffix}")
        for index in rng.uniform(1, [38, 28, 18], size=(10, 3)):
            point = np.array(image.TransformContinuousIndexToPhysicalPoint(index.tolist()))
            expected = np.array(spline.TransformPoint(point.tolist())) * LPS
            np.testing.assert_allclose(found.apply(point * LPS), expected, atol=1e-9)

    def test_what_cannot_be_read_or_written_is_refused(self, tmp_path):
        given = deformation(2)
        write_itk_transform(tmp_path / "t.tfm", given)
        text = (tmp_path / "t.tfm").read_text()
        lines = text.splitlines()
        assert code_of(write_itk_transform, tmp_path / "t.mat", given) == "BAD_FILE_NAME"
        assert code_of(write_itk_transform, tmp_path / "t.xfm", given) == "BAD_FILE_NAME"
        assert code_of(read_itk_transform, tmp_path / "none.tfm") == "FILE_NOT_FOUND"
        listed = "\n".join([lines[0], *lines[7:], *lines[3:7]])
        (tmp_path / "s.tfm").write_text(listed)
        assert code_of(read_itk_transform, tmp_path / "s.tfm") == "SEVERAL_TRANSFORMS"
        for name, content, code in (
            ("a.tfm", "hello", "BAD_FILE_TYPE"),
            ("b.tfm", text.replace("Affine", "Euler3D"), "BAD_FILE_TYPE"),
            ("c.tfm", text.replace("Parameters: ", "Parameters: x "), "CORRUPT_FILE"),
            ("d.mat", "not matlab", "CORRUPT_FILE"),
            ("e.tfm", re.sub(r"(FixedParameters: \d+)\.0 ", r"\1.9 ", text), "BAD_LATTICE"),
        ):
            (tmp_path / name).write_text(content)
            assert code_of(read_itk_transform, tmp_path / name) == code


class TestDisplacementField:
    def grid(self):
        matrix = oblique_matrix(np.random.default_rng(7), (4.0, 5.0, 6.0))
        return Lattice((9, 8, 7), matrix)

    def test_simpleitk_moves_points_as_we_do(self, tmp_path):
        sitk = pytest.importorskip("SimpleITK")
        given, grid = deformation(6), self.grid()
        field = dense_displacement(given, grid)
        write_displacement_field(tmp_path / "warp.nii.gz", field, space="LPS")
        image = sitk.ReadImage(str(tmp_path / "warp.nii.gz"), sitk.sitkVectorFloat64)
        theirs = sitk.DisplacementFieldTransform(image)
        for index in ((1, 2, 3), (4, 4, 4), (7, 6, 5)):
            point = naive.move(grid.voxel_to_world, index)
            moved = np.array(theirs.TransformPoint((point * LPS).tolist())) * LPS
            np.testing.assert_allclose(moved, given.apply(point), atol=1e-3)
            np.testing.assert_allclose(field.apply(point), given.apply(point), atol=1e-9)

    @pytest.mark.parametrize("space", ["LPS", "RAS"])
    def test_fields_survive_in_both_worlds(self, tmp_path, space):
        field = dense_displacement(deformation(6), self.grid())
        write_displacement_field(tmp_path / "f.nii", field, space=space)
        found = read_displacement_field(tmp_path / "f.nii")
        np.testing.assert_allclose(found.displacements_mm, field.displacements_mm, atol=1e-4)
        np.testing.assert_allclose(found.voxel_to_world, field.voxel_to_world, atol=1e-4)
        other = read_displacement_field(tmp_path / "f.nii", space="LPS")
        sign = LPS if space == "RAS" else 1
        np.testing.assert_allclose(other.displacements_mm, field.displacements_mm * sign, atol=1e-4)

    def test_a_chain_applies_its_first_member_first(self):
        first, second = affine(8), deformation(9)
        grid = self.grid()
        field = dense_displacement([first, second], grid)
        point = naive.move(grid.voxel_to_world, (3, 3, 3))
        np.testing.assert_allclose(field.apply(point), second.apply(first.apply(point)), atol=1e-9)

    def test_labels_and_images_are_warped_by_fields(self):
        """A field of the target's own lattice warps as the deformation it was made of."""
        labels = make_toy_heart().labels
        matrix = np.diag([30.0, 30.0, 30.0, 1.0])
        matrix[:3, 3] = labels.voxel_to_world[:3, 3] - 30
        moves = 3 * np.random.default_rng(0).normal(size=(7, 7, 6, 3))
        given = FFD(Affine.identity(), moves, matrix)
        field = dense_displacement(given, labels)
        expected, found = (warp_labels(labels, t, labels) for t in (given, field))
        np.testing.assert_array_equal(found.array, expected.array)
        image = Volume(labels.array.astype(float), labels.voxel_to_world)
        expected, found = (warp_volume(image, t, labels).array for t in (given, field))
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_no_flipped_bit_of_a_compressed_field_is_taken_for_a_displacement(self, tmp_path):
        """Only bits that mean nothing (time, system and level in the gzip header) may change."""
        path = tmp_path / "f.nii.gz"
        field = dense_displacement(deformation(6), self.grid())
        write_displacement_field(path, field)
        content = path.read_bytes()
        expected = read_displacement_field(path).displacements_mm
        for bit in np.random.default_rng(0).choice(8 * len(content), 300, replace=False):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", InputWarning)
                    found = read_displacement_field(path).displacements_mm
            except InvalidInputError:
                continue
            assert bit // 8 < 10
            np.testing.assert_array_equal(found, expected)

    def test_a_truncated_field_is_told(self, tmp_path):
        path = tmp_path / "f.nii.gz"
        write_displacement_field(path, dense_displacement(deformation(6), self.grid()))
        path.write_bytes(path.read_bytes()[:-9])
        assert code_of(read_displacement_field, path) == "TRUNCATED_FILE"

    def test_points_outside_the_voxels_stay(self):
        field = DisplacementField(np.ones((3, 3, 3, 3)), np.eye(4))
        np.testing.assert_allclose(field.apply([50.0, 0, 0]), [50.0, 0, 0])
        np.testing.assert_allclose(field.apply([[1.0, 1, 1]]), [[2.0, 2, 2]])
        np.testing.assert_allclose(field.apply([[2.4, -0.4, 1]]), [[3.4, 0.6, 2]])
        np.testing.assert_allclose(field.apply([[2.6, 1, 1]]), [[2.6, 1, 1]])

    def test_what_is_not_a_field_is_refused(self, tmp_path):
        import nibabel

        assert code_of(read_displacement_field, tmp_path / "none.nii") == "FILE_NOT_FOUND"
        nibabel.save(
            nibabel.Nifti1Image(np.zeros((3, 3, 3), np.float32), 2 * np.eye(4)), tmp_path / "i.nii"
        )
        assert code_of(read_displacement_field, tmp_path / "i.nii") == "UNKNOWN_SPACE"
        assert code_of(read_displacement_field, tmp_path / "i.nii", space="RAS") == "BAD_SHAPE"
        (tmp_path / "t.nii").write_text("text")
        assert code_of(read_displacement_field, tmp_path / "t.nii") == "NOT_NIFTI"
        field = DisplacementField(np.zeros((2, 2, 2, 3)), np.eye(4))
        assert code_of(write_displacement_field, tmp_path / "f.mha", field) == "BAD_OPTION"
        assert (
            code_of(write_displacement_field, tmp_path / "f.nii", field, space="SAR")
            == "BAD_OPTION"
        )
        assert code_of(DisplacementField, np.zeros((2, 2, 2)), np.eye(4)) == "BAD_SHAPE"
        assert code_of(DisplacementField, np.full((2, 2, 2, 3), np.nan), np.eye(4)) == "NOT_FINITE"


class TestJacobianMap:
    def test_equals_central_differences_of_the_whole_map(self):
        given = deformation(11)
        matrix = given.lattice_to_world.copy()
        matrix[:3, 3] = Affine(matrix).apply([1.5, 1.5, 1.2])
        matrix[:3, :3] /= 3
        grid = LabelMap(np.zeros((4, 4, 3)), matrix)
        found = jacobian_map(given, grid, with_affine=True).array
        for index in np.ndindex(grid.shape):
            point, step = naive.move(matrix, index), 1e-4
            slope = [
                (given.apply(point + step * e) - given.apply(point - step * e)) / (2 * step)
                for e in np.eye(3)
            ]
            assert found[index] == pytest.approx(np.linalg.det(np.array(slope)), rel=1e-4)

    def test_a_turned_lattice_is_refused(self):
        turned = Lattice((4, 4, 4), oblique_matrix(np.random.default_rng(3), (2.0, 2.0, 2.0)))
        assert code_of(jacobian_map, deformation(11), turned) == "TURNED_LATTICE"
