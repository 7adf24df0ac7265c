"""Every command from outside: results on stdout, one-line errors on stderr, exit codes as documented."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from cardiacreg import __version__
from cardiacreg.anatomy import stack_coverage
from cardiacreg.atlases.packed import SHIPPED
from cardiacreg.cli import heart, simulate
from cardiacreg.cli.app import main
from cardiacreg.cli.support import ProgressLines, in_options
from cardiacreg.compute import cache_files
from cardiacreg.compute.threads import Progress
from cardiacreg.errors import RefinementError
from cardiacreg.geometry import LabelMap
from cardiacreg.io import nifti
from cardiacreg.phantoms import population
from cardiacreg.phantoms.acquisition import Degradation
from cardiacreg.phantoms.stack_labels import LabelRule
from cardiacreg.refinement import _refine
from cardiacreg.refinement.options import ORIENTATIONS, RefineOptions
from cardiacreg.results.files import FILE_NAMES
from cardiacreg.results.guards import find_problems
from cardiacreg.results.result import Orientation

COMMANDS = (
    "refine", "segment", "run", "surfaces", "measure", "demo", "simulate", "evaluate", "presets", "atlas",
    "cache", "doctor",
)  # fmt: skip


def run(*arguments):
    """Run a command in this process; never with a traceback."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refine_arguments(files, output, *more):
    spacing = ("--spacing", 2.5, 2.5, 4)
    return ("refine", "-i", files.labels, "--atlases", files.atlases, *spacing, "-o", output, *more)


def assert_one_line_error(result, code, exit_code=1):
    assert result.exit_code == exit_code
    lines = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and lines[0].startswith(f"error [{code}]: ")
    assert "Traceback" not in result.stderr


# --- help and version


def test_help_names_every_command_and_exit_code():
    text = run("--help").stdout
    assert all(command in text for command in COMMANDS)
    for code in ("0 ", "1 ", "2 ", "3 ", "130 "):
        assert f"\n    {code}" in text


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, ("atlas", "build"), ("atlas", "info"), ("cache", "info"), ("cache", "clear")],
)
def test_every_command_has_help_with_exit_codes(command):
    words = (command,) if isinstance(command, str) else command
    result = run(*words, "--help")
    assert result.exit_code == 0 and "Exit codes:" in result.stdout


def test_every_option_says_what_it_does():
    undocumented = [
        f"{command.name} {option.opts[0]}"
        for group in (main, main.commands["atlas"], main.commands["cache"])
        for command in group.commands.values()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
        if option.opts[-1] not in ("--output", "--group", "--phase", "--lost-apical-slices")
    ]
    assert undocumented == []


