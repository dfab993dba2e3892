// Birth-death plots and barcodes, by Observable Plot. A homology dimension has a colour and a symbol.

const SYMBOLS = ["circle", "square", "triangle", "diamond"];
const colourOf = (dimension) => `var(--h${Math.min(dimension, 3)})`;
const short = (value) => String(Number(value.toPrecision(3)));

// From the first birth to the last death of all dims that share a plot, with room for the essential class above. A
// dimension is enlarged at most to a quarter of the whole diagram: noise must not look like structure.
function rangeOf(dims, whole = dims) {
  const extent = (some) => [Math.min(...some.map((dim) => dim.first)), Math.max(...some.map((dim) => dim.last))];
  const [least, most] = extent(whole);
  let [first, last] = extent(dims);
  const missing = (most - least || Math.abs(most) || 1) / 4 - (last - first);
  if (missing > 0) {
    first = Math.max(least, first - missing / 2);
    last = Math.max(last, first + (most - least || Math.abs(most) || 1) / 4);
  }
  const span = last - first;
  return {low: first - span * 0.04, high: last + span * 0.04, endless: last + span * 0.14, top: last + span * 0.22};
}

function birthDeath(layers, dimension, width, range) {
  const domain = [range.low, range.top];
  const marks = [
    Plot.link([range], {x1: "low", y1: "low", x2: "high", y2: "high", stroke: "var(--muted)", strokeWidth: 1}),
    Plot.ruleY([range.endless], {stroke: "var(--muted)", strokeDasharray: "3,3"}),
    Plot.text([range.endless], {x: () => range.top, y: (value) => value, text: () => "∞", textAnchor: "end", dy: -8, fontSize: 13, fill: "var(--muted)"}),
  ];
  for (const {dim, before} of layers) {
    const bars = barsOf(dim);
    const look = before
      ? {r: 4, stroke: "var(--muted)", strokeWidth: 1.2, fill: "none"}
      : {r: 3, fill: colourOf(dimension), fillOpacity: 0.65};
    marks.push(Plot.dot(bars, {x: "birth", y: "death", symbol: SYMBOLS[dimension], ...look}));
    marks.push(Plot.dot(dim.births, {x: (birth) => birth, y: () => range.endless, symbol: "star", r: before ? 7 : 5, ...(before ? {stroke: "var(--muted)", fill: "none"} : {fill: colourOf(dimension)})}));
    if (!before) marks.push(Plot.tip(bars, Plot.pointer({x: "birth", y: "death", title: (bar) => `born ${short(bar.birth)}\ndies ${short(bar.death)}\nlives ${short(bar.death - bar.birth)}`})));
  }
  return figure(Plot.plot({width, height: Math.round(width * 0.86), marginLeft: 44, marginBottom: 36, marginTop: 12, marginRight: 12,
    x: {domain, label: "birth", ticks: 4, nice: false}, y: {domain, label: "death", ticks: 4, nice: false}, style: PLOT_STYLE, marks}),
  `Birth-death plot of H${dimension}: ${saidOf(layers.at(-1).dim)}`);
}

const PLOT_STYLE = {background: "transparent", color: "var(--ink)", fontFamily: "inherit", fontSize: "11px", overflow: "visible"};

function barcode({dim, before}, dimension, width, range) {
  const bars = barsOf(dim);
  const endless = dim.births.map((birth) => ({birth, death: range.top}));
  const all = [...bars, ...endless];
  const height = Math.max(56, Math.min(190, 44 + all.length * 4));
  return figure(Plot.plot({width, height, marginLeft: 44, marginBottom: 32, marginTop: 6, marginRight: 12,
    x: {domain: [range.low, range.top], label: "filtration value", ticks: 4}, y: {axis: null, domain: [all.length, -1]}, style: PLOT_STYLE,
    marks: [
      Plot.ruleY(bars, {x1: "birth", x2: (bar) => Math.max(bar.death, bar.birth + (range.top - range.low) / 400), y: (_, index) => index,
        stroke: before ? "var(--muted)" : colourOf(dimension), strokeWidth: Math.max(0.6, Math.min(2.5, 110 / all.length))}),
      Plot.ruleY(endless, {x1: "birth", x2: "death", y: (_, index) => bars.length + index, stroke: before ? "var(--muted)" : colourOf(dimension), strokeWidth: 2.5}),
      Plot.text(endless, {x: "death", y: (_, index) => bars.length + index, text: () => "▶", fontSize: 9, fill: before ? "var(--muted)" : colourOf(dimension)}),
    ]}), `Barcode of H${dimension}: ${saidOf(dim)}`);
}

const longestOf = (dim) => barsOf(dim).sort((a, b) => b.death - b.birth - (a.death - a.birth)).slice(0, 60);

// All dimensions in one small picture, of their longest bars alone.
function thumbnail(shot, before, width) {
  const dims = shot.dims;
  const former = before?.dims ?? [];
  const range = rangeOf([...dims, ...former]);
  const domain = [range.low, range.top];
  const marks = [
    Plot.link([range], {x1: "low", y1: "low", x2: "high", y2: "high", stroke: "var(--line)", strokeWidth: 1.5}),
    Plot.ruleY([range.endless], {stroke: "var(--line)", strokeDasharray: "3,3"}),
  ];
  former.forEach((dim, dimension) =>
    marks.push(Plot.dot(longestOf(dim), {x: "birth", y: "death", symbol: SYMBOLS[dimension], r: 4.5, stroke: "var(--muted)", strokeWidth: 1})));
  dims.forEach((dim, dimension) => {
    const bars = longestOf(dim);
    marks.push(Plot.dot(bars, {x: "birth", y: "death", symbol: SYMBOLS[dimension], r: 3.2, fill: colourOf(dimension), fillOpacity: 0.7}));
    marks.push(Plot.dot(dim.births, {x: (birth) => birth, y: () => range.endless, symbol: "star", r: 5, fill: colourOf(dimension)}));
  });
  return figure(Plot.plot({width, height: Math.round(width * 0.62), margin: 8, axis: null, x: {domain}, y: {domain}, style: PLOT_STYLE, marks}),
    `Birth-death plot: ${dims.map((dim, dimension) => `H${dimension} ${saidOf(dim)}`).join(", ")}`);
}

function figure(svg, label) {
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  return svg;
}

function saidOf({count, total, undrawable, endless}) {
  const kept = total - undrawable - endless > count ? `, the ${counted(count)} longest drawn` : "";
  const odd = undrawable ? `, ${counted(undrawable)} that cannot be drawn` : "";
  return `${plural(total, "bar")}${endless ? `, ${counted(endless)} essential` : ""}${kept}${odd}`;
}
