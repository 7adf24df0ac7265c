"""Open a result in 3D Slicer: image, model with names and colours, surfaces, landmarks.

Slicer --python-script examples/04_open_in_slicer.py OUT [IMAGE]

OUT is a folder that cardiacreg refine wrote. Slicer reads more of it after

    cardiacreg surfaces OUT -o OUT/meshes
    cardiacreg convert OUT OUT/model.seg.nrrd
    cardiacreg convert OUT/landmarks.json OUT/landmarks.mrk.json
"""

import sys
from pathlib import Path

COLOURS = {
    "LV_ENDO": (0.84, 0.37, 0.0),
    "LV_EPI": (0.95, 0.72, 0.2),
    "RV_ENDO": (0.04, 0.37, 0.66),
    "RV_EPI": (0.34, 0.71, 0.91),
    "EPI": (0.8, 0.8, 0.8),
}
OPACITIES = {"LV_ENDO": 1.0, "RV_ENDO": 1.0, "LV_EPI": 0.35, "RV_EPI": 0.35, "EPI": 0.15}


def main(out, image=None):
    """Load what there is; returns the names of what was loaded."""
    from slicer import util

    folder, loaded = Path(out), []
    if image is not None:
        util.loadVolume(str(image))
        loaded.append(Path(image).name)
    models = [folder / name for name in ("model.seg.nrrd", "labels.nii.gz")]
    for model in [file for file in models if file.is_file()][:1]:
        segmentation = util.loadSegmentation(str(model))
        segmentation.CreateClosedSurfaceRepresentation()
        loaded.append(model.name)
    for file in sorted([*folder.glob("*.vtp"), *folder.glob("meshes/*.vtp")]):
        display = util.loadModel(str(file)).GetDisplayNode()
        display.SetColor(*COLOURS.get(file.stem, (0.7, 0.7, 0.7)))
        display.SetOpacity(OPACITIES.get(file.stem, 1.0))
        loaded.append(file.name)
    points = folder / "landmarks.mrk.json"
    if points.is_file():
        util.loadMarkups(str(points))
        loaded.append(points.name)
    return loaded


if __name__ == "__main__":
    print("loaded:", *main(*sys.argv[1:]))
