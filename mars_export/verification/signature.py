"""Who vouches for the seal, and so for every file: a signature of the library model-signing."""

import base64
import json
import shutil
import tempfile
from pathlib import Path

from mars_export.checkpoint.seal import SEAL_NAME, SIGNATURE_NAME
from mars_export.common.errors import ExportError
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
            "--public-key needs model-signing; run `pip install 'mars-export[signed]'`"
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
            said = " ".join(str(error).split())[:200]
            raise CheckFailedError(
                f"{SIGNATURE_NAME} does not show that the owner of {key} signed it ({said})"
            ) from error
    if not states:
        raise CheckFailedError(f"{SIGNATURE_NAME} is a good signature, but of no file")
    return f"{SEAL_NAME} is signed by the owner of {key}"


def _states_something(signature: Path) -> bool:
    """Whether a signature that was found good is of any file.

    The library leaves out what the signed statement says is ignored. Where that is everything, the
    statement fits every seal.
    """
    envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    return bool(statement["predicate"]["resources"])
