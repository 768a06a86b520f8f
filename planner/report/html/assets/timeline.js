// The timeline: slices of workers and links on canvases that share one zoomable window of time.

const LABELS = 118;
const LANE = 16;
const MAX_LANES = 4;

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new DataView(await new Response(stream).arrayBuffer());
}
// Columns lie one after the other, little-endian; some hold the steps from one value to the next.
function reader(view) {
  let offset = 0;
  const read = (count, size, steps) => {
    const column = size === 4 ? new Uint32Array(count) : new Uint16Array(count);
    let sum = 0;
    for (let index = 0; index < count; index += 1, offset += size) {
      const value = size === 4 ? view.getUint32(offset, true) : view.getUint16(offset, true);
      sum = steps ? (sum + value) >>> 0 : value;
      column[index] = sum;
    }
    return column;
  };
  return read;
}
async function unpacked(trace) {
  const read = reader(await inflate(trace.slices));
  const n = trace.slice_count;
  const [sample, start, length, size] = [read(n, 4, true), read(n, 4, true), read(n, 4, false), read(n, 4, false)];
  const [track, source, first, last] = [read(n, 2), read(n, 2), read(n, 2), read(n, 2)];
  const ended = reader(await inflate(trace.samples));
  const m = trace.sample_count;
  const samples = { created: ended(m, 4, true), delay: ended(m, 4, false), source: ended(m, 2), status: ended(m, 2) };
  const rows = trace.tracks.map(() => []);
  for (let index = 0; index < n; index += 1) rows[track[index]].push(index);
  const lane = new Uint8Array(n);
  const lanes = rows.map((indices) => {
    const free = [];
    for (const index of indices) {
      let found = free.findIndex((until) => until <= start[index] + 1);
      if (found < 0) found = Math.min(free.length, MAX_LANES - 1);
      free[found] = start[index] + length[index];
      lane[index] = found;
    }
    return Math.max(free.length, 1);
  });
  const longest = rows.map((indices) => indices.reduce((most, index) => Math.max(most, length[index]), 0));
  return { ...trace, sample, start, length, size, track, source, first, last, samples, rows: rows.map((row) => Uint32Array.from(row)), lane, lanes, longest };
}

// The mean number of samples in flight in each of equal parts of the run, for the overview.
function inFlight(data, parts) {
  const [mean, change] = [new Float64Array(parts + 1), new Float64Array(parts + 2)];
  const { created, delay } = data.samples;
  const scale = (data.tick_s * parts) / (data.end_s || 1);
  for (let index = 0; index < created.length; index += 1) {
    const [from, to] = [created[index] * scale, Math.min((created[index] + delay[index]) * scale, parts)];
    const [first, last] = [Math.floor(from), Math.floor(to)];
    if (first === last) {
      mean[first] += to - from;
    } else {
      mean[first] += first + 1 - from;
      mean[last] += to - last;
      change[first + 1] += 1;
      change[last] -= 1;
    }
  }
  let whole = 0;
  return Array.from({ length: parts }, (_, part) => mean[part] + (whole += change[part]));
}
function canvasOf(height) {
  const canvas = h("canvas", { tabindex: 0 });
  return { canvas, size: (width) => {
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  } };
}

