"""The benchmark of false alarms with both frames: what counts as an alarm, and what raised it."""

from benchmarks.accuracy.two_frames import GIVEN, tables


def told(verdict="accept", score=0.7, codes=(), warnings=()):
    return {"verdict": verdict, "score": score, "codes": list(codes), "warnings": list(warnings)}


def test_counts_patients_with_an_alarm_and_names_what_raised_it():
    good = {part: told() for part in GIVEN.values()}
    looked = told("look", 0.4, ["VOLUME_DIFFERS"])
    bad = good | {"ES": looked, "both": looked}
    warned = good | {"ED": told(warnings=["x: overlap."]), "both": told(warnings=["x: overlap."])}
    cases = [
        {"case": n, **each} for n, each in (("a", good), ("b", bad), ("c", warned), ("d", good))
    ]
    found = tables({"records": [*cases, {"case": "e", "failed": "not measured"}]})
    rows = {line.split(" | ")[0].strip("| "): line for line in found["two-frames"].splitlines()}
    assert "1 of 4 (25 %)" in rows["end-systole, told of end-diastole"]
    assert "2 of 4 (50 %)" in rows["a report of both"]
    assert "0 of 4 (0 %)" in rows["end-systole alone"]
    assert rows["a report of both"].split(" | ")[3] == "25 %", "score at most 0.5"
    raised = found["two-frames-raised"].splitlines()[2:]
    assert raised == ["| b | – | `VOLUME_DIFFERS` |", "| c | warning | – |"]
