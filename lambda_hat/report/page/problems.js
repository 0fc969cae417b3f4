// LLC by target: a card for each problem (one target and posterior) with its forest plot, convergence and agreement.

const OPEN_AT_FIRST = 3;
const CARDS_AT_ONCE = 24;
const PANELS_AT_ONCE = 12;
const INTERVAL_90 = 1.645;

const analysisOf = (index) => DATA.runs[index].analysis;

function forestScale(problem) {
  const values = [];
  for (const pool of problem.pools) {
    if (isNumber(pool.llc)) values.push(pool.llc - INTERVAL_90 * pool.error, pool.llc + INTERVAL_90 * pool.error);
    for (const index of pool.runs) {
      const found = analysisOf(index);
      if (found && isNumber(found.llc)) values.push(found.llc, ...(found.llc_interval90 || []));
    }
  }
  // One wild estimate must not squeeze the others: beyond three times the middle half's reach it becomes an arrow.
  const sorted = finite(values).sort((a, b) => a - b);
  const quartile = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const reach = 3 * (quartile(0.75) - quartile(0.25));
  const kept = reach > 0 ? sorted.filter((value) => value >= quartile(0.25) - reach && value <= quartile(0.75) + reach) : sorted;
  const reference = problem.reference ? [problem.reference.llc] : [];
  return linear(...limits([...kept, ...reference], 0.08));
}

function forestStrip(problem, pool, scale) {
  const shown = pool.runs.filter((index) => analysisOf(index) && isNumber(analysisOf(index).llc));
  const gap = shown.length > 12 ? 0 : 5;
  const height = Math.max(34, 26 + gap * shown.length);
  const paint = colour(pool.sampler);
  const parts = [];
  if (problem.reference) {
    const { llc, error } = problem.reference;
    if (error > 0) {
      const [from, to] = [llc - INTERVAL_90 * error, llc + INTERVAL_90 * error].map((value) => 100 * Math.min(1, Math.max(0, scale.at(value))));
      parts.push(svg("rect", { x: `${from}%`, y: 0, width: `${to - from}%`, height, fill: "var(--reference)", opacity: 0.12 }));
    }
    parts.push(stripLine(scale, llc, llc, 0, { y2: height, stroke: "var(--reference)", "stroke-width": 1.5, "stroke-dasharray": "5 4" }));
  }
  const middle = shown.length > 1 ? 13 : height / 2;
  shown.forEach((index, place) => {
    const { llc, llc_mcse: mcse, llc_interval90: ends, verdict } = analysisOf(index);
    const y = shown.length === 1 ? middle : gap ? 24 + gap * place : 26;
    const better = corrected(analysisOf(index));
    if (better) {
      const told = `seed ${DATA.runs[index].seed}, ${better.words}: ${withError(better.llc, better.mcse)}`;
      parts.push(stripMark(scale, better.llc, y, "M-3,-3L3,3M-3,3L3,-3", { fill: "none", stroke: paint, "stroke-width": 1.5 }, told));
    }
    if (shown.length === 1) return;
    const hint = `seed ${DATA.runs[index].seed}: ${withError(llc, mcse)}${verdict.reliable ? "" : " (unreliable)"}`;
    if (gap && ends) parts.push(stripLine(scale, ends[0], ends[1], y, { y2: y, stroke: paint, "stroke-width": 1.2, opacity: 0.55 }));
    parts.push(stripMark(scale, llc, y, "M-2.2,0a2.2,2.2 0 1,0 4.4,0a2.2,2.2 0 1,0 -4.4,0z", { fill: verdict.reliable ? paint : "var(--card)", stroke: paint, opacity: 0.8 }, hint));
  });
  if (isNumber(pool.llc)) {
    const half = INTERVAL_90 * (pool.error || 0);
    const trusted = pool.num_reliable === pool.num_estimates;
    parts.push(stripLine(scale, pool.llc - half, pool.llc + half, middle, { y2: middle, stroke: paint, "stroke-width": 3.2, "stroke-linecap": "round", opacity: 0.55 }));
    parts.push(stripMark(scale, pool.llc, middle, shape(pool.sampler), { fill: trusted ? paint : "var(--card)", stroke: paint, "stroke-width": trusted ? 1 : 1.8 }, `${pool.name}: ${withError(pool.llc, pool.error)}`));
  }
  return strip(scale, height, parts);
}

