"use strict";
// Everything is built from text nodes: what a model wrote is never read as markup.
const content = JSON.parse(document.getElementById("content").textContent);
const dialog = document.getElementById("detail");
const body = document.getElementById("detail-body");
const title = document.getElementById("detail-title");
const back = document.getElementById("back");
const views = [];

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function button(label, className, act) {
  const made = element("button", { type: "button", class: className }, label);
  made.addEventListener("click", act);
  return made;
}

function select(label, options, chosen, act) {
  const list = element("select", {});
  options.forEach(([value, text]) => list.append(element("option", { value }, text)));
  list.value = chosen;
  list.addEventListener("change", () => act(list.value));
  return element("label", {}, label, list);
}

function number(value) {
  if (value === null || value === undefined) return "–";
  return String(Number(value.toPrecision(5))).replaceAll("-", "−");
}

// Tables: sorting and filtering

function sortable(table) {
  const rows = [...table.tBodies[0].rows];
  const heads = table.classList.contains("transposed") ? [] : [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const ranked = (row) => row.classList.contains("cell") || row.classList.contains("baseline");
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.tagName === "TH") return cell.textContent.trim();
    return "value" in cell.dataset ? Number(cell.dataset.value) : null;
  };
  const compare = (first, second) => {
    if (first === null || second === null) return (first === null) - (second === null); // gaps last, either way
    return typeof first === "number" ? first - second : first.localeCompare(second, undefined, { numeric: true });
  };
  heads.forEach((head, column) => {
    const label = head.textContent;
    head.replaceChildren(button(label, "sort", () => {
      const order = { descending: "ascending", ascending: "none" }[head.getAttribute("aria-sort")] || "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      table.classList.toggle("sorted", order !== "none");
      if (order !== "none") head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const sorted = rows.filter(ranked).sort((a, b) => {
        const [first, second] = [key(a, column), key(b, column)];
        return first === null || second === null ? compare(first, second) : sign * compare(first, second);
      });
      table.tBodies[0].append(...(order === "none" ? rows : [...sorted, ...rows.filter((row) => !ranked(row))]));
      show();
    }));
  });
  const filter = element("input", { class: "filter", type: "search", placeholder: "Filter rows", "aria-label": "Filter rows of " + (table.caption.textContent || table.id) });
  // Headings and differences belong to places that a sorted or filtered table does not have.
  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const isWhole = !words.length && !table.classList.contains("sorted");
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !isWhole && (!ranked(row) || !words.every((word) => text.includes(word)));
    });
  }
  filter.addEventListener("input", show);
  table.parentElement.before(filter);
  table.addEventListener("click", (event) => {
    const clicked = event.target.closest("button.number");
    if (!clicked) return;
    const [row, column] = clicked.dataset.at.split(",");
    openView(() => showNumber(table.id, row, column, clicked.closest("td")));
  });
}

// Views of the dialog

function openView(view) {
  if (!dialog.open) views.length = 0;
  views.push(view);
  draw();
  if (!dialog.open) dialog.showModal();
  body.scrollTop = 0;
}

function draw() {
  body.replaceChildren();
  back.hidden = views.length < 2;
  views[views.length - 1]();
}

back.addEventListener("click", () => { views.pop(); draw(); });
document.getElementById("close").addEventListener("click", () => dialog.close());

function showNumber(table, row, column, cell) {
  const { rows, columns } = content.tables[table];
  const own = rows[row];
  const { name, suites } = columns[column];
  title.textContent = own.name + ": " + name;
  body.append(element("p", {}, cell.textContent.trim() + (cell.title ? " (" + cell.title + ")" : "")));
  if (own.against.length) {
    comparison(own.runs, own.against, suites);
    return;
  }
  const others = rows.filter((other) => other !== own && other.runs.length && !other.against.length);
  const options = [["", "choose a row"], ...others.map((other, index) => [String(index), other.name])];
  body.append(element("div", { class: "controls" }, select("Compare with", options, "", (chosen) => {
    if (chosen === "") return;
    const other = others[chosen];
    openView(() => {
      title.textContent = name + ": " + own.name + " beside " + other.name;
      comparison(own.runs, other.runs, suites);
    });
  })));
  own.runs.forEach((run) => runSection(run, suites));
}

