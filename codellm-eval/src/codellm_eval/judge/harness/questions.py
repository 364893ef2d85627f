"""Calls of a sample that wait until process 1 has heard of them: sockets and shared memory.

A seccomp filter hands them to a listener (Documentation/userspace-api/seccomp_filter.rst, "Userspace Notification";
numbers and layouts are those of `linux/seccomp.h`). The kernel allows one listener.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct

from . import kernel, seccomp
from .shared_memory import SharedMemory

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTIFICATION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_CALL, _LENGTH = 3, 7
_CONTINUE = 1


class Questions(contextlib.AbstractContextManager["Questions"]):
    """Questions about what this process starts from now on.

    They are whether it uses the network, where `sockets` are asked about, and which memory it shares, of at most
    `limit` bytes. This process itself would wait for ever.
    """

    def __init__(self, limit: int, *, sockets: bool) -> None:
        self._limit = limit
        self.listener = kernel.listen_for_calls(seccomp.asking(sockets=sockets))
        """Readable when there is something to `answer`; -1 where the kernel cannot tell, as one before Linux 5.5, or
        somebody else listens already."""
        self.sockets = self.listener < 0
        """Whether the network is used."""
        if self.listener < 0:
            kernel.filter_calls(seccomp.refusing_shared_memory())
        self.forget()

    def __exit__(self, *_: object) -> None:
        if self.listener >= 0:
            os.close(self.listener)

    def forget(self) -> None:
        """Begin anew, for another sample."""
        self.memory = SharedMemory(self._limit, self._go_on)

    def answer(self) -> None:
        """Hear of a call, and let the caller go on at once or when there is room."""
        notification = bytearray(_NOTIFICATION.size)
        with contextlib.suppress(OSError):  # the caller was killed meanwhile
            fcntl.ioctl(self.listener, _RECEIVE, notification)
            fields = _NOTIFICATION.unpack(notification)
            if seccomp.shares_memory(fields[_CALL]):
                self.memory.ask(fields[0], fields[_LENGTH])
            else:
                self.sockets = True
                self._go_on(fields[0])

    def answer_until_end(self, process: int) -> None:
        """Answer a child of this process that is no sample; it shares memory too, for tables of libc for instance."""
        self.forget()
        ended = os.pidfd_open(process)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        if self.listener >= 0:
            poll.register(self.listener, select.POLLIN)
        while ended not in {descriptor for descriptor, _ in poll.poll()}:
            self.answer()
        os.close(ended)

    def _go_on(self, number: int) -> None:
        with contextlib.suppress(OSError):  # likewise
            fcntl.ioctl(self.listener, _SEND, _ANSWER.pack(number, 0, 0, _CONTINUE))
