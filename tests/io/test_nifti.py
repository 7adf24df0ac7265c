import gzip
import os
import struct
import sys
import warnings
import zlib

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cardiacreg import InputWarning, InvalidInputError, LabelMap, Volume
from cardiacreg.io import bounded_read, nifti_header
from cardiacreg.io.nifti import (
    read_labels,
    read_stored_frames,
    read_volume,
    write_labels,
    write_volume,
)
from tests.helpers.small_hearts import data_folder, matrix, small_heart


def nifti_bytes(array=None, voxel_to_world=None, *, version=1, endianness="<", **fields):
    """A NIfTI file in memory, with header fields overwritten after nibabel's own checks."""
    array = small_heart().array if array is None else np.asarray(array)
    kind = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
    header = kind(endianness=endianness)
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header.set_xyzt_units("mm")
    header["magic"] = b"n+1" if version == 1 else header["magic"]
    header["vox_offset"] = 352 if version == 1 else 544
    header.set_sform(matrix() if voxel_to_world is None else voxel_to_world, code=2)
    for name, value in fields.items():
        header[name] = value
    voxels = array.astype(array.dtype.newbyteorder(endianness)).tobytes(order="F")
    return header.binaryblock + bytes(4) + voxels


def write(folder, content, name="labels.nii"):
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    return path


def refused(code, source, *, read=read_labels, **options):
    with pytest.raises(InvalidInputError) as error:
        read(source, **options)
    assert error.value.code == code, str(error.value)
    return str(error.value)


# ---- what is right


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ", "cœur äöü 心.nii.gz"])
def test_labels_come_back_as_written(tmp_path, name):
    heart = small_heart()
    write_labels(tmp_path / name, heart)
    back = read_labels(tmp_path / name)
    np.testing.assert_array_equal(back.array, heart.array)
    np.testing.assert_allclose(back.voxel_to_world, heart.voxel_to_world, atol=1e-5)


@pytest.mark.parametrize("endianness", "<>")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_number_type_and_byte_order_is_read_exactly(tmp_path, dtype, version, endianness):
    labels = small_heart().array.astype(dtype)
    path = write(tmp_path, nifti_bytes(labels, version=version, endianness=endianness))
    np.testing.assert_array_equal(read_labels(path).array, small_heart().array)


def test_the_smallest_int16_is_an_intensity(tmp_path):
    path = write(tmp_path, nifti_bytes(np.full((4, 4, 4), -32768, dtype=np.int16)))
    assert read_volume(path).array.max() == -32768


