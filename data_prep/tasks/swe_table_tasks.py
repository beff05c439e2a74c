"""Repair tasks of public tables: each row with a checkout or an unpacked image on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from contextrl_verl.agents.pytest_run import parse_command
from contextrl_verl.agents.task import SweTask, TableChecks, TaskBase
from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox.box import WORKPLACE
from data_prep.common.funnel import Funnel, Stage
from data_prep.images.sources.base import RowRejected, SourceOptions
from data_prep.images.sources.scan import drawn_rows
from data_prep.tasks.scan import plan_public
from data_prep.tasks.swe_bases import Draft, from_checkout, from_folder, make_base
from data_prep.tasks.swe_tables import TABLES, Instance, SweTable, file_diff

# What stands behind the file of a pytest id.
_PYTEST = re.compile(r"[^\s:]+\.py(?:::.+)?")
# A file of a table may be one piece: several workers read it, and each takes its share of the rows.
_SHARES, _ROWS = 16, 4


class Sources(BaseModel):
    """What tables leave to this machine.

    Attributes:
        checkouts: folder of git repositories, each called like its instance, or like its repository (``owner__name`` or
            ``name``).
        images: folder of unpacked images, each called like its instance, or like the image, ``/`` and ``:`` as ``_``.
        named_images: whether boxes start from the images that the table names (docker, apptainer); the repositories
            are still those of ``checkouts`` or ``images``.
        test_command, setup, plugins: as in TableChecks; a table's own command is taken where it has one.
        seconds: of the tests of one task.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    checkouts: str = ""
    images: str = ""
    named_images: bool = False
    test_command: str = "pytest"
    setup: str = ""
    plugins: tuple[str, ...] = ()
    seconds: float = Field(300, gt=0)


def plan_tables(name: str, path: str, options: SourceOptions, sources: Sources) -> list[dict[str, Any]]:
    """Payloads of :func:`table_drafts`; raises ConfigError for what is not there."""
    if name not in TABLES:
        raise ConfigError(f"--table is {name!r}. Fix: one of {', '.join(TABLES)}; docs/agents.md says how to add one.")
    places = {"--checkouts": sources.checkouts, "--images": sources.images}
    if not any(places.values()):
        raise ConfigError(
            "a table names its repositories and does not hold them. Fix: --checkouts DIR with git repositories, or "
            "--images DIR with unpacked images (docs/agents.md)."
        )
    for option, folder in places.items():
        if folder and not Path(folder).is_dir():
            raise ConfigError(f"{option} is {folder}, and there is no such folder. Fix: correct it.")
    parts = plan_public(TABLES[name], path, False, options)
    more = {"sources": sources.model_dump(mode="json")}
    shares = [min(_SHARES, -(-part["span"].get("count", _SHARES * _ROWS) // _ROWS)) for part in parts]
    return [
        part | more | {"share": [share, count]}
        for part, count in zip(parts, shares, strict=True)
        for share in range(count)
    ]


def table_drafts(payload: dict[str, Any], bases: Path, funnel: Funnel) -> Iterator[Draft]:
    """The tasks of a share of a table's rows, with their bases made; what is no task is counted."""
    examples, ids = funnel.stage("examples", "examples"), funnel.stage("test ids", "ids")
    table, sources, (share, shares) = TABLES[payload["set"]], Sources(**payload["sources"]), payload["share"]
    # Rows that a limit leaves out are counted once.
    counted = examples if share == 0 else Funnel().stage("elsewhere")
    for row in islice(drawn_rows(payload, counted), share, None, shares):
        try:
            values = dict.fromkeys((*table.columns, *table.optional)) | row.load()
            draft = _draft(table, table.read(values), sources, bases, ids)
        except RowRejected as error:
            examples.drop(error.reason, {**row.where, "detail": error.detail})
            continue
        except Exception as error:
            examples.fail(error, row.where)
            continue
        examples.keep()
        yield draft


def _draft(table: SweTable, instance: Instance, sources: Sources, bases: Path, ids: Stage) -> Draft:
    must, keep = (_asked(table, names, ids) for names in (instance.must, instance.keep))
    if not must:
        raise RowRejected("no test that can be asked for and must begin to pass", instance.instance_id)
    command = instance.command or sources.test_command
    try:
        parse_command(command)
    except ConfigError as error:
        raise RowRejected("the test command is not pytest's", str(error)) from None
    image = _place(sources.images, instance.instance_id, instance.image) if sources.images else None
    if image is not None:
        fill, tests = from_folder(image / WORKPLACE[1:], "r2e_tests"), image / "r2e_tests"
    else:
        owner, _, name = instance.repo.rpartition("/")
        checkout = _place(sources.checkouts, instance.instance_id, f"{owner}__{name}", name)
        fill, tests = from_checkout(checkout, instance.commit), checkout / "r2e_tests"
    folder, commit = make_base(bases, fill, bug=instance.bug, name=str(image or ""))
    named = instance.image if sources.named_images else None
    return Draft(
        SweTask(
            instance_id=instance.instance_id,
            repository=instance.repo,
            base=TaskBase(
                folder=f"{bases.name}/{folder}",
                image=named or (str(image.resolve()) if image else None),
                hidden=instance.hidden,
                packages=() if image or named else _packages(bases / folder),
            ),
            issue=instance.issue,
            checks=TableChecks(
                test_command=command,
                setup=sources.setup,
                fail_to_pass=must,
                pass_to_pass=[name for name in keep if name not in must],
                test_patch=instance.tests or (_new_files(tests) if table.name == "r2e_gym" else ""),
                plugins=sources.plugins,
                seconds=sources.seconds,
            ),
            reference=instance.reference,
        ),
        commit,
        instance.instance_id,
    )


def _asked(table: SweTable, names: tuple[str, ...], ids: Stage) -> list[str]:
    """The ids that can be asked for, once each; the others are counted."""
    asked: dict[str, None] = {}
    for name in names:
        if name.count("[") != name.count("]"):
            # Lists that were split at blanks hold the halves of ids with a parameter: test_x.py::test_y[a, and b].
            ids.drop("cut in its middle", {"id": name[:200]})
        elif not (_PYTEST.fullmatch(name) or table.name == "r2e_gym"):
            ids.drop("not an id of pytest's", {"id": name[:200]})
        elif name in asked:
            ids.drop("there twice")
        else:
            ids.keep()
            asked[name] = None
    return list(asked)


def _place(folder: str, *names: str) -> Path:
    """The first of these that the folder has."""
    for name in filter(None, names):
        # As it stands a name of a table could lead out of the folder.
        for spelled in (re.sub(r"[/:]", "_", name), name.split("/")[-1].split(":")[0]):
            if (place := Path(folder, spelled)).is_dir() and spelled not in (".", ".."):
                return place
    raise RowRejected("no checkout or image here", " or ".join(filter(None, names)))


def _packages(folder: Path) -> tuple[str, ...]:
    """The top-level modules of a repository, of which an installed copy would be the answer."""
    places = [path for root in (folder, folder / "src") if root.is_dir() for path in root.iterdir()]
    named = {path.name for path in places if (path / "__init__.py").is_file()}
    return tuple(sorted(named - {"tests", "test", "testing", "docs", "examples", "benchmarks", "scripts", "tools"}))


def _new_files(folder: Path) -> str:
    """The diff that makes the Python files of a folder of tests."""
    made = []
    for path in sorted(folder.rglob("*.py")) if folder.is_dir() else ():
        made.append(file_diff(f"{folder.name}/{path.relative_to(folder).as_posix()}", "", path.read_text("utf-8")))
    return "".join(made)
