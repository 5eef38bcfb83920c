"""Writes a steered directory as ONNX: exports, checks, and only then publishes."""

import shutil
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from mars_export.checkpoint.derived import native_config, read_steering
from mars_export.checkpoint.seal import SEAL_NAME, SIGNATURE_NAME
from mars_export.common.disk_errors import clear_disk_errors
from mars_export.common.errors import ExportError
from mars_export.common.progress import Progress, Tick, progress_for
from mars_export.common.workspace import Stage, Workspace, digests
from mars_export.evaluation.generation import Loaded, load
from mars_export.families import Family, family_of
from mars_export.families.directory import companions, digest
from mars_export.families.quantization import own_method
from mars_export.inputs.requests import collate
from mars_export.integrations.onnx import require_extra
from mars_export.integrations.onnx.graphs import about, write_components
from mars_export.integrations.onnx.int8 import compare_int8, quantize, suite_parity
from mars_export.integrations.onnx.parity import (
    TOKENS,
    TOLERANCE,
    Case,
    check_requests,
    compare,
    require_constants,
)
from mars_export.integrations.onnx.record import ONNX_RECORD_NAME, Component, Onnx, Source
from mars_export.integrations.onnx.routes import Route, route_of
from mars_export.integrations.onnx.runner import SteeredOnnx
from mars_export.integrations.supported import require_mars

__all__ = ["export_onnx"]

RUNNER: Final = "steered_onnx.py"
_BESIDE: Final = frozenset({"README.md", "assets", "evaluation", SEAL_NAME, SIGNATURE_NAME})
"""What is written anew beside a checkpoint that stays the same."""
_PACKAGES: Final = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")


def export_onnx(
    directory: Path,
    output: Path,
    *,
    int8: bool = False,
    overwrite: bool = False,
    tokens: int = TOKENS,
    progress: Progress | None = None,
) -> Onnx:
    """Write a steered directory as ONNX graphs with the steering inside.

    Args:
        directory: Steered checkpoint.
        output: Directory to make; appears complete and checked, or not at all.
        int8: Quantize the weights of the matrix products.
        overwrite: Replace an earlier ONNX export.
        tokens: Greedy tokens that are compared with PyTorch's.
        progress: Where to say what is going on.

    Returns:
        What is written as `steered_onnx.json`.

    Raises:
        ExportError: if the directory is not steered, damaged or of a family that has no route, if
            the extra `onnx` is missing, or if the graphs do not do what PyTorch does.
    """
    require_extra()
    progress = progress or progress_for("none")
    job = _Job(directory, int8, tokens)
    if directory.resolve() in output.resolve().parents:
        raise ExportError(f"{output} is inside {directory}: give another --output")
    opened = Workspace.open(output, made=ONNX_RECORD_NAME, kind="ONNX export")
    with clear_disk_errors(output), opened as workspace:
        stages = job.stages(workspace.root)
        if workspace.is_published(digests(stages)[-1]):
            progress.note(f"{output} is already there, made with these settings")
            workspace.discard()
            return Onnx.model_validate_json((output / ONNX_RECORD_NAME).read_bytes())
        workspace.check_replaceable(overwrite)
        try:
            workspace.run(stages, progress)
        except ExportError:
            workspace.discard()  # graphs that failed are not to be taken up again
            raise
        made = workspace.root / job.result
        record = Onnx.model_validate_json((made / ONNX_RECORD_NAME).read_bytes())
        workspace.publish(job.result, digests(stages)[-1], overwrite=overwrite)
    return record


