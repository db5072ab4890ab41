"""A certificate authority for one test, and a server's certificate of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Authority:
    """Files of an authority and of a certificate for 127.0.0.1 that it signed."""

    ca_file: Path
    certificate_file: Path
    key_file: Path

    @property
    def server_settings(self) -> dict[str, str]:
        """What a server is told of them."""
        return {
            "tls-cert-file": str(self.certificate_file),
            "tls-key-file": str(self.key_file),
            "tls-ca-cert-file": str(self.ca_file),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
            "tls-cluster": "yes",
        }


def make_authority(directory: Path) -> Authority:
    """A new authority with its files in the directory."""
    import trustme  # it takes 100 ms to load

    made = Authority(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1", "localhost")
    ca.cert_pem.write_to_path(str(made.ca_file))
    certificate.private_key_pem.write_to_path(str(made.key_file))
    certificate.cert_chain_pems[0].write_to_path(str(made.certificate_file))
    return made
