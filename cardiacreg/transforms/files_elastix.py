"""elastix's ``TransformParameters.*.txt``: lines ``(Key value ...)``, in chains of files.

A file names the one that is applied before it (``InitialTransformParametersFileName``) and how both are
combined: "Compose", ``T(x) = T1(T0(x))``, or "Add", ``T(x) = T0(x) + T1(x) - x``. The kinds are ITK's, in
LPS; directions are stored column by column. Layouts are facts about the format; no code was taken.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Affine
from cardiacreg.io.regular_file import check_regular_file, unreadable
from cardiacreg.io.source_name import named_source
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.files_itk import linear_map, spline_map
from cardiacreg.transforms.itk_records import read_text
from cardiacreg.transforms.point_maps import composed
from cardiacreg.transforms.resampling import PointMap

_LINE = re.compile(r"\(\s*(\w+)\s+(.*?)\s*\)\s*(?://.*)?")
_VALUE = re.compile(r'"([^"]*)"|(\S+)')
_OLD_PARAMETERS = re.compile(r"//\s*\(TransformParameters\)\s*\n\s*//([^\n]*)")
_START = re.compile(r"\A(?:\s*//[^\n]*\n|\s)*\(\s*\w+\s+[^\n]*\)")
_HEAD_CHARACTERS = 4096
_LONGEST_CHAIN = 64
_LINEAR = {
    "TranslationTransform": "TranslationTransform",
    "EulerTransform": "Euler3DTransform",
    "SimilarityTransform": "Similarity3DTransform",
    "AffineTransform": "AffineTransform",
}
_SPLINES = ("BSplineTransform", "RecursiveBSplineTransform")
_CONVERT = (
    "Have transformix write the displacement field (-def all, or ComputeDeformationField) and read it "
    "with read_displacement_field."
)

_Values = dict[str, list[str]]


def is_elastix(file: Path) -> bool:
    """Return whether a ``.txt`` file begins as elastix's files do."""
    if file.suffix.lower() != ".txt":
        return False
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            return _START.match(stream.read(_HEAD_CHARACTERS) + ")") is not None
    except OSError as error:
        raise unreadable(error.strerror or str(error)) from error


def read_elastix(file: Path) -> PointMap:
    """Read a transform and the ones before it.

    Parameters
    ----------
    file : pathlib.Path

    Returns
    -------
    Affine, FFD, BSplineMap or TransformChain
        World mm to world mm, RAS: from the fixed image to the moving one.

    Raises
    ------
    InvalidInputError
        If a file is missing or damaged, a kind cannot be read or a sum not be held (BAD_FILE_TYPE).
    """
    return composed(_chain(file, ()))


def _chain(file: Path, seen: tuple[Path, ...]) -> list[PointMap]:
    """The maps that a file stands for, the first applied first."""
    here = file.resolve()
    if here in seen or len(seen) >= _LONGEST_CHAIN:
        raise InvalidInputError(
            f"is reached again, or after {len(seen)} files, by InitialTransformParametersFileName; needs "
            "a chain that ends with NoInitialTransform.",
            code="CORRUPT_FILE",
        )
    values = _parsed(read_text(file))
    transform = _transform(values)
    name = _first(values, "InitialTransformParametersFileName", "NoInitialTransform")
    name = _first(values, "InitialTransformParameterFileName", name)
    if name == "NoInitialTransform":
        return [transform]
    before = _found(file, name)
    with named_source(f"its initial transform {before}"):
        check_regular_file(before)
        initial = _chain(before, (*seen, here))
    how = _first(values, "HowToCombineTransforms", "not given")
    if how == "Compose":
        return [*initial, transform]
    if how == "Add":
        return [_sum(composed(initial), transform)]
    raise InvalidInputError(
        f'HowToCombineTransforms is {how!r}; needs "Compose" or "Add". Look into the log of elastix, and '
        "add the line to the file.",
        code="BAD_FILE_TYPE",
    )


def _found(file: Path, name: str) -> Path:
    """Where the initial transform lies: as named, from the file's folder, or beside the file."""
    last = PureWindowsPath(name).name if "\\" in name else PurePosixPath(name).name
    places = (Path(name), file.parent / name, file.parent / last)
    return next((place for place in places if place.is_file()), places[-1])


def _sum(initial: PointMap, transform: PointMap) -> PointMap:
    """``T0(x) + T1(x) - x``, where one of our types holds it."""
    if isinstance(initial, Affine) and isinstance(transform, Affine):
        return Affine(initial.matrix + transform.matrix - np.eye(4))
    spline = composed([transform])
    for one, other in ((initial, spline), (spline, initial)):
        if isinstance(one, Affine) and isinstance(other, FFD):
            return _added(one, other)
    raise InvalidInputError(
        'HowToCombineTransforms is "Add" for transforms whose sum cannot be held; readable are '
        f'"Compose", and sums of linear transforms and one cubic B-spline. {_CONVERT}',
        code="BAD_FILE_TYPE",
    )


