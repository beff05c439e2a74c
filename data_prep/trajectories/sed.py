"""Carry out a `sed -i` on a known text: substitution, deletion, insertion, change, with line or pattern addresses.

What it does not know (blocks, holds, branches, case conversion, files) it says so; it never guesses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations

from data_prep.trajectories.partial_file import MAX_LINES, LostError, Text
from data_prep.trajectories.sed_pattern import compile_pattern

_OPTIONS = re.compile(r"-[nsuzErie]+(?:\.\w+)?|--in-place\S*|--regexp-extended")
_ADDRESS = re.compile(r"\s*(?:(?P<number>\d+)|(?P<last>\$)|(?P<slash>/)|\\(?P<other>.))", re.S)


def sed_arguments(words: list[str | None]) -> tuple[list[str], list[str | None], bool]:
    """Programs, files and whether patterns are extended, of a `sed -i`; raises LostError."""
    programs: list[str] = []
    files: list[str | None] = []
    extended = False
    waiting = False
    for word in words:
        if waiting or (not programs and not files and word is not None and not word.startswith("-") and word):
            if word is None:
                raise LostError("a sed program that depends on the shell")
            programs.append(word)
            waiting = False
        elif word in ("-e", "--expression"):
            waiting = True
        elif word is not None and _OPTIONS.fullmatch(word):
            short = not word.startswith("--")
            letters = word.split(".")[0]
            extended = extended or word == "--regexp-extended" or (short and ("E" in letters or "r" in letters))
            if short and "n" in letters:
                raise LostError("sed -n -i is not known here")
            waiting = short and word.endswith("e")
        elif word is None and not programs:
            raise LostError("a sed program that depends on the shell")
        elif word:
            files.append(word)
        elif word is None:
            files.append(None)
    return programs, files, extended


@dataclass
class _Command:
    name: str
    addresses: tuple[int | str | re.Pattern[str], ...]
    negate: bool = False
    text: str = ""
    pattern: re.Pattern[str] | None = None
    replacement: str = ""
    everywhere: bool = False
    nth: int = 1


def run_sed(text: Text, programs: list[str], extended: bool = False) -> None:
    """Change the text as `sed -i` would; raises LostError, leaving the text as it was."""
    commands = [command for program in programs for command in _parse(program, extended)]
    if any(one.name in "dc" and two.addresses[1:] for one, two in combinations(commands, 2)):
        raise LostError("a sed range behind a deletion is not known here")
    by_line = all(command.addresses and not _has_pattern(command) for command in commands)
    if not by_line and not text.known:
        raise LostError("sed looks at all lines and not all were shown")
    if by_line and any(_needs_end(command) for command in commands) and not text.whole:
        raise LostError("sed counts to the last line and the file's end was not shown")
    edits = _edits(text, commands)
    for start, end, new in reversed(edits):
        text.splice(start, end, new)


def _has_pattern(command: _Command) -> bool:
    return command.negate or any(isinstance(address, re.Pattern) for address in command.addresses)


def _needs_end(command: _Command) -> bool:
    return "$" in command.addresses


def _edits(text: Text, commands: list[_Command]) -> list[tuple[int, int, list[str]]]:
    """What each line becomes, from the first to the last: (start, end, new lines)."""
    numbers = _lines_of_interest(text, commands)
    active: dict[int, bool] = {}
    last = len(text.lines)
    edits = []
    for number in numbers:
        current = text.lines[number - 1] if number <= last else None
        before: list[str] = []
        after: list[str] = []
        deleted = False
        changed = False
        for index, command in enumerate(commands):
            chosen, ends = _chosen(command, index, number, current, last, active)
            if chosen == command.negate:
                continue
            if command.name in "sdc" and current is None:
                raise LostError("an edit of a line that was never shown")
            if command.name == "s":
                new = _substitute(command, current or "")
                changed = changed or new != current
                current = new
            elif command.name == "i":
                before.append(command.text)
            elif command.name == "a":
                after.append(command.text)
            elif command.name == "d":
                deleted = True
                break
            elif command.name == "c":
                if ends:
                    before.append(command.text)
                deleted = True
                break
        if deleted:
            edits.append((number, number, _flat(before + after)))
        elif before or after or changed:
            if changed:
                edits.append((number, number, _flat([*before, current or "", *after])))
            else:
                if after:
                    edits.append((number + 1, number, _flat(after)))
                if before:
                    edits.append((number, number - 1, _flat(before)))
    return sorted(edits, key=lambda edit: (edit[0], edit[1]))


def _flat(pieces: list[str]) -> list[str]:
    return [line for piece in pieces for line in piece.split("\n")]


def _lines_of_interest(text: Text, commands: list[_Command]) -> list[int]:
    """Line numbers any command can touch, so that the unknown rest of a file is not asked about."""
    last = len(text.lines)
    if any(not command.addresses or _has_pattern(command) for command in commands):
        return list(range(1, last + 1))
    wanted: set[int] = set()
    for command in commands:
        ends = [last if address == "$" else int(str(address)) for address in command.addresses]
        if max(ends) > MAX_LINES:
            raise LostError(f"sed address {max(ends)} is beyond any file")
        wanted.update(range(ends[0], max(ends) + 1))
    if text.whole:
        wanted = {number for number in wanted if number <= last}
    return sorted(wanted)


def _chosen(
    command: _Command, index: int, number: int, line: str | None, last: int, active: dict[int, bool]
) -> tuple[bool, bool]:
    """Whether the command's addresses take this line, and whether their range ends with it."""
    if not command.addresses:
        return True, True
    if len(command.addresses) == 1:
        return _matches(command.addresses[0], number, line, last), True
    first, second = command.addresses
    if not active.get(index):
        if not _matches(first, number, line, last):
            return False, False
        ends = not isinstance(second, re.Pattern) and (last if second == "$" else int(str(second))) <= number
        active[index] = not ends
        return True, ends
    ends = _matches(second, number, line, last)
    if isinstance(second, int) and number > second:
        active[index] = False
        return False, False
    if _matches(second, number, line, last):
        active[index] = False
    return True, ends


