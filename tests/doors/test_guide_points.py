"""Guide points of biv-me: read, rasterised in short and long axis, written and refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cardiacreg import LabelMap, read_guide_points, write_guide_points
from cardiacreg.doors.guide_points import read_guide_planes
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, apply_matrix
from cardiacreg.phantoms.toy_heart import make_toy_heart

HEAD = "x\ty\tz\tcontour type\tframeID\tweight\ttime frame"


def row(point, kind, plane, time="0"):
    return "\t".join([*(f"{x:.5f}" for x in point), kind, str(plane), "1.0", str(time)])


def plane_line(number, origin, along=(1, 0, 0, 0, 0, -1), size=(1.5, 1.5)):
    words = ["x.dcm", "sliceID:", number, "ImagePositionPatient", *origin]
    words += ["ImageOrientationPatient", *along, "PixelSpacing", *size]
    return "\t".join(map(str, words))


def square(low, high, height, plane=1, kind="SAX_LV_ENDOCARDIAL", time="0"):
    sides = np.linspace(low, high, 9)
    border = [(x, y) for x in sides for y in sides if {x, y} & {low, high}]
    return [row((*p, height), kind, plane, time) for p in border]


def write(folder, rows, planes):
    folder.mkdir(exist_ok=True)
    (folder / "GPFile_000.txt").write_text("\n".join([HEAD, *rows]), encoding="utf-8")
    (folder / "SliceInfoFile.txt").write_text("\n".join(planes), encoding="utf-8")
    return folder / "GPFile_000.txt"


def stack(tmp_path, heights, rows=None):
    """Short-axis planes at some heights (LPS mm), all with a square."""
    planes = [plane_line(n, (0, 0, h), (1, 0, 0, 0, 1, 0)) for n, h in enumerate(heights, start=1)]
    rows = rows or [r for n, h in enumerate(heights, start=1) for r in square(12, 36, h, n)]
    return write(tmp_path / "points", rows, planes)


def refused(code, function, *arguments, **more):
    with pytest.raises(InvalidInputError) as raised:
        function(*arguments, **more)
    assert raised.value.code == code
    return str(raised.value)


class TestShortAxis:
    def test_written_labels_come_back_where_they_lay(self, tmp_path):
        heart = make_toy_heart().labels
        turn = np.diag([-1.0, 1.0, -1.0, 1.0])
        turn[:3, 3] = (40, -30, 100)
        labels = LabelMap(heart.array, turn @ heart.voxel_to_world)
        write_guide_points(tmp_path, labels, time_frame=4)
        points = read_guide_points(tmp_path / "GPFile_004.txt")
        assert points.number == 4
        found = points.short_axis_labels(shape=labels.shape[:2])
        drawn = np.where(labels.array == 3, 0, labels.array)
        # ours say nothing of the wall under the septum's points that touch the border
        assert (found.array != drawn).sum() < 0.02 * (drawn > 0).sum()
        np.testing.assert_allclose(found.voxel_to_world, labels.voxel_to_world, atol=1e-5)

    def test_planes_in_any_order_become_slices_in_order(self, tmp_path):
        found = read_guide_points(stack(tmp_path, (0.0, 20.0, 10.0)))
        assert found.short_axis_planes() == (1, 3, 2)
        labels = found.short_axis_labels()
        assert labels.spacing_mm[2] == pytest.approx(10) and labels.shape[2] == 3

    def test_slices_run_as_they_were_numbered(self, tmp_path):
        labels = read_guide_points(stack(tmp_path, (0.0, -8.0, -16.0))).short_axis_labels()
        np.testing.assert_allclose(labels.voxel_to_world[:3, 2], (0, 0, -8), atol=1e-9)

    def test_planes_without_contours_are_empty_slices(self, tmp_path):
        rows = [r for n, h in ((2, 8.0), (3, 16.0)) for r in square(12, 36, h, n)]
        labels = read_guide_points(
            stack(tmp_path, (0.0, 8.0, 16.0, 24.0), rows)
        ).short_axis_labels()
        assert (labels.array.sum(axis=(0, 1)) > 0).tolist() == [False, True, True, False]

    @pytest.mark.parametrize(
        ("heights", "words"),
        [
            ((0, 8, 16, 32), "a slice is missing between slices 3 and 4 (16.0 mm, else 8.0 mm)"),
            ((0, 8, 16, 16, 24, 32), "slices 3 and 4 lie at the same place"),
            ((0, 8, 16, 26.5), "10.5 mm between slices 3 and 4, else 8.0 mm"),
        ],
    )
    def test_gaps_duplicates_and_mixed_distances_are_told(self, tmp_path, heights, words):
        points = read_guide_points(stack(tmp_path, [float(h) for h in heights]))
        assert words in refused("UNEVEN_SLICES", points.short_axis_labels)

    def test_a_plane_that_was_moved_within_itself_keeps_its_place(self, tmp_path):
        planes = [
            plane_line(1, (0, 0, 0), (1, 0, 0, 0, 1, 0)),
            plane_line(2, (3, -6, 8), (1, 0, 0, 0, 1, 0)),
        ]
        rows = [*square(12, 36, 0.0, 1), *square(12, 36, 8.0, 2)]
        labels = read_guide_points(write(tmp_path / "p", rows, planes)).short_axis_labels()
        assert labels.array.any() and (labels.array[:, :, 0] == labels.array[:, :, 1]).all()


class TestLongAxis:
    """A heart of lines in the plane y = 0: an LV from x = 30 to 60 and an RV beside it from 10 to 27."""

    @pytest.fixture
    def labels(self, tmp_path):
        down = np.arange(0, 61, 1.5)

        def cup(left, right, bottom, kind):
            sides = [(x, 0, -z) for x in (left, right) for z in down if z <= bottom]
            return [
                row(p, kind, 7)
                for p in [*sides, *((x, 0, -bottom) for x in np.arange(left, right, 1.5))]
            ]

        rows = cup(36, 54, 45, "LAX_LV_ENDOCARDIAL")
        rows += [row((60, 0, -z), "LAX_LV_EPICARDIAL", 7) for z in np.arange(0, 52, 1.5)]
        rows += [row((x, 0, -51), "LAX_LV_EPICARDIAL", 7) for x in np.arange(30, 60, 1.5)]
        rows += [
            row((30, 0, -z), "LAX_LV_EPICARDIAL", 7) for z in (0, 1.5, 43.5, 45, 46.5, 48, 49.5)
        ]
        rows += [row((28.5, 0, -z), "LAX_RV_SEPTUM", 7) for z in np.arange(3, 43, 1.5)]
        rows += [row((x, 0, -42), "LAX_RV_FREEWALL", 7) for x in np.arange(9, 28, 1.5)]
        rows += [row((9, 0, -z), "LAX_RV_FREEWALL", 7) for z in np.arange(3, 42, 1.5)]
        rows += [row((x, 0, 0), "MITRAL_VALVE", 7) for x in (36, 54)]
        rows += [row((x, 0, -1.5), "TRICUSPID_VALVE", 7) for x in (9, 28.5)]
        path = write(tmp_path / "p", rows, [plane_line(7, (0, 0, 0))])
        return read_guide_points(path).long_axis_labels(edge_pixels=0.0, thickness_mm=6.0)

    def test_outlines_are_closed_across_the_valves(self, labels):
        (found,) = (labels[7],)
        assert list(labels) == [7] and found.shape[2] == 1
        array = found.array[:, :, 0]  # i = x / 1.5, j = -z / 1.5
        assert (array[24:37, 0:31] == LV_CAVITY).all()
        assert (array[6:19, 2:28] == RV_CAVITY).all()
        assert (array == LV_CAVITY).sum() == 13 * 31
        wall = array == LV_WALL
        assert wall[38, 10] and wall[22, 20] and wall[30, 33] and not wall[30, 10]

    def test_the_slice_lies_where_the_plane_does(self, labels):
        centre = apply_matrix(labels[7].voxel_to_world, np.array([[20.0, 4.0, 0.0]]))
        np.testing.assert_allclose(centre, [[-30, 0, -6]], atol=1e-9)
        assert labels[7].spacing_mm.tolist() == pytest.approx([1.5, 1.5, 6.0])


class TestRefusals:
    def test_a_plane_that_is_not_there_and_points_off_their_plane(self, tmp_path):
        off = write(
            tmp_path / "a", square(12, 36, 0.5), [plane_line(1, (0, 0, 0), (1, 0, 0, 0, 1, 0))]
        )
        assert "0.50 mm off its plane 1" in refused("OFF_PLANE", read_guide_points, off)
        none = write(tmp_path / "b", square(12, 36, 0, 3), [plane_line(1, (0, 0, 0))])
        assert "it has 1" in refused("UNKNOWN_PLANE", read_guide_points, none)

    def test_files_of_another_form(self, tmp_path):
        path = stack(tmp_path, (0.0, 8.0))
        good = path.read_text()
        for bad in ("a,b,c\n1,2,3\n", good.replace("\t1.0", "", 1).replace("12.00000", "nan", 1),
                    good.replace("12.00000", "left", 1), HEAD):  # fmt: skip
            path.write_text(bad)
            refused("BAD_CONTOUR_FILE", read_guide_points, path)
        path.write_text(good)
        planes = path.with_name("SliceInfoFile.txt")
        planes.write_text("sliceID: 1 PixelSpacing 1\n")
        refused("BAD_CONTOUR_FILE", read_guide_points, path)
        planes.unlink()
        refused("FILE_NOT_FOUND", read_guide_points, path)

    def test_a_plane_that_is_described_twice(self, tmp_path):
        path = write(tmp_path / "a", square(12, 36, 0), [plane_line(1, (0, 0, 0))] * 2)
        refused("REPEATED_NAME", read_guide_planes, path.with_name("SliceInfoFile.txt"))

    def test_several_time_frames_need_a_choice(self, tmp_path):
        rows = [*square(12, 36, 0.0), *square(15, 33, 0.0, time=5)]
        path = stack(tmp_path, (0.0, 8.0), rows)
        assert "0, 5" in refused("SEVERAL_FRAMES", read_guide_points, path)
        assert read_guide_points(path, frame=5).number == 5
        refused("NO_SUCH_FRAME", read_guide_points, path, frame=2)

    def test_one_phase_whose_planes_name_others_is_one_phase(self, tmp_path):
        rows = [
            *square(12, 36, 0.0, 1, time=9),
            *square(12, 36, 8.0, 2, time="1.0"),
            row((20, 20, 0), "APEX_POINT", 1, 9),
        ]  # noqa: E501
        found = read_guide_points(stack(tmp_path, (0.0, 8.0), rows))
        assert found.number == 9 and found.short_axis_labels().shape[2] == 2

    def test_no_contours_in_the_short_axis(self, tmp_path):
        rows = square(12, 36, 0.0, kind="LAX_LV_ENDOCARDIAL")
        refused("NO_CONTOURS", read_guide_points(stack(tmp_path, (0.0,), rows)).short_axis_labels)
        refused("NO_CONTOURS", read_guide_points(stack(tmp_path, (0.0,))).short_axis_labels)

    def test_files_are_replaced_only_when_asked(self, tmp_path):
        labels = make_toy_heart().labels
        write_guide_points(tmp_path, labels)
        refused("OUTPUT_EXISTS", write_guide_points, tmp_path, labels)
        write_guide_points(tmp_path, labels, overwrite=True)


@pytest.fixture
def patient():
    folder = Path(os.environ.get("CARDIACREG_DATA", "")) / "bivme" / "guidepoints"
    if not folder.is_dir():
        pytest.skip("needs the data set bivme, in the folder named by CARDIACREG_DATA")
    return folder


@pytest.mark.parametrize("phase", [0, 9])
def test_a_patient_has_closed_outlines_in_every_view(patient, phase):
    points = read_guide_points(patient / f"GPFile_{phase:03d}.txt")
    short, views = points.short_axis_labels(), points.long_axis_labels()
    assert points.number == phase and short.shape[2] == 6 and list(views) == [7, 8, 9, 11]
    assert [m.present() for m in views.values()] == [(1, 2, 4), (1, 2, 4), (1, 2), (4,)]
    for number, labels in views.items():
        for valve in ("MITRAL_VALVE", "TRICUSPID_VALVE", "PULMONARY_VALVE"):
            ends = points.planes[number].pixels(points.of(number, valve))
            if len(ends) == 2:  # the blood reaches the line between them, and not beyond it
                i, j = np.rint(ends.mean(axis=0)).astype(int)
                assert labels.array[i - 2 : i + 3, j - 2 : j + 3].any()
                assert not labels.array[i - 2 : i + 3, j - 2 : j + 3].all()
