"""Modeling file and host are clean modules, whose parts a reader finds by their indexes."""

import ast
import hashlib
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from mars_export.checkpoint.modeling import HOST_NAME, MODELING_NAME, code_files
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
    """Files that the host, and the rules of a modeling file, are made of."""
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
def test_all_code_is_lint_clean_and_formatted(method, tmp_path):
    pytest.importorskip("ruff", reason="the oldest versions are tested without the linter")
    for model_type, family in families().items():
        for name, source in code_files(family, method).items():
            place = tmp_path / model_type / name
            place.parent.mkdir(exist_ok=True)
            place.write_text(source)
    # Names of native classes have underscores in some families.
    lint = ruff("check", "--no-cache", "--ignore", "N801", str(tmp_path))
    assert lint.returncode == 0, lint.stdout
    layout = ruff("format", "--no-cache", "--check", str(tmp_path))
    assert layout.returncode == 0, layout.stdout


@each_method
def test_it_needs_torch_and_transformers_only(family, method):
    for name, source in code_files(family, method).items():
        names, own = set(), set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                (own if node.level else names).add(node.module)
        roots = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
        assert roots == {"torch", "transformers"}
        assert own == ({HOST_NAME.removesuffix(".py")} if name == MODELING_NAME else set())


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
def test_the_indexes_name_the_lines_of_host_and_rule(family, method):
    code_of = code_files(family, method)
    of_host, of_rules = files_of(method)
    host, modeling = sections(code_of[HOST_NAME]), sections(code_of[MODELING_NAME])
    assert [kind for kind, _ in host] == ["HOST"] * len(of_host)
    assert [kind for kind, _ in modeling] == [*["RULE"] * len(of_rules), "MODEL"]
    parts = [*host.items(), *list(modeling.items())[:-1]]
    for name, ((kind, title), lines) in zip([*of_host, *of_rules], parts, strict=True):
        assert lines[0].startswith("# ---")
        assert lines[1].startswith(f"# {kind:<6} {title}")
        expected = "\n".join(code(name)).strip("\n")
        assert "\n".join(lines).endswith("\n\n\n" + expected), name
    assert f"class Steered{family.generator}(" in "\n".join(list(modeling.values())[-1])
    for source, found in ((code_of[HOST_NAME], host), (code_of[MODELING_NAME], modeling)):
        assert source.splitlines()[-len(list(found.values())[-1]) :] == list(found.values())[-1]


def test_a_reader_reads_little():
    """Of the sites in the decoder, in a family with long names, with a rule of 100 lines."""
    for family in families().values():
        assert code_files(family, "mars")[MODELING_NAME].count("\n") <= 200


@each_method
def test_the_host_is_the_same_in_every_family_and_named_by_its_digest(method):
    code_of = [code_files(family, method) for family in families().values()]
    (host,) = {code[HOST_NAME] for code in code_of}
    digest = hashlib.sha256(host.encode()).hexdigest()
    assert all(f'HOST_SHA256 = "{digest}"' in code[MODELING_NAME] for code in code_of)


def test_the_host_is_the_same_for_methods_that_act_at_one_site():
    family = families()["gemma3"]
    assert code_files(family, "mars")[HOST_NAME] == code_files(family, "addition")[HOST_NAME]


@each_method
def test_no_string_stands_in_the_place_of_a_docstring_in_mid_file(family, method):
    for source in code_files(family, method).values():
        body = ast.parse(source).body
        strings = [isinstance(getattr(node, "value", None), ast.Constant) for node in body]
        bare = [s and isinstance(node, ast.Expr) for s, node in zip(strings, body, strict=True)]
        assert [i for i, found in enumerate(bare) if found] == [0]
    for name in files_of(method)[1]:
        assert len((files("mars_export") / name).read_text("utf-8").splitlines()) <= 100
