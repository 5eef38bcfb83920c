"""Tensor-parallel and sharded models steer as one process does, on every rank."""

import re
from pathlib import Path

import pytest
import torch
import transformers

from support import tiny, zoo
from support.behavior import Pair
from support.oracle import oracle_generate, oracle_logits

pytest.importorskip("transformers.distributed", reason="needs a newer Transformers")

SCRIPT = Path(__file__).parents[1] / "support" / "in_two_processes.py"
AUTO = {"tp_plan": "auto"}
LAYER = "model.language_model.layers.*"
COLUMNS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
)
# Transformers has none for the text layers of Qwen3-VL; this is the one that Qwen3 has.
PLAN = {
    **{f"{LAYER}.{name}": "colwise" for name in COLUMNS},
    **{f"{LAYER}.self_attn.{n}_norm": "replicated_with_grad_allreduce" for n in "qk"},
    **{f"{LAYER}.{name}": "rowwise" for name in ("self_attn.o_proj", "mlp.down_proj")},
}
EXACT = {
    "llama": AUTO,
    "gemma3": AUTO,
    "qwen2_5_vl": AUTO,
    "qwen3_vl_untied": {"tp_plan": PLAN},
    "gemma3_fsdp": {"fsdp_size": 2},
}
"""Options of DistributedConfig by the family, and what is special."""
TIED, PIPELINE = "qwen3_vl", "qwen3"
"""A family that Transformers does not split, and one whose layers it gives to two processes."""


def model_type(name):
    return name.removesuffix("_untied").removesuffix("_fsdp")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    made, tied = {}, tiny.BUILDERS[TIED]

    def untied():
        cls, config = tied()
        config.tie_word_embeddings = False
        return cls, config

    for name in (*EXACT, TIED, PIPELINE):
        same = name.removesuffix("_fsdp")
        if same not in made:
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch, torch.no_grad():
                if name.endswith("_untied"):
                    patch.setitem(zoo.REFERENCE, TIED, untied)
                made[same] = Pair.make(model_type(name), folder)
        made[name] = made[same]
    return made


def batch_of(pair):
    rows = (None, *list(pair.family.placeholders)[-1:])
    return pair.batch(*rows), pair.ends(pair.batch(*rows), *rows)


@pytest.fixture(scope="module")
def ranks(pairs, two_ranks, tmp_path_factory):
    """What both ranks saw of every checkpoint, and of the bases of those that do not load."""
    folder = tmp_path_factory.mktemp("ranks")
    jobs = {}
    for name, options in {**EXACT, TIED: AUTO, PIPELINE: {"pp_size": 2}}.items():
        pair = pairs[name]
        job = (pair.family.auto_class, str(pair.directory), options, batch_of(pair)[0])
        jobs[name] = job
        jobs[f"{name}, base"] = (job[0], str(pair.base_dir), *job[2:])
    torch.save(jobs, folder / "jobs.pt")
    two_ranks(SCRIPT, folder / "jobs.pt", folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def marked(name):
    use = "FSDP" if name.endswith("_fsdp") else "tensor parallel"
    return pytest.mark.use(f"{use}, 2 processes", family=model_type(name))


@torch.no_grad()
@pytest.mark.parametrize("name", [pytest.param(name, marks=marked(name)) for name in EXACT])
def test_both_ranks_steer_as_one_process(pairs, ranks, name):
    pair = pairs[name]
    batch, where = batch_of(pair)
    arguments = (pair.record, pair.direction, batch, where)
    want = oracle_logits(pair.base, *arguments)
    tokens, _ = oracle_generate(pair.base, *arguments, max_new_tokens=5, do_sample=False)
    pair.model.steering.enabled = True
    assert pair.model.generate(**batch, max_new_tokens=5, do_sample=False).equal(tokens)
    told = [[(s.position, s.modality) for s in row] for row in pair.model.steering.last]
    gates = [s.gate for row in pair.model.steering.last for s in row]
    for rank in ranks:
        seen = rank[name]
        assert seen["sharded"] > 8
        torch.testing.assert_close(seen["logits"], want, rtol=1e-4, atol=1e-4)
        assert seen["tokens"].equal(tokens)
        assert [[s[:2] for s in row] for row in seen["last"]] == told
        assert [s[2] for row in seen["last"] for s in row] == pytest.approx(gates, abs=1e-5)
        assert seen["off"].equal(rank[f"{name}, base"]["logits"])
        assert (seen["logits"] - seen["off"])[:, -1].abs().amax(-1).min() > 0.01
    assert ranks[0][name]["last"] == ranks[1][name]["last"]


@pytest.mark.use("tensor parallel, 2 processes", family=TIED)
def test_what_transformers_cannot_split_raises(ranks, natively_refused):
    for rank in ranks:
        assert rank[TIED] == rank[f"{TIED}, base"]
        assert re.match("RuntimeError: narrow", rank[TIED]["error"])
    natively_refused("a head that is tied to the embeddings is not split")


def test_pipeline_stages_are_refused_on_every_rank(ranks):
    for rank in ranks:
        assert rank[PIPELINE]["error"].startswith("RuntimeError: steered checkpoint: pipeline")
        assert "logits" in rank[f"{PIPELINE}, base"]  # Transformers itself can


def test_the_tiny_models_are_what_the_names_say(pairs):
    assert pairs[TIED].base.config.tie_word_embeddings
    assert not pairs["qwen3_vl_untied"].base.config.tie_word_embeddings
    assert isinstance(pairs["llama"].base, transformers.LlamaForCausalLM)