@pytest.mark.parametrize("code", [1, 2])
def test_written_files_place_the_image_twice_and_in_mm(tmp_path, code):
    oblique = nibabel.affines.from_matvec(
        nibabel.eulerangles.euler2mat(0.3, -0.7, 1.1) @ np.diag([-1.4, 1.4, 8]), [3, -90, 40]
    )
    array = np.random.default_rng(code).normal(size=(5, 6, 7))
    write_volume(tmp_path / "image.nii.gz", Volume(array, oblique))
    image = nibabel.load(tmp_path / "image.nii.gz")
    np.testing.assert_allclose(image.get_sform(), oblique, atol=1e-4)
    np.testing.assert_allclose(image.get_qform(), oblique, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    back = read_volume(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(back.array, array.astype(np.float32))
    np.testing.assert_allclose(back.voxel_to_world, oblique, atol=1e-4)


def test_writing_the_same_twice_gives_the_same_bytes(tmp_path):
    write_labels(tmp_path / "a.nii.gz", small_heart())
    write_labels(tmp_path / "b.nii.gz", small_heart())
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_all_sources_give_the_same_map(tmp_path):
    heart = small_heart()
    write_labels(tmp_path / "a.nii.gz", heart)
    sources = [
        tmp_path / "a.nii.gz",
        str(tmp_path / "a.nii.gz"),
        nibabel.load(tmp_path / "a.nii.gz"),
        nibabel.Nifti1Image(heart.array, heart.voxel_to_world),
        (heart.array, heart.voxel_to_world),
        (heart.array.astype(float).tolist(), heart.voxel_to_world.tolist()),
        heart,
    ]
    for source in sources:
        labels = read_labels(source)
        np.testing.assert_array_equal(labels.array, heart.array)
        np.testing.assert_allclose(labels.voxel_to_world, heart.voxel_to_world, atol=1e-5)
    assert read_labels(heart) is heart
    volume = Volume(heart.array, heart.voxel_to_world)
    assert read_volume(volume) is volume


def test_simpleitk_images_are_placed_as_their_files_are(tmp_path):
    simpleitk = pytest.importorskip("SimpleITK")
    oblique = nibabel.affines.from_matvec(
        nibabel.eulerangles.euler2mat(0.3, -0.2, 1.1) @ np.diag([-1.4, 1.4, 8]), [3, -90, 40]
    )
    write_labels(tmp_path / "a.nii.gz", small_heart(voxel_to_world=oblique))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # raised inside SimpleITK's own import
        labels = read_labels(simpleitk.ReadImage(str(tmp_path / "a.nii.gz")))
    np.testing.assert_array_equal(labels.array, small_heart().array)
    np.testing.assert_allclose(labels.voxel_to_world, oblique, atol=1e-4)


def test_simpleitk_vectors_and_slices_are_refused():
    simpleitk = pytest.importorskip("SimpleITK")
    refused("BAD_DTYPE", simpleitk.Image([4, 4, 4], simpleitk.sitkVectorUInt8))
    refused("BAD_SHAPE", simpleitk.Image([4, 4], simpleitk.sitkUInt8))


def test_something_else_is_refused():
    assert "needs a path" in refused("BAD_TYPE", 3)
    refused("BAD_TYPE", Volume(np.zeros((2, 2, 2)), matrix()))


# ---- damaged files


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert "gone.nii" in refused("FILE_NOT_FOUND", tmp_path / "gone.nii")
    refused("UNREADABLE_FILE", tmp_path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_truncated_files_never_give_partial_data(tmp_path, name, kept):
    noise = np.random.default_rng(0).integers(0, 5, (30, 30, 8), dtype=np.uint8)
    path = write(tmp_path, nifti_bytes(noise), name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert name in refused("TRUNCATED_FILE", path)


@pytest.mark.parametrize("lost", [1, 4, 8])
def test_a_gzip_file_without_its_whole_trailer_is_truncated(tmp_path, lost):
    path = write(tmp_path, nifti_bytes(), "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-lost])
    refused("TRUNCATED_FILE", path)


@given(position=st.floats(0, 1), bit=st.integers(0, 7))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_flipped_bit_in_the_compressed_data_never_changes_a_voxel(tmp_path, position, bit):
    content = bytearray(gzip.compress(nifti_bytes(), mtime=0))
    where = 10 + int(position * (len(content) - 11))  # after the gzip header
    content[where] ^= 1 << bit
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    try:
        labels = read_labels(path)
    except InvalidInputError as error:
        assert error.code in ("CORRUPT_FILE", "TRUNCATED_FILE")
    else:  # some flips only choose another code for the same bytes
        np.testing.assert_array_equal(labels.array, small_heart().array)


def test_a_flipped_bit_behind_the_last_voxel_read_is_found(tmp_path):
    content = bytearray(gzip.compress(nifti_bytes(), compresslevel=0, mtime=0))
    content[-2000] ^= 1  # stored, not compressed: only the checksum can tell
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    refused("CORRUPT_FILE", path)
    refused("CORRUPT_FILE", nibabel.load(path))


def test_trailing_junk_is_ignored_with_a_warning(tmp_path):
    for name, junk in (("a.nii.gz", b"junk"), ("a.nii", b"junk")):
        path = write(tmp_path, nifti_bytes(), name)
        path.write_bytes(path.read_bytes() + junk)
        with pytest.warns(InputWarning, match=f"{name}.*ignored"):
            labels = read_labels(path)
        np.testing.assert_array_equal(labels.array, small_heart().array)


def test_a_file_of_several_gzip_members_is_read(tmp_path):
    content = nifti_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    np.testing.assert_array_equal(read_labels(path).array, small_heart().array)


def test_the_content_and_not_the_name_decides_about_compression(tmp_path):
    (tmp_path / "plain.nii.gz").write_bytes(nifti_bytes())
    (tmp_path / "packed.nii").write_bytes(gzip.compress(nifti_bytes()))
    for name in ("plain.nii.gz", "packed.nii"):
        with pytest.warns(InputWarning, match="unlike the name"):
            labels = read_labels(tmp_path / name)
        np.testing.assert_array_equal(labels.array, small_heart().array)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_absurd_dimensions_are_refused_before_allocation(tmp_path, name):
    dim = [3, 32767, 32767, 32767, 1, 1, 1, 1]
    refused("TRUNCATED_FILE", write(tmp_path, nifti_bytes(dim=dim), name))


def test_a_small_file_that_unpacks_to_much_meets_the_budget(tmp_path):
    path = write(tmp_path, nifti_bytes(np.zeros((100, 100, 100), dtype=np.uint8)), "a.nii.gz")
    assert path.stat().st_size < 10_000
    assert "max_bytes" in refused("TOO_LARGE", path, max_bytes=500_000)
    assert read_labels(path).shape == (100, 100, 100)


def test_endless_data_behind_the_image_meet_the_budget(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti_bytes() + bytes(3_000_000)))
    refused("TOO_LARGE", path, max_bytes=1_000_000)


def test_many_small_gzip_members_are_read_in_one_pass(tmp_path, monkeypatch):
    """Each hands on what follows it; what is handed on must not grow with the file."""
    handed, make = [], zlib.decompressobj

    class Counting:
        def __init__(self, wbits):
            self.inner = make(wbits=wbits)

        def decompress(self, data):
            handed.append(len(data))
            return self.inner.decompress(data)

        eof = property(lambda self: self.inner.eof)
        unused_data = property(lambda self: self.inner.unused_data)

    content = nifti_bytes()
    members = [gzip.compress(content[n : n + 8], mtime=0) for n in range(0, len(content), 8)]
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"".join(members))
    monkeypatch.setattr(bounded_read.zlib, "decompressobj", Counting)
    np.testing.assert_array_equal(read_labels(path).array, small_heart().array)
    assert len(handed) >= len(members) > 200
    assert max(handed) <= 1 << 15


def test_memory_to_read_counts_as_well_as_bytes_of_the_file(tmp_path, monkeypatch):
    """Scaled integers become doubles: five times the memory of the same labels without a scale."""
    array = np.ones((60, 60, 60), dtype=np.uint8)
    monkeypatch.setattr(nifti_header, "_SMALL_MEMORY_BYTES", 0)
    scaled = write(tmp_path, nifti_bytes(array, scl_slope=2.0), "scaled.nii")
    plain = write(tmp_path, nifti_bytes(array), "plain.nii")
    size = plain.stat().st_size
    assert "GB of memory" in refused("TOO_LARGE", scaled, max_bytes=4 * size)
    assert read_labels(plain, max_bytes=4 * size).shape == array.shape
    assert read_labels(scaled, max_bytes=10 * size).shape == array.shape


@pytest.mark.parametrize("content", [b"", b"x", b"hello" * 200, bytes(600), b"\x1f\x8b"])
def test_files_that_are_something_else_are_refused(tmp_path, content):
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        with pytest.raises(InvalidInputError) as error:
            read_labels(path)
    assert error.value.code in ("NOT_NIFTI", "TRUNCATED_FILE")


def test_a_two_file_image_is_refused_with_advice(tmp_path):
    assert "convert" in refused("NOT_NIFTI", write(tmp_path, nifti_bytes(magic=b"ni1")))


@given(st.data())
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_header_gives_labels_or_our_error(tmp_path, data):
    content = bytearray(nifti_bytes(np.ones((3, 4, 5), dtype=np.uint8)))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzz.nii"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        try:
            labels = read_labels(path, max_bytes=10_000_000)
        except InvalidInputError as error:
            assert error.code != "INVALID_INPUT"
        else:
            assert np.isfinite(labels.voxel_to_world).all()


@pytest.mark.parametrize("vox_offset", [1e9, np.inf, np.nan, -352, 351, 352.5])
def test_a_wrong_position_of_the_voxels_is_refused(tmp_path, vox_offset):
    path = write(tmp_path, nifti_bytes(vox_offset=vox_offset))
    refused("TRUNCATED_FILE" if vox_offset == 1e9 else "BAD_HEADER", path)


def test_position_zero_means_right_after_the_header(tmp_path):
    path = write(tmp_path, nifti_bytes(vox_offset=0))
    np.testing.assert_array_equal(read_labels(path).array, small_heart().array)


# ---- shapes and types


@pytest.mark.parametrize(
    ("dim", "code"),
    [
        ([3, 0, 32, 8, 1, 1, 1, 1], "EMPTY_IMAGE"),
        ([3, -4, 32, 8, 1, 1, 1, 1], "BAD_HEADER"),
        ([0, 1, 1, 1, 1, 1, 1, 1], "BAD_HEADER"),
        ([9, 1, 1, 1, 1, 1, 1, 1], "BAD_HEADER"),
        ([2, 40, 40, 1, 1, 1, 1, 1], "BAD_SHAPE"),
        ([5, 10, 10, 8, 1, 16, 1, 1], "BAD_SHAPE"),
        ([5, 10, 10, 8, 2, 8, 1, 1], "BAD_SHAPE"),
    ],
)
def test_impossible_dimensions_are_refused(tmp_path, dim, code):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # fewer voxels than bytes
        refused(code, write(tmp_path, nifti_bytes(dim=dim)))


@pytest.mark.parametrize("datatype", [32, 1792, 128, 2304, 1, 0, 77])
def test_colours_complex_numbers_and_unknown_types_are_refused(tmp_path, datatype):
    refused("BAD_DTYPE", write(tmp_path, nifti_bytes(datatype=datatype)))


def test_complex_arrays_are_refused():
    refused("BAD_DTYPE", (np.ones((3, 3, 3), dtype=complex), matrix()), read=read_volume)


def test_a_cine_series_needs_a_frame(tmp_path):
    cine = np.stack([small_heart().array, np.roll(small_heart().array, 3, axis=0)], axis=-1)
    path = write(tmp_path, nifti_bytes(cine))
    assert "frame=1" in refused("FRAME_NEEDED", path)
    np.testing.assert_array_equal(read_labels(path, frame=1).array, cine[..., 1])
    for frame in (2, -1):
        assert "0 to 1" in refused("BAD_FRAME", path, frame=frame)


def test_a_frame_that_is_not_there_is_refused_where_there_is_one(tmp_path):
    heart = small_heart()
    path = write(tmp_path, nifti_bytes())
    single = write(tmp_path, nifti_bytes(heart.array[..., None]), "single.nii")
    volume = Volume(heart.array, heart.voxel_to_world)
    for read, source in (
        (read_labels, path),
        (read_labels, single),
        (read_labels, heart),
        (read_volume, path),
        (read_volume, volume),
    ):
        assert "frame=7" in refused("ONE_FRAME", source, read=read, frame=7)
        np.testing.assert_array_equal(read(source, frame=0).array, heart.array)


def test_a_mask_is_not_dropped():
    heart = small_heart()
    masked = np.ma.masked_equal(heart.array, 1)
    refused("MASKED_ARRAY", (masked, heart.voxel_to_world))
    refused("MASKED_ARRAY", (masked, heart.voxel_to_world), read=read_volume)
    refused("MASKED_ARRAY", nibabel.Nifti1Image(masked, heart.voxel_to_world))
    nothing = np.ma.masked_equal(heart.array, 77)
    np.testing.assert_array_equal(read_labels((nothing, heart.voxel_to_world)).array, heart.array)


@pytest.mark.parametrize("trailing", [(1,), (1, 1), (1, 1, 1)])
def test_trailing_dimensions_of_one_are_accepted(tmp_path, trailing):
    heart = small_heart()
    path = write(tmp_path, nifti_bytes(heart.array.reshape(heart.shape + trailing)))
    np.testing.assert_array_equal(read_labels(path).array, heart.array)


# ---- geometry


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_affine_that_is_not_finite_is_refused(tmp_path, bad):
    broken = matrix()
    broken[0, 3] = bad
    refused("BAD_MATRIX", write(tmp_path, nifti_bytes(voxel_to_world=broken)))
    refused("BAD_MATRIX", (small_heart().array, broken))


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_singular_affine_is_refused(tmp_path, kept):
    broken = np.diag([1.5, 1.5, 8, 1]) * (np.arange(4) < kept) + np.diag([0, 0, 0, 1.0])
    refused("SINGULAR_MATRIX", write(tmp_path, nifti_bytes(voxel_to_world=broken)))


def test_without_any_spacing_the_file_is_refused(tmp_path):
    path = write(tmp_path, nifti_bytes(sform_code=0, qform_code=0, pixdim=[1, 0, 0, 0, 0, 0, 0, 0]))
    refused("SPACING_UNKNOWN", path)


def test_a_spacing_alone_is_used_with_a_warning(tmp_path):
    pixdim = [1, 1.5, 1.5, 8, 0, 0, 0, 0]
    path = write(tmp_path, nifti_bytes(sform_code=0, qform_code=0, pixdim=pixdim))
    with pytest.warns(InputWarning, match="neither sform nor qform"):
        labels = read_labels(path)
    np.testing.assert_allclose(labels.spacing_mm, [1.5, 1.5, 8])


def _two_frames(sform_code, qform_code, shift_mm):
    header = nibabel.Nifti1Header(nifti_bytes()[:348])
    moved = matrix()
    moved[0, 3] += shift_mm
    header.set_sform(moved, code=sform_code)
    header.set_qform(matrix(), code=qform_code)
    return header.binaryblock + nifti_bytes()[348:], moved


def test_the_sform_wins_with_a_warning_where_the_frames_differ(tmp_path):
    content, moved = _two_frames(1, 1, 5.0)
    with pytest.warns(InputWarning, match="sform is used"):
        labels = read_labels(write(tmp_path, content))
    np.testing.assert_allclose(labels.voxel_to_world, moved, atol=1e-5)


def test_the_qform_is_used_where_the_sform_is_not_set(tmp_path):
    content, _ = _two_frames(0, 1, 5.0)
    labels = read_labels(write(tmp_path, content))
    np.testing.assert_allclose(labels.voxel_to_world, matrix(), atol=1e-5)


def test_frames_that_agree_raise_no_warning(tmp_path):
    content, _ = _two_frames(1, 1, 1e-5)
    read_labels(write(tmp_path, content))


def test_a_sform_of_ones_takes_the_spacing_of_pixdim(tmp_path):
    ones = np.diag([-1.0, -1.0, 1.0, 1.0])
    content = nifti_bytes(voxel_to_world=ones, pixdim=[1, 1.5, 1.6, 10, 0, 0, 0, 0])
    with pytest.warns(InputWarning, match=r"labels\.nii: .*spacing of pixdim is used"):
        labels = read_labels(write(tmp_path, content))
    np.testing.assert_allclose(labels.voxel_to_world, np.diag([-1.5, -1.6, 10, 1]), atol=1e-5)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1)])
