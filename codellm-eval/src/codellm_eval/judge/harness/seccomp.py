"""Which system calls a program may make, as a BPF program for the kernel's seccomp.

Written out here because no library fits: pyseccomp had its last release in January 2021 and needs libseccomp installed,
and the interpreter that installs the filter has no site-packages. Call numbers are those of Linux 6.1's
`asm/unistd_64.h` and `asm-generic/unistd.h`; the instructions and the layout of the data are in
Documentation/userspace-api/seccomp_filter.rst and `linux/bpf_common.h`.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Iterable

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_NEWEST = 451
"""Calls that are younger than this list are refused as if the kernel did not have them."""

# name: number on x86_64 and on aarch64; -1 where there is no such call
_DENIED: dict[str, tuple[int, int]] = {
    # into other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # large or rarely tried parts of the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "fanotify_init": (300, 262),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "personality": (135, 92),
    "mbind": (237, 235), "set_mempolicy": (238, 237), "set_mempolicy_home_node": (450, 450),
    # memory that no limit of a process counts
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "mq_unlink": (241, 181), "io_setup": (206, 0), "vmsplice": (278, 75),
    # what slows the files of others down, or tells of them
    "inotify_init": (253, -1), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
    # the machine itself
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58), "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18), "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1),
}  # fmt: skip
_DENIED_ALONE: dict[str, tuple[int, int]] = {
    # Without namespaces the program shares files, users and process ids with the machine: Landlock says nothing about
    # modes, owners and times of files that the user owns, nor about who may start programs.
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281), "socket": (41, 198),
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, -1), "fchown": (93, 55),
    "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "setpriority": (141, 140), "ioprio_set": (251, 30), "tkill": (200, 130),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    # A message may carry an open file, which then counts nowhere.
    "sendmsg": (46, 211), "sendmmsg": (307, 269),
}  # fmt: skip
_IGNORED = {"sync": (162, 81), "syncfs": (306, 267)}
"""Calls that do as if they had worked: they hold up whoever uses the disk, and here nothing has to last."""
_FALLOCATE = (285, 47)
"""Takes space faster than anybody looks; libc writes instead where a file system does not know it."""
_CLONE, _CLONE3, _PRLIMIT, _SOCKET, _SOCKETPAIR = (56, 220), (435, 435), (302, 261), (41, 198), (53, 199)
_KILLS = {"kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240)}
_FCNTL, _IOCTL, _PRCTL, _BIND, _SETSOCKOPT = (72, 25), (16, 29), (157, 167), (49, 200), (54, 208)

_NAMESPACES = 0x7E020000
"""CLONE_NEW* of clone's flags."""
_THREAD, _SHARE_FILES = 0x00010000, 0x00000400
"""CLONE_THREAD, and CLONE_FILES: a thread with descriptors of its own would have as many again."""
_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6."""
_HOLDS = (1024, 1026)
"""F_SETLEASE, by which whoever opens the file waits for the program, and F_NOTIFY."""
_BUFFERS = (7, 8, 32, 33)
"""SO_SNDBUF, SO_RCVBUF and their forms with FORCE: memory of the kernel that no limit of a process counts."""
_SOL_SOCKET = 1
_OWNERS = (8, 15)
"""F_SETOWN and F_SETOWN_EX, by which the kernel sends signals to anyone in the program's name."""
_OWNER_IOCTLS = (0x8901, 0x8902)
"""FIOSETOWN and SIOCSPGRP, likewise."""

_SET_PDEATHSIG = 1
"""PR_SET_PDEATHSIG: the program may not outlive the server."""

