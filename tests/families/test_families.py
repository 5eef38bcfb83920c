"""Family data agrees with the installed Transformers."""

import inspect

import pytest
import transformers

from mars_export.checkpoint.modeling import modeling_source
from mars_export.errors import MarsError
from mars_export.families import families, family_of
from support import tiny

FAMILIES = list(families().values())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.model_type)
def test_parameters_are_the_native_ones(family):
    for name, listed in (
        (family.model, family.forward.model),
        (family.generator, family.forward.generator),
    ):
        native = inspect.signature(getattr(transformers, name).forward).parameters
        assert list(listed) == [n for n in native if n not in ("self", "kwargs")]
        defaults = {n: native[n].default for n in listed}
        assert {n: d for n, d in defaults.items() if d is not None} in ({}, {"logits_to_keep": 0})


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.model_type)
def test_names_fit_the_native_classes(family):
    cls, config = tiny.BUILDERS[family.model_type]()
    assert cls.__name__ == family.generator
    assert type(config).__name__ == family.config
    assert hasattr(config.get_text_config(), family.activation)
    assert set(family.visual_tokens) == set(family.modalities) - {"text"}
    assert all(isinstance(getattr(config, a), int) for a in family.visual_tokens.values())
    model = cls(config)
    assert model.get_submodule(family.decoder) is model.get_decoder()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.model_type)
def test_modeling_file_is_one_flat_compilable_file(family):
    source = modeling_source(family)
    compile(source, "modeling_mars.py", "exec")
    roots = {line.split()[1].split(".")[0] for line in source.splitlines() if is_import(line)}
    standard = {"copy", "hashlib", "json", "contextvars", "dataclasses", "typing"}
    assert roots - standard == {"torch", "transformers"}
    assert source == modeling_source(family)


def is_import(line):
    return line.startswith(("import ", "from "))


def test_unknown_and_steered_types_are_refused():
    with pytest.raises(MarsError, match="'mystery' is not supported"):
        family_of("mystery")
    with pytest.raises(MarsError, match="already steered"):
        family_of("mars_gemma3")
