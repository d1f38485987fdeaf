// One frame on a canvas: the picture, the areas of the prediction or its errors, contours of truth and prediction.

const TINT = 56; // of 255: opacity of the prediction's area
// Any colour vision tells them apart by colour or hatching; none of them is the colour of a class.
const ERRORS = {
  correct: [110, 220, 190, 77],
  extra: [255, 120, 40, 191],
  missed: [200, 90, 255, 242],
  confused: [255, 235, 90, 230],
};

/** A frame's picture and label maps: bytes, prediction before truth, deflated. */
async function decode(frame) {
  const picture = new Image();
  picture.src = `data:image/jpeg;base64,${frame.picture}`;
  const bytes = Uint8Array.from(atob(frame.labels), (letter) => letter.charCodeAt(0));
  const maps = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const [buffer] = await Promise.all([new Response(maps).arrayBuffer(), picture.decode()]);
  const length = frame.size[0] * frame.size[1];
  return { picture, prediction: new Uint8Array(buffer, 0, length), truth: new Uint8Array(buffer, length) };
}

/** The kind of error of a pixel as a colour, null where nothing is; hatched kinds leave gaps at x, y of the canvas. */
function errorColor(prediction, truth, x, y) {
  if (prediction === truth) return truth ? ERRORS.correct : null;
  if (!truth) return ERRORS.extra;
  if (!prediction) return (x + y) % 8 < 5 ? ERRORS.missed : null;
  return (x + y) % 8 < 3 || (x - y + 8000) % 8 < 3 ? ERRORS.confused : null;
}

/** Paint the colour `colorAt(place in the maps, x, y)`, or nothing where it is null, over the whole canvas. */
function paintAreas(context, width, scale, colorAt) {
  const layer = new OffscreenCanvas(context.canvas.width, context.canvas.height);
  const pixels = new ImageData(layer.width, layer.height);
  for (let y = 0; y < layer.height; y++) {
    const row = width * Math.floor((y + 0.5) / scale);
    for (let x = 0; x < layer.width; x++) {
      const color = colorAt(row + Math.floor((x + 0.5) / scale), x, y);
      if (color) pixels.data.set(color, 4 * (y * layer.width + x));
    }
  }
  layer.getContext("2d").putImageData(pixels, 0, 0);
  context.drawImage(layer, 0, 0);
}

/** Contour of one label by marching squares: each 2x2 block adds lines between the middles of its sides. */
function contour(map, label, [height, width]) {
  const path = new Path2D();
  const has = (y, x) => y >= 0 && x >= 0 && y < height && x < width && map[y * width + x] === label;
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      const [a, b, c, d] = [has(y - 1, x - 1), has(y - 1, x), has(y, x), has(y, x - 1)];
      if (a === b && b === c && c === d) continue;
      const corners = [a, b, c, d, a];
      const middles = [[x, y - 0.5], [x + 0.5, y], [x, y + 0.5], [x - 0.5, y]];
      const sides = middles.filter((_, i) => corners[i] !== corners[i + 1]);
      if (sides.length === 4 && a) sides.push(sides.shift()); // two corners that touch stay apart
      for (let i = 0; i < sides.length; i += 2) {
        path.moveTo(...sides[i]);
        path.lineTo(...sides[i + 1]);
      }
    }
  }
  return path;
}

/**
 * Draw a frame, its longer side `side` pixels. colors: [r, g, b] of label 1, 2, ...; hidden: labels not drawn;
 * layers: names of what is drawn; isWanted: asked when the frame is decoded. Counts in data-drawn how often it drew.
 */
async function paint(canvas, frame, colors, hidden, layers, side, isWanted) {
  const { picture, prediction, truth } = await decode(frame);
  if (!isWanted()) return;
  const scale = side / Math.max(...frame.size);
  [canvas.height, canvas.width] = frame.size.map((length) => Math.round(length * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  for (const map of [prediction, truth]) map.forEach((label, at) => hidden.has(label) && (map[at] = 0));
  const errors = (at, x, y) => errorColor(prediction[at], truth[at], x, y);
  const areas = colors.map((color) => [...color, TINT]);
  if (layers.has("errors")) paintAreas(context, frame.size[1], scale, errors);
  else if (layers.has("prediction")) paintAreas(context, frame.size[1], scale, (at) => areas[prediction[at] - 1]);
  context.scale(scale, scale);
  const contours = (map) => [...new Set(map)].filter(Boolean).map((label) => [contour(map, label, frame.size), label]);
  const stroke = (lines, width, colorOf) => {
    context.lineWidth = (width * Math.max(side / 384, 1)) / scale;
    for (const [path, label] of lines) {
      context.strokeStyle = colorOf(label);
      context.stroke(path);
    }
  };
  if (layers.has("truth")) {
    const lines = contours(truth);
    stroke(lines, 2.9, () => "rgb(0 0 0 / 0.65)");
    stroke(lines, 1.7, () => "#fff");
  }
  if (layers.has("prediction")) stroke(contours(prediction), 1.2, (label) => `rgb(${colors[label - 1]})`);
  canvas.dataset.drawn = 1 + Number(canvas.dataset.drawn ?? 0);
}
