// Tooltips that come at once and by touch; without this script they are the browser's own.
const tip = document.getElementById("tip");
for (const token of document.querySelectorAll(".t")) { token.dataset.tip = token.title; token.removeAttribute("title"); }
function show(event) {
  const token = event.target.closest && event.target.closest(".t");
  if (!token) { tip.style.display = "none"; return; }
  tip.textContent = token.dataset.tip;
  tip.style.display = "block";
  const box = token.getBoundingClientRect(), size = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(box.left, innerWidth - size.width - 4)) + "px";
  tip.style.top = (box.bottom + size.height + 8 < innerHeight ? box.bottom + 4 : box.top - size.height - 4) + "px";
}
for (const kind of ["pointerover", "click"]) document.addEventListener(kind, show);
document.addEventListener("scroll", () => { tip.style.display = "none"; }, {passive: true});

// The choice of the quantity that colours the tokens.
for (const choice of document.querySelectorAll("input[name=show]"))
  choice.addEventListener("change", () => { document.body.dataset.show = choice.value; });
const chosen = document.querySelector("input[name=show]:checked");
if (chosen) document.body.dataset.show = chosen.value;