@pytest.mark.parametrize("group", [(), ("cohort",), ("atlas",), ("cache",)])
def test_lists_of_commands_are_whole_sentences_on_80_columns(group, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = run(*group, "-h")
    assert shown.exit_code == 0 and shown.stdout == run(*group, "--help").stdout
    listed = shown.stdout.partition("Commands:")[2].partition("Exit codes:")[0]
    lines = [line for line in listed.splitlines() if line.strip()]
    assert lines and all(line.endswith(".") and "..." not in line for line in lines), listed


def test_version():
    assert run("--version").stdout.split()[-1] == __version__


def test_help_loads_nothing_heavy():
    check = (
        "import sys, cardiacreg.cli.app; "
        "print([m for m in ('numba', 'scipy', 'torch', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


# --- refine


def test_refine_in_a_process_of_its_own(tiny_files, tmp_path):
    arguments = refine_arguments(
        tiny_files, tmp_path / "out", "--image", tiny_files.image, "--surface"
    )
    shown = subprocess.run(
        [sys.executable, "-m", "cardiacreg", *map(str, arguments)], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILE_NAMES, "surface.png"}
    assert "LV cavity" in shown.stdout and "registering atlases" in shown.stderr
    assert shown.stderr.count("warning: atlases: 5 asked for, 2 there") == 1
    findings = json.loads((tmp_path / "out" / "result.json").read_text())["findings"]
    lines = shown.stderr.splitlines()
    told = {finding["code"]: in_options(finding["message"]) for finding in findings}
    assert findings and lines[-len(findings) :] == [
        f"warning [{code}]: {message}" for code, message in told.items()
    ]
    assert all(shown.stderr.count(message) == 1 for message in told.values())


def test_refine_prints_json_and_obeys_overwrite(tiny_files, tmp_path):
    arguments = refine_arguments(tiny_files, tmp_path / "out", "--json", "-q", "--threads", 1)
    first = run(*arguments)
    found = json.loads(first.stdout)
    assert first.exit_code == 0 and found["folder"] == str(tmp_path / "out")
    assert found["provenance"]["threads"] == 1
    assert "register" not in first.stderr
    before = (tmp_path / "out" / "labels.nii.gz").read_bytes()
    assert_one_line_error(run(*arguments), "OUTPUT_EXISTS")
    for preset in ("paper", "fast"):
        assert run(*arguments, "--overwrite", "--method", preset).exit_code == 0
        after = (tmp_path / "out" / "labels.nii.gz").read_bytes()
        assert after != before
        before = after


def test_refine_takes_a_preset(tiny_files, tmp_path):
    labels = nifti.read_labels(tiny_files.labels)
    acdc = np.array([0, 3, 2, 0, 1], dtype=np.uint8)[labels.array]
    nifti.write_labels(tmp_path / "acdc.nii.gz", LabelMap(acdc, labels.voxel_to_world))
    files = type(tiny_files)(tmp_path / "acdc.nii.gz", tiny_files.image, tiny_files.atlases)
    result = run(*refine_arguments(files, tmp_path / "out", "--preset", "acdc", "--json", "-q"))
    assert json.loads(result.stdout)["structures_from_atlases"] == ["RV wall"]
    wrong = run(*refine_arguments(files, tmp_path / "no", "--preset", "mms"))
    assert_one_line_error(wrong, "WRONG_PRESET")
    assert not (tmp_path / "no").exists()


def test_refine_chooses_by_metadata_and_by_image(tiny_files, tmp_path):
    atlases = shutil.copytree(tiny_files.atlases, tmp_path / "atlases")
    for name, phase in (("small", "ED"), ("smaller", "ES")):
        (atlases / name / "metadata.json").write_text(json.dumps({"phase": phase, "age": 60}))
    files = type(tiny_files)(tiny_files.labels, tiny_files.image, atlases)
    more = (
        "--image",
        files.image,
        "--select-by",
        "image",
        "--only",
        "phase=ES",
        "--only",
        "age=60",
    )
    result = run(*refine_arguments(files, tmp_path / "out", *more, "--json", "-q"))
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [(atlas["name"], atlas["index"]) for atlas in found["atlases"]] == [("smaller", 1)]
    assert found["options"]["selection"] == "image" and found["atlas_diversity"] == 0
    assert found["options"]["metadata"] == [["phase", ["ES"]], ["age", ["60"]]]
    both = ("--only", "phase=ES", "--only", "phase=ED")
    result = run(*refine_arguments(files, tmp_path / "both", *both))
    assert "the chosen atlases differ on" in result.stdout
    assert len(json.loads((tmp_path / "both" / "result.json").read_text())["atlases"]) == 2
    none = run(*refine_arguments(files, tmp_path / "no", "--only", "phase=systole"))
    assert_one_line_error(none, "EMPTY_BANK")
    assert "there is phase ED, ES" in none.stderr
    blind = run(*refine_arguments(files, tmp_path / "no", "--select-by", "image"))
    assert_one_line_error(blind, "NO_IMAGE")
    assert not (tmp_path / "no").exists()


@pytest.fixture
def refined_to(tiny_result, monkeypatch):
    """Let `refine` return at once a result of given agreement of the LV cavity."""

    def set_agreement(dice):
        agreement = dict.fromkeys(tiny_result.agreement, 0.95) | {"LV cavity": dice}
        long = dataclasses.replace(tiny_result.volumes["LV wall"], beyond_base_mm=31.0)
        volumes = tiny_result.volumes | {"LV wall": long}
        findings = find_problems(agreement, {"LV wall": long}, slice_distance_mm=8.0)
        result = dataclasses.replace(
            tiny_result, agreement=agreement, volumes=volumes, findings=findings
        )
        monkeypatch.setattr(_refine, "refine", lambda *_, **__: result)
        return result

    return set_agreement


def test_the_table_shows_where_volumes_lie_and_fits_a_terminal(refined_to, tiny_files, tmp_path):
    result = refined_to(None)
    lines = run(*refine_arguments(tiny_files, tmp_path / "out")).stdout.splitlines()
    assert "input ml  inside ml  beyond apex ml  beyond base ml  total ml" in lines[0]
    assert max(map(len, lines[:5])) <= 100 and len({len(line) for line in lines[:5]}) == 1
    rows = {line[:10].strip(): line[10:].split() for line in lines[1:5]}
    wall = result.volumes["LV wall"]
    volumes = (wall.input_ml, wall.inside_ml, wall.beyond_apex_ml, wall.beyond_base_ml)
    assert rows["LV wall"][:5] == [f"{ml:.1f}" for ml in (*volumes, wall.total_ml)]
    assert rows["LV wall"][5:] == [
        f"{1.05 * wall.total_ml:.1f}", f"{result.agreement['LV wall']:.3f}"
    ]  # fmt: skip
    assert rows["LV cavity"][5:] == ["-", "-"]


def test_a_finding_is_a_warning_on_the_last_lines(refined_to, tiny_files, tmp_path):
    refined_to(0.84)
    result = run(*refine_arguments(tiny_files, tmp_path / "out", "-q"))
    assert result.exit_code == 0
    low, beyond = result.stderr.splitlines()
    assert low.startswith("warning [LOW_AGREEMENT]: ") and "LV cavity 0.84" in low
    assert beyond.startswith("warning [BEYOND_ENDS]: ") and "LV wall 31 mm" in beyond


def test_the_summary_ends_with_what_was_assumed(refined_to, tiny_files, tmp_path):
    result = refined_to(0.9)
    assert [end.coverage for end in result.ends] == ["empty slice", "empty slice"]
    ends = (
        "apex: empty slice (1 slice without labels beyond them), "
        "base: empty slice (1 slice without labels beyond them)"
    )
    assert result.orientation.name == "as-stored" and result.assumptions == (ends,)
    assert run(*refine_arguments(tiny_files, tmp_path / "out")).stdout.splitlines()[-1] == ends


def test_an_orientation_that_was_found_is_told_once(tiny_result, tiny_files, tmp_path, monkeypatch):
    mirrored = Orientation("mirrored", 0.97, "by the atlases' fit to 2 frames")
    result = dataclasses.replace(tiny_result, orientation=mirrored, findings=())
    monkeypatch.setattr(_refine, "refine", lambda *_, **__: result)
    shown = run(*refine_arguments(tiny_files, tmp_path / "out")).output
    sentence = "mirrored with a probability of 0.97, by the atlases' fit to 2 frames"
    assert shown.count(sentence) == 1 and sentence in shown.splitlines()[-3]
    as_json = run(*refine_arguments(tiny_files, tmp_path / "json", "--json"))
    assert json.loads(as_json.stdout)["orientation"]["name"] == "mirrored"


def asked_of_refine(monkeypatch, tiny_result, *words):
    """The arguments that the command hands to `refine`."""
    asked = {}

    def keep(segmentation, **given):
        asked.update(given, segmentation=segmentation)
        return dataclasses.replace(tiny_result, findings=())

    monkeypatch.setattr(_refine, "refine", keep)
    assert run(*words).exit_code == 0
    return asked


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ("auto", "auto")),
        (("--coverage", "partial"), ("partial", "partial")),
        (("--coverage", "apex=partial"), ("partial", "auto")),
        (("--coverage", "apex=partial", "--coverage", "base=whole"), ("partial", "whole")),
        (("--coverage", "whole", "--coverage", "base=partial"), ("whole", "partial")),
        (("--method", "paper"), ("partial", "partial")),
        (("--method", "paper", "--coverage", "base=whole"), ("partial", "whole")),
    ],
)
def test_refine_is_told_the_coverage_of_each_end(
    words, expected, tiny_result, tiny_files, tmp_path, monkeypatch
):
    line = refine_arguments(tiny_files, tmp_path / "out", *words)
    assert asked_of_refine(monkeypatch, tiny_result, *line)["options"].coverages == expected


