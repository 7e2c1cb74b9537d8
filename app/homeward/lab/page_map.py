# SPDX-License-Identifier: GPL-2.0-or-later
"""The journey as a drawing: one line of stops that crosses the enterprise's edge, out and home again."""

from html import escape

from homeward.lab.page_story import Stage, mode_words

_WIDTH = 960
_HEIGHT = 268
_EDGE = 134
_OUTSIDE = 84
_INSIDE = 184
_MARGIN = 96


def draw(stages: tuple[Stage, ...]) -> str:
    """An SVG element, coloured by the page's style sheet; empty where there is no stage."""
    if not stages:
        return ""
    points = tuple(
        (_across(i, len(stages)), _OUTSIDE if s.is_outside else _INSIDE) for i, s in enumerate(stages)
    )
    told = ", then ".join(f"{stage.name} {mode_words(stage.reached)}" for stage in stages)
    parts = [
        f'<svg class="map" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(told, quote=True)}">',
        f'<rect class="inside" x="0" y="{_EDGE}" width="{_WIDTH}" height="{_HEIGHT - _EDGE}" rx="0"/>',
        f'<line class="edge" x1="0" y1="{_EDGE}" x2="{_WIDTH}" y2="{_EDGE}"/>',
        f'<text class="zone" x="12" y="{_EDGE - 10}">outside</text>',
        f'<text class="zone" x="12" y="{_EDGE + 20}">inside the enterprise</text>',
        *(_leg(points[i], points[i + 1], stages[i + 1]) for i in range(len(points) - 1)),
        *(_stop(point, stage) for point, stage in zip(points, stages, strict=True)),
        "</svg>",
    ]
    return "".join(parts)


def _across(index: int, count: int) -> float:
    return _WIDTH / 2 if count == 1 else _MARGIN + index * (_WIDTH - 2 * _MARGIN) / (count - 1)


def _leg(start: tuple[float, int], end: tuple[float, int], towards: Stage) -> str:
    (x1, y1), (x2, y2) = start, end
    middle = (x1 + x2) / 2
    path = f"M{x1:g} {y1} C{middle:g} {y1} {middle:g} {y2} {x2:g} {y2}"
    return f'<path class="leg{"" if towards.as_expected else " bad"}" d="{path}"/>'


def _stop(point: tuple[float, int], stage: Stage) -> str:
    x, y = point
    kind = "bad" if not stage.as_expected else "outside" if stage.is_outside else "home"
    glyph = _cross(x, y) if kind == "bad" else _tunnel(x, y) if stage.is_outside else _house(x, y)
    name_y, mode_y, address_y = (y - 54, y - 38, y - 23) if stage.is_outside else (y + 36, y + 52, y + 67)
    return (
        f'<g class="stop {kind}"><circle cx="{x:g}" cy="{y}" r="16"/>{glyph}'
        f'<text class="name" x="{x:g}" y="{name_y}">{escape(stage.name)}</text>'
        f'<text class="mode" x="{x:g}" y="{mode_y}">{escape(mode_words(stage.reached))}</text>'
        f'<text class="address" x="{x:g}" y="{address_y}">{escape(stage.care_of)}</text></g>'
    )


def _house(x: float, y: int) -> str:
    return _glyph(x, y, "M-7 .5L0-6.5 7 .5M-5 0V6.5H5V0")


def _tunnel(x: float, y: int) -> str:
    return _glyph(x, y, "M-7 6V0A7 7 0 0 1 7 0V6M-2.5 6V1A2.5 2.5 0 0 1 2.5 1V6")


def _cross(x: float, y: int) -> str:
    return _glyph(x, y, "M-5-5L5 5M5-5L-5 5")


def _glyph(x: float, y: int, path: str) -> str:
    return f'<path class="glyph" transform="translate({x:g} {y})" d="{path}"/>'
