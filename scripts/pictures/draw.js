// Draws one dashboard from Grafana's JSON with what Prometheus answers. No Grafana, no library: enough for a picture.
// DATA (data.js) has: dashboard, answers by panel id and refId, annotations, start and end in seconds.
"use strict";

const COLUMN = 1568 / 24, UNIT_HEIGHT = 30, SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#3871dc", "#e0752d", "#37872d", "#8f3bb8", "#c4162a", "#0a97a8", "#b08100", "#6d6d6d", "#e24d9a", "#5794f2", "#7eb26d", "#a16a3b"];
const NAMED = { green: "#37872d", yellow: "#d9a400", red: "#c4162a", purple: "#8f3bb8", blue: "#3871dc" };

function node(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

function element(name, className = "", text = null) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== null) made.textContent = text;
  return made;
}

function legend(format, labels) {
  return format.replace(/\{\{(\w+)\}\}/g, (_, label) => labels[label] ?? "").trim();
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)} M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)} k`;
  return size >= 100 || Number.isInteger(value) ? value.toFixed(0) : `${+value.toPrecision(3)}`;
}

function written(value, config) {
  const named = (config.mappings ?? []).filter((each) => each.type === "value").map((each) => each.options[String(value)]?.text)[0];
  if (named) return named;
  if (config.unit === "percentunit") return `${+(100 * value).toFixed(1)}%`;
  if (config.unit === "percent") return `${+value.toFixed(1)}%`;
  if (config.unit === "reqps") return `${short(value)}/s`;
  if (config.unit === "s") return value !== 0 && Math.abs(value) < 1 ? `${+(1000 * value).toPrecision(3)} ms` : value >= 600 ? `${short(value / 60)} min` : `${short(value)} s`;
  return short(value);
}

function colourOf(value, config) {
  const steps = config.thresholds?.steps ?? [];
  const passed = steps.filter((step) => step.value === null || step.value === undefined || value >= step.value);
  return NAMED[passed.at(-1)?.color] ?? "#24292e";
}

function seriesOf(panel) {
  const limits = new Set((panel.fieldConfig.overrides ?? []).filter((each) => each.matcher.id === "byFrameRefID").map((each) => each.matcher.options));
  return panel.targets.flatMap((target) =>
    (DATA.answers[panel.id]?.[target.refId] ?? []).map((found) => ({
      name: legend(target.legendFormat, found.metric) || target.legendFormat,
      points: (found.values ?? [found.value]).map(([at, value]) => [at, Number(value)]),
      isLimit: limits.has(target.refId),
    })),
  );
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(+at.toFixed(12));
  return found;
}

function clock(seconds) {
  const gone = Math.round(seconds - DATA.start);
  return `${Math.floor(gone / 60)}:${String(gone % 60).padStart(2, "0")}`;
}

function timeAxis(svg, x, height) {
  const step = DATA.end - DATA.start > 240 ? 60 : 30;
  for (let at = DATA.start; at <= DATA.end; at += step) {
    svg.append(node("line", { x1: x(at), x2: x(at), y1: 4, y2: height, stroke: "#eceef0" }));
    svg.append(node("text", { x: x(at), y: height + 12, "text-anchor": "middle" }, clock(at)));
  }
}

function curves(panel, body, width, height) {
  const series = seriesOf(panel), config = panel.fieldConfig.defaults;
  if (!series.length) return nothing(body, config);
  const isStacked = config.custom?.stacking?.mode === "normal";
  if (isStacked) {
    const sums = new Map();
    for (const each of series) for (const point of each.points) {
      const below = sums.get(point[0]) ?? 0;
      point[2] = below;
      point[1] += below;
      sums.set(point[0], point[1]);
    }
  }
  const values = series.flatMap((each) => each.points.map((point) => point[1]));
  const low = Math.min(config.min ?? Infinity, ...values), top = Math.max(config.max ?? -Infinity, ...values);
  const high = top > low ? top + (config.max === undefined ? (top - low) * 0.06 : 0) : low + 1;
  const rows = Math.min(5, Math.ceil((1.2 * series.reduce((sum, each) => sum + each.name.length * 6.4 + 38, 0)) / width));
  const plot = height - 14 * rows - 22, left = 52;
  const svg = node("svg", { width, height: plot + 18 });
  const x = (at) => left + ((at - DATA.start) / (DATA.end - DATA.start)) * (width - left - 14);
  const y = (value) => plot - ((value - low) / (high - low)) * (plot - 6);
  timeAxis(svg, x, plot);
  for (const tick of ticks(low, high, Math.max(2, plot / 34))) {
    svg.append(node("line", { x1: left, x2: width - 14, y1: y(tick), y2: y(tick), stroke: "#eceef0" }));
    svg.append(node("text", { x: left - 5, y: y(tick) + 3, "text-anchor": "end" }, written(tick, { ...config, mappings: [] })));
  }
  for (const step of config.thresholds?.steps ?? []) {
    if (step.value !== null && step.value > low && step.value < high)
      svg.append(node("line", { x1: left, x2: width - 14, y1: y(step.value), y2: y(step.value), stroke: NAMED[step.color], "stroke-dasharray": "3 3" }));
  }
  for (const note of DATA.annotations) {
    svg.append(node("line", { x1: x(note.at), x2: x(note.at), y1: 4, y2: plot, stroke: NAMED.purple, "stroke-dasharray": "4 3" }));
    if (panel.gridPos.w >= 16) {
      const isLate = x(note.at) > width * 0.7;
      svg.append(node("text", { x: x(note.at) + (isLate ? -5 : 5), y: 14, fill: NAMED.purple, style: "fill:#8f3bb8", "text-anchor": isLate ? "end" : "start" }, note.text));
    }
  }
  const keys = element("div", "legend");
  series.forEach((each, place) => {
    const colour = each.isLimit ? NAMED.red : COLOURS[place % COLOURS.length];
    let path = "", last = null;
    for (const [at, value] of each.points) {
      path += `${last === null || at - last > 3 * DATA.step ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      last = at;
    }
    if (isStacked) {
      const back = [...each.points].reverse().map(([at, , below]) => `L${x(at).toFixed(1)} ${y(below).toFixed(1)}`).join("");
      svg.append(node("path", { d: `${path.replaceAll("M", "L").replace("L", "M")}${back}Z`, fill: colour, "fill-opacity": 0.25 }));
    }
    svg.append(node("path", { d: path, fill: "none", stroke: colour, "stroke-width": 1.6, ...(each.isLimit ? { "stroke-dasharray": "7 5" } : {}) }));
    const key = element("span");
    const mark = element("i", each.isLimit ? "dashed" : "");
    mark.style.borderColor = colour;
    key.append(mark, document.createTextNode(each.name));
    keys.append(key);
  });
  keys.style.maxHeight = `${14 * rows}px`;
  body.append(svg, keys);
}

