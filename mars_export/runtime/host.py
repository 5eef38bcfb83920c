"""Mixins: they stand before the native classes, and build the steering into a model.

`SteeredMixin` hosts the rule in its layers, `SteeredGenerationMixin` plans a generate().
"""

import copy
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, update_wrapper, wraps
from typing import Any

from mars_export.runtime.guard import GuardedLoadingMixin, refuse_engines
from mars_export.runtime.layer import HostedRule
from mars_export.runtime.model_inputs import cached_columns, tokens_or_embeds
from mars_export.runtime.positions import POLICIES
from mars_export.runtime.steering import Steering
from mars_export.runtime.trace import Trace
from mars_export.runtime.windows import NoWindow, Plan

RULES_VERSION = 2

_PLAN: ContextVar[Plan | NoWindow] = ContextVar("steering_plan", default=NoWindow.UNKNOWN)


class SteeredMixin(GuardedLoadingMixin):
    """Hosts the rules of the method.

    hosted: the hosted rules, each behind the function that puts it into a model and its decoder.
    """

    hosted: tuple[tuple[Callable[..., dict[int, HostedRule]], type[HostedRule]], ...]

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        rules = config.steering
        if rules.get("version") != RULES_VERSION or rules["positions"] not in POLICIES:
            raise RuntimeError(
                "steered checkpoint: config.json is not of the release that wrote this modeling "
                "file; download both again"
            )
        refuse_engines(config)
        config = copy.deepcopy(config)
        with config.unguarded():
            super().__init__(config, *args, **kwargs)
        decoder = self.get_decoder()  # of Llama 4: the language model with its head
        decoder = decoder if hasattr(decoder, "layers") else decoder.model
        self._answers = None  # of methods that act at generate(), put in its place by their host
        hosted: dict[int, HostedRule] = {}
        for host, rule_class in self.hosted:
            hosted |= host(self, decoder, rule_class)
        # Trainers that fuse the head with the loss call the model below it themselves.
        self._steering = Steering(self.config, self.base_model, hosted)
        for rule in hosted.values():
            rule.switch = self._steering

    @property
    def steering(self) -> Steering:
        """The switch and the record."""
        return self._steering

    def verify_steering(self) -> None:
        """Raise unless the steering tensors are the ones that were exported."""
        self.steering.verify()


