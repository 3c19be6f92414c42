"use strict";
for (const line of document.querySelectorAll(".copy")) {
  const button = document.createElement("button");
  button.textContent = "copy";
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(line);
    await navigator.clipboard.writeText(line.textContent);
    button.textContent = "copied";
  });
  line.previousElementSibling.append(" ", button);
}
const table = document.querySelector(".margins");
if (table) {
  const rows = [...table.querySelectorAll(":scope > [data-margin]")];
  const orders = { order: () => 0 };
  for (const key of ["verdict", "margin", "rms"])
    if (rows.some((row) => row.dataset[key])) orders[key] = (row) => Number(row.dataset[key] ?? -1);
  const bar = document.createElement("p");
  bar.append("Sort: ");
  for (const [name, key] of Object.entries(orders)) {
    const button = document.createElement("button");
    button.textContent = name === "order" ? "in order" : `by ${name}`;
    button.addEventListener("click", () => {
      const sorted = [...rows].sort((a, b) => key(b) - key(a) || rows.indexOf(a) - rows.indexOf(b));
      table.firstElementChild.after(...sorted);
      for (const other of bar.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
    });
    button.setAttribute("aria-pressed", name === "order");
    bar.append(button, " ");
  }
  if (rows.length > 3) table.before(bar);
}