function states(panel, body, width, height) {
  const series = seriesOf(panel), config = panel.fieldConfig.defaults;
  if (!series.length) return nothing(body, config);
  const left = Math.min(width * 0.45, 12 + 6.1 * Math.max(...series.map((each) => each.name.length)));
  const line = Math.min(22, (height - 20) / series.length), plot = line * series.length;
  const svg = node("svg", { width, height: height });
  const x = (at) => left + ((at - DATA.start) / (DATA.end - DATA.start)) * (width - left - 14);
  timeAxis(svg, x, plot + 4);
  series.forEach((each, place) => {
    svg.append(node("text", { x: left - 6, y: place * line + line / 2 + 7, "text-anchor": "end", style: "fill:#24292e" }, each.name));
    for (const [at, value] of each.points)
      svg.append(node("rect", { x: x(at), y: place * line + 5, width: Math.max(1, x(at + DATA.step) - x(at) + 0.4), height: line - 3, fill: colourOf(value, config), "fill-opacity": 0.75 }));
  });
  body.append(svg);
}

function numbers(panel, body) {
  const series = seriesOf(panel), config = panel.fieldConfig.defaults;
  if (!series.length) return nothing(body, config);
  const all = element("div", "numbers");
  for (const each of series) {
    const one = element("div"), value = each.points.at(-1)[1], big = element("b", "", written(value, config));
    big.style.color = colourOf(value, config);
    one.append(big, document.createTextNode(series.length > 1 ? each.name : ""));
    all.append(one);
  }
  body.append(all);
}

function bars(panel, body, height) {
  const series = seriesOf(panel), config = panel.fieldConfig.defaults;
  if (!series.length) return nothing(body, config);
  const most = Math.max(...series.map((each) => each.points.at(-1)[1]), 1e-9);
  for (const each of series) {
    const value = each.points.at(-1)[1], bar = element("div", "bar"), hull = element("div"), fill = element("i");
    fill.style.width = `${(100 * value) / most}%`;
    fill.style.height = `${Math.min(16, height / series.length - 6)}px`;
    hull.append(fill);
    bar.append(element("span", "", each.name), hull, element("span", "", written(+value.toFixed(config.decimals ?? 3), config)));
    body.append(bar);
  }
}

function nothing(body, config) {
  body.append(element("div", "nothing", config.noValue));
}

document.querySelector("h1").textContent = DATA.dashboard.title;
document.querySelector("p.note").textContent = `${DATA.dashboard.description} ${DATA.note}`;
const grid = document.getElementById("grid");
let bottom = 0;
for (const panel of DATA.dashboard.panels) {
  const { x, y, w, h } = panel.gridPos;
  const box = element("div", panel.type === "row" ? "row" : "panel", panel.type === "row" ? panel.title : null);
  box.style.top = `${y * UNIT_HEIGHT}px`;
  box.style.height = `${h * UNIT_HEIGHT - (panel.type === "row" ? 0 : 8)}px`;
  bottom = Math.max(bottom, (y + h) * UNIT_HEIGHT);
  grid.append(box);
  if (panel.type === "row") continue;
  box.style.left = `${x * COLUMN}px`;
  box.style.width = `${w * COLUMN - 8}px`;
  box.append(element("h2", "", panel.title));
  const width = w * COLUMN - 26, height = h * UNIT_HEIGHT - 46;
  if (panel.type === "timeseries") curves(panel, box, width, height);
  else if (panel.type === "state-timeline") states(panel, box, width, height);
  else if (panel.type === "stat") numbers(panel, box);
  else bars(panel, box, height);
}
grid.style.height = `${bottom}px`;
