// What the page was given: unpacked once; the bars of a diagram only when it is drawn.

const STEPS = 1023;
const SICK = 7, FIXED = 6, ELSEWHERE = 5, WARNED = 4, UNEXAMINED = 3, SKIPPED = 2, HEALTHY = 1, NONE = 0;
const WORDS = ["no item", "healthy", "skipped", "not examined", "warned", "sick in other runs", "fixed", "sick"];
const MARKS = ["", "✓", "·", "–", "!", "∘", "+", "×"];
const STATE_OF = {s: SICK, f: FIXED, w: WARNED, h: HEALTHY, k: SKIPPED, n: UNEXAMINED, ".": NONE};
// An item fails or passes, as pytest says; a rule, a run and a diagram are sick or healthy. They share their colours.
const OUTCOMES = ["failed", "fixed", "warned", "not examined", "skipped", "passed"];
const LOOK_OF = {failed: "sick", passed: "healthy"};
const lookOf = (word) => LOOK_OF[word] ?? word;

const report = {bars: new Uint8Array()};

async function unpacked(id) {
  const text = atob(document.getElementById(id).textContent.trim());
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpack() {
  Object.assign(report, JSON.parse(new TextDecoder().decode(await unpacked("data"))));
  report.bars = await unpacked("bars");
  report.runs = report.experiments.flatMap((experiment, number) =>
    experiment.runs.map(([id, label]) => ({id, label, experiment: number})));
  report.models = [...new Set(report.experiments.flatMap((experiment) => experiment.models))];
  report.rule = Object.fromEntries(report.rules.map((rule) => [rule.id, rule]));
  report.itemsOf = Object.fromEntries(report.rules.map((rule) => [rule.id, []]));
  for (const item of report.items) report.itemsOf[item.rule].push(item);
  report.timeline = new Map(report.timelines.map((each) => [each.run, each]));
  for (const {shots} of report.diagrams)
    for (const shot of shots) shot.dims = shot.dims.map((dim, dimension) => dimensionOf(shot, dimension, dim));
  const rank = Object.fromEntries(["failed", "fixed", "warned", "passed", "not examined", "skipped"].map((word, place) => [word, place]));
  const rows = (item) => (item.findings ?? []).reduce((sum, finding) => sum + finding.count, 0);
  for (const items of Object.values(report.itemsOf))
    items.sort((a, b) => rank[a.outcome] - rank[b.outcome] || rows(b) - rows(a));
}

// A homology dimension of a stored diagram: `total` bars, `endless` of them essential, `count` of them to be drawn.
function dimensionOf(shot, dimension, [count, first, last, total, undrawable, endless, births]) {
  return {shot, dimension, count, first, last, total, undrawable, endless, births};
}

// [{birth, death}] of one homology dimension, in order of birth, then death. The bars of a shot follow one another.
function barsOf({shot, dimension}) {
  let at = shot.at;
  const next = () => {
    const low = report.bars[at++];
    return low < 128 ? low : (low & 127) | (report.bars[at++] << 7);
  };
  let bars = [];
  for (const {count, first, last} of shot.dims.slice(0, dimension + 1)) {
    const steps = Array.from({length: 2 * count}, next);
    const value = (step) => first + (step * (last - first)) / STEPS;
    let birth = 0, length = 0;
    bars = Array.from({length: count}, (_, index) => {
      birth += steps[index];
      length = steps[count + index] + (steps[index] === 0 ? length : 0);
      return {birth: value(birth), death: value(birth + length)};
    });
  }
  return bars;
}

// For each run the state of one rule; of one embedding model alone where one is named.
function statesOf(rule, model) {
  const states = new Uint8Array(report.runs.length);
  const letters = report.states[rule.id] ?? "";
  let run = 0, place = 0;
  report.experiments.forEach((experiment, number) => {
    const runs = experiment.runs.length;
    const raise = (index, state) => (states[index] = Math.max(states[index], state));
    const spread = (letter, item) => {
      const state = STATE_OF[letter] ?? NONE;
      const where = (state >= FIXED || state === WARNED) && item ? runsOf(item) : null;
      for (let index = run; index < run + runs; index++)
        raise(index, !where || where.has(index) ? state : state === SICK ? ELSEWHERE : HEALTHY);
    };
    const found = (name) =>
      report.itemsOf[rule.id].find((item) => item.experiment === number && (item.model ?? "") === name);
    if (rule.scope === "run")
      for (let index = run; index < run + runs; index++) raise(index, STATE_OF[letters[index]] ?? NONE);
    if (rule.scope === "experiment") spread(letters[number], found(""));
    for (const name of experiment.models) {
      if (rule.scope !== "experiment x embedding model") break;
      if (!model || name === model) spread(letters[place], found(name));
      place++;
    }
    if (rule.scope === "run x embedding model")
      for (let index = run; index < run + runs; index++)
        for (const name of experiment.models) {
          if (!model || name === model) raise(index, STATE_OF[letters[place]] ?? NONE);
          place++;
        }
    run += runs;
  });
  return states;
}

// The runs that an experiment's item is about; null where they are not known, so that it may be any.
function runsOf(item) {
  const parts = item.runs ? [item] : [...(item.findings ?? []), ...(item.accepted ?? [])];
  if (!parts.length || !parts.every((part) => part.complete)) return null;
  return new Set(parts.flatMap((part) => part.runs.map(([run]) => run)));
}
