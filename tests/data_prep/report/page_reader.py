"""Reads a report strictly, and makes contexts for one."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser
from urllib.parse import urlsplit

from contextrl_verl.pairs import Context, Message

VOID = {"meta", "img", "br", "col", "link", "input", "hr"}
ELEMENTS = set(
    "html head meta title style body main h1 h2 h3 p dl div dt dd section header span b svg rect line text details "
    "summary table colgroup col thead tbody tr th td pre strong mark figure figcaption img".split()
)


class Page(HTMLParser):
    """Parses strictly: every element known and closed in its turn; collects text, attributes and comments."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.comments: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag in ELEMENTS, tag
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in ELEMENTS, tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def handle_comment(self, data):
        self.comments.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return "".join(self.text)


def read(path) -> Page:
    """Parse a page and check what must hold for every one."""
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert not page.comments
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "action", "srcset", "style"):
            value = attributes.get(name)
            assert value is None or (name == "src" and urlsplit(value).scheme == "data"), (tag, attributes)
    policy = page.all("meta")[1]["content"]
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{allowed}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "url(" not in style
    assert "@import" not in style
    return page


def messages(*contents, role="user") -> Context:
    # Not validated: a report must also show what a pair file would refuse.
    turns = [Message.model_construct(role=role, content=content) for content in contents]
    return Context.model_construct(kind="messages", messages=turns)


def text(content) -> Context:
    return Context.model_construct(kind="text", text=content)
