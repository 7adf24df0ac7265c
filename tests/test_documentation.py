"""Documents say what is true: names exist, the README's example runs, arguments match."""

import ast
import doctest
import importlib
import inspect
import re
import textwrap
import warnings
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

import pytest

import cardiacreg
from benchmarks.documents import report
from cardiacreg.atlases import packed
from cardiacreg.errors import InputWarning
from cardiacreg.phantoms.hearts import HeartSpecification
from tests.helpers.snippets import coarsely

ROOT = Path(__file__).resolve().parent.parent
STUDIES = sorted((ROOT / "docs" / "studies").glob("*.md"))
PAGES = [
    path
    for folder in ("howto", "concepts")
    for path in sorted((ROOT / "docs" / folder).glob("*.md"))
]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *PAGES, *STUDIES]
PUBLIC = [getattr(cardiacreg, name) for name in cardiacreg.__all__]


def resolve(name):
    """The object of a dotted name: the longest module prefix, then attributes."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def dotted_names(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    return sorted(set(re.findall(r"`((?:cardiacreg|cardiacreg_nn|benchmarks)(?:\.\w+)+)`", text)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_dotted_names_exist(document):
    without_torch = find_spec("torch") is None
    for name in dotted_names(document):
        if not (without_torch and name.startswith("cardiacreg_nn")):
            resolve(name)


def test_the_paper_map_covers_every_equation_and_table():
    text = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    for equation in range(1, 6):
        assert f"eq. ({equation})" in text
    for table in ("Table III", "Table IV", "Table V", "Table VI"):
        assert table in text
    assert len(dotted_names("docs/paper.md")) > 20


def test_options_named_in_the_paper_map_exist():
    text = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    named = re.findall(r"`(RefineOptions|RegistrationOptions|RefineResult)\.(\w+)`", text)
    assert named
    for owner, field in named:
        assert hasattr(getattr(cardiacreg, owner), field)


def test_files_named_in_the_design_exist():
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([\w*]+\.pyx?)`", text):
        assert list((ROOT / "cardiacreg").rglob(name)), name


def anchors(document):
    """The names of a document's headings in links."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", text):
        if not target.startswith("http"):
            place = document.parent / target if target else document
            assert place.exists(), target
            assert not anchor or anchor in anchors(place), f"{target}#{anchor}"


def test_every_study_is_reached_from_the_results():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert STUDIES
    for study in STUDIES:
        assert f"(studies/{study.name}" in text, study.name
    assert len(text.splitlines()) <= 150


def test_the_tables_of_every_result_are_shown():
    shown = {
        found["name"]
        for document in report.DOCUMENTS
        for found in report.MARKER.finditer(document.read_text(encoding="utf-8"))
    }
    assert not set(report.collect(report.RESULTS)) - shown


@pytest.mark.parametrize("document", report.DOCUMENTS, ids=lambda path: path.name)
def test_markers_are_paired(document):
    text = document.read_text(encoding="utf-8")
    assert text.count("<!-- table ") == text.count("<!-- end ") == len(report.MARKER.findall(text))


def test_stored_tables_are_the_documented_ones():
    found = report.collect(report.RESULTS)
    for document in report.DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        filled = report.fill(text, found, document.parent)
        assert filled == text, "run: python -m benchmarks report"
        assert "Not measured yet." not in text, document.name


def test_the_readme_example_runs(monkeypatch, tmp_path, capsys):
    few = tuple(HeartSpecification(seed, group) for seed, group in enumerate(GROUPS))
    with coarsely():
        packed.write_packed_bank(tmp_path / "few.zip", few)
    monkeypatch.setattr(packed, "SHIPPED", tmp_path / "few.zip")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    with warnings.catch_warnings(), coarsely():
        warnings.simplefilter("ignore", InputWarning)
        exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "out" / "result.json").exists()
    assert "LV cavity" in capsys.readouterr().out


GROUPS = ("pulmonary_hypertension", "healthy")


def test_the_readme_is_two_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_code_in_documents_uses_public_names(document):
    for block in re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.S):
        compile(block, document.name, "exec")
        for name in re.findall(r"cardiacreg\.(\w+)", block):
            assert name in cardiacreg.__all__, name


def test_the_readme_names_every_command_and_both_make_targets():
    from cardiacreg.cli.app import main

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in main.commands:
        assert f"cardiacreg {name}" in text
    assert "make demo" in text and "make test" in text


def functions_and_classes():
    return [item for item in PUBLIC if inspect.isfunction(item) or inspect.isclass(item)]


def documented_arguments(text):
    """Names of the numpydoc Parameters section."""
    found = re.search(
        r"^Parameters\n-+\n(.*?)(?=^\w+\n-{3,}\n|\Z)", inspect.cleandoc(text), re.S | re.M
    )
    if not found:
        return []
    names = re.findall(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: :|$)", found[1], re.M)
    return [name.lstrip("*") for group in names for name in group.split(", ")]


def has_section(item, name):
    return re.search(rf"^{name}\n-{{3,}}$", inspect.cleandoc(item.__doc__ or ""), re.M) is not None


def arguments_of(item):
    """What a call takes; nothing for enumerations and warnings, which nobody calls."""
    if inspect.isclass(item) and issubclass(item, Enum | Warning):
        return []
    return [name for name in inspect.signature(item).parameters if name != "self"]


@pytest.mark.parametrize("item", functions_and_classes(), ids=lambda item: item.__name__)
def test_documented_arguments_are_the_real_ones(item):
    assert item.__doc__, item.__name__
    assert documented_arguments(item.__doc__) == arguments_of(item)


def public_functions():
    return [item for item in PUBLIC if inspect.isfunction(item)]


@pytest.mark.parametrize("item", public_functions(), ids=lambda item: item.__name__)
def test_functions_say_what_they_return_and_raise_with_an_example(item):
    returns = inspect.signature(item).return_annotation
    assert has_section(item, "Returns") == (returns not in ("None", None))
    tree = ast.parse(textwrap.dedent(inspect.getsource(item)))
    if any(isinstance(node, ast.Raise) for node in ast.walk(tree)):
        assert has_section(item, "Raises")
    assert has_section(item, "Examples")


@pytest.mark.parametrize("item", functions_and_classes(), ids=lambda item: item.__name__)
def test_examples_in_docstrings_run(item, monkeypatch, tmp_path):
    """Examples of a public name and of its methods; their files go to the working folder."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        for test in doctest.DocTestFinder(recurse=True).find(item, item.__name__, globs={}):
            found = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
            assert not found.failed, test.name
