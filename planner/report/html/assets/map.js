// The map: workers, the networks between them, and the routes of each source.

const CARD = { width: 158, height: 62 };
const ARRIVALS = 12; // room for the marks of arriving samples, left of a card

// Where the cards of workers lie: on an ellipse, or, where many or little room, in staggered columns.
function places(count, width) {
  const { width: w, height: t } = CARD;
  if (width < 620 || count > 10) {
    const columns = Math.max(1, Math.floor((width + 60) / (w + 60)));
    const used = Math.max(1, Math.min(columns, count));
    const pitch = used > 1 ? (width - w - ARRIVALS) / (used - 1) : 0;
    const points = Array.from({ length: count }, (_, index) => {
      const column = index % used;
      const x = used > 1 ? ARRIVALS + w / 2 + column * pitch : width / 2;
      return [x, 20 + t / 2 + Math.floor(index / used) * (t + 66) + (used > 1 && column % 2 ? 44 : 0)];
    });
    return { points, height: Math.max(...points.map((point) => point[1]), t) + t / 2 + 26 };
  }
  const height = count < 3 ? 130 : Math.max(260, 110 + 42 * count);
  const [rx, ry] = [Math.min((width - w) / 2 - 4, 150 + 55 * count), height / 2 - t / 2 - 24];
  return {
    points: Array.from({ length: count }, (_, index) => {
      const angle = Math.PI + (2 * Math.PI * index) / Math.max(count, 1);
      return count === 1 ? [width / 2, height / 2] : [width / 2 + rx * Math.cos(angle), height / 2 + ry * Math.sin(angle)];
    }),
    height,
  };
}

// The point where a line from a card's middle leaves the card.
function edge([x, y], [toX, toY]) {
  const [dx, dy] = [toX - x, toY - y];
  const part = Math.min(
    (CARD.width / 2 + 3) / Math.max(Math.abs(dx), 1e-9), (CARD.height / 2 + 3) / Math.max(Math.abs(dy), 1e-9), 1,
  );
  return [x + dx * part, y + dy * part];
}

// The transfers of a plan: for each source and pair of workers the share of its samples that are sent.
function hops(plan, homes) {
  const found = new Map();
  for (const [source, entry] of Object.entries(plan ? plan.sources : {})) {
    for (const route of entry.routes) {
      const home = homes.get(source) ?? route.stages[0].worker;
      const stops = [home, ...route.stages.map((stage) => stage.worker), home];
      for (let index = 1; index < stops.length; index += 1) {
        if (stops[index] === stops[index - 1]) continue;
        const key = JSON.stringify([source, stops[index - 1], stops[index]]);
        found.set(key, (found.get(key) ?? 0) + route.share);
      }
    }
  }
  return [...found].map(([key, share]) => [...JSON.parse(key), share]);
}

function routeText(stages) {
  return stages
    .map((stage) => `${stage.worker}: ${stage.first_block === stage.last_block ? stage.first_block : `${stage.first_block}–${stage.last_block}`}`)
    .join(" → ");
}

/* scene: {workers: [{name, device, utilisation, memory, memoryOf, present, queue, title}], networks: [{name, label,
   members, links, title}], homes: Map, plan, rates: Map} */
function mapOf(scene, colours) {
  return drawn((box, width) => {
    const { points, height } = places(scene.workers.length, width);
    const at = new Map(scene.workers.map((worker, index) => [worker.name, points[index]]));
    const root = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Map of workers, networks and routes" });
    const labels = drawNetworks(root, scene.networks, at, [width / 2, height / 2]);
    drawRoutes(root, scene, at, colours);
    scene.workers.forEach((worker, index) => drawCard(root, worker, points[index], scene, colours));
    drawLabels(root, labels, points, height);
    box.replaceChildren(root);
  });
}

