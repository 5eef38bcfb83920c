"""The checks: a steered checkpoint against what its export wrote, none of its code executed."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from safetensors.torch import load_file

from mars_export._version import __version__
from mars_export.checkpoint.expected import CALIBRATION
from mars_export.checkpoint.files import git_blob_id
from mars_export.checkpoint.integrity import changed_files, dangerous_files
from mars_export.checkpoint.manifest import MANIFEST_NAME, OWN_DIGEST, TensorEntry
from mars_export.checkpoint.modeling import CODE_NAMES, MODELING_NAME, code_files
from mars_export.checkpoint.released import released
from mars_export.checkpoint.seal import SEAL_NAME, Seal, broken_seals
from mars_export.checkpoint.tensors import STEERING_NAME, LayerTensors, push_problem, tensor_place
from mars_export.checkpoint.writer import tensor_entries
from mars_export.common.record import own_digest
from mars_export.families import OTHER_FILES, names_code
from mars_export.families.directory import read_json
from mars_export.families.weights import INDEX, SINGLE, read_index
from mars_export.hub.readiness import is_published
from mars_export.verification.report import CheckFailedError
from mars_export.verification.subject import Subject

__all__ = ["CHECKS", "SEALED"]

SEALED: Final = "sealed files"
"""Name of the check of what is not loaded: evaluation, card, pictures."""

_SEAL_AGAIN: Final = "if that was you, run `mars-export seal` on the directory"
_NORM_TOLERANCE: Final = 1e-3
"""Relative; a stated norm is for people and differs between processors."""
_LONGEST_VALUE: Final = 80
"""Characters of a value of config.json in a message."""


def manifest_is_whole(subject: Subject) -> str:
    """The manifest against its own checksum, and no file in it twice."""
    paths = [entry.path for entry in subject.manifest.files]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise CheckFailedError(f"{MANIFEST_NAME} lists {twice[0]} twice")
    stated = subject.manifest.manifest_sha256
    if own_digest(subject.files.fetch(MANIFEST_NAME).read_bytes(), OWN_DIGEST) != stated:
        raise CheckFailedError(f"{MANIFEST_NAME} was changed after the export")
    return "as it was written"


def files_are_the_sealed(subject: Subject) -> str:
    """What was written after the export, and the manifest, by size and SHA-256; nothing beside."""
    if SEAL_NAME not in subject.files.sizes:
        raise CheckFailedError(f"there is no {SEAL_NAME}; {_SEAL_AGAIN}")
    seal = Seal.read(subject.files.fetch(SEAL_NAME))
    sealed = {entry.path for entry in seal.files}
    unpublished = {path for path in sealed - subject.files.sizes.keys() if not is_published(path)}
    broken = broken_seals(subject.files, subject.manifest, seal)
    problems = [f"{path} {what}" for path, what in broken if path not in unpublished]
    if problems:
        raise CheckFailedError(f"{problems[0]}; {_SEAL_AGAIN}", *problems[1:])
    names, count = ", ".join(sorted(unpublished)), len(sealed - unpublished)
    absent = f"; not here, as a push leaves it out: {names}" if names else ""
    return f"{count} files beside the export, and the manifest, by SHA-256{absent}"


def files_are_plain(subject: Subject) -> str:
    """Nothing that leads elsewhere: links, devices, pipes."""
    _require(f"{name} {problem}" for name, problem in subject.files.irregular.items())
    return f"{len(subject.files.sizes)} plain files, no link out of the checkpoint"


def files_are_the_exported(subject: Subject) -> str:
    """Every file of the manifest by size and SHA-256."""
    _require(changed_files(subject.files, subject.manifest, subject.progress))
    entries = subject.manifest.files
    return f"{len(entries)} files, {sum(e.size for e in entries):,} bytes, by SHA-256"


def nothing_else_is_loaded(subject: Subject) -> str:
    """No code, pickle or configuration that the export did not write."""
    _require(dangerous_files(subject.files, subject.manifest))
    return "no code, pickle or configuration beside the exported files"


def code_is_ours(subject: Subject) -> str:
    """Modeling file and host against what this version and the released ones write."""
    if subject.manifest.modeling_file != MODELING_NAME:
        raise CheckFailedError(
            f"the manifest names {subject.manifest.modeling_file} instead of {MODELING_NAME}"
        )
    found = {name: subject.files.fetch(name).read_bytes() for name in CODE_NAMES}
    digests = [hashlib.sha256(found[name]).hexdigest() for name in CODE_NAMES]
    model_type, method = subject.manifest.base.model_type, subject.manifest.calibration.method
    for release in released():
        if (release.model_type, release.method) == (model_type, method) and digests == [
            release.sha256,
            release.host_sha256,
        ]:
            return f"both code files are those of mars-export {release.version} for {model_type}"
    ours = code_files(subject.family, method)
    other = [name for name in CODE_NAMES if found[name] != ours[name].encode()]
    if not other:
        return f"both code files are what this version writes for {subject.family.name}"
    writer = subject.manifest.versions.get("mars-export", "of unknown version")
    raise CheckFailedError(
        f"{other[0]} is not what this mars-export, {__version__}, writes for "
        f"{subject.family.name}; the manifest says that mars-export {writer} wrote it: verify it "
        "with that build, or export the model again, and do not load it before"
    )


def no_other_code_is_named(subject: Subject) -> str:
    """No `auto_map` but that of config.json, and nothing that loads by another way."""
    names = [name for name in subject.files.sizes if name.endswith(".json") and "/" not in name]
    _require(_references(subject, names))
    return f"only {MODELING_NAME} is named as code, in {len(names)} configuration files"


def _references(subject: Subject, names: list[str]) -> Iterator[str]:
    for key in OTHER_FILES:
        if key in subject.config:
            yield f"config.json holds {key!r}, which loads something else"
    for name in names:
        if name not in ("config.json", "tokenizer.json", INDEX) and names_code(
            read_json(subject.files.fetch(name))
        ):
            yield f"{name} names code of its own (auto_map)"
    if any(names_code(value) for value in subject.config.values()):
        yield "config.json names code below its top level (auto_map)"


def config_is_expected(subject: Subject) -> str:
    """config.json: steering of the calibration, the guard, and `auto_map`, around a base's."""
    _compare_json(subject, "config.json", subject.expected.written["config.json"])
    steering = subject.config["steering"]
    if steering["sha256"] != subject.manifest.steering_sha256:
        raise CheckFailedError(
            f"the manifest states another digest of rules and tensors than config.json: "
            f"{subject.manifest.steering_sha256}"
        )
    return f"{subject.family.disk_model_type}, guarded, steered as calibrated"


