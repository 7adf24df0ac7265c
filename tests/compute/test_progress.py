"""One share that only grows, and a bar that shows it."""

import io
import re
import time

import pytest

from cardiacreg import Progress, ProgressBar
from cardiacreg.compute.progress import (
    WholeProgress,
    part_of,
    parts_of_command,
    stages_of,
    whole_progress,
)


def test_the_share_grows_to_one_whatever_comes_again():
    seen = []
    tell = WholeProgress(seen.append, stages_of())
    for step in (
        "align",
        "select",
        "align",
        "select",
        "affine",
        "slice motion",
        "register",
        "fuse",
    ):
        for done in (1, 2):
            tell(Progress(step, done, 2))
    tell(Progress("unheard of", 1, 1))
    tell(Progress("compare", 1, 1))
    shares = [report.share for report in seen]
    assert shares == sorted(shares) and 0 < shares[0] < 0.1 and shares[-1] == pytest.approx(1)
    assert seen[0].title == "aligning atlases by landmarks" and seen[-2].title == "unheard of"
    assert (seen[0].step, seen[0].done, seen[0].total) == ("align", 1, 2)


def test_compiling_takes_a_share_only_where_it_is_needed():
    seen = []
    for compiles in (False, True):
        WholeProgress(seen.append, stages_of(compiles=compiles))(Progress("compile", 1, 1))
    assert seen[0].share == 0 and seen[1].share > 0.5


def test_a_cine_weighs_what_is_done_in_every_frame():
    before, after = [], []
    WholeProgress(before.append, stages_of(2))(Progress("slice motion", 1, 1))
    WholeProgress(after.append, stages_of(20))(Progress("slice motion", 1, 1))
    assert after[0].share < before[0].share / 2


def test_several_refinements_are_one_whole():
    seen = []
    for number, name in enumerate(("ED", "ES")):
        tell = whole_progress(part_of(seen.append, number, 2, name), stages_of())
        for step in stages_of():
            tell(Progress(step, 1, 1))
    shares = [report.share for report in seen]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    assert seen[3].title.startswith("ED: ") and seen[-1].title.startswith("ES: ")


def test_nobody_listens():
    assert part_of(None, 0, 2) is None and whole_progress(None, stages_of()) is None


def percentages(text):
    return [int(each) for each in re.findall(r"(\d+)%", text)]


def test_a_bar_names_the_step_and_never_goes_back():
    stream = io.StringIO()
    with ProgressBar(file=stream, mininterval=0) as bar:
        for share, title in ((0.2, "ranking atlases"), (0.1, "again"), (1.0, "comparing")):
            bar(Progress("x", 1, 1, title, share))
    shown = stream.getvalue()
    assert percentages(shown) == sorted(percentages(shown)) and percentages(shown)[-1] == 100
    assert "ranking atlases" in shown and "comparing" in shown and "left" in shown


def test_a_bar_ticks_while_a_step_is_long():
    stream = io.StringIO()
    with ProgressBar(file=stream) as bar:
        bar(Progress("x", 1, 4))
        before, waited = len(stream.getvalue()), 0
        while len(stream.getvalue()) == before and waited < 100:
            time.sleep(0.1)
            waited += 1
        assert len(stream.getvalue()) > before


def test_a_bar_counts_patients_of_a_cohort():
    class Run:
        n_settled, total = 3, 4

    class Outcome:
        subject = "p3"

    stream = io.StringIO()
    with ProgressBar(file=stream) as bar:
        bar(Run(), Outcome())
        bar.write("failed p3")
    assert "3 of 4 patients" in stream.getvalue() and "75%" in stream.getvalue()
    assert "failed p3\n" in stream.getvalue()


def test_what_a_command_does_is_one_whole():
    seen = []
    parts = parts_of_command(seen.append, phases=2, only=("refine", "report", "save"))
    for share in (0.5, 1.0):
        parts.of("refine")(Progress("fuse", 1, 1, "fusing labels", share))
    with parts.step("report") as within:
        within(Progress("report", 0, 1, "report: pictures", 0.5))
    with parts.step("surfaces") as unwanted:
        assert unwanted is None
    with parts.step("save"):
        assert seen[-1].share < 1
    shares = [report.share for report in seen]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1) and max(shares[:-1]) < 1
    assert [report.title for report in seen[-2:]] == ["drawing figures and saving"] * 2


def test_parts_weigh_what_is_asked_for():
    def share_of_refining(**how):
        seen = []
        how = {"only": ("refine", "report", "save")} | how
        parts_of_command(seen.append, **how).of("refine")(Progress("fuse", 1, 1, "", 1.0))
        return seen[0].share

    alone = share_of_refining()
    assert share_of_refining(phases=2) < alone < share_of_refining(only=("refine", "save"))
    assert share_of_refining(outside=True) < alone
    assert share_of_refining(n_frames=20, together=True) > alone
    assert parts_of_command(None, only=("refine",)).of("refine") is None
