"""Invents calls of functions that give a value or a meaningful error. Runs inside the scratch folder.

A request is ``{"qualname", "package", "literals", "seed", "tries", "keep", "seconds"}``, the answer a list of
``{"imports", "call", "outcome"}``.
"""

import builtins
import enum
import inspect
import random
import re
import sys

from observe import observe

_WORDS = ["alpha", "Beta gamma", "the quick brown fox", "a-b_c", "x", "Hello, World!", "one two  three", "MixedCase"]
_TEXTS = [
    *_WORDS,
    "",
    "42",
    "3.5",
    "-7",
    "true",
    "a,b;c",
    "key=value",
    "path/to/file.txt",
    "line one\nline two\n\nline four",
    "  padded  ",
    "<b>bold</b> & co",
    "http://example.com/a?b=1",
    "#ff8800",
    "1.2.3",
    "2024-02-29",
    "naïve café",
    "[red]text[/red]",
    "日本語",
    "user@example.com",
    "a\tb",
    "'quoted'",
    "%d items",
    "{name}",
    "...",
    "aaaabbbb",
]
_INTS = [0, 1, 2, 3, 4, 5, 7, 8, 10, 12, 16, 31, 60, 80, 100, 255, 256, 999, 1000, 1024, 5000, 123456, 10**9, -1, -5]
_FLOATS = [0.0, 0.25, 0.5, 1.0, 1.5, 2.75, 10.0, 59.5, 99.9, 1000.0, 12345.678, -2.5]
_LISTS = [
    "[]",
    "[1]",
    "[3, 1, 2]",
    "[1, 2, 3, 4, 5, 6, 7]",
    "['b', 'a', 'C']",
    "['x', '', 'yy', 'zzz']",
    "[0, None, 1]",
    "[1.5, 2.5]",
    "[(1, 'a'), (2, 'b')]",
    "[[1, 2], [3]]",
    "[{'n': 2}, {'n': 1}]",
    "[5, 5, 2, 2, 9]",
    "range(6)",
]
_DICTS = ["{}", "{'a': 1}", "{'b': 2, 'a': 1, 'C': 3}", "{'x': 'one two', 'y': None}", "{1: 'i', 2: 'ii'}"]
_TUPLES = ["()", "(1,)", "(1, 2)", "(3, 1, 2)", "(1, 2, 3, 4)", "('a', 'b')", "(0.5, 0.25, 0.75)", "(255, 0, 128)"]
_CALLABLES = ["len", "str", "repr", "abs", "lambda *a: a", "lambda x: x", "str.upper", "bool"]
POOLS = {
    "str": [repr(text) for text in _TEXTS],
    "int": [repr(number) for number in _INTS],
    "float": [repr(number) for number in _FLOATS],
    "bool": ["True", "False"],
    "list": _LISTS,
    "dict": _DICTS,
    "tuple": _TUPLES,
    "bytes": ["b''", "b'abc'", "b'line\\r\\n'", "b'\\x00\\xff'", "b'key: value'"],
    "set": ["set()", "{1, 2}", "{'a'}"],
    "callable": _CALLABLES,
    "None": ["None"],
}
_ANY = ["str", "str", "int", "list", "float", "tuple", "dict", "bool"]
_ANNOTATED = [
    (r"\bstr\b|\bText\b|AnyStr", "str"),
    (r"\bint\b|Integral", "int"),
    (r"\bfloat\b|Real|Number", "float"),
    (r"\bbool\b", "bool"),
    (r"\bbytes\b|bytearray", "bytes"),
    (r"[Ll]ist\b|Sequence|Iterable|Iterator|Collection", "list"),
    (r"[Dd]ict\b|Mapping", "dict"),
    (r"[Tt]uple\b", "tuple"),
    (r"\b[Ss]et\b|AbstractSet", "set"),
    (r"Callable", "callable"),
    (r"\bNone\b|Optional", "None"),
]
_NAMED = [
    (r"^(is_|has_|no_|allow|use_|with_|strict|ignore)|flag|reverse|ascii", "bool"),
    (
        r"count|size|width|length|limit|index|offset|pos|depth|level|start|stop|end|step|num|max|min|total|^[nijk]$",
        "int",
    ),
    (r"text|str|name|line|value|string|word|path|url|key|sep|prefix|suffix|pattern|title|label|encod|^[sc]$", "str"),
    (r"list|items|seq|iter|values|lines|args|rows|columns|nodes|elements|parts|words", "list"),
    (r"dict|map|options|kwargs|attrs", "dict"),
    (r"func|callback|predicate|^fn?$", "callable"),
    (r"ratio|rate|factor|seconds|elapsed|weight|prob", "float"),
    (r"pair|point|range|span|color|rgb|shape", "tuple"),
    (r"data|bytes|buf", "bytes"),
]


