"""Parse the options that the Makefile passes. Standard library only."""

import argparse
from typing import NoReturn

from fmnist.errors import BadInput


class Parser(argparse.ArgumentParser):
    """A parser for which a wrong option is bad input like any other, in place of a usage message and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            BadInput: always.
        """
        raise BadInput(message.removeprefix("argument "))
