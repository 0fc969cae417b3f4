// The sections around the problems: the glance, samplers over all targets, seeds, runs, verdicts, failures, configs.

const UNDER_WAY = ["running", "queued", "held", "unknown"];

function tally(runs) {
  const counts = {};
  for (const run of runs) counts[verdictOf(run)] = (counts[verdictOf(run)] || 0) + 1;
  return counts;
}

function glance() {
  const counts = tally(DATA.runs);
  const reliable = counts.reliable || 0;
  const estimates = reliable + (counts.unreliable || 0);
  const live = UNDER_WAY.reduce((sum, state) => sum + (counts[state] || 0), 0);
  const bad = DATA.runs.length - estimates - live;
  const compared = DATA.problems.flatMap((problem) => problem.pools).filter((pool) => isNumber(pool.z));
  const near = compared.filter((pool) => Math.abs(pool.z) <= 3).length;
  const wrong = DATA.runs.filter((run) => run.analysis && contradiction(run.analysis));
  const sum = (of) => DATA.runs.reduce((total, run) => total + (run.analysis ? of(run.analysis) || 0 : 0), 0);
  return [
    el("div", { class: "tiles" },
      tile("Runs with an estimate", `${estimates.toLocaleString("en")} of ${DATA.runs.length.toLocaleString("en")}`, plural(DATA.problems.length, "target") + ", " + plural(SAMPLERS.length, "sampler")),
      tile("Reliable", estimates ? `${reliable.toLocaleString("en")} of ${estimates.toLocaleString("en")}` : "–", reliable < estimates ? "the others' reasons are under Verdicts" : "no reason against any"),
      wrong.length > 0 && tile("Contradicted by an exact LLC", wrong.length.toLocaleString("en"), `${wrong.filter((run) => run.analysis.verdict.reliable).length} of them without a reason`, "is-bad"),
      compared.length > 0 && tile("Within ±3 of the reference", `${near} of ${compared.length}`, "settings, seeds pooled"),
      (bad > 0 || live > 0) && tile(bad ? "Without a result" : "Under way", String(bad || live), bad && live ? `${live} under way` : bad ? "see Failures" : "render the page again later", bad ? "is-bad" : ""),
      tile("Computation", duration(sum((found) => found.seconds.computing)), `${count(sum((found) => found.fge))} FGE`)),
    verdictBars(),
  ];
}

function verdictBars() {
  const order = ["reliable", "unreliable", "running", "queued", "held", "unknown", "interrupted", "missing", "cancelled", "lost", "damaged", "failed"];
  const bySampler = SAMPLERS.map((sampler) => [sampler, tally(DATA.runs.filter((run) => poolOf(run).sampler === sampler))]);
  const most = Math.max(...bySampler.map(([, counts]) => Object.values(counts).reduce((a, b) => a + b, 0)));
  const rows = bySampler.map(([sampler, counts]) => el(
    "li", {}, samplerName(sampler),
    el("div", { class: "bar-track" }, order.filter((word) => counts[word]).map((word) => el("span", { class: `bar-part is-${word}`, style: `width:${(100 * counts[word]) / most}%`, "data-tip": `${sampler}: ${counts[word]} ${word}` }, counts[word]))),
  ));
  const seen = order.filter((word) => bySampler.some(([, counts]) => counts[word]));
  if (seen.length < 2) return null;
  return el("div", { class: "card plain" }, el("ul", { class: "bars" }, rows), el("p", { class: "legend" }, seen.map(badge)));
}

// Trajectories of the store that have points among these runs: their pictures, and their tables in short.
function curvesSection() {
  if (!DATA.curves.length) return null;
  const cell = (value) => (isNumber(value) ? number(value) : value === null ? "–" : String(value));
  const file = (curve, name) => `${curve.folder.split("/").map(encodeURIComponent).join("/")}/${name}`;
  return DATA.curves.map((curve) => el(
    "div", { class: "card plain" }, el("h3", {}, curve.name),
    curve.error ? el("p", { class: "warning" }, curve.error) : [
      curve.picture && el("img", { src: curve.picture, alt: `LLC over the training steps of ${curve.name}` }),
      el("p", {}, el("a", { href: file(curve, "table.csv") }, "table.csv"), " · ", el("a", { href: file(curve, "table.parquet") }, "table.parquet")),
      el(
        "details", {}, el("summary", {}, plural(curve.rows.length, "checkpoint")),
        el("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": `Table of ${curve.name}` }, el(
          "table", {},
          el("thead", {}, el("tr", {}, curve.columns.map((name) => el("th", { scope: "col" }, name)))),
          el("tbody", {}, curve.rows.map((row) => el("tr", {}, row.map((value) => el("td", {}, cell(value)))))),
        )),
      ),
    ],
  ));
}