def test_a_header_that_nobody_filled_in_is_doubted(tmp_path, signs):
    ones = np.diag([*signs, 1.0])
    with pytest.warns(InputWarning, match="nobody filled it in"):
        read_labels(write(tmp_path, nifti_bytes(voxel_to_world=ones)))
    ones[0, 3] = -12.5
    read_labels(write(tmp_path, nifti_bytes(voxel_to_world=ones)))


def test_another_contradiction_about_spacing_is_said(tmp_path):
    content = nifti_bytes(pixdim=[1, 1.5, 1.5, 10, 0, 0, 0, 0])
    with pytest.warns(InputWarning, match="the sform is used"):
        labels = read_labels(write(tmp_path, content))
    np.testing.assert_allclose(labels.spacing_mm, [1.5, 1.5, 8], atol=1e-5)


@pytest.mark.parametrize("pixdim", [1.0, 0.0, -1.0, np.nan])
def test_a_pixdim_that_says_nothing_contradicts_nothing(tmp_path, pixdim):
    content = nifti_bytes(pixdim=[1, *[pixdim] * 3, 0, 0, 0, 0])
    labels = read_labels(write(tmp_path, content))
    np.testing.assert_allclose(labels.spacing_mm, [1.5, 1.5, 8], atol=1e-5)


