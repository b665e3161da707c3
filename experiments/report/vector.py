"""Drawings of matplotlib made part of a page: no id twice, no style that leaks, a title to be read out."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from markupsafe import Markup

from experiments.console import UserError

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
PIXELS_PER_POINT, LEGIBLE = 4 / 3, 0.7
LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
REFERENCE = re.compile(r"url\(#")
ELSEWHERE = re.compile(r"url\(\s*['\"]?(?!#)", re.IGNORECASE)
_DRAWN = """
circle clipPath defs desc ellipse g image line linearGradient marker mask path pattern polygon polyline
radialGradient rect stop svg symbol text title tspan use
"""
DRAWN = {f"{{{SVG}}}{tag}" for tag in _DRAWN.split()}

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def inline(path: Path, name: str, title: str) -> Markup:
    """The drawing at `path` as an `<svg>` element that scales as far as it stays legible.

    Its ids begin with `name`, and coordinates are kept to a hundredth of a point. What is no drawing, such as
    scripts, is left out, and so is what lies elsewhere. Raises `UserError` where there is no such drawing.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as problem:
        raise UserError(f"Cannot read {path}: repeat the experiment that drew it.") from problem
    if root.tag != f"{{{SVG}}}svg":
        raise UserError(f"Cannot read {path}: it is no drawing; repeat the experiment that drew it.")
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag not in DRAWN:
                parent.remove(child)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if is_safe(key, value):
                element.set(key, renamed(key, value, name))
            else:
                del element.attrib[key]
    try:
        width = float(root.attrib.pop("width").removesuffix("pt")) * PIXELS_PER_POINT
    except (KeyError, ValueError) as problem:
        raise UserError(f"Cannot read {path}: it has no width in points.") from problem
    root.attrib.pop("height", None)
    style = f"width: {width:.0f}px; min-width: {LEGIBLE * width:.0f}px"
    root.attrib |= {"role": "img", "style": style, "aria-labelledby": f"{name}-title"}
    label = ElementTree.Element(f"{{{SVG}}}title", {"id": f"{name}-title"})
    label.text = title
    root.insert(0, label)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def is_safe(key: str, value: str) -> bool:
    """Whether an attribute neither runs anything nor loads anything from elsewhere."""
    if key in ("href", f"{{{XLINK}}}href"):
        return value.startswith(("#", "data:image/png;", "data:image/jpeg;"))
    return not key.lower().startswith("on") and not ELSEWHERE.search(value)


def renamed(key: str, value: str, name: str) -> str:
    """An attribute whose id, or whose references to ids, begin with `name`."""
    if key == "id":
        return f"{name}-{value}"
    if key in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key == "d":
        return LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", value)
    return REFERENCE.sub(f"url(#{name}-", value)
