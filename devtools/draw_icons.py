# SPDX-License-Identifier: GPL-2.0-or-later
"""Draw the tray's icons: one house, one geometry, a colour and a symbolic file per state.

`python -m devtools.draw_icons` writes icons/*.svg; a test compares them with what this module draws. The grid is 16 by
16 with edges on whole pixels, because at 16 px a tray icon must be read. Shapes are computed (united,
subtracted) and written as plain filled paths, so that every renderer shows the same: no strokes, masks or clips.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QPainterPath, QPainterPathStroker, QPolygonF

ICONS = Path(__file__).resolve().parent.parent / "icons"

# Mid tones: each keeps a contrast of 3:1 against light and dark panels (measured in tests/gui/test_icons.py).
GREEN = "#26994d"
BLUE = "#3584e4"
AMBER = "#b87a00"
PURPLE = "#a05fc8"
ORANGE = "#dd6000"
RED = "#e0353d"
GREY = "#7f8790"
WHITE = "#ffffff"


@dataclass(frozen=True)
class Layer:
    """One filled shape; in the symbolic file a `hole` is cut out of what lies below it instead of painted."""

    shape: QPainterPath
    fill: str
    hole: bool = False


def _polygon(*points: tuple[float, float]) -> QPainterPath:
    path = QPainterPath()
    path.addPolygon(QPolygonF([QPointF(x, y) for x, y in points]))
    path.closeSubpath()
    return path


def _box(left: float, top: float, right: float, bottom: float, *, radius: float = 0.0) -> QPainterPath:
    path = QPainterPath()
    path.addRoundedRect(QRectF(left, top, right - left, bottom - top), radius, radius)
    return path


def _disc(x: float, y: float, radius: float) -> QPainterPath:
    path = QPainterPath()
    path.addEllipse(QPointF(x, y), radius, radius)
    return path


def _ring(x: float, y: float, radius: float, width: float) -> QPainterPath:
    return _disc(x, y, radius + width / 2).subtracted(_disc(x, y, radius - width / 2))


def _line(width: float, *points: tuple[float, float]) -> QPainterPath:
    path = QPainterPath(QPointF(*points[0]))
    for point in points[1:]:
        path.lineTo(QPointF(*point))
    stroker = QPainterPathStroker()
    stroker.setWidth(width)
    stroker.setCapStyle(Qt.PenCapStyle.RoundCap)
    stroker.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    return stroker.createStroke(path).simplified()


def _solid() -> QPainterPath:
    """The house: roof, chimney, walls. Edges of walls and chimney on whole pixels."""
    return _polygon(
        (8, 0.4),
        (11, 3.15),
        (11, 1),
        (13, 1),
        (13, 4.98),
        (15.3, 7.1),
        (15, 7.6),
        (15, 15),
        (1, 15),
        (1, 7.6),
        (0.7, 7.1),
    )


def _hollow() -> QPainterPath:
    """The same house with nothing in it: walls of two pixels."""
    return _solid().subtracted(_polygon((8, 3.1), (13, 7.7), (13, 13), (3, 13), (3, 7.7)))


def _shield() -> QPainterPath:
    path = QPainterPath(QPointF(8, 0.2))
    path.cubicTo(QPointF(10, 1.6), QPointF(12.5, 2.2), QPointF(15, 2.2))
    path.lineTo(15, 7.5)
    path.cubicTo(QPointF(15, 11.6), QPointF(12.2, 14.5), QPointF(8, 15.9))
    path.cubicTo(QPointF(3.8, 14.5), QPointF(1, 11.6), QPointF(1, 7.5))
    path.lineTo(1, 2.2)
    path.cubicTo(QPointF(3.5, 2.2), QPointF(6, 1.6), QPointF(8, 0.2))
    path.closeSubpath()
    return path


def _key() -> QPainterPath:
    ring = _disc(5, 10, 2.7).subtracted(_disc(5, 10, 1.1))
    return ring.united(_box(7.2, 9, 13.4, 11)).united(_box(10, 10, 11.2, 13)).united(_box(12.2, 10, 13.4, 13))


def _cross(x: float, y: float, reach: float) -> QPainterPath:
    falling = _line(2.0, (x - reach, y - reach), (x + reach, y + reach))
    return falling.united(_line(2.0, (x - reach, y + reach), (x + reach, y - reach)))


def _home() -> list[Layer]:
    return [Layer(_solid(), GREEN), Layer(_box(6, 8, 10, 15), WHITE, hole=True)]


def _trusted_c() -> list[Layer]:
    return [Layer(_solid(), GREEN), Layer(_line(2.2, (4.5, 9.5), (7.1, 12.1), (11.6, 7.2)), WHITE, hole=True)]


def _trusted_f() -> list[Layer]:
    mast = _disc(8, 8.5, 1.4).united(_box(7, 8.5, 9, 15))
    waves = _ring(8, 8.5, 3.3, 1.5).intersected(_box(3, 6.2, 6.4, 10.8).united(_box(9.6, 6.2, 13, 10.8)))
    return [Layer(_solid(), GREEN), Layer(mast.united(waves), WHITE, hole=True)]


def _outside_mc() -> list[Layer]:
    house = _polygon((8, 3.3), (12.6, 7.6), (11, 7.6), (11, 12), (5, 12), (5, 7.6), (3.4, 7.6))
    return [Layer(_shield(), BLUE), Layer(house, WHITE, hole=True)]


def _deciding() -> list[Layer]:
    dots = _box(4, 9, 6, 11).united(_box(7, 9, 9, 11)).united(_box(10, 9, 12, 11))
    return [Layer(_hollow(), AMBER), Layer(dots, AMBER)]


def _waiting() -> list[Layer]:
    return [Layer(_solid(), PURPLE), Layer(_key(), WHITE, hole=True)]


def _blocked() -> list[Layer]:
    return [Layer(_solid(), RED), Layer(_box(3, 8, 13, 11), WHITE, hole=True)]


def _no_network() -> list[Layer]:
    gap = _line(4.6, (1.2, 1.8), (15.2, 15.2))
    return [Layer(_hollow().subtracted(gap), GREY), Layer(_line(1.8, (1.4, 2), (14.8, 14.8)), GREY)]


def _attention() -> list[Layer]:
    mark = _box(7, 4.5, 9, 10).united(_box(7, 11, 9, 13))
    return [Layer(_solid(), ORANGE), Layer(mark, WHITE, hole=True)]


def _no_service() -> list[Layer]:
    return [Layer(_hollow().subtracted(_box(0, 8.2, 16, 16)), GREY), Layer(_cross(8, 11.4, 2.9), RED)]


def _disconnected() -> list[Layer]:
    return [Layer(_hollow(), GREY)]


def _not_set_up() -> list[Layer]:
    return [Layer(_hollow(), GREY), Layer(_box(7, 6, 9, 12).united(_box(5, 8, 11, 10)), BLUE)]


def _badge() -> list[Layer]:
    mark = _box(11, 9, 12, 12).united(_box(11, 13, 12, 14))
    return [Layer(_disc(11.5, 11.5, 4.2), ORANGE), Layer(mark, WHITE, hole=True)]


DRAWINGS: dict[str, tuple[str, Callable[[], list[Layer]]]] = {
    "not-set-up": ("A house to be built: no profile yet", _not_set_up),
    "disconnected": ("An empty house: disconnected", _disconnected),
    "no-service": ("A roof without a house: the Homeward service is not running", _no_service),
    "no-network": ("A house crossed out: no network", _no_network),
    "deciding": ("A house with three dots: finding out where we are", _deciding),
    "waiting": ("A house with a key: waiting for you", _waiting),
    "trusted-c": ("A house with a tick: trusted network, direct", _trusted_c),
    "trusted-f": ("A house with a beacon: trusted network, through a foreign agent", _trusted_f),
    "home": ("A house with a door: at home", _home),
    "outside-mc": ("A house behind a shield: foreign network, protected by the VPN", _outside_mc),
    "blocked": ("A house closed by a bar: traffic is held", _blocked),
    "attention": ("A house with an exclamation mark: needs attention", _attention),
    "badge-attention": ("A mark laid over another icon: needs attention", _badge),
}
"""File stem -> title and layers."""


def _path_data(shape: QPainterPath) -> str:
    words: list[str] = []
    index = 0
    while index < shape.elementCount():
        element = shape.elementAt(index)
        if element.isCurveTo():
            points = [shape.elementAt(index + step) for step in range(3)]
            words.append("C" + " ".join(f"{_number(p.x)} {_number(p.y)}" for p in points))  # type: ignore[attr-defined]
            index += 3
            continue
        letter = "M" if element.isMoveTo() else "L"
        words.append(f"{letter}{_number(element.x)} {_number(element.y)}")  # type: ignore[attr-defined]
        index += 1
    return "".join(words) + "Z"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def _document(title: str, paths: list[tuple[str, str]]) -> str:
    body = "".join(f'  <path fill="{fill}" fill-rule="evenodd" d="{data}"/>\n' for fill, data in paths)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 16 16">\n'
        f"  <title>{title}</title>\n{body}</svg>\n"
    )


def colour(stem: str) -> str:
    """The SVG text of the coloured icon."""
    title, draw = DRAWINGS[stem]
    return _document(title, [(layer.fill, _path_data(layer.shape)) for layer in draw()])


def symbolic(stem: str) -> str:
    """The SVG text of the one-coloured icon: `currentColor`, with the glyph cut out of the house."""
    title, draw = DRAWINGS[stem]
    shape = QPainterPath()
    for layer in draw():
        shape = shape.subtracted(layer.shape) if layer.hole else shape.united(layer.shape)
    return _document(title, [("currentColor", _path_data(shape))])


def main() -> None:
    """Write all icons into the checkout."""
    for stem in DRAWINGS:
        (ICONS / f"{stem}.svg").write_text(colour(stem), encoding="utf-8")
        (ICONS / f"{stem}-symbolic.svg").write_text(symbolic(stem), encoding="utf-8")
        print(f"icons/{stem}.svg")


if __name__ == "__main__":
    main()
