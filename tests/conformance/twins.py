"""What the differential tests share: a sidecar of either runtime, and facts of one compared with those of the other.
OTHER_DAPRD = path of the reference's daprd."""
import http.client, os, re, sys

import grpc
import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from conftest import Daprd
from side_by_side import meaning
from test_invoke import details

OTHER = os.environ.get("OTHER_DAPRD", "")
needs_other = pytest.mark.skipif(not os.access(OTHER, os.X_OK), reason="OTHER_DAPRD does not name a daprd to compare with")
KINDS = ("other", "ours")


def sidecar(kind, folder, resources=(), start=True, healthy=True, drop=(), **kw):
    """A sidecar of "ours" or "other". drop: starts of the usual arguments that are left out."""
    folder.mkdir(exist_ok=True)
    d = Daprd(folder, resources, **kw)
    for text in drop:
        d.argv.remove(next(a for a in d.argv if a.startswith(text)))
    if kind == "other":
        d.argv[0] = OTHER
        d.env |= {"HOME": str(folder), "PATH": os.environ.get("PATH", "")}
    return d.start(healthy) if start else d


def stop(kind, d):
    """The reference's may hang once something in it has panicked: that is not what is tested."""
    if kind == "other" and d.proc.poll() is None:
        d.proc.kill()
        d.proc.wait()
    d.close()


def ask(d, method, path, body=None, headers=(), port=None):
    """(status, body as JSON if it is any, content type)"""
    c = http.client.HTTPConnection("127.0.0.1", port or d.http, timeout=20)
    try:
        c.request(method, path, body, dict(headers))
        r = c.getresponse()
        return r.status, meaning(r.read()), r.headers["content-type"]
    except (http.client.HTTPException, OSError) as e:
        return type(e).__name__,
    finally:
        c.close()


def fault(e):
    shown = [(d.type_url, sorted(d.value.split(b"\x1a")) if d.type_url.endswith("ErrorInfo") else d.value) for d in details(e)]  # its map comes in any order
    return e.code().name, str(meaning((e.details() or "").encode())), shown


def tried(call, *a, timeout=20, **kw):
    """What a gRPC call gives: its message as text, or how it failed."""
    try:
        return meaning(str(call(*a, timeout=timeout, **kw)).encode())
    except grpc.RpcError as e:
        return fault(e)


def near(text, other):
    """A text from where it begins to differ."""
    same = len(os.path.commonprefix((text, other)))
    return text if same < 120 else "..." + text[same - 60:]


def compare(want, got, known=()):
    """Facts by name; known: (pattern of names, reason)."""
    found = {}
    for k in list(want) + [k for k in got if k not in want]:
        a, b = repr(want.get(k, "none")), repr(got.get(k, "none"))
        if a != b and not any(re.fullmatch(p, k) for p, _ in known):
            found.setdefault((near(a, b), near(b, a)), []).append(k)
    assert not found, "\n".join(f"{', '.join(names)}:\n  reference {a}\n  here      {b}" for (a, b), names in found.items())
