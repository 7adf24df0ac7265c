"""The words and numbers of the quality-control figure: how it was made, volumes, findings."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.patches import Rectangle

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.errors import merged
from cardiacreg.geometry import STRUCTURES
from cardiacreg.results.guards import FAILED_AGREEMENT, Finding
from cardiacreg.results.result import RefineResult

ALARM_COLOUR = "#b00020"
_FINDING_COLOUR = "#8a4b00"
_FONT_SIZE = 7.8
_LINE_SPACING = 1.35
_CHARACTER_WIDTH = 0.62
"""Of the monospaced font, in font sizes: 0.602, and up to a pixel for hinting."""
_CODE_COLUMNS = 22
_RULE = "0.75"
_TITLES = (
    "input",
    "model inside\nslices",
    "beyond\napex",
    "beyond\nbase",
    "model\ntotal",
    "agreement\n(Dice)",
)
_RIGHT_EDGES = (0.31, 0.47, 0.60, 0.73, 0.85, 1.0)
_ROW_TOPS = (0.72, 0.54, 0.36, 0.18)


def draw_numbers(panel: Any, result: RefineResult) -> None:
    """Write how the model came about: time, atlases, warnings."""
    columns, rows = _capacity(panel)
    lines = _number_lines(result, columns)
    if len(lines) > rows:
        lines = [*lines[: rows - 1], "  ... (result.json)"]
    panel.axis("off")
    _write(panel, 0, lines)


def draw_volumes(panel: Any, result: RefineResult, colours: dict[int, str]) -> None:
    """Draw the table of volumes in ml, and the agreement with the input."""
    panel.axis("off")
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.text(0, 0.99, "volumes (ml)", fontsize=10, va="top")
    for edge, title in zip(_RIGHT_EDGES, _TITLES, strict=True):
        panel.text(
            edge, 0.80, title, fontsize=8, ha="right", va="baseline", color="0.3", linespacing=1.1
        )
    for (label, name), top in zip(STRUCTURES.items(), _ROW_TOPS, strict=True):
        panel.axhline(top + 0.045, color=_RULE, lw=0.6)
        middle = top - 0.045
        panel.add_patch(Rectangle((0.0, middle - 0.05), 0.016, 0.1, color=colours[label], lw=0))
        panel.text(0.026, middle, name, fontsize=8.5, va="center_baseline")
        cells = (*_volume_cells(result.volumes.get(name)), _cell(result.agreement.get(name), 3))
        for edge, cell in zip(_RIGHT_EDGES, cells, strict=True):
            panel.text(edge, middle, cell, fontsize=8.5, ha="right", va="center_baseline")


def _volume_cells(volume: StructureVolume | None) -> tuple[str, ...]:
    if volume is None:
        return ("–",) * 5
    parts = (volume.inside_ml, volume.beyond_apex_ml, volume.beyond_base_ml, volume.total_ml)
    return tuple(_cell(value, 1) for value in (volume.input_ml, *parts))


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def draw_findings(panel: Any, result: RefineResult) -> None:
    """Write every finding's code and what was found."""
    panel.axis("off")
    count = len(result.findings)
    panel.text(0, 0.99, f"findings ({count})" if count else "findings: none", fontsize=10, va="top")
    columns, rows = _capacity(panel)
    blocks = _finding_blocks(result.findings, columns, rows - 2)
    line = 2
    for finding, block in zip(result.findings, blocks, strict=True):
        colour = ALARM_COLOUR if finding.code == FAILED_AGREEMENT else _FINDING_COLOUR
        _write(panel, line, [finding.code], color=colour, weight="bold")
        _write(panel, line, block, column=_CODE_COLUMNS)
        line += len(block)


def _finding_blocks(findings: tuple[Finding, ...], columns: int, rows: int) -> list[list[str]]:
    """Wrap what was found: a line each, and more while there is room, the most severe first."""
    width, spare, blocks = columns - _CODE_COLUMNS, rows - len(findings), []
    for finding in findings:
        text = printable(finding.found)
        extra = min(max(spare, 0), len(textwrap.wrap(text, width)) - 1)
        blocks.append(textwrap.wrap(text, width, max_lines=1 + extra, placeholder=" ..."))
        spare -= extra
    return blocks


def printable(text: str) -> str:
    """Return a text in characters that the figure's font has."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _number_lines(result: RefineResult, columns: int) -> list[str]:
    lines = [f"smallest Jacobian {result.minimum_jacobian:.3f}"]
    lines += [f"time {result.timings_seconds.get('total', 0.0):.1f} s", "", "atlases (NMI)"]
    width = columns - 8
    lines += [f"  {printable(a.name)[-width:]:{width}s} {a.nmi:.3f}" for a in result.atlases[:8]]
    if result.structures_from_atlases:
        lines += ["", "from atlases alone"]
        lines += _wrapped(", ".join(result.structures_from_atlases), columns)
    if result.warnings:
        lines += ["", f"warnings ({len(result.warnings)})"]
        lines += [line for note in merged(result.warnings)[:3] for line in _wrapped(note, columns)]
    return lines


def _wrapped(text: str, columns: int) -> list[str]:
    """Wrap to a few indented lines."""
    return textwrap.wrap(
        printable(text), columns, initial_indent="  ", subsequent_indent="    ", max_lines=4,
        placeholder=" ...",
    )  # fmt: skip


def _capacity(panel: Any) -> tuple[int, int]:
    """Return how many characters and lines of monospaced text fit into a panel."""
    across, down = _steps(panel)
    return int(1 / across), int(1 / down)


def _steps(panel: Any) -> tuple[float, float]:
    """Return the width of a character and the height of a line, in shares of the panel."""
    place, figure = panel.get_position(), panel.figure
    width, height = place.width * figure.get_figwidth(), place.height * figure.get_figheight()
    size_inches = _FONT_SIZE / 72
    return size_inches * _CHARACTER_WIDTH / width, size_inches * _LINE_SPACING / height


def _write(panel: Any, line: int, lines: list[str], *, column: int = 0, **style: Any) -> None:
    """Write lines of monospaced text from a line and a column of the panel on."""
    across, down = _steps(panel)
    panel.text(
        column * across, 1.0 - line * down, "\n".join(lines), transform=panel.transAxes,
        fontsize=_FONT_SIZE, va="top", family="monospace", linespacing=_LINE_SPACING,
        parse_math=False, **style,
    )  # fmt: skip
