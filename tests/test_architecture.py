"""The rules of the code base, read from its files.

A package is made of rooms, folders with a purpose each, and of files beside them. A room may import only
the rooms named for it in `ROOMS`, which are in order: nothing imports upward. Inside a room imports go
one way too. A new room has to be given a line here.
"""

import ast
import fnmatch
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOUNS = ("errors", "arrays", "algebra", "geometry")

ROOMS = {
    "cardiacreg": {
        "errors": (),
        "arrays": (),
        "algebra": ("arrays",),
        "geometry": ("errors", "arrays", "algebra"),
        "slices": NOUNS,
        "io": NOUNS,
        "compute": ("errors", "arrays", "io"),
        "anatomy": (*NOUNS, "slices", "io"),
        "transforms": (*NOUNS, "compute", "io"),
        "registration": (*NOUNS, "slices", "io", "compute", "transforms"),
        "slice_motion": (*NOUNS, "slices", "compute", "transforms", "registration"),
        "fusion": (*NOUNS, "slices", "compute", "transforms"),
        "metrics": (*NOUNS, "slices", "anatomy"),
        "phantoms": (*NOUNS, "slices", "anatomy"),
        "atlases": (
            *NOUNS, "compute", "io", "anatomy", "transforms", "registration", "phantoms",
        ),
        "results": (*NOUNS, "slices", "io", "anatomy", "transforms"),
        "surfaces": (*NOUNS, "slices", "io", "transforms", "results"),
        "doors": (*NOUNS, "slices", "io", "anatomy", "transforms", "surfaces", "__init__"),
        "measures": (*NOUNS, "io", "anatomy", "results", "surfaces"),
        "meshes": (*NOUNS, "compute", "io", "anatomy", "results", "surfaces", "measures"),
        "refinement": (
            *NOUNS, "slices", "compute", "io", "anatomy", "transforms", "registration",
            "slice_motion", "fusion", "metrics", "phantoms", "atlases", "results", "__init__",
        ),
        "cine": (
            *NOUNS, "slices", "compute", "io", "anatomy", "transforms", "registration",
            "slice_motion", "fusion", "metrics", "atlases", "results", "refinement",
        ),
        "reports": (
            *NOUNS, "slices", "compute", "io", "anatomy", "results", "surfaces", "measures",
            "refinement", "cine", "__init__",
        ),
        "cohort": (
            *NOUNS, "compute", "io", "anatomy", "atlases", "results", "surfaces", "measures",
            "refinement", "cine", "reports", "__init__",
        ),
        "cli": (
            *NOUNS, "compute", "io", "anatomy", "metrics", "phantoms", "atlases", "results",
            "surfaces", "doors", "measures", "meshes", "refinement", "cine", "cohort", "reports",
            "__init__",
        ),
        "__main__": ("cli",),
        "__init__": (),
    },
    "cardiacreg_nn": {
        "networks": (),
        "inference": ("networks",),
        "data": ("inference",),
        "training": ("networks", "inference", "data"),
        "__init__": (),
    },
    "benchmarks": {
        "harness": (),
        "registration": ("harness",),
        "fusion": ("harness",),
        "network": ("harness",),
        "speed": ("harness",),
        "atlases": ("harness", "fusion"),
        "reliability": ("harness",),
        "settled": ("harness", "atlases", "network"),
        "accuracy": ("harness", "network"),
        "documents": ("harness", "accuracy", "__main__"),
        "__main__": ("harness", "documents", "__init__"),
        "__init__": (),
    },
}  # fmt: skip
"""Rooms of each package from the bottom, and what each may import of its own package."""

TYPES_ONLY = {"results.result": {"refinement.options"}}
"""Imports upward that only type checkers follow."""

ONLY_IMPORTERS = {
    "numba": ("compute.jit", "compute.kernel_cache", "refinement._refine", "refinement.context"),
    "nibabel": (
        "io.nifti",
        "io.nifti_header",
        "io.foreign_images",
        "transforms.displacement_field",
        "cli.*",
    ),
    "matplotlib": (
        "results.qc_*",
        "results.surface_figure",
        "cine.curves_figure",
        "measures.bullseye",
        "reports.*",
        "cli.*",
    ),
    "click": ("cli.*",),
    "torch": (),
    "cardiacreg_nn": ("cli.*",),
}
LIGHT = (
    "algebra",
    "geometry",
    "slices",
    "registration.landmark_affine",
    "anatomy.landmarks",
    "atlases.ranking",
    "metrics.overlap",
    "io.nifti",
    "errors",
)
HELPERS = {
    "snippet_files",
    "snippets",
    "wheels",
    "smoke",
    "cvi42_workspaces",
    "dicom_studies",
    "interoperability",
    "cohorts",
    "turned_hearts",
    "equivalent_inputs",
    "naive",
    "killed_steps",
    "strategies",
    "small_hearts",
    "tiny_bank",
    "tiny_training",
}
MOST_ARGUMENTS = 12
MOST_FUNCTION_LINES = 60
MOST_MODULE_LINES = 450

