"""Who may import whom, what stays light, and how big files and functions may be."""

import ast
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import mars_export

PACKAGE = Path(mars_export.__file__).parent
ROOT = PACKAGE.parent

# Room (folder or top-level module) -> what it may import from the package besides itself.
COMMON = {"atomic", "errors", "paths", "quantisation", "vocabulary"}
RECORDS = {"calibration.record", "checkpoint.manifest", "evaluation.report"}
UTILITY = {"evaluation.utility.record"}
MAY_IMPORT = {
    "runtime": set(),
    "atomic": set(),
    "errors": set(),
    "paths": set(),
    "vocabulary": set(),
    "quantisation": {"errors"},
    "settings": set(),
    "progress": set(),
    "families": COMMON,
    "inputs": COMMON,
    "failures": COMMON,
    "loading": COMMON | {"checkpoint.files", "families"},
    "methods": COMMON | {"calibration.record"},
    "calibration": COMMON | {"inputs", "families", "methods"},
    "checkpoint": COMMON
    | {"calibration.artefact", "calibration.record", "families", "runtime", "__version__"},
    "evaluation": COMMON
    | RECORDS
    | {"checkpoint.files", "families", "inputs", "loading", "progress"},
    "card": COMMON | RECORDS | UTILITY,
    "finetune": COMMON | {"calibration", "checkpoint", "evaluation.generation", "inputs"},
    "onnx": COMMON
    | RECORDS
    | {"checkpoint", "evaluation.generation", "evaluation.judges.rules", "evaluation.selfcheck"}
    | {"evaluation.suite", "failures", "families", "inputs", "progress", "runtime", "workspace"},
    "hub": COMMON | RECORDS | {"checkpoint", "families"},
    "serving": {"runtime"},
    "verification": COMMON
    | RECORDS
    | {"calibration.artefact", "checkpoint", "evaluation", "families", "hub", "loading"}
    | {"progress", "runtime"},
    "workspace": COMMON | RECORDS | {"progress"},
    "preflight": COMMON | {"checkpoint", "evaluation", "families", "hub", "inputs", "settings"},
    "pipeline": COMMON
    | {"calibration", "card", "checkpoint", "evaluation", "failures", "hub", "loading"}
    | {"preflight", "progress", "settings", "workspace", "__version__"},
}
UNRESTRICTED = {"__init__", "__main__", "cli"}

LIGHT = [
    *("", ".errors", ".vocabulary", ".settings", ".progress", ".failures", ".workspace", ".atomic"),
    ".quantisation",
    *(".families", ".calibration.record", ".checkpoint.manifest", ".evaluation.report"),
    *(".evaluation.utility.record", ".evaluation.suite", ".finetune.record"),
    *(".preflight", ".pipeline"),
    *(f".cli.{path.stem}" for path in sorted((PACKAGE / "cli").glob("[a-z]*.py"))),
    *(f".card.{path.stem}" for path in sorted((PACKAGE / "card").glob("[a-z]*.py"))),
]


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path):
    """Modules of the package that a file imports anywhere, without the package's own name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield "__version__" if alias.name == "mars_export" else alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            if node.module == "mars_export":
                yield from (f"mars_export.{alias.name}" for alias in node.names)
            elif node.module:
                yield f"{node.module}.{node.names[0].name}"


def rooms_imported(path):
    for name in imported(path):
        if name == "__version__":
            yield name
        elif name.startswith("mars_export."):
            yield name.removeprefix("mars_export.")


def allowed(name, rules):
    return any(name == rule or name.startswith(f"{rule}.") for rule in rules)


def test_every_room_has_a_rule():
    assert {room_of(path) for path in sources()} <= MAY_IMPORT.keys() | UNRESTRICTED


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports(room):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources()
        if room_of(path) == room
        for name in rooms_imported(path)
        if not allowed(name, MAY_IMPORT[room] | {room})
    ]
    assert wrong == []


def test_the_rule_is_able_to_fail(tmp_path):
    path = tmp_path / "steering.py"
    path.write_text("def f():\n    from mars_export.errors import MarsError\n")
    assert list(rooms_imported(path)) == ["errors.MarsError"]
    assert not allowed("errors.MarsError", MAY_IMPORT["runtime"])
    assert not allowed("calibration.calibrate", MAY_IMPORT["evaluation"])


def test_the_travelling_files_need_torch_and_transformers_only():
    allowed_packages = {"torch", "transformers", "safetensors"} | set(sys.stdlib_module_names)
    for path in (PACKAGE / "runtime").glob("*.py"):  # its neighbours travel with it
        others = {name for name in imported(path) if not name.startswith("mars_export.runtime.")}
        assert {name.split(".")[0] for name in others} <= allowed_packages


def test_light_modules_load_neither_torch_nor_transformers():
    code = (
        "import importlib, sys\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module('mars_export' + name)\n"
        "    heavy = {'torch', 'transformers'} & set(sys.modules)\n"
        "    assert not heavy, f'mars_export{name} loads {heavy}'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_are_loaded_when_used():
    for name in mars_export.__all__:
        assert callable(getattr(mars_export, name))
    assert set(mars_export.__all__) <= set(dir(mars_export))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mars_export.nonsense


def test_files_and_functions_stay_short():
    lines = [len(path.read_text("utf-8").splitlines()) for path in sources()]
    functions = [
        node.end_lineno - node.lineno + 1
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    assert max(lines) <= 500
    assert median(lines) <= 150
    assert median(functions) <= 15
