"""
Own atlases
===========

A bank of your own, who is chosen from it, and what the choice does to a model.
"""

# %%
# Folders of labels stand in for yours: dilated hearts in one bank, healthy ones in another.

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt

import cardiacreg

root, spacing = Path(mkdtemp()), (2.0, 2.0, 2.5)
for group in ("dilated", "healthy"):
    for seed in range(6):
        heart = cardiacreg.sample_heart(seed, group=group, spacing_mm=spacing, with_image=False)
        place = root / group / heart.name
        place.mkdir(parents=True)
        cardiacreg.write_labels(place / "labels.nii.gz", heart.labels)
    bank = cardiacreg.build_atlas_bank(
        root / f"{group}_bank", cardiacreg.open_atlas_folder(root / group)
    )
    print(len(bank), "atlases:", ", ".join(bank.names))

# %%
# A dilated heart that is in neither, refined with each.

heart = cardiacreg.sample_heart(10_000, group="dilated", spacing_mm=spacing)
scan = cardiacreg.Degradation().of(heart, seed=2)
results = {
    group: cardiacreg.refine(
        scan.subject.labels, atlases=root / f"{group}_bank", spacing_mm=spacing
    )
    for group in ("dilated", "healthy")
}
for group, result in results.items():
    chosen = ", ".join(f"{report.name} ({report.nmi:.2f})" for report in result.atlases)
    print(f"{group}: {chosen}")

# %%
# Atlases that are like the heart follow it more easily.

same_place = cardiacreg.Affine.identity()
names = ("LV cavity", "LV wall", "RV cavity", "RV wall")
figure, panel = plt.subplots(figsize=(7, 3.2), layout="constrained")
for number, (group, result) in enumerate(results.items()):
    model = cardiacreg.warp_labels(result.labels, same_place, scan.reference)
    scores = cardiacreg.compare(model, scan.reference)
    dice = [float(scores[name]["dice"]) for name in names]
    panel.bar([n + 0.38 * number for n in range(4)], dice, width=0.36, label=f"{group} atlases")
panel.set_xticks([n + 0.19 for n in range(4)], names)
panel.set(ylim=(0.4, 1.0), ylabel="Dice with the truth")
panel.legend(loc="lower left")
