"""Other registration packages, each run in the way its documentation recommends for labels.

A program of its own, so that it runs under any interpreter that has NumPy, nibabel and the package:
``python peer_adapters.py PEER FOLDER THREADS LIMIT`` reads ``fixed.nii.gz``, ``moving.nii.gz`` and
``affine.txt`` (fixed RAS mm to moving RAS mm) from the folder and writes ``map.npy``, the moving RAS
position of every fixed voxel, and ``measured.json``: processor seconds by the operating system's
accounting around the registration call, and peak memory. The process is ended at LIMIT processor
seconds. Packages that take several pairs of images get one map of 0 and 1 per label.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable
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

    def moved(self, values: np.ndarray, order: int) -> np.ndarray:
        """Values on the moving grid, on the fixed grid through the affine alone."""
        from scipy.ndimage import map_coordinates

        voxels = apply(np.linalg.inv(self.moving_matrix), apply(self.affine, self.positions()))
        return map_coordinates(values, voxels.reshape(-1, 3).T, order=order).reshape(
            self.fixed.shape
        )

    def total(self, displacements: np.ndarray) -> np.ndarray:
        """Positions plus displacements given as ITK arrays: (k, j, i, 3), LPS."""
        moved = np.transpose(displacements, (2, 1, 0, 3)).astype(float) * (-1, -1, 1)
        return self.positions() + moved


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def affine_alone(pair: Pair) -> np.ndarray:
    return apply(pair.affine, pair.positions())


def simpleitk_demons(pair: Pair) -> np.ndarray:
    """Diffeomorphic demons on the label image (they take one), three resolutions.

    The pyramid is that of https://simpleitk.readthedocs.io/en/master/link_DemonsRegistration2_docs.html
    """
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


def simpleitk_bspline(pair: Pair) -> np.ndarray:
    """Multi-resolution B-spline on the label image: no metric of it takes several channels.

    40, 20 and 10 mm with L-BFGS, as in
    https://simpleitk.readthedocs.io/en/master/link_ImageRegistrationMethodBSpline3_docs.html
    """
    import SimpleITK as sitk

    fixed, moving = (pair.images(which)[0] for which in ("fixed", "moving"))
    affine = pair.itk_affine()
    sizes_mm = zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)
    spline = sitk.BSplineTransformInitializer(
        fixed, [max(1, round(n * h / 40)) for n, h in sizes_mm]
    )
    run = sitk.ImageRegistrationMethod()
    run.SetInitialTransformAsBSpline(spline, inPlace=True, scaleFactors=[1, 2, 4])
    run.SetMovingInitialTransform(affine)
    run.SetInterpolator(sitk.sitkLinear)
    run.SetMetricAsMeanSquares()
    run.SetShrinkFactorsPerLevel([4, 2, 1])
    run.SetSmoothingSigmasPerLevel([3, 1.5, 0.75])
    run.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    run.SetOptimizerAsLBFGS2(
        solutionAccuracy=1e-5, numberOfIterations=60, deltaConvergenceTolerance=1e-4
    )
    run.Execute(fixed, moving)
    grid = fixed.GetSize(), fixed.GetOrigin(), fixed.GetSpacing(), fixed.GetDirection()
    whole = sitk.CompositeTransform([affine, spline])
    field = sitk.TransformToDisplacementField(whole, sitk.sitkVectorFloat64, *grid)
    return pair.total(sitk.GetArrayFromImage(field))


def greedy(pair: Pair) -> np.ndarray:
    """One channel per label, squared differences, stationary velocity.

    https://greedy.readthedocs.io/en/latest/reference.html
    """
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
    """Symmetric diffeomorphic registration of the label images (it takes one), squared differences.

    https://docs.dipy.org/stable/examples_built/registration/syn_registration_3d.html
    """
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


def _ants(kind: str) -> Callable[[Pair], np.ndarray]:
    """``ants.label_image_registration``, one channel per label.

    https://antspy.readthedocs.io/en/latest/registration.html
    """

    def run(pair: Pair) -> np.ndarray:
        import ants
        import SimpleITK as sitk

        start = pair.folder / "start.mat"
        sitk.WriteTransform(pair.itk_affine(), str(start))
        fixed, moving = (ants.image_read(str(f)) for f in (pair.fixed_file, pair.moving_file))
        found = ants.label_image_registration(
            fixed, moving, initial_transforms=[str(start)], type_of_deformable_transform=kind,
            output_prefix=str(pair.folder / "ants_"),
        )  # fmt: skip
        whole = ants.apply_transforms(
            fixed, moving, found["fwdtransforms"], compose=str(pair.folder / "whole_")
        )
        return pair.total(sitk.GetArrayFromImage(sitk.ReadImage(whole)))

    return run


def elastix(pair: Pair) -> np.ndarray:
    """B-spline of 10 mm, one mean-squares metric per label, adaptive stochastic gradient descent.

    Manual, chapter 5 (several images and metrics) and 6: https://elastix.dev/download/elastix-5.2.0-manual.pdf
    """
    import itk

    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(pair.threads)
    grid = itk.imread(str(pair.fixed_file), itk.F)

    def image(values: np.ndarray):
        made = itk.image_from_array(np.ascontiguousarray(values.T, dtype=np.float32))
        made.SetSpacing(grid.GetSpacing())
        made.SetOrigin(grid.GetOrigin())
        made.SetDirection(grid.GetDirection())
        return made

    fixed = [image(pair.fixed == v) for v in pair.labels]
    moving = [image(pair.moved((pair.moving == v).astype(np.float32), 1)) for v in pair.labels]
    run = itk.ElastixRegistrationMethod[type(fixed[0]), type(moving[0])].New()
    run.SetFixedImage(fixed[0])
    run.SetMovingImage(moving[0])
    for f, m in zip(fixed[1:], moving[1:], strict=True):
        run.AddFixedImage(f)
        run.AddMovingImage(m)
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(_elastix_parameters(len(fixed)))
    run.SetParameterObject(parameters)
    run.SetLogToConsole(False)
    run.UpdateLargestPossibleRegion()
    field = itk.transformix_deformation_field(moving[0], run.GetTransformParameterObject())
    return apply(pair.affine, pair.total(itk.array_from_image(field)))


def _elastix_parameters(count: int) -> dict[str, list[str]]:
    each = {
        "FixedImagePyramid": "FixedSmoothingImagePyramid",
        "MovingImagePyramid": "MovingSmoothingImagePyramid",
        "Interpolator": "LinearInterpolator",
        "ImageSampler": "RandomCoordinate",
        "Metric": "AdvancedMeanSquares",
    }
    once = {
        "Registration": "MultiMetricMultiResolutionRegistration",
        "NumberOfResolutions": 4,
        "ImagePyramidSchedule": "8 8 4 4 4 2 2 2 1 1 1 1",
        "Optimizer": "AdaptiveStochasticGradientDescent",
        "AutomaticParameterEstimation": "true",
        "MaximumNumberOfIterations": 500,
        "NumberOfSpatialSamples": 4096,
        "NewSamplesEveryIteration": "true",
        "Transform": "BSplineTransform",
        "FinalGridSpacingInPhysicalUnits": 10,
        "HowToCombineTransforms": "Compose",
        "ResampleInterpolator": "FinalNearestNeighborInterpolator",
        "Resampler": "DefaultResampler",
        "ErodeMask": "false",
        "WriteResultImage": "false",
    } | {f"Metric{n}Weight": 1 / count for n in range(count)}
    found = {name: [value] * count for name, value in each.items()}
    return found | {name: str(value).split() for name, value in once.items()}


def convex_adam(pair: Pair) -> np.ndarray:
    """The package's path for labels with the defaults of its command line.

    https://github.com/multimodallearning/convexAdam (``convex_adam_nnUNet.py``). That path asks for CUDA
    by name and for half precision; here those requests are answered by this processor, in full precision.
    """
    import nibabel
    import torch

    torch.set_num_threads(pair.threads)
    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self, *_, **__: self
    torch.Tensor.half = torch.Tensor.float
    torch.cuda.synchronize = lambda *_: None
    from convexAdam.convex_adam_nnUNet import convex_adam as run

    moved = pair.folder / "moved.nii.gz"
    nibabel.save(nibabel.Nifti1Image(pair.moved(pair.moving, 0), pair.fixed_matrix), moved)
    run(
        str(pair.fixed_file), str(moved), lambda_weight=1.25, grid_sp=6, disp_hw=4, selected_niter=80,
        selected_smooth=0, grid_sp_adam=2, ic=True, result_path=str(pair.folder),
    )  # fmt: skip
    voxels = np.asarray(nibabel.load(pair.folder / "disp.nii.gz").dataobj).astype(float)
    indices = np.stack(np.meshgrid(*map(np.arange, pair.fixed.shape), indexing="ij"), -1)
    return apply(pair.affine, apply(pair.fixed_matrix, indices + voxels))


def fireants(pair: Pair) -> np.ndarray:
    """Greedy diffeomorphic registration with Adam of one channel per label, mean squares.

    Scales, rate and smoothing of https://fireants.readthedocs.io/en/latest/quickstart/
    """
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(pair.threads)
    from fireants.io import BatchedImages, Image
    from fireants.registration.greedy import GreedyRegistration

    def batch(file: Path):
        labels = sitk.Cast(sitk.ReadImage(str(file)), sitk.sitkInt32)
        return BatchedImages(
            [Image(labels, device="cpu", is_segmentation=True, background_seg_label=0)]
        )

    fixed, moving = batch(pair.fixed_file), batch(pair.moving_file)
    affine = torch.tensor(FLIP @ pair.affine @ FLIP, dtype=torch.float32)[None]
    run = GreedyRegistration(
        scales=[4, 2, 1], iterations=[100, 100, 50], fixed_images=fixed, moving_images=moving,
        loss_type="mse", optimizer="Adam", optimizer_lr=0.5, init_affine=affine, progress_bar=False,
    )  # fmt: skip
    run.optimize()
    with torch.no_grad():
        found = run.get_warp_parameters(fixed, moving)
        shape = (1, 1, *fixed().shape[2:])
        rest = torch.nn.functional.affine_grid(found["affine"].float(), shape, align_corners=True)
        cube = (rest + found["grid"])[0].numpy().astype(float)
    world = apply(moving.get_torch2phy()[0].numpy().astype(float), cube)
    return np.transpose(world, (2, 1, 0, 3)) * (-1, -1, 1)


def _deepali(step: float, bending: float) -> Callable[[Pair], np.ndarray]:
    """A free-form deformation with Adam of one channel per label, mean squares and bending.

    Levels, strides and steps of https://github.com/BioMedIA/deepali/blob/main/examples/ffd/params.yaml,
    whose script is no part of the package.
    """

    def run(pair: Pair) -> np.ndarray:
        import torch
        from deepali.core import Axes, Grid
        from deepali.data import Image
        from deepali.losses import MSE, BSplineBending
        from deepali.spatial import (
            FreeFormDeformation,
            HomogeneousTransform,
            ImageTransformer,
            SequentialTransform,
        )

        torch.set_num_threads(pair.threads)

        def pyramid(values: np.ndarray, file: Path):
            maps = np.stack([(values == v).T for v in (0, *pair.labels)]).astype(np.float32)
            image = Image(torch.from_numpy(maps), grid=Grid.from_file(file).align_corners_(True))
            return image.pyramid(3, dims=("x", "y"), spacing=(1.25, 1.25, 2.0))

        fixed = pyramid(pair.fixed, pair.fixed_file)
        moving = pyramid(pair.moving, pair.moving_file)
        finest, stride = fixed[0].grid(), (8, 8, 5)
        pre = finest.transform(Axes.CUBE_CORNERS, Axes.WORLD)
        post = finest.transform(Axes.WORLD, Axes.CUBE_CORNERS)
        square = [torch.cat([m[:3, :4], torch.tensor([[0.0, 0.0, 0.0, 1.0]])]) for m in (pre, post)]
        affine = torch.tensor(FLIP @ pair.affine @ FLIP, dtype=torch.float32)
        matrix = (square[1] @ affine @ square[0])[None, :3]
        model = FreeFormDeformation(fixed[2].grid(), stride=stride)
        whole = SequentialTransform(model, HomogeneousTransform(finest, params=matrix))
        likeness, bend = MSE(), BSplineBending(stride=stride)
        for level in (2, 1, 0):
            grid = fixed[level].grid()
            model.grid_(grid)
            whole.grid_(grid)
            warp = ImageTransformer(whole, grid, moving[level].grid())
            source, target = (each[level].tensor()[None] for each in (moving, fixed))
            adam = torch.optim.Adam(model.parameters(), lr=step)
            for _ in range(100):
                adam.zero_grad()
                loss = likeness(warp(source), target) + bending * bend(model.data())
                loss.backward()
                adam.step()
        return _deepali_positions(pair, whole)

    return run


def _deepali_positions(pair: Pair, whole) -> np.ndarray:
    import torch
    from deepali.core import Axes, Grid

    grid = Grid.from_file(pair.fixed_file).align_corners_(True)
    with torch.no_grad():
        cube = whole(grid.coords()[None], grid=True)[0]
        world = grid.transform_points(cube, Axes.CUBE_CORNERS, to_axes=Axes.WORLD).numpy()
    return np.transpose(world.astype(float), (2, 1, 0, 3)) * (-1, -1, 1)


PEERS = {
    "affine alone": (affine_alone, "numpy"),
    "SimpleITK demons": (simpleitk_demons, "SimpleITK"),
    "Greedy SSD, velocity": (greedy, "picsl-greedy"),
    "FireANTs greedy": (fireants, "fireants"),
    "ConvexAdam": (convex_adam, "convexAdam"),
    "DIPY SyN SSD": (dipy_syn, "dipy"),
    "ANTs label SyN, quick": (_ants("antsRegistrationSyNQuick[so]"), "antspyx"),
    "deepali FFD": (_deepali(0.001, 0.005), "hf-deepali"),
    "elastix B-spline": (elastix, "itk-elastix"),
    "ANTs label B-spline SyN": (_ants("antsRegistrationSyN[bo]"), "antspyx"),
    "ANTs label SyN": (_ants("antsRegistrationSyN[so]"), "antspyx"),
    "SimpleITK B-spline": (simpleitk_bspline, "SimpleITK"),
    "deepali FFD, larger steps": (_deepali(0.01, 0.001), "hf-deepali"),
}


def peak_memory_mib() -> float:
    """Peak memory of this program alone; the accounting of ``getrusage`` starts with its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor_seconds() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main() -> int:
    name, folder, threads, limit = (
        sys.argv[1],
        Path(sys.argv[2]).resolve(),
        int(sys.argv[3]),
        int(sys.argv[4]),
    )
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limit if most < 0 else min(limit, most), most))
    method, package = PEERS[name]
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    pair = Pair(folder, threads)
    os.chdir(folder)  # some packages leave files where they run
    start, used = time.perf_counter(), processor_seconds()
    found = method(pair)
    measured = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": processor_seconds() - used,
        "peak_memory_mib": peak_memory_mib(),
        "package": f"{package} {importlib.metadata.version(package)}",
    }
    np.save(folder / "map.npy", found)
    (folder / "measured.json").write_text(json.dumps(measured), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
