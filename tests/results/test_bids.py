"""BIDS derivatives: what is written is named as BIDS asks and read back the same."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from cardiacreg import (
    InvalidInputError,
    RefineOptions,
    cohort_status,
    measure,
    read_labels,
    refine,
    refine_cohort,
    write_bids,
    write_labels,
)
from cardiacreg.cli.app import main
from cardiacreg.geometry import STRUCTURES
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.results.bids import bids_labels
from tests.helpers.cohorts import SPACING_MM, quick_options, write_cohort, write_patient

_ATLASES = [make_toy_heart(size=size) for size in (0.9, 1.0, 1.05)]
_NAME = "sub-01_ses-02_res-high_desc-cardiacreg_dseg"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("raw") / "sub-01" / "ses-02" / "anat"
    place.mkdir(parents=True)
    write_labels(place / "heart.nii.gz", make_toy_heart(size=0.97).labels)
    options = RefineOptions(n_atlases=3, orientation="as-stored")
    result = refine(place / "heart.nii.gz", atlases=_ATLASES, options=options)
    return result.save(place / "out", overwrite=True), result


def test_a_result_there_and_back(saved, tmp_path):
    folder, result = saved
    place = write_bids(folder, tmp_path / "derivatives")
    assert place == tmp_path / "derivatives" / "sub-01" / "ses-02"
    description = json.loads((tmp_path / "derivatives/dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "cardiacreg"
    labels = read_labels(place / "anat" / f"{_NAME}.nii.gz")
    np.testing.assert_array_equal(labels.array, result.labels.array)
    np.testing.assert_allclose(labels.voxel_to_world, result.labels.voxel_to_world, atol=1e-5)
    sidecar = json.loads((place / "anat" / f"{_NAME}.json").read_text())
    assert sidecar["Sources"] == ["heart.nii.gz"] and sidecar["Resolution"].endswith(" mm")
    assert sidecar["cardiacreg"]["volumes_ml"].keys() >= {"LV cavity"}
    voxels = np.array(list(sidecar["AnatomicalLandmarkCoordinates"].values()))
    matrix = labels.voxel_to_world
    points = voxels @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(points, result.landmarks.points_mm, atol=0.01)
    assert (place / "figures" / f"{_NAME}.png").stat().st_size > 1000


def test_measures_know_what_the_folder_knows(saved, tmp_path):
    """Of a structure that the input did not show too: it is not measured."""
    folder, _ = saved
    there = tmp_path / "out"
    shutil.copytree(folder, there)
    told = json.loads((there / "result.json").read_text())
    told["structures_from_atlases"] = ["RV wall"]
    (there / "result.json").write_text(json.dumps(told))
    file = next(write_bids(there, tmp_path / "bids", subject="1").glob("anat/*_dseg.nii.gz"))
    found, known = (measure(each) for each in (file, there))
    for row, same in zip(found.table(), known.table(), strict=True):
        assert row.value == (same.value and pytest.approx(same.value, rel=1e-3)), row.name
    values = {row.name: row.value for row in found.table()}
    assert values["RVM"] is None and values["LVEDV low"] < values["LVEDV high"]
    (sidecar := file.with_name(file.name.replace(".nii.gz", ".json"))).write_text("{}")
    assert measure(file).ed.rv_mass_g > 0  # another pipeline's: labels alone
    sidecar.write_text('{"cardiacreg": {}, "AnatomicalLandmarkCoordinates": {}}')
    with pytest.raises(InvalidInputError, match="it holds other entries"):
        measure(file)


def test_the_table_says_what_values_mean(saved, tmp_path):
    write_bids(saved[0], tmp_path)
    with (tmp_path / "dseg.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert {int(row["index"]): row["name"] for row in rows} == {0: "background"} | STRUCTURES
    assert all(len(row["color"]) == 7 and row["color"][0] == "#" for row in rows)


def test_nothing_is_replaced_unasked(saved, tmp_path):
    write_bids(saved[0], tmp_path, subject="7")
    with pytest.raises(InvalidInputError) as raised:
        write_bids(saved[0], tmp_path, subject="sub-7")
    assert raised.value.code == "OUTPUT_EXISTS"
    write_bids(saved[0], tmp_path, subject="7", overwrite=True)
    (tmp_path / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "other"}]}')
    with pytest.raises(InvalidInputError) as raised:
        write_bids(saved[0], tmp_path, subject="8")
    assert raised.value.code == "NOT_OURS"
    with pytest.raises(InvalidInputError) as raised:
        write_bids(tmp_path, tmp_path / "new")
    assert raised.value.code == "NO_RESULT" and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("source", "given", "stem"),
    [
        ("data/sub-A1/ses-02/anat/sub-A1_ses-02_seg.nii.gz", None, "sub-A1_ses-02"),
        ("patient_007.nii.gz", None, "sub-patient007"),
        ("data/sub-A1/x.nii.gz", "sub-3", "sub-3"),
        ("x.nii.gz", "sub-3_ses-early", "sub-3_ses-early"),
    ],
)
def test_labels(source, given, stem):
    assert bids_labels(source, given).stem == stem


@pytest.mark.parametrize("label", ["a_b", "sub-", "ü-1"])
def test_labels_of_no_use(label):
    with pytest.raises(InvalidInputError) as raised:
        bids_labels("x.nii.gz", label)
    assert raised.value.code == "BAD_SUBJECT"


def test_the_commands(tmp_path):
    """A patient of two phases, with measures beside both models."""
    place = write_patient(tmp_path / "patients" / "p_1", size=0.97)
    atlases = tmp_path / "atlases"
    for n, atlas in enumerate(_ATLASES):
        (atlases / f"a{n}").mkdir(parents=True)
        write_labels(atlases / f"a{n}" / "labels.nii.gz", atlas.labels)
    how = ["--atlases", str(atlases), "--orientation", "as-stored", "-q"]
    run = CliRunner().invoke
    out = ["-o", str(tmp_path / "out"), "--bids", str(tmp_path / "one")]
    done = run(main, ["refine", str(place), *out, *how])
    assert done.exit_code == 0, done.output
    anat = tmp_path / "one" / "sub-p1" / "anat"
    names = {path.name for path in anat.glob("*_dseg.nii.gz")}
    assert names == {f"sub-p1_res-high_desc-cardiacreg{n}_dseg.nii.gz" for n in ("ED", "ES")}
    rows = (anat / "sub-p1_desc-cardiacreg_morph.tsv").read_text().splitlines()
    told = dict(zip(*(row.split("\t") for row in rows), strict=True))
    columns = json.loads((anat / "sub-p1_desc-cardiacreg_morph.json").read_text())
    assert float(told["LVEF (%)"]) > 0 and columns["LVEF (%)"]["Units"] == "%"
    done = run(main, ["refine", str(place), *out, *how, "--bids-subject", "a b"])
    assert done.exit_code == 1 and "letters and digits" in done.output


def test_a_cohort(tmp_path):
    """The patients that are done, and no other; again when the tables are made anew."""
    patients, output, root = (tmp_path / name for name in ("patients", "out", "bids"))
    write_cohort(patients, 3)
    how = {"spacing_mm": SPACING_MM, "options": quick_options(), "atlases": tmp_path / "atlases"}
    for n, size in enumerate((0.93, 1.03, 1.05)):
        (tmp_path / "atlases" / f"a{n}").mkdir(parents=True)
        write_labels(
            tmp_path / "atlases" / f"a{n}" / "labels.nii.gz", make_toy_heart(size=size).labels
        )
    refine_cohort(patients, output, shard=(1, 1), **how)
    for _ in range(2):
        done = CliRunner().invoke(main, ["cohort", "status", str(output), "--bids", str(root)])
        assert done.exit_code == 0, done.output
    found = sorted(path.name for path in root.rglob("*_dseg.nii.gz"))
    assert found == [f"sub-p{n}_res-high_desc-cardiacregED_dseg.nii.gz" for n in (0, 2)]
    (output / "patients" / "p0").rename(output / "patients" / "p_2")
    with pytest.raises(InvalidInputError, match="p2 and p_2 have one BIDS label"):
        cohort_status(output, bids=root)
