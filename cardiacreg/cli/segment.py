"""``cardiacreg segment``, and what ``cardiacreg run`` shares with it: labels by `cardiacreg_nn`.

That package and torch are imported inside the command, so that everything else works without them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.presets import spacing_option
from cardiacreg.cli.support import EXIT_CODES, as_cell, echo_json, say
from cardiacreg.errors import InvalidInputError

if TYPE_CHECKING:
    from cardiacreg.geometry import Subject

SEGMENT_FILES = ("segmentation.nii.gz", "segmentation_landmarks.json", "segmentation.json")
PROBABILITIES_FILE = "segmentation_probabilities.nii.gz"
FRAME_FILES = (SEGMENT_FILES[0], SEGMENT_FILES[2])
"""Of all frames of a cine."""

_Command = Callable[..., Any]


def network_options(command: _Command) -> _Command:
    """Add what both commands share."""
    options = [
        click.option(
            "-i", "--input", "image", required=True, type=click.Path(readable=False), metavar="IMG",
            help="Short-axis image, NIfTI.",
        ),
        click.option(
            "-o", "--output", required=True, metavar="OUT",
            type=click.Path(readable=False, path_type=Path),
            help="Folder for the results; made when missing.",
        ),
        click.option(
            "--weights", type=click.Path(readable=False), metavar="FILE|NAME",
            help="A .safetensors file with its card, or the name of weights that are installed, as "
            "unet2d_synthetic; the best that are when absent.",
        ),
        click.option("--frame", type=click.IntRange(min=0), help="Which frame of a 4-D file."),
        click.option("--device", help="cpu, cuda, cuda:1, ...; a GPU when there is one."),
        click.option(
            "--turn", type=click.Choice(["over", "none", "any"]), default="over", show_default=True,
            help="Rotations by right angles to try: base first or last, none, or quarter turns too.",
        ),
        click.option("--overwrite", is_flag=True, help="Replace an earlier result in OUT."),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
        click.option("-q", "--quiet", is_flag=True, help="No progress."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return spacing_option(command)


@click.command(epilog=EXIT_CODES)
@network_options
@click.option(
    "--probabilities", "with_probabilities", is_flag=True,
    help="Also write segmentation_probabilities.nii.gz, for cardiacreg refine --probabilities.",
)  # fmt: skip
@click.option(
    "--all-frames", is_flag=True,
    help="Segment all frames of a 4-D file together: one orientation, and neighbours in time that agree. "
    "segmentation.nii.gz is then 4-D, for cardiacreg refine --frames.",
)  # fmt: skip
def segment(
    output: Path,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    with_probabilities: bool,
    all_frames: bool,
    **inputs: Any,
) -> None:
    """Segment an image and find its six landmarks.

    Writes segmentation.nii.gz (1 LV cavity, 2 LV wall, 3 RV wall, 4 RV cavity, on the image's own
    lattice), segmentation_landmarks.json and, last, segmentation.json, which names the weights and
    their licence.
    """
    from cardiacreg.io.kept_inputs import files_of
    from cardiacreg.io.output_folder import all_or_nothing, check_output

    every = (*SEGMENT_FILES, PROBABILITIES_FILE)
    how: Any = {"overwrite": overwrite, "inputs": files_of(inputs["image"], inputs["weights"])}
    check_output(output, every, **how)
    if all_frames:
        if with_probabilities or inputs["frame"] is not None:
            raise click.UsageError("--all-frames does not go with --probabilities or --frame.")
        _segment_cine(output, every, how, as_json=as_json, quiet=quiet, inputs=inputs)
        return
    subject = predict(**inputs)
    names = (*segment_names(subject), *([PROBABILITIES_FILE] if with_probabilities else []))
    with all_or_nothing(output, names, outdated=every, **how) as stage:
        write_segmentation(stage, subject)
        if with_probabilities:
            _write_probabilities(stage, subject)
    found = _summary(subject)
    if as_json:
        echo_json(found | {"folder": output})
        return
    for name, volume in found["volumes_ml"].items():
        click.echo(f"{name:12s} {'-' if volume is None else f'{volume:.1f}':>10s} ml")
    if not quiet:
        say(licence(subject))


def predict(image: str, *, cine: bool = False, **options: Any) -> Any:
    """Return the segmented subject, or those of all frames of a cine."""
    network = load_network()
    return network.predict_cine(image, **options) if cine else network.predict(image, **options)


def load_network() -> Any:
    """Import the package of the network."""
    try:
        import cardiacreg_nn

        cardiacreg_nn.predict  # noqa: B018  (loads what it needs)
    except ImportError as error:
        raise InvalidInputError(
            f"the network needs torch and safetensors ({error.__cause__ or error}); install them with: "
            'pip install "cardiacreg[nn]".',
            code="NO_TORCH",
        ) from error
    return cardiacreg_nn


def licence(subject: Subject) -> str:
    """Say which weights a segmentation is from, and their licence."""
    network = subject.metadata["network"]
    return f"weights {network.get('name')}, licence {network.get('licence', 'unknown')}"


def _summary(subject: Subject) -> dict[str, Any]:
    from cardiacreg.anatomy.volumes import structure_volumes_ml

    return {
        "name": subject.name,
        "volumes_ml": structure_volumes_ml(subject.labels),
        "landmarks": subject.metadata["landmarks"],
        "network": subject.metadata["network"],
    }


def segment_names(subject: Subject) -> list[str]:
    """The files that a segmentation gives; landmarks are not found in every image."""
    return [n for n in SEGMENT_FILES if subject.landmarks is not None or "landmarks" not in n]


def _segment_cine(
    output: Path,
    every: Sequence[str],
    how: dict[str, Any],
    *,
    as_json: bool,
    quiet: bool,
    inputs: dict[str, Any],
) -> None:
    """Segment all frames together, write them, and show volumes over time."""
    from cardiacreg.io.output_folder import all_or_nothing

    given = {name: value for name, value in inputs.items() if name != "frame"}
    frames = predict(cine=True, **given)
    with all_or_nothing(output, FRAME_FILES, outdated=every, **how) as stage:
        write_frames(stage, frames)
    found = _cine_summary(frames)
    if as_json:
        echo_json(found | {"folder": output})
        return
    _echo_frames(found["frames"])
    if not quiet:
        say(licence(frames[0]))


def write_frames(place: Path, frames: Sequence[Subject]) -> None:
    """Write the labels of all frames of a cine, and last what the network was."""
    from cardiacreg.io.landmark_files import write_json
    from cardiacreg.io.nifti import write_label_frames

    write_label_frames(place / FRAME_FILES[0], [each.labels for each in frames])
    write_json(place / FRAME_FILES[1], _cine_summary(frames))


def _cine_summary(frames: Sequence[Subject]) -> dict[str, Any]:
    return {
        "name": frames[0].name,
        "network": frames[0].metadata["network"],
        "frames": [_frame_summary(each) for each in frames],
    }


def _frame_summary(subject: Subject) -> dict[str, Any]:
    import numpy as np

    from cardiacreg.anatomy.volumes import structure_volumes_ml

    held = subject.labels.array.any(axis=(0, 1))
    return {
        "frame": subject.metadata["frame"],
        "volumes_ml": structure_volumes_ml(subject.labels),
        "slices_with_heart": np.flatnonzero(held).tolist(),
    }


def _echo_frames(frames: Sequence[dict[str, Any]]) -> None:
    names = list(frames[0]["volumes_ml"])
    click.echo(f"{'frame':>5s}" + "".join(f"{name + ' ml':>14s}" for name in names))
    for each in frames:
        cells = [f"{as_cell(each['volumes_ml'][name], 1):>14s}" for name in names]
        click.echo(f"{each['frame']:5d}{''.join(cells)}")


def _write_probabilities(place: Path, subject: Subject) -> None:
    import numpy as np

    from cardiacreg.io.nifti import write_volume_frames

    found = np.moveaxis(subject.metadata["probabilities"], 0, 3)
    matrix = subject.labels.voxel_to_world
    write_volume_frames(place / PROBABILITIES_FILE, np.ascontiguousarray(found), matrix)


def write_segmentation(place: Path, subject: Subject) -> None:
    """Write the labels of an image, its landmarks, and last what the network was."""
    from cardiacreg.io.landmark_files import write_json, write_landmarks
    from cardiacreg.io.nifti import write_labels

    network = subject.metadata["network"]
    note = f"{network.get('name')}; weights {network.get('licence', 'unknown licence')}"
    write_labels(os.fspath(place / SEGMENT_FILES[0]), subject.labels, description=note)
    if subject.landmarks is not None:
        write_landmarks(place / SEGMENT_FILES[1], subject.landmarks)
    write_json(place / SEGMENT_FILES[2], _summary(subject))
