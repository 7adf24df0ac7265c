"""Kinds of files that people of the field have: right values, with nibabel and SimpleITK as oracles."""

import struct
import warnings

import nibabel
import numpy as np
import pytest

from cardiacreg import InputWarning, InvalidInputError, LabelMap, read_segmentation
from cardiacreg.io.nifti import read_labels, read_stored_labels, read_volume
from tests.helpers.small_hearts import matrix, relabelled, small_heart
from tests.io.test_nifti import nifti_bytes, refused, write


@pytest.fixture(scope="module")
def sitk():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # raised inside SimpleITK's own import
        return pytest.importorskip("SimpleITK")


def read_by_sitk(sitk, path):
    """RAS matrix of a file according to SimpleITK."""
    image = sitk.ReadImage(str(path))
    found = np.eye(4)
    found[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    found[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1.0]) @ found


# ---- quantised labels


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("top", [4, 104])
def test_labels_saved_with_a_scaled_header_are_whole(tmp_path, dtype, top):
    heart = relabelled(small_heart(), {4: top})
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    image = nibabel.Nifti1Image(heart.array.astype(float), heart.voxel_to_world, header)
    image.to_filename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nii.gz").array, heart.array)
    loaded = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_labels(loaded).array, heart.array)
    again = nibabel.Nifti1Image(loaded.get_fdata(), loaded.affine, loaded.header)
    again.to_filename(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "b.nii.gz").array, heart.array)


def test_floats_within_one_percent_are_rounded_with_a_warning():
    heart = small_heart()
    source = (heart.array * 1.0039, heart.voxel_to_world)
    with pytest.warns(InputWarning, match="rounded"):
        np.testing.assert_array_equal(read_labels(source).array, heart.array)
    with pytest.warns(InputWarning, match="LabelMap: .*rounded"):
        np.testing.assert_array_equal(LabelMap(*source).array, heart.array)
    for factor in (1.02, 0.97):
        refused("FRACTIONAL_LABELS", (heart.array * factor, heart.voxel_to_world))


def test_an_interpolated_map_in_a_scaled_file_is_refused(tmp_path):
    array = small_heart().array.astype(np.int16)
    array[5, 5, 5] = 7
    for slope in (0.4, 0.03):
        refused("FRACTIONAL_LABELS", write(tmp_path, nifti_bytes(array, scl_slope=slope)))


# ---- header deviations


def with_qform(quaternion, pixdim0, offset=(3, -4, 5), **fields):
    b, c, d = quaternion
    x, y, z = offset
    return nifti_bytes(
        sform_code=0, qform_code=1, quatern_b=b, quatern_c=c, quatern_d=d,
        qoffset_x=x, qoffset_y=y, qoffset_z=z, pixdim=[pixdim0, 1.5, 1.25, 8, 1, 1, 1, 1], **fields,
    )  # fmt: skip


@pytest.mark.parametrize("pixdim0", [0.0, 1.0, -1.0, 2.0, -3.0])
@pytest.mark.parametrize("quaternion", [(0, 0, 0), (0.1, -0.3, 0.2), (0, 0.6, 0.8), (1, 0, 0)])
def test_a_qform_is_read_as_simpleitk_reads_it(tmp_path, sitk, quaternion, pixdim0):
    path = write(tmp_path, with_qform(quaternion, pixdim0))
    found = read_labels(path).voxel_to_world
    np.testing.assert_allclose(found, read_by_sitk(sitk, path), atol=1e-4)
    if pixdim0 in (0.0, 1.0, -1.0):
        np.testing.assert_allclose(found, nibabel.load(path).affine, atol=1e-4)
        np.testing.assert_allclose(read_labels(nibabel.load(path)).voxel_to_world, found, atol=1e-4)


