// Runs at the end of a report's page, inside a frame; sends what it finds to the page around it.
const found = { errors: window.pageErrors, tables: [], overlaps: [], cut: [], empty: [], files: [] };

const visible = (box) => box.width > 0.5 && box.height > 0.5;

function texts() {
  const boxes = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    if (!node.data.trim() || node.parentElement.closest("script, style, title")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      if (visible(box)) boxes.push({ box, text: node.data.trim().slice(0, 40), node });
    }
  }
  return boxes;
}

// Line boxes of small type reach into each other by a hair; letters that touch do so by more.
function touch(a, b, slack = 2) {
  return a.left < b.right - slack && b.left < a.right - slack
    && a.top < b.bottom - slack && b.top < a.bottom - slack;
}

function overlaps() {
  const boxes = texts().sort((a, b) => a.box.top - b.box.top);
  boxes.forEach((first, i) => {
    for (let j = i + 1; j < boxes.length && boxes[j].box.top < first.box.bottom; j += 1) {
      if (boxes[j].node !== first.node && touch(first.box, boxes[j].box)) {
        found.overlaps.push(`${first.text} / ${boxes[j].text}`);
      }
    }
  });
}

function pictures() {
  found.pictures = document.querySelectorAll(".panel > svg").length;
  for (const svg of document.querySelectorAll(".panel > svg")) {
    const panel = svg.parentElement.getBoundingClientRect();
    const drawn = [...svg.querySelectorAll("path[style], circle")]
      .map((shape) => shape.getBoundingClientRect())
      .filter((box) => box.width > 0.5 || box.height > 0.5);
    if (!drawn.length || panel.width < 200) found.empty.push(svg.getAttribute("aria-label"));
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      if (box.left < panel.left - 1 || box.right > panel.right + 1) found.cut.push(text.textContent);
    }
  }
}

function sorting() {
  for (const table of document.querySelectorAll("table")) {
    const values = (column) => [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.v);
    const order = (list, text) => [...list].sort((a, b) => (text ? a.localeCompare(b) : a - b));
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const text = head.className === "name";
      const full = (list) => list.filter((v) => v !== "");
      head.querySelector("button").click();
      const up = full(values(column));
      head.querySelector("button").click();
      const down = full(values(column));
      const right = JSON.stringify(up) === JSON.stringify(order(up, text))
        && JSON.stringify(down) === JSON.stringify(order(up, text).reverse());
      found.tables.push([table.id, head.textContent, right]);
    });
  }
}

addEventListener("load", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  found.scroll = document.documentElement.scrollWidth - innerWidth;
  found.width = innerWidth;
  found.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  found.addresses = [...document.querySelectorAll("[src], [href]")]
    .map((node) => node.getAttribute("src") ?? node.getAttribute("href"))
    .filter((address) => !/^(#|data:)/.test(address));
  for (const link of document.querySelectorAll("a[download]")) {
    const text = decodeURIComponent(link.getAttribute("href").split(",").slice(1).join(","));
    found.files.push([link.download, text.trim().split("\n").length]);
  }
  pictures();
  overlaps();
  sorting();
  document.querySelector("#theme").click();
  found.dark = getComputedStyle(document.body).color;
  document.querySelector("#theme").click();
  found.light = getComputedStyle(document.body).color;
  parent.postMessage(JSON.stringify(found), "*");
});
