"""Segment FILE, a picture or a NIfTI volume, with onnxruntime, numpy, opencv-python-headless and SimpleITK alone:
python segment_onnx.py NETWORK.onnx FILE [ct|range|percentile|unit]    -> FILE_mask.png or FILE_mask.nii.gz beside it"""

import json
import sys

import cv2
import numpy as np
import onnxruntime
import SimpleITK as sitk


def weights(n, m, cubic):  # matrix (m, n) that resizes n values to m: SciPy's cubic spline, or linear
    at = np.arange(m) * ((n - 1) / max(m - 1, 1)) if pre["resize"] == "spline" else (np.arange(m) + 0.5) * n / m - 0.5
    if not cubic:
        return np.stack([np.interp(at, np.arange(n), one) for one in np.eye(n)], axis=1)
    away = (np.abs(x[:, None] - np.arange(-1, n + 1)) for x in (at, np.arange(n)))
    values = (np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.maximum(2 - d, 0) ** 3 / 6) for d in away)
    new, old = (x @ np.pad(np.eye(n), ((1, 1), (0, 0)), mode="reflect") for x in values)
    return (at <= n - 1)[:, None] * (new @ np.linalg.inv(old))  # SciPy gives 0 where rounding leads beyond the end


network, file, asked = (*sys.argv[1:], "auto")[:3] if len(sys.argv) > 2 else sys.exit(__doc__)
words = (session := onnxruntime.InferenceSession(network)).get_modelmeta().custom_metadata_map
if "intensity" not in words:
    sys.exit(f"{network}: does not say how its images were made; export the checkpoint again with tools.export")
pre, (s, t), given = (json.loads(words[key]) for key in ("preprocess", "img_size", "intensity"))
asked = given if asked == "auto" else asked  # what --intensity was in training
if nifti := file.endswith((".nii", ".nii.gz")):
    image = stored = sitk.ReadImage(file)
    codes = {stored.GetMetaData(key) for key in ("qform_code", "sform_code") if stored.HasMetaDataKey(key)}
    if pre.get("orientation") and codes != {"0"}:  # where (slice, row, column) of the training data grow
        image = sitk.DICOMOrient(stored, pre["orientation"][::-1])
raw = sitk.GetArrayFromImage(image) if nifti else cv2.imread(file, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)[None]
if nifti and 1 in raw.shape[1:3]:
    sys.exit(f"{file}: one slice of another direction than in training ({pre.get('orientation')}); give its volume")
if nifti and 2 * image.GetSpacing()[2] < max(image.GetSpacing()[:2]):
    print(f"warning: {file} is cut across thick slices: spacing (x, y, z) {image.GetSpacing()}", file=sys.stderr)
low, high = raw.min(), raw.max()
ends = {"percentile": np.percentile(raw, (0.5, 99.5))} | ({"ct": (-125, 275)} if low <= -500 or asked == "ct" else {})
ends |= {"range": (0, np.iinfo(raw.dtype).max)} if raw.dtype.kind == "u" else {}
ends |= {"unit": (0, 1)} if raw.dtype.kind == "f" and low >= 0 and high <= 1 else {}
if (auto := pre["intensity"]) != "percentile":  # a volume of 8 bits is no CT
    small = raw.dtype == np.uint8 and not (nifti and auto == "ct")
    auto = "unit" if "unit" in ends else "range" if small else auto
if (kind := auto if asked == "auto" else asked) not in ends or pre.get("fit") == "slide":
    sys.exit(f"{file}: {raw.dtype} {low} to {high} as {kind}, trained on {pre}: expected one of {[*ends]}, not slide")
(least, most), (h, w), labels = ends[kind], raw.shape[1:3], []
a, b = [max(1, round(n * min(s / h, t / w))) for n in (h, w)] if pre.get("fit") == "pad" else (s, t)  # of the image
top, left, area = (s - a) // 2, (t - b) // 2, cv2.INTER_AREA if a <= h and b <= w else cv2.INTER_LINEAR
down, up = (weights(h, a, True), weights(w, b, True).T), (weights(a, h, False), weights(b, w, False).T)
for x in np.clip((raw.astype(np.float32) - np.float32(least)) / np.float32(max(most - least, 1e-6)), 0, 1):
    grey = x @ np.float32((0.299, 0.587, 0.114)) if x.ndim == 3 else x
    x = np.rint(255 * x).astype(np.uint8) if pre["channels"] == 3 else grey
    x = down[0] @ x @ down[1] if pre["resize"] == "spline" else cv2.resize(x, (b, a), interpolation=area)
    x = np.pad(x.reshape(a, b, -1), ((top, s - a - top), (left, t - b - left), (0, 0)))
    x = np.float32((x / (255 if pre["channels"] == 3 else 1) - pre["mean"]) / pre["std"]).transpose(2, 0, 1)[None]
    x = up[0] @ session.run(None, {"image": x})[0][0][:, top : top + a, left : left + b] @ up[1]
    labels.append(x.argmax(0) if len(x) > 1 else (x[0] >= 0) * (1 if nifti else 255))
if nifti:
    mask = sitk.GetImageFromArray(np.array(labels, np.uint8))
    mask.CopyInformation(image)
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(stored.GetDirection())
    sitk.WriteImage(sitk.DICOMOrient(mask, code), out := file.split(".nii")[0] + "_mask.nii.gz")
else:
    cv2.imwrite(out := file.rsplit(".", 1)[0] + "_mask.png", np.array(labels[0], np.uint8))
print(out)
