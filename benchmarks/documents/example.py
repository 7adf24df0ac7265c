"""What the README's example prints: it is run as it stands there, with the embedded atlases."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
import warnings
from typing import Any

from benchmarks.harness import machine
from cardiacreg.errors import InputWarning


def run(quick: bool) -> dict[str, Any]:
    """Run the example in a folder of its own."""
    text = (machine.ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    printed = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(printed),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", InputWarning)
        exec(compile(example, "README.md", "exec"), {})
    return {"seeds": [], "printed": printed.getvalue()}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return what was printed, as a block of text."""
    return {"example-printed": f"```text\n{result['printed'].rstrip()}\n```"}
