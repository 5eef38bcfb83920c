"""What every family must do, on tiny random checkpoints in the layout that the Hub has."""

import copy
import inspect
import json
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors import safe_open

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.common.errors import ExportError
from mars_export.families import decoder_layers
from mars_export.families.inspection import family_for
from support import tiny, zoo
from support.behavior import NO_MIXED_VISUALS, export, load, shifts
from support.conversations import places
from support.oracle import oracle_greedy, oracle_logits
from support.recording import does_not_apply

pytestmark = pytest.mark.behavior

LEFT_OVER = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def auto_classes(pair):
    config = json.loads((pair.directory / "config.json").read_text())
    return sorted(set(config["auto_map"]) - {"AutoConfig"})


def keys(directory):
    found = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as shard:
            found |= set(shard.keys())
    return found


def close(got, want, rtol=1e-5, atol=1e-5):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


def same_weights(model, other):
    """Equal bits. Logits may differ in the last ones: a new file aligns tensors differently."""
    theirs = dict(other.named_parameters())
    assert all(weight.equal(theirs[name]) for name, weight in model.named_parameters())


def test_loads_steered_through_its_auto_classes_with_no_key_left_over(pair):
    batch = pair.batch(None)
    assert pair.family.auto_class in auto_classes(pair)
    # A headless class leaves the head over, in some families; no other key, and no other class.
    headless = getattr(transformers, pair.family.model)
    _, allowed = headless.from_pretrained(pair.base_dir, output_loading_info=True)
    for auto in auto_classes(pair):
        model, info = load(pair.directory, auto, output_loading_info=True)
        name = pair.family.model if auto == "AutoModel" else pair.family.generator
        assert type(model).__name__ == f"Steered{name}"
        assert isinstance(model, getattr(transformers, name))
        same = {k: info[k] for k in LEFT_OVER} == {k: allowed[k] for k in LEFT_OVER}
        assert same if auto == "AutoModel" else not any(info[k] for k in LEFT_OVER)
        model(**batch)
        assert model.steering.last[0][0].strength > 0


def test_forward_has_the_native_signature(pair):
    """And names the positions to steer, which trainers would else drop from a data set."""
    assert type(pair.model).__name__ == f"Steered{type(pair.base).__name__}"
    assert type(pair.model.base_model) in (type(pair.model), type(pair.base.base_model))
    native, ours = (inspect.signature(model.forward) for model in (pair.base, pair.model))
    named = dict(ours.parameters)
    assert named.pop("steering_positions").default is None
    assert list(named.values()) == list(native.parameters.values())
    ours = inspect.signature(pair.model.prepare_inputs_for_generation)
    assert ours == inspect.signature(pair.base.prepare_inputs_for_generation)


def test_off_is_the_base_bit_for_bit(pair):
    pair.model.steering.enabled = False
    for batch in pair.batches().values():
        assert pair.model(**batch).logits.equal(pair.base(**batch).logits)
        options = {"max_new_tokens": 5, "do_sample": False}
        assert pair.model.generate(**batch, **options).equal(pair.base.generate(**batch, **options))
    assert pair.model.steering.last == []


def test_on_equals_a_hook_set_by_hand_in_every_modality(pair):
    for visual in pair.visuals():
        rows = (None, visual) if visual else (None,)
        check_forward(pair, pair.batch(*rows), *rows)


def check_others_untouched(pair, got, native):
    """Bit for bit, except that experts multiply as many rows at once as were routed to them."""
    if hasattr(pair.base.config.get_text_config(), "num_experts_per_tok"):
        epsilon = torch.finfo(got.dtype).eps
        close(got[:, :-1], native[:, :-1], rtol=20 * epsilon, atol=20 * epsilon)
    else:
        assert got[:, :-1].equal(native[:, :-1])


def check_forward(pair, batch, *rows):
    got = pair.model(**batch).logits
    where = pair.ends(batch, *rows)
    close(got, oracle_logits(pair.base, pair.record, pair.direction, batch, where))
    native = pair.base(**batch).logits
    check_others_untouched(pair, got, native)
    assert (got[:, -1] - native[:, -1]).abs().amax(-1).min() > 0.01
    assert [row[0].modality for row in pair.model.steering.last] == [
        shown.modality for _, _, shown in where
    ]
    lengths = batch["attention_mask"].sum(1).tolist()
    assert [[s.position for s in row] for row in pair.model.steering.last] == [
        [n - 1] for n in lengths
    ]


def test_greedy_tokens_equal_a_hook_set_by_hand(pair):
    for visual in pair.visuals():
        rows = (None, visual) if visual else (None,)
        batch = pair.batch(*rows)
        got = pair.model.generate(**batch, max_new_tokens=5, do_sample=False)
        where = pair.ends(batch, *rows)
        want = oracle_greedy(pair.base, pair.record, pair.direction, batch, where, 5)
        assert got.equal(want)
        assert [len(row) for row in pair.model.steering.last] == [1] * len(rows)


