"""A kernel that refuses system calls as parallel and network file systems do: by seccomp, for one thread or command.

usage: python tests/refusing.py CALL=ERROR,CALL=ERROR... COMMAND [ARGUMENT...]
"""

import ctypes
import errno
import mmap
import os
import platform
import struct
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")

# On x86_64, and on aarch64, which lacks some of the old ones.
_NUMBERS = {
    "access": (21, None),
    "chmod": (90, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fdatasync": (75, 83),
    "flock": (73, 32),
    "ftruncate": (77, 46),
    "fsync": (74, 82),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mmap": (9, 222),
    "openat": (257, 56),
    "pwrite64": (18, 68),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "write": (1, 64),
    "writev": (20, 66),
}
ACCESS = ("access", "faccessat", "faccessat2")
RENAME = ("rename", "renameat", "renameat2")
WRITE = ("write", "writev", "pwrite64", "ftruncate")
MKDIR = ("mkdir", "mkdirat")
CHMOD = ("chmod", "fchmod", "fchmodat", "fchmodat2")

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_O_TMPFILE = 0o20000000


class _Flags(NamedTuple):
    """Refuse a call only if one of the `bits` of its `argument` is set, or none is."""

    argument: int
    bits: int
    refused_if_set: bool


_WHEN = {
    # All memory is mapped, but only of a file does a file system know; and only what makes a file writes.
    "mmap": _Flags(3, mmap.MAP_ANONYMOUS, refused_if_set=False),
    "openat": _Flags(2, os.O_CREAT | _O_TMPFILE, refused_if_set=True),
}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def refuse(errors: Mapping[str, int]) -> None:
    """Have the kernel refuse these calls of this thread, and of what it starts, for good.

    Raises:
        OSError: this system has no seccomp.
    """
    instructions = []
    machine = ("x86_64", "aarch64").index(platform.machine())
    for call, code in errors.items():
        number = _NUMBERS[call][machine]
        if number is None:
            continue
        answer = [(_RETURN, 0, 0, _ERRNO | code)]
        if call in _WHEN:
            when = _WHEN[call]
            skip = (0, 1) if when.refused_if_set else (1, 0)
            answer = [(_LOAD, 0, 0, 16 + 8 * when.argument), (_ANY_BIT, *skip, when.bits), *answer]
        instructions += [(_LOAD, 0, 0, 0), (_EQUAL, 0, len(answer), number), *answer]
    instructions.append((_RETURN, 0, 0, _ALLOW))
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    program = ctypes.byref(_Program(len(instructions), packed))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program):
        raise OSError(ctypes.get_errno(), "no seccomp here")


def refusing(errors: Mapping[str, int], function: Callable[[], _T]) -> _T:
    """Call `function` in a thread whose calls are refused."""

    def run() -> _T:
        refuse(errors)
        return function()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


if __name__ == "__main__":
    named = (word.split("=") for word in sys.argv[1].split(","))
    refuse({call: getattr(errno, name) for call, name in named})
    os.execvp(sys.argv[2], sys.argv[2:])
