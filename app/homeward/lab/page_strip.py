# SPDX-License-Identifier: GPL-2.0-or-later
"""The strip of phases: for each stage how long it took to know, and how long nothing got through, on one scale."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil

from homeward.lab.page_story import Stage

_LONG = 10_000
"""Milliseconds from which on a duration is given in seconds."""
_LEGEND = (
    ("address", "until the link had an address"),
    ("verdict", "until it was clear where we are (traffic is held)"),
    ("up", "outage, laptop to office"),
    ("down", "outage, office to laptop"),
)


@dataclass(frozen=True, slots=True)
class Scale:
    """The one axis of the chart: `intervals` steps of `step` milliseconds."""

    step: float
    intervals: int

    @property
    def end(self) -> float:
        return self.step * self.intervals


def strip(stages: tuple[Stage, ...]) -> str:
    """The chart and its legend as HTML; bars are placed in per cent of one scale that all stages share."""
    scale = scale_for(max((end for stage in stages for end in _ends(stage)), default=0.0))
    legend = "".join(f'<li><i class="bar {kind}"></i>{escape(words)}</li>' for kind, words in _LEGEND)
    rows = "".join(_row(stage, scale, is_first=number == 0) for number, stage in enumerate(stages))
    grid = f"--step:{100 / scale.intervals:.4f}%"
    return f'<ul class="legend">{legend}</ul><div class="strip" style="{grid}">{rows}{_axis(scale)}</div>'


def scale_for(longest: float) -> Scale:
    """Round steps, five at most, that all bars fit into with room for the figure behind the longest."""
    wanted = max(longest * 1.2, 10.0)
    step = next(n * 10**power for power in range(12) for n in (1, 2, 2.5, 5) if n * 10**power * 5 >= wanted)
    return Scale(step, ceil(wanted / step))


def milliseconds(value: float | None) -> str:
    """A duration for reading: whole milliseconds, seconds from ten of them on; a dash where there is none."""
    if value is None:
        return "–"
    if value >= _LONG:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 or value == 0 else f"{value:.1f} ms"


def _ends(stage: Stage) -> Iterable[float]:
    yield (stage.address_ms or 0.0) + (stage.verdict_ms or 0.0)
    yield stage.outage_up_ms or 0.0
    yield stage.outage_down_ms or 0.0


def _row(stage: Stage, scale: Scale, *, is_first: bool) -> str:
    # A negative duration is a fault of the measurement: it is shown, and moves nothing to the left.
    known = (stage.address_ms or 0.0) + max(0.0, stage.verdict_ms or 0.0)
    phases = (("address", 0.0, stage.address_ms), ("verdict", stage.address_ms or 0.0, stage.verdict_ms))
    verdict = "no verdict" if stage.verdict_ms is None else f"+ {milliseconds(stage.verdict_ms)}"
    knowing = f"{milliseconds(stage.address_ms)} {verdict}"
    tracks = [_track(phases, known, scale, caption=knowing)]
    if is_first:
        tracks.append('<div class="track note">the first network: nothing to interrupt yet</div>')
    else:
        for kind, value in (("up", stage.outage_up_ms), ("down", stage.outage_down_ms)):
            tracks.append(_track(((kind, 0.0, value),), value or 0.0, scale, caption=milliseconds(value)))
    name = f'<div class="label"><b>{escape(stage.name)}</b><span>{escape(stage.reached or "–")}</span></div>'
    return f'<div class="row">{name}<div class="tracks">{"".join(tracks)}</div></div>'


def _track(bars: Sequence[tuple[str, float, float | None]], end: float, scale: Scale, *, caption: str) -> str:
    drawn = "".join(
        f'<i class="bar {kind}" style="left:{_percent(start, scale)};width:{_percent(length, scale)}"></i>'
        for kind, start, length in bars
        if length is not None
    )
    figure = f'<span class="value" style="left:{_percent(end, scale)}">{escape(caption)}</span>'
    return f'<div class="track">{drawn}{figure}</div>'


def _axis(scale: Scale) -> str:
    unit, size = ("s", 1000.0) if scale.end >= _LONG else ("ms", 1.0)
    marks = (scale.step * number for number in range(scale.intervals + 1))
    ticks = "".join(f'<span style="left:{_percent(at, scale)}">{at / size:g} {unit}</span>' for at in marks)
    return f'<div class="row axis"><div class="label"></div><div class="tracks">{ticks}</div></div>'


def _percent(value: float, scale: Scale) -> str:
    return f"{100 * min(max(value, 0.0), scale.end) / scale.end:.3f}%"
