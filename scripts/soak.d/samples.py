"""What the daemons take while they are used, and whether that stays as it is."""

import os
import statistics
import time
from collections import defaultdict
from pathlib import Path

import mounts

MIB = 1 << 20
# What is filled in this part of the time is not looked at.
WARM_UP = 0.15
# A measure is flat when the median of the last quarter is not above that of the second one by more than a tenth and
# this much: (unit, slack). Who uses what in one moment goes up and down by as much.
MEASURES = {
    "resident memory": ("MiB", 16),
    "anonymous memory": ("MiB", 16),
    "descriptors": ("", 16),
    "threads": ("", 8),
    "on disk": ("MiB", 16),
}
FLAT = 1.1


class Died(Exception):
    """A daemon is no more."""


class Samples:
    """Figures of each daemon and directory: (who, measure) → values, one for each moment in `at_s`. What stays below
    `filled`, (who, measure) → figure, is being filled as it may be, and grows not for that."""

    def __init__(self, daemons, directories, filled):
        self.daemons, self.directories, self.filled = daemons, directories, filled
        self.begun, self.at_s = time.monotonic(), []
        self.values = defaultdict(list)

    def take(self):
        self.at_s.append(time.monotonic() - self.begun)
        for name, process in self.daemons.items():
            # Who has died and not been waited for has a status, without figures.
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            told = dict(line.split(":", 1) for line in lines)
            if "VmRSS" not in told:
                raise Died(f"{name} has died")
            self.values[name, "resident memory"].append(int(told["VmRSS"].split()[0]) * 1024 / MIB)
            self.values[name, "anonymous memory"].append(int(told["RssAnon"].split()[0]) * 1024 / MIB)
            self.values[name, "threads"].append(int(told["Threads"]))
            self.values[name, "descriptors"].append(len(os.listdir(f"/proc/{process.pid}/fd")))
        for name, directory in self.directories.items():
            self.values[name, "on disk"].append(mounts.disk_bytes(directory) / MIB)

    def now(self):
        """A few of the last figures, for a line of progress."""
        memory = [f"{name} {self.values[name, 'resident memory'][-1]:.0f} MiB {self.values[name, 'descriptors'][-1]} fds" for name in self.daemons]
        disk = [f"{name} {self.values[name, 'on disk'][-1]:.0f} MiB" for name in self.directories]
        return ", ".join(memory + disk)

    def rows(self):
        """A dict for each measure, with what came of it."""
        end_s = self.at_s[-1]
        for (who, measure), values in self.values.items():
            unit, slack = MEASURES[measure]
            second = statistics.median(self._between(values, end_s / 4, end_s / 2))
            last = statistics.median(self._between(values, 3 * end_s / 4, end_s))
            yield {
                "who": who, "measure": measure, "unit": unit, "second_quarter": second, "last_quarter": last,
                "most": max(values), "slope_per_h": self._slope_per_h(values), "flat": last <= FLAT * max(second, self.filled.get((who, measure), 0)) + slack,
            }  # fmt: skip

    def _between(self, values, from_s, to_s):
        return [value for at_s, value in zip(self.at_s, values) if from_s <= at_s <= to_s]

    def _slope_per_h(self, values):
        """Of the straight line through all that comes after the warm-up."""
        first = next(number for number, at_s in enumerate(self.at_s) if at_s >= WARM_UP * self.at_s[-1])
        if len(self.at_s) - first < 2:
            return 0.0
        return statistics.linear_regression(self.at_s[first:], values[first:]).slope * 3600

    def as_dict(self):
        return {"at_s": self.at_s, "values": {f"{who}: {measure}": values for (who, measure), values in self.values.items()}}


def as_text(rows):
    """The rows as a table."""
    table = [("", "", "2nd quarter", "last quarter", "most", "slope per hour", "")]
    for row in rows:
        unit = f" {row['unit']}".rstrip()
        figures = [f"{row[column]:.1f}{unit}" for column in ("second_quarter", "last_quarter", "most")]
        table.append((row["who"], row["measure"], *figures, f"{row['slope_per_h']:+.1f}{unit}", "flat" if row["flat"] else "GROWS"))
    widths = [max(map(len, column)) for column in zip(*table)]
    return "\n".join(
        "  ".join(cell.ljust(width) if at < 2 or at == 6 else cell.rjust(width) for at, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in table
    )
