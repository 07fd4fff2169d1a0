// Images with the boxes of their views, the views, masks, and regions that two views share.

import { draw, find, keep, make, whole } from "./dom.js";
import { store } from "./store.js";

let asked = null; // what is shown or on its way: {run, step, first, epoch}
let drawn = null, shownFor, isWaiting = false;

/** Show the views of a run, or of the data and recipe that are looked at. */
export function showViews(run) {
  const subject = run?.id ?? (store.subject ? "" : null);
  find("views").hidden = subject === null;
  pictures(run);
  if (subject === null || shownFor === subject) return;
  shownFor = subject;
  asked = { run: subject, step: null, first: 0, epoch: 0 };
  buttons();
  find("samples").replaceChildren();
  drawn = null;
  new IntersectionObserver((entries, watcher) => { // drawing costs seconds at first
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    if (shownFor === subject) ask({});
  }).observe(find("views"));
}

function buttons() {
  const button = (text, what) => make("button", { type: "button", onclick: () => ask(what()) }, text);
  const list = asked.run === ""
    ? [button("Draw again", () => ({ epoch: asked.epoch + 1 })), button("Other images", () => ({ first: asked.first + 4 }))]
    : [button("Newest batch", () => ({ step: null, first: 0 })), button("Batch before", () => ({ step: Math.max((drawn?.step ?? 2) - 1, 1) })),
       button("More of the batch", () => ({ first: asked.first + 4 < (drawn?.batch ?? 4) ? asked.first + 4 : 0 }))];
  find("views").querySelector(".controls").replaceChildren(...list);
}

async function ask(what) {
  if (isWaiting) return;
  asked = { ...asked, ...what };
  const query = new URLSearchParams({ first: asked.first });
  if (asked.run === "") query.set("epoch", asked.epoch);
  else query.set("run", asked.run);
  if (asked.step) query.set("step", asked.step);
  const mine = asked.run;
  isWaiting = true;
  find("views-about").textContent = "drawing …";
  let answer;
  try {
    answer = await (await fetch(`/views?${query}`)).json();
  } catch {
    answer = { problem: "the server does not answer: is patchmill watch still running?" };
  }
  isWaiting = false;
  if (mine !== shownFor) return ask({ ...asked });
  drawn = answer;
  render();
}

function render() {
  const about = find("views-about");
  if (drawn.problem) {
    about.textContent = `No views can be drawn: ${drawn.problem}`;
    find("samples").replaceChildren();
    pictures(store.seen.get(asked.run));
    return;
  }
  const place = drawn.step
    ? `Step ${whole(drawn.step)} of ${whole(drawn.steps)}, images ${drawn.first + 1} to ${drawn.first + drawn.samples.length} of a batch of ${drawn.batch}`
    : `Draw ${drawn.epoch + 1}, images ${drawn.first + 1} to ${drawn.first + drawn.samples.length} of ${whole(drawn.total)}`;
  about.textContent = `${place}. ${drawn.recipe} on ${drawn.data}. Drawn here from the seed, exactly as training draws them. ` +
    "Point at a view to find its place in the image and in the other views; press one to see what each of the others shares with it.";
  find("samples").replaceChildren(...drawn.samples.map((sample) => new Sample(sample, drawn).element));
}

/** Pictures that the run wrote: those of its first batch only where no views can be drawn. */
function pictures(run) {
  const list = run ? store.details.get(run.id)?.pictures ?? [] : [];
  const shown = list.filter(([name]) => drawn?.problem || !["views.png", "masks.png"].includes(name));
  keep(find("pictures"), JSON.stringify([run?.id, shown]), () => shown.map(([name, time]) => {
    const source = `/picture?${new URLSearchParams({ run: run.id, name, t: time })}`;
    return make("figure", {}, make("figcaption", {}, make("strong", {}, name)), make("img", { src: source, alt: `${name} of the run`, loading: "lazy" }));
  }));
}

// ------------------------------------------------------------------------------- one image's views

