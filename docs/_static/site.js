// The filter of the page of questions: what holds all typed words stays.
const filter = document.getElementById("filter");
if (filter) {
  const entries = [...document.querySelectorAll("article section section p")];
  const sections = [...document.querySelectorAll("article section section")];
  const found = document.getElementById("found"), words = found.textContent;
  found.textContent = "";
  filter.closest("p").hidden = false;
  filter.addEventListener("input", () => {
    const typed = filter.value.toLowerCase().split(/\s+/);
    for (const entry of entries) {
      const text = entry.textContent.toLowerCase();
      entry.hidden = !typed.every((word) => text.includes(word));
    }
    for (const section of sections) {
      section.hidden = [...section.querySelectorAll("p")].every((entry) => entry.hidden);
    }
    const left = entries.filter((entry) => !entry.hidden).length;
    found.textContent = words.replace("{left}", left).replace("{all}", entries.length);
  });
}
