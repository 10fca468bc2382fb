"""A run: the tools, one after the other, on servers with the same objects."""

import dataclasses
import shutil
import sys
import time
from contextlib import ExitStack

import marks
import measure
import mounts
import objects
import report
import servers
import steps
from commands import Refused
from wire import Wire
from workloads import Work


def say(text):
    print(text, flush=True)


def chosen(names, choices, what):
    """The choices with these names, in the order of the choices."""
    wanted = names.split(",")
    if unknown := set(wanted) - {choice.name for choice in choices}:
        sys.exit(f"error: no such {what}: {', '.join(sorted(unknown))}")
    return [choice for choice in choices if choice.name in wanted]


def sizes_of(args):
    base = objects.QUICK if args.quick else objects.Sizes()
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(base)}
    return dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})


class Bench:
    """A run: the tools, one after the other, on servers with the same objects."""

    def __init__(self, binary, args, work_dir, data_dir):
        self.binary, self.timeout = binary, args.timeout
        self.sdk_read, self.sdk_write = args.sdk_read.resolve(), args.sdk_write.resolve()
        self.work_dir, self.data_dir = work_dir, data_dir
        self.sizes = sizes_of(args)
        self.server = chosen(args.server, servers.SERVERS, "server")[0]
        self.tools = chosen(args.tools, [mounts.S3mount(binary), mounts.S3mountWriteBack(binary), mounts.S3fs(), mounts.Rclone()], "tool")
        self.profiles = chosen(args.profiles, servers.PROFILES, "profile")
        self.steps = self.possible(self.wanted_steps(args))
        self.seed = data_dir / "seed"
        self.log = work_dir / "log"
        self.sources = work_dir / "sources"

    @staticmethod
    def wanted_steps(args):
        if args.steps:
            return chosen(args.steps, steps.STEPS + steps.EVERYDAY, "step")
        return steps.EVERYDAY if args.everyday else steps.STEPS

    def possible(self, wanted):
        """Without the steps that this server is not prepared for; says which."""
        left_out = [step.name for step in wanted if not step.is_possible_on(self.server)]
        if left_out:
            say(f"==> left out: {', '.join(left_out)} (too many objects to put them on {self.server.title} one by one)")
        return [step for step in wanted if step.name not in left_out]

    def run(self):
        """All results: profile → tool → step."""
        say("==> preparing the objects")
        self.sources.mkdir()
        objects.make_sources(self.sources, self.sizes)
        self.put_objects()
        results, marked = {}, {}
        for profile in self.profiles:
            marked[profile.name] = self.measure_marks(profile)
            for tool in self.tools:
                results.setdefault(profile.name, {})[tool.name] = self.run_tool(profile, tool)
        return results, marked

    def put_objects(self):
        """Puts what the steps find into a server that all others are copies of."""
        found = {step.finds for step in self.steps}
        server = self.server(self.binary, self.seed, servers.PROFILES[0], self.log)
        try:
            client = server.client()
            for key, make_body in objects.large_objects(self.sizes):
                if objects.directory(key) in found:
                    client.put(key, make_body())
            client.put_all((key, body) for key, body in objects.small_objects(self.sizes) if objects.directory(key) in found)
            client.put(objects.SINGLE, b"x")
        finally:
            server.stop()
        if crowds := found.intersection(objects.CROWDS):
            names = (key for key in objects.names(self.sizes) if objects.directory(key) in crowds)
            self.server.multiply(self.seed, objects.SINGLE, names)

    def start_server(self, profile, stack):
        """A server of its own with all objects: what is left on it is no other's business."""
        data = self.data_dir / "data"
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        self.server.copy(self.seed, data)
        server = self.server(self.binary, data, profile, self.log)
        stack.callback(server.stop)
        return server

    def measure_marks(self, profile):
        """What the steps that read and write large objects are held against."""
        wanted = {step.name for step in self.steps}
        keys = {"sdk": ("read", ["large"]), "sdk-parallel": ("parallel", objects.parallel_keys())}
        found = {"local": marks.local(self.work_dir, self.sizes)} if wanted & {"reread", "remount"} else {}
        with ExitStack() as stack:
            server = self.start_server(profile, stack)
            for name, (step, read) in keys.items():
                if step in wanted:
                    found[name] = marks.sdk(self.sdk_read, server.port, read)
            if "write" in wanted:
                found["sdk-write"] = marks.sdk_write(self.sdk_write, server.port, "written", self.sizes.written_mib)
        for name, figures in found.items():
            say(f"    {report.MARKS[name]:<56} {report.number(figures['wall_s'])} s")
        return found

    def run_tool(self, profile, tool):
        """The steps of one tool, on a server of its own."""
        say(f"==> {tool.name}, {profile.title}")
        place = self.work_dir / f"{profile.name}-{tool.name}"
        place.mkdir()
        with ExitStack() as stack:
            server = self.start_server(profile, stack)
            wire = Wire(server.port)
            stack.callback(wire.close)
            mount = mounts.Mount(tool, server.port, place, place / "log")
            stack.callback(mount.stop)
            results = {}
            for step in filter(lambda step: step.is_for(tool), self.steps):
                self.run_step(step, mount, wire, server.client(), results)
                say(f"    {step.title.format(**vars(self.sizes)):<48} {report.line(results[step.name])}")
            return results

    def run_step(self, step, mount, wire, client, results):
        """Brings the mount into the state that the step wants, measures, and checks the bucket."""
        needed = results.get(step.needs)
        if step.needs and (needed is None or needed["failure"]):
            results[step.name] = measure.Result(failure=f"needs “{step.needs}”").as_dict()
            return
        if step.start != steps.AGAIN:
            if mount.process:
                # What a tool still does by itself after a step is not cut off: nobody unmounts at once.
                measure.settle(wire, 0, time.monotonic() + measure.SETTLE_DEADLINE_S)
            mount.stop()
            if step.start == steps.COLD:
                mount.forget()
            mount.start(step.options)
        try:
            with mount.inside(step.inside) as place:
                result = self.measure_step(step, mount, wire, place)
        except FileNotFoundError:
            result = measure.Result(failure=f"does not show “{step.inside}”")
        if result.timed_out or result.failure:
            mount.kill()
        elif step.check:
            try:
                step.check(client, self.sizes)
                result.floor = step.floor.count(client) if step.floor else None
            except Refused as wrong:
                result.failure = f"wrong: {wrong}"
        results[step.name] = result.as_dict()

    def measure_step(self, step, mount, wire, place):
        """Prepares and measures it."""
        work, deadline_s = Work(mount.path, self.sources, self.sizes), max(self.timeout, step.deadline_s)
        if failure := measure.prepare(step, work, mount, wire, deadline_s, place):
            return measure.Result(failure=failure)
        return measure.measure(step, work, mount, wire, deadline_s, place)
