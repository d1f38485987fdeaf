// The page: light and dark, sorting of tables, which plot is shown, and opening cases from everywhere.

/** Sort the body of a table by a column; cells without a value stay last either way. */
function sortBy(table, column, descending) {
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].dataset.value;
  const text = table.tHead.rows[0].cells[column].classList.contains("text");
  const compare = text
    ? (a, b) => a.localeCompare(b, "en", { numeric: true })
    : (a, b) => Number(a) - Number(b);
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return descending ? compare(y, x) : compare(x, y);
  });
  body.append(...rows);
  for (const [i, head] of [...table.tHead.rows[0].cells].entries()) {
    if (i === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function makeSortable(table) {
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    head.querySelector("button").addEventListener("click", () => {
      sortBy(table, column, head.getAttribute("aria-sort") === "ascending");
    });
  }
}

/** Buttons that show one of several figures; without script all are shown. */
function makeTabs(tabs, figures) {
  const buttons = figures.map((figure) => {
    const button = cell("button", figure.dataset.name);
    button.type = "button";
    button.addEventListener("click", () => choose(figure));
    return button;
  });
  const choose = (chosen) => {
    for (const [i, figure] of figures.entries()) {
      figure.hidden = figure !== chosen;
      buttons[i].setAttribute("aria-pressed", figure === chosen);
    }
  };
  tabs.append(...buttons);
  if (figures.length) choose(figures[0]);
}

function makeTheme(button) {
  const root = document.documentElement;
  const kept = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // a browser that keeps nothing for files
    }
  };
  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  if (kept()) root.dataset.theme = kept();
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // as above: the choice holds for this visit
    }
  });
}

function start() {
  const index = data("index");
  makeTheme($("theme"));
  document.querySelectorAll("table.figures, table.cases").forEach(makeSortable);
  makeTabs(document.querySelector(".tabs"), [...document.querySelectorAll("figure.plot")]);
  $("more").addEventListener("change", () => $("figures-table").classList.toggle("all", $("more").checked));
  const viewer = new Viewer(index);
  const open = index.gallery ? showGallery(index, viewer) : listCases(index, viewer);
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("button.open, circle[data-case]");
    if (opener) open(Number(opener.dataset.case));
  });
}

start();
