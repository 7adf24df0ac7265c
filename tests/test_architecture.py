"""The rules of the code base, read from its files.

Modules belong to groups, and a group may import only the groups named in `MAY_IMPORT`: nouns and errors
at the bottom, the steps of the method above them, the run of all steps above those, commands at the top.
Files, checks, measures and synthetic hearts stand beside the steps, which know nothing of them. A new
module has to be given a group here.
"""

import ast
import fnmatch
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cardiacreg"

GROUPS = {
    "errors": ("errors",),
    "tools": (
        "_slabs", "_jit", "_lbfgs", "_label_counts", "_surfaces", "_atomic_write", "_bounded_read",
        "_named_source", "_output_folder",
    ),
    "nouns": ("geometry",),
    "files": ("_nifti_header", "nifti", "landmark_files", "atlas_folder", "label_presets"),
    "checks": ("input_checks", "atlas_checks", "image_placement", "component_counts"),
    "measures": ("metrics", "volumes", "slice_volumes", "structure_measures"),
    "steps": (
        "landmarks", "landmark_affine", "atlas_selection", "atlas_index", "image_selection",
        "affine_registration", "ffd", "ffd_chain", "composition", "spline_points",
        "atlas_cells", "label_consistency", "regularisation", "ffd_registration", "shift_statistics",
        "slice_motion", "slice_turns", "resampling", "splines", "jacobian", "target_samples",
        "prepared_target",
        "registration_levels", "registration_options", "slice_interpolation", "label_fusion",
        "intensity_harmonisation", "patch_scene", "patch_votes", "joint_fusion", "staple_fusion",
        "topology", "output_lattice", "slice_coverage", "area_matching", "end_shapes",
    ),
    "transforms": ("transform_files_mirtk", "transform_files_itk", "displacement_field", "ffd_inverse"),
    "hearts": (
        "tiny_heart", "phantom*", "degradation", "thick_slices", "stack_labels", "atlas_bank", "bank_*",
    ),
    "options": ("options",),
    "results": ("result", "result_files", "guards", "qc_*", "surface_figure"),
    "run": ("run", "gather", "atlas_choice", "orientation", "pipeline", "refinement"),
    "commands": ("cli*", "demo_report", "__main__"),
    "door": ("__init__",),
}  # fmt: skip
MAY_IMPORT = {
    "errors": set(),
    "tools": {"errors"},
    "nouns": {"errors"},
    "files": {"errors", "tools", "nouns", "checks"},
    "checks": {"errors", "tools", "nouns"},
    "measures": {"errors", "tools", "nouns", "checks"},
    "steps": {"errors", "tools", "nouns"},
    "transforms": {"errors", "tools", "nouns", "files", "steps"},
    "hearts": {"errors", "tools", "nouns", "steps", "measures"},
    "options": {"errors", "nouns", "steps"},
    "results": {"errors", "tools", "nouns", "files", "measures", "steps", "options"},
    "run": {
        "errors", "tools", "nouns", "files", "checks", "measures", "steps", "hearts", "options",
        "results", "door",
    },
    "commands": set(GROUPS),
    "door": set(GROUPS),
}  # fmt: skip
ONLY_IMPORTERS = {
    "numba": ("_jit", "refinement", "run"),
    "nibabel": ("nifti", "_nifti_header", "displacement_field", "cli*"),
    "matplotlib": ("qc_*", "surface_figure", "demo_report", "cli*"),
    "click": ("cli*",),
    "torch": (),
    "cardiacreg_nn": ("cli*",),
}
LIGHT = (
    "geometry",
    "landmark_affine",
    "landmarks",
    "atlas_selection",
    "metrics",
    "nifti",
    "errors",
)
HELPERS = {"naive", "strategies", "small_hearts", "tiny_bank", "tiny_training"}
MOST_ARGUMENTS = 12
MOST_FUNCTION_LINES = 60
MOST_MODULE_LINES = 450

MODULES = {path.stem: ast.parse(path.read_text()) for path in sorted(PACKAGE.glob("*.py"))}


def group_of(module):
    """The group a module belongs to."""
    found = [
        name
        for name, patterns in GROUPS.items()
        if any(fnmatch.fnmatch(module, pattern) for pattern in patterns)
    ]
    assert len(found) == 1, f"{module}: give it one group in {Path(__file__).name}, it has {found}"
    return found[0]


def type_checking_nodes(tree):
    """Every node inside an ``if TYPE_CHECKING`` body."""
    return {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in node.body
        for inner in ast.walk(child)
    }


def imports(tree, *, at_start_only=False):
    """(top-level package, module of ours or None, imported names) of every import that runs."""
    hidden = type_checking_nodes(tree)
    nodes = tree.body if at_start_only else ast.walk(tree)
    for node in nodes:
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                yield first, rest[0] if rest else None, []
        elif isinstance(node, ast.ImportFrom) and node.module:
            first, *rest = node.module.split(".")
            names = [alias.name for alias in node.names]
            if first == "cardiacreg" and not rest:
                for name in names:
                    yield first, name if name in MODULES else "__init__", []
            else:
                yield first, rest[0] if rest else None, names