// Each sampler over all problems: distance from the reference, and the price of precision.
function acrossProblems() {
  if (DATA.problems.length < 2) return null;
  const measure = (name, scale, get, extra) => el(
    "div", { class: "across" }, el("h4", {}, name),
    SAMPLERS.map((sampler) => {
      const pools = DATA.problems.flatMap((problem) => problem.pools.map((pool) => [problem, pool])).filter(([, pool]) => pool.sampler === sampler && isNumber(get(pool)));
      const marks = pools.map(([problem, pool], place) => stripMark(scale, get(pool), 9 + ((place * 7) % 17), shape(sampler), { fill: colour(sampler), opacity: pools.length > 40 ? 0.35 : 0.75 }, `${pool.name} on ${problemName(problem)}: ${number(get(pool), 3)}`));
      return el("div", { class: "across-row" }, samplerName(sampler), strip(scale, 34, [...extra(scale), marks]));
    }),
    el("div", { class: "across-row" }, el("span"), stripAxis(scale)),
  );
  const work = DATA.problems.flatMap((problem) => problem.pools.map((pool) => pool.work));
  const band = (scale) => [svg("rect", { x: percent(scale.at(-3)), y: 0, width: percent(scale.at(3) - scale.at(-3)), height: 34, class: "shade" }), stripLine(scale, 0, 0, 0, { y2: 34, stroke: "var(--reference)", "stroke-width": 1.5, "stroke-dasharray": "5 4" })];
  return el("div", { class: "card plain two" },
    measure("Distance from the reference, in errors", linear(-10, 10), (pool) => pool.z, band),
    measure("MCSE² × FGE: what a given error costs", logarithmic(...logLimits(work)), (pool) => pool.work, () => []));
}

// A ratio of two scales; beyond what a few seeds give by chance it is marked.
function ratioChip(spread, mcse, seeds) {
  const ratio = spread / mcse;
  if (!isNumber(ratio)) return "–";
  return el("span", { class: ratio > 1 + 3 / Math.sqrt(2 * (seeds - 1)) ? "z is-far" : "z" }, fixed(ratio, 2));
}

function seedsSection() {
  const rows = [];
  for (const problem of DATA.problems) {
    for (const pool of problem.pools) {
      if (pool.num_estimates > 1) rows.push({ kind: "sampling", problem, pool, seeds: pool.num_estimates, llc: pool.llc, spread: pool.spread, mcse: pool.mcse, error: pool.error });
    }
  }
  for (const family of DATA.families) {
    const problem = DATA.problems[family.problem];
    const values = Object.values(family.llcs);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    rows.push({ kind: "training", problem, pool: problem.pools[family.pool], seeds: values.length, llc: mean, spread: family.spread, mcse: family.mcse, error: family.spread / Math.sqrt(values.length) });
  }
  if (!rows.length) return null;
  const ratio = (row) => ratioChip(row.spread, row.mcse, row.seeds);
  const hasTraining = DATA.families.length > 0;
  const target = (row) => (row.kind === "training" ? row.problem.setting.replace(/\s*training\.seed=\S+/, "") : row.problem.setting);
  const table = sortableTable({
    label: "Seeds pooled",
    columns: [
      { name: "Target", value: (row) => problemName(row.problem), cell: (row) => [row.problem.name, target(row) && el("small", {}, target(row))], wide: true },
      { name: "Sampler", value: (row) => row.pool.name, cell: (row) => [samplerName(row.pool.sampler), row.pool.setting && el("small", {}, row.pool.setting), el("small", { class: "narrow" }, row.problem.name, " ", target(row))] },
      { name: "Seeds", value: (row) => `${row.kind} ${row.seeds}`, cell: (row) => (hasTraining ? `${row.seeds} ${row.kind}` : row.seeds), numeric: !hasTraining },
      { name: estimateHeading(), words: "mean over the seeds ± its error", value: (row) => row.llc, cell: (row) => [...namedEstimate(row.problem, row.llc, row.error), el("div", { class: "narrow" }, "SD / MCSE ", ratio(row))], numeric: true },
      { name: "SD", words: "standard deviation between seeds", value: (row) => row.spread, cell: (row) => number(row.spread, 2), numeric: true, wide: true },
      { name: "MCSE", words: "root mean square of the estimates' errors", value: (row) => row.mcse, cell: (row) => number(row.mcse, 2), numeric: true, wide: true },
      { name: "SD / MCSE", words: "near 1 when the error tells all there is", value: (row) => row.spread / row.mcse, cell: ratio, numeric: true, wide: true },
    ],
  });
  table.show(rows);
  return [
    el("p", { class: "muted small" }, "Sampling seeds: SD / MCSE near 1 says that the error of one run tells all there is; far above 1 (marked), chains of one run miss something that others find. ", hasTraining && "Training seeds: each is another minimum, so a ratio above 1 is a difference between minima, not a fault."),
    table.node,
  ];
}

