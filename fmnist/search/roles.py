"""Who this process is in a distributed search, and where the chief is: Keras Tuner's environment variables, and ours.

KERASTUNER_TUNER_ID       the process's id; the chief's contains "chief"
KERASTUNER_ORACLE_IP      the chief: the address to listen on [127.0.0.1]; a worker: where the chief is
KERASTUNER_ORACLE_PORT    [the chief takes a free one, and says in the run folder where it is; workers look there]
FMNIST_TOKEN              the secret that chief and workers share, which is never sent; or
FMNIST_TOKEN_FILE         a file that holds it
FMNIST_TLS_CERTIFICATE    a PEM file; with it the chief serves TLS, and workers trust this certificate alone
FMNIST_TLS_KEY            the chief: the certificate's private key, a PEM file
"""

import contextlib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fmnist.errors import BadInput
from fmnist.files import read_bytes, write_json
from fmnist.run import records
from fmnist.run.folder import RunDir
from fmnist.search import tls

ID_CHARACTERS = 128

_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A DNS name; one whose last label is a number could only be a misspelt address.
_HOST = re.compile(rf"(?=.{{1,253}}\Z)({_LABEL}\.)*(?![0-9]+\.?\Z){_LABEL}\.?")

_MOST = 2**20  # bytes of a token or a certificate


@dataclass(frozen=True)
class Role:
    """One process of a distributed search.

    Attributes:
        host: as the environment gives it; None for the default.
        port: likewise.
        certificate, key: PEM.

    Raises:
        BadInput: a value that cannot work, whoever answers.
    """

    id: str
    host: str | None = None
    port: int | None = None
    token: str | None = field(default=None, repr=False)
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (_is_visible(self.id.replace(" ", "-")) and self.id == self.id.strip()):
            raise BadInput(f"KERASTUNER_TUNER_ID={self.id!r} cannot be sent; use ASCII letters and digits")
        if len(self.id) > ID_CHARACTERS:
            raise BadInput(f"KERASTUNER_TUNER_ID has {len(self.id)} characters, more than {ID_CHARACTERS}")
        if self.host is not None and not _is_host(self.host):
            raise BadInput(f"KERASTUNER_ORACLE_IP={self.host!r} is neither an IP address nor a host's name")
        if self.token is not None and not _is_visible(self.token):
            raise BadInput("the token (FMNIST_TOKEN_FILE or FMNIST_TOKEN) is not one line of ASCII without blanks")
        if self.key is not None and self.certificate is None:
            raise BadInput("FMNIST_TLS_KEY is set, but not FMNIST_TLS_CERTIFICATE: TLS needs it")
        if self.certificate is not None and self.is_chief:
            if self.key is None:
                # Without it the chief would serve in the clear.
                raise BadInput("FMNIST_TLS_CERTIFICATE is set, but not FMNIST_TLS_KEY: the chief needs both")
            tls.check_pair(self.certificate, self.key)
        elif self.certificate is not None:
            tls.check_trusted(self.certificate)

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
    for variable in ("FMNIST_TOKEN", "FMNIST_TOKEN_FILE", "FMNIST_TLS_CERTIFICATE", "FMNIST_TLS_KEY"):
        if environment.get(variable) == "":
            # Somebody wanted to be safe, and is not.
            raise BadInput(f"{variable} is set, but empty: give it its value, or unset it")
    port = environment.get("KERASTUNER_ORACLE_PORT")
    if port and not (re.fullmatch("[0-9]{1,5}", port) and int(port) < 2**16):
        raise BadInput(f"KERASTUNER_ORACLE_PORT={port} is no port")
    secret, certificate, key = (
        _read(environment, name) for name in ("FMNIST_TOKEN_FILE", "FMNIST_TLS_CERTIFICATE", "FMNIST_TLS_KEY")
    )
    if secret is not None and not secret.strip():
        raise BadInput(f"FMNIST_TOKEN_FILE={environment['FMNIST_TOKEN_FILE']} holds no token")
    # What is no ASCII is refused below.
    token = environment.get("FMNIST_TOKEN") if secret is None else secret.decode(errors="replace").strip()
    return Role(
        id=identity,
        host=environment.get("KERASTUNER_ORACLE_IP") or None,
        port=int(port) if port else None,
        token=token,
        certificate=certificate,
        key=key,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_visible(text: str) -> bool:
    return re.fullmatch("[!-~]+", text) is not None


def _is_host(host: str) -> bool:
    """Whether `host` may be one's name or address, by its form."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return _HOST.fullmatch(host) is not None


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
        return read_bytes(Path(path), _MOST)
    except OSError as error:
        raise BadInput(f"{variable}={path} cannot be read: {error.strerror}") from error
