"""The filter of system calls, run by a small machine of our own, for both kinds of processors."""

import errno
import struct

import pytest

from contextrl_verl.sandbox.seccomp import _REFUSED, _UNKNOWN, MACHINES, program

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def decided(code: bytes, audit: int, number: int, argument: int = 0) -> int:
    """What the kernel would do with a call."""
    data = struct.pack("<IIQQ", number, audit, 0, argument) + bytes(40)
    lines, at, value = list(struct.iter_unpack("HBBI", code)), 0, 0
    while True:
        operation, if_true, if_false, constant = lines[at]
        at += 1
        if operation == 0x06:
            return constant
        if operation == 0x20:
            value = struct.unpack_from("<I", data, constant)[0]
        else:
            compare = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}
            at += if_true if compare[operation] else if_false


@pytest.fixture(params=sorted(MACHINES))
def machine(request):
    return request.param


@pytest.mark.parametrize("network", [True, False])
def test_what_is_refused_and_what_goes_through(machine, network):
    audit, column = MACHINES[machine]
    code = program(machine, network)
    refused = {numbers[column % len(numbers)]: errno.EPERM for numbers in _REFUSED.values()}
    refused |= {numbers[column % len(numbers)]: errno.ENOSYS for numbers in _UNKNOWN.values()}
    special = {numbers[column] for numbers in ((56, 220), (41, 198))}
    for number in set(range(500)) - special:
        assert decided(code, audit, number) == (ERRNO | refused[number] if number in refused else ALLOW), number
    assert len(refused) == len(_REFUSED) + len(_UNKNOWN)


def test_processes_and_threads_but_no_name_spaces(machine):
    audit, column = MACHINES[machine]
    code, clone = program(machine, True), (56, 220)[column]
    fork, thread = 17, 0x3D0F00
    assert decided(code, audit, clone, fork) == decided(code, audit, clone, thread) == ALLOW
    for space in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decided(code, audit, clone, fork | space) == ERRNO | errno.EPERM


@pytest.mark.parametrize(("network", "allowed"), [(True, {1, 2, 10, 16}), (False, {1})])
def test_sockets_by_family(machine, network, allowed):
    audit, column = MACHINES[machine]
    code, socket = program(machine, network), (41, 198)[column]
    assert {family for family in range(64) if decided(code, audit, socket, family) == ALLOW} == allowed
    assert decided(code, audit, socket, 40) == ERRNO | errno.EAFNOSUPPORT


def test_calls_of_other_machines_end_the_process(machine):
    code = program(machine, True)
    i386 = 0x40000003
    assert decided(code, i386, 0) == KILL
    if machine == "x86_64":
        assert decided(code, MACHINES[machine].audit, 0x40000000 + 101) == ERRNO | errno.ENOSYS  # x32's ptrace
