"""Templates of pages: HTML escapes every text; Markdown escapes those that a template marks with `md`.

A page is one file that asks nothing of the network. Its template extends page.html.j2, which has the style, the script
that sorts and filters the table of classes, and the parts that pages share.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from smoothcert.pipeline.console.looks import markdown_text, plain

MAX_CHARACTERS = 500
"""Of a reason, a key or another text of a run."""


def render(package: str, template: str, values: Mapping[str, Any]) -> str:
    """Fill in a template of a package, such as `report.html.j2`; only HTML is escaped by itself."""
    loader = ChoiceLoader([PackageLoader(name) for name in (package, __package__)])
    escaped = template.endswith(".html.j2")
    environment = Environment(autoescape=escaped, loader=loader, undefined=StrictUndefined)  # noqa: S701
    environment.filters["md"] = markdown_text
    return environment.get_template(template).render(values)


def short(text: str) -> str:
    """A text of a run on one line, cut if it is very long."""
    return plain(text)[:MAX_CHARACTERS]
