// The page, section by section; those that have nothing to say are left out.

const SECTIONS = [
  ["glance", "At a glance", () => [glance(), acrossProblems()]],
  ["curves", "Curves over training", curvesSection],
  ["targets", `${estimateHeading()} by target`, problemsSection],
  ["seeds", "Seeds pooled", seedsSection],
  ["runs", "Runs", runsSection],
  ["verdicts", "Verdicts", verdictsSection],
  ["failures", "Failures", failuresSection],
  ["configs", "Configurations", configsSection],
  ["provenance", "Provenance", provenanceSection],
];

function theme() {
  const names = ["auto", "light", "dark"];
  const press = document.getElementById("theme");
  const root = document.documentElement;
  let chosen = "auto";
  const set = (name) => {
    chosen = name;
    if (name === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", name);
    press.textContent = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" }[name];
    press.setAttribute("aria-label", `Colours: ${name}. Change`);
    try { localStorage.setItem("lambda_hat theme", name); } catch (refused) { /* a page from disk may have no storage */ }
  };
  let before = null;
  try { before = localStorage.getItem("lambda_hat theme"); } catch (refused) { before = null; }
  set(names.includes(before) ? before : "auto");
  press.addEventListener("click", () => set(names[(names.indexOf(chosen) + 1) % names.length]));
}

function openFromAddress() {
  const run = DATA.runs.find((each) => `#${each.id}` === location.hash);
  if (run) openRun(run);
}

theme();
document.body.append(dialog);
const links = document.querySelector("nav[aria-label=Sections]");
const main = document.getElementById("main");
main.replaceChildren(el("div", { class: "intro" }, el("h1", {}, DATA.title), el("p", { class: "muted" }, `${DATA.scope} · ${new Date(1000 * DATA.made).toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" })}`)));
for (const [id, title, make] of SECTIONS) {
  const content = make();
  if (!content) continue;
  main.append(el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title`, tabindex: -1 }, title), content));
  links.append(el("a", { href: `#${id}` }, title));
}
document.getElementById("about").append(
  el("p", { class: "muted small" }, `Made by lambda_hat ${DATA.by.version}${DATA.by.commit ? `, commit ${DATA.by.commit.slice(0, 10)}` : ""}. LLC = nβ (E[L(w)] − L(w0)) in nats; intervals are 90 %; 1 FGE = one gradient of all rows.`),
);
addEventListener("hashchange", openFromAddress);
openFromAddress();
// Milliseconds until the page was painted and answers: what benchmarks/report.py reads, and tests wait for.
requestAnimationFrame(() => setTimeout(() => { document.documentElement.dataset.ready = String(Math.round(performance.now())); }));
