"""What every method that makes checkpoints promises, from calibration to a loaded checkpoint."""

import ast
import inspect
import json
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.evaluation.generation import hosted_rules
from mars_export.evaluation.selfcheck import probe_request, self_check
from mars_export.methods import METHODS, method_named
from mars_export.methods.base import RECORD_NAME, TENSORS_NAME, Artefact, ArtefactRecord, Method
from support import methods, planted
from support.tiny import METHOD_CASES


@pytest.fixture(scope="module", params=METHOD_CASES)
def case(request):
    return METHOD_CASES[request.param]


@pytest.fixture(scope="module")
def exported(case, tmp_path_factory):
    return methods.export(case.method, tmp_path_factory.mktemp(case.method), **case.options)


@pytest.fixture(scope="module")
def loaded(exported):
    return exported.load()


def parts(case):
    return method_named(case.method).parts


def test_every_method_that_makes_checkpoints_is_in_the_table():
    exportable = {method.name for method in METHODS if method.exportable}
    assert {case.method for case in METHOD_CASES.values()} == exportable
    assert exportable <= METHOD_CASES.keys()


def test_a_method_that_makes_checkpoints_has_what_they_need():
    with pytest.raises(TypeError, match="Half makes checkpoints but lacks calibrate and compare"):
        type("Half", (Method,), {"name": "half"})
    words = type("Words", (Method,), {"name": "words", "exportable": False})()
    with pytest.raises(ExportError, match="words makes no checkpoint"):
        words.calibrate(None, words.Options())


def test_weights_that_nobody_trained_still_fit(case, request):
    method = method_named(case.method)
    options = method.Options(**case.options)
    if case.planted:
        stored = planted.calibrated(case.method, options)
    else:
        stored = request.getfixturevalue("exported").artefact
    rules = {**stored.record.rules, "modalities": list(stored.record.source.modalities)}
    assert method.options_like(rules, same_layer=False) == method.Options(**case.options)
    again = method.options_like(rules, same_layer=True)
    assert [again.layer] == stored.record.layers if stored.record.layers else again == options
    fresh = planted.calibrated(case.method, again) if case.planted else stored
    differences = method.compare(rules, stored.tensors, fresh)
    assert differences
    assert [d.sentence for d in differences if not d.fits] == []


def test_tensors_are_stored_from_the_cpu(case):
    made = case.artefact("gemma3", **case.options)
    with FakeTensorMode():
        tensors = {"push": torch.empty(4, device="cuda")}
        again = Artefact.of(
            case.method, made.record.source, made.record.record,
            rules=made.record.rules, tensors=tensors, probes=[],
        )  # fmt: skip
        assert again.tensors["push"].device.type == "cpu"


def test_the_artefact_survives_the_disk(exported, tmp_path):
    exported.artefact.save(tmp_path)
    back = Artefact.load(tmp_path)
    assert back.record == exported.artefact.record
    assert type(back.record.record) is type(exported.artefact.record.record)
    assert back.tensors.keys() == exported.artefact.tensors.keys()
    assert all(torch.equal(back.tensors[n], t) for n, t in exported.artefact.tensors.items())
    text = back.record.model_dump_json()
    assert ArtefactRecord.model_validate_json(text) == back.record


def test_another_schema_is_one_clear_line(exported, tmp_path):
    exported.artefact.save(tmp_path)
    path = tmp_path / RECORD_NAME
    raw = json.loads(path.read_text())
    for version in (3, 5):
        path.write_text(json.dumps({**raw, "schema_version": version}))
        with pytest.raises(ExportError, match=rf"schema version {version} is not 4") as caught:
            Artefact.load(tmp_path)
        assert "\n" not in str(caught.value)