def test_requests_of_all_modalities_share_a_batch(pair, natively_refused):
    if len(pair.family.placeholders) < 2:
        one = "the family shows one kind of visual"
        does_not_apply(one if pair.family.placeholders else "text only")
    rows = (None, "image", "video")
    batch = pair.batch(*rows)
    reason = NO_MIXED_VISUALS.get(pair.family.model_type)
    if reason is None:
        check_forward(pair, batch, *rows)
        return
    for model in (pair.base, pair.model):
        with pytest.raises(ValueError, match=reason):
            model(**batch)
    natively_refused("a picture and a clip in one batch")


def test_modality_that_was_not_calibrated_is_refused(pair, tmp_path):
    if not pair.family.shown_by:
        does_not_apply("text only")
    fewer = {**shifts(pair.family)}
    uncalibrated = list(pair.family.placeholders)[-1]
    del fewer[uncalibrated]
    directory = export(pair.family, pair.base_dir, tmp_path, shift=fewer)
    model = load(directory, pair.family.auto_class)
    batch = pair.batch(uncalibrated)
    for call in (model, model.generate):
        with pytest.raises(ValueError, match=f"not calibrated for {uncalibrated}"):
            call(**batch)
    model(**pair.batch(None))
    model.steering.enabled = False
    assert model(**batch).logits.equal(pair.base(**batch).logits)


def test_native_classes_by_name_raise(pair):
    for name in {pair.family.generator, pair.family.model}:
        with pytest.raises(Exception, match="load it with an Auto class and trust_remote_code"):
            getattr(transformers, name).from_pretrained(pair.directory)


def test_without_trust_every_auto_class_raises(pair, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    for auto in ["AutoConfig", *auto_classes(pair)]:
        for trust in (None, False):
            with pytest.raises(ValueError, match="custom code"):
                getattr(transformers, auto).from_pretrained(pair.directory, trust_remote_code=trust)


def test_saved_again_it_is_steered_and_has_the_layout_of_the_base(pair, tmp_path):
    batch = list(pair.batches().values())[-1]
    want = pair.model(**batch).logits
    pair.model.save_pretrained(tmp_path / "again")
    for name in ("modeling_steered.py", "steering_host.py"):
        assert (tmp_path / "again" / name).read_bytes() == (pair.directory / name).read_bytes()
    model, info = load(tmp_path / "again", pair.family.auto_class, output_loading_info=True)
    assert not any(info[problem] for problem in LEFT_OVER), info
    same_weights(model, pair.model)
    close(model(**batch).logits, want)
    assert len(model.steering.last[0]) == 1
    new = {name for name in keys(tmp_path / "again") if ".steering." not in name}
    assert new == keys(pair.base_dir)
    saved = json.loads((tmp_path / "again/config.json").read_text())
    assert saved["model_type"] == pair.family.disk_model_type
    assert not any("--" in reference for reference in saved["auto_map"].values())
    with pytest.raises(Exception, match="load it with an Auto class"):
        getattr(transformers, pair.family.generator).from_pretrained(tmp_path / "again")


def test_heads_are_tied_as_in_the_base(pair):
    def tied(model):
        head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
        return head.weight is embeddings.weight

    assert tied(pair.model) == tied(pair.base)
    assert pair.model.num_parameters() == pair.base.num_parameters()
    same_weights(pair.model, pair.base)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_gated_in_float32_and_changes_one_position(pair, dtype):
    model = load(pair.directory, pair.family.auto_class, dtype=dtype)
    native = getattr(transformers, pair.family.generator)
    base = native.from_pretrained(pair.base_dir, dtype=dtype).eval()
    steering = decoder_layers(model)[pair.record.layer].steering
    assert {buffer.dtype for buffer in steering.buffers()} == {torch.float32}
    batch = {k: v.to(dtype) if v.is_floating_point() else v for k, v in pair.batch(None).items()}
    states = []
    handle = decoder_layers(base)[pair.record.layer].register_forward_hook(
        lambda *a: states.append(a[2][0, -1])
    )
    want = base(**batch).logits
    handle.remove()
    got = model(**batch).logits
    assert states[0].dtype == dtype
    gate = (float(states[0].float() @ pair.unit) - pair.record.origin["text"]) / pair.opening
    assert model.steering.last[0][0].gate == pytest.approx(gate, rel=1e-5)
    check_others_untouched(pair, got, want)
    assert not got[:, -1].equal(want[:, -1])
    model.steering.enabled = False
    assert model(**batch).logits.equal(want)
    model.to(dtype)
    model.verify_steering()


def test_sharded_bases_keep_their_shards(pair, tmp_path):
    base = tmp_path / "base"
    pair.base.save_pretrained(base, max_shard_size="300KB")
    assert len(list(base.glob("*.safetensors"))) > 1
    target = tmp_path / "steered"
    source = tiny.source(pair.family.model_type)
    write_checkpoint(base, target, source=source, calibration_dir=pair.directory / "calibration")
    model, info = load(target, pair.family.auto_class, output_loading_info=True)
    assert not any(info[problem] for problem in LEFT_OVER), info
    same_weights(model, pair.model)
    batch = pair.batch(None)
    close(model(**batch).logits, pair.model(**batch).logits)


def test_bases_with_custom_code_are_refused(pair, tmp_path):
    """Their code would have to be trusted, and steered as well; nothing is written."""
    for path in pair.base_dir.iterdir():
        (tmp_path / path.name).symlink_to(path)
    raw = {**json.loads((tmp_path / "config.json").read_text()), "auto_map": {"AutoModel": "m.M"}}
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(raw))
    for allow in (False, True):
        with pytest.raises(ExportError, match="custom code"):
            family_for(raw, allow_unknown=allow)
    with pytest.raises(ExportError, match="custom code"):
        export(pair.family, tmp_path, tmp_path)
    assert not (tmp_path / "steered").exists()


