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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    for needed in ("SimpleITK", "pydicom", "highdicom", "dask", "distributed"):
        pytest.importorskip(needed, reason="the documents' examples need every extra")
    from tests.helpers.snippet_files import write_files

    folder = tmp_path_factory.mktemp("snippets")
    write_files(folder)
    return folder


def restore(files, folder):
    """Make a folder what it was at first."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(files, folder, dirs_exist_ok=True)


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
@pytest.mark.parametrize("document", WITH_BLOCKS, ids=name_of)
def test_what_a_document_says_to_type_runs(document, files, reader):
    """All of it is tried, so that one run tells of everything that fails."""
    failed = []
    for name, work in everything_typed(document, files, reader):
        try:
            work()
        except (Exception, SystemExit) as error:
            failed.append(f"{name}: {error!r}")
    assert not failed, "\n".join(failed)


def everything_typed(document, files, folder):
    """What a document says to type, in order, as (name, work).

    The blocks of usage are examples, each for itself; those of other pages build on each other.
    """
    for block in blocks(document):
        if document.name == "usage.md":
            restore(files, folder)
        if block.language == "python":
            yield block.name, partial(snippets.run_python, block)
        elif block.language in snippets.COMMANDS:
            for typed in snippets.commands(block):
                yield f"{block.name} {typed}", partial(snippets.run_command, typed, folder)


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
    assert all((ROOT / place).exists() for place in snippets.ELSEWHERE.values())


def test_a_command_that_does_not_exist_is_seen():
    with pytest.raises(AssertionError):
        snippets.check_words("cardiacreg refine --no-such-option".split())
    with pytest.raises(AssertionError):
        snippets.check_words("cardiacreg no-such-command".split())