function workStrip(pool, scale, measure) {
  if (!isNumber(pool[measure]) || pool[measure] <= 0) return null;
  const hint = `${pool.name}: ${count(pool[measure])} nats² ${measure === "work" ? "FGE" : "s"}`;
  const paint = colour(pool.sampler);
  return strip(scale, 34, [
    svg("line", { x1: 0, x2: percent(scale.at(pool[measure])), y1: 17, y2: 17, stroke: paint, "stroke-width": 1, opacity: 0.35 }),
    stripMark(scale, pool[measure], 17, shape(pool.sampler), { fill: paint }, hint),
  ]);
}

function trustText(pool) {
  const all = pool.runs.length;
  if (!pool.num_estimates) {
    const states = [...new Set(pool.runs.map((index) => verdictOf(DATA.runs[index])))];
    return states.map(badge);
  }
  if (all === 1) return badge(verdictOf(DATA.runs[pool.runs[0]]));
  const good = pool.num_reliable === all;
  return el("span", { class: `badge is-${good ? "reliable" : "unreliable"}` }, el("span", { "aria-hidden": "true" }, good ? "✓" : "!"), `${pool.num_reliable} of ${all} reliable`);
}

function valueOf(problem, pool) {
  if (!isNumber(pool.llc)) return el("span", { class: "muted" }, "no estimate");
  const isReference = problem.reference && problem.pools[problem.reference.pool] === pool;
  return [withError(pool.llc, pool.error), " ", isReference ? el("span", { class: "muted" }, "reference") : zChip(pool.z)];
}

function forest(problem) {
  const scale = forestScale(problem);
  const measure = cost === "seconds" ? "time" : "work";
  const values = problem.pools.map((pool) => pool[measure]);
  const work = logarithmic(...logLimits(values));
  const rows = problem.pools.map((pool) => el(
    "li", { class: "forest-row" },
    el("div", { class: "forest-name" }, samplerName(pool.sampler), pool.setting && el("small", {}, pool.setting)),
    el("div", { class: "forest-strip" }, forestStrip(problem, pool, scale)),
    el("div", { class: "forest-value" }, valueOf(problem, pool)),
    el("div", { class: "forest-trust" }, trustText(pool)),
    el("div", { class: "forest-work" }, isNumber(pool[measure]) && el("span", { class: "forest-work-text muted" }, `${measure === "work" ? "MCSE² × FGE" : "MCSE² × s"} ${count(pool[measure])}`), workStrip(pool, work, measure)),
  ));
  return el(
    "div", { class: "forest" },
    el("div", { class: "forest-row forest-head", "aria-hidden": "true" },
      el("div", {}, "Sampler"), el("div", {}, `${estimateName(problem)}, 90 % interval`), el("div", {}, `${estimateName(problem)} ± error, z`), el("div", {}, "Verdicts"),
      el("div", {}, measure === "work" ? "MCSE² × FGE" : "MCSE² × seconds", el("small", {}, " lower is better"))),
    el("ol", { class: "forest-rows" }, rows),
    el("div", { class: "forest-row forest-foot" }, el("div", {}), stripAxis(scale), el("div", {}), el("div", {}), el("div", { class: "forest-work" }, stripAxis(work, 4))),
  );
}

function convergence(problem) {
  const curves = problem.pools.flatMap((pool) => pool.runs.map(seriesOf)).filter(Boolean);
  if (!curves.length) return null;
  const x = costScale(cost, curves);
  const y = runningLimits(curves, problem.reference && problem.reference.llc, false);
  const drawn = problem.pools.filter((pool) => pool.runs.some((index) => seriesOf(index)));
  const panels = (pools) => pools.map((pool) => poolPanel(problem, pool, x, y, cost));
  const box = el("div", { class: "panels" }, panels(drawn.slice(0, PANELS_AT_ONCE)));
  const more = drawn.length > PANELS_AT_ONCE && button(`Show all ${drawn.length}`, (event) => { box.append(...panels(drawn.slice(PANELS_AT_ONCE))); event.target.remove(); });
  return el("div", {}, el("h4", {}, `Convergence by ${COSTS[cost].words}`), box, more);
}

