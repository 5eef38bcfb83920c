"""vLLM in this process as the engine of an evaluation, with this package's worker and scheduler.

One model answers in every arm: the worker is told whether to steer. There is no prefix cache, since
steered and unsteered blocks would mix in it, and nothing is compiled, so that the worker tells what
was steered.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import one_line
from mars_export.evaluation.arms import Arm
from mars_export.evaluation.engines.base import Answer, Answered, Asked
from mars_export.evaluation.engines.evidence import Evidence
from mars_export.evaluation.engines.serving import ServingEngine
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import EngineSource, SelfCheck
from mars_export.evaluation.selfcheck import probe_request
from mars_export.families.placement import Device
from mars_export.inputs.requests import CLIP_FPS, Request, rendered
from mars_export.integrations.vllm.limits import SCHEDULER, SWITCHABLE, WORKER
from mars_export.methods.base import Decision, Probe

__all__ = ["VllmEngine", "prompt_of"]

_MULTIPROCESSING: Final = "VLLM_ENABLE_V1_MULTIPROCESSING"
_INSTALL: Final = (
    "--engine vllm: vLLM is not installed here; run "
    "`bash examples/serving/vllm-environment.sh ENV` and repeat this with "
    "`ENV/bin/python -m mars_export`"
)


class VllmEngine(ServingEngine):
    """Answers with `LLM.generate`, all requests of a batch packed."""

    name = "vllm"
    no_doses: ClassVar[str] = "vLLM cannot scale the steering"

    def __init__(self, evidence: Evidence) -> None:
        """Take the recorded answers that it has to repeat.

        Raises:
            ExportError: vLLM is not installed.
        """
        super().__init__(evidence)
        self._vllm = _vllm()
        self._llm: Any = None

    @property
    def identity(self) -> list[str]:
        """With the version."""
        return [self.name, str(self._vllm.__version__)]

    @property
    def source(self) -> EngineSource:
        """What was seen of its steering."""
        count = len(self._evidence.witnesses)
        return EngineSource(
            name=self.name,
            version=str(self._vllm.__version__),
            checked=[
                f"{count} requests that Transformers answers differently off and on are answered "
                "as recorded, off and on",
                "gates of the calibration's probes",
            ],
            unchecked=[
                "log-odds and divergence of first tokens, and the length of pushes",
                "that steering off is the same bit for bit",
            ],
        )

    @property
    def dtype(self) -> str:
        """What vLLM loaded it in."""
        return str(self._llm.llm_engine.model_config.dtype).removeprefix("torch.")

    def device(self, device: str) -> str:  # noqa: ARG002
        """What vLLM is built for."""
        from vllm.platforms import current_platform

        return str(current_platform.device_type)

    def open(self, arms: Sequence[Arm], options: EvaluationOptions, device: Device) -> None:
        """Load the checkpoint."""
        super().open(arms, options, device)
        os.environ.setdefault(_MULTIPROCESSING, "0")  # the worker is asked from here
        os.environ[SWITCHABLE] = "1"
        directory = arms[0].directory
        try:
            self._llm = self._vllm.LLM(
                model=str(directory),
                trust_remote_code=True,
                worker_cls=WORKER,
                scheduler_cls=SCHEDULER,
                enforce_eager=True,
                enable_prefix_caching=False,
                max_num_seqs=options.batch_size,
                dtype=options.dtype or arms[0].manifest.calibration.source.dtype,
            )
        except Exception as error:  # vLLM raises what it likes
            raise ExportError(
                f"{directory}: vLLM does not take it ({one_line(error)}); see "
                "docs/deploying.md#vllm, or leave out --engine"
            ) from error

    def self_check(self, arm: Arm) -> SelfCheck:
        """The recorded answers, and the gates of the calibration's probes."""
        check, record = super().self_check(arm), arm.manifest.calibration
        if not check.active:
            return check
        requests = [probe_request(record.source, probe) for probe in record.probes]
        (answers,) = self.answers([arm], Asked(requests, 1)).answers.values()
        found = [answer.decision for answer in answers]
        return _with_gates(check, record.probes, found)

    def problem(self, request: Request) -> str:
        """Ask for one token."""
        try:
            self._generate(Asked([request], 1))
        except ExportError as error:
            return str(error)
        return ""

    def answers(self, arms: Sequence[Arm], asked: Asked) -> Answered:
        """One arm after the other."""
        return Answered({arm.name: self._answers(arm, asked) for arm in arms}, {})

    def _answers(self, arm: Arm, asked: Asked) -> list[Answer]:
        self._llm.collective_rpc("set_steering", args=(arm.steered,))
        self._llm.collective_rpc("steering_decisions")  # those of before are nobody's
        changed = asked._replace(requests=[arm.request(request) for request in asked.requests])
        outs = self._generate(changed)
        rows: dict[str, list[Any]] = {}
        for row in self._llm.collective_rpc("steering_decisions")[0]:
            rows.setdefault(row[0].split("-")[0], []).append(row)
        return [
            Answer(
                out.outputs[0].text,
                out.outputs[0].finish_reason == "length",
                _decision(rows.get(out.request_id, [])) if arm.steered else None,
            )
            for out in outs
        ]

    def _generate(self, asked: Asked) -> list[Any]:
        drawn = {"temperature": 0.0} if asked.seed is None else {"temperature": 1.0}
        options = [
            self._vllm.SamplingParams(
                **drawn,
                max_tokens=asked.max_new_tokens,
                seed=None if asked.seed is None else asked.seed + place,
            )
            for place in range(len(asked.requests))
        ]
        prompts = [prompt_of(self.processor, request) for request in asked.requests]
        whole = {"add_special_tokens": False}  # the template has written them
        try:
            outs = self._llm.generate(prompts, options, use_tqdm=False, tokenization_kwargs=whole)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ExportError(f"vLLM refuses it: {one_line(error)}") from error
        for out in outs:
            if out.outputs[0].finish_reason == "error":
                raise ExportError(f"vLLM refuses it: {out.outputs[0].stop_reason}")
        return list(outs)


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise ExportError(_INSTALL) from error
    return vllm


