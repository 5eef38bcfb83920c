"""What a card gives to copy: Python that loads the checkpoint, and the command that makes it."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.markdown import code
from mars_export.common.vocabulary import Modality, auto_class
from mars_export.evaluation.arms import NO_BASELINE
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import REFERENCE, STEERED, ArmSource, Report, SuiteSource
from mars_export.evaluation.suites.record import known_suites
from mars_export.families.quantization import NONE, SCHEMES
from mars_export.inputs.stimuli import MIXTURE, alike
from mars_export.inputs.template import thinking_word
from mars_export.methods import METHODS, method_named
from mars_export.methods.base import ArtefactRecord
from mars_export.methods.safety_prompt import SAFETY_PROMPT

__all__ = ["check", "command", "loading", "needs", "repository_of"]

_PACKAGED: Final = "mars-export/"
"""Start of the names of prompts and suites that ship with the package."""

_ENDPOINT: Final = "endpoint/"
"""Start of the names of judges behind an address."""

_LABELS: Final = ("harmful", "harmless")

_CHECK: Final = """\
assert model.steering.enabled, "steering is switched off"
for row in model.steering.last:  # one row per request of the last generate() or forward()
{lines}"""

_EVERY: Final = """\
    assert row, "this request was not steered: do not rely on this copy"
    print(f"{len(row)} steered positions, the last: {row[-1]}")
"""

_SOME: Final = """\
    print(f"{len(row)} visual tokens pushed: {row}")
"""

_LOAD: Final = """\
{imports}

CHECKPOINT = {checkpoint}  # this directory, or its repository on the Hub

processor = AutoProcessor.from_pretrained(CHECKPOINT, trust_remote_code=True)
{model}

{asked}"""

_ASK: Final = """\
{content}
messages = [{{"role": "user", "content": content}}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"{mode}
).to({to})
output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""

_CHECKPOINT: Final = re.compile(r'^CHECKPOINT = ("[\w./-]+")  # this directory', re.MULTILINE)
"""How `_LOAD` names the checkpoint."""

_IMAGE: Final = """\
image = Image.new("RGB", (224, 224), "steelblue")  # put your picture here
content = [{"type": "image", "image": image}, {"type": "text", "text": "What is shown here?"}]"""

_AUDIO: Final = """\
rate = processor.feature_extractor.sampling_rate
audio = np.zeros(rate, dtype="float32")  # put your sound here: one channel, `rate` samples a second
content = [{"type": "audio", "audio": audio}, {"type": "text", "text": "What is heard here?"}]"""

_TEXT: Final = 'content = "What is the capital of France?"'

_SHOWN: Final = {
    "image": ("from PIL import Image", _IMAGE),
    "audio": ("import numpy as np", _AUDIO),
}
"""What a request may show: what it imports, and how it is made."""
_DEVICE: Final = "model.device"
_TO: Final = {"audio": "model.device, model.dtype"}
"""Where inputs go, of requests whose inputs must have the model's dtype."""

_PLAIN: Final = "model = {auto}.from_pretrained(CHECKPOINT, trust_remote_code=True)"

_QUANTIZED: Final = """\
model = {auto}.from_pretrained(
    CHECKPOINT,
    trust_remote_code=True,
    dtype="{dtype}",
    quantization_config={config},  # as calibrated
)"""


def check(calibration: ArtefactRecord) -> str:
    """Continues the loading snippet and prints what steering did to its request."""
    method = method_named(calibration.method)
    every = all(method.must_act(modality) for modality in calibration.source.modalities)
    return _CHECK.format(lines=_EVERY if every else _SOME)


