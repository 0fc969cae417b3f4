// A table that sorts by its headers, shows one page of rows at a time, and so is as quick with thousands.

const PAGE = 40;

/* columns: [{name, words, value(row) for sorting, cell(row), numeric, wide: hidden on a phone}].
   Returns {node, show(rows), shown(): the rows in their order}. */
function sortableTable({ label, columns, sortBy = null, onrow = null, empty = "Nothing to show." }) {
  let rows = [];
  let ordered = [];
  let sort = sortBy;
  let page = 0;
  const head = el("tr");
  const body = el("tbody");
  const pager = el("nav", { class: "pager", "aria-label": `Pages of ${label}` });
  const headers = columns.map((column) => {
    const press = button(column.name, () => sortOn(column), { title: column.words || null });
    const header = el("th", { scope: "col", class: cssOf(column) }, column.value ? press : column.name);
    head.append(header);
    return header;
  });
  const scroller = el(
    "div", { class: "scroller", tabindex: 0, role: "region", "aria-label": label },
    el("table", {}, el("caption", { class: "hidden" }, label), el("thead", {}, head), body),
  );

  function cssOf(column) {
    return [column.numeric && "numeric", column.wide && "wide", column.css].filter(Boolean).join(" ") || null;
  }

  function sortOn(column) {
    const falling = sort && sort.name === column.name ? !sort.falling : false;
    sort = { name: column.name, falling };
    page = 0;
    arrange();
  }

  function arrange() {
    const column = sort && columns.find((each) => each.name === sort.name);
    ordered = rows.slice();
    if (column) {
      const way = sort.falling ? -1 : 1;
      const keyed = ordered.map((row) => [column.value(row), row]);
      // What has no value comes last, whichever way.
      const missing = (key) => key === null || key === undefined || key === "" || Number.isNaN(key);
      keyed.sort(([a], [b]) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        if (typeof a === "number" && typeof b === "number") return way * (a - b);
        return way * String(a).localeCompare(String(b), "en", { numeric: true });
      });
      ordered = keyed.map(([, row]) => row);
    }
    headers.forEach((header, place) => {
      const mine = column && columns[place] === column;
      if (mine) header.setAttribute("aria-sort", sort.falling ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
    });
    draw();
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(ordered.length / PAGE));
    page = Math.min(page, pages - 1);
    body.replaceChildren(...ordered.slice(page * PAGE, (page + 1) * PAGE).map(rowNode));
    if (!ordered.length) body.append(el("tr", {}, el("td", { colspan: columns.length, class: "muted" }, empty)));
    pager.replaceChildren();
    if (pages > 1) {
      const turn = (by) => { page += by; draw(); pager.querySelector(by > 0 ? "button:last-child" : "button").focus(); };
      pager.append(
        button("← Previous", () => turn(-1), { disabled: page === 0 }),
        el("span", { class: "muted" }, `${page * PAGE + 1}–${Math.min(ordered.length, (page + 1) * PAGE)} of ${ordered.length.toLocaleString("en")}`),
        button("Next →", () => turn(1), { disabled: page === pages - 1 }),
      );
    }
  }

  function rowNode(row) {
    const cells = columns.map((column) => el("td", { class: cssOf(column) }, column.cell ? column.cell(row) : String(column.value(row) ?? "–")));
    const node = el("tr", {}, cells);
    if (onrow) {
      node.classList.add("opens");
      node.addEventListener("click", (event) => {
        if (!event.target.closest("button, a, input, label")) onrow(row);
      });
    }
    return node;
  }

  return {
    node: el("div", {}, scroller, pager),
    show(next) { rows = next; page = 0; arrange(); },
    shown: () => ordered,
  };
}
