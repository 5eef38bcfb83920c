"""Judges that run here: safety classifiers in Transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.paths import is_dir
from mars_export.evaluation.generation import GREEDY
from mars_export.evaluation.judges import parsing
from mars_export.evaluation.judges.base import Exchange, Judge, Judgment
from mars_export.evaluation.judges.guards import GUARDS, Guard
from mars_export.evaluation.judges.parsing import STYLE, judgments
from mars_export.families.loading import pick_device

__all__ = ["LocalJudge"]

_MAX_PICTURES: Final = 4
_DIGITS: Final = 12
_PARTS: Final = ("*.json", "*.jinja", "*.safetensors", "tokenizer*")


class LocalJudge(Judge):
    """A safety classifier, loaded when it is first asked.

    Responses are judged one at a time: padding changes rounding, and a judge has to say the same
    of the same response whatever it stands beside.
    """

    def __init__(
        self,
        kind: str,
        model: str | None = None,
        device: str = "auto",
        asked_as: str | None = None,
    ) -> None:
        """Name a judge; nothing is loaded.

        Args:
            kind: Key of `GUARDS`.
            model: Hub repository or directory; None for the one that the kind names.
            device: `auto`, or a torch device.
            asked_as: Option that asked for it, for errors; None for `--judge KIND`.
        """
        self._kind = kind
        self._guard = GUARDS[kind]
        self._model_id = model or self._guard.model
        self._device = device
        self._asked_as = asked_as or f"--judge {kind}"

    @cached_property
    def name(self) -> str:
        """Kind, model, its commit or digest, digest of the prompt.

        Raises:
            ExportError: The model cannot be found.
        """
        prompt = self._guard.template or "chat template"
        version = f"prompt {hashlib.sha256(prompt.encode()).hexdigest()[:_DIGITS]}"
        folder = Path(self._model_id)
        title = folder.resolve().name if is_dir(folder) else self._model_id
        parts = [f"{self._kind}/{title}@{self._revision}", version]
        return ", ".join(parts if self._guard.speaks_of_refusal else [*parts, STYLE])

    def judge_answers(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment for each exchange, in order.

        Raises:
            ExportError: The model does not load.
        """
        replies = [self._reply(exchange) for exchange in exchanges]
        speaks = self._guard.speaks_of_refusal
        return judgments(exchanges, replies, self._guard.parse, speaks_of_refusal=speaks)

    def load(self) -> None:
        """Load the model now.

        Raises:
            ExportError: It does not load.
        """
        _ = self._loaded

    def is_safe(self, prompt: str) -> bool:
        """Whether a guard that reads requests without a response calls one safe.

        Raises:
            ExportError: The model does not load.
        """
        return parsing.calls_safe(
            self._generated(self._rendered([{"role": "user", "content": prompt}]))
        )

    @cached_property
    def _revision(self) -> str:
        """Commit on the Hub; for a directory a digest of what it holds."""
        folder = Path(self._model_id)
        if is_dir(folder):
            return _digest(folder)
        from huggingface_hub import hf_hub_download

        try:
            config = Path(hf_hub_download(self._model_id, "config.json"))
        except (OSError, ValueError) as error:
            raise ExportError(
                f"{self._asked_as}: {self._model_id} cannot be fetched ({_first(error)}); "
                "check the name, and log in if the model is gated"
            ) from error
        return config.parent.name[:_DIGITS]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The model in evaluation mode and its processor or tokenizer."""
        import transformers

        reader = transformers.AutoProcessor if self._guard.sees else transformers.AutoTokenizer
        native = getattr(transformers, self._guard.generates)
        try:
            processor = reader.from_pretrained(self._model_id)
            model, info = native.from_pretrained(
                self._model_id, dtype="auto", output_loading_info=True
            )
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise ExportError(
                f"{self._asked_as}: {self._model_id} does not load: {_first(error)}"
            ) from error
        wrong = sorted(map(str, (*info["missing_keys"], *info["mismatched_keys"])))
        if wrong:
            raise ExportError(
                f"{self._asked_as}: {self._model_id} lacks {len(wrong)} tensors, for example "
                f"{wrong[0]}; download it again"
            )
        return model.to(pick_device(self._device)).eval(), processor

    def _reply(self, exchange: Exchange) -> str:
        return self._generated(self._inputs(exchange, self._loaded[1]))

    def _generated(self, inputs: Any) -> str:
        model, processor = self._loaded
        # Pictures come in float32; a tokenizer's result has nothing to cast.
        where = (model.device, model.dtype) if self._guard.sees else (model.device,)
        inputs = inputs.to(*where)
        length = inputs["input_ids"].shape[1]
        tokens = model.generate(**inputs, **GREEDY, max_new_tokens=self._guard.max_new_tokens)[
            :, length:
        ]
        return str(processor.batch_decode(tokens, skip_special_tokens=True)[0])

    def _inputs(self, exchange: Exchange, processor: Any) -> Any:
        if self._guard.template is not None:
            response = _cut(processor, exchange.response, self._guard.response_tokens)
            text = self._guard.prompt(exchange, response)
            # WildGuard's prompt writes its own <s>.
            own_start = text.startswith("<s>")
            return processor(text, return_tensors="pt", add_special_tokens=not own_start)
        return self._rendered(_conversation(self._guard, exchange))

    def _rendered(self, conversation: list[dict[str, Any]]) -> Any:
        return self._loaded[1].apply_chat_template(
            conversation,
            add_generation_prompt=self._guard.header,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )


def _conversation(guard: Guard, exchange: Exchange) -> list[dict[str, Any]]:
    if not guard.sees:
        return [
            {"role": "user", "content": exchange.question},
            {"role": "assistant", "content": exchange.response},
        ]
    pictures = exchange.pictures[:: -(-len(exchange.pictures) // _MAX_PICTURES) or 1]
    return [
        {
            "role": "user",
            "content": [
                *({"type": "image", "image": picture} for picture in pictures),
                {"type": "text", "text": exchange.question},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": exchange.response}]},
    ]


def _cut(tokenizer: Any, text: str, tokens: int | None) -> str:
    if tokens is None:
        return text
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text if len(ids) <= tokens else str(tokenizer.decode(ids[:tokens]))


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted({path for pattern in _PARTS for path in folder.glob(pattern)}):
        with path.open("rb") as stream:
            whole.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:_DIGITS]


def _first(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
