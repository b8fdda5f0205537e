"use strict";
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th"), table = header.closest("table"), place = header.cellIndex;
    const body = table.tBodies[0], up = header.getAttribute("aria-sort") !== "ascending";
    const key = (row) => row.cells[place].dataset.value === undefined ? null : Number(row.cells[place].dataset.value);
    const text = (row) => row.cells[place].textContent;
    const order = (a, b) => key(a) !== null && key(b) !== null ? key(a) - key(b) : text(a).localeCompare(text(b));
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    [...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)).forEach((row) => body.append(row));
  });
}
