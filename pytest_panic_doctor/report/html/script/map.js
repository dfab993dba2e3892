// The map: a row a run, a column a rule. Only the rows in view are elements; beside them all runs as one small picture.

const ROW = 26;
const map = {model: "", text: "", damaged: false, narrow: innerWidth < 760, rows: [], all: [], rules: [], states: [], at: [0, 0], from: -1, to: -1};

// As the data come about, so that damage and its consequences read from left to right; rules of a user's own come last.
const AREAS = ["experiment", "invocation", "embedding", "cluster", "diagram"];
const areaOf = (rule) => (AREAS.indexOf(rule.id.split("-")[0]) + AREAS.length + 1) % (AREAS.length + 1);
const gutter = (column, name) =>
  column === 0 || areaOf(map.rules[column]) !== areaOf(map.rules[column - 1]) ? el(name, {class: "gutter", "aria-hidden": "true"}) : "";

function drawMap() {
  const section = byId("map");
  map.all = report.rules.filter((rule) => rule.scope !== "database").sort((a, b) => areaOf(a) - areaOf(b) || a.order - b.order);
  const whole = report.rules.filter((rule) => rule.scope === "database").sort((a, b) => a.order - b.order);
  if (whole.length) section.append(el("div", {class: "whole"}, el("span", {class: "quiet"}, "The whole database"),
    whole.map((rule) => el("button", {type: "button", class: `filter small ${classOf(rule.verdict)}`, click: () => openRule(rule.id)},
      el("span", {class: "mark", "aria-hidden": "true"}, MARKS[WORDS.indexOf(rule.verdict)]), rule.id,
      el("span", {class: "unseen"}, `: ${rule.verdict}`)))));
  if (!report.runs.length || !map.all.length) {
    section.append(el("p", {class: "note"}, report.runs.length ? "No rule about experiments or runs was examined." : "There is no run to show."));
    return;
  }
  section.append(mapTools(), el("div", {class: "map"},
    el("div", {class: "scroller", id: "map-scroller", scroll: () => requestAnimationFrame(drawRows)},
      el("table", {class: "grid", role: "grid", "aria-label": "Runs and rules", keydown: moveInMap, click: (event) => openCell(event.target.closest("[data-column]"))},
        el("thead", {}, el("tr", {"aria-rowindex": "1", id: "map-heads"})),
        el("tbody", {id: "map-rows"}))),
    el("canvas", {id: "overview", "aria-hidden": "true", title: "All runs; click to go there"})));
  byId("overview").addEventListener("pointerdown", dragOverview);
  byId("overview").addEventListener("pointermove", (event) => event.buttons && dragOverview(event));
  new ResizeObserver(() => drawRows(true)).observe(byId("map-scroller"));
  refreshMap();
}

function mapTools() {
  const search = el("input", {type: "search", placeholder: "prompt, network or id", "aria-label": "Filter the runs by text", autocomplete: "off"});
  search.addEventListener("input", whenQuiet(() => {
    map.text = search.value.trim().toLowerCase();
    refreshMap();
  }));
  const models = el("select", {"aria-label": "Embedding model", change: (event) => {
    map.model = event.target.value;
    refreshMap();
  }}, el("option", {value: ""}, "every embedding model"), report.models.map((name) => el("option", {value: name}, name)));
  const check = (key, text) => el("label", {class: "check"}, el("input", {type: "checkbox", id: key, checked: map[key], change: (event) => {
    map[key] = event.target.checked;
    refreshMap();
  }}), text);
  return el("div", {class: "toolbar"}, search, models,
    check("damaged", "damaged runs only"), check("narrow", "damaged rules only"),
    el("ul", {class: "legend", "aria-label": "What the marks mean"}, [SICK, FIXED, ELSEWHERE, WARNED, HEALTHY, UNEXAMINED, SKIPPED].filter((state) => state !== WARNED || report.rules.some((rule) => rule.outcomes.warned)).map((state) =>
      el("li", {}, el("span", {class: `cell ${classOf(WORDS[state])}`, "data-state": state, "aria-hidden": "true"}, MARKS[state]), WORDS[state]))));
}

