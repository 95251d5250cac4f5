// The report's page: filters, sorting, charts, exports. All numbers were computed beforehand.
"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const measure = Object.fromEntries(page.measures.map((m) => [m.key, m]));
const COLOURS = ["#3b6fb6", "#e08a3c", "#4f9d69", "#c0504d", "#8064a2", "#17a2b8", "#b5895b",
  "#d667a5", "#7f8790", "#a2ad2f"];
const SYMBOLS = ["circle", "square", "diamond", "cross", "triangle-up", "star", "x"];
const DASHES = ["solid", "dot", "dash", "dashdot", "longdash"];
const MOST_LINES = 10;
const ALL = "";

// ---- what is shown: kept in the address, so that a link or a reload shows the same -------------
const initial = { stream: ALL, strategy: ALL, curriculum: page.together ? "together" : ALL,
  sort: "average_accuracy", down: "1", row: "", matrix: "accuracy", tuned: "0", ...page.axes };
const state = { ...initial };
const lists = [...document.querySelectorAll("select[data-state]")];

// What the address says, as far as this page has it.
for (const [key, given] of new URLSearchParams(location.hash.slice(1))) {
  const list = lists.find((select) => select.dataset.state === key);
  const known = list ? [...list.options].some((option) => option.value === given)
    : key === "sort" ? given in measure : key in initial;
  if (known) state[key] = given;
}

function change(update) {
  Object.assign(state, update);
  history.replaceState(null, "", "#" + new URLSearchParams(state));
  render();
}

function isVisible(row) {
  const { stream, strategy, curriculum } = state;
  if (stream !== ALL && row.stream !== stream) return false;
  if (strategy !== ALL && row.strategy !== strategy) return false;
  if (curriculum === "together") return row.together;
  return !row.together && (curriculum === ALL || row.curriculum === curriculum);
}

// A row by what it is: its place changes while a sweep runs.
const rowKey = (row) => [row.stream, row.method, row.curriculum, row.together].join("|");
const value = (row, key) => (row.values[key] ? row.values[key][0] : null);

function visibleRows() {
  const sign = state.down === "1" ? -1 : 1;
  const worth = (row) => sign * (value(row, state.sort) ?? sign * Infinity); // without: the last
  return page.rows.filter(isVisible).sort((a, b) => worth(a) - worth(b) || a.id - b.id);
}

function chosenRow(rows) {
  return rows.find((row) => rowKey(row) === state.row) ?? rows[0];
}

// ---- the leaderboard: its rows come with the page, and are hidden and sorted here ---------------
function drawTable(rows, chosen) {
  const body = byId("leaderboard").tBodies[0];
  const shown = new Set(rows.map((row) => row.id));
  for (const tr of body.rows) {
    tr.hidden = !shown.has(Number(tr.dataset.row));
    tr.classList.toggle("chosen", chosen !== undefined && Number(tr.dataset.row) === chosen.id);
  }
  body.append(...rows.map((row) => byId(`row-${row.id}`)));
  byId("count").textContent = `${rows.length} of ${page.rows.filter(sameLevel).length} rows`;
  for (const th of byId("leaderboard").tHead.querySelectorAll("th[data-key]")) {
    const direction = state.down === "1" ? "descending" : "ascending";
    th.setAttribute("aria-sort", th.dataset.key === state.sort ? direction : "none");
  }
}

const sameLevel = (row) => row.together === (state.curriculum === "together");

// ---- charts --------------------------------------------------------------------------------------
function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layout(more) {
  const axis = { gridcolor: ink("--line"), zerolinecolor: ink("--line"), linecolor: ink("--line"),
    automargin: true };
  const base = { paper_bgcolor: ink("--page"), plot_bgcolor: ink("--page"),
    font: { color: ink("--ink"), family: "system-ui, sans-serif", size: 12 },
    margin: { l: 50, r: 15, t: 10, b: 45 }, hovermode: "closest", showlegend: true,
    legend: { orientation: "h", y: 1.03, yanchor: "bottom", x: 0, font: { size: 11 } } };
  const merged = { ...base, ...more };
  for (const key of Object.keys(merged)) {
    if (/^[xy]axis/.test(key)) merged[key] = { ...axis, ...merged[key] };
  }
  return merged;
}

