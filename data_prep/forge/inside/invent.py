"""Invents calls of functions that give a value or a meaningful error. Runs in the box, within observe.py."""

import enum
import inspect
import random
import re
import sys

TRIES, KEPT, LONGEST = 480, 80, 200
MISUSE = {"TypeError", "AttributeError", "NameError", "UnboundLocalError", "RecursionError", "MemoryError"}
TEXTS = (
    *("alpha", "Beta gamma", "the quick brown fox", "a-b_c", "x", "Hello, World!", "one two  three", "MixedCase", ""),
    *("42", "3.5", "-7", "true", "a,b;c", "key=value", "path/to/file.txt", "line one\nline two\n\nline four", "a\tb"),
    *("  padded  ", "<b>bold</b> & co", "http://example.com/a?b=1", "#ff8800", "1.2.3", "2024-02-29", "naïve café"),
    *("[red]text[/red]", "日本語", "user@example.com", "'quoted'", "%d items", "{name}", "...", "aaaabbbb"),
)
INTS = (0, 1, 2, 3, 4, 5, 7, 8, 10, 12, 16, 31, 60, 80, 100, 255, 256, 999, 1000, 1024, 5000, 123456, 10**9, -1, -5)
LISTS = (
    "[] | [1] | [3, 1, 2] | [1, 2, 3, 4, 5, 6, 7] | ['b', 'a', 'C'] | ['x', '', 'yy'] | [(1, 'a'), (2, 'b')] | range(6)"
)
# Kind -> what an annotation of it holds, what a parameter of it is called, expressions.
KINDS = {
    "str": (
        r"\bstr\b|\bText\b|AnyStr",
        r"text|str|name|line|value|word|path|url|key|sep|prefix|suffix|pattern|title|label|encod|^[sc]$",
        [repr(text) for text in TEXTS],
    ),
    "int": (
        r"\bint\b|Integral",
        r"count|size|width|length|limit|index|offset|pos|depth|level|start|stop|end|step|num|max|min|total|^[nijk]$",
        [repr(number) for number in INTS],
    ),
    "float": (
        r"\bfloat\b|Real|Number",
        r"ratio|rate|factor|seconds|elapsed|weight|prob",
        "0.0 | 0.25 | 0.5 | 1.0 | 1.5 | 2.75 | 10.0 | 59.5 | 99.9 | 1000.0 | 12345.678 | -2.5".split(" | "),
    ),
    "bool": (r"\bbool\b", r"^(is_|has_|no_|allow|use_|with_|strict|ignore)|flag|reverse|ascii", ["True", "False"]),
    "list": (
        r"[Ll]ist\b|Sequence|Iterable|Iterator|Collection",
        r"list|items|seq|iter|values|lines|args|rows|columns|nodes|elements|parts|words",
        LISTS.split(" | "),
    ),
    "dict": (
        r"[Dd]ict\b|Mapping",
        r"dict|map|options|kwargs|attrs",
        "{} | {'a': 1} | {'b': 2, 'a': 1, 'C': 3} | {'x': 'one two', 'y': None} | {1: 'i', 2: 'ii'}".split(" | "),
    ),
    "tuple": (
        r"[Tt]uple\b",
        r"pair|point|range|span|color|rgb|shape",
        "() | (1,) | (1, 2) | (3, 1, 2) | (1, 2, 3, 4) | ('a', 'b') | (0.5, 0.25, 0.75) | (255, 0, 128)".split(" | "),
    ),
    "bytes": (r"\bbytes\b|bytearray", r"data|bytes|buf", [r"b''", r"b'abc'", r"b'line\r\n'", r"b'\x00\xff'"]),
    "set": (r"\b[Ss]et\b|AbstractSet", r"^set", ["set()", "{1, 2}", "{'a'}"]),
    "callable": (r"Callable", r"func|callback|predicate|^fn?$", ["len", "str", "repr", "abs", "lambda *a: a", "bool"]),
    "None": (r"\bNone\b|Optional", r"^none$", ["None"]),
}
ANY = ["str", "str", "int", "list", "float", "tuple", "dict", "bool"]


