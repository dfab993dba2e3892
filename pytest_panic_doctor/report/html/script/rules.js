// The table of rules: worst first, filtered by verdict and by text, sorted by a click on a heading.

const VERDICTS = ["sick", "fixed", "warned", "not examined", "healthy"];
const COLUMNS = [
  {name: "Verdict", key: (rule) => VERDICTS.indexOf(rule.verdict) * 1e6 - rule.outcomes.failed, class: "verdict"},
  {name: "Rule", key: (rule) => rule.id, class: "name"},
  {name: "Items", key: (rule) => -(rule.outcomes.failed * 1e6 + rule.outcomes.fixed), class: "outcomes"},
  {name: "Rows", key: (rule) => -rule.rows, class: "number"},
  {name: "Time", key: (rule) => -rule.seconds, class: "number"},
];

const table = {verdicts: new Set(), text: "", sort: 0, down: true, open: new Set(), rows: new Map()};

function drawRules() {
  const search = el("input", {type: "search", id: "rule-filter", placeholder: "rule, prompt, message or id", "aria-label": "Filter the rules by text", autocomplete: "off"});
  search.addEventListener("input", whenQuiet(() => {
    table.text = search.value.trim().toLowerCase();
    refreshRules();
  }));
  const body = el("tbody", {id: "rule-rows"});
  const heads = COLUMNS.map((column, index) =>
    el("th", {scope: "col", class: column.class, "aria-sort": index === 0 ? "ascending" : "none"},
      el("button", {type: "button", click: () => sortRules(index)}, column.name)));
  byId("rules").append(
    el("div", {class: "toolbar"}, search,
      el("div", {class: "chips", role: "group", "aria-label": "Show only the rules that are"},
        VERDICTS.filter((word) => word !== "warned" || report.rules.some((rule) => rule.verdict === word)).map((word) => el("button", {type: "button", class: `filter ${classOf(word)}`, "data-verdict": word, "aria-pressed": "false"},
          el("span", {class: "mark", "aria-hidden": "true"}, MARKS[WORDS.indexOf(word)]), word))),
      el("p", {id: "rule-count", class: "quiet", role: "status"})),
    el("table", {class: "rules"},
      el("thead", {}, el("tr", {}, heads)), body));
  document.querySelectorAll("[data-verdict]").forEach((button) => button.addEventListener("click", () => {
    const word = button.dataset.verdict;
    table.verdicts.has(word) ? table.verdicts.delete(word) : table.verdicts.add(word);
    refreshRules();
    if (button.classList.contains("tile")) byId("rules").scrollIntoView();
  }));
  refreshRules();
}

function sortRules(index) {
  table.down = table.sort === index ? !table.down : true;
  table.sort = index;
  document.querySelectorAll("table.rules th").forEach((head, place) =>
    head.setAttribute("aria-sort", place === index ? (table.down ? "ascending" : "descending") : "none"));
  refreshRules();
}

const ruleText = (rule) => `${rule.id} ${rule.sentence} ${rule.found} ${rule.scope} ${rule.source}`.toLowerCase();
// What was found, and only where nothing was: what is true of a healthy database.
const headingOf = (rule) => rule.found || (rule.verdict === "healthy" ? rule.sentence : "");

function matches(rule) {
  if (table.verdicts.size && !table.verdicts.has(rule.verdict)) return false;
  return !table.text || ruleText(rule).includes(table.text) || report.itemsOf[rule.id].some((item) => textOf(item).includes(table.text));
}