class SteeredGenerationMixin(SteeredMixin):
    """Plans each generate() once, whatever pieces the prompt is fed in."""

    def generate(
        self,
        inputs: Any = None,
        generation_config: Any = None,
        *args: Any,
        steering_positions: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As the native generate, steered at the assistant headers of the prompt.

        Args:
            inputs: As for the native generate, as all other arguments are.
            generation_config: The same.
            *args: The same.
            steering_positions: The tokens to steer instead: for each row a list of positions,
                counted from 0 without padding, or an integer tensor (B, k) in which -1 is none.
            **kwargs: As for the native generate.

        Raises:
            ValueError: if nothing shows where an answer begins, or where what is given cannot be
                steered: right padding, guidance, another cache, a modality without calibration.
            RuntimeError: if the checkpoint is damaged, or the prompt never ran with its plan.
        """
        arguments = (inputs, generation_config, *args)
        self.steering.trace = Trace()
        if not self.steering.active:
            return self._planned(NoWindow.OFF, *arguments, **kwargs)
        input_ids = inputs if inputs is not None else kwargs.get("input_ids")
        settings = _Settings(kwargs, generation_config, self.generation_config)
        if settings.first("guidance_scale") not in (None, 1):
            raise ValueError(
                "steered checkpoint: classifier-free guidance (guidance_scale) takes an unsteered "
                "branch off the steered one; leave it out, or run it without steering "
                "(with model.steering.off():)"
            )
        planned = {**kwargs, "input_ids": input_ids}
        if planned.get("attention_mask") is None:
            planned["attention_mask"] = settings.inferred_mask(input_ids)
        drafts = bool(settings.first("is_assistant"))
        if self._answers is not None and steering_positions is not None:
            raise ValueError(
                "steered checkpoint: its method acts where answers begin; leave out "
                "steering_positions"
            )
        if drafts and self._answers is not None:  # only what it drafts for is steered
            return self._answers.unchanged(self._planned, NoWindow.OFF, *arguments, **kwargs)
        plan = self.steering.plan(self, planned, steering_positions, drafts)
        if self._answers is None:
            self.steering.trace = plan.trace
            out = self._planned(plan, *arguments, **kwargs)
        else:
            run = partial(self._planned, NoWindow.OFF)
            with self._answers.changed(self, run, planned, plan) as compiled:
                self.steering.trace = plan.trace
                out = self._planned(plan, *arguments, **{**kwargs, **compiled})
        if plan.finished:
            # A logits processor that calls this model has put its own trace in the place of ours.
            self.steering.trace = plan.trace
        elif not any(self.steering.last):
            raise RuntimeError(
                "steered checkpoint: this way of generating never ran the prompt with its plan; "
                "its result is not to be used"
            )
        history = getattr(plan.cache, "steering_history", None)
        if history is not None:  # of the prompt: the answer's columns are added here, all at once
            more = int(plan.cache.get_seq_length()) - history.tokens.shape[1]
            history = history.with_unknown_text(max(0, more), steered=plan.answer)
            plan.cache.steering_history = history.of(plan.cache)
        return out

    def _planned(self, plan: Plan | NoWindow, *args: Any, **kwargs: Any) -> Any:
        """The native generate, whose forwards get their part of a plan."""
        token = _PLAN.set(plan)
        try:
            return super().generate(*args, **kwargs)
        finally:
            _PLAN.reset(token)

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """As the native method, with steering off only; generate_batch() comes by here too.

        A step of continuous batching holds pieces of many prompts. A header that is cut between two
        steps, or lies in a shared prefix, cannot be seen in either.
        """
        if self.steering.active:
            raise RuntimeError(
                "steered checkpoint: continuous batching (generate_batch, transformers serve "
                "--continuous-batching) cannot be steered; use generate() with padded batches, or "
                "run it without steering (with model.steering.off():)"
            )
        return super().init_continuous_batching(*args, **kwargs)


def planned_inputs(native: Any) -> Any:
    """prepare_inputs_for_generation() on a native class: a forward's inputs and its window.

    It shows the signature of the native one, which generate() reads.
    """
    prepare = native.prepare_inputs_for_generation

    @wraps(prepare)
    def prepare_inputs_for_generation(self: Any, *args: Any, **kwargs: Any) -> Any:
        inputs, plan = prepare(self, *args, **kwargs), _PLAN.get()
        if isinstance(plan, NoWindow):
            return inputs if plan is NoWindow.UNKNOWN else {**inputs, "steering_window": plan}
        rows, length = tokens_or_embeds(inputs).shape[:2]
        plan.cache = inputs.get("past_key_values")
        if plan.mixing is not None:
            plan.mixing.expect(cached_columns(inputs), length)
        # After the prompt, single tokens need no look at the cache (which may synchronize).
        if plan.finished and length == 1 and not plan.answer:
            return {**inputs, "steering_window": NoWindow.NOTHING}
        window = plan.window(cached_columns(inputs), length, rows)
        return {**inputs, "steering_window": window}

    return prepare_inputs_for_generation


def with_positions(native: Any) -> Any:
    """forward() of a native class, with `steering_positions` in its signature, as in generate().

    Trainers drop the columns of a data set that the signature does not name. The argument itself
    goes, as all that the native forward does not know, to the model below the head.
    """
    run = native.forward

    @wraps(run)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return run(self, *args, **kwargs)

    signature = inspect.signature(run)
    *named, rest = signature.parameters.values()
    stated = inspect.Parameter("steering_positions", inspect.Parameter.KEYWORD_ONLY, default=None)
    # Not of forward() itself: compilers, as that of vLLM, bind arguments to the code that runs.
    wrapped: Any = update_wrapper(partial(run), run)
    wrapped.__signature__ = signature.replace(parameters=[*named, stated, rest])
    forward.__wrapped__ = wrapped
    return forward


class _Settings:
    """What generate() will do: the first of several sources that says something counts.

    kwargs: arguments of generate(). configs: that of the call, if any, and that of the model.
    """

    def __init__(self, kwargs: dict[str, Any], *configs: Any) -> None:
        self._sources = [kwargs, *(vars(config) for config in configs if config is not None)]

    def first(self, name: str) -> Any:
        """The value of a setting; None if no source has one."""
        values = (source.get(name) for source in self._sources)
        return next((value for value in values if value is not None), None)

    def inferred_mask(self, ids: Any) -> Any:
        """The mask that generate() makes of ids (B, T) without one; None is all ones."""
        pad, end = self.first("pad_token_id"), self.first("eos_token_id")
        ends = end if isinstance(end, list | tuple) else [end]
        if ids is None or pad is None or pad in ends:
            return None
        return ids.ne(pad).long()
