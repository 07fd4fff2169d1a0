// The page: one store, drawn at most a few times a second.

import { view } from "./chart.js";
import { showCurves } from "./curves.js";
import { find, keep, make } from "./dom.js";
import { choose, firstSelection, MOST, showSettings, showTable } from "./runs.js";
import { showStages, showState } from "./state.js";
import { ago, listen, select, stateOf, store } from "./store.js";
import { showViews } from "./views.js";

const EVERY = 250; // milliseconds between drawings
const WORDS = { live: "live", lost: "connection lost, trying again", refused: "open the address that patchmill watch printed last" };

if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the key

let due = null, hasChosen = false;

function redraw() {
  due ??= setTimeout(() => { due = null; show(); }, EVERY);
}

function show() {
  if (!hasChosen && store.runs.length) {
    hasChosen = true;
    if (store.many) choose(firstSelection());
    else select([store.runs[0].id]);
  }
  const run = focused();
  heading(run);
  showTable(redraw);
  showState(run);
  showCurves();
  showStages(run);
  showViews(run);
  showLedger(run);
  showSettings();
}

function focused() {
  const id = store.selected.includes(store.focus) ? store.focus : store.selected[0];
  return id === undefined ? null : store.seen.get(id) ?? null;
}

function heading(run) {
  const title = store.subject ? store.subject.recipe : run?.method && run?.data ? `${run.method} on ${run.data}` : run?.name ?? store.folder.split("/").pop();
  const state = run ? stateOf(run) : "";
  const others = store.selected.length - 1;
  document.title = `${state === "running" ? "▶ " : ""}${title} · patchmill watch`;
  keep(find("title"), JSON.stringify([title, state, others]), () => [
    make("span", {}, title), state ? make("span", { class: `badge ${state}` }, state) : null,
    others > 0 ? make("span", { class: "badge" }, `and ${others} other${others > 1 ? "s" : ""}`) : null]);
  find("about").textContent = store.subject ? store.subject.data : [run && store.many ? run.name : "", store.folder].filter(Boolean).join(" · ");
  notice(run);
}

function notice(run) {
  let text = "";
  if (run && !store.runs.some((other) => other.id === run.id)) text = `The folder of ${run.name} is gone: what it had shown stays until this page is closed.`;
  else if (run && stateOf(run) === "silent") text = `${run.name} has given no sign for ${Math.round(ago(run.time) / 60)} minutes: it was probably killed.`;
  else if (run && collapsed(run)) text = "The last evaluation saw a collapse: the features of all images are nearly the same, or fill few dimensions.";
  else if (store.selected.length >= MOST) text = `${MOST} runs are compared at most.`;
  else if (!store.many && !store.runs.length && !store.subject) text = store.folder ? `The run in ${store.folder} is gone, or has not started.` : "";
  find("notice").hidden = !text;
  if (find("notice").textContent !== text) find("notice").textContent = text;
}

function collapsed(run) {
  const last = (store.details.get(run.id)?.evaluations ?? []).filter((row) => "collapsed_h" in row || "collapsed_z" in row).pop();
  return Boolean(last?.collapsed_h || last?.collapsed_z);
}

function showLedger(run) {
  const details = run ? store.details.get(run.id) : null, section = find("ledger");
  section.hidden = !details?.bad;
  if (!details?.bad) return;
  const shown = details.ledger.length;
  section.querySelector(".about").textContent = `${details.bad} so far, each replaced by another image` + (shown < details.bad ? `; the last ${shown}:` : ".");
  keep(section.querySelector("ul"), JSON.stringify([run.id, details.ledger]), () => details.ledger.map(({ id, where, reason }) =>
    make("li", {}, make("img", { src: `/thumbnail?${new URLSearchParams({ run: run.id, id })}`, alt: `what can be decoded of sample ${id}`, loading: "lazy" }),
      make("div", {}, make("p", {}, `sample ${id}: ${where}`), make("p", { class: "reason" }, reason)))));
}

// --------------------------------------------------------------------------------------- controls

const KEPT = "patchmill.watch";
try { Object.assign(view, JSON.parse(localStorage.getItem(KEPT) ?? "{}")); } catch { /* nothing is kept */ }

function controls() {
  const [smooth, log, axis] = ["smooth", "log", "axis"].map(find);
  [smooth.value, log.checked, axis.value] = [view.smooth, view.log, view.x];
  const take = () => {
    [view.smooth, view.log, view.x] = [Number(smooth.value), log.checked, axis.value];
    find("smooth-value").textContent = view.smooth;
    try { localStorage.setItem(KEPT, JSON.stringify(view)); } catch { /* private windows keep nothing */ }
    showCurves();
  };
  find("controls").addEventListener("input", take);
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  take();
}

controls();
listen(redraw, (state) => {
  const element = find("connection");
  element.className = `connection ${state === "live" ? "live" : "lost"}`;
  element.textContent = WORDS[state];
});
