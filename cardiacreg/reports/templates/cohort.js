// Sorting by any column and filtering, by mouse or keyboard.
(function () {
  "use strict";
  const table = document.getElementById("cohort");
  if (!table) { return; }
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const byId = (id) => document.getElementById(id);

  function key(row, column, kind) {
    const cell = row.cells[column];
    if (kind === "text") { return cell.textContent.trim().toLowerCase(); }
    return cell.dataset.value === undefined || cell.dataset.value === "" ? null : Number(cell.dataset.value);
  }

  function sort(head, kind) {
    const column = head.cellIndex;
    const upwards = head.getAttribute("aria-sort") !== "ascending";
    const keys = new Map(rows.map((row) => [row, key(row, column, kind)]));
    rows.sort(function (a, b) {
      const first = keys.get(a);
      const second = keys.get(b);
      if (first === null || second === null) { return (first === null) - (second === null); }
      const order = kind === "text" ? first.localeCompare(second, undefined, { numeric: true }) : first - second;
      return upwards ? order : -order;
    });
    table.querySelectorAll("[aria-sort]").forEach((each) => each.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
    body.append(...rows);
  }

  function filter() {
    const words = byId("search").value.trim().toLowerCase();
    const verdict = byId("verdict").value;
    const far = byId("outliers").checked;
    let shown = 0;
    rows.forEach(function (row) {
      const text = (row.cells[0].textContent + " " + row.querySelector(".findings").textContent).toLowerCase();
      const fits = text.includes(words) && (!verdict || row.dataset.verdict === verdict) &&
        (!far || row.dataset.outlier === "yes");
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    byId("shown").textContent = shown + " of " + rows.length + " shown";
  }

  table.querySelectorAll("thead button").forEach(function (button) {
    button.addEventListener("click", () => sort(button.closest("th"), button.dataset.kind));
  });
  byId("filters").addEventListener("input", filter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
