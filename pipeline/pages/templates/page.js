"use strict";
const table = document.getElementById("class-table");
if (table) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const value = (row, place) => row.cells[place].dataset.value;
  heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
    const falls = head.getAttribute("aria-sort") === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falls ? "ascending" : "descending");
    const sign = falls ? 1 : -1, rows = [...body.rows];
    const number = rows.every((row) => value(row, place) === "" || !Number.isNaN(Number(value(row, place))));
    rows.sort((one, two) => {
      const [a, b] = [value(one, place), value(two, place)];
      return sign * (number ? Number(a) - Number(b) : a.localeCompare(b));
    });
    body.append(...rows);
  }));
  const filter = document.getElementById("filter"), filtered = document.getElementById("filtered");
  filter.addEventListener("input", () => {
    const sought = filter.value.toLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      row.hidden = !row.textContent.toLowerCase().includes(sought);
      shown += row.hidden ? 0 : 1;
    }
    filtered.textContent = sought ? shown + " of " + body.rows.length + " classes" : "";
  });
}
