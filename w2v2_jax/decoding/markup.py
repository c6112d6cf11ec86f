"""HTML from a tree of elements, so that whatever a transcript contains is text and never markup."""

from xml.etree.ElementTree import Element, tostring


def element(tag: str, *children: Element | str, **attributes: str) -> Element:
    """An element with `children` in their order; strings are text. An attribute `class_` is `class`."""
    made = Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def page(title: str, style: str, body: Element) -> str:
    """A whole HTML document that loads nothing from anywhere and runs no script."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; media-src data:"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", content=policy, **{"http-equiv": "Content-Security-Policy"}),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style),
    )
    return "<!DOCTYPE html>\n" + tostring(element("html", head, body, lang="en"), encoding="unicode", method="html")
