"""One page in two forms."""

from eval.report.document import Document, table


def page():
    made = Document("A <title>")
    made.heading("Section")
    made.text("With `code <x>` and **strong** words.")
    made.items(["one", "two"])
    made.table(["name", "value"], [["a", "1"], ["b & c", "2"]])
    made.picture("p.png", "a picture", plot=True)
    made.video("v.mp4", "a video")
    return made


def test_markdown():
    text = page().markdown()
    assert text.startswith("# A <title>\n\n## Section\n\nWith `code <x>`")
    assert "- one\n- two" in text and "| b & c | 2 |" in text and "![a picture](p.png)" in text
    assert "[a video](v.mp4)" in text and text.endswith("\n")


def test_html_escapes_and_keeps_marks():
    text = page().html()
    assert text.startswith("<!doctype html>") and "<title>A &lt;title&gt;</title>" in text
    assert "<code>code &lt;x&gt;</code>" in text and "<strong>strong</strong>" in text
    assert "<td>b &amp; c</td>" in text and '<video src="v.mp4" controls' in text and 'class="plot"' in text


def test_table():
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]