class Inventor:
    """Draws argument expressions for one function."""

    def __init__(self, request, module):
        self.random = random.Random(request["seed"])
        self.module = module
        self.package = request["package"]
        self.texts = [repr(item) for item in request["literals"] if isinstance(item, str)]
        self.numbers = [
            repr(item + shift) for item in request["literals"] if isinstance(item, int) for shift in (-1, 0, 1)
        ]
        self.imports = set()
        self.sparse = 0.5

    def class_named(self, name):
        """A class of the library that an annotation names."""
        places = [self.module, *(sys.modules[m] for m in sorted(sys.modules) if m.split(".")[0] == self.package)]
        for place in places:
            found = getattr(place, name, None)
            if inspect.isclass(found) and found.__module__.split(".")[0] == self.package:
                return found
        return None

    def instance(self, cls, depth):
        """An expression that makes an instance, with the import it needs."""
        if depth > 2 or inspect.isabstract(cls):
            return None
        self.imports.add(f"from {cls.__module__} import {cls.__qualname__}")
        if issubclass(cls, enum.Enum):
            return f"{cls.__qualname__}.{self.random.choice([member.name for member in cls])}"
        return self.call(cls, cls.__qualname__, depth + 1)

    def value(self, parameter, depth):
        """An expression for one parameter."""
        annotation = parameter.annotation
        kinds = []
        if annotation is not parameter.empty:
            text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
            names = re.findall(r"[A-Za-z_]\w*", text)
            classes = [found for found in map(self.class_named, names) if found is not None]
            kinds = [kind for pattern, kind in _ANNOTATED if re.search(pattern, text)]
            if classes and (not kinds or self.random.random() < 0.5):
                made = self.instance(self.random.choice(classes), depth)
                if made is not None:
                    return made
        if not kinds:
            kinds = [kind for pattern, kind in _NAMED if re.search(pattern, parameter.name.lower())] * 3
            if parameter.default not in (parameter.empty, None):
                kinds += [type(parameter.default).__name__] * 4
            kinds += _ANY
            found = self.class_named("".join(part.title() for part in parameter.name.split("_")))
            if found is not None and self.random.random() < 0.6:
                made = self.instance(found, depth)
                if made is not None:
                    return made
        return self.of_kind(self.random.choice([kind for kind in kinds if kind in POOLS] or _ANY))

    def of_kind(self, kind):
        """A constant; often one that the function's own text compares with."""
        own = {"str": self.texts, "int": self.numbers}.get(kind)
        if own and self.random.random() < 0.35:
            return self.random.choice(own)
        return self.random.choice(POOLS[kind])

    def call(self, function, name, depth=0, skip_first=False):
        """A call expression, or None when the signature is unknown."""
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (ValueError, TypeError):
            return None
        if skip_first:
            parameters = parameters[1:]
        arguments, by_name = [], False
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                if not by_name:
                    arguments += [self.value(parameter, depth) for _ in range(self.random.randrange(4))]
                by_name = True
                continue
            if parameter.default is not parameter.empty and self.random.random() < (
                self.sparse if depth == 0 else 0.85
            ):
                by_name = True
                continue
            text = self.value(parameter, depth)
            if by_name or parameter.kind is parameter.KEYWORD_ONLY:
                if parameter.kind is parameter.POSITIONAL_ONLY:
                    continue
                text = f"{parameter.name}={text}"
            arguments.append(text)
        return f"{name}({', '.join(arguments)})"


def drawn(inventor, owner, function, name):
    """One random call with its imports."""
    inventor.imports = set()
    module = inventor.module.__name__
    if owner is None:
        inventor.imports.add(f"from {module} import {name}")
        call = inventor.call(function, name)
    else:
        raw = inspect.getattr_static(owner, name)
        if isinstance(raw, classmethod | staticmethod):
            inventor.imports.add(f"from {module} import {owner.__name__}")
            call = inventor.call(getattr(owner, name), f"{owner.__name__}.{name}")
        else:
            made = inventor.instance(owner, 0)
            if made is None:
                return None
            if isinstance(raw, property):
                call = f"{made}.{name}"
            else:
                call = inventor.call(function, f"{made}.{name}", skip_first=True)
    return None if call is None else {"imports": sorted(inventor.imports), "call": call}


def located(module, qualname):
    """``(owner class or None, function)`` of a dotted name; None when it is not there or something else."""
    *owners, name = qualname.split(".")
    place = module
    for owner in owners:
        place = getattr(place, owner, None)
    try:
        raw = inspect.getattr_static(place, name)
    except AttributeError:
        return None
    function = getattr(raw, "fget", None) or getattr(raw, "__func__", raw)
    if not callable(function) or isinstance(function, type):
        return None
    return (place if owners else None), function


def invent(request, module):
    """The calls worth keeping, each with its outcome; none for a function that works outside the folder or for ever."""
    place = located(module, request["qualname"])
    if place is None:
        return []
    inventor = Inventor(request, module)
    name = request["qualname"].split(".")[-1]
    kept, seen, times, bad, fresh = [], set(), {}, 0, 0
    for tried in range(request["tries"]):
        if tried == request["tries"] // 8 and len(kept) < 4:
            return []
        if tried - fresh > request["tries"] // 6:
            break
        # Calls that leave most defaults alone tell bugs apart; calls that give everything reach further.
        inventor.sparse = (0.3, 0.7, 0.95)[tried % 3]
        item = drawn(inventor, *place, name)
        if item is None or item["call"] in seen or len(item["call"]) > 200:
            continue
        seen.add(item["call"])
        names = {"__builtins__": builtins}
        try:
            for line in item["imports"]:
                exec(line, names)
        except Exception:
            continue
        outcome = observe(item["call"], names, request["seconds"])
        if outcome["text"] in ("refused", "timeout"):
            bad += 1
            if bad > 2:
                return []
        if outcome["kind"] == "bad" or outcome.get("misuse"):
            continue
        times[outcome["text"]] = times.get(outcome["text"], 0) + 1
        if times[outcome["text"]] == 1:
            fresh = tried
        if times[outcome["text"]] <= 6:
            kept.append({**item, "outcome": outcome})
        if len(kept) >= request["keep"]:
            break
    return kept
