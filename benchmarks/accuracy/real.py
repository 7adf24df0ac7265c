"""Real segmentations of patients: every one must run; the model must agree with its slices and be whole.

There is no high-resolution truth here. Measured are the agreement with the acquired slices after the
estimated shifts, topology, folding, smoothness and time; and, with every second slice hidden, how well
the hidden ones are filled (see `benchmarks.harness.hidden_slices`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.harness import hidden_slices, plots, scoring, tabulate
from benchmarks.harness.cases import Acquisition, DataAbsent, acdc, autofd, siblings
from benchmarks.harness.measuring import BASELINES, refine_quietly, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.anatomy.end_shapes import end_roughness
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.metrics import overlap
from cardiacreg.refinement.options import RefineOptions

_PATIENTS = 100
_SHOWN = ("LV cavity", "LV wall", "RV cavity")
LOWEST_AGREEMENT = 0.85
GAIN_WANTED = 0.03


def run(quick: bool, cases: int = _PATIENTS) -> dict[str, Any]:
    """Refine ACDC (every patient, or as many as asked for; 2 in a quick run) and AutoFD, ED and ES."""
    count = 2 if quick else min(cases, _PATIENTS)
    patients = tuple(1 + n * _PATIENTS // count for n in range(count))
    found: list[Acquisition] = []
    for load in (lambda: acdc(patients), autofd):
        try:
            found += load()
        except DataAbsent:
            continue
    if not found:
        raise DataAbsent("neither acdc nor autofd is there")
    units = [
        _unit(each, kind, siblings(each, found))
        for each in (found[:3] if quick else found)
        for kind in ("whole", "hidden")
    ]
    whole, hidden = [], []
    for unit, record in zip(units, gather("real", units), strict=True):
        (whole if unit.key["kind"] == "whole" else hidden).append(record)
    return {"seeds": [], "records": whole, "hidden": [each for r in hidden for each in _flat(r)]}


def _unit(acquisition: Acquisition, kind: str, others: Sequence[Acquisition] = ()) -> Unit:
    data = "AutoFD" if acquisition.name.startswith("autofd") else "ACDC"
    head = {"case": acquisition.name, "group": acquisition.group, "phase": acquisition.phase}
    head["data"] = data

    def measure() -> Record:
        if kind == "whole":
            return rounded(head | _measure(acquisition, others))
        try:
            return rounded(head | {"methods": hidden_slices.measure(acquisition, others)})
        except hidden_slices.TooFewSlices as few:
            return head | {"skipped": str(few)}

    told = {"frames": [each.name for each in others], "options": repr(RefineOptions())}
    return Unit(head | {"kind": kind} | told, measure)


def _flat(record: Record) -> list[Record]:
    """One record per method of a frame with hidden slices."""
    head = {key: value for key, value in record.items() if key != "methods"}
    if "methods" not in record:
        return [head | {"method": hidden_slices.OURS}]
    return [head | each for each in record["methods"]]


def _measure(acquisition: Acquisition, others: Sequence[Acquisition]) -> Record:
    start = time.perf_counter()
    result = refine_quietly(
        acquisition.labels,
        frames=[each.labels for each in others],
        preset=acquisition.preset,
        threads=1,
    )
    seconds = time.perf_counter() - start
    topology = {
        name: list(overlap.topology_counts(result.labels, label))
        for label, name in STRUCTURES.items()
    }
    slices = hidden_slices.canonical(acquisition)
    maps = {name: make(slices, result.labels) for name, make in BASELINES.items()}
    return {
        "seconds": seconds,
        "timings_seconds": result.timings_seconds,
        "agreement": result.agreement,
        "topology": topology,
        "minimum_jacobian": result.minimum_jacobian,
        "end_roughness": end_roughness(result.labels, result.target.labels),
        "orientation": [result.orientation.name, result.orientation.probability],
        "ends": [end.coverage for end in result.ends],
        "findings": [finding.code for finding in result.findings],
        "shift_rms_mm": float(np.sqrt((result.slice_shifts_mm**2).mean())),
        "volumes_ml": overlap.structure_volumes_ml(result.labels),
        "staircase_mm": {
            name: _staircases(labels) for name, labels in (maps | {"cardiacreg": result.labels}).items()
        },
        "warnings": [_without_folders(text, acquisition) for text in result.warnings],
        "structures_from_atlases": list(result.structures_from_atlases),
    }  # fmt: skip


def _staircases(labels: LabelMap) -> dict[str, float]:
    return {
        name: scoring.staircase_mm(labels, label)
        for label, name in STRUCTURES.items()
        if (labels.array == label).any()
    }


def _without_folders(text: str, acquisition: Acquisition) -> str:
    return text.replace(f"{acquisition.labels.parent}/", "")


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return agreement, robustness and where the agreement is lowest."""
    records = [_named(record) for record in result["records"]]
    columns = {
        "frames": lambda own: str(len(own)),
        "failed": lambda own: str(sum("error" in r for r in own)),
        **{name: _agreement(name) for name in ("LV cavity", "LV wall", "RV cavity")},
        "lowest of any structure": _lowest,
    }
    whole = {
        "frames": lambda own: str(len(own)),
        "one piece each": _share(lambda r: all(t[0] == 1 for t in r["topology"].values())),
        "no holes": _share(lambda r: all(t[1] == 0 for t in r["topology"].values())),
        "not folded": _share(lambda r: r["minimum_jacobian"] > 0),
        "smallest Jacobian": lambda own: f"{min(r['minimum_jacobian'] for r in _good(own)):.3f}",
        "seconds, median": lambda own: f"{np.median([r['seconds'] for r in _good(own)]):.2f}",
        "seconds, largest": lambda own: f"{max(r['seconds'] for r in _good(own)):.2f}",
    }
    if all("end_roughness" in r for r in _good(records)):
        whole["ragged ends, %"] = _end_roughness
        whole["mirrored"] = _share(lambda r: r["orientation"][0] == "mirrored")
        whole["orientation doubtful"] = _found("ORIENTATION_DOUBTFUL")
        whole["volume or ends worth a look"] = _found("VOLUME_DIFFERS", "BEYOND_ENDS")
    whole["flagged"] = lambda own: f"{sum(_flagged(r) for r in own)} of {len(own)}"
    hidden = [r for r in result.get("hidden", []) if "scores" in r]
    return {
        "real-agreement": tabulate.summary_table(records, columns),
        "real-robustness": tabulate.summary_table(records, whole),
        "real-groups": _by_group(records),
        "real-staircase": _staircase_table(records),
        "real-hidden": _hidden_table(hidden),
        "real-hidden-gain": _gain_table(hidden),
        "real-hidden-frames": _frames_table(result.get("hidden", [])),
        "real-hidden-worst": _worst_table(hidden),
    }


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return a box plot of the hidden slices of each data set."""
    hidden = [r for r in result.get("hidden", []) if "scores" in r]
    figures = {}
    for data in dict.fromkeys(r["data"] for r in hidden):
        own = [r for r in hidden if r["data"] == data]
        label = f"{data}: Dice, each\nhidden slice translated"
        figures[f"real-hidden-{data.lower()}"] = plots.boxes(
            own, "dice", label, alignment="translation", structures=_SHOWN
        )
    return figures


def _end_roughness(own: Sequence[dict[str, Any]]) -> str:
    return tabulate.mean_sd([100 * r["end_roughness"] for r in _good(own)], 1)


def _found(*codes: str) -> Any:
    """How many frames have one of these findings."""
    return _share(lambda r: bool(set(codes) & set(r["findings"])))


def _flagged(record: dict[str, Any]) -> bool:
    """Whether someone should look: failed, folded, torn, or far from its own slices."""
    if "error" in record or record["minimum_jacobian"] <= 0:
        return True
    known = [value for value in record["agreement"].values() if value is not None]
    torn = any(t[0] != 1 or t[1] != 0 for t in record["topology"].values())
    return torn or min(known) < LOWEST_AGREEMENT


def _staircase_table(records: Sequence[dict[str, Any]]) -> str:
    known = [r for r in records if "staircase_mm" in r]
    if not known:
        return "Not measured yet."
    rows = []
    for data in dict.fromkeys(r["data"] for r in known):
        own = [r["staircase_mm"] for r in known if r["data"] == data]
        for method in own[0]:
            cells = [
                tabulate.mean_sd([v for each in own if (v := each[method].get(name))], 2)
                for name in _SHOWN
            ]
            rows.append([f"{data}: {method}", *cells])
    return tabulate.markdown(["staircase score, mm", *_SHOWN], rows)


def _sets(hidden: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The records of each data set and phase, by name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in hidden:
        found.setdefault(f"{record['data']}, {record['phase']}", []).append(record)
    return found


def _hidden_table(hidden: Sequence[dict[str, Any]]) -> str:
    """Dice of the hidden slices per data set, method and alignment."""
    if not hidden:
        return "Not measured yet."
    rows = []
    for alignment, words in (("raw", "raw"), ("translation", "each slice translated")):
        for name, own in _sets(hidden).items():
            for method in tabulate.methods(own):
                cells = [
                    tabulate.mean_sd(tabulate.values(own, method, structure, "dice", alignment))
                    for structure in _SHOWN
                ]
                rows.append([f"{name}: {method}, {words}", *cells])
    return tabulate.markdown(["Dice of hidden slices", *_SHOWN], rows)


def _worst_table(hidden: Sequence[dict[str, Any]]) -> str:
    """The worst frame of every method, per data set and structure."""
    if not hidden:
        return "Not measured yet."
    rows = []
    for data in dict.fromkeys(record["data"] for record in hidden):
        own = [record for record in hidden if record["data"] == data]
        for method in tabulate.methods(own):
            cells = []
            for structure in _SHOWN:
                found = [
                    (r["scores"]["raw"][structure]["dice"], r["case"])
                    for r in own
                    if r["method"] == method and structure in r["scores"]["raw"]
                ]
                cells.append(f"{min(found)[0]:.3f} ({min(found)[1]})" if found else "–")
            rows.append([f"{data}: {method}", *cells])
    return tabulate.markdown(["lowest Dice of hidden slices of a frame, raw", *_SHOWN], rows)


def _gain_table(hidden: Sequence[dict[str, Any]]) -> str:
    """Gain over shape-based interpolation per data set, and whether it is what was wanted."""
    if not hidden:
        return "Not measured yet."
    rows = []
    for data in dict.fromkeys(record["data"] for record in hidden):
        own = [record for record in hidden if record["data"] == data]
        for alignment, words in (("raw", "raw"), ("translation", "each slice translated")):
            cells = [_gain(own, structure, alignment) for structure in _SHOWN]
            rows.append([f"{data}, all frames, {words}", *cells])
    header = f"gain over shape-based interpolation (goal {GAIN_WANTED:+.2f})"
    return tabulate.markdown([header, *_SHOWN], rows)


def _gain(records: Sequence[dict[str, Any]], structure: str, alignment: str) -> str:
    pair = (hidden_slices.OURS, "shape-based")
    ours, theirs = tabulate.paired(records, pair, structure, "dice", alignment)
    if not ours:
        return "–"
    gain = float(np.mean(ours) - np.mean(theirs))
    verdict = "reached" if gain >= GAIN_WANTED else "not reached"
    return f"{gain:+.3f} ({tabulate.p_text(scoring.wilcoxon_p(ours, theirs))}; {verdict})"


def _frames_table(hidden: Sequence[dict[str, Any]]) -> str:
    """How many frames and slices count, and how many could not."""
    if not hidden:
        return "Not measured yet."
    rows = []
    for name, own in _sets([r for r in hidden if r["method"] == hidden_slices.OURS]).items():
        good = [r for r in own if "scores" in r]
        distances = sorted({round(r["distance_mm"]) for r in good})
        rows.append(
            [
                name,
                str(len(good)),
                str(sum(r["slices"] for r in good)),
                f"{distances[0]} to {distances[-1]}" if good else "–",
                str(sum("skipped" in r for r in own)),
                str(sum("error" in r for r in own)),
            ]
        )
    header = ["frames", "hidden slices scored", "distance of kept slices, mm", "too few slices"]
    return tabulate.markdown(["hidden slices", *header, "failed"], rows)


def _named(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"method": f"{record['data']}, {record['phase']}"}


def _good(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if "error" not in record]


def _agreement(name: str) -> Any:
    def make(own: Sequence[dict[str, Any]]) -> str:
        found = [r["agreement"][name] for r in _good(own) if r["agreement"][name] is not None]
        return tabulate.mean_sd(found)

    return make


def _lowest(own: Sequence[dict[str, Any]]) -> str:
    found = [
        (value, record["case"], name)
        for record in _good(own)
        for name, value in record["agreement"].items()
        if value is not None
    ]
    value, case, name = min(found)
    return f"{value:.3f} ({name}, {case})"


def _share(holds: Any) -> Any:
    return lambda own: f"{sum(bool(holds(r)) for r in _good(own))} of {len(own)}"


def _by_group(records: list[dict[str, Any]]) -> str:
    chosen = [
        r | {"method": f"{r['group']}, {r['phase']}"} for r in _good(records) if r["data"] == "ACDC"
    ]
    columns = {
        "frames": lambda own: str(len(own)),
        **{name: _agreement(name) for name in ("LV cavity", "LV wall", "RV cavity")},
    }
    return tabulate.summary_table(sorted(chosen, key=lambda r: r["method"]), columns)
