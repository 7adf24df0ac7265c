"""The formats of ITK's transform files, ``.tfm`` or ``.txt``, ``.mat`` and ``.h5``, as lists of records.

What the files claim is checked before it is allocated. ``.mat`` is MAT level 4, two numbered vectors per
transform, read here; ``.h5`` needs h5py, which runs in a process of its own with limits of time and
memory, since damaged files make HDF5 hang or crash. Layouts are facts about the formats.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.io.regular_file import unreadable

HDF5_SECONDS = 30.0
"""Longest time that an ``.h5`` file may take to read."""
_LARGEST_TEXT_BYTES = 2**31
_MOST_TRANSFORMS = 10_000
_LARGEST_DEFLATE_RATIO = 1032
_CHILD_BYTES = 4 * 2**30
_TEXT = (".tfm", ".txt")
_HDF5 = (".h5", ".hdf5")
_H5_NAMES = {
    "kind": ("TransformType", "TranformType"),
    "parameters": ("TransformParameters", "TranformParameters"),
    "fixed": ("TransformFixedParameters", "TranformFixedParameters"),
}
"""What the data sets are called; ITK 4 misspelt them."""
_CHILD = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from cardiacreg.transforms.itk_records import send_hdf5; send_hdf5(sys.argv[1])"
)
_CONVERTERS = {
    ".lta": "FreeSurfer's lta_convert --outitk writes .txt",
    ".xfm": "FreeSurfer's lta_convert --inmni --outitk writes .txt",
    ".dof": "read it with read_dof",
    ".gz": "read a field with read_displacement_field",
    ".nii": "read a field with read_displacement_field",
    ".nrrd": "read it with SimpleITK and pass the image to read_displacement_field",
    ".mha": "read it with SimpleITK and pass the image to read_displacement_field",
}


class Record(NamedTuple):
    """One transform of a file."""

    kind: str
    """As ITK names it, such as ``AffineTransform_double_3_3``."""
    parameters: Float
    fixed: Float

    @property
    def is_composite(self) -> bool:
        """Whether it says that the records after it are applied one after the other."""
        return self.kind.startswith("CompositeTransform")


def read_records(file: Path) -> list[Record]:
    """Read the transforms of a file in its order.

    Parameters
    ----------
    file : pathlib.Path
        An existing regular file; its name tells the format.

    Returns
    -------
    list of Record

    Raises
    ------
    InvalidInputError
        BAD_FILE_NAME, BAD_FILE_TYPE (another format), CORRUPT_FILE, UNREADABLE_FILE, TOO_LARGE,
        NO_H5PY.
    """
    suffix = file.suffix.lower()
    try:
        if suffix in _TEXT:
            return _from_text(read_text(file))
        if suffix == ".mat":
            return _from_matlab(_content(file))
        if suffix in _HDF5:
            return _from_hdf5(file)
    except OSError as error:
        raise unreadable(error.strerror or str(error)) from error
    except (ValueError, struct.error) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise _damaged(str(error)) from error
    advice = _CONVERTERS.get(suffix, "convert it, with SimpleITK for example")
    raise InvalidInputError(
        f"a name that ends with {suffix!r}; needs .tfm, .txt, .mat or .h5: {advice}.",
        code="BAD_FILE_NAME",
    )


def written(records: list[Record], suffix: str) -> bytes | None:
    """Return the content of a file of given records, or None if no format has this suffix.

    Parameters
    ----------
    records : list of Record
    suffix : str
        ``.mat`` holds a single record.
    """
    if suffix in _TEXT:
        return _text(records).encode()
    if suffix == ".mat" and len(records) == 1:
        return _matlab(records[0])
    return _hdf5(records) if suffix in _HDF5 else None


def read_text(file: Path) -> str:
    """Return a text file's content without a byte-order mark; BAD_FILE_TYPE if it is no text."""
    try:
        return _content(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            "is not text, as .tfm and .txt transforms are.", code="BAD_FILE_TYPE"
        ) from error


def _content(file: Path) -> bytes:
    with file.open("rb") as stream:
        content = stream.read(_LARGEST_TEXT_BYTES + 1)
    if len(content) > _LARGEST_TEXT_BYTES:
        raise InvalidInputError(
            f"holds more than {_LARGEST_TEXT_BYTES} bytes; too large for a transform.",
            code="TOO_LARGE",
        )
    return content


def _damaged(why: str) -> InvalidInputError:
    return InvalidInputError(
        f"cannot be read as an ITK transform ({why}); the file is damaged: write it again.",
        code="CORRUPT_FILE",
    )


# ------------------------------------------------------------------------------------------------- text


def _text(records: list[Record]) -> str:
    lines = ["#Insight Transform File V1.0"]
    for number, record in enumerate(records):
        lines += [f"#Transform {number}", f"Transform: {record.kind}"]
        if not record.is_composite:
            lines.append("Parameters: " + " ".join(repr(float(v)) for v in record.parameters))
            lines.append("FixedParameters: " + " ".join(repr(float(v)) for v in record.fixed))
    return "\n".join(lines) + "\n"


