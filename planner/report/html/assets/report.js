// The report: what the runs have in common first, then each part with the runs side by side.

const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const sourcesOf = (run) => [
  ...(run.scene ? run.scene.sources.map((source) => source.name) : []),
  ...(run.plan ? Object.keys(run.plan.sources) : []),
  ...run.traces.flatMap((trace) => trace.sources),
];
const sources = [...new Set(data.runs.flatMap(sourcesOf))];
const colours = new Colours(sources);
const many = data.runs.length > 1;
const DASHES = [null, "7 3", "2 2", "9 3 2 3", "4 4 1 4"];
const measuredOf = (run) => run.traces[run.traces.length - 1];
const predictedOf = (run) => (run.traces.length > 1 ? run.traces[0] : undefined);
const sideBySide = (runs, content) =>
  h("div", { class: runs.length > 1 ? "grid wide" : "" }, runs.map((run) => h("div", {}, many ? h("h3", {}, run.name) : null, content(run))));

function overview() {
  const rows = [];
  const add = (title, value) => {
    const values = data.runs.map(value);
    if (values.some((one) => one !== null && one !== undefined)) rows.push([title, ...values]);
  };
  add("kind", (run) => (run.verdict ? h("span", {}, "validation ", badge(run.verdict.passed, run.verdict.passed ? "passed" : "not passed")) : run.kind));
  add("plan", (run) => run.plan && `${run.plan.status}, by ${run.plan.method} in ${time(run.plan.solve_s)}`);
  add("goal", (run) => run.plan && goalLine(run));
  add("objective (surrogate)", (run) => run.plan && (missing(run.plan.objective) ? "unlimited" : String(Number(run.plan.objective.toPrecision(5)))));
  add("gap to the bound", (run) => run.plan && (run.plan.bound > 0 ? `${(run.plan.gap * 100).toFixed(2)} %` : "no bound"));
  add("costs", (run) => run.plan && run.plan.provenance);
  add("length of the run", (run) => measuredOf(run) && time(measuredOf(run).end_s));
  for (const source of sources) {
    rows.push([named(colours, source), ...data.runs.map((run) => sourceLine(run, source))]);
  }
  return table(["", ...data.runs.map((run) => run.name)], rows);
}
function goalLine(run) {
  const { plan, scene } = run;
  if (plan.goal === "throughput") return `throughput: busiest device or network at ${percent(plan.objective)}`;
  if (plan.goal === "makespan") return `batch done in ${time(plan.objective)}`;
  if (plan.goal === "energy") return `average power ${plain(plan.objective)} W`;
  const weights = new Map((scene?.sources ?? []).map((source) => [source.name, source.priority * (source.rate_per_s ?? 1)]));
  const total = [...weights.values()].reduce((sum, weight) => sum + weight, 0);
  const mean = (value) => Object.entries(plan.sources).reduce((sum, [name, entry]) => sum + (weights.get(name) ?? 0) * (value(entry) ?? 0), 0) / total;
  if (!total) return plan.goal;
  return plan.goal === "misses" ? `${percent(mean((entry) => entry.miss_share))} late, weighted by priority and rate` : `mean delay ${time(mean((entry) => entry.delay_s))}, weighted by priority and rate`;
}
function sourceLine(run, source) {
  const delays = measuredOf(run) && own(measuredOf(run).delays, source);
  const planned = run.plan && own(run.plan.sources, source);
  if (!delays) return planned ? `planned mean ${time(planned.delay_s)}` : "–";
  const lost = delays.failed + delays.dropped;
  const before = predictedOf(run) ? own(predictedOf(run).delays, source)?.mean_s : planned?.delay_s;
  const against = missing(before) || missing(delays.mean_s) ? "" : ` (${predictedOf(run) ? "predicted" : "planned"} ${time(before)}, ${signed(delays.mean_s / before - 1)})`;
  return h("span", {}, `mean ${time(delays.mean_s)}${against}, 95 %: ${time(delays.p95_s)}`, lost ? h("span", { class: "bad" }, `, ${count(lost)} of ${count(delays.completed + lost)} not completed`) : null);
}

