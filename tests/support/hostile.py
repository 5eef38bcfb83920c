"""Input made to break readers: random bytes, valid files with edits, JSON with hostile values."""

import gc
import json
import os
import random
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

PATHS = ["../escape", "/etc/passwd", "a/../../b", "~/x", "C:\\x", "a\0b", "\ud800", "x" * 5000, ""]
_TEXT = st.text(max_size=20) | st.sampled_from(PATHS)
_NUMBERS = st.integers() | st.floats() | st.sampled_from([10**30, -1, 2**63, 1e308])
VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_LITERAL = [
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"1" * 5000,
    b"NaN",
    b"\xff\xfe\x00",
    b"\x80\x04cposix\nsystem\n",
    b'"\\ud800"',
    b"a\x00b",
    b"\xef\xbb\xbf[]",
    b'x,"y\n',
    b"'" * 100,
]


def near(valid: bytes):
    """Bytes: anything, known trouble, or `valid` with some bytes replaced, cut or doubled."""

    changed = st.integers(0, 2**32).map(lambda seed: edited(valid, seed))
    return st.binary(max_size=60) | st.sampled_from(_LITERAL) | changed


def edited(valid: bytes, seed: int) -> bytes:
    """`valid` with some bytes replaced, cut or doubled."""
    chance = random.Random(seed)
    content = bytearray(valid)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        kind, width = chance.randrange(4), chance.randint(1, 8)
        if kind == 0:
            content[at : at + width] = chance.randbytes(width)
        elif kind == 1:
            del content[at:]
        elif kind == 2:
            content[at:at] = content[at : at + 40 * width]
        else:
            content[at : at + 1] = chance.choice(_LITERAL)
    return bytes(content)


def json_near(valid):
    """JSON text like `valid`, with one value at any depth replaced, renamed or removed."""
    return st.tuples(st.integers(0, 2**32), VALUES).map(lambda p: dump(replaced(valid, *p)))


def dump(value) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def replaced(valid, seed, value):
    chance, copy = random.Random(seed), json.loads(json.dumps(valid))
    parent, key = None, None
    node = copy
    while isinstance(node, dict | list) and node and (parent is None or chance.random() < 0.75):
        parent, key = (
            node,
            chance.choice(list(node) if isinstance(node, dict) else range(len(node))),
        )
        node = node[key]
    if parent is None:
        return value
    kind = chance.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[str(value)[:20]] = parent.pop(key)
    else:
        parent[key] = value
    return copy


_WATCHED = {"pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"}
_watching: list[tuple[Path, list[str], set[int | None]]] = []


def _hook(event, arguments):
    if not _watching:
        return
    root, seen, elsewhere = _watching[-1]
    if threading.get_ident() in elsewhere:
        return
    if event in _WATCHED:
        seen.append(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if not path.startswith((str(root), sys.prefix, sys.base_prefix, str(_PACKAGE))):
            seen.append(f"open {path}")


_PACKAGE = Path(__file__).parents[2]
sys.addaudithook(_hook)


@contextmanager
def confined(root: Path):
    """Inside, no file outside `root` and the installation may be opened, and nothing be run."""
    seen: list[str] = []
    # What other tests left in this process is not watched: their threads, and their garbage, whose
    # finalizers may remove files. Threads that begin here are.
    elsewhere = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
    collecting = gc.isenabled()
    gc.disable()
    _watching.append((root.resolve(), seen, elsewhere))
    try:
        yield
    finally:
        _watching.pop()
        if collecting:
            gc.enable()
    assert not seen, seen
