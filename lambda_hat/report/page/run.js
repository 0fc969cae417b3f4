// One run in a dialog, and several runs beside each other. Opened by the address's #run_..., too.

const dialog = el("dialog", { "aria-labelledby": "dialog-title" });
let browse = () => DATA.runs; // the runs that the arrows walk through: what the table shows
let dialogCost = "fge";

function openDialog(title, tools, content) {
  dialog.replaceChildren(
    el("div", { class: "dialog-bar" }, el("h2", { id: "dialog-title", tabindex: -1 }, title), el("div", { class: "dialog-tools" }, tools, button("Close", () => dialog.close(), { class: "quiet" }))),
    el("div", { class: "dialog-body" }, content),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  dialog.querySelector("#dialog-title").focus();
}

dialog.addEventListener("close", () => {
  hideTip();
  if (location.hash.startsWith("#run_")) history.replaceState(null, "", location.pathname + location.search);
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

function openRun(run) {
  const order = browse();
  const place = order.indexOf(run);
  const step = (by) => button(by < 0 ? "←" : "→", () => openRun(order[place + by]), {
    class: "quiet", "aria-label": by < 0 ? "Previous run" : "Next run", disabled: place < 0 || !order[place + by],
  });
  const title = [samplerMark(poolOf(run).sampler), shortId(run.id)];
  openDialog(title, [step(-1), step(1)], runContent(run));
  history.replaceState(null, "", `#${run.id}`);
  dialog.onkeydown = (event) => {
    if (event.target.closest("input, select, pre, .scroller")) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && place >= 0 && order[place + by]) openRun(order[place + by]);
  };
}

function runContent(run) {
  const found = run.analysis;
  return [
    el("p", { class: "lead" }, badge(verdictOf(run)), problemName(problemOf(run)), poolOf(run).setting && el("span", { class: "muted" }, poolOf(run).setting), el("span", { class: "muted" }, `seed ${run.seed ?? "?"}`)),
    run.state !== "finished" && ending(run),
    found && contradiction(found) && el("p", { class: "warning" }, contradiction(found)),
    found && headline(run),
    found && found.verdict.reasons.length > 0 && el("ul", { class: "reasons" }, found.verdict.reasons.map((reason) => el("li", {}, said(reason)))),
    pictures(run),
    found && numbersOf(run),
    files(run),
    configBlock(run),
    found && provenanceBlock(run),
  ];
}

function headline(run) {
  const found = run.analysis;
  const { reference } = problemOf(run);
  return el(
    "div", { class: "tiles" },
    tile(estimateName(problemOf(run)), withError(found.llc, found.llc_mcse), found.llc_interval90 ? `90 %: ${number(found.llc_interval90[0])} to ${number(found.llc_interval90[1])}` : "no error"),
    reference && tile(reference.pool === null ? "Exact" : "Reference", number(reference.llc, 5), reference.pool === run.pool ? "this run's own setting" : `z = ${fixed(zOf(run), 1)}`),
    tile("R-hat", rhatText(found.rhat), `bulk ESS ${count(found.ess_bulk)}, tail ${count(found.ess_tail)}`),
    tile("Cost", `${count(found.fge)} FGE`, `${duration(found.seconds.computing)}, ${plural(found.num_chains, "chain")} × ${count(found.num_draws)} draws`),
  );
}

const tile = (name, value, note, css) => el("div", { class: `tile ${css || ""}` }, el("div", { class: "tile-name" }, name), el("div", { class: "tile-value" }, value), note && el("div", { class: "tile-note" }, note));

function ending(run) {
  const cause = DATA.failures.find((failure) => failure.runs.includes(DATA.runs.indexOf(run)));
  const { phase, step, llc, llc_mcse: mcse, seconds } = run.status;
  return el(
    "div", { class: "ending" },
    run.reason && el("p", { class: "warning" }, run.reason),
    phase && el("p", {}, `Got to ${phase} step ${count(step)} in ${duration(seconds)}`, isNumber(llc) ? `; the estimate there was ${withError(llc, mcse)}.` : "."),
    cause && causeDetails(cause, true),
  );
}

function causeDetails(cause, open) {
  return [
    cause.traceback && el("details", { open }, el("summary", {}, "Traceback"), el("pre", { tabindex: 0 }, cause.traceback)),
    cause.log && el("details", {}, el("summary", {}, "End of the log"), el("pre", { tabindex: 0 }, `${cause.log.path}\n\n${cause.log.tail}`)),
  ];
}

function pictures(run) {
  const curves = run.analysis && seriesOf(DATA.runs.indexOf(run));
  if (!curves) return null;
  const box = el("div", {});
  const choose = (key) => { dialogCost = key; box.replaceChildren(runningPicture(run, curves, key)); };
  const choices = Object.entries(COSTS).map(([key, { name }]) => button(name, () => {
    choose(key);
    choices.forEach((choice, place) => choice.setAttribute("aria-pressed", Object.keys(COSTS)[place] === key));
  }, { "aria-pressed": key === dialogCost }));
  choose(dialogCost);
  return el("section", {}, el("div", { class: "tools" }, el("div", { class: "segments", role: "group", "aria-label": "Unit of cost" }, choices)), box, el("div", { class: "two" }, tracePicture(run, curves), rankPicture(run, curves)));
}

function numbersOf(run) {
  const found = run.analysis;
  const { virial } = found;
  const better = corrected(found);
  const facts = [
    ["E3, variance of the draws", withError(found.llc_variance, found.llc_variance_mcse)],
    ["E1 − E3", withError(found.e1_minus_e3, found.e1_minus_e3_mcse)],
    ["WBIC", number(found.wbic, 6)],
    ["Virial", isNumber(virial.value) ? `${withError(virial.value, virial.mcse)}, expected ${virial.expected}, z = ${fixed(virial.z, 1)}` : "–"],
    ["Acceptance", fixed(found.acceptance, 3)],
    ["Divergences", count(found.divergences)],
    ["Without its own bias", better ? `${withError(better.llc, better.mcse)}, ${better.words}` : "–"],
    ["ESS per FGE", number(found.ess_per_fge, 3)],
    ["ESS per second", number(found.ess_per_second, 3)],
    ["MCSE² × FGE", number(found.work_normalised_variance, 3)],
    ["MCSE² × seconds", number(found.time_normalised_variance, 3)],
    ["Warm-up, sampling", `${duration(found.seconds.warmup)}, ${duration(found.seconds.sampling)}`],
    ["Compilation", duration(found.seconds.compile)],
    ["L(w0)", number(found.loss_at_w0, 6)],
  ];
  return el("section", {}, el("h3", {}, "Numbers"), el("dl", { class: "facts-list" }, facts.filter(([, text]) => text !== "–").map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text)))));
}

