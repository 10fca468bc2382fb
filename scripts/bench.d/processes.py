"""Daemons: started, waited for, and ended by their process ids."""

import os
import socket
import subprocess
import time

START_DEADLINE_S = 30
STOP_DEADLINE_S = 30
POLL_S = 0.02


def until(condition, deadline_s, what, process):
    """Waits for a condition, as long as the process lives."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if process.poll() is not None:
            raise RuntimeError(f"{what}: ended with code {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not after {deadline_s} s")
        time.sleep(POLL_S)


def stop(process, deadline_s=STOP_DEADLINE_S):
    """Ends one process that was started here."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            kill(process)


def kill(process):
    """Ends one process that was started here, at once."""
    process.kill()
    process.wait()


def spawn(command, log, env=None, **options):
    """Starts a daemon in the foreground, out of reach of the terminal's Ctrl-C: it is ended in order."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_", "S3MOUNT_"))}
    with open(log, "ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**clean, **(env or {})}, start_new_session=True, **options,
        )  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
