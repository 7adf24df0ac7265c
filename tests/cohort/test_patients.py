"""Files of patients are found by the names of public data sets, and never guessed."""

import json

import pytest

from cardiacreg import InvalidInputError, find_patient, refine_patient
from cardiacreg.cohort.conventions import patients_in


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "somebody"


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def found(patient):
    return {role: path.name for role, path in patient.files().items()}


class TestConventions:
    def test_acdc(self, folder):
        touch(folder, "patient007_frame01.nii.gz", "patient007_frame01_gt.nii.gz",
              "patient007_frame07_gt.nii.gz", "patient007_4d.nii.gz", ".DS_Store")  # fmt: skip
        (folder / "Info.cfg").write_text("ED: 1\nES: 7\nGroup: DCM\nHeight: 184.0\nWeight: 95.0\n")
        patient = find_patient(folder)
        assert (patient.subject, patient.convention, patient.preset) == (
            "patient007",
            "ACDC",
            "acdc",
        )
        assert (patient.height_cm, patient.weight_kg) == (184.0, 95.0)
        assert found(patient) == {
            "ED labels": "patient007_frame01_gt.nii.gz",
            "ED image": "patient007_frame01.nii.gz",
            "ES labels": "patient007_frame07_gt.nii.gz",
            "Info.cfg": "Info.cfg",
        }

    def test_acdc_without_info_keeps_the_names_of_frames(self, folder):
        touch(folder, "p_frame01_gt.nii.gz", "p_frame12_gt.nii.gz")
        assert [frame.name for frame in find_patient(folder).frames] == ["frame01", "frame12"]

    def test_acdc_whose_info_names_an_absent_frame(self, folder):
        touch(folder, "p_frame01_gt.nii.gz")
        (folder / "Info.cfg").write_text("ED: 1\nES: 9\n")
        with pytest.raises(InvalidInputError, match="ES that has no segmentation"):
            find_patient(folder)

    def test_a_body_that_cannot_be_is_left_out(self, folder):
        touch(folder, "p_frame01_gt.nii.gz")
        (folder / "Info.cfg").write_text("ED: 1\nHeight: 1.84\nWeight: nan\n")
        patient = find_patient(folder)
        assert (patient.height_cm, patient.weight_kg) == (None, None)

    def test_mms2_with_its_long_axis_view(self, folder):
        touch(folder, "001_SA_ED.nii.gz", "001_SA_ED_gt.nii.gz", "001_SA_ES_gt.nii.gz",
              "001_LA_ED.nii.gz", "001_LA_ED_gt.nii.gz", "001_SA_CINE.nii.gz")  # fmt: skip
        patient = find_patient(folder)
        assert (patient.subject, patient.preset) == ("001", "mms2")
        assert found(patient) == {
            "ED labels": "001_SA_ED_gt.nii.gz",
            "ED image": "001_SA_ED.nii.gz",
            "ED view 4ch": "001_LA_ED_gt.nii.gz",
            "ED image of view 4ch": "001_LA_ED.nii.gz",
            "ES labels": "001_SA_ES_gt.nii.gz",
        }
        assert "view 4ch 001_LA_ED_gt.nii.gz" in "\n".join(patient.lines())

    def test_mms_is_a_series(self, folder):
        touch(folder, "A1B2C3_sa.nii.gz", "A1B2C3_sa_gt.nii.gz")
        patient = find_patient(folder)
        assert (patient.subject, patient.preset, patient.series) == ("A1B2C3", "mms", "ED,ES")

    def test_ukbb(self, folder):
        touch(folder, "sa_ED.nii.gz", "label_sa_ED.nii.gz", "label_sa_ES.nii.gz",
              "seg4_la_4ch_ES.nii.gz", "la_4ch_ES.nii.gz", "label_la_2ch_ES.nii.gz")  # fmt: skip
        patient = find_patient(folder)
        assert (patient.subject, patient.preset) == ("somebody", "ukbb")
        assert [sorted(frame.views) for frame in patient.frames] == [[], ["4ch"]]
        assert patient.frames[1].view_images["4ch"].name == "la_4ch_ES.nii.gz"
        assert patient.view_preset[4] == patient.view_preset[5] == 0
        assert "atria alone: label_la_2ch_ES.nii.gz" in patient.lines()[-1]
        assert patient.frames[0].image.name == "sa_ED.nii.gz"

    def test_nnunet_groups_cases_of_a_patient(self, folder):
        touch(folder, "labelsTr/p1_frame01.nii.gz", "labelsTr/p1_frame12.nii.gz",
              "labelsTr/p2_ED.nii.gz", "labelsTr/p3.nii.gz", "imagesTr/p1_frame01_0000.nii.gz",
              "imagesTr/p3_0000.nii.gz")  # fmt: skip
        labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
        (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
        several = patients_in(folder)
        assert [(p.subject, [f.name for f in p.frames]) for p in several] == [
            ("p1", ["frame01", "frame12"]),
            ("p2", ["ED"]),
            ("p3", ["frame"]),
        ]
        assert several[0].preset == {0: 0, 1: 4, 2: 2, 3: 1}
        assert [bool(p.frames[0].image) for p in several] == [True, False, True]
        with pytest.raises(
            InvalidInputError, match="holds 3 patients .* cardiacreg cohort"
        ) as told:
            find_patient(folder)
        assert told.value.code == "SEVERAL_PATIENTS"

    def test_nnunet_of_unknown_names_says_so(self, folder):
        touch(folder, "labelsTr/p1.nii.gz")
        (folder / "dataset.json").write_text('{"labels": {"background": 0, "blob": 1}}')
        patient = find_patient(folder)
        assert patient.preset is None
        assert "has to be given" in "\n".join(patient.lines())

    def test_the_decathlon_has_images_without_channels(self, folder):
        touch(folder, "labelsTr/p1.nii.gz", "imagesTr/p1.nii.gz")
        labels = {"0": "background", "1": "LV", "2": "MYO", "3": "RV"}
        (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
        patient = find_patient(folder)
        assert patient.frames[0].image.name == "p1.nii.gz"
        assert patient.preset == {0: 0, 1: 1, 2: 2, 3: 4}

    def test_monai(self, folder):
        """A folder for each case; its name is the case's."""
        touch(folder, "p1_ED/p1_ED_seg.nii.gz", "p2/p2_trans.nii.gz", "p3/p1_seg.nii.gz")
        patient = find_patient(folder / "p1_ED")
        assert (patient.subject, patient.convention, patient.preset) == ("p1_ED", "MONAI", None)
        assert patient.frames[0].labels.name == "p1_ED_seg.nii.gz"
        assert "has to be given" in patient.lines()[-1]
        assert find_patient(folder / "p2").frames[0].labels.name == "p2_trans.nii.gz"
        for name, code in (("p3", "NO_PATIENT"), ("p2", "AMBIGUOUS_PATIENT")):
            touch(folder, "p2/p2_pred.nii.gz")
            with pytest.raises(InvalidInputError) as told:
                find_patient(folder / name)
            assert told.value.code == code

    def test_a_table(self, folder):
        touch(folder, "a.nii.gz", "b.nii.gz", "i.nii.gz", "v.nii.gz")
        (folder / "patient.csv").write_text(
            "frame,labels,image,view\nED,a.nii.gz,i.nii.gz,\nES,b.nii.gz,,\nED,v.nii.gz,,4ch\n"
        )
        patient = find_patient(folder, subject="him")
        assert patient.subject == "him"
        assert found(patient) == {
            "ED labels": "a.nii.gz", "ED image": "i.nii.gz", "ED view 4ch": "v.nii.gz",
            "ES labels": "b.nii.gz", "patient.csv": "patient.csv",
        }  # fmt: skip


class TestRefusals:
    @pytest.mark.parametrize(
        ("names", "code"),
        [
            ((), "NO_PATIENT"),
            (("heart.nii.gz", "notes.txt"), "NO_PATIENT"),
            (("p_frame01.nii.gz",), "NO_PATIENT"),
            (("p_frame01_gt.nii.gz", "001_SA_ED_gt.nii.gz"), "AMBIGUOUS_PATIENT"),
            (("p_frame01_gt.nii.gz", "p_frame01_gt.nii"), "AMBIGUOUS_PATIENT"),
            (("label_sa_ED.nii.gz", "seg_sa_ED.nii.gz"), "AMBIGUOUS_PATIENT"),
            (("p_frame01_gt.nii.gz", "q_frame01_gt.nii.gz"), "SEVERAL_PATIENTS"),
        ],
    )
    def test_what_is_not_one_patient(self, folder, names, code):
        folder.mkdir()
        with pytest.raises(InvalidInputError) as told:
            find_patient(touch(folder, *names))
        assert told.value.code == code

    def test_no_folder(self, folder):
        with pytest.raises(InvalidInputError, match="no such folder"):
            find_patient(folder)

    @pytest.mark.parametrize(
        "table",
        [
            "frame,labels\nED,absent.nii.gz\n",
            "frame,labels\nED,a.nii.gz\nED,a.nii.gz\n",
            "frame,labels\n../ED,a.nii.gz\n",
            "frame,labels\ncine,a.nii.gz\n",
            "frame,labels,view\nED,a.nii.gz,4ch\n",
            "frame,mask\nED,a.nii.gz\n",
            "labels,thing\na.nii.gz,1\n",
            "",
        ],
    )
    def test_a_table_that_cannot_be(self, folder, table):
        touch(folder, "a.nii.gz")
        (folder / "patient.csv").write_text(table)
        with pytest.raises(InvalidInputError) as told:
            find_patient(folder)
        assert told.value.code in ("BAD_PATIENT", "AMBIGUOUS_PATIENT")

    @pytest.mark.parametrize(
        "subject", ["", "..", "a/b", "a\\b", ".hidden", "a" * 101, "a b", "x."]
    )
    def test_names_that_are_no_folders(self, folder, subject):
        touch(folder, "label_sa_ED.nii.gz")
        with pytest.raises(InvalidInputError) as told:
            find_patient(folder, subject=subject)
        assert told.value.code == "BAD_SUBJECT"


@pytest.mark.parametrize("call", [find_patient, refine_patient])
def test_a_list_of_files_is_no_patient(call):
    with pytest.raises(
        InvalidInputError, match=f"{call.__name__}: .* is a list; needs .*str"
    ) as told:
        call(["ed.nii.gz", "es.nii.gz"])
    assert told.value.code == "BAD_TYPE"