function files(run) {
  // An address, not a path: a folder's name may hold anything.
  const address = (name) => [...run.folder.split("/"), name].map(encodeURIComponent).join("/");
  const names = [...(run.analysis ? ["analysis.json", "trace.nc"] : []), "config.yaml", "log.txt", ...run.pictures.map((name) => `diagnostics/${name}`)];
  return el("section", {}, el("h3", {}, "Files"), el("p", { class: "links" }, el("code", {}, run.folder), names.map((name) => el("a", { href: name.includes("/") ? address(name).replace("%2F", "/") : address(name) }, name.split("/").pop()))));
}

function configBlock(run) {
  const config = flat(configOf(run));
  const told = new Set(DATA.varying.map((entry) => entry.key));
  const lines = Object.entries(config).map(([key, value]) => {
    const marked = told.has(key) || told.has(key.replace(/^(sampler|posterior)\./, ""));
    return el("div", { class: marked ? "differs" : null }, el("span", { class: "key" }, key), ` = ${value}`);
  });
  return el("details", {}, el("summary", {}, "Configuration", el("small", { class: "muted" }, " marked: what differs between runs")), el("pre", { class: "config", tabindex: 0 }, lines));
}

function provenanceBlock(run) {
  const made = DATA.provenance[run.made];
  const facts = Object.entries(made).filter(([name]) => name !== "versions").map(([name, value]) => `${name} = ${value}`);
  const versions = Object.entries(made.versions || {}).map(([name, value]) => `${name} ${value}`);
  const moved = run.places > 1 ? [`computed in ${run.places} places; the last was:`] : [];
  return el("details", {}, el("summary", {}, "Provenance"), el("pre", { tabindex: 0 }, [...moved, ...facts, "", ...versions].join("\n")));
}

// Numbers and differing fields of a few runs, a column each.
function openComparison(runs) {
  const configs = runs.map((run) => flat(configOf(run)));
  const keys = [...new Set(configs.flatMap(Object.keys))].filter((key) => new Set(configs.map((config) => config[key])).size > 1);
  const rows = [
    [estimateHeading(), (run) => run.analysis && namedEstimate(problemOf(run), run.analysis.llc, run.analysis.llc_mcse)],
    ["z", (run) => zChip(zOf(run))],
    ["verdict", (run) => badge(verdictOf(run))],
    ["R-hat", (run) => run.analysis && rhatText(run.analysis.rhat)],
    ["bulk ESS", (run) => run.analysis && count(run.analysis.ess_bulk)],
    ["FGE", (run) => run.analysis && count(run.analysis.fge)],
    ["seconds", (run) => run.analysis && duration(run.analysis.seconds.computing)],
    ["MCSE² × FGE", (run) => run.analysis && number(run.analysis.work_normalised_variance, 3)],
  ];
  const table = el(
    "table", { class: "compare" },
    el("thead", {}, el("tr", {}, el("td"), runs.map((run) => el("th", { scope: "col" }, button(shortId(run.id), () => openRun(run), { class: "link" }))))),
    el("tbody", {},
      rows.map(([name, cell]) => el("tr", {}, el("th", { scope: "row" }, name), runs.map((run) => el("td", {}, cell(run) || "–")))),
      keys.map((key) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, key)), configs.map((config) => el("td", {}, config[key] === undefined ? "–" : el("code", {}, config[key])))))),
  );
  openDialog(`${runs.length} runs compared`, [], [
    el("p", { class: "muted" }, keys.length ? `${plural(keys.length, "field")} of their configurations differ.` : "Their configurations are the same."),
    el("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Comparison" }, table),
  ]);
  dialog.onkeydown = null;
}
