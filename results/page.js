// page.js - sorts the tables of the HTML report by a click, or Enter, on a head; a second one turns the order
// around. Numbers sort by value, what has none goes last. Compiled in and written into every page.
"use strict";
function valueOf(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace("+", ""));
  return { text, number: text === "-" ? NaN : number };
}
function sortBy(head) {
  const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending", numeric = head.classList.contains("n");
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = Array.from(body.rows, row => ({ row, key: valueOf(row, column) }));
  rows.sort((a, b) => {
    const x = a.key, y = b.key, sign = down ? -1 : 1;
    if (!numeric) return sign * x.text.localeCompare(y.text, undefined, { numeric: true });
    if (isNaN(x.number) || isNaN(y.number)) return isNaN(x.number) - isNaN(y.number);
    return sign * (x.number - y.number);
  });
  for (const { row } of rows) body.append(row);
}
for (const head of document.querySelectorAll("th")) {
  head.tabIndex = 0;
  head.title = "sort";
  head.addEventListener("click", () => sortBy(head));
  head.addEventListener("keydown", event => { if (event.key === "Enter") sortBy(head); });
}
