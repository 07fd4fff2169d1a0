// The table of runs, and the settings of the selected ones.

import { duration, find, keep, known, make, number, percent, whole } from "./dom.js";
import { select, stateOf, store } from "./store.js";

export const MOST = 8;

const COLUMNS = [
  ["run", (run) => run.name, null],
  ["state", (run) => stateOf(run), "words"],
  ["method", (run) => run.method ?? "", "words"],
  ["data", (run) => run.data ?? "", "words"],
  ["scale", (run) => run.scale ?? "", "words"],
  ["best kNN", (run) => run.best ?? null, percent],
  ["loss", (run) => run.loss ?? null, number],
  ["step", (run) => run.step ?? null, whole],
  ["images/s", (run) => (run.state === "running" ? run.images_per_s ?? null : null), whole],
  ["left", (run) => (run.state === "running" ? run.eta_s ?? null : null), duration],
];

const details = make("select");
const detailsOf = make("label", {}, "details of ", details);

let sorting = { column: null, descending: false }, filter = "";

/** The colour of a run is its place among the selected ones. */
export const colourOf = (id) => store.selected.indexOf(id);

export function showTable(redraw) {
  find("runs").hidden = !store.many;
  if (!store.many) return;
  const controls = find("runs").querySelector(".controls");
  if (!controls.firstChild) {
    const search = make("input", { type: "search", placeholder: "filter", "aria-label": "Filter runs by name" });
    search.addEventListener("input", () => { filter = search.value.toLowerCase(); redraw(); });
    const none = make("button", { type: "button", onclick: () => choose([]) }, "Clear selection");
    details.addEventListener("change", () => { store.focus = details.value; redraw(); });
    controls.append(detailsOf, search, none);
  }
  controls.hidden = store.runs.length < 2;
  detailsOf.hidden = store.selected.length < 2;
  keep(details, JSON.stringify([store.selected, store.focus]), () => store.selected.map((id) =>
    make("option", { value: id, selected: id === store.focus }, store.seen.get(id)?.name ?? id)));
  const rows = sorted(store.runs.filter((run) => run.name.toLowerCase().includes(filter)));
  const shown = rows.map((run) => COLUMNS.map(([, value, form]) => cellText(value(run), form)));
  const host = find("runs").querySelector(".table");
  keep(host, JSON.stringify([shown, rows.map((run) => run.id), store.selected, sorting]), () => {
    if (!store.runs.length) return make("p", { class: "empty" }, `No run in ${store.folder} yet: it appears here when it starts.`);
    const focused = document.activeElement?.closest?.("#runs .table") ? document.activeElement.dataset.focus : null;
    const table = make("table", {}, make("thead", {}, make("tr", {}, COLUMNS.map((column) => heading(column, redraw)))),
      make("tbody", {}, rows.map((run, i) => line(run, shown[i]))));
    if (focused) queueMicrotask(() => host.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus());
    return table;
  });
}

function cellText(value, form) {
  return typeof form === "function" ? form(value) : value;
}

function heading([name, , form], redraw) {
  const active = sorting.column === name;
  const sort = () => {
    sorting = { column: name, descending: active ? !sorting.descending : typeof form === "function" };
    redraw();
  };
  return make("th", {
    scope: "col", class: form === "words" ? "words" : null,
    "aria-sort": active ? (sorting.descending ? "descending" : "ascending") : null,
  }, make("button", { type: "button", onclick: sort, "data-focus": `sort ${name}` }, name));
}

function sorted(runs) {
  const column = COLUMNS.find(([name]) => name === sorting.column);
  if (!column) return runs;
  const sign = sorting.descending ? -1 : 1;
  const empty = (value) => value === null || value === "";
  return [...runs].sort((a, b) => {
    const [one, other] = [column[1](a), column[1](b)];
    if (empty(one) || empty(other)) return empty(one) - empty(other);
    return sign * (known(one) ? one - other : String(one).localeCompare(String(other), "en", { numeric: true }));
  });
}

function line(run, texts) {
  const colour = colourOf(run.id), isSelected = colour >= 0;
  const box = make("input", {
    type: "checkbox", checked: isSelected, "data-focus": `run ${run.id}`,
    disabled: !isSelected && store.selected.length >= MOST,
    onchange: () => choose(isSelected ? store.selected.filter((id) => id !== run.id) : [...store.selected, run.id]),
  });
  const cells = texts.slice(1).map((text, i) => make("td", { class: COLUMNS[i + 1][2] === "words" ? "words" : null },
    i === 0 ? make("span", { class: `state ${text}` }, text) : text));
  return make("tr", { class: isSelected ? `selected k${colour % 8}` : null },
    make("th", { scope: "row" }, make("label", {}, box, texts[0])), cells);
}

export function choose(ids) {
  select(ids);
  const hash = new URLSearchParams(ids.map((id) => ["run", id]));
  history.replaceState(null, "", ids.length ? `#${hash}` : "#");
}

/** Runs that the address names, or else the one that wrote last. */
export function firstSelection() {
  const named = new URLSearchParams(location.hash.slice(1)).getAll("run");
  const there = named.filter((id) => store.runs.some((run) => run.id === id)).slice(0, MOST);
  if (there.length) return there;
  const latest = [...store.runs].sort((a, b) => (b.time ?? 0) - (a.time ?? 0));
  return latest.slice(0, 1).map((run) => run.id);
}

// --------------------------------------------------------------------------------------- settings

export function showSettings() {
  const chosen = store.selected.map((id) => store.details.get(id)).filter((run) => run && Object.keys(run.settings).length);
  const section = find("settings");
  section.hidden = !chosen.length;
  const key = JSON.stringify(chosen.map((run) => [run.id, run.settings]));
  keep(section.querySelector("div"), key, () => (chosen.length > 1 ? compared(chosen) : all(chosen)));
}

const text = (value) => (value === null || value === undefined ? "–" : Array.isArray(value) ? value.join(", ") : String(value));
const NOT_COMPARED = ["name", "out", "resume"];

function compared(runs) {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))].filter((key) => !NOT_COMPARED.includes(key));
  const values = (key) => runs.map((run) => text(run.settings[key]));
  const differing = keys.filter((key) => new Set(values(key)).size > 1);
  if (!differing.length) return [make("p", { class: "about" }, "The selected runs have the same settings."), all(runs)];
  const names = runs.map((run) => make("th", { scope: "col", class: "words" },
    make("span", { class: `key k${colourOf(run.id) % 8}` }, store.seen.get(run.id)?.name ?? run.id)));
  const rows = differing.map((key) => {
    const [first, ...others] = values(key);
    return make("tr", {}, make("th", { scope: "row" }, key), make("td", { class: "words" }, first),
      others.map((value) => make("td", { class: value === first ? "words" : "words differs" }, value)));
  });
  return [
    make("p", { class: "about" }, `${differing.length} of ${keys.length} settings differ; marked: other than in the first run.`),
    make("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Settings that differ" },
      make("table", { id: "differences" }, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "setting"), names)), make("tbody", {}, rows))),
    all(runs.slice(0, 1)),
  ];
}

function all(runs) {
  if (!runs.length) return null;
  const rows = Object.entries(runs[0].settings).map(([key, value]) =>
    make("tr", {}, make("th", { scope: "row" }, key), make("td", { class: "words" }, text(value))));
  return make("details", {}, make("summary", {}, `Every setting of ${store.seen.get(runs[0].id)?.name ?? runs[0].id}`),
    make("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Settings" }, make("table", {}, make("tbody", {}, rows))));
}
