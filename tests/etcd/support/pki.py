"""Certificates for tests, of any validity."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in a folder."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def issue(folder: Path, name: str, authority: str, *dates: str) -> None:
    """Make NAME.key and NAME.crt for 127.0.0.1, signed by AUTHORITY.key.

    Args:
        folder: Where all of them are.
        name: Of the files, and the certificate's common name.
        authority: Likewise.
        dates: As `openssl ca` takes them: "-not_before", DATE, "-not_after", DATE.
    """
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl(
        folder,
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"),
    )
    if not dates:
        openssl(
            folder,
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.crt"),
            *("-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "1"),
            *("-extfile", "ext", "-out", f"{name}.crt"),
        )
        return
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n"
        "default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n"
    )
    (folder / "index").write_text("")
    (folder / "serial").write_text("77\n")
    openssl(
        folder,
        *("ca", "-batch", "-config", "ca.conf", "-cert", f"{authority}.crt"),
        *("-keyfile", f"{authority}.key", "-in", f"{name}.csr", "-out", f"{name}.crt"),
        *("-extfile", "ext", "-startdate", dates[1], "-enddate", dates[3], "-notext"),
    )
