"""The code of a checkpoint: the host, and the modeling file with a method's rule and a family.

The files of `runtime` and the method's rule.py go in line by line. Their imports are merged at the
top, and their docstrings become the comments under the headings. There are two files because
Transformers parses the one that config.json names at every load: it is short, and what it imports
is not parsed.
"""

import ast
import hashlib
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from jinja2 import Environment, StrictUndefined

from mars_export.families import Family
from mars_export.methods import method_named
from mars_export.methods.base import RULE_CLASSES, Method, Site

__all__ = ["CODE_NAMES", "HOST_NAME", "MODELING_NAME", "code_files"]

MODELING_NAME: Final = "modeling_steered.py"
HOST_NAME: Final = "steering_host.py"
CODE_NAMES: Final = (MODELING_NAME, HOST_NAME)

_HOST: Final = (
    "guard.py",
    "trace.py",
    "windows.py",
    "positions.py",
    "model_inputs.py",
    "layer.py",
    "steering.py",
    "host.py",
)


class _Site(NamedTuple):
    """What a method's site brings: files of the host, and names in the module."""

    files: tuple[str, ...]
    host: str
    """Function that puts the hosted rule into a model."""
    hosted: str
    """Class of the hosted rule."""


_SITES: Final[Mapping[Site, _Site]] = {
    "decoder": _Site((), "host_layers", "LayerRule"),
    "projector": _Site(("projector.py",), "host_projector", "ProjectorRule"),
    "generate": _Site(("passes.py", "answers.py"), "host_answers", "GenerateRule"),
}
_OWN: Final = "mars_export."
_WIDTH: Final = 100
_RULER: Final = "# " + "-" * (_WIDTH - 2)

_HOST_HEADER: Final = '''# SPDX-License-Identifier: Apache-2.0
"""The host of a steered checkpoint: the same for every model. Needs torch and Transformers only.

{index}

It changes the model's numbers in one place, `HostedRule.steer`. `modeling_steered.py` beside it has
the rule, which says what changes, and runs with this very file only.

Whatever would drop the steering in silence raises instead. `with model.steering.off():` gives the
logits of the base model bit for bit; `model.steering.last` says what was steered.
"""

'''

_MODELING_HEADER: Final = '''# SPDX-License-Identifier: Apache-2.0
"""{family}, steered by {method}. Needs torch and Transformers only.

{index}

The host, which runs the rule, is `steering_host.py`: the same file in every checkpoint that acts
where this one does. It is imported if it is the one that this file was written with.
"""

'''


class _Section(NamedTuple):
    """A part of a module under its heading, and the (module, name or None) that it imports."""

    title: str
    text: str
    imports: frozenset[tuple[str, str | None]]


