"""
Transforms
==========

What was found between two hearts: kept in files, inverted, drawn, handed to other tools.
"""

# %%
# One heart registered to another. A transform maps points of the target to points of the atlas.

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np

import cardiacreg

spacing = (2.0, 2.0, 3.0)
target = cardiacreg.sample_heart(10_000, spacing_mm=spacing)
atlas = cardiacreg.sample_heart(10_005, group="dilated", spacing_mm=spacing)
start = cardiacreg.fit_landmark_affine(target.landmarks, atlas.landmarks).target_to_atlas
options = cardiacreg.RegistrationOptions.dense(8.0)
found = cardiacreg.register_labels(target.labels, atlas.labels, start, options=options)
transform = found.target_to_atlas
print("landmarks of the target, in the atlas:")
print(np.round(transform.apply(target.landmarks.points_mm), 1))

# %%
# The atlas on the target's lattice, before and after the deformation.

columns = {
    "affine": cardiacreg.warp_labels(atlas.labels, start, target.labels),
    "deformed": cardiacreg.warp_labels(atlas.labels, transform, target.labels),
}
k = target.labels.shape[2] // 2
figure, panels = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
for panel, (title, warped) in zip(panels, columns.items(), strict=True):
    panel.imshow(target.labels.array[:, :, k].T, origin="lower", cmap="Greys")
    for label in (1, 2, 4):
        panel.contour((warped.array[:, :, k] == label).T, levels=[0.5], colors="#d55e00")
    score = cardiacreg.dice(warped, target.labels, 2)
    panel.set_title(f"atlas, {title}: Dice of the LV wall {score:.3f}")
    panel.set_axis_off()

# %%
# Where the atlas grows and where it shrinks: the determinant. It is positive everywhere, nothing is
# folded.

determinant = cardiacreg.jacobian_map(transform, target.labels).array
print("smallest determinant:", round(float(determinant.min()), 3))
figure, panel = plt.subplots(figsize=(5, 3.8), layout="constrained")
shown = panel.imshow(determinant[:, :, k].T, origin="lower", cmap="RdBu_r", vmin=0.0, vmax=2.0)
figure.colorbar(shown, label="atlas volume per target volume")
panel.set_axis_off()

# %%
# Back again, with the error of the inverse.

there = transform.apply(target.landmarks.points_mm)
back = cardiacreg.invert_points(transform, there)
print("mm from where they began:", np.abs(back.points_mm - target.landmarks.points_mm).max())

# %%
# For MIRTK, for ITK and ANTs, and as a dense field.

folder = Path(mkdtemp())
cardiacreg.write_dof(folder / "atlas.dof", transform)
cardiacreg.write_itk_transform(folder / "atlas.tfm", transform)
field = cardiacreg.dense_displacement(transform, target.labels)
cardiacreg.write_displacement_field(folder / "atlas.nii.gz", field)
again = cardiacreg.read_dof(folder / "atlas.dof")
print("after a file, at most", np.abs(again.apply(there) - transform.apply(there)).max(), "mm off")