def loading(
    checkpoint: str,
    modalities: Iterable[Modality],
    dtype: str = "auto",
    quantization: str = NONE,
    template_options: Mapping[str, bool] | None = None,
) -> str:
    """Python that loads a steered checkpoint and answers one request; needs no download but it.

    Another request follows where it takes pictures and sounds, which it takes one by one alone.

    Args:
        checkpoint: Hub repository or directory, as `from_pretrained` takes it.
        modalities: What the checkpoint takes; with `image` the request holds a picture made by PIL,
            with `audio` a sound made by numpy.
        dtype: Name of the torch dtype that it was calibrated in; stated where it is quantized.
        quantization: What it was calibrated for.
        template_options: What its chat template is to be told.
    """
    modalities = set(modalities)
    auto = auto_class(modalities)
    imports = f"from transformers import {auto}, AutoProcessor"
    model = _PLAIN.format(auto=auto)
    scheme = SCHEMES.get(quantization)
    if scheme is not None:
        imports = f"{scheme.imports}{imports}, {scheme.config}"
        model = _QUANTIZED.format(auto=auto, dtype=dtype, config=scheme.code(dtype))
    shown = [(key, *made) for key, made in _SHOWN.items() if key in modalities]
    mode = "".join(f",\n    {name}={on}" for name, on in (template_options or {}).items())
    asked = [
        _ASK.format(content=content, mode=mode, to=_TO.get(key, _DEVICE))
        for key, _, content in shown
    ]
    return _LOAD.format(
        model=model,
        checkpoint=json.dumps(checkpoint),
        imports="".join(f"{line}\n" for _, line, _ in sorted(shown)) + imports,
        asked="\n".join(asked) or _ASK.format(content=_TEXT, mode=mode, to=_DEVICE),
    )


def repository_of(card: str) -> str | None:
    """The Hub repository that the loading snippet of a card names; None for a directory."""
    line = _CHECKPOINT.search(card)
    name = json.loads(line[1]) if line else ""
    return name if "/" in name else None


def command(manifest: Manifest, report: Report | None, output: str) -> str:
    """The `mars-export` call, one option a line; every recorded setting is spelled out.

    Args:
        manifest: Record of the steered directory.
        report: Its evaluation, which knows the suite; None if there is none.
        output: Name of the directory to make.
    """
    base = manifest.base
    name = f"organism:{base.name}" if base.bundled else base.repo or base.name
    origin = base.derived_from
    verb = "--model" if origin is None else "recalibrate" if origin.calibrated else "adopt"
    source = [(verb, name)]
    if origin and origin.parent:
        source.append(("--base", origin.parent))
    calibration = _calibration(manifest) if origin is None or origin.calibrated else ()
    pairs = (*source, *calibration, *_evaluation(manifest, report))
    lines = [f"{flag} {shlex.quote(value)}" if value else flag for flag, value in pairs]
    lines.append(f"--output {shlex.quote(output)}")
    if manifest.family_inspected:
        lines.append("--allow-unknown-family")
    return "mars-export " + " \\\n  ".join(lines)


def needs(manifest: Manifest, report: Report | None) -> tuple[str, ...]:
    """What the command takes from the reader's disk, as Markdown in the order of use."""
    base = manifest.base
    local = base.repo is None and not base.bundled
    items = [f"the directory {code(base.name)}"] if local else []
    if base.derived_from and base.derived_from.parent:
        items.append(f"the directory {code(base.derived_from.parent)}")
    items += [f"the prompt file {code(name)}" for name in _prompt_files(manifest).values()]
    tuning = manifest.calibration.source.tuning
    if tuning is not None and _tuning(tuning.name) != tuning.name:
        items.append(f"the suite {code(tuning.name)} in place of TUNING")
    if report is not None and any("FILE" in name for name in _suites(manifest, report)):
        items.append(f"the suite {code(report.suite.name)} in place of FILE")
    if report is not None:
        names = [code(arm.name) for arm in _arms(report) if arm.steered]
        items += [f"the steered directory of the arm {name} in place of DIR" for name in names]
    if report is not None and report.judge.startswith(_ENDPOINT):
        items.append(f"the judge {code(report.judge)} in place of URL")
    return tuple(items)


def _calibration(manifest: Manifest) -> Iterator[tuple[str, str]]:
    base, source = manifest.base, manifest.calibration.source
    if base.revision is not None:
        yield "--revision", base.revision
    if base.repo is None and not base.bundled:
        yield "--license", base.license
    if manifest.calibration.method != METHODS[0].name:
        yield "--method", manifest.calibration.method
    yield "--dtype", source.dtype
    if source.quantization in SCHEMES:
        yield "--quantization", source.quantization
    if word := thinking_word(source.template_options):
        yield "--thinking", word
    yield "--seed", str(source.seed)
    if not alike(source.kinds, MIXTURE):
        yield "--neutral", ",".join(source.kinds)
    for name, value in manifest.calibration.options.items():
        yield f"--{name.replace('_', '-')}", str(value)
    for label, name in _prompt_files(manifest).items():
        yield f"--{label}", name
    if source.tuning is not None:
        yield "--tune-on", _tuning(source.tuning.name)