const runLink = (run) => button([samplerMark(poolOf(run).sampler), shortId(run.id)], () => openRun(run), { class: "link run-link" });

function choice(label, words, onchange) {
  const select = el("select", { "aria-label": label, onchange }, el("option", { value: "" }, label), words.map(([value, text]) => el("option", { value }, text)));
  return select;
}

function runsSection() {
  const selected = new Set();
  const compare = button("Compare", () => openComparison([...selected].map((id) => DATA.runs.find((run) => run.id === id))), { class: "primary", disabled: true });
  const told = el("span", { class: "muted", role: "status" });
  const update = () => { compare.disabled = selected.size < 2; compare.textContent = selected.size ? `Compare ${selected.size}` : "Compare"; };
  const tick = (run) => el("input", {
    type: "checkbox", "aria-label": `Compare ${shortId(run.id)}`, ...(selected.has(run.id) ? { checked: true } : {}),
    onchange: (event) => { if (event.target.checked) selected.add(run.id); else selected.delete(run.id); update(); },
  });
  const measured = (name, words, get, cell, more) => ({ name, words, numeric: true, value: (run) => (run.analysis ? get(run.analysis) : null), cell: (run) => (run.analysis ? cell(run.analysis) : "–"), ...more });
  const hasSettings = DATA.problems.some((problem) => problem.pools.some((pool) => pool.setting));
  const hasReference = DATA.problems.some((problem) => problem.reference);
  const table = sortableTable({
    label: "Runs", onrow: openRun, empty: "No run fits the filters.",
    columns: [
      { name: "", cell: tick, css: "tick" },
      { name: "Run", value: (run) => run.id, cell: (run) => [runLink(run), el("small", { class: "narrow" }, problemName(problemOf(run)))] },
      { name: "Target", value: (run) => problemName(problemOf(run)), cell: (run) => [problemOf(run).name, problemOf(run).setting && el("small", {}, problemOf(run).setting)], wide: true, css: "words" },
      ...(hasSettings ? [{ name: "Setting", value: (run) => poolOf(run).setting, cell: (run) => poolOf(run).setting || "–", wide: true, css: "words" }] : []),
      { name: "Seed", value: (run) => run.seed, numeric: true, wide: true },
      {
        name: estimateHeading(), words: "LLC, or what is named beside it, ± Monte Carlo standard error", numeric: true, value: (run) => run.analysis && run.analysis.llc,
        cell: (run) => [...(run.analysis ? namedEstimate(problemOf(run), run.analysis.llc, run.analysis.llc_mcse) : ["–"]), el("div", { class: "narrow" }, zChip(zOf(run)), badge(verdictOf(run)))],
      },
      ...(hasReference ? [{ name: "z", words: "distance from the reference in combined errors", numeric: true, wide: true, value: zOf, cell: (run) => zChip(zOf(run)) }] : []),
      measured("R-hat", "rank-normalised R-hat", (found) => found.rhat, (found) => rhatText(found.rhat), { wide: true }),
      measured("ESS", "bulk effective sample size", (found) => found.ess_bulk, (found) => count(found.ess_bulk), { wide: true }),
      measured("FGE", "full-gradient evaluations", (found) => found.fge, (found) => count(found.fge), { wide: true }),
      measured("Seconds", "of computation, compilation not", (found) => found.seconds.computing, (found) => number(found.seconds.computing, 3), { wide: true }),
      measured("MCSE² × FGE", "work-normalised variance: lower is better", (found) => found.work_normalised_variance, (found) => count(found.work_normalised_variance), { wide: true }),
      { name: "Verdict", value: (run) => Object.keys(VERDICTS).indexOf(verdictOf(run)), cell: (run) => [badge(verdictOf(run)), run.analysis && contradiction(run.analysis) && el("small", { class: "z is-far" }, "contradicted")], wide: true },
    ],
  });
  const haystack = DATA.runs.map((run) => [run.id, problemName(problemOf(run)), problemOf(run).target, poolOf(run).name, `seed=${run.seed}`, verdictOf(run), run.reason, ...(run.analysis ? run.analysis.verdict.reasons : [])].join(" ").toLowerCase());
  const search = el("input", { type: "search", placeholder: "Filter by any word", "aria-label": "Filter runs by any word" });
  const names = [...new Set(DATA.problems.map((problem) => problem.name))].sort();
  const states = Object.keys(VERDICTS).filter((word) => DATA.runs.some((run) => verdictOf(run) === word));
  const sampler = choice("All samplers", SAMPLERS.map((word) => [word, word]), apply);
  const target = choice("All targets", names.map((word) => [word, word]), apply);
  const verdict = choice("All verdicts", states.map((word) => [word, word]), apply);
  function apply() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = DATA.runs.filter((run, index) =>
      (!sampler.value || poolOf(run).sampler === sampler.value)
      && (!target.value || problemOf(run).name === target.value)
      && (!verdict.value || verdictOf(run) === verdict.value)
      && wanted.every((word) => haystack[index].includes(word)));
    told.textContent = `${rows.length.toLocaleString("en")} of ${plural(DATA.runs.length, "run")}`;
    table.show(rows);
  }
  search.addEventListener("input", apply);
  browse = table.shown;
  apply();
  return [el("div", { class: "tools" }, search, sampler, names.length > 1 && target, verdict, compare, told), table.node];
}

