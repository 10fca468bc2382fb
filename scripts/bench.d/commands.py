"""Commands that must succeed, and counts that must be right."""

import subprocess


class Refused(Exception):
    """A command did not do it; the text is what it said."""


def run(*command):
    """Runs a program; returns what it printed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise Refused(said[0] if said else f"{command[0]} ended with {done.returncode}")
    return done.stdout


def expect(count, wanted, what):
    if count != wanted:
        raise Refused(f"{count} {what} instead of {wanted}")
