"""Tables of docs/performance.md out of the figures in docs/performance.json."""

import statistics

BOTH = "Dunlin / peer"
HEADS = {
    "speed": ["prefill 512", f"tokens/s, {BOTH}", "decode 128", f"tokens/s, {BOTH}"],
    "context": ["first token", f"s, {BOTH}", "decode", f"tokens/s, {BOTH}", f"keeps, {BOTH}"],
    "cold-start": ["cold start", f"s, {BOTH}"],
}


def compared(ours, theirs, seconds=False):
    """How many times faster Dunlin was, within each round, and the medians of both."""
    ratios = [b / a if seconds else a / b for a, b in zip(ours, theirs, strict=True)]
    digits = 3 if seconds else 1
    medians = f"{statistics.median(ours):.{digits}f} / {statistics.median(theirs):.{digits}f}"
    return [f"**{statistics.median(ratios):.2f} x** ({min(ratios):.2f} to {max(ratios):.2f})", medians]


def kept(figures):
    """Decode after 4096 tokens as a part of decode after 128, within each round."""
    parts = [a / b for a, b in zip(figures["tg128@d4096"], figures["tg128@d128"], strict=True)]
    return f"{100 * statistics.median(parts):.0f} %"


def cells(row):
    ours, theirs = row["ours"], row["theirs"]
    both = lambda figure, seconds=False: compared(ours[figure], theirs[figure], seconds)  # noqa: E731
    match row["section"]:
        case "speed":
            return both("pp512") + both("tg128")
        case "context":
            return both("ttft4096", True) + both("tg128@d4096") + [f"{kept(ours)} / {kept(theirs)}"]
        case "cold-start":
            return both("cold start", True)


def table(head, lines):
    return ["| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]]


def section(name, rows):
    """Lines of the table, and what it was measured with."""
    if name == "batch":
        head = ["model", *rows[0]["ours"]] if rows else []
        lines = table(head, [batch_line(row) for row in rows]) if rows else []
    else:
        head = ["model", "against", *HEADS[name]]
        lines = table(head, [[row["model"], row["peer"], *cells(row)] for row in rows]) if rows else []
    return lines + ["", *sources(rows)]


def batch_line(row):
    one = row["ours"]["x 1"]

    def cell(speeds):
        ratio = statistics.median(a / b for a, b in zip(speeds, one, strict=True))
        return f"{statistics.median(speeds):.1f} ({ratio:.2f} x)"

    return [row["model"], *map(cell, row["ours"].values())]


def sources(rows):
    """Machine, versions and flags, each said once."""
    lines = {}
    for row in rows:
        rounds = len(next(iter(row["ours"].values())))
        machine = f"{row['date']}: {row['processor']}, {row['threads']} threads, {rounds} rounds, Dunlin {row['dunlin']}"
        if row.get("tier"):
            machine += f", {row['tier']}"
        lines.setdefault(machine, []).append(row["model"])
    said = [f"- {machine}: {', '.join(dict.fromkeys(models))}." for machine, models in lines.items()]
    flags = {}
    for row in rows:
        if "peer" in row:
            flags.setdefault((row["peer"], row["version"], row["flags"]), []).append(row["model"])
    said += [f"- {peer} {version}, {used}: {', '.join(models)}." for (peer, version, used), models in flags.items()]
    return said


def write(page, rows):
    """Replaces what stands between the markers `<!-- compare NAME -->` and `<!-- end NAME -->`."""
    text = page.read_text()
    for name in dict.fromkeys(row["section"] for row in rows):
        start, end = f"<!-- compare {name} -->\n", f"<!-- end {name} -->\n"
        before, rest = text.split(start)
        after = rest.split(end)[1]
        chosen = sorted((row for row in rows if row["section"] == name), key=lambda row: row["bytes"])
        text = before + start + "\n" + "\n".join(section(name, chosen)) + "\n\n" + end + after
    page.write_text(text)
