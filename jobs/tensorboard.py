"""TensorBoard over all runs: `make tensorboard`. It says what to open, once it is sure that the port is free.

usage: python -m jobs.tensorboard --port PORT FOLDER
"""

import argparse
import logging
import os
import socket
import sys

from fmnist.errors import EXIT_BAD_INPUT, BadInput
from fmnist.files import expand_home
from fmnist.text import escaped

logger = logging.getLogger(__name__)


def announce(port: str) -> None:
    """Say where TensorBoard is going to answer.

    Its pages tick runs of their own accord only where they are few, which those of final trainings are.

    Raises:
        BadInput: `port` is no port, or not free.
    """
    number = int(port) if port.isdecimal() else 0
    if not 0 < number < 2**16:
        raise BadInput(f"PORT={port} is no port; name one from 1024 to 65535")
    with socket.socket() as free:
        # Not taken is also what a server that has just ended still holds.
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind(("127.0.0.1", number))
        except OSError as error:
            another = "make tensorboard PORT=6007" if number == 6006 else "make tensorboard PORT=..."
            raise BadInput(f"port {number} is not free ({error.strerror}); name another: {another}") from error
    logger.info("final trainings: http://localhost:%d/#scalars&regexInput=final", number)
    logger.info("trials:          http://localhost:%d/#hparams", number)


def main() -> None:
    """Become TensorBoard."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="jobs.tensorboard", allow_abbrev=False)
    parser.add_argument("--port", required=True)
    parser.add_argument("folder")
    options = parser.parse_args(expand_home(sys.argv[1:]))
    try:
        announce(options.port)
    except BadInput as error:
        print(f"fmnist: {escaped(str(error))}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    command = ["-m", "tensorboard.main", "--host=localhost", f"--port={options.port}", "--logdir", options.folder]
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
