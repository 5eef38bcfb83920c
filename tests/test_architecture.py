"""Who may import whom, what stays light, and how big files and functions may be."""

import ast
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

import pytest

import mars_export

PACKAGE = Path(mars_export.__file__).parent
ROOT = PACKAGE.parent

# Each part of the package imports itself and those before it; parts of one line not one another.
CHAIN = (
    {"_version", "common"},
    {"runtime"},
    {"families"},
    {"inputs"},
    {"calibration"},
    {"methods"},
    {"checkpoint"},
    {"evaluation"},
    {"card", "hub"},
    {"verification"},
    {"integrations"},
    {"comparison"},
    {"pipeline"},
    {"demo"},
    {"cli"},
)
UNRESTRICTED = {"__init__", "__main__"}

LIGHT = [
    "",
    *(f".common.{path.stem}" for path in sorted((PACKAGE / "common").glob("[a-z]*.py"))),
    *(".pipeline.settings", ".pipeline.organisms", ".pipeline.stages"),
    *(".families", ".families.quantization", ".methods.mars.record", ".checkpoint.manifest"),
    *(".evaluation.report", ".evaluation.suite"),
    ".evaluation.adaptive.record",
    ".evaluation.utility",
    *(".integrations.finetune.record", ".integrations.vllm.plugin"),
    *(".demo", ".demo.turns"),
    *(f".cli.{path.stem}" for path in sorted((PACKAGE / "cli").glob("[a-z]*.py"))),
    *(f".card.{path.stem}" for path in sorted((PACKAGE / "card").glob("[a-z]*.py"))),
]


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path):
    """Modules of the package that a file imports anywhere, without the package's own name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            if node.module == "mars_export":
                yield from (f"mars_export.{alias.name}" for alias in node.names)
            elif node.module:
                yield f"{node.module}.{node.names[0].name}"


def parts_imported(path):
    for name in imported(path):
        if name.startswith("mars_export."):
            yield name.split(".")[1]


def may_import(importer, imported):
    level = {part: n for n, parts in enumerate(CHAIN) for part in parts}
    return importer == imported or level[imported] < level[importer]


def test_every_part_is_in_the_chain():
    parts = set().union(*CHAIN)
    assert {part_of(path) for path in sources()} == parts | UNRESTRICTED


def test_imports_follow_the_chain():
    wrong = [
        f"{path.relative_to(ROOT)} imports {part}"
        for path in sources()
        if part_of(path) not in UNRESTRICTED
        for part in parts_imported(path)
        if not may_import(part_of(path), part)
    ]
    assert wrong == []


def test_the_rule_is_able_to_fail(tmp_path):
    path = tmp_path / "steering.py"
    path.write_text("def f():\n    from mars_export.families.family import Family\n")
    assert list(parts_imported(path)) == ["families"]
    assert not may_import("runtime", "families")
    assert not may_import("card", "hub")
    assert may_import("card", "evaluation")


def test_the_traveling_files_need_torch_and_transformers_only():
    allowed_packages = {"torch", "transformers", "safetensors"} | set(sys.stdlib_module_names)
    for path in (PACKAGE / "runtime").glob("*.py"):  # its neighbors travel with it
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
        assert getattr(mars_export, name) is not None
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
    # Little above what the package has: a file that reads in one sitting, functions of a screen.
    assert max(lines) <= 450
    assert median(lines) <= 120
    assert median(functions) <= 10
    assert quantiles(functions, n=20)[-1] <= 32
