// Building blocks: elements, numbers with units, colours, the tooltip. Names from files become text nodes only.

const SVG = "http://www.w3.org/2000/svg";
const own = (object, key) => (object && Object.hasOwn(object, key) ? object[key] : undefined);

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(node.style, value);
    else node.setAttribute(key, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function digits(value, count = 3) {
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  return size >= count - 1 ? Math.round(value).toLocaleString("en-US") : value.toFixed(Math.min(count - 1 - size, 12));
}
function scaled(value, units, step) {
  let index = 0;
  while (index + 1 < units.length && Math.abs(value) >= step * 0.9995) {
    value /= step;
    index += 1;
  }
  return `${plain(value)} ${units[index]}`;
}
const plain = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(3))));
const missing = (value) => value === null || value === undefined || Number.isNaN(value);
function time(seconds) {
  if (missing(seconds)) return "–";
  if (!Number.isFinite(seconds)) return "∞";
  if (seconds === 0) return "0 s";
  const size = Math.abs(seconds);
  if (size >= 120) return `${digits(seconds / 60)} min`;
  if (size >= 0.9995) return `${digits(seconds)} s`;
  return size >= 0.9995e-3 ? `${digits(seconds * 1e3)} ms` : `${digits(seconds * 1e6)} µs`;
}
const bytes = (value) => (missing(value) ? "–" : scaled(value, ["B", "KiB", "MiB", "GiB", "TiB"], 1024));
const bits = (value) => (missing(value) ? "–" : scaled(value * 8, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"], 1000));
const rate = (value) => (missing(value) ? "–" : `${plain(value)} /s`);
const percent = (value) => (missing(value) ? "–" : `${(value * 100).toFixed(1)} %`);
const signed = (value) => (missing(value) ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value * 100).toFixed(1)} %`);
const count = (value) => (missing(value) ? "–" : value.toLocaleString("en-US"));
const clipped = (text, length) => (text.length > length ? `${text.slice(0, Math.max(length - 1, 1))}…` : text);

// One meaning for each colour: a hue is a source; computing, sending and waiting are shades of grey; red is a fault.
class Colours {
  constructor(sources) {
    this.places = new Map(sources.map((name, index) => [name, index % 6]));
  }
  name(source) {
    const place = this.places.get(source);
    return place === undefined ? "--soft" : `--s${place}`;
  }
  of(source) {
    return `var(${this.name(source)})`;
  }
  value(source) {
    return css(this.name(source));
  }
}
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const chip = (colour) => h("span", { class: "chip", style: { background: colour } });
const named = (colours, source) => h("span", { class: "name" }, chip(colours.of(source)), source);
const badge = (good, text) => h("span", { class: `badge ${good ? "good" : "bad"}` }, text);

function table(head, rows) {
  const cell = (tag, value, index) =>
    h(tag, { class: head[index].startsWith(">") ? "num" : null }, value instanceof Node ? value : String(value ?? "–"));
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, head.map((title, index) => cell("th", title.replace(/^>/, ""), index)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((value, index) => cell("td", value, index))))),
    ),
  );
}
const stats = (pairs) => h("div", { class: "stats" }, pairs.map(([title, value]) => h("div", {}, h("span", {}, title), value)));
function section(id, title, note, ...content) {
  return h("section", { id }, h("h2", {}, title), note ? h("p", { class: "note" }, note) : null, content);
}
function legend(entries) {
  return h("div", { class: "legend" }, entries.map(([mark, text]) => h("span", {}, mark, text)));
}

const tip = document.getElementById("tip");
function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 14 + width > innerWidth ? event.clientX - 14 - width : event.clientX + 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 4))}px`;
}
function hideTip() {
  tip.hidden = true;
}
function withTip(node, text) {
  node.addEventListener("pointermove", (event) => showTip(event, text));
  node.addEventListener("pointerleave", hideTip);
  return node;
}

// Drawings know their width in pixels, so that text keeps its size; they are drawn again when that or the theme changes.
const drawings = [];
function drawn(draw) {
  const box = h("div", { class: "drawing" });
  drawings.push({ box, draw, width: 0 });
  return box;
}
function redraw(all) {
  for (const entry of drawings) {
    const width = Math.floor(entry.box.clientWidth);
    if (width && (all || width !== entry.width)) {
      entry.width = width;
      entry.draw(entry.box, width);
    }
  }
}
addEventListener("resize", () => requestAnimationFrame(() => redraw(false)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(true));

function ticks(low, high, most) {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) found.push(index * step);
  return found;
}
// Labels of an axis in one unit, with just as many decimals as tell them apart.
function timeAxis(high, low = 0) {
  const [unit, factor] = high - low < 0.9995e-3 && high < 0.1 ? ["µs", 1e6] : high < 0.9995 ? ["ms", 1e3] : ["s", 1];
  return {
    unit,
    label: (value, step) => {
      const decimals = Math.max(0, Math.ceil(-Math.log10(Math.max(step * factor, 1e-12)) - 1e-9));
      return (value * factor).toFixed(Math.min(decimals, 9));
    },
  };
}
const line = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