function refreshRules() {
  const key = COLUMNS[table.sort].key;
  const order = (a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (table.down ? 1 : -1);
  const shown = report.rules.filter(matches).sort((a, b) => order(a, b) || a.id.localeCompare(b.id));
  byId("rule-rows").replaceChildren(...shown.flatMap(ruleRows));
  byId("rule-count").textContent = shown.length === report.rules.length
    ? plural(shown.length, "rule") : `${counted(shown.length)} of ${plural(report.rules.length, "rule")}`;
  document.querySelectorAll("[data-verdict]").forEach((button) =>
    button.setAttribute("aria-pressed", String(table.verdicts.has(button.dataset.verdict))));
}

function ruleRows(rule) {
  const open = table.open.has(rule.id);
  const toggle = (event) => {
    if (event.target.closest("a, button") && !event.target.closest(".opens")) return;
    table.open.has(rule.id) ? table.open.delete(rule.id) : table.open.add(rule.id);
    refreshRules();
    byId(`rule-${rule.id}`)?.querySelector(".opens").focus();
  };
  const row = el("tr", {id: `rule-${rule.id}`, class: `rule ${classOf(rule.verdict)}${open ? " open" : ""}`, click: toggle},
    el("td", {class: "verdict"}, badge(rule.verdict)),
    el("th", {scope: "row", class: "name"},
      el("button", {type: "button", class: "opens", "aria-expanded": String(open), "aria-controls": `about-${rule.id}`}, rule.id),
      rule.warnings ? el("span", {class: "chip alert"}, plural(rule.warnings, "warning")) : "",
      headingOf(rule) ? el("span", {class: "sentence"}, headingOf(rule)) : ""),
    el("td", {class: "outcomes"}, outcomesOf(rule)),
    el("td", {class: "number"}, rule.rows ? [counted(rule.rows), el("span", {class: "unit"}, rule.rows === 1 ? " row" : " rows")] : "–"),
    el("td", {class: "number"}, seconds(rule.seconds)));
  return open ? [row, el("tr", {class: "about", id: `about-${rule.id}`}, el("td", {colspan: "5"}, aboutRule(rule)))] : [row];
}

function outcomesOf(rule) {
  const total = Object.values(rule.outcomes).reduce((sum, count) => sum + count, 0);
  if (!total) return ["no item: the database has nothing for it to examine"];
  const parts = OUTCOMES.filter((word) => rule.outcomes[word]);
  const share = el("span", {class: "share", "aria-hidden": "true"}, parts.map((word) =>
    el("span", {class: classOf(lookOf(word)), style: `flex-grow: ${Math.max(rule.outcomes[word], total / 40)}`})));
  const said = parts.filter((word) => word !== "passed" || parts.length === 1).map((word) => `${counted(rule.outcomes[word])} ${word}`);
  return [share, el("span", {class: "said"}, parts.length === 1 ? said[0] : `${said.join(", ")} of ${counted(total)}`)];
}

function aboutRule(rule) {
  const all = report.itemsOf[rule.id];
  const matching = table.text && !ruleText(rule).includes(table.text) ? all.filter((item) => textOf(item).includes(table.text)) : all;
  const left = (item) => item.outcome === "skipped" || item.outcome === "not examined";
  const told = matching.filter((item) => !left(item));
  const skipped = new Map();
  for (const item of matching.filter(left)) {
    const key = `${item.outcome}\n${item.note ?? ""}`;
    skipped.set(key, [...(skipped.get(key) ?? []), item]);
  }
  const facts = [["healthy means", rule.sentence], ["scope", rule.scope], ["repair", rule.repair || rule.remedy || "none"], ["from", rule.source], ...(rule.examined ? [["examined", rule.examined]] : [])];
  return el("div", {class: "about-rule"},
    el("dl", {class: "facts"}, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    rule.next.startsWith("next: ")
      ? el("p", {class: "next"}, el("span", {}, "next"), el("code", {}, rule.next.slice(6)), copyButton(rule.next.slice(6)))
      : rule.next ? el("p", {class: "quiet"}, rule.next) : "",
    told.length ? listed(told, (item) => itemView(item), 20, "ul", "items") : "",
    [...skipped.values()].map((items) => el("details", {class: "skipped"},
      el("summary", {}, badge(items[0].outcome), ` ${plural(items.length, "item")}: ${items[0].note || "no reason given"}`),
      listed(items, (item) => el("li", {class: "quiet"}, subjectOf(item), item.model ? ` · ${item.model}` : ""), 20, "ul", "items"))),
    matching.length ? "" : el("p", {class: "quiet"}, rule.verdict === "healthy" ? "Every item passed." : "Nothing more is known."));
}

function openRule(id) {
  table.verdicts.clear();
  table.text = byId("rule-filter").value = "";
  table.open.add(id);
  refreshRules();
  byId(`rule-${id}`).scrollIntoView({block: "start"});
  byId(`rule-${id}`).querySelector(".opens").focus({preventScroll: true});
}
