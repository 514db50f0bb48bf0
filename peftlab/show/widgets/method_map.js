// The map of methods: a model, a family, a method, and what is known of it.
// `choice` holds the names of the three that are shown.

function render({ model, el }) {
  const families = model.get("families");
  const methods = model.get("methods");
  const models = model.get("models");
  const group = uniqueName("model");
  const radios = models.map((each) => ({
    each,
    input: make("input", {
      type: "radio",
      name: group,
      value: each.name,
      change: () => choose({ model: each.name }),
    }),
  }));
  const plot = numbersPlot(families, methods, models, (method) => choose({ family: method.family, method: method.name }));
  const tabs = families.map((family) => ({
    family,
    button: make(
      "button",
      { type: "button", class: "peftlab-chip", click: () => choose({ family: family.name, method: firstOf(family) }) },
      family.name,
    ),
  }));
  const about = make("div", { class: "peftlab-about" });
  const list = make("div", { class: "peftlab-chips", role: "group", "aria-label": "Methods of this family" });
  const facts = make("div", { class: "peftlab-facts", "aria-live": "polite" });
  let chips = [];
  settle(
    el,
    make("p", { class: "peftlab-kind" }, "The map of methods"),
    make(
      "fieldset",
      {},
      make("legend", {}, "Count for"),
      make(
        "div",
        { class: "peftlab-chips" },
        ...radios.map(({ each, input }) =>
          make("label", { class: "peftlab-choice" }, input, make("span", {}, `${each.name}, ${rounded(each.parameters)}`)),
        ),
      ),
    ),
    plot.element,
    make(
      "fieldset",
      {},
      make("legend", {}, "Family"),
      make("div", { class: "peftlab-chips" }, ...tabs.map((tab) => tab.button)),
      about,
    ),
    make("fieldset", {}, make("legend", {}, "Method"), list, hint(methods)),
    facts,
  );

  function firstOf(family) {
    return methods.find((method) => method.family === family.name).name;
  }

  function choose(change) {
    model.set("choice", { ...model.get("choice"), ...change });
    model.save_changes();
  }

  function show() {
    const choice = model.get("choice");
    const family = families.find((each) => each.name === choice.family);
    const method = methods.find((each) => each.name === choice.method);
    const base = models.find((each) => each.name === choice.model);
    for (const { each, input } of radios) input.checked = each === base;
    for (const tab of tabs) tab.button.setAttribute("aria-pressed", String(tab.family === family));
    if (list.dataset.family !== family.name) {
      list.dataset.family = family.name;
      chips = methods.filter((each) => each.family === family.name).map(chip);
      list.replaceChildren(...chips.map((each) => each.button));
      about.replaceChildren(...described(family));
    }
    for (const each of chips) each.button.setAttribute("aria-pressed", String(each.method === method));
    plot.show(base, method);
    facts.replaceChildren(...told(method, base, model.onStaticPage));
  }

  function chip(method) {
    const look = method.built ? "peftlab-chip" : "peftlab-chip peftlab-planned";
    const button = make(
      "button",
      { type: "button", class: look, click: () => choose({ method: method.name }) },
      method.name,
      ...(method.built ? [] : [make("span", { class: "peftlab-unseen" }, " (not built yet)")]),
    );
    return { method, button };
  }

  model.on("change:choice", show);
  show();
  return () => model.off("change:choice", show);
}

function hint(methods) {
  const planned = methods.filter((method) => !method.built).length;
  return make(
    "p",
    { class: "peftlab-quiet" },
    `${methods.length} methods. The ${planned} with a dashed border are named in the course and not built in its library yet.`,
  );
}

function described(family) {
  return [
    make("p", {}, family.says),
    make("p", {}, make("strong", {}, "In training: "), family.training),
    make("p", {}, make("strong", {}, "At inference: "), family.inference),
  ];
}

// ---- one method -----------------------------------------------------------------------------------------------------

function told(method, base, onStaticPage) {
  const counted = method.counts[base.name];
  const rows = [
    ["formula", make("code", {}, method.formula)],
    ["trains", make("code", {}, method.parameters)],
    [`on ${base.name}`, amount(method, counted, base)],
    ["merges", method.merging],
    ["cost at inference", method.inference],
    ["in peft", method.peft === "none" ? "it has no class for this" : make("code", {}, method.peft)],
    ["lesson", lesson(method.lesson, onStaticPage)],
    ["paper", paper(method)],
  ];
  if (method.atlas && onStaticPage && !inJupyterLab())
    rows.push(["more", make("a", { href: `../atlas.html#${method.atlas}` }, "its card in the method atlas")]);
  return [
    make(
      "p",
      { class: "peftlab-name" },
      make("strong", {}, method.name),
      make("span", { class: "peftlab-badge" }, method.built ? "built in this course" : "not built yet"),
    ),
    make("dl", {}, ...rows.flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)])),
  ];
}

function amount(method, counted, base) {
  if (counted.parameters === null)
    return method.built ? "does not go on this kind of model" : "not counted: it depends on settings, or is not built";
  if (counted.parameters === 0) return "0: this model has none of them";
  const bytes = 4 * counted.parameters;
  const size = bytes < 1e6 ? withUnit(bytes / 1e3, "kB") : bytes < 1e9 ? withUnit(bytes / 1e6, "MB") : withUnit(bytes / 1e9, "GB");
  const where = [counted.places && `on ${counted.places}`, counted.settings].filter(Boolean).join("; ");
  const text = `${counted.parameters.toLocaleString("en")}, ${share(counted.parameters / base.parameters)} of the model; ${size} at 4 bytes each`;
  return where ? `${text} (${where})` : text;
}