def test_refine_is_told_orientation_and_other_frames(
    tiny_result, tiny_files, tmp_path, monkeypatch
):
    words = ("--orientation", "mirrored", "--other-frame", "es.nii.gz", "--other-frame", 12)
    line = refine_arguments(tiny_files, tmp_path / "out", *words)
    asked = asked_of_refine(monkeypatch, tiny_result, *line)
    assert asked["options"].orientation == "mirrored"
    assert asked["frames"] == ("es.nii.gz", 12)
    line = refine_arguments(tiny_files, tmp_path / "paper", "--method", "paper")
    assert asked_of_refine(monkeypatch, tiny_result, *line)["options"] == RefineOptions.paper()


def test_words_about_a_heart_are_those_of_the_library():
    assert heart.ENDS == stack_coverage.ENDS
    assert heart.COVERAGES == stack_coverage.COVERAGES
    assert heart.ORIENTATIONS == ORIENTATIONS


def test_a_frame_of_a_4d_file_is_oriented_by_another(tiny_files, tmp_path):
    labels = nifti.read_labels(tiny_files.labels)
    both = np.stack([np.zeros_like(labels.array), labels.array, labels.array], axis=-1)
    nibabel.save(nibabel.Nifti1Image(both, labels.voxel_to_world), tmp_path / "cine.nii.gz")
    files = type(tiny_files)(tmp_path / "cine.nii.gz", tiny_files.image, tiny_files.atlases)
    words = ("--frame", 1, "--other-frame", 2, "--json", "-q")
    result = run(*refine_arguments(files, tmp_path / "out", *words))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["orientation"]["reason"].endswith("2 frames")
    words = ("--frame", 1, "--other-frame", 7)
    result = run(*refine_arguments(files, tmp_path / "no", *words))
    assert result.exit_code == 1 and result.stderr.startswith("error [")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_model_that_does_not_follow_its_input_is_a_failed_refinement(
    refined_to, tiny_files, tmp_path, as_json
):
    refined_to(0.42)
    more = ("--surface", *(("--json",) if as_json else ()))
    result = run(*refine_arguments(tiny_files, tmp_path / "out", *more))
    assert_one_line_error(result, "FAILED_AGREEMENT", 3)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILE_NAMES, "surface.png"}
    first, second, last = result.stderr.splitlines()[-3:]
    assert first.startswith("warning [FAILED_AGREEMENT]: ")
    assert second.startswith("warning [BEYOND_ENDS]: ")
    assert "failed refinement: " in last and "LV cavity 0.42" in last
    assert f"the files in {tmp_path / 'out'} are there to look at" in last
    if as_json:
        codes = [finding["code"] for finding in json.loads(result.stdout)["findings"]]
        assert codes == ["FAILED_AGREEMENT", "BEYOND_ENDS"]