function verdictOf(run) {
  const { verdict } = run;
  const list = (title, items) => (items.length ? h("div", {}, h("h3", {}, title), h("ul", { class: "plain" }, items.slice(0, 60).map((item) => h("li", {}, item)))) : null);
  return h(
    "div",
    {},
    table(["check", "", "found", "expected"], verdict.checks.map((check) => [check.name, badge(check.passed, check.passed ? "passed" : "failed"), check.found, check.expected])),
    list("Why delays differ from the prediction", Object.entries(verdict.explanations).filter(([, text]) => text).map(([source, text]) => h("span", {}, named(colours, source), ": ", text))),
    list("Hosts that may have caused a difference", verdict.host_limits),
    list("Faults", verdict.faults),
    list("Incidents", verdict.incidents.map(([at, text]) => `${at.toFixed(2)} s: ${text}`)),
  );
}

function routesOf(run) {
  const specs = run.scene ? run.scene.sources : [];
  const planned = run.plan;
  const busy = new Map((measuredOf(run)?.tracks ?? []).map((track) => [`${track.kind} ${track.name}`, track.busy]));
  const batch = planned && planned.goal === "makespan";
  const workers = (run.scene ? run.scene.workers : []).map((worker) => {
    const use = planned && own(planned.workers, worker.name);
    const measured = busy.get(`worker ${worker.name}`);
    const utilisation = use && !batch ? use.utilisation : measured;
    return {
      name: worker.name, device: worker.device_class, utilisation,
      title: [
        `${worker.name}: ${worker.device_class}${worker.speed === 1 ? "" : `, speed ${digits(worker.speed)}`}`,
        use ? (batch ? `work of the batch: ${time(use.utilisation)}` : `planned utilisation: ${percent(use.utilisation)}`) : null,
        measured === undefined ? null : `busy in the run: ${percent(measured)}`,
        use ? `memory: ${bytes(use.memory_bytes)} of ${bytes(worker.memory_bytes)}` : null,
      ].filter(Boolean).join("\n"),
    };
  });
  const use = (name) => planned && !batch && own(planned.networks, name)?.utilisation;
  const networks = (run.scene ? run.scene.networks : []).map((network) => {
    const own_ = use(network.name);
    const speed = `${bits(network.bandwidth_bytes_per_s)}, ${time(network.latency_s)}`;
    return {
      label: `${network.name} ${bits(network.bandwidth_bytes_per_s)}${missing(own_) ? "" : ` · ${percent(own_)}`}`,
      bad: own_ > 1, members: network.kind === "shared" ? network.members : [],
      links: network.links.map(([a, b]) => {
        const both = [use(`${network.name}:${a}>${b}`), use(`${network.name}:${b}>${a}`)].filter((value) => !missing(value));
        return [a, b, both.length && !Math.max(...both) && network.links.length > 6 ? "" : `${bits(network.bandwidth_bytes_per_s)}${both.length ? ` · ${percent(Math.max(...both))}` : ""}`];
      }),
      title: `${network.name}: ${speed}${missing(own_) ? "" : `\nplanned utilisation: ${percent(own_)}`}`,
    };
  });
  const homes = new Map(specs.map((source) => [source.name, source.home]));
  const rates = new Map(specs.map((source) => [source.name, source.rate_per_s ?? 1]));
  return h("div", {}, mapOf({ workers, networks, homes, plan: planned, rates }, colours), planned ? routesTable(planned, colours, specs) : null);
}

