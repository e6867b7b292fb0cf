// What doesn't fit on a slide is shown in turns: each takes the place of the one before it.
// A turn has the largest font of code, output and tables with which it fits.
const SIZES = [28, 26, 24, 22, 20, 18, 16], TOGETHER = SIZES.slice(0, -1);
const WIDTH = 1280, HEIGHT = 720, BOTTOM = 44;

function fits(turn, sizes) {
  const room = HEIGHT - BOTTOM - turn.parentNode.offsetTop;
  return sizes.some((size) => {
    turn.style.setProperty("--size", `${size}px`);
    const wide = [turn, ...turn.querySelectorAll("*")].some(
      (node) => node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== "inline");
    return !wide && turn.scrollHeight <= room;
  });
}

function inTurns(slide) {
  const box = slide.querySelector(".fit");
  let turn = null;
  for (const part of [...slide.querySelectorAll(".part")].reverse()) {
    turn?.prepend(part);
    if (turn && !turn.querySelector("figure") && fits(turn, TOGETHER)) continue;
    const before = document.createElement("div");
    before.className = "turn";
    before.append(part);
    box.prepend(before);
    if (turn) fits(turn, SIZES); // without the part that has left it
    turn = before;
  }
  if (turn) fits(turn, SIZES);
  box.querySelectorAll(".turn + .turn").forEach((later) => later.classList.add("fragment"));
  box.querySelectorAll(".turn > :first-child").forEach((part) => part.classList.remove("fragment"));
}

window.addEventListener("load", () => {
  for (const slide of document.querySelectorAll("section")) {
    slide.style.display = "block"; // reveal.js hides it until it is its turn
    inTurns(slide);
    slide.style.display = "";
  }
  Reveal.initialize({
    width: WIDTH, height: HEIGHT, margin: 0, center: false, hash: true, transition: "none",
    slideNumber: "c/t", maxScale: 3, plugins: [RevealNotes],
  });
});