_MMAP, _MAP_SHARED = (9, 222), 1
"""MAP_SHARED is the lowest bit of the flags, also of MAP_SHARED_VALIDATE."""
_ALLOW, _ASK, _KILL = 0x7FFF0000, 0x7FC00000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether the filter is written for this processor."""
    return platform.machine() in _ARCHITECTURES


def program(*, alone: bool = False) -> bytes:
    """The filter as an array of `struct sock_filter`.

    `alone` is for a process without namespaces of its own: it may not start others, open sockets or send signals to
    anyone but the calling process.
    """
    audit, column = _ARCHITECTURES[platform.machine()]
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _NEWEST + 1), (_RETURN, 0, 0, _fail(errno.ENOSYS)),
        *_when(_CLONE3[column], _fail(errno.ENOSYS)),  # its flags lie in memory, out of sight; libc falls back to clone
    ]  # fmt: skip
    for numbers in (_DENIED | _DENIED_ALONE if alone else _DENIED).values():
        number = numbers[column]
        if number >= 0:
            code += _when(number, _fail(errno.EPERM))
    for numbers in _IGNORED.values():
        code += _when(numbers[column], _fail(0))
    code += _if_argument(_FCNTL[column], 1, (*_HOLDS, *_OWNERS) if alone else _HOLDS, errno.EPERM)
    code += _buffer_sizes(_SETSOCKOPT[column])
    code += _unless(_PRLIMIT[column], 0, (0,), errno.EPERM)
    code += _unless(_SOCKETPAIR[column], 0, _FAMILIES, errno.EAFNOSUPPORT)
    if alone:
        code += _when(_FALLOCATE[column], _fail(errno.EOPNOTSUPP))
        code += _unless_bits(_CLONE[column], (_THREAD, _SHARE_FILES), errno.EPERM)
        for kill in _KILLS.values():
            code += _unless(kill[column], 0, (os.getpid(),), errno.EPERM)
        code += _if_argument(_PRCTL[column], 0, (_SET_PDEATHSIG,), errno.EPERM)
        code += _if_argument(_IOCTL[column], 1, _OWNER_IOCTLS, errno.EPERM)
    else:
        code += _if_any_bit(_CLONE[column], _NAMESPACES, errno.EPERM)
        code += _unless(_SOCKET[column], 0, _FAMILIES, errno.EAFNOSUPPORT)
    code.append((_RETURN, 0, 0, _ALLOW))
    return _packed(code)


def asking(*, sockets: bool) -> bytes:
    """A filter that asks a listener before memory is shared, and before a socket is made or named where `sockets` are
    asked about; for processes that obey `program` too.
    """
    column = _ARCHITECTURES[platform.machine()][1]
    code = [*_when(_SOCKET[column], _ASK), *_when(_BIND[column], _ASK)] if sockets else []
    return _packed([(_LOAD, 0, 0, _NUMBER), *code, *_shared(column, _ASK), (_RETURN, 0, 0, _ALLOW)])


def refusing_shared_memory() -> bytes:
    """A filter without anyone to ask, as if there were no memory left to share."""
    column = _ARCHITECTURES[platform.machine()][1]
    return _packed([(_LOAD, 0, 0, _NUMBER), *_shared(column, _fail(errno.ENOMEM)), (_RETURN, 0, 0, _ALLOW)])


def shares_memory(number: int) -> bool:
    """Whether a call that was asked about is of memory; otherwise it is of a socket."""
    return number == _MMAP[_ARCHITECTURES[platform.machine()][1]]


def _shared(column: int, action: int) -> list[_Instruction]:
    tests = [(_ANY_BIT, 0, 1, _MAP_SHARED), (_RETURN, 0, 0, action), (_RETURN, 0, 0, _ALLOW)]
    return _argument(_MMAP[column], 3, tests)


def _packed(code: Iterable[_Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _fail(number: int) -> int:
    return 0x00050000 | number


def _when(number: int, action: int) -> list[_Instruction]:
    return [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, action)]


def _argument(number: int, index: int, tests: list[_Instruction]) -> list[_Instruction]:
    """Put `tests` on the low half of an argument of call `number`; the kernel's own type of each is no wider."""
    load = (_LOAD, 0, 0, _ARGUMENTS + 8 * index)
    return [(_EQUAL, 0, 1 + len(tests), number), load, *tests]


def _unless(number: int, index: int, values: Iterable[int], error: int) -> list[_Instruction]:
    """Refuse the call unless its argument is one of `values`."""
    values = tuple(values)
    tests = [(_EQUAL, len(values) - position, 0, value) for position, value in enumerate(values)]
    return _argument(number, index, [*tests, (_RETURN, 0, 0, _fail(error)), (_RETURN, 0, 0, _ALLOW)])


def _if_argument(number: int, index: int, values: Iterable[int], error: int) -> list[_Instruction]:
    """Refuse the call if its argument is one of `values`."""
    values = tuple(values)
    tests = [(_EQUAL, len(values) - position, 0, value) for position, value in enumerate(values)]
    return _argument(number, index, [*tests, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _fail(error))])


def _buffer_sizes(number: int) -> list[_Instruction]:
    """Do nothing, as if it had worked, where setsockopt is to change the size of a socket's buffers."""
    name = [(_EQUAL, len(_BUFFERS) - position, 0, value) for position, value in enumerate(_BUFFERS)]
    tests = [
        (_EQUAL, 0, 1 + len(name), _SOL_SOCKET), (_LOAD, 0, 0, _ARGUMENTS + 16), *name,
        (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _fail(0)),
    ]  # fmt: skip
    return _argument(number, 1, tests)


def _if_any_bit(number: int, mask: int, error: int) -> list[_Instruction]:
    """Refuse the call if its first argument has any bit of `mask`."""
    return _argument(number, 0, [(_ANY_BIT, 0, 1, mask), (_RETURN, 0, 0, _fail(error)), (_RETURN, 0, 0, _ALLOW)])


def _unless_bits(number: int, bits: Iterable[int], error: int) -> list[_Instruction]:
    """Refuse the call unless its first argument has all of `bits`."""
    tests = [test for bit in bits for test in ((_ANY_BIT, 1, 0, bit), (_RETURN, 0, 0, _fail(error)))]
    return _argument(number, 0, [*tests, (_RETURN, 0, 0, _ALLOW)])
