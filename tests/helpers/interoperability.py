"""What is read and written, format by format, and the checks against other tools that say so.

``python -m tests.helpers.interoperability`` writes docs/interoperability.md from the formats and checks
below. Tests run every check, and hold the page to what stands here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import cardiacreg as c
from cardiacreg.geometry import STRUCTURE_COLOURS, apply_matrix
from cardiacreg.phantoms.toy_heart import make_toy_heart
from tests.helpers import dicom_studies

PAGE = Path(__file__).parents[2] / "docs" / "interoperability.md"
LPS = np.array([-1.0, -1.0, 1.0])
POINTS = np.array([[3.0, -4.0, 5.0], [-20.0, 11.0, 2.0], [0.0, 0.0, 0.0]])
READ, WRITTEN = "read", "written"


class Format(NamedTuple):
    """One format, as the page shows it."""

    group: str
    name: str
    read: str
    written: str
    space: str
    refused: str


class Check(NamedTuple):
    """One comparison with another tool, or with the form where no tool can run here."""

    format: str
    direction: str
    tool: str
    what: str
    run: Callable[[Path], None]


FORMATS = (
    Format(
        "Labels", "NIfTI", "`read_segmentation`, every command", "`write_segmentation`, `write_labels`",
        "RAS, by its matrix",
        "fractions, unknown values, a wrong preset, a header without a place, truncated or damaged files",
    ),
    Format(
        "Labels", "MetaImage, NRRD", "`read_segmentation`, every command", "`write_segmentation`",
        "LPS, by its matrix", "several values for each voxel; sheared axes when written",
    ),
    Format(
        "Labels", ".seg.nrrd", "`read_segmentation`, by the names of segments", "`write_segmentation`",
        "LPS, by its matrix", "segments that half overlap, names that are not known",
    ),
    Format("Labels", "MGH", "`read_segmentation`", "–", "RAS, by its matrix", "truncated files"),
    Format(
        "Labels", "DICOM-SEG", "`read_dicom_seg`, `convert`", "`write_dicom_seg`, `convert --study`",
        "LPS, by its planes", "segments that overlap, uneven slices, other DICOM objects; when written, "
        "labels far from the images, and images that are frames of one file",
    ),
    Format(
        "Images", "DICOM MR", "`read_dicom_cine`, `convert`: short and long axis",
        "`write_dicom_cine`; as NIfTI, `convert`",
        "LPS, by its planes", "several patients in a folder, no image with a place; gaps, duplicates, "
        "mixed spacing and numbers of frames are told",
    ),
    Format("Images", "NIfTI image", "`read_volume`", "`write_volume`", "RAS, by its matrix", "NaN"),
    Format(
        "Contours", "biv-me guide points", "`read_guide_points`: stack and long-axis planes",
        "`write_guide_points`: the short axis", "LPS, as DICOM",
        "points off their plane, several time frames, uneven slices",
    ),
    Format(
        "Contours", "cvi42 XML", "`read_cvi42`, `labels_from_cvi42`: the short axis", "–",
        "pixels of DICOM images", "the binary workspace, contours of another study",
    ),
    Format(
        "Transforms", "ITK and ANTs", "`read_itk_transform`: .tfm, .txt, .mat, .h5",
        "`write_itk_transform`", "LPS",
        "several transforms without a composite, kinds that are not known",
    ),
    Format(
        "Transforms", "elastix", "`read_itk_transform`: TransformParameters.txt", "–", "LPS",
        "kinds and parameters that are not known; the message says how to convert",
    ),
    Format(
        "Transforms", "MIRTK and IRTK", "`read_dof`: .dof, .dof.gz", "`write_dof`", "RAS",
        "types it cannot hold, splines on different lattices, damaged files",
    ),
    Format(
        "Transforms", "dense NIfTI", "`read_displacement_field`: ITK, ANTs, NiftyReg, SPM",
        "`write_displacement_field`", "LPS or RAS, by intent or `--from`, `--to`",
        "fields of FSL, velocities, fields that do not say what they hold",
    ),
    Format(
        "Landmarks", "JSON", "`read_landmarks`", "`write_landmarks`", "stated in the file, `--to`",
        "no space, other units, names that occur twice",
    ),
    Format(
        "Landmarks", "3D Slicer markups", "`read_landmarks`: .mrk.json, .fcsv", "`write_landmarks`",
        "stated in the file, `--to`", "lists in different spaces, points that are not placed",
    ),
    Format(
        "Landmarks", "VTK points", "`read_landmarks`: .vtk, .vtp", "–", "stated or `--from`",
        "no space stated and none given",
    ),
    Format(
        "Surfaces", "VTP", "`read_surface`", "`write_surface`, `refine --surfaces`",
        "stated in the file, `--to`", "compressed or appended data, other cells than triangles",
    ),
    Format(
        "Surfaces", "STL, PLY, OBJ", "`read_surface`", "`write_surface`, `refine --surfaces`",
        "stated in the file, `--from`, `--to`", "text STL and PLY",
    ),
)  # fmt: skip
CHECKS: list[Check] = []
INTRODUCTION = """\
# Interoperability

