"""
With long-axis views
====================

Slices alone do not show how the stack as a whole is displaced, nor where the ventricles end. Views that
cross them do.
"""

# %%
# One heart, a stack of it, and two long-axis views, each with a breath-hold of its own.

import matplotlib.pyplot as plt
import numpy as np

import cardiacreg

heart = cardiacreg.sample_heart(10_003, spacing_mm=(1.5, 1.5, 2.0))
scan = cardiacreg.Degradation().of(heart, seed=5)
views = cardiacreg.simulate_views(heart, ["four_chamber", "two_chamber"], seed=5)
given = [cardiacreg.View(view.subject.labels, name=view.name) for view in views]

# %%
# Once without views, once with them.

alone = cardiacreg.refine(scan.subject.labels)
together = cardiacreg.refine(scan.subject.labels, views=given)
for view in together.views:
    print(view.name, "moved by", np.round(view.shift_mm, 1), "mm; agreement", view.agreement)

# %%
# How near each comes to the heart, raw: nothing is aligned afterwards.

same_place = cardiacreg.Affine.identity()
rows = {"slices alone": alone, "with two views": together}
names = ("LV cavity", "LV wall", "RV cavity", "RV wall")
figure, panel = plt.subplots(figsize=(7, 3.4), layout="constrained")
for number, (title, result) in enumerate(rows.items()):
    model = cardiacreg.warp_labels(result.labels, same_place, scan.reference)
    scores = cardiacreg.compare(model, scan.reference)
    dice = [float(scores[name]["dice"]) for name in names]
    panel.bar(np.arange(4) + 0.38 * number, dice, width=0.36, label=title)
    print(title, dict(zip(names, np.round(dice, 3).tolist(), strict=True)))
panel.set_xticks(np.arange(4) + 0.19, names)
panel.set(ylim=(0.5, 1.0), ylabel="Dice with the truth, raw")
panel.legend(loc="upper right")

# %%
# The model, cut by the four-chamber plane, over the view's labels where the shift puts them.

view, report = views[0].subject.labels, together.views[0]
moved = cardiacreg.LabelMap(view.array, view.voxel_to_world.copy())
figure, panels = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for panel, (title, result) in zip(panels, rows.items(), strict=True):
    cut = cardiacreg.warp_labels(result.labels, same_place, moved).array[:, :, 0]
    panel.imshow(view.array[:, :, 0].T, cmap="Greys", origin="lower")
    for label, colour in ((1, "#d55e00"), (2, "#f2b734"), (4, "#0a5fa8")):
        panel.contour((cut == label).T, levels=[0.5], colors=colour)
    panel.set_title(f"the view, and the model from {title}")
    panel.set_axis_off()
