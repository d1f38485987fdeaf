// The viewer of one case: slices, layers, classes, and the figures of the case.

const SIDE = 768;
const $ = (id) => document.getElementById(id);
const data = (id) => JSON.parse($(id).textContent);
const boxes = (id) => [...$(id).querySelectorAll("input")];
const colors = data("colors");
const shown = { place: -1, frame: 0, turn: 0, case: null };

/** Show the case number `place`, 0 being the worst; its worst slice first. */
function showCase(place) {
  const one = data(`case-${place}`);
  const { frames, depth } = one;
  const wrong = frames.map((frame) => frame.wrong);
  Object.assign(shown, { place, case: one });
  const slices = frames.length < depth ? `${frames.length} of ${depth} slices` : `${depth} slices`;
  const dice = one.dice === null ? "no Dice" : `Dice ${(100 * one.dice).toFixed(2)} %`;
  $("viewer-name").textContent = one.name;
  $("viewer-facts").textContent = [dice, one.size, ...(depth ? [slices] : [])].join(" · ");
  $("missing").hidden = frames.length > 0;
  $("canvas").hidden = frames.length === 0;
  $("slices").hidden = depth === 0 || frames.length === 0;
  $("slice").max = Math.max(frames.length - 1, 0);
  const most = Math.max(...wrong, 1); // a bar for each slice above the slider
  $("profile").setAttribute("viewBox", `0 0 ${Math.max(frames.length, 1)} 100`);
  $("profile").firstChild.setAttribute("d", wrong.map((n, i) => `M${i + 0.5} 100V${100 - (100 * n) / most}`).join(""));
  $("case-figures").replaceChildren(
    ...one.figures.map((cells) => {
      const row = document.createElement("tr");
      for (const [i, text] of cells.entries()) {
        const cell = row.appendChild(document.createElement(i ? "td" : "th"));
        cell.textContent = text;
        cell.classList.toggle("bad", text === "missed" || text === "false positive");
      }
      return row;
    }),
  );
  showFrame(Math.max(wrong.indexOf(Math.max(...wrong)), 0));
}

/** Show the stored slice number `frame`. */
function showFrame(frame) {
  const { frames, depth, name } = shown.case;
  shown.frame = Math.min(Math.max(frame, 0), Math.max(frames.length - 1, 0));
  const one = frames[shown.frame];
  if (one) {
    const words = `${one.index + 1} of ${depth} · ${one.wrong.toLocaleString("en-US")} wrong pixels`;
    $("slice").value = shown.frame;
    $("slice").setAttribute("aria-valuetext", words);
    $("slice-number").textContent = words;
    const keys = `, slice ${one.index + 1}; arrow keys change the slice`;
    $("canvas").setAttribute("aria-label", `${name}${depth ? keys : ""}`);
    draw();
  }
}

/** Draw the slice with the layers and classes chosen. */
function draw() {
  const turn = ++shown.turn;
  const one = shown.case.frames[shown.frame];
  const layers = boxes("layers").filter((box) => box.checked);
  const hidden = boxes("classes").filter((box) => !box.checked);
  $("all-classes").textContent = hidden.length < colors.length ? "Hide all" : "Show all";
  if (!one) return;
  const wanted = [new Set(hidden.map((box) => Number(box.value))), new Set(layers.map((box) => box.value))];
  paint($("canvas"), one, colors, ...wanted, SIDE, () => turn === shown.turn);
}

function startViewer() {
  for (const box of [...boxes("layers"), ...boxes("classes")]) box.addEventListener("change", draw);
  $("all-classes").addEventListener("click", () => {
    const none = boxes("classes").every((box) => !box.checked);
    for (const box of boxes("classes")) box.checked = none;
    draw();
  });
  $("slice").addEventListener("input", () => showFrame(Number($("slice").value)));
  $("profile").addEventListener("click", (event) => {
    const box = $("profile").getBoundingClientRect();
    showFrame(Math.floor(((event.clientX - box.left) / box.width) * shown.case.frames.length));
  });
}
