"""Report as a single self-contained HTML page, without network access or other files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from mvde.bench import charts
from mvde.bench.charts import Axis
from mvde.bench.measure import Measurement
from mvde.bench.page_on_time import on_time_section
from mvde.bench.pictures import Picture, comparison
from mvde.bench.report import NONE, Report, label, machine_line, milliseconds, rows

# Similar to Okabe and Ito's palette for colour-blind readers, in shades visible on white and on black.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56a0d3", "#7a5195", "#6b7280")


def page(report: Report, pictures: Sequence[Picture] = ()) -> str:
    """Render the page; ``pictures`` are those whose depth is in every measurement's assessment."""
    here = Path(__file__)
    style, script = (here.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js"))
    sections = [
        _header(report),
        _warnings(report),
        _cards(report),
        _latency(report),
        _split(report),
        _over_the_run(report),
        _camera(report),
        on_time_section(report.on_time),
        _against_the_machine(report),
        _accuracy(report),
        _pictures(report, pictures),
        _compared(report),
        _numbers(report),
        _settings(report),
    ]
    title = escape(f"mvde bench: {_title(report)}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n{''.join(filter(None, sections))}\n"
        f"<footer>Written by mvde {escape(str(report.machine.get('mvde', '')))}. Quantiles are observed times; "
        "jitter is the mean difference between a frame and the one before it.</footer>\n"
        f"</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _title(report: Report) -> str:
    models = list(dict.fromkeys(f"{one.name} {one.resolution[0]}×{one.resolution[1]}" for one in report.measurements))
    num_engines = len(report.measurements)
    return f"{', '.join(models)}: {num_engines} engine{'s' if num_engines != 1 else ''}"


def _names(report: Report) -> list[str]:
    """Short name per engine: its id, prefixed with the model if several were measured."""
    models = {(one.name, one.resolution, one.batch) for one in report.measurements}
    return [one.id if len(models) == 1 else label(one) for one in report.measurements]


def _engines(report: Report) -> list[tuple[Measurement, str, str]]:
    """(measurement, name, colour) of every engine."""
    colours = [_COLOURS[index % len(_COLOURS)] for index in range(len(report.measurements))]
    return list(zip(report.measurements, _names(report), colours, strict=True))


def _total_ms(one: Measurement) -> list[float]:
    stages = [np.asarray(one.samples_us[stage]) for stage in ("pre", "infer", "post")]
    times: list[float] = (np.sum(stages, axis=0) / 1e3).tolist()
    return times


def _section(title: str, lead: str, body: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>{body}</section>\n'


def _name(name: str, colour: str, note: str = "") -> str:
    small = f"<small>{escape(note)}</small>" if note else ""
    return f'<div class="name"><i class="swatch" style="background:{colour}"></i>{escape(name)}{small}</div>'


def _header(report: Report) -> str:
    return (
        f'<header><div><div class="eyebrow">mvde bench</div><h1>{escape(_title(report))}</h1>'
        f'<p class="sub">{escape(machine_line(report))}</p><p class="sub">{escape(report.created)}</p></div>'
        '<button id="theme" type="button">Dark</button></header>\n'
    )


def _warnings(report: Report) -> str:
    if not report.warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in report.warnings)
    return f'<section class="warnings"><ul>{items}</ul></section>\n'


def _cards(report: Report) -> str:
    fastest = min(one.total.p50_ms for one in report.measurements)
    cards = []
    for one, name, colour in _engines(report):
        value, unit = milliseconds(one.total.p50_ms).split(" ")
        facts = [
            ("precision", one.executed_precision),
            ("vs fastest", f"{one.total.p50_ms / fastest:.2f}×"),
            ("p99", milliseconds(one.total.p99_ms)),
            ("stream", f"{one.throughput_fps:.1f} frames/s"),
            ("memory", f"{one.memory_bytes / 2**20:.0f} MiB"),
        ]
        accuracy = one.assessment.accuracy
        facts += [("AbsRel", f"{accuracy['abs_rel']:.4f}")] if accuracy is not None else []
        listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in facts)
        cards.append(
            f'<div class="card" style="border-top-color:{colour}"><h3>{escape(name)}</h3>'
            f'<div class="big">{value} <small>{unit} median</small></div><dl>{listed}</dl></div>'
        )
    return f'<div class="cards">{"".join(cards)}</div>\n'


def _latency(report: Report) -> str:
    every = [time for one in report.measurements for time in _total_ms(one)]
    scale = Axis.over(every).with_room_for_text()
    body = []
    for one, name, colour in _engines(report):
        marks = charts.mark(scale, one.total.p50_ms, f"p50 {milliseconds(one.total.p50_ms)}", "", "left")
        marks += charts.mark(scale, one.total.p99_ms, f"p99 {milliseconds(one.total.p99_ms)}", "tail", "right")
        shape = charts.density(_total_ms(one), scale, colour)
        body.append(_name(name, colour, f"{one.num_frames} frames, jitter {milliseconds(one.total.jitter_ms)}"))
        body.append(f'<div class="plot">{charts.grid(scale)}{shape}{marks}</div>')
    title = "whole frame, ms" + (", logarithmic" if scale.is_log else "")
    lead = "Whole frames, from the camera's bytes to depth and statistics; engines were interleaved in turns of 0.25 s."
    return _section("Latency", lead, f'<div class="rows">{"".join(body)}{charts.axis(scale, title)}</div>')


def _split(report: Report) -> str:
    scale = Axis(0.0, max(one.total.mean_ms for one in report.measurements))
    kinds = (("pre", "resize"), ("infer", "engine"), ("post", "depth and statistics"))
    legend = "".join(
        f'<span><i class="swatch" style="background:var(--{kind})"></i>{escape(words)}</span>' for kind, words in kinds
    )
    body = []
    for one, name, colour in _engines(report):
        means = {"pre": one.pre.mean_ms, "infer": one.infer.mean_ms, "post": one.post.mean_ms}
        parts = [(kind, mean, f"{milliseconds(mean)}, {mean / one.total.mean_ms:.0%}") for kind, mean in means.items()]
        body.append(_name(name, colour, f"mean {milliseconds(one.total.mean_ms)}"))
        body.append(charts.stacked_bar(parts, scale))
    rows_html = f'<div class="rows">{"".join(body)}{charts.axis(scale, "mean of a whole frame, ms")}</div>'
    lead = "Mean time per stage. A stream overlaps the other stages with the engine."
    return _section("Where the time goes", lead, f'<div class="legend">{legend}</div>{rows_html}')


def _over_the_run(report: Report) -> str:
    body: list[str] = []
    for one, name, colour in _engines(report):
        times = [*one.warm_up.times_ms, *_total_ms(one)]
        scale = Axis.over([0.0, float(np.quantile(times, 0.995))], from_zero=True)
        ticks = scale.ticks()
        rows_html = "".join(
            f'<i class="row" style="bottom:{scale.position(tick):.1f}%"></i>'
            f'<span class="tick" style="bottom:{scale.position(tick):.1f}%">{charts.number(tick)}</span>'
            for tick in (ticks[0], ticks[len(ticks) // 2], ticks[-1])
        )
        start = Axis(0.0, float(len(times)))
        text = "" if body else "measurement starts"
        end = charts.mark(start, float(len(one.warm_up.times_ms)), text, "tail", "right")
        note = f"ms; first frame {milliseconds(one.first_frame_ms)}, last third / first third {one.drift:.2f}"
        body.append(_name(name, colour, note))
        body.append(f'<div class="plot run">{rows_html}{end}{charts.dots(times, scale, colour)}</div>')
    lead = (
        "All frames in order; warm-up is left of the dotted line. A rising level means that the machine slows "
        "down: heat, a CPU quota, or other load."
    )
    return _section("Over the run", lead, f'<div class="rows">{"".join(body)}</div>')


def _camera(report: Report) -> str:
    """Fractions of camera frames with a result in time, late or dropped, and the age of results."""
    kinds = (
        ("ontime", "in time"),
        ("late", "late: the next frame arrived before the result"),
        ("dropped", "dropped"),
    )
    legend = "".join(
        f'<span><i class="swatch" style="background:var(--{kind})"></i>{escape(words)}</span>' for kind, words in kinds
    )
    body = []
    for one, name, colour in _engines(report):
        found = one.paced
        if found is None:
            continue
        num_captured = found.num_frames + found.num_dropped
        counts = {"ontime": found.num_frames - found.num_late, "late": found.num_late, "dropped": found.num_dropped}
        parts = [(kind, float(count), f"{count / num_captured:.0%}") for kind, count in counts.items() if count]
        age = f"age of result: median {milliseconds(found.age.p50_ms)}, p99 {milliseconds(found.age.p99_ms)}"
        body += [_name(name, colour, age), charts.stacked_bar(parts, Axis(0.0, float(num_captured)))]
    if not body:
        return ""
    lead = (
        f"Frames captured at {report.settings['paced_fps']:g} frames/s; the engine takes the newest one whenever it is "
        "free. Age of a result: from capture to depth and statistics."
    )
    rows_html = f'<div class="rows">{"".join(body)}</div>'
    return _section("At camera rate", lead, f'<div class="legend">{legend}</div>{rows_html}')


def _against_the_machine(report: Report) -> str:
    meters = []
    for one, name, colour in _engines(report):
        found = one.efficiency
        if found is not None and found.products is not None:
            large, best = found.products.large_flops_per_s, found.products.best_flops_per_s
            share = found.flops_per_s / large
            text = (
                f"{share:.0%}: {found.flops_per_s / 1e9:.0f} of {large / 1e9:.0f} GFLOP/s ({best / 1e9:.0f} with all "
                f"operands in cache), {found.num_flops / 1e9:.2f} GFLOP per call"
            )
            meters.append(f'<div class="meter">{_name(name, colour)}{charts.gauge(share, colour, text)}</div>')
    left = (
        f"<div><h3>Engine, relative to a large product in its precision</h3>{''.join(meters)}</div>" if meters else ""
    )
    kernels = {}
    for one in report.measurements:
        speed, (height, width) = one.stats_kernel, one.resolution
        text = (
            f"{milliseconds(speed.median_ms)} at {height}×{width}: {speed.kernel_gb_per_s:.1f} GB/s read; "
            f"a copy of that size moves {speed.copy_gb_per_s:.1f} GB/s"
        )
        kernels[one.resolution] = (
            f'<div class="meter"><div class="name">{escape(speed.kernel)}</div>'
            f"{charts.gauge(speed.kernel_gb_per_s / speed.copy_gb_per_s, 'var(--infer)', text)}</div>"
        )
    right = f"<div><h3>Statistics kernel, relative to a copy of the same size</h3>{''.join(kernels.values())}</div>"
    lead = "Achieved performance relative to the peak measured on this machine in the same run."
    return _section("Efficiency", lead, f'<div class="two">{left}{right}</div>')


def _accuracy(report: Report) -> str:
    points = [
        charts.Point(one.total.p50_ms, one.assessment.accuracy["abs_rel"], name, colour)
        for one, name, colour in _engines(report)
        if one.assessment.accuracy is not None
    ]
    if not points:
        return ""
    y = _wide_enough(Axis.over([point.y for point in points]))
    x = Axis.over([point.x for point in points], from_zero=True)
    chart = charts.scatter(points, x, y, "median of a whole frame, ms", "AbsRel: mean |Δ|/depth, lower is better")
    lead = f"Accuracy of the timed engines on {report.settings.get('data')}; lower left is better."
    return _section("Accuracy against speed", lead, chart)


def _wide_enough(scale: Axis) -> Axis:
    """Widen an accuracy axis to at least 5 %, so that insignificant differences do not fill the chart."""
    middle = (scale.low + scale.high) / 2
    half = max((scale.high - scale.low) / 2, 0.05 * middle)
    return Axis(middle - half, middle + half)


def _pictures(report: Report, pictures: Sequence[Picture]) -> str:
    engines = _engines(report)
    body = []
    for index, picture in enumerate(pictures):
        depths = [(name, colour, one.assessment.depths[index]) for one, name, colour in engines]
        is_metric = picture.truth_m is not None or engines[0][0].unit == "m"  # others are aligned to the truth
        body.append(comparison(picture, depths, "m" if is_metric else "", engines[0][1]))
    lead = "The same images with every engine; one colour scale per row; grey: no depth."
    return _section("Depth", lead, "".join(body)) if body else ""


def _compared(report: Report) -> str:
    if not report.comparisons:
        return ""
    colours = {label(one): colour for one, _, colour in _engines(report)}
    ends = [1.0] + [end for one in report.comparisons for end in (one.p50.low, one.p50.high)]
    scale, body = Axis.over(ends), []
    for one in report.comparisons:
        chart = charts.interval(one.p50.ratio, one.p50.low, one.p50.high, scale, colours.get(one.engine, "gray"))
        body.append(_name(one.engine, colours.get(one.engine, "gray"), f"{one.p50.ratio:.3f}"))
        body.append(f'<div class="plot flat">{charts.grid(scale)}{chart}</div>')
    lead = "Median time relative to the earlier report, with 95 % intervals; above 1 is slower."
    axis = charts.axis(scale, "new / old")
    return _section("Comparison with the earlier report", lead, f'<div class="rows">{"".join(body)}{axis}</div>')


def _numbers(report: Report) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in _names(report))
    lines = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for name, row in rows(report.measurements).items()
    )
    table = f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    return _section("All numbers", "The same table as on the terminal.", table)


def _settings(report: Report) -> str:
    groups = (report.settings, report.machine, report.to_dict()["conditions"])
    facts = [(key, value) for group in groups for key, value in group.items()]
    facts += [(f"{label(one)}: options", one.options) for one in report.measurements]
    lines = "".join(f"<tr><td>{escape(key)}</td><td>{escape(_readable(value))}</td></tr>" for key, value in facts)
    return (
        "<section><details><summary>Settings, machine and conditions</summary>"
        f'<div class="wide"><table class="facts"><tbody>{lines}</tbody></table></div></details></section>\n'
    )


def _readable(value: object) -> str:
    if value is None or value == [] or value == {} or value == "":
        return NONE
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
