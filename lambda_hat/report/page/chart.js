// Axes and pictures. Every picture is drawn in shares of its box (per cent, or a stretched viewBox whose strokes do
// not scale), so that it fits any width without being measured or drawn again.

const SIDE = 1000;

function linear(low, high) {
  const span = high - low || 1;
  const step = (count) => {
    const rough = span / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 2.5, 5, 10].find((factor) => rough <= factor * power * 1.0000001);
  };
  return {
    low, high,
    at: (value) => (value - low) / span,
    ticks(count) {
      const size = step(count);
      const first = Math.ceil(low / size - 1e-9);
      const last = Math.floor(high / size + 1e-9);
      return Array.from({ length: Math.max(0, last - first + 1) }, (_, place) => (first + place) * size);
    },
    label(value, ticks) {
      const size = ticks.length > 1 ? ticks[1] - ticks[0] : Math.abs(value) || 1;
      if (Math.max(...ticks.map(Math.abs)) >= 1e4) return count(value);
      const decimals = Math.max(0, -Math.floor(Math.log10(size) + 1e-9));
      const exact = Number((size * 10 ** decimals).toFixed(6)) % 1 ? decimals + 1 : decimals;
      return decimals > 4 ? number(value, 3) : fixed(value, exact);
    },
  };
}

function logarithmic(low, high) {
  const [from, to] = [Math.log10(low), Math.log10(high)];
  const span = to - from || 1;
  return {
    low, high,
    at: (value) => (Math.log10(value) - from) / span,
    ticks(wanted) {
      if (span < 0.6) return linear(low, high).ticks(wanted);
      const all = [];
      const factors = span > 2.2 ? [1] : span > 1 ? [1, 3] : [1, 2, 3, 5, 7];
      for (let power = Math.floor(from); power <= Math.ceil(to); power += 1) {
        for (const factor of factors) {
          const value = factor * 10 ** power;
          if (value >= low * 0.9999 && value <= high * 1.0001) all.push(value);
        }
      }
      const every = Math.ceil(all.length / wanted);
      return all.filter((_, place) => place % every === 0);
    },
    label: (value) => (value >= 1e4 ? count(value) : number(value, 2)),
  };
}

// Limits that hold all values with a margin.
function limits(values, margin = 0.06) {
  const known = finite(values);
  if (!known.length) return [0, 1];
  let low = Infinity;
  let high = -Infinity;
  for (const value of known) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const room = (high - low || Math.abs(high) || 1) * margin;
  return [low - room, high + room];
}

function logLimits(values) {
  const known = finite(values).filter((value) => value > 0);
  if (!known.length) return [0.1, 1];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const room = Math.max((high / low) ** 0.06, 1.15);
  return [low / room, high * room];
}

const clamp = (share) => Math.min(1.5, Math.max(-0.5, share));
const percent = (share) => `${(100 * Math.min(1, Math.max(0, share))).toFixed(2)}%`;

function pathOf(xs, ys, x, y) {
  let path = "";
  let pen = false;
  for (let place = 0; place < xs.length; place += 1) {
    if (!isNumber(xs[place]) || !isNumber(ys[place])) {
      pen = false;
      continue;
    }
    const left = (SIDE * clamp(x.at(xs[place]))).toFixed(1);
    path += `${pen ? "L" : "M"}${left},${(SIDE * (1 - clamp(y.at(ys[place])))).toFixed(1)}`;
    pen = true;
  }
  return path;
}

function bandPath(xs, low, high, x, y) {
  const known = xs.map((_, place) => place).filter((place) => isNumber(low[place]) && isNumber(high[place]));
  if (!known.length) return "";
  const there = pathOf(known.map((place) => xs[place]), known.map((place) => high[place]), x, y);
  const back = known.slice().reverse();
  return `${there}${pathOf(back.map((place) => xs[place]), back.map((place) => low[place]), x, y).replace("M", "L")}Z`;
}

// One layer of a plot: {line|band|level|span: ...}.
function drawLayer(layer, x, y) {
  const stroke = { "vector-effect": "non-scaling-stroke", fill: "none", stroke: layer.colour || "var(--ink)" };
  const style = { "stroke-width": layer.width || 1.5, "stroke-dasharray": layer.dash, opacity: layer.opacity };
  if (layer.kind === "line") return svg("path", { d: pathOf(layer.xs, layer.ys, x, y), ...stroke, ...style });
  if (layer.kind === "band") {
    const d = bandPath(layer.xs, layer.low, layer.high, x, y);
    return svg("path", { d, fill: layer.colour, opacity: layer.opacity || 0.15 });
  }
  if (layer.kind === "level") {
    const height = SIDE * (1 - y.at(layer.value));
    return svg("line", { x1: 0, x2: SIDE, y1: height, y2: height, ...stroke, ...style });
  }
  const [from, to] = [x.at(layer.from), x.at(layer.to)].map((share) => SIDE * Math.min(1, Math.max(0, share)));
  return svg("rect", { x: from, y: 0, width: Math.max(0, to - from), height: SIDE, class: "shade" });
}