def test_a_failed_refinement_can_be_accepted(refined_to, tiny_files, tmp_path):
    refined_to(0.42)
    result = run(*refine_arguments(tiny_files, tmp_path / "out", "-q", "--accept-failed"))
    assert result.exit_code == 0 and "error" not in result.stderr
    assert result.stderr.splitlines()[0].startswith("warning [FAILED_AGREEMENT]: ")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"-i": "missing.nii.gz"}, "FILE_NOT_FOUND"),
        ({"--atlases": "missing"}, "FILE_NOT_FOUND"),
        ({"--preset": "unheard-of"}, "UNKNOWN_PRESET"),
        ({"--landmarks": "missing.json"}, "FILE_NOT_FOUND"),
        ({"--spacing": (0.01, 1, 1)}, "BAD_SPACING"),
    ],
)
def test_bad_inputs_give_one_line_and_no_output(tiny_files, tmp_path, change, code):
    options = {"-i": tiny_files.labels, "--atlases": tiny_files.atlases, "-o": tmp_path / "out"}
    words = []
    for name, value in (options | change).items():
        words += [name, *(value if isinstance(value, tuple) else (value,))]
    assert_one_line_error(run("refine", *words), code)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_found_before_the_work(
    tiny_files, tmp_path, monkeypatch
):
    monkeypatch.setattr(_refine, "refine", lambda *_, **__: pytest.fail("the work was begun"))
    (tmp_path / "file").write_text("in the way")
    result = run(*refine_arguments(tiny_files, tmp_path / "file"))
    assert_one_line_error(result, "OUTPUT_NOT_WRITABLE")


