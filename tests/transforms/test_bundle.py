"""Many transforms in one file: what is read is what was written, and damage is told."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cardiacreg import FFD, Affine, FFDChain, InvalidInputError, read_transforms, write_transforms
from cardiacreg.transforms.files_bundle import bundle_content
from tests.helpers.strategies import light, oblique_matrix, seeds, well_conditioned_matrix


def deformation(rng, affine=None):
    shape = rng.integers(4, 8, size=3)
    matrix = oblique_matrix(rng, rng.uniform(5, 40, size=3), left_handed=bool(rng.integers(2)))
    affine = Affine(well_conditioned_matrix(rng, reach_mm=200)) if affine is None else affine
    return FFD(affine, rng.normal(0, 10, size=(*shape, 3)), matrix)


def chain(rng, count):
    before = [deformation(rng, Affine.identity()) for _ in range(count - 1)]
    return FFDChain((*before, deformation(rng)))


@st.composite
def transforms(draw):
    rng = np.random.default_rng(draw(seeds))
    counts = draw(st.lists(st.integers(1, 3), max_size=4))
    return [deformation(rng) if count == 1 else chain(rng, count) for count in counts]


def a_few():
    rng = np.random.default_rng(0)
    return [deformation(rng), chain(rng, 2), deformation(rng)], ["one", "two ü", "one"]


def points():
    return np.random.default_rng(1).uniform(-150, 150, size=(60, 3))


def same(found, expected):
    assert [type(each) for each in found] == [type(each) for each in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.apply(points()), other.apply(points()))


@light
@given(transforms())
def test_any_transforms_come_back_to_the_same_bits(tmp_path_factory, given_transforms):
    path = tmp_path_factory.mktemp("bundle") / "t.npz"
    names = [f"atlas {n}" for n in range(len(given_transforms))]
    write_transforms(path, given_transforms, names)
    found, said = read_transforms(path)
    assert said == tuple(names)
    same(found, given_transforms)


def test_numpy_reads_it_without_pickles(tmp_path):
    given_transforms, names = a_few()
    write_transforms(tmp_path / "t.npz", given_transforms, names)
    with np.load(tmp_path / "t.npz", allow_pickle=False) as held:
        assert held["names"].tolist() == names
        assert held["n_links"].tolist() == [1, 2, 1]
        first = held["displacements_mm"][: held["lattice_shapes"][0].prod()]
        np.testing.assert_array_equal(
            first.reshape(given_transforms[0].displacements_mm.shape),
            given_transforms[0].displacements_mm,
        )
        np.testing.assert_array_equal(held["affines"][2], given_transforms[2].affine.matrix)
    assert bundle_content(given_transforms, names) == (tmp_path / "t.npz").read_bytes()


def code_of(path):
    with pytest.raises(InvalidInputError) as caught:
        read_transforms(path)
    assert str(path) in str(caught.value)
    return caught.value.code


def test_other_files_are_no_bundle(tmp_path):
    assert code_of(tmp_path / "absent.npz") == "FILE_NOT_FOUND"
    for name, content in (("a", b""), ("b", b"text"), ("c", pickle.dumps({"version": 1}))):
        (tmp_path / name).write_bytes(content)
        assert code_of(tmp_path / name) == "BAD_FILE_TYPE"
    np.savez(tmp_path / "d.npz", version=1, names=["a"])
    assert code_of(tmp_path / "d.npz") == "BAD_FILE_TYPE"


def test_damage_is_told_or_harmless(tmp_path):
    given_transforms, names = a_few()
    content, path = bundle_content(given_transforms, names), tmp_path / "t.npz"
    for length in np.linspace(2, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        assert code_of(path) == "CORRUPT_FILE"
    rng, told = np.random.default_rng(2), 0
    heads = [i for i in range(len(content)) if content[i : i + 2] in (b"PK", b"\x93N")]
    places = [*rng.integers(0, len(content), size=150)]
    places += [head + int(rng.integers(60)) for head in heads for _ in range(6)]
    for place in places:
        changed = bytearray(content)
        changed[min(place, len(content) - 1)] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            found, said = read_transforms(path)
        except InvalidInputError as error:
            assert error.code in ("CORRUPT_FILE", "BAD_FILE_TYPE")
            told += 1
        else:
            same(found, given_transforms)
            assert said == tuple(names)
    assert told > 150


def held(**changes):
    with np.load(io.BytesIO(bundle_content(*a_few()))) as arrays:
        return dict(arrays) | changes


LATTICES = [[4, 4, 4], [4, 4, 4], [4, 4, 4], [4, 4, 4]]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": np.int64(2)}, "BAD_FILE_TYPE"),
        ({"version": np.array([1])}, "BAD_FILE_TYPE"),
        ({"version": np.array("1")}, "BAD_FILE_TYPE"),
        ({"names": np.array(["one"])}, "CORRUPT_FILE"),
        ({"names": np.array([1, 2, 3])}, "CORRUPT_FILE"),
        ({"names": np.array(["one", None, "two"], dtype=object)}, "CORRUPT_FILE"),
        ({"n_links": np.array([1, 1, 1])}, "CORRUPT_FILE"),
        ({"n_links": np.array([4, 1, -1])}, "CORRUPT_FILE"),
        ({"n_links": np.array([2**62, 2**62, 2**62])}, "CORRUPT_FILE"),
        ({"n_links": np.array([1.0, 2.0, 1.0])}, "CORRUPT_FILE"),
        ({"lattice_shapes": np.array(LATTICES)}, "CORRUPT_FILE"),
        ({"lattice_shapes": np.array(LATTICES) - 1}, "CORRUPT_FILE"),
        ({"lattice_shapes": np.full((4, 3), 2**21)}, "CORRUPT_FILE"),
        ({"lattices_to_world": np.zeros((4, 4, 4))}, "CORRUPT_FILE"),
        ({"lattices_to_world": np.zeros((2, 4, 4))}, "CORRUPT_FILE"),
        ({"affines": np.full((3, 4, 4), np.nan)}, "CORRUPT_FILE"),
        ({"affines": np.zeros((3, 16))}, "CORRUPT_FILE"),
        ({"displacements_mm": np.zeros((9, 3))}, "CORRUPT_FILE"),
        ({"more": np.zeros(2)}, "BAD_FILE_TYPE"),
    ],
)
def test_arrays_that_do_not_go_together_are_refused(tmp_path, changes, code):
    np.savez(tmp_path / "t.npz", **held(**changes))
    assert code_of(tmp_path / "t.npz") == code


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    values = np.full(held()["displacements_mm"].shape, np.inf)
    np.savez(tmp_path / "t.npz", **held(displacements_mm=values))
    assert code_of(tmp_path / "t.npz") == "CORRUPT_FILE"


def test_what_claims_more_than_the_file_holds_is_refused(tmp_path):
    """A compressed archive could ask for a thousand times its size, and so could a header."""
    np.savez_compressed(tmp_path / "t.npz", **held())
    assert code_of(tmp_path / "t.npz") == "BAD_FILE_TYPE"
    given_arrays, path = held(), tmp_path / "u.npz"
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        huge, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 3)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in given_arrays.items():
            stream = io.BytesIO()
            np.save(stream, values)
            content = huge if name == "displacements_mm" else stream
            archive.writestr(f"{name}.npy", content.getvalue())
    assert code_of(path) == "CORRUPT_FILE"


@pytest.mark.parametrize(
    ("name", "what", "names", "code"),
    [
        ("t.dof", [], [], "BAD_FILE_NAME"),
        ("t.npz", [Affine.identity()], ["a"], "BAD_TYPE"),
        ("t.npz", a_few()[0], ["a"], "BAD_SHAPE"),
    ],
)
def test_what_cannot_be_written_is_told(tmp_path, name, what, names, code):
    with pytest.raises(InvalidInputError) as caught:
        write_transforms(tmp_path / name, what, names)
    assert caught.value.code == code
    assert not list(tmp_path.iterdir())
