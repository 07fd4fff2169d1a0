// Axes with ticks at round numbers, as in the report.

const TICKS = 5;

/** `{low, high, ticks, at}`; `at(value)` is 0 at the low end and 1 at the high one. */
export function linear(low, high, { zero = false, tight = false, percent = false } = {}) {
  if (zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high), 1e-300)) {
    const room = Math.abs(high) / 2 || 1;
    [low, high] = [zero || tight ? low : low - room, high + room];
  }
  const step = roundStep(high - low);
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  let marks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  if (tight) marks = marks.filter((mark) => mark >= low - 1e-9 * step && mark <= high + 1e-9 * step);
  else [low, high] = [marks[0], marks[marks.length - 1]];
  const ticks = marks.map((mark) => [mark, tickLabel(mark, step, percent)]);
  return { low, high, ticks, at: (value) => (value - low) / (high - low) };
}

/** Logarithmic axis around positive values. */
export function logarithmic(low, high) {
  if (high <= low * 1.02) [low, high] = [low / 2, high * 2];
  const decades = Math.log10(high / low);
  const factors = decades > 3 ? [1] : decades > 1.2 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  const ticks = [];
  const skip = Math.max(1, Math.ceil(decades / 7));
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += skip) {
    for (const factor of factors) {
      const mark = factor * 10 ** power;
      if (mark >= low * 0.999 && mark <= high * 1.001) ticks.push([mark, shortNumber(mark)]);
    }
  }
  const from = Math.log(low), span = Math.log(high) - from;
  return { low, high, ticks, at: (value) => (Math.log(value) - from) / span };
}

function roundStep(span) {
  const rough = span / TICKS, power = 10 ** Math.floor(Math.log10(rough));
  const distance = (factor) => Math.abs(Math.log((factor * power) / rough));
  return power * [1, 2, 5, 10].reduce((best, factor) => (distance(factor) < distance(best) ? factor : best));
}

function tickLabel(value, step, percent) {
  if (percent) [value, step] = [100 * value, 100 * step];
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  let text;
  if (Math.abs(value) < step / 2) text = "0";
  else if (decimals > 4 || Math.abs(value) >= 1e6) text = shortNumber(value);
  else text = value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return text.replace("-", "−") + (percent ? "%" : "");
}

function shortNumber(value) {
  if (Math.abs(value) >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  return Math.abs(value) < 1e-3 ? value.toExponential(0) : `${+value.toPrecision(3)}`;
}
