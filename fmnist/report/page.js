// A click on a column's head sorts by it, numbers as numbers, what is empty last; a second one the other way.
for (const table of document.querySelectorAll("table.sortable")) {
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement, up = head.ariaSort !== "ascending";
      for (const other of head.parentElement.cells) other.ariaSort = null;
      head.ariaSort = up ? "ascending" : "descending";
      const text = (row) => row.cells[head.cellIndex].textContent;
      const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (up ? 1 : -1);
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (text(a) === "") - (text(b) === "") || compare(text(a), text(b)));
      table.tBodies[0].append(...rows);
    });
  }
}