class Inventor:
    """Draws argument expressions; ``imports`` collects the lines that the call needs."""

    def __init__(self, module, literals, draw):
        self.module, self.draw, self.imports, self.sparse = module, draw, set(), 0.5
        self.package = module.__name__.partition(".")[0]
        texts = [repr(item) for item in literals if isinstance(item, str)]
        numbers = [repr(item + by) for item in literals if isinstance(item, int) for by in (-1, 0, 1)]
        self.own = {"str": texts, "int": numbers}

    def class_named(self, name):
        """A class of the library that an annotation names."""
        places = [self.module, *(sys.modules[m] for m in sorted(sys.modules) if m.split(".")[0] == self.package)]
        found = (getattr(place, name, None) for place in places)
        return next((c for c in found if inspect.isclass(c) and c.__module__.split(".")[0] == self.package), None)

    def instance(self, cls, depth):
        """An expression that makes an instance; None when there is no way."""
        if depth > 2 or inspect.isabstract(cls):
            return None
        self.imports.add(f"from {cls.__module__} import {cls.__qualname__}")
        if issubclass(cls, enum.Enum):
            return f"{cls.__qualname__}.{self.draw.choice([member.name for member in cls])}"
        return self.call(cls, cls.__qualname__, depth + 1)

    def value(self, parameter, depth):
        """An expression for one parameter, by its annotation, else by its name and default."""
        text = parameter.annotation
        if text is parameter.empty:
            text, names = "", ["".join(part.title() for part in parameter.name.split("_"))]
        else:
            text = text if isinstance(text, str) else inspect.formatannotation(text)
            names = re.findall(r"[A-Za-z_]\w*", text)
        kinds = [kind for kind, (annotated, _, _) in KINDS.items() if re.search(annotated, text)]
        classes = [found for found in map(self.class_named, names) if found is not None]
        if classes and (not kinds or self.draw.random() < 0.5):
            made = self.instance(self.draw.choice(classes), depth)
            if made is not None:
                return made
        if not kinds:
            kinds = [kind for kind, (_, named, _) in KINDS.items() if re.search(named, parameter.name.lower())] * 3
            if type(parameter.default).__name__ in KINDS:
                kinds += [type(parameter.default).__name__] * 4
            kinds += ANY
        kind = self.draw.choice(kinds)
        # Often a constant that the function's own text compares with.
        own = self.own.get(kind)
        return self.draw.choice(own if own and self.draw.random() < 0.35 else KINDS[kind][2])

    def call(self, function, name, depth=0, skip=0):
        """A call expression without the first ``skip`` parameters, or None when the signature is unknown."""
        try:
            parameters = list(inspect.signature(function).parameters.values())[skip:]
        except (ValueError, TypeError):
            return None
        arguments, by_name = [], False
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                if not by_name:
                    arguments += [self.value(parameter, depth) for _ in range(self.draw.randrange(4))]
                by_name = True
                continue
            optional = parameter.default is not parameter.empty
            if optional and self.draw.random() < (0.85 if depth else self.sparse):
                by_name = True
                continue
            text = self.value(parameter, depth)
            if by_name or parameter.kind is parameter.KEYWORD_ONLY:
                if parameter.kind is parameter.POSITIONAL_ONLY:
                    continue
                text = f"{parameter.name}={text}"
            arguments.append(text)
        return f"{name}({', '.join(arguments)})"

    def drawn(self, owner, raw, name):
        """One random call of a function of the module, or of what ``owner``, a class there, has under ``name``."""
        self.imports = {f"from {self.module.__name__} import {owner.__name__ if owner else name}"}
        if owner is None:
            return self.call(raw, name)
        if isinstance(raw, classmethod | staticmethod):
            return self.call(getattr(owner, name), f"{owner.__name__}.{name}")
        made = self.instance(owner, 0)
        if made is None:
            return None
        return f"{made}.{name}" if isinstance(raw, property) else self.call(raw, f"{made}.{name}", skip=1)


def invent(module, qualname, literals, seed, outcome):
    """``[imports, call]`` of the calls worth keeping; none for a function that works outside the folder or for ever."""
    owner_name, _, name = qualname.rpartition(".")
    owner = getattr(module, owner_name, None) if owner_name else None
    raw = inspect.getattr_static(owner or module, name, None)
    if raw is None or isinstance(raw, type) or (owner_name and not isinstance(owner, type)):
        return []
    inventor = Inventor(module, literals, random.Random(seed))
    kept, seen, times, bad, fresh = [], set(), {}, 0, 0
    for tried in range(TRIES):
        if (tried == TRIES // 8 and len(kept) < 4) or bad > 2:
            return []
        if tried - fresh > TRIES // 6 or len(kept) == KEPT:
            break
        # Calls that leave most defaults alone tell bugs apart; calls that give everything reach further.
        inventor.sparse = (0.3, 0.7, 0.95)[tried % 3]
        call, imports = inventor.drawn(owner, raw, name), sorted(inventor.imports)
        if call is None or call in seen or len(call) > LONGEST:
            continue
        seen.add(call)
        kind, text = outcome(imports, call)
        bad += text in ("refused", "timeout")
        if kind == "bad" or (kind == "error" and text.partition(":")[0] in MISUSE):
            continue
        times[text] = times.get(text, 0) + 1
        if times[text] == 1:
            fresh = tried
        if times[text] <= 6:
            kept.append([imports, call])
    return kept
