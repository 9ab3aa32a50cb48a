"""A self-made certificate for one run: a phone on the network gets threads only over HTTPS."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

from edgessl.core.errors import EdgeSSLError
from edgessl.core.registry import missing_extra

DAYS = 2
NAME = "edgessl"


class Certificate:
    """A key and a certificate for one address; the key is never kept.

    Attributes:
        context: For the server; TLS 1.2 or newer.
        fingerprint: SHA-256 of the certificate, ``AB:CD:...``, as browsers show it.
    """

    def __init__(self, pem: bytes, key: bytes) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        with tempfile.TemporaryDirectory() as folder:  # the only way in is by file
            chain = Path(folder) / "both.pem"
            chain.touch(mode=0o600)
            chain.write_bytes(key + pem)
            self.context.load_cert_chain(chain)
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest().upper()
        self.fingerprint = ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def make_certificate(address: str) -> Certificate:
    """Make a certificate for an IP address with the ``openssl`` program, else ``cryptography``.

    Raises:
        MissingExtra: Neither is there.
        EdgeSSLError: ``openssl`` failed.
    """
    if program := shutil.which("openssl"):
        return _with_openssl(program, address)
    try:
        return _with_cryptography(address)
    except ModuleNotFoundError as error:
        raise missing_extra("a page for the network", "cryptography", "browser") from error


def _with_openssl(program: str, address: str) -> Certificate:
    with tempfile.TemporaryDirectory() as folder:
        key, pem = Path(folder) / "key.pem", Path(folder) / "certificate.pem"
        argv = [
            program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-sha256", "-days", str(DAYS), "-subj", f"/CN={NAME}",
            "-addext", f"subjectAltName=IP:{address}", "-addext", "extendedKeyUsage=serverAuth",
            "-keyout", str(key), "-out", str(pem),
        ]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise EdgeSSLError(
                f"openssl made no certificate: {done.stderr.strip()[-200:]}",
                hint="use adb instead (--address adb), or a newer openssl",
            )
        return Certificate(pem.read_bytes(), key.read_bytes())


def _with_cryptography(address: str) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(host, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    return Certificate(made.public_bytes(encoding), key.private_bytes(encoding, form, plain))
