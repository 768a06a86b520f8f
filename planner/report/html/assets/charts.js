// Delays as distributions, legs, queues and the bound over time.

const PAD = { left: 46, right: 12, top: 8, bottom: 34 };

// The frame of a chart: axes with ticks, labels with units; returns the drawing and the two scales.
function frame(width, height, { x, y, xLabel, yLabel, xTicks, yTicks }) {
  const scaleX = (value) => PAD.left + ((value - x[0]) / (x[1] - x[0] || 1)) * (width - PAD.left - PAD.right);
  const scaleY = (value) => height - PAD.bottom - ((value - y[0]) / (y[1] - y[0] || 1)) * (height - PAD.top - PAD.bottom);
  const root = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const [value, label] of yTicks) {
    root.append(
      s("line", { x1: PAD.left, x2: width - PAD.right, y1: scaleY(value), y2: scaleY(value), stroke: "var(--faint)" }),
      s("text", { x: PAD.left - 6, y: scaleY(value) + 4, "text-anchor": "end", class: "t-soft" }, label),
    );
  }
  for (const [value, label] of xTicks) {
    root.append(
      s("line", { x1: scaleX(value), x2: scaleX(value), y1: height - PAD.bottom, y2: height - PAD.bottom + 4, stroke: "var(--soft)" }),
      s("text", { x: scaleX(value), y: height - PAD.bottom + 15, "text-anchor": "middle", class: "t-soft" }, label),
    );
  }
  root.append(
    s("line", { x1: PAD.left, x2: width - PAD.right, y1: scaleY(y[0]), y2: scaleY(y[0]), stroke: "var(--soft)" }),
    s("text", { x: (PAD.left + width - PAD.right) / 2, y: height - 4, "text-anchor": "middle", class: "t-soft" }, xLabel),
    s("text", { x: 11, y: (height - PAD.bottom + PAD.top) / 2, "text-anchor": "middle", class: "t-soft", transform: `rotate(-90 11 ${(height - PAD.bottom + PAD.top) / 2})` }, yLabel),
  );
  return { root, scaleX, scaleY };
}
function timeTicks(high, most) {
  const axis = timeAxis(high);
  const at = ticks(0, high, most);
  const step = at.length > 1 ? at[1] - at[0] : high;
  return [axis.unit, at.map((value) => [value, axis.label(value, step)])];
}

/* lines: [{quantiles, levels, colour, dash, width, text, mean}], marks: [{value, text, colour}] */
function distribution(lines, marks) {
  return drawn((box, width) => {
    const height = 210;
    const shown = lines.filter((entry) => entry.quantiles.length);
    const near = (entry) => entry.quantiles[entry.levels.findIndex((level) => level >= 0.99)];
    const high = 1.05 * Math.max(...shown.map(near), ...marks.map((mark) => mark.value), ...lines.map((entry) => entry.mean ?? 0), 1e-6);
    const [unit, xTicks] = timeTicks(high, width / 80);
    const { root, scaleX, scaleY } = frame(width, height, {
      x: [0, high], y: [0, 1], xLabel: `delay [${unit}]`, yLabel: "share of samples [%]", xTicks,
      yTicks: [0, 0.25, 0.5, 0.75, 1].map((value) => [value, `${value * 100}`]),
    });
    for (const { value, colour, text } of marks) {
      root.append(
        withTip(s("line", { x1: scaleX(value), x2: scaleX(value), y1: PAD.top, y2: height - PAD.bottom, stroke: colour, "stroke-width": 1.5, "stroke-dasharray": "2 3" }), text),
        s("text", { x: scaleX(value) - 4, y: PAD.top + 10, "text-anchor": "end", class: "t-bad" }, text),
      );
    }
    for (const entry of lines) {
      const points = entry.quantiles.map((value, index) => [Math.min(value, high), entry.levels[index]]);
      const last = points.findIndex(([value]) => value >= high);
      const kept = (last < 0 ? points : points.slice(0, last + 1)).map(([value, level]) => [scaleX(value), scaleY(level)]);
      const style = { fill: "none", stroke: entry.colour, "stroke-width": entry.width, "stroke-dasharray": entry.dash };
      if (kept.length) root.append(withTip(s("path", { ...style, d: line(kept) }), entry.text));
      if (!missing(entry.mean) && entry.mean <= high) {
        const x = scaleX(entry.mean);
        root.append(withTip(s("path", { d: `M${x} ${height - PAD.bottom}l-4 -8h8Z`, fill: entry.colour }), `mean, ${entry.text}: ${time(entry.mean)}`));
      }
    }
    root.append(hover(width, height, (x) => {
      const value = ((x - PAD.left) / (width - PAD.left - PAD.right)) * high;
      const below = ({ quantiles, levels }) => levels[quantiles.filter((quantile) => quantile <= value).length - 1] ?? 0;
      return value < 0 ? "" : `${time(value)} or less\n${shown.map((entry) => `${entry.text}: ${percent(below(entry))}`).join("\n")}`;
    }));
    box.replaceChildren(root);
  });
}
function hover(width, height, text) {
  const area = s("rect", { x: PAD.left, y: PAD.top, width: Math.max(width - PAD.left - PAD.right, 1), height: height - PAD.top - PAD.bottom, fill: "transparent" });
  area.addEventListener("pointermove", (event) => {
    const said = text(event.clientX - area.ownerSVGElement.getBoundingClientRect().left);
    if (said) showTip(event, said);
  });
  area.addEventListener("pointerleave", hideTip);
  return area;
}