function delaysPart() {
  const runs = data.runs.filter((run) => run.traces.length);
  const panels = sources.filter((source) => runs.some((run) => own(measuredOf(run).delays, source))).map((source) => {
    const lines = [];
    const rows = [];
    runs.forEach((run, index) => {
      const tag = many ? `${run.name}, ` : "";
      for (const trace of [predictedOf(run), measuredOf(run)]) {
        const delays = trace && own(trace.delays, source);
        if (!delays) continue;
        const last = trace === measuredOf(run);
        const text = `${tag}${trace.label}`;
        lines.push({ quantiles: delays.quantiles_s, levels: trace.levels, mean: delays.mean_s, text,
          colour: last ? colours.of(source) : "var(--soft)", width: last ? 2 : 1.5, dash: last ? DASHES[index % DASHES.length] : "5 3" });
        rows.push([text, count(delays.completed), count(delays.failed + delays.dropped), time(delays.mean_s), time(delays.p50_s), time(delays.p95_s), time(delays.p99_s)]);
      }
      const planned = run.plan && own(run.plan.sources, source);
      if (planned && !predictedOf(run)) {
        const levels = [0.5, 0.95, 0.99];
        const known = levels.map((level) => planned[`p${level * 100}_delay_s`]);
        lines.unshift({ quantiles: known.some(missing) ? [] : known, levels, mean: planned.delay_s, text: `${tag}plan`, colour: "var(--soft)", width: 1.5, dash: "5 3" });
      }
      if (planned) rows.push([`${tag}plan`, "", "", time(planned.delay_s), time(planned.p50_delay_s), time(planned.p95_delay_s), time(planned.p99_delay_s)]);
    });
    const deadline = runs.map((run) => run.scene?.sources.find((one) => one.name === source)?.deadline_s).find((value) => !missing(value));
    return h("div", {}, h("h3", {}, named(colours, source)),
      distribution(lines, missing(deadline) ? [] : [{ value: deadline, colour: "var(--alert)", text: `deadline ${time(deadline)}` }]),
      table(["", ">completed", ">lost", ">mean", ">median", ">95 %", ">99 %"], rows));
  });
  return h("div", { class: "grid" }, panels);
}

function queuesOf(run) {
  const measured = measuredOf(run);
  const before = predictedOf(run);
  const rows = measured.queues.map((entry) => {
    const other = before?.queues.find((one) => one.kind === entry.kind && one.name === entry.name);
    const flight = entry.kind === "source";
    return {
      name: flight ? `${entry.name}, in flight` : entry.name,
      title: flight ? `samples of ${entry.name} in flight` : `samples that wait at ${entry.name}`,
      colour: flight ? colours.of(entry.name) : "var(--compute)",
      lines: [...(other ? [{ values: other.values, dash: "4 3", text: before.label }] : []), { values: entry.values, dash: null, text: measured.label }],
      flight,
    };
  }).filter((row) => row.flight || row.lines.some((one) => one.values.some((value) => value > 0.0005)));
  return queuesChart(rows, Math.max(measured.end_s, before?.end_s ?? 0));
}

function profilesPart() {
  const seen = new Map();
  for (const run of data.runs) for (const row of run.profiles) seen.set(JSON.stringify([row.model, row.device_class, row.chain_sha256, row.total_s]), row);
  const rows = [...seen.values()].map((row) => [
    row.model, row.device_class,
    h("span", { class: row.provenance === "measured" ? "good" : "soft" }, row.provenance),
    `${time(row.total_s)}`, count(row.blocks),
    missing(row.error_median) ? "–" : `${percent(row.error_median)} / ${percent(row.error_p95)}`,
    h("details", {}, h("summary", {}, "environment"), h("div", { class: "small" }, Object.entries(row.environment).map(([key, value]) => h("div", {}, `${key}: ${value}`)))),
    h("code", { class: "hash", title: row.chain_sha256 }, row.chain_sha256.slice(0, 12)),
  ]);
  return table(["model", "device class", "costs", ">whole model", ">blocks", ">error, median / 95 %", "", "chain"], rows);
}

function originOf(run) {
  return h("div", {}, run.notes.map((note) => h("p", { class: "small" }, note)), run.command ? h("pre", {}, run.command) : null,
    run.files.length ? h("ul", { class: "plain" }, run.files.map((file) => h("li", {}, file.name, h("br"), h("code", { class: "hash" }, file.sha256)))) : null,
    run.version ? h("p", { class: "small soft" }, `written by planner ${run.version}`) : null);
}

