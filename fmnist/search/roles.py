"""Who this process is in a distributed search, and where the chief is: Keras Tuner's environment variables, and ours.

KERASTUNER_TUNER_ID       the process's id; the chief's contains "chief"
KERASTUNER_ORACLE_IP      the chief: the address to listen on [127.0.0.1]; a worker: where the chief is
KERASTUNER_ORACLE_PORT    [the chief takes a free one, and says in the run folder where it is; workers look there]
FMNIST_TOKEN              the secret that chief and workers share; or
FMNIST_TOKEN_FILE         a file that holds it
FMNIST_TLS_CERTIFICATE    a PEM file; with it the chief serves TLS, and workers trust this certificate alone
FMNIST_TLS_KEY            the chief: the certificate's private key, a PEM file
"""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fmnist import records
from fmnist.errors import BadInput
from fmnist.files import write_json
from fmnist.rundir import RunDir


@dataclass(frozen=True)
class Role:
    """One process of a distributed search.

    Attributes:
        host: as the environment gives it; None for the default.
        port: likewise.
        certificate, key: PEM.
    """

    id: str
    host: str | None = None
    port: int | None = None
    token: str | None = field(default=None, repr=False)
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)

    @property
    def is_chief(self) -> bool:
        """Keras Tuner's rule."""
        return "chief" in self.id


def from_environment(environment: Mapping[str, str] = os.environ) -> Role | None:
    """This process's role; None if it is no part of a distributed search.

    Raises:
        BadInput: a variable's value makes no sense, or a file that it names cannot be read.
    """
    identity = environment.get("KERASTUNER_TUNER_ID")
    if not identity:
        return None
    if not (identity.isascii() and identity.isprintable()):
        raise BadInput(f"KERASTUNER_TUNER_ID={identity!r} cannot be sent; use ASCII letters and digits")
    port = environment.get("KERASTUNER_ORACLE_PORT")
    if port and not (port.isdecimal() and int(port) < 2**16):
        raise BadInput(f"KERASTUNER_ORACLE_PORT={port} is no port")
    token, certificate, key = (
        _read(environment, name) for name in ("FMNIST_TOKEN_FILE", "FMNIST_TLS_CERTIFICATE", "FMNIST_TLS_KEY")
    )
    if token is not None and not (token.strip() and token.isascii()):
        raise BadInput(f"FMNIST_TOKEN_FILE={environment['FMNIST_TOKEN_FILE']} holds no token")
    if not environment.get("FMNIST_TOKEN", "").isascii():
        raise BadInput("FMNIST_TOKEN cannot be sent; use ASCII characters")
    if certificate and not key and "chief" in identity:
        # Without it the chief would serve in the clear.
        raise BadInput("FMNIST_TLS_CERTIFICATE is set, but not FMNIST_TLS_KEY: the chief needs both")
    return Role(
        id=identity,
        host=environment.get("KERASTUNER_ORACLE_IP") or None,
        port=int(port) if port else None,
        token=token.decode().strip() if token else environment.get("FMNIST_TOKEN") or None,
        certificate=certificate,
        key=key,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def join(host: str, port: int) -> str:
    """The `host:port` of gRPC and of URLs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class Notice:
    """What the chief tells, in the run folder, those that look for it.

    Attributes:
        address: where it listens; None after the end of the search.
        trials: how many trials the search that it serves, or has ended, may have.
    """

    address: str | None
    trials: int

    def write(self, run: RunDir) -> None:
        """Replace the notice of `run`."""
        write_json(run.chief, {"address": self.address, "trials": self.trials})


def read_notice(run: RunDir) -> Notice | None:
    """The notice in the run folder; None if there is none, or none that can be read."""
    try:
        found = records.read(run.chief, records.Notice)
        return Notice(found["address"], found["trials"])
    except BadInput:
        return None


def _read(environment: Mapping[str, str], variable: str) -> bytes | None:
    path = environment.get(variable)
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{variable}={path} cannot be read: {error.strerror}") from error
