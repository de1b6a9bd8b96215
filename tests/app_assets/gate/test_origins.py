"""Whose pages may talk to the server: RFC 6454 and 7230, proxies of all kinds, and strangers."""

import pytest

from app_assets.gate.origins import Origins


HONEST = {
    "a program": {"host": "a.b:1"},
    "itself": {"host": "a.b:1", "origin": "http://a.b:1"},
    "another case": {"host": "A.b", "origin": "https://a.B"},
    "default port named": {"host": "a.b:443", "origin": "https://a.b"},
    "default port of http": {"host": "a.b:80", "origin": "http://a.b"},
    "port lost on the way": {"host": "a.b", "origin": "http://a.b:8080"},
    "behind a proxy": {"host": "inner:7860", "x-forwarded-host": "a.b", "origin": "https://a.b"},
    "behind two": {"host": "inner", "x-forwarded-host": "a.b, middle.b", "origin": "https://a.b"},
    "behind one that follows RFC 7239": {
        "host": "inner",
        "forwarded": 'for=1.2.3.4;proto=https;host="a.b:8443", for=5.6.7.8',
        "origin": "https://a.b:8443",
    },
    "no forwarded host, and a browser that knows": {
        "host": "127.0.0.1:7860",
        "origin": "https://a.b",
        "sec-fetch-site": "same-origin",
    },
    "an address of version 6": {"host": "[::1]:7860", "origin": "http://[::1]:7860"},
}
STRANGERS = {
    "longer name": {"host": "a.b", "origin": "https://a.b.evil"},
    "shorter name": {"host": "x.a.b", "origin": "https://a.b"},
    "no name": {"host": "a.b", "origin": "null"},
    "another port": {"host": "a.b:7860", "origin": "http://a.b:3000"},
    "another port than the default": {"host": "a.b:443", "origin": "https://a.b:3000"},
    "name in the user part": {"host": "a.b", "origin": "https://a.b@evil.example"},
    "name in the path": {"host": "a.b", "origin": "https://evil.example/a.b"},
    "nothing": {"host": "", "origin": "https://"},
    "no port of this world": {"host": "a.b", "origin": "https://a.b:99999999"},
    "no host of this world": {"host": "[", "origin": "https://a.b"},
    "one scheme that nobody knows": {"host": "a.b", "origin": "file://a.b"},
    "browser that knows": {"host": "a.b", "origin": "https://a.b", "sec-fetch-site": "cross-site"},
    "sister site": {"host": "a.b", "origin": "https://c.b", "sec-fetch-site": "same-site"},
}


@pytest.mark.parametrize("headers", HONEST.values(), ids=HONEST)
def test_honest_ways(headers):
    assert Origins().trusts(headers)


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS)
def test_strangers(headers):
    assert not Origins().trusts(headers)
    assert Origins(["*"]).trusts(headers)


def test_named_origins_are_let_in_and_no_others():
    origins = Origins(["https://A.org", "http://c.org:8080"])
    for text in ("https://a.org", "https://a.org:443", "http://c.org:8080"):
        assert origins.trusts({"host": "inner", "origin": text, "sec-fetch-site": "cross-site"})
    for text in ("http://a.org", "https://c.org:8080", "https://b.org", "null"):
        assert not origins.trusts({"host": "inner", "origin": text})


@pytest.mark.parametrize("wrong", ["a.org", "https://", "https://a.org/path", "null", ""])
def test_what_is_no_origin_is_named(wrong):
    with pytest.raises(ValueError, match="allowed_origins: "):
        Origins(["https://fine.org", wrong])
