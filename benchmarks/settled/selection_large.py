"""Selection among a hundred thousand atlases: what an index finds of the best five, and what it saves.

The simulated bank of `benchmarks.atlases.selection`, ten times larger. Held are signatures alone, as
labels would not fit: they are made of the population model's hearts when asked for, which no time
includes. The truth is NMI with every one of the atlases, a chunk at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.atlases.selection import SimulatedBank, draw, measure_recall, recall_table
from benchmarks.harness import machine, tabulate

FIGURE = machine.ROOT / "docs" / "figures" / "selection_recall_large"


def run(quick: bool) -> dict[str, Any]:
    """Search all of a simulated bank, and by its index."""
    hearts, size, targets = (10, 60, 1) if quick else (400, 100_000, 6)
    result = measure_recall(SimulatedBank(hearts, size), targets)
    if not quick:
        draw(result, FIGURE)
    return result


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return what the index holds, and the curve of recall."""
    simulated, curves = result["simulated"], [each["curve"] for each in result["recall"]]
    proposing = 1e3 * np.median([p["proposing_seconds"] for c in curves for p in c.values()])
    brute = np.mean([each["brute_seconds"] for each in result["recall"]])
    row = [
        str(simulated["atlases"]), f"{simulated['index_megabytes']:.0f}", f"{proposing:.1f}",
        f"{brute:.1f}",
    ]  # fmt: skip
    return {
        "selection-large": tabulate.markdown(
            ["signatures", "MB", "one proposal, ms", "brute force, processor s"], [row]
        ),
        "selection-large-recall": recall_table(result),
    }
