"""
Measures and a bull's eye
=========================

Volumes, masses, ejection fractions with intervals, and the thickness of the wall by segment.
"""

# %%
# End-diastole and end-systole of one heart, refined.

import matplotlib.pyplot as plt
import numpy as np

import cardiacreg

models = {}
for phase in ("ED", "ES"):
    heart = cardiacreg.sample_heart(10_002, group="hypertrophic", phase=phase)
    scan = cardiacreg.Degradation().of(heart, seed=3)
    models[phase] = cardiacreg.refine(scan.subject.labels)

# %%
# Measures of the patient, and 90 % intervals of the first three.

measures = cardiacreg.measure(models["ED"], models["ES"], height_cm=172, weight_kg=70)
intervals = measures.intervals()
for row in measures.table():
    if row.column in ("LVEDV (mL)", "LVESV (mL)", "LVEF (%)", "LVM (g)", "LVMi (g/m2)"):
        print(f"{row.column}: {row.value:.1f}")
for name, interval in list(intervals.items())[:3]:
    print(f"{name}: {interval.low:.1f} to {interval.high:.1f} ml")

# %%
# Wall thickness of the 17 segments, and how much they thicken.

figure = cardiacreg.draw_bullseye(measures)

# %%
# Where a voxel lies in the wall: from apex to base, around, and from endo- to epicardium.

where = cardiacreg.wall_coordinates(models["ED"])
k = int(np.isfinite(where.around_degrees).sum(axis=(0, 1)).argmax())
drawn, panels = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
for panel, name in zip(panels, ("apex_base", "transmural", "around_degrees"), strict=True):
    shown = panel.imshow(getattr(where, name)[:, :, k].T, origin="lower", cmap="viridis")
    panel.set_title(name)
    panel.set_axis_off()
    drawn.colorbar(shown, ax=panel, shrink=0.8)
