"""Pages of the reference: every public name by its room, and every command with its help.

What is public stands in ``cardiacreg/__init__.pyi``; the texts are the docstrings and the help of the
commands. The pages are written before Sphinx reads its sources, and are not kept.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WIDTH = 92


def setup(app: Any) -> dict[str, Any]:
    """Write the pages when the build begins."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "reference"))
    return {"parallel_read_safe": True}


def public_names(package: str = "cardiacreg") -> dict[str, list[str]]:
    """Return every public name of a package by the room that its stub imports it from."""
    stub = Path(inspect.getfile(importlib.import_module(package))).with_suffix(".pyi")
    rooms: dict[str, list[str]] = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            rooms.setdefault(str(node.module), []).extend(alias.name for alias in node.names)
    return rooms


def write_pages(folder: Path) -> None:
    """Write a page per room, one of all commands, and the list of them."""
    folder.mkdir(exist_ok=True)
    rooms = public_names()
    pages = {room: _room_page(room, names) for room, names in rooms.items()}
    pages["commands"] = _commands_page()
    pages["index"] = _index_page(rooms)
    for name, text in pages.items():
        _write(folder / f"{name}.rst", text)


def _write(place: Path, text: str) -> None:
    """Write a page where it changed, so that Sphinx reads only what did."""
    if not place.is_file() or place.read_text(encoding="utf-8") != text:
        place.write_text(text, encoding="utf-8")


def _index_page(rooms: dict[str, list[str]]) -> str:
    lines = [
        *_heading("Reference", "="),
        "Everything public, by the room that holds it (:doc:`../design` tells of rooms). All names are",
        "imported from ``cardiacreg`` itself: ``cardiacreg.refine``. For a terminal there are",
        ":doc:`commands`.",
        "",
        ".. toctree::",
        "   :maxdepth: 1",
        "",
        "   commands",
        *(f"   {room}" for room in sorted(rooms)),
        "",
        *_heading("All names", "-"),
    ]
    for room in sorted(rooms):
        links = ", ".join(f":py:obj:`~cardiacreg.{name}`" for name in sorted(rooms[room]))
        lines += [f":doc:`{room}`: {links}", ""]
    return "\n".join(lines)


def _room_page(room: str, names: list[str]) -> str:
    purpose = _first_line(importlib.import_module(f"cardiacreg.{room}"))
    lines = [*_heading(room, "="), purpose, "", ".. currentmodule:: cardiacreg", ""]
    package = importlib.import_module("cardiacreg")
    members = {name: getattr(package, name) for name in sorted(names)}
    lines += [".. list-table::", "   :widths: 30 70", ""]
    for name, member in members.items():
        lines += [f"   * - :py:obj:`~cardiacreg.{name}`", f"     - {_first_line(member)}"]
    for name, member in members.items():
        lines += ["", *_heading(name, "-"), *_directive(name, member)]
    return "\n".join([*lines, ""])


def _directive(name: str, member: Any) -> list[str]:
    if inspect.isclass(member):
        return [f".. autoclass:: {name}", "   :members:"]
    return [f".. autofunction:: {name}" if callable(member) else f".. autodata:: {name}"]


def _commands_page() -> str:
    from cardiacreg.cli.app import main

    lines = [
        *_heading("Commands", "="),
        "What ``cardiacreg --help`` and the help of each command say.",
        "",
    ]
    for name, help_text in command_helps(main, "cardiacreg"):
        lines += [*_heading(name, "-"), ".. code-block:: text", ""]
        lines += [f"   {line}".rstrip() for line in help_text.splitlines()] + [""]
    return "\n".join(lines)


def command_helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    """Yield name and help of a command and of all commands below it."""
    import click

    context = click.Context(
        command, info_name=name.split()[-1], parent=parent, terminal_width=_WIDTH
    )
    yield name, command.get_help(context)
    for below in getattr(command, "commands", {}):
        yield from command_helps(command.commands[below], f"{name} {below}", context)


def _first_line(member: Any) -> str:
    return (inspect.getdoc(member) or "").split("\n\n")[0].replace("\n", " ")


def _heading(text: str, character: str) -> list[str]:
    return [text, character * len(text), ""]
