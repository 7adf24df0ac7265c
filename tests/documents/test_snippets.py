"""Every command and every block of code in the documents runs, on small hearts under its names."""

import shutil
from functools import partial

import pytest

from tests.helpers import snippets
from tests.helpers.snippets import ROOT, blocks

GENERATED = ("_build", "gallery", "reference")
DOCUMENTS = [
    path
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if path.relative_to(ROOT / "docs").parts[0] not in GENERATED
]
WITH_BLOCKS = [
    path
    for path in DOCUMENTS
    if any(b.language in ("python", *snippets.COMMANDS) for b in blocks(path))
]
KNOWN_LANGUAGES = {*snippets.COMMANDS, "python", "text"}


def name_of(document):
    return document.relative_to(ROOT / "docs").as_posix()


def pages():
    """Blocks that are run after each other, in a folder of their own.

    The blocks of usage are examples, each for itself; those of other pages build on each other.
    """
    for document in WITH_BLOCKS:
        found = blocks(document)
        if document.name != "usage.md":
            yield pytest.param(found, id=name_of(document))
            continue
        for block in found:
            if block.language in ("python", *snippets.COMMANDS):
                yield pytest.param([block], id=f"{name_of(document)}:{block.number}")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    for needed in ("SimpleITK", "pydicom", "highdicom", "dask", "distributed"):
        pytest.importorskip(needed, reason="the documents' examples need every extra")
    from tests.helpers.snippet_files import write_files

    folder = tmp_path_factory.mktemp("snippets")
    write_files(folder)
    return folder


@pytest.fixture
def reader(files, tmp_path, monkeypatch):
    """A folder of a reader, with the files that the documents speak of."""
    folder = tmp_path / "reader"
    shutil.copytree(files, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")
@pytest.mark.filterwarnings("ignore::cardiacreg.errors.ResultWarning")
@pytest.mark.parametrize("typed", list(pages()))
def test_what_a_document_says_to_type_runs(typed, reader):
    """All of it is tried, so that one run tells of everything that fails."""
    failed = []
    for name, work in everything_typed(typed, reader):
        try:
            work()
        except (Exception, SystemExit) as error:
            failed.append(f"{name}: {error!r}")
    assert not failed, "\n".join(failed)


def everything_typed(typed, folder):
    """What blocks say to type, in order, as (name, work)."""
    for block in typed:
        if block.language == "python":
            yield block.name, partial(snippets.run_python, block, folder)
        elif block.language in snippets.COMMANDS:
            for each in snippets.commands(block):
                yield f"{block.name} {each}", partial(snippets.run_command, each, folder)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_in_the_text_exist_with_their_options(document):
    for typed in snippets.INLINE.findall(document.read_text(encoding="utf-8")):
        snippets.check_words(typed.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_blocks_say_what_they_are(document):
    for block in blocks(document):
        assert block.language in KNOWN_LANGUAGES or block.language.startswith("{"), block.name


def test_what_is_run_elsewhere_is_still_said():
    typed = {
        t
        for d in WITH_BLOCKS
        for b in blocks(d)
        if b.language in snippets.COMMANDS
        for t in snippets.commands(b)
    }
    assert set(snippets.ELSEWHERE) <= typed
    python = "".join(b.text for d in WITH_BLOCKS for b in blocks(d) if b.language == "python")
    assert all(said in python for said in snippets.LESS)
    assert all((ROOT / place).exists() for place in snippets.ELSEWHERE.values())


def test_a_command_that_does_not_exist_is_seen():
    with pytest.raises(AssertionError):
        snippets.check_words("cardiacreg refine --no-such-option".split())
    with pytest.raises(AssertionError):
        snippets.check_words("cardiacreg no-such-command".split())
