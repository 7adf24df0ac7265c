"""The report of a patient: what it holds, from a result, from its folder and of a cine."""

import dataclasses
import json
import re
import sys
import warnings
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import cardiacreg
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import LabelMap, Volume, apply_matrix
from cardiacreg.phantoms.long_axis_views import simulate_views
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.reports import report as report_module
from cardiacreg.reports.case import open_case
from cardiacreg.reports.contents import (
    measure_case,
    measure_rows,
    provenance_rows,
    view_pictures,
    volume_rows,
)
from cardiacreg.reports.inputs import Inputs, note_inputs, noted_inputs
from cardiacreg.reports.report import patient_page, verdict_of
from cardiacreg.results.guards import Finding
from cardiacreg.results.result import ViewReport
from cardiacreg.results.view_planes import VIEWS, kept_plane, with_planes

NAME = "<script>alert(1)</script>"
MOST_BYTES = 8_000_000
SECTIONS = ["before-after", "surfaces", "volumes", "shifts", "measures", "atlases", "provenance"]


def text_of(page):
    """What a page says, without its pictures and the viewer."""
    kept = re.sub(r'(srcdoc|src|data-settings)="[^"]*"', "", page)
    kept = re.sub(r"<(script|style)>.*?</\1>", "", kept, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", kept)).split())


@pytest.fixture(scope="module")
def page(tiny_result, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "heart.html"
    named = dataclasses.replace(tiny_result.target, name=NAME)
    assert cardiacreg.write_report(dataclasses.replace(tiny_result, target=named), path) == path
    return path.read_text(encoding="utf-8")


def test_holds_every_section_and_is_small(page):
    assert re.findall(r'<section id="([a-z-]+)"', page)[-len(SECTIONS) :] == SECTIONS
    assert len(page.encode()) < MOST_BYTES


def test_begins_with_the_verdict_its_reasons_and_codes(page, tiny_result):
    text = text_of(page)
    verdict = verdict_of(open_case(tiny_result, Inputs()))
    assert f'data-verdict="{verdict.word}"' in page
    assert page.index("data-verdict") < page.index('<section id="before-after"')
    for finding in tiny_result.findings:
        assert finding.message[1:] in text and finding.code in text
    for warning in tiny_result.warnings:
        assert warning[1:].rstrip(".") in text


def test_loads_nothing_from_elsewhere(page):
    outside = re.sub(r'srcdoc="[^"]*"', "", page)
    for source in re.findall(r"(?:\bsrc|href|action|data)=['\"]([^'\"]{0,40})", outside):
        assert source.startswith(("data:", "#")), source
    assert not re.search(r"<(link|script)[^>]+(?:src|href)=['\"](?!data:)", outside)


def test_every_picture_is_described(page):
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) >= 6
    for picture in pictures:
        assert len(re.search(r'alt="([^"]*)"', picture)[1]) > 20


def test_tells_volumes_measures_atlases_and_provenance(page, tiny_result):
    text = text_of(page)
    for volume in tiny_result.volumes.values():
        assert f"{volume.total_ml:.1f}" in text
    for atlas in tiny_result.atlases:
        assert f"{atlas.nmi:.3f}" in text
    assert "LVEDV" in text and "93–232" in text and "12968-017-0327-9" in text
    assert tiny_result.provenance["labels_sha256"] in text
    assert "10.1109/TMI.2019.2894322" in text and f"cardiacreg {cardiacreg.__version__}" in text


def test_names_are_text_not_markup(page):
    assert NAME not in page and "&lt;script&gt;alert" in page


def test_findings_stand_whole(tiny_result):
    finding = Finding("VOLUME_DIFFERS", "model's volume differs; see the table")
    case = open_case(dataclasses.replace(tiny_result, findings=(finding,)), Inputs())
    assert verdict_of(case).reasons == ("Model's volume differs; see the table.",)


class TestFolder:
    @pytest.fixture
    def folder(self, tiny_result, tiny_files, tmp_path):
        """A folder that says where its stack is, as the command line writes it."""
        given = Inputs(tiny_files.labels, tiny_files.image)
        noted = note_inputs(tmp_path / "out", given)
        result = dataclasses.replace(
            tiny_result, provenance={**tiny_result.provenance, "stack": noted}
        )
        return result.save(tmp_path / "out")

    def test_shows_slices_of_the_stack_it_was_made_from(self, folder):
        case = open_case(folder, Inputs())
        assert case.missing_input == "" and case.phases[0].refined is not None
        assert case.phases[0].refined.target.image is not None

    def test_says_what_is_missing_where_the_stack_is_gone(self, tiny_result, tmp_path):
        folder = tiny_result.save(tmp_path / "plain")
        case = open_case(folder, Inputs())
        assert "does not say which segmentation" in case.missing_input
        path = cardiacreg.write_report(folder, tmp_path / "plain.html")
        text = text_of(path.read_text(encoding="utf-8"))
        assert "Slices and cuts are left out" in text and "Bull's eye" not in text[:200]

    def test_a_changed_stack_is_not_shown(self, folder, tiny_files, tmp_path):
        said = json.loads((folder / "result.json").read_text())
        said["provenance"]["labels_sha256"] = "0" * 64
        (folder / "result.json").write_text(json.dumps(said))
        assert "not the one that was refined" in open_case(folder, Inputs()).missing_input
        with pytest.raises(InvalidInputError) as caught:
            open_case(folder, Inputs(tiny_files.labels))
        assert caught.value.code == "TARGET_DIFFERS"

    def test_a_mapping_of_values_survives_the_file(self, tmp_path):
        inputs = Inputs("a/seg.nii.gz", preset={7: 1, 9: 2})
        written = json.loads(json.dumps(note_inputs(tmp_path / "a/out", inputs)))
        found = noted_inputs(tmp_path / "a/out", {"stack": written})
        assert found.preset == {7: 1, 9: 2} and found.image is None
        assert Path(found.segmentation).resolve() == Path("a/seg.nii.gz").resolve()


@pytest.fixture(scope="module")
def frames():
    return [make_toy_heart(size=size).labels for size in (1.0, 0.93, 0.85, 0.92)]


@pytest.fixture(scope="module")
def cine(frames):
    options = RefineOptions(n_atlases=2, orientation="as-stored", affine_candidates=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return cardiacreg.refine_cine(
            frames, atlases=[make_toy_heart(size=size) for size in (0.8, 0.9, 1.02)],
            spacing_mm=(2.5, 2.5, 4.0), threads=2, options=options,
        )  # fmt: skip


class TestCine:
    def test_a_saved_one_is_read_back(self, cine, tmp_path):
        found = cardiacreg.load_cine(cine.save(tmp_path / "cine"))
        assert (found.ed, found.es) == (cine.ed, cine.es) == (0, 2)
        for own, other in zip(found.frames, cine.frames, strict=True):
            np.testing.assert_array_equal(own.labels.array, other.labels.array)
            assert own.findings == other.findings
        for name, curve in cine.volumes_ml.items():
            np.testing.assert_allclose(found.volumes_ml[name], curve)
        assert found.ejection_fractions == pytest.approx(cine.ejection_fractions)

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda folder: (folder / "cine.json").unlink(), "NO_RESULT"),
            (lambda folder: (folder / "labels.nii.gz").write_bytes(b"1"), "DAMAGED_RESULT"),
            (lambda folder: (folder / "cine.json").write_text('{"schema_version": 9}'),
             "RESULT_VERSION"),
        ],
    )  # fmt: skip
    def test_a_damaged_one_is_refused(self, cine, tmp_path, change, code):
        folder = cine.save(tmp_path / "cine")
        change(folder)
        with pytest.raises(InvalidInputError) as caught:
            cardiacreg.load_cine(folder)
        assert caught.value.code == code

    def test_shows_both_phases_and_curves(self, cine, frames, tmp_path):
        folder = cine.save(tmp_path / "cine")
        path = cardiacreg.write_report(folder, tmp_path / "cine.html", segmentation=frames)
        page = path.read_text(encoding="utf-8")
        text = text_of(page)
        assert "End-diastole" in text and "End-systole" in text and "Volume curves" in text
        assert f"{100 * cine.ejection_fractions['LV']:.1f}" in text
        assert len(page.encode()) < MOST_BYTES

    def test_images_of_a_series_go_with_their_frames_and_one_with_end_diastole(self, cine, frames):
        shades = np.random.default_rng(0).random(frames[0].shape)  # or it would be a label map
        images = [
            Volume(100.0 * n + 9 * shades + each.array, each.voxel_to_world)
            for n, each in enumerate(frames)
        ]
        both, one = (
            open_case(cine, Inputs(frames, image)).phases for image in (images, images[cine.ed])
        )
        for phase, number in zip(both, (cine.ed, cine.es), strict=True):
            assert round(phase.refined.target.image.array.mean() / 100) == number
        assert one[0].refined.target.image is not None and one[1].refined.target.image is None

    def test_another_series_is_refused(self, cine, frames, tmp_path):
        array = np.array(frames[0].array)
        array[:, :, 3] = np.roll(array[:, :, 3], 1, axis=0)
        other = [LabelMap(array, frames[0].voxel_to_world), *frames[1:]]
        with pytest.raises(InvalidInputError) as caught:
            cardiacreg.write_report(cine, tmp_path / "cine.html", segmentation=other)
        assert caught.value.code == "TARGET_DIFFERS"

    def test_findings_name_their_frame(self, cine):
        finding = Finding("LOW_AGREEMENT", "agreement is low; look")
        frame = dataclasses.replace(cine.frames[1], findings=(finding,))
        changed = dataclasses.replace(cine, frames=(cine.frames[0], frame, *cine.frames[2:]))
        reasons = verdict_of(open_case(changed, Inputs())).reasons
        assert "Frame 1: agreement is low; look." in reasons

    def test_what_frames_share_is_told_once_with_an_example(self, cine):
        def finding(ml):
            return Finding(
                "BEYOND_ENDS", f"beyond the base: LV {ml} ml; check in qc.png, and say so"
            )

        frames = [
            dataclasses.replace(
                frame, findings=(finding(7 + frame.number),) if frame.number else ()
            )
            for frame in cine.frames
        ]
        whole = (Finding("BEYOND_ENDS", "in 3 of 4 frames, as in frame 1: beyond the base"),)
        changed = dataclasses.replace(cine, frames=tuple(frames), findings=whole)
        (told,) = [r for r in verdict_of(open_case(changed, Inputs())).reasons if "base" in r]
        assert told == (
            "3 of 4 frames (1, 2, 3): beyond the base; in frame 1 LV 8 ml; check in the pictures, and "
            "say so."
        )
        assert not [
            r for r in verdict_of(open_case(changed, Inputs())).reasons if "as in frame" in r
        ]

    def test_without_its_stack_it_knows_volumes_and_what_was_not_shown(self, cine, tmp_path):
        def unlabelled(frame):
            volume = dataclasses.replace(frame.volumes["RV wall"], input_ml=None)
            return dataclasses.replace(frame, volumes=frame.volumes | {"RV wall": volume})

        hidden = dataclasses.replace(cine, frames=tuple(map(unlabelled, cine.frames)))
        case = open_case(hidden.save(tmp_path / "cine"), Inputs())
        assert case.missing_input and case.structures_from_atlases == ("RV wall",)
        rows = {row.name: row for row in volume_rows(case.phases[0])}
        assert rows["LV cavity"].total_ml == pytest.approx(
            cine.frames[0].volumes["LV cavity"].total_ml
        )
        shown = {row.name for row in measure_rows(measure_case(case)[0])}
        assert "RVM" not in shown and "LVEF" in shown
        assert "RVM" in {
            row.name for row in measure_rows(measure_case(open_case(cine, Inputs()))[0])
        }


