"""The notebook runs from a wheel, shows surfaces, and is kept without outputs."""

from __future__ import annotations

import json
import os

import pytest

from tests.helpers.wheels import ROOT, build_wheel, copy_source, unpack

NOTEBOOK = ROOT / "examples" / "one_heart.ipynb"
K3D_VIEW = "application/vnd.jupyter.widget-view+json"


def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_is_kept_without_outputs():
    for cell in cells():
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None


def test_names_its_parameters_first():
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert code[0]["metadata"]["tags"] == ["parameters"]


@pytest.mark.slow
def test_runs_from_a_wheel_and_shows_surfaces(tmp_path_factory, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for name in ("ipykernel", "k3d"):
        pytest.importorskip(name)
    wheel = build_wheel(
        copy_source(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("wheel")
    )
    installed = unpack(wheel, tmp_path_factory.mktemp("installed"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    next(
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    ).source = (
        "import cardiacreg\n"
        f"assert cardiacreg.__file__.startswith({str(installed)!r}), cardiacreg.__file__\n"
        "spacing_mm = (2.5, 2.5, 4.0)\n"
        "atlases = [cardiacreg.sample_heart(n, spacing_mm=spacing_mm) for n in range(3)]"
    )
    client = nbclient.NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute(env=os.environ | {"PYTHONPATH": str(installed)})
    shown = [data for cell in notebook.cells for data in outputs(cell)]
    assert any(K3D_VIEW in data for data in shown)
    assert sum("image/png" in data for data in shown) >= 3
    widgets = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    meshes = [each for each in widgets.values() if "vertices" in str(each.get("state", {}).keys())]
    assert len(meshes) == 4


def outputs(cell):
    return [each["data"] for each in cell.get("outputs", ()) if "data" in each]
