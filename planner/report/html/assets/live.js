// The live page: asks for the state each second and draws what changed since.

const settings = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const KEPT = 600;
const history = new Map();
let colours = new Colours([]);
let known = "";
let misses = 0;

const title = h("h1", {}, "planner");
const health = h("span", { class: "soft small" }, "connecting …");
const parts = Object.fromEntries(["map", "delays", "links", "incidents", "changes"].map((name) => [name, h("div", {})]));
const mapBox = { scene: { workers: [], networks: [], homes: new Map(), rates: new Map(), plan: null } };
const clock = (unix) => new Date(unix * 1000).toLocaleTimeString("en-GB");

function keep(state) {
  for (const [name, source] of Object.entries(state.sources ?? {})) {
    const points = history.get(name) ?? [];
    const newest = points.length ? points[points.length - 1][0] : -Infinity;
    for (const [end, delay] of source.recent ?? []) if (end > newest) points.push([end, delay]);
    points.splice(0, Math.max(0, points.length - KEPT));
    history.set(name, points);
  }
}

function sceneOf(state) {
  const { plan, scene } = state;
  const given = new Map((scene?.workers ?? []).map((worker) => [worker.name, worker]));
  const names = [...new Set([...given.keys(), ...Object.keys(plan?.workers ?? {}), ...Object.keys(state.workers ?? {})])];
  const workers = names.map((name) => {
    const live = own(state.workers, name) ?? {};
    const planned = plan && own(plan.workers, name);
    const device = live.device ?? given.get(name)?.device_class ?? "";
    const sensed = [
      missing(live.temperature_celsius) ? "" : `${live.temperature_celsius.toFixed(0)} °C`, missing(live.power_w) ? "" : `${plain(live.power_w)} W`,
    ].filter(Boolean).join(" · ");
    const both = [device, sensed].filter(Boolean).join(" · ");
    return {
      name, device: both.length <= 23 ? both : sensed || device, utilisation: live.utilisation, present: live.present, queue: live.queue,
      title: [
        `${name}${live.present === false ? ": left" : ""}`,
        `utilisation now: ${percent(live.utilisation)}${planned && plan.goal !== "makespan" ? `, planned ${percent(planned.utilisation)}` : ""}`,
        `waiting: ${count(live.queue)}, blocks done: ${count(live.blocks_done)}`,
        [device, sensed].filter(Boolean).join(", "),
      ].filter(Boolean).join("\n"),
    };
  });
  return { workers, networks: scene ? scene.networks.map((network) => networkOf(network, state)) : linksOf(state), plan,
    homes: new Map((scene?.sources ?? []).map((source) => [source.name, source.home])),
    rates: new Map(Object.entries(state.sources ?? {}).map(([name, source]) => [name, source.rate_per_s ?? 1])) };
}
function networkOf(network, state) {
  const speed = (a, b) => [own(state.links, `${a}->${b}`), own(state.links, `${b}->${a}`)].map((link) => link?.bandwidth_bytes_per_s).filter((value) => !missing(value));
  return { label: `${network.name} ${bits(network.bandwidth_bytes_per_s)}`, members: network.kind === "shared" ? network.members : [], title: `${network.name}: ${bits(network.bandwidth_bytes_per_s)} in the scenario`,
    links: network.links.map(([a, b]) => [a, b, bits(Math.max(...speed(a, b), speed(a, b).length ? 0 : network.bandwidth_bytes_per_s))]) };
}
// Without a scene, the links on which something was sent.
function linksOf(state) {
  const pairs = new Map();
  for (const [name, link] of Object.entries(state.links ?? {})) {
    const [a, b] = name.split("->");
    const key = JSON.stringify([a, b].sort());
    const before = pairs.get(key);
    pairs.set(key, missing(link.bandwidth_bytes_per_s) ? before ?? null : Math.max(link.bandwidth_bytes_per_s, before ?? 0));
  }
  return [...pairs].map(([key, speed]) => ({ label: bits(speed), members: [], links: [[...JSON.parse(key), bits(speed)]], title: `measured: ${bits(speed)}` }));
}

