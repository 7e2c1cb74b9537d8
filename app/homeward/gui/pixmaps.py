# SPDX-License-Identifier: GPL-2.0-or-later
"""The icons as pixels: no theme on any desktop knows them, and a name that it does not know shows as nothing (S20)."""

from enum import Enum
from functools import cache
from importlib import resources
from typing import Final

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from homeward.gui.view_model import Icon

SIZES: Final = (16, 22, 24, 32, 48, 64)
"""What panels ask for; a host picks the nearest and scales the rest."""

_GAP: Final = 1.0
"""Clear rim around the badge, in the icon's own 16 by 16 units, so that it stands off whatever is below."""
_BADGE: Final = (11.5, 11.5, 4.2)
"""Centre and radius of the badge, as drawn in badge-attention.svg."""


class Style(Enum):
    """Colour, or one tone that suits a light or a dark panel."""

    COLOUR = "colour"
    DARK_ON_LIGHT = "dark-on-light"
    LIGHT_ON_DARK = "light-on-dark"


_TONES: Final = {Style.DARK_ON_LIGHT: "#2e3436", Style.LIGHT_ON_DARK: "#eeeeec"}


def application_icon() -> QIcon:
    """The program's own icon, for windows and dialogs."""
    icon = QIcon()
    for size in (*SIZES, 128):
        icon.addPixmap(_render(_svg("homeward"), size))
    return icon


@cache
def state_icon(icon: Icon, *, badge: bool = False, style: Style = Style.COLOUR) -> QIcon:
    """A state's icon in all sizes, with the mark that something needs attention if asked. Needs a QGuiApplication."""
    built = QIcon()
    for size in SIZES:
        built.addPixmap(state_pixmap(icon, size, badge=badge, style=style))
    return built


def state_pixmap(icon: Icon, size: int, *, badge: bool = False, style: Style = Style.COLOUR) -> QPixmap:
    """A state's icon, `size` pixels wide and high."""
    pixmap = _render(_styled(icon.value, style), size)
    if badge:
        _lay_badge(pixmap, size, style)
    return pixmap


def _styled(stem: str, style: Style) -> str:
    if style is Style.COLOUR:
        return _svg(stem)
    return _svg(f"{stem}-symbolic").replace("currentColor", _TONES[style])


@cache
def _svg(stem: str) -> str:
    return (resources.files("homeward.data") / "icons" / f"{stem}.svg").read_text(encoding="utf-8")


def _render(svg: str, size: int) -> QPixmap:
    pixmap = QPixmap(size, size)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    QSvgRenderer(QByteArray(svg.encode())).render(painter)
    painter.end()
    return pixmap


def _lay_badge(pixmap: QPixmap, size: int, style: Style) -> None:
    unit = size / 16
    x, y, radius = (unit * number for number in _BADGE)
    reach = radius + _GAP * unit
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_Clear)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor("black"))
    painter.drawEllipse(QRectF(x - reach, y - reach, 2 * reach, 2 * reach))
    painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_SourceOver)
    QSvgRenderer(QByteArray(_styled("badge-attention", style).encode())).render(painter)
    painter.end()