def test_a_quaternion_that_is_too_long_is_made_a_unit_one(tmp_path, sitk):
    path = write(tmp_path, with_qform((0, 0.6, 0.8000003), 1))
    np.testing.assert_allclose(
        read_labels(path).voxel_to_world, read_by_sitk(sitk, path), atol=1e-4
    )
    with pytest.warns(InputWarning, match="unit quaternion"):
        read_labels(write(tmp_path, with_qform((0, 0.7, 0.8), 1)))
    refused("BAD_HEADER", write(tmp_path, with_qform((0, np.nan, 0), 1)))


def test_a_degenerate_sform_beside_a_good_qform_is_left(tmp_path):
    content = bytearray(with_qform((0.1, -0.3, 0.2), 1))
    good = read_labels(write(tmp_path, bytes(content))).voxel_to_world
    content[254:256] = struct.pack("<h", 1)
    content[280:328] = bytes(48)
    with pytest.warns(InputWarning, match="the qform is used"):
        found = read_labels(write(tmp_path, bytes(content)))
    np.testing.assert_allclose(found.voxel_to_world, good)


@pytest.mark.parametrize("dim", [[4, 40, 40, 8, 0, 1, 1, 1], [5, 40, 40, 8, 0, 0, 0, 0]])
def test_dimensions_of_zero_beyond_the_third_count_as_one(tmp_path, dim):
    with pytest.warns(InputWarning, match="are read as"):
        labels = read_labels(write(tmp_path, nifti_bytes(dim=dim)))
    np.testing.assert_array_equal(labels.array, small_heart().array)


@pytest.mark.parametrize("endianness", "<>")
def test_a_header_that_misstates_its_size_is_read(tmp_path, endianness):
    content = bytearray(nifti_bytes(endianness=endianness))
    content[:4] = bytes(4)
    with pytest.warns(InputWarning, match="wrong size"):
        labels = read_labels(write(tmp_path, bytes(content)))
    np.testing.assert_array_equal(labels.array, small_heart().array)


# ---- nibabel images are what they are in memory


@pytest.fixture
def loaded(tmp_path):
    heart = small_heart()
    image = nibabel.Nifti1Image(heart.array, heart.voxel_to_world)
    image.to_filename(tmp_path / "a.nii.gz")
    return nibabel.load(tmp_path / "a.nii.gz")


WIDER = np.diag([1.75, 1.75, 10, 1.0])


def by_sform(image):
    image.set_sform(WIDER)
    return image


def by_both(image):
    image.set_qform(WIDER, code=1)
    image.set_sform(WIDER, code=1)
    return image


def in_place(image):
    image.affine[:] = WIDER
    return image


def anew(image):
    return nibabel.Nifti1Image(image.dataobj, WIDER, image.header)


def without_header(image):
    return nibabel.Nifti1Image(image.dataobj, WIDER)


@pytest.mark.parametrize("change", [by_sform, by_both, in_place, anew, without_header])
def test_a_geometry_that_was_corrected_in_memory_counts(loaded, change):
    labels = read_labels(change(loaded))
    np.testing.assert_allclose(labels.voxel_to_world, WIDER, atol=1e-5)
    np.testing.assert_array_equal(labels.array, small_heart().array)


def test_zooms_that_were_changed_alone_are_refused_with_help(loaded):
    loaded.set_qform(loaded.affine, code=1)
    loaded.header["sform_code"] = 0
    loaded.header.set_zooms((1.75, 1.75, 10))
    assert "set_sform" in refused("CHANGED_HEADER", loaded)


def test_voxels_that_were_changed_in_memory_count(loaded):
    loaded.get_fdata()[loaded.get_fdata() == 4] = 0
    with pytest.warns(InputWarning, match="changed in memory"):
        assert read_labels(loaded).present() == (1, 2)


def test_an_unchanged_image_is_checked_against_its_file(loaded):
    np.testing.assert_array_equal(read_labels(loaded).array, small_heart().array)
    loaded.get_fdata()
    np.testing.assert_array_equal(read_labels(loaded).array, small_heart().array)