class Timeline {
  constructor(traces, colours) {
    this.traces = traces;
    this.colours = colours;
    this.end = Math.max(...traces.map((trace) => trace.end_s), 1e-6);
    this.chosen = null;
    const main = traces[traces.length - 1];
    const means = Object.values(main.delays).map((delays) => delays.mean_s).filter((value) => !missing(value));
    const mean = means.length ? Math.max(...means) : this.end;
    const flight = inFlight(main, 400);
    const length = Math.min(this.end, 30 * mean);
    const peak = (flight.indexOf(Math.max(...flight)) / 400) * main.end_s;
    const from = Math.max(0, Math.min(peak - length / 2, this.end - length));
    this.view = [from, from + length];
    this.readout = h("span", { class: "soft" });
    this.element = h("div", {}, this.controls(), this.overview(), traces.map((trace) => this.panel(trace)));
  }
  controls() {
    const button = (text, label, act) => h("button", { type: "button", "aria-label": label, onclick: act }, text);
    return h(
      "div",
      { class: "bar" },
      button("+", "zoom in", () => this.zoom(0.5)),
      button("−", "zoom out", () => this.zoom(2)),
      button("◀", "earlier", () => this.move(-0.5)),
      button("▶", "later", () => this.move(0.5)),
      button("whole run", "show the whole run", () => this.show(0, this.end)),
      this.readout,
    );
  }
  show(from, to) {
    const length = Math.min(Math.max(to - from, 20e-6), this.end);
    const start = Math.max(0, Math.min(from, this.end - length));
    this.view = [start, start + length];
    if (!this.pending) this.pending = requestAnimationFrame(() => {
      this.pending = null;
      this.draw();
    });
  }
  span() {
    const [from, to] = this.view;
    const axis = timeAxis(to, from);
    const text = (value) => axis.label(value, (to - from) / 100);
    return `${text(from)} to ${text(to)} ${axis.unit}, of ${time(this.end)}`;
  }
  zoom(factor, centre = (this.view[0] + this.view[1]) / 2) {
    this.show(centre - (centre - this.view[0]) * factor, centre + (this.view[1] - centre) * factor);
  }
  move(part) {
    const by = (this.view[1] - this.view[0]) * part;
    this.show(this.view[0] + by, this.view[1] + by);
  }
  draw() {
    this.readout.textContent = this.span();
    for (const paint of this.paints ?? []) paint();
  }
  overview() {
    const height = 40;
    const { canvas, size } = canvasOf(height);
    canvas.setAttribute("aria-label", "Overview: number of samples in flight; drag to choose what is shown");
    canvas.className = "overview";
    const main = this.traces[this.traces.length - 1];
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return ((event.clientX - box.left - LABELS) / Math.max(box.width - LABELS, 1)) * this.end;
    };
    let from = null;
    canvas.addEventListener("pointerdown", (event) => {
      from = at(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = at(event);
      if (Math.abs(to - from) > this.end / 200) this.show(Math.min(from, to), Math.max(from, to));
    });
    canvas.addEventListener("pointerup", (event) => {
      if (from !== null && Math.abs(at(event) - from) <= this.end / 200) {
        const half = (this.view[1] - this.view[0]) / 2;
        this.show(from - half, from + half);
      }
      from = null;
    });
    const box = drawn((_, width) => {
      const parts = Math.max(Math.min(Math.floor(width - LABELS), 800), 1);
      const flight = inFlight(main, parts);
      const most = Math.max(...flight, 1e-9);
      const paint = () => {
        const context = size(width);
        const scale = (width - LABELS) / this.end;
        context.fillStyle = css("--wash");
        context.fillRect(LABELS, 0, width - LABELS, height);
        context.fillStyle = css("--send");
        const wide = (main.end_s * scale) / parts;
        flight.forEach((value, index) => context.fillRect(LABELS + index * wide, height - (value / most) * (height - 4), Math.max(wide, 0.6), (value / most) * (height - 4)));
        context.fillStyle = css("--soft");
        context.font = "11px system-ui, sans-serif";
        context.fillText(`in flight, ≤ ${digits(most, 2)}`, 0, 24);
        const [a, b] = this.view.map((value) => LABELS + value * scale);
        context.strokeStyle = css("--focus");
        context.lineWidth = 2;
        context.strokeRect(a + 1, 1, Math.max(b - a - 2, 2), height - 2);
      };
      this.register(canvas, paint);
    });
    box.append(canvas);
    return box;
  }
  register(canvas, paint) {
    this.paints = [...(this.paints ?? []).filter((entry) => entry.canvas !== canvas), Object.assign(paint, { canvas })];
    paint();
    this.readout.textContent = this.span();
  }
  panel(trace) {
    const tops = [];
    let height = 20;
    for (const lanes of trace.lanes) {
      tops.push(height);
      height += Math.max(lanes * LANE * (lanes > 1 ? 0.75 : 1), LANE) + 6;
    }
    const { canvas, size } = canvasOf(height + 2);
    canvas.setAttribute("aria-label", `Timeline, ${trace.label}`);
    this.listen(canvas, trace, tops);
    const box = drawn((_, width) => this.register(canvas, () => paintTimeline(size(width), width, height, this, trace, tops)));
    box.append(canvas);
    const cut = trace.shown_s < trace.end_s ? h("p", { class: "note" }, `The timeline holds the first ${time(trace.shown_s)} of ${time(trace.end_s)}; all other figures are of the whole run.`) : null;
    return h("div", {}, this.traces.length > 1 ? h("h3", {}, trace.label) : null, cut, h("div", { class: "tracks" }, box));
  }
  hit(event, canvas, trace, tops) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const at = this.view[0] + ((x - LABELS) / Math.max(box.width - LABELS, 1)) * (this.view[1] - this.view[0]);
    const row = tops.findLastIndex((top) => y >= top);
    if (row < 0 || x < LABELS) return { at };
    const reach = ((this.view[1] - this.view[0]) / Math.max(box.width - LABELS, 1)) * 2;
    const lane = Math.floor((y - tops[row]) / laneHeight(trace.lanes[row]));
    let best = null;
    const indices = trace.rows[row];
    for (let place = firstFrom(trace, row, at - reach); place < indices.length; place += 1) {
      const index = indices[place];
      const [start, end] = [trace.start[index] * trace.tick_s, (trace.start[index] + trace.length[index]) * trace.tick_s];
      if (start > at + reach) break;
      if (end < at - reach || (trace.lanes[row] > 1 && trace.lane[index] !== lane)) continue;
      const distance = at < start ? start - at : at > end ? at - end : 0;
      if (!best || distance < best.distance) best = { index, distance };
    }
    return { at, index: best ? best.index : undefined, row };
  }
  listen(canvas, trace, tops) {
    const pointers = new Map();
    let drag = null;
    let moved = false;
    const span = () => (this.view[1] - this.view[0]) / Math.max(canvas.clientWidth - LABELS, 1);
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey && document.activeElement !== canvas) return;
      event.preventDefault();
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.move(event.deltaX / 600);
      else this.zoom(1.0015 ** event.deltaY, this.hit(event, canvas, trace, tops).at);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, event.clientX);
      drag = { x: event.clientX, view: this.view, apart: apart(pointers) };
      moved = false;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!pointers.has(event.pointerId)) return this.tell(event, canvas, trace, tops);
      pointers.set(event.pointerId, event.clientX);
      if (pointers.size > 1) {
        const factor = drag.apart / Math.max(apart(pointers), 1);
        const centre = (drag.view[0] + drag.view[1]) / 2;
        this.show(centre - (centre - drag.view[0]) * factor, centre + (drag.view[1] - centre) * factor);
        moved = true;
      } else if (Math.abs(event.clientX - drag.x) > 3) {
        const by = (drag.x - event.clientX) * span();
        this.show(drag.view[0] + by, drag.view[1] + by);
        moved = true;
      }
      return undefined;
    });
    canvas.addEventListener("pointerup", (event) => {
      pointers.delete(event.pointerId);
      if (moved) return;
      const { index } = this.hit(event, canvas, trace, tops);
      this.chosen = index === undefined ? null : { source: trace.sources[trace.source[index]], sample: trace.sample[index] };
      this.draw();
    });
    canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", hideTip);
    canvas.addEventListener("dblclick", (event) => this.zoom(0.4, this.hit(event, canvas, trace, tops).at));
    canvas.addEventListener("keydown", (event) => {
      const act = { ArrowLeft: () => this.move(-0.25), ArrowRight: () => this.move(0.25), "+": () => this.zoom(0.6), "-": () => this.zoom(1.6), Home: () => this.show(0, this.end), Escape: () => { this.chosen = null; this.draw(); } }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
  }
  tell(event, canvas, trace, tops) {
    const { index, row } = this.hit(event, canvas, trace, tops);
    if (index === undefined) return hideTip();
    const worker = trace.tracks[row].kind === "worker";
    const [first, last] = [trace.first[index], trace.last[index]];
    const what = worker ? (first === last ? `block ${first}` : `blocks ${first}–${last}`) : `cut ${first}, ${bytes(trace.size[index])}`;
    const from = trace.start[index] * trace.tick_s;
    return showTip(event, `${trace.sources[trace.source[index]]}, sample ${trace.sample[index]}\n${trace.tracks[row].name}: ${what}\n${time(trace.length[index] * trace.tick_s)}, from ${from.toFixed(4)} s`);
  }
}
function apart(pointers) {
  const [a, b] = pointers.values();
  return b === undefined ? 1 : Math.abs(a - b);
}
const laneHeight = (lanes) => (lanes > 1 ? LANE * 0.75 : LANE);
// The place in a row of the first slice that may reach beyond a time.
function firstFrom(trace, row, from) {
  const indices = trace.rows[row];
  const limit = from / trace.tick_s - trace.longest[row];
  let [low, high] = [0, indices.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (trace.start[indices[middle]] < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

function paintTimeline(context, width, height, timeline, trace, tops) {
  const [from, to] = timeline.view;
  const scale = (width - LABELS) / (to - from);
  const x = (seconds) => LABELS + (seconds - from) * scale;
  context.clearRect(0, 0, width, height + 2);
  context.font = "11px system-ui, sans-serif";
  const axis = timeAxis(to, from);
  const marks = ticks(from, to, (width - LABELS) / 90);
  const step = marks.length > 1 ? marks[1] - marks[0] : to - from;
  for (const mark of marks) {
    context.fillStyle = css("--faint");
    context.fillRect(x(mark), 14, 1, height - 14);
    context.fillStyle = css("--soft");
    const text = `${axis.label(mark, step)}${mark === marks[marks.length - 1] ? ` ${axis.unit}` : ""}`;
    const half = context.measureText(text).width / 2;
    context.fillText(text, Math.min(Math.max(x(mark) - half, LABELS), width - 2 * half), 10);
  }
  const colours = trace.sources.map((source) => timeline.colours.value(source));
  const chosen = timeline.chosen;
  const path = [];
  trace.tracks.forEach((track, row) => {
    const tall = laneHeight(trace.lanes[row]);
    const full = Math.max(trace.lanes[row] * tall, LANE);
    context.fillStyle = css("--wash");
    context.fillRect(LABELS, tops[row], width - LABELS, full);
    context.fillStyle = css(track.kind === "worker" ? "--ink" : "--soft");
    context.fillText(fitted(context, track.name, LABELS - 8), 0, tops[row] + full / 2 + 4);
    paintRow(context, { width, from, to, scale, x, tall, colours, chosen, path, top: tops[row] }, trace, row);
  });
  paintPath(context, path);
}
function fitted(context, text, room) {
  let kept = text;
  while (kept.length > 1 && context.measureText(kept === text ? kept : `${kept}…`).width > room) kept = kept.slice(0, -1);
  return kept === text ? text : `${kept}…`;
}
// Slices thinner than a pixel share their column by the time that each source takes of it.
function paintRow(context, look, trace, row) {
  const thin = Array.from({ length: trace.lanes[row] }, () => ({ column: -1, busy: new Float32Array(trace.sources.length), any: false }));
  const flush = (lane) => {
    const bin = thin[lane];
    if (!bin.any) return;
    let top = look.top + (lane + 1) * look.tall;
    bin.busy.forEach((busy, source) => {
      if (!busy) return;
      const tall = Math.max(Math.min(busy, 1) * (look.tall - 1), 0.5);
      context.fillStyle = look.colours[source];
      context.fillRect(look.x(look.from) + bin.column, top - tall, 1, tall);
      top -= tall;
      bin.busy[source] = 0;
    });
    bin.any = false;
  };
  context.globalAlpha = look.chosen ? 0.25 : 1;
  const indices = trace.rows[row];
  for (let place = firstFrom(trace, row, look.from); place < indices.length; place += 1) {
    const index = indices[place];
    const start = trace.start[index] * trace.tick_s;
    if (start > look.to) break;
    const long = trace.length[index] * trace.tick_s;
    if (start + long < look.from) continue;
    const source = trace.source[index];
    const lane = Math.min(trace.lane[index], trace.lanes[row] - 1);
    const picked = look.chosen && trace.sample[index] === look.chosen.sample && trace.sources[source] === look.chosen.source;
    const wide = long * look.scale;
    if (picked) look.path.push({ x: look.x(start), end: look.x(start + long), y: look.top + lane * look.tall, tall: look.tall, colour: look.colours[source] });
    if (wide < 1.5) {
      const column = Math.floor(look.x(start) - look.x(look.from));
      if (column !== thin[lane].column) flush(lane);
      thin[lane].column = column;
      thin[lane].busy[source] += wide;
      thin[lane].any = true;
      continue;
    }
    const left = Math.max(look.x(start), LABELS);
    const room = Math.min(look.x(start + long), look.width) - left;
    context.fillStyle = look.colours[source];
    context.fillRect(left, look.top + lane * look.tall, Math.max(room - (wide > 4 ? 1 : 0), 0.5), look.tall - 1);
    const [first, last] = [trace.first[index], trace.last[index]];
    const text = first === last ? `${first}` : `${first}–${last}`;
    if (look.tall > 10 && room > 8 + 7 * text.length) {
      context.fillStyle = contrast(look.colours[source]);
      context.fillText(text, left + room / 2 - context.measureText(text).width / 2, look.top + lane * look.tall + look.tall / 2 + 3.5);
    }
  }
  thin.forEach((_, lane) => flush(lane));
  context.globalAlpha = 1;
}
function contrast(colour) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000000" : "#ffffff";
}
// The way of the chosen sample, from slice to slice.
function paintPath(context, path) {
  path.sort((a, b) => a.x - b.x);
  path.forEach((slice, index) => {
    context.fillStyle = slice.colour;
    context.fillRect(Math.max(slice.x, LABELS), slice.y, Math.max(slice.end - Math.max(slice.x, LABELS), 2), slice.tall - 1);
    const next = path[index + 1];
    if (!next || next.x < LABELS) return;
    context.strokeStyle = css("--ink");
    context.lineWidth = 1.2;
    context.beginPath();
    context.moveTo(Math.max(slice.end, LABELS), slice.y + slice.tall / 2);
    context.lineTo(next.x, next.y + next.tall / 2);
    context.stroke();
  });
}
