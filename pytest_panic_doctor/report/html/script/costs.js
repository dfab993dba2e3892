// What a diagram took against its points: seconds, and peak memory.

const HOWS = {
  now: {name: "computed in this session", symbol: "circle", shape: "●", colour: "var(--fixed)", filled: true},
  earlier: {name: "computed by an earlier session", symbol: "circle", shape: "○", colour: "var(--muted)"},
  failed: {name: "not finished", symbol: "times", shape: "✕", colour: "var(--sick)"},
  planned: {name: "estimated", symbol: "diamond", shape: "◇", colour: "var(--h1)"},
};

function drawCosts() {
  const section = byId("costs");
  const measured = report.diagrams.filter((each) => each.measures.points && each.measures.seconds !== undefined).map((each) => ({
    each, points: each.measures.points, seconds: Math.max(each.measures.seconds, 0.001), memory: each.measures.peak_memory / 1e6, how: each.measures.how,
    label: `${report.runs[each.run].label} · ${each.model}`}));
  if (!measured.length) {
    section.append(el("p", {class: "note"}, "No diagram here was computed by the doctor, and others do not say what they took."));
    return;
  }
  const kinds = Object.entries(HOWS).filter(([how]) => measured.some((each) => each.how === how));
  const charts = el("div", {class: "charts"});
  section.append(
    el("ul", {class: "legend", "aria-label": "What the marks mean"}, kinds.map(([, {name, shape, colour}]) => el("li", {}, el("span", {style: `color: ${colour}`, "aria-hidden": "true"}, shape), name))),
    charts,
    el("details", {class: "as-table"}, el("summary", {}, "The same as a table, the longest first"), searchedCosts(measured)));
  const draw = () => {
    const columns = charts.clientWidth > 720 ? 2 : 1;
    const width = Math.floor((charts.clientWidth - 32 * (columns - 1)) / columns);
    charts.replaceChildren(costChart(measured, "seconds", "seconds", width), costChart(measured.filter((each) => each.memory), "memory", "peak memory, MB", width));
  };
  new ResizeObserver(whenQuiet(draw)).observe(charts);
  draw();
}

// A log scale where the values span more than one power of ten; otherwise it has too few ticks to be read.
function scaleOf(values, label) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const tickFormat = (value) => (value >= 1000 ? counted(value) : String(Number(value.toPrecision(3))));
  return high > 10 * low
    ? {type: "log", domain: [low / 1.3, high * 1.3], label, ticks: 5, tickFormat}
    : {domain: [0, high * 1.15], label, ticks: 5, tickFormat};
}

function costChart(measured, key, label, width) {
  if (!measured.length) return "";
  const marks = Object.entries(HOWS).map(([how, {symbol, colour, filled}]) =>
    Plot.dot(measured.filter((each) => each.how === how), {x: "points", y: key, symbol, r: 4, stroke: colour, strokeWidth: 1.5, fill: filled ? colour : "none", fillOpacity: 0.35}));
  const told = (each) => `${each.label}\n${plural(each.points, "point")}, ${seconds(each.seconds)}${each.memory ? `, ${bytes(each.memory * 1e6)}` : ""}\n${HOWS[each.how].name}`;
  const svg = figure(Plot.plot({width, height: Math.min(340, Math.round(width * 0.66)), marginLeft: 52, marginBottom: 40, grid: true, style: PLOT_STYLE,
    x: scaleOf(measured.map((each) => each.points), "points"), y: scaleOf(measured.map((each) => each[key]), label),
    marks: [...marks, Plot.tip(measured, Plot.pointer({x: "points", y: key, title: told}))]}), `${label} against points, ${plural(measured.length, "diagram")}`);
  svg.addEventListener("click", () => svg.value && openDiagram(svg.value.each));
  return svg;
}

function searchedCosts(measured) {
  const search = el("input", {type: "search", placeholder: "prompt, network or id", "aria-label": "Filter the table by text", autocomplete: "off"});
  const holder = el("div", {}, costTable(measured));
  search.addEventListener("input", whenQuiet(() => {
    const text = search.value.trim().toLowerCase();
    const named = ({each, label}) => [label, ...pairOfIds(report.runs[each.run].id)].some((name) => name.toLowerCase().includes(text));
    holder.replaceChildren(...costTable(measured.filter(named)).flat());
  }));
  return [el("div", {class: "toolbar"}, search), holder];
}

function costTable(measured) {
  const rows = [...measured].sort((a, b) => b.seconds - a.seconds);
  const table = el("table", {class: "costs"}, el("thead", {}, el("tr", {}, ["Diagram", "Points", "Time", "Peak memory", ""].map((name) => el("th", {scope: "col"}, name)))));
  const [body, more] = listed(rows, (each) => el("tr", {},
    el("th", {scope: "row"}, el("button", {type: "button", class: "link", click: () => openDiagram(each.each)}, each.label)),
    el("td", {class: "number"}, counted(each.points)), el("td", {class: "number"}, seconds(each.seconds)),
    el("td", {class: "number"}, each.memory ? bytes(each.memory * 1e6) : "–"), el("td", {}, HOWS[each.how].name)), 20, "tbody", "diagrams");
  table.append(body);
  return [table, more];
}