def _added(affine: Affine, spline: FFD) -> FFD:
    """``A x + S(x) - x`` as ``B (x + u(x))``: with S = B' (x + v), B = A + B' - 1 and u = B^-1 B' v."""
    whole = Affine(affine.matrix + spline.affine.matrix - np.eye(4))
    turn = np.linalg.solve(whole.matrix[:3, :3], spline.affine.matrix[:3, :3])
    return FFD(whole, spline.displacements_mm @ turn.T, spline.lattice_to_world)


def _parsed(text: str) -> _Values:
    """Each key's values; elastix before 4 had many parameters in a comment."""
    values: _Values = {}
    old = _OLD_PARAMETERS.search(text)
    if old:
        values["TransformParameters"] = old[1].split()
    for line in text.splitlines():
        found = _LINE.fullmatch(line.strip())
        if found:
            values[found[1]] = [quoted or plain for quoted, plain in _VALUE.findall(found[2])]
    if "Transform" not in values:
        raise InvalidInputError(
            "is neither an ITK transform nor elastix's TransformParameters: it names no Transform.",
            code="BAD_FILE_TYPE",
        )
    return values


def _first(values: _Values, key: str, default: str) -> str:
    return values[key][0] if values.get(key) else default


def _numbers(values: _Values, key: str, default: str = "") -> Float:
    words = values.get(key) or default.split()
    try:
        return np.array(words, dtype=np.float64)
    except ValueError as error:
        raise InvalidInputError(
            f"{key} is {' '.join(words)[:60]!r}; needs numbers. The file is damaged, or its parameters "
            "are in a binary file beside it: run elastix without "
            "UseBinaryFormatForTransformationParameters.",
            code="CORRUPT_FILE",
        ) from error


def _transform(values: _Values) -> PointMap:
    kind = values["Transform"][0] if values["Transform"] else ""
    dimensions = {
        _first(values, key, "3") for key in ("FixedImageDimension", "MovingImageDimension")
    }
    if dimensions != {"3"} or not (kind in _LINEAR or kind in _SPLINES):
        raise InvalidInputError(
            f"holds elastix's {kind or 'nameless transform'} in {' and '.join(sorted(dimensions))} "
            f"dimensions; readable are {', '.join((*_LINEAR, *_SPLINES))} in 3. {_CONVERT}",
            code="BAD_FILE_TYPE",
        )
    _check_directions(values)
    parameters = _numbers(values, "TransformParameters")
    if kind in _SPLINES:
        return _spline(values, parameters)
    fixed = _numbers(values, "CenterOfRotationPoint", "0 0 0")
    if len(fixed) != 3:
        raise InvalidInputError(
            f"CenterOfRotationPoint holds {len(fixed)} numbers; needs three.", code="CORRUPT_FILE"
        )
    zyx = _first(values, "ComputeZYX", "false").lower() == "true"
    return linear_map(_LINEAR[kind], parameters, np.append(fixed, float(zyx)))


def _check_directions(values: _Values) -> None:
    """Without direction cosines, elastix works in a world that is turned against the image's own."""
    direction = _numbers(values, "Direction", "1 0 0 0 1 0 0 0 1")
    ignored = _first(values, "UseDirectionCosines", "true").lower() == "false"
    if ignored and not np.allclose(direction, np.eye(3).ravel(), atol=1e-6):
        raise InvalidInputError(
            "UseDirectionCosines is false for images that are turned: its world is not the images' own. "
            "Register again with it true.",
            code="BAD_FILE_TYPE",
        )


def _spline(values: _Values, parameters: Float) -> PointMap:
    if _first(values, "UseCyclicTransform", "false").lower() == "true":
        raise InvalidInputError(
            f"is a cyclic B-spline, which cannot be read. {_CONVERT}", code="BAD_FILE_TYPE"
        )
    order = _first(values, "BSplineTransformSplineOrder", "3")
    if order not in ("1", "2", "3"):
        raise InvalidInputError(
            f"holds a B-spline of order {order}; needs 1, 2 or 3. {_CONVERT}", code="BAD_FILE_TYPE"
        )
    size, origin = _numbers(values, "GridSize"), _numbers(values, "GridOrigin")
    spacing, index = _numbers(values, "GridSpacing"), _numbers(values, "GridIndex", "0 0 0")
    columns = _numbers(values, "GridDirection", "1 0 0 0 1 0 0 0 1")
    lengths = [len(each) for each in (size, origin, spacing, index, columns)]
    if lengths != [3, 3, 3, 3, 9]:
        raise InvalidInputError(
            f"GridSize, GridOrigin, GridSpacing, GridIndex and GridDirection hold {lengths} numbers; "
            "need 3, 3, 3, 3 and 9.",
            code="BAD_LATTICE",
        )
    direction = columns.reshape(3, 3).T
    start = origin + direction @ (spacing * index)
    fixed = np.concatenate([size, start, spacing, direction.ravel()])
    return spline_map(parameters, fixed, int(order))
