// The diagrams: small pictures, drawn when they come into view; a large one, with what was before, when asked for.

const STEP = 24;
const gallery = {text: "", model: "", show: "all", shown: STEP};
const OF_DIAGRAM = ["diagram-missing", "diagram-duplicate", "diagram-valid", "diagram-current"];

function prepareDiagrams() {
  const states = new Map();
  for (const item of report.items)
    if (item.run !== undefined) states.set(`${item.run} ${item.model}`, [...(states.get(`${item.run} ${item.model}`) ?? []), item]);
  report.diagram = new Map();
  for (const each of report.diagrams) {
    const key = `${each.run} ${each.model}`;
    each.items = states.get(key) ?? [];
    each.now = each.shots.filter((shot) => shot.what === "now" || shot.what === "duplicate");
    each.before = each.shots.filter((shot) => shot.what === "before" || shot.what === "removed");
    const outcomes = new Set(each.items.map((item) => item.outcome));
    each.state = outcomes.has("failed") ? "sick" : each.before.length || outcomes.has("fixed") ? "fixed" : each.now.length ? "healthy" : "not examined";
    report.diagram.set(key, each);
  }
  const rank = ["sick", "fixed", "healthy", "not examined"];
  report.diagrams.sort((a, b) => rank.indexOf(a.state) - rank.indexOf(b.state) || barsIn(b) - barsIn(a));
}

const barsIn = (each) => (each.now[0]?.dims ?? []).slice(1).reduce((sum, dim) => sum + dim.total, 0);

function diagramButton(run, model) {
  const found = report.diagram.get(`${run} ${model}`);
  return found ? el("button", {type: "button", class: "ghost", click: () => openDiagram(found)}, `Diagram of ${model}`) : "";
}

function drawDiagrams() {
  const section = byId("diagrams");
  if (!report.diagrams.length) {
    section.append(el("p", {class: "note"}, report.merged ? "Reports were merged without the database: the diagrams are drawn in each shard's own page." : "No rule about diagrams was examined."));
    return;
  }
  const search = el("input", {type: "search", placeholder: "prompt, network or id", "aria-label": "Filter the diagrams by text", autocomplete: "off"});
  search.addEventListener("input", whenQuiet(() => refreshGallery({text: search.value.trim().toLowerCase()})));
  const models = el("select", {"aria-label": "Embedding model", change: (event) => refreshGallery({model: event.target.value})},
    el("option", {value: ""}, "every embedding model"), report.models.map((name) => el("option", {value: name}, name)));
  const show = el("select", {id: "gallery-show", "aria-label": "State", change: (event) => refreshGallery({show: event.target.value})},
    [["all", "every diagram"], ["sick", "sick"], ["fixed", "repaired"], ["healthy", "healthy"]].map(([value, text]) => el("option", {value}, text)));
  const dimensions = Math.max(0, ...report.diagrams.flatMap((each) => each.shots.map((shot) => shot.dims.length)));
  section.append(
    el("div", {class: "toolbar"}, search, models, show, el("p", {id: "gallery-count", class: "quiet", role: "status"}), dimensionLegend(Math.min(dimensions, 3))),
    report.keep ? el("p", {class: "note"}, `There are so many diagrams that each homology dimension is drawn with its ${counted(report.keep)} longest bars; the counts are of all.`) : "",
    el("div", {id: "gallery", class: "gallery"}),
    el("button", {type: "button", class: "ghost more", id: "gallery-more", click: () => refreshGallery({shown: gallery.shown + 2 * STEP})}));
  refreshGallery({});
}

function dimensionLegend(count) {
  const shapes = ["●", "■", "▲"];
  return el("ul", {class: "legend", "aria-label": "Homology dimensions"},
    shapes.slice(0, count).map((shape, dimension) => el("li", {}, el("span", {style: `color: var(--h${dimension})`, "aria-hidden": "true"}, shape), `H${dimension}`)),
    el("li", {}, el("span", {"aria-hidden": "true"}, "★"), "essential class"));
}

const drawer = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (!entry.isIntersecting) return;
  drawer.unobserve(entry.target);
  entry.target.draw();
}), {rootMargin: "300px"});

function refreshGallery(change) {
  Object.assign(gallery, "shown" in change ? {} : {shown: STEP}, change);
  const found = report.diagrams.filter((each) => {
    const run = report.runs[each.run];
    return (!gallery.model || each.model === gallery.model) && (gallery.show === "all" || each.state === gallery.show) &&
      (!gallery.text || [run.label, run.id, dashed(run.id)].some((text) => text.toLowerCase().includes(gallery.text)));
  });
  byId("gallery").replaceChildren(...found.slice(0, gallery.shown).map(card));
  byId("gallery-count").textContent = found.length === report.diagrams.length ? plural(found.length, "diagram") : `${counted(found.length)} of ${plural(report.diagrams.length, "diagram")}`;
  const more = byId("gallery-more");
  more.hidden = found.length <= gallery.shown;
  more.textContent = `Show ${counted(Math.min(2 * STEP, found.length - gallery.shown))} more of ${counted(found.length - gallery.shown)} diagrams`;
}

