"""A filter of system calls, as the kernel reads it: what no generated program needs and a hostile one might use.

Limits of memory and processes are the reason for most of it: a program is one process, so that its limits are the
sandbox's, and memory that no limit of a process counts (shared memory, memory files) can't be had.
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
_CLONE_THREAD = 0x00010000
_OTHER_ABI = 0x40000000

_NEW_PROCESS = {
    "x86_64": (57, 58),  # fork, vfork
    "aarch64": (),
}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_REFUSED = {
    # ptrace, mount, umount2, pivot_root, chroot, unshare, setns, bpf, perf_event_open, keyctl, add_key, request_key,
    # userfaultfd, process_vm_readv, process_vm_writev, open_by_handle_at, kexec_load, init_module, finit_module,
    # delete_module, memfd_create, shmget, semget, msgget
    "x86_64": (
        *(101, 165, 166, 155, 161, 272, 308, 321, 298, 250, 248, 249),
        *(323, 310, 311, 304, 246, 175, 313, 176, 319, 29, 64, 68),
    ),
    "aarch64": (
        *(117, 40, 39, 41, 51, 97, 268, 280, 241, 219, 217, 218),
        *(282, 270, 271, 265, 104, 105, 273, 106, 279, 194, 190, 186),
    ),
}
_REFUSED_EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 442, 447)
"""io_uring_*, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr, memfd_secret."""
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def known_machine() -> bool:
    """Whether the system calls of this machine are known here."""
    return platform.machine() in _AUDIT


def program_filter(*, processes: bool) -> bytes:
    """The filter for this machine; ``processes``: new ones are allowed (threads always are)."""
    machine = platform.machine()
    refused = [*_REFUSED[machine], *_REFUSED_EVERYWHERE]
    code = [
        _step(_LOAD, _MACHINE),
        _step(_JUMP_EQUAL, _AUDIT[machine], 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_JUMP_AT_LEAST, _OTHER_ABI, 0, 1),
        _step(_RETURN, _ERROR | errno.EPERM),
    ]
    for number in refused if processes else [*refused, *_NEW_PROCESS[machine]]:
        code += [_step(_JUMP_EQUAL, number, 0, 1), _step(_RETURN, _ERROR | errno.EPERM)]
    if not processes:
        # The flags of clone3 lie in memory, where a filter can't look: without it, callers fall back to clone.
        code += [_step(_JUMP_EQUAL, _CLONE3, 0, 1), _step(_RETURN, _ERROR | errno.ENOSYS)]
        code += [
            _step(_JUMP_EQUAL, _CLONE[machine], 0, 3),
            _step(_LOAD, _FIRST_ARGUMENT),
            _step(_JUMP_ANY_BIT, _CLONE_THREAD, 1, 0),
            _step(_RETURN, _ERROR | errno.EPERM),
        ]
    code.append(_step(_RETURN, _ALLOW))
    return b"".join(code)


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)
