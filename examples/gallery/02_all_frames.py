"""
All frames of a patient
=======================

A beating heart, refined as one: what holds for all frames is decided once, and every frame is the same
atlas points moved.
"""

# %%
# Eight frames of a cycle, acquired slice by slice: a slice has the same breath-hold in all of them.

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np

import cardiacreg
from cardiacreg.phantoms.beating import beating_heart

frames = beating_heart(10_001, n_frames=8, spacing_mm=(1.5, 1.5, 2.5))
scans = cardiacreg.Degradation().of_frames(frames, seed=2)
cine = cardiacreg.refine_cine([scan.subject.labels for scan in scans], spacing_mm=(1.5, 1.5, 2.5))
print("end-diastole:", cine.ed, "end-systole:", cine.es, "EF:", cine.ejection_fractions)

# %%
# Volumes over the cycle, beside those of the true heart.

figure, panel = plt.subplots(figsize=(7, 3.6), layout="constrained")
for label, name, colour in ((1, "LV cavity", "#d55e00"), (4, "RV cavity", "#0a5fa8")):
    truth = [
        float((scan.reference.array == label).sum()) * np.prod(scan.reference.spacing_mm) / 1000
        for scan in scans
    ]
    panel.plot(cine.volumes_ml[name], "o-", color=colour, label=f"{name}, models")
    panel.plot(truth, ":", color=colour, label=f"{name}, truth")
panel.set(xlabel="frame", ylabel="ml")
panel.legend(fontsize=8, loc="lower right")

# %%
# A point of the heart can be followed: here the wall of the LV, from end-diastole to end-systole.

surface = cardiacreg.surfaces_of(cine.frames[cine.ed].labels, triangles=3000)["LV_ENDO"]
moved = cine.follow(surface.vertices_mm, cine.es)
how_far = np.linalg.norm(moved - surface.vertices_mm, axis=1)
figure = plt.figure(figsize=(9, 4.2), layout="constrained")
for number, (points, title) in enumerate(
    ((surface.vertices_mm, "end-diastole"), (moved, "end-systole"))
):
    panel = figure.add_subplot(1, 2, number + 1, projection="3d")
    shown = panel.plot_trisurf(*points.T, triangles=surface.triangles, cmap="viridis")
    shown.set_array(how_far[surface.triangles].mean(axis=1))
    panel.set(title=title, box_aspect=np.ptp(surface.vertices_mm, axis=0))
    panel.set(
        **{
            f"{axis}lim": limits
            for axis, limits in zip(
                "xyz",
                zip(surface.vertices_mm.min(axis=0), surface.vertices_mm.max(axis=0), strict=True),
                strict=True,
            )
        }
    )
    panel.set_axis_off()
figure.colorbar(shown, ax=figure.axes, label="mm moved by end-systole", shrink=0.7)

# %%
# The folder of a cine holds the models as one 4-D file, a table of volumes and these curves.

folder = cine.save(Path(mkdtemp()) / "cine")
page = folder / "curves.png"
print(*sorted(path.name for path in folder.iterdir()))
