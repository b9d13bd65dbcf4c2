"use strict";
// What a peer sent is only ever put into a page as text: there is no innerHTML here, and the page's
// Content-Security-Policy lets nothing else run, nor any text become markup.

const EVERY = 1000; // milliseconds between two looks
const KEPT = 120; // looks that are plotted
const RECENT = 10; // looks whose latency is told
const SILENT = 2500; // milliseconds without an answer before it is said
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

const looks = []; // the last ones: when, the figures, and what happened since the one before
let chosen = null; // the op that is plotted, null for all
let paused = false;

// ---- figures

// As `bucket_start` in fastcore/server/figures.py.
function bucketStart(bucket) {
  const octave = Math.max(0, (bucket >> 3) - 1);
  return (bucket - octave * 8) * 2 ** octave;
}

function quantile(buckets, part) {
  const sorted = Object.entries(buckets).map(([b, n]) => [Number(b), n]).sort((a, b) => a[0] - b[0]);
  let left = part * sorted.reduce((sum, [, n]) => sum + n, 0);
  for (const [bucket, count] of sorted) {
    left -= count;
    if (count > 0 && left <= 0) return (bucketStart(bucket) + bucketStart(bucket + 1)) / 2e9;
  }
  return null;
}

// The calls of an op, or of all, between two looks: by bucket. Where a process was replaced its
// figures begin anew, so none is taken for less than nothing.
function callsBetween(before, after, op) {
  const between = {};
  for (const [name, figures] of Object.entries(after.stats.ops)) {
    if (op !== null && name !== op) continue;
    const old = Object.hasOwn(before.stats.ops, name) ? before.stats.ops[name].buckets : {};
    for (const [bucket, count] of Object.entries(figures.buckets)) {
      const more = count - (old[bucket] ?? 0);
      if (more > 0) between[bucket] = (between[bucket] ?? 0) + more;
    }
  }
  return between;
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
const perSecond = (before, after, op) =>
  sum(callsBetween(before, after, op)) / Math.max(0.001, (after.at - before.at) / 1000);

// ---- words

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toPrecision(3)} ms`;
  if (seconds < 100) return `${seconds.toPrecision(3)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${unit ? count.toPrecision(3) : count} ${units[unit]}`;
}

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });

// ---- the page

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function row(cells) {
  const made = element("tr");
  for (const cell of cells) {
    if (cell instanceof Node) { const td = element("td"); td.append(cell); made.append(td); }
    else made.append(element("td", String(cell)));
  }
  return made;
}

function fill(id, rows, columns) {
  if (rows.length === 0) {
    const cell = element("td", "none", "empty");
    cell.colSpan = columns;
    const only = element("tr");
    only.append(cell);
    rows = [only];
  }
  // A click that began on what is taken out before its end is lost, and so is what was selected.
  const there = $(id).children;
  if (rows.length !== there.length || rows.some((each, place) => each !== there[place])) $(id).replaceChildren(...rows);
}

function tile(name, value) {
  const made = element("div", undefined, "tile");
  made.append(element("b", value), element("span", name));
  return made;
}

// Lines over time, each a list of [class, values]; gaps where there is nothing to tell.
function plot(name, lines, label) {
  const top = Math.max(1e-9, ...lines.flatMap(([, values]) => values.filter((v) => v !== null)));
  const parts = [];
  const base = document.createElementNS(SVG, "line");
  for (const [name, value] of Object.entries({ x1: 0, x2: 400, y1: 110, y2: 110 })) base.setAttribute(name, value);
  parts.push(base);
  for (const [className, values] of lines) {
    const points = [];
    values.forEach((value, place) => {
      const x = 400 * (1 - (values.length - 1 - place) / (KEPT - 1));
      if (value !== null) points.push(`${x.toFixed(1)},${(110 - 96 * value / top).toFixed(1)}`);
    });
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", points.join(" "));
    line.setAttribute("class", className);
    parts.push(line);
  }
  $(`${name}-plot`).replaceChildren(...parts);
  $(`${name}-top`).textContent = label(top);
}

function show() {
  const now = looks.at(-1);
  const stats = now.stats;
  document.title = `${stats.type ?? "fastcore"}: ${stats.health}`;
  $("type").textContent = stats.type ?? "fastcore";
  $("health").textContent = stats.health;
  $("health").className = `pill ${stats.health}`;
  if (!stats.ops) return;
  $("since").textContent = `up ${duration(stats.uptime)}`;
  const before = looks[Math.max(0, looks.length - 2)];
  const errors = sum(stats.errors);
  $("tiles").replaceChildren(
    tile("connections", number(stats.connections.open)),
    tile("calls per second", number(perSecond(before, now, null))),
    tile("running", number(stats.running)),
    tile("in buffers", bytes(stats.buffers)),
    tile("errors", number(errors)),
  );

  const rates = looks.map((look, place) => (place ? perSecond(looks[place - 1], look, chosen) : null));
  const part = (share) => looks.map((look, place) =>
    place ? quantile(callsBetween(looks[Math.max(0, place - RECENT)], look, chosen), share) : null);
  const p50 = part(0.5);
  const p99 = part(0.99);
  $("chosen").textContent = chosen ?? "all ops";
  $("calls-now").textContent = rates.at(-1) === null ? "" : number(rates.at(-1));
  $("p50-now").textContent = duration(p50.at(-1));
  $("p99-now").textContent = duration(p99.at(-1));
  plot("calls", [["calls", rates]], number);
  plot("latency", [["p50", p50], ["p99", p99]], duration);
  showOps(before, now);
  showRest(stats);
}

const opRows = new Map(); // by op: they stay, and change what they say

function opRow(name) {
  if (!opRows.has(name)) {
    const button = element("button", name);
    button.type = "button";
    button.addEventListener("click", () => { chosen = name === chosen ? null : name; show(); });
    opRows.set(name, row([button, "", "", "", "", ""]));
  }
  return opRows.get(name);
}

function showOps(before, now) {
  const since = looks[Math.max(0, looks.length - 1 - RECENT)];
  const focused = document.activeElement;
  const rows = Object.entries(now.stats.ops).sort(([a], [b]) => a.localeCompare(b)).map(([name, figures]) => {
    const recent = callsBetween(since, now, name);
    const ever = figures.count ? figures : {};
    const p50 = quantile(recent, 0.5) ?? ever.p50;
    const p99 = quantile(recent, 0.99) ?? ever.p99;
    const made = opRow(name);
    const [first, ...cells] = made.children;
    first.firstChild.setAttribute("aria-pressed", String(name === chosen));
    const words = [number(perSecond(before, now, name)), number(figures.count), duration(p50), duration(p99), number(figures.errors)];
    cells.forEach((cell, place) => { cell.textContent = words[place]; });
    cells.at(-1).className = figures.errors ? "bad" : "";
    return made;
  });
  fill("ops", rows, 6);
  // A new op has had them put in anew.
  if (focused !== document.activeElement) focused?.focus();
}

function showRest(stats) {
  fill("running", stats.calls.map((call) => row([call.op, duration(call.seconds), call.peer])), 3);
  const kinds = Object.entries(stats.errors).map(([kind, count]) => element("li", `${kind}: ${number(count)}`));
  $("errors").replaceChildren(...(kinds.length ? kinds : [element("li", "none", "empty")]));
  const lines = stats.warnings.toReversed().map((line) => {
    const made = element("li");
    made.append(element("time", new Date(line.time * 1000).toLocaleTimeString()), document.createTextNode(line.text));
    return made;
  });
  $("warnings").replaceChildren(...(lines.length ? lines : [element("li", "none", "empty")]));
  $("workers-section").hidden = !stats.workers;
  fill("workers", Object.entries(stats.workers ?? {}).map(([name, worker]) => {
    const silent = worker.silent > 0;
    const health = silent ? `no answer for ${duration(worker.silent)}` : worker.health;
    return row([name, worker.pid, element("span", health, silent ? "silent" : worker.health),
      duration(worker.uptime), number(worker.connections.open), number(worker.running), bytes(worker.buffers)]);
  }), 7);
}

// ---- looking, again and again

function say(silence) {
  $("silence").textContent = silence;
  $("silence").hidden = !silence;
}

async function look() {
  const asked = performance.now();
  const clock = setInterval(() => {
    const waited = performance.now() - asked;
    if (waited > SILENT) say(`No answer for ${duration(waited / 1000)}: the server is blocked, or gone.`);
  }, 500);
  try {
    const answer = await fetch("stats", { cache: "no-store" });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const stats = await answer.json();
    const at = performance.now();
    looks.push({ at, stats });
    if (looks.length > KEPT) looks.shift();
    const waited = at - asked;
    if (waited > SILENT / 2.5) {
      say(`The server gave no answer for ${duration(waited / 1000)}, until ${new Date().toLocaleTimeString()}: something blocked it; the warnings below may say what.`);
    } else if (!$("silence").textContent.startsWith("The server gave")) say("");
    show();
  } catch (error) {
    say(`No answer (${error.message}); it is tried again.`);
    $("health").textContent = "no answer";
    $("health").className = "pill silent";
  } finally {
    clearInterval(clock);
  }
}

async function goOn() {
  if (!paused && !document.hidden) await look();
  setTimeout(goOn, EVERY);
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
});
goOn();
