// The viewer of one case: slices, layers, classes, and the case's own figures.

const SIDE = 768;
const PAGE_STEP = 10;
const $ = (id) => document.getElementById(id);

/** A figure as text, as the tables of the page write it. */
function formatted(metric, value) {
  if (value === null) return "–";
  const options = { minimumFractionDigits: metric.digits, maximumFractionDigits: metric.digits };
  return (value * metric.scale).toLocaleString("en-US", options);
}

function cell(kind, text, look = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = look;
  return made;
}

function swatch(color) {
  const made = cell("span", "", "swatch");
  made.style.background = `rgb(${color})`;
  return made;
}

class Viewer {
  /** index: the page's index; a case's place is its number there, the worst is 0 */
  constructor(index) {
    this.index = index;
    this.shown = index.classes.map(() => true);
    this.shown.unshift(false);
    this.layers = { prediction: true, truth: true, errors: false };
    this.place = -1;
    this.frame = 0;
    this.drawing = 0;
    this.listClasses();
    this.listen();
  }

  /** Show case number `place`; its worst slice first. */
  open(place) {
    this.place = place;
    this.case = data(`case-${place}`);
    const { frames, depth, name } = this.case;
    $("viewer-name").textContent = name;
    $("viewer-score").textContent = this.describe();
    $("missing").hidden = frames.length > 0;
    $("canvas").hidden = frames.length === 0;
    document.querySelector(".slices").hidden = depth === 0 || frames.length === 0;
    $("slice").max = Math.max(frames.length - 1, 0);
    this.drawProfile();
    this.tabulate();
    const wrong = frames.map((frame) => frame.wrong);
    this.show(Math.max(wrong.indexOf(Math.max(...wrong)), 0));
  }

  describe() {
    const { frames, depth, shape } = this.case;
    const dice = this.index.cases[this.place].dice;
    const score = dice === null ? "no Dice" : `Dice ${(100 * dice).toFixed(2)} %`;
    const size = `${shape[1]} × ${shape[0]}`;
    return `${score} · ${depth ? `${frames.length} of ${depth} slices, ${size}` : size}`;
  }

  /** Show the stored slice number `frame`. */
  async show(frame) {
    const { frames, depth } = this.case;
    if (!frames.length) return;
    this.frame = Math.min(Math.max(frame, 0), frames.length - 1);
    const one = frames[this.frame];
    const spoken = `${one.index} of 0 to ${depth - 1}`;
    $("slice").value = this.frame;
    $("slice").setAttribute("aria-valuetext", `slice ${spoken}, ${one.wrong} wrong pixels`);
    $("slice-number").textContent = `${one.index} / ${depth - 1} · ${one.wrong.toLocaleString("en-US")} wrong pixels`;
    $("profile").style.setProperty("--at", (this.frame + 0.5) / frames.length);
    const words = depth ? `${this.case.name}, slice ${spoken}` : this.case.name;
    $("canvas").setAttribute("aria-label", `${words}, with the contours chosen beside it${depth ? "; arrow keys change the slice" : ""}`);
    await this.draw();
  }

  async draw() {
    const frame = this.case.frames[this.frame];
    if (!frame) return;
    const turn = ++this.drawing;
    const image = await picture(frame.picture);
    if (turn !== this.drawing) return;
    paint($("canvas"), image, frame, this.index, this.shown, this.layers, SIDE);
    $("canvas").dataset.slice = frame.index;
    $("canvas").dataset.drawn = `${this.place}:${turn}`;
  }

  /** Bars of wrong pixels, slice by slice, above the slider. */
  drawProfile() {
    const wrong = this.case.frames.map((frame) => frame.wrong);
    const most = Math.max(...wrong, 1);
    const bars = wrong.map((n, i) => `M${i + 0.5} 100V${100 - (100 * n) / most}`).join("");
    $("profile").setAttribute("viewBox", `0 0 ${Math.max(wrong.length, 1)} 100`);
    $("profile").innerHTML = `<path d="${bars}"/>`;
  }

  tabulate() {
    const { index } = this;
    const metrics = index.metrics.map((metric, i) => [metric, i]).filter(([metric]) => metric.main);
    const several = index.classes.length > 1;
    const lines = [];
    if (several) {
      const head = document.createElement("tr");
      head.append(cell("th", "Class"), ...metrics.map(([metric]) => cell("th", metric.label)));
      lines.push(head);
      for (const [place, row] of this.case.rows.entries()) {
        const line = document.createElement("tr");
        const name = cell("th", row.class);
        name.prepend(swatch(index.classes[place].color));
        line.append(name);
        if (row.outcome === "found") line.append(...metrics.map(([m, i]) => cell("td", formatted(m, row.figures[i]))));
        else {
          line.append(cell("td", row.outcome, row.outcome === "absent" ? "soft" : "bad"));
          line.lastChild.colSpan = metrics.length;
        }
        lines.push(line);
      }
    } else {
      const row = this.case.rows[0];
      for (const [i, metric] of index.metrics.entries()) {
        const line = document.createElement("tr");
        line.append(cell("th", metric.label), cell("td", formatted(metric, row.figures[i])));
        lines.push(line);
      }
      lines.unshift(document.createElement("tr"));
      lines[0].append(cell("th", "Outcome"), cell("td", row.outcome, row.outcome === "found" ? "" : "bad"));
    }
    $("case-figures").replaceChildren(...lines);
  }

  listClasses() {
    const { classes } = this.index;
    const colors = [0, 1, 2].map((i) => `rgb(${classes[i % classes.length].color}) ${34 * i}% ${33 * (i + 1) + 1}%`);
    document.querySelector(".mark.prediction").style.background = `linear-gradient(90deg, ${colors})`;
    $("classes").hidden = classes.length < 2;
    $("confused-key").hidden = classes.length < 2;
    for (const [i, one] of classes.entries()) {
      const label = cell("label", "", "chip");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = true;
      box.addEventListener("change", () => {
        this.shown[i + 1] = box.checked;
        this.nameAllButton();
        this.draw();
      });
      label.append(box, swatch(one.color), one.name);
      $("class-list").append(label);
    }
    $("all-classes").addEventListener("click", () => {
      const on = !this.shown.some(Boolean);
      this.shown.fill(on, 1);
      for (const box of $("class-list").querySelectorAll("input")) box.checked = on;
      this.nameAllButton();
      this.draw();
    });
  }

  nameAllButton() {
    $("all-classes").textContent = this.shown.some(Boolean) ? "Hide all" : "Show all";
  }

  listen() {
    for (const layer of Object.keys(this.layers)) {
      $(`show-${layer}`).addEventListener("change", (event) => {
        this.layers[layer] = event.target.checked;
        $("error-key").hidden = !this.layers.errors;
        this.draw();
      });
      $(`show-${layer}`).checked = this.layers[layer];
    }
    $("error-key").hidden = true;
    $("slice").addEventListener("input", () => this.show(Number($("slice").value)));
    $("profile").addEventListener("click", (event) => {
      const box = $("profile").getBoundingClientRect();
      this.show(Math.floor(((event.clientX - box.left) / box.width) * this.case.frames.length));
    });
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -PAGE_STEP, PageUp: PAGE_STEP };
    $("canvas").addEventListener("keydown", (event) => {
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey || !this.case.depth) return;
      event.preventDefault();
      this.show(this.frame + steps[event.key]);
    });
  }
}
