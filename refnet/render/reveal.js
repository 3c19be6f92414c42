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
reveal();