@pytest.mark.parametrize(("unit", "factor", "name"), [(1, 1e-3, "metres"), (3, 1e3, "micrometres")])
def test_other_units_are_converted_with_a_warning(tmp_path, unit, factor, name):
    in_unit = np.diag([factor, factor, factor, 1]) @ matrix()
    with pytest.warns(InputWarning, match=name):
        labels = read_labels(write(tmp_path, nifti_bytes(voxel_to_world=in_unit, xyzt_units=unit)))
    np.testing.assert_allclose(labels.voxel_to_world, matrix(), atol=1e-3)


def test_millimetres_called_metres_are_refused_with_a_hint(tmp_path):
    path = write(tmp_path, nifti_bytes(xyzt_units=1))
    with pytest.warns(InputWarning, match="metres"):
        assert "unit may be wrong" in refused("IMPLAUSIBLE_SPACING", path)


@pytest.mark.parametrize("unit", [0, 2, 10, 18])
def test_unset_units_and_time_units_mean_millimetres(tmp_path, unit):
    labels = read_labels(write(tmp_path, nifti_bytes(xyzt_units=unit)))
    np.testing.assert_allclose(labels.spacing_mm, [1.5, 1.5, 8], atol=1e-5)


@pytest.mark.parametrize("spacing", [(0.1, 1, 8), (6, 6, 8), (1, 1, 25), (1, 1, 0.2), (8, 1, 1)])
def test_implausible_spacing_is_refused_unless_told_otherwise(spacing):
    source = (small_heart().array, matrix(spacing))
    message = refused("IMPLAUSIBLE_SPACING", source)
    assert ("axis 0" in message.partition("right.")[2]) == (spacing[0] == 8)
    np.testing.assert_allclose(read_labels(source, check_spacing=False).spacing_mm, spacing)