# ---- channels and frames


def one_hot(n=5):
    return (small_heart(rv_wall=True).array[..., None] == np.arange(n)).astype(np.uint8)


@pytest.mark.parametrize("top", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("axis", [0, 3, "itk"])
def test_one_hot_channels_are_decoded(tmp_path, axis, dtype, top):
    channels = one_hot().astype(dtype) * top
    if axis == "itk":
        channels = channels[:, :, :, None]
    else:
        channels = np.moveaxis(channels, 3, axis)
    nibabel.Nifti1Image(channels, matrix()).to_filename(tmp_path / "a.nii.gz")
    with pytest.warns(InputWarning, match="channel 0 is label 0"):
        labels = read_labels(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(labels.array, small_heart(rv_wall=True).array)
    np.testing.assert_allclose(labels.voxel_to_world, matrix())


def test_one_hot_channels_without_background_begin_with_label_1():
    with pytest.warns(InputWarning, match="channel 0 is label 1"):
        labels = read_labels((one_hot()[..., 1:], matrix()))
    np.testing.assert_array_equal(labels.array, small_heart(rv_wall=True).array)


@pytest.mark.parametrize("one_channel", [False, True])
def test_a_batch_of_one_is_left_away(one_channel):
    heart = small_heart(rv_wall=True)
    array = heart.array[None, None] if one_channel else np.moveaxis(one_hot(), 3, 0)[None]
    told = pytest.warns(InputWarning, match="an axis of length 1, as of a batch")
    with told, pytest.warns(InputWarning, match="channel"):
        labels = read_labels((array, matrix()))
    np.testing.assert_array_equal(labels.array, heart.array)


def test_probabilities_ask_for_the_argmax():
    soft = 0.9 * one_hot() + 0.02
    assert "numpy.argmax" in refused("FRACTIONAL_LABELS", (soft, matrix()))


@pytest.mark.parametrize("read", [read_labels, read_volume])
def test_a_channel_axis_of_one_in_front_is_left_away(read):
    heart = small_heart()
    with pytest.warns(InputWarning, match="channel axis"):
        found = read((heart.array[None], heart.voxel_to_world))
    np.testing.assert_array_equal(found.array, heart.array)


def cine(**frames):
    array = np.zeros((*small_heart().shape, 25), dtype=np.uint8)
    for frame, heart in frames.items():
        array[..., int(frame[1:])] = heart.array
    return array, matrix()


def test_labelled_frames_are_listed_and_phases_are_found():
    systole = relabelled(small_heart(), {1: 2, 4: 0})
    source = cine(f3=small_heart(), f11=systole)
    assert "frames 3, 11 hold labels" in refused("FRAME_NEEDED", source)
    assert "frames 3, 11" in refused("EMPTY_LABELS", source, frame=5)
    assert "0 to 24" in refused("BAD_FRAME", source, frame=25)
    for phase, frame, heart in (("ED", 3, small_heart()), ("es", 11, systole)):
        with pytest.warns(InputWarning, match=f"frame {frame}"):
            found = read_stored_labels(source, frame=phase)
        assert found.frame == frame
        np.testing.assert_array_equal(found.codes.array, heart.array)


def test_one_labelled_frame_is_named_and_is_no_phase():
    source = cine(f3=small_heart())
    assert "only frame 3" in refused("FRAME_NEEDED", source)
    assert "only frame 3" in refused("BAD_FRAME", source, frame="ED")
    refused("BAD_FRAME", source, frame="diastole")
    refused("ONE_FRAME", (small_heart().array, matrix()), frame="ED")
    refused("BAD_FRAME", source, frame="ED", read=read_volume)


# ---- values above 255


def test_large_values_are_read_through_a_preset_or_mapping(tmp_path):
    heart = small_heart()
    theirs = np.select([heart.array == n for n in (1, 2, 4)], [500, 205, 600]).astype(np.int16)
    theirs[:3] = 420
    path = write(tmp_path, nifti_bytes(theirs))
    assert "read_segmentation" in refused("UNKNOWN_LABEL", path)
    own = heart.array.copy()
    own[:3] = 0
    for meaning in ("mmwhs", {500: 1, 205: 2, 600: 4, 420: 0}):
        np.testing.assert_array_equal(read_segmentation(path, preset=meaning).array, own)
    with pytest.raises(InvalidInputError, match=r"\[420\].*\{420: 0\}") as error:
        read_segmentation(path, preset={500: 1, 205: 2, 600: 4})
    assert error.value.code == "UNEXPECTED_LABEL"
    with pytest.raises(InvalidInputError, match="'mmwhs'"):
        read_segmentation(path)


def test_an_image_is_not_a_segmentation():
    noise = np.random.default_rng(0).integers(0, 200, (20, 20, 5))
    with pytest.raises(InvalidInputError, match="swapped"):
        read_segmentation((noise, matrix()))


# ---- other formats


OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.2, 1.1) @ np.diag([-1.4, 1.4, 8]), [3, -90, 40]
)


