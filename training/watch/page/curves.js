// Charts of the selected runs, and the lines in each.

import { Chart, view } from "./chart.js";
import { find, isAccuracy, known, make, title } from "./dom.js";
import { store } from "./store.js";

const PLACES = ["step", "epoch"];
const SPEED = ["images_per_s", "wait", "memory_gb"];
const FIRST = ["loss", "knn", "linear_online", "linear", "lr", "grad_norm"];
const PAIRS = { rankme: "RankMe", spread: "Spread of directions" }; // of h and z
const FROM_ZERO = ["lr", "grad_norm", "images_per_s", "wait", "memory_gb", "knn", "linear_online"];

const charts = new Map();

export function showCurves() {
  const wanted = new Map(), names = shortened(store.selected.map((id) => store.seen.get(id)?.name ?? id));
  for (const [colour, id] of store.selected.entries()) {
    const name = names[colour];
    fromLog(wanted, id, name, colour);
    fromEvaluations(wanted, id, name, colour);
  }
  for (const [key, chart] of charts) {
    if (wanted.has(key)) continue;
    chart.remove();
    charts.delete(key);
  }
  for (const { key, column, lines } of ordered(wanted)) {
    if (!charts.has(key)) {
      charts.set(key, new Chart(PAIRS[key.split(" ")[1]] ?? title(column), { percent: isAccuracy(column), zero: FROM_ZERO.includes(column) }));
    }
    const host = find(SPEED.includes(column) ? "speed" : "learning");
    const { figure } = charts.get(key);
    if (figure.parentNode !== host) host.append(figure);
    charts.get(key).show(lines);
  }
  for (const id of ["learning", "speed"]) inOrder(find(id), ordered(wanted));
  const empty = find("learning").querySelector(".empty");
  if (!wanted.size && !empty) find("learning").append(make("p", { class: "empty" }, "Nothing is logged yet."));
  if (wanted.size) empty?.remove();
  find("curves").hidden = !store.selected.length;
  find("throughput").hidden = !find("speed").children.length;
}

/** Names without the parts between - and / that all begin or end with. */
function shortened(names) {
  const parts = names.map((name) => name.split(/(?=[-/])/));
  const shortest = Math.min(...parts.map((list) => list.length));
  if (names.length < 2) return names;
  const same = (at) => parts.every((list) => list.at(at) === parts[0].at(at));
  let first = 0, last = 0;
  while (first < shortest - 1 && same(first)) first++;
  while (last < shortest - 1 - first && same(-1 - last)) last++;
  return parts.map((list) => list.slice(first, list.length - last).join("").replace(/^[-/]/, ""));
}

function inOrder(host, wanted) {
  const figures = wanted.map(({ key }) => charts.get(key).figure).filter((figure) => figure.parentNode === host);
  figures.forEach((figure, i) => {
    if (host.children[i] !== figure) host.insertBefore(figure, host.children[i] ?? null);
  });
}

function ordered(wanted) {
  const rank = ({ column }) => (FIRST.indexOf(column) + 1 || FIRST.length + 1);
  return [...wanted.values()].sort((a, b) => rank(a) - rank(b));
}

function add(wanted, key, column, line) {
  if (!line.y.some(known)) return;
  if (!wanted.has(key)) wanted.set(key, { key, column, lines: [] });
  wanted.get(key).lines.push(line);
}

function fromLog(wanted, id, name, colour) {
  const columns = store.logs.get(id)?.columns ?? {};
  const x = (columns[view.x] ?? columns.step)?.mean;
  if (!x) return;
  for (const [column, parts] of Object.entries(columns)) {
    if (PLACES.includes(column)) continue;
    add(wanted, column, column, { name, colour, x, y: parts.mean, low: parts.low, high: parts.high });
  }
}

function fromEvaluations(wanted, id, name, colour) {
  const rows = (store.details.get(id)?.evaluations ?? []).filter((row) => known(row[view.x]));
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  for (const column of names) {
    if (PLACES.includes(column) || column.startsWith("collapsed")) continue;
    const some = rows.filter((row) => known(row[column]));
    const [, pair, space] = /^(rankme|spread)_([hz])$/.exec(column) ?? [];
    const many = store.selected.length > 1;
    add(wanted, pair ? `pair ${pair}` : column, column, {
      name: pair ? (many ? `${name} ${space}` : space) : name,
      colour: pair && !many && space === "z" ? colour + 1 : colour,
      dashed: Boolean(pair) && many && space === "z",
      x: some.map((row) => row[view.x]),
      y: some.map((row) => row[column]),
    });
  }
}
