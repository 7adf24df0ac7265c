"""
Surfaces
========

Closed, nested surfaces of both ventricles, and surfaces whose vertices correspond over hearts.
"""

# %%
# A model, and its five surfaces. Each holds the volume of its labels.

import matplotlib.pyplot as plt
import numpy as np

import cardiacreg

scan = cardiacreg.Degradation().of(cardiacreg.sample_heart(10_004), seed=4)
result = cardiacreg.refine(scan.subject.labels)
surfaces = cardiacreg.surfaces_of(result)
for name, surface in surfaces.items():
    print(
        f"{name}: {len(surface.triangles)} triangles, {surface.volume_ml():.1f} ml, "
        f"closed: {surface.is_closed()}"
    )

# %%
# Seen from the side of the right ventricle.


def draw(panel, surface, colour, opacity):
    """One surface, shaded."""
    panel.plot_trisurf(
        *surface.vertices_mm.T, triangles=surface.triangles, color=colour, alpha=opacity, lw=0
    )


coarse = cardiacreg.surfaces_of(result, triangles=4000)
figure = plt.figure(figsize=(9, 4.6), layout="constrained")
for number, azimuth in enumerate((-60, 60)):
    panel = figure.add_subplot(1, 2, number + 1, projection="3d")
    draw(panel, coarse["LV_ENDO"], "#d55e00", 1.0)
    draw(panel, coarse["RV_ENDO"], "#0a5fa8", 1.0)
    draw(panel, coarse["LV_EPI"], "#f2b734", 0.25)
    panel.set(box_aspect=np.ptp(coarse["EPI"].vertices_mm, axis=0))
    panel.view_init(elev=15, azim=azimuth)
    panel.set_axis_off()

# %%
# One template carried to another heart: the same triangles, the same places.

spacing = (2.0, 2.0, 3.0)
atlas = cardiacreg.sample_heart(0, spacing_mm=spacing)
other = cardiacreg.sample_heart(1, group="dilated", spacing_mm=spacing)
start = cardiacreg.fit_landmark_affine(other.landmarks, atlas.landmarks).target_to_atlas
found = cardiacreg.register_labels(other.labels, atlas.labels, start)
template = cardiacreg.surfaces_of(atlas.labels, triangles=3000)["LV_ENDO"]
carried = cardiacreg.carried_surface(template, found.target_to_atlas, onto=other.labels)

figure = plt.figure(figsize=(9, 4.2), layout="constrained")
height = template.vertices_mm[:, 2]
for number, (surface, title) in enumerate(((template, "the atlas"), (carried, "another heart"))):
    panel = figure.add_subplot(1, 2, number + 1, projection="3d")
    shown = panel.plot_trisurf(*surface.vertices_mm.T, triangles=surface.triangles, cmap="twilight")
    shown.set_array(height[surface.triangles].mean(axis=1))
    panel.set(title=title, box_aspect=np.ptp(surface.vertices_mm, axis=0))
    panel.set_axis_off()