def test_damaged_tensors_are_named(exported, tmp_path):
    exported.artefact.save(tmp_path)
    name = sorted(exported.artefact.tensors)[0]
    tensors = load_file(tmp_path / TENSORS_NAME)
    for value, message in ((None, "is missing"), (tensors[name] * torch.nan, "is not finite")):
        changed = {**tensors, name: value}
        save_file({n: t for n, t in changed.items() if t is not None}, tmp_path / TENSORS_NAME)
        with pytest.raises(ExportError, match=f"{name} {message}"):
            Artefact.load(tmp_path)


def test_the_rule_is_small_and_needs_torch_alone(case):
    rules = case.artefact("gemma3").record.rules
    for part in parts(case):
        source = part.rule_source()
        assert len(source.splitlines()) <= 100
        imported = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
        assert {name.split(".")[0] for name in imported} == {"torch", "typing"}
        rule = part.rule_class()(8, {**rules, "modalities": ["text", "image"]})
        assert list(rule.state_dict()) == list(rule.TENSORS)


def test_tensors_of_the_parts_have_names_of_their_own(case):
    names = [name for part in parts(case) for name in part.rule_class().TENSORS]
    assert len(names) == len(set(names))


def test_what_calibration_runs_is_what_ships(case, exported, loaded):
    """The classes in the modeling file are the package's, and so are their numbers."""
    record, tensors = exported.artefact.record, exported.artefact.tensors
    kinds = {
        c.__name__: hosted for hosted in hosted_rules(loaded.model) for c in type(hosted).__mro__
    }
    for part in parts(case):
        ours = part.rule_class()
        modalities = record.source.modalities
        rule = ours(record.source.hidden_size, {**record.rules, "modalities": modalities})
        rule.load_state_dict({name: tensors[name] for name in ours.TENSORS})
        hosted = kinds[ours.__name__]
        theirs = next(c for c in type(hosted).__mro__ if c.__name__ == ours.__name__)
        assert theirs is not ours
        assert inspect.getsource(theirs) == inspect.getsource(ours)
        generator = torch.Generator().manual_seed(0)
        h = 20 * torch.randn(64, record.source.hidden_size, generator=generator)
        h[1] = 20 * tensors[ours.TENSORS[0]].reshape(-1, h.shape[-1])[0]
        arguments = case.arguments(record)
        (pushed, decision), (pushed_there, there) = rule(h, *arguments), hosted(h, *arguments)
        assert torch.equal(pushed, pushed_there)
        assert decision.keys() == there.keys()
        assert all(torch.equal(decision[name], there[name]) for name in decision)
        assert not torch.equal(pushed, h)


def test_probes_hold_in_the_loaded_checkpoint(exported, loaded):
    manifest = exported.manifest
    assert manifest.calibration == exported.artefact.record
    check = self_check(loaded, manifest)
    assert check.active, check.detail


def test_off_is_the_base_bit_for_bit(exported, loaded):
    for probe in exported.artefact.record.probes:
        inputs = loaded.inputs([probe_request(exported.artefact.record.source, probe)])
        with torch.no_grad(), loaded.model.steering.off():
            assert loaded.model(**inputs).logits.equal(methods.base_logits(inputs))


def test_the_card_has_its_section(case, exported):
    section = method_named(case.method).card(exported.artefact.record)
    assert section.summary
    assert section.citations
    assert "|---|" in section.details


def test_a_manifest_of_another_schema_is_refused(exported, tmp_path):
    raw = json.loads((exported.directory / MANIFEST_NAME).read_text())
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({**raw, "schema_version": 1}))
    with pytest.raises(ExportError, match="schema version 1 is not 2"):
        Manifest.read(tmp_path)


def test_the_list_of_methods_needs_no_torch():
    code = (
        "import sys; from mars_export.methods import METHODS, method_named\n"
        "for method in METHODS:\n"
        "    assert method is method_named(method.name)\n"
        "    method.Options()\n"
        "    [part.rule_source() for part in method.parts if method.exportable]\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_method_lists_those_that_there_are():
    names = ", ".join(method.name for method in METHODS)
    with pytest.raises(ExportError, match=f"'magic'; choose one of {re.escape(names)}"):
        method_named("magic")
