"""What many tests share: a cache folder of their own, and one tiny refinement per session."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep tests away from the user's cache of atlases, but let them use compiled kernels."""
    from cardiacreg.compute.cache_files import NUMBA_VARIABLE, cache_folder

    os.environ.setdefault(NUMBA_VARIABLE, str(cache_folder()))
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("CARDIACREG_CACHE")
    os.environ["CARDIACREG_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["CARDIACREG_CACHE"]
    else:
        os.environ["CARDIACREG_CACHE"] = before


@pytest.fixture(scope="session")
def tiny_result():
    """The tiny heart, with its image, refined with two smaller ones."""
    from cardiacreg.errors import InputWarning
    from cardiacreg.phantoms.toy_heart import make_toy_heart
    from cardiacreg.refinement._refine import refine

    heart = make_toy_heart()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return refine(
            heart.labels,
            image=heart.image,
            atlases=[make_toy_heart(size=0.95), make_toy_heart(size=0.9)],
            spacing_mm=(2.5, 2.5, 2.5),
            threads=2,
        )


ROUGHLY = {
    "cardiacreg.results.qc_figure._N_SLICES": 2,
    "cardiacreg.results.qc_figure._DOTS_PER_INCH": 40,
}
"""How the picture of every saved result is drawn where tests are not of pictures."""
PAGES_ROUGHLY = {
    "cardiacreg.results.surface_rays.PIXEL_MM": 1.2,
    "cardiacreg.results.surface_figure.PIXEL_MM": 1.2,
    "cardiacreg.results.surface_rays._LATTICE_MM": 2.0,
    "cardiacreg.results.surface_rays._STEP_MM": 2.0,
    "cardiacreg.reports.before_after._DOTS_PER_INCH": 50,
}
"""How the pictures of pages are."""
SAVES = ("benchmarks", "cine", "doors", "refinement")
WRITES_PAGES = ("cli", "cohort", "documents", "nn", "reports/test_report.py")


@pytest.fixture(scope="module", autouse=True)
def rough_pictures(request):
    """Draw few slices, rays and dots where tests are of files, commands and the words of pages."""
    place = request.path.relative_to(Path(__file__).parent).as_posix()
    wanted = ROUGHLY if place.startswith((*SAVES, *WRITES_PAGES)) else {}
    wanted = wanted | (PAGES_ROUGHLY if place.startswith(WRITES_PAGES) else {})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in wanted.items():
            patch.setattr(name, value)
        yield


@dataclass(frozen=True)
class TinyFiles:
    """Files of the tiny heart and a folder with two atlases for it."""

    labels: Path
    image: Path
    atlases: Path


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory):
    """The tiny heart on disk."""
    from cardiacreg.io.nifti import write_labels, write_volume
    from cardiacreg.phantoms.toy_heart import make_toy_heart

    folder = tmp_path_factory.mktemp("tiny")
    hearts = {"": 1.0, "atlases/small": 0.95, "atlases/smaller": 0.9}
    for name, size in hearts.items():
        place, heart = folder / name, make_toy_heart(size=size)
        place.mkdir(parents=True, exist_ok=True)
        write_labels(place / "labels.nii.gz", heart.labels)
        write_volume(place / "image.nii.gz", heart.image)
    return TinyFiles(folder / "labels.nii.gz", folder / "image.nii.gz", folder / "atlases")


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window, drawing in software; skipped where it or its driver is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--use-gl=angle",
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    ):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()
