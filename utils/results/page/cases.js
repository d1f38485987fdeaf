// How cases are chosen: a list beside the viewer for volumes, a gallery that opens it for images.

const TILE = 256;

function addBar(parent, dice) {
  const bar = cell("span", "", "meter");
  bar.style.setProperty("--v", dice ?? 0);
  parent.append(bar, cell("span", dice === null ? "–" : (100 * dice).toFixed(1), "score"));
}

/** Volumes: a list, worst first, beside the viewer. Returns a function that opens a case. */
function listCases(index, viewer) {
  const buttons = index.cases.map((one, place) => {
    const button = cell("button", "", "case");
    button.type = "button";
    button.append(cell("span", one.name, "name"));
    addBar(button, one.dice);
    button.addEventListener("click", () => open(place));
    const item = document.createElement("li");
    item.append(button);
    $("case-list").append(item);
    return button;
  });
  function open(place) {
    buttons[viewer.place]?.removeAttribute("aria-current");
    buttons[place].setAttribute("aria-current", "true");
    viewer.open(place);
    $("previous").disabled = place === 0;
    $("next").disabled = place === buttons.length - 1;
  }
  $("previous").addEventListener("click", () => open(viewer.place - 1));
  $("next").addEventListener("click", () => open(viewer.place + 1));
  $("close").hidden = true;
  open(0);
  return (place) => {
    open(place);
    $("viewer").scrollIntoView({ block: "start" });
    $("canvas").focus({ preventScroll: true });
  };
}

/** Images: tiles drawn when they come into sight, the viewer in a dialog. Returns a function that opens a case. */
function showGallery(index, viewer) {
  const everything = index.classes.map(() => true);
  everything.unshift(false);
  const tiles = index.cases.map((one, place) => makeTile(one, () => open(place)));
  let order = tiles.map((_, place) => place);
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const place = tiles.indexOf(entry.target);
        const canvas = entry.target.querySelector("canvas");
        if (entry.isIntersecting) drawTile(place, canvas);
        else {
          canvas.width = 0; // gives its memory back
          delete canvas.dataset.drawn;
        }
      }
    },
    { root: $("gallery"), rootMargin: "400px" },
  );

  async function drawTile(place, canvas) {
    const frame = data(`case-${place}`).frames[0];
    canvas.parentElement.classList.toggle("empty", !frame);
    if (!frame) return;
    const image = await picture(frame.picture);
    paint(canvas, image, frame, index, everything, { prediction: true, truth: true, errors: false }, TILE);
    canvas.dataset.drawn = place;
  }

  function arrange() {
    const dice = (place) => index.cases[place].dice ?? -Infinity; // without one: last
    const by = {
      worst: (a, b) => a - b,
      best: (a, b) => dice(b) - dice(a) || a - b,
      name: (a, b) => index.cases[a].name.localeCompare(index.cases[b].name, "en", { numeric: true }),
    };
    const wanted = $("find").value.trim().toLowerCase();
    order = tiles.map((_, place) => place).filter((place) => index.cases[place].name.toLowerCase().includes(wanted));
    order.sort(by[$("order").value]);
    $("gallery").replaceChildren(...order.map((place) => tiles[place]));
    $("found").textContent = `${order.length} of ${tiles.length}`;
  }

  function open(place) {
    viewer.open(place);
    if (!$("dialog").open) $("dialog").showModal();
    const at = order.indexOf(place);
    $("previous").disabled = at <= 0;
    $("next").disabled = at < 0 || at === order.length - 1;
  }
  function step(by) {
    const place = order[order.indexOf(viewer.place) + by];
    if (place !== undefined) open(place);
  }
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => $("dialog").close());
  $("dialog").addEventListener("click", (event) => event.target === $("dialog") && $("dialog").close());
  $("dialog").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      step(by);
    }
  });
  $("order").addEventListener("change", arrange);
  $("find").addEventListener("input", arrange);
  arrange();
  for (const tile of tiles) watcher.observe(tile);
  return open;
}

function makeTile(one, onOpen) {
  const tile = cell("button", "", "tile");
  tile.type = "button";
  const stage = cell("span", "", "picture");
  stage.append(document.createElement("canvas"));
  const words = cell("span", "", "words");
  words.append(cell("span", one.name, "name"));
  addBar(words, one.dice);
  tile.append(stage, words);
  tile.title = one.name;
  tile.addEventListener("click", onOpen);
  return tile;
}