function card(each) {
  const run = report.runs[each.run];
  const picture = el("div", {class: "thumbnail"});
  const shot = each.now[0];
  picture.draw = () => picture.append(shot && !shot.problem && shot.dims.length ? thumbnail(shot, each.before[0], 260) : el("p", {class: "nothing"}, problemOf(shot)));
  drawer.observe(picture);
  const counts = shot && !shot.problem ? shot.dims.map((dim, dimension) => `H${dimension} ${counted(dim.total)}`).join(" · ") : "";
  return el("button", {type: "button", class: `card ${classOf(each.state)}`, click: () => openDiagram(each)},
    el("span", {class: "card-head"}, badge(each.state), el("span", {class: "chip"}, each.model)),
    picture,
    el("span", {class: "card-name"}, run.label),
    el("span", {class: "card-counts"}, each.measures.points ? el("span", {class: "points"}, `${plural(each.measures.points, "point")} · `) : "", counts || "\u00a0"));
}

const problemOf = (shot) => (!shot ? "no diagram is stored" : shot.problem || "there is no bar");

function openDiagram(each) {
  const run = report.runs[each.run];
  const items = each.items.filter((item) => !["passed", "skipped", "not examined"].includes(item.outcome));
  const now = each.now[0], before = each.before[0];
  const holder = el("div", {class: "pictures"});
  showDetail(run.label,
    el("p", {class: "about-run"}, badge(each.state), el("span", {class: "chip"}, each.model), el("span", {class: "id"}, "run ", el("code", {}, dashed(run.id)))),
    items.some((item) => item.measures) ? "" : measuresOf(each.measures),
    before ? el("p", {class: "legend before-after"}, el("span", {}, el("span", {class: "ring", "aria-hidden": "true"}), `before: ${before.problem || "hollow, grey"}`), el("span", {}, el("span", {class: "disc", "aria-hidden": "true"}), `after: ${now?.problem || "filled"}`)) : "",
    holder,
    each.now.slice(1).map((shot) => el("p", {class: "note"}, `One more diagram is stored for this run and model (${dashed(shot.row)}): ${shot.problem || sameOrNot(shot, now)}.`)),
    each.before.slice(1).map((shot) => el("p", {class: "note"}, `The repair took one more diagram away (${dashed(shot.row)}): ${shot.problem || sameOrNot(shot, now)}.`)),
    items.length ? listed(items, (item) => itemView(item, each.run), 20, "ul", "items") : "");
  drawLarge(holder, now, before);
}

const sameOrNot = (shot, other) => (other && JSON.stringify(shot.dims.map((dim) => [dim.total, dim.undrawable, dim.endless])) === JSON.stringify(other.dims.map((dim) => [dim.total, dim.undrawable, dim.endless])) ? "it has as many bars" : "it has other bars");

function drawLarge(holder, now, before) {
  const drawable = (shot) => (shot && !shot.problem ? shot.dims : []);
  const [after, former] = [drawable(now), drawable(before)];
  const dimensions = Math.max(after.length, former.length);
  if (!dimensions) {
    holder.append(el("p", {class: "nothing"}, problemOf(now ?? before)));
    return;
  }
  if (now?.problem) holder.append(el("p", {class: "nothing wide"}, now.problem));
  const columns = holder.clientWidth > 720 ? Math.min(3, dimensions) : 1;
  const width = Math.min(460, Math.floor((holder.clientWidth - 24 * (columns - 1)) / columns));
  for (let dimension = 0; dimension < dimensions; dimension++) {
    const layers = [former[dimension] && {dim: former[dimension], before: true}, after[dimension] && {dim: after[dimension]}].filter(Boolean);
    const entropy = (now ?? before).entropy?.[dimension];
    const column = el("figure", {class: "dimension", style: `width: ${width}px`},
      el("figcaption", {}, el("strong", {style: `color: ${colourOf(dimension)}`}, `H${dimension}`), ` ${saidOf(layers.at(-1).dim)}`,
        entropy === undefined ? "" : el("span", {class: "quiet"}, ` entropy ${entropy.toFixed(3)}`)));
    const some = layers.some(({dim}) => dim.total - dim.undrawable > 0);
    if (!some) column.append(el("p", {class: "nothing"}, "no bar"));
    else {
      const range = rangeOf(layers.map((layer) => layer.dim), [...after, ...former].filter((dim) => dim.total > dim.undrawable));
      column.append(birthDeath(layers, dimension, width, range));
      for (const layer of layers) {
        if (former.length) column.append(el("p", {class: "quiet barcode-name"}, layer.before ? "before" : "after"));
        if (layer.dim.total - layer.dim.undrawable > 0) column.append(barcode(layer, dimension, width, range));
        else column.append(el("p", {class: "quiet"}, "no bar"));
      }
    }
    holder.append(column);
  }
}
