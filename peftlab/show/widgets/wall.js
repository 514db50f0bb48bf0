// The memory wall: a model, a way of training and a memory; does a step fit, and by how much?
// `choice` holds what is chosen; `lines` what Python worked out: bytes = fixed + each · tokens, moment by moment and
// part by part.

const GIB = 2 ** 30;
const GROUPS = [
  { key: "weights", name: "weights", parts: ["weights", "adapters"] },
  { key: "gradients", name: "gradients", parts: ["gradients"] },
  { key: "states", name: "optimiser states", parts: ["optimiser states"] },
  { key: "activations", name: "activations and logits", parts: ["activations", "logits and loss"] },
  { key: "rest", name: "working space", parts: ["working space", "library workspace"] },
];
const WHEN = {
  loss: "while the loss is computed",
  "last block": "as the backward pass enters the last block",
  "first block": "as the backward pass reaches the first block",
  "end of backward": "at the end of the backward pass",
  step: "while the optimiser works",
};

function render({ model, el }) {
  const [models, methods, lines, stops] = ["models", "methods", "lines", "stops"].map((name) => model.get(name));
  const parts = model.get("parts");
  const grouped = (bytes) =>
    GROUPS.map((group) => ({ group, bytes: sum(group.parts.map((part) => bytes[parts.indexOf(part)])) }));
  const picture = barsPicture(methods, grouped);
  const name = make("select", { ...KEEPS_ITS_KEYS, change: () => choose({ model: name.value }) });
  for (const each of models)
    name.append(make("option", { value: each.name }, `${each.title}, ${rounded(each.parameters)}`));
  const ways = radios("Trained how", methods.map((each) => [each.name, each.name]), (method) => choose({ method }));
  const memories = radios(
    "Memory",
    stops.memory.map((gib) => [gib, withUnit(gib, "GiB")]),
    (memory) => choose({ memory }),
  );
  const again = make("input", { type: "checkbox", change: () => choose({ checkpointing: again.checked }) });
  const batch = slider("texts in a batch", stops.batch, (value) => choose({ batch: value }));
  const sequence = slider("tokens in a text", stops.sequence, (value) => choose({ sequence: value }));
  const says = make("p", { class: "peftlab-quiet" });
  const verdict = make("div", { class: "peftlab-verdict", "aria-live": "polite" });
  const table = make("div", {});
  settle(
    el,
    make("p", { class: "peftlab-kind" }, "The memory wall"),
    make("fieldset", {}, make("legend", {}, "Model"), make("label", {}, make("span", { hidden: true }, "model "), name)),
    ways.element,
    says,
    memories.element,
    make(
      "fieldset",
      {},
      make("legend", {}, "A step"),
      make("div", { class: "peftlab-sliders" }, ...batch.elements, ...sequence.elements),
      make(
        "div",
        { class: "peftlab-chips" },
        make("label", { class: "peftlab-choice" }, again, make("span", {}, "gradient checkpointing")),
      ),
    ),
    verdict,
    picture.element,
    table,
    make("p", { class: "peftlab-quiet" }, assumptions(model.get("reserve"))),
  );

  function choose(change) {
    model.set("choice", { ...model.get("choice"), ...change });
    model.save_changes();
  }

  function show() {
    const choice = model.get("choice");
    const base = models.find((each) => each.name === choice.model);
    const tokens = choice.batch * choice.sequence;
    const limit = (choice.memory - model.get("reserve")) * GIB;
    const candidates = (method) => lines[base.name][method][choice.checkpointing ? 1 : 0];
    const peaks = methods.map((method) => ({ method, ...peak(candidates(method.name), tokens) }));
    const chosen = peaks.find((each) => each.method.name === choice.method);
    name.value = base.name;
    name.setAttribute("aria-label", "model");
    ways.show(choice.method);
    memories.show(choice.memory);
    again.checked = choice.checkpointing;
    batch.show(choice.batch);
    sequence.show(choice.sequence);
    says.textContent = `${chosen.method.name}: ${chosen.method.says}.`;
    const most = mostTokens(candidates(choice.method), limit);
    verdict.dataset.fits = chosen.total <= limit ? "yes" : "no";
    verdict.replaceChildren(...told(chosen, limit, choice, tokens, most, base));
    picture.show(peaks, choice, limit);
    table.replaceChildren(partsTable(chosen, grouped, picture.swatch));
  }

  model.on("change:choice", show);
  show();
  return () => model.off("change:choice", show);
}

