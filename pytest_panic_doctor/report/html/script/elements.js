// Elements are made, never parsed: whatever text a database holds stays text.

function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(key, value);
    else if (key === "class") element.className = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const byId = (id) => document.getElementById(id);
const counted = (number) => Number(number).toLocaleString("en-US");
const plural = (count, one, many = one + "s") => `${counted(count)} ${count === 1 ? one : many}`;
const dashed = (id) => id.replace(/^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/, "$1-$2-$3-$4-$5");
const classOf = (word) => word.replaceAll(" ", "-");

function seconds(value) {
  if (value < 0.1) return `${Math.round(value * 1000)} ms`;
  return value < 100 ? `${Number(value.toPrecision(2))} s` : value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = value ? Math.min(4, Math.floor(Math.log10(value) / 3)) : 0;
  return `${Number((value / 1000 ** power).toPrecision(3))} ${units[power]}`;
}

const badge = (word) =>
  el("span", {class: `badge ${classOf(lookOf(word))}`}, el("span", {class: "mark", "aria-hidden": "true"}, MARKS[WORDS.indexOf(lookOf(word))]), word);

function say(text) {
  byId("said").textContent = text;
}

function copyButton(text) {
  return el("button", {type: "button", class: "ghost", "data-copy": text}, "Copy");
}

// Waits until typing pauses: a filter over ten thousand items is not for every key.
function whenQuiet(action, pause = 120) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, pause);
  };
}

// The first `step` of many entries, and a button for more.
function listed(entries, draw, step = 20, name = "ul", what = "more") {
  const list = el(name, {class: "listed"});
  let shown = 0;
  const more = el("button", {type: "button", class: "ghost more", click: () => extend()});
  function extend() {
    list.append(...entries.slice(shown, shown + step).map(draw));
    shown = Math.min(entries.length, shown + step);
    more.hidden = shown >= entries.length;
    more.textContent = `Show ${counted(Math.min(step, entries.length - shown))} more of ${counted(entries.length - shown)} ${what}`;
    step *= 2;
  }
  extend();
  return [list, more];
}

function showDetail(title, ...content) {
  const dialog = byId("detail");
  const close = el("button", {type: "button", class: "ghost close", click: () => dialog.close()}, "Close");
  dialog.replaceChildren(
    el("div", {class: "dialog-head"}, el("h2", {id: "detail-title"}, title), close),
    el("div", {class: "dialog-body"}, ...content));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  close.focus();
}