function drawNetworks(root, networks, at, centre) {
  const faint = { stroke: "var(--faint)", "stroke-width": 5, fill: "none", "stroke-linecap": "round" };
  const labels = [];
  networks.forEach((network, number) => {
    const members = network.members.filter((name) => at.has(name)).map((name) => at.get(name));
    if (members.length) {
      const mean = (axis) => members.reduce((sum, point) => sum + point[axis], 0) / members.length;
      const hub = networks.length === 1 ? [mean(0), mean(1)] : [mean(0) * 0.7 + centre[0] * 0.3, mean(1) + (number - (networks.length - 1) / 2) * 30];
      for (const point of members) root.append(s("path", { ...faint, d: line([hub, point]) }));
      labels.push([hub, network]);
    }
    for (const [a, b, text] of network.links) {
      if (!at.has(a) || !at.has(b)) continue;
      const [from, to] = [at.get(a), at.get(b)];
      root.append(s("path", { ...faint, d: line([from, to]) }));
      if (text !== "") labels.push([[(from[0] + to[0]) / 2, (from[1] + to[1]) / 2], { ...network, label: text ?? network.label }]);
    }
  });
  return labels;
}

// The height nearest to y at which a label lies on no card; y if there is none.
function besideCards(x, y, half, points, height) {
  const onCard = (at) => points.some((point) => Math.abs(point[0] - x) < CARD.width / 2 + half && Math.abs(point[1] - at) < CARD.height / 2 + 11);
  for (let off = 0; off < height; off += 4) {
    for (const at of [y + off, y - off]) if (at > 10 && at < height - 10 && !onCard(at)) return at;
  }
  return y;
}

function drawLabels(root, labels, points, height) {
  for (const [[x, middle], network] of labels) {
    const text = clipped(network.label, 34);
    const half = text.length * 3.1 + 8;
    const y = besideCards(x, middle, half, points, height);
    const group = s(
      "g",
      {},
      s("rect", { x: x - half, y: y - 9, width: 2 * half, height: 18, rx: 9, fill: "var(--bg)", stroke: "var(--faint)" }),
      s("text", { x, y: y + 4, "text-anchor": "middle", class: network.bad ? "t-bad" : "t-soft" }, text),
    );
    root.append(withTip(group, network.title));
  }
}

function drawRoutes(root, scene, at, colours) {
  const sent = hops(scene.plan, scene.homes).filter(([, from, to]) => at.has(from) && at.has(to));
  const flow = ([source, , , share]) => share * (scene.rates.get(source) ?? 1);
  const most = Math.max(...sent.map(flow), 1e-9);
  const seen = new Map();
  for (const hop of sent) {
    const [source, from, to, share] = hop;
    const pair = JSON.stringify([from, to]);
    const lane = seen.get(pair) ?? 0;
    seen.set(pair, lane + 1);
    const [a, b] = [at.get(from), at.get(to)];
    const length = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1;
    const off = 18 + 15 * lane; // to the right of the direction, so that the way back lies on the other side
    const middle = [(a[0] + b[0]) / 2 - ((b[1] - a[1]) / length) * off, (a[1] + b[1]) / 2 + ((b[0] - a[0]) / length) * off];
    const [start, end] = [edge(a, middle), edge(b, middle)];
    const colour = colours.of(source);
    const angle = Math.atan2(end[1] - middle[1], end[0] - middle[0]);
    const thick = 1.2 + 3.2 * Math.sqrt(flow(hop) / most);
    const tail = [end[0] - 8 * Math.cos(angle), end[1] - 8 * Math.sin(angle)];
    const wing = (side) => [tail[0] - side * 5 * Math.sin(angle), tail[1] + side * 5 * Math.cos(angle)];
    const group = s(
      "g",
      {},
      s("path", {
        d: `M${start[0]} ${start[1]}Q${middle[0]} ${middle[1]} ${tail[0]} ${tail[1]}`,
        fill: "none", stroke: colour, "stroke-width": thick.toFixed(1),
      }),
      s("path", { d: `${line([end, wing(1), wing(-1)])}Z`, fill: colour }),
    );
    root.append(withTip(group, `${source}: ${percent(share)} of its samples go from ${from} to ${to}`));
  }
}

