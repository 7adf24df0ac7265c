"""What a long run of wrong values found: calls and files that ended in errors that were not ours."""

from pathlib import Path

import numpy as np
import pytest

import cardiacreg
from cardiacreg import FFD, Affine, InvalidInputError, Lattice, Surface
from cardiacreg.errors import kept_warnings
from cardiacreg.phantoms.toy_heart import make_toy_heart

HEART = make_toy_heart()
LATTICE = Lattice((4, 4, 4), np.eye(4))
SPLINE = FFD(Affine.identity(), np.zeros((4, 4, 4, 3)), np.diag([20.0, 20.0, 20.0, 1.0]))
SURFACE = Surface(np.eye(3), np.array([[0, 1, 2]]))
TOO_LONG = "x" * 300
SEVERAL = np.ones((2, 2))
RAGGED = (np.ones(3), (), 0)
SQUARE = [(0, 0, 8), (20, 0, 8), (20, 20, 8)]


def refine(**wrong):
    return cardiacreg.refine(HEART.labels, **({"atlases": [HEART], "threads": 1} | wrong))


def contours(given=((SQUARE, 1),), shape=(10, 10, 4), edge_pixels=0.0):
    matrix = np.diag([2.5, 2.5, 8.0, 1.0])
    return cardiacreg.labels_from_contours(given, shape, matrix, edge_pixels=edge_pixels)


CALLS = {
    "a bank of an impossible name": ("BAD_FILE_NAME", lambda: refine(atlases=TOO_LONG)),
    "a bank with a zero byte": ("BAD_FILE_NAME", lambda: refine(atlases="a\0")),
    "a cine of ragged frames": ("BAD_TYPE", lambda: cardiacreg.refine_cine([SEVERAL, RAGGED])),
    "seeds": ("BAD_SEED", lambda: cardiacreg.sample_heart(np.zeros((0, 2)))),
    "spacings in words": (
        "BAD_TYPE", lambda: cardiacreg.sample_heart(1, spacing_mm=(1, "a")),
    ),
    "no heart to view": ("BAD_TYPE", lambda: cardiacreg.simulate_views(object(), seed=1)),
    "a seed of views": ("BAD_SEED", lambda: cardiacreg.simulate_views(HEART, seed="1")),
    "phases": ("BAD_PHASE", lambda: cardiacreg.sample_heart(1, phase=SEVERAL)),
    "groups": ("BAD_GROUP", lambda: cardiacreg.sample_heart(1, group=SEVERAL)),
    "an acquisition in words": ("BAD_OPTION", lambda: cardiacreg.Degradation(shift_sd_mm="far")),
    "a view in words": ("BAD_OPTION", lambda: cardiacreg.ViewAcquisition(pixel_mm="small")),
    "a view's name": ("BAD_TYPE", lambda: cardiacreg.View(HEART.labels, name=SEVERAL)),
    "vertices in words": ("BAD_TYPE", lambda: Surface("a", np.array([[0, 1, 2]]))),
    "ragged triangles": ("BAD_SURFACE", lambda: Surface(np.eye(3), RAGGED)),
    "a field of bytes": ("BAD_TYPE", lambda: cardiacreg.DisplacementField(b"", np.eye(4))),
    "a spline in words": ("BAD_TYPE", lambda: cardiacreg.BSplineMap("ED", np.eye(4), 3)),
    "orders": (
        "BAD_LATTICE", lambda: cardiacreg.BSplineMap(np.zeros((5, 5, 5, 3)), np.eye(4), SEVERAL),
    ),
    "a chain of numbers": ("BAD_TYPE", lambda: cardiacreg.TransformChain((1,))),
    "metadata of arrays": (
        "EMPTY_BANK", lambda: cardiacreg.with_metadata([HEART], phase=[SEVERAL]),
    ),
    "no labels": ("BAD_TYPE", lambda: cardiacreg.write_segmentation("a.nii", -1)),
    "no field": ("BAD_TYPE", lambda: cardiacreg.write_displacement_field("a.nii", SPLINE)),
    "no surface": ("BAD_TYPE", lambda: cardiacreg.write_surface("a.ply", "a")),
    "a surface's spaces": (
        "BAD_TYPE", lambda: cardiacreg.write_surface("a.ply", SURFACE, space=SEVERAL),
    ),
    "no guide points": ("BAD_TYPE", lambda: cardiacreg.write_guide_points("a", "labels")),
    "guide points nowhere": (
        "BAD_FILE_NAME", lambda: cardiacreg.write_guide_points(TOO_LONG, HEART.labels),
    ),
    "guide points into a zero byte": (
        "BAD_FILE_NAME", lambda: cardiacreg.write_guide_points("a\0", HEART.labels),
    ),
    "overwriting by an array": (
        "BAD_TYPE",
        lambda: cardiacreg.write_guide_points("guides", HEART.labels, overwrite=SEVERAL),
    ),
    "a conversion's spaces": (
        "BAD_TYPE", lambda: cardiacreg.convert("labels.nii", "b.nii", space_from=SEVERAL),
    ),
    "a conversion of an impossible name": (
        "UNREADABLE_FILE", lambda: cardiacreg.convert(TOO_LONG, "b.nii"),
    ),
    "labels of a label": ("BAD_TYPE", lambda: cardiacreg.hausdorff_mm(*[HEART.labels] * 2, SEVERAL)),
    "tolerances": (
        "BAD_TYPE",
        lambda: cardiacreg.normalized_surface_dice(*[HEART.labels] * 2, tolerance_mm=SEVERAL),
    ),
    "findings in words": ("BAD_TYPE", lambda: cardiacreg.judge({"LV cavity": 1})),
    "agreement of bytes": ("BAD_TYPE", lambda: cardiacreg.judge((), agreement=bytearray(b"1"))),
    "agreement in words": (
        "BAD_TYPE", lambda: cardiacreg.judge((), agreement={"LV cavity": "0.9"}),
    ),
    "contours in words": ("BAD_CONTOUR", lambda: contours(["1"])),
    "contours without a label": ("UNKNOWN_LABEL", lambda: contours([(SQUARE, float("nan"))])),
    "contours of half a label": ("UNKNOWN_LABEL", lambda: contours([(SQUARE, 1.5)])),
    "contours on too many voxels": ("TOO_LARGE", lambda: contours(shape=(10**6, 10**6, 4))),
    "edges of contours": ("BAD_TYPE", lambda: contours(edge_pixels=SEVERAL)),
    "a mean of words": ("BAD_TYPE", lambda: cardiacreg.mean_displacement("\0", LATTICE)),
    "a mean on nothing": ("BAD_TYPE", lambda: cardiacreg.mean_displacement([SPLINE], "grid")),
    "no surface to carry": (
        "BAD_TYPE", lambda: cardiacreg.carried_surface(SEVERAL, Affine.identity()),
    ),
    "no heart to degrade": (
        "BAD_TYPE", lambda: cardiacreg.simulate_low_resolution(np.int8(3), seed=1),
    ),
    "a seed below 0": ("BAD_SEED", lambda: cardiacreg.simulate_low_resolution(HEART, seed=-1)),
    "endless slices": (
        "BAD_THICKNESS",
        lambda: cardiacreg.simulate_low_resolution(HEART, seed=1, slice_thickness_mm=np.inf),
    ),
    "measures of nothing": ("BAD_TYPE", lambda: cardiacreg.write_measures_csv("a.csv", set())),
    "a report of words": (
        "BAD_TYPE", lambda: cardiacreg.write_cohort_report({"": [1], "a": {}}, "a.html"),
    ),
    "studies of numbers": ("BAD_TYPE", lambda: cardiacreg.write_dicom_cine("study", {2})),
    "times of a study": (
        "BAD_TYPE", lambda: cardiacreg.write_dicom_cine("study", [HEART.image], times_ms={}),
    ),
    "a study of an impossible name": (
        "FILE_NOT_FOUND", lambda: cardiacreg.read_dicom_cine(TOO_LONG),
    ),
    "measures in words": ("BAD_TYPE", lambda: cardiacreg.write_measures_csv("a.csv", {"a": "b"})),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_refused_by_our_own_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    cardiacreg.write_labels("labels.nii", HEART.labels)
    code, call = CALLS[name]
    with kept_warnings(), pytest.raises(InvalidInputError) as raised:
        call()
    assert raised.value.code == code
    assert [path.name for path in tmp_path.iterdir()] == ["labels.nii"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("GPFile_000.txt", "\tSAX", "\rSAX"),
        ("GPFile_000.txt", "\t0\n", "\t1e999\n"),
        ("SliceInfoFile.txt", "sliceID:", "x"),
    ],
)
def test_damaged_guide_points_are_refused(tmp_path, file, old, new):
    cardiacreg.write_guide_points(tmp_path, HEART.labels)
    text = (tmp_path / file).read_text()
    assert old in text
    damaged = text.replace(old, new) + ("sliceID:" if file == "SliceInfoFile.txt" else "")
    (tmp_path / file).write_bytes(damaged.encode())
    with pytest.raises(InvalidInputError) as raised:
        cardiacreg.read_guide_points(tmp_path / "GPFile_000.txt")
    assert raised.value.code == "BAD_CONTOUR_FILE"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"\x10\x00 \x00LO", b"\x10\x00 \x00LK"), (b"\x18\x00\x50\x00DS", b"\x18\x00\x50\x00XX")],
)
def test_a_damaged_header_of_a_study_is_refused(tmp_path, old, new):
    pytest.importorskip("pydicom")
    cardiacreg.write_dicom_cine(tmp_path, [HEART.image, HEART.image])
    first = sorted(tmp_path.glob("*.dcm"))[0]
    content = first.read_bytes()
    assert old in content
    first.write_bytes(content.replace(old, new))
    with pytest.raises(InvalidInputError, match=f"{first.name}.*damaged") as raised:
        cardiacreg.read_dicom_cine(tmp_path)
    assert raised.value.code == "UNREADABLE_FILE"