def our_imports(tree, **keywords):
    return {module for first, module, _ in imports(tree, **keywords) if first == "cardiacreg"}


def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_kernel(function):
    return any(getattr(d, "id", "") == "kernel" for d in function.decorator_list)


def kernels(tree):
    return {f.name: f for f in functions(tree) if is_kernel(f)}


def length(function):
    """Lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


class TestImports:
    @pytest.mark.parametrize("module", MODULES)
    def test_point_one_way(self, module):
        own = group_of(module)
        allowed = MAY_IMPORT[own] | {own}
        for other in sorted(our_imports(MODULES[module])):
            assert group_of(other) in allowed, (
                f"{module} ({own}) imports {other} ({group_of(other)})"
            )

    def test_never_go_in_a_circle(self):
        graph = {m: our_imports(tree, at_start_only=True) for m, tree in MODULES.items()}
        done = set()

        def visit(module, path):
            assert module not in path, " -> ".join([*path, module])
            if module not in done:
                for other in graph.get(module, ()):
                    visit(other, [*path, module])
                done.add(module)

        for module in graph:
            visit(module, [])

    @pytest.mark.parametrize("package", ONLY_IMPORTERS)
    def test_a_heavy_package_has_few_importers(self, package):
        importers = {m for m, tree in MODULES.items() if package in {i[0] for i in imports(tree)}}
        allowed = ONLY_IMPORTERS[package]
        assert all(any(fnmatch.fnmatch(m, pattern) for pattern in allowed) for m in importers), (
            importers
        )

    def test_only_the_decorators_file_uses_numba_at_start(self):
        users = {
            m
            for m, tree in MODULES.items()
            if "numba" in {i[0] for i in imports(tree, at_start_only=True)}
        }
        assert users == {"_jit"}

    def test_every_group_has_a_rule(self):
        assert set(MAY_IMPORT) == set(GROUPS)


def loaded_after(statement, *packages):
    """Which of some packages a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*[p for p in {packages!r} if p in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


class TestLightImport:
    def test_the_package_loads_nothing_heavy(self):
        heavy = ("numba", "torch", "scipy", "nibabel", "matplotlib", "skimage", "numpy", "click")
        assert loaded_after("import cardiacreg", *heavy) == []

    def test_light_modules_load_without_numba(self):
        statement = "\n".join(f"import cardiacreg.{module}" for module in LIGHT)
        assert loaded_after(statement, "numba", "torch", "matplotlib") == []

    def test_nouns_load_nothing_but_numpy(self):
        assert loaded_after("from cardiacreg import LabelMap", "scipy", "nibabel", "numba") == []


class TestKernels:
    @pytest.mark.parametrize("module", [m for m, tree in MODULES.items() if kernels(tree)])
    def test_use_their_arguments_numpy_math_and_kernels_of_their_file(self, module):
        tree = MODULES[module]
        constants = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
        }
        known = {"np", "math", "range", "min", "max", "abs", "int", "float", "len", "bool"}
        known |= set(kernels(tree)) | constants
        for name, function in kernels(tree).items():
            nodes = [
                n for child in function.body for n in ast.walk(child) if isinstance(n, ast.Name)
            ]
            local = {n.id for n in nodes if isinstance(n.ctx, ast.Store)}
            local |= {a.arg for a in function.args.args}
            unknown = {n.id for n in nodes} - local - known
            assert not unknown, f"{module}.{name} refers to {sorted(unknown)}"

    def test_are_never_imported_by_another_file(self):
        names = {name for tree in MODULES.values() for name in kernels(tree)}
        for module, tree in MODULES.items():
            taken = {name for *_, imported in imports(tree) for name in imported} & names
            assert not taken, f"{module} imports the kernels {sorted(taken)}"

    def test_take_at_most_twelve_arguments(self):
        for tree in MODULES.values():
            for name, function in kernels(tree).items():
                assert len(function.args.args) <= MOST_ARGUMENTS, name

    def test_never_raise_and_never_print(self):
        for tree in MODULES.values():
            for name, function in kernels(tree).items():
                assert not any(isinstance(n, ast.Raise | ast.Assert) for n in ast.walk(function)), (
                    name
                )

    def test_have_one_compiled_signature_after_refinements(self):
        """Two refinements and a warp onto few slices in a fresh process: every kernel that Python
        calls has exactly one signature, whatever the layout of slabs.
        """
        called = sorted(
            f"{module}.{name}"
            for module, tree in MODULES.items()
            for name in kernels(tree)
            if self.called_from_python(tree, name)
        )
        code = f"""
import importlib
import numpy as np
from cardiacreg import Affine, LabelMap
from cardiacreg.resampling import warp_labels, warp_volume
from tests.tiny_bank import SPACING_MM, tiny_atlases, tiny_options, tiny_target
from cardiacreg.refinement import refine
target = tiny_target()
for image, threads in ((target.image, 2), (None, 1)):
    refine(target.labels, image=image, atlases=tiny_atlases(24), spacing_mm=SPACING_MM,
           options=tiny_options(), threads=threads)
from cardiacreg.label_fusion import MODES, FusionOptions, fuse_labels
small = tiny_atlases(2)
for mode in MODES:
    fuse_labels(small[0].image, [(a.image, a.labels) for a in small],
                options=FusionOptions(mode=mode, search=(3, 3, 1), patch=(3, 3, 1)))
patch = FusionOptions(search=(3, 3, 1), patch=(1, 3, 1), distance="correlation", bandwidth=0.1)
fuse_labels(small[0].image, [(a.image, a.labels) for a in small], options=patch)
thin, atlas = LabelMap(np.zeros((3, 3, 2)), np.eye(4)), tiny_atlases(1)[0]
warp_labels(atlas.labels, Affine.identity(), thin)
warp_volume(atlas.image, Affine.identity(), thin)
from cardiacreg.ffd_chain import FFDChain
from cardiacreg.ffd import FFD
FFDChain((FFD(Affine.identity(), np.zeros((4, 4, 4, 3)), np.eye(4)),)).displacement(np.zeros(3))
for path in {called!r}:
    module, name = path.split(".")
    kernel = getattr(importlib.import_module("cardiacreg." + module), name)
    print(path, len(kernel.signatures))
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr
        counts = dict(line.split() for line in done.stdout.splitlines())
        assert sorted(counts) == called
        rarely_run = {"jacobian._folding_kernel"}
        assert {path for path, n in counts.items() if n != "1"} <= rarely_run, counts
        assert max(counts.values()) == "1"

    @staticmethod
    def called_from_python(tree, kernel):
        inside = {id(n) for f in kernels(tree).values() for n in ast.walk(f)}
        return any(
            isinstance(n, ast.Name) and n.id == kernel and id(n) not in inside
            for n in ast.walk(tree)
        )


class TestSize:
    def test_no_function_is_long(self):
        long = {
            f"{module}.{f.name}": length(f)
            for module, tree in MODULES.items()
            for f in functions(tree)
            if length(f) > MOST_FUNCTION_LINES
        }
        assert not long

    def test_the_usual_function_is_short(self):
        assert (
            statistics.median(length(f) for tree in MODULES.values() for f in functions(tree)) <= 10
        )

    @pytest.mark.parametrize("module", MODULES)
    def test_no_module_is_long(self, module):
        """Blank lines are not counted."""
        text = (PACKAGE / f"{module}.py").read_text()
        assert sum(bool(line.strip()) for line in text.splitlines()) <= MOST_MODULE_LINES


class TestManners:
    def test_nothing_is_printed(self):
        for module, tree in MODULES.items():
            names = {
                n.func.id
                for n in ast.walk(tree)
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
            }
            assert not names & {"print", "input", "eval", "exec"}, module

    def test_global_state_is_left_alone(self):
        """No filter of warnings, seed or thread count is changed when a module is imported."""
        for module, tree in MODULES.items():
            if module == "__main__":
                continue
            calls = {
                ast.unparse(n.value.func)
                for n in tree.body
                if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)
            }
            assert not calls, module

    def test_randomness_has_a_seed(self):
        for module, tree in MODULES.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(
                    ("np.random.", "random.")
                ):
                    assert ast.unparse(node.func) == "np.random.default_rng" and node.args, module

    @pytest.mark.parametrize("module", MODULES)
    def test_everything_public_is_documented(self, module):
        tree = MODULES[module]
        assert ast.get_docstring(tree)
        for node in self.public(tree.body):
            assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"

    def public(self, body):
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if any(ast.unparse(d) == "overload" for d in node.decorator_list):
                continue
            yield node
            if isinstance(node, ast.ClassDef):
                yield from self.public(node.body)

    def test_no_public_name_equals_a_module_name(self):
        import cardiacreg

        assert not set(cardiacreg.__all__) & set(MODULES)


class TestTests:
    FILES = [p for p in sorted((ROOT / "tests").rglob("*.py")) if "__pycache__" not in p.parts]

    def test_every_file_is_collected_or_a_known_helper(self):
        for path in self.FILES:
            tree = ast.parse(path.read_text())
            tests = [f for f in functions(tree) if f.name.startswith("test_")]
            if path.stem.startswith("test_"):
                assert tests, f"{path.name} holds no tests"
            elif path.stem not in ("conftest", "__init__"):
                assert path.stem in HELPERS, f"{path.name} is not collected by pytest"
                assert not tests, f"{path.name} holds tests that never run"

    def test_names_of_tests_are_not_used_twice(self):
        """A second function of the same name in one scope silently replaces the first."""
        for path in self.FILES:
            for scope in ast.walk(ast.parse(path.read_text())):
                if isinstance(scope, ast.Module | ast.ClassDef):
                    names = [
                        n.name for n in scope.body if isinstance(n, ast.FunctionDef | ast.ClassDef)
                    ]
                    assert len(names) == len(set(names)), path.name

    def test_oracles_share_no_code_with_the_library(self):
        packages = {
            first for first, *_ in imports(ast.parse((ROOT / "tests/naive.py").read_text()))
        }
        assert packages <= {"itertools", "math", "numpy"}