@pytest.mark.parametrize(
    "spacing", [(0.2, 0.2, 0.3), (5, 5, 20), (1.25, 1.25, 2), (0.35, 0.35, 0.6), (0.29, 0.29, 8)]
)
def test_spacing_at_the_limits_is_accepted(tmp_path, spacing):
    rotated = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.4, 0.2, 0.1)) @ matrix(
        spacing
    )
    read_labels(write(tmp_path, nifti_bytes(voxel_to_world=rotated)))


@pytest.mark.parametrize("shear", [1e-4, 8e-4])
def test_a_small_shear_is_removed_about_the_centre_with_a_warning(shear):
    sheared = matrix()
    sheared[0, 1] = shear * sheared[1, 1]
    heart = small_heart()
    with pytest.warns(InputWarning, match="perpendicular"):
        labels = read_labels((heart.array, sheared))
    directions = labels.voxel_to_world[:3, :3] / labels.spacing_mm
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)
    centre = [*(np.array(heart.shape) - 1) / 2, 1]
    np.testing.assert_allclose(labels.voxel_to_world @ centre, sheared @ centre)


def test_a_large_shear_is_refused():
    sheared = matrix()
    sheared[0, 1] = 0.1
    assert "resample" in refused("SHEARED_MATRIX", (small_heart().array, sheared))