def test_the_folder_of_a_patient_is_its_two_phases(tiny_result, tmp_path):
    shifts = np.array(tiny_result.slice_shifts_mm) + 1.0
    for name, shift in (("ED", shifts), ("ES", 2 * shifts)):
        own = dataclasses.replace(tiny_result, slice_shifts_mm=shift)
        own.save(tmp_path / "patient7" / name)
    said = {"phases": {"ED": "ED", "ES": "ES"}}
    (tmp_path / "patient7/patient.json").write_text(json.dumps(said))
    case = open_case(tmp_path / "patient7", Inputs())
    assert case.name == "patient7" and [p.title for p in case.phases] == [
        "End-diastole",
        "End-systole",
    ]
    np.testing.assert_allclose(case.phases[1].slice_shifts_mm, 2 * shifts)
    text = text_of(patient_page(case))
    assert text.count("Two of them differ on") == 2, "atlases are shown of either phase"


def test_both_phases_show_their_own_shifts(tiny_result):
    moved = dataclasses.replace(
        tiny_result, slice_shifts_mm=np.array(tiny_result.slice_shifts_mm) + 4.0
    )
    page = patient_page(open_case(tiny_result, Inputs(), moved))
    shifts = page[page.index('<section id="shifts"') : page.index('<section id="measures"')]
    assert shifts.count("<img") == 2
    first, second = re.findall(r'<img src="([^"]+)"', shifts)
    assert first != second