def sitk_image(sitk, array, voxel_to_world=OBLIQUE, **kind):
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.swapaxes(array, 0, 2)), **kind)
    to_lps = np.diag([-1, -1, 1.0])
    spacing = np.linalg.norm(voxel_to_world[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((to_lps @ voxel_to_world[:3, 3]).tolist())
    image.SetDirection((to_lps @ (voxel_to_world[:3, :3] / spacing)).ravel().tolist())
    return image


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("suffix", ["nrrd", "nhdr", "mha", "mhd"])
def test_files_of_itk_are_read(tmp_path, sitk, suffix, compressed):
    path = tmp_path / f"a.{suffix}"
    sitk.WriteImage(sitk_image(sitk, small_heart().array), str(path), compressed)
    labels = read_labels(path)
    np.testing.assert_array_equal(labels.array, small_heart().array)
    np.testing.assert_allclose(labels.voxel_to_world, OBLIQUE, atol=1e-5)
    assert read_volume(path).shape == labels.shape


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_truncated_or_damaged_files_of_itk_are_refused(tmp_path, sitk, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 5, (30, 30, 8), dtype=np.uint8)
    sitk.WriteImage(sitk_image(sitk, noise), str(path), True)
    content = path.read_bytes()
    path.write_bytes(content[: int(0.9 * len(content))])
    refused("UNREADABLE_FILE", path)
    damaged = bytearray(content)
    damaged[-200] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(InvalidInputError) as error:
        read_labels(path)
    assert error.value.code in ("UNREADABLE_FILE", "CORRUPT_FILE")
    path.write_bytes(b"no image")
    refused("UNREADABLE_FILE", path)
    refused("FILE_NOT_FOUND", tmp_path / f"b.{suffix}")
    sitk.WriteImage(sitk_image(sitk, noise), str(path))
    refused("TOO_LARGE", path, max_bytes=100)


def test_without_simpleitk_the_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.nrrd"
    path.write_bytes(b"NRRD0004\n")
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    assert "cardiacreg[itk]" in refused("NO_ITK", path)


@pytest.mark.parametrize("suffix", ["mgz", "mgh", "img", "hdr"])
def test_files_of_nibabel_are_read(tmp_path, suffix):
    heart = small_heart()
    kind = nibabel.MGHImage if suffix.startswith("mg") else nibabel.Nifti1Pair
    nibabel.save(kind(heart.array, OBLIQUE), tmp_path / f"a.{suffix}")
    labels = read_labels(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(labels.array, heart.array)
    np.testing.assert_allclose(labels.voxel_to_world, OBLIQUE, atol=1e-4)
    content = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(content[:200])
    with pytest.raises(InvalidInputError) as error:
        read_labels(tmp_path / f"a.{suffix}")
    assert error.value.code in ("UNREADABLE_FILE", "TRUNCATED_FILE")


def test_an_analyze_image_does_not_say_how_it_lies(tmp_path):
    nibabel.save(nibabel.AnalyzeImage(small_heart().array, np.eye(4)), tmp_path / "a.img")
    refused("SPACING_UNKNOWN", tmp_path / "a.img")


def segmentation(sitk, path, layers, names):
    """A .seg.nrrd file as 3D Slicer writes it; names to (value, layer)."""
    several = len(layers) > 1
    array = np.stack(layers, axis=-1) if several else layers[0]
    image = sitk_image(sitk, array, **({"isVector": True} if several else {}))
    for n, (name, (value, layer)) in enumerate(names.items()):
        for key, each in (("Name", name), ("LabelValue", value), ("Layer", layer)):
            image.SetMetaData(f"Segment{n}_{key}", str(each))
    sitk.WriteImage(image, str(path), True)
    return path


def test_names_of_slicer_segments_say_what_they_are(tmp_path, sitk):
    heart = small_heart()
    theirs = relabelled(heart, {1: 3, 2: 1, 4: 2})
    names = {"Myocardium": (1, 0), "RV": (2, 0), "LV blood pool": (3, 0)}
    path = segmentation(sitk, tmp_path / "a.seg.nrrd", [theirs.array], names)
    labels = read_segmentation(path)
    np.testing.assert_array_equal(labels.array, heart.array)
    np.testing.assert_allclose(labels.voxel_to_world, OBLIQUE, atol=1e-5)
    np.testing.assert_array_equal(
        read_segmentation(path, preset={3: 1, 1: 2, 2: 4}).array, labels.array
    )
    path = segmentation(
        sitk,
        tmp_path / "b.seg.nrrd",
        [theirs.array],
        {"Segment_1" if name == "RV" else name: each for name, each in names.items()},
    )
    with pytest.raises(InvalidInputError, match="'Segment_1'"):
        read_segmentation(path)


def test_values_without_a_segment_are_told_and_not_lost(tmp_path, sitk):
    heart = small_heart()
    path = segmentation(sitk, tmp_path / "a.seg.nrrd", [heart.array], {"LV": (1, 0), "Myo": (2, 0)})
    with pytest.raises(InvalidInputError, match=r"values \[4\] occur and belong to none") as error:
        read_segmentation(path)
    assert error.value.code == "UNKNOWN_SEGMENTS"
    np.testing.assert_array_equal(
        read_segmentation(path, preset={1: 1, 2: 2, 4: 4}).array, heart.array
    )
    layers = [heart.array, (heart.array == 4).astype(np.uint8)]
    names = {"LV": (1, 0), "RV": (1, 1)}
    path = segmentation(sitk, tmp_path / "b.seg.nrrd", layers, names)
    with pytest.raises(InvalidInputError, match="layer 0 holds voxels of value 2"):
        read_segmentation(path)


def test_overlapping_layers_of_slicer_are_flattened_or_refused(tmp_path, sitk):
    array = small_heart().array
    solid, cavity, rv = ((np.isin(array, each)).astype(np.uint8) for each in ((1, 2), 1, 4))
    names = {"LV wall": (1, 0), "LV cavity": (1, 1), "RV cavity": (2, 1)}
    path = segmentation(sitk, tmp_path / "a.seg.nrrd", [solid, cavity + 2 * rv], names)
    with pytest.warns(InputWarning, match="'LV wall' and 'LV cavity' overlap"):
        labels = read_segmentation(path)
    np.testing.assert_array_equal(labels.array, array)
    half = np.roll(solid, 6, axis=0)
    names = {"LV wall": (1, 0), "LV cavity": (1, 1)}
    path = segmentation(sitk, tmp_path / "b.seg.nrrd", [solid, half], names)
    with pytest.raises(InvalidInputError, match="share") as error:
        read_segmentation(path)
    assert error.value.code == "OVERLAPPING_SEGMENTS"
