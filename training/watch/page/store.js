// The data received from the server so far, and the connection.

export const store = {
  folder: "",
  many: false,
  runs: [], // lines of the table
  seen: new Map(), // the last line of every run, of those that are gone too
  details: new Map(), // by run: settings, evaluations, pictures, ledger
  loaders: new Map(), // by run: figures of its loader, as loader.stats() has them
  logs: new Map(), // by run: {stride, rows, columns: {name: {mean, low, high}}}
  subject: null, // data and recipe, where there are no runs
  selected: [],
  focus: null, // the selected run whose state, views and ledger are shown; by default the first
  skew: 0, // seconds that the server's clock is ahead
};

let source = null, changed = () => {}, said = () => {};

/** Call `onChange()` after every event, and `onState("live" | "lost" | "refused")` as the connection goes. */
export function listen(onChange, onState) {
  [changed, said] = [onChange, onState];
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : connect()));
  connect();
}

export function select(names) {
  store.selected = names;
  connect();
}

function close() {
  source?.close();
  source = null;
}

/** Open the stream for the selected runs; everything is sent again. */
function connect() {
  close();
  if (document.hidden) return;
  const query = new URLSearchParams(store.selected.map((name) => ["run", name]));
  source = new EventSource(`/events?${query}`);
  source.onopen = () => said("live");
  source.onerror = () => {
    said("lost");
    if (source?.readyState === EventSource.CLOSED) { // refused, as by a server started anew
      said("refused");
      close();
      setTimeout(() => source || connect(), 3000);
    }
  };
  const on = (kind, take) => source.addEventListener(kind, (event) => {
    take(JSON.parse(event.data));
    changed();
  });
  on("runs", (table) => {
    [store.folder, store.many, store.runs] = [table.folder, table.many, table.runs];
    for (const run of table.runs) store.seen.set(run.id, run);
  });
  on("run", (details) => store.details.set(details.id, details));
  on("loader", ({ id, loader }) => store.loaders.set(id, loader));
  on("log", takeLog);
  on("subject", (subject) => (store.subject = subject));
  on("tick", ({ now }) => (store.skew = now - Date.now() / 1000));
}

/** Put new buckets in the place of those from `from` on. */
function takeLog(news) {
  const before = store.logs.get(news.id);
  const columns = {};
  for (const [name, parts] of Object.entries(news.columns)) {
    columns[name] = {};
    for (const [part, values] of Object.entries(parts)) {
      const old = news.from ? before?.columns[name]?.[part] ?? [] : [];
      columns[name][part] = old.slice(0, news.from).concat(values);
    }
  }
  store.logs.set(news.id, { stride: news.stride, rows: news.rows, columns });
}

/** Seconds since a moment of the server's clock. */
export const ago = (time) => Date.now() / 1000 + store.skew - time;

const SILENT = 1800; // seconds without a heartbeat, after which a run has probably died

export function stateOf(run) {
  if (run.state === "running" && run.time && ago(run.time) > SILENT) return "silent";
  return run.state ?? "no status";
}
