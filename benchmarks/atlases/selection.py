"""Selection: milliseconds per atlas, and what an index saves in a bank of ten thousand.

Targets are unseen synthetic hearts as thick, shifted stacks. *Brute force* fits every atlas by its
landmarks and ranks all by NMI; the embedded atlases are repeated until there are 231, as the paper has.
The large bank is simulated: hearts of the population model, brought into one frame by their landmarks,
and shapes between pairs of them (signed distances mixed, the nearest structure wins) until the bank is
full; lattice 4 x 4 x 6 mm. The index proposes, NMI decides; recall is the share of the true best five
among the proposed. Labels are made when they are asked for, which no time includes. A hundred thousand
atlases are measured by `benchmarks.settled.selection_large`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.harness import machine, tabulate
from benchmarks.harness.cases import degrade
from benchmarks.harness.measuring import rounded
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.atlases.embedded import default_atlases
from cardiacreg.atlases.index import AtlasIndex, read_labels_at, telling_points
from cardiacreg.atlases.ranking import diversity, rank_atlases
from cardiacreg.compute.threads import run_tasks
from cardiacreg.geometry import N_LABELS, Affine, LabelMap, Landmarks, Subject, voxel_grid
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, GROUPS, PHASES, sample_heart
from cardiacreg.registration.landmark_affine import fit_landmark_affine

SPACING_MM = (4.0, 4.0, 6.0)
PROPOSED = (5, 10, 20, 40, 80, 160, 320, 640)
PAPERS_BANK = 231
POINTS = 2000
_CHUNK = 500
FIGURE = machine.ROOT / "docs" / "figures" / "selection_recall"


def run(quick: bool) -> dict[str, Any]:
    """Measure brute force on the embedded bank, and the index on a simulated one."""
    hearts, size, targets = (20, 200, 2) if quick else (400, 10_000, 6)
    result = {
        "brute": rounded(_brute(3 if quick else 5)),
        "paper": rounded(_papers_bank(3 if quick else 15)),
        **measure_recall(SimulatedBank(hearts, size), targets),
    }
    if not quick:
        draw(result, FIGURE)
    return result


def measure_recall(bank: SimulatedBank, n_targets: int) -> dict[str, Any]:
    """Search a simulated bank for unseen targets, all of it and by an index."""
    targets = [_target(n) for n in range(n_targets)]
    affines = [fit_landmark_affine(points, bank.template).target_to_atlas for _, points in targets]
    index, seconds = bank.index()
    nmi, brute = bank.score([labels for labels, _ in targets], affines)
    return {
        "seeds": [FIRST_EVALUATION_SEED + n for n in range(n_targets)],
        "simulated": {
            "hearts": bank.hearts,
            "atlases": len(bank),
            "index_seconds": round(seconds, 2),
            "index_megabytes": round(index.signatures.nbytes / 1e6, 1),
        },
        "recall": rounded(
            [
                {"target": n, **_recall(bank, index, targets[n], affines[n], nmi[n], brute[n])}
                for n in range(n_targets)
            ]
        ),
    }


def _target(number: int) -> tuple[LabelMap, Landmarks]:
    group, phase = sorted(GROUPS)[number % len(GROUPS)], PHASES[number // len(GROUPS) % 2]
    seed = FIRST_EVALUATION_SEED + number
    heart = sample_heart(seed, group=group, phase=phase, with_image=False)
    labels = degrade(heart, seed).subject.labels
    return labels, landmarks_from_labels(labels)


def _brute(repeats: int) -> dict[str, Any]:
    """Processor milliseconds per atlas of the embedded bank, and how diverse the best five are."""
    bank = default_atlases()
    labels, landmarks = _target(0)
    times: dict[str, list[float]] = {"read": [], "fit": [], "rank": []}
    for _ in range(repeats):
        start = time.process_time()
        atlases = [bank.without_image(n) for n in range(len(bank))]
        times["read"].append(time.process_time() - start)
        start = time.process_time()
        affines = [fit_landmark_affine(landmarks, _own(atlas)).target_to_atlas for atlas in atlases]
        times["fit"].append(time.process_time() - start)
        start = time.process_time()
        ranked = rank_atlases(labels, atlases, affines, threads=1)
        times["rank"].append(time.process_time() - start)
    best = [r.index for r in ranked[:5]]
    return {
        "atlases": len(bank),
        "target_voxels": int(np.prod(labels.shape)),
        "milliseconds_per_atlas": {
            name: 1e3 * statistics.median(values) / len(bank) for name, values in times.items()
        },
        "diversity_of_five": diversity(
            labels, [atlases[n] for n in best], [affines[n] for n in best]
        ),
    }


def _papers_bank(repeats: int) -> dict[str, Any]:
    """Seconds for the whole selection among as many atlases as the paper has, on two threads."""
    bank = default_atlases()
    labels, landmarks = _target(0)
    bank = bank.subset([n % len(bank) for n in range(PAPERS_BANK)])
    wall, processor = [], []
    for _ in range(repeats):
        start, started = time.perf_counter(), time.process_time()
        atlases = run_tasks(bank.without_image, range(len(bank)), threads=2, step="read")
        affines = run_tasks(
            lambda atlas: fit_landmark_affine(landmarks, _own(atlas)).target_to_atlas, atlases,
            threads=2, step="align",
        )  # fmt: skip
        rank_atlases(labels, atlases, affines, threads=2)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - started)
    return {
        "atlases": len(bank),
        "wall_seconds": {"least": min(wall), "median": statistics.median(wall)},
        "processor_seconds": {"least": min(processor), "median": statistics.median(processor)},
    }


def _own(atlas: Subject) -> Landmarks:
    assert atlas.landmarks is not None
    return atlas.landmarks


class SimulatedBank:
    """Many label maps in one frame, made of few hearts of the population model when asked for."""

    def __init__(self, hearts: int, size: int) -> None:
        rng = np.random.default_rng(0)
        groups = sorted(GROUPS)
        subjects = [
            sample_heart(
                1_000 + n, group=groups[n % len(groups)], phase=PHASES[n // len(groups) % 2],
                spacing_mm=SPACING_MM, with_image=False,
            )
            for n in range(hearts)
        ]  # fmt: skip
        self.hearts, self.template = hearts, _own(subjects[0])
        self.shape = subjects[0].labels.shape
        self.matrix = subjects[0].labels.voxel_to_world
        depths = np.stack([self._depths(subject) for subject in subjects])
        self.depths = depths.reshape(hearts, N_LABELS, -1)
        itself = [(n, n, 1.0) for n in range(hearts)]
        self.recipes = itself + [
            (*rng.choice(hearts, 2, replace=False).tolist(), rng.uniform(0.2, 0.8))
            for _ in range(hearts, size)
        ]

    def __len__(self) -> int:
        return len(self.recipes)

    def labels_at(self, number: int, voxels: Any) -> NDArray[np.uint8]:
        """Labels of one atlas at some voxels, counted along the lattice."""
        first, second, share = self.recipes[number]
        mixed = self.depths[first][:, voxels] * np.float32(share)
        mixed += self.depths[second][:, voxels] * np.float32(1 - share)
        return mixed.argmax(axis=0).astype(np.uint8)

    def subject(self, number: int) -> Subject:
        """One atlas."""
        labels = self.labels_at(number, slice(None)).reshape(self.shape)
        return Subject(LabelMap(labels, self.matrix))

    def _depths(self, subject: Subject) -> NDArray[np.float32]:
        """Signed distance to each label's border in the common frame, in voxels, inside positive."""
        affine = fit_landmark_affine(self.template, _own(subject)).target_to_atlas
        points = affine.apply(voxel_grid(self.shape, self.matrix).reshape(-1, 3))
        labels = read_labels_at(subject.labels, points).reshape(self.shape)
        spread = np.empty((N_LABELS, *self.shape), dtype=np.float32)
        for label in range(N_LABELS):
            own = labels == label
            inside = ndimage.distance_transform_edt(own) if own.any() else 0.0
            outside = ndimage.distance_transform_edt(~own) if not own.all() else 0.0
            spread[label] = inside - outside
        return spread

    def index(self) -> tuple[AtlasIndex, float]:
        """Index the bank by its own voxels; the time is that of choosing points and of packing."""
        sample = [self.labels_at(n, slice(None)) for n in range(0, len(self), -(-len(self) // 500))]
        start = time.process_time()
        chosen = telling_points(np.stack(sample), POINTS)
        spent = time.process_time() - start
        signatures = np.stack([self.labels_at(n, chosen) for n in range(len(self))])
        points = voxel_grid(self.shape, self.matrix).reshape(-1, 3)[chosen]
        return AtlasIndex(self.template, points, signatures), spent

    def score(
        self, targets: Sequence[LabelMap], affines: Sequence[Affine]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """NMI of every target with every atlas, and the processor seconds of each target."""
        nmi, spent = np.empty((len(targets), len(self))), np.zeros(len(targets))
        for first in range(0, len(self), _CHUNK):
            numbers = range(first, min(first + _CHUNK, len(self)))
            atlases = [self.subject(n) for n in numbers]
            for n, (target, affine) in enumerate(zip(targets, affines, strict=True)):
                start = time.process_time()
                ranked = rank_atlases(target, atlases, [affine] * len(atlases), threads=1)
                spent[n] += time.process_time() - start
                for each in ranked:
                    nmi[n, first + each.index] = each.nmi
        return nmi, spent


def _recall(
    bank: SimulatedBank,
    index: AtlasIndex,
    target: tuple[LabelMap, Landmarks],
    affine: Affine,
    nmi: NDArray[np.float64],
    brute: float,
) -> dict[str, Any]:
    """How many of the best five by NMI over the whole bank an index finds, and in what time."""
    true, curve = np.argsort(-nmi, kind="stable")[:5].tolist(), {}
    for count in PROPOSED:
        start = time.process_time()
        proposed = index.propose(*target, count)
        proposing = time.process_time() - start
        atlases = [bank.subject(n) for n in proposed]
        start = time.process_time()
        ranked = rank_atlases(target[0], atlases, [affine] * len(atlases), threads=1)
        seconds = proposing + time.process_time() - start
        chosen = {int(proposed[each.index]) for each in ranked[:5]}
        curve[str(count)] = {
            "recall": len(chosen & set(true)) / 5,
            "proposing_seconds": proposing,
            "seconds": seconds,
            "times_less": brute / seconds,
        }
    return {"brute_seconds": float(brute), "curve": curve}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return milliseconds per atlas and the curve of recall."""
    brute = result["brute"]
    spent = brute["milliseconds_per_atlas"]
    rows = [[name, f"{value:.2f}"] for name, value in spent.items()]
    rows.append(["all", f"{sum(spent.values()):.2f}"])
    return {
        "selection-brute": tabulate.markdown(["step", "processor ms per atlas"], rows),
        "selection-recall": recall_table(result),
        **_papers_table(result),
    }


def recall_table(result: dict[str, Any]) -> str:
    """Recall and time against the number of atlases proposed."""
    curve = []
    for count in result["recall"][0]["curve"]:
        points = [each["curve"][count] for each in result["recall"]]
        curve.append(
            [
                count,
                f"{np.mean([p['recall'] for p in points]):.3f}",
                f"{1e3 * np.mean([p['seconds'] for p in points]):.1f}",
                f"{np.mean([p['times_less'] for p in points]):.0f}",
            ]
        )
    return tabulate.markdown(
        ["proposed", "recall of the best five", "ms", "times less than brute force"], curve
    )


def _papers_table(result: dict[str, Any]) -> dict[str, str]:
    """The whole selection in a bank of the paper's size."""
    paper = result["paper"]
    wall, processor = paper["wall_seconds"], paper["processor_seconds"]
    times = [f"{each:.3f}" for each in (wall["least"], wall["median"], processor["median"])]
    return {
        "selection-paper": tabulate.markdown(
            ["atlases", "wall s, least", "wall s, median", "processor s, median"],
            [[str(paper["atlases"]), *times]],
        )
    }


def draw(result: dict[str, Any], stem: Path) -> None:
    """Write recall against time saved as PNG and SVG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    counts = list(result["recall"][0]["curve"])
    recall = [np.mean([r["curve"][c]["recall"] for r in result["recall"]]) for c in counts]
    saved = [np.mean([r["curve"][c]["times_less"] for r in result["recall"]]) for c in counts]
    panel.semilogx(saved, recall, "o-", color="#1f5f99")
    for count, x, y in zip(counts, saved, recall, strict=True):
        panel.annotate(count, (x, y), textcoords="offset points", xytext=(4, -11), fontsize=8)
    panel.set_xlabel("times less than brute force")
    ticks = [
        n for n in (10, 20, 50, 100, 200, 500, 1000, 2000) if saved[-1] / 2 < n < 2 * max(saved)
    ]
    panel.set_xticks(ticks, [str(n) for n in ticks])
    panel.minorticks_off()
    panel.set_ylabel("recall of the best five by NMI")
    panel.set_ylim(0, 1.05)
    panel.grid(color="0.9")
    panel.set_title(f"{result['simulated']['atlases']} atlases; labels: proposed", fontsize=10)
    figure.tight_layout()
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".png"))
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