const MAX_LEGS = 14;
function legsChart(legs, labels) {
  const total = (pair) => (pair ? pair[0] + pair[1] : 0);
  const most = (leg) => Math.max(total(leg.predicted), total(leg.measured));
  const ranked = [...legs].sort((a, b) => most(b) - most(a)).slice(0, MAX_LEGS);
  const shown = legs.filter((leg) => ranked.includes(leg) && most(leg) > 0);
  return drawn((box, width) => {
    const [left, right, row] = [Math.min(190, width * 0.4), 84, 34];
    const height = shown.length * row + 36;
    const high = Math.max(...shown.map(most), 1e-6) * 1.02;
    const x = (value) => left + (value / high) * (width - left - right);
    const root = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    const [unit, marks] = timeTicks(high, (width - left - right) / 70);
    for (const [value, label] of marks) {
      root.append(
        s("line", { x1: x(value), x2: x(value), y1: 0, y2: height - 34, stroke: "var(--faint)" }),
        s("text", { x: x(value), y: height - 20, "text-anchor": "middle", class: "t-soft" }, label),
      );
    }
    root.append(s("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle", class: "t-soft" }, `mean time of a sample [${unit}]`));
    shown.forEach((leg, index) => {
      const top = index * row + 4;
      const group = s("g", {}, s("text", { x: left - 8, y: top + 17, "text-anchor": "end" }, clipped(leg.place, Math.floor(left / 6.4))));
      const bars = [[leg.predicted, top, 5], [leg.measured, top + 7, 13]].filter(([pair]) => pair);
      for (const [[wait, work], y, tall] of bars) {
        group.append(
          s("rect", { x: x(0), y, width: Math.max(x(wait) - x(0), 0), height: tall, fill: "var(--wait)" }),
          s("rect", { x: x(wait), y, width: Math.max(x(wait + work) - x(wait), 0.5), height: tall, fill: leg.transfer ? "var(--send)" : "var(--compute)" }),
        );
      }
      if (leg.predicted && leg.measured) {
        const difference = total(leg.measured) - total(leg.predicted);
        group.append(s("text", { x: x(most(leg)) + 6, y: top + 16, class: "t-soft" }, `${difference < 0 ? "−" : "+"}${time(Math.abs(difference))}`));
      }
      const said = (name, pair) => (pair ? `\n${name}: waiting ${time(pair[0])}, ${leg.transfer ? "sending" : "computing"} ${time(pair[1])}` : "");
      root.append(withTip(group, `${leg.place}${said(labels[0], leg.predicted)}${said(labels[1], leg.measured)}`));
    });
    box.replaceChildren(root);
  });
}
const legsLegend = (labels) =>
  legend([
    [chip("var(--compute)"), "computing"], [chip("var(--send)"), "sending"], [chip("var(--wait)"), "waiting"],
    ["", `above, thin: ${labels[0]}; below: ${labels[1]}`],
  ]);