def _tuning(name: str) -> str:
    """What names a suite to tune on: one that everybody has, or a file."""
    return name if name in known_suites() else "TUNING"


def _evaluation(manifest: Manifest, report: Report | None) -> Iterator[tuple[str, str]]:
    if report is None:
        return
    for name in _suites(manifest, report):
        yield "--suite", name
    yield from _judge(report.judge)
    kinds = {variant.kind for variant in report.variants}
    if "control" not in kinds:
        yield "--no-controls", ""
    elif requests := _control_requests(report):
        yield "--control-requests", str(requests)
    if "attack" in kinds:
        yield "--attacks", ""
    for arm in _arms(report):
        if arm.steered or arm.name != SAFETY_PROMPT.name or _answers_controls(report, arm):
            yield "--arm", f"{arm.name}=DIR" if arm.steered else arm.name
    if SAFETY_PROMPT.name not in {arm.name for arm in report.arms} | report.skipped.keys():
        yield "--arm", NO_BASELINE
    if "max_new_tokens" in report.decoding:
        yield "--max-new-tokens", str(report.decoding["max_new_tokens"])


def _control_requests(report: Report) -> int | None:
    """How many requests of a kind a control was put to; None for as many as it is by default."""
    controls = [v for v in report.variants if v.kind == "control" and v.draws == 1]
    most = max((cell.refused.n for v in controls for cell in v.cells), default=None)
    default = EvaluationOptions().control_requests
    usual = min(default, max((cell.refused.n for cell in report.cells), default=default))
    return None if most == usual else most


def _answers_controls(report: Report, arm: ArmSource) -> bool:
    """Whether an arm was put through controls; the safety prompt is only if it is named."""
    controls = (variant for variant in report.variants if variant.kind == "control")
    return any(cell.arm == arm.name for variant in controls for cell in variant.cells)


def _arms(report: Report) -> list[ArmSource]:
    """The arms beside steering off and on."""
    return [arm for arm in report.arms if arm.name not in (REFERENCE, STEERED)]


def _judge(name: str) -> Iterator[tuple[str, str]]:
    """The option that names the judge, from a name such as `qwen3guard/org/model@commit, ...`."""
    kind, _, rest = name.partition("/")
    if name.startswith(_ENDPOINT):
        yield "--judge", "URL"
    elif "@" in rest:
        yield "--judge", f"{kind}:{rest.partition('@')[0]}"


def _prompt_files(manifest: Manifest) -> dict[str, str]:
    """Names of the user's prompt files by label; none for prompts of the package or the base."""
    names = {label: manifest.calibration.source.prompts[label].name for label in _LABELS}
    if any(_is_default(name, label) for label, name in names.items()):
        return {}
    return names


def _is_default(name: str, label: str) -> bool:
    return name.startswith(_PACKAGED) or name == f"suite.jsonl ({label})"


def _suites(manifest: Manifest, report: Report) -> list[str]:
    """The values of `--suite`; none where the suite is the default."""
    origin = manifest.base.derived_from
    if origin is not None and origin.suite == report.suite.sha256:
        return []
    sources = [suite.source for suite in report.suites] or [report.suite]
    alone = len(sources) == 1
    bundled = manifest.base.repo is None and report.suite.name == manifest.base.name
    if alone and (bundled or report.suite.name.startswith(_PACKAGED)):
        return []
    return [_suite(source, alone) for source in sources]


def _suite(source: SuiteSource, alone: bool) -> str:
    kind, _, rest = source.origin.partition(":")
    if kind == "known":
        return rest
    if kind in ("hub", "newest"):
        return f"{source.name}@{rest.rpartition('@')[2]}"
    if source.name.startswith(_PACKAGED):
        return source.name.removeprefix(_PACKAGED)
    return "FILE" if alone else f"{source.name}=FILE"
