"""A network of a sample's own, with nothing but a loopback.

Making one takes the kernel a third of a millisecond, most of what a sample costs, and few samples use any. So a network
stays until one does, of which `questions` tells.
"""

from __future__ import annotations

import fcntl
import socket
import struct

from . import kernel

_SET_FLAGS, _UP = 0x8914, 1


def renew() -> None:
    """Move this process into a new network whose loopback is up."""
    kernel.leave_network()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anyone:
        fcntl.ioctl(anyone, _SET_FLAGS, struct.pack("=16sH14x", b"lo", _UP))
