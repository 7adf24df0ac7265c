"""elastix's TransformParameters against SimpleITK; elastix's own files gave its own points to 5e-7 mm."""

import numpy as np
import pytest

from cardiacreg import (
    FFD,
    Affine,
    BSplineMap,
    InvalidInputError,
    TransformChain,
    read_itk_transform,
)

sitk = pytest.importorskip("SimpleITK")
LPS = np.array([-1.0, -1.0, 1.0])
RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-30, 30, (200, 3))
TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]
)


def line(key, *values):
    return f"({key} {' '.join(repr(v).replace(chr(39), chr(34)) for v in values)})\n"


def text(kind, parameters, *extra, how="Compose", initial="NoInitialTransform"):
    return "".join(
        (
            line("Transform", kind),
            line("NumberOfParameters", len(parameters)),
            line("TransformParameters", *map(float, parameters)),
            line("InitialTransformParametersFileName", initial),
            line("HowToCombineTransforms", how),
            "\n// Image specific\n",
            line("FixedImageDimension", 3) + line("MovingImageDimension", 3),
            line("Direction", *TURN.T.ravel().tolist()) + line("UseDirectionCosines", "true"),
            *extra,
        )
    )


EULER = ("EulerTransform", [0.1, 0.2, -0.3, 1, 2, 3], line("CenterOfRotationPoint", 5.0, 6.0, 7.0))
AFFINE = (
    "AffineTransform",
    [1.1, 0.1, 0, 0, 0.9, 0.2, 0, 0, 1, 4, 5, 6],
    line("CenterOfRotationPoint", -5.0, 6.0, 7.0),
)
SIZE, SPACING = (10, 11, 10), (15.0, 14.0, 16.0)
START = TURN @ [-67.0, -69.0, -71.0]


def spline(order=3, kind="BSplineTransform", seed=1, **grid):
    parameters = np.random.default_rng(seed).normal(0, 3, 3 * int(np.prod(SIZE)))
    given = {
        "GridSize": SIZE,
        "GridIndex": (0, 0, 0),
        "GridSpacing": SPACING,
        "GridOrigin": START.tolist(),
        "GridDirection": TURN.T.ravel().tolist(),
        "BSplineTransformSplineOrder": (order,),
        "UseCyclicTransform": ("false",),
    } | grid
    return kind, parameters, *(line(key, *values) for key, values in given.items())


def theirs_of(given):
    """The same transform, made by SimpleITK."""
    kind, parameters, *_ = given
    if kind.endswith("BSplineTransform"):
        found = sitk.BSplineTransform(3, int(given[7].split()[1].rstrip(")\n")))
        fixed = [*SIZE, *START, *SPACING, *TURN.ravel()]
        found.SetFixedParameters([float(v) for v in fixed])
    elif kind == "EulerTransform":
        found = sitk.Euler3DTransform()
        found.SetCenter((5.0, 6.0, 7.0))
    elif kind == "AffineTransform":
        found = sitk.AffineTransform(3)
        found.SetCenter((-5.0, 6.0, 7.0))
    elif kind == "SimilarityTransform":
        found = sitk.Similarity3DTransform()
        found.SetCenter((5.0, 6.0, 7.0))
    else:
        found = sitk.TranslationTransform(3)
    found.SetParameters([float(v) for v in parameters])
    return found


def moved(transform):
    return np.array([transform.TransformPoint(p.tolist()) for p in POINTS * LPS]) * LPS


def write(folder, content, name="TransformParameters.0.txt"):
    (folder / name).write_text(content)
    return folder / name


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (("TranslationTransform", [1, 2, 3]), Affine),
        (EULER, Affine),
        (("SimilarityTransform", [0.1, 0.2, 0.3, 4, 5, 6, 1.1], EULER[2]), Affine),
        (AFFINE, Affine),
        (spline(), FFD),
        (spline(kind="RecursiveBSplineTransform"), FFD),
        (spline(2), BSplineMap),
        (spline(1), BSplineMap),
    ],
)
def test_every_kind_is_what_itk_makes_of_its_numbers(tmp_path, given, kind):
    found = read_itk_transform(write(tmp_path, text(*given)))
    assert type(found) is kind
    np.testing.assert_allclose(found.apply(POINTS), moved(theirs_of(given)), atol=1e-9)


def test_angles_in_the_order_zyx(tmp_path):
    given = theirs_of(EULER)
    given.SetComputeZYX(True)
    found = read_itk_transform(write(tmp_path, text(*EULER, line("ComputeZYX", "true"))))
    np.testing.assert_allclose(found.apply(POINTS), moved(given), atol=1e-9)


