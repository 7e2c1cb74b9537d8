# SPDX-License-Identifier: GPL-2.0-or-later
"""The icons, measured at the size at which they must be read."""

from importlib import resources
from itertools import combinations
from xml.etree import ElementTree

import pytest
from PySide6.QtGui import QColor, QImage

from devtools.draw_icons import DRAWINGS, colour, symbolic
from homeward.gui.pixmaps import SIZES, Style, application_icon, state_icon, state_pixmap
from homeward.gui.view_model import Icon

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("qapp")]

LIGHT_PANEL, DARK_PANEL = QColor("#f6f5f4"), QColor("#2b2b2b")


def image(icon: Icon, size: int = 16, *, style: Style = Style.COLOUR, badge: bool = False) -> QImage:
    return (
        state_pixmap(icon, size, style=style, badge=badge)
        .toImage()
        .convertToFormat(QImage.Format.Format_ARGB32)
    )


def pixels(picture: QImage) -> list[QColor]:
    return [picture.pixelColor(x, y) for y in range(picture.height()) for x in range(picture.width())]


def luminance(shade: QColor) -> float:
    def linear(value: float) -> float:
        return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(shade.redF()) + 0.7152 * linear(shade.greenF()) + 0.0722 * linear(shade.blueF())


def contrast(one: QColor, other: QColor) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def shape(icon: Icon) -> list[float]:
    """Coverage per pixel of the one-coloured icon at 16 px: what is left to somebody who sees no colours."""
    return [pixel.alphaF() for pixel in pixels(image(icon, style=Style.DARK_ON_LIGHT))]


def test_the_files_are_what_the_drawing_program_draws():
    folder = resources.files("homeward.data") / "icons"
    for stem in DRAWINGS:
        assert (folder / f"{stem}.svg").read_text(encoding="utf-8") == colour(stem), stem
        assert (folder / f"{stem}-symbolic.svg").read_text(encoding="utf-8") == symbolic(stem), stem


def test_there_is_a_drawing_for_every_icon_and_no_other_but_the_badge():
    assert {icon.value for icon in Icon} | {"badge-attention"} == set(DRAWINGS)


@pytest.mark.parametrize("stem", [*sorted(DRAWINGS), "homeward"])
def test_files_are_svg_with_a_title(stem):
    root = ElementTree.fromstring(  # noqa: S314 - our own file
        (resources.files("homeward.data") / "icons" / f"{stem}.svg").read_bytes()
    )
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text


@pytest.mark.parametrize(("one", "other"), list(combinations(Icon, 2)))
def test_any_two_differ_in_shape_at_16_pixels(one, other):
    differing = sum(abs(a - b) for a, b in zip(shape(one), shape(other), strict=True))
    assert differing >= 12, f"only {differing:.1f} of 256 pixels differ"


@pytest.mark.parametrize("panel", [LIGHT_PANEL, DARK_PANEL], ids=["light", "dark"])
@pytest.mark.parametrize("icon", Icon)
def test_each_stands_out_from_the_panel(icon, panel):
    seen = [pixel for pixel in pixels(image(icon)) if pixel.alphaF() > 0.95 and contrast(pixel, panel) >= 3]
    assert len(seen) >= 30, f"{len(seen)} of 256 pixels with a contrast of 3:1"


@pytest.mark.parametrize("icon", Icon)
def test_white_glyphs_stand_out_from_their_house(icon):
    shades = {pixel.name() for pixel in pixels(image(icon, 64)) if pixel.alphaF() == 1}
    if "#ffffff" in shades:
        assert any(contrast(QColor(shade), QColor("white")) >= 3 for shade in shades - {"#ffffff"})


@pytest.mark.parametrize("icon", Icon)
def test_colour_and_symbolic_have_the_same_outline(icon):
    """The glyph is white in one and a hole in the other; where colour is empty, symbolic is too."""
    for whole, cut in zip(
        pixels(image(icon, 64)), pixels(image(icon, 64, style=Style.DARK_ON_LIGHT)), strict=True
    ):
        if whole.alphaF() == 0:
            assert cut.alphaF() < 0.05


def test_symbolic_takes_the_tone_of_the_panel():
    light = {
        pixel.name()
        for pixel in pixels(image(Icon.HOME, 64, style=Style.LIGHT_ON_DARK))
        if pixel.alphaF() == 1
    }
    assert light == {"#eeeeec"}


def test_the_tray_gets_pixmaps_in_every_size_and_no_theme_name():
    for icon in Icon:
        built = state_icon(icon)
        assert [size.width() for size in built.availableSizes()] == list(SIZES)
        assert built.name() == ""
    assert not application_icon().isNull()


def test_the_badge_changes_the_picture_and_stands_off_it():
    plain, marked = image(Icon.TRUSTED_C, 64), image(Icon.TRUSTED_C, 64, badge=True)
    assert plain != marked
    assert marked.pixelColor(36, 46).name() == "#dd6000"
    assert marked.pixelColor(46, 27).alphaF() == 0, "no clear rim between house and badge"


def test_one_icon_is_one_object_so_that_nothing_is_drawn_twice():
    assert state_icon(Icon.HOME) is state_icon(Icon.HOME)