const methods = [...new Set(page.rows.map((row) => row.method))];
const streams = [...new Set(page.rows.map((row) => row.stream))];
const colour = (row) => COLOURS[methods.indexOf(row.method) % COLOURS.length];
const name = (row) => [row.method, row.curriculum].filter(Boolean).join(", ");
const curricula = [...new Set(page.rows.map((row) => row.curriculum))];
const dash = (row) => DASHES[curricula.indexOf(row.curriculum) % DASHES.length];
const symbol = (row) => SYMBOLS[streams.indexOf(row.stream) % SYMBOLS.length];
const faint = (hex) => hex + "2e";
const title = (key) => [measure[key].name, measure[key].unit].filter(Boolean).join(" in ");
const literal = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;"); // no markup

// The height in rem of a legend above a chart, whose columns are as wide as the longest name: with
// it the chart grows, so that the figure keeps its own.
function legendHeight(id, names) {
  const widest = 50 + 6.2 * Math.max(...[...names].map((text) => text.length), 1);
  const across = Math.max(1, Math.floor((byId(id).clientWidth - 65) / widest));
  return (19 * Math.ceil(names.size / across)) / 16;
}

const tick = (most) => [1, 5, 10, 50, 100, 500].find((step) => most / step <= 15) ?? 1000;

function curves(rows) {
  const panels = streams.filter((s) => rows.some((row) => row.stream === s && row.curve.length));
  const across = byId("curves").clientWidth < 600 ? 1 : Math.min(panels.length, 2);
  const down = Math.ceil(panels.length / across) || 1;
  const height = Math.max(20, 18 * down), rem = 1 / height; // of the figure, and a part of it
  const traces = [], table = [["stream", "row", "experiences", "accuracy", "low", "high"]];
  const more = { annotations: [] };
  const named = new Set();
  panels.forEach((stream, panel) => {
    const n = panel === 0 ? "" : panel + 1;
    const left = panel % across / across, bottom = 1 - (Math.floor(panel / across) + 1) / down;
    more[`xaxis${n}`] = { domain: [left + (left ? 0.06 : 0), left + 1 / across - 0.01],
      anchor: `y${n}`, title: { text: "experiences learned" }, dtick: tick(page.most) };
    more[`yaxis${n}`] = { domain: [bottom + (bottom > 0.01 ? 4.5 * rem : 0),
      bottom + 1 / down - (panels.length > 1 ? 1.8 * rem : 0)],
      anchor: `x${n}`, title: { text: left ? "" : "accuracy so far in %" } };
    if (panels.length > 1) {
      more.annotations.push({ text: literal(stream), showarrow: false, xref: `x${n} domain`, x: 0.5,
        yref: `y${n} domain`, y: 1, yanchor: "bottom", font: { size: 12 } });
    }
    const lines = rows.filter((row) => row.stream === stream && row.curve.length);
    for (const row of lines.slice(0, MOST_LINES)) {
      const x = row.steps;
      const axes = { xaxis: `x${n}`, yaxis: `y${n}`, legendgroup: name(row) };
      if (row.curve.every((point) => point[1] !== null)) {
        traces.push({ ...axes, x: [...x, ...x.slice().reverse()], hoverinfo: "skip", mode: "lines",
          y: [...row.curve.map((p) => p[2]), ...row.curve.map((p) => p[1]).reverse()],
          fill: "toself", fillcolor: faint(colour(row)), line: { width: 0 }, showlegend: false });
      }
      traces.push({ ...axes, x, y: row.curve.map((p) => p[0]), mode: "lines+markers",
        name: literal(name(row)), showlegend: !named.has(name(row)), line: { color: colour(row), width: 2,
          dash: dash(row) },
        marker: { size: 5 }, hovertemplate: "%{y:.1f} % after %{x}<extra>%{fullData.name}</extra>" });
      named.add(name(row));
    }
    for (const row of lines) {
      row.curve.forEach((p, i) => table.push([stream, name(row), row.steps[i], ...p]));
    }
  });
  byId("curves").style.height = `${height + 4 + legendHeight("curves", named)}rem`;
  return [traces, layout(more), table];
}

