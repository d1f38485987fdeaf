"""python -m tools.app: the page in a browser, what it refuses, and what nobody may fetch from it."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from models.build import build_model, load_network
from models.predictor import Predictor
from recipes import RECIPES
from tests.datasets.files.test_itk import write_series
from tests.support.chromium import Browser, is_installed
from tests.support.places import ROOT
from tools import app
from utils import checkpoint
from utils.config import Config, to_dict
from utils.errors import UserError
from utils.inference.segment import Segmented
from utils.preprocess import SLICES

needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed")
CT = Config(num_classes=3, preprocess=replace(SLICES, intensity="ct"), img_size=(32, 32), dataset="ct")
NAMES = ("liver", "<b>spleen</b>")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def write_volume(path, seed=0, depth=4):
    array = np.random.default_rng(seed).integers(-900, 900, (depth, 40, 44)).astype(np.int16)
    array[0, 0, 0] = -1000
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2, 2, 5))
    sitk.WriteImage(image, str(path))
    return array


# --- its parts ----------------------------------------------------------------------------------


def test_sizes_are_in_ml_where_the_spacing_is_known_and_names_are_words():
    mask = np.zeros((2, 10, 10), np.uint8)
    mask[0, :5] = 2
    table = app.class_table(mask, NAMES, (5.0, 2.0, 2.0))
    assert "<td>liver</td><td>0.0 ml</td>" in table
    assert "<td>&lt;b&gt;spleen&lt;/b&gt;</td><td>1.0 ml</td>" in table
    assert "50 pixels" in app.class_table(mask, NAMES, None)


def test_the_mask_lies_over_the_image_as_strongly_as_asked():
    mask = np.zeros((2, 600, 700), np.uint8)
    mask[1, :300] = 1
    found = Segmented(mask, np.full((2, 600, 700), 0.5, np.float32), None)
    for opacity in (0, 0.5, 1):
        picture = app.show(found, 2, opacity).astype(int)
        expected = (1 - opacity) * 128 + opacity * np.array(app.class_color(1))
        assert np.abs(picture[:300] - expected).max() <= 1
        assert (picture[300:] == 128).all()
    assert (app.show(found, 1, 1) == 128).all()
    assert app.show(Segmented(mask[:, :40, :30], found.unit[:, :40, :30], None), 99, 1).shape == (680, 510, 3)
    assert app.show(None, 1, 1) is None


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_members_of_an_archive_stay_inside_under_names_of_our_own(tmp_path):
    dicom = bytes(128) + b"DICM" + bytes(20)
    names = ["../../evil.dcm", "/etc/evil.dcm", "a/b.dcm", "C:\\x.dcm", "..", "notes.txt", "folder/"]
    path = zip_of(tmp_path / "a.zip", {name: b"text" if "notes" in name else dicom for name in names})
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    (tmp_path / "out").mkdir()
    app.unpack_series(path, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "out"]
    written = list((tmp_path / "out").iterdir())
    assert len(written) == 5
    for one in written:
        assert one.is_file()
        assert not one.is_symlink()
        assert one.read_bytes() == dicom


def test_bombs_and_damaged_archives_are_refused(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(app, "MOST_UNPACKED", 10**6)
    monkeypatch.setattr(app, "MOST_MEMBERS", 10)
    bomb = zip_of(tmp_path / "bomb.zip", {"a.dcm": bytes(2 * 10**6)})
    assert bomb.stat().st_size < 10**4
    many = zip_of(tmp_path / "many.zip", {f"{k}.dcm": b"" for k in range(11)})
    lying = tmp_path / "lying.zip"  # says 132 bytes in its directory, holds two million
    lying.write_bytes(bomb.read_bytes().replace((2 * 10**6).to_bytes(4, "little"), (132).to_bytes(4, "little")))
    empty = zip_of(tmp_path / "empty.zip", {"a.txt": b"words"})
    (tmp_path / "no.zip").write_bytes(b"PK no archive")
    for path, message in (
        (bomb, "1 files of 2 MB"),
        (many, "11 files"),
        (lying, "cannot be read"),
        (empty, "no DICOM file"),
        (tmp_path / "no.zip", "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            app.unpack_series(path, tmp_path / "out")
        assert not any((tmp_path / "out").iterdir())


def test_a_series_from_a_cd_is_read_and_an_error_names_what_the_user_gave(tmp_path, monkeypatch):
    array = 2 * np.random.default_rng(0).integers(-450, 450, (3, 40, 44)).astype(np.int16)
    write_series(tmp_path / "series", array, "1.2.3.4", [10, 12.5, 15])
    members = {f"CD/IMAGES/{path.stem}": path.read_bytes() for path in sorted((tmp_path / "series").iterdir())}
    index = {name: bytes(128) + b"DICM" + bytes(20) for name in ("CD/DICOMDIR", "CD\\dicomdir")}
    seen = []
    monkeypatch.setattr(app, "segment", lambda _, array, *rest: seen.append(array) or Segmented(array > 0, array, None))

    def read(members):
        unpacked = tmp_path / f"unpacked{len(list(tmp_path.iterdir()))}"
        unpacked.mkdir()
        path = zip_of(tmp_path / "a.zip", members)
        app.segment_file(Predictor, NAMES, path, unpacked, tmp_path)

    read(members | index)
    np.testing.assert_array_equal(seen[0], array)
    with pytest.raises(UserError, match=r"^a\.zip/CD/IMAGES/broken: cannot be read as DICOM ") as error:
        read(members | {"CD/IMAGES/broken": bytes(128) + b"DICM" + bytes(20)})
    assert str(tmp_path) not in str(error.value)
    write_series(tmp_path / "other", array, "9.9.9", [10, 12.5, 15])
    other = {f"CD/OTHER/{path.stem}": path.read_bytes() for path in (tmp_path / "other").iterdir()}
    with pytest.raises(UserError, match=r"^a\.zip: found 2 DICOM series .* such as CD/IMAGES/.* such as CD/OTHER/"):
        read(members | other)


# --- the server ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "best.pth"
    state = {"format": "heteromedseg", "config": to_dict(CT), "class_names": list(NAMES), "selection": "last"}
    checkpoint.save(path, state | {"model": build_model(3).state_dict()})
    return path


@pytest.fixture(scope="module")
def server(weights):
    """The address of a page that runs in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--checkpoint", str(weights), "--device", "cpu", "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-m", "tools.app", *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 300
    while True:
        try:
            OPENER.open(address, timeout=60).close()
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(60)


