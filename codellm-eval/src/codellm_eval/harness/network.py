"""A network of a sample's own, with nothing but a loopback.

Making one takes the kernel a third of a millisecond, most of what a sample costs, and few samples use any. So a network
stays until one does, which the kernel tells: a seccomp filter whose listener is asked before a socket is made or named
(Documentation/userspace-api/seccomp_filter.rst, `linux/seccomp.h`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct

from . import kernel, seccomp

_NOTIFICATION, _ANSWER = struct.Struct("=QII64x"), struct.Struct("=QqiI")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_SET_FLAGS, _UP = 0x8914, 1


def renew() -> None:
    """Move this process into a new network whose loopback is up."""
    kernel.leave_network()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anyone:
        fcntl.ioctl(anyone, _SET_FLAGS, struct.pack("=16sH14x", b"lo", _UP))


class Use(contextlib.AbstractContextManager["Use"]):
    """Whether what this process starts from now on uses the network that it is in."""

    def __init__(self) -> None:
        self.listener = kernel.listen_for_calls(seccomp.of_sockets())
        """Readable when there is something to `allow`; -1 where the kernel cannot tell, as one before Linux 5.5."""
        self.seen = self.listener < 0

    def __exit__(self, *_: object) -> None:
        if self.listener >= 0:
            os.close(self.listener)

    def allow(self) -> None:
        """Note that it is used, and let the caller go on."""
        self.seen = True
        notification = bytearray(_NOTIFICATION.size)
        with contextlib.suppress(OSError):  # the caller was killed meanwhile
            fcntl.ioctl(self.listener, _RECEIVE, notification)
            number, _, _ = _NOTIFICATION.unpack(notification)
            fcntl.ioctl(self.listener, _SEND, _ANSWER.pack(number, 0, 0, _CONTINUE))
