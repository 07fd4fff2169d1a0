// The state of one run: cards, and the utilisation of its loader's stages.

import { duration, find, keep, known, make, number, percent, whole } from "./dom.js";
import { ago, stateOf, store } from "./store.js";

const QUIET = 60; // seconds without a heartbeat that are mentioned

export function showState(run) {
  const section = find("state");
  section.hidden = !run;
  if (!run) return;
  const done = known(run.step) && run.steps ? run.step / run.steps : null;
  const cards = cardsOf(run, done);
  keep(section, JSON.stringify([run.id, cards, done]), () => [
    done === null ? null : make("div", {
      class: "progress", role: "progressbar", "aria-label": "Training", "aria-valuemin": 0, "aria-valuemax": 100,
      "aria-valuenow": Math.round(100 * done),
    }, make("span", { style: { width: `${100 * done}%` } })),
    make("dl", { class: "cards" }, cards.map(([name, value, note]) => make("div", { class: "card" },
      make("dt", {}, name), make("dd", { class: value.length > 14 ? "long" : null }, value),
      note ? make("dd", { class: "note" }, note) : null))),
  ]);
}

function cardsOf(run, done) {
  const log = store.logs.get(run.id), last = (name) => lastOf(log?.columns[name]?.mean);
  const running = run.state === "running";
  const cards = [
    ["Step", known(run.step) ? whole(run.step) : "–", known(run.steps) ? `of ${whole(run.steps)}, ${percent(done, 0)}` : ""],
    ["Epoch", known(run.epoch) ? number(run.epoch, 3) : "–", known(run.epochs) ? `of ${run.epochs}` : ""],
    ["Loss", number(run.loss ?? last("loss")), firstNote(log)],
    ["kNN", percent(run.knn), known(run.best) ? `best: ${percent(run.best)}` : "not evaluated yet"],
    ["Images/s", whole(run.images_per_s ?? last("images_per_s")), run.batch ? `batches of ${run.batch}` : ""],
    ["Wait for data", percent(last("wait")), "of the time, lately"],
  ];
  if (running) cards.push(["Time left", duration(run.eta_s), heartbeat(run)]);
  else cards.push(["State", stateOf(run), run.time ? `${duration(ago(run.time))} ago` : ""]);
  cards.push(["Machine", run.machine ?? run.host ?? "–", [run.machine ? run.host : "", restarts(run.restarts)].filter(Boolean).join("; ")]);
  return cards;
}

function firstNote(log) {
  const first = log?.columns.loss?.mean.find((value) => value !== null);
  return known(first) ? `at first: ${number(first)}` : "";
}

const restarts = (count) => (count ? `resumed ${count === 1 ? "once" : `${count} times`}` : "");

function heartbeat(run) {
  const seconds = run.time ? ago(run.time) : 0;
  return seconds > QUIET ? `no sign of it for ${duration(seconds)}` : "";
}

function lastOf(values) {
  for (let i = (values?.length ?? 0) - 1; i >= 0; i--) if (values[i] !== null) return values[i];
  return null;
}

// ----------------------------------------------------------------------------------------- stages

/** Bars of the loader's stages, from `loader.stats()`. */
export function showStages(run) {
  const host = find("stages"), loader = store.loaders.get(run?.id);
  host.hidden = !loader?.stages;
  if (!loader?.stages) return;
  keep(host, JSON.stringify(loader), () => {
    const rows = [bar("training waits", loader.wait_share, 1, "", loader.bottleneck !== "training loop")];
    const crews = [...new Set(Object.values(loader.stages).map((stage) => stage.crew))];
    for (const [name, stage] of Object.entries(loader.stages)) {
      const speed = stage.seconds > 0 ? `${whole(stage.items / stage.seconds)}/s a lane` : "";
      rows.push(bar(name, stage.occupancy, 2 * crews.indexOf(stage.crew), speed, name === loader.bottleneck, stage.crew));
    }
    return make("div", { class: "stages" }, make("h3", {}, "The loader's stages"), make("p", { class: "about" }, sentence(loader)), rows);
  });
}

function sentence(loader) {
  const crews = new Map(Object.values(loader.stages).map((stage) => [stage.crew, stage.lanes]));
  const lanes = [...crews].map(([crew, count]) => `${crew}: ${count} lane${count === 1 ? "" : "s"}`).join(", ");
  const limit = loader.advice ? `${loader.advice[0].toUpperCase()}${loader.advice.slice(1)}.`
    : loader.bottleneck === "training loop" ? "Data is ready in time: the training loop sets the pace."
    : `The loader sets the pace, by ${loader.bottleneck}.`;
  return `${limit} Shares of the lanes' time since this start, on rank 0 (${lanes}).`;
}

function bar(name, share, colour, note, isLimit, crew) {
  return make("div", { class: `stage${isLimit ? " limit" : ""} k${colour % 8}`, "data-stage": name },
    make("span", { class: "name", title: crew ?? null }, name),
    make("span", { class: "track", "aria-hidden": "true" }, make("span", { style: { width: percent(Math.min(share ?? 0, 1)) } })),
    make("span", { class: "value" }, [percent(share), note].filter(Boolean).join(" · ")));
}