@pytest.mark.parametrize(
    "words",
    [
        ("refine",),
        ("refine", "-i", "a", "-o", "b", "--threads", "0"),
        ("refine", "-i", "a", "-o", "b", "--method", "best"),
        ("refine", "-i", "a", "-o", "b", "--only", "phase"),
        ("refine", "-i", "a", "-o", "b", "--select-by", "looks"),
        ("refine", "-i", "a", "-o", "b", "--coverage", "most"),
        ("refine", "-i", "a", "-o", "b", "--coverage", "top=whole"),
        ("refine", "-i", "a", "-o", "b", "--coverage", "apex="),
        ("refine", "-i", "a", "-o", "b", "--orientation", "sideways"),
        ("unheard-of",),
        ("simulate", "--seed", "-1", "-o", "x"),
        ("evaluate", "-i", "a"),
        ("atlas", "build", "source-without-bank"),
    ],
)
def test_wrong_usage_is_exit_code_2(words):
    assert run(*words).exit_code == 2


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (RefinementError("two\nlines", code="NO_OVERLAP"), "NO_OVERLAP", 3),
        (OSError(28, "No space left on device"), "FILE_ERROR", 1),
    ],
)
def test_failures_have_their_exit_code(tiny_files, tmp_path, monkeypatch, error, code, exit_code):
    monkeypatch.setattr(_refine, "refine", failing(error))
    result = run(*refine_arguments(tiny_files, tmp_path / "out"))
    assert_one_line_error(result, code, exit_code)


