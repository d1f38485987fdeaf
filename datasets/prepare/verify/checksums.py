"""Checking what a prepared folder holds against the checksums of its manifest.json."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from datasets.prepare.shared.manifest import MANIFEST, content_sha256, read_manifest
from datasets.prepare.verify.findings import Report
from utils.errors import UserError


def check_manifest(report: Report, root: Path) -> bool:
    """An error for each file that is not what manifest.json says that it was written as; False without a manifest."""
    try:
        manifest = read_manifest(root)
    except UserError as error:
        report.error("manifest", MANIFEST, str(error))
        return True
    if manifest is None:
        return False
    written = {name: out["sha256"] for case in manifest["cases"].values() for name, out in case["outputs"].items()}

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