function drawCard(root, worker, [x, y], scene, colours) {
  const [left, top] = [x - CARD.width / 2, y - CARD.height / 2];
  const gone = worker.present === false;
  const over = worker.utilisation > 1;
  const group = s(
    "g",
    {},
    s("rect", {
      x: left, y: top, width: CARD.width, height: CARD.height, rx: 5, fill: "var(--panel)",
      stroke: gone ? "var(--alert)" : "var(--send)", "stroke-dasharray": gone ? "4 3" : null,
    }),
    s("text", { x: left + 9, y: top + 18, class: "t-bold" }, clipped(worker.name, 15)),
    s("text", { x: left + 9, y: top + 33, class: gone ? "t-bad" : "t-soft" }, gone ? "left" : clipped(worker.device ?? "", 23)),
  );
  const load = Math.min(Math.max(worker.utilisation ?? 0, 0), 1);
  const width = CARD.width - 66;
  group.append(
    s("rect", { x: left + 9, y: top + 43, width, height: 7, fill: "var(--faint)" }),
    s("rect", { x: left + 9, y: top + 43, width: width * load, height: 7, fill: over ? "var(--alert)" : "var(--compute)" }),
    s(
      "text",
      { x: left + CARD.width - 8, y: top + 50, "text-anchor": "end", class: over ? "t-bad" : null },
      missing(worker.utilisation) ? "–" : worker.load ?? percent(worker.utilisation),
    ),
  );
  let mark = left + CARD.width - 9;
  for (const [source, entry] of Object.entries(scene.plan ? scene.plan.sources : {})) {
    if (!entry.routes.some((route) => route.stages.some((stage) => stage.worker === worker.name))) continue;
    group.append(s("rect", { x: mark - 9, y: top + 9, width: 9, height: 9, rx: 2, fill: colours.of(source) }));
    mark -= 12;
    if (mark < left + CARD.width - 60) break;
  }
  let arrival = top + 12;
  for (const [source, home] of scene.homes) {
    if (home !== worker.name || arrival > top + CARD.height - 6) continue;
    const tipX = left - 2;
    group.append(s("path", { d: `${line([[tipX, arrival], [tipX - 9, arrival - 5], [tipX - 9, arrival + 5]])}Z`, fill: colours.of(source) }));
    arrival += 13;
  }
  if (!missing(worker.queue) && worker.queue > 0) {
    group.append(s("text", { x: left + CARD.width - 8, y: top + 33, "text-anchor": "end" }, `${count(worker.queue)} waiting`));
  }
  root.append(withTip(group, worker.title));
}

function routesTable(plan, colours, sources) {
  const rows = [];
  for (const [name, entry] of Object.entries(plan.sources)) {
    const spec = sources.find((source) => source.name === name);
    entry.routes.forEach((route, index) => {
      const first = index === 0;
      rows.push([
        first ? named(colours, name) : "",
        first && spec ? plain(spec.priority) : "",
        first && spec && !missing(spec.rate_per_s) ? rate(spec.rate_per_s) : "",
        percent(route.share),
        h("span", { class: "route" }, routeText(route.stages)),
        route.model,
        first ? time(entry.delay_s) : "",
      ]);
    });
  }
  return table(["source", ">priority", ">rate", ">share", "route (worker: blocks)", "model", ">mean delay"], rows);
}
const mapLegend = (colours) =>
  legend([
    ...[...colours.places.keys()].map((name) => [chip(colours.of(name)), h("b", {}, name)]),
    [s("svg", { width: 12, height: 10, class: "mark", viewBox: "0 0 12 10" }, s("path", { d: "M11 5L1 0L1 10Z", fill: "var(--soft)" })), "samples arrive here"],
    [h("span", { class: "chip", style: { background: "var(--soft)" } }), "runs blocks of the source"],
    [h("span", { class: "chip", style: { background: "var(--compute)" } }), "utilisation"],
  ]);
