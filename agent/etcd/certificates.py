"""Certificates for etcd: whether their files changed or can be used, and when they expire."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from agent.settings import EtcdSettings

__all__ = [
    "SYSTEM_CA",
    "Certificate",
    "file_stamps",
    "own_certificates",
    "served_certificate",
    "tls_context",
    "unusable_files",
]

SYSTEM_CA = Path("/etc/ssl/certs/ca-certificates.crt")

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17
_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its last moment.

    Attributes:
        name: Its file, or the endpoint that presents it.
        role: "client", "ca" or "server".
        not_after_s: Seconds since 1970.
    """

    name: str
    role: str
    not_after_s: float

    @property
    def not_after(self) -> str:
        """Its last moment, for people."""
        return f"{datetime.fromtimestamp(self.not_after_s, UTC):%Y-%m-%d %H:%M} UTC"


def file_stamps(settings: EtcdSettings) -> tuple[tuple[int, int, int] | None, ...]:
    """Return what changes when a certificate or key file is replaced or written; no content."""
    found = []
    for path in (settings.ca_file, settings.cert_file, settings.key_file):
        try:
            status = path.stat() if path else None
        except OSError:
            status = None
        found.append((status.st_ino, status.st_mtime_ns, status.st_size) if status else None)
    return tuple(found)


def tls_context(settings: EtcdSettings) -> ssl.SSLContext:
    """Make a context with the CA and this host's certificate.

    Raises:
        OSError: A file cannot be read or used, or the key is another certificate's.
    """
    context = ssl.create_default_context(cafile=str(settings.ca_file or SYSTEM_CA))
    if settings.cert_file and settings.key_file:
        # A key with a passphrase is refused; without a password OpenSSL asks at the terminal.
        context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    return context


def unusable_files(settings: EtcdSettings) -> str:
    """Return why the files cannot be used, "" when they can: half-copied, or not a pair."""
    try:
        tls_context(settings)
    except OSError as error:
        files = filter(None, (settings.ca_file, settings.cert_file, settings.key_file))
        return f"{', '.join(str(each) for each in files)}: {error.strerror or error}"
    return ""


def own_certificates(settings: EtcdSettings) -> tuple[Certificate, ...]:
    """Read the client's and the CA's; of several in a file the first to expire."""
    found = []
    for role, path in (("client", settings.cert_file), ("ca", settings.ca_file)):
        try:
            ends = tuple(_not_after_s(each) for each in _in_file(path)) if path else ()
        except (OSError, ValueError):
            continue  # unusable_files says so
        if ends:
            found.append(Certificate(str(path), role, min(ends)))
    return tuple(found)


def served_certificate(endpoint: str, settings: EtcdSettings) -> Certificate:
    """Ask an https endpoint for its certificate.

    Raises:
        OSError: It does not answer, or its certificate is refused.
        ValueError: The certificate has no date, or the host's name no encoding.
    """
    url = urlsplit(endpoint)
    host, port = url.hostname or "", url.port or 2379
    with (
        socket.create_connection((host, port), timeout=_TIMEOUT_S) as plain,
        tls_context(settings).wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        found = wrapped.getpeercert(binary_form=True)
    return Certificate(endpoint, "server", _not_after_s(found or b""))


def _in_file(path: Path) -> Iterator[bytes]:
    for match in _PEM.finditer(path.read_bytes()):
        yield ssl.PEM_cert_to_DER_cert(match[0].decode("ascii"))


def _not_after_s(der: bytes) -> float:
    """Read notAfter of an X.509 certificate (RFC 5280, 4.1), which Python's ssl does for CAs only.

    Raises:
        ValueError: It is not one.
    """
    _, certificate, _ = _element(der)
    _, signed, _ = _element(certificate)
    tag, _, rest = _element(signed)
    for _ in range(3 if tag == _VERSION else 2):  # serial number, signature's algorithm, issuer
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, rest = _element(validity)
    tag, moment, _ = _element(rest)
    text = moment.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "5" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Split one element of DER off: its tag, its content, and what follows."""
    if len(data) < 2:  # noqa: PLR2004 - a tag and a length
        raise ValueError("the certificate ends early")
    length, start = data[1], 2
    if length & 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("the certificate ends early")
    return data[0], data[start : start + length], data[start + length :]
