"use strict";
const reveal = () => {
  const node = document.getElementById(location.hash.slice(1));
  if (node && node.tagName === "DETAILS") {
    node.hidden = false;
    node.open = true;
    node.scrollIntoView();
    node.firstElementChild.focus({ preventScroll: true });
  }
};
addEventListener("hashchange", reveal);
addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (link && link.getAttribute("href") === location.hash) reveal();
});
const find = document.getElementById("find");
const nodes = [...document.querySelectorAll(".stage > details")];
find.addEventListener("input", () => {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const node of nodes) {
    const text = node.firstElementChild.textContent.toLowerCase();
    node.hidden = !words.every((word) => text.includes(word));
    found += !node.hidden;
  }
  for (const stage of document.querySelectorAll(".stage"))
    stage.hidden = !stage.querySelector("details:not([hidden])");
  document.getElementById("found").value = words.length ? `${found} of ${nodes.length} nodes` : "";
});
reveal();