Format by format: what is read and written, by which function or command, in which space coordinates lie,
what is refused, and what it was checked against. This page is made from the checks that the tests run
(`python -m tests.helpers.interoperability`); a check that fails, or a page that is not current, fails
them. `cardiacreg convert IN OUT` goes from one to another. World is RAS mm inside the library.

In Python, labels and images are also taken as nibabel and SimpleITK images and as `(array, matrix)`. What
needs an extra: NRRD and MetaImage `itk`, DICOM `dicom`, DICOM-SEG `dicom-seg`. Where a result goes next:
[3D Slicer and ParaView](viewers.md).
"""


def check(
    name: str, direction: str, tool: str, what: str
) -> Callable[[Callable[[Path], None]], None]:
    """Register a check of a format."""

    def register(run: Callable[[Path], None]) -> None:
        CHECKS.append(Check(name, direction, tool, what, run))

    return register


def heart() -> c.LabelMap:
    """A toy heart, turned and moved."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = turn * np.linalg.det(turn), (20, -30, 45)
    labels = make_toy_heart().labels
    return c.LabelMap(labels.array, world @ labels.voxel_to_world)


def itk_image(labels):
    """The same as an image of SimpleITK."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels.array.T))
    image.SetSpacing(labels.spacing_mm.tolist())
    direction = labels.voxel_to_world[:3, :3] / labels.spacing_mm * LPS[:, None]
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin((labels.voxel_to_world[:3, 3] * LPS).tolist())
    return sitk, image


def assert_same_as_itk(labels, path):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(path))
    assert (sitk.GetArrayFromImage(image).T == labels.array).all()
    for voxel in ((0, 0, 0), (5, 9, 3), tuple(n - 1 for n in labels.shape)):
        place = np.array(image.TransformIndexToPhysicalPoint(voxel)) * LPS
        np.testing.assert_allclose(place, (labels.voxel_to_world @ (*voxel, 1.0))[:3], atol=1e-3)
    return image


def assert_same(found, labels):
    assert (found.array == labels.array).all()
    np.testing.assert_allclose(found.voxel_to_world, labels.voxel_to_world, atol=1e-3)


@check("NIfTI", WRITTEN, "SimpleITK", "values, and points of three voxels")
def nifti_as_simpleitk(folder):
    c.write_segmentation(folder / "a.nii.gz", heart())
    assert_same_as_itk(heart(), folder / "a.nii.gz")


@check("NIfTI", WRITTEN, "nibabel", "values and matrix")
def nifti_as_nibabel(folder):
    nibabel = pytest.importorskip("nibabel")
    c.write_segmentation(folder / "a.nii", heart())
    image = nibabel.load(folder / "a.nii")
    assert (np.asarray(image.dataobj) == heart().array).all()
    np.testing.assert_allclose(image.affine, heart().voxel_to_world, atol=1e-4)


@check("NIfTI", READ, "SimpleITK", "values and matrix of a file that it wrote")
def nifti_from_simpleitk(folder):
    sitk, image = itk_image(heart())
    sitk.WriteImage(image, str(folder / "a.nii.gz"))
    assert_same(c.read_segmentation(folder / "a.nii.gz"), heart())


@check("MetaImage, NRRD", WRITTEN, "SimpleITK", "values, and points of three voxels")
def metaimage_nrrd_as_simpleitk(folder):
    for ending in (".mha", ".nrrd"):
        c.write_segmentation(folder / f"a{ending}", heart())
        assert_same_as_itk(heart(), folder / f"a{ending}")


@check("MetaImage, NRRD", READ, "SimpleITK", "values and matrix of files that it wrote")
def metaimage_nrrd_from_simpleitk(folder):
    sitk, image = itk_image(heart())
    for ending in (".mha", ".mhd", ".nrrd", ".nhdr"):
        sitk.WriteImage(image, str(folder / f"a{ending}"))
        assert_same(c.read_segmentation(folder / f"a{ending}"), heart())


@check(".seg.nrrd", WRITTEN, "SimpleITK", "values, points, names and colours of the segments")
def seg_nrrd_as_simpleitk(folder):
    c.write_segmentation(folder / "a.seg.nrrd", heart())
    image = assert_same_as_itk(heart(), folder / "a.seg.nrrd")
    assert [image.GetMetaData(f"Segment{n}_Name") for n in range(4)] == [
        "LV cavity", "LV wall", "RV wall", "RV cavity",
    ]  # fmt: skip
    colour = [float(part) for part in image.GetMetaData("Segment0_Color").split()]
    np.testing.assert_allclose(colour, np.array(STRUCTURE_COLOURS[1]) / 255, atol=1e-5)


@check(".seg.nrrd", READ, "SimpleITK", "segments under other values, told by their names")
def seg_nrrd_from_simpleitk(folder):
    labels = heart()
    renamed = np.array([0, 9, 7, 5, 3], dtype=np.uint8)[labels.array]
    sitk, image = itk_image(c.LabelMap(renamed, labels.voxel_to_world))
    names = {9: "LV blood pool", 7: "LV myocardium", 5: "RV wall", 3: "Right ventricle"}
    for n, (value, name) in enumerate(names.items()):
        for key, text in (("Name", name), ("LabelValue", str(value)), ("Layer", "0")):
            image.SetMetaData(f"Segment{n}_{key}", text)
    sitk.WriteImage(image, str(folder / "a.seg.nrrd"))
    assert_same(c.read_segmentation(folder / "a.seg.nrrd"), labels)


@check("MGH", READ, "nibabel", "values and matrix of a file that it wrote")
def mgh_from_nibabel(folder):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.MGHImage(heart().array.astype(np.int32), heart().voxel_to_world.astype("f4"))
    nibabel.save(image, folder / "a.mgz")
    assert_same(c.read_segmentation(folder / "a.mgz"), heart())


def study(folder):
    """A stack of three slices and two frames, and labels of its second frame."""
    pytest.importorskip("pydicom")
    dicom_studies.write_stack(folder, (0.0, 8.0, 16.0), (0.0, 40.0))
    (stack,) = c.read_dicom_cine(folder)
    array = np.zeros(stack.array.shape[:3], dtype=np.uint8)
    array[2:9, 2:8], array[4:6, 4:6], array[9:11, 3:6] = 2, 1, 4
    return stack, c.LabelMap(array, stack.voxel_to_world)


@check(
    "DICOM-SEG", WRITTEN, "highdicom, pydicom", "segments, planes, and references to every image"
)
def dicom_seg_as_highdicom_pydicom(folder):
    highdicom = pytest.importorskip("highdicom")
    stack, labels = study(folder / "study")
    c.write_dicom_seg(folder / "a.dcm", labels, stack, frame=1)
    found = highdicom.seg.segread(folder / "a.dcm")
    referred = {
        item.ReferencedSOPInstanceUID
        for series in found.ReferencedSeriesSequence
        for item in series.ReferencedInstanceSequence
    }
    assert referred == {own[1].uid for own in stack.images}
    volume = found.get_volume(combine_segments=True)
    for k, own in enumerate(stack.images):
        place = volume.map_reference_to_indices(own[1].plane.origin_mm[None] * LPS)[0]
        slice_of = volume.array[int(np.rint(place[0]))]
        expected = np.array([0, 1, 2, 0, 3], dtype=np.uint8)[labels.array[:, :, k].T]
        assert (slice_of == expected).all()


@check("DICOM-SEG", READ, "highdicom", "a segmentation of two segments that it wrote")
def dicom_seg_from_highdicom(folder):
    highdicom = pytest.importorskip("highdicom")
    pydicom = pytest.importorskip("pydicom")
    stack, labels = study(folder / "study")
    sources = [pydicom.dcmread(own[0].file) for own in stack.images]
    code = highdicom.sr.CodedConcept("91723000", "SCT", "Anatomical Structure")
    segments = [
        highdicom.seg.SegmentDescription(n, name, code, code, "MANUAL")
        for n, name in enumerate(("LV myocardium", "LV blood pool"), start=1)
    ]
    array = np.array([0, 2, 1, 0, 0], dtype=np.uint8)[labels.array].transpose(2, 1, 0)
    theirs = highdicom.seg.Segmentation(
        sources,
        array,
        "BINARY",
        segments,
        highdicom.UID(),
        9,
        highdicom.UID(),
        1,
        "a",
        "b",
        "c",
        "d",
    )
    theirs.save_as(folder / "a.dcm")
    found = c.read_dicom_seg(folder / "a.dcm")
    expected = np.where(labels.array == 4, 0, labels.array)
    assert_same(found, c.LabelMap(expected, labels.voxel_to_world))


@check("DICOM MR", READ, "SimpleITK (GDCM)", "order of slices, values, and points of two voxels")
def dicom_mr_from_simpleitk_gdcm(folder):
    pytest.importorskip("pydicom")
    sitk = pytest.importorskip("SimpleITK")
    dicom_studies.write_stack(folder, (16.0, 0.0, 24.0, 8.0), (0.0,))
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    (ours,) = c.read_dicom_cine(folder, still_images=True)
    assert (sitk.GetArrayFromImage(image).T == ours.array[..., 0]).all()
    for voxel in ((0, 0, 0), (5, 2, 3)):
        found = apply_matrix(ours.voxel_to_world, np.array([voxel], dtype=float))[0] * LPS
        np.testing.assert_allclose(found, image.TransformIndexToPhysicalPoint(voxel), atol=1e-4)


@check(
    "DICOM MR", WRITTEN, "SimpleITK (GDCM)", "values within half a level, and points of two voxels"
)
def dicom_mr_as_simpleitk_gdcm(folder):
    pytest.importorskip("pydicom")
    sitk = pytest.importorskip("SimpleITK")
    noise = np.random.default_rng(0).normal(size=heart().shape)
    volume = c.Volume(noise, heart().voxel_to_world)
    c.write_dicom_cine(folder, [volume])
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    step = np.ptp(noise) / 4095
    array = sitk.GetArrayFromImage(image).T
    in_order = array if np.linalg.det(volume.voxel_to_world[:3, :3]) > 0 else array[:, :, ::-1]
    assert np.abs(in_order - noise).max() < 0.51 * step
    for voxel in ((0, 0, 0), (5, 9, 3)):
        found = apply_matrix(volume.voxel_to_world, np.array([voxel], dtype=float))[0] * LPS
        np.testing.assert_allclose(found, image.TransformIndexToPhysicalPoint(voxel), atol=1e-3)


@check("NIfTI image", WRITTEN, "nibabel", "a cine converted from DICOM: values, matrix, time step")
def nifti_image_as_nibabel(folder):
    nibabel = pytest.importorskip("nibabel")
    stack, _ = study(folder / "study")
    c.convert(folder / "study", folder / "out")
    image = nibabel.load(folder / "out" / "sax.nii.gz")
    assert (np.asarray(image.dataobj) == stack.array).all()
    np.testing.assert_allclose(image.affine, stack.voxel_to_world, atol=1e-4)
    assert image.header["pixdim"][4] == 40 and image.header.get_xyzt_units()[1] == "msec"


@check("NIfTI image", READ, "SimpleITK", "values and matrix of a file that it wrote")
def nifti_image_from_simpleitk(folder):
    sitk, image = itk_image(heart())
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), str(folder / "a.nii.gz"))
    assert_same(c.read_volume(folder / "a.nii.gz"), heart())


@check(
    "biv-me guide points", WRITTEN, "the published form", "columns, and points in their planes, LPS"
)
def biv_me_guide_points_as_the_published_form(folder):
    c.write_guide_points(folder, heart())
    head, *rows = (folder / "GPFile_000.txt").read_text().splitlines()
    assert head == "x\ty\tz\tcontour type\tframeID\tweight\ttime frame"
    planes = {}
    for line in (folder / "SliceInfoFile.txt").read_text().splitlines():
        words = line.split("\t")
        n = words.index("ImagePositionPatient")
        axes = np.array(words[n + 5 : n + 11], dtype=float).reshape(2, 3)
        planes[words[2]] = (np.array(words[n + 1 : n + 4], dtype=float), np.cross(*axes))
    for words in (row.split("\t") for row in rows):
        origin, normal = planes[words[4]]
        assert abs((np.array(words[:3], dtype=float) - origin) @ normal) < 1e-3


@check("biv-me guide points", READ, "the published form", "labels whose contours were written")
def biv_me_guide_points_from_the_published_form(folder):
    labels = heart()
    c.write_guide_points(folder, labels)
    points = c.read_guide_points(folder / "GPFile_000.txt")
    found = points.short_axis_labels(shape=labels.shape[:2])
    drawn = np.where(labels.array == 3, 0, labels.array)
    assert (found.array != drawn).sum() < 0.02 * (drawn > 0).sum()
    np.testing.assert_allclose(found.voxel_to_world, labels.voxel_to_world, atol=1e-4)


@check("cvi42 XML", READ, "the form of public readers", "a contour placed by its image")
def cvi42_xml_from_the_form_of_public_readers(folder):
    stack, _ = study(folder / "study")
    uid, hash_ = stack.images[1][0].uid, "http://www.circlecvi.com/cvi42/Workspace/"
    points = "".join(
        f"<List:item><Point:x>{4 * x}</Point:x><Point:y>{4 * y}</Point:y></List:item>"
        for x, y in ((2, 2), (7, 2), (7, 6), (2, 6))
    )

    def item(key, inner):
        return f'<Hash:item Hash:key="{key}">{inner}</Hash:item>'

    contour = item("saepicardialContour", item("Points", points) + item("SubpixelResolution", 4))
    (folder / "a.cvi42wsx").write_text(
        f'<a xmlns:Hash="{hash_}Hash/" xmlns:List="{hash_}List/" xmlns:Point="{hash_}Point/">'
        + item("ImageStates", item(uid, item("Contours", contour))) + "</a>"
    )  # fmt: skip
    ((frame, labels),) = c.labels_from_cvi42(c.read_cvi42(folder / "a.cvi42wsx"), stack)
    assert frame == 0 and (labels.array[2:8, 2:7, 1] == 2).all() and (labels.array > 0).sum() == 30


def deformation():
    lattice = np.diag([20.0, 20.0, 20.0, 1.0])
    lattice[:3, 3] = -50.0
    matrix = np.diag([1.1, 0.9, 1.0, 1.0])
    matrix[:3, 3] = (4, -3, 2)
    bent = np.random.default_rng(3).normal(scale=2.0, size=(7, 7, 7, 3))
    return c.FFD(c.Affine(matrix), bent, lattice)


def assert_itk_moves_alike(transform, ours, atol=1e-6):
    for point in POINTS:
        moved = np.array(transform.TransformPoint((point * LPS).tolist())) * LPS
        np.testing.assert_allclose(moved, ours.apply(point[None])[0], atol=atol)


@check("ITK and ANTs", WRITTEN, "SimpleITK", "three points under an affine and a deformation")
def itk_and_ants_as_simpleitk(folder):
    sitk = pytest.importorskip("SimpleITK")
    pytest.importorskip("h5py")
    for name, transform in (
        ("a.mat", deformation().affine), ("b.tfm", deformation()), ("c.h5", deformation()),
    ):  # fmt: skip
        c.write_itk_transform(folder / name, transform)
        assert_itk_moves_alike(sitk.ReadTransform(str(folder / name)), transform)


@check("ITK and ANTs", READ, "SimpleITK", "three points under an Euler and a B-spline transform")
def itk_and_ants_from_simpleitk(folder):
    sitk = pytest.importorskip("SimpleITK")
    euler = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, -0.2, 0.3, (4.0, 5.0, 6.0))
    image = sitk.Image([40, 40, 40], sitk.sitkUInt8)
    image.SetSpacing((3.0, 3.0, 3.0))
    image.SetOrigin((-60.0, -60.0, -60.0))
    spline = sitk.BSplineTransformInitializer(image, [3, 4, 2], 3)
    count = len(spline.GetParameters())
    spline.SetParameters(np.random.default_rng(0).normal(size=count).tolist())
    for name, transform in (("a.tfm", euler), ("b.tfm", spline)):
        sitk.WriteTransform(transform, str(folder / name))
        assert_itk_moves_alike(transform, c.read_itk_transform(folder / name))


@check("elastix", READ, "SimpleITK", "three points under the same Euler transform")
def elastix_from_simpleitk(folder):
    sitk = pytest.importorskip("SimpleITK")
    euler = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, -0.2, 0.3, (4.0, 5.0, 6.0))
    (folder / "TransformParameters.0.txt").write_text(
        '(Transform "EulerTransform")\n(NumberOfParameters 6)\n'
        "(TransformParameters 0.1 -0.2 0.3 4.0 5.0 6.0)\n"
        '(InitialTransformParametersFileName "NoInitialTransform")\n(HowToCombineTransforms "Compose")\n'
        "(CenterOfRotationPoint 1.0 2.0 3.0)\n(FixedImageDimension 3)\n(MovingImageDimension 3)\n"
    )
    found = c.read_itk_transform(folder / "TransformParameters.0.txt")
    assert_itk_moves_alike(euler, found)


@check("MIRTK and IRTK", WRITTEN, "the layout of the format", "numbers of its head, big-endian")
def mirtk_and_irtk_as_the_layout_of_the_format(folder):
    c.write_dof(folder / "a.dof", deformation())
    head = np.frombuffer((folder / "a.dof").read_bytes()[:12], ">u4")
    assert head.tolist() == [815007, 7, 1]


@check("MIRTK and IRTK", READ, "ourselves", "three points after a round trip")
def mirtk_and_irtk_from_ourselves(folder):
    for name in ("a.dof", "a.dof.gz"):
        c.write_dof(folder / name, deformation())
        np.testing.assert_allclose(
            c.read_dof(folder / name).apply(POINTS), deformation().apply(POINTS)
        )


@check("dense NIfTI", WRITTEN, "SimpleITK", "three points under its displacement field")
def dense_nifti_as_simpleitk(folder):
    sitk = pytest.importorskip("SimpleITK")
    matrix = np.diag([4.0, 4.0, 4.0, 1.0])
    matrix[:3, 3] = -40.0
    field = c.dense_displacement(deformation(), c.Lattice((21, 21, 21), matrix))
    c.write_displacement_field(folder / "a.nii.gz", field)
    image = sitk.ReadImage(str(folder / "a.nii.gz"), sitk.sitkVectorFloat64)
    assert_itk_moves_alike(sitk.DisplacementFieldTransform(image), field, atol=1e-4)


@check("dense NIfTI", READ, "SimpleITK", "three points under a field that it wrote")
def dense_nifti_from_simpleitk(folder):
    sitk = pytest.importorskip("SimpleITK")
    array = np.random.default_rng(4).normal(size=(21, 20, 19, 3)).astype(np.float32)
    image = sitk.GetImageFromArray(array, isVector=True)
    image.SetSpacing((4.0, 4.0, 4.0))
    image.SetOrigin((-38.0, -39.0, -40.0))
    sitk.WriteImage(image, str(folder / "a.nii.gz"))
    transform = sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))
    assert_itk_moves_alike(transform, c.read_displacement_field(folder / "a.nii.gz"), atol=1e-4)


@check("JSON", WRITTEN, "json of Python", "names, space and unit")
def json_as_json_of_python(folder):
    landmarks = c.landmarks_from_labels(heart())
    c.write_landmarks(folder / "a.json", landmarks, space="LPS")
    found = json.loads((folder / "a.json").read_text())
    assert (found["space"], found["unit"]) == ("LPS", "mm")
    np.testing.assert_allclose([*found["points"].values()], landmarks.points_mm * LPS)


@check("JSON", READ, "json of Python", "points in another order and space")
def json_from_json_of_python(folder):
    landmarks = c.landmarks_from_labels(heart())
    points = dict(zip(landmarks.names, (landmarks.points_mm * LPS).tolist(), strict=True))
    turned = dict(reversed(points.items()))
    text = json.dumps({"space": "LPS", "unit": "mm", "points": turned})
    (folder / "a.json").write_text(text)
    np.testing.assert_allclose(c.read_landmarks(folder / "a.json").points_mm, landmarks.points_mm)


@check("3D Slicer markups", WRITTEN, "its schema", "points, labels and space of both kinds of file")
def slicer_markups_as_its_schema(folder):
    landmarks = c.landmarks_from_labels(heart())
    c.write_landmarks(folder / "a.mrk.json", landmarks, space="LPS")
    (markup,) = json.loads((folder / "a.mrk.json").read_text())["markups"]
    assert (markup["type"], markup["coordinateSystem"]) == ("Fiducial", "LPS")
    places = [control["position"] for control in markup["controlPoints"]]
    np.testing.assert_allclose(places, landmarks.points_mm * LPS)
    assert [control["label"] for control in markup["controlPoints"]] == list(landmarks.names)
    c.write_landmarks(folder / "a.fcsv", landmarks)
    lines = (folder / "a.fcsv").read_text().splitlines()
    assert lines[1] == "# CoordinateSystem = 0" and lines[2].startswith("# columns = id,x,y,z,")


@check("3D Slicer markups", READ, "its schema", "points of both kinds of file, in either space")
def slicer_markups_from_its_schema(folder):
    controls = [{"label": f"p{n}", "position": p} for n, p in enumerate((POINTS * LPS).tolist())]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": controls}
    (folder / "a.mrk.json").write_text(json.dumps({"markups": [markup]}))
    np.testing.assert_allclose(c.read_landmarks(folder / "a.mrk.json").points_mm, POINTS)
    rows = [f"{n},{x},{y},{z},0,0,0,1,1,1,0,p{n},," for n, (x, y, z) in enumerate(POINTS.tolist())]
    (folder / "a.fcsv").write_text("\n".join(["# CoordinateSystem = RAS", *rows]))
    np.testing.assert_allclose(c.read_landmarks(folder / "a.fcsv").points_mm, POINTS)


@check("VTK points", READ, "VTK", "points of files that it wrote")
def vtk_points_from_vtk(folder):
    core = pytest.importorskip("vtkmodules.vtkCommonCore")
    model = pytest.importorskip("vtkmodules.vtkCommonDataModel")
    legacy = pytest.importorskip("vtkmodules.vtkIOLegacy")
    points, data = core.vtkPoints(), model.vtkPolyData()
    points.SetDataTypeToDouble()
    for point in POINTS:
        points.InsertNextPoint(point.tolist())
    data.SetPoints(points)
    writer = legacy.vtkPolyDataWriter()
    writer.SetInputData(data)
    writer.SetFileName(str(folder / "a.vtk"))
    writer.Write()
    np.testing.assert_allclose(c.read_landmarks(folder / "a.vtk", space="RAS").points_mm, POINTS)


def endocardium():
    return c.surfaces_of(make_toy_heart().labels, triangles=800)["LV_ENDO"]


@check("VTP", WRITTEN, "VTK", "volume, number of triangles, stated space")
def vtp_as_vtk(folder):
    pytest.importorskip("vtkmodules")
    from vtkmodules.vtkFiltersCore import vtkMassProperties
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    c.write_surface(folder / "a.vtp", endocardium(), space="LPS")
    reader, mass = vtkXMLPolyDataReader(), vtkMassProperties()
    reader.SetFileName(str(folder / "a.vtp"))
    reader.Update()
    mass.SetInputData(reader.GetOutput())
    assert mass.GetVolume() / 1000 == pytest.approx(endocardium().volume_ml(), rel=1e-6)
    assert reader.GetOutput().GetNumberOfPolys() == len(endocardium().triangles)
    assert reader.GetOutput().GetFieldData().GetAbstractArray("SPACE").GetValue(0) == "LPS"


@check("VTP", READ, "ourselves", "volume and space after a round trip")
def vtp_from_ourselves(folder):
    c.write_surface(folder / "a.vtp", endocardium(), space="LPS")
    found = c.read_surface(folder / "a.vtp")
    np.testing.assert_allclose(found.vertices_mm, endocardium().vertices_mm)


@check("STL, PLY, OBJ", WRITTEN, "trimesh", "volume, closed")
def stl_ply_obj_as_trimesh(folder):
    trimesh = pytest.importorskip("trimesh")
    for ending in ("stl", "ply", "obj"):
        c.write_surface(folder / f"a.{ending}", endocardium())
        found = trimesh.load_mesh(folder / f"a.{ending}")
        assert found.is_watertight
        assert found.volume / 1000 == pytest.approx(endocardium().volume_ml(), rel=1e-4)


@check("STL, PLY, OBJ", READ, "trimesh", "volume and centre of files that it wrote")
def stl_ply_obj_from_trimesh(folder):
    trimesh = pytest.importorskip("trimesh")
    surface = endocardium()
    mesh = trimesh.Trimesh(surface.vertices_mm * LPS, surface.triangles, process=False)
    for ending in ("stl", "ply", "obj"):
        mesh.export(folder / f"a.{ending}")
        found = c.read_surface(folder / f"a.{ending}", space="LPS")
        assert found.volume_ml() == pytest.approx(surface.volume_ml(), rel=1e-4)
        np.testing.assert_allclose(
            found.vertices_mm.mean(axis=0), surface.vertices_mm.mean(axis=0), atol=1e-2
        )


def page() -> str:
    """Return the text of docs/interoperability.md."""
    lines = [*INTRODUCTION.splitlines()]
    for group in dict.fromkeys(each.group for each in FORMATS):
        lines += [
            "",
            f"## {group}",
            "",
            "| format | read | written | space | refused |",
            "| --- " * 5 + "|",
        ]
        lines += [
            f"| {each.name} | {each.read} | {each.written} | {each.space} | {each.refused} |"
            for each in FORMATS
            if each.group == group
        ]
        lines += ["", "| format | | checked with | what was compared |", "| --- " * 4 + "|"]
        lines += [
            f"| {each.format} | {each.direction} | {each.tool} | {each.what} |"
            for own in FORMATS
            if own.group == group
            for each in CHECKS
            if each.format == own.name
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