function refreshMap() {
  const states = map.all.map((rule) => statesOf(rule, map.model));
  const kept = map.all.map((_, column) => !map.narrow || states[column].some((state) => state >= FIXED));
  map.rules = map.all.filter((_, column) => kept[column]);
  map.states = states.filter((_, column) => kept[column]);
  const corner = el("span", {id: "map-count"});
  byId("map-heads").replaceChildren(el("th", {scope: "col", class: "corner"}, corner), ...map.rules.flatMap((rule, column) =>
    [gutter(column, "th"), el("th", {scope: "col", title: rule.sentence}, el("span", {}, rule.id))]).filter(Boolean));
  const runs = new Map();
  report.runs.forEach((run, number) => {
    const experiment = report.experiments[run.experiment];
    if (map.damaged && !map.states.some((states) => states[number] >= FIXED)) return;
    if (map.text && ![run.label, run.id, dashed(run.id), experiment.id, dashed(experiment.id)].some((text) => text.toLowerCase().includes(map.text))) return;
    runs.set(run.experiment, [...(runs.get(run.experiment) ?? []), number]);
  });
  map.rows = [...runs].flatMap(([experiment, numbers]) => [{experiment, count: numbers.length}, ...numbers.map((run) => ({run}))]);
  const shown = map.rows.filter((row) => row.run !== undefined).length;
  corner.textContent = shown === report.runs.length ? plural(shown, "run") : `${counted(shown)} of ${plural(report.runs.length, "run")}`;
  // The one cell that the tabulator reaches.
  map.at = [Math.max(0, map.rows.findIndex((row) => row.run !== undefined)), 0];
  document.querySelector("table.grid").setAttribute("aria-rowcount", map.rows.length + 1);
  document.querySelector("table.grid").setAttribute("aria-colcount", map.rules.length + 1);
  drawRows(true);
}

function drawRows(anew) {
  const scroller = byId("map-scroller");
  const seen = map.printing ?? [Math.floor(scroller.scrollTop / ROW), Math.ceil(scroller.clientHeight / ROW)];
  const from = Math.max(0, Math.min(seen[0] - 8, map.rows.length - 1));
  const to = Math.min(map.rows.length, seen[0] + seen[1] + 8);
  if (anew === true || from !== map.from || to !== map.to) {
    const focused = document.activeElement?.closest?.("#map-rows") !== null && document.activeElement?.dataset.row !== undefined;
    [map.from, map.to] = [from, to];
    const gap = (count) => (count > 0 ? [el("tr", {class: "gap", "aria-hidden": "true"}, el("td", {style: `height: ${count * ROW}px`}))] : []);
    byId("map-rows").replaceChildren(...gap(from), ...map.rows.slice(from, to).map((row, index) => mapRow(row, from + index)), ...gap(map.rows.length - to));
    if (focused) cellAt(...map.at)?.focus({preventScroll: true});
  }
  drawOverview();
}

function mapRow(row, index) {
  if (row.run === undefined) {
    const experiment = report.experiments[row.experiment];
    return el("tr", {class: "experiment", "aria-rowindex": index + 2},
      el("th", {scope: "rowgroup", colspan: byId("map-heads").childElementCount}, el("span", {title: dashed(experiment.id)},
        el("strong", {}, experiment.label), el("span", {class: "quiet"}, ` ${plural(row.count, "run")}`))));
  }
  const run = report.runs[row.run];
  return el("tr", {"aria-rowindex": index + 2},
    el("th", {scope: "row"}, el("span", {title: `${run.label}\n${dashed(run.id)}`},
      el("button", {type: "button", class: "run-name", "aria-label": `All about ${run.label}`, click: () => openRun(row.run)}, labelParts(run.label)))),
    map.rules.map((rule, column) => {
      const state = map.states[column][row.run];
      return [gutter(column, "td"), el("td", {class: `cell ${classOf(WORDS[state])}`, "aria-colindex": column + 2, "data-row": index, "data-column": column, tabindex: index === map.at[0] && column === map.at[1] ? "0" : "-1",
        title: `${rule.id}: ${WORDS[state]}`, "aria-label": `${rule.id}: ${WORDS[state]}`}, MARKS[state])];
    }));
}

// A long prompt must not hide the network.
function labelParts(label) {
  const colon = label.lastIndexOf(": ");
  return colon < 0 ? [el("b", {}, label)] : [el("b", {}, label.slice(0, colon)), el("i", {}, label.slice(colon + 2))];
}

const cellAt = (row, column) => document.querySelector(`#map-rows [data-row="${row}"][data-column="${column}"]`);