MOST_FILES_IN_A_ROOM = 15


def modules_of(package):
    """Syntax trees of a package's files by their dotted names."""
    folder = ROOT / package
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(folder.rglob("*.py"))
    }


PACKAGES = {package: modules_of(package) for package in ROOMS}
MODULES = PACKAGES["cardiacreg"]
EVERY = [(package, module) for package, trees in PACKAGES.items() for module in trees]


def room_of(module):
    return module.partition(".")[0]


def type_checking_nodes(tree):
    """Every node inside an ``if TYPE_CHECKING`` body."""
    return {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in node.body
        for inner in ast.walk(child)
    }


def imports(tree, *, at_start_only=False, types=False):
    """(dotted module or package, imported names) of every import that runs."""
    hidden = set() if types else type_checking_nodes(tree)
    for node in tree.body if at_start_only else ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, []
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, [alias.name for alias in node.names]


def heads(tree, **keywords):
    """Top-level packages that a file imports."""
    return {name.partition(".")[0] for name, _ in imports(tree, **keywords)}


def own_imports(package, tree, **keywords):
    """Files of its own package that a file imports; a public name counts as ``__init__``."""
    trees, found = PACKAGES[package], set()
    for name, names in imports(tree, **keywords):
        first, _, rest = name.partition(".")
        if first != package:
            continue
        inside = [f"{rest}.{each}".lstrip(".") for each in names]
        modules = {each for each in inside if each in trees}
        found |= modules
        if len(modules) < len(inside) or not inside:
            found.add(rest if rest in trees else f"{rest}.__init__".lstrip("."))
    return found


@cache
def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_kernel(function):
    return any(getattr(d, "id", "") == "kernel" for d in function.decorator_list)


def constant_names(tree):
    """Names that a module gives to constants: one by one, several at once, or counted by a range."""
    found = set()
    for node in (n for n in tree.body if isinstance(n, ast.Assign)):
        values = getattr(node.value, "elts", None) or getattr(node.value, "args", [node.value])
        counted = isinstance(node.value, ast.Call) and node.value.func.id == "range"
        listed = isinstance(node.value, ast.Constant | ast.Tuple)
        if (counted or listed) and all(isinstance(value, ast.Constant) for value in values):
            names = [n for target in node.targets for n in ast.walk(target)]
            found |= {n.id for n in names if isinstance(n, ast.Name)}
    return found


def kernels(tree):
    return {f.name: f for f in functions(tree) if is_kernel(f)}


def length(function):
    """Lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


class TestRooms:
    @pytest.mark.parametrize(("package", "module"), EVERY)
    def test_import_one_way(self, package, module):
        tree, own = PACKAGES[package][module], room_of(module)
        assert own in ROOMS[package], f"{module}: give its room a line in {Path(__file__).name}"
        allowed = {own, *ROOMS[package][own]}
        for other in sorted(own_imports(package, tree, types=True)):
            if other not in TYPES_ONLY.get(module, ()):
                assert room_of(other) in allowed, f"{module} imports {other}"

    @pytest.mark.parametrize("package", ROOMS)
    def test_stand_in_order(self, package):
        """A room's line names rooms above it alone, so that there is no circle between rooms."""
        above = {"__init__", "__main__"}
        for room, allowed in ROOMS[package].items():
            assert set(allowed) <= above, room
            above.add(room)

    @pytest.mark.parametrize("package", ROOMS)
    def test_every_line_is_needed(self, package):
        used = {room: set() for room in ROOMS[package]}
        for module, tree in PACKAGES[package].items():
            others = own_imports(package, tree, types=True) - TYPES_ONLY.get(module, set())
            used[room_of(module)] |= {room_of(other) for other in others}
        for room, allowed in ROOMS[package].items():
            unused = set(allowed) - used[room] - set(NOUNS)
            assert not unused, f"{room} does not import {unused}"

    @pytest.mark.parametrize("package", ROOMS)
    def test_files_never_import_in_a_circle(self, package):
        trees = PACKAGES[package]
        graph = {m: own_imports(package, tree, at_start_only=True) for m, tree in trees.items()}
        done = set()

        def visit(module, path):
            assert module not in path, " -> ".join([*path, module])
            if module not in done:
                for other in graph.get(module, ()):
                    visit(other, [*path, module])
                done.add(module)

        for module in graph:
            visit(module, [])

    def test_are_small_and_have_a_purpose(self):
        for package, trees in PACKAGES.items():
            rooms = [module for module in trees if module.endswith(".__init__")]
            assert rooms
            for module in rooms:
                assert ast.get_docstring(trees[module]), module
                held = [m for m in trees if room_of(m) == room_of(module)]
                if package == "cardiacreg":
                    assert len(held) - 1 <= MOST_FILES_IN_A_ROOM, (module, len(held) - 1)

    def test_are_lazy(self):
        for module, tree in MODULES.items():
            if module.endswith("__init__"):
                assert {name for name, _ in imports(tree)} == {"lazy_loader"}, module

    def test_stand_in_the_docstring_of_the_package(self):
        text = ast.get_docstring(MODULES["__init__"])
        for module in MODULES:
            if module.endswith(".__init__"):
                (line,) = [
                    x for x in text.splitlines() if x.strip().startswith(f"{room_of(module)}/")
                ]
                purpose = ast.get_docstring(MODULES[module]).splitlines()[0]
                assert line.endswith(purpose), module