def test_measures_have_their_intervals(tiny_result):
    case = open_case(tiny_result, Inputs())
    measures = measure_case(case)[0]
    (row,) = [each for each in measure_rows(measures) if each.name == "LVEDV"]
    ends = measures.intervals()["LVEDV"]
    assert row.interval == (ends.low, ends.high)
    assert f"{ends.low:.1f}–{ends.high:.1f}" in text_of(patient_page(case))


def test_how_it_was_made_is_said_in_words(tiny_result):
    stack = {"segmentation": "../seg.nii.gz", "image": None, "preset": "acdc", "frame": None}
    made = tiny_result.provenance | {"stack": stack}
    text = text_of(
        patient_page(open_case(dataclasses.replace(tiny_result, provenance=made), Inputs()))
    )
    assert "segmentation ../seg.nii.gz image in memory, Volume preset acdc" in text
    made["inputs"] = made["inputs"] | {"views": [{"segmentation": {"path": "/4ch.nii.gz"}}]}
    assert ("views", "/4ch.nii.gz") in provenance_rows(made, {})
    assert (
        dict(provenance_rows(tiny_result.provenance, {}))["segmentation"] == "in memory, LabelMap"
    )
    assert "bank_size" not in text and "{'segmentation'" not in text


def test_inputs_that_a_run_recorded_are_found_without_a_note():
    recorded = {
        "segmentation": {"path": "/a/seg.nii.gz"},
        "image": None,
        "preset": [[3, 1], [2, 2]],
    }
    found = noted_inputs(Path("/out"), {"inputs": recorded})
    assert found.segmentation == Path("/a/seg.nii.gz") and found.image is None
    assert found.preset == {3: 1, 2: 2}


