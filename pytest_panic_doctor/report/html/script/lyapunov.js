// Lyapunov results: how far the runs of a network and prompt are from each other at each step, and the line that fits
// the logarithm of that distance. Its slope is the exponent.

function drawLyapunov() {
  const section = byId("lyapunov");
  if (!section) return;
  const found = report.lyapunov;
  if (!found.length) {
    section.append(el("p", {class: "note"}, "No Lyapunov result is stored for what was examined."));
    return;
  }
  const rank = ["sick", "fixed", "healthy", "not examined"];
  found.sort((a, b) => rank.indexOf(a.state) - rank.indexOf(b.state) || (b.exponent ?? 0) - (a.exponent ?? 0));
  const [list, more] = listed(found, curveCard, STEP, "div", "Lyapunov results");
  list.className = "gallery";
  section.append(
    el("div", {class: "toolbar"},
      el("p", {class: "quiet"}, plural(found.length, "Lyapunov result")),
      el("ul", {class: "legend", "aria-label": "What the lines mean"},
        el("li", {}, el("span", {class: "stroke", "aria-hidden": "true"}), "mean distance of all pairs of runs"),
        el("li", {}, el("span", {class: "stroke dashes", "aria-hidden": "true"}), "the fit, whose slope is the exponent"))),
    report.lyapunov_left ? el("p", {class: "note"}, `There is no room for ${plural(report.lyapunov_left, "more Lyapunov result")}.`) : "",
    list, more);
}

function curveCard(each) {
  const picture = el("div", {class: "thumbnail"});
  picture.draw = () => picture.append(drawable(each) ? curvePlot(each, 260, true) : el("p", {class: "nothing"}, each.problem || "no distance to draw"));
  drawer.observe(picture);
  return el("button", {type: "button", class: `card ${classOf(each.state)}`, click: () => openCurve(each)},
    el("span", {class: "card-head"}, badge(each.state), el("span", {class: "chip"}, each.model)),
    picture,
    el("span", {class: "card-name"}, each.prompt === undefined ? "" : `${each.prompt}: ${each.network}`),
    el("span", {class: "card-counts"}, each.problem ? "\u00a0" : exponentOf(each)));
}

const drawable = (each) => !each.problem && each.curve.some((distance) => distance !== null);
const numberOr = (value) => (value === null || value === undefined ? "not a number" : String(Number(value.toPrecision(3))));
const exponentOf = (each) => `exponent ${numberOr(each.exponent)}${each.fit === null ? "" : ` · R² ${each.fit.toFixed(2)}`}`;
const LEAST = 1e-10;

// A step and a distance each; a distance of 0 has no logarithm and is drawn as the least one, as the tool computes it.
function pointsOf(each) {
  return each.curve.map((distance, index) => ({step: each.at?.[index] ?? index, distance}))
    .filter(({distance}) => distance !== null)
    .map(({step, distance}) => ({step, distance, height: Math.max(distance, LEAST)}));
}

// Four values between two others, evenly on a log scale, for a range that is too short for powers of ten.
function ticksBetween(low, high) {
  const evenly = [0, 1, 2, 3].map((part) => Number((low * (high / low) ** (part / 3)).toPrecision(2)));
  return [...new Set(evenly)];
}

// Each point joined with the next.
function strokes(points, look) {
  const pairs = points.slice(1).map((to, index) => ({from: points[index], to}));
  return Plot.link(pairs, {x1: ({from}) => from.step, y1: ({from}) => from.height, x2: ({to}) => to.step, y2: ({to}) => to.height, ...look});
}

function curvePlot(each, width, small) {
  const points = pointsOf(each);
  const last = Math.max(1, each.steps - 1);
  const line = each.line ? [{step: 0, height: each.line[0]}, {step: last, height: each.line[1]}] : [];
  const heights = [...points, ...line].map(({height}) => height);
  const [low, high] = [Math.min(...heights), Math.max(...heights)];
  const domain = [low / 1.08, high * 1.08];
  const axes = small
    ? {margin: 8, axis: null, x: {domain: [0, last]}, y: {type: "log", domain}}
    : {marginLeft: 56, marginBottom: 40, marginTop: 24, grid: true,
      x: {domain: [0, last], label: "step"},
      y: {type: "log", domain, label: "mean distance, log scale", tickFormat: (value) => String(Number(value.toPrecision(2))), ticks: high > 10 * low ? 5 : ticksBetween(low, high)}};
  const marks = [
    strokes(points, {stroke: "var(--h0)", strokeWidth: 2, strokeLinecap: "round"}),
    strokes(line, {stroke: "var(--h1)", strokeWidth: 2, strokeDasharray: "5,4"}),
  ];
  if (!small) {
    marks.push(Plot.dot(points, {x: "step", y: "height", r: 2.5, fill: "var(--h0)"}));
    marks.push(Plot.tip(points, Plot.pointer({x: "step", y: "height", title: ({step, distance}) => `step ${counted(step)}\nmean distance ${short(distance)}`})));
  }
  return figure(Plot.plot({width, height: small ? Math.round(width * 0.62) : Math.min(420, Math.round(width * 0.6)), style: PLOT_STYLE, ...axes, marks}),
    `Divergence over ${plural(each.steps, "step")}: ${exponentOf(each)}`);
}

function openCurve(each) {
  const holder = el("div", {class: "pictures"});
  showDetail(each.prompt === undefined ? each.model : `${each.prompt}: ${each.network}`,
    el("p", {class: "about-run"}, badge(each.state), el("span", {class: "chip"}, each.model), each.row ? el("span", {class: "id"}, "Lyapunov result ", el("code", {}, dashed(each.row))) : ""),
    each.problem ? "" : el("p", {}, `${exponentOf(each)} · ${plural(each.pairs, "pair")} of runs · ${plural(each.steps, "step")}`),
    findingsOf(each).map((message) => el("p", {class: "note"}, message)),
    holder,
    drawable(each) ? el("details", {class: "as-table"}, el("summary", {}, "The same as a table"), curveTable(each)) : "");
  if (drawable(each)) holder.append(curvePlot(each, Math.min(760, holder.clientWidth)));
  else holder.append(el("p", {class: "nothing"}, each.problem || "no distance to draw"));
}

// What the rules found in this very result.
function findingsOf(each) {
  return ["lyapunov-missing", "lyapunov-valid", "lyapunov-current"].flatMap((rule) => report.itemsOf[rule] ?? [])
    .filter((item) => item.experiment === each.experiment && item.model === each.model)
    .flatMap((item) => item.findings ?? [])
    .filter((finding) => (finding.ids ?? []).includes(each.row))
    .map((finding) => finding.message);
}

function curveTable(each) {
  const table = el("table", {}, el("thead", {}, el("tr", {}, ["Step", "Mean distance"].map((name) => el("th", {scope: "col"}, name)))));
  const [body, more] = listed(pointsOf(each), ({step, distance}) => el("tr", {}, el("th", {scope: "row"}, counted(step)), el("td", {class: "number"}, short(distance))), 40, "tbody", "steps");
  table.append(body);
  return [table, more];
}