class Sample {
  constructor(sample, drawing) {
    this.views = sample.views ?? [];
    this.drawing = drawing;
    this.pinned = null;
    const name = make("h3", {}, [`sample ${sample.id}`, sample.label].filter(Boolean).join(" · "));
    const where = make("p", { class: "note" }, sample.where);
    if (sample.problem) {
      this.element = make("article", { class: "sample" }, make("div", {}, name, where),
        make("p", { class: "notice" }, `cannot be read: ${sample.problem}; in training, another image takes its place`));
      return;
    }
    this.original(sample);
    this.element = make("article", { class: "sample", "data-sample": sample.id },
      make("div", {}, make("div", { class: "original" }, this.svg), name, where), make("div", {}, this.groups(), masks(sample)));
  }

  original({ image, shape: [height, width], id }) {
    const corners = this.views.map((view) => view.box);
    const left = Math.min(0, ...corners.map((box) => box[0])), top = Math.min(0, ...corners.map((box) => box[1]));
    const right = Math.max(width, ...corners.map((box) => box[2])), bottom = Math.max(height, ...corners.map((box) => box[3]));
    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
    const bySize = this.views.map((view, i) => i).sort((a, b) => area(corners[b]) - area(corners[a]));
    this.boxes = [];
    for (const i of bySize) {
      const [x1, y1, x2, y2] = corners[i];
      this.boxes[i] = draw("rect", { class: `box k${this.views[i].group}${this.views[i].flip ? " flip" : ""}`, x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
      this.boxes[i].addEventListener("pointerenter", () => this.light(i));
      this.boxes[i].addEventListener("pointerleave", () => this.light(null));
    }
    this.points = draw("g");
    this.svg = draw("svg", { viewBox: `${left} ${top} ${right - left} ${bottom - top}`, role: "img", "aria-label": `sample ${id} with the boxes of its ${this.views.length} views` },
      draw("image", { href: image, x: 0, y: 0, width, height }), bySize.map((i) => this.boxes[i]), this.points);
    this.patch = Math.max(right - left, bottom - top) / 40;
  }

  groups() {
    this.tiles = [];
    return this.drawing.groups.map((group, g) => {
      const tiles = this.views.flatMap((view, i) => (view.group === g ? [this.tile(view, i, group)] : []));
      const [rows, columns] = this.views.find((view) => view.group === g)?.grid ?? [1, 1];
      const cells = rows * columns > 1 ? `${rows} × ${columns} cells of ` : "";
      return make("div", { class: `group k${g}` }, make("h3", {}, group.name, make("span", {}, ` ${tiles.length} × ${cells}${group.size} px`)), make("div", { class: "tiles" }, tiles));
    });
  }

  tile(view, i, group) {
    const [rows, columns] = view.grid, isGrid = rows * columns > 1;
    const over = draw("g");
    const svg = draw("svg", { viewBox: `0 0 ${columns} ${rows}` }, draw("image", { href: view.image, width: columns, height: rows, preserveAspectRatio: "none" }), over);
    const words = view.words.join(", ") || "plain";
    const button = make("button", {
      type: "button", class: `view k${view.group}${group.size * columns < 64 ? " small" : ""}`, "aria-pressed": "false", "aria-label": `${group.name} view ${i + 1}: ${words}`,
      style: { "--w": `${this.width(group, columns)}px` },
      onclick: () => this.pin(i), onfocus: () => this.light(i), onblur: () => this.light(null),
    }, svg, make("span", { class: "words" }, words));
    button.addEventListener("pointerenter", () => this.light(i));
    button.addEventListener("pointerleave", () => { this.light(null); this.mark(null); });
    if (!isGrid) {
      svg.addEventListener("pointermove", (event) => {
        const area = svg.getBoundingClientRect();
        this.mark(toSource(view, (event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height));
      });
    }
    this.tiles[i] = { button, over, isGrid, regions: [], marks: [] };
    return button;
  }

  /** Width of a tile on the page: smaller where there are more. */
  width({ size }, columns) {
    if (columns > 1) return Math.min(Math.max(size * columns, 128), 224);
    return size < 128 && this.views.length > 6 ? 84 : 116;
  }

  light(i) {
    this.svg.classList.toggle("dim", i !== null);
    this.boxes.forEach((box, j) => box.classList.toggle("on", i === j));
  }

  /** A patch at one place of the image, in the image and in every view that shows it. */
  mark(source) {
    const patch = (x, y, size) => [0, 1].map(() => draw("rect", { class: "point", x: x - size / 2, y: y - size / 2, width: size, height: size }));
    this.points.replaceChildren(...(source ? patch(...source, this.patch) : []));
    this.tiles.forEach((tile, i) => {
      const [u, v] = source && !tile.isGrid ? toView(this.views[i], ...source) : [-1, -1];
      tile.marks = u >= 0 && u <= 1 && v >= 0 && v <= 1 ? patch(u, v, 0.08) : [];
      this.cover(tile);
    });
  }

  /** Outline in the other views the region that each shares with view i; GTSA pools its cells. */
  pin(i) {
    this.pinned = this.pinned === i ? null : i;
    this.tiles.forEach((tile, j) => {
      tile.button.setAttribute("aria-pressed", String(this.pinned === j));
      const shared = this.pinned === null || this.pinned === j || tile.isGrid ? null : overlap(this.views[this.pinned].box, this.views[j].box);
      tile.regions = shared ? region(this.views[j], shared, this.drawing.bins[this.views[j].group] ?? 1) : [];
      this.cover(tile);
    });
  }

  cover(tile) {
    tile.over.replaceChildren(...tile.regions, ...tile.marks);
  }
}

function masks({ mask, unused, composite }) {
  if (mask === undefined) return null;
  const figure = (source, text) => make("figure", {}, source ? make("img", { src: source, alt: text }) : null, make("figcaption", {}, text));
  return make("div", { class: "masks" }, figure(mask, unused ? `mask, not used: ${unused}` : "mask"),
    composite ? figure(composite, "pasted on another background") : figure(null, "no view is pasted"));
}

// --------------------------------------------------------------------------------------- geometry
// A view is its box, flipped left to right where `flip` says so, then turned counter-clockwise.

function toView({ box: [x1, y1, x2, y2], flip, turns }, x, y) {
  let [u, v] = [(x - x1) / (x2 - x1), (y - y1) / (y2 - y1)];
  if (flip) u = 1 - u;
  for (let turn = 0; turn < turns; turn++) [u, v] = [v, 1 - u];
  return [u, v];
}

function toSource({ box: [x1, y1, x2, y2], flip, turns }, u, v) {
  for (let turn = 0; turn < turns; turn++) [u, v] = [1 - v, u];
  if (flip) u = 1 - u;
  return [x1 + u * (x2 - x1), y1 + v * (y2 - y1)];
}

function overlap(a, b) {
  const box = [Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])];
  return box[0] < box[2] && box[1] < box[3] ? box : null;
}

function region(view, [x1, y1, x2, y2], bins) {
  const [one, other] = [toView(view, x1, y1), toView(view, x2, y2)];
  const [left, top] = [Math.min(one[0], other[0]), Math.min(one[1], other[1])];
  const [wide, tall] = [Math.abs(one[0] - other[0]), Math.abs(one[1] - other[1])];
  const cuts = Array.from({ length: bins - 1 }, (_, i) => (i + 1) / bins);
  return [
    draw("rect", { class: "region", x: left, y: top, width: wide, height: tall }),
    ...cuts.flatMap((cut) => [
      draw("line", { class: "region cell", x1: left + cut * wide, x2: left + cut * wide, y1: top, y2: top + tall }),
      draw("line", { class: "region cell", x1: left, x2: left + wide, y1: top + cut * tall, y2: top + cut * tall }),
    ]),
  ];
}
