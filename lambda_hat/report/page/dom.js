// Elements, numbers and words. Text from the store goes in as text nodes only, never as markup.

const DATA = JSON.parse(document.getElementById("data").textContent);

// Parsed when a curve is first asked for: most of the page's weight is here.
let parsedSeries = null;
function seriesOf(index) {
  if (parsedSeries === null) parsedSeries = JSON.parse(document.getElementById("series").textContent);
  return parsedSeries[index];
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("aria-")) node.setAttribute(name, String(value));
    else if (value === null || value === undefined || value === false) continue;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function button(text, onclick, attributes) {
  return el("button", { type: "button", onclick, ...attributes }, text);
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const finite = (values) => values.filter(isNumber);
const MINUS = "−";
const signed = (text) => (/[1-9]/.test(text) ? text.replace("-", MINUS) : text.replace("-", ""));

// 4 significant digits, without a trail of noughts; powers of ten where they are shorter.
function number(value, digits = 4) {
  if (!isNumber(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return signed(value.toExponential(Math.max(0, digits - 2)).replace("e+", "e"));
  return signed(String(Number(value.toPrecision(digits))));
}

function fixed(value, decimals) {
  return isNumber(value) ? signed(value.toFixed(decimals)) : "–";
}

// 12.34 ± 0.05: the value to the digits that its error of two significant digits allows.
function withError(value, error) {
  if (!isNumber(value)) return "–";
  if (!isNumber(error) || error <= 0) return number(value);
  const decimals = Math.min(12, Math.max(0, 1 - Math.floor(Math.log10(error))));
  return `${fixed(value, decimals)} ± ${error.toFixed(decimals)}`;
}

// 950, 12.3k, 4.56M
function count(value) {
  if (!isNumber(value)) return "–";
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (Math.abs(value) >= size) return `${Number((value / (unit === "k" ? 1e3 : size)).toPrecision(3))}${unit}`;
  }
  return String(Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3)));
}

function duration(seconds) {
  if (!isNumber(seconds)) return "–";
  if (seconds < 60) return `${Number(seconds.toPrecision(2))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

// Sentences of a verdict are written for terminals, too.
const said = (sentence) => sentence.replaceAll("+-", "±");

const plural = (many, noun) => `${many.toLocaleString("en")} ${noun}${many === 1 ? "" : "s"}`;

// Colour and shape both tell a sampler, so that neither colour vision nor print matters.
const SAMPLERS = [...new Set(DATA.problems.flatMap((problem) => problem.pools.map((pool) => pool.sampler)))].sort();
const colour = (sampler) => `var(--s${SAMPLERS.indexOf(sampler) % 8})`;
const SHAPES = [
  "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",
  "M-4,-4h8v8h-8z",
  "M0,-5.2L5,3.8H-5z",
  "M0,-5.6L5.6,0L0,5.6L-5.6,0z",
  "M0,5.2L5,-3.8H-5z",
  "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
];
const shape = (sampler) => SHAPES[SAMPLERS.indexOf(sampler) % SHAPES.length];

function samplerMark(sampler) {
  return svg(
    "svg",
    { class: "mark-icon", viewBox: "-7 -7 14 14", width: 14, height: 14, "aria-hidden": "true" },
    svg("path", { d: shape(sampler), fill: colour(sampler) }),
  );
}

const samplerName = (sampler) => el("span", { class: "sampler" }, samplerMark(sampler), sampler);

// What became of a run, as a person sorts them: by trust first.
const VERDICTS = {
  reliable: "✓", unreliable: "!", running: "▸", queued: "…", interrupted: "‖", held: "‖", unknown: "?",
  missing: "○", cancelled: "⊘", lost: "✕", damaged: "✕", failed: "✕",
};

function verdictOf(run) {
  if (run.analysis && (run.state === "finished" || run.state === "damaged")) {
    return run.analysis.verdict.reliable ? "reliable" : "unreliable";
  }
  return run.state === "finished" ? "missing" : run.state;
}

const badge = (word) => el("span", { class: `badge is-${word}` }, el("span", { "aria-hidden": "true" }, VERDICTS[word] || "?"), word);

const problemOf = (run) => DATA.problems[run.problem];
const poolOf = (run) => problemOf(run).pools[run.pool];
const problemName = (problem) => [problem.name, problem.setting].filter(Boolean).join("  ");
const shortId = (id) => id.replace(/^run_/, "");

// What an estimate is called: only the LLC is called that.
const estimateName = (problem) => problem.estimate || "LLC";
const estimateHeading = () => (DATA.problems.every((problem) => estimateName(problem) === "LLC") ? "LLC" : "Estimate");
const namedEstimate = (problem, value, error) => [estimateName(problem) === "LLC" ? "" : `${problem.estimate} `, withError(value, error)];

function zOf(run) {
  const reference = problemOf(run).reference;
  const found = run.analysis;
  if (!reference || !found || reference.pool === run.pool) return null;
  const error = Math.hypot(found.llc_mcse, reference.error);
  return isNumber(found.llc) && error > 0 ? (found.llc - reference.llc) / error : null;
}

// The LLC without a bias that the run itself has measured; null where it has not.
function corrected({ importance, bias }) {
  if (importance && isNumber(importance.llc)) {
    return { llc: importance.llc, mcse: importance.mcse, words: `corrected by importance weights, k-hat ${number(importance.khat, 2)}` };
  }
  if (bias && isNumber(bias.llc) && bias.first_order !== false) return { llc: bias.llc, mcse: bias.llc_mcse, words: "without the bias of the step" };
  return null;
}

// Words for an estimate that the exact value contradicts, whatever its verdict; null otherwise.
function contradiction({ llc, exact, verdict }) {
  if (!exact || !exact.contradicts) return null;
  const doubt = verdict.reliable ? ", and the verdict gives no reason" : "";
  return `Contradicted by the exact LLC ${number(exact.value, 5)}: off by ${number(llc - exact.value, 4)}${isNumber(exact.z) ? `, ${fixed(exact.z, 1)} errors` : ""}${doubt}.`;
}

function rhatText(value) {
  return isNumber(value) && Math.abs(value) >= 100 ? number(value, 2) : fixed(value, 3);
}

function zChip(z) {
  if (!isNumber(z)) return el("span", { class: "muted" }, "–");
  return el("span", { class: Math.abs(z) > 3 ? "z is-far" : "z" }, `${z > 0 ? "+" : ""}${fixed(z, 1)}`);
}

function configOf(run) {
  return Object.fromEntries(Object.entries(run.config).map(([node, place]) => [node, DATA.nodes[place]]));
}

// {"sampler.step_size": "0.001", ...}
function flat(config) {
  const found = {};
  for (const [node, value] of Object.entries(config)) {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      for (const [name, item] of Object.entries(value)) {
        found[name === "_target_" ? node : `${node}.${name}`] =
          name === "_target_" ? String(item).split(".").pop() : typeof item === "string" ? item : JSON.stringify(item);
      }
    } else found[node] = typeof value === "string" ? value : JSON.stringify(value);
  }
  return found;
}