def test_deep_copies_are_steered_and_switched_on_their_own(pair):
    batch = pair.batch(None)
    twin = copy.deepcopy(pair.model)
    close(twin(**batch).logits, pair.model(**batch).logits)
    twin.steering.enabled = False
    close(twin(**batch).logits, pair.base(**batch).logits)
    assert (pair.model(**batch).logits - pair.base(**batch).logits).abs().max() > 0.01


ISOLATED = """
import json, sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in {"mars_export", "pydantic", "support"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import torch, transformers
transformers.logging.set_verbosity_error()
ids, told = torch.tensor([json.loads(sys.argv[1])]), {}
for auto, directory in json.loads(sys.argv[2]):
    model = getattr(transformers, auto).from_pretrained(directory, trust_remote_code=True)
    mask = torch.ones_like(ids)
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False)
    told[directory] = [model.steering.last[0][0].position, out[0, ids.shape[1]:].tolist()]
print(json.dumps(told))
"""


@pytest.fixture(scope="session")
def elsewhere(pairs, tmp_path_factory):
    """What a process that cannot import the package answers, for all families at once."""
    ids = tiny.prompt(tiny.random_ids(6, 1))
    every = [pairs(model_type) for model_type in zoo.AVAILABLE]
    jobs = [(pair.family.auto_class, str(pair.directory)) for pair in every]
    run = subprocess.run(
        [sys.executable, "-c", ISOLATED, json.dumps(ids), json.dumps(jobs)],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return torch.tensor([ids]), json.loads(run.stdout.strip().splitlines()[-1])


def test_another_process_without_the_package_answers_the_same(pair, elsewhere):
    ids, told = elsewhere
    options = {"max_new_tokens": 3, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    want = pair.model.generate(input_ids=ids, **options)
    answer = want[0, ids.shape[1] :].tolist()
    assert told[str(pair.directory)] == [ids.shape[1] - 1, answer]


def test_stated_positions_are_steered_and_no_others(pair):
    visual = pair.visuals()[-1]
    batch = pair.batch(visual)
    last = batch["input_ids"].shape[1] - 1
    got = pair.model(**batch, steering_positions=[[last - 3, last]]).logits
    where = places(batch["input_ids"], [[last - 3, last]])
    want = oracle_logits(pair.base, pair.record, pair.direction, batch, where)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    nowhere = pair.model(**batch, steering_positions=[[]]).logits
    assert nowhere.equal(pair.base(**batch).logits)


def test_a_layer_is_steered_or_raises_whoever_calls_it(pair):
    layer = decoder_layers(pair.model)[tiny.LAYER]
    calls = []
    handle = layer.register_forward_pre_hook(lambda *a: calls.append(a[1:]), with_kwargs=True)
    pair.model(**pair.batch(None), use_cache=False)
    handle.remove()
    args, kwargs = calls[0]
    bare = {name: value for name, value in kwargs.items() if name != "steering_window"}
    steered = layer.forward(*args, **kwargs)
    with pytest.raises(RuntimeError, match="call the model that from_pretrained returned"):
        layer.forward(*args, **bare)
    with pair.model.steering.off():
        assert not torch.equal(layer.forward(*args, **bare), steered)
    # As DataParallel makes one: it runs its own weights.
    assert layer._replicate_for_data_parallel().forward.args[0] is not layer
