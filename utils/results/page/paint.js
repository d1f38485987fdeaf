// One frame on a canvas: the image, areas (prediction or errors), contours of truth and prediction.

const WHITE = "#fff";
const DARK = "rgba(0, 0, 0, 0.65)";
const TINT = 0.22;
// Told apart with any colour vision, and by their hatching; none of them is a class colour.
const ERRORS = {
  correct: [110, 220, 190, 0.3],
  extra: [255, 120, 40, 0.75],
  missed: [200, 90, 255, 0.95],
  confused: [255, 235, 90, 0.9],
};

/** Which error a pixel shows, null where nothing is; hatched ones leave gaps, at x, y of the canvas. */
function errorColor(prediction, truth, x, y) {
  if (!prediction && !truth) return null;
  if (prediction === truth) return ERRORS.correct;
  if (!truth) return ERRORS.extra;
  if (!prediction) return (x + y) % 8 < 5 ? ERRORS.missed : null;
  return (x + y) % 8 < 3 || (x - y + 8000) % 8 < 3 ? ERRORS.confused : null;
}

/** Paint `areas(prediction, truth, x, y)` -> [r, g, b, opacity] or null over the whole canvas. */
function paintAreas(context, maps, width, scale, areas) {
  const canvas = document.createElement("canvas");
  canvas.width = context.canvas.width;
  canvas.height = context.canvas.height;
  const own = canvas.getContext("2d");
  const pixels = own.createImageData(canvas.width, canvas.height);
  for (let y = 0, at = 0; y < canvas.height; y++) {
    const row = Math.floor((y + 0.5) / scale) * width;
    for (let x = 0; x < canvas.width; x++, at += 4) {
      const place = row + Math.floor((x + 0.5) / scale);
      const color = areas(maps.prediction[place], maps.truth[place], x, y);
      if (color === null) continue;
      pixels.data[at] = color[0];
      pixels.data[at + 1] = color[1];
      pixels.data[at + 2] = color[2];
      pixels.data[at + 3] = 255 * color[3];
    }
  }
  own.putImageData(pixels, 0, 0);
  context.drawImage(canvas, 0, 0);
}

function strokeAll(context, paths, width, colorOf) {
  context.lineWidth = width;
  for (const [label, path] of paths) {
    context.strokeStyle = colorOf(label);
    context.stroke(path);
  }
}

/**
 * Draw a frame with its longer side `side` pixels.
 * shown: label -> whether its class is drawn; layers: {prediction, truth, errors}
 */
function paint(canvas, image, frame, index, shown, layers, side) {
  const [height, width] = frame.size;
  const scale = side / Math.max(height, width);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const both = decodeRuns(frame.labels, height * width, index.num_labels);
  const maps = { prediction: only(both.prediction, shown), truth: only(both.truth, shown) };
  const color = (label) => index.classes[label - 1].color;
  if (layers.errors) paintAreas(context, maps, width, scale, errorColor);
  else if (layers.prediction) {
    paintAreas(context, maps, width, scale, (label) => (label ? [...color(label), TINT] : null));
  }
  context.scale(scale, scale);
  context.lineCap = "round";
  const unit = Math.max(side / 384, 1) / scale;
  if (layers.truth) {
    const paths = contours(maps.truth, height, width);
    strokeAll(context, paths, 2.9 * unit, () => DARK);
    strokeAll(context, paths, 1.7 * unit, () => WHITE);
  }
  if (layers.prediction) {
    strokeAll(context, contours(maps.prediction, height, width), 1.2 * unit, (label) => `rgb(${color(label)})`);
  }
}
