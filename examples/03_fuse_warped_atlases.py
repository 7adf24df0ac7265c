"""Fuse atlases that lie on the target's lattice, in several ways, and see where the vote is unsure.

Run it with ``python examples/03_fuse_warped_atlases.py [folder] [bank]``. Without a bank (a folder of
atlases or one that ``cardiacreg atlas build`` wrote) the embedded synthetic atlases are used.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.figure import Figure

import cardiacreg
from cardiacreg.atlases.ranking import diversity, with_metadata
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED

MODES = {
    "majority": cardiacreg.FusionOptions(mode="majority"),
    "non-local, eq. (5)": cardiacreg.FusionOptions(search=(3, 3, 1), bandwidth=400.0),
    "correlation": cardiacreg.FusionOptions(
        search=(3, 3, 1), distance="correlation", bandwidth=0.1
    ),
}


def main(folder="example_output", bank=None, n_atlases=5, spacing_mm=(1.25, 1.25, 2.0)):
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)

    # A heart that no atlas was made from: its image is fused on, its labels are registered to and, in the
    # end, judged by.
    heart = cardiacreg.sample_heart(FIRST_EVALUATION_SEED + 5, spacing_mm=spacing_mm)

    # The atlases: from the same phase where the bank tells phases, never the heart itself (a bank knows
    # its atlases by a hash of their labels), ranked by NMI after a landmark affine.
    atlases = cardiacreg.AtlasBank(bank) if bank else cardiacreg.default_atlases()
    atlases = atlases.excluding([heart])
    if any("phase" in entry for entry in atlases.metadata):
        atlases = atlases.subset(with_metadata(atlases, phase="ED"))
    affines = [
        cardiacreg.fit_landmark_affine(heart.landmarks, atlas.landmarks).target_to_atlas
        for atlas in (atlases.without_image(n) for n in range(len(atlases)))
    ]
    best = cardiacreg.rank_atlases(heart.labels, atlases, affines)[:n_atlases]
    chosen = [atlases[found.index] for found in best]
    apart = diversity(heart.labels, chosen, [found.target_to_atlas for found in best])
    print(
        f"{len(chosen)} of {len(atlases)} atlases; two of them disagree on {apart:.0%} of the heart"
    )

    # Deform each to the heart's labels and bring image and labels onto its lattice.
    warped = []
    for atlas, found in zip(chosen, best, strict=True):
        registered = cardiacreg.register_labels(heart.labels, atlas.labels, found.target_to_atlas)
        transform = registered.target_to_atlas
        warped.append(
            (
                cardiacreg.warp_volume(atlas.image, transform, heart.labels),
                cardiacreg.warp_labels(atlas.labels, transform, heart.labels),
            )
        )

    # Vote. Confidence is the winner's share; ties are counted and go to the lowest label.
    fusions = {}
    for name, options in MODES.items():
        fusions[name] = cardiacreg.fuse_labels(heart.image, warped, options=options)
        dice = [cardiacreg.dice(fusions[name].labels, heart.labels, label) for label in (1, 2, 4)]
        print(f"{name:20s} Dice {np.round(dice, 3).tolist()}, {fusions[name].n_ties} ties")

    print("drawn in", draw(heart, fusions, out / "confidence.png"))
    return fusions


def draw(heart, fusions, place):
    """One slice: the fused borders above, the confidence below."""
    k = int((heart.labels.array == 2).sum(axis=(0, 1)).argmax())
    figure = Figure(figsize=(3 * len(fusions), 6.2), dpi=100, layout="constrained")
    panels = figure.subplots(2, len(fusions))
    for (name, fusion), (above, below) in zip(fusions.items(), panels.T, strict=True):
        above.imshow(heart.image.array[:, :, k].T, cmap="gray")
        for label in (1, 2, 4):
            own = fusion.labels.array[:, :, k].T == label
            above.contour(own, levels=[0.5], colors="tab:orange", linewidths=1)
        above.set_title(name)
        shown = below.imshow(fusion.confidence.array[:, :, k].T, vmin=0.2, vmax=1, cmap="viridis")
        for panel in (above, below):
            panel.set_axis_off()
    figure.colorbar(shown, ax=panels[1], label="winner's share of the votes", shrink=0.8)
    figure.savefig(place)
    return place


if __name__ == "__main__":
    main(*sys.argv[1:])