function runButtons(indices) {
  const first = indices.slice(0, 12).map((index) => runLink(DATA.runs[index]));
  return el("p", { class: "links" }, first, indices.length > 12 && el("span", { class: "muted" }, `and ${indices.length - 12} more`));
}

function verdictsSection() {
  if (!DATA.findings.length) return null;
  const most = DATA.findings[0].runs.length;
  return DATA.findings.map(({ finding, example, runs }) => el(
    "details", { class: "card cause" },
    el("summary", {}, el("span", { class: "cause-count" }, runs.length), el("span", { class: "cause-text" }, said(finding)), el("span", { class: "cause-bar", "aria-hidden": "true" }, el("i", { style: `width:${(100 * runs.length) / most}%` }))),
    el("p", {}, said(example)), runButtons(runs),
  ));
}

function failuresSection() {
  if (!DATA.failures.length) return null;
  return DATA.failures.map((cause, place) => el(
    "details", { class: "card cause", open: place === 0 },
    el("summary", {}, el("span", { class: "cause-count" }, cause.runs.length), badge(cause.state), el("span", { class: "cause-text" }, cause.reason.split("\n")[0] || "no word why")),
    runButtons(cause.runs), causeDetails(cause, place === 0),
  ));
}

function configsSection() {
  const rows = DATA.varying.map(({ key, of, values }) => el(
    "tr", {}, el("th", { scope: "row" }, el("code", {}, key), of && el("small", {}, of)),
    el("td", {}, el("div", { class: "values" }, values.slice(0, 12).map(([value, many]) => el("span", { class: "fact" }, el("code", {}, value), ` ×${many}`)), values.length > 12 && el("span", { class: "muted" }, `and ${values.length - 12} more`))),
  ));
  const told = new Map();
  for (const run of DATA.runs) for (const [key, value] of Object.entries(flat(configOf(run)))) told.set(key, told.has(key) && told.get(key) !== value ? null : value);
  const shared = [...told].filter(([, value]) => value !== null).map(([key, value]) => `${key} = ${value}`);
  return [
    rows.length ? el("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "What differs" }, el("table", { class: "varying" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Field"), el("th", { scope: "col" }, "Values, and how many runs have them"))), el("tbody", {}, rows))) : el("p", { class: "muted" }, "All runs have one configuration."),
    el("p", { class: "muted small" }, "To see two runs side by side, tick them in the table of runs and press Compare."),
    el("details", { class: "card" }, el("summary", {}, `What all have in common: ${plural(shared.length, "field")}`), el("pre", { tabindex: 0 }, shared.join("\n"))),
  ];
}

function provenanceSection() {
  const counts = DATA.provenance.map((_, place) => DATA.runs.filter((run) => run.made === place).length);
  const codes = new Set(DATA.provenance.map((made) => `${made.commit} ${made.dirty}`));
  return [
    codes.size > 1 && el("p", { class: "warning" }, `The results were made by ${codes.size} states of the code; ids hold no code. rerun=true makes a run anew.`),
    ...DATA.provenance.map((made, place) => el(
      "details", { class: "card cause" },
      el("summary", {}, el("span", { class: "cause-count" }, counts[place]), el("span", { class: "cause-text" }, el("code", {}, (made.commit || "no checkout").slice(0, 10)), made.dirty ? " with uncommitted changes" : "", ` on ${made.host}, ${made.device}, ${made.dtype}`)),
      el("pre", { tabindex: 0 }, Object.entries(made).flatMap(([name, value]) => (value && typeof value === "object" ? Object.entries(value).map(([key, version]) => `${key} ${version}`) : [`${name} = ${value}`])).join("\n")),
    )),
  ];
}