/* A picture with axes: {x, y, layers, title, label, xlabel, height}. Layers with a name are read out under the
   pointer. `label` says in words what is seen. */
function plot({ x, y, layers, title, label, xlabel, height = 170, xticks = 4 }) {
  const [across, up] = [x.ticks(xticks), y.ticks(4)];
  const grid = up.map((value) => svg("line", {
    x1: 0, x2: SIDE, y1: SIDE * (1 - y.at(value)), y2: SIDE * (1 - y.at(value)), class: "grid",
    "vector-effect": "non-scaling-stroke",
  }));
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${SIDE} ${SIDE}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    grid, layers.map((layer) => drawLayer(layer, x, y)),
  );
  const box = el("div", { class: "plot-box", style: `height:${height}px` }, drawing);
  readOut(box, x, layers.filter((layer) => layer.name));
  return el(
    "figure", { class: "plot" },
    title && el("figcaption", {}, title),
    el("div", { class: "plot-y", "aria-hidden": "true" }, up.map((value) => el("span", { style: `bottom:${percent(y.at(value))}` }, y.label(value, up)))),
    box,
    el("div", { class: "plot-x", "aria-hidden": "true" }, across.map((value) => el("span", { style: `left:${percent(x.at(value))}` }, x.label(value, across)))),
    xlabel && el("div", { class: "plot-label" }, xlabel),
  );
}

const tip = document.getElementById("tip");

function showTip(event, content) {
  tip.replaceChildren(content);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - width - 8);
  const above = event.clientY - height - 14;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above < 8 ? event.clientY + 18 : above}px`;
  // A modal dialog is in the top layer, above everything but its own children.
  const home = document.querySelector("dialog[open]") || document.body;
  if (tip.parentNode !== home) home.append(tip);
}

const hideTip = () => { tip.hidden = true; };

function readOut(box, x, layers) {
  if (!layers.length) return;
  const hair = el("div", { class: "hair", hidden: true });
  box.append(hair);
  box.addEventListener("pointermove", (event) => {
    const frame = box.getBoundingClientRect();
    const share = (event.clientX - frame.left) / frame.width;
    hair.hidden = false;
    hair.style.left = percent(share);
    const rows = layers.slice(0, 9).map((layer) => {
      let best = 0;
      layer.xs.forEach((value, place) => {
        if (Math.abs(x.at(value) - share) < Math.abs(x.at(layer.xs[best]) - share)) best = place;
      });
      const text = layer.errors ? withError(layer.ys[best], layer.errors[best]) : number(layer.ys[best]);
      return el("div", {}, el("i", { style: `background:${layer.colour}` }), `${layer.name}: ${text}`);
    });
    showTip(event, el("div", {}, rows));
  });
  box.addEventListener("pointerleave", () => { hair.hidden = true; hideTip(); });
}

// Anything with data-tip explains itself under the pointer.
document.addEventListener("pointerover", (event) => {
  const told = event.target.closest && event.target.closest("[data-tip]");
  if (told) showTip(event, document.createTextNode(told.dataset.tip));
});
document.addEventListener("pointerout", (event) => {
  if (event.target.closest && event.target.closest("[data-tip]")) hideTip();
});

// Marks on one horizontal axis, for a row of a forest plot.
function strip(scale, height, parts) {
  return svg("svg", { class: "strip", width: "100%", height, "aria-hidden": "true" }, parts);
}

function stripLine(scale, from, to, y, attributes) {
  return svg("line", { x1: percent(scale.at(from)), x2: percent(scale.at(to)), y1: y, y2: y, ...attributes });
}

function stripMark(scale, value, y, path, attributes, hint) {
  const share = scale.at(value);
  if (share < 0 || share > 1) {
    // Beyond the axis: an arrow at its end.
    const way = share < 0 ? "M-1,0L5,-4V4z" : "M1,0L-5,-4V4z";
    return svg("svg", { x: percent(share), y, overflow: "visible" }, svg("path", { d: way, ...attributes, "data-tip": hint }));
  }
  return svg("svg", { x: percent(share), y, overflow: "visible" }, svg("path", { d: path, ...attributes, "data-tip": hint }));
}

function stripAxis(scale, wanted = 5) {
  const ticks = scale.ticks(wanted);
  return el("div", { class: "strip-axis", "aria-hidden": "true" }, ticks.map((value) => el("span", { style: `left:${percent(scale.at(value))}` }, scale.label(value, ticks))));
}