def test_an_interrupt_is_exit_code_130_and_leaves_nothing(tiny_files, tmp_path, monkeypatch):
    monkeypatch.setattr(_refine, "refine", failing(KeyboardInterrupt()))
    result = run(*refine_arguments(tiny_files, tmp_path / "out"))
    assert result.exit_code == 130 and "interrupted" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_process_tidily(tmp_path, number):
    script = (
        "import sys, time, cardiacreg.io.output_folder as f, pathlib\n"
        "from cardiacreg.cli.app import main, SafeGroup\n"
        "@main.command()\n"
        "def wait():\n"
        "    with f.all_or_nothing(pathlib.Path(sys.argv[2]) / 'out', ('x',), overwrite=False):\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "main(['wait'])\n"
    )
    command = [sys.executable, "-c", script, "-", str(tmp_path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts this in the background makes children ignore SIGINT.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        child.send_signal(number)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 130 and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_progress_is_one_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = ProgressLines(quiet=False)
    for done in (1, 2):
        progress(Progress("align", done, 2, "aligning atlases", 0.1 * done))
    progress(Progress("fuse", 1, 7, "fusing labels", 0.9))
    progress.close()
    shown = capsys.readouterr().err
    assert "aligning atlases" in shown and "fusing labels" in shown and "90%" in shown


def test_progress_is_a_line_per_step_elsewhere_and_says_what_is_prepared(capsys):
    progress = ProgressLines(quiet=False)
    for step, done, share in (
        ("compile", 0, 0.0), ("compile", 2, 0.5), ("align", 1, 0.6), ("align", 2, 0.7), ("align", 2, 0.7),
    ):  # fmt: skip
        progress(Progress(step, done, 2, f"{step} it", share))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("preparing: the first time, kernels are compiled")
    assert [line.partition("] ")[2] for line in lines[1:]] == ["compile it", "align it"]
    assert lines[2].startswith("[ 70 %, ")


# --- evaluate


def test_evaluate_a_map_with_itself(tiny_files):
    result = run("evaluate", "-i", tiny_files.labels, "-r", tiny_files.labels, "--json")
    found = json.loads(result.stdout)
    assert found["resampled_onto_truth"] is False
    assert set(found["structures"]) == {"LV cavity", "LV wall", "RV wall", "RV cavity"}
    assert all(
        row["dice"] == 1 and row["hausdorff_mm"] == 0 for row in found["structures"].values()
    )


def test_evaluate_says_when_it_resamples(tiny_files, tmp_path):
    labels = nifti.read_labels(tiny_files.labels)
    matrix = labels.voxel_to_world @ np.diag([0.5, 0.5, 1, 1])
    matrix[:3, 3] -= labels.voxel_to_world[:3, :2].sum(axis=1) / 4
    fine = LabelMap(labels.array.repeat(2, axis=0).repeat(2, axis=1), matrix)
    nifti.write_labels(tmp_path / "fine.nii.gz", fine)
    result = run("evaluate", "-i", tmp_path / "fine.nii.gz", "-r", tiny_files.labels)
    assert "resampled" in result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0][:2] == ["structure", "Dice"]
    assert [row[2] for row in rows[1:]] == ["1.000"] * 4


def test_evaluate_names_a_missed_structure(tiny_files, tmp_path):
    labels = nifti.read_labels(tiny_files.labels)
    array = np.where(labels.array == 3, 0, labels.array)
    nifti.write_labels(tmp_path / "no_rv_wall.nii.gz", LabelMap(array, labels.voxel_to_world))
    result = run("evaluate", "-i", tmp_path / "no_rv_wall.nii.gz", "-r", tiny_files.labels)
    assert "not in the prediction" in next(x for x in result.stdout.splitlines() if "RV wall" in x)


# --- simulate, atlas, doctor


def test_simulate_writes_truth_and_scan(tmp_path):
    words = (
        "simulate",
        "--seed",
        10_001,
        "--group",
        "dilated",
        "--phase",
        "ES",
        "-o",
        tmp_path / "s",
    )
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (tmp_path / "s").iterdir()} == set(simulate.FILE_NAMES)
    scan = nifti.read_labels(tmp_path / "s" / "labels.nii.gz")
    shifts = json.loads((tmp_path / "s" / "slice_shifts.json").read_text())
    assert scan.spacing_mm[2] == pytest.approx(10)
    assert np.shape(shifts["slice_shifts"]) == (scan.shape[2], 2) and shifts["unit"] == "mm"
    axes = scan.voxel_to_world[:3, :3] / scan.spacing_mm
    lean = np.degrees(np.arccos(axes[2, 2]))
    assert lean == pytest.approx(np.linalg.norm(shifts["tilt_degrees"]), rel=0.05)
    assert_one_line_error(run(*words), "OUTPUT_EXISTS")
    assert_one_line_error(run(*words, "--overwrite", "--thickness", 1), "BAD_THICKNESS")