function scatter(rows, xKey, yKey, front) {
  const table = [["stream", "row", title(xKey), "low", "high", title(yKey), "low", "high"]];
  const traces = [];
  const points = rows.filter((row) => row.values[xKey] && row.values[yKey]);
  for (const row of points) {
    table.push([row.stream, name(row), ...row.values[xKey], ...row.values[yKey]]);
  }
  const groups = new Map();
  for (const row of points) {
    const key = `${row.method}|${row.stream}`;
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  const reach = (group, key, i) => group.map((row) => (row.values[key][i] === null ? 0
    : Math.abs(row.values[key][i] - row.values[key][0])));
  const bar = (group, key) => ({ type: "data", symmetric: false, array: reach(group, key, 2),
    arrayminus: reach(group, key, 1), thickness: 1, width: 0, visible: points.length <= 60 });
  for (const group of groups.values()) {
    const label = literal(group[0].method);
    const first = !traces.some((trace) => trace.name === label);
    traces.push({ x: group.map((row) => value(row, xKey)), y: group.map((row) => value(row, yKey)),
      error_x: bar(group, xKey), error_y: bar(group, yKey), mode: "markers",
      name: label, legendgroup: label, showlegend: first,
      text: group.map((row) => `${literal(name(row))}<br>${literal(row.stream)}`),
      marker: { color: colour(group[0]), size: 8, symbol: symbol(group[0]) },
      hovertemplate: "%{x:.2f}, %{y:.2f}<extra>%{text}</extra>" });
  }
  if (streams.length > 1) {
    for (const row of new Map(points.map((row) => [row.stream, row])).values()) {
      traces.push({ x: [null], y: [null], mode: "markers", name: literal(row.stream),
        marker: { color: ink("--soft"), size: 8, symbol: symbol(row) } });
    }
  }
  if (front && measure[xKey].sign && measure[yKey].sign) {
    traces.push(...streams.map((stream) =>
      pareto(points.filter((row) => row.stream === stream), xKey, yKey)));
  }
  const log = front && spread(points.map((row) => value(row, xKey))) > 30;
  return [traces, layout({ xaxis: { title: { text: title(xKey) }, 
    type: log ? "log" : "linear", nticks: log ? 5 : 8 },
    yaxis: { title: { text: title(yKey) } } }), table];
}

function spread(values) {
  const least = Math.min(...values);
  return least > 0 ? Math.max(...values) / least : 1;
}

// The points that no other is better than in both.
function pareto(points, xKey, yKey) {
  const x = (row) => measure[xKey].sign * value(row, xKey);
  const y = (row) => measure[yKey].sign * value(row, yKey);
  const best = [];
  for (const row of points.slice().sort((a, b) => x(b) - x(a) || y(b) - y(a))) {
    if (!best.length || y(row) > y(best[best.length - 1])) best.push(row);
  }
  return { x: best.map((row) => value(row, xKey)), y: best.map((row) => value(row, yKey)),
    mode: "lines", line: { color: ink("--soft"), dash: "dot", shape: "hv", width: 1 },
    hoverinfo: "skip", showlegend: false };
}

function mean(matrices) {
  return matrices[0].map((row, i) => row.map((_, j) => {
    const found = matrices.map((m) => m[i][j]).filter((v) => v !== null);
    return found.length ? found.reduce((a, b) => a + b, 0) / found.length : null;
  }));
}

// The columns that are held out stand behind a gap.
function heatMap(matrices, names, what, most, { taught, after, unseen, held_out: held = 0 }) {
  const same = matrices.filter((m) => m.length === matrices[0].length);
  const values = mean(same);
  const columns = values[0].map((_, j) => (names ? literal(names[j]) : `${j + 1}`));
  const rows = values.map((_, i) => (i ? `after ${after ? after[i] : i}` : "untrained"));
  const few = columns.length <= 12, learned = columns.length - held;
  const gap = (line, nothing) =>
    (held ? [...line.slice(0, learned), nothing, ...line.slice(learned)] : line);
  const trace = { type: "heatmap", z: values.map((line) => gap(line, null)), x: gap(columns, " "),
    y: rows, zmin: 0, zmax: most, colorscale: "Viridis", xgap: 1, ygap: 1,
    colorbar: { thickness: 10, outlinewidth: 0 },
    hovertemplate: `%{y}, %{x}: %{z:.1f} %<extra></extra>`, hoverongaps: false,
    ...(few ? { texttemplate: "%{z:.0f}", textfont: { size: 11 } } : {}) };
  const order = (taught ? "rows by slice" : "columns in the order of learning")
    + (unseen && most ? "<br>held out: 0 by construction (mask seen)" : "");
  const apart = held ? [{ text: "held out", showarrow: false, xref: "x", yref: "paper",
    x: learned + (held + 1) / 2, y: 1, yanchor: "bottom", font: { size: 11 } }] : [];
  return [[trace], layout({ showlegend: false, annotations: apart, margin: { l: 70, r: 15,
    t: held ? 25 : 10, b: 45 }, xaxis: { type: "category", automargin: true, showgrid: false,
    title: { text: `${what} in %; ${order}` }, tickangle: names ? -35 : 0 },
    yaxis: { type: "category", autorange: "reversed", showgrid: false } }),
    [["", ...columns], ...values.map((row, i) => [rows[i], ...row])]];
}

function matrixOf(row) {
  const runs = row.runs.map((i) => page.runs[i]);
  const same = runs.every((run) => run.names === runs[0].names);
  const names = same ? page.names[runs[0].names] : null;
  const errors = runs.map((run) => run.calibration).filter((matrix) => matrix.length);
  if (state.matrix === "calibration" && errors.length) {
    return heatMap(errors, names, "calibration error", null, runs[0]);
  }
  const probes = runs.map((run) => run.probes).filter((matrix) => matrix);
  if (state.matrix === "probes" && probes.length) {
    return heatMap(probes, names, "accuracy of probes", 100, { ...runs[0], unseen: false });
  }
  return heatMap(runs.map((run) => run.matrix), names, "accuracy", 100, runs[0]);
}

// Knowledge accumulated against what is held out, from the untrained model to the end.
function trajectory(rows) {
  const lines = rows.filter((row) => row.trajectory.length), traces = [];
  const table = [["stream", "row", "experiences", "learned", "held out"]];
  for (const row of lines.slice(0, MOST_LINES)) {
    const points = row.trajectory, last = points.length - 1;
    traces.push({ x: points.map((p) => p[1]), y: points.map((p) => p[2]), mode: "lines+markers",
      name: literal(name(row)), legendgroup: name(row),
      showlegend: !traces.some((trace) => trace.legendgroup === name(row)),
      line: { color: colour(row), width: 2, dash: dash(row) },
      text: points.map((p) => (p[0] ? `after ${p[0]}` : "untrained")),
      marker: { size: points.map((_, i) => (i === last ? 10 : 5)),
        symbol: points.map((_, i) => (i ? symbol(row) : "circle-open")) },
      hovertemplate: "%{x:.1f} % learned, %{y:.1f} % held out<br>%{text}"
        + `<extra>${literal(name(row))}<br>${literal(row.stream)}</extra>` });
  }
  for (const row of lines) {
    for (const point of row.trajectory) table.push([row.stream, name(row), ...point]);
  }
  return [traces, layout({ xaxis: { title: { text: "accuracy on all that is learned in %" } },
    yaxis: { title: { text: "accuracy on what is held out in %" } } }), table];
}

function classesOf(row) {
  const y = row.classes ?? [], x = y.map((_, i) => i);
  const trace = { type: "bar", x, y, marker: { color: colour(row) },
    hovertemplate: "class %{x}: %{y:.1f} %<extra></extra>" };
  return [[trace], layout({ showlegend: false, xaxis: { title: { text: "class" } },
    yaxis: { title: { text: "accuracy at the end in %" }, range: [0, 100] } }),
    [["class", "accuracy"], ...x.map((i) => [i, y[i]])]];
}

// ---- what all rows have in common: drawn whatever is filtered --------------------------------------
// A dot for each strategy with its interval, beside it a mark for each stream. No lines: strategies
// are names.
function pooled() {
  const found = page.pooled, y = found.map((_, i) => i);
  const letters = byId("pooled").clientWidth < 600 ? 14 : 40;
  const short = (text) => literal(text.length > letters ? `${text.slice(0, letters - 1)}…` : text);
  const table = [["strategy", "stream", "accuracy", "low", "high"]];
  for (const one of found) {
    table.push([one.name, "", ...one.accuracy]);
    for (const [stream, value] of Object.entries(one.streams)) table.push([one.name, stream, value]);
  }
  const reach = (i, sign) => found.map((one) => (one.accuracy[i] === null ? 0
    : sign * (one.accuracy[i] - one.accuracy[0])));
  const traces = [{ x: found.map((one) => one.accuracy[0]), y, mode: "markers", name: "all",
    error_x: { type: "data", symmetric: false, array: reach(2, 1), arrayminus: reach(1, -1),
      thickness: 1.5, width: 5 }, marker: { color: ink("--accent"), size: 11 },
    text: found.map((one) => literal(one.name)), hovertemplate: "%{x:.1f} %<extra>%{text}</extra>" }];
  const names = [...new Set(found.flatMap((one) => Object.keys(one.streams)))];
  if (names.length > 1) {
    names.forEach((stream, i) => traces.push({ x: found.map((one) => one.streams[stream]), y,
      mode: "markers", name: literal(stream), marker: { color: ink("--soft"), size: 8,
        symbol: `${SYMBOLS[(i + 1) % SYMBOLS.length]}-open` },
      text: traces[0].text, hovertemplate: "%{x:.1f} %<extra>%{text}, %{fullData.name}</extra>" }));
  }
  byId("pooled").style.height = `${7 + 2.2 * found.length + (names.length > 1 ? 2 : 0)}rem`;
  return [traces, layout({ showlegend: names.length > 1, xaxis: { title: { text: "accuracy in %" } },
    yaxis: { range: [found.length - 0.5, -0.5], zeroline: false, tickvals: y,
      ticktext: found.map((one) => short(one.name)) } }), table];
}

// The trials of a strategy: an axis for each setting, the last one for their value.
function trials() {
  const { axes, less } = page.tuning[Number(state.tuned)] ?? page.tuning[0];
  const last = axes[axes.length - 1];
  const dimension = ({ label, values, ticks, log }) => {
    if (ticks) {
      return { label: literal(label), values, range: [-0.3, ticks.length - 0.7],
        tickvals: ticks.map((_, i) => i), ticktext: ticks.map(literal) };
    }
    if (!log) return { label: literal(label), values };
    const low = Math.floor(Math.log10(Math.min(...values)));
    const high = Math.ceil(Math.log10(Math.max(...values)));
    const powers = Array.from({ length: high - low + 1 }, (_, i) => low + i);
    return { label: literal(label), values: values.map(Math.log10), range: [low, high],
      tickvals: powers, ticktext: powers.map((power) => String(Number(`1e${power}`))) };
  };
  const font = (size) => ({ size, color: ink("--ink"), family: "system-ui, sans-serif" });
  const narrow = byId("trials").clientWidth / axes.length < 110;
  const trace = { type: "parcoords", dimensions: axes.map(dimension), labelangle: narrow ? -25 : 0,
    labelside: "bottom", labelfont: font(12), tickfont: font(11),
    rangefont: { size: 1, color: ink("--page") }, // the ends of an axis, which its ticks tell
    line: { color: last.values, reversescale: less, // the better, the stronger
      colorscale: [[0, ink("--line")], [0.5, ink("--soft")], [1, ink("--accent")]] } };
  const text = ({ values, ticks }, i) => (ticks ? ticks[values[i]] : values[i]);
  const letters = Math.max(4, ...(axes[0].ticks ?? []).map((tick) => tick.length));
  return [[trace], layout({ margin: { l: 12 + 6.5 * letters, r: 45, t: 20, b: narrow ? 80 : 50 } }),
    [axes.map((axis) => axis.label), ...last.values.map((_, i) => axes.map((a) => text(a, i)))]];
}

// Click on a head: the largest first, or the first word; again: the other way round.
function sortTable(th) {
  const body = th.closest("table").tBodies[0], column = th.cellIndex;
  const ways = ["descending", "ascending"];
  if (!th.classList.contains("number")) ways.reverse();
  const way = ways[th.getAttribute("aria-sort") === ways[0] ? 1 : 0];
  const worth = (tr) => {
    const text = tr.cells[column].textContent;
    const found = parseFloat(text.replaceAll(",", ""));
    return Number.isNaN(found) ? text : found;
  };
  const sign = way === "descending" ? -1 : 1;
  const order = (a, b) => (typeof a === typeof b ? (a < b ? -sign : a > b ? sign : 0)
    : typeof a === "string" ? 1 : -1); // what is no number stands last
  const rows = [...body.rows].map((tr) => [worth(tr), tr]);
  body.append(...rows.sort(([a], [b]) => order(a, b)).map(([, tr]) => tr));
  for (const other of th.parentElement.cells) other.setAttribute("aria-sort", "none");
  th.setAttribute("aria-sort", way);
}

const tables = {};
function draw(id, [traces, made, table]) {
  tables[id] = table;
  Plotly.react(byId(id), traces, made, { displayModeBar: false, responsive: true });
}

function drawScatter(id, [traces, made, table]) {
  const named = new Set(traces.filter((t) => t.name && t.showlegend !== false).map((t) => t.name));
  byId(id).style.height = `${20 + legendHeight(id, named)}rem`;
  draw(id, [traces, made, table]);
}

function drawCharts(rows, chosen) {
  draw("curves", curves(rows));
  drawScatter("transfer", scatter(rows, state.x1, state.y1, false));
  drawScatter("cost", scatter(rows, state.x2, state.y2, true));
  if (byId("trajectory")) draw("trajectory", trajectory(rows));
  if (byId("pooled")) draw("pooled", pooled());
  if (byId("trials")) draw("trials", trials());
  byId("chosen").textContent = "";
  if (!chosen) {
    for (const id of ["matrix", "classes"]) draw(id, [[], layout({}), []]);
  } else {
    draw("matrix", matrixOf(chosen));
    draw("classes", classesOf(chosen));
    const runs = `${chosen.runs.length} run${chosen.runs.length > 1 ? "s" : ""}`;
    byId("chosen").textContent = `${name(chosen)} on ${chosen.stream}, mean of ${runs}`;
  }
}

// ---- the runs ------------------------------------------------------------------------------------
const FIRST = 100;
let allRuns = false;

function drawRuns(rows) {
  const places = [...new Set(rows.flatMap((row) => row.runs))];
  const shown = allRuns ? places : places.slice(0, FIRST);
  byId("runs").tBodies[0].replaceChildren(...shown.map((i) => {
    const run = page.runs[i], tr = document.createElement("tr");
    const open = document.createElement("button");
    open.textContent = run.id;
    open.onclick = () => showRun(i);
    for (const cell of [open, run.method, run.accuracy.toFixed(1), run.stream, run.curriculum,
      run.seed]) {
      const td = document.createElement("td");
      td.append(cell);
      tr.append(td);
    }
    tr.cells[2].className = "number";
    return tr;
  }));
  byId("more").hidden = shown.length === places.length;
  byId("more").textContent = `show all ${places.length} runs`;
}

function configOf(i) {
  const config = {};
  for (const [key, { values, of }] of Object.entries(page.config)) {
    const found = values[of === null ? 0 : of[i]];
    if (found === null) continue;
    const [section, ...rest] = key.split(".");
    if (!rest.length) config[section] = found[0];
    else (config[section] ??= {})[rest.join(".")] = found[0];
  }
  return config;
}

function showRun(i) {
  const run = page.runs[i];
  byId("run-id").textContent = `Run ${run.id}`;
  byId("run-command").textContent = run.command ?? "none can: objects, or classes of a script, took part";
  byId("copy").hidden = !run.command;
  byId("run-config").textContent = JSON.stringify(configOf(i), null, 1);
  byId("run").showModal();
  draw("run-matrix", heatMap([run.matrix], page.names[run.names], "accuracy", 100, run));
  const rows = Object.keys(run.confusions).map(Number);
  byId("run-classes").hidden = !rows.length;
  if (!rows.length) return;
  byId("run-row").replaceChildren(...rows.map((row) => new Option(rowName(row), row)));
  byId("run-row").value = rows[rows.length - 1];
  byId("run-row").onchange = () => drawConfusion(run);
  drawConfusion(run);
}

const rowName = (row) => (row ? `after ${row}` : "untrained");

// Shares of each class; a class without test samples, or never predicted, is an empty row.
function drawConfusion(run) {
  const counts = run.confusions[byId("run-row").value];
  const classes = counts.map((_, c) => c), few = counts.length <= 12;
  const totals = counts.map((row) => row.reduce((a, b) => a + b, 0));
  const trace = { type: "heatmap", x: classes, y: classes, zmin: 0, zmax: 100, xgap: 1, ygap: 1,
    z: counts.map((row, c) => row.map((n) => (totals[c] ? 100 * n / totals[c] : null))),
    customdata: counts, colorscale: "Viridis", hoverongaps: false,
    colorbar: { thickness: 10, outlinewidth: 0 },
    hovertemplate: "class %{y} as %{x}: %{customdata} samples, %{z:.1f} %<extra></extra>",
    ...(few ? { texttemplate: "%{z:.0f}", textfont: { size: 10 } } : {}) };
  const axis = { type: "category", tickangle: 0 };
  draw("run-confusion", [[trace], layout({ showlegend: false,
    xaxis: { ...axis, title: { text: "predicted class" } },
    yaxis: { ...axis, title: { text: "right class, % of its samples" }, autorange: "reversed" } }),
    [["right class", ...classes], ...counts.map((row, c) => [c, ...row])]]);
}

// ---- exports -------------------------------------------------------------------------------------
function save(filename, href) {
  const link = document.createElement("a");
  Object.assign(link, { href, download: filename });
  link.click();
}

function saveText(filename, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  save(filename, address);
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

// No spreadsheet takes a text for a formula.
const harmless = (cell) => (typeof cell === "string" && /^[=@+-]/.test(cell) ? `'${cell}` : cell ?? "");
const quoted = (cell) => {
  const text = String(harmless(cell));
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const csv = (table) => table.map((line) => line.map(quoted).join(",")).join("\n") + "\n";

async function saveFigure(id, kind) {
  const drawn = byId(id), filename = `${page.name}-${id}.${kind}`;
  if (kind === "csv") {
    const kept = byId(`${id}-csv`);
    saveText(filename, kept ? JSON.parse(kept.textContent) : csv(tables[id]), "text/csv");
  } else if (drawn.classList.contains("chart")) {
    const { width, height } = drawn.getBoundingClientRect();
    save(filename, await Plotly.toImage(drawn, { format: "svg", width, height }));
  } else {
    const text = new XMLSerializer().serializeToString(drawn.querySelector("svg"));
    saveText(filename, text, "image/svg+xml");
  }
}

function leaderboardTable() {
  const table = byId("leaderboard");
  const axes = page.shown, rows = visibleRows();
  const head = [...axes, "runs", ...page.measures.flatMap((m) => [title(m.key), "low", "high"])];
  const cells = (row) => [...byId(`row-${row.id}`).querySelectorAll("td[data-axis]")]
    .map((td) => td.textContent);
  return [head, ...rows.map((row) => [...cells(row), row.runs.length,
    ...page.measures.flatMap((m) => row.values[m.key] ?? ["", "", ""])])];
}

// ---- everything together -------------------------------------------------------------------------
function render() {
  const rows = visibleRows(), chosen = chosenRow(rows);
  for (const select of lists) {
    select.value = state[select.dataset.state];
  }
  drawTable(rows, chosen);
  drawCharts(rows, chosen);
  drawRuns(rows);
}

for (const select of lists) {
  select.onchange = () => change({ [select.dataset.state]: select.value });
}
byId("leaderboard").onclick = (event) => {
  const th = event.target.closest("th[data-key]"), tr = event.target.closest("tbody tr");
  if (th) {
    const again = th.dataset.key === state.sort;
    const down = again ? state.down !== "1" : measure[th.dataset.key].sign > 0;
    change({ sort: th.dataset.key, down: down ? "1" : "0" });
  } else if (tr) {
    change({ row: rowKey(page.rows[Number(tr.dataset.row)]) });
  }
};
byId("leaderboard").onkeydown = (event) => {
  if (event.key === "Enter") event.target.click();
};
for (const th of document.querySelectorAll("table.sortable th")) {
  th.tabIndex = 0;
  th.onclick = () => sortTable(th);
  th.onkeydown = (event) => { if (event.key === "Enter") sortTable(th); };
}
for (const button of document.querySelectorAll("button[data-save]")) {
  button.onclick = () => saveFigure(button.dataset.of, button.dataset.save);
}
byId("save-leaderboard").onclick = () =>
  saveText(`${page.name}-leaderboard.csv`, csv(leaderboardTable()), "text/csv");
byId("more").onclick = () => { allRuns = true; render(); };
byId("close").onclick = () => byId("run").close();
byId("copy").onclick = () => navigator.clipboard.writeText(byId("run-command").textContent);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
matchMedia("print").addEventListener("change", render);
if (page.reload) {
  setInterval(() => { if (!byId("run").open) location.reload(); }, 1000 * page.reload);
}
render();