def _matches(address: int | str | re.Pattern[str], number: int, line: str | None, last: int) -> bool:
    if isinstance(address, re.Pattern):
        return line is not None and address.search(line) is not None
    return number == (last if address == "$" else address)


def _substitute(command: _Command, line: str) -> str:
    assert command.pattern is not None
    done = 0

    def put(match: re.Match[str]) -> str:
        nonlocal done
        done += 1
        if done < command.nth or (done > command.nth and not command.everywhere):
            return match[0]
        return _expand(command.replacement, match)

    return command.pattern.sub(put, line)


def _expand(replacement: str, match: re.Match[str]) -> str:
    def piece(found: re.Match[str]) -> str:
        code = found[0]
        if code == "&":
            return match[0]
        char = code[1:]
        if char.isdigit():
            return (match[int(char)] or "") if int(char) <= (match.re.groups) else ""
        return {"n": "\n", "t": "\t"}.get(char, char)

    return re.sub(r"\\(?:.|\n)|&", piece, replacement)


def _parse(program: str, extended: bool) -> list[_Command]:
    commands: list[_Command] = []
    position = 0
    while True:
        while position < len(program) and program[position] in " \t\n;":
            position += 1
        if position >= len(program):
            return commands
        addresses, position = _addresses(program, position, extended)
        while position < len(program) and program[position] in " \t":
            position += 1
        negate = program[position : position + 1] == "!"
        position += negate
        name = program[position : position + 1]
        position += 1
        if name == "s":
            command, position = _parse_substitution(program, position, extended)
            command.addresses, command.negate = addresses, negate
            commands.append(command)
        elif name == "d":
            commands.append(_Command("d", addresses, negate))
        elif name and name in "aic":
            commands.append(_Command(name, addresses, negate, text=_block_text(program[position:])))
            return commands
        else:
            raise LostError(f"sed command {name!r} is not known here")
        rest = program[position : position + 1]
        if rest and rest not in " \t\n;":
            raise LostError(f"sed program {program[:60]!r} is not understood")


def _addresses(program: str, position: int, extended: bool) -> tuple[tuple[int | str | re.Pattern[str], ...], int]:
    found: list[int | str | re.Pattern[str]] = []
    while len(found) < 2:
        match = _ADDRESS.match(program, position)
        if match is None:
            break
        position = match.end()
        if match["number"]:
            found.append(int(match["number"]))
        elif match["last"]:
            found.append("$")
        else:
            source, position = _until(program, position, match["slash"] or match["other"])
            found.append(compile_pattern(source, extended, ""))
        rest = re.compile(r"\s*,").match(program, position)
        if rest is None:
            break
        position = rest.end()
    if program[position : position + 1] in ("~", "+"):
        raise LostError("a sed address with a step is not known here")
    if found and found[0] == 0:
        raise LostError("a sed address of line 0 is not known here")
    return tuple(found), position


def _until(program: str, position: int, delimiter: str) -> tuple[str, int]:
    """The text up to the delimiter that is neither escaped nor, for patterns, in brackets."""
    parts: list[str] = []
    while position < len(program):
        char = program[position]
        if char == "\\" and position + 1 < len(program):
            following = program[position + 1]
            parts.append(following if following == delimiter else char + following)
            position += 2
            continue
        if char == delimiter:
            return "".join(parts), position + 1
        parts.append(char)
        position += 1
    raise LostError(f"sed program {program[:60]!r} has no end")


def _parse_substitution(program: str, position: int, extended: bool) -> tuple[_Command, int]:
    delimiter = program[position : position + 1]
    if not delimiter or delimiter in "\\\n":
        raise LostError(f"sed program {program[:60]!r} is not understood")
    source, position = _until(program, position + 1, delimiter)
    replacement, position = _until(program, position, delimiter)
    flags = re.compile(r"[A-Za-z0-9]*").match(program, position)
    letters = flags[0] if flags else ""
    if re.search(r"[^gIi0-9]", letters):
        raise LostError(f"sed flags {letters!r} are not known here")
    if re.search(r"\\[LUlucdoxEafv]", replacement):
        raise LostError("sed's special replacements are not known here")
    number = re.sub(r"\D", "", letters)
    pattern = compile_pattern(source, extended, letters)
    if pattern.search("") and ("g" in letters or number):
        raise LostError("a sed pattern that takes nothing, and more than once, is not known here")
    command = _Command(
        "s",
        (),
        pattern=pattern,
        replacement=replacement,
        everywhere="g" in letters,
        nth=int(number) if number else 1,
    )
    return command, position + len(letters)


def _block_text(rest: str) -> str:
    """The text behind a, i or c as GNU sed takes it: blanks before it go unless a backslash keeps them."""
    rest = rest.lstrip(" \t")
    if rest.startswith("\\"):
        rest = rest[1:]
        stripped = rest.lstrip(" \t")
        if stripped.startswith("\n"):
            rest = stripped[1:]
    if not rest:
        raise LostError("sed has no text to put in")
    if rest.endswith("\n") and not rest.endswith("\\\n"):
        rest = rest[:-1]
    lines: list[str] = []
    for found in re.split(r"(\\.|\n)", rest, flags=re.S):
        if found == "\n":
            raise LostError("sed commands behind a text are not known here")
        if len(found) == 2 and found[0] == "\\":
            lines.append({"n": "\n", "t": "\t"}.get(found[1], found[1]))
        else:
            lines.append(found)
    return "".join(lines)
