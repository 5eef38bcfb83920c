"""HTML as a browser reads it, and words that would do harm in it if they were not text."""

from html.parser import HTMLParser

from hypothesis import strategies as st

NASTY = st.text(max_size=60) | st.sampled_from((
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<!--<script>", "]]>",
    '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "${alert(1)}", "&lt;", "\u2028",
))  # fmt: skip


class Read(HTMLParser):
    """Tags with their attributes, texts, and `data`: what the element of that id holds."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.data, self._inside = [], [], "", ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id", "")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        self.texts.append(data)
        self.data += data if self._inside == "data" else ""
