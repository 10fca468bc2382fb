"""A network of our own, so that every byte on its loopback interface is one that is measured."""

import ctypes
import fcntl
import socket
import struct
from pathlib import Path

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
RECEIVED = Path("/proc/self/net/dev")


def leave_for_own():
    """Takes this process and all that it starts from here on into a network of their own, which has
    nothing but a loopback interface (network_namespaces(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", 0).ljust(40, b"\0")
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP).ljust(40, b"\0"))


def moved_bytes():
    """Bytes that went over the loopback interface so far, in both directions, with all headers."""
    lines = RECEIVED.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.split()[0] == "lo:")
