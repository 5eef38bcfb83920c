"""What Transformers and vLLM say to the same requests, as JSON. Run as a program:

    vllm_sides.py transformers DIRECTORY SUITE KIND OUT
    vllm_sides.py lessened DIRECTORY SUITE KIND OUT
    vllm_sides.py vllm DIRECTORY SUITE KIND OUT '{"enforce_eager": true}'     options of vllm.LLM

`lessened` is Transformers without what vLLM's Transformers backend leaves out on a CPU, steering or
not: Qwen3-VL's DeepStack features, and attention in both directions inside Gemma 3's pictures. KIND
is `suite`, the evaluation requests of a suite with their modalities mixed, `conversations`, in
which later requests begin with what earlier ones have left in a prefix cache, or `refused`, of
which vLLM answers a part. Each request gets: `prompt` (ids), `tokens` (generated ids), `steered`
(position, modality, gate of each steered position that was computed; null where vLLM does not
tell), `cached` (tokens not computed), `end` (finish and stop reason).
"""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

NEW_TOKENS = 4
MODALITIES = ("text", "image", "video")
SMALL = {"dtype": "float32", "max_model_len": 512, "max_num_batched_tokens": 1024}
REFUSED = "I can't help with that request, because it could put people in danger."
MORE = "All right, then please tell me something else about what I have asked you before."


class Ask(NamedTuple):
    """A request, and what follows in the same conversation: answers and further questions.

    form: of the prompt; `chat`, or what is wrong with it: `bare` text, `forgotten` header.
    """

    id: str
    request: object
    follow: tuple = ()
    form: str = "chat"

    def messages(self):
        from mars_export.inputs.requests import messages

        later = [
            {"role": ("assistant", "user")[i % 2], "content": [{"type": "text", "text": text}]}
            for i, text in enumerate(self.follow)
        ]
        return messages(self.request) + later


def suite_requests(suite):
    """One wave of all evaluation samples; sorted so that a packed batch mixes modalities."""
    found = suite.evaluation_samples(MODALITIES)
    found = sorted(found, key=lambda sample: (sample.id.split("-", 1)[1], sample.modality))
    return [[Ask(sample.id, suite.request(sample)) for sample in found]]


def conversations(suite):
    """Two waves: requests, then such that begin with the first wave's tokens.

    `turn`: another turn behind an answer. `begun`: the first ends inside an answer, and the second
    goes on there.
    """
    from mars_export.inputs.requests import Request

    first, second = [], []
    for sample in [s for m in ("text", "image") for s in suite.evaluation_samples([m])[::6]]:
        request = suite.request(sample)
        first.append(Ask(f"turn2-{sample.id}", request, (REFUSED, MORE)))
        second.append(Ask(f"turn3-{sample.id}", request, (REFUSED, MORE) * 2))
        if sample.modality == "text":
            begun = Request(sample.prompt, prefill=REFUSED)
            first.append(Ask(f"begun1-{sample.id}", begun))
            second.append(Ask(f"begun2-{sample.id}", request, (REFUSED, MORE * 2)))
    return [first, second]


def refused(suite):
    """One wave: requests as they should be, and such that do not say where their answer begins."""
    samples = suite.evaluation_samples(["text"])[:8]
    asked = [Ask(f"chat-{sample.id}", suite.request(sample)) for sample in samples]
    asked += [ask._replace(id=f"bare-{ask.id}", form="bare") for ask in asked[:8]]
    later = {"follow": (REFUSED, MORE), "form": "forgotten"}
    asked += [ask._replace(id=f"late-{ask.id}", **later) for ask in asked[:8]]
    return [sorted(asked, key=lambda ask: ask.id.split("-")[::-1])]


KINDS = {"suite": suite_requests, "conversations": conversations, "refused": refused}


def waves(suite, kind):
    from mars_export.evaluation.suite import read_suite

    return KINDS[kind](read_suite(Path(suite)))


def transformers_side(directory, suite, kind, lessened=False):
    from transformers.models.qwen3_vl import modeling_qwen3_vl

    from mars_export.evaluation.generation import GREEDY, load

    if lessened:
        modeling_qwen3_vl.Qwen3VLTextModel._deepstack_process = lambda self, hidden, *rest: hidden
    asked = [ask for wave in waves(suite, kind) for ask in wave]
    modalities = {ask.request.modality for ask in asked}
    loaded = load(Path(directory), modalities, "cpu", "float32")
    told = {}
    for ask in asked:
        inputs = loaded.inputs([ask.request]) if not ask.follow else follow_up(loaded, ask)
        if lessened:
            inputs.pop("token_type_ids", None)
        out = loaded.model.generate(**inputs, **GREEDY, max_new_tokens=NEW_TOKENS)
        prompt = inputs["input_ids"][0].tolist()
        told[ask.id] = {
            "prompt": prompt,
            "tokens": out[0, len(prompt) :].tolist(),
            "steered": [(p.position, p.modality, p.gate) for p in loaded.model.steering.last[0]],
            "cached": 0,
        }
    return told


def follow_up(loaded, ask):
    return loaded.processor.apply_chat_template(
        [ask.messages()],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def vllm_side(directory, suite, kind, options):
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM, SamplingParams

    llm = LLM(model=str(directory), trust_remote_code=True, **{**SMALL, **options})
    greedy = SamplingParams(temperature=0, max_tokens=NEW_TOKENS)
    told, tells = {}, bool(options.get("enforce_eager"))
    for wave in waves(suite, kind):
        asked = [prompt(llm, ask) for ask in wave]
        whole = {"add_special_tokens": False}  # the template has written them
        outs = llm.generate(asked, greedy, use_tqdm=False, tokenization_kwargs=whole)
        steered = {}
        rows, *others = llm.collective_rpc("steering_decisions")
        assert all(other == rows for other in others), "ranks steer differently"
        for request, *decision in rows:
            steered.setdefault(request.split("-")[0], []).append(decision[:3])
        for ask, out in zip(wave, outs, strict=True):
            told[ask.id] = {
                "prompt": list(out.prompt_token_ids),
                "tokens": list(out.outputs[0].token_ids),
                "steered": steered.get(out.request_id, []) if tells else None,
                "cached": out.num_cached_tokens or 0,
                "end": [out.outputs[0].finish_reason, out.outputs[0].stop_reason],
            }
    return told


def prompt(llm, ask):
    """A request as vLLM takes it, rendered with the checkpoint's template."""
    from mars_export.inputs.requests import CLIP_FPS

    request, media = ask.request, {}
    tokenizer = llm.llm_engine.get_tokenizer()
    begun = bool(request.prefill)
    if ask.form == "bare":
        return {"prompt": request.prompt}
    text = tokenizer.apply_chat_template(
        ask.messages(),
        add_generation_prompt=not begun and ask.form == "chat",
        continue_final_message=begun,
        tokenize=False,
    )
    if request.shown("image"):
        media["image"] = request.shown("image")
    for clip in request.shown("video"):
        frames = list(clip)
        about = {"fps": CLIP_FPS, "total_num_frames": len(frames), "do_sample_frames": False}
        media["video"] = [(frames, {**about, "frames_indices": list(range(len(frames)))})]
    return {"prompt": text, **({"multi_modal_data": media} if media else {})}


def main():
    side, directory, suite, kind, out, *options = sys.argv[1:]
    if side == "vllm":
        told = vllm_side(directory, suite, kind, json.loads(options[0]) if options else {})
    else:
        told = transformers_side(directory, suite, kind, lessened=side == "lessened")
    Path(out).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
