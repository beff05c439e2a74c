"""The system calls that a command is refused, as a program for Linux' filter (seccomp, classic BPF)."""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple


class _Machine(NamedTuple):
    audit: int  # its number in <linux/audit.h>
    column: int  # of the table below


MACHINES = {"x86_64": _Machine(0xC000003E, 0), "aarch64": _Machine(0xC00000B7, 1)}

# Name -> numbers on x86_64 and aarch64; one number where all machines have the same.
_REFUSED: dict[str, tuple[int, ...]] = {
    # other processes: process 1 of the box is bubblewrap
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
    **{"pidfd_getfd": (438,)},
    # mounts and name spaces; clone is looked at more closely below
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "setns": (308, 268)},
    **{"unshare": (272, 97), "open_tree": (428,), "move_mount": (429,), "fsopen": (430,), "fsconfig": (431,)},
    **{"fsmount": (432,), "fspick": (433,), "mount_setattr": (442,), "open_tree_attr": (467,)},
    # the kernel's larger surfaces
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219)},
    **{"add_key": (248, 217), "request_key": (249, 218), "syslog": (103, 116), "quotactl": (179, 60)},
    **{"kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105)},
    **{"finit_module": (313, 273), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265)},
}
# Said to be unknown to this kernel, so that a library does without: what could go past the filter (clone3, io_uring)
# and memory that neither the processes' own size nor the box's disk would show.
_UNKNOWN: dict[str, tuple[int, ...]] = {
    **{"clone3": (435,), "io_uring_setup": (425,), "io_uring_enter": (426,), "io_uring_register": (427,)},
    **{"memfd_create": (319, 279), "memfd_secret": (447,), "shmget": (29, 194)},
}
_CLONE, _SOCKET = (56, 220), (41, 198)
_NEW_SPACES = 0x7E020000  # CLONE_NEWNS, CLONE_NEWCGROUP, ... CLONE_NEWNET
# AF_UNIX; AF_INET, AF_INET6 and AF_NETLINK, which see the box's own network only. AF_VSOCK knows no such limit.
_LOCAL, _NETWORK = (1,), (1, 2, 10, 16)

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # in struct seccomp_data, on machines of little endian


def program(machine: str, network: bool) -> bytes:
    """The filter for a machine (``os.uname().machine``), with sockets for a network of the box's own, or without."""
    audit, column = MACHINES[machine]
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        lines += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]  # the x32 calls
    for table, error in ((_REFUSED, errno.EPERM), (_UNKNOWN, errno.ENOSYS)):
        for numbers in table.values():
            lines += [(_EQUAL, 0, 1, numbers[column % len(numbers)]), (_RETURN, 0, 0, _ERRNO | error)]
    lines += [
        (_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _NEW_SPACES),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    families = _NETWORK if network else _LOCAL
    lines += [(_EQUAL, 0, len(families) + 2, _SOCKET[column]), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    lines += [(_EQUAL, len(families) - number, 0, family) for number, family in enumerate(families)]
    lines += [(_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