async function timelinesPart() {
  const runs = data.runs.filter((run) => run.traces.some((trace) => trace.slice_count));
  const parts = [];
  for (const run of runs) {
    const traces = await Promise.all(run.traces.map(unpacked));
    const timeline = new Timeline(traces, colours);
    parts.push(h("div", {}, many ? h("h3", {}, run.name) : null, timeline.element));
  }
  return parts;
}

async function main() {
  const having = (test) => data.runs.filter(test);
  const legendOf = () => legend(sources.map((source) => [chip(colours.of(source)), h("b", {}, source)]));
  const parts = [["runs", "Overview", null, [overview()]]];
  const judged = having((run) => run.verdict);
  if (judged.length) parts.push(["verdict", "Verdict and reasons", null, [sideBySide(judged, verdictOf)]]);
  const mapped = having((run) => run.scene);
  if (mapped.length) parts.push(["routes", "Routes", "Arrows carry samples between workers, the thicker the more per second. Point at anything for its figures.", [mapLegend(colours), sideBySide(mapped, routesOf)]]);
  const traced = having((run) => run.traces.length);
  if (traced.length) {
    parts.push(["delays", "Delays", `Share of a source's samples that took no longer than a time; triangles mark means. Grey: ${traced.some(predictedOf) ? "predicted" : "planned"}; in the source's colour: the run${many ? ", with a pattern for each run" : ""}.`, [delaysPart()]]);
    parts.push(["timeline", "Timeline", "Drag to move, + and − or Ctrl + wheel to zoom, drag in the overview to choose a time. A click follows a sample. Numbers are blocks, or cuts of transfers.", [legendOf(), h("div", { id: "timelines" }, h("p", { class: "soft" }, "unpacking …"))]]);
  }
  const legged = having((run) => Object.keys(run.legs).length);
  if (legged.length) parts.push(["legs", "Legs", "Mean time of a source's samples at each stage and transfer; those of a source add up to its mean delay.", legged.map((run) => h("div", {}, many ? h("h3", {}, run.name) : null, legsLegend(run.labels), h("div", { class: "grid" }, Object.entries(run.legs).map(([source, legs]) => h("div", {}, h("h3", {}, named(colours, source)), legsChart(legs, run.labels))))))]);
  if (traced.length) parts.push(["queues", "Queues", `Number of samples that wait at each worker and link, and in flight; the largest is on the right.${traced.some(predictedOf) ? " Dashed grey: predicted." : ""}`, [sideBySide(traced, queuesOf)]]);
  const searched = having((run) => run.plan?.search?.length);
  if (searched.length) parts.push(["bound", "The solver's bound", "Best objective so far and proven bound; the plan is optimal where they meet.", [legend([[chip("var(--ink)"), "best plan"], [chip("var(--send)"), "bound, dashed"]]), sideBySide(searched, (run) => boundChart(run.plan.search))]]);
  if (having((run) => run.profiles.length).length) parts.push(["profiles", "Profiles", "Where the costs come from. The error is that of segments that were not used to make the profile.", [profilesPart()]]);
  parts.push(["origin", "Commands and hashes", "SHA-256 of the files that were read, and of those that a plan refers to.", [sideBySide(data.runs, originOf)]]);
  page.append(h("header", {}, h("h1", {}, data.title), h("span", { class: "soft small" }, `report by planner ${data.version}`)),
    h("nav", { "aria-label": "Parts of the report" }, parts.map(([id, title]) => h("a", { href: `#${id}` }, title))),
    ...parts.map(([id, title, note, content]) => section(id, title, note, content)));
  redraw(true);
  if (traced.length) {
    document.getElementById("timelines").replaceChildren(...(await timelinesPart()));
    redraw(true);
  }
  document.documentElement.dataset.ready = "yes";
}
main().catch((error) => {
  page.prepend(h("p", { class: "bad" }, `This page cannot be drawn completely: ${error.message}`));
  throw error;
});