function moveInMap(event) {
  const cell = event.target.closest("[data-column]");
  if (!cell) return;
  const last = map.rows.length - 1;
  const page = Math.max(1, Math.floor(byId("map-scroller").clientHeight / ROW) - 6);
  const [down, right] = {ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], PageDown: [page, 0], PageUp: [-page, 0], Home: [0, -1e9], End: [0, 1e9]}[event.key] ?? [];
  if (event.key === "Enter" || event.key === " ") openCell(cell);
  else if (down === undefined) return;
  event.preventDefault();
  if (down === undefined) return;
  const step = Math.sign(down) || 1;
  let row = Math.max(0, Math.min(last, Number(cell.dataset.row) + down));
  while (map.rows[row] && map.rows[row].run === undefined) row += step;
  if (!map.rows[row]) return;
  goToCell(row, Math.max(0, Math.min(map.rules.length - 1, Number(cell.dataset.column) + right)));
}

function goToCell(row, column) {
  const scroller = byId("map-scroller");
  const head = scroller.querySelector("thead").offsetHeight;
  const top = row * ROW;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  if (top + ROW + head > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + ROW + head - scroller.clientHeight;
  map.at = [row, column];
  drawRows(true);
  cellAt(row, column)?.focus({preventScroll: true});
}

function openCell(cell) {
  if (!cell) return;
  map.at = [Number(cell.dataset.row), Number(cell.dataset.column)];
  const run = map.rows[map.at[0]].run;
  const rule = map.rules[map.at[1]];
  const place = report.runs[run];
  const items = report.itemsOf[rule.id].filter((item) =>
    (!map.model || !item.model || item.model === map.model) &&
    (item.run === run || (item.run === undefined && item.experiment === place.experiment && (runsOf(item)?.has(run) ?? true))));
  const experiment = report.experiments[place.experiment];
  const state = map.states[map.at[1]][run];
  showDetail(rule.id,
    el("p", {class: "quiet"}, rule.sentence),
    el("p", {class: "about-run"}, badge(WORDS[state]), el("strong", {}, place.label)),
    el("p", {class: "id"}, "run ", el("code", {}, dashed(place.id)), el("br"), "experiment ", el("code", {}, dashed(experiment.id)), ` ${experiment.label}`),
    items.length ? listed(items, (item) => itemView(item, run), 20, "ul", "items") : el("p", {}, state === ELSEWHERE ? "What was found is in other runs of this experiment." : "Nothing was found here."),
    rule.scope === "run x embedding model" ? el("div", {class: "buttons"}, experiment.models.filter((name) => !map.model || name === map.model).map((name) => diagramButton(run, name))) : "");
}

function drawOverview() {
  const canvas = byId("overview"), scroller = byId("map-scroller");
  canvas.hidden = map.rows.length * ROW <= scroller.clientHeight || !map.rules.length;
  if (canvas.hidden) return;
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  // From the legend: a canvas knows nothing of the page's colours for light and dark.
  const colour = {};
  document.querySelectorAll("#map .legend .cell").forEach((cell) => (colour[cell.dataset.state] = getComputedStyle(cell).backgroundColor));
  const [wide, high] = [width / map.rules.length, height / map.rows.length];
  // The worst is drawn last, and never lower than a pixel and a half: damage in one run of thousands stays visible.
  for (const state of [HEALTHY, SKIPPED, UNEXAMINED, WARNED, ELSEWHERE, FIXED, SICK]) {
    pen.fillStyle = colour[state];
    map.rows.forEach((row, place) => {
      if (row.run === undefined) return;
      map.states.forEach((states, column) => {
        if (states[row.run] === state) pen.fillRect(column * wide, place * high, Math.max(1, wide - 1), Math.max(high, state >= FIXED ? 1.5 : 0.5));
      });
    });
  }
  pen.strokeStyle = getComputedStyle(canvas).color;
  pen.lineWidth = 2;
  const head = scroller.querySelector("thead").offsetHeight;
  pen.strokeRect(1, (scroller.scrollTop / ROW) * high + 1, width - 2, Math.max(4, ((scroller.clientHeight - head) / ROW) * high - 2));
}

function dragOverview(event) {
  const canvas = byId("overview"), scroller = byId("map-scroller");
  const share = (event.clientY - canvas.getBoundingClientRect().top) / canvas.clientHeight;
  scroller.scrollTop = share * map.rows.length * ROW - scroller.clientHeight / 2;
}
