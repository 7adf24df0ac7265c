"""Refine a synthetic heart and see how close the model comes to the truth.

Run it with ``python examples/01_refine_a_phantom.py [folder]``. The first run compiles kernels, which
takes about a minute.
"""

import sys

import cardiacreg
from cardiacreg.metrics.baselines import interpolate_nearest
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED


def main(folder="example_output", atlases=None):
    # A heart that we know exactly. Seeds from FIRST_EVALUATION_SEED on are people from whom no atlas
    # was made, so that nothing of the answer is in the question.
    truth = cardiacreg.sample_heart(FIRST_EVALUATION_SEED + 3, group="hypertrophic")

    # What a clinic would give of it: slices 10 mm thick, each displaced by breathing, tilted against the
    # long axis, labelled as experts label.
    scan = cardiacreg.Degradation().of(truth, seed=1)
    print(f"{scan.subject.labels.shape[2]} slices, spacing {scan.subject.labels.spacing_mm} mm")

    # The whole method is one call. Atlases vote by their labels; the image is drawn in the figure, and
    # tells how the heart lies in its file.
    result = cardiacreg.refine(scan.subject.labels, image=scan.subject.image, atlases=atlases)

    # The result knows how it came about ...
    print("atlases:", ", ".join(report.name for report in result.atlases))
    print(f"smallest Jacobian {result.minimum_jacobian:.2f} (above 0: nothing was folded)")

    # ... what it assumed about both ends of the stack, and what speaks against it ...
    print(*result.ends, *result.findings, sep="; ")

    # ... and can be compared with the truth, on the truth's lattice.
    model = interpolate_nearest(result.labels, scan.reference)
    blocky = interpolate_nearest(scan.subject.labels, scan.reference)
    for label, name in ((1, "LV cavity"), (2, "LV wall"), (4, "RV cavity")):
        before = cardiacreg.dice(blocky, scan.reference, label)
        after = cardiacreg.dice(model, scan.reference, label)
        print(f"{name:10s} Dice {before:.3f} as scanned, {after:.3f} refined")

    # Labels, confidence, landmarks, a summary, and a page to judge it all by: qc.png.
    print("saved in", result.save(folder, overwrite=True))
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
