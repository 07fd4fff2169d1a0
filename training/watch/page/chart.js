// Line charts in SVG: any number of lines, smoothing, a logarithmic axis, and a cursor that all
// charts of the page share.

import { linear, logarithmic } from "./axis.js";
import { draw, make, known, number, percent as asPercent } from "./dom.js";

const LEFT = 50, RIGHT = 10, TOP = 10, BOTTOM = 24;
const charts = new Set();
let cursor = null; // a value of x, or null

export const view = { smooth: 0, log: false, x: "step" };

/** A figure: `new Chart("Loss", {zero, percent})`, then `show(lines)`.
 *
 * A line is `{name, colour, dashed, x, y, low, high}`; y may hold nulls, low and high are optional.
 */
export class Chart {
  constructor(title, options = {}) {
    this.title = title;
    this.options = options;
    this.lines = [];
    this.values = make("span", { class: "values" });
    this.svg = draw("svg", { role: "img", tabindex: 0 });
    this.figure = make("figure", { class: "chart", "data-chart": title },
      make("figcaption", {}, make("strong", {}, title), this.values), this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => moveCursor(null));
    this.svg.addEventListener("blur", () => moveCursor(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.render()).observe(this.svg);
    charts.add(this);
  }

  remove() {
    charts.delete(this);
    this.figure.remove();
  }

  show(lines) {
    this.lines = lines.map((line) => ({ ...line, smooth: smoothed(line.y, view.smooth) }));
    this.render();
  }

  form(value) {
    return this.options.percent ? asPercent(value) : number(value);
  }

  render() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (!width || !height) return;
    this.width = width;
    this.height = height;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const axes = this.axes();
    if (!axes) {
      this.svg.replaceChildren(draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing yet"));
      this.svg.setAttribute("aria-label", `${this.title}: nothing yet`);
      this.values.replaceChildren();
      return;
    }
    [this.x, this.y] = axes;
    this.svg.replaceChildren(...this.grid(), ...this.lines.flatMap((line) => this.line(line)), (this.mark = draw("g")));
    this.svg.setAttribute("aria-label", this.description());
    this.readout();
  }

  axes() {
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    const see = (value) => {
      if (value !== null) [low, high] = [Math.min(low, value), Math.max(high, value)];
    };
    for (const line of this.lines) {
      line.y.forEach((value, i) => {
        if (value === null || line.x[i] === null) return;
        [left, right] = [Math.min(left, line.x[i]), Math.max(right, line.x[i])];
        see(value);
        if (line.low && !view.smooth) { see(line.low[i]); see(line.high[i]); }
      });
    }
    if (left === Infinity) return null;
    this.isLog = view.log && low > 0 && !this.options.percent;
    const x = linear(Math.min(left, 0), right, { tight: true });
    return [x, this.isLog ? logarithmic(low, high) : linear(low, high, this.options)];
  }

  px(value) { return LEFT + this.x.at(value) * (this.width - LEFT - RIGHT); }
  py(value) { return this.height - BOTTOM - this.y.at(value) * (this.height - TOP - BOTTOM); }

  grid() {
    const right = this.width - RIGHT, bottom = this.height - BOTTOM;
    const parts = [];
    for (const [value, text] of this.y.ticks) {
      const y = this.py(value);
      parts.push(draw("line", { class: "rule", x1: LEFT, x2: right, y1: y, y2: y }));
      parts.push(draw("text", { x: LEFT - 7, y: y + 4, "text-anchor": "end" }, text));
    }
    const ticks = this.x.ticks.filter((_, i) => this.width > 260 || i % 2 === 0);
    for (const [value, text] of ticks) {
      const x = this.px(value);
      parts.push(draw("line", { class: "tick", x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
      parts.push(draw("text", { x: Math.min(x, right - 4), y: bottom + 17, "text-anchor": "middle" }, text));
    }
    return parts;
  }

  line(line) {
    const kind = `k${line.colour % 8}`, parts = [];
    if (line.low && !view.smooth) {
      const at = line.x.map((x, i) => i).filter((i) => line.low[i] !== null && line.x[i] !== null);
      const edge = at.map((i) => `${this.spot(line.x[i], line.high[i])}`);
      const back = at.reverse().map((i) => `${this.spot(line.x[i], line.low[i])}`);
      if (edge.length) parts.push(draw("path", { class: `band ${kind}`, d: `M${[...edge, ...back].join("L")}Z` }));
    }
    if (view.smooth) parts.push(draw("path", { class: `raw ${kind}`, d: this.path(line.x, line.y) }));
    parts.push(draw("path", { class: `curve ${kind}${line.dashed ? " dashed" : ""}`, d: this.path(line.x, line.smooth) }));
    if (line.x.length <= 24) {
      line.smooth.forEach((value, i) => {
        if (value !== null) parts.push(draw("circle", { class: kind, cx: this.px(line.x[i]), cy: this.py(value), r: 2.4 }));
      });
    }
    return parts;
  }

  spot(x, y) { return `${this.px(x).toFixed(1)},${this.py(y).toFixed(1)}`; }

  /** Path through all points, with a gap where a value is missing. */
  path(xs, ys) {
    let d = "", pen = "M";
    ys.forEach((y, i) => {
      if (y === null || xs[i] === null) { pen = "M"; return; }
      d += pen + this.spot(xs[i], y);
      pen = "L";
    });
    return d;
  }

  // ------------------------------------------------------------------------------------- cursor

  point(event) {
    if (!this.x) return;
    const share = (event.clientX - this.svg.getBoundingClientRect().left - LEFT) / (this.width - LEFT - RIGHT);
    moveCursor(this.x.low + Math.min(Math.max(share, 0), 1) * (this.x.high - this.x.low));
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    const xs = this.lines[0]?.x ?? [];
    if (event.key === "Escape") moveCursor(null);
    if (!xs.length || !(step || event.key === "Home" || event.key === "End")) return;
    event.preventDefault();
    let at = cursor === null ? xs.length - 1 : nearest(xs, cursor) + (step ?? 0);
    if (event.key === "Home") at = 0;
    if (event.key === "End") at = xs.length - 1;
    moveCursor(xs[Math.min(Math.max(at, 0), xs.length - 1)]);
  }

  /** Values at the cursor, or the last ones. */
  readout() {
    this.mark.replaceChildren();
    const many = this.lines.length > 1;
    const parts = [];
    for (const line of this.lines) {
      const at = cursor === null ? lastKnown(line.smooth) : nearest(line.x, cursor);
      const value = line.smooth[at] ?? null;
      const name = many ? make("span", { class: `key k${line.colour % 8}` }, `${line.name} `) : "";
      parts.push(make("span", {}, name, make("b", {}, this.form(value))));
      if (cursor === null || value === null) continue;
      this.mark.append(draw("circle", { class: `k${line.colour % 8}`, cx: this.px(line.x[at]), cy: this.py(value), r: 4 }));
    }
    const inside = cursor !== null && cursor >= this.x.low && cursor <= this.x.high;
    if (inside) {
      const x = this.px(cursor);
      this.mark.prepend(draw("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM }));
      parts.unshift(make("span", {}, `${view.x} ${number(cursor, view.x === "step" ? 6 : 4)}`));
    }
    this.values.replaceChildren(...parts);
    if (document.activeElement === this.svg) this.values.setAttribute("aria-live", "polite");
    else this.values.removeAttribute("aria-live");
  }

  description() {
    const of = (line) => {
      const ys = line.y.filter(known);
      if (!ys.length) return `${line.name}: nothing yet.`;
      return `${line.name}: ${this.form(ys[0])} at first, ${this.form(ys[ys.length - 1])} at last, between ` +
        `${this.form(Math.min(...ys))} and ${this.form(Math.max(...ys))}.`;
    };
    return `${this.title}${this.isLog ? ", logarithmic" : ""}. ${this.lines.map(of).join(" ")} Arrow keys read values.`;
  }
}

function moveCursor(value) {
  if (value === cursor) return;
  cursor = value;
  for (const chart of charts) if (chart.x && chart.mark) chart.readout();
}

/** Exponential moving average without the pull of its start; gaps stay gaps. */
export function smoothed(ys, weight) {
  if (!weight) return ys;
  let mean = 0, mass = 0;
  return ys.map((y) => {
    if (y === null) return null;
    mean = weight * mean + (1 - weight) * y;
    mass = weight * mass + (1 - weight);
    return mean / mass;
  });
}

function lastKnown(ys) {
  for (let i = ys.length - 1; i >= 0; i--) if (ys[i] !== null) return i;
  return 0;
}

/** Index of the value of an ascending list that is nearest to x. */
function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((xs[middle] ?? -Infinity) < x) low = middle;
    else high = middle;
  }
  return Math.abs((xs[low] ?? Infinity) - x) <= Math.abs((xs[high] ?? Infinity) - x) ? low : high;
}
