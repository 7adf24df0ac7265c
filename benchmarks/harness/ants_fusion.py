"""Joint label fusion of ANTs, in a process of its own under the interpreter that has ANTsPy.

That interpreter is named by ``CARDIACREG_PEERS_PYTHON`` and is by default this one; it needs NumPy and
antspyx alone, which may ask for an older NumPy than ours. Run as a program, this file fuses what a
folder holds; it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def interpreter() -> str:
    """Return the Python that peers run under."""
    return os.environ.get("CARDIACREG_PEERS_PYTHON", sys.executable)


@lru_cache
def version() -> str | None:
    """Return the version of ANTsPy under that interpreter; None where it is not installed."""
    code = "import importlib.metadata as m; print(m.version('antspyx'))"
    done = subprocess.run([interpreter(), "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def fuse(
    target: NDArray[np.float32],
    mask: NDArray[np.bool_],
    images: Sequence[NDArray[np.float32]],
    labels: Sequence[NDArray[np.uint8]],
    *,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    threads: int = 1,
    **options: Any,
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Fuse warped atlases by ANTs where a mask says, and keep the first one's labels elsewhere.

    Parameters
    ----------
    target : ndarray of float32, shape (i, j, k)
    mask : ndarray of bool, shape (i, j, k)
    images, labels : sequence of ndarray, shape (i, j, k)
        Of each atlas; labels from 0.
    spacing_mm : sequence of float
    threads : int
    **options
        Of ``ants.joint_label_fusion``; JSON.

    Returns
    -------
    labels : ndarray of uint8, shape (i, j, k)
    used : dict
        ``seconds`` and ``cpu_seconds`` of the call itself, ``package`` with its version.

    Raises
    ------
    RuntimeError
        If the process ended without a result; the text is its last words.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(
            folder / "given.npz", target=target, mask=mask, images=np.stack(images),
            labels=np.stack(labels), spacing_mm=np.asarray(spacing_mm, dtype=np.float64),
        )  # fmt: skip
        (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
        limits = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
        done = subprocess.run(
            [interpreter(), str(Path(__file__)), name], env=os.environ | limits,
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"ANTs: {' '.join(done.stderr.strip().splitlines()[-1:])}")
        used = json.loads((folder / "used.json").read_text(encoding="utf-8"))
        return np.load(folder / "labels.npy"), used


def _main(folder: Path) -> None:
    import ants

    given = np.load(folder / "given.npz")
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    mask, stack = given["mask"], given["labels"]
    spacing = tuple(float(step) for step in given["spacing_mm"])

    def image(array: Any) -> Any:
        return ants.from_numpy(np.ascontiguousarray(array, dtype=np.float32), spacing=spacing)

    target, images = image(given["target"]), [image(each) for each in given["images"]]
    # It takes label 0 for "no label" and never chooses it, so every label goes in as one more.
    maps = [image(each.astype(np.float32) + 1) for each in stack]
    start, cpu = time.perf_counter(), time.process_time()
    found = ants.joint_label_fusion(target, image(mask), images, label_list=maps, **options)
    used = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    inner = np.maximum(np.rint(found["segmentation"].numpy()) - 1, 0)
    np.save(folder / "labels.npy", np.where(mask, inner, stack[0]).astype(np.uint8))
    named = used | {"package": f"antspyx {ants.__version__}"}
    (folder / "used.json").write_text(json.dumps(named), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