def _from_text(text: str) -> list[Record]:
    if not text.startswith("#Insight Transform File"):
        raise _other_text(text)
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Transform":
            found.append({"kind": value.strip()})
        elif key.strip() in ("Parameters", "FixedParameters") and found:
            found[-1][key.strip()] = value
        elif key.strip() == "ComponentTransformFile":
            raise InvalidInputError(
                f"is a composite whose members are in other files ({value.strip()}, ...); write it as "
                "one file with SimpleITK: ReadTransform, then WriteTransform to a .tfm or .h5.",
                code="BAD_FILE_TYPE",
            )
    return [
        Record(
            each["kind"], *(_numbers(each.get(k, "")) for k in ("Parameters", "FixedParameters"))
        )
        for each in found
    ]


def _other_text(text: str) -> InvalidInputError:
    """What a text that is no ITK transform seems to be."""
    hint = "needs '#Insight Transform File V1.0' as its first line."
    try:
        numbers = _numbers(text[:10_000])
    except ValueError:
        numbers = np.zeros(0)
    if len(numbers) == 16:
        hint = (
            "seems to be a plain 4x4 matrix, and what it maps cannot be told. One of FSL's flirt: "
            "c3d_affine_tool -ref TARGET -src ATLAS FILE -fsl2ras -oitk out.txt; one in RAS mm from "
            "target to atlas (NiftyReg): cardiacreg.Affine(numpy.loadtxt(FILE))."
        )
    return InvalidInputError(f"is not an ITK transform file: {hint}", code="BAD_FILE_TYPE")


def _numbers(text: str) -> Float:
    return np.array(text.split(), dtype=np.float64)


# ---------------------------------------------------------------------------------------- MATLAB level 4

_MATLAB_TYPES = ("f8", "f4", "i4", "i2", "u2", "u1")
_LONGEST_NAME = 256


def _matlab(record: Record) -> bytes:
    parts = []
    for name, values in ((record.kind, record.parameters), ("fixed", record.fixed)):
        parts.append(struct.pack("<5i", 0, len(values), 1, 0, len(name) + 1))
        parts += [name.encode() + b"\0", np.asarray(values, "<f8").tobytes()]
    return b"".join(parts)


def _from_matlab(content: bytes) -> list[Record]:
    """Pairs of a vector named by its transform's kind and one named ``fixed``."""
    if content.startswith(b"MATLAB"):
        raise InvalidInputError(
            "is a MATLAB file of level 5 or later, which ITK does not write; its transforms are of "
            "level 4: in MATLAB, save(name, ..., '-v4').",
            code="BAD_FILE_TYPE",
        )
    if content.isascii() and b"\0" not in content and len(content.split()) == 16:
        raise _other_text(content.decode("ascii"))
    vectors, at = [], 0
    while at < len(content):
        name, values, at = _vector(content, at)
        vectors.append((name, values))
    kinds, fixed = vectors[::2], vectors[1::2]
    if not kinds or len(kinds) != len(fixed) or any(name != "fixed" for name, _ in fixed):
        raise ValueError(f"holds {[name for name, _ in vectors]}, not pairs of a kind and 'fixed'")
    return [
        Record(name, values, more) for (name, values), (_, more) in zip(kinds, fixed, strict=True)
    ]


