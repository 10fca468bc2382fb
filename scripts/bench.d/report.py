"""The tables: for the terminal, and as Markdown."""

from pathlib import Path

from everyday import FACTOR
from servers import SERVERS

DEFAULT_SERVER = SERVERS[0].name


def number(value):
    """Three digits are more than a busy machine repeats."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def wall(result):
    if result["failure"]:
        return result["failure"]
    text = number(result["wall_s"])
    durable = result["durable_s"]
    # What is stored a moment after the end is the answer to the last request on its way.
    return text if durable is None or durable - result["wall_s"] < 0.05 else f"{text} → {number(durable)}"


def requests(result):
    return f"{sum(result['requests'].values()):,}"


def by_verb(result):
    """All requests, and those of each verb."""
    made = sorted(result["requests"].items(), key=lambda pair: (-pair[1], pair[0]))
    return f"{sum(count for _, count in made):,}: " + ", ".join(f"{count} {verb}" for verb, count in made)


def first_cell(result):
    """Wall time and requests."""
    if result is None:
        return "–"
    if result["failure"]:
        return result["failure"].replace("|", "\\|")
    return f"{wall(result)} / {requests(result)}"


def second_cell(result):
    """CPU and memory."""
    if result is None or result["failure"]:
        return "–"
    return f"{number(result['cpu_s'])} / {result['peak_mb']:,.0f}"


def line(result):
    """One result in words, for the terminal."""
    if result["failure"]:
        return f"{result['failure']}  ({requests(result)} requests)"
    return (
        f"{wall(result)} s, {number(result['cpu_s'])} CPU-s, {result['peak_mb']:,.0f} MB, {requests(result)} requests"
    )


def rows(run, profile, cell):
    """The title of each step and a cell for each tool."""
    for step, title in run["steps"].items():
        results = [run["results"].get(profile, {}).get(tool, {}).get(step) for tool in run["tools"]]
        if any(results):
            yield [title, *(cell(result) for result in results)]


def floor_cell(result, held):
    """The requests of a command; bold where more than was promised."""
    if result is None:
        return "–"
    if result["failure"]:
        # What a program says begins with its name and the path.
        return f"{result['failure'].rpartition(': ')[2]} ({requests(result)})".replace("|", "\\|")
    exceeds = held and sum(result["requests"].values()) > FACTOR * result["floor"]
    return f"**{by_verb(result)}**" if exceeds else by_verb(result)


def floor_text(floor, results):
    """What the least is made of, and how much that is."""
    counts = {result["floor"] for result in results if result and result["floor"] is not None}
    return f"{floor['text']}: {' or '.join(str(count) for count in sorted(counts)) or '–'}"


def floor_rows(run, profile):
    """For each command the floor and the requests of each tool."""
    for step, floor in run["floors"].items():
        results = {tool: run["results"].get(profile, {}).get(tool, {}).get(step) for tool in run["tools"]}
        cells = [floor_cell(result, tool in floor["held"]) for tool, result in results.items()]
        yield [run["steps"][step], floor_text(floor, results.values()), *cells]


def wall_cell(result):
    return "–" if result is None or result["failure"] else wall(result)


MARKS = {
    "sdk": "the AWS SDK alone, 32 connections: the large object",
    "sdk-parallel": "the AWS SDK alone, 32 connections: four objects at once",
    "sdk-write": "the AWS SDK alone, 32 connections: an object written, with its CRC32C",
    "local": "a local file as large, in the page cache",
}


def heads_of(run):
    return [f"{tool} {version}" for tool, version in run["tools"].items()]


def everyday_tables(run):
    """(heading, rows with their header) of the tables about everyday commands."""
    for profile, title in run["profiles"].items():
        yield f"{title}: S3 requests of everyday commands", [["command", "floor", *heads_of(run)], *floor_rows(run, profile)]
        yield f"{title}: wall s → until stored", [["command", *heads_of(run)], *rows(run, profile, wall_cell)]


def tables(run):
    """(heading, rows with their header) of each table."""
    heads = heads_of(run)
    for profile, title in run["profiles"].items():
        yield f"{title}: wall s → until stored / S3 requests", [["step", *heads], *rows(run, profile, first_cell)]
        yield f"{title}: CPU s / peak memory in MB", [["step", *heads], *rows(run, profile, second_cell)]
        if found := run["marks"].get(profile):
            marks = [[MARKS[name], number(figures["wall_s"])] for name, figures in found.items()]
            yield f"{title}: what reading and writing are held against", [["what", "wall s"], *marks]


def as_text(run, tables=tables):
    blocks = []
    for heading, table in tables(run):
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        blocks.append("\n".join([heading, "-" * len(heading), *lines]))
    return "\n\n".join(blocks)


def as_markdown(run, tables=tables):
    blocks = [f"`{run['command']}`", "", run["machine"], ""]
    for heading, (head, *body) in tables(run):
        blocks += [f"### {heading}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        blocks += [f"| {' | '.join(row)} |" for row in body]
        blocks.append("")
    return "\n".join(blocks)


def write_markdown(run, path):
    """Writes the tables to a file, or between the two marks of one that has them."""
    write_between(run, "", as_markdown(run), Path(path))


def write_everyday(run, path):
    """Writes the tables about everyday commands between marks of their own."""
    write_between(run, " --everyday", as_markdown(run, everyday_tables), Path(path))


def write_between(run, option, text, path):
    """Writes between two marks of a document, or at its end. Each server and each kind of tables has its own."""
    option += "" if run["server"] == DEFAULT_SERVER else f" --server {run['server']}"
    begin, end = (f"<!-- made by scripts/bench{option}: {which} -->" for which in ("begin", "end"))
    text = f"{begin}\n\n{text}\n{end}\n"
    around = path.read_text() if path.exists() else ""
    if begin in around:
        before, rest = around.split(begin, 1)
        after = rest.split(end, 1)[1].lstrip("\n")
        text = before + text + ("\n" + after if after else "")
    elif around:
        text = around + "\n" + text
    path.write_text(text)
