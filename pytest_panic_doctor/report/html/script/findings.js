// One item: what it is about, what was found, what became of it.

function subjectOf(item) {
  if (item.run !== undefined) return report.runs[item.run].label;
  if (item.experiment !== undefined) return report.experiments[item.experiment].label;
  return item.name ?? "the whole database";
}

function idOf(item) {
  if (item.run !== undefined) return ["run", report.runs[item.run].id];
  return item.experiment === undefined ? null : ["experiment", report.experiments[item.experiment].id];
}

// Everything of an item that a person may search for, made once.
function textOf(item) {
  item.text ??= [
    item.model, subjectOf(item), ...pairOfIds(idOf(item)?.[1]), item.note, ...(item.warnings ?? []), ...runTexts(item),
    ...[...(item.findings ?? []), ...(item.accepted ?? [])].flatMap((finding) =>
      [finding.message, finding.table, ...pairOfIds(finding.run_id), ...(finding.ids ?? [])]),
  ].join("\n").toLowerCase();
  return item.text;
}

// Prompts, networks and ids of the runs that an experiment's item may be about: all of them, where they are not known.
function runTexts(item) {
  if (item.run !== undefined || item.experiment === undefined) return [];
  const known = runsOf(item);
  const runs = known ? [...known].map((run) => report.runs[run]) : report.runs.filter((run) => run.experiment === item.experiment);
  return runs.flatMap((run) => [run.label, ...pairOfIds(run.id)]);
}

const pairOfIds = (id) => (id ? [id, dashed(id)] : []);

function itemView(item, only) {
  const id = idOf(item);
  const findings = (item.findings ?? []).filter((finding) => only === undefined || concerns(finding, only));
  return el("li", {class: `item ${classOf(lookOf(item.outcome))}`},
    el("div", {class: "item-head"}, badge(item.outcome), el("strong", {}, subjectOf(item)),
      item.model ? el("span", {class: "chip"}, item.model) : ""),
    id ? el("p", {class: "id"}, `${id[0]} `, el("code", {}, dashed(id[1]))) : "",
    listed(findings, (finding) => findingView(finding, id?.[1]), 10, "ul", "findings"),
    (item.accepted ?? []).length ? el("details", {class: "accepted"},
      el("summary", {}, `${plural(item.accepted.length, "finding")} ${ACCEPTED_BY[item.by]}`),
      listed(item.accepted, (finding) => findingView(finding, id?.[1]), 10, "ul", "findings")) : "",
    item.note ? el("p", {class: "item-note"}, item.note) : "",
    (item.warnings ?? []).map((warning) => el("p", {class: "warning"}, el("span", {class: "mark", "aria-hidden": "true"}, "!"), warning)),
    item.examined ? el("p", {class: "measures"}, `examined: ${item.examined}`) : "",
    measuresOf(item.measures),
    item.run === undefined || only !== undefined ? "" : diagramButton(item.run, item.model));
}

const ACCEPTED_BY = {severity: "accepted by doctor_severity", baseline: "accepted by the baseline", run: "about runs that were not chosen"};

const concerns = (finding, run) => !finding.complete || finding.runs.some(([each]) => each === run);

function findingView(finding, subject) {
  return el("li", {class: "finding"},
    el("p", {}, finding.message),
    finding.run >= 0 ? runLine(finding.run)
      : finding.run_id ? el("p", {class: "id"}, "run ", el("code", {}, dashed(finding.run_id))) : "",
    finding.run === undefined ? (finding.runs ?? []).slice(0, RUNS_NAMED).map(([run, count]) => runLine(run, count)) : "",
    finding.run === undefined && finding.runs?.length > RUNS_NAMED ? el("p", {class: "quiet"}, `and ${plural(finding.runs.length - RUNS_NAMED, "more run")}`) : "",
    finding.ids?.length === 1 && [subject, finding.run_id].includes(finding.ids[0]) ? "" : rowsOf(finding));
}

const RUNS_NAMED = 5;

function runLine(run, count) {
  const {id, label} = report.runs[run];
  return el("p", {class: "id"}, "run ", el("code", {}, dashed(id)), " ",
    el("button", {type: "button", class: "link", click: () => openRun(run)}, label), count ? ` (${plural(count, "row")})` : "");
}

function rowsOf(finding) {
  if (!finding.ids) return "";
  const shown = finding.ids.length;
  const summary = `${finding.table}: ${plural(finding.count, "row")}${finding.more ? ` (showing ${counted(shown)} of ${counted(shown + finding.more)})` : ""}`;
  const box = el("div", {class: "ids"});
  // Built when it is opened: a finding may have ten thousand rows.
  const fill = () => {
    if (box.childElementCount) return;
    box.append(el("p", {}, el("code", {}, finding.ids.join(" "))), copyButton(finding.ids.join("\n")));
  };
  return el("details", {class: "rows", toggle: fill, open: shown === 1}, el("summary", {}, summary), box);
}

function measuresOf(measures) {
  if (!measures) return "";
  const told = [];
  if (measures.points) told.push(plural(measures.points, "point"));
  if (measures.distinct) told.push(`${counted(measures.distinct)} distinct`);
  if (measures.rows) told.push(plural(measures.rows, "row"));
  if (measures.seconds !== undefined) told.push(seconds(measures.seconds));
  if (measures.peak_memory) told.push(`${bytes(measures.peak_memory)} at the peak`);
  if (measures.engine) told.push(measures.engine);
  return told.length ? el("p", {class: "measures"}, told.join(" · ")) : "";
}
