"""Tokens for tests, with a real key and certificate."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from agent.model import HostId
from agent.settings.join_token import JoinToken
from tests.etcd.support.pki import issue, openssl

NOW_S = 1_900_000_000
ID = HostId("0123456789abcdef" * 2)


@functools.cache
def certificates() -> dict[str, str]:
    """Return a CA, and the key and certificate of one host."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl(
            folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca"
        )
        issue(folder, "host", "ca")
        files = {"ca_file": "ca.crt", "cert_file": "host.crt", "key_file": "host.key"}
        return {key: (folder / file).read_text() for key, file in files.items()}


def token(**changes: Any) -> JoinToken:  # noqa: ANN401 - the fields of JoinToken
    """Return a token that is good for an hour before and after NOW_S."""
    fields: dict[str, Any] = {
        "host": "web7",
        "host_id": ID,
        "created_s": NOW_S - 3600,
        "expires_s": NOW_S + 3600,
        "endpoints": ("https://192.0.2.1:2379", "https://192.0.2.2:2379"),
        "prefix": "/hostmesh",
        "files": certificates(),
    }
    return JoinToken(**{**fields, **changes})
