from xml.etree.ElementTree import tostring

from w2v2_jax.decoding.markup import element, page


def html(made):
    return tostring(made, encoding="unicode", method="html")


def test_text_and_elements_keep_their_order():
    made = element("p", "one ", "two ", element("b", "three"), " four", " five", element("i"))
    assert html(made) == "<p>one two <b>three</b> four five<i></i></p>"


def test_markup_in_text_and_attributes_is_escaped():
    made = element("p", element("b"), "<script>&", title='">&')
    assert html(made) == '<p title="&quot;&gt;&amp;"><b></b>&lt;script&gt;&amp;</p>'


def test_class_is_written_with_an_underscore():
    assert html(element("p", class_="note")) == '<p class="note"></p>'


def test_a_page_has_a_title_and_a_style_and_may_load_nothing_but_its_own_sound():
    made = page("a < b", "p > b {}", element("body", "text"))
    assert made.startswith("<!DOCTYPE html>\n<html")
    assert "<title>a &lt; b</title><style>p > b {}</style></head><body>text</body>" in made
    assert "default-src 'none'; style-src 'unsafe-inline'; media-src data:" in made
