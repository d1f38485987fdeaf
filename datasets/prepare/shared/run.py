"""Carrying out a plan: cases in parallel, each skipped where its outputs are there already, and the manifest.

A case is made of some files of the download and gives some files of the prepared folder.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets.prepare.shared.manifest import MANIFEST, content_sha256, read_manifest, text_sha256, write_manifest
from datasets.prepare.shared.sources import SourceFile
from datasets.prepared import PREPARED, Prepared, write_prepared
from utils.errors import UserError, counted, join_listed
from utils.files import write_atomically
from utils.log import log

SAVE_EVERY = 10  # seconds between two writes of the manifest

# Of one case: {"sources": name -> sha256, "arguments": text, "outputs": name -> {sha256, bytes}, "facts": {...}}.
# The sources are None where the outputs were made with other parameters than the manifest has.
Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One unit of work.

    make: a function of a module, (target, *sources, **arguments) -> (outputs below target, facts for `finish`)
    """

    name: str
    sources: tuple[SourceFile, ...]
    make: Callable[..., tuple[list[str], dict[str, Any]]]
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What to prepare.

    folders: of the layout, made first; finish: name -> record of every case, to the text files to write (lists, splits)
    and lines to say
    """

    dataset: str
    cases: list[Case]
    parameters: dict[str, Any]
    prepared: Prepared | None
    folders: tuple[str, ...]
    finish: Callable[[dict[str, Record]], tuple[dict[str, str], list[str]]]
    notes: Sequence[str] = ()


def carry_out(plan: Plan, target: Path, workers: int = 1, dry_run: bool = False) -> None:
    """Prepare `target`; what an earlier call made of the same files with the same parameters is kept.

    raises: UserError for a target that holds something else; one for all cases that failed, after the others are made
    """
    old, lists = _earlier(plan, target)
    for note in plan.notes:
        log(note)
    size = sum(source.size for case in plan.cases for source in case.sources)
    log(f"{plan.dataset}: {counted(len(plan.cases), 'case')}, {size / 1e6:.0f} MB of source files -> {target}")
    if dry_run:
        for case in plan.cases[:20]:
            log(f"  {case.name}: {', '.join(source.name for source in case.sources)}")
        log(f"  {'... ' if len(plan.cases) > 20 else ''}dry run: nothing written")
        return
    records, kept, failed = _run(plan, target, workers, old, lists)
    if failed:
        found = f"{len(failed)} of {len(plan.cases)} cases failed; the others are done"
        raise UserError(f"{found}, and the same command makes only what is missing:\n  {join_listed(failed)}")
    texts, lines = plan.finish(records)
    lines += _write_texts(target, texts, lists)
    if plan.prepared:
        write_prepared(target, plan.prepared)
    written = {name: text_sha256(text) for name, text in texts.items()}
    total = write_manifest(target, plan.dataset, plan.parameters, records, written)
    log(f"{counted(len(records) - kept, 'case')} made, there already: {kept}")
    for line in lines:
        log(line)
    log(f"data sha256 {total} ({target / MANIFEST}): the same on every machine that has the same data")


def _write_texts(target: Path, texts: dict[str, str], lists: dict[str, str]) -> list[str]:
    """Write the lists, but none that somebody changed since; return a line for each that is kept."""
    lines = []
    for name, text in texts.items():
        path = target / name
        now = content_sha256(path) if path.exists() else None
        if now in (None, lists.get(name), text_sha256(text)):
            write_atomically(path, text)
        else:
            lines.append(f"warning: {path} was changed since and is kept; remove it to have it written anew")
    return lines


def _earlier(plan: Plan, target: Path) -> tuple[dict[str, Record], dict[str, str]]:
    """Records and checksums of lists of an earlier call; with other parameters, the records have no sources."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; expected the folder to prepare, which may be new")
    for source in (source for case in plan.cases for source in case.sources):
        if target.resolve() in source.path.resolve().parents:
            remedy = "give another folder as TARGET, the last word"
            raise UserError(f"{target}: holds the source {source.path}; {remedy}")
    found = read_manifest(target)
    if found is None:
        if target.exists() and any(not item.name.startswith(".") for item in target.iterdir()):
            raise UserError(f"{target}: holds files, but no {MANIFEST} of a prepared data set; give a new folder")
        return {}, {}
    if found["dataset"] != plan.dataset:
        raise UserError(f"{target}: holds the data set {found['dataset']}; give another folder for {plan.dataset}")
    same = found["parameters"] == plan.parameters
    if not same:
        log(f"other parameters than before: all cases are made anew (before: {found['parameters']})")
    cases = found["cases"] if same else {name: case | {"sources": None} for name, case in found["cases"].items()}
    return cases, found["lists"]