// ---- the arithmetic -------------------------------------------------------------------------------------------------

// The moment at which a step of so many tokens needs most, and its bytes part by part.
function peak(candidates, tokens) {
  let highest = { total: -1 };
  for (const [moment, fixed, each] of candidates) {
    const bytes = fixed.map((size, part) => size + each[part] * tokens);
    const total = sum(bytes);
    if (total > highest.total) highest = { moment, bytes, total };
  }
  return highest;
}

function mostTokens(candidates, limit) {
  let most = Infinity;
  for (const [, fixed, each] of candidates) {
    if (sum(fixed) > limit) return 0;
    if (sum(each) > 0) most = Math.min(most, Math.floor((limit - sum(fixed)) / sum(each)));
  }
  return most;
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

// ---- in words -------------------------------------------------------------------------------------------------------

function told(chosen, limit, choice, tokens, most, base) {
  const over = chosen.total - limit;
  const found = over <= 0 ? "✓ Fits" : "✗ Does not fit";
  const gap = over <= 0 ? `${gib(-over)} to spare` : `${gib(over)} too much`;
  const said = [
    make(
      "p",
      {},
      make("strong", {}, found),
      `: the step needs ${gib(chosen.total)}, ${gap}. The peak comes ${WHEN[chosen.moment]}.`,
    ),
    make("p", {}, roomFor(most, tokens), ` Kept on disk for one task: ${stored(base.kept[choice.method])}.`),
  ];
  if (choice.sequence > base.positions)
    said.push(make("p", {}, `(${base.title} is made for texts of up to ${number(base.positions)} tokens.)`));
  return said;
}

function roomFor(most, tokens) {
  if (most === 0) return "Not even a step of one token would fit.";
  return `Room for steps of up to about ${Number(most.toPrecision(2)).toLocaleString("en")} tokens; this one has ${number(tokens)}.`;
}

function assumptions(reserve) {
  return (
    `Predicted from the model's config alone: AdamW in one fused kernel, fused attention, no padding, one GPU. ` +
    `${withUnit(reserve, "GiB")} is kept back for driver, context and fragments. The wall in the figure stands there.`
  );
}

function gib(bytes) {
  return withUnit(bytes / GIB, "GiB");
}

function stored(bytes) {
  return bytes < 1e9 ? withUnit(bytes / 1e6, "MB") : withUnit(bytes / 1e9, "GB");
}

function rounded(count) {
  return count < 1e9 ? withUnit(count / 1e6, "million") : withUnit(count / 1e9, "billion");
}

function partsTable(chosen, grouped, swatch) {
  const rows = grouped(chosen.bytes).map(({ group, bytes }) =>
    make("tr", {}, make("td", {}, swatch(group), group.name), make("td", { class: "amount" }, gib(bytes))),
  );
  const last = make(
    "tr",
    { class: "sum" },
    make("td", {}, "sum"),
    make("td", { class: "amount" }, gib(chosen.total)),
  );
  return make("table", { class: "peftlab-parts" }, make("tbody", {}, ...rows, last));
}

// ---- controls -------------------------------------------------------------------------------------------------------

function radios(legend, options, choose) {
  const group = uniqueName("wall");
  const inputs = options.map(([value, words]) => ({
    value,
    words,
    input: make("input", { type: "radio", name: group, value, change: () => choose(value) }),
  }));
  const element = make(
    "fieldset",
    {},
    make("legend", {}, legend),
    make(
      "div",
      { class: "peftlab-chips" },
      ...inputs.map(({ input, words }) => make("label", { class: "peftlab-choice" }, input, make("span", {}, words))),
    ),
  );
  const show = (chosen) => {
    for (const { value, input } of inputs) input.checked = value === chosen;
  };
  return { element, show };
}

function slider(words, values, choose) {
  const shown = make("output", {});
  const range = make("input", {
    type: "range",
    min: 0,
    max: values.length - 1,
    step: 1,
    "aria-label": words,
    input: () => choose(values[Number(range.value)]),
  });
  const show = (value) => {
    range.value = values.indexOf(value);
    range.setAttribute("aria-valuetext", number(value));
    shown.textContent = number(value);
  };
  return { elements: [make("span", { "aria-hidden": "true" }, words), range, shown], show };
}

// ---- the bars -------------------------------------------------------------------------------------------------------

// From zero to twice the wall; a longer bar is torn off there.
function barsPicture(methods, grouped) {
  const [left, right, top, step, thick] = [10, 350, 34, 50, 18];
  const bottom = top + methods.length * step;
  const wall = (left + right) / 2;
  const fills = patterns();
  const bars = draw("g", {});
  const ticks = draw("g", {});
  const picture = draw(
    "svg",
    { viewBox: `0 0 360 ${bottom + 40}`, role: "img" },
    fills.element,
    ticks,
    draw("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    bars,
    draw("line", { x1: wall, x2: wall, y1: top - 8, y2: bottom, class: "wall" }),
  );

  function show(peaks, choice, limit) {
    const x = (bytes) => left + (bytes / limit) * (wall - left);
    bars.replaceChildren(...peaks.flatMap((each, row) => bar(each, row, choice, x)));
    const label = draw("text", { x: wall, y: top - 16, "text-anchor": "middle", class: "chosen" });
    label.textContent = `the wall: ${number(choice.memory)} GiB, less ${number(choice.memory - limit / GIB)}`;
    ticks.replaceChildren(
      label,
      ...[0, 0.5, 1, 1.5, 2].flatMap((share) => [
        draw("line", { x1: x(share * limit), x2: x(share * limit), y1: top - 4, y2: bottom, class: "grid" }),
        tick(x(share * limit), (share * limit) / GIB, share),
      ]),
      draw("text", { x: wall, y: bottom + 34, "text-anchor": "middle", class: "end" }, "GiB at the peak of a step"),
    );
    const found = peaks.map((each) => `${each.method.name} ${gib(each.total)}, ${each.total <= limit ? "fits" : "does not fit"}`);
    picture.setAttribute("aria-label", `Memory at the peak, against a wall at ${gib(limit)}: ${found.join("; ")}.`);
  }

  function tick(x, value, share) {
    const anchor = share === 0 ? "start" : share === 2 ? "end" : "middle";
    return draw("text", { x, y: bottom + 16, "text-anchor": anchor }, number(value));
  }

  function bar(each, row, choice, x) {
    const y = top + row * step + 22;
    const words = draw("text", { x: left, y: y - 6, class: each.method.name === choice.method ? "chosen" : "" });
    words.textContent = `${each.method.name}: ${gib(each.total)}`;
    const shapes = [words];
    let from = 0;
    for (const { group, bytes } of grouped(each.bytes)) {
      const [start, end] = [x(from), x(from + bytes)].map((place) => Math.min(place, right));
      from += bytes;
      if (end - start < 0.05) continue;
      const size = { x: start, y, width: end - start, height: thick };
      shapes.push(draw("rect", { ...size, class: group.key, fill: fills.of(group) }));
    }
    const end = Math.min(x(from), right);
    if (x(from) > right) shapes.push(draw("path", { class: "torn", d: `M${end} ${y - 2}l-4 5l6 5l-6 5l6 5l-3 4` }));
    else shapes.push(draw("rect", { x: left, y, width: Math.max(end - left, 0.5), height: thick, class: "frame" }));
    return shapes;
  }

  const swatch = (group) =>
    draw(
      "svg",
      { viewBox: "0 0 32 18", "aria-hidden": "true" },
      draw("rect", { x: 0.5, y: 0.5, width: 31, height: 17, class: group.key, fill: fills.of(group) }),
      draw("rect", { x: 0.5, y: 0.5, width: 31, height: 17, class: "frame" }),
    );
  return { element: make("figure", { class: "peftlab-bars" }, picture), show, swatch };
}

// A plain fill for the weights, and a pattern for each of the others.
function patterns() {
  const marks = {
    gradients: "M0 6L6 0M-1 1L1 -1M5 7L7 5",
    states: "M0 3H6",
    activations: "M0 0L6 6M-1 5L1 7M5 -1L7 1M0 6L6 0",
    rest: "M3 0V6",
  };
  const names = Object.fromEntries(Object.keys(marks).map((key) => [key, uniqueName(`fill-${key}`)]));
  const element = draw(
    "defs",
    {},
    ...Object.entries(marks).map(([key, d]) =>
      draw(
        "pattern",
        { id: names[key], width: 6, height: 6, patternUnits: "userSpaceOnUse", class: key },
        draw("rect", { width: 6, height: 6, fill: "currentColor" }),
        draw("path", { d, stroke: "#ffffff", "stroke-width": 1.2, "stroke-opacity": 0.75, fill: "none" }),
      ),
    ),
  );
  return { element, of: (group) => (names[group.key] ? `url(#${names[group.key]})` : "currentColor") };
}

export default { render, peak, mostTokens };
