"""Other registration packages, each run in the way its documentation recommends for labels.

A program of its own, so that it runs under any interpreter that has NumPy, nibabel and the package:
``python peer_adapters.py PEER FOLDER THREADS`` reads ``fixed.nii.gz``, ``moving.nii.gz`` and
``affine.txt`` (fixed RAS mm to moving RAS mm) from the folder and writes ``map.npy``, the moving RAS
position of every fixed voxel, and ``measured.json``: processor seconds by the operating system's
accounting around the registration call, and peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


class Pair:
    """The two label maps, their matrices, the affine, and where to work."""

    def __init__(self, folder: Path, threads: int) -> None:
        import nibabel

        self.folder, self.threads = folder, threads
        self.fixed_file, self.moving_file = folder / "fixed.nii.gz", folder / "moving.nii.gz"
        fixed, moving = nibabel.load(self.fixed_file), nibabel.load(self.moving_file)
        self.fixed = np.asarray(fixed.dataobj).astype(np.uint8)
        self.moving = np.asarray(moving.dataobj).astype(np.uint8)
        self.fixed_matrix, self.moving_matrix = fixed.affine, moving.affine
        self.affine = np.loadtxt(folder / "affine.txt")
        self.labels = [int(v) for v in np.unique(self.fixed) if v and (self.moving == v).any()]

    def positions(self) -> np.ndarray:
        """World position of every fixed voxel."""
        indices = np.stack(np.meshgrid(*map(np.arange, self.fixed.shape), indexing="ij"), -1)
        return apply(self.fixed_matrix, indices.astype(float))

    def images(self, which: str) -> dict:
        """SimpleITK images of one file: the labels, and one map of 0 and 1 per label."""
        import SimpleITK as sitk

        image = sitk.ReadImage(str(self.fixed_file if which == "fixed" else self.moving_file))
        found = {0: sitk.Cast(image, sitk.sitkFloat32)}
        return found | {v: sitk.Cast(image == v, sitk.sitkFloat32) for v in self.labels}

    def itk_affine(self):
        """The affine as SimpleITK has it."""
        import SimpleITK as sitk

        matrix = FLIP @ self.affine @ FLIP
        found = sitk.AffineTransform(3)
        found.SetMatrix(matrix[:3, :3].ravel().tolist())
        found.SetTranslation(matrix[:3, 3].tolist())
        return found

    def total(self, displacements: np.ndarray) -> np.ndarray:
        """Positions plus displacements given as ITK arrays: (k, j, i, 3), LPS."""
        moved = np.transpose(displacements, (2, 1, 0, 3)).astype(float) * (-1, -1, 1)
        return self.positions() + moved


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def affine_alone(pair: Pair) -> np.ndarray:
    return apply(pair.affine, pair.positions())


def simpleitk_demons(pair: Pair) -> np.ndarray:
    """Diffeomorphic demons on the label image, three resolutions."""
    import SimpleITK as sitk

    fixed = pair.images("fixed")[0]
    moving = sitk.Resample(pair.images("moving")[0], fixed, pair.itk_affine(), sitk.sitkLinear, 0.0)
    field = None
    for shrink, sigma, iterations in ((4, 2.5, 60), (2, 1.25, 40), (1, 0.7, 20)):
        factors = [min(shrink, max(1, n // 16)) for n in fixed.GetSize()]
        small = [
            sitk.Shrink(sitk.SmoothingRecursiveGaussian(i, sigma), factors) for i in (fixed, moving)
        ]
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(1.5)
        if field is None:
            field = sitk.Image(small[0].GetSize(), sitk.sitkVectorFloat64)
            field.CopyInformation(small[0])
        field = demons.Execute(*small, sitk.Resample(field, small[0]))
    field = sitk.Resample(field, fixed)
    return apply(pair.affine, pair.total(sitk.GetArrayFromImage(field)))


def greedy(pair: Pair) -> np.ndarray:
    """One channel per label, squared differences, stationary velocity."""
    import SimpleITK as sitk
    from picsl_greedy import Greedy3D

    fixed, moving = pair.images("fixed"), pair.images("moving")
    images = {f"f{v}": fixed[v] for v in pair.labels} | {f"m{v}": moving[v] for v in pair.labels}
    pairs = " ".join(f"-i f{v} m{v}" for v in pair.labels)
    affine = pair.folder / "greedy.mat"
    np.savetxt(affine, pair.affine)
    run = Greedy3D()
    common = f"-threads {pair.threads} -V 0"
    how = "-m SSD -n 100x100x50 -s 2vox 0.5vox -sv"
    run.execute(f"{pairs} -it {affine} {how} {common} -o warp", warp=None, **images)
    first = pair.labels[0]
    run.execute(f"-rf f{first} -r warp {affine} -rc whole {common}", whole=None)
    return pair.total(sitk.GetArrayFromImage(run["whole"]))


def dipy_syn(pair: Pair) -> np.ndarray:
    """Symmetric diffeomorphic registration of the label images, squared differences."""
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
    from dipy.align.metrics import SSDMetric

    syn = SymmetricDiffeomorphicRegistration(
        metric=SSDMetric(3, smooth=2), level_iters=[100, 50, 20]
    )
    syn.verbosity = 0
    found = syn.optimize(
        pair.fixed.astype(float), pair.moving.astype(float), static_grid2world=pair.fixed_matrix,
        moving_grid2world=pair.moving_matrix, prealign=pair.affine,
    )  # fmt: skip
    # The map is read off by warping images of the coordinates, on a lattice wide enough.
    wide = pair.moving_matrix.copy()
    wide[:3, 3] = apply(pair.moving_matrix, np.full(3, -48.0))
    shape = [n + 96 for n in pair.moving.shape]
    coordinates = apply(
        wide, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * 1.0
    )
    moved = [
        found.transform(
            np.ascontiguousarray(coordinates[..., c]), interpolation="linear",
            image_world2grid=np.linalg.inv(wide),
        )
        for c in range(3)
    ]  # fmt: skip
    return np.stack(moved, -1).astype(float)


def ants_label_quick(pair: Pair) -> np.ndarray:
    """``ants.label_image_registration`` with its default, SyN on one channel per label."""
    import ants
    import SimpleITK as sitk

    start = pair.folder / "start.mat"
    sitk.WriteTransform(pair.itk_affine(), str(start))
    fixed, moving = (ants.image_read(str(f)) for f in (pair.fixed_file, pair.moving_file))
    found = ants.label_image_registration(
        fixed, moving, initial_transforms=[str(start)],
        type_of_deformable_transform="antsRegistrationSyNQuick[so]",
        output_prefix=str(pair.folder / "ants_"),
    )  # fmt: skip
    whole = ants.apply_transforms(
        fixed, moving, found["fwdtransforms"], compose=str(pair.folder / "whole_")
    )
    return pair.total(sitk.GetArrayFromImage(sitk.ReadImage(whole)))


PEERS = {
    "affine alone": affine_alone,
    "SimpleITK demons": simpleitk_demons,
    "Greedy SSD, velocity": greedy,
    "DIPY SyN SSD": dipy_syn,
    "ANTs label SyN, quick": ants_label_quick,
}


def processor_seconds() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main() -> int:
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    pair = Pair(folder, threads)
    start, used = time.perf_counter(), processor_seconds()
    found = PEERS[name](pair)
    measured = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": processor_seconds() - used,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    np.save(folder / "map.npy", found)
    (folder / "measured.json").write_text(json.dumps(measured), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