def test_left_handed_and_oblique_images_are_accepted_as_they_are():
    flipped = matrix() @ np.diag([-1, 1, 1, 1.0])
    np.testing.assert_array_equal(
        read_labels((small_heart().array, flipped)).voxel_to_world, flipped
    )


# ---- values


def test_fractional_labels_are_refused(tmp_path):
    blurred = small_heart().array * 0.5
    refused("FRACTIONAL_LABELS", write(tmp_path, nifti_bytes(blurred)))


@pytest.mark.parametrize("value", [70000, -1, 256])
def test_labels_that_do_not_fit_are_never_wrapped(tmp_path, value):
    array = small_heart().array.astype(np.int32)
    array[0, 0, 0] = value
    refused("UNKNOWN_LABEL", write(tmp_path, nifti_bytes(array)))


def test_scaling_is_applied_before_labels_are_checked(tmp_path):
    array = small_heart().array
    path = write(tmp_path, nifti_bytes(array, scl_slope=2, scl_inter=1))
    np.testing.assert_array_equal(read_labels(path).array, array * 2 + 1)
    refused("FRACTIONAL_LABELS", write(tmp_path, nifti_bytes(array, scl_slope=0.3)))


@pytest.mark.parametrize("slope", [0, np.nan])
def test_scaling_that_is_not_set_is_not_applied(tmp_path, slope):
    path = write(tmp_path, nifti_bytes(scl_slope=slope, scl_inter=7))
    np.testing.assert_array_equal(read_labels(path).array, small_heart().array)


