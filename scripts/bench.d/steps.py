"""The steps of a run: each a workload, the state of the mount that it wants, and what it finds."""

from dataclasses import dataclass
from functools import partial
from typing import Callable

import everyday as day
import workloads as do
from everyday import BEHIND, Floor
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
    # The directory of the mount that it is done in, what is done there before, and how long nothing is then:
    # nothing of this is measured.
    inside: str | None = None
    prepare: Callable | None = None
    idle_s: float = 0
    # The fewest requests that it could do with, where that is what it is about.
    floor: Floor | None = None

    def is_for(self, tool):
        is_tools = tool.steps is None or self.floor is not None or self.name in tool.steps
        return is_tools and (self.tools is None or tool.name in self.tools)

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


def everyday(name, title, run, check, floor, **others):
    """An everyday command, in a directory in which there is something already."""
    usual = {"finds": name, "inside": name, "check": check, "floor": floor, "idle_s": day.IDLE_S}
    return Step(f"day-{name}", title, run, **{**usual, **others})


EVERYDAY = [
    everyday("untar", "`tar x`, 200 files of 0.5–8 KB in 40 directories", partial(day.untar, archive="untar"),
             partial(day.check_untar, archive="untar"), Floor("200 PUT, 1 LIST", 201)),
    everyday("untar-plain", "`tar x` of the same, no directories in the archive", partial(day.untar, archive="untar-plain"),
             partial(day.check_untar, archive="untar-plain"), Floor("200 PUT, 1 LIST", 201)),
    everyday("cp-r", "`cp -r` of a directory of 20 files", partial(day.copy, option="-r"),
             partial(day.check_copy, into="cp-r"), Floor("20 PUT, 1 LIST", 21)),
    everyday("cp-a", "`cp -a` of a directory of 20 files", partial(day.copy, option="-a"),
             partial(day.check_copy, into="cp-a", keeps_times=True), Floor("20 PUT, 1 LIST", 21)),
    everyday("clone", "`git clone` of 40 files", day.clone, partial(day.check_repository, commits=1),
             Floor("1 PUT for each file, Git's own too, 1 LIST", day.count_cloned, BEHIND), finds="cloned", inside="cloned"),
    everyday("commit", "`git commit` of a change, `git fsck`", day.commit, partial(day.check_repository, commits=2),
             Floor("about", 30), finds="cloned", inside="cloned", start=AGAIN, needs="day-clone", prepare=day.change),
    everyday("sqlite", "`sqlite3`: create a table, insert twice", day.sqlite, day.check_sqlite,
             Floor("2 for each of 3 transactions", 6, BEHIND)),
    everyday("vim", "`vim -n`: edit and save", day.vim_plain, partial(day.check_edited, directory="vim"),
             Floor("LIST, GET, PUT", 3)),
    everyday("vim-swap", "`vim` with swap file and backup: edit and save", day.vim_swap,
             partial(day.check_edited, directory="vim-swap"), Floor("LIST, GET, PUT, 1 for the backup", 4, BEHIND)),
    everyday("sed", "`sed -i`", day.sed, partial(day.check_edited, directory="sed"), Floor("LIST, GET, PUT", 3, BEHIND)),
    everyday("mv", "`mv` of a directory of 200 files", day.move, day.check_moved, Floor("200 COPY, 1 DeleteObjects", 201)),
    everyday("rm", "`rm -r` of 20 files", day.remove, partial(day.check_removed, directory="rm"),
             Floor("1 LIST, 1 DeleteObjects", 2)),
    everyday("rm-known", "`rm -r` of 20 files after `ls -l`", day.remove, partial(day.check_removed, directory="rm-known"),
             Floor("1 DeleteObjects", 1), prepare=day.look, idle_s=0),
]
