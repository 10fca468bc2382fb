"""The steps of a run: each a workload, the state of the mount that it wants, and what it finds."""

from dataclasses import dataclass
from functools import partial
from typing import Callable

import workloads as do
from objects import CROWDS

COLD = "cold"  # a new mount; what the tool kept on disk is gone
AGAIN = "again"  # the mount of the step before
REMOUNTED = "remounted"  # a new mount; what the tool kept on disk is there


@dataclass(frozen=True)
class Step:
    """A workload. `title` is formatted with the sizes."""

    name: str
    title: str
    run: Callable
    # What the keys begin with that it finds in the bucket.
    finds: str | None = None
    start: str = COLD
    check: Callable | None = None
    needs: str | None = None
    # Options of s3mount that it is about: then the other tools have no part in it.
    options: tuple = ()
    tools: tuple | None = None
    # Seconds that it may take, where that is more than for others.
    deadline_s: float = 0
    watches_disk: bool = False
    # What takes less than a moment is done several times, and the median taken.
    times: int = 1

    def is_for(self, tool):
        return (self.tools is None or tool.name in self.tools) and (tool.steps is None or self.name in tool.steps)

    def is_possible_on(self, server):
        return server.holds_crowds or self.finds not in CROWDS


OWN = ("s3mount",)
TIGHT = ("--memory", "256M", "--cache-size", "512M")

STEPS = [
    Step("first", "first 64 KiB of a {large_mib} MiB object, cold", do.first_bytes, finds="large"),
    Step("read", "read {large_mib} MiB, cold", do.read_large, finds="large"),
    Step("reread", "read {large_mib} MiB again", do.read_large, finds="large", start=AGAIN, needs="read", times=5),
    Step("remount", "read {large_mib} MiB after a remount", do.read_large, finds="large", start=REMOUNTED, needs="read"),
    Step("parallel", "read 4 × {parallel_mib} MiB in parallel, cold", do.read_parallel, finds="parallel"),
    Step("tight", "the same, " + " ".join(TIGHT), do.read_parallel, finds="parallel", options=TIGHT, tools=OWN, watches_disk=True),
    Step("random", "200 random 4 KiB reads in {large_mib} MiB, cold", do.read_random, finds="large"),
    Step("write", "write {written_mib} MiB, with close", do.write_large, check=do.check_written),
    Step("create", "create {small} files of 4 KiB", do.create_small, check=do.check_created),
    Step("small", "read {small} files of 4 KiB, cold", do.read_small, finds="small"),
    Step("small-again", "read {small} files of 4 KiB again", do.read_small, finds="small", start=AGAIN, needs="small"),
    Step("grep", "`grep -r` in {searched} files, cold", do.search, finds="searched"),
    Step("grep-again", "`grep -r` in {searched} files again", do.search, finds="searched", start=AGAIN, needs="grep"),
    Step("ls", "`ls -l` of {listed} objects, cold", do.list_long, finds="listed"),
    Step("find", "`find` over {found} objects, 10 to a directory, cold", do.find, finds="found"),
    Step("crowd", "`ls` of {crowd} objects in one directory, cold", do.list_crowd, finds="crowd"),
    Step("own", "write {own} files, 32 at a time", do.write_own, check=do.check_own, tools=OWN, deadline_s=600),
    Step("ls-own", "`ls -l` of them by another machine, cold", do.list_own, needs="own", tools=OWN, deadline_s=60),
    Step("tar-x", "`tar x` of {tree} files", do.tar_extract, check=do.check_extracted),
    Step("tar-c", "`tar c` of {tree} files, cold", do.tar_create, finds="tree"),
    Step("rm", "`rm -rf` of {tree} files", do.remove_tree, finds="removed", check=do.check_removed),
    Step("mv", "`mv` of a directory of {moved} files", do.move_directory, finds="moved", check=do.check_moved),
    Step("overwrite", "overwrite 4 KiB inside {rewritten_mib} MiB", do.overwrite, finds="rewritten", check=do.check_overwritten),
    Step("append-known", "append 4 KiB to it", partial(do.append, key="rewritten"), finds="rewritten", start=AGAIN,
         needs="overwrite", check=partial(do.check_appended, key="rewritten")),
    Step("append", "append 4 KiB to another {rewritten_mib} MiB, cold", do.append, finds="appended", check=do.check_appended),
    Step("clone", "`git clone` of {cloned} files", do.clone, check=do.check_cloned),
    Step("status", "`git status` after a remount", do.status, start=REMOUNTED, needs="clone"),
]
