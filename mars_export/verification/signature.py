"""Who vouches for the seal, and so for every file: a signature of the library model-signing."""

import base64
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mars_export.checkpoint.seal import SEAL_NAME, SIGNATURE_NAME
from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra
from mars_export.verification.report import CheckFailedError
from mars_export.verification.subject import Subject

__all__ = ["readable_key", "seal_is_signed"]


def readable_key(path: Path) -> Path:
    """The public key, if it can be used.

    Args:
        path: PEM file with an elliptic-curve public key.

    Raises:
        ExportError: if model-signing is not installed or the file is no such key.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
        from model_signing import verifying  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"--public-key needs model-signing; run `{install_extra('signed')}`"
        ) from error
    try:
        usable = isinstance(load_pem_public_key(path.read_bytes()), EllipticCurvePublicKey)
    except (OSError, ValueError):
        usable = False
    if not usable:
        raise ExportError(f"{path} is not a PEM file with an elliptic-curve public key")
    return path


def seal_is_signed(key: Path, subject: Subject) -> str:
    """The signature beside the seal, which has the digests of all that the manifest has not."""
    from model_signing import verifying

    if SIGNATURE_NAME not in subject.files.sizes:
        raise CheckFailedError(f"there is no {SIGNATURE_NAME}")
    with tempfile.TemporaryDirectory() as folder:
        # A cache of the Hub has links in place of files, which the library does not follow.
        signed, signature = Path(folder, SEAL_NAME), Path(folder, SIGNATURE_NAME)
        shutil.copyfile(subject.files.fetch(SEAL_NAME), signed)
        shutil.copyfile(subject.files.fetch(SIGNATURE_NAME), signature)
        try:
            verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
            verifier.verify(signed, signature)
            states = _states_something(signature)
        except Exception as error:  # whatever it is, the signature was not shown to be good
            raise CheckFailedError(
                f"{SIGNATURE_NAME} does not show that the owner of {key} signed {SEAL_NAME}: "
                f"{_reason(signed, signature)}"
            ) from error
    if not states:
        raise CheckFailedError(f"{SIGNATURE_NAME} is a good signature, but of no file")
    return f"{SEAL_NAME} is signed by the owner of {key}"


def _reason(signed: Path, signature: Path) -> str:
    """Why a signature is not good, as far as what it states tells. Nothing of it is trusted."""
    try:
        stated = {resource["digest"] for resource in _resources(signature)}
    except (ValueError, LookupError, TypeError, RecursionError):
        return "it is damaged, or no signature of model-signing; sign the seal again"
    if hashlib.sha256(signed.read_bytes()).hexdigest() not in stated:
        return "the seal was renewed after it was signed; if that was you, sign it again"
    return "another key signed it, or it is damaged"


def _resources(signature: Path) -> list[dict[str, Any]]:
    """The files that a signature is of, as its statement lists them."""
    envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
    resources = json.loads(base64.b64decode(envelope["payload"]))["predicate"]["resources"]
    return list(resources)


def _states_something(signature: Path) -> bool:
    """Whether a signature that was found good is of any file.

    The library leaves out what the signed statement says is ignored. Where that is everything, the
    statement fits every seal.
    """
    return bool(_resources(signature))