function sourcesPart(state) {
  return h("div", { class: "grid" }, Object.entries(state.sources ?? {}).map(([name, source]) => {
    const points = history.get(name) ?? [];
    const predicted = source.predicted_mean_delay_s;
    const delay = source.delay_s ?? {};
    const ratio = missing(predicted) || missing(delay.mean) ? null : delay.mean / predicted - 1;
    return h("div", {}, h("h3", {}, named(colours, name)),
      h("p", { class: "small" }, `mean ${time(delay.mean)}`, h("span", { class: ratio > 0.15 ? "bad" : "soft" }, ` (predicted ${time(predicted)}${missing(ratio) ? "" : `, ${signed(ratio)}`})`)),
      scatter(points, predicted, colours.of(name), state.now_unix_s),
      stats([["rate", rate(source.rate_per_s)], ["completed", count(source.completed)], ["failed", count(source.failed)], ["dropped", count(source.dropped)],
        ["in flight", count(source.waiting)], ["median", time(delay.p50)], ["95 %", time(delay.p95)], ["99 %", time(delay.p99)]]));
  }));
}
const SPAN = 60;
function scatter(points, predicted, colour, now) {
  return drawn((box, width) => {
    const height = 170;
    const shown = points.filter(([end]) => end >= now - SPAN);
    const sorted = shown.map((point) => point[1]).sort((a, b) => a - b);
    const high = 1.1 * Math.max(sorted[Math.floor(sorted.length * 0.99)] ?? 0, predicted ?? 0, 1e-3);
    const [unit, yTicks] = timeTicks(high, 4);
    const { root, scaleX, scaleY } = frame(width, height, { x: [-SPAN, 0], y: [0, high], xLabel: "seconds ago", yLabel: `delay [${unit}]`, xTicks: [-60, -45, -30, -15, 0].map((value) => [value, `${-value}`]), yTicks });
    for (const [end, delay] of shown) root.append(s("circle", { cx: scaleX(Math.min(end - now, 0)), cy: scaleY(Math.min(delay, high)), r: 2, fill: colour, opacity: 0.75 }));
    if (!missing(predicted)) root.append(withTip(s("line", { x1: PAD.left, x2: width - PAD.right, y1: scaleY(predicted), y2: scaleY(predicted), stroke: "var(--soft)", "stroke-width": 1.5, "stroke-dasharray": "5 3" }), `predicted mean: ${time(predicted)}`));
    box.replaceChildren(root);
  });
}
const events = (items, none) => (items.length ? h("ul", { class: "events" }, items) : h("p", { class: "soft" }, none));

function show(state) {
  keep(state);
  const names = Object.keys(state.sources ?? {});
  const all = JSON.stringify(names);
  if (all !== known) {
    known = all;
    colours = new Colours([...new Set([...(state.scene?.sources ?? []).map((source) => source.name), ...Object.keys(state.plan?.sources ?? {}), ...names])]);
  }
  document.title = state.name ?? "planner";
  title.textContent = state.name ?? "planner";
  const up = missing(state.started_unix_s) ? null : state.now_unix_s - state.started_unix_s;
  const absent = Object.entries(state.workers ?? {}).filter(([, worker]) => worker.present === false).map(([name]) => name);
  health.className = absent.length ? "bad small" : "soft small";
  health.textContent = `up for ${time(up)}, at ${clock(state.now_unix_s)}${absent.length ? `; left: ${absent.join(", ")}` : ""}`;
  hideTip();
  drawings.splice(0, drawings.length);
  const specs = (state.scene?.sources ?? []).map((source) => ({ ...source }));
  parts.map.replaceChildren(mapLegend(colours), mapOf(sceneOf(state), colours), state.plan ? routesTable(state.plan, colours, specs) : h("p", { class: "soft" }, "no plan"));
  parts.delays.replaceChildren(sourcesPart(state));
  const links = Object.entries(state.links ?? {});
  parts.links.replaceChildren(links.length ? table(["link", ">sent", ">bandwidth", ">measured, ago"], links.map(([name, link]) => [h("span", { class: "name" }, name.replace("->", " → ")), bytes(link.bytes), bits(link.bandwidth_bytes_per_s), time(link.age_s)])) : h("p", { class: "soft" }, "nothing was sent yet"));
  const bad = new Set(["error", "critical", "warning"]);
  parts.incidents.replaceChildren(events([...(state.incidents ?? [])].reverse().map((entry) => h("li", {}, h("span", { class: "soft" }, clock(entry.unix_s)), h("span", { class: bad.has(entry.severity) ? "bad" : "" }, entry.text))), "none so far"));
  parts.changes.replaceChildren(events([...(state.changes ?? [])].reverse().map((entry) => h("li", {}, h("span", { class: "soft" }, clock(entry.unix_s)), h("span", {}, entry.lines.map((text) => h("div", {}, text))))), "the plan has not changed"));
  redraw(true);
}

async function poll() {
  try {
    const answer = await fetch("state", { cache: "no-store" });
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    show(await answer.json());
    misses = 0;
    page.classList.remove("stale");
  } catch (error) {
    misses += 1;
    page.classList.toggle("stale", misses > 2);
    health.className = "bad small";
    health.textContent = `no answer (${error.message}); trying again`;
  }
  document.documentElement.dataset.ready = "yes";
  setTimeout(poll, settings.refresh_s * 1000);
}

page.append(h("header", {}, title, health),
  section("map", "Now", null, parts.map),
  section("delays", "Delays", "Samples of the last minute; the dashed line is the mean that the plan predicts.", parts.delays),
  h("div", { class: "grid wide events" },
    section("changes", "Changes of the plan", null, parts.changes),
    section("incidents", "Incidents", null, parts.incidents)),
  section("links", "Links", null, parts.links));
poll();
