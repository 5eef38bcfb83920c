"""How each case is run."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from speed.cases import CONTROL, STEERED, Case
from speed.clock import Clock, Deadline, compare
from speed.counts import operations, peak_bytes, synchronizations
from speed.requests import compiled_generate, forward_loop, make_request
from speed.shapes import PUSH, Pair, Shape, share_weights
from speed.tools import TOOLS, Tool, text_decoder, twin

__all__ = ["Bench", "load"]

Row = dict[str, Any]
Run = Callable[[], dict[str, float]]


def load(path: object, device: torch.device) -> Any:
    """Load a checkpoint as a user does."""
    from transformers import AutoModelForImageTextToText

    where = {} if device.type == "cpu" else {"device_map": device}
    model = AutoModelForImageTextToText.from_pretrained(path, trust_remote_code=True, **where)
    return model.eval()


class Bench:
    """Measures one shape on one device; rows of results as JSON values."""

    def __init__(
        self,
        shape: Shape,
        pair: Pair,
        device: torch.device,
        tokens: tuple[int, int],
        backend: str = "inductor",
    ) -> None:
        """Tokens: new tokens, edge of a picture in patches."""
        self.shape, self.pair, self.device = shape, pair, device
        self.new_tokens, self.side = tokens
        self.clock, self.backend = Clock(device), backend
        self.base: Any = None
        self.steered: Any = None

    def loading(self, rounds: int, deadline: Deadline) -> Row:
        """from_pretrained, interleaved; the models of this class are loaded afterwards.

        From then on both hold the same weights, as the other tools' modules do: of two copies the
        one that is used less often is the slower one, whatever is done with it.
        """
        now = time.perf_counter if self.clock.cuda else time.process_time

        def run(path: object) -> Run:
            def once() -> dict[str, float]:
                start = now()
                model = load(path, self.device)
                self.clock.wait()
                seconds = now() - start
                del model
                gc.collect()
                return {"load": seconds}

            return once

        runs = {"base": run(self.pair.base), STEERED: run(self.pair.steered)}
        ((_, ratios),) = compare(runs, rounds, deadline).items()
        self.base, self.steered = load(self.pair.base, self.device), load(
            self.pair.steered, self.device
        )  # fmt: skip
        share_weights(self.steered, self.base)
        gc.collect()
        return ratios.summary()

    def _request(self, case: Case) -> dict[str, torch.Tensor]:
        return make_request(self.shape, case.prompt, case.rows, case.tokens, self.side, self.device)

    def measure(self, case: Case, rounds: int, deadline: Deadline) -> tuple[list[Row], list[str]]:
        """Rows of a case, one a subject and phase, and a line for each tool that did not run."""
        request, skipped = self._request(case), list[str]()
        if case.way.startswith("tools"):
            runs, skipped = self._tool_runs(case, request)
        else:
            runs = {
                name: self._run(case.way, model, request)
                for name, model in (("base", self.base), (STEERED, self.steered))
            }
        runs[CONTROL] = runs["base"]
        found = compare(runs, rounds, deadline)
        rows = [
            {"way": case.way, "prompt": case.prompt, "rows": case.rows, "tokens": case.tokens,
             "subject": subject, "phase": phase, **ratios.summary()}
            for (subject, phase), ratios in found.items()
        ]  # fmt: skip
        torch.compiler.reset()
        return rows, skipped

    def _run(self, way: str, model: Any, request: Mapping[str, torch.Tensor]) -> Run:
        if way == "generate":
            return lambda: self.clock.generate(model.generate, request, self.new_tokens)
        if way == "compiled generate":
            generate = compiled_generate(model, self.backend)
            return lambda: self.clock.generate(generate, request, self.new_tokens)
        if way == "forward":
            return lambda: forward_loop(model, request, self.new_tokens, self.clock)
        compiled = torch.compile(model, fullgraph=True, dynamic=False, backend=self.backend)
        return lambda: forward_loop(compiled, request, 1, self.clock)

    def _tool_runs(
        self, case: Case, request: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, Run], list[str]]:
        """Base, steered and the tools that run here; all on the same loaded base."""
        text_only = case.way != "tools"
        model = text_decoder(self.base) if text_only else self.base
        if text_only:
            request = {k: v for k, v in request.items() if k in ("input_ids", "attention_mask")}
        vector = (PUSH * self.pair.direction).to(self.device, torch.bfloat16)

        def run(tool: Tool) -> Run:
            own = twin(model)

            def once() -> dict[str, float]:
                with tool.steer(own, self.shape.layer, vector) as generate:
                    return self.clock.generate(generate, request, self.new_tokens)

            return once

        runs = {"base": lambda: self.clock.generate(model.generate, request, self.new_tokens)}
        if not text_only:
            runs[STEERED] = self._run("generate", self.steered, request)
        skipped = []
        for tool in (tool for tool in TOOLS if tool.text_only == text_only):
            once = run(tool)
            problem = _problem(tool, once)
            if problem:
                print(f"{tool.name} skipped: {problem}", file=sys.stderr)
                skipped.append(f"{tool.name}: {problem}")
            else:
                runs[tool.name] = once
        return runs, skipped

    def resources(self, prompt: int) -> Row:
        """Memory and waits for the GPU of one generate() of each model; see `counts`.

        prompt: its tokens.
        """

        def held(model: Any) -> int:
            return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))

        row: Row = {"resident_bytes": held(self.steered) - held(self.base)}
        for rows in (1, 16):
            request = self._request(Case("generate", "text", rows, prompt))
            for tokens in (1, 1 + self.new_tokens):
                for name, model in (("base", self.base), (STEERED, self.steered)):

                    def run(
                        model: Any = model, tokens: int = tokens, request: Any = request
                    ) -> Any:
                        return model.generate(**request, max_new_tokens=tokens, do_sample=False)

                    key = f"batch {rows}, {tokens} tokens, {name}"
                    row[f"peak bytes, {key}"] = peak_bytes(self.device, run)
                    row[f"synchronizations, {key}"] = synchronizations(self.device, run)
        return row

    def operations(self, prompt: int) -> dict[str, dict[str, int]]:
        """Operations of generate() on one text prompt: up to the first token, and per token."""
        request = self._request(Case("generate", "text", 1, prompt))
        found: dict[str, dict[str, int]] = {"prefill": {}, "decode": {}}
        for name, model in (("base", self.base), (STEERED, self.steered)):
            one, two, three = (
                operations(partial(model.generate, **request, max_new_tokens=n, do_sample=False))
                for n in (1, 2, 3)
            )
            found["prefill"][name], found["decode"][name] = one, three - two
        return found


def _problem(tool: Tool, run: Run) -> str | None:
    """Why a tool cannot be measured here, in one line."""
    if tool.version() is None:
        return f"not installed: {tool.pip}"
    try:
        run()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None
