"""``cardiacreg surfaces``, ``mesh``, ``measure``, ``convert``, ``evaluate``: models, files and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.presets import frame_option, meaning_options, one_meaning, spacing_option
from cardiacreg.cli.support import EXIT_CODES, about, as_cell, echo_json, progress_lines, say

if TYPE_CHECKING:
    from cardiacreg.io.label_values import Frame
    from cardiacreg.measures.heart import Measures
    from cardiacreg.metrics.evaluation import Evaluation
    from cardiacreg.results.result import RefineResult

_FORMATS = ("vtp", "stl", "ply", "obj")
"""As in `results.files`, which takes time to load."""
_MESH_FORMATS = ("vtu", "xdmf", "msh", "carp", "ukb")
"""As in `meshes.files`."""
MEASURE_FILES = ("measures.csv", "bullseye.png", "measures_units.json")
_SHOWN = ("LV", "RV", "BSA", "WT_Global", "Eccentricity", "Septal")
_ENDS = (" low", " high")
"""Rows that hold the ends of intervals, which are shown beside what they belong to."""
COLUMNS = {
    "dice": ("Dice", 3),
    "hausdorff_slicewise_mm": ("HD slices", 2),
    "hausdorff_mm": ("HD 3D", 2),
    "hausdorff95_mm": ("HD95", 2),
    "average_surface_distance_mm": ("surface", 2),
    "volume_ml": ("ml", 1),
    "true_volume_ml": ("true ml", 1),
    "mass_g": ("g", 1),
    "true_mass_g": ("true g", 1),
}
"""Figure of `cardiacreg.metrics.overlap.compare` to column title and digits."""


def format_words(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[str, ...]:
    """Turn ``vtp,stl`` into the formats it names."""
    words = tuple(word.strip().lower() for word in (text or "").split(",") if word.strip())
    unknown = sorted(set(words) - set(_FORMATS))
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; needs some of {', '.join(_FORMATS)}.")
    return tuple(dict.fromkeys(words))


def surface_formats_option(name: str, **more: Any) -> Callable[..., Any]:
    """Make the option that names formats of surfaces."""
    return click.option(
        name, "formats", metavar="FORMAT[,FORMAT]", callback=format_words,
        help=f"Closed surfaces of the ventricles, RAS mm: {', '.join(_FORMATS)}."
        if not more else "Formats of the files, comma-separated.",
        **more,
    )  # fmt: skip


def meshes_of(result: RefineResult, formats: tuple[str, ...]) -> dict[str, bytes]:
    """Return the files of a result's surfaces in every format, by name; none where none is asked for."""
    if not formats:
        return {}
    from cardiacreg.surfaces.extraction import surfaces_of
    from cardiacreg.surfaces.files import file_contents

    return file_contents(surfaces_of(result), formats)