/* rows: [{name, kind, colour, lines: [{values, dash, text}]}], each with the same number of parts of the run */
function queuesChart(rows, end) {
  return drawn((box, width) => {
    const [left, right, row] = [Math.min(150, width * 0.36), 52, 36];
    const height = rows.length * row + 36;
    const root = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    const x = (part) => left + part * (width - left - right);
    const [unit, marks] = timeTicks(end, (width - left - right) / 70);
    for (const [value, label] of marks) {
      root.append(
        s("line", { x1: x(value / end), x2: x(value / end), y1: 0, y2: height - 34, stroke: "var(--faint)" }),
        s("text", { x: x(value / end), y: height - 20, "text-anchor": "middle", class: "t-soft" }, label),
      );
    }
    root.append(s("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle", class: "t-soft" }, `time since the start of the run [${unit}]`));
    rows.forEach((entry, index) => {
      const [base, high] = [index * row + row - 4, Math.max(...entry.lines.flatMap((one) => one.values), 1e-3)];
      const group = s(
        "g",
        {},
        s("text", { x: left - 8, y: base - 10, "text-anchor": "end" }, clipped(entry.name, Math.floor(left / 6.4))),
        s("text", { x: width - right + 6, y: base - 18, class: "t-soft" }, digits(high, 2)),
        s("text", { x: width - right + 6, y: base, class: "t-soft" }, "0"),
        s("line", { x1: left, x2: width - right, y1: base, y2: base, stroke: "var(--faint)" }),
      );
      entry.lines.forEach(({ values, dash }, order) => {
        const points = values.map((value, place) => [x((place + 0.5) / values.length), base - (value / high) * (row - 9)]);
        const first = order === entry.lines.length - 1;
        if (first) group.append(s("path", { d: `${line([[x(0), base], ...points, [x(1), base]])}Z`, fill: entry.colour, opacity: 0.22 }));
        group.append(s("path", { d: line(points), fill: "none", stroke: first ? entry.colour : "var(--soft)", "stroke-width": 1.2, "stroke-dasharray": dash }));
      });
      const mean = ({ values, text }) => `${text}: ${digits(values.reduce((sum, value) => sum + value, 0) / values.length)} on average`;
      root.append(withTip(group, `${entry.title}\n${entry.lines.map(mean).join("\n")}`));
    });
    box.replaceChildren(root);
  });
}

function boundChart(steps) {
  return drawn((box, width) => {
    const height = 200;
    const end = Math.max(steps[steps.length - 1][0], 1e-3);
    const start = steps[0][0];
    const margin = Math.max((end - start) * 0.06, end * 0.01);
    const [low, high] = [Math.max(0, start - margin), end + margin];
    const objectives = steps.map((step) => step[1]).filter((value) => value !== null);
    const values = [...objectives, ...steps.map((step) => step[2])];
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const room = (most - least || Math.abs(most) || 1) * 0.06;
    const yAt = ticks(least - room, most + room, 5);
    const gap = yAt.length > 1 ? yAt[1] - yAt[0] : 1;
    const decimals = Math.max(0, Math.min(9, Math.ceil(-Math.log10(gap) - 1e-9)));
    const axis = timeAxis(high, low);
    const xAt = ticks(low, high, width / 90);
    const { root, scaleX, scaleY } = frame(width, height, {
      x: [low, high], y: [least - room, most + room], xLabel: `time since the start of the search [${axis.unit}]`, yLabel: "objective",
      xTicks: xAt.map((value) => [value, axis.label(value, xAt.length > 1 ? xAt[1] - xAt[0] : value)]),
      yTicks: yAt.map((value) => [value, Math.abs(value) >= 1e5 ? value.toExponential(1) : value.toFixed(decimals)]),
    });
    const stepped = (column) => {
      const points = [];
      for (const step of steps) {
        if (step[column] === null) continue;
        if (points.length) points.push([scaleX(step[0]), points[points.length - 1][1]]);
        points.push([scaleX(step[0]), scaleY(step[column])]);
      }
      if (points.length) points.push([scaleX(high), points[points.length - 1][1]]);
      return points;
    };
    for (const [column, colour, dash, text] of [[1, "var(--ink)", null, "best plan"], [2, "var(--send)", "5 3", "bound"]]) {
      const points = stepped(column);
      if (points.length) root.append(withTip(s("path", { d: line(points), fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }), text));
      for (const step of steps.length < 30 ? steps : []) {
        if (step[column] !== null) root.append(withTip(s("circle", { cx: scaleX(step[0]), cy: scaleY(step[column]), r: 3, fill: colour }), `${text} after ${time(step[0])}: ${step[column].toPrecision(6)}`));
      }
    }
    box.replaceChildren(root);
  });
}