@pytest.mark.parametrize("fields", [{"scl_slope": np.inf}, {"scl_slope": 1, "scl_inter": np.nan}])
def test_infinite_scaling_counts_as_none_as_in_itk(tmp_path, fields):
    path = write(tmp_path, nifti_bytes(**fields))
    with pytest.warns(InputWarning, match="1 and 0 are used"):
        np.testing.assert_array_equal(read_labels(path).array, small_heart().array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_intensities_that_are_not_finite_follow_the_policy(tmp_path, bad):
    array = np.ones((4, 4, 4))
    array[1, 2, 3] = bad
    path = write(tmp_path, nifti_bytes(array), "image.nii")
    assert "image.nii" in refused("NOT_FINITE", path, read=read_volume)
    with pytest.warns(InputWarning, match="1 intensities"):
        volume = read_volume(path, nan_policy="zero")
    assert volume.array[1, 2, 3] == 0 and volume.array.sum() == 63


def test_an_unknown_policy_is_refused(tmp_path):
    refused("BAD_OPTION", tmp_path, read=read_volume, nan_policy="drop")


# ---- writing


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    write_labels(path, small_heart())
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_labels(path, small_heart(rv_wall=True))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_missing_folder_or_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        write_labels(tmp_path / "no" / "a.nii", small_heart())
    with pytest.raises(InvalidInputError, match="cannot tell the format"):
        write_labels(tmp_path / "a.mha", small_heart())


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits")
def test_written_files_follow_the_umask(tmp_path):
    write_labels(tmp_path / "a.nii", small_heart())
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "a.nii").stat().st_mode == plain.stat().st_mode


# ---- real files


@pytest.mark.parametrize("case", "AG")
def test_real_digital_heart_files_are_read(case):
    folder = data_folder("autofd") / case
    labels, image = read_labels(folder / "labels.nii.gz"), read_volume(folder / "image.nii.gz")
    assert isinstance(labels, LabelMap) and labels.present() == (1, 2, 4)
    assert labels.shape[2] == image.shape[2] + 6
    reference = nibabel.load(folder / "image.nii.gz")
    np.testing.assert_allclose(image.voxel_to_world, reference.affine)
    np.testing.assert_array_equal(image.array, reference.get_fdata(dtype=np.float32)[..., 0])


def test_real_acdc_files_are_read():
    folder = data_folder("acdc") / "patient001"
    with pytest.warns(InputWarning, match="spacing of pixdim"):  # in every file of ACDC
        labels = read_labels(folder / "patient001_frame01_gt.nii.gz")
    with pytest.warns(InputWarning, match="spacing of pixdim"):
        image = read_volume(folder / "patient001_frame01.nii.gz")
    assert labels.present() == (1, 2, 3) and labels.shape == image.shape
    np.testing.assert_allclose(labels.spacing_mm, [1.5625, 1.5625, 10])


def test_byte_order_is_told_by_the_header():
    assert struct.unpack(">i", nifti_bytes(endianness=">")[:4]) == (348,)


def test_a_frame_without_labels_is_one_of_a_series():
    heart = small_heart()
    frames = np.stack([np.zeros_like(heart.array), heart.array], axis=-1)
    found = read_stored_frames((frames, heart.voxel_to_world))
    assert [bool(each.codes.array.any()) for each in found] == [False, True]