class _Job:
    """One export; the model is loaded when it is first needed."""

    def __init__(self, directory: Path, int8: bool, tokens: int) -> None:
        self.directory, self.int8, self.tokens = directory, int8, tokens
        self.rules, tensors = read_steering(directory)
        require_mars(self.rules, f"{directory} cannot be written as ONNX")
        (self.tensors,) = tensors.values()
        native = native_config(directory)
        if own_method(native) or self.rules.get("quantization"):
            what = "stored quantized" if own_method(native) else "calibrated for quantized loading"
            raise ExportError(
                f"{directory} is {what}, and ONNX graphs are made from float32 weights; steer the "
                "unquantized base, and use --int8 for small graphs"
            )
        self.family: Family = family_of(native["model_type"])
        self.route: Route = route_of(self.family)

    @cached_property
    def loaded(self) -> Loaded:
        """The checkpoint in float32, as a user loads it."""
        return load(self.directory, self.family.modalities, "cpu", "float32")

    @property
    def result(self) -> str:
        """What is published, relative to the workspace."""
        return "int8" if self.int8 else "graphs"

    def stages(self, root: Path) -> list[Stage]:
        """Graphs, then checks; a run that was killed goes on behind the graphs."""

        def write(tick: Tick) -> None:
            (root / "graphs").mkdir()
            write_components(self.loaded.model, self.route, root / "graphs", tick)
            self._add_companions(root / "graphs")

        def check(tick: Tick) -> None:
            self._check(root / "graphs", tick)

        def quantized(_: Tick) -> None:
            self._quantize(root / "graphs", root / "int8")

        source = sorted(
            (path.relative_to(self.directory).as_posix(), path.stat().st_size, path.stat().st_mtime)
            for path in self.directory.rglob("*")
            if path.is_file() and path.relative_to(self.directory).parts[0] not in _BESIDE
        )
        record = f"graphs/{ONNX_RECORD_NAME}"
        stages = [
            Stage("graphs", {"source": source, "versions": _versions()}, ("graphs",), write),
            Stage("check", {"tokens": self.tokens}, (record,), check),
        ]
        return [*stages, Stage("int8", {}, ("int8",), quantized)] if self.int8 else stages

    def _check(self, made: Path, tick: Tick) -> None:
        """Compare the graphs with PyTorch and write the record."""
        record = self._record(made)
        _write(made, record)
        require_constants(made / "decoder.onnx", self.tensors)
        parity = compare(self.loaded.model, SteeredOnnx(made), self.cases, self.tokens, tick)
        _write(made, record.model_copy(update={"parity": parity}))

    def _quantize(self, made: Path, target: Path) -> None:
        """Write a directory with int8 graphs in the place of those whose products have weights."""
        whole = Onnx.model_validate_json((made / ONNX_RECORD_NAME).read_bytes())
        names = set(whole.components) - {"embedding"}
        graphs = {path for name in names for path in made.glob(f"{name}.onnx*")}
        target.mkdir()
        for path in set(made.iterdir()) - graphs:
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, target / path.name)
        for name in names:
            quantize(made / f"{name}.onnx", target / f"{name}.onnx")
        require_constants(target / "decoder.onnx", self.tensors)
        whole_graphs, small = SteeredOnnx(made), SteeredOnnx(target)
        found = compare_int8(whole_graphs, small, self.cases, self.tokens)
        known = list(dict.fromkeys(case.modality for case in self.cases))
        decided = suite_parity(self.directory, self.loaded.processor, known, whole_graphs, small)
        if decided:
            counts = {f"suite_{name}": count for name, count in decided._asdict().items()}
            found = found.model_copy(update=counts)
        fresh = self._record(target)
        _write(target, fresh.model_copy(update={"parity": whole.parity, "int8": found}))

    @cached_property
    def cases(self) -> list[Case]:
        """Of every modality its first request alone and all as one batch."""
        model = about(self.loaded.model, self.route)
        known = [m for m in model.modalities if m == "text" or m in model.placeholders]
        cases = []
        for modality, requests in check_requests(self.directory, known).items():
            for group in (requests[:1], requests):
                inputs: Mapping[str, Any] = collate(self.loaded.processor, group)
                prompts = [request.prompt for request in group]
                cases.append(Case(modality, prompts, dict(inputs)))
        return cases

    def _add_companions(self, made: Path) -> None:
        """Processor, tokenizer and template, and the runner."""
        for path in companions(self.directory):
            target = made / path.relative_to(self.directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (made / RUNNER).write_bytes(
            (files("mars_export.integrations.onnx") / "runner.py").read_bytes()
        )

    def _record(self, made: Path) -> Onnx:
        source = Source(
            name=self.directory.resolve().name,
            steering_sha256=self.rules["sha256"],
            config_sha256=digest(self.directory / "config.json"),
        )
        return Onnx(
            source=source,
            model=about(self.loaded.model, self.route),
            components={p.stem: _component(p) for p in sorted(made.glob("*.onnx"))},
            versions=_versions(),
            tolerance=TOLERANCE,
            parity=[],
        )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES}


def _component(path: Path) -> Component:
    """What a graph says of itself, as onnxruntime reads it."""
    import onnx
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no common base
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"onnxruntime does not load {path.name}: {reason}") from error
    opsets = onnx.load(str(path), load_external_data=False).opset_import
    return Component(
        files={p.name: digest(p) for p in sorted(path.parent.glob(f"{path.name}*"))},
        opset=next(entry.version for entry in opsets if not entry.domain),
        inputs={i.name: i.shape for i in session.get_inputs()},
        outputs={o.name: o.shape for o in session.get_outputs()},
    )


def _write(made: Path, record: Onnx) -> None:
    text = record.model_dump_json(indent=2) + "\n"
    (made / ONNX_RECORD_NAME).write_text(text, encoding="utf-8", newline="\n")
