// From the page's data to label maps, and from label maps to lines. `runs.py` writes what decodeRuns reads.

const data = (id) => JSON.parse(document.getElementById(id).textContent);

/** Two maps from runs of prediction * numLabels + truth, `length` pixels each. */
function decodeRuns(text, length, numLabels) {
  const bytes = atob(text);
  const prediction = new Uint8Array(length);
  const truth = new Uint8Array(length);
  let at = 0;
  let place = 0;
  const number = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes.charCodeAt(at++);
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const label = number();
    const end = place + number();
    prediction.fill(Math.floor(label / numLabels), place, end);
    truth.fill(label % numLabels, place, end);
    place = end;
  }
  return { prediction, truth };
}

/** The map with the labels that are not shown as background. */
const only = (map, shown) => map.map((label) => (shown[label] ? label : 0));

/**
 * Contours of a label map by marching squares: label -> Path2D, in pixels of the map with whole numbers at edges.
 * Every 2x2 neighbourhood with more than one label adds lines between the middles of its sides.
 */
function contours(map, height, width) {
  const paths = new Map();
  const at = (y, x) => (y < 0 || x < 0 || y >= height || x >= width ? 0 : map[y * width + x]);
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const corners = [at(y, x), at(y, x + 1), at(y + 1, x + 1), at(y + 1, x)];
      const [a, b, c, d] = corners;
      if (a === b && b === c && c === d) continue;
      for (const label of new Set(corners)) {
        if (label === 0) continue;
        if (!paths.has(label)) paths.set(label, new Path2D());
        const sides = [];
        const middles = [[x + 1, y + 0.5], [x + 1.5, y + 1], [x + 1, y + 1.5], [x + 0.5, y + 1]];
        for (let i = 0; i < 4; i++) {
          if ((corners[i] === label) !== (corners[(i + 1) % 4] === label)) sides.push(middles[i]);
        }
        // Two opposite corners make four sides: joined so that the two stay apart.
        if (sides.length === 4 && a === label) sides.push(sides.shift());
        const path = paths.get(label);
        for (let i = 0; i < sides.length; i += 2) {
          path.moveTo(...sides[i]);
          path.lineTo(...sides[i + 1]);
        }
      }
    }
  }
  return paths;
}

const picture = (text) =>
  new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("a picture of this page is damaged"));
    image.src = `data:image/jpeg;base64,${text}`;
  });
