"use strict";
// Sorts the table of studies by a click on a header, and filters its rows by words.
const table = document.getElementById("studies");
if (table) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
  const told = document.getElementById("told");
  const filter = document.getElementById("filter");

  const valueOf = (row, column) => {
    const text = row.cells[column].textContent.trim();
    if (text === "" || text === "\u2013") return null;
    const number = Number(text.replaceAll("\u2212", "-"));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0;
    return typeof a === "number" ? -1 : 1;
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const keyed = rows.map((row, place) => [valueOf(row, column), place, row]);
      keyed.sort((a, b) => {
        if (a[0] === null || b[0] === null) {
          return (a[0] === null) - (b[0] === null) || a[1] - b[1];  // unknown comes last
        }
        return sign * compare(a[0], b[0]) || a[1] - b[1];
      });
      body.append(...keyed.map((entry) => entry[2]));
    });
  });

  const texts = rows.map((row) =>
    Array.from(row.cells, (cell) => cell.textContent).join(" ").toLowerCase());
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !words.every((word) => texts[place].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    told.textContent = `${shown} of ${rows.length} rows`;
  });
  document.getElementById("tools").hidden = false;
}
