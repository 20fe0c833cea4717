"""The page: one HTML file with its pictures inside, that needs neither network nor scripts."""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape

from mpiadv.report.comparison import compared_speed, compared_tests, compared_training
from mpiadv.report.drawing import MARK, Picture, saved, style
from mpiadv.report.evaluations import HEADINGS, evaluations
from mpiadv.report.reading import Log, text
from mpiadv.report.seconds import crafting, trainer_time
from mpiadv.report.snapshots import snapshots
from mpiadv.report.staleness import fresh, staleness
from mpiadv.report.summary import differing_settings, summary_table
from mpiadv.report.training import gradients, tested, training

OF_ONE: Mapping[str, Callable[[Log], Picture | None]] = {
    "training": training,
    "test accuracy": tested,
    "staleness": staleness,
    "fresh batches (log.fresh_every)": fresh,
    "the trainer's time": trainer_time,
    "crafting": crafting,
    "gradient magnitude": gradients,
    "snapshots (log.snapshot_every)": snapshots,
}
"""What is drawn of each log; None comes back where the log has nothing of it."""

OF_SEVERAL: Sequence[Callable[[Sequence[Log]], Picture | None]] = (
    compared_training,
    compared_tests,
    compared_speed,
)
"""What is drawn of several logs together."""

KeepPicture = Callable[[str, Picture, bytes], None]
"""Told the log's label, empty for all, each picture drawn, and its PNG."""

_CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff;
       max-width: 1040px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.6rem; border-bottom: 2px solid #ddd; }
h3 { margin: 2rem 0 .3rem; font-size: 1.1rem; }
figure { margin: 0 0 1.2rem; } figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: .92rem; color: #333; max-width: 62rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .22rem .8rem .22rem 0;
         border-bottom: 1px solid #e4e4e4; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #999; } tbody th { font-weight: 500; white-space: nowrap; }
code, pre { font-size: .85rem; } pre { white-space: pre-wrap; }
.note { color: #666; }
@media print { figure, table { break-inside: avoid; } }
"""


def page(logs: Sequence[Log], keep: KeepPicture = lambda label, picture, data: None) -> str:
    """The whole page of one or several logs; `keep` is told every picture on it."""
    several = len(logs) > 1
    title = f"{len(logs)} runs" if several else logs[0].label
    rows = [*summary_table(logs), *differing_settings(logs)]
    summary = table(["", *(log.label for log in logs)], rows)
    if several:
        summary += "<p class='note'>Settings are those in which the runs differ.</p>"
    parts = [f"<h1>{escape(title)}</h1>", summary]
    with style():
        if several:
            pictures = filter(None, (draw(logs) for draw in OF_SEVERAL))
            parts += ["<h2>Side by side</h2>"]
            parts += [illustration("", picture, keep) for picture in pictures]
        for log in logs:
            parts += _log_section(log, keep, several)
    return document(title, "\n".join(parts))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; the first cell of each row is its heading."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "\n".join(
        f"<tr><th>{escape(row[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>"
    )


def _log_section(log: Log, keep: KeepPicture, several: bool) -> list[str]:
    parts = [f"<h2>{escape(log.label)}</h2>"] if several else []
    lacking = []
    for what, draw in OF_ONE.items():
        picture = draw(log)
        if picture is None:
            lacking.append(what)
        else:
            parts.append(illustration(log.label, picture, keep))
    if lacking:
        told = ", ".join(lacking)
        parts.append(f"<p class='note'>The log holds nothing to draw of: {escape(told)}.</p>")
    return [*parts, *_evaluations(log), _events(log), _settings(log)]


def illustration(label: str, picture: Picture, keep: KeepPicture) -> str:
    """A picture with its title and caption, as HTML; `keep` is told of it."""
    drawn = saved(picture.figure, "png")
    keep(label, picture, drawn)
    data = base64.b64encode(drawn).decode("ascii")
    return (
        f"<h3>{escape(picture.title)}</h3>\n"
        f"<figure><img alt='{escape(picture.title)}' src='data:image/png;base64,{data}'>\n"
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _evaluations(log: Log) -> list[str]:
    """What `mpiadv evaluate` found; nothing where it was not run."""
    parts = []
    for found in evaluations(log):
        lines = "".join(f"<li>{escape(line)}</li>" for line in found.verdict)
        shown = f"{table(HEADINGS, found.rows)}<ul>{lines}</ul>" if found.rows else ""
        parts.append(f"<p>{escape(found.place)}: {escape(found.told)}</p>{shown}")
    return ["<h3>Results of mpiadv evaluate</h3>", *parts] if parts else []


def _events(log: Log) -> str:
    rows = [
        (when(float(row["wall_clock"])), str(row["step"]), text(row["kind"]), text(row["text"]))
        for row in log.events
    ]
    headings = ["time (UTC)", "after step", "event", "what happened"]
    return f"<h3>Events</h3>\n{table(headings, rows)}"


def _settings(log: Log) -> str:
    settings = [(key, str(value)) for key, value in log.config.items()]
    origin = [(key, str(log.attributes[key])) for key in sorted(log.attributes) if key != "config"]
    return (
        "<h3>Settings</h3>\n<details><summary>Configuration</summary>"
        f"{table(['setting', 'value'], settings)}</details>\n"
        "<details><summary>Versions, hosts, seeds</summary>"
        f"{table(['attribute', 'value'], [('log', text(str(log.path))), *origin])}</details>"
    )


def when(seconds: float) -> str:
    """A time as text."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def document(title: str, body: str) -> str:
    """A whole page around `body`, which is HTML."""
    return (
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        f"<meta name='generator' content='{MARK}'>\n"
        "<meta name='viewport' content='width=device-width'>\n"
        "<link rel='icon' href='data:,'>\n"  # browsers would ask a server for one
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