class _Span(NamedTuple):
    """First and last line of a part of the module, from 1."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def code_files(family: Family, method: str) -> dict[str, str]:
    """The Python files that a checkpoint of this family and method carries, by name.

    Args:
        family: Names the native classes.
        method: Name of the method, whose rule goes in.

    Returns:
        Two formatted modules that import nothing but torch, Transformers and each other.

    Raises:
        ExportError: if there is no such method.
    """
    parts = method_named(method).parts
    names = [*_HOST, *(name for part in parts for name in _SITES[part.site].files)]
    host = _host(tuple(names))
    sections = [_section("RULE", part.rule_source()) for part in parts]
    template = (files("mars_export.runtime") / "family.py.j2").read_text("utf-8")
    sections.append(_section("MODEL", _family_source(template, family, parts, host)))
    header = _MODELING_HEADER.replace("{family}", family.name).replace("{method}", method)
    return {MODELING_NAME: _module(header, sections), HOST_NAME: host}


@cache  # the same for every family
def _host(names: tuple[str, ...]) -> str:
    """The host made of these files of `runtime`."""
    runtime = files("mars_export.runtime")
    sections = [_section("HOST", (runtime / name).read_text("utf-8")) for name in names]
    return _module(_HOST_HEADER, sections)


def _module(header: str, sections: Sequence[_Section]) -> str:
    """Sections behind a header that names their lines, and their imports."""
    imports = _import_block(set().union(*(section.imports for section in sections)))

    def top(spans: Sequence[_Span]) -> str:
        lines = [f"    lines {n!s:>9}  {s.title}" for n, s in zip(spans, sections, strict=True)]
        return header.replace("{index}", "\n".join(lines)) + imports

    # The length of the header does not depend on the numbers in it.
    spans = _spans(sections, first=top([_Span(0, 0)] * len(sections)).count("\n") + 2)
    return top(spans) + "\n" + "\n\n".join(section.text for section in sections)


def _spans(sections: Sequence[_Section], first: int) -> list[_Span]:
    """Where sections stand that have two blank lines between them."""
    spans = []
    for section in sections:
        length = section.text.count("\n")
        spans.append(_Span(first, first + length - 1))
        first += length + 2
    return spans


@cache  # the same few files for every family, and a verification makes the module twice
def _section(kind: str, source: str) -> _Section:
    """A Python file as a section: its docstring is the heading, its imports stand elsewhere."""
    tree = ast.parse(source)
    top = [
        node
        for node in tree.body
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level)
    ]
    imports: set[tuple[str, str | None]] = set()
    for node in top:
        if isinstance(node, ast.Import):
            imports |= {(alias.name, None) for alias in node.names}
        elif not (node.module or "").startswith(_OWN):
            imports |= {(node.module or "", alias.name) for alias in node.names}
    heading = (ast.get_docstring(tree) or "").splitlines()
    title = f"{kind:<6} {heading[0].partition(':')[0].rstrip('.')}"
    labeled = [f"{kind:<6} {heading[0]}", *heading[1:]] if heading else [kind]
    comment = "\n".join(f"# {line}".rstrip() for line in labeled)
    end = max((node.end_lineno or 0 for node in [tree.body[0], *top]), default=0)
    body = "\n".join(source.splitlines()[end:]).strip("\n")
    text = f"{_RULER}\n{comment}\n{_RULER}\n\n\n{body}\n"
    return _Section(title, text, frozenset(imports))


def _family_source(template: str, family: Family, parts: Sequence[Method], host: str) -> str:
    """The native classes of a family, steered by this host."""
    classes = {
        family.model: f"SteeredMixin, {family.model}",
        family.generator: f"SteeredGenerationMixin, {family.generator}, GenerationMixin",
    }
    environment = Environment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, trim_blocks=True
    )
    return environment.from_string(template).render(
        family=family,
        natives=sorted({family.config, *classes}),
        host_sha256=hashlib.sha256(host.encode()).hexdigest(),
        sites=[
            {**_SITES[part.site]._asdict(), "rule": RULE_CLASSES[part.site], "method": part.name}
            for part in parts
        ],
        classes=[
            (native, _bracketed(f"class Steered{native}(", bases, "):"))
            for native, bases in classes.items()
        ],
        public=_bracketed(
            f"Steered{family.generator}.register_for_auto_class(", f'"{family.auto_class}"', ")"
        ),
        registration=_bracketed("register_steered(", ", ".join(["SteeredConfig", *classes]), ")"),
    )


def _bracketed(before: str, inner: str, after: str) -> str:
    """On one line or, where it is too long, on three."""
    line = before + inner + after
    return line if len(line) <= _WIDTH else f"{before}\n    {inner}\n{after}"


def _import_block(imports: set[tuple[str, str | None]]) -> str:
    """Import lines, sorted as ruff sorts them: the standard library, then the others."""
    groups = []
    for standard in (True, False):
        part = {i for i in imports if (i[0].split(".")[0] in sys.stdlib_module_names) == standard}
        lines = [f"import {module}" for module in sorted(m for m, name in part if name is None)]
        for module in sorted({module for module, name in part if name is not None}):
            names = sorted((n for m, n in part if m == module and n), key=_by_kind)
            lines.append(_from_import(module, names))
        groups.append("\n".join(lines))
    return "\n\n".join(groups) + "\n"


def _by_kind(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def _from_import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])
