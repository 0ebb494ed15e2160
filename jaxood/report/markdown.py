"""Markdown of reports: plain text made safe in it, and HTML made of it."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup


class Markdown(str):
    """Text that is Markdown already, and is not to be escaped."""

    __slots__ = ()


def escape(text: str) -> Markdown:
    """Write plain text in Markdown: on one line, and without a character that means markup."""
    text = _MARKUP.sub(r"\\\1", _SPACE.sub(" ", text))
    return Markdown(_START.sub(r"\1\\\2", text))


_SPACE = re.compile(r"\s+")
# An underscore inside a word is text. A parenthesis after a bracket would make a link.
_MARKUP = re.compile(r"([\\`*|<&]|\b_|_\b|(?<=\])\()")
# These make headings, quotations, fences and lists where a line begins with them.
_START = re.compile(r"^( ?)([#>~=]|[-+](?=[\s-]|$))")


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        title: its heading, as HTML.
        body: what follows the heading, as HTML.
    """

    title: Markup
    body: Markup


class Document(NamedTuple):
    """A page of which a heading of the first level is the title.

    Attributes:
        name: the title as plain text.
        title: the title as HTML.
        summary: what stands before the first section, as HTML.
        sections: the parts that headings of the second level begin.
    """

    name: str
    title: Markup
    summary: Markup
    sections: list[Section]


def block(key: str) -> Markdown:
    """Mark the place of a block of HTML in Markdown; `document` puts the block there."""
    return Markdown(f"\n\n~~~ {_BLOCK}{key}\n~~~\n\n")


def document(text: str, blocks: Mapping[str, str]) -> Document:
    """Turn Markdown into the HTML of a title, a summary and sections.

    Links, images and HTML of the text remain text.

    Args:
        text: Markdown that begins with a heading of the first level.
        blocks: HTML by the keys that `block` got.

    Raises:
        ValueError: if the text does not begin with such a heading, or has another one.
    """
    tokens = _MARKDOWN.parse(text)
    heads = [
        i for i, token in enumerate(tokens) if token.type == "heading_open" and token.level == 0
    ]
    if [i for i in heads if tokens[i].tag == "h1"] != [0]:
        raise ValueError("A page must begin with its title, “# …”, and have no other of its level.")
    env = {"blocks": blocks}

    def html(tokens: Sequence[Token]) -> Markup:
        return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, env))

    starts = [i for i in heads if tokens[i].tag == "h2"]
    ends = [*starts[1:], len(tokens)]
    # A heading is three tokens: its beginning, its text and its end.
    parts = [
        Section(html(tokens[i + 1 : i + 2]), html(tokens[i + 3 : end]))
        for i, end in zip(starts, ends, strict=False)
    ]
    name = "".join(token.content for token in tokens[1].children or ())
    summary = html(tokens[3 : starts[0] if starts else len(tokens)])
    return Document(name, html(tokens[1:2]), summary, parts)


_BLOCK = "block:"


def _fence(renderer, tokens, index, options, env) -> str:
    key = tokens[index].info.strip()
    if key.startswith(_BLOCK):
        return env["blocks"][key.removeprefix(_BLOCK)]
    return renderer.fence(tokens, index, options, env)


# Links and images are off because a report refers to nothing outside itself, and HTML because
# names of data sets come from anywhere.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).disable(["link", "image", "autolink"])
_MARKDOWN.add_render_rule("fence", _fence)