def test_simulate_makes_the_stack_that_is_asked_for(tmp_path):
    words = ("simulate", "--seed", 10_001, "-o", tmp_path / "s", "--overwrite")
    plain = ("--tilt-sd", 0, "--shift-sd", 0, "--lost-apical-slices", 1, "--label-rule", "any")
    result = run(*words, *plain, "--empty-slices", "0,3")
    assert result.exit_code == 0, result.stderr
    scan = nifti.read_labels(tmp_path / "s" / "labels.nii.gz")
    assert scan.voxel_to_world[:3, :3] == pytest.approx(np.diag(scan.spacing_mm), abs=1e-5)
    labelled = scan.array.any(axis=(0, 1))
    assert labelled[0] and labelled[-4] and not labelled[-3:].any()
    shifts = json.loads((tmp_path / "s" / "slice_shifts.json").read_text())
    assert not np.any(shifts["slice_shifts"])
    for wrong in ("1", "a,b", "1,2,3"):
        assert run(*words, "--empty-slices", wrong).exit_code == 2
    assert_one_line_error(run(*words, "--empty-slices", "0,-1"), "BAD_EMPTY_SLICES")


def test_simulate_has_the_defaults_of_a_clinical_stack():
    own = {f.name: f.default for f in dataclasses.fields(Degradation)}
    assert simulate.CLINICAL == {name: own[name] for name in simulate.CLINICAL}
    assert simulate.LABEL_RULES == get_args(LabelRule)


def test_simulate_offers_what_the_population_has():
    assert set(simulate.GROUPS) == set(population.GROUPS)
    assert tuple(simulate.PHASES) == tuple(population.PHASES)


def test_atlas_build_and_info(tiny_files, tmp_path):
    bank = tmp_path / "bank"
    built = run("atlas", "build", tiny_files.atlases, "-o", bank)
    assert built.exit_code == 0 and "2 atlases" in built.stdout
    found = json.loads(run("atlas", "info", bank, "--json").stdout)
    assert found["names"] == ["small", "smaller"] and found["atlases"] == 2
    assert_one_line_error(run("atlas", "build", tiny_files.atlases, "-o", bank), "OUTPUT_EXISTS")
    assert run("atlas", "build", tiny_files.atlases, "-o", bank, "--overwrite").exit_code == 0


def test_atlas_build_never_replaces_what_is_no_bank(tiny_files, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = run("atlas", "build", tiny_files.atlases, "-o", tmp_path, "--overwrite")
    assert_one_line_error(result, "BAD_ATLAS_BANK")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_atlas_info_of_something_else(tmp_path):
    assert_one_line_error(run("atlas", "info", tmp_path), "BAD_ATLAS_BANK")


def test_doctor_checks_the_installation(own_cache):
    result = run("doctor", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and found["self_check"]["passed"]
    assert found["versions"]["cardiacreg"] == __version__
    caches = found["caches"]
    assert Path(caches["atlases"]["folder"]) == SHIPPED and caches["atlases"]["state"] == "complete"
    assert caches["kernels"]["folder"] == str(cache_files.kernel_folder())
    assert caches["kernels"]["writable"]
    for cache in caches.values():
        assert cache["trouble"] is None and cache["damage"] is None


def test_doctor_reports_a_failed_check(monkeypatch):
    from cardiacreg.cli import doctor

    check = {"passed": False, "smallest_dice": 0.1, "seconds": 1.0}
    monkeypatch.setattr(doctor, "_self_check", lambda: check)
    monkeypatch.setattr(doctor, "_damage", lambda: None)
    result = run("doctor")
    assert result.exit_code == 3 and "self-check FAILED" in result.stdout