def _vector(content: bytes, at: int) -> tuple[str, Float, int]:
    """Name and numbers of the matrix at a place, and where the next one begins."""
    order = next((o for o in "<>" if _is_level_4(content, at, o)), None)
    if order is None:
        raise ValueError("no matrix of MAT level 4")
    kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", content, at)
    dtype = np.dtype(order + _MATLAB_TYPES[kind // 10 % 10])
    start = at + 20 + length
    end = start + rows * columns * dtype.itemsize
    if imaginary or min(rows, columns) < 0 or end > len(content):
        raise ValueError(f"a matrix of {rows} x {columns} in a file of {len(content)} bytes")
    name = content[at + 20 : start].split(b"\0")[0].decode("ascii", "replace")
    with np.errstate(invalid="ignore"):  # any bits may stand in a damaged file
        values = np.frombuffer(content, dtype, rows * columns, start).astype(np.float64)
    return name, values, end


def _is_level_4(content: bytes, at: int, order: str) -> bool:
    """Whether a header in this byte order is one of full numbers: its type reads M O P T."""
    if at + 20 > len(content):
        return False
    kind, *_, length = struct.unpack_from(f"{order}5i", content, at)
    machine = {"<": 0, ">": 1}[order]
    known = kind >= 0 and kind // 1000 == machine and kind % 10 == 0
    return bool(known and kind // 10 % 10 < len(_MATLAB_TYPES) and 1 < length <= _LONGEST_NAME)


# ------------------------------------------------------------------------------------------------- HDF5


def _hdf5(records: list[Record]) -> bytes:
    _check_h5py()
    h5py = import_module("h5py")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        text = h5py.string_dtype("ascii")
        file.create_dataset("ITKVersion", data=["5.0.0"], dtype=text)
        file.create_dataset("HDFVersion", data=["1.10"], dtype=text)
        file.create_dataset("OSName", data=["any"], dtype=text)
        file.create_dataset("OSVersion", data=["any"], dtype=text)
        for number, record in enumerate(records):
            group = file.create_group(f"TransformGroup/{number}")
            group.create_dataset("TransformType", data=[record.kind], dtype=text)
            if not record.is_composite:
                group.create_dataset("TransformParameters", data=record.parameters)
                group.create_dataset("TransformFixedParameters", data=record.fixed)
    return stream.getvalue()


def _check_h5py() -> None:
    if find_spec("h5py") is None:
        raise InvalidInputError(
            "ITK's .h5 transforms need h5py; install it (pip install h5py) or use .tfm.",
            code="NO_H5PY",
        )


def _from_hdf5(path: Path) -> list[Record]:
    """Read in another process, which may hang or crash without harm."""
    _check_h5py()
    command = [sys.executable, "-I", "-c", _CHILD, os.fspath(path.resolve()), *sys.path]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=HDF5_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise _damaged(f"HDF5 did not come to an end in {HDF5_SECONDS:.0f} s") from error
    if done.returncode:
        raise _damaged(f"HDF5 ended with exit code {done.returncode}")
    head, _, body = done.stdout.partition(b"\n")
    answer = json.loads(head)
    if "error" in answer:
        raise InvalidInputError(answer["error"], code=answer["code"])
    return _received(answer["records"], np.frombuffer(body, np.float64))


def _received(heads: list[tuple[str, int, int]], numbers: Float) -> list[Record]:
    records, at = [], 0
    for kind, n_parameters, n_fixed in heads:
        middle, end = at + n_parameters, at + n_parameters + n_fixed
        records.append(Record(kind, numbers[at:middle], numbers[middle:end]))
        at = end
    return records


def send_hdf5(path: str) -> None:
    """Write an ``.h5`` file's records to the standard output: a line of JSON, then the numbers.

    The entry of the process that `read_records` starts; it limits its own memory.

    Parameters
    ----------
    path : str
    """
    _limit_memory()
    try:
        records = _records_of_hdf5(path)
        heads = [(r.kind, len(r.parameters), len(r.fixed)) for r in records]
        answer: dict[str, Any] = {"records": heads}
        body = b"".join(np.append(r.parameters, r.fixed).tobytes() for r in records)
    except (InvalidInputError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        known = error if isinstance(error, InvalidInputError) else _damaged(str(error))
        answer, body = {"error": str(known), "code": known.code}, b""
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + body)


def _limit_memory() -> None:
    try:
        resource = import_module("resource")
        resource.setrlimit(resource.RLIMIT_AS, (_CHILD_BYTES, _CHILD_BYTES))
    except (ImportError, ValueError, OSError):  # no such limit on this system
        return


def _records_of_hdf5(path: str) -> list[Record]:
    h5py = import_module("h5py")
    size = Path(path).stat().st_size
    with h5py.File(path, "r") as file:
        if "TransformGroup" not in file:
            raise InvalidInputError(
                f"is an HDF5 file of {sorted(file)[:5]} without a TransformGroup; needs a transform "
                "written by ITK.",
                code="BAD_FILE_TYPE",
            )
        groups = file["TransformGroup"]
        names = sorted((name for name in groups if name.isdecimal()), key=int)
        if not 0 < len(names) <= _MOST_TRANSFORMS:
            raise ValueError(f"{len(names)} transforms")
        return [_record_of_group(h5py, groups[name], size) for name in names]


def _record_of_group(h5py: Any, group: Any, size: int) -> Record:
    found = {}
    for part, names in _H5_NAMES.items():
        name = next((n for n in names if n in group), None)
        if name is None:
            continue
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
        found[part] = _checked_dataset(group[name], name, size)
    if "kind" not in found or found["kind"].size != 1:
        raise ValueError("a transform without one TransformType")
    kind = found.pop("kind")[()].ravel()[0]
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if len(found) < 2 and not kind.startswith(("CompositeTransform", "IdentityTransform")):
        raise ValueError(f"{kind} without its numbers; the group holds {sorted(group)}")
    numbers = {part: np.asarray(each[()], np.float64).ravel() for part, each in found.items()}
    return Record(kind, *(numbers.get(part, np.zeros(0)) for part in ("parameters", "fixed")))


def _checked_dataset(dataset: Any, name: str, size: int) -> Any:
    """Refuse a data set that is not in the file, or claims more values than the file can hold."""
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name} lies in another file")
    stored = dataset.id.get_storage_size()
    ratio = 1 if dataset.chunks is None else _LARGEST_DEFLATE_RATIO
    if stored > size or dataset.size * dataset.dtype.itemsize > ratio * stored:
        raise ValueError(f"{name} claims {dataset.size} values of which {stored} bytes are stored")
    return dataset
