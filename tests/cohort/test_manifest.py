"""Manifests name every patient once, whatever their form, and shards share them out."""

from pathlib import Path

import pytest

from cardiacreg import InvalidInputError
from cardiacreg.cohort.manifest import Shard, open_manifest, patient_of, preset_of


def write(place, *rows):
    place.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return place


def subjects(manifest):
    return [subject for subject, _ in manifest.rows()]


def code_of(place):
    with pytest.raises(InvalidInputError) as told:
        open_manifest(place)
    assert str(place) in str(told.value)
    return told.value.code


class TestTables:
    def test_rows(self, tmp_path):
        place = write(
            tmp_path / "m.csv", "\ufeffsubject,labels,age", "a,x.nii.gz,4", "b , y.nii.gz,5"
        )
        manifest = open_manifest(place)
        assert (manifest.total, manifest.count, subjects(manifest)) == (2, 2, ["a", "b"])

    @pytest.mark.parametrize(
        ("rows", "code"),
        [
            (("subject,label", "a,x"), "BAD_MANIFEST"),
            (("subject,labels,labels", "a,x,y"), "BAD_MANIFEST"),
            (("subject,labels", "a,"), "BAD_MANIFEST"),
            (("subject,labels", "a,x,y"), "BAD_MANIFEST"),
            (("subject,labels", ",x"), "BAD_MANIFEST"),
            (("subject,labels",), "NO_PATIENT"),
            (("subject,labels", "a,x", "A,y"), "DUPLICATE_SUBJECT"),
            (("subject,labels", "../a,x"), "BAD_SUBJECT"),
        ],
    )
    def test_what_cannot_be(self, tmp_path, rows, code):
        assert code_of(write(tmp_path / "m.csv", *rows)) == code

    def test_other_files(self, tmp_path):
        assert code_of(tmp_path / "none.csv") == "FILE_NOT_FOUND"
        (tmp_path / "m.csv").write_bytes(b"subject,labels\n\xff\xfe,x\n")
        assert code_of(tmp_path / "m.csv") == "BAD_MANIFEST"
        write(tmp_path / "m.parquet", "no parquet")
        pytest.importorskip("pyarrow")
        assert code_of(tmp_path / "m.parquet") == "BAD_MANIFEST"

    def test_parquet_is_as_csv(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = {"subject": [7, 8], "labels": ["x.nii", "y.nii"], "preset": ["acdc", None]}
        parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
        write(tmp_path / "m.csv", "subject,labels,preset", "7,x.nii,acdc", "8,y.nii,")
        read = [list(open_manifest(tmp_path / n).rows()) for n in ("m.parquet", "m.csv")]
        assert [patient_of(row, tmp_path) for _, row in read[0]] == [
            patient_of(row, tmp_path) for _, row in read[1]
        ]


class TestFolders:
    def test_a_folder_per_patient(self, tmp_path):
        for name in ("b", "a", ".hidden", "out"):
            (tmp_path / name).mkdir()
        (tmp_path / "out" / "cohort.json").write_text("{}")
        (tmp_path / "README.md").write_text("words")
        manifest = open_manifest(tmp_path)
        assert subjects(manifest) == ["a", "b"]
        with pytest.raises(InvalidInputError, match="no segmentation under a name that is known"):
            patient_of(next(manifest.rows())[1], tmp_path)

    def test_files_of_many_patients_in_one_folder(self, tmp_path):
        for name in ("p1_frame01_gt.nii.gz", "p2_frame01_gt.nii.gz"):
            (tmp_path / name).write_bytes(b"")
        assert subjects(open_manifest(tmp_path)) == ["p1", "p2"]

    def test_an_empty_one(self, tmp_path):
        assert code_of(tmp_path) == "NO_PATIENT"


class TestShards:
    def test_share_out_everybody_once(self, tmp_path):
        names = [f"s{n}" for n in range(200)]
        place = write(tmp_path / "m.csv", "subject,labels", *(f"{name},x" for name in names))
        parts = [open_manifest(place, Shard(number, 7)) for number in range(1, 8)]
        held = [subjects(part) for part in parts]
        assert sorted(sum(held, [])) == sorted(names)
        assert [len(each) for each in held] == [part.count for part in parts]
        assert min(map(len, held)) > 10

    def test_do_not_depend_on_the_order(self, tmp_path):
        first = write(tmp_path / "a.csv", "subject,labels", "x,1", "y,1", "z,1")
        second = write(tmp_path / "b.csv", "subject,labels", "z,1", "x,1", "y,1")
        for number in (1, 2):
            held = [sorted(subjects(open_manifest(p, Shard(number, 2)))) for p in (first, second)]
            assert held[0] == held[1]


class TestCells:
    def row(self, **cells):
        return patient_of({"subject": "s", **cells}, Path("/data"))

    def test_one_file(self):
        patient = self.row(labels="a.nii.gz", image="i.nii.gz", preset="mms", views="v.nii")
        assert {role: str(path) for role, path in patient.files().items()} == {
            "frame labels": "/data/a.nii.gz", "frame image": "/data/i.nii.gz",
            "frame view view1": "/data/v.nii",
        }  # fmt: skip
        assert patient.preset == "mms"

    def test_frames_of_files_of_their_own(self):
        patient = self.row(
            labels="ED=a.nii; ES=/b.nii", image="ES=i.nii", views="ED.4ch=v.nii;ES.4ch=w.nii"
        )
        assert [frame.name for frame in patient.frames] == ["ED", "ES"]
        assert str(patient.frames[1].labels) == "/b.nii"
        assert patient.frames[0].image is None and str(patient.frames[1].image) == "/data/i.nii"
        assert str(patient.frames[1].views["4ch"]) == "/data/w.nii"

    @pytest.mark.parametrize(
        "cells",
        [
            {"labels": "ED=a;b"},
            {"labels": "ED=a;ED=b"},
            {"labels": "a", "image": "ES=i"},
            {"labels": "ED=a;ES=b", "frames": "ES=b"},
            {"labels": "ED=a;ES=b", "views": "XX.4ch=v"},
            {"labels": "ED=a;cine=b"},
        ],
    )
    def test_what_cannot_be(self, cells):
        with pytest.raises(InvalidInputError) as told:
            self.row(**cells)
        assert told.value.code in ("BAD_MANIFEST", "BAD_PATIENT")

    def test_presets(self):
        assert preset_of("500=1, 205=2") == {500: 1, 205: 2}
        assert (preset_of(" acdc "), preset_of("")) == ("acdc", None)
