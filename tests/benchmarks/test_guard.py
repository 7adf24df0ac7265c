"""The arithmetic of the guard of speed; nothing is timed here."""

from pathlib import Path

import pytest

from benchmarks.speed import guard

RUNS = {
    "import": {
        "base": [{"seconds": s, "peak_mb": 50.0} for s in (0.1, 9.0, 0.2)],
        "own": [{"seconds": s, "peak_mb": 60.0} for s in (0.3, 0.3, 0.1)],
    },
    "refine": {
        "base": [{"seconds": 2.0, "peak_mb": 0.0}],
        "own": [{"seconds": 1.0, "peak_mb": 0.0}],
    },
}


def test_ratios_are_those_of_medians():
    found = guard.ratios(RUNS)
    assert found["import"] == pytest.approx({"seconds": 1.5, "peak_mb": 1.2})
    assert found["refine"] == {"seconds": 0.5}, "memory that no system tells has no ratio"


def test_only_what_is_over_the_limit_is_named():
    found = guard.ratios(RUNS)
    assert guard.over(found, 1.25) == [("import", "seconds")]
    assert guard.over(found, 1.1) == [("import", "seconds"), ("import", "peak_mb")]
    assert guard.over(found, 2.0) == []
    shown = guard.table(RUNS, found, 1.25).splitlines()
    assert [line.endswith("over 1.25") for line in shown] == [False, True, False, False]


def test_trees_go_first_in_turn_after_one_run_each():
    seen = []

    def measure(tree, name):
        seen.append(tree.name)
        return {"seconds": float(len(seen))}

    runs = guard.measure_in_turn(Path("old"), Path("new"), ["import"], 2, measure)
    assert seen == ["old", "new", "old", "new", "new", "old"]
    base, own = [{"seconds": 3.0}, {"seconds": 6.0}], [{"seconds": 4.0}, {"seconds": 5.0}]
    assert runs == {"import": {"base": base, "own": own}}


@pytest.mark.parametrize(("limit", "code"), [("1.25", 1), ("2", 0)])
def test_the_exit_code_tells(limit, code, monkeypatch, capsys):
    monkeypatch.setattr(guard, "_git", lambda *_: None)
    monkeypatch.setattr(guard, "_compile", lambda _: None)
    monkeypatch.setattr(guard, "measure_in_turn", lambda *_: RUNS)
    assert guard.main(["--base", "HEAD", "--limit", limit]) == code
    assert "own/base" in capsys.readouterr().out


def test_programs_can_be_compiled():
    for name, program in guard.PROGRAMS.items():
        compile(f"{guard._PEAK}{guard._START}{program}{guard._END}", name, "exec")
