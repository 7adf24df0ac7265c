"""Files with flipped, lost and repeated bytes are read, or refused by our own errors: nothing else."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

import cardiacreg
from cardiacreg import InvalidInputError
from cardiacreg.errors import kept_warnings
from cardiacreg.phantoms.toy_heart import make_toy_heart

HEART = make_toy_heart()


def spline():
    moves = np.random.default_rng(0).normal(size=(5, 5, 5, 3))
    return cardiacreg.FFD(cardiacreg.Affine.identity(), moves, np.diag([25.0, 25.0, 25.0, 1.0]))


def write_points(path):
    points = cardiacreg.landmarks_from_labels(HEART.labels).points_mm
    rows = "\n".join(" ".join(f"{x:.3f}" for x in point) for point in points)
    head = "# vtk DataFile Version 3.0\npoints\nASCII\nDATASET POLYDATA\nPOINTS 6 float\n"
    Path(path).write_text(head + rows + "\n")


def write_mgh(path):
    image = nibabel.MGHImage(HEART.labels.array, HEART.labels.voxel_to_world.astype(np.float32))
    nibabel.save(image, path)


def write_any_surface(path):
    cardiacreg.write_surface(path, cardiacreg.surfaces_of(HEART.labels)["LV_ENDO"])


def write_landmarks(path):
    cardiacreg.write_landmarks(path, cardiacreg.landmarks_from_labels(HEART.labels))


def write_field(path):
    cardiacreg.write_displacement_field(path, cardiacreg.dense_displacement(spline(), HEART.labels))


READERS = {
    "labels.nii": (lambda p: cardiacreg.write_labels(p, HEART.labels), cardiacreg.read_labels),
    "labels.nii.gz": (
        lambda p: cardiacreg.write_labels(p, HEART.labels), cardiacreg.read_segmentation,
    ),
    "image.nii.gz": (lambda p: cardiacreg.write_volume(p, HEART.image), cardiacreg.read_volume),
    "labels.mgz": (write_mgh, cardiacreg.read_labels),
    "points.json": (write_landmarks, cardiacreg.read_landmarks),
    "points.vtk": (write_points, lambda p: cardiacreg.read_landmarks(p, space="RAS")),
    "spline.dof": (lambda p: cardiacreg.write_dof(p, spline()), cardiacreg.read_dof),
    "spline.tfm": (
        lambda p: cardiacreg.write_itk_transform(p, spline()), cardiacreg.read_itk_transform,
    ),
    "affine.mat": (
        lambda p: cardiacreg.write_itk_transform(p, cardiacreg.Affine.identity()),
        cardiacreg.read_itk_transform,
    ),
    "field.nii.gz": (write_field, cardiacreg.read_displacement_field),
    "surface.vtp": (write_any_surface, cardiacreg.read_surface),
    "surface.stl": (write_any_surface, cardiacreg.read_surface),
    "surface.ply": (write_any_surface, cardiacreg.read_surface),
    "surface.obj": (write_any_surface, cardiacreg.read_surface),
}  # fmt: skip


@st.composite
def damages(draw):
    """What is done to a file's bytes: a function of them."""
    kind = draw(st.sampled_from(["flip", "set", "cut", "repeat", "words"]))
    places = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=6))
    near_head, value = draw(st.booleans()), draw(st.integers(0, 255))
    word = draw(st.sampled_from([b"\xff" * 8, bytes(8), b"nan     ", b"1e999   ", b"99999999"]))

    def damaged(content):
        found = bytearray(content)
        for place in places:
            size = min(len(found), 700) if near_head else len(found)
            where = int(place * size)
            if not found:
                break
            if kind == "flip":
                found[where] ^= 1 << (value % 8)
            elif kind == "set":
                found[where] = value
            elif kind == "cut":
                del found[where:]
            elif kind == "repeat":
                found[where:where] = found[where : where + value] * 3
            else:
                found[where : where + 8] = word
        return bytes(found)

    return damaged


@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=60, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(damage=damages())
def test_damaged_files_are_read_or_refused(tmp_path, name, damage):
    write, read = READERS[name]
    path = tmp_path / name
    if not (tmp_path / "whole").exists():
        write(path)
        path.rename(tmp_path / "whole")
    path.write_bytes(damage((tmp_path / "whole").read_bytes()))
    with kept_warnings():
        try:
            read(path)
        except InvalidInputError as error:
            assert error.code != "INVALID_INPUT"


@pytest.mark.parametrize(
    "part", ["index.json", "entries.jsonl", "ends.npy", "labels.npy", "images.npy"]
)
@settings(
    max_examples=40, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(damage=damages())
def test_damaged_banks_are_read_or_refused(tmp_path, part, damage):
    place = tmp_path / "bank"
    if not place.exists():
        cardiacreg.build_atlas_bank(place, [HEART, make_toy_heart(size=0.9)], threads=1)
        (tmp_path / "whole").write_bytes((place / part).read_bytes())
    (place / part).write_bytes(damage((tmp_path / "whole").read_bytes()))
    with kept_warnings():
        try:
            bank = cardiacreg.AtlasBank(place)
            assert all(each.labels.shape for each in bank)
            cardiacreg.verify_atlas_bank(place)
        except InvalidInputError as error:
            assert error.code != "INVALID_INPUT"
