"""RAS done by hand on a native model, one row after another, with its own reading of the prompt."""

from typing import Any

import torch

from support.tiny import HEADER, IMAGE, VIDEO, VISION_END, VISION_START

MARKS = [IMAGE, VIDEO, VISION_START, VISION_END, 304, 305, 306]
GREEDY = {"do_sample": False, "use_cache": True}


def alone(batch: dict[str, Any], row: int, pixels: dict[str, Any]) -> dict[str, Any]:
    """One row without padding; pixels: what it shows."""
    real = batch["attention_mask"][row].bool()
    typed = {name: batch[name][row : row + 1, real] for name in batch if name.endswith("type_ids")}
    ids = batch["input_ids"][row : row + 1, real]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **typed, **pixels}


class ByHand:
    """The passes and the mix on `base`, with the tensors and rules of an artefact."""

    def __init__(self, base: Any, artefact: Any) -> None:
        self.base, self.rules = base, artefact.record.rules
        self.prompts = self.rules["prompts"]
        self.prototypes = artefact.tensors["prototypes"]
        self.middle, self.slope = artefact.tensors["curve"].tolist()
        self.states: list[torch.Tensor] = []

    def _inputs(self, one: dict[str, Any], ids: list[int]) -> dict[str, Any]:
        """Other tokens in the place of the prompt; the types of placeholders follow them."""
        row = torch.tensor([ids])
        kinds = (row == IMAGE).int() + 2 * (row == VIDEO).int()
        types = {name: kinds.to(one[name].dtype) for name in one if name.endswith("type_ids")}
        return {**one, "input_ids": row, "attention_mask": torch.ones_like(row), **types}

    def _said(self, inputs: dict[str, Any], tokens: int) -> list[int]:
        """Greedy tokens; what entered the head for each is in `states`."""
        self.states = []
        head = self.base.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, args: self.states.append(args[0][0, -1]))
        out = self.base.generate(**inputs, **GREEDY, max_new_tokens=tokens)
        hook.remove()
        return out[0, inputs["input_ids"].shape[1] :].tolist()

    def risk(self, one: dict[str, Any]) -> float:
        """Of one request that ends in an assistant header, with a picture first if any."""
        ids = one["input_ids"][0].tolist()
        shown = [token for token in ids if token in MARKS]
        caption: list[int] = []
        if shown:
            asked = [1, *shown, *self.prompts["caption"], *HEADER]
            said = self._said(self._inputs(one, asked), self.rules["caption_tokens"])
            caption = said[: said.index(2)] if 2 in said else said
            caption = [token for token in caption if token > 2 and token not in range(300, 320)]
        at = max([k + 1 for k, token in enumerate(ids) if token in MARKS], default=1)
        text = [*self.prompts["safety"], *caption, *self.prompts["question"]]
        said = self._said(self._inputs(one, [*ids[:at], *text, *ids[at:]]), 3)
        head = self.base.get_output_embeddings()
        p = sum(0.3**n * head(mu).softmax(-1) for n, mu in enumerate(self.prototypes))
        kept = said.index(2) + 1 if 2 in said else 3
        q = sum(0.3**n * head(h).softmax(-1) for n, h in enumerate(self.states[:kept]))
        s = float(p @ q / (p.norm() * q.norm()))
        return float(torch.tensor(self.slope * (s - self.middle)).sigmoid())

    def answer(self, one: dict[str, Any], risk: float, **options: Any) -> Any:
        """generate() with the first three states mixed."""
        steps = iter(range(10**6))

        def mix(_head: Any, args: Any) -> Any:
            step = next(steps)
            if step >= len(self.prototypes):
                return None
            return ((1 - risk) * args[0] + risk * self.prototypes[step],)

        hook = self.base.get_output_embeddings().register_forward_pre_hook(mix)
        out = self.base.generate(**one, **options)
        hook.remove()
        return out