def test_views_are_told_with_their_agreement(tiny_result, tmp_path):
    view = ViewReport("four_chamber.nii.gz", (1.25, -0.5), {"LV cavity": 0.9123, "LV wall": None})
    folder = dataclasses.replace(tiny_result, views=(view,)).save(tmp_path / "out")
    found = cardiacreg.load_result(folder).views
    assert [dataclasses.astuple(each) for each in found] == [dataclasses.astuple(view)]
    assert found[0].plane is None
    text = text_of(patient_page(open_case(folder, Inputs())))
    assert "four_chamber.nii.gz +1.2, -0.5 0.912" in text


@pytest.fixture(scope="module")
def with_views(tiny_result):
    """The tiny result with two views of the tiny heart, one with an image."""
    seen = simulate_views(make_toy_heart(), ["four_chamber", "two_chamber"], seed=0)
    planes = [(each.subject.labels, each.subject.image) for each in seen]
    reports = [ViewReport(name, (0.5, 0.0), {"LV cavity": 0.9}) for name in ("4ch", "2ch")]
    views = with_planes(reports, [planes[0], (planes[1][0], None)])
    return dataclasses.replace(tiny_result, views=views)


class TestViews:
    def test_are_drawn_with_the_model_in_every_phase(self, with_views):
        (picture,) = view_pictures(open_case(with_views, Inputs()))
        assert "magenta" in picture.caption and picture.source.startswith("data:image/png")
        both = view_pictures(open_case(with_views, Inputs(), with_views))
        assert [each.caption.partition(":")[0] for each in both] == ["End-diastole", "End-systole"]
        page = patient_page(open_case(with_views, Inputs()))
        assert 'href="#views"' in page and page.count(picture.source) == 1

    def test_are_drawn_from_a_folder_alone(self, with_views, tmp_path):
        folder = with_views.save(tmp_path / "out")
        assert (folder / VIEWS).stat().st_size < 60_000
        found = cardiacreg.load_result(folder).views
        for own, kept in zip(with_views.views, found, strict=True):
            np.testing.assert_array_equal(own.plane.labels.array, kept.plane.labels.array)
            np.testing.assert_array_equal(
                own.plane.labels.voxel_to_world, kept.plane.labels.voxel_to_world
            )
        np.testing.assert_array_equal(
            found[0].plane.image.array, with_views.views[0].plane.image.array
        )
        assert found[1].plane.image is None
        assert view_pictures(open_case(folder, Inputs()))
        (folder / VIEWS).write_bytes(b"changed")
        with pytest.raises(InvalidInputError) as caught:
            cardiacreg.load_result(folder)
        assert caught.value.code == "DAMAGED_RESULT"

    def test_keep_the_part_around_the_heart(self, with_views):
        (seen,) = simulate_views(make_toy_heart(), ["four_chamber"], seed=0)
        wide = np.pad(seen.subject.labels.array, ((60, 60), (60, 60), (0, 0)))
        matrix = seen.subject.labels.voxel_to_world.copy()
        matrix[:3, 3] -= 60 * (matrix[:3, 0] + matrix[:3, 1])
        kept = kept_plane(LabelMap(wide, matrix), None).labels
        assert kept.array.size < wide.size / 2 and (kept.array > 0).sum() == (wide > 0).sum()
        places = [
            apply_matrix(each.voxel_to_world, np.argwhere(each.array > 0).astype(float)).mean(
                axis=0
            )
            for each in (kept, LabelMap(wide, matrix))
        ]
        np.testing.assert_allclose(*places, atol=1e-9)

    def test_of_an_earlier_result_are_removed(self, with_views, tiny_result, tmp_path):
        folder = with_views.save(tmp_path / "out")
        tiny_result.save(folder, overwrite=True)
        assert not (folder / VIEWS).exists()