def prompt_of(processor: Any, request: Request) -> dict[str, Any]:
    """A request as vLLM takes it, written by the checkpoint's template."""
    media: dict[str, Any] = {}
    if pictures := request.shown("image"):
        media["image"] = pictures
    if clips := request.shown("video"):
        media["video"] = [(list(clip), _about(len(clip))) for clip in clips]
    if sounds := request.shown("audio"):
        media["audio"] = [(sound.samples, sound.rate) for sound in sounds]
    shown = {"multi_modal_data": media} if media else {}
    return {"prompt": rendered(processor, request), **shown}


def _about(frames: int) -> dict[str, Any]:
    """The frames are used as they are."""
    return {
        "fps": CLIP_FPS,
        "total_num_frames": frames,
        "do_sample_frames": False,
        "frames_indices": list(range(frames)),
    }


def _decision(rows: Sequence[Any]) -> Decision | None:
    """That of the last position, where the answer begins; rows as `SteeredRow`."""
    if not rows:
        return None
    _, position, modality, gate, strength = rows[-1]
    return Decision(
        active=any(row[4] != 0 for row in rows),
        gate=gate,
        strength=strength,
        position=position,
        modality=modality,
    )


def _with_gates(check: SelfCheck, probes: Iterable[Probe], found: Iterable[Any]) -> SelfCheck:
    """The same, if every gate is as near the calibrated one as an open gate is from a shut one."""
    worst = 0.0
    for probe, decision in zip(probes, found, strict=True):
        if probe.expected.gate is None:
            continue
        gate = decision.gate if isinstance(decision, Decision) else None
        if gate is None or not abs(gate - probe.expected.gate) <= probe.gate_limit:
            told = "unknown" if gate is None else f"{gate:.3f}"
            return SelfCheck(
                active=False,
                detail=f"In vLLM the gate of the {probe.modality} probe {probe.prompt!r} is "
                f"{told}, not the calibrated {probe.expected.gate:.3f}.",
            )
        worst = max(worst, abs(gate - probe.expected.gate))
    told = f"{check.detail} Largest difference of a gate: {worst:.1e}."
    return check.model_copy(update={"detail": told})
