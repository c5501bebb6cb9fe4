"""
Random rules and requests out of so few words that they often meet.
"""

from hypothesis import strategies as st

from a3sgw.message import RequestHead, make_field
from a3sgw.route.match import ConnectionFacts

HOSTS = ["a.test", "b.test", "x.a.test", "y.a.test", "x.y.a.test", "c"]
HOST_ARGUMENTS = [*HOSTS, "*.test", "*.a.test", "*.y.a.test", "a.test:8080", "*.test:8080", "A.Test.", "[::1]", "[::1]:8080"]
PATHS = ["/", "/a", "/ab", "/a/", "/a/b", "/a/b/c", "/b", "/b/a", "/c/d"]
ADDRESSES = [b"\x0a\0\0\1", b"\x0a\1\0\1", b"\xc0\0\2\7", bytes(15) + b"\1", b""]


def make_head(host="", path="/", method="GET", query="", fields=(), client=b""):
    head = RequestHead(method.encode(), path.encode())
    authority = host.encode()
    head.authority = authority
    name, colon, port = authority.rpartition(b":")
    head.host = (name if colon and port.isdigit() else authority).lower().removesuffix(b".")
    head.query = query.encode()
    head.fields = [make_field(name.encode(), value.encode()) for name, value in fields]
    head.client_packed = client
    return head


def _several(name, values, most=3):
    arguments = st.lists(st.sampled_from(values), min_size=1, max_size=most)
    return arguments.map(lambda chosen: f"{name}({', '.join(f'`{value}`' for value in chosen)})")


def _combine(matchers):
    """
    Return rules of a few levels; every compound is in parentheses, as a text may have them anywhere.
    """
    return st.recursive(
        matchers,
        lambda inner: st.one_of(
            inner.map(lambda rule: f"!({rule})"),
            st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) && ({pair[1]})"),
            st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) || ({pair[1]})"),
        ),
        max_leaves=6,
    )


_NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "::1"]
_HTTP_MATCHERS = st.one_of(
    # Named twice, because hosts and paths are what the indexes are about.
    _several("Host", HOST_ARGUMENTS),
    _several("Host", HOST_ARGUMENTS),
    _several("Path", PATHS),
    _several("PathPrefix", PATHS),
    _several("PathPrefix", PATHS),
    _several("PathSegments", PATHS),
    _several("Method", ["GET", "post"]),
    _several("ClientIP", _NETWORKS),
    st.sampled_from(
        [
            "HostRegexp(`^[ab]`)",
            "HostRegexp(`test$`)",
            "PathRegexp(`b$`)",
            "PathRegexp(`^/a/`)",
            "Header(`X-A`, `1`)",
            "Header(`X-A`, `2`)",
            "HeaderRegexp(`x-a`, `^[12]$`)",
            "Query(`q`)",
            "Query(`q`, `1`)",
            "QueryRegexp(`q`, `[23]`)",
        ]
    ),
)
_TCP_MATCHERS = st.one_of(
    _several("HostSNI", [*HOSTS, "*.test", "*.a.test", "*"]),
    _several("HostSNI", [*HOSTS, "*.test", "*.a.test"]),
    _several("ALPN", ["h2", "http/1.1"]),
    _several("ClientIP", _NETWORKS),
    st.sampled_from(["HostSNIRegexp(`^[ab]`)", "HostSNIRegexp(`.*`)"]),
)

HTTP_RULES = _combine(_HTTP_MATCHERS)
TCP_RULES = _combine(_TCP_MATCHERS)

# What most routers look like; many of them on one host are what divides a shelf by path.
PLAIN_RULES = st.one_of(
    st.builds(
        "Host(`{}`) && {}(`{}`)".format,
        st.sampled_from(["a.test", "b.test", "*.test"]),
        st.sampled_from(["PathPrefix", "Path", "PathSegments"]),
        st.sampled_from(PATHS),
    ),
    st.sampled_from(PATHS).map(lambda path: f"PathPrefix(`{path}`)"),
)

HEADS = st.builds(
    make_head,
    host=st.sampled_from([*HOSTS, "", "a.test:8080", "x.test:8080", "A.TEST.", "[::1]:8080", "[::1]"]),
    path=st.sampled_from([*PATHS, "/a/bc", "/d"]),
    method=st.sampled_from(["GET", "POST", "get"]),
    query=st.sampled_from(["", "q", "q=1", "r=1&q=2", "%71=3"]),
    fields=st.lists(st.tuples(st.just("X-A"), st.sampled_from(["1", "2", "3"])), max_size=2),
    client=st.sampled_from(ADDRESSES),
)

CONNECTIONS = st.builds(
    ConnectionFacts,
    server_name=st.sampled_from([None, *[host.encode() for host in HOSTS]]),
    protocols=st.lists(st.sampled_from([b"h2", b"http/1.1"]), max_size=2, unique=True).map(tuple),
    client_packed=st.sampled_from(ADDRESSES),
)
