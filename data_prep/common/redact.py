"""Takes secrets out of text: keys and tokens, passwords, e-mail addresses, names of home folders.

Each is replaced by ``<REDACTED:kind>``, always the same for a kind, and counted. A pattern is tried only where the text
holds a fixed string that every match of it holds, so that ordinary text costs a few substring searches. Code stays: a
decorator, a matrix product, ``git@host:`` or ``user@example.com`` (a reserved name) is no secret, and neither is a
password that is a variable, a call or a placeholder.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_prep.trajectories.run import Message


@dataclass(frozen=True)
class _Rule:
    """One kind: strings of which one is in the text (lower case if ``fold``), the pattern, and what group 1 keeps."""

    kind: str
    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    is_secret: Callable[[re.Match[str]], bool] = lambda match: True
    fold: bool = False


_RESERVED = re.compile(r"(?:^|\.)(?:example|test|invalid|localhost|local)$|(?:^|\.)example\.(?:com|org|net|edu)$", re.I)
_NOT_A_USER = frozenset("git hg svn root".split())
_SHARED_HOMES = frozenset("user username users runner linuxbrew shared public default me you name".split())
_FILE_ENDINGS = frozenset("py js ts css html png jpg svg json yaml yml txt md rst cfg toml so whl".split())
_PLACEHOLDER = re.compile(
    r"^(?:x+|\*+|\.+)$|pass|secret|fake|dummy|test|example|sample|change|your|token|key|none", re.I
)
_VARIED = re.compile(r"(?=.*\d)(?=.*[A-Za-z])")


def _is_address(match: re.Match[str]) -> bool:
    user, host = match[0].split("@", 1)
    return (
        user.lower() not in _NOT_A_USER
        and host.rsplit(".", 1)[-1].lower() not in _FILE_ENDINGS
        and not _RESERVED.search(host)
        and not match.string.startswith("(", match.end())
    )


def _is_home(match: re.Match[str]) -> bool:
    return match[2].lower() not in _SHARED_HOMES


def _is_password(match: re.Match[str]) -> bool:
    return len(match[2]) >= 8 and bool(_VARIED.search(match[2])) and not _PLACEHOLDER.search(match[2])


def _has_address(text: str) -> bool:
    """Whether some ``@`` stands between two letters or digits, as in no decorator."""
    at = text.find("@", 1)
    while 0 < at < len(text) - 1:
        if text[at - 1].isalnum() and text[at + 1].isalnum():
            return True
        at = text.find("@", at + 1)
    return False


_TOKEN = r"(?<![A-Za-z0-9_])()"
_RULES = (
    _Rule(
        "private-key",
        ("PRIVATE KEY-----",),
        re.compile(
            r"()-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----)[\s\S]){0,20000}"
            r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
        ),
    ),
    _Rule(
        "token",
        ("sk-", "sk_live", "sk_test", "rk_live", "hf_", "gsk_", "r8_", "npm_", "pypi-", "dop_v1_", "shpat_", "SG."),
        re.compile(
            _TOKEN + r"(?:sk-(?:[a-z]{2,9}-){0,3}[A-Za-z0-9_-]{20,300}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,200}"
            r"|hf_[A-Za-z0-9]{30,60}|gsk_[A-Za-z0-9]{40,80}|r8_[A-Za-z0-9]{30,60}|npm_[A-Za-z0-9]{36}"
            r"|pypi-[A-Za-z0-9_-]{50,300}|dop_v1_[a-f0-9]{64}|shpat_[a-fA-F0-9]{32}"
            r"|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})(?![A-Za-z0-9_])"
        ),
        lambda match: bool(_VARIED.search(match[0])),
    ),
    _Rule(
        "token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-"),
        re.compile(
            _TOKEN + r"(?:gh[pousr]_[A-Za-z0-9]{30,100}|github_pat_[A-Za-z0-9_]{40,120}|glpat-[A-Za-z0-9_-]{20,60}"
            r"|xox[abposre]-[A-Za-z0-9-]{10,200}|xapp-[A-Za-z0-9-]{20,200})(?![A-Za-z0-9_])"
        ),
    ),
    _Rule(
        "token",
        ("AKIA", "ASIA", "AIza", "ya29."),
        re.compile(
            _TOKEN + r"(?:A(?:KI|SI)A[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,300})(?![A-Za-z0-9_])"
        ),
    ),
    _Rule(
        "jwt",
        ("eyJ",),
        re.compile(_TOKEN + r"eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{10,4000}"),
    ),
    _Rule(
        "authorization",
        ("bearer ", "basic ", "token "),
        re.compile(
            r"(\bauthorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|basic|token) )[A-Za-z0-9._~+/=-]{12,4000}", re.I
        ),
        fold=True,
    ),
    _Rule(
        "password",
        ("password", "passwd", "secret", "api_key", "apikey", "api-key", "access_token", "auth_token"),
        re.compile(
            r"((?<![A-Za-z])(?:[A-Za-z0-9_]{0,30}_)?(?:password|passwd|secret_?key|client_?secret|api[_-]?key|access_?token"
            r"|auth_?token)[\"']?\s{0,4}[:=]\s{0,4}[\"'])([^\"'\s<>${}()%]{6,200})(?=[\"'])",
            re.I,
        ),
        _is_password,
        fold=True,
    ),
    _Rule(
        "password",
        ("password=", "passwd=", "pwd=", "token=", "secret=", "api_key=", "api-key="),
        re.compile(
            r"((?:^|[?&;\s])[A-Za-z0-9_-]{0,30}(?:password|passwd|pwd|token|secret|api[_-]key)=)"
            r"([A-Za-z0-9+/_.~!@#^*-]{8,200})(?![\w.(\[])",
            re.I | re.M,
        ),
        _is_password,
        fold=True,
    ),
    _Rule(
        "password",
        ("://",),
        re.compile(r"(://[^\s/:@\"'<>]{1,100}:)([^\s/:@\"'<>${}%]{6,200})(?=@[\w.-])"),
        _is_password,
    ),
    _Rule(
        "email",
        ("@",),
        re.compile(
            r"(?<![\w.+/:@%-])()[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,40})\.){1,6}[A-Za-z]{2,18}"
            r"(?![\w@:/-])"
        ),
        _is_address,
    ),
    _Rule(
        "home",
        ("/home/", "/Users/", "\\Users\\", "\\\\Users\\\\"),
        re.compile(
            r"((?<![\w.])(?:/home|/Users|[A-Za-z]:\\{1,2}Users|/[a-z]/Users)(?:/|\\{1,2}))([A-Za-z0-9][\w.-]{0,63})(?![\w.-]*\()"
        ),
        _is_home,
    ),
)


class Redacted(NamedTuple):
    """Text without its secrets, and how many there were of each kind."""

    text: str
    counts: Counter[str]


def redact(text: str) -> Redacted:
    """Take the secrets out of a text."""
    counts: Counter[str] = Counter()
    return Redacted(_redacted(text, _possible(text), counts), counts)


def redact_messages(messages: Sequence[Message]) -> tuple[tuple[Message, ...], Counter[str]]:
    """The turns without their secrets, and the counts over all of them."""
    counts: Counter[str] = Counter()
    rules = _possible("\n".join(message.content for message in messages))
    if not rules:
        return tuple(messages), counts
    result = []
    for message in messages:
        text = _redacted(message.content, rules, counts)
        result.append(message if text == message.content else Message(role=message.role, content=text))
    return tuple(result), counts


def _possible(text: str) -> list[_Rule]:
    """The rules of which the text holds a sign."""
    folded = text.lower()
    found = [rule for rule in _RULES if any(sign in (folded if rule.fold else text) for sign in rule.signs)]
    return [rule for rule in found if rule.kind != "email" or _has_address(text)]


def _redacted(text: str, rules: list[_Rule], counts: Counter[str]) -> str:
    folded = ""
    for rule in rules:
        if rule.fold and not folded:
            folded = text.lower()
        where = folded if rule.fold else text
        if not any(sign in where for sign in rule.signs):
            continue

        def replace(match: re.Match[str], rule: _Rule = rule) -> str:
            if not rule.is_secret(match):
                return match[0]
            counts[rule.kind] += 1
            return f"{match[1]}<REDACTED:{rule.kind}>"

        text = rule.pattern.sub(replace, text)
    return text