def index_is_expected(subject: Subject) -> str:
    """Every indexed tensor is in its shard, and the steering in its own shard alone."""
    where = read_index(subject.files.fetch(INDEX))
    listed = {e.path for e in subject.manifest.files if e.path.endswith(".safetensors")}
    wrong = sorted(set(where.values()) - {path for path in listed if "/" not in path})
    if wrong or SINGLE in subject.files.sizes:
        raise CheckFailedError(f"{wrong[0] if wrong else SINGLE} is no shard of the export")
    _compare_json(subject, INDEX, subject.expected.written[INDEX])
    steering = {entry.name for entry in tensor_entries(subject.family, subject.artefact)}
    _require(_misplaced(subject, where, steering))
    shards = len(set(where.values()))
    return f"{len(where)} tensors in {shards} shards, the {len(steering)} of steering in one"


def _misplaced(subject: Subject, where: dict[str, str], steering: set[str]) -> Iterator[str]:
    for shard in sorted(set(where.values())):
        held = subject.files.tensors(shard).keys()
        indexed = {name for name, place in where.items() if place == shard}
        for name in sorted(indexed - held):
            yield f"{shard} does not hold {name}"
        if shard != STEERING_NAME and held & steering:
            yield f"{shard} holds steering tensors, which would replace the exported"


def tensors_are_calibrated(subject: Subject) -> str:
    """Calibration and steering tensors: of one another, and as the manifest states."""
    _require(
        f"{path} is not what the calibration gives"
        for path, content in subject.expected.written.items()
        if path.startswith(CALIBRATION) or path == STEERING_NAME
        if subject.files.fetch(path).read_bytes() != content
    )
    entries = tensor_entries(subject.family, subject.artefact)
    stated = {entry.name: entry for entry in subject.manifest.tensors}
    if stated.keys() != {e.name for e in entries} or not all(_alike(e, stated) for e in entries):
        raise CheckFailedError("the manifest states other steering tensors")
    return f"{len(entries)} tensors, as calibrated"


def _alike(entry: TensorEntry, stated: dict[str, TensorEntry]) -> bool:
    other = stated[entry.name]
    same = (entry.shape, entry.dtype) == (other.shape, other.dtype)
    return same and math.isclose(entry.norm, other.norm, rel_tol=_NORM_TOLERANCE)


