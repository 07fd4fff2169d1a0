// Elements, number formats and labels. Text from runs is only set through textContent.

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

/** An element: `make("p", {class: "note"}, "text", other)`; null children are skipped. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replace children only if `key` is another than last time, so that focus and hover stay. */
export function keep(element, key, build) {
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...[build()].flat().filter(Boolean));
}

// ---------------------------------------------------------------------------------------- formats

const NOTHING = "–";
export const known = (value) => typeof value === "number" && Number.isFinite(value);

export function number(value, digits = 4) {
  if (!known(value)) return NOTHING;
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace("e+", "e").replace("-", "−");
  return value.toLocaleString("en", { maximumSignificantDigits: Math.max(digits, size >= 1 ? Math.floor(Math.log10(size)) + 1 : 1) }).replace("-", "−");
}

export const whole = (value) => (known(value) ? Math.round(value).toLocaleString("en") : NOTHING);
export const percent = (value, digits = 1) => (known(value) ? `${(100 * value).toFixed(digits)}%` : NOTHING);

export function duration(seconds) {
  if (!known(seconds)) return NOTHING;
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  const hours = Math.round(s / 3600);
  return hours < 48 ? `${hours} h` : `${Math.round(s / 86400)} days`;
}

const NAMES = { lr: "learning rate", knn: "kNN", images_per_s: "images/s", grad_norm: "gradient norm", memory_gb: "GPU memory, GB", wait: "waiting for data", linear_online: "online linear classifier" };

export function label(name) {
  return NAMES[name] ?? name.replaceAll("_", " ").replace("knn", "kNN").replace("rankme", "RankMe");
}

export function title(name) {
  const text = label(name);
  return /^k[A-Z]/.test(text) ? text : text[0].toUpperCase() + text.slice(1);
}

export const isAccuracy = (name) =>
  ["knn", "linear", "accuracy", "top", "wait", "turned"].some((start) => name.split("_").some((part) => part.startsWith(start)));
