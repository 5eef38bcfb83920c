"""A signature of the seal, made with the command of docs/deploying.md."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mars_export import ExportError, verify
from mars_export.checkpoint.seal import SEAL_NAME, SIGNATURE_NAME
from mars_export.cli.main import main
from mars_export.common.installation import install_extra

pytest.importorskip("model_signing")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from model_signing import hashing, signing

pytestmark = pytest.mark.use("signed seal", family="gemma3")
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "verify" / "load_verified.py"
PAGE = (ROOT / "docs" / "deploying.md").read_text("utf-8")


def key_pair(folder, key=None):
    """Paths of a private and a public key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private, public = folder / "key.pem", folder / "public.pem"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, form))
    return private, public


@pytest.fixture
def signed(steered, tmp_path):
    """A signed copy and the public key."""
    _, public = key_pair(tmp_path)
    (line,) = (line for line in PAGE.splitlines() if line.startswith("model_signing sign"))
    program = Path(sys.executable).with_name("model_signing")
    subprocess.run([program, *line.split()[1:]], cwd=tmp_path, check=True, capture_output=True)
    return steered, public


def signature_check(directory, key):
    checks = verify(directory, public_key=key).checks
    return next(check for check in checks if check.name == "signature")


def test_a_signed_directory_is_verified_and_the_signature_is_no_stray_file(signed):
    directory, public = signed
    found = verify(directory, public_key=public)
    assert found.passed
    assert [check.name for check in found.checks][2] == "signature"


def test_the_example_loads_what_is_signed_and_nothing_else(signed, monkeypatch, capsys):
    directory, public = signed
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(directory), str(public)])
    runpy.run_path(str(EXAMPLE))
    assert "with steering on" in capsys.readouterr().out.splitlines()[-1]
    (directory / SIGNATURE_NAME).unlink()
    with pytest.raises(SystemExit, match="is not loaded"):
        runpy.run_path(str(EXAMPLE))


def test_without_a_key_a_signature_is_not_asked_for(steered):
    assert "signature" not in {check.name for check in verify(steered).checks}


def test_a_changed_seal_is_not_the_signed_one(signed):
    directory, public = signed
    path = directory / SEAL_NAME
    seal = json.loads(path.read_bytes())
    path.write_text(json.dumps(seal))  # the same content in other bytes
    found = signature_check(directory, public).detail
    assert found.endswith("renewed after it was signed; if that was you, sign it again")


def test_the_key_of_somebody_else_and_no_signature_fail(signed, tmp_path):
    directory, _ = signed
    (tmp_path / "other").mkdir()
    _, other = key_pair(tmp_path / "other")
    found = signature_check(directory, other)
    assert (found.status, found.detail[-10:]) == ("failed", "is damaged")
    (directory / SIGNATURE_NAME).unlink()
    assert signature_check(directory, other).detail == f"there is no {SIGNATURE_NAME}"


def test_a_signature_of_nothing_fits_no_seal(signed):
    directory, public = signed
    path = directory / SEAL_NAME
    nothing = hashing.Config().set_ignored_paths(paths=[path])
    signer = signing.Config().set_hashing_config(nothing)
    signer.use_elliptic_key_signer(private_key=public.with_name("key.pem"))
    signer.sign(path, directory / SIGNATURE_NAME)
    assert signature_check(directory, public).status == "failed"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 10_000, b"\xff\x00", b'{"dsseEnvelope": 1}']
)
def test_a_signature_that_is_none_fails(signed, content):
    directory, public = signed
    (directory / SIGNATURE_NAME).write_bytes(content)
    assert signature_check(directory, public).status == "failed"


def test_a_key_that_is_none_is_bad_input(signed, tmp_path, capsys):
    directory, _ = signed
    (tmp_path / "other").mkdir()
    _, other_kind = key_pair(tmp_path / "other", ed25519.Ed25519PrivateKey.generate())
    for key in (tmp_path / "absent.pem", directory / SEAL_NAME, other_kind):
        with pytest.raises(ExportError, match="elliptic-curve public key"):
            verify(directory, public_key=key)
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(directory), "--public-key", str(tmp_path / "absent.pem")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_the_library_the_extra_is_named(steered, tmp_path, monkeypatch):
    _, public = key_pair(tmp_path)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(ExportError, match=re.escape(install_extra("signed"))):
        verify(steered, public_key=public)
