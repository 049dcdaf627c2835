"use strict";
// A click on a column's head sorts its table; a second click the other way round.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.v;
    const number = head.className !== "name";
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return (number ? x - y : x.localeCompare(y)) * (up ? 1 : -1);
    });
    table.tBodies[0].append(...rows);
  }));
}
// The reader's system decides between light and dark, until the button does; print is light.
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
const paint = (theme) => { root.dataset.theme = theme ?? chosen ?? (dark.matches ? "dark" : "light"); };
dark.addEventListener("change", () => paint());
addEventListener("beforeprint", () => paint("light"));
addEventListener("afterprint", () => paint());
document.querySelector("#theme").addEventListener("click", () => {
  chosen = root.dataset.theme === "dark" ? "light" : "dark";
  paint();
});
paint();