function runSection(run, suites) {
  const about = content.runs[run];
  body.append(element("h3", {}, about.label));
  const list = element("dl", {});
  list.append(element("dt", {}, "trained by"), element("dd", {}, stageButton(run)));
  suites.filter((suite) => about.evaluations[suite]).forEach((suite) => {
    const stage = about.evaluations[suite];
    const found = content.evaluations[stage];
    const score = found ? number(found.score) + " " : "";
    list.append(element("dt", {}, content.suites[suite].title || suite), element("dd", {}, score, stageButton(stage)));
  });
  body.append(list);
  charts(content.stages[run].curve);
  const withExamples = suites.filter((suite) => content.examples[suite] && content.examples[suite].grades[run]);
  if (withExamples.length) examples([run], withExamples);
}

function stageButton(stage) {
  const entry = content.stages[stage];
  const state = entry.missing ? " (" + entry.missing + ")" : "";
  return button(stage + state, "stage", () => openView(() => showStage(stage)));
}

function showStage(stage) {
  const entry = content.stages[stage];
  title.textContent = entry.kind + ": " + (entry.label || stage);
  const list = element("dl", {}, element("dt", {}, "stage"), element("dd", {}, stage));
  if (entry.missing) list.append(element("dt", {}, "not done"), element("dd", {}, entry.missing));
  else list.append(element("dt", {}, "seconds"), element("dd", {}, number(entry.seconds)));
  for (const [role, from] of Object.entries(entry.inputs)) {
    list.append(element("dt", {}, "from (" + role + ")"), element("dd", {}, stageButton(from), " " + content.stages[from].label));
  }
  const users = Object.keys(content.stages).filter((other) => Object.values(content.stages[other].inputs).includes(stage));
  if (users.length) {
    const more = element("details", {}, element("summary", {}, users.length + " stages"));
    users.forEach((other) => more.append(element("div", {}, stageButton(other), " " + content.stages[other].label)));
    list.append(element("dt", {}, "used by"), element("dd", {}, more));
  }
  body.append(list);
  charts(entry.curve);
  const found = content.evaluations[stage];
  if (found) {
    record("Health", found.health);
    record("Protocol", content.shared[found.protocol]);
  }
  record("Config", content.shared[entry.config]);
  record("Revisions", content.shared[entry.made]);
  if (entry.environment !== undefined) record("Environment", content.shared[entry.environment]);
}

function record(name, value) {
  body.append(element("h3", {}, name), element("pre", { tabindex: "0" }, JSON.stringify(value, null, 1)));
}

function charts(curve) {
  if (!curve) return;
  const all = element("div", { class: "charts" });
  for (const [name, values] of Object.entries(curve.values)) {
    const points = values.map((value, index) => [curve.step[index], value]).filter((point) => point[1] !== null);
    if (points.length > 1) all.append(chart(name, points));
  }
  body.append(all);
}

function chart(name, points) {
  const [width, height, pad] = [240, 90, 4];
  const ends = (side) => [Math.min(...points.map((point) => point[side])), Math.max(...points.map((point) => point[side]))];
  const [[left, right], [low, high]] = [ends(0), ends(1)];
  const place = (value, from, to, size) => pad + (to > from ? (value - from) / (to - from) : 0.5) * (size - 2 * pad);
  const path = points.map(([x, y]) => place(x, left, right, width).toFixed(1) + "," + (height - place(y, low, high, height)).toFixed(1));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 " + width + " " + height);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", name + " from " + number(points[0][1]) + " to " + number(points[points.length - 1][1]));
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", "M" + path.join("L"));
  svg.append(line);
  const range = name + ": " + number(low) + " to " + number(high) + ", steps " + number(left) + " to " + number(right);
  return element("div", { class: "chart" }, svg, element("div", {}, range));
}

