"""The tables: for the terminal, and as Markdown."""

from pathlib import Path

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


MARKS = {
    "sdk": "the AWS SDK alone, 32 connections: the large object",
    "sdk-parallel": "the AWS SDK alone, 32 connections: four objects at once",
    "sdk-write": "the AWS SDK alone, 32 connections: an object written, with its CRC32C",
    "local": "a local file as large, in the page cache",
}


def tables(run):
    """(heading, rows with their header) of each table."""
    heads = [f"{tool} {version}" for tool, version in run["tools"].items()]
    for profile, title in run["profiles"].items():
        yield f"{title}: wall s → until stored / S3 requests", [["step", *heads], *rows(run, profile, first_cell)]
        yield f"{title}: CPU s / peak memory in MB", [["step", *heads], *rows(run, profile, second_cell)]
        if found := run["marks"].get(profile):
            marks = [[MARKS[name], number(figures["wall_s"])] for name, figures in found.items()]
            yield f"{title}: what reading and writing are held against", [["what", "wall s"], *marks]


def as_text(run):
    blocks = []
    for heading, table in tables(run):
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        blocks.append("\n".join([heading, "-" * len(heading), *lines]))
    return "\n\n".join(blocks)


def as_markdown(run):
    blocks = [f"`{run['command']}`", "", run["machine"], ""]
    for heading, (head, *body) in tables(run):
        blocks += [f"### {heading}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        blocks += [f"| {' | '.join(row)} |" for row in body]
        blocks.append("")
    return "\n".join(blocks)


def write_markdown(run, path):
    """Writes the tables to a file, or between the two marks of one that has them."""
    write_between(run, "", as_markdown(run), Path(path))


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
