"""Is the image of another patient told from the right one? Both frames of every ACDC patient.

The labels of each frame meet their own image, and that of the next patient's frame of the same phase,
cut or padded to the lattice of the labels about its middle. Nothing is refined: it is `check_contrast`
that `refine` runs before. Development patients are those on whom the signs were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.harness import tabulate
from benchmarks.harness.cases import Acquisition, acdc
from benchmarks.harness.hidden_slices import canonical
from benchmarks.harness.measuring import is_development
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.errors import kept_warnings
from cardiacreg.geometry import LabelMap, Volume
from cardiacreg.io.nifti import read_volume
from cardiacreg.refinement.image_placement import check_contrast

OWN, OTHER = "their own image", "the next patient's image"
SIGNS = {
    "no contrast": "hardly differ",
    "fits better elsewhere": "fit it better",
    "no edges": "hardly follow",
}
"""What each warning says."""


def run(quick: bool, cases: int = 100) -> dict[str, Any]:
    """Look at the images of every frame; `cases` counts patients from the first."""
    frames = acdc(tuple(range(1, (3 if quick else cases) + 1)))
    return {"records": gather("other_image", [_unit(n, frames) for n in range(len(frames))])}


def _unit(number: int, frames: Sequence[Acquisition]) -> Unit:
    frame, other = frames[number], frames[(number + 2) % len(frames)]
    key = {"case": frame.name, "phase": frame.phase}

    def measure() -> Record:
        labels = canonical(frame)
        found = {OWN: signs(frame, labels), OTHER: signs(other, labels)}
        development = is_development(int(frame.labels.parent.name.removeprefix("patient")))
        return key | {"development": development, "signs": found}

    return Unit(key, measure)


def signs(frame: Acquisition, labels: LabelMap) -> list[str]:
    """Return the signs that a frame's image is not that of some labels."""
    with kept_warnings():
        image = on_lattice(read_volume(frame.image), labels)
    with kept_warnings() as notes:
        check_contrast(image, labels)
    return [sign for sign, words in SIGNS.items() if any(words in str(note[0]) for note in notes)]


def on_lattice(image: Volume, labels: LabelMap) -> Volume:
    """Return an image cut or padded about its middle to the lattice of labels."""
    array = np.zeros(labels.shape, dtype=np.float32)
    size = np.minimum(image.shape, labels.shape)
    begin = [(np.array(shape) - size) // 2 for shape in (labels.shape, image.shape)]
    into, out_of = (tuple(slice(b, b + s) for b, s in zip(at, size, strict=True)) for at in begin)
    array[into] = image.array[out_of]
    return Volume(array, labels.voxel_to_world)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return how many frames show a sign, with either image; and the frames that are told wrongly."""
    good = [record for record in result["records"] if "signs" in record]
    rows, wrong = [], []
    for name, development in (("development", True), ("other patients", False)):
        own = [record for record in good if record["development"] == development]
        for image in (OWN, OTHER) if own else ():
            found = [record["signs"][image] for record in own]
            told = sum(map(bool, found))
            cells = [str(sum(sign in each for each in found)) for sign in SIGNS]
            share = f"{told} of {len(own)} ({100 * told / len(own):.0f} %)"
            rows.append([f"{name}, {image}", *cells, share])
        for record in own:
            if record["signs"][OWN] or not record["signs"][OTHER]:
                wrong.append(
                    [record["case"], *(", ".join(record["signs"][i]) or "–" for i in (OWN, OTHER))]
                )
    header = ["labels and", *SIGNS, "told"]
    lost = ["frame told wrongly", f"signs with {OWN}", f"signs with {OTHER}"]
    return {
        "other-image": tabulate.markdown(header, rows),
        "other-image-wrong": tabulate.markdown(lost, wrong) if wrong else "None is told wrongly.",
    }