@click.command(epilog=EXIT_CODES, short_help="Write closed surfaces of a model.")
@click.argument(
    "model", type=click.Path(readable=False, path_type=Path), metavar="RESULT_OR_LABELS"
)
@click.option(
    "-o", "--output", required=True, type=click.Path(readable=False, path_type=Path), metavar="DIR",
    help="Folder for the files; made when missing.",
)  # fmt: skip
@surface_formats_option("--format", default="vtp", show_default=True)
@click.option(
    "--space", type=click.Choice(["RAS", "LPS"]), default="RAS", show_default=True,
    help="Space of the coordinates; the files name it.",
)  # fmt: skip
@click.option(
    "--triangles", type=click.IntRange(min=200), default=20_000, show_default=True,
    help="Most triangles of the largest surface.",
)  # fmt: skip
@click.option(
    "--preset", metavar="NAME", help="Meaning of the labels in a file; canonical if absent."
)
@frame_option
@click.option("--overwrite", is_flag=True, help="Replace files of these names in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def surfaces(
    model: Path,
    output: Path,
    formats: tuple[str, ...],
    space: str,
    triangles: int,
    preset: str | None,
    frame: Frame,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write closed surfaces of a refined model, or of labels on thin slices.

    RESULT_OR_LABELS is a folder that cardiacreg refine wrote, or a file of labels. Writes
    LV_ENDO, LV_EPI, RV_ENDO, RV_EPI and EPI (the whole) in every format.
    """
    from cardiacreg.results.saved_model import as_model
    from cardiacreg.surfaces.extraction import surfaces_of
    from cardiacreg.surfaces.files import write_surfaces

    found = as_model(model, preset=preset, frame=frame)
    made = surfaces_of(found, triangles=triangles)
    write_surfaces(output, made, formats, space=space, overwrite=overwrite, inputs=found.files)
    rows = {
        name: {"volume_ml": each.volume_ml(), "area_mm2": each.area_mm2(),
               "triangles": len(each.triangles)}
        for name, each in made.items()
    }  # fmt: skip
    if as_json:
        echo_json({"folder": output, "space": space, "surfaces": rows})
        return
    click.echo(f"{'surface':8s}{'ml':>9s}{'cm2':>9s}{'triangles':>11s}")
    for name, row in rows.items():
        area_cm2 = row["area_mm2"] / 100
        click.echo(f"{name:8s}{row['volume_ml']:9.1f}{area_cm2:9.1f}{row['triangles']:11d}")
    click.echo(f"written to {output} as {', '.join(formats)}, {space} mm")


def _mesh_formats(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",") if word.strip()))
    unknown = sorted(set(words) - set(_MESH_FORMATS))
    if unknown or not words:
        raise click.BadParameter(
            f"{', '.join(unknown) or 'no format'}; needs some of {', '.join(_MESH_FORMATS)}."
        )
    return words


@click.command(
    epilog=EXIT_CODES, short_help="Fill the walls of a model with tetrahedra, for simulations."
)
@click.argument(
    "model", type=click.Path(readable=False, path_type=Path), metavar="RESULT_OR_LABELS"
)
@click.option(
    "-o", "--output", required=True, type=click.Path(readable=False, path_type=Path), metavar="DIR",
    help="Folder for the files; made when missing.",
)  # fmt: skip
@click.option(
    "--format", "formats", metavar="FORMAT[,FORMAT]", callback=_mesh_formats, default="vtu",
    show_default=True, help=f"Formats of the files, comma-separated: {', '.join(_MESH_FORMATS)}.",
)  # fmt: skip
@click.option(
    "--edge-mm", type=float, default=1.5, show_default=True,
    help="Edge of the tetrahedra's lattice, 0.75 to 5; walls are at least 1.5 edges thick.",
)  # fmt: skip
@click.option(
    "--fibre-angles", nargs=2, type=float, default=(40.0, -50.0), show_default=True,
    metavar="ENDO EPI", help="Helix angles at endo- and epicardium, degrees.",
)  # fmt: skip
@click.option(
    "--case", type=click.Choice(["ED", "ES"]), default="ED", show_default=True,
    help="Phase in the names of ukb's files.",
)  # fmt: skip
@click.option(
    "--preset", metavar="NAME", help="Meaning of the labels in a file; canonical if absent."
)
@frame_option
@click.option("--overwrite", is_flag=True, help="Replace files of these names in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def mesh(
    model: Path,
    output: Path,
    formats: tuple[str, ...],
    edge_mm: float,
    fibre_angles: tuple[float, float],
    case: str,
    preset: str | None,
    frame: Frame,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Fill the walls of a model with tetrahedra and fibres, for simulations.

    RESULT_OR_LABELS is a folder that cardiacreg refine wrote, or a file of labels. Regions are
    the walls of both ventricles, surfaces LV_ENDO, RV_ENDO, EPI and BASE; fibres follow rules (Bayer
    et al. 2012). Formats other than carp (openCARP) and ukb (the boundary with the rims of the valves, as
    STL files named as by ukb-atlas) need the extra meshes.
    """
    from cardiacreg.meshes.fibres import FibreAngles
    from cardiacreg.meshes.files import check_volume_mesh_output, write_volume_mesh
    from cardiacreg.meshes.tetrahedral import volume_mesh
    from cardiacreg.results.saved_model import as_model

    found = as_model(model, preset=preset, frame=frame)
    angles = FibreAngles(*fibre_angles)
    how: Any = {"case": case, "overwrite": overwrite, "inputs": found.files}
    check_volume_mesh_output(output, formats, **how)
    with progress_lines(as_json) as progress:
        made = volume_mesh(found, edge_mm=edge_mm, angles=angles, progress=progress)
    write_volume_mesh(output, made, formats, **how)
    volumes, quality = made.volumes_ml(), made.scaled_jacobians()
    if as_json:
        echo_json({
            "folder": output, "nodes": len(made.nodes_mm), "tetrahedra": len(made.tetrahedra),
            "volumes_ml": volumes, "least_scaled_jacobian": float(quality.min()),
        })  # fmt: skip
        return
    for name, ml in volumes.items():
        click.echo(f"{name:8s}{ml:9.1f} ml")
    click.echo(
        f"{len(made.tetrahedra)} tetrahedra, {len(made.nodes_mm)} nodes; scaled Jacobian at least "
        f"{quality.min():.2f}, mean {quality.mean():.2f}"
    )
    click.echo(f"written to {output} as {', '.join(formats)}, RAS mm")


@click.command(
    epilog=EXIT_CODES, short_help="Measure a refined heart: volumes, function, wall thickness."
)
@click.argument("ed_result", type=click.Path(readable=False, path_type=Path))
@click.argument("es_result", type=click.Path(readable=False, path_type=Path), required=False)
@click.option(
    "-o", "--output", required=True, type=click.Path(readable=False, path_type=Path), metavar="DIR",
    help="Folder for measures.csv, measures_units.json and bullseye.png; made when missing.",
)  # fmt: skip
@click.option("--height-cm", type=float, help="Height of the body, to index by its surface.")
@click.option("--weight-kg", type=float, help="Weight of the body.")
@click.option("--name", metavar="NAME", help="Name of the row; that of ED_RESULT when absent.")
@click.option(
    "--preset", metavar="NAME", help="Meaning of the labels in files; canonical if absent."
)
@click.option("--overwrite", is_flag=True, help="Replace earlier measures in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def measure(
    ed_result: Path,
    es_result: Path | None,
    output: Path,
    height_cm: float | None,
    weight_kg: float | None,
    name: str | None,
    preset: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure a refined heart at end-diastole and, when given, end-systole.

    ED_RESULT and ES_RESULT are folders that cardiacreg refine wrote, or files of labels on thin slices.
    In place of both goes the folder of a patient or of a cine, which hold the two.
    """
    from cardiacreg.io.output_folder import all_or_nothing
    from cardiacreg.measures.bullseye import draw_bullseye
    from cardiacreg.measures.csv_files import write_measures_csv
    from cardiacreg.results.qc_figure import png_bytes

    body: Any = {"height_cm": height_cm, "weight_kg": weight_kg}
    found, inputs = _measured(ed_result, es_result, preset, body)
    with all_or_nothing(output, MEASURE_FILES, overwrite=overwrite, inputs=inputs) as stage:
        write_measures_csv(stage / MEASURE_FILES[0], {name or ed_result.name: found})
        (stage / MEASURE_FILES[1]).write_bytes(png_bytes(draw_bullseye(found)))
    rows, intervals = found.table(), found.intervals()
    if as_json:
        known = {name: {"low": each.low, "high": each.high} for name, each in intervals.items()}
        shown = {row.column: row.value for row in rows}
        echo_json({"folder": output, "measures": shown, "intervals_90_percent": known})
        return
    for row in rows:
        if row.value is None or not row.name.startswith(_SHOWN) or row.name.endswith(_ENDS):
            continue
        ends = intervals.get(row.name)
        between = f"  [{as_cell(ends.low, 2)}, {as_cell(ends.high, 2)}]" if ends else ""
        click.echo(f"{row.name:28s}{as_cell(row.value, 2):>10s} {row.unit:7s}{between}".rstrip())
    if intervals:
        click.echo(
            "[low, high]: 90 % intervals of the truth, corrected for the mean error of models"
        )
    click.echo(f"thickness by segment, and the rest, written to {output}")


def _measured(
    ed_result: Path, es_result: Path | None, preset: str | None, body: Any
) -> tuple[Measures, list[Path]]:
    """Measure two phases, those of a patient's folder, or a cine; and name the files that were read."""
    from cardiacreg.cine.saved import load_cine
    from cardiacreg.measures.heart import measure as run
    from cardiacreg.reports.contents import measure_phases
    from cardiacreg.results.folders import CINE_SUMMARY, phases_of_patient
    from cardiacreg.results.saved_model import as_model

    given = [each for each in (ed_result, es_result) if each is not None]
    phases = phases_of_patient(ed_result) if es_result is None else ()
    first, *others = phases or given
    if not others and (first / CINE_SUMMARY).is_file():
        return measure_phases(load_cine(first), **body), [
            first / CINE_SUMMARY,
            first / "labels.nii.gz",
        ]
    models = [as_model(each, preset=preset) for each in (first, *others)]
    return run(*models, **body), [file for model in models for file in model.files]


@click.command(epilog=EXIT_CODES, short_help="Convert a file or folder into another format.")
@click.argument("source", type=click.Path(readable=False, path_type=Path), metavar="IN")
@click.argument("destination", type=click.Path(readable=False, path_type=Path), metavar="OUT")
@click.option(
    "--from", "space_from", type=click.Choice(["RAS", "LPS"]),
    help="Space of the coordinates in IN, where the file does not say.",
)  # fmt: skip
@click.option(
    "--to", "space_to", type=click.Choice(["RAS", "LPS"]),
    help="Space of the coordinates in OUT, where the format has a choice: surfaces and landmarks (RAS "
    "when absent), dense fields (LPS when absent).",
)  # fmt: skip
@meaning_options(absent="values stay as they are")
@frame_option
@click.option(
    "--like", type=click.Path(readable=False), metavar="IMG",
    help="Image whose lattice a dense field gets.",
)  # fmt: skip
@click.option(
    "--study", type=click.Path(readable=False), metavar="DIR",
    help="Folder of the DICOM images that contours of cvi42, or a DICOM segmentation, belong to.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace OUT, or files of these names in it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def convert(
    source: Path,
    destination: Path,
    preset: str | None,
    mapping: dict[int, int] | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert a file or folder into another format, told by the name of OUT.

    \b
    labels       NIfTI, .mha, .nrrd, .seg.nrrd, MGH, DICOM-SEG, a result's folder
                 -> NIfTI, .mha, .nrrd, .seg.nrrd, DICOM-SEG (.dcm), guide points (folder)
    contours     guide points of biv-me -> NIfTI or a folder; .cvi42wsx -> a folder
    images       a folder of DICOM files -> a folder of NIfTI stacks and a table
    transforms   .dof, .tfm, .mat, .h5, elastix's .txt, dense NIfTI
                 -> .dof, .tfm, .mat, .h5, dense NIfTI
    landmarks    .json, .mrk.json, .fcsv, .vtk, .vtp -> .json, .mrk.json, .fcsv
    surfaces     .vtp, .stl, .ply, .obj -> any of them

    Label values stay as they are unless --preset, --map or names of segments say what they mean.
    """  # noqa: D301 - click looks for the character
    from cardiacreg.doors.conversion import convert as run

    found = run(source, destination, preset=one_meaning(preset, mapping), **options)
    if as_json:
        echo_json({"kind": found.kind, "files": found.files, "words": found.words})
        return
    for words in found.words:
        click.echo(words)
    click.echo(f"{found.kind} written to {destination}")


@click.command(epilog=EXIT_CODES, short_help="Compare labels with the truth.")
@click.option(
    "-i",
    "--input",
    "prediction",
    required=True,
    type=click.Path(readable=False),
    metavar="PRED",
    help="Labels to judge: NIfTI, .nrrd, .seg.nrrd, .mha or .mgz.",
)
@click.option(
    "-r",
    "--reference",
    required=True,
    type=click.Path(readable=False),
    metavar="TRUTH",
    help="True labels, in any of these formats.",
)
@meaning_options("PRED")
@meaning_options("TRUTH", "reference-")
@frame_option
@spacing_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    prediction: str,
    reference: str,
    preset: str | None,
    mapping: dict[int, int] | None,
    reference_preset: str | None,
    reference_mapping: dict[int, int] | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Compare labels with the truth: overlap, distances in mm, volumes and masses.

    Overlap and distances are measured on TRUTH's lattice, volumes and masses on each map's own.
    """
    from cardiacreg.anatomy.segmentation import gather_segmentation
    from cardiacreg.metrics.evaluation import evaluate_labels

    meaning = one_meaning(preset, mapping)
    labels = gather_segmentation(prediction, preset=meaning, **how)
    meaning = one_meaning(reference_preset, reference_mapping, "reference-")
    with about("reference-"):
        truth = gather_segmentation(reference, preset=meaning, **how)
    found = evaluate_labels(labels.labels, truth.labels)
    if as_json:
        read_as = {"prediction": labels.assumed, "truth": truth.assumed}
        echo_json({"read_as": read_as, **found._asdict()})
        return
    say(f"PRED is read by its {labels.assumed}.")
    say(f"TRUTH is read by its {truth.assumed}.")
    _say_where(found)
    click.echo(table(found.structures))


def _say_where(found: Evaluation) -> None:
    if found.resampled_onto_truth:
        say(
            "the lattices differ: overlap and distances are of PRED resampled onto TRUTH's by nearest "
            "neighbour, volumes of each map as it is."
        )
    for share, first, second in (
        (found.outside_truth, "PRED", "TRUTH"),
        (found.outside_prediction, "TRUTH", "PRED"),
    ):
        if share > 0:
            say(
                f"warning: {100 * share:.1f} % of {first}'s labelled voxels lie outside {second}'s field."
            )


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Return the figures of `compare` as text, a line per structure; distances in mm."""
    lines = [f"{'structure':12s}" + "".join(f"{title:>11s}" for title, _ in COLUMNS.values())]
    for name, row in figures.items():
        cells = [as_cell(row.get(key), digits) for key, (_, digits) in COLUMNS.items()]
        note = row.get("note") or ("in one map only" if row["missed"] else "")
        note = f"  {note}" if note else ""
        lines.append(f"{name:12s}" + "".join(f"{cell:>11s}" for cell in cells) + note)
    return "\n".join(lines)
