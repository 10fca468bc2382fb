"""Many objects at once: written into the log of a server that is not running.

A PUT for each of 100,000 objects takes minutes. Objects with the same bytes may share a body, so it is
enough to say in the log (`src/demo/log.rs`) that they are there.
"""

import json
import os
import shutil
import struct


def _crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = _crc32c_table()


def crc32c(payload):
    value = 0xFFFFFFFF
    for byte in payload:
        value = TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def records(log):
    """The payloads of a log: `length | CRC32C | JSON`, little-endian."""
    text, at = log.read_bytes(), 0
    while at < len(text):
        (length,) = struct.unpack_from("<I", text, at)
        yield text[at + 8 : at + 8 + length]
        at += 8 + length


def multiply(data_dir, key, names):
    """Puts copies of the object `key` under all these names."""
    puts = (json.loads(payload) for payload in records(data_dir / "log") if b'"Put"' in payload)
    original = next(put for put in puts if put.get("Put", {}).get("key") == key)
    with open(data_dir / "log", "ab") as log:
        for name in names:
            original["Put"]["key"] = name
            payload = json.dumps(original, separators=(",", ":")).encode()
            log.write(struct.pack("<II", len(payload), crc32c(payload)) + payload)


def copy_data(seed, data):
    """A data directory of its own for a server. Bodies are never changed, only removed: they are linked."""
    data.mkdir()
    shutil.copytree(seed / "bodies", data / "bodies", copy_function=os.link)
    shutil.copy(seed / "log", data / "log")