function agreement(problem) {
  if (!problem.comparisons.length) return null;
  const known = problem.pools.map((pool, place) => place).filter((place) => problem.comparisons.some(([a, b]) => a === place || b === place));
  const z = new Map(problem.comparisons.map(([a, b, difference, value]) => [`${a} ${b}`, [difference, value]]));
  const cell = (row, column) => {
    if (row === column) return el("td", { class: "muted" }, "·");
    const [difference, value] = z.get(row < column ? `${row} ${column}` : `${column} ${row}`);
    const [sign, far] = [row < column ? 1 : -1, Math.abs(value) > 3];
    const share = isNumber(value) ? Math.min(1, Math.abs(value) / 8) : 0;
    const tint = `background:color-mix(in srgb, var(${far ? "--far" : "--near"}) ${Math.round(10 + 45 * share)}%, transparent)`;
    const words = isNumber(value) ? `${problem.pools[row].name} is ${number(Math.abs(difference), 3)} ${sign * difference > 0 ? "above" : "below"} ${problem.pools[column].name}` : "";
    return el("td", { style: tint, "data-tip": words }, fixed(sign * value, 1));
  };
  return el(
    "div", { class: "agreement" },
    el("h4", {}, "Agreement: row − column, in combined errors"),
    el("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Agreement between samplers" }, el(
      "table", { class: "matrix" },
      el("thead", {}, el("tr", {}, el("td"), known.map((place) => el("th", { scope: "col" }, problem.pools[place].name)))),
      el("tbody", {}, known.map((row) => el("tr", {}, el("th", { scope: "row" }, problem.pools[row].name), known.map((column) => cell(row, column))))),
    )),
    el("p", { class: "muted small" }, "Beyond ±3 (marked) they differ by more than their errors. Unreliable runs may agree, too."),
  );
}

function factsOf(problem) {
  const usual = problem.num_data > 1 ? ` = ${number(problem.nbeta * Math.log(problem.num_data) / problem.num_data, 2)} n / log n` : "";
  const facts = [["d", problem.dim], ["n", problem.num_data], ["nβ", problem.nbeta], ["γ", problem.gamma], ["λ", problem.known_lambda]];
  const chips = facts.filter(([, value]) => isNumber(value)).map(([name, value]) => el("span", { class: "fact" }, el("b", {}, name), ` ${Number.isInteger(value) ? value.toLocaleString("en") : number(value)}${name === "nβ" ? usual : ""}`));
  const { reference } = problem;
  const words = !reference ? "no reference: neither an exact value nor a reliable sampler with an accept step"
    : reference.pool === null ? `exact value ${number(reference.llc, 6)}` : `reference: ${reference.name}, ${withError(reference.llc, reference.error)}`;
  return el("p", { class: "facts" }, el("span", { class: "fact is-reference" }, words), chips, el("code", {}, problem.target));
}

function problemCard(problem, place) {
  const inside = el("div", { class: "card-body" });
  const draw = () => inside.replaceChildren(...[
    factsOf(problem),
    ...(problem.warnings || []).map((warning) => el("p", { class: "warning" }, warning)),
    forest(problem), convergence(problem), agreement(problem),
  ].filter(Boolean));
  const far = problem.pools.filter((pool) => Math.abs(pool.z) > 3).length;
  const summary = el(
    "summary", {},
    el("span", { class: "card-name" }, problem.name, problem.setting && el("small", {}, problem.setting)),
    el("span", { class: "muted" }, plural(problem.pools.reduce((sum, pool) => sum + pool.runs.length, 0), "run")),
    far > 0 && el("span", { class: "z is-far" }, `${far} beyond ±3 of the reference`),
  );
  const card = el("details", { class: "card problem", open: place < OPEN_AT_FIRST }, summary, inside);
  const refresh = () => { if (card.open) draw(); else inside.replaceChildren(); };
  card.addEventListener("toggle", () => { if (card.open && !inside.firstChild) draw(); });
  refresh();
  return { card, refresh };
}

function problemsSection() {
  const cards = [];
  const list = el("div", { class: "cards" });
  const more = button("Show more targets", () => grow());
  function grow() {
    for (const problem of DATA.problems.slice(cards.length, cards.length + CARDS_AT_ONCE)) {
      const made = problemCard(problem, cards.length);
      cards.push(made);
      list.append(made.card);
    }
    more.hidden = cards.length >= DATA.problems.length;
  }
  grow();
  const choices = Object.entries(COSTS).map(([key, { name }]) => button(name, () => {
    cost = key;
    choices.forEach((choice, place) => choice.setAttribute("aria-pressed", Object.keys(COSTS)[place] === key));
    cards.forEach(({ refresh }) => refresh());
  }, { "aria-pressed": key === cost }));
  return [
    el("div", { class: "tools" }, el("span", { class: "muted" }, "Cost in"), el("div", { class: "segments", role: "group", "aria-label": "Unit of cost" }, choices)),
    el("p", { class: "muted small" }, "Large marks pool the sampling seeds, small ones are single runs; hollow: not all reliable; ×: a value without the bias that the run itself measured; dashed: the reference. z is the distance from it in combined errors."),
    list, more,
  ];
}
