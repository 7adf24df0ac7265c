"""The files that the documents speak of, of small synthetic hearts, under the documents' names."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import SimpleITK
from scipy import ndimage

import cardiacreg
from cardiacreg.phantoms.beating import beating_heart
from tests.helpers.cvi42_workspaces import BOX, contour, workspace
from tests.helpers.snippets import COARSE_MM, HEARTS_MM

ACDC = np.array([0, 3, 2, 0, 1], dtype=np.uint8)
FOUR_CHAMBER = np.array([0, 1, 2, 0, 3], dtype=np.uint8)


def write_files(folder):
    """Write every file that a command or a block of code in a document takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stacks = write_stacks(folder)
        write_atlases(folder)
        write_results(folder, stacks)
        write_patients(folder)
        write_transforms(folder)
        write_studies(folder, stacks[0])


def stored(labels, values=ACDC):
    """Labels without the RV wall, in a data set's values."""
    return cardiacreg.LabelMap(values[labels.array], labels.voxel_to_world)


def write_stacks(folder):
    """Stacks of a heart at end-diastole and end-systole, its views, a series."""
    hearts = [
        cardiacreg.sample_heart(10_003, phase=phase, spacing_mm=HEARTS_MM) for phase in ("ED", "ES")
    ]
    scans = [cardiacreg.Degradation().of(heart, seed=1).subject for heart in hearts]
    for name, scan in (("seg", scans[0]), ("es_seg", scans[1])):
        cardiacreg.write_labels(folder / f"{name}.nii.gz", stored(scan.labels))
    write_case(folder, stored(scans[0].labels, FOUR_CHAMBER))
    for name in ("sax", "image"):
        cardiacreg.write_volume(folder / f"{name}.nii.gz", scans[0].image)
    four, two = cardiacreg.simulate_views(hearts[0], ["four_chamber", "two_chamber"], seed=1)
    cardiacreg.write_labels(folder / "4ch_seg.nii.gz", stored(four.subject.labels, FOUR_CHAMBER))
    cardiacreg.write_labels(folder / "2ch_seg.nii.gz", stored(two.subject.labels))
    for name, view in (("4ch", four), ("2ch", two)):
        cardiacreg.write_volume(folder / f"{name}.nii.gz", view.subject.image)
    frames = beating_heart(10_003, n_frames=3, spacing_mm=HEARTS_MM)
    series = [
        stored(each.subject.labels) for each in cardiacreg.Degradation().of_frames(frames, seed=1)
    ]
    write_series(folder / "cine_seg.nii.gz", series)
    write_series(folder / "cine.nii.gz", [scans[0].image] * 3)
    return scans


def write_case(folder, labels):
    """Labels with the probabilities that nnU-Net keeps beside them: classes, then slices first."""
    cardiacreg.write_labels(folder / "case.nii.gz", labels)
    classes = np.arange(FOUR_CHAMBER.max() + 1)[:, None, None, None]
    sure = 0.97 * (labels.array.transpose(2, 1, 0) == classes) + 0.03 / len(classes)
    np.savez_compressed(folder / "case.npz", probabilities=sure.astype(np.float32))


def write_series(place, series):
    import nibabel

    array = np.stack([labels.array for labels in series], axis=3)
    image = nibabel.Nifti1Image(array, series[0].voxel_to_world)
    image.header.set_xyzt_units("mm", "msec")
    nibabel.save(image, place)


def write_atlases(folder):
    """Folders of atlases, and a bank that tells phases."""
    for number, group in enumerate(("dilated", "healthy", "hypertrophic")):
        heart = cardiacreg.sample_heart(number, group=group, spacing_mm=HEARTS_MM)
        for root in ("my_atlases", "FOLDER"):
            place = folder / root / heart.name
            place.mkdir(parents=True)
            cardiacreg.write_labels(place / "labels.nii.gz", heart.labels)
            cardiacreg.write_volume(place / "image.nii.gz", heart.image)
            (place / "metadata.json").write_text(json.dumps({"phase": "ED"}))
        name = folder / f"warped_{number + 1}"
        cardiacreg.write_labels(f"{name}_labels.nii.gz", heart.labels)
    for name in ("BANK", "my_bank"):
        atlases = cardiacreg.open_atlas_folder(folder / "my_atlases")
        cardiacreg.build_atlas_bank(folder / name, atlases)
    (folder / "my_atlas").mkdir()


