"""Use your own high-resolution hearts as atlases.

Run it with ``python examples/02_bring_your_own_atlases.py [folder]``; synthetic hearts stand in for
yours.
"""

import sys
from pathlib import Path

import cardiacreg
from cardiacreg.io.nifti import write_labels, write_volume


def main(folder="example_output", n_atlases=4, spacing_mm=(2.0, 2.0, 2.5)):
    root = Path(folder)

    # One folder per atlas: labels.nii.gz and, for fusion by image, image.nii.gz. If you have the six
    # landmarks of an atlas, add landmarks.json; otherwise they are derived from the labels.
    for seed in range(n_atlases):
        heart = cardiacreg.sample_heart(seed, group="dilated", spacing_mm=spacing_mm)
        place = root / "atlases" / heart.name
        place.mkdir(parents=True, exist_ok=True)
        write_labels(place / "labels.nii.gz", heart.labels)
        write_volume(place / "image.nii.gz", heart.image)

    # The folder can be given to refine as it is. Here it is packed into a bank first, which opens at
    # once however many atlases it holds. Labels in another convention are translated on the way:
    # open_atlas_folder(..., translate=lambda labels: canonical_labels(labels, "acdc")).
    atlases = cardiacreg.open_atlas_folder(root / "atlases")
    bank = cardiacreg.build_atlas_bank(root / "bank", atlases)
    print(len(bank), "atlases:", ", ".join(bank.names))

    # A target from the same clinic, so to speak. refine picks the atlases most like it.
    heart = cardiacreg.sample_heart(10_000, group="dilated", spacing_mm=spacing_mm)
    scan = cardiacreg.simulate_low_resolution(heart, seed=2)
    options = cardiacreg.RefineOptions(n_atlases=3)
    result = cardiacreg.refine(
        scan.subject.labels, atlases=root / "bank", spacing_mm=spacing_mm, options=options
    )
    for report in result.atlases:
        print(f"{report.name}: NMI {report.nmi:.3f}, consistency {report.consistency_after:.3f}")
    print("saved in", result.save(root / "refined", overwrite=True))
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
