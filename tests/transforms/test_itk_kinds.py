"""ITK's kinds of transforms in its three formats, against SimpleITK at 200 points."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest

from cardiacreg import (
    FFD,
    Affine,
    BSplineMap,
    DisplacementField,
    FFDChain,
    InvalidInputError,
    Lattice,
    TransformChain,
    dense_displacement,
    invert_points,
    read_itk_transform,
    warp_labels,
    write_dof,
    write_itk_transform,
)
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.transforms import itk_records
from tests.helpers.strategies import oblique_matrix

sitk = pytest.importorskip("SimpleITK")
LPS = np.array([-1.0, -1.0, 1.0])
POINTS = np.random.default_rng(0).uniform(-40, 40, (200, 3))


def theirs(transform, points=POINTS):
    return np.array([transform.TransformPoint(p.tolist()) for p in points * LPS]) * LPS


def refused(path, **keywords):
    with pytest.raises(InvalidInputError) as caught:
        read_itk_transform(path, **keywords)
    assert str(path) in str(caught.value)
    return caught.value.code, str(caught.value)


def check(transform, path, kind, atol=1e-9):
    """Written by SimpleITK, read by us: the same map."""
    sitk.WriteTransform(transform, str(path))
    found = read_itk_transform(path)
    assert type(found) is kind
    np.testing.assert_allclose(found.apply(POINTS), theirs(transform), atol=atol)
    return found


def made(kind, seed=1):
    """A transform of a kind with a centre and parameters that are all different."""
    rng = np.random.default_rng(seed)
    transform = getattr(sitk, kind)(*((3,) if kind in PLAIN else ()))
    parameters = np.array(transform.GetParameters())
    transform.SetParameters((parameters + rng.uniform(-0.2, 0.2, len(parameters))).tolist())
    if len(transform.GetFixedParameters()) >= 3:
        transform.SetCenter((7.0, -8.0, 9.0))
    return transform


PLAIN = ("AffineTransform", "TranslationTransform", "ScaleTransform")
LINEAR = (
    *PLAIN,
    "Euler3DTransform",
    "VersorTransform",
    "VersorRigid3DTransform",
    "Similarity3DTransform",
    "ScaleVersor3DTransform",
    "ScaleSkewVersor3DTransform",
    "ComposeScaleSkewVersor3DTransform",
)


def spline(order=3, seed=2):
    image = sitk.Image([40, 40, 40], sitk.sitkFloat32)
    image.SetSpacing((2.6, 2.5, 2.7))
    image.SetOrigin((-52.0, -50.0, -54.0))
    found = sitk.BSplineTransformInitializer(image, (4, 5, 3), order)
    rng = np.random.default_rng(seed)
    found.SetParameters(rng.normal(0, 3, len(found.GetParameters())).tolist())
    return found


def field():
    image = sitk.Image([30, 30, 30], sitk.sitkFloat32)
    image.SetSpacing((3.0, 3.0, 3.0))
    image.SetOrigin((-43.5, -43.5, -43.5))
    moves = sitk.TransformToDisplacementField(
        spline(), sitk.sitkVectorFloat64, image.GetSize(), image.GetOrigin(), image.GetSpacing()
    )
    return sitk.DisplacementFieldTransform(moves)


class TestLinearKinds:
    @pytest.mark.parametrize("kind", LINEAR)
    def test_alone(self, tmp_path, kind):
        transform = made(kind)
        for suffix in ("tfm", "txt", "mat", "h5"):
            check(transform, tmp_path / f"t.{suffix}", Affine)

    @pytest.mark.parametrize("kind", LINEAR)
    def test_after_and_before_a_spline(self, tmp_path, kind):
        linear, soft = made(kind), spline()
        for members, expected in (([linear, soft], FFD), ([soft, linear], TransformChain)):
            joined = sitk.CompositeTransform(members)
            check(joined, tmp_path / "t.tfm", expected)

    def test_euler_angles_in_the_order_zyx(self, tmp_path):
        transform = made("Euler3DTransform")
        transform.SetComputeZYX(True)
        check(transform, tmp_path / "t.tfm", Affine)
        check(transform, tmp_path / "t.h5", Affine)

    def test_inverses(self, tmp_path):
        check(made("Similarity3DTransform").GetInverse(), tmp_path / "t.tfm", Affine)

    @pytest.mark.parametrize(
        ("kind", "parameters"),
        [
            ("QuaternionRigidTransform", [0.1, 0.2, 0.3, 0.9, 1, 2, 3]),
            ("ScaleLogarithmicTransform", [0.1, 0.2, -0.1]),
            ("MatrixOffsetTransformBase", [1, 0.1, 0, 0, 1, 0.2, 0, 0, 1, 4, 5, 6]),
            ("VersorRigid3DTransform", [0.6, 0.8, 0.3, 1, 2, 3]),
            ("IdentityTransform", []),
        ],
    )
    def test_kinds_that_simpleitk_only_reads(self, tmp_path, kind, parameters):
        text = itk_text((kind, parameters, [] if not parameters else [1, 2, 3]))
        (tmp_path / "t.tfm").write_text(text)
        expected = theirs(sitk.ReadTransform(str(tmp_path / "t.tfm")))
        found = read_itk_transform(tmp_path / "t.tfm").apply(POINTS)
        np.testing.assert_allclose(found, expected, atol=1e-9)

    def test_kinds_whose_centre_is_a_parameter(self, tmp_path):
        """The same numbers as in the kind without, where the centre is fixed."""
        euler, rows = [0.1, 0.2, 0.3], [1, 0.1, 0, 0, 1, 0.2, 0, 0, 1]
        for name, first in (("Euler3DTransform", euler), ("AffineTransform", rows)):
            (tmp_path / "a.tfm").write_text(itk_text((name, [*first, 4, 5, 6], [7, 8, 9])))
            centred = (f"Centered{name}", [*first, 7, 8, 9, 4, 5, 6], [0, 0, 0])
            (tmp_path / "b.tfm").write_text(itk_text(centred))
            one, other = (read_itk_transform(tmp_path / f"{n}.tfm").matrix for n in "ab")
            np.testing.assert_allclose(one, other, atol=1e-12)


def itk_text(*records):
    lines = ["#Insight Transform File V1.0"]
    for number, (kind, parameters, fixed) in enumerate(records):
        name = kind if kind.endswith("_2_2") else f"{kind}_double_3_3"
        lines += [f"#Transform {number}", f"Transform: {name}"]
        lines += ["Parameters: " + " ".join(map(str, parameters))]
        lines += ["FixedParameters: " + " ".join(map(str, fixed))]
    return "\n".join(lines) + "\n"


HEAD = "#Insight Transform File V1.0\n"
PARTS = "Transform: CompositeTransform_double_3_3\nComponentTransformFile: b.tfm\n"


def one(kind, count, value=0):
    return itk_text((kind, [value] * count, [0, 0, 0]))


class TestSplines:
    @pytest.mark.parametrize(("order", "kind"), [(1, BSplineMap), (2, BSplineMap), (3, FFD)])
    def test_of_every_order(self, tmp_path, order, kind):
        check(spline(order), tmp_path / "t.tfm", kind)
        check(spline(order), tmp_path / "t.h5", kind)

    @pytest.mark.parametrize("order", [1, 2])
    def test_end_where_those_of_itk_end(self, tmp_path, order):
        transform = spline(order)
        sitk.WriteTransform(transform, str(tmp_path / "t.h5"))
        wide = np.random.default_rng(3).uniform(-80, 80, (500, 3))
        found = read_itk_transform(tmp_path / "t.h5").apply(wide)
        np.testing.assert_allclose(found, theirs(transform, wide), atol=1e-9)

    def test_cubic_map_equals_the_deformation_inside(self):
        rng = np.random.default_rng(5)
        values, matrix = rng.normal(size=(6, 7, 8, 3)), oblique_matrix(rng, (9.0, 8.0, 7.0))
        inside = Affine(matrix).apply(rng.uniform(1, [4, 5, 6], (50, 3)))
        expected = FFD(Affine.identity(), values, matrix).apply(inside)
        np.testing.assert_allclose(BSplineMap(values, matrix, 3).apply(inside), expected)

    def test_several_become_a_chain(self, tmp_path):
        joined = sitk.CompositeTransform([made("Euler3DTransform"), spline(3), spline(3, 9)])
        check(joined, tmp_path / "t.h5", TransformChain)
        mixed = sitk.CompositeTransform([spline(2), made("Euler3DTransform"), spline(1, 9)])
        check(mixed, tmp_path / "t.tfm", TransformChain)

    def test_chains_are_written(self, tmp_path):
        matrix = np.diag([20.0, 20, 20, 1])
        rng = np.random.default_rng(4)
        links = [FFD(Affine.identity(), rng.normal(size=(5, 5, 5, 3)), matrix) for _ in range(2)]
        links[1] = FFD(Affine(np.diag([1.1, 1, 1, 1])), links[1].displacements_mm, matrix)
        given = FFDChain(tuple(links))
        write_itk_transform(tmp_path / "t.tfm", given)
        points = rng.uniform(30, 50, (20, 3))
        found = read_itk_transform(tmp_path / "t.tfm")
        np.testing.assert_allclose(found.apply(points), given.apply(points))
        np.testing.assert_allclose(
            theirs(sitk.ReadTransform(str(tmp_path / "t.tfm")), points), given.apply(points)
        )

    def test_old_names_and_lattices_without_directions(self, tmp_path):
        transform = spline()
        parameters, fixed = transform.GetParameters(), transform.GetFixedParameters()
        for given in (fixed, fixed[:9]):
            text = itk_text(("BSplineDeformableTransform", parameters, given))
            (tmp_path / "t.tfm").write_text(text)
            found = read_itk_transform(tmp_path / "t.tfm").apply(POINTS)
            np.testing.assert_allclose(found, theirs(transform), atol=1e-9)

    @pytest.mark.parametrize(
        ("shape", "order"),
        [((2, 3, 3, 3), 2), ((4, 4, 4), 3), ((4, 4, 4, 2), 1), ((5, 5, 5, 3), 4)],
    )
    def test_lattices_of_no_use_are_refused(self, shape, order):
        with pytest.raises(InvalidInputError, match="BSplineMap"):
            BSplineMap(np.zeros(shape), np.eye(4), order)


class TestFields:
    def test_alone_and_in_composites(self, tmp_path):
        check(field(), tmp_path / "t.h5", DisplacementField)
        joined = sitk.CompositeTransform([made("AffineTransform"), field()])
        check(joined, tmp_path / "t.h5", TransformChain)

    def test_end_where_those_of_itk_end(self, tmp_path):
        transform = field()
        sitk.WriteTransform(transform, str(tmp_path / "t.h5"))
        wide = np.random.default_rng(3).uniform(-50, 50, (500, 3))
        found = read_itk_transform(tmp_path / "t.h5").apply(wide)
        np.testing.assert_allclose(found, theirs(transform, wide), atol=1e-9)


class TestLists:
    RECORDS = [
        ("MatrixOffsetTransformBase", [1, 0, 0, 0, 1, 0, 0, 0, 1, n, 0, 0], [0, 0, 0])
        for n in range(1, 4)
    ]

    def test_are_refused_unless_one_is_chosen(self, tmp_path):
        (tmp_path / "t.tfm").write_text(itk_text(*self.RECORDS))
        code, text = refused(tmp_path / "t.tfm")
        assert code == "SEVERAL_TRANSFORMS"
        assert "index=0 to index=2" in text
        for index in range(3):
            found = read_itk_transform(tmp_path / "t.tfm", index=index).apply([0.0, 0, 0])
            np.testing.assert_allclose(found, [-1.0 - index, 0, 0])
        for index in (-1, 3):
            assert refused(tmp_path / "t.tfm", index=index)[0] == "BAD_OPTION"

    def test_in_the_other_formats(self, tmp_path):
        records = itk_records._from_text(itk_text(*self.RECORDS))
        (tmp_path / "t.h5").write_bytes(itk_records.written(records, ".h5"))
        (tmp_path / "t.mat").write_bytes(b"".join(itk_records._matlab(r) for r in records))
        for name in ("t.h5", "t.mat"):
            assert refused(tmp_path / name)[0] == "SEVERAL_TRANSFORMS"
            found = read_itk_transform(tmp_path / name, index=2).apply([0.0, 0, 0])
            np.testing.assert_allclose(found, [-3.0, 0, 0])

    def test_a_matrix_beside_an_old_spline_is_explained(self, tmp_path):
        transform = spline()
        old = (
            "BSplineDeformableTransform",
            transform.GetParameters(),
            transform.GetFixedParameters(),
        )
        (tmp_path / "t.tfm").write_text(itk_text(self.RECORDS[0], old))
        assert "bulk" in refused(tmp_path / "t.tfm")[1]


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("name", "content", "code", "words"),
        [
            ("a.tfm", one("Rigid3DPerspectiveTransform", 6), "BAD_FILE_TYPE", "SimpleITK"),
            ("a.tfm", one("TimeVaryingVelocityFieldTransform", 0), "BAD_FILE_TYPE", "read_displ"),
            ("a.tfm", one("AffineTransform_double_2_2", 6), "BAD_FILE_TYPE", "3-D"),
            ("a.tfm", one("Euler3DTransform", 3), "BAD_FILE_TYPE", "have 6"),
            ("a.tfm", one("TranslationTransform", 3, "nan"), "BAD_FILE_TYPE", "finite"),
            ("a.tfm", HEAD, "CORRUPT_FILE", "no transform"),
            ("a.tfm", HEAD + PARTS, "BAD_FILE_TYPE", "other files"),
            ("a.mat", "1 0 0 1\n0 1 0 2\n0 0 1 3\n0 0 0 1\n", "BAD_FILE_TYPE", "fsl2ras"),
            ("a.txt", "1 0 0 1\n0 1 0 2\n0 0 1 3\n0 0 0 1\n", "BAD_FILE_TYPE", "loadtxt"),
            ("a.lta", "type = 1", "BAD_FILE_NAME", "lta_convert"),
            ("a.nrrd", "NRRD0004", "BAD_FILE_NAME", "read_displacement_field"),
            ("a.dof", "", "BAD_FILE_NAME", "read_dof"),
            ("a.h5", "no HDF5", "CORRUPT_FILE", "HDF5|signature|file"),
        ],
    )  # fmt: skip
    def test_are_refused_with_help(self, tmp_path, name, content, code, words):
        (tmp_path / name).write_text(content)
        found, text = refused(tmp_path / name)
        assert found == code
        assert any(word in text for word in words.split("|")), text

    def test_windows_line_ends_and_marks_are_read(self, tmp_path):
        content = itk_text(TestLists.RECORDS[0]).replace("\n", "\r\n").encode()
        (tmp_path / "t.tfm").write_bytes(b"\xef\xbb\xbf" + content)
        assert read_itk_transform(tmp_path / "t.tfm").matrix[0, 3] == -1

    def test_maps_of_other_tools_warp_and_are_not_written_as_ffds(self, tmp_path):
        labels = make_toy_heart().labels
        matrix = np.diag([30.0, 30.0, 30.0, 1.0])
        matrix[:3, 3] = labels.voxel_to_world[:3, 3] - 30
        soft = BSplineMap(np.full((7, 7, 6, 3), 2.0), matrix, 1)
        chain = TransformChain((soft, Affine(np.eye(4))))
        moved = warp_labels(labels, chain, labels)
        assert moved.array.any()
        field = dense_displacement(chain, Lattice(labels.shape, labels.voxel_to_world))
        np.testing.assert_allclose(field.displacements_mm.max(), 2.0)
        for call in (
            lambda: write_itk_transform(tmp_path / "t.tfm", chain),
            lambda: write_dof(tmp_path / "t.dof", chain),
            lambda: invert_points(chain, [0.0, 0, 0]),
        ):
            with pytest.raises(InvalidInputError) as caught:
                call()
            assert caught.value.code == "BAD_TYPE"
        with pytest.raises(InvalidInputError, match="no maps"):
            TransformChain(())


class TestMatlab:
    KIND, VALUES, CENTRE = (
        "AffineTransform_double_3_3",
        [1, 0, 0, 0, 1, 0, 0, 0, 1, 4, 5, 6],
        [0, 0, 0],
    )

    def content(self, order="<", dtype="f8", kind=0):
        parts = []
        for name, values in ((self.KIND, self.VALUES), ("fixed", self.CENTRE)):
            parts.append(struct.pack(f"{order}5i", kind, len(values), 1, 0, len(name) + 1))
            parts += [name.encode() + b"\0", np.array(values, f"{order}{dtype}").tobytes()]
        return b"".join(parts)

    @pytest.mark.parametrize(
        ("order", "dtype", "kind"),
        [("<", "f8", 0), (">", "f8", 1000), ("<", "f4", 10), ("<", "f8", 100), (">", "f4", 1110)],
    )
    def test_level_4_is_read_in_both_byte_orders(self, tmp_path, order, dtype, kind):
        (tmp_path / "t.mat").write_bytes(self.content(order, dtype, kind))
        found = read_itk_transform(tmp_path / "t.mat").matrix[:3, 3]
        np.testing.assert_allclose(found, [-4, -5, 6])

    def test_what_a_file_claims_is_not_allocated(self, tmp_path):
        content = bytearray(self.content())
        content[4:8] = struct.pack("<i", 2**31 - 1)
        (tmp_path / "t.mat").write_bytes(content)
        assert refused(tmp_path / "t.mat")[0] == "CORRUPT_FILE"

    def test_every_cut_and_every_level_5_is_refused(self, tmp_path):
        from scipy.io import savemat

        content = self.content()
        for cut in range(len(content)):
            (tmp_path / "t.mat").write_bytes(content[:cut])
            assert refused(tmp_path / "t.mat")[0] == "CORRUPT_FILE"
        stream = io.BytesIO()
        savemat(stream, {self.KIND: self.VALUES, "fixed": self.CENTRE})
        (tmp_path / "t.mat").write_bytes(stream.getvalue())
        code, text = refused(tmp_path / "t.mat")
        assert code == "BAD_FILE_TYPE"
        assert "-v4" in text

    def test_random_bytes_are_never_a_crash(self, tmp_path):
        rng = np.random.default_rng(0)
        content = self.content()
        for _ in range(200):
            changed = bytearray(content)
            for place in rng.integers(0, len(content), 3):
                changed[place] = rng.integers(256)
            (tmp_path / "t.mat").write_bytes(changed)
            try:
                read_itk_transform(tmp_path / "t.mat")
            except InvalidInputError:
                continue


class TestHdf5:
    @pytest.fixture(autouse=True)
    def h5py(self):
        self.h5py = pytest.importorskip("h5py")

    def make(self, path, *, old=False, **claims):
        names = ["TransformType", "TransformParameters", "TransformFixedParameters"]
        if old:
            names = [name.replace("Transform", "Tranform", 1) for name in names]
        with self.h5py.File(path, "w") as file:
            group = file.create_group("TransformGroup/0")
            text = self.h5py.string_dtype("ascii")
            group.create_dataset(names[0], data=["TranslationTransform_double_3_3"], dtype=text)
            if claims:
                group.create_dataset(names[1], dtype="f8", **claims)
            else:
                group.create_dataset(names[1], data=[1.0, 2.0, 3.0])
            group.create_dataset(names[2], data=np.zeros(0))

    @pytest.mark.parametrize("old", [False, True])
    def test_names_of_itk_4_and_5(self, tmp_path, old):
        self.make(tmp_path / "t.h5", old=old)
        found = read_itk_transform(tmp_path / "t.h5").matrix[:3, 3]
        np.testing.assert_allclose(found, [-1, -2, 3])

    @pytest.mark.parametrize(
        "claims",
        [{"shape": (2**31,)}, {"shape": (2**31,), "chunks": (1024,), "compression": "gzip"}],
    )
    def test_what_a_file_claims_is_not_allocated(self, tmp_path, claims):
        self.make(tmp_path / "t.h5", **claims)
        code, text = refused(tmp_path / "t.h5")
        assert code == "CORRUPT_FILE"
        assert "claims 2147483648" in text

    def test_nothing_outside_the_file_is_read(self, tmp_path):
        (tmp_path / "other").write_bytes(bytes(24))
        self.make(tmp_path / "a.h5", shape=(3,), external=[(str(tmp_path / "other"), 0, 24)])
        assert refused(tmp_path / "a.h5")[0] == "CORRUPT_FILE"
        self.make(tmp_path / "b.h5")
        with self.h5py.File(tmp_path / "c.h5", "w") as file:
            group = file.create_group("TransformGroup/0")
            for name in ("TransformType", "TransformParameters", "TransformFixedParameters"):
                group[name] = self.h5py.ExternalLink("b.h5", f"/TransformGroup/0/{name}")
        assert refused(tmp_path / "c.h5")[0] == "CORRUPT_FILE"

    def test_a_hanging_library_is_stopped(self, tmp_path, monkeypatch):
        self.make(tmp_path / "t.h5")
        monkeypatch.setattr(itk_records, "HDF5_SECONDS", 0.001)
        code, text = refused(tmp_path / "t.h5")
        assert code == "CORRUPT_FILE"
        assert "come to an end" in text

    def test_a_crashing_library_is_told(self, tmp_path, monkeypatch):
        self.make(tmp_path / "t.h5")
        monkeypatch.setattr(itk_records, "_CHILD", "import os; os.abort()")
        assert "exit code" in refused(tmp_path / "t.h5")[1]

    def test_other_hdf5_files_are_refused(self, tmp_path):
        with self.h5py.File(tmp_path / "t.h5", "w") as file:
            file["data"] = np.zeros(3)
        code, text = refused(tmp_path / "t.h5")
        assert code == "BAD_FILE_TYPE"
        assert "TransformGroup" in text
        with self.h5py.File(tmp_path / "t.h5", "w") as file:
            file["TransformGroup/0/TransformType"] = ["AffineTransform_double_3_3"]
        assert refused(tmp_path / "t.h5")[0] == "CORRUPT_FILE"

    def test_works_from_another_folder(self, tmp_path):
        self.make(tmp_path / "t.h5")
        code = (
            f"import sys; sys.path[:0] = {sys.path!r}\n"
            "import cardiacreg\nprint(cardiacreg.read_itk_transform('t.h5').matrix[2, 3])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.stdout.strip() == "3.0", done.stderr
