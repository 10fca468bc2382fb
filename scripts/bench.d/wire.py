"""Counts the HTTP requests to a port on the loopback interface, whoever sends them, and the bytes.

All tools are counted the same way and none is slowed down: a filter in the kernel passes only the
packets whose payload begins like an HTTP request or answer, a few hundred bytes each. Nothing is in
the way of the data, and the tools need not know.
"""

import ctypes
import socket
import struct
import urllib.parse
from collections import Counter

import network

ETH_P_IP = 0x0800
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
SOL_PACKET, PACKET_STATISTICS = 263, 6

METHODS = [b"GET ", b"PUT ", b"POST", b"HEAD", b"DELE"]
ANSWER = b"HTTP"
# Enough for the headers by which a copy is told from a PUT.
SNAP_BYTES = 2048
BUFFER_BYTES = 64 << 20

# Classic BPF opcodes (linux/filter.h).
LD_ABS_B, LD_ABS_H, LD_IND_H, LD_IND_B, LD_IND_W = 0x30, 0x28, 0x48, 0x50, 0x40
LDX_IP_HEADER, ADD_X, TAX, AND_K, RSH_K, JEQ_K, RET_K = 0xB1, 0x0C, 0x07, 0x54, 0x74, 0x15, 0x06
PACKET_TYPE = 0xFFFFF000 + 4  # SKF_AD_OFF + SKF_AD_PKTTYPE
PACKET_HOST = 0


def http_filter(port):
    """The filter program: TCP, coming in (loopback shows each packet twice), from or to the port,
    payload beginning with a method or an answer."""
    starts = METHODS + [ANSWER]
    program = [
        (LD_ABS_B, 0, 0, PACKET_TYPE),
        (JEQ_K, 0, "drop", PACKET_HOST),
        (LD_ABS_B, 0, 0, 9),  # protocol
        (JEQ_K, 0, "drop", socket.IPPROTO_TCP),
        (LDX_IP_HEADER, 0, 0, 0),  # x = length of the IP header
        (LD_IND_H, 0, 0, 2),  # destination port
        (JEQ_K, 2, 0, port),
        (LD_IND_H, 0, 0, 0),  # source port
        (JEQ_K, 0, "drop", port),
        (LD_IND_B, 0, 0, 12),  # TCP header length in words, upper four bits
        (AND_K, 0, 0, 0xF0),
        (RSH_K, 0, 0, 2),
        (ADD_X, 0, 0, 0),
        (TAX, 0, 0, 0),
        (LD_IND_W, 0, 0, 0),  # ends the filter with "drop" if there is no payload
    ]
    for at, start in enumerate(starts):
        program.append((JEQ_K, len(starts) - at, 0, int.from_bytes(start, "big")))
    program += [(RET_K, 0, 0, 0), (RET_K, 0, 0, SNAP_BYTES)]
    drop = len(program) - 2
    return b"".join(
        struct.pack("HBBI", code, yes, drop - at - 1 if no == "drop" else no, value)
        for at, (code, yes, no, value) in enumerate(program)
    )


# Requests kept one by one; others are only counted.
KEPT = 5000


def verb(request):
    """The method of a request; apart from it listings, which are GETs too, copies, and batches of removals."""
    method, target = request.split(b" ", 2)[:2]
    query = target.partition(b"?")[2]
    if method == b"GET" and (b"list-type=2" in query or b"prefix=" in query):
        return "LIST"
    if method == b"PUT" and b"\r\nx-amz-copy-source:" in request.lower():
        return "COPY"
    if method == b"POST" and query.startswith(b"delete"):
        return "DeleteObjects"
    return method.decode()


def asked(request):
    """A request in words: its verb, and what it is about."""
    target = request.split(b" ", 2)[1].decode(errors="replace")
    return f"{verb(request)} {urllib.parse.unquote(target)}"


class Wire:
    """The requests since the last `reset`, and when the last request or answer was seen."""

    def __init__(self, port):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        program = http_filter(port)
        buffer = ctypes.create_string_buffer(program)
        fprog = struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        # Bound last: no packet may come in before the filter is there.
        self.socket.bind(("lo", ETH_P_IP))
        self.socket.setblocking(False)
        self.reset()

    def close(self):
        self.socket.close()

    def fileno(self):
        return self.socket.fileno()

    def reset(self):
        """Forgets what was seen."""
        self._forget()
        self.read()
        self._forget()

    def _forget(self):
        self.requests, self.unanswered, self.last_seen = Counter(), 0, None
        self.asked = []
        self.most_unanswered, self.moved_before = 0, network.moved_bytes()

    def moved_mb(self):
        """All that went over the network since the last `reset`."""
        return (network.moved_bytes() - self.moved_before) / 1e6

    def read(self):
        """Takes in what has arrived; never waits."""
        while True:
            try:
                packet, control, _, _ = self.socket.recvmsg(SNAP_BYTES, 64)
            except BlockingIOError:
                break
            self._take(packet, control)
        _, dropped = struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        if dropped:
            raise RuntimeError(f"{dropped} packets were lost before they were counted")

    def _take(self, packet, control):
        tcp = (packet[0] & 0x0F) * 4
        payload = packet[tcp + (packet[tcp + 12] >> 4) * 4 :]
        if payload.startswith(ANSWER):
            if payload[9:10] != b"1":  # "100 Continue" comes before the answer
                self.unanswered -= 1
        else:
            self.unanswered += 1
            self.most_unanswered = max(self.most_unanswered, self.unanswered)
            self.requests[verb(payload)] += 1
            if len(self.asked) < KEPT:
                self.asked.append(asked(payload))
        for _, kind, data in control:
            if kind == SO_TIMESTAMPNS:
                seconds, nanos = struct.unpack("qq", data[:16])
                self.last_seen = seconds + nanos / 1e9