@pytest.mark.parametrize("encoding", ["UTFl8", "utf-7-imap", "undefined", "\0"])
def test_a_workspace_in_an_unknown_encoding_is_refused(tmp_path, encoding):
    path = Path(tmp_path / "a.cvi42wsx")
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><a/>')
    with pytest.raises(InvalidInputError) as raised:
        cardiacreg.read_cvi42(path)
    assert raised.value.code == "BAD_CONTOUR_FILE"


@pytest.mark.parametrize(
    "damage", [lambda c: b"no archive", lambda c: c.replace(b"PK\1\2", b"PK\1\3")]
)
def test_a_damaged_index_is_refused(tmp_path, damage):
    path = cardiacreg.AtlasIndex.build([HEART, make_toy_heart(size=0.9)]).save(
        tmp_path / "index.npz"
    )
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidInputError) as raised:
        cardiacreg.AtlasIndex.load(path)
    assert raised.value.code == "BAD_ATLAS_INDEX"


def test_deviations_of_minus_nothing_are_none():
    """NumPy refuses a scale of -0.0, which is no negative number."""
    none = cardiacreg.Degradation(shift_sd_mm=-0.0, tilt_sd_degrees=-0.0, turn_sd_degrees=-0.0)
    assert not none.of(HEART, seed=1).slice_shifts_mm.any()
    cardiacreg.ViewAcquisition(angle_sd_degrees=-0.0, offset_sd_mm=-0.0)