def steering_can_push(subject: Subject) -> str:
    """The method's own rule, with the tensors as they are shipped, and the calibration's probes."""
    tensors: LayerTensors = {}
    for name, tensor in load_file(subject.files.fetch(STEERING_NAME)).items():
        if place := tensor_place(name):
            tensors.setdefault(place[0], {})[place[1]] = tensor
    record = subject.manifest.calibration
    if problem := push_problem(record, subject.config["steering"], tensors):
        raise CheckFailedError(f"nothing is steered: {problem}")
    for modality in record.unprobed:
        raise CheckFailedError(f"no probe of the calibration is a pushed {modality} request")
    return f"the rule can push in every calibrated modality: {', '.join(record.source.modalities)}"


def weights_are_the_bases(subject: Subject) -> str:
    """Every shard but the steering's has the SHA-256 that the Hub publishes for the base's."""
    return f"{_compare_with_base(subject, shards=True)} shards are those of {_base_name(subject)}"


def files_are_the_bases(subject: Subject) -> str:
    """Tokenizer, processor and other files that were copied, the same way."""
    return f"{_compare_with_base(subject, shards=False)} files are those of {_base_name(subject)}"


def config_is_the_bases(subject: Subject) -> str:
    """config.json and the index are what an export makes of the base's."""
    whose = _base_name(subject)
    for name in ("config.json", INDEX):
        _compare_json(subject, name, subject.published.written[name], f" onto {whose}")
    return f"but for the steering it is that of {whose}"


def _compare_with_base(subject: Subject, *, shards: bool) -> int:
    """Compare what was copied from the base, whatever origin the manifest states; how many."""
    present = {entry.path for entry in subject.manifest.files}
    paths = (present | subject.published.copied.keys()) - subject.published.written.keys()
    selected = sorted(path for path in paths if path.endswith(".safetensors") == shards)
    _require(problem for path in selected if (problem := _unlike_base(subject, path)))
    return len(selected)


def _unlike_base(subject: Subject, path: str) -> str | None:
    """How a file differs from that of the base."""
    source = subject.published.copied.get(path)
    if source is None:
        return f"{path} is no file of {_base_name(subject)}"
    entry = next((entry for entry in subject.manifest.files if entry.path == path), None)
    if entry is None:
        return f"{path} of {_base_name(subject)} is missing"
    theirs = subject.base.files[source]
    if theirs.lfs is not None:
        same = theirs.lfs.sha256 == entry.sha256
    else:
        same = theirs.blob_id == git_blob_id(subject.files.fetch(path).read_bytes())
    return None if same else f"{path} is not the file of {_base_name(subject)}"


def _base_name(subject: Subject) -> str:
    base = subject.manifest.base
    return f"{base.repo}@{(base.revision or '')[:8]}"


def _require(problems: Iterable[str]) -> None:
    """Fail with every problem there is."""
    if every := list(problems):
        raise CheckFailedError(*every)


def _compare_json(subject: Subject, name: str, wanted: bytes, whose: str = "") -> None:
    """Compare a file byte by byte; where it differs, name the first key that does."""
    content = subject.files.fetch(name).read_bytes()
    if content != wanted:
        where = _difference(json.loads(content), json.loads(wanted))
        raise CheckFailedError(f"{name} differs from that of the export{whose}: {where}")


def _difference(actual: Any, wanted: Any, path: str = "") -> str:
    if isinstance(actual, dict) and isinstance(wanted, dict):
        for key in (*wanted, *actual):
            if key not in actual:
                return f"{path}{key} is missing"
            if key not in wanted:
                return f"{path}{key} does not belong there"
            if actual[key] != wanted[key]:
                return _difference(actual[key], wanted[key], f"{path}{key}.")
    if actual == wanted:
        return "the same content in other bytes"
    return f"{path.rstrip('.')} is {_short(actual)}, not {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


CHECKS: Final[tuple[tuple[str, Callable[[Subject], str]], ...]] = (
    ("manifest", manifest_is_whole),
    (SEALED, files_are_the_sealed),
    ("plain files", files_are_plain),
    ("exported files", files_are_the_exported),
    ("nothing else", nothing_else_is_loaded),
    ("modeling file", code_is_ours),
    ("no other code", no_other_code_is_named),
    ("configuration", config_is_expected),
    ("weight index", index_is_expected),
    ("steering tensors", tensors_are_calibrated),
    ("push", steering_can_push),
    ("base weights", weights_are_the_bases),
    ("base files", files_are_the_bases),
    ("base configuration", config_is_the_bases),
)
"""In the order in which they are reported."""
