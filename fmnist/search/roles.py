"""Read a process's role in a distributed search from the environment variables of Keras Tuner and of this package.

KERASTUNER_TUNER_ID       the process's id; the chief's contains "chief"
KERASTUNER_ORACLE_IP      the chief: the address to listen on [127.0.0.1]; a worker: the chief's address
KERASTUNER_ORACLE_PORT    [the chief takes a free port, and writes its address into the run folder for the workers]
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

EVERYWHERE = ("0.0.0.0", "::")
"""The addresses by which a chief listens on all of its machine's."""
ID_CHARACTERS = 128

_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A DNS name. A name whose last label is a number is a misspelt address.
_HOST = re.compile(rf"(?=.{{1,253}}\Z)({_LABEL}\.)*(?![0-9]+\.?\Z){_LABEL}\.?")

_MOST = 2**20  # bytes of a token or a certificate


@dataclass(frozen=True)
class Role:
    """One process of a distributed search.

    Attributes:
        host, port: values of the environment; None for the default.
        token: the secret that chief and workers share; None without one.
        certificate, key: contents of the PEM files.

    Raises:
        BadInput: a value cannot work in any search.
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
                # Without the key the chief would serve unencrypted.
                raise BadInput("FMNIST_TLS_CERTIFICATE is set, but not FMNIST_TLS_KEY: the chief needs both")
            tls.check_pair(self.certificate, self.key)
        elif self.certificate is not None:
            tls.check_trusted(self.certificate)

    @property
    def is_chief(self) -> bool:
        """Whether the process is the chief, by Keras Tuner's rule for ids."""
        return "chief" in self.id


def from_environment(environment: Mapping[str, str] = os.environ) -> Role | None:
    """Return this process's role; None if it is not part of a distributed search.

    Raises:
        BadInput: a variable has an invalid value, or a file that it names cannot be read.
    """
    identity = environment.get("KERASTUNER_TUNER_ID")
    if not identity:
        return None
    for variable in ("FMNIST_TOKEN", "FMNIST_TOKEN_FILE", "FMNIST_TLS_CERTIFICATE", "FMNIST_TLS_KEY"):
        if environment.get(variable) == "":
            # A person who sets it wants a secured search, and must not get an open one.
            raise BadInput(f"{variable} is set, but empty: give it its value, or unset it")
    port = environment.get("KERASTUNER_ORACLE_PORT")
    if port and not (re.fullmatch("[0-9]{1,5}", port) and int(port) < 2**16):
        raise BadInput(f"KERASTUNER_ORACLE_PORT={port} is no port")
    secret, certificate, key = (
        _read(environment, name) for name in ("FMNIST_TOKEN_FILE", "FMNIST_TLS_CERTIFICATE", "FMNIST_TLS_KEY")
    )
    if secret is not None and not secret.strip():
        raise BadInput(f"FMNIST_TOKEN_FILE={environment['FMNIST_TOKEN_FILE']} holds no token")
    # `Role` refuses a token that is not ASCII.
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
    """Tell whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_visible(text: str) -> bool:
    return re.fullmatch("[!-~]+", text) is not None


def _is_host(host: str) -> bool:
    """Tell whether `host` has the form of a host's name or address."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return _HOST.fullmatch(host) is not None


def join(host: str, port: int) -> str:
    """Join `host:port`, as in gRPC and URLs; an IPv6 address is put in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class Notice:
    """The notice that the chief writes into the run folder for processes that look for it.

    Attributes:
        address: address on which the chief listens; None after the end of the search.
        trials: greatest number of trials of the search.
    """

    address: str | None
    trials: int

    def write(self, run: RunDir) -> None:
        """Write the notice of `run`, in place of an earlier one."""
        write_json(run.chief, {"address": self.address, "trials": self.trials})


def read_notice(run: RunDir) -> Notice | None:
    """Read the notice in the run folder; return None if there is none, or if it cannot be read."""
    try:
        found = records.read(run.chief, records.Notice)
    except BadInput:
        return None
    address = found["address"]
    is_one = address is None or re.fullmatch(".+:[0-9]{1,5}", address)
    return Notice(address, found["trials"]) if is_one else None


def _read(environment: Mapping[str, str], variable: str) -> bytes | None:
    path = environment.get(variable)
    if not path:
        return None
    try:
        return read_bytes(Path(path), _MOST)
    except OSError as error:
        raise BadInput(f"{variable}={path} cannot be read: {error.strerror}") from error
