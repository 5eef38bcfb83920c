"""Base models and steered directories that a push can handle: real records, bytes for weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mars_export.checkpoint.manifest import MANIFEST_NAME, BaseModelSource, FileEntry, Manifest
from mars_export.checkpoint.seal import write_seal
from mars_export.evaluation.report import Cell, Rate, Report, SelfCheck, SuiteSource
from mars_export.methods.base import ArtefactRecord
from support.artefacts import mars_artefact

SHARD = bytes(range(256)) * 2000
"""Half a megabyte, so that it stands out among the bytes that travel."""
RENAMED = "model-00001-of-00002.safetensors"
CARD = "---\nlicense: gemma\nlanguage: [en]\npipeline_tag: image-text-to-text\n---\n# A model\n"


def base_files(card: str = CARD) -> dict[str, bytes]:
    """The files of a base model."""
    return {
        "config.json": b'{"model_type": "gemma3"}',
        "tokenizer.json": b'{"version": "1.0"}',
        "model.safetensors": SHARD,
        "README.md": card.encode(),
    }


def steered_directory(
    directory: Path, source: dict[str, Any] | None = None, *, active: bool = True
) -> Path:
    """Write a steered directory; `source` overrides fields of the base model's record."""
    origins = {RENAMED: ("base", "model.safetensors"), "tokenizer.json": ("base", "tokenizer.json")}
    origins |= {"config.json": ("base-rewritten", "config.json")}
    content = {
        RENAMED: SHARD,
        "tokenizer.json": base_files()["tokenizer.json"],
        "config.json": b'{"model_type": "steered_gemma3"}',
        "modeling_steered.py": b"STEERED = True\n",
        "steering_host.py": b"HOST = True\n",
        "steering.safetensors": b"steering" * 100,
        "calibration/calibration.json": b"{}",
    }
    for path, data in content.items():
        _write(directory / path, data)
    files = [
        _entry(path, data, *origins.get(path, ("added", None))) for path, data in content.items()
    ]
    _write(directory / MANIFEST_NAME, _manifest(files, source or {}).model_dump_json().encode())
    return add_evaluation_and_card(directory, active=active)


def add_evaluation_and_card(directory: Path, *, active: bool = True) -> Path:
    """Write and seal what is made after the manifest; without `active` no `on` numbers."""
    _write(directory / "README.md", b"---\nlicense: gemma\n---\n# Steered\n")
    _write(directory / "assets/refusal.png", b"\x89PNG" + b"0" * 500)
    _write(directory / "evaluation/samples.jsonl", b"{}\n")
    _write(directory / "evaluation/safety_eval.json", b"{}\n")
    _write(directory / "evaluation/report.json", _report(active).model_dump_json().encode())
    write_seal(directory)
    return directory


def edit_manifest(directory: Path, **base: Any) -> None:
    """Change fields of the recorded base model, and seal."""
    path = directory / MANIFEST_NAME
    record = json.loads(path.read_bytes())
    record["base"] |= base
    path.write_text(json.dumps(record))
    write_seal(directory)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _entry(path: str, data: bytes, origin: Any, base_path: str | None) -> FileEntry:
    return FileEntry(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        origin=origin,
        base_path=base_path,
    )


def _manifest(files: list[FileEntry], source: dict[str, Any]) -> Manifest:
    base = {
        "repo": None,
        "revision": None,
        "name": "org/base",
        "model_type": "gemma3",
        "architecture": "Gemma3ForConditionalGeneration",
        "license": "gemma",
        "pipeline_tag": "image-text-to-text",
    }
    return Manifest(
        created="2026-01-01T00:00:00+00:00",
        base=BaseModelSource.model_validate(base | source),
        steering_sha256="0" * 64,
        modeling_file="modeling_steered.py",
        tensors=[],
        files=files,
        calibration=_calibration(),
        versions={},
    )


def _calibration() -> ArtefactRecord:
    fields = {
        "model_type": "gemma3",
        "layer": 1,
        "layers": 4,
        "hidden_size": 8,
        "dtype": "float32",
        "separation": 2.0,
        "harmful": 1.0,
        "harmless": -1.0,
        "shift": {"text": 0.0, "image": 0.3},
        "origin": 0.1,
        "cap": 0.9,
        "gain": 1.0,
        "radius": 1.0,
        "refusal_tokens": [1],
        "scores": [],
        "prompts": {},
        "stimuli": {},
        "headers": [{"prefix": [2], "ends": [3]}],
        "turn_starts": [],
        "seed": 0,
        "seconds": 1.0,
    }
    return mars_artefact(fields)


def _report(active: bool) -> Report:
    rate = Rate(count=0, n=1, clusters=1, rate=0.0, low=0.0, high=0.8)
    cells = [
        Cell(
            modality="text",
            harmful=True,
            arm=arm,
            refused=rate,
            degenerate=rate,
            unknown=rate,
            cut=rate,
            verdicts={},
        )
        for arm in ("off", "on")
        if active or arm == "off"
    ]
    return Report(
        created="2026-01-01T00:00:00+00:00",
        self_check=SelfCheck(active=active, detail="the probes were compared"),
        suite=SuiteSource(name="suite", sha256="0" * 64, samples=1),
        judge="opener 1",
        decoding={},
        dtype="float32",
        device="cpu",
        versions={},
        n=1,
        cells=cells,
        pairs=[],
        harm_pairs=[],
        broken_pairs=[],
        cut_pairs=[],
        pooled=[],
        arms=[],
        regressions={},
        newly_refused={},
        gates={},
        seconds=1.0,
    )