def write_results(folder, stacks):
    """Saved models, with what is made of them."""
    bank = cardiacreg.AtlasBank(folder / "BANK")
    for phase, name in (("ed", "seg"), ("es", "es_seg")):
        result = cardiacreg.refine(
            folder / f"{name}.nii.gz", preset="acdc", atlases=bank, spacing_mm=COARSE_MM
        )
        result.save(folder / f"{phase}_out", transforms=("npz", "dof"))
        shutil.copytree(folder / f"{phase}_out", folder / f"{phase.upper()}_OUT")
    shutil.copytree(folder / "ed_out", folder / "out")
    cine = cardiacreg.refine_cine(
        folder / "cine_seg.nii.gz", preset="acdc", atlases=bank, spacing_mm=COARSE_MM
    )
    cine.save(folder / "cine_out", transforms=True)
    model = cardiacreg.read_labels(folder / "out" / "labels.nii.gz")
    for name in ("labels", "truth", "a", "b", "atlas_labels"):
        cardiacreg.write_labels(folder / f"{name}.nii.gz", model)
    cardiacreg.write_labels(folder / "acdc.nii.gz", stored(model))
    shutil.copy(folder / "out" / "landmarks.json", folder)
    shutil.copy(folder / "out" / "atlas_1.dof", folder / "warp.dof")
    theirs = SimpleITK.ReadImage(str(folder / "labels.nii.gz"))
    SimpleITK.WriteImage(theirs, str(folder / "PHsegmentation_ED.gipl"))


def write_patients(folder):
    """Patients under the names of ACDC and nnU-Net, and a manifest."""
    names = {"patient001": 1, "patients/patient002": 2, "patients/patient003": 3}
    for name in names:
        place = folder / name
        place.mkdir(parents=True)
        for frame, source in (("01", "seg"), ("12", "es_seg")):
            shutil.copy(folder / f"{source}.nii.gz", place / f"{place.name}_frame{frame}_gt.nii.gz")
        (place / "Info.cfg").write_text("ED: 1\nES: 12\nHeight: 172.0\nWeight: 70.0\n")
    (folder / "cohort.csv").write_text(
        "subject,labels,preset\np1,seg.nii.gz,acdc\np2,es_seg.nii.gz,acdc\n"
    )
    case = folder / "nnunet_case"
    (case / "labelsTr").mkdir(parents=True)
    for phase, source in (("ED", "seg"), ("ES", "es_seg")):
        shutil.copy(folder / f"{source}.nii.gz", case / "labelsTr" / f"CASE_{phase}.nii.gz")
    meaning = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    (case / "dataset.json").write_text(json.dumps({"labels": meaning, "file_ending": ".nii.gz"}))


def write_transforms(folder):
    """What fusion takes on one lattice, and landmarks as VTK keeps them."""
    model = cardiacreg.read_labels(folder / "labels.nii.gz")
    grey = cardiacreg.Volume(50.0 * model.array, model.voxel_to_world)
    cardiacreg.write_volume(folder / "target_image.nii.gz", grey)
    for number in (1, 2, 3):
        cardiacreg.write_volume(folder / f"warped_{number}_image.nii.gz", grey)
        cardiacreg.write_labels(folder / f"warped_{number}_labels.nii.gz", model)
    points = cardiacreg.read_landmarks(folder / "landmarks.json").points_mm
    lines = [
        "# vtk DataFile Version 3.0",
        "landmarks",
        "ASCII",
        "DATASET POLYDATA",
        "POINTS 6 float",
    ]
    lines += [" ".join(f"{x:.3f}" for x in point) for point in points]
    (folder / "landmarks.vtk").write_text("\n".join(lines) + "\n")


def write_studies(folder, scan):
    """DICOM images of the stack, contours drawn on them, guide points."""
    from pydicom import dcmread

    for name in ("DICOM_FOLDER", "study_dicom"):
        cardiacreg.write_dicom_cine(folder / name, [scan.image, scan.image])
    images = [dcmread(path) for path in sorted((folder / "DICOM_FOLDER").rglob("*.dcm"))]
    drawn = {each.SOPInstanceUID: [contour("saendocardialContour", 4 * BOX)] for each in images[:1]}
    workspace(folder / "drawn.cvi42wsx", drawn)
    contracted = np.array(scan.labels.array)
    cavity = contracted == 1
    contracted[cavity & ~ndimage.binary_erosion(cavity, np.ones((3, 3, 1)))] = 2
    later = cardiacreg.LabelMap(contracted, scan.labels.voxel_to_world)
    cardiacreg.write_guide_points(folder / "guidepoints", scan.labels)
    cardiacreg.write_guide_points(folder / "later", later, time_frame=1)
    shutil.move(folder / "later" / "GPFile_001.txt", folder / "guidepoints")
    shutil.rmtree(folder / "later")
    for path in (folder / "guidepoints").iterdir():
        shutil.copy(path, folder)
