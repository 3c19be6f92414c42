"use strict";
const find = document.getElementById("~find");
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
  document.getElementById("~found").value = words.length ? `${found} of ${nodes.length} nodes` : "";
});
