"""Checking what a prepared folder holds against the checksums of its manifest.json."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unicodedata import normalize

from tqdm import tqdm

from datasets.images.pairs import stem_of
from datasets.prepare.shared.manifest import MANIFEST, content_sha256, read_manifest
from datasets.prepare.verify.findings import Report
from datasets.prepared import PREPARED, Prepared
from datasets.volumes.lists import SLICE_SUFFIXES, VOLUME_SUFFIXES, strip_suffix
from utils.errors import UserError, counted, join_listed


def check_manifest(report: Report, root: Path, listed: Iterable[str], made: Prepared | None = None) -> bool:
    """Check the folder against its manifest.json; False where it has none.

    An error for each file that is not what was written, for cases of other parameters (a preparation that did not
    end), for a prepared.json that says `made` otherwise, and for `listed` names that no case has.
    """
    try:
        manifest = read_manifest(root)
    except UserError as error:
        report.error("manifest", MANIFEST, str(error))
        return True
    if manifest is None:
        return False
    cases, parameters = manifest["cases"], manifest["parameters"]
    if unfinished := [name for name, case in cases.items() if not case["sources"]]:
        found = f"{len(unfinished)} of {counted(len(cases), 'case')} made with other parameters"
        report.error("manifest", join_listed(unfinished, 5, ", "), f"{found}; prepare the folder again")
    for name, said in made._asdict().items() if made else ():
        if parameters.get(name, said) != said:
            text = f"{name} is {said}, but the files were made with {parameters[name]}; prepare the folder again"
            report.error("manifest", PREPARED, text)
    written = {name: out["sha256"] for case in cases.values() for name, out in case["outputs"].items()}
    stems = {stem_of(strip_suffix(name, SLICE_SUFFIXES + VOLUME_SUFFIXES)) for name in written}
    if unmade := sorted({normalize("NFC", name) for name in listed} - stems):
        text = f"{counted(len(unmade), 'listed name')} without a case in {MANIFEST}; prepare the folder again"
        report.error("manifest", join_listed(unmade, 5, ", "), text)

    def differs(name: str) -> bool:
        try:
            return content_sha256(root / name) != written[name]
        except UserError:
            return True

    with ThreadPoolExecutor(4) as pool:
        found = tqdm(pool.map(differs, written), "checksums", len(written), leave=False, disable=None)
        for name, wrong in zip(written, found):
            if wrong:
                report.error("manifest", name, "is missing or is not what prepare_data.py wrote")
    report.tables["manifest"] = [["data sha256"], [manifest["sha256"]]]
    return True
