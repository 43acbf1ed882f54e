"""Pages from templates: text stays text, and no place stays empty unseen."""

from html.parser import HTMLParser

import jinja2
import pytest

from svco.basics.html import render


def test_text_stays_text_in_the_layout(tmp_path):
    """Also in an attribute, in a file that the template includes, and where it looks like a template itself."""
    (tmp_path / "part.html").write_text("<i>{{ text }}</i>")
    (tmp_path / "page.html.j2").write_text(
        '{% extends "base.html.j2" %}\n'
        '{% block content %}<p title="{{ text }}">{{ text }}</p>{% include "part.html" %}{% endblock %}\n'
    )
    text = '</p><script>"it\'s" & &amp;</script> {{ title }} {% if %} {# #}\n\n'
    found = {"tags": [], "titles": [], "text": ""}

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found["tags"].append(tag)
            found["titles"] += [value for name, value in attrs if name == "title"]

        def handle_data(self, data):
            found["text"] += data

    Reader().feed(render(tmp_path / "page.html.j2", title=text, text=text))
    assert found["tags"] == ["html", "head", "meta", "meta", "title", "style", "body", "p", "i"]
    assert found["titles"] == [text]
    assert found["text"].count(text) == 3


def test_a_value_that_is_missing_is_an_error(tmp_path):
    template = tmp_path / "page.html.j2"
    template.write_text('{% extends "base.html.j2" %}{% block content %}{{ pair.query }}{% endblock %}')
    with pytest.raises(jinja2.UndefinedError, match="query"):
        render(template, title="title", pair={})
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render(template, pair={"query": "?"})
