"""Execs a command that dies with its parent, if asked to as another user. Runs by path: the standard library only.

`LEASH_PARENT=12 python -I -S leash.py '{"signal": 9, "uid": 0, ...}' COMMAND...` does what `preexec_fn` would do, yet
in a process without threads and in the one order the kernel allows: a change of user forgets the parent-death signal.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

PR_SET_PDEATHSIG, PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 28, 47, 2
SECBIT_NO_SETUID_FIXUP = 4
CAPABILITY_VERSION_3 = 0x20080522


def main() -> None:
    """Drops to `uid`:`gid` (keeping `capability` alone, if given), ties itself to LEASH_PARENT, becomes the command."""
    wish = json.loads(sys.argv[1])
    parent = os.environ.pop("LEASH_PARENT", "")
    libc = ctypes.CDLL(None, use_errno=True)
    if wish.get("uid") is not None:
        become(libc, wish["uid"], wish["gid"], capability=wish.get("capability"))
    if sys.platform == "linux" and wish.get("signal") is not None:
        check(libc.prctl(PR_SET_PDEATHSIG, wish["signal"], 0, 0, 0), "prctl")
        if str(os.getppid()) != parent:  # it died before the call above: nobody would ever signal us
            sys.exit(1)
    if wish.get("cwd") is not None:
        os.chdir(wish["cwd"])
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606


def become(libc: ctypes.CDLL, uid: int, gid: int, *, capability: int | None) -> None:
    """Changes the user for good. With a capability, it alone survives, also over exec (ambient)."""
    if capability is not None:  # without this bit, access(2) forgets the capability, and initdb asks it for `postgres`
        check(libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "prctl")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if capability is not None:
        low, high = (1 << capability) & 0xFFFFFFFF, (1 << capability) >> 32
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)
        check(libc.capset(header, sets), "capset")
        check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0), "prctl")


def check(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


if __name__ == "__main__":
    main()
