"""Takes secrets out of text: keys and tokens, passwords, e-mail addresses, names of home folders.

Each is replaced by ``<REDACTED:kind>``, always the same for a kind. A pattern is tried only where the text holds a
fixed string that every match of it holds, so that ordinary text costs a few substring searches. Code stays: a
decorator, a matrix product, ``git@host:`` or ``user@example.com`` (a reserved name) is no secret, and neither is a
password that is a variable, a call or a placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel

Turn = TypeVar("Turn", bound=BaseModel)

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


def _is_password(match: re.Match[str]) -> bool:
    return len(match[2]) >= 8 and bool(_VARIED.search(match[2])) and not _PLACEHOLDER.search(match[2])


_TOKEN = r"(?<![A-Za-z0-9_])()"
# Kind; strings of which one is in the text, in lower case where the pattern ignores case; a pattern whose group 1
# stays; what else tells that a match is a secret.
_RULES: tuple[tuple[Any, ...], ...] = (
    (
        "private-key",
        "KEY-----",
        r"()-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----)[\s\S]){0,20000}"
        r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?",
    ),
    (
        "token",
        "sk- sk_live sk_test rk_live hf_ gsk_ r8_ npm_ pypi- dop_v1_ shpat_ SG.",
        _TOKEN + r"(?:sk-(?:[a-z]{2,9}-){0,3}[A-Za-z0-9_-]{20,300}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,200}"
        r"|hf_[A-Za-z0-9]{30,60}|gsk_[A-Za-z0-9]{40,80}|r8_[A-Za-z0-9]{30,60}|npm_[A-Za-z0-9]{36}"
        r"|pypi-[A-Za-z0-9_-]{50,300}|dop_v1_[a-f0-9]{64}|shpat_[a-fA-F0-9]{32}"
        r"|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})(?![A-Za-z0-9_])",
        lambda match: bool(_VARIED.search(match[0])),
    ),
    (
        "token",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- xox xapp- AKIA ASIA AIza ya29.",
        _TOKEN + r"(?:gh[pousr]_[A-Za-z0-9]{30,100}|github_pat_[A-Za-z0-9_]{40,120}|glpat-[A-Za-z0-9_-]{20,60}"
        r"|xox[abposre]-[A-Za-z0-9-]{10,200}|xapp-[A-Za-z0-9-]{20,200}|A(?:KI|SI)A[A-Z0-9]{16}"
        r"|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,300})(?![A-Za-z0-9_])",
    ),
    ("jwt", "eyJ", _TOKEN + r"eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{10,4000}"),
    (
        "authorization",
        "authorization",
        r"(?i)(\bauthorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|basic|token) )[A-Za-z0-9._~+/=-]{12,4000}",
    ),
    (
        "password",
        "password passwd secret api_key apikey api-key access_token accesstoken auth_token authtoken",
        r"(?i)((?<![A-Za-z])(?:[A-Za-z0-9_]{0,30}_)?(?:password|passwd|secret_?key|client_?secret|api[_-]?key"
        r"|access_?token|auth_?token)[\"']?\s{0,4}[:=]\s{0,4}[\"'])([^\"'\s<>${}()%]{6,200})(?=[\"'])",
        _is_password,
    ),
    (
        "password",
        "password= passwd= pwd= token= secret= api_key= api-key=",
        r"(?im)((?:^|[?&;\s])[A-Za-z0-9_-]{0,30}(?:password|passwd|pwd|token|secret|api[_-]key)=)"
        r"([A-Za-z0-9+/_.~!@#^*-]{8,200})(?![\w.(\[])",
        _is_password,
    ),
    ("password", "://", r"(://[^\s/:@\"'<>]{1,100}:)([^\s/:@\"'<>${}%]{6,200})(?=@[\w.-])", _is_password),
    (
        "email",
        "@",
        r"(?<![\w.+/:@%-])()[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,40})\.){1,6}[A-Za-z]{2,18}"
        r"(?![\w@:/-])",
        _is_address,
    ),
    (
        "home",
        "/home/ /Users/ \\Users\\",
        r"((?<![\w.])(?:/home|/Users|[A-Za-z]:\\{1,2}Users|/[a-z]/Users)(?:/|\\{1,2}))"
        r"([A-Za-z0-9][\w.-]{0,63})(?![\w.-]*\()",
        lambda match: match[2].lower() not in _SHARED_HOMES,
    ),
)
_COMPILED = [
    (f"<REDACTED:{kind}>", signs.split(), re.compile(pattern), checks) for kind, signs, pattern, *checks in _RULES
]


def redact(text: str) -> str:
    """The text without its secrets."""
    folded = text.lower()
    for mark, signs, pattern, checks in _COMPILED:
        where = folded if pattern.flags & re.I else text
        if any(sign in where for sign in signs):
            text = pattern.sub(partial(_marked, mark=mark, checks=checks), text)
    return text


def _marked(match: re.Match[str], mark: str, checks: Sequence[Callable[[re.Match[str]], bool]]) -> str:
    return match[1] + mark if all(is_secret(match) for is_secret in checks) else match[0]


def redact_messages(messages: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns, models with a field ``content``, without their secrets."""
    return tuple(message.model_copy(update={"content": redact(message.content)}) for message in messages)  # type: ignore[attr-defined]
