"""Open the surfaces of a result in ParaView, and save a picture of them.

pvpython examples/05_open_in_paraview.py MESHES [PICTURE.png]

MESHES is a folder with .vtp files, from: cardiacreg surfaces OUT -o MESHES
"""

import sys
from pathlib import Path

COLOURS = {
    "LV_ENDO": (0.84, 0.37, 0.0),
    "LV_EPI": (0.95, 0.72, 0.2),
    "RV_ENDO": (0.04, 0.37, 0.66),
    "RV_EPI": (0.34, 0.71, 0.91),
}


def main(meshes, picture=None):
    """Show the four surfaces, the outer ones half transparent; returns the names of the files."""
    from paraview import simple

    shown = []
    for file in sorted(Path(meshes).glob("*.vtp")):
        if file.stem not in COLOURS:
            continue
        display = simple.Show(simple.OpenDataFile(str(file)))
        display.AmbientColor = display.DiffuseColor = COLOURS[file.stem]
        display.Opacity = 0.35 if file.stem.endswith("EPI") else 1.0
        shown.append(file.name)
    simple.ResetCamera()
    simple.Render()
    if picture is not None:
        simple.SaveScreenshot(str(picture))
    return shown


if __name__ == "__main__":
    print("shown:", *main(*sys.argv[1:]))
