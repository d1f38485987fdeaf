// The page: choosing a case, sorting tables, light and dark.

const TILE = 256;
const CASES = { ArrowLeft: -1, ArrowRight: 1 }; // what keys do in a gallery, and for slices
const SLICES = { ...CASES, ArrowDown: -1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
const tiles = [...document.querySelectorAll("#list .case")];
const isGallery = $("viewer").tagName === "DIALOG"; // of images; volumes have the viewer beside their list

/** Open a case by its tile, its name in the table or its point in a chart. */
function openCase(opener) {
  showCase(Number(opener.dataset.case));
  markCase();
  if (isGallery) {
    if (!$("viewer").open) $("viewer").showModal();
  } else if (!opener.matches(".case")) {
    $("viewer").scrollIntoView({ block: "start" });
    $("canvas").focus({ preventScroll: true });
  }
}

/** The tiles in the order shown, and the place of the open case among them; -1 where it is not among them. */
function shownTiles() {
  const found = [...$("list").children].filter((tile) => !tile.hidden);
  return [found, found.findIndex((tile) => Number(tile.dataset.case) === shown.place)];
}

function markCase() {
  const [found, at] = shownTiles();
  for (const tile of tiles) tile.ariaCurrent = tile === found[at] ? "true" : null;
  $("previous").disabled = at <= 0;
  $("next").disabled = at === found.length - 1;
}

function step(by) {
  const [found, at] = shownTiles();
  if (found[at + by]) openCase(found[at + by]);
}

/** Sort the tiles as chosen and hide those that the search does not find. */
function arrange() {
  const dice = (tile) => (tile.dataset.dice ? Number(tile.dataset.dice) : -1); // without one: last
  const worst = (a, b) => a.dataset.case - b.dataset.case;
  const order = {
    worst,
    best: (a, b) => dice(b) - dice(a) || worst(a, b),
    name: (a, b) => a.title.localeCompare(b.title, "en", { numeric: true }),
  }[$("order").value];
  const wanted = $("find").value.trim().toLowerCase();
  for (const tile of tiles) tile.hidden = !tile.title.toLowerCase().includes(wanted);
  $("list").append(...tiles.toSorted(order));
  $("found").textContent = `${tiles.filter((tile) => !tile.hidden).length} of ${tiles.length}`;
  markCase();
}

/** Draw the pictures of tiles while they are in sight. */
function drawTiles() {
  const layers = new Set(["prediction", "truth"]);
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target: canvas, isIntersecting } of entries) {
        const frame = data(`case-${canvas.closest(".case").dataset.case}`).frames[0];
        canvas.dataset.wanted = isIntersecting ? "yes" : "";
        if (!isIntersecting) canvas.width = 0; // gives its memory back
        else if (frame) paint(canvas, frame, colors, new Set(), layers, TILE, () => canvas.dataset.wanted);
      }
    },
    { root: $("list"), rootMargin: "400px" },
  );
  for (const canvas of $("list").querySelectorAll("canvas")) watcher.observe(canvas);
}

/** Sort the body of a table by a column; cells without a value stay last either way. */
function sortBy(table, column, descending) {
  const heads = [...table.tHead.rows[0].cells];
  const key = (row) => row.cells[column].dataset.value || null;
  const compare = heads[column].matches(".text")
    ? (a, b) => a.localeCompare(b, "en", { numeric: true })
    : (a, b) => a - b;
  const rows = [...table.tBodies[0].rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return descending ? compare(b, a) : compare(a, b);
  });
  table.tBodies[0].append(...rows);
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}

function startTheme() {
  const root = document.documentElement.dataset;
  let kept = {};
  try {
    kept = localStorage;
  } catch {
    // a browser that keeps nothing for files: the choice holds for this visit
  }
  root.theme = kept.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  $("theme").addEventListener("click", () => {
    root.theme = kept.theme = root.theme === "dark" ? "light" : "dark";
  });
}

startTheme();
startViewer();
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-case]");
  const head = event.target.closest("button.sort")?.parentElement;
  if (opener) openCase(opener);
  if (head) sortBy(head.closest("table"), head.cellIndex, head.getAttribute("aria-sort") === "ascending");
  if (isGallery && (event.target === $("viewer") || event.target === $("close"))) $("viewer").close();
});
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("order").addEventListener("change", arrange);
$("find").addEventListener("input", arrange);
$("viewer").addEventListener("keydown", (event) => {
  const by = (isGallery ? CASES : SLICES)[event.key];
  if (!by || event.altKey || event.ctrlKey || event.metaKey || (!isGallery && event.target !== $("canvas"))) return;
  event.preventDefault();
  if (isGallery) step(by);
  else showFrame(shown.frame + by);
});
arrange();
if (isGallery) drawTiles();
else showCase(0), markCase();
