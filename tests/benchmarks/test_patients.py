"""Contours, plane cuts, ends and volumes of the benchmarks on patients, on shapes known exactly."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import guidepoints, hidden_ends, long_axis, plane_cuts, volumes
from benchmarks.harness import cases, hidden_slices, measuring, plots, store
from cardiacreg import LabelMap, RefineOptions
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY
from cardiacreg.metrics import baselines
from cardiacreg.phantoms.long_axis_views import VIEW_DEGREES
from cardiacreg.phantoms.toy_heart import make_toy_heart

PIXEL_MM, DISTANCE_MM, RADIUS_PIXELS = 1.5, 12.0, 15.0


def solid(height_of, *, radius=15.0, shape=(48, 48, 60), label=1):
    """An upright cylinder around (23.5, 23.5) on 1 mm voxels, from 0 up to a height above each point."""
    i, j, k = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    inside = np.hypot(i - 23.5, j - 23.5) <= radius
    array = np.where(inside & (k >= 10) & (k <= height_of(i, j)), label, 0)
    return LabelMap(array.astype(np.uint8), np.eye(4))


def circle(centre, radius, count=60):
    """Integer pixels along a circle, in no order."""
    angles = np.random.default_rng(0).permutation(count) * 2 * np.pi / count
    return np.rint(centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1))


class TestPlaneCuts:
    def test_a_ball_is_cut_into_a_disc(self):
        i, j, k = np.meshgrid(*(np.arange(41),) * 3, indexing="ij")
        ball = LabelMap(
            (np.hypot(np.hypot(i - 20, j - 20), k - 20) <= 15).astype(np.uint8), np.eye(4)
        )
        oblique = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
        through = np.array([20.0, 20.0, 29.0]) - 9.0 * np.array([0, 0, 1])
        grid = plane_cuts.plane_over(ball, through, oblique, np.array([0.0, 0.0, 1.0]))
        area = (plane_cuts.cut(ball, grid).array > 0).sum() * plane_cuts.COARSE_PIXEL_MM**2
        assert area == pytest.approx(np.pi * 15**2, rel=0.03)

    def test_distances_to_an_outline_have_signs(self):
        cylinder = solid(lambda i, j: 50)
        grid = plane_cuts.plane(np.array([0.0, 0.0, 30.0]), *np.eye(3)[:2], (47.0, 47.0), 0.5)
        section = plane_cuts.cut(cylinder, grid)
        points = np.array([[23.5 + 10, 23.5, 30], [23.5, 23.5 - 15, 30], [23.5, 23.5 + 19, 30]])
        found = plane_cuts.beyond_points_mm(section, (1,), points)
        np.testing.assert_allclose(found, (5, 0, -4), atol=0.6)
        assert plane_cuts.beyond_points_mm(section, (4,), points) is None

    def test_a_flat_end_is_found_on_either_side(self):
        cylinder = solid(lambda i, j: 39)  # its face is at 39.5
        points = np.array([[23.5, 23.5, 35.5], [30.0, 20.0, 44.5], [23.5, 23.5, 39.5]])
        found = plane_cuts.ends_beyond_mm(cylinder, (1,), points, np.array([0.0, 0.0, 2.0]))
        np.testing.assert_allclose(found, (4, -5, 0), atol=0.26)
        apex = plane_cuts.ends_beyond_mm(cylinder, (1,), points[:1], np.array([0.0, 0.0, -1.0]))
        assert apex[0] == pytest.approx(35.5 - 9.5, abs=0.26)

    def test_a_tilted_end_through_the_point_is_0(self):
        tilted = solid(lambda i, j: 35 + 0.5 * (i - 23.5))
        point = np.array([[29.5, 23.5, 38.5]])
        found = plane_cuts.ends_beyond_mm(tilted, (1,), point, np.array([0.0, 0.0, 1.0]))
        assert found[0] == pytest.approx(0, abs=0.6)

    def test_what_no_ray_meets_has_no_end(self):
        cylinder = solid(lambda i, j: 39)
        away = np.array([[45.0, 45.0, 30.0]])
        assert plane_cuts.ends_beyond_mm(cylinder, (1,), away, np.array([0.0, 0.0, 1.0])) == [None]


def write_patient(folder, *, off_plane=0.0):
    """A contoured patient of discs: two parallel ventricles, base at plane 2, and one long-axis plane."""
    folder.mkdir(parents=True)
    lines = []
    for number in guidepoints.SHORT_AXIS:
        lines.append(_plane_line(number, (0, 0, -DISTANCE_MM * number), (1, 0, 0, 0, 1, 0)))
    lines.append(_plane_line(7, (0, 60, 0), (1, 0, 0, 0, 0, -1)))
    lines += [_plane_line(n, (0, 60 + n, 0), (1, 0, 0, 0, 0, -1)) for n in (8, 9, 11)]
    (folder / "SliceInfoFile.txt").write_text("\n".join(lines), encoding="utf-8")
    left, right = np.array([60.0, 40.0]), np.array([25.0, 40.0])
    rows = ["x\ty\tz\tcontour type\tframeID\tweight\ttime frame"]
    for number in guidepoints.SHORT_AXIS[1:]:
        height = -DISTANCE_MM * number + off_plane
        for kind, centre, radius in (
            ("SAX_LV_ENDOCARDIAL", left, RADIUS_PIXELS),
            ("SAX_LV_EPICARDIAL", left, RADIUS_PIXELS + 6),
            ("SAX_RV_FREEWALL", right, 11),
        ):
            points = circle(centre, radius) * PIXEL_MM
            rows += [_row((*point, height), kind, number) for point in points]
    top, bottom = -1.5 * DISTANCE_MM, -6.5 * DISTANCE_MM
    for height in np.arange(bottom + 10, top - 3, 3.0):
        for side in (-1, 1):
            edge = (60 + side * RADIUS_PIXELS) * PIXEL_MM
            rows.append(_row((edge, 60, height), "LAX_LV_ENDOCARDIAL", 7))
            edge += side * 6 * PIXEL_MM
            rows.append(_row((edge, 60, height), "LAX_LV_EPICARDIAL", 7))
    rows += [_row((90 + side, 60, top - 2), "MITRAL_VALVE", 7) for side in (-15, 15)]
    rows.append(_row((90, 60, bottom - 1), "APEX_POINT", 7))
    rows.append(_row((37.5, 60, top + 4), "TRICUSPID_VALVE", 7))
    (folder / "GPFile_000.txt").write_text("\n".join(rows), encoding="utf-8")


def _plane_line(number, origin, along):
    words = [
        "x.dcm",
        "sliceID:",
        number,
        "ImagePositionPatient",
        *origin,
        "ImageOrientationPatient",
    ]
    words += [*along, "PixelSpacing", PIXEL_MM, PIXEL_MM]
    return "\t".join(str(word) for word in words)


def _row(point, kind, plane):
    return "\t".join([*(f"{value:.5f}" for value in point), kind, str(plane), "1.0", "0"])


class TestContouredPatient:
    @pytest.fixture
    def patient(self, monkeypatch, tmp_path):
        write_patient(tmp_path / "bivme" / "guidepoints")
        monkeypatch.setenv("CARDIACREG_DATA", str(tmp_path))
        return long_axis.read_patient((0,))

    def test_points_become_ras_and_stay_in_their_planes(self, patient):
        (phase,), planes = patient
        np.testing.assert_allclose(phase.everywhere("APEX_POINT"), [[-90, -60, -79]])
        np.testing.assert_allclose(
            planes[7].pixels(phase.everywhere("APEX_POINT")), [[60, 79 / 1.5]]
        )
        assert phase.of(8, "LAX_RV_SEPTUM").shape == (0, 3)

    def test_points_off_their_plane_are_refused(self, tmp_path):
        folder = tmp_path / "guidepoints"
        write_patient(folder, off_plane=0.2)
        with pytest.raises(ValueError, match=r"0\.20 mm off its plane 2"):
            guidepoints.read_phase(folder, 0, guidepoints.read_planes(folder))

    def test_short_axis_contours_become_labels_where_they_lie(self, patient):
        (frame,) = long_axis.stacks(*patient)
        assert not frame.array[:, :, 0].any()
        areas = {v: (frame.array[:, :, 3] == v).sum() for v in (LV_CAVITY, LV_WALL, RV_CAVITY)}
        expected = {LV_CAVITY: 15.5**2, LV_WALL: 21.5**2 - 15.5**2, RV_CAVITY: 11.5**2}
        for label, area in expected.items():
            assert areas[label] == pytest.approx(np.pi * area, rel=0.06)
        centre = np.argwhere(frame.array == LV_CAVITY).mean(axis=0)
        world = frame.voxel_to_world @ [*centre, 1]
        np.testing.assert_allclose(world[:3], (-90, -60, -4 * DISTANCE_MM), atol=0.2)

    def test_a_repeated_cylinder_ends_at_its_outer_faces(self, patient):
        (frame,), (phase,) = long_axis.stacks(*patient), patient[0]
        (model,) = long_axis.models([frame], "nearest neighbour")
        found = long_axis.measure_phase(model, phase, patient[1])
        for name, expected in zip(long_axis.ENDS, (2, -1, -4), strict=True):
            np.testing.assert_allclose(found["ends_mm"][name], expected, atol=0.3)
        contours = found["contours_mm"]
        assert contours["RV septum"] == {"points": 0, "planes": {}}
        for name in ("LV endocardium", "LV epicardium"):
            assert contours[name]["mean"] == pytest.approx(0, abs=0.4)

    def test_records_give_tables_and_a_figure(self, patient):
        found = [long_axis.measure_patient((0,), method) for method in measuring.BASELINES]
        records = [
            {"case": "bivme", "method": method, "found": each}
            for method, each in zip(measuring.BASELINES, found, strict=True)
        ]
        result = {"patient": records, "records": []}
        tables = long_axis.tables(result)
        assert set(tables) == {"long-axis-ends", "long-axis-contours", "long-axis-volumes"}
        first = tables["long-axis-ends"].splitlines()[2].split(" | ")
        assert first[0] == "| nearest neighbour, ED"
        ends = [float(cell.rstrip("| ")) for cell in first[1:]]
        np.testing.assert_allclose(ends, (2, -1, -4), atol=0.3)
        with plots.style():
            assert set(long_axis.plots_of(result)) == {"long-axis-ends"}
        assert long_axis.plots_of({"patient": [], "records": []}) == {}

    def test_what_a_record_depends_on_counts_as_code(self, monkeypatch, tmp_path):
        for folder in ("cardiacreg", "benchmarks"):
            (tmp_path / folder).mkdir()
        monkeypatch.setattr(store.machine, "ROOT", tmp_path)
        digests = []
        for text in ("a = 1", "a = 2"):
            (tmp_path / "benchmarks" / "plane_cuts.py").write_text(text)
            digests += [store.code_digest.__wrapped__(name) for name in ("long_axis", "other")]
        assert digests[0] != digests[2] and digests[1] == digests[3]


class TestViews:
    def test_the_four_chamber_plane_holds_both_ventricles_and_a_heart_equals_itself(self):
        heart = make_toy_heart().labels
        grids = long_axis.views(heart)
        assert list(grids) == list(VIEW_DEGREES)
        shown = {name: set(plane_cuts.cut(heart, g).present()) for name, g in grids.items()}
        assert shown["four_chamber"] == {1, 2, 3, 4}
        assert all({1, 2} <= labels for labels in shown.values())
        scores = long_axis.score_views(heart, heart)["raw"]
        assert all(value == 1 for each in scores.values() for value in each.values())

    def test_views_meet_in_the_axis_at_equal_angles(self):
        normals = [
            g.voxel_to_world[:3, 2] for g in long_axis.views(make_toy_heart().labels).values()
        ]
        turns = [abs(float(a @ b)) for a, b in zip(normals, normals[1:] + normals[:1], strict=True)]
        np.testing.assert_allclose(turns, 0.5, atol=1e-6)


def stack_of(radii, *, distance=9.0):
    """A stack of discs of LV cavity in a ring of LV wall; radius 0 is an empty slice; base at the end."""
    i, j = np.meshgrid(np.arange(64), np.arange(64), indexing="ij")
    apart = np.hypot(i - 32, j - 30)[..., None]
    radii = np.where(np.asarray(radii) > 0, radii, -10.0)
    array = np.where(apart <= radii, 1, np.where(apart <= radii + 5, 2, 0))
    return LabelMap(array.astype(np.uint8), np.diag([1.25, 1.25, distance, 1.0]))


class TestVolumes:
    def test_interpolations_reach_past_the_stack_and_repeated_slices_keep_their_volume(self):
        stack = stack_of([8, 10, 12, 14])
        lattice = measuring.fine_lattice(stack)
        assert lattice.spacing_mm[2] == pytest.approx(1.8)
        ends = baselines.voxel_positions(stack, lattice)[2]
        assert ends.min() == pytest.approx(-2.4) and ends.max() == pytest.approx(5.4)
        fine = baselines.interpolate_nearest(stack, lattice)
        parts, own = volumes.parts_ml(fine, stack), volumes.parts_ml(stack, stack)
        assert parts["LV wall"]["whole"] == pytest.approx(own["LV wall"]["whole"])
        assert parts["LV wall"]["base"] == pytest.approx(0, abs=1e-9)
        assert parts["LV wall"]["apex"] == pytest.approx(0, abs=1e-9)

    def test_what_lies_beyond_the_slices_is_told_by_end(self):
        stack, model = stack_of([8, 10, 12, 14]), stack_of([6, 8, 10, 12, 14, 14, 14], distance=9.0)
        matrix = model.voxel_to_world.copy()
        matrix[2, 3] = -9.0
        model = LabelMap(model.array, matrix)
        areas = [(model.array[:, :, k] == 1).sum() * 1.25**2 * 9 / 1000 for k in range(7)]
        found = volumes.parts_ml(model, stack)["LV cavity"]
        expected = {"apex": areas[0], "inside": sum(areas[1:5]), "base": sum(areas[5:])}
        assert found == pytest.approx(expected | {"whole": sum(areas)})
        turned = [
            LabelMap(m.array[:, :, ::-1], m.voxel_to_world @ _flip(m.shape[2]))
            for m in (model, stack)
        ]
        assert volumes.parts_ml(*turned)["LV cavity"] == pytest.approx(found)

    def test_a_slice_at_a_face_is_parted(self):
        stack, thin = stack_of([10, 10, 10]), stack_of([10] * 8, distance=6.0)
        matrix = thin.voxel_to_world.copy()
        matrix[2, 3] = -4.5  # a slice on the outer face of the first
        found = volumes.parts_ml(LabelMap(thin.array, matrix), stack)["LV cavity"]
        assert found["whole"] == pytest.approx(48 / 27 * found["inside"])
        assert found["apex"] == pytest.approx(3 / 27 * found["inside"])

    def test_every_sixth_patient_is_of_development(self):
        chosen = [n for n in range(1, 101) if measuring.is_development(n)]
        assert chosen == list(range(1, 98, 6)) and len(chosen) == 17

    def test_records_give_tables_and_a_figure(self):
        records = [_patient(n, group) for n, group in ((1, "NOR"), (2, "DCM"), (3, "DCM"))]
        result = {"records": [*records, {"case": "patient004", "data": "ACDC", "error": "x"}]}
        tables = volumes.tables(result)
        assert (
            "ACDC, other, ES: cardiacreg | 2 | +10.0 ± 0.0" in tables["volumes-agreement-percent"]
        )
        assert "| ACDC | 4 | 1 patient004 |" in tables["volumes-failed"]
        assert "| ACDC, all: cardiacreg | 3 | +0.0 ± 0.0" in tables["volumes-ejection"]
        first = tables["volumes-mass"].splitlines()[2]
        assert first.startswith("| ACDC, development: area x slice distance | 1 | +0.0 |")
        assert len(tables["volumes-worst"].splitlines()) == 12
        with plots.style():
            assert set(volumes.plots_of(result)) == {"volumes-agreement"}
        assert volumes.tables({"records": []}) == {}


def _flip(count):
    """Slice n of a turned stack is slice count - 1 - n."""
    matrix = np.diag([1.0, 1.0, -1.0, 1.0])
    matrix[2, 3] = count - 1
    return matrix


def _patient(number, group):
    """One patient whose model is a tenth too large, all beyond the base."""

    def frame(phase, cavity):
        sizes = {"LV cavity": cavity, "LV wall": 100.0, "RV cavity": cavity}
        given = {n: {"whole": v, "inside": v, "apex": 0.0, "base": 0.0} for n, v in sizes.items()}
        model = {n: p | {"whole": 1.1 * sizes[n], "base": 0.1 * sizes[n]} for n, p in given.items()}
        maps = {m: given for m in (volumes.INPUT, *measuring.BASELINES)} | {volumes.OURS: model}
        return {"name": f"patient00{number}_{phase}", "phase": phase, "volumes_ml": maps}

    part = "ACDC, development" if measuring.is_development(number) else "ACDC, other"
    head = {"case": f"patient00{number}", "data": "ACDC", "part": part, "group": group}
    return head | {"frames": [frame("ED", 100.0), frame("ES", 40.0)]}


class TestHiddenEnds:
    RADII = (0, 5, 8, 10, 12, 14, 14, 0)

    def test_the_outermost_slice_and_all_beyond_are_taken_away(self):
        labels = stack_of(self.RADII)
        base, apex = (hidden_ends.hide(labels, end) for end in ("base", "apex"))
        assert base.towards_last and not apex.towards_last
        assert base.stack.shape[2] == 6 and apex.stack.shape[2] == 6
        assert (base.slice.array[:, :, 0] == labels.array[:, :, 6]).all()
        assert (apex.stack.array == labels.array[:, :, 2:]).all()
        assert apex.stack.voxel_to_world[2, 3] == 18 and apex.slice.voxel_to_world[2, 3] == 9
        assert base.ends_mm == {"LV cavity": (0.0, 9.0), "LV wall": (0.0, 9.0)}

    def test_an_end_that_the_kept_slices_show_and_one_at_the_border_are_told(self):
        array = stack_of(self.RADII[:-1]).array.copy()
        array[:, :, 1][array[:, :, 1] == 1] = 2  # the cavity ends a slice before the wall
        labels = LabelMap(array, np.diag([1.25, 1.25, 9, 1]))
        found = [hidden_ends.hide(labels, end) for end in ("apex", "base")]
        assert found[0].ends_mm == {"LV cavity": (-9.0, 0.0), "LV wall": (0.0, 9.0)}
        assert found[1].ends_mm == {"LV cavity": (0.0, None), "LV wall": (0.0, None)}

    def test_too_few_slices_are_no_case(self):
        with pytest.raises(hidden_slices.TooFewSlices):
            hidden_ends.hide(stack_of([0, 8, 9, 10, 11, 0]), "base")

    @pytest.mark.parametrize("end", hidden_ends.ENDS)
    def test_interpolation_ends_at_the_kept_slice_and_a_repeated_one_at_the_hidden_face(self, end):
        hidden = hidden_ends.hide(stack_of(self.RADII), end)
        ends = {
            method: hidden_ends.measure_end(hidden, method)["ends"]["LV wall"]
            for method in ("nearest neighbour", hidden_ends.REPEATED)
        }
        assert ends["nearest neighbour"]["interval_mm"] == pytest.approx(-4.5)
        assert ends["nearest neighbour"]["face_mm"] == pytest.approx(-9.0)
        assert ends[hidden_ends.REPEATED]["interval_mm"] == 0
        assert ends[hidden_ends.REPEATED]["face_mm"] == pytest.approx(0, abs=1e-9)

    def test_a_model_that_goes_too_far_has_a_positive_error(self):
        hidden = hidden_ends.hide(stack_of(self.RADII), "base")
        longer = stack_of([0, 5, 8, 10, 12, 14, 14, 14, 14])
        found = hidden_ends._end_error(longer, hidden, "LV cavity")
        assert found["end_mm"] == pytest.approx(22.5)
        assert found["interval_mm"] == pytest.approx(13.5)
        assert found["early_mm"] == 0 and found["face_mm"] == pytest.approx(18)

    def test_a_structure_that_the_model_lacks_is_counted(self):
        hidden = hidden_ends.hide(stack_of(self.RADII), "base")
        empty = LabelMap(np.zeros((4, 4, 4)), np.eye(4))
        found = hidden_ends._end_error(empty, hidden, "LV wall")
        assert found == {"end_mm": None, "hidden": True, "missing": True}

    def test_methods_differ_in_the_coverage_that_they_are_told(self):
        for word in hidden_ends.COVERAGES.values():
            options = hidden_ends.coverage_options(word)
            assert options == RefineOptions(coverage=word)
            assert options.coverages == (word, word)

    def test_records_give_tables(self):
        records = []
        for end in hidden_ends.ENDS:
            hidden = hidden_ends.hide(stack_of(self.RADII), end)
            for method in hidden_ends.METHODS[:3]:
                head = {"case": "a", "part": "ACDC, other", "end": end, "method": method}
                records.append(head | hidden_ends.measure_end(hidden, method))
        short = {"case": "b", "part": "ACDC, other", "end": "apex", "skipped": "x"}
        records.append(short | {"method": "nearest neighbour"})
        tables = hidden_ends.tables({"records": records})
        row = "| ACDC, other, base: nearest neighbour | -4.5 ± 0.0; 4.5 (1) |"
        assert row in tables["hidden-ends-interval"]
        assert "| apex | 1 | 1 | 1 | 0 | 1 | 0 |" in tables["hidden-ends-frames"]
        assert hidden_ends.tables({"records": []}) == {}


def test_all_frames_of_a_patient_are_refined_with_the_same_options(monkeypatch):
    seen = []
    monkeypatch.setattr(
        measuring, "refine_quietly", lambda frame, **given: seen.append((frame, given))
    )
    measuring.refine_patient(["ED", "ES"], options=RefineOptions.fast())
    assert [frame for frame, _ in seen] == ["ED", "ES"]
    assert all(given["options"] == RefineOptions.fast() for _, given in seen)


def test_every_frame_is_told_of_the_others_or_of_those_that_are_to_orient_it(monkeypatch):
    told = []
    monkeypatch.setattr(
        measuring, "refine_quietly", lambda _, **given: told.append(given["frames"])
    )
    measuring.refine_patient(["a", "b", "c"])
    assert told == [["b", "c"], ["a", "c"], ["a", "b"]]
    told.clear()
    measuring.refine_patient(["a", "b", "c"], oriented_by=["a", "c"])
    assert told == [["c"], ["a", "c"], ["a"]]


def test_the_largest_and_the_smallest_cavity_orient_all_phases():
    frames = [stack_of([0, radius, radius, 0]) for radius in (9, 12, 7, 10)]
    assert [frames.index(each) for each in long_axis.extreme_frames(frames)] == [1, 2]
    assert long_axis.extreme_frames(frames[:1]) == frames[:1]


def test_siblings_are_the_other_frames_in_the_same_folder():
    frames = [
        cases.Acquisition(name, Path(folder) / name, Path(folder), "acdc", "", "")
        for folder, name in (("p1", "ed"), ("p1", "es"), ("p2", "ed"))
    ]
    assert cases.siblings(frames[0], frames) == [frames[1]]
    assert cases.siblings(frames[2], frames) == []
