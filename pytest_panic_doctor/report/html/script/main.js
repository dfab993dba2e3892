// Puts the page together.

function chooseScheme() {
  const root = document.documentElement, button = byId("scheme");
  const dark = () => (root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const show = () => (button.textContent = dark() ? "Light" : "Dark");
  button.setAttribute("aria-label", "Change between dark and light");
  button.addEventListener("click", () => {
    root.dataset.scheme = dark() ? "light" : "dark";
    show();
    if (map.rows.length) drawRows(true);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}

async function copy(button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    // Browsers may refuse the clipboard to a page from the disk: then the text is selected, to be copied by hand.
    getSelection().selectAllChildren(button.previousElementSibling);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = before), 1500);
}

// On paper there is nothing to scroll: the map's first three hundred rows are all drawn, and so is every picture.
const MOST_PRINTED = 300;

function print(begins) {
  if (begins) document.querySelectorAll(".thumbnail:empty").forEach((picture) => picture.draw());
  map.printing = begins ? [0, MOST_PRINTED] : null;
  if (map.rows.length) drawRows(true);
}

async function main() {
  chooseScheme();
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });
  const dialog = byId("detail");
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  await unpack();
  prepareDiagrams();
  drawRules();
  drawMap();
  drawDiagrams();
  drawLyapunov();
  drawCosts();
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  document.documentElement.dataset.ready = "yes";
}

main().catch((error) => {
  byId("summary").append(el("p", {class: "note"}, `This browser could not draw the report (${error.message}): open it in a newer one.`));
  throw error;
});
