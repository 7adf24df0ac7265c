"""
Refine one heart
================

From the thick, shifted slices of a clinic to a smooth, complete model, beside a truth that is known.
"""

# %%
# A heart that is known exactly, of a person from whom no atlas was made, and what a clinic would give
# of it: slices 10 mm thick, each displaced by breathing, tilted, labelled as experts label.

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt

import cardiacreg

heart = cardiacreg.sample_heart(10_003, group="dilated")
scan = cardiacreg.Degradation().of(heart, seed=1)
stack = scan.subject
print(stack.labels.shape, "voxels of", stack.labels.spacing_mm, "mm")

# %%
# The whole method is one call. The image is not needed; it tells how the heart lies in its file, and is
# drawn behind the labels.

result = cardiacreg.refine(stack.labels, image=stack.image)
for name, dice in result.agreement.items():
    print(f"{name}: Dice {dice:.3f} with the input, at the acquired slices")
print(*result.assumptions, *result.findings, sep="\n")

# %%
# One page to judge it by. It is among the files that ``save`` writes.

folder = result.save(Path(mkdtemp()) / "out")
page = folder / "qc.png"
print(*sorted(path.name for path in folder.iterdir()))

# %%
# And beside the truth, cut along the long axis: the input as it is stored, the model, the heart.

same_place = cardiacreg.Affine.identity()
columns = {
    "slices, as stored": cardiacreg.warp_labels(stack.labels, same_place, scan.reference),
    "model": cardiacreg.warp_labels(result.labels, same_place, scan.reference),
    "truth": scan.reference,
}
middle = columns["truth"].shape[1] // 2
figure, panels = plt.subplots(1, 3, figsize=(10, 4.2), layout="constrained")
for panel, (title, labels) in zip(panels, columns.items(), strict=True):
    spacing = labels.spacing_mm
    panel.imshow(
        labels.array[:, middle, :].T, origin="lower", cmap="inferno", aspect=spacing[2] / spacing[0]
    )
    scores = cardiacreg.compare(labels, columns["truth"], structures=(1, 2, 4))
    mean = sum(float(score["dice"]) for score in scores.values()) / len(scores)
    panel.set_title(f"{title}\nmean Dice {mean:.3f}")
    panel.set_axis_off()