def test_end_systole_is_judged_too(tiny_result):
    failed = Finding("FAILED_AGREEMENT", "the model does not follow its input")
    es = dataclasses.replace(tiny_result, findings=(failed,))
    case = open_case(tiny_result, Inputs(), es)
    verdict = verdict_of(case)
    assert verdict.word == "reject"
    assert any(reason.startswith("End-systole: the model does not") for reason in verdict.reasons)
    assert [phase.title for phase in case.phases] == ["End-diastole", "End-systole"]


def test_end_systole_gives_ejection_fractions(tiny_result, tmp_path):
    """The second phase is another result; the model beats between both."""
    from cardiacreg.reports.contents import measure_case, measure_rows

    case = open_case(tiny_result, Inputs(), tiny_result.save(tmp_path / "es"))
    assert case.movie_titles == ("end-diastole", "end-systole")
    rows = {row.name: row.value for row in measure_rows(measure_case(case)[0])}
    assert rows["LVEF"] == 0 and rows["LVSV"] == 0


def test_a_page_is_not_replaced_unless_that_is_asked_for(tiny_result, tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "patient_page", lambda *_, **__: "page")
    path = tmp_path / "r.html"
    cardiacreg.write_report(tiny_result, path)
    with pytest.raises(InvalidInputError) as caught:
        cardiacreg.write_report(tiny_result, path)
    assert caught.value.code == "OUTPUT_EXISTS"
    cardiacreg.write_report(tiny_result, path, overwrite=True)
    with pytest.raises(InvalidInputError) as caught:
        cardiacreg.write_report(tiny_result, tmp_path / "r.pdf")
    assert caught.value.code == "BAD_FILE_NAME"


def test_without_the_viewer_the_page_says_how_to_get_it(tiny_result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "k3d", None)
    monkeypatch.setattr(report_module, "is_installed", lambda: False)
    page = cardiacreg.write_report(tiny_result, tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'pip install "cardiacreg[report]"' in unescape(page) and "<iframe" not in page