function share(value) {
  return `${Number((100 * value).toPrecision(2))}${NARROW_SPACE}%`;
}

function rounded(count) {
  return count < 1e9 ? withUnit(count / 1e6, "million") : withUnit(count / 1e9, "billion");
}

function lesson(found, onStaticPage) {
  if (!found.number) return "none of its own";
  if (!found.file) return `${found.number}, planned`;
  if (onStaticPage && !inJupyterLab()) return make("a", { href: `${found.file}.html` }, found.name);
  return make("span", {}, `${found.name}: open `, make("code", {}, `${found.file}.ipynb`));
}

function paper(method) {
  return make("span", {}, make("a", { href: method.paper }, method.title), `, ${method.year}`);
}

// ---- how many numbers, on a logarithmic axis ------------------------------------------------------------------------

const SHAPES = {
  additive: (x, y, s) => `M${x - s} ${y}a${s} ${s} 0 1 0 ${2 * s} 0a${s} ${s} 0 1 0 ${-2 * s} 0`,
  selective: (x, y, s) => `M${x - s} ${y - s}h${2 * s}v${2 * s}h${-2 * s}z`,
  reparameterisation: (x, y, s) => `M${x} ${y - s * 1.2}l${s * 1.2} ${s * 2.1}h${-2.4 * s}z`,
  hybrid: (x, y, s) => `M${x} ${y - 1.4 * s}l${1.4 * s} ${1.4 * s}l${-1.4 * s} ${1.4 * s}l${-1.4 * s} ${-1.4 * s}z`,
};
const POWERS = { 4: "10⁴", 6: "10⁶", 8: "10⁸", 10: "10¹⁰" };

function numbersPlot(families, methods, models, choose) {
  const [left, right, top, step] = [10, 350, 16, 42];
  const bottom = top + step * families.length;
  const x = (count) => left + ((Math.log10(count) - 3) / 7) * (right - left);
  const y = (family) => top + step * families.findIndex((each) => each.name === family) + 24;
  const dots = draw("g");
  const whole = draw("line", { y1: top, y2: bottom, class: "whole" });
  const wholeLabel = draw("text", { y: top - 4 });
  const here = draw("text", { class: "here-label" });
  const picture = draw(
    "svg",
    { viewBox: `0 0 360 ${bottom + 38}`, role: "img" },
    ...Object.keys(POWERS).map((power) => draw("line", { x1: x(10 ** power), x2: x(10 ** power), y1: top, y2: bottom, class: "grid" })),
    ...families.flatMap((family) => [
      draw("line", { x1: left, x2: right, y1: y(family.name), y2: y(family.name), class: "row" }),
      draw("text", { x: left, y: y(family.name) - 10, class: "end" }, family.name),
    ]),
    draw("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    ...Object.entries(POWERS).map(([power, words]) =>
      draw("text", { x: x(10 ** power), y: bottom + 16, "text-anchor": power === "10" ? "end" : "middle" }, words),
    ),
    draw("text", { x: (left + right) / 2, y: bottom + 33, "text-anchor": "middle" }, "numbers that train"),
    whole,
    wholeLabel,
    dots,
    here,
  );

  function show(base, chosen) {
    const counted = methods.filter((method) => method.counts[base.name].parameters > 0);
    whole.setAttribute("x1", x(base.parameters));
    whole.setAttribute("x2", x(base.parameters));
    wholeLabel.setAttribute("x", x(base.parameters));
    wholeLabel.setAttribute("text-anchor", x(base.parameters) > 260 ? "end" : "middle");
    wholeLabel.textContent = `all of ${base.name}`;
    const last = counted.filter((method) => method !== chosen);
    if (counted.includes(chosen)) last.push(chosen); // on top
    dots.replaceChildren(
      ...last.map((method) => {
        const size = method === chosen ? 7 : 4.5;
        const place = [x(method.counts[base.name].parameters), y(method.family), size];
        const look = `dot ${method.family}${method === chosen ? " chosen" : ""}`;
        return draw(
          "path",
          { d: SHAPES[method.family](...place), class: look, click: () => choose(method) },
          draw("title", {}, method.name),
        );
      }),
    );
    const count = chosen.counts[base.name].parameters;
    here.textContent = count > 0 ? chosen.name : "";
    if (count > 0) {
      here.setAttribute("x", Math.min(300, Math.max(60, x(count))));
      here.setAttribute("y", y(chosen.family) + 18);
      here.setAttribute("text-anchor", "middle");
    }
    picture.setAttribute("aria-label", spoken(base, counted, chosen, families));
  }

  return { element: make("figure", { class: "peftlab-numbers" }, picture), show };
}

function spoken(base, counted, chosen, families) {
  const ranges = families.map((family) => {
    const counts = counted.filter((each) => each.family === family.name).map((each) => each.counts[base.name].parameters);
    if (counts.length === 0) return `${family.name}: none counted`;
    return `${family.name}: ${number(Math.min(...counts))} to ${number(Math.max(...counts))}`;
  });
  const own = chosen.counts[base.name].parameters;
  const chosenWords = own > 0 ? ` ${chosen.name}: ${number(own)}.` : "";
  return `How many numbers train on ${base.name}, of ${number(base.parameters)}. ${ranges.join("; ")}.${chosenWords}`;
}

export default { render };
