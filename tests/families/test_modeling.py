"""The modeling file is one clean module, in which a reader finds host and rule by the index."""

import ast
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from mars_export.checkpoint.modeling import modeling_source
from mars_export.families import families
from mars_export.methods import METHODS, method_named

ROOT = Path(__file__).parent.parent.parent
NAMES = [method.name for method in METHODS if method.exportable]
HOST = (
    "guard", "trace", "windows", "positions", "model_inputs", "layer", "steering", "host",
)  # fmt: skip

AT_SITE = {"decoder": (), "projector": ("projector",), "generate": ("passes", "answers")}

each_method = pytest.mark.parametrize("method", NAMES)


def files_of(method):
    """Files of the host, and of the rules, in a modeling file."""
    parts = method_named(method).parts
    host = [*HOST, *(name for part in parts for name in AT_SITE[part.site])]
    folders = [method_named(p.name).rule_class().__module__.split(".")[-2] for p in parts]
    return [f"runtime/{name}.py" for name in host], [f"methods/{f}/rule.py" for f in folders]


def ruff(*args):
    command = [sys.executable, "-m", "ruff", *args, "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(params=list(families()))
def family(request):
    return families()[request.param]


@each_method
def test_every_modeling_file_is_lint_clean_and_formatted(method, tmp_path):
    pytest.importorskip("ruff", reason="the oldest versions are tested without the linter")
    for model_type, family in families().items():
        (tmp_path / f"{model_type}.py").write_text(modeling_source(family, method))
    # Names of native classes have underscores in some families.
    lint = ruff("check", "--no-cache", "--ignore", "N801", str(tmp_path))
    assert lint.returncode == 0, lint.stdout
    layout = ruff("format", "--no-cache", "--check", str(tmp_path))
    assert layout.returncode == 0, layout.stdout


@each_method
def test_it_needs_torch_and_transformers_only(family, method):
    tree = ast.parse(modeling_source(family, method))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    roots = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert roots == {"torch", "transformers"}


def sections(source):
    """Title in the index to the lines that it names."""
    lines = source.splitlines()
    entries = re.findall(r"^ +lines +(\d+)-(\d+) +(HOST|RULE|MODEL) +(.+)$", source, re.MULTILINE)
    return {
        (kind, title): lines[int(first) - 1 : int(last)] for first, last, kind, title in entries
    }


def code(name):
    """Source lines of a file behind its docstring and imports."""
    source = (files("mars_export") / name).read_text("utf-8")
    tree = ast.parse(source)
    top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom | ast.Expr)]
    return source.splitlines()[top[-1].end_lineno :]


@each_method
def test_the_index_names_the_lines_of_host_and_rule(family, method):
    source = modeling_source(family, method)
    found = sections(source)
    kinds = [kind for kind, _ in found]
    of_host, of_rules = files_of(method)
    assert kinds == [*["HOST"] * len(of_host), *["RULE"] * len(of_rules), "MODEL"]
    for name, ((kind, title), lines) in zip([*of_host, *of_rules], found.items(), strict=False):
        assert lines[0].startswith("# ---")
        assert lines[1].startswith(f"# {kind:<6} {title}")
        expected = "\n".join(code(name)).strip("\n")
        assert "\n".join(lines).endswith("\n\n\n" + expected), name
    model = "\n".join(list(found.values())[-1])
    assert f"class Steered{family.generator}(" in model
    host, rule, tail = re.search(
        r"read lines (\d+-\d+):.*Lines (\d+-\d+) are.*Lines (\d+-\d+) name", source, re.DOTALL
    ).groups()
    spans = re.findall(r"^ +lines +(\d+-\d+) ", source, re.MULTILINE)
    assert host == spans[0].split("-")[0] + "-" + spans[len(of_host) - 1].split("-")[1]
    assert rule == spans[len(of_host)].split("-")[0] + "-" + spans[-2].split("-")[1]
    assert tail == spans[-1]
    assert int(tail.split("-")[1]) == len(source.splitlines())


@each_method
def test_the_host_is_the_same_in_every_family(method):
    hosts = set()
    for family in families().values():
        found = sections(modeling_source(family, method))
        hosts.add(tuple("\n".join(part) for (kind, _), part in found.items() if kind != "MODEL"))
    assert len(hosts) == 1


@each_method
def test_no_string_stands_in_the_place_of_a_docstring_in_mid_file(family, method):
    body = ast.parse(modeling_source(family, method)).body
    strings = [isinstance(getattr(node, "value", None), ast.Constant) for node in body]
    bare = [s and isinstance(node, ast.Expr) for s, node in zip(strings, body, strict=True)]
    assert [i for i, found in enumerate(bare) if found] == [0]
    for name in files_of(method)[1]:
        assert len((files("mars_export") / name).read_text("utf-8").splitlines()) <= 100
