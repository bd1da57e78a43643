# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A certificate and its key can serve, or what is wrong with them is said, and no more of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.mail.certificate import problem

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl (Debian: apt-get install openssl)")


def pair(folder: Path, name: str, kind: str = "ec -pkeyopt ec_paramgen_curve:prime256v1") -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = f"openssl req -x509 -newkey {kind} -nodes -days 2 -subj /CN=mx1"
    subprocess.run([*command.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)
    key.chmod(0o640)
    return certificate, key


def test_a_pair_can_serve(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path, "one")
    assert problem(str(certificate), str(key)) == ""


@pytest.mark.parametrize("missing", [0, 1], ids=["certificate", "key"])
def test_what_is_missing_is_named(tmp_path: Path, missing: int) -> None:
    files = pair(tmp_path, "one")
    files[missing].unlink()
    said = problem(*map(str, files))
    assert f"{files[missing]} is not on the host" in said


@pytest.mark.parametrize("kind", ["ec -pkeyopt ec_paramgen_curve:prime256v1", "rsa:2048"])
def test_another_certificates_key_is_refused(tmp_path: Path, kind: str) -> None:
    certificate, _ = pair(tmp_path, "one")
    _, key = pair(tmp_path, "two", kind)
    assert "is not the key of the certificate" in problem(str(certificate), str(key))


def test_a_key_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path, "one")
    key.chmod(0o644)
    assert problem(str(certificate), str(key)).endswith(f"chmod o= {key}")


def test_a_key_with_a_password_is_refused(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path, "one")
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-aes256", "-passout", "pass:lab", "-in", key, "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    locked.chmod(0o600)
    assert "without a password" in problem(str(certificate), str(locked))


def test_a_key_that_is_too_short_is_told(tmp_path: Path) -> None:
    assert "EE_KEY_TOO_SMALL" in problem(*map(str, pair(tmp_path, "one", "rsa:1024")))


def test_what_is_no_certificate_is_refused(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path, "one")
    certificate.write_text("none\n")
    assert "no certificate and key in PEM form" in problem(str(certificate), str(key))
