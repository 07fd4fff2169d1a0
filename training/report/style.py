"""CSS of the report: system fonts, light and dark schemes, narrow and wide screens."""

STYLE = """
:root {
  --page: #f7f7f5; --card: #ffffff; --ink: #20262b; --muted: #5d676f; --rule: #e3e5e3;
  --k0: #1f6f8b; --k1: #b8551f; --k2: #4f7d3a; --k3: #7a5299; --good: #2c6e49; --bad: #a12b2b;
}
@media (prefers-color-scheme: dark) { :root {
  --page: #14181b; --card: #1b2125; --ink: #e4e8ea; --muted: #9aa6ae; --rule: #2d353b;
  --k0: #5fb4d1; --k1: #e8935c; --k2: #8fc076; --k3: #b794d6; --good: #7cc79b; --bad: #ef8a8a;
} }
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 3rem 1.5rem 5rem; max-width: 72rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1, h2, h3, p, dl, dd, figure { margin: 0; }
h1 { font-size: 2.1rem; line-height: 1.2; font-weight: 650; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; font-weight: 620; letter-spacing: -.01em; }
h3 { font-size: 1rem; font-weight: 600; }
section { margin-top: 3rem; display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr); }
.eyebrow { color: var(--muted); font-size: .8rem; letter-spacing: .06em; margin-bottom: .35rem; }
.about, .note { color: var(--muted); overflow-wrap: anywhere; }
.note { font-size: .85rem; }
header .about { margin-top: .4rem; }
.badge {
  display: inline-block; vertical-align: middle; margin-left: .8rem; padding: .12rem .7rem;
  border: 1px solid currentColor; border-radius: 1rem; font-size: .8rem; font-weight: 500;
  letter-spacing: 0; color: var(--muted);
}
.badge.done { color: var(--good); } .badge.failed { color: var(--bad); }
.badge.running { color: var(--k0); } .badge.stopped { color: var(--k1); }
.cards { display: grid; gap: .8rem; margin-top: 2rem;
  grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); }
.card, .chart, .table, details { background: var(--card); border: 1px solid var(--rule);
  border-radius: .6rem; }
.card { padding: .85rem 1rem; min-width: 0; }
.card dt { color: var(--muted); font-size: .8rem; }
.card dd { font-size: 1.3rem; line-height: 1.3; font-weight: 600;
  font-variant-numeric: tabular-nums; letter-spacing: -.01em; overflow-wrap: anywhere; }
.card dd.long { font-size: 1.02rem; }
.card dd.note { font-size: .8rem; font-weight: 400; letter-spacing: 0; margin-top: .15rem; }
.grid { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
.chart { padding: .9rem 1rem .6rem; }
.chart svg { display: block; width: 100%; height: auto; margin-top: .5rem; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .2rem 1rem;
  font-size: .9rem; }
figcaption strong { font-weight: 600; }
.last, .key { color: var(--muted); font-variant-numeric: tabular-nums; }
.key { margin-left: 1rem; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: .9rem; height: 3px; margin-right: .4rem;
  border-radius: 2px; vertical-align: middle; background: var(--c); }
.k0 { --c: var(--k0); } .k1 { --c: var(--k1); } .k2 { --c: var(--k2); } .k3 { --c: var(--k3); }
svg text { fill: var(--muted); font: 11px system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
svg .rule { stroke: var(--rule); } svg .tick { stroke: var(--muted); }
svg line.level { stroke: var(--k1); stroke-dasharray: 5 4; stroke-width: 1.4; }
svg text.level { fill: var(--k1); }
svg polyline { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
svg polygon.band { fill: var(--c); opacity: .18; }
svg circle { fill: var(--c); stroke: var(--card); stroke-width: .8; }
/* Results are placed side by side if they fit. */
.row { display: flex; flex-wrap: wrap; gap: 1.2rem 2rem; align-items: flex-start; }
.row > * { max-width: 100%; display: grid; gap: .6rem; grid-template-columns: minmax(0, 1fr); }
.row .note { max-width: 34rem; }
.row > .chart { flex: 1 1 22rem; max-width: 34rem; display: block; }
.picture { display: flex; flex-direction: column-reverse; gap: .5rem; }
.picture img { max-width: 100%; height: auto; border: 1px solid var(--rule); border-radius: .6rem;
  background: #fff; align-self: flex-start; }
.picture figcaption { color: var(--muted); }
.table { overflow-x: auto; max-width: 100%; width: fit-content; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .8rem 1rem .3rem; font-weight: 600; }
th, td { padding: .45rem 1rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
thead th { color: var(--muted); font-weight: 500; border-bottom: 1px solid var(--rule); }
tbody th { font-weight: 500; }
tbody tr + tr > * { border-top: 1px solid var(--rule); }
details { padding: .7rem 1rem; }
details .table { border: 0; margin-top: .5rem; }
summary { cursor: pointer; font-size: .95rem; }
pre { overflow-x: auto; margin: .8rem 0 .2rem; font: .82rem/1.5 ui-monospace, Menlo, monospace; }
:focus-visible { outline: 2px solid var(--k0); outline-offset: 2px; }
@media (max-width: 36rem) {
  body { padding: 1.5rem 1rem 3rem; }
  .cards { grid-template-columns: 1fr 1fr; gap: .6rem; }
  svg text { font-size: 14px; }
}
@media print { body { padding: 0; max-width: none; } .chart, .card { break-inside: avoid; } }
"""