// Examples: of one model, or of two side by side

function comparison(first, second, suites) {
  const shared = (one, other) => suites.filter((suite) =>
    content.examples[suite] && content.examples[suite].grades[one] && content.examples[suite].grades[other]);
  const pairs = first.flatMap((one) => second.map((other) => [one, other])).filter(([one, other]) => shared(one, other).length);
  if (!pairs.length) {
    body.append(element("p", {}, "No examples of both."));
    [...first, ...second].forEach((run) => runSection(run, suites));
    return;
  }
  const likely = (pair) => content.runs[pair[0]].axes.seed === content.runs[pair[1]].axes.seed;
  let chosen = Math.max(0, pairs.findIndex(likely));
  const holder = element("div", {});
  const fill = () => {
    const list = element("dl", {});
    pairs[chosen].forEach((run) => list.append(element("dt", {}, content.runs[run].label), element("dd", {}, stageButton(run))));
    holder.replaceChildren(list);
    examples(pairs[chosen], shared(...pairs[chosen]), holder);
  };
  const options = pairs.map((pair, index) => [String(index), pair.map((run) => content.runs[run].label).join(" | ")]);
  body.append(element("div", { class: "controls" }, select("Runs", options, String(chosen), (value) => { chosen = Number(value); fill(); })), holder);
  fill();
}

const KINDS = [["all", "all"], ["wins", "wins (first is better)"], ["losses", "losses (second is better)"],
  ["disagreements", "disagreements"], ["agreements", "equal grades"]];

function outcome(grades, higher) {
  const [first, second] = grades;
  if (first === null || second === null) return "undefined";
  return first === second ? "agreements" : (first > second) === higher ? "wins" : "losses";
}

function examples(runs, suites, holder = body) {
  let suite = suites[0];
  let kind = "all";
  const list = element("div", { class: "examples" });
  const controls = element("div", { class: "controls" });
  const fill = () => {
    const own = content.examples[suite];
    const grades = own.ids.map((_, index) => runs.map((run) => own.grades[run][index]));
    const outcomes = grades.map((pair) => runs.length === 2 ? outcome(pair, content.suites[suite].higher) : "all");
    const count = (name) => outcomes.filter((found) => found === name).length;
    const fits = (found) => kind === "all" || found === kind || (kind === "disagreements" && (found === "wins" || found === "losses"));
    list.replaceChildren();
    const told = runs.length === 2
      ? "Of " + own.ids.length + " examples (of " + own.total + "; half are those that models differ on most): "
        + count("wins") + " wins, " + count("losses") + " losses, " + count("agreements") + " equal."
      : own.ids.length + " of " + own.total + " examples; half are those that models differ on most.";
    list.append(element("p", { class: "fact" }, told + " Grade: " + own.metric + "."));
    own.ids.forEach((id, index) => {
      if (!fits(outcomes[index])) return;
      const sides = runs.map((run, side) => element("div", {},
        element("div", { class: "id" }, content.runs[run].label + ": grade " + number(grades[index][side])),
        element("div", { class: "text response", dir: "auto" }, own.responses[run][index] ?? "(no response is kept)")));
      list.append(element("div", { class: "example" }, element("div", { class: "id" }, id),
        element("div", { class: "text prompt", dir: "auto" }, own.prompts[index] ?? "(no prompt is kept)"),
        element("div", { class: "sides" }, ...sides)));
    });
  };
  controls.append(select("Suite", suites.map((name) => [name, content.suites[name].title || name]), suite, (value) => { suite = value; fill(); }));
  if (runs.length === 2) controls.append(select("Show", KINDS, kind, (value) => { kind = value; fill(); }));
  holder.append(element("h3", {}, "Examples"), controls, list);
  fill();
}

document.querySelectorAll("main table").forEach(sortable);
document.documentElement.dataset.ready = "true";
