"""A server's Unix socket as a TCP port on the loopback interface, with a latency and a speed.

`relay.py PORT SOCKET LATENCY_MS MBPS` does from outside what `s3mount demo` does inside: an answer
begins so many milliseconds later, and each connection carries so many megabytes a second (0: no
bound) in each direction. Bytes go through a pipe, by splice(2), which hands on pages and copies none.
"""

import fcntl
import os
import socket
import sys
import threading
import time

F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20
# As the server inside s3mount has it (`src/demo/link.rs`).
PACED_BYTES = 128 << 10
CATCH_UP_S = 0.005
# A word between request and answer; the answer is what is late.
CONTINUE = b"HTTP/1.1 100"


class Pace:
    """The speed of one direction."""

    def __init__(self, mbps):
        self.bytes_per_s, self.free_at = mbps * 1e6, 0.0
        self.most_bytes = PACED_BYTES if mbps else PIPE_BYTES

    def charge(self, count):
        """Waits as long as these bytes take."""
        if self.bytes_per_s:
            # What a wait too long has missed is made up for, a little.
            now = time.monotonic()
            self.free_at = max(self.free_at, now - CATCH_UP_S) + count / self.bytes_per_s
            if self.free_at > now:
                time.sleep(self.free_at - now)


class Connection:
    """A client and the server, and whether an answer is due."""

    def __init__(self, client, server, latency_s, mbps):
        self.latency_s, self.mbps, self.is_asked = latency_s, mbps, False
        for source, sink in [(client, server), (server, client)]:
            threading.Thread(target=self.carry, args=(source, sink, source is client), daemon=True).start()

    def carry(self, source, sink, asks):
        """Carries all bytes one way, and then the end of them."""
        reader, writer = os.pipe()
        fcntl.fcntl(writer, F_SETPIPE_SZ, PIPE_BYTES)
        pace = Pace(self.mbps)
        try:
            while True:
                if not asks and self.latency_s:
                    self.be_late(source)
                left = os.splice(source.fileno(), writer, pace.most_bytes)
                if not left:
                    break
                if asks:
                    self.is_asked = True
                pace.charge(left)
                while left:
                    left -= os.splice(reader, sink.fileno(), left)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            # Whoever broke it off, the other is told.
            for end in (source, sink):
                break_off(end)
        finally:
            os.close(reader)
            os.close(writer)

    def be_late(self, server):
        """Holds an answer back when it begins."""
        begins_with = server.recv(len(CONTINUE), socket.MSG_PEEK)
        if self.is_asked and begins_with != CONTINUE:
            self.is_asked = False
            time.sleep(self.latency_s)


def break_off(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is off already


def main():
    port, path, latency_s, mbps = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]) / 1000, float(sys.argv[4])
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(path)
            except OSError:
                break_off(client)
                continue
            Connection(client, server, latency_s, mbps)


if __name__ == "__main__":
    main()
