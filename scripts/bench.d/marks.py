"""What the tools are held against: the AWS SDK without a file system, and a local file."""

import json
import statistics
import subprocess
import time

import objects
import servers
import workloads

CONNECTIONS = 32
LOCAL_TIMES = 5


def local(work_dir, sizes):
    """Seconds to read the large object's bytes from a local file that is in the page cache."""
    place = work_dir / "local"
    place.write_bytes(objects.large_body(sizes.large_mib))
    try:
        walls_s = []
        for _ in range(LOCAL_TIMES):
            start = time.perf_counter()
            workloads.read_all(place, sizes.large_mib * objects.MIB)
            walls_s.append(time.perf_counter() - start)
        return {"wall_s": statistics.median(walls_s)}
    finally:
        place.unlink()


def sdk(program, port, keys):
    """Seconds until the SDK alone has read these objects at the same time, with 32 connections."""
    connections = max(1, CONNECTIONS // len(keys))
    env = {"AWS_ACCESS_KEY_ID": servers.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": servers.SECRET_KEY}
    command = [program, f"http://127.0.0.1:{port}", servers.BUCKET]
    readers = [
        subprocess.Popen([*command, key, str(connections)], env=env, stdout=subprocess.PIPE) for key in keys
    ]  # fmt: skip
    figures = []
    for reader in readers:
        said, _ = reader.communicate()
        if reader.returncode != 0:
            raise RuntimeError(f"{program} ended with {reader.returncode}")
        figures.append(json.loads(said))
    return {"wall_s": max(figure["seconds"] for figure in figures), "cpu_s": sum(figure["cpu_s"] for figure in figures)}


def sdk_write(program, port, key, mib):
    """Seconds until the SDK alone has written an object of this size, with 32 connections."""
    env = {"AWS_ACCESS_KEY_ID": servers.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": servers.SECRET_KEY}
    command = [program, f"http://127.0.0.1:{port}", servers.BUCKET, key, str(mib), str(CONNECTIONS)]
    figure = json.loads(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout)
    return {"wall_s": figure["seconds"], "cpu_s": figure["cpu_s"]}