def test_a_lattice_may_begin_at_another_index(tmp_path):
    origin = START - TURN @ (np.array(SPACING) * [1, -2, 3])
    other = spline(GridIndex=(1, -2, 3), GridOrigin=origin.tolist())
    found = read_itk_transform(write(tmp_path, text(*other)))
    np.testing.assert_allclose(found.apply(POINTS), moved(theirs_of(other)), atol=1e-9)


@pytest.mark.parametrize(
    "key", ["InitialTransformParametersFileName", "InitialTransformParameterFileName"]
)
@pytest.mark.parametrize("place", ["{folder}/{name}", "{name}", "/gone/{name}", "C:\\gone\\{name}"])
def test_chains_are_composed_wherever_their_files_went(tmp_path, key, place):
    """The path of another machine leads to the file beside this one."""
    chain, previous = [EULER, AFFINE, spline()], "NoInitialTransform"
    for number, given in enumerate(chain):
        name = f"TransformParameters.{number}.txt"
        content = text(*given, initial=previous)
        write(tmp_path, content.replace("InitialTransformParametersFileName", key), name)
        previous = place.format(folder=tmp_path, name=name)
    found = read_itk_transform(tmp_path / name)
    assert isinstance(found, TransformChain)
    joined = sitk.CompositeTransform([theirs_of(given) for given in reversed(chain)])
    np.testing.assert_allclose(found.apply(POINTS), moved(joined), atol=1e-9)


@pytest.mark.parametrize(
    ("first", "second"), [(EULER, AFFINE), (EULER, spline()), (spline(), AFFINE)]
)
def test_sums_are_read(tmp_path, first, second):
    write(tmp_path, text(*first), "a.txt")
    path = write(tmp_path, text(*second, how="Add", initial="a.txt"), "b.txt")
    expected = moved(theirs_of(first)) + moved(theirs_of(second)) - POINTS
    np.testing.assert_allclose(read_itk_transform(path).apply(POINTS), expected, atol=1e-9)


def test_the_parameters_of_old_versions_stand_in_a_comment(tmp_path):
    given = spline()
    numbers = " ".join(map(repr, map(float, given[1])))
    content = text(*given).replace(
        f"(TransformParameters {numbers})", f"// (TransformParameters)\n// {numbers}"
    )
    assert "// (Tr" in content
    found = read_itk_transform(write(tmp_path, content))
    np.testing.assert_allclose(found.apply(POINTS), moved(theirs_of(given)), atol=1e-9)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (text("SplineKernelTransform", [1]), "BAD_FILE_TYPE", "-def all"),
        (text("EulerTransform", [0.1, 1, 2]), "BAD_FILE_TYPE", "have 6"),
        (text(*EULER).replace("ImageDimension 3", "ImageDimension 2"), "BAD_FILE_TYPE", "2"),
        (
            text(*EULER).replace('Cosines "true"', 'Cosines "false"'),
            "BAD_FILE_TYPE",
            "UseDirection",
        ),
        (text(*EULER).replace("0.1 0.2", "file.bin"), "CORRUPT_FILE", "Binary"),
        (text(*spline(UseCyclicTransform=("true",))), "BAD_FILE_TYPE", "cyclic"),
        (text(*spline(0)), "BAD_FILE_TYPE", "order 0"),
        (text(*spline(GridSize=(8, 9))), "BAD_LATTICE", "GridSize"),
        (text(*spline(GridSize=(10, 11, 11))), "BAD_LATTICE", "parameters"),
        (line("Metric", "MSD"), "BAD_FILE_TYPE", "names no Transform"),
        (text(*EULER, initial="gone.txt"), "FILE_NOT_FOUND", "gone.txt"),
        (text(*EULER, initial="TransformParameters.0.txt"), "CORRUPT_FILE", "again"),
    ],
)
def test_what_cannot_be_read_says_so_and_how_to_convert(tmp_path, content, code, words):
    with pytest.raises(InvalidInputError) as caught:
        read_itk_transform(write(tmp_path, content))
    assert caught.value.code == code
    assert words in str(caught.value)


def test_sums_that_nothing_of_ours_holds_are_refused(tmp_path):
    write(tmp_path, text(*spline(2)), "a.txt")
    for how, words in (("Add", "-def all"), ("Multiply", "Compose")):
        path = write(tmp_path, text(*EULER, how=how, initial="a.txt"), "b.txt")
        with pytest.raises(InvalidInputError) as caught:
            read_itk_transform(path)
        assert words in str(caught.value)