def _run(
    plan: Plan, target: Path, workers: int, old: dict[str, Record], lists: dict[str, str]
) -> tuple[dict[str, Record], int, list[str]]:
    """(records, how many cases were kept, what failed); the manifest is saved first, now and then, and at the end.

    Until all cases are made, the manifest also has the `old` records, so that a later call removes their outputs. With
    other parameters, the lists and prepared.json go first: nobody should train on a mixture of both.
    """
    records, failed, kept, saved = dict(old), [], 0, time.monotonic()

    def save() -> None:
        write_manifest(target, plan.dataset, plan.parameters, records, lists)

    if not all(record["sources"] for record in old.values()):
        there = [name for name in lists if (target / name).exists()]
        _remove(target, {PREPARED} | {name for name in there if content_sha256(target / name) == lists[name]})
    save()  # a folder of files without a manifest is taken for somebody else's
    for folder in plan.folders:
        (target / folder).mkdir(exist_ok=True)
    workers = min(workers, len(plan.cases))
    parallel = workers > 1
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if parallel else nullcontext()
    try:
        with pool, tqdm(total=len(plan.cases), desc=plan.dataset, leave=False, disable=None) as bar:
            for name, record, was_kept, problem in _each(plan.cases, target, old, pool if parallel else None):
                bar.update()
                if problem:
                    failed.append(problem)
                    continue
                records[name], kept = record, kept + was_kept
                _remove(target, set(old.get(name, {}).get("outputs", ())) - set(record["outputs"]))
                if time.monotonic() > saved + SAVE_EVERY:
                    save()
                    saved = time.monotonic()
        gone = [records.pop(name) for name in old.keys() - {case.name for case in plan.cases}]
        wanted = {out for record in records.values() for out in record["outputs"]}
        _remove(target, {out for record in gone for out in record["outputs"]} - wanted)
    finally:
        save()
    return records, kept, sorted(failed)


def _each(cases: Sequence[Case], target: Path, old: dict[str, Record], pool: ProcessPoolExecutor | None):
    if pool is None:
        yield from (_do(case, target, old.get(case.name)) for case in cases)
        return
    futures = [pool.submit(_do, case, target, old.get(case.name)) for case in cases]
    try:
        yield from (future.result() for future in as_completed(futures))
    except BrokenProcessPool:
        raise UserError("the system ended a process, most likely for want of memory; try --workers 1") from None
    finally:
        for future in futures:
            future.cancel()


def _do(case: Case, target: Path, old: Record | None) -> tuple[str, Record | None, bool, str | None]:
    """(name, record, whether it was there already, what is wrong) of one case."""
    try:
        made_of = {"sources": {source.name: source.sha256() for source in case.sources}}
        made_of["arguments"] = str(case.arguments)  # such as whether it tests, which more cases can change
        same = old and all(old.get(name) == value for name, value in made_of.items())
        if same and all(_is_there(target / name, out) for name, out in old["outputs"].items()):
            return case.name, old, True, None
        outputs, facts = case.make(target, *case.sources, **case.arguments)
        found = {
            name: {"sha256": content_sha256(target / name), "bytes": (target / name).stat().st_size} for name in outputs
        }
        return case.name, made_of | {"outputs": found, "facts": facts}, False, None
    except UserError as error:
        return case.name, None, False, f"{case.name}: {error}"


def _is_there(path: Path, output: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == output["bytes"]


def _remove(target: Path, names: set[str]) -> None:
    """Remove files that an earlier call made, in `target` itself or below it."""
    for name in names:
        path = target / name
        if target.resolve() in (path.parent.resolve() / path.name).parents:
            path.unlink(missing_ok=True)