def get(address, path):
    """Status and content of an address."""
    try:
        with OPENER.open(f"{address}{path}", timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def post(address, path, body, kind):
    request = urllib.request.Request(f"{address}{path}", body, {"Content-Type": kind})
    with OPENER.open(request, timeout=120) as answer:
        return json.load(answer)


def upload(address, path, name=None):
    """Where the server keeps the file, uploaded as `name`."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name or path.name}"\r\n\r\n'
    body = head.encode() + path.read_bytes() + b"\r\n--x--\r\n"
    return post(address, "/gradio_api/upload", body, "multipart/form-data; boundary=x")[0]


def segment(address, stored):
    """(event, data) that the page gets for a file that lies at `stored`."""
    body = json.dumps({"data": [{"path": stored, "meta": {"_type": "gradio.FileData"}}]}).encode()
    event = post(address, "/gradio_api/call/segment", body, "application/json")["event_id"]
    _, text = get(address, f"/gradio_api/call/segment/{event}")
    *_, last = text.decode().strip().split("\n\n")
    name, data = last.split("\n", 1)
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@needs_gradio
def test_two_users_at_once_get_their_own_masks(server, weights, tmp_path):
    predictor = Predictor([load_network(weights, RECIPES)], "cpu")
    arrays = [write_volume(tmp_path / f"user{k}.nii.gz", seed=k, depth=3 + k) for k in range(2)]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda k: segment(server, upload(server, tmp_path / f"user{k}.nii.gz")), range(2)))
    for k, (event, data) in enumerate(found):
        assert event == "complete"
        download = next(d["value"] for d in data if isinstance(d, dict) and "nii.gz" in str(d.get("value")))
        status, content = get(download["url"], "")
        assert status == 200
        (tmp_path / f"mask{k}.nii.gz").write_bytes(content)
        mask = sitk.ReadImage(str(tmp_path / f"mask{k}.nii.gz"))
        assert mask.GetSpacing() == (2, 2, 5)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), predictor.predict(arrays[k], orientation="SPL"))


@needs_gradio
def test_no_file_of_the_host_can_be_fetched(server, weights):
    secrets = ("/etc/passwd", str(weights), str(ROOT / "README.md"), "README.md", "/proc/self/environ")
    for secret in secrets:
        dots = "../" * 12 + secret.lstrip("/")
        for spelling in (secret, dots, urllib.parse.quote(dots, safe=""), "/" + secret, f"/tmp/../{secret}"):
            for route in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/", "/theme.css/"):
                status, content = get(server, route + urllib.parse.quote(spelling, safe="/%"))
                assert status >= 400, route + spelling
                assert b"root:" not in content
        assert segment(server, secret)[0] == "error"


class Page:
    """In the place of gradio's: keeps the settings that it is launched with."""

    def __init__(self):
        self.settings = {}

    def queue(self, **_):
        return self

    def launch(self, **settings):
        self.settings = settings
        with socket.socket() as one:
            one.bind((settings["server_name"], settings["server_port"]))


def test_the_page_is_for_this_machine_alone_and_uploads_have_a_limit(weights, monkeypatch):
    page = Page()
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(app, "build_page", lambda *_: page)
    app.main(["--checkpoint", str(weights), "--device", "cpu", "--port", "0"])
    assert (page.settings["server_name"], page.settings["share"]) == ("127.0.0.1", False)
    assert page.settings["max_file_size"] == 500 * 2**20
    with pytest.raises(UserError, match="--port 99999: cannot be opened"):
        app.main(["--checkpoint", str(weights), "--device", "cpu", "--port", "99999"])


@needs_gradio
def test_an_upload_stays_in_the_folder_of_the_page_whatever_its_name(server, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    for name in (f"../../..{tmp_path}/evil.png", f"{tmp_path}/evil.png", "..%2f..%2fevil.png"):
        stored = upload(server, tmp_path / "a.png", name)
        assert "heteromedseg-" in stored
        assert ".." not in stored.split("/")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@needs_gradio
def test_what_is_no_image_gets_a_message_without_our_folders(server, tmp_path):
    for name, content in (("a.txt", b"words"), ("b.nii.gz", b"no volume"), ("c.zip", b"no archive")):
        (tmp_path / name).write_bytes(content)
        event, data = segment(server, upload(server, tmp_path / name))
        assert event == "error"
        assert "heteromedseg-" not in str(data)


def shown_in(browser):
    """The picture that the page shows: (H, W, 3)."""
    status, content = get(browser.run("return document.querySelector('#picture img').src"), "")
    assert status == 200
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


@needs_gradio
@pytest.mark.skipif(not is_installed(), reason="no chromium and chromedriver")
def test_a_dropped_series_is_shown_slice_by_slice(server, weights, tmp_path):
    array = np.random.default_rng(0).integers(-900, 900, (3, 40, 44)).astype(np.int16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for k, plane in enumerate(array):
            image = sitk.GetImageFromArray(plane[None])
            image.SetMetaData("0020|000e", "1.2.3")
            image.SetMetaData("0020|0032", f"0\\0\\{5 * k}")
            image.SetMetaData("0008|0060", "CT")
            writer.SetFileName(str(tmp_path / f"{k}.dcm"))
            writer.Execute(image)
            archive.write(tmp_path / f"{k}.dcm")
    predictor = Predictor([load_network(weights, RECIPES)], "cpu")
    (tmp_path / "unpacked").mkdir()
    found, _, _ = app.segment_file(predictor, NAMES, tmp_path / "series.zip", tmp_path / "unpacked", tmp_path)
    with Browser(tmp_path) as browser:
        browser.open(server)
        browser.wait("return document.querySelector('#upload input[type=file]')")
        browser.press("#upload input[type=file]", str(tmp_path / "series.zip"))
        browser.wait("return document.querySelector('#picture img')?.src")
        browser.wait("return document.querySelector('#classes').innerText.includes('<b>spleen</b>')")
        assert "ml" in browser.run("return document.querySelector('#classes').innerText")
        for keys, number in ((("left",) * 3, 1), (("right",), 2)):
            browser.press("#slice input[type=range]", *keys)
            browser.wait(f"return document.querySelector('#slice input[type=range]').value === '{number}'")
            expected, end = app.show(found, number, 0.4), time.monotonic() + 60
            while not (shown_in(browser) == expected).all():
                assert time.monotonic() < end
                time.sleep(0.1)
        hosts = browser.run("return performance.getEntriesByType('resource').map(entry => new URL(entry.name).host)")
        assert set(hosts) <= {server.removeprefix("http://")}
