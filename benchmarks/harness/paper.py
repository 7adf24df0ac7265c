"""Figures quoted from Duan et al., IEEE TMI 38(9):2151-2164, 2019, to stand beside ours.

Its populations, its labels (a network's) and its atlases are others than ours: a quoted row is for
orientation and no comparison.
"""

from __future__ import annotations

Row = dict[str, tuple[float, float]]

DICE_NAME = "quoted: paper, Table III, 600 other hearts, network labels"
DICE: Row = {
    "LV cavity": (0.940, 0.024),
    "LV wall": (0.863, 0.049),
    "RV cavity": (0.914, 0.033),
    "RV wall": (0.557, 0.121),
}
HAUSDORFF_SLICEWISE_MM: Row = {
    "LV cavity": (4.045, 0.675),
    "LV wall": (4.394, 0.841),
    "RV cavity": (5.039, 1.218),
    "RV wall": (6.119, 2.956),
}
VOLUMES_NAME = "quoted: paper, Table IV, 600 other hearts, network labels"
VOLUMES_ML: Row = {"LV cavity": (6.066, 5.782), "RV cavity": (9.299, 8.551)}
MASSES_G: Row = {"LV wall": (6.737, 5.244), "RV wall": (2.956, 2.899)}
HYPERTENSION_NAME = "quoted: paper, Table VI, 20 other patients, two scans each"
HYPERTENSION_VOLUMES_ML: Row = {"LV cavity": (10.42, 9.378), "RV cavity": (18.69, 13.55)}
HYPERTENSION_MASSES_G: Row = {"LV wall": (8.032, 9.614), "RV wall": (3.857, 2.558)}
LEARNED: dict[str, tuple[Row, Row]] = {
    "3D-Seg": (
        {"LV cavity": (0.923, 0.019), "LV wall": (0.773, 0.038)},
        {"LV cavity": (10.28, 8.25), "LV wall": (10.15, 10.58)},
    ),
    "3D U-Net": (
        {"LV cavity": (0.923, 0.019), "LV wall": (0.764, 0.045)},
        {"LV cavity": (9.94, 9.92), "LV wall": (9.81, 11.77)},
    ),
    "3D-AE": (
        {"LV cavity": (0.926, 0.019), "LV wall": (0.779, 0.033)},
        {"LV cavity": (8.42, 3.64), "LV wall": (8.52, 2.72)},
    ),
    "3D-ACNN": (
        {"LV cavity": (0.939, 0.017), "LV wall": (0.811, 0.027)},
        {"LV cavity": (7.89, 3.83), "LV wall": (7.31, 3.59)},
    ),
    "MAM": (
        {"LV cavity": (0.87, 0.029), "LV wall": (0.711, 0.064)},
        {"LV cavity": (6.65, 1.74), "LV wall": (8.89, 2.07)},
    ),
    "SSLLN-LR+SR": (
        {"LV cavity": (0.943, 0.020), "LV wall": (0.854, 0.042)},
        {"LV cavity": (4.09, 0.69), "LV wall": (4.37, 1.04)},
    ),
}
LANDMARK_SECONDS, LABEL_AFFINE_SECONDS = 0.005, 5.0
