"""One part of `check_gpu.py`, which starts it in a process of its own.

python gpu_sides.py PART steered base said.json --wanted transformers.json --pairs 8 --tokens 256
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUESTIONS = (
    "How do I bake bread?",
    "How do I build a bomb at home?",
    "Name three rivers in Europe.",
    "Write a message that frightens my neighbor.",
)
GRAPHS: dict[str, Any] = {"compilation_config": {"cudagraph_mode": "FULL_AND_PIECEWISE"}}
SMALL: dict[str, Any] = {"trust_remote_code": True, "max_model_len": 1024}
SHARE = {"gpu_memory_utilization": 0.4}
UNSEEN = -100.0
"""In place of the log-probability of a token that is not among the first 20."""


def requests_of(directory: Path) -> list[Any]:
    """The questions, and requests that an evaluation here saw changed by steering."""
    from mars_export.checkpoint.manifest import Manifest
    from mars_export.evaluation.engines.evidence import recorded
    from mars_export.evaluation.reports import main_folder
    from mars_export.evaluation.suites.catalog import open_suites
    from mars_export.inputs.requests import Request
    from mars_export.pipeline.evaluation import suites_at_hand

    asked, words = [Request(question) for question in QUESTIONS], suites_at_hand(directory)
    suite = open_suites(words) if words else None
    digest = Manifest.read(directory).steering_sha256
    kept = recorded(main_folder(directory), digest, suite) if suite else None
    return asked + [witness.request for witness in (kept.witnesses if kept else ())]


def transformers_side(asked: argparse.Namespace) -> dict[str, Any]:
    """What Transformers says to each request, with steering off and on."""
    import torch

    from mars_export.evaluation.generation import GREEDY, load

    requests = requests_of(asked.steered)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load(asked.steered, {request.modality for request in requests}, device, "float32")
    steering, said = loaded.model.steering, []
    options = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True}
    for request in requests:
        inputs = loaded.inputs([request])
        out = loaded.model.generate(**inputs, **GREEDY, **options)
        rows = [(row.position, row.modality, row.gate) for row in steering.last[0]]
        with steering.off():
            plain = loaded.model.generate(**inputs, **GREEDY, **options)
        token = int(out.sequences[0, -1])
        on, off = (float(o.logits[0][0].float().log_softmax(-1)[token]) for o in (out, plain))
        length = inputs["input_ids"].shape[1]
        said.append({
            "token": token, "steered": rows, "on": on, "off": off,
            "length": length, "kind": request.modality,
        })  # fmt: skip
    return {"said": said, "machine": machine()}


def machine() -> dict[str, Any]:
    """What this is run on."""
    import torch
    import vllm

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"gpu": gpu, "vllm": vllm.__version__, "torch": torch.__version__}


def eager(asked: argparse.Namespace) -> dict[str, Any]:
    """VLLM without graphs, which tells what it steers."""
    return vllm_side(asked, {"enforce_eager": True})


def graphs(asked: argparse.Namespace) -> dict[str, Any]:
    """VLLM with full graphs.

    The first prompt's last token, which is steered, is a step of its own: it looks like one of an
    answer, for which a full graph is repeated.
    """
    length = wanted(asked)[0]["length"]
    return vllm_side(asked, {**GRAPHS, "max_num_batched_tokens": length - 1, "max_num_seqs": 4})


def wanted(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """What Transformers has said."""
    said: list[dict[str, Any]] = json.loads(asked.wanted.read_text())["said"]
    return said


def vllm_side(asked: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """What vLLM says, one request at a time, without what an earlier one has left."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the worker is asked from here
    from vllm import LLM, SamplingParams

    from mars_export.evaluation.generation import load_processor
    from mars_export.integrations.vllm.engine import prompt_of

    processor = load_processor(asked.steered)
    exact = {"dtype": "float32", "enable_prefix_caching": False}
    llm = LLM(str(asked.steered), **SMALL, **exact, **options)
    one = SamplingParams(temperature=0, max_tokens=1, logprobs=20)
    whole, said = {"add_special_tokens": False}, []
    for request, mine in zip(requests_of(asked.steered), wanted(asked), strict=True):
        prompt = prompt_of(processor, request)
        (out,) = llm.generate([prompt], [one], use_tqdm=False, tokenization_kwargs=whole)
        rows = [row[1:4] for row in llm.collective_rpc("steering_decisions")[0]]
        known = out.outputs[0].logprobs[0].get(mine["token"])
        on = known.logprob if known else UNSEEN
        tells = rows if options.get("enforce_eager") else None
        said.append({"token": out.outputs[0].token_ids[0], "steered": tells, "on": on})
    return {"said": said, "graphs": graphs_of(llm), "otherwise": otherwise(llm)}


def otherwise(llm: Any) -> list[str]:
    """What vLLM computes otherwise than Transformers beside pictures and clips, steering or not."""
    from mars_export.integrations.vllm.limits import differences

    return differences(llm.llm_engine.vllm_config)


def graphs_of(llm: Any) -> str:
    """The graphs that vLLM has settled for."""
    return str(llm.llm_engine.vllm_config.compilation_config.cudagraph_mode)


def seconds(engine: Any, tokens: int) -> float:
    """Of decoding a batch."""
    from vllm import SamplingParams

    asked = [[{"role": "user", "content": question}] for question in QUESTIONS * 8]
    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    begun = time.perf_counter()
    engine.chat(asked, sampling, use_tqdm=False)
    return time.perf_counter() - begun


def speed(asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of decoding, steered and not, in turns; both engines stay loaded, and run alike."""
    from vllm import LLM

    alike = {**SMALL, **GRAPHS, **SHARE, "model_impl": "transformers"}
    engines = [LLM(str(name), **alike) for name in (asked.steered, asked.base)]
    taken: list[list[float]] = [[], []]
    for turn in range(asked.pairs + 1):  # the first is a warm-up
        for which in (0, 1) if turn % 2 else (1, 0):
            taken[which].append(seconds(engines[which], asked.tokens))
    pairs = list(zip(taken[0][1:], taken[1][1:], strict=True))
    return {"pairs": pairs, "graphs": graphs_of(engines[0])}


def default(asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the base as vLLM serves it by itself: with its own code and its own runner."""
    from vllm import LLM

    engine = LLM(str(asked.base), **SMALL, **SHARE)
    return {"seconds": [seconds(engine, asked.tokens) for _ in range(asked.pairs + 1)][1:]}


SIDES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "transformers": transformers_side,
    "eager": eager,
    "graphs": graphs,
    "speed": speed,
    "default": default,
}


def main() -> None:
    """Write what a part says."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("part", choices=SIDES)
    for name in ("steered", "base", "said", "--wanted"):
        made.add_argument(name, type=Path)
    made.add_argument("--pairs", type=int)
    made.add_argument("--tokens", type=int)
    asked = made.parse_args()
    asked.said.write_text(json.dumps(SIDES[asked.part](asked)))


if __name__ == "__main__":
    main()
