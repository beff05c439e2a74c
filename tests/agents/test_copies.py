"""Copies of the code under repair are found wherever Python keeps some: installed, vendored, packed, compiled."""

from __future__ import annotations

import zipfile

from contextrl_verl.agents.copies import copies_of, copies_under


def test_every_kind_of_copy_is_found_and_namesakes_are_not(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    def pack(name, *members):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for member in members:
                file.writestr(member, "")

    site = "lib/python3.11/site-packages"
    make(f"{site}/rich/__init__.py", f"{site}/rich/rich/__init__.py", f"{site}/pip/_vendor/rich/__init__.py",
         f"{site}/six.py", f"{site}/__pycache__/six.cpython-311.pyc", f"{site}/pip/_vendor/six.py")  # fmt: skip
    make(f"{site}/tqdm/rich.py", f"{site}/richer/__init__.py", "share/rich/readme.txt", f"{site}/sixty.py")
    pack("wheels/pip-1-py3-none-any.whl", "pip/_vendor/rich/__init__.py")
    pack("wheels/six-1-py3-none-any.whl", "six.py")
    pack("wheels/other-1-py3-none-any.whl", "other/rich.py", "richer/__init__.py")
    (tmp_path / "wheels/broken.whl").write_text("no archive")
    (tmp_path / "circle").symlink_to(tmp_path)
    found = {path.relative_to(tmp_path).as_posix() for path in copies_under(tmp_path, ("rich", "six"))}
    assert found == {
        f"{site}/rich", f"{site}/pip/_vendor/rich", f"{site}/six.py", f"{site}/__pycache__/six.cpython-311.pyc",
        f"{site}/pip/_vendor/six.py", "wheels/pip-1-py3-none-any.whl", "wheels/six-1-py3-none-any.whl",
    }  # fmt: skip


def test_this_machines_own_are_found_once():
    import rich

    found = copies_of(["rich"])
    assert str(__import__("pathlib").Path(rich.__file__).resolve().parent) in found
    assert copies_of(("rich",)) is found
    assert copies_of(()) == ()
