// A run from its first invocation to its last, and where in it each rule found something; a lane for each rule.

const LANE = 26;

function timelineOf(run) {
  const found = report.timeline.get(run);
  if (!found || !(found.length || found.marks.length)) return "";
  const lanes = new Map();
  const lane = (rule, model, spans, missing) => {
    const name = model ? `${rule} [${model}]` : rule;
    lanes.set(name, [...(lanes.get(name) ?? []), ...spans.map(([first, last]) => ({name, first, last, missing}))]);
  };
  if (found.missing.length) lane("invocation-sequence", "", found.missing, true);
  for (const [rule, model, spans] of found.marks) lane(rule, model, spans, false);
  if (!lanes.size) return "";
  const all = [...lanes.values()].flat();
  const end = Math.max(found.length, ...all.map(({last}) => last + 1), 1);
  const names = [...lanes.keys()];
  const line = names.map((name) => ({name, first: 0, last: end - 1}));
  const title = ({name, first, last, missing}) => `${name}\n${missing ? "missing: " : ""}${first === last ? `number ${counted(first)}` : `numbers ${counted(first)} to ${counted(last)}`}`;
  const wide = all.filter(({first, last}) => last > first), single = all.filter(({first, last}) => last === first);
  const channel = {x1: "first", x2: "last", y: "name"};
  const svg = figure(Plot.plot({width: 900, height: 46 + LANE * names.length, marginLeft: 210, marginRight: 24, marginTop: 8, marginBottom: 36, style: PLOT_STYLE,
    x: {domain: [0, Math.max(1, end - 1)], label: "sequence number", ticks: 8, tickFormat: (value) => (Number.isInteger(value) ? counted(value) : "")}, y: {domain: names, label: null, type: "point", padding: 0.5},
    marks: [
      Plot.ruleY(line, {...channel, stroke: "var(--line)", strokeWidth: 2}),
      Plot.ruleY(wide, {...channel, stroke: "var(--sick)", strokeWidth: 8}),
      Plot.dot(single, {x: "first", y: "name", r: 4.5, symbol: ({missing}) => (missing ? "times" : "circle"), stroke: "var(--sick)", strokeWidth: 2, fill: "var(--sick)"}),
      Plot.tip(all, Plot.pointer({x: ({first, last}) => (first + last) / 2, y: "name", title})),
    ]}), `Timeline of ${plural(found.length, "invocation")}: ${names.map((name) => `${name} at ${lanes.get(name).map(({first, last}) => (first === last ? first : `${first} to ${last}`)).join(", ")}`).join("; ")}`);
  return el("div", {class: "timeline"}, svg);
}

// Everything about one run: where its defects are, and the items that found them.
function openRun(number) {
  const run = report.runs[number];
  const items = report.items.filter((item) => !["passed", "skipped", "not examined"].includes(item.outcome) && concernsRun(item, number));
  const found = report.timeline.get(number);
  showDetail(run.label,
    el("p", {class: "id"}, "run ", el("code", {}, dashed(run.id)), found?.length ? ` ${plural(found.length, "invocation")} by its max_length` : ""),
    timelineOf(number) || el("p", {class: "quiet"}, report.merged ? "Reports were merged without the database: where in the run something was found is drawn in each shard's own page." : "Nothing was found at a place of its sequence."),
    items.length ? listed(items, (item) => el("li", {}, el("strong", {}, item.rule), el("ul", {class: "items"}, itemView(item, number))), 20, "ul", "items") : el("p", {class: "quiet"}, "No item about this run failed, was fixed or was warned."));
}

function concernsRun(item, run) {
  if (item.run !== undefined) return item.run === run;
  if (item.experiment !== report.runs[run].experiment) return false;
  const known = runsOf(item);
  return !known || known.has(run);
}
