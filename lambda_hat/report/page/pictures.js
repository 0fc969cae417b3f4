// Pictures of runs: the running LLC, the trace, the ranks.

const COSTS = {
  fge: { name: "FGE", words: "full-gradient evaluations, all chains" },
  seconds: { name: "Seconds", words: "seconds of computation" },
  draws: { name: "Draws", words: "draws per chain" },
};
let cost = "fge";

function costScale(cost, curves) {
  const values = curves.flatMap((found) => found.running[cost]).filter((value) => value > 0);
  // Runs of different lengths meet on a logarithmic axis only.
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [1, 10];
  // Draws of a fitted law cost nothing: its curve is an upright line, in the middle.
  return high > 1.2 * low ? logarithmic(low, high * 1.02) : logarithmic(low / 1.5, high * 1.5);
}

// Limits for running values: the first draws would set the scale for all others, so the later half rules.
function runningLimits(all, reference, withChains) {
  const values = [];
  for (const { running } of all) {
    const from = Math.floor(running.llc.length / 2);
    for (let place = from; place < running.llc.length; place += 1) {
      const half = 2 * (running.mcse[place] || 0);
      values.push(running.llc[place] - half, running.llc[place] + half);
      if (withChains) values.push(...running.chains.map((chain) => chain[place]));
    }
  }
  let [low, high] = limits(values, 0.12);
  // A reference that would squeeze the curves is named, not drawn.
  if (isNumber(reference) && reference > low - (high - low) && reference < high + (high - low)) {
    const room = 0.08 * (high - low);
    [low, high] = [Math.min(low, reference - room), Math.max(high, reference + room)];
  }
  return linear(low, high);
}

function referenceLevel(reference) {
  return reference ? [{ kind: "level", value: reference.llc, colour: "var(--reference)", dash: "5 4", width: 1.5 }] : [];
}

const interval = (values, errors, sign) => values.map((value, place) => (isNumber(errors[place]) ? value + sign * 1.645 * errors[place] : value));

// One panel of the small multiples: a pool's runs, each with its 90 % band.
function poolPanel(problem, pool, x, y, cost) {
  const layers = [];
  for (const index of pool.runs) {
    const curves = seriesOf(index);
    if (!curves) continue;
    const { running } = curves;
    const paint = colour(pool.sampler);
    const many = pool.runs.length > 3;
    layers.push({
      kind: "band", xs: running[cost], low: interval(running.llc, running.mcse, -1),
      high: interval(running.llc, running.mcse, 1), colour: paint, opacity: many ? 0.06 : 0.14,
    });
    layers.push({
      kind: "line", xs: running[cost], ys: running.llc, errors: running.mcse, colour: paint,
      opacity: many ? 0.6 : 1, name: `seed ${DATA.runs[index].seed}`,
    });
  }
  const label = `Running ${estimateName(problem)} of ${pool.name} by ${COSTS[cost].words}: it ends at ${withError(pool.llc, pool.error)}`;
  const name = el("span", { class: "panel-title" }, samplerName(pool.sampler), pool.setting && el("small", {}, pool.setting));
  return plot({ x, y, layers: [...referenceLevel(problem.reference), ...layers], title: name, label, height: 130, xticks: 3 });
}

const chainColour = (chain) => `var(--s${chain % 8})`;

function chainLines(xs, chains, opacity) {
  return chains.map((ys, chain) => ({ kind: "line", xs, ys, colour: chainColour(chain), width: 1, opacity, name: `chain ${chain}` }));
}

function runningPicture(run, curves, cost) {
  const { running } = curves;
  const reference = problemOf(run).reference;
  const xs = running[cost];
  const x = linear(0, xs[xs.length - 1]);
  const layers = [
    { kind: "span", from: 0, to: running.warmup[cost] },
    { kind: "band", xs, low: interval(running.llc, running.mcse, -1), high: interval(running.llc, running.mcse, 1), colour: "var(--ink)", opacity: 0.13 },
    ...referenceLevel(reference),
    { kind: "line", xs, ys: running.llc, errors: running.mcse, colour: "var(--ink)", width: 2, name: "all chains" },
    ...chainLines(xs, running.chains, 0.85),
  ];
  return plot({
    x, y: runningLimits([curves], reference && reference.llc, true), layers, height: 220, xlabel: COSTS[cost].words,
    title: `Running ${estimateName(problemOf(run))}, 90 % band; warm-up shaded; reference dashed`,
    label: `Running ${estimateName(problemOf(run))}: it ends at ${withError(run.analysis.llc, run.analysis.llc_mcse)}`,
  });
}

function tracePicture(run, curves) {
  const { trace } = curves;
  const xs = trace.low.map((_, place) => (place + 0.5) * trace.length);
  const long = trace.length > 1;
  const layers = chainLines(xs, trace.means, 0.9);
  if (long) layers.unshift({ kind: "band", xs, low: trace.low, high: trace.high, colour: "var(--ink)", opacity: 0.09 });
  return plot({
    x: linear(0, trace.length * trace.low.length), y: linear(...limits(long ? [...trace.low, ...trace.high, ...trace.means.flat()] : trace.means.flat())), layers, height: 200,
    xlabel: "draw", title: long ? `nβ (L(w) − L(w0)): means over ${trace.length} draws; band: nine tenths of all draws` : "nβ (L(w) − L(w0))",
    label: "Trace of the draws by chain",
  });
}

function rankPicture(run, curves) {
  const { rank } = curves;
  if (!rank) return null;
  const low = rank.band.map((value) => -value);
  const layers = [
    { kind: "band", xs: rank.p, low, high: rank.band, colour: "var(--ink)", opacity: 0.1 },
    { kind: "level", value: 0, colour: "var(--line)", width: 1 },
    ...chainLines(rank.p, rank.chains, 0.95),
  ];
  return plot({
    x: linear(0, 1), y: linear(...limits([...rank.chains.flat(), ...low, ...rank.band])), layers, height: 200,
    xlabel: "rank among all chains' draws (as a share)", title: "Ranks: share of each chain's draws − uniform; band: chains that agree",
    label: "Rank differences of each chain",
  });
}
