"""The stored predictions of unseen patients, by diagnosis and phase: agreement, limits, and the worst.

Made from the records of `network_acdc`; nothing is measured anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.harness import tabulate
from benchmarks.harness.store import Record

_POOLED = "folds pooled"
_NAMES = ("LV cavity", "LV wall", "RV cavity")
_LOW_DICE = 0.7
_DENSITY_G_PER_ML = 1.05
_GROUPS = {
    "NOR": "healthy", "DCM": "dilated", "HCM": "hypertrophic", "MINF": "infarction", "RV": "RV disease",
}  # fmt: skip


def group_tables(records: Sequence[Record]) -> dict[str, str]:
    """Return the tables of the folds pooled; empty ones where no fold was measured.

    Parameters
    ----------
    records : sequence of Record
        Those of `network_acdc` without errors.
    """
    own = [record for record in records if _POOLED in record["method"]]
    return {
        "nn-acdc-groups": _groups(own),
        "nn-acdc-limits": _limits(own),
        "nn-acdc-worst": _worst(own),
    }


def _groups(records: Sequence[Record]) -> str:
    """Dice and Hausdorff distance by diagnosis and phase."""
    rows = []
    for group, words in _GROUPS.items():
        for phase in ("ED", "ES"):
            own = [r["scores"] for r in records if (r["group"], r["phase"]) == (group, phase)]
            if not own:
                continue
            dice = [_values(own, name, "dice") for name in _NAMES]
            apart = [f"{np.mean(_values(own, name, 'hausdorff_mm')):.1f}" for name in _NAMES]
            rows.append([
                f"{words}, {phase}", str(len(own)), *map(tabulate.mean_sd, dice), " / ".join(apart),
            ])  # fmt: skip
    header = ["Dice by diagnosis", "frames", *_NAMES, "Hausdorff, mm"]
    return tabulate.markdown(header, rows)


def _values(scores: Sequence[Record], name: str, figure: str) -> list[float]:
    return [float(each[name][figure]) for each in scores if each[name][figure] is not None]


def _limits(records: Sequence[Record]) -> str:
    """Mean error and 95 % limits of agreement of volumes, mass and ejection fractions."""
    rows = []
    for phase in ("ED", "ES"):
        own = [r["scores"] for r in records if r["phase"] == phase]
        for name in ("LV cavity", "RV cavity"):
            rows.append(
                [f"{name}, {phase}, ml", *_agreement(_values(own, name, "volume_error_ml"))]
            )
    mass = [
        _DENSITY_G_PER_ML * error
        for error in _values(
            [r["scores"] for r in records if r["phase"] == "ED"], "LV wall", "volume_error_ml"
        )
    ]
    rows.append(["LV mass, ED, g", *_agreement(mass)])
    rows += [
        [
            f"{side} ejection fraction, points",
            *_agreement(_ejection_errors(records, f"{side} cavity")),
        ]
        for side in ("LV", "RV")
    ]
    header = ["found minus true", "n", "mean", "95 % limits of agreement", "mean absolute error"]
    return tabulate.markdown(header, rows)


def _agreement(errors: Sequence[float]) -> list[str]:
    if len(errors) < 2:
        return [str(len(errors)), "–", "–", "–"]
    mean, reach = float(np.mean(errors)), 1.96 * float(np.std(errors, ddof=1))
    limits = f"[{mean - reach:+.1f}, {mean + reach:+.1f}]"
    return [str(len(errors)), f"{mean:+.1f}", limits, f"{np.mean(np.abs(errors)):.1f}"]


def _ejection_errors(records: Sequence[Record], name: str) -> list[float]:
    patients: dict[str, dict[str, Record]] = {}
    for record in records:
        patients.setdefault(record["case"][:10], {})[record["phase"]] = record["scores"][name]
    errors = []
    for phases in patients.values():
        if {"ED", "ES"} <= set(phases):
            found, true = (
                [phases[phase][figure] for phase in ("ED", "ES")]
                for figure in ("volume_ml", "true_volume_ml")
            )
            if all(found[:1]) and all(true[:1]):
                errors.append(100 * (true[1] / true[0] - found[1] / found[0]))
    return errors


def _worst(records: Sequence[Record]) -> str:
    """Every frame with a structure below the least Dice, worst first."""
    low = []
    for record in records:
        for name, scores in record["scores"].items():
            if scores["dice"] is not None and scores["dice"] < _LOW_DICE:
                low.append((float(scores["dice"]), record, name))
    low.sort(key=lambda each: each[0])
    rows = [
        [
            f"{record['case'].split('_')[0]}, {record['phase']}", _GROUPS.get(record["group"], "–"), name,
            f"{dice:.3f}", f"{record['scores'][name]['volume_ml']:.1f}",
            f"{record['scores'][name]['true_volume_ml']:.1f}",
        ]
        for dice, record, name in low
    ]  # fmt: skip
    header = [f"below {_LOW_DICE}", "diagnosis", "structure", "Dice", "found, ml", "true, ml"]
    return tabulate.markdown(header, rows)