class TestHeavyPackages:
    @pytest.mark.parametrize("package", ONLY_IMPORTERS)
    def test_have_few_importers(self, package):
        importers = {m for m, tree in MODULES.items() if package in heads(tree)}
        allowed = ONLY_IMPORTERS[package]
        assert all(any(fnmatch.fnmatch(m, pattern) for pattern in allowed) for m in importers), (
            importers
        )

    def test_only_decorator_and_kernel_cache_use_numba_at_start(self):
        users = {m for m, tree in MODULES.items() if "numba" in heads(tree, at_start_only=True)}
        assert users == {"compute.jit", "compute.kernel_cache"}


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
    def test_use_their_arguments_numpy_math_and_kernels(self, module):
        """Kernels of other files are imported by name; the kernel cache follows them."""
        tree = MODULES[module]
        everywhere = {name for each in MODULES.values() for name in kernels(each)}
        constants = constant_names(tree)
        known = {"np", "math", "range", "min", "max", "abs", "int", "float", "len", "bool"}
        known |= set(kernels(tree)) | constants
        known |= everywhere & {name for *_, names in imports(tree) for name in names}
        for name, function in kernels(tree).items():
            nodes = [
                n for child in function.body for n in ast.walk(child) if isinstance(n, ast.Name)
            ]
            local = {n.id for n in nodes if isinstance(n.ctx, ast.Store)}
            local |= {a.arg for a in function.args.args}
            unknown = {n.id for n in nodes} - local - known
            assert not unknown, f"{module}.{name} refers to {sorted(unknown)}"

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
from cardiacreg.transforms.resampling import warp_labels, warp_volume
from tests.helpers.tiny_bank import SPACING_MM, tiny_atlases, tiny_options, tiny_target
from cardiacreg.refinement._refine import refine
target = tiny_target()
from cardiacreg.phantoms.long_axis_views import simulate_views
view = simulate_views(tiny_atlases(1)[0], ["four_chamber"], seed=0)[0].subject.labels
for image, threads, views in ((target.image, 2, ()), (None, 1, [view])):
    refine(target.labels, image=image, atlases=tiny_atlases(24), spacing_mm=SPACING_MM,
           options=tiny_options(), threads=threads, views=views)
from cardiacreg.fusion.label_fusion import MODES, FusionOptions, fuse_labels
small = tiny_atlases(2)
for mode in MODES:
    fuse_labels(small[0].image, [(a.image, a.labels) for a in small],
                options=FusionOptions(mode=mode, search=(3, 3, 1), patch=(3, 3, 1)))
patch = FusionOptions(search=(3, 3, 1), patch=(1, 3, 1), distance="correlation", bandwidth=0.1)
fuse_labels(small[0].image, [(a.image, a.labels) for a in small], options=patch)
thin, atlas = LabelMap(np.zeros((3, 3, 2)), np.eye(4)), tiny_atlases(1)[0]
warp_labels(atlas.labels, Affine.identity(), thin)
warp_volume(atlas.image, Affine.identity(), thin)
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.ffd import FFD
chain = FFDChain((FFD(Affine.identity(), np.zeros((4, 4, 4, 3)), np.eye(4)),))
chain.displacement(np.zeros(3))
from cardiacreg.registration.composition import consistency_under
from cardiacreg.registration.ffd_registration import RegistrationOptions, prepare_target
from cardiacreg.transforms.atlas_lookup import build_lookup
ready = prepare_target(atlas.labels, RegistrationOptions())
cells = build_lookup(atlas.labels, ready.codes.codes)
consistency_under(ready, cells, chain, np.zeros((atlas.labels.shape[2], 2)))
from cardiacreg.transforms.jacobian import DenseDeterminants
folded = DenseDeterminants(np.random.default_rng(0).normal(size=(6, 6, 6, 3)), np.ones(3))
folded.minimum(), folded.control_points_below(0.2)
for path in {called!r}:
    module, _, name = path.rpartition(".")
    kernel = getattr(importlib.import_module("cardiacreg." + module), name)
    print(path, len(kernel.signatures))
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr
        counts = dict(line.split() for line in done.stdout.splitlines())
        assert sorted(counts) == called
        rarely_run = {"transforms.jacobian._folding_kernel"}
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
        text = (ROOT / "cardiacreg" / f"{module.replace('.', '/')}.py").read_text()
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

        assert not set(cardiacreg.__all__) & {m.rpartition(".")[2] for m in MODULES}


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
        packages = heads(ast.parse((ROOT / "tests/helpers/naive.py").read_text()))
        assert packages <= {"itertools", "math", "numpy"}
