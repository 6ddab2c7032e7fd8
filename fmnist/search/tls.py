"""Check TLS certificates and keys before a call, and find out why TLS fails at an address."""

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator

from fmnist.errors import BadInput

_PROBE_SECONDS = 2.0


def check_pair(certificate: bytes, key: bytes) -> None:
    """Check the certificate and the private key of the chief.

    Raises:
        BadInput: one is not PEM, the key has a passphrase, they do not belong together, or the certificate has expired.
    """
    check_trusted(certificate)

    def no_passphrase() -> str:
        raise BadInput("FMNIST_TLS_KEY has a passphrase, which nobody is here to give: use a key without one")

    with _file(certificate) as certificate_path, _file(key) as key_path:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate_path, key_path, no_passphrase)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or "no PEM"
            raise BadInput(
                f"FMNIST_TLS_KEY is not the private key of FMNIST_TLS_CERTIFICATE, as PEM ({_plain(reason)})"
            ) from error


def check_trusted(certificate: bytes) -> None:
    """Check the certificate that a worker trusts.

    Raises:
        BadInput: it is not a PEM certificate, or has expired.
    """
    for known in _trusting(certificate).get_ca_certs():
        ends = known.get("notAfter")
        if isinstance(ends, str) and ssl.cert_time_to_seconds(ends) < time.time():
            raise BadInput(f"FMNIST_TLS_CERTIFICATE was valid until {ends}: make a new one")


def objection(host: str, port: int, certificate: bytes | None) -> str | None:
    """Return why TLS fails with the process at an address; None if no reason is known, or if nothing listens there."""
    context = _trusting(certificate or b"") if certificate else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not certificate:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), _PROBE_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return None if certificate else "it speaks TLS; set FMNIST_TLS_CERTIFICATE"
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not the one of FMNIST_TLS_CERTIFICATE ({error.verify_message})"
    except ssl.SSLError as error:
        if not certificate or error.reason not in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return None
        return "it speaks no TLS, which FMNIST_TLS_CERTIFICATE asks for"
    except (OSError, ValueError):
        return None


def _trusting(certificate: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN if hasattr(ssl, "VERIFY_X509_PARTIAL_CHAIN") else 0
    try:
        context.load_verify_locations(cadata=certificate.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise BadInput("FMNIST_TLS_CERTIFICATE holds no certificate in PEM") from error
    return context


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Yield a path to content in memory, for a library that only reads files: a key must not be written to a disk."""
    handle = os.memfd_create("pem")
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _plain(reason: str) -> str:
    return reason.replace("_", " ").lower()
