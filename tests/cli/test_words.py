"""Messages say what to do in the words of the door that was used."""

import ast
import re
from pathlib import Path

import click
import pytest

from cardiacreg.cli.app import main
from cardiacreg.cli.support import in_options

ROOT = Path(__file__).parents[2]
OF_PYTHON_ONLY = (
    "anatomy/volumes.py", "fusion", "registration", "transforms", "phantoms", "compute/threads.py",
    "metrics/overlap.py", "results/saved.py", "results/corrected.py",
)  # fmt: skip
"""Whose messages no command shows: what they name is of Python."""
ARGUMENT = re.compile(
    r"\b[a-z_]{3,}=(?:['\d{]|True|False|None|[ .;,)])|a mapping \{|(?<!\()max_bytes"
)
ALLOWED = re.compile(
    r"KEY=VALUE|phase=|(?<=-)\w+=|THEIRS=OURS|space='LPS'|\(max_bytes\)|axis=|numpy\.\w+\([^)]*\)|"
    r"set_sform\(\w+\)"
)


def texts():
    """(file, message) of every literal text of the package that a command can show."""
    for path in sorted((ROOT / "cardiacreg").rglob("*.py")):
        name = path.relative_to(ROOT / "cardiacreg").as_posix()
        if name.startswith(("cli", *OF_PYTHON_ONLY)):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call | ast.Return | ast.Assign):
                continue
            for text in literals(node):
                yield name, text


def stand_in(part):
    """What a varying part of a message may look like."""
    return "'acdc'" if part.conversion == ord("r") or "repr" in ast.unparse(part) else "1"


def literals(node):
    for each in ast.walk(node):
        if isinstance(each, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else stand_in(part)
                for part in each.values
            )
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


@pytest.fixture(scope="module")
def messages():
    """(file, message) as a command shows it: what the code writes, in the words of options."""
    found = {(name, text) for name, text in texts() if text.count(" ") > 2 and "\n" not in text}
    return [(name, in_options(text)) for name, text in sorted(found)]


def test_no_message_of_a_command_names_an_argument_of_python(messages):
    """All are looked at in one test: one after another, their bookkeeping takes longer than they do."""
    assert len(messages) > 200
    wrong = [each for each in messages if ARGUMENT.search(ALLOWED.sub("", each[1]))]
    assert not wrong


def options():
    found = set()

    def visit(command):
        found.update(flag for p in command.params if isinstance(p, click.Option) for flag in p.opts)
        for inner in getattr(command, "commands", {}).values():
            visit(inner)

    visit(main)
    return found


def test_every_option_that_messages_name_exists(messages):
    named = {flag for _, text in messages for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}
    assert {"--preset", "--map", "--frame", "--no-check-spacing"} <= named
    assert named <= options() | {"--banks", "--kernels"}


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("try preset='acdc' or 'mms'.", "try --preset acdc or mms."),
        ("with frame=0 to frame=9 or frame='ED'", "with --frame 0 to --frame 9 or --frame ED"),
        ("pass a mapping {their label: canonical label}", "--map THEIRS=OURS,..."),
        ("complete the mapping, with {7: 0, 850: 0} where", "complete --map, with 7=0,850=0 where"),
        ("or pass check_spacing=False if", "or add --no-check-spacing if"),
        ("say so (coverage= or --coverage)", "say so (--coverage)"),
    ],
)
def test_words_of_python_become_options(python, shell):
    assert in_options(python) == shell


def test_a_file_with_options_of_its_own_is_told_of_these():
    assert in_options("try preset='mms'", "reference-") == "try --reference-preset mms"
