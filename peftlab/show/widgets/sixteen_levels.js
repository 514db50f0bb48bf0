// Place 16 levels over the histogram of a real matrix. Step 1: drag them and watch the error. Step 2: the others.
// `levels` holds 16 numbers from -1 to 1, ascending; `shown` is true once the others have been asked for.

const SHOWN_BINS = 64;
const STEP = 0.005;

function render({ model, el }) {
  const matrix = model.get("matrix");
  const others = model.get("others");
  const even = others[0].levels;
  let levels = [...model.get("levels")];
  let chosen = 4;

  const chart = histogram(matrix, take);
  const which = range({ min: 1, max: levels.length, step: 1, "aria-label": "which level" }, () => {
    chosen = Number(which.value) - 1;
    show();
  });
  const where = range({ min: -1, max: 1, step: STEP, "aria-label": "its place" }, () => place(Number(where.value)));
  const outputs = [make("output"), make("output")];
  const said = make("p", { class: "peftlab-error", "aria-live": "polite" });
  const about = make("p", { class: "peftlab-quiet" });
  const codebooks = comparison(others, (other) => {
    levels = other.levels.length === even.length ? [...other.levels] : [...other.levels, 0].sort((a, b) => a - b);
    keep();
  });
  const reveal = make("button", { type: "button", class: "peftlab-main", click: ask }, "Show the others");
  const step = make(
    "button",
    {
      type: "button",
      title: "A weight of a block with a large scale counts more: its error is multiplied by that scale.",
      click: () => {
        levels = improved(matrix, levels);
        keep();
      },
    },
    "Move every level to the mean of its weights",
  );
  settle(
    el,
    make("p", { class: "peftlab-kind" }, "Place 16 levels"),
    make(
      "fieldset",
      {},
      make("legend", {}, "1. Place"),
      make(
        "p",
        {},
        `These are the ${number(matrix.weights)} weights of ${matrix.name}, each divided by the largest of its block of ` +
          `${matrix.blocksize}. Every weight goes to the nearest of your 16 levels. Drag the levels, or use the sliders.`,
      ),
      chart.element,
      make(
        "div",
        { class: "peftlab-places" },
        make("span", { "aria-hidden": "true" }, "level"),
        which,
        outputs[0],
        make("span", { "aria-hidden": "true" }, "place"),
        where,
        outputs[1],
      ),
      said,
      about,
      reveal,
    ),
    make(
      "fieldset",
      { hidden: true, class: "peftlab-others" },
      make("legend", {}, "2. Compare"),
      make("p", {}, "Press a name to put its levels under your hands."),
      codebooks.element,
      make("div", { class: "peftlab-row" }, step),
    ),
  );
  const second = el.querySelector(".peftlab-others");

  // Drag the level that is nearest to where the pointer went down.
  function take(at) {
    chosen = nearest(levels, at);
    show();
    return place;
  }

  function place(at) {
    const below = chosen === 0 ? -1 : levels[chosen - 1];
    const above = chosen === levels.length - 1 ? 1 : levels[chosen + 1];
    levels[chosen] = Number(Math.min(above, Math.max(below, at)).toFixed(4));
    keep();
  }

  function keep() {
    model.set("levels", [...levels]);
    model.save_changes();
    show();
  }

  function ask() {
    model.set("shown", true);
    model.save_changes();
  }

  function show() {
    const { error, share } = scored(matrix, levels);
    which.value = chosen + 1;
    which.setAttribute("aria-valuetext", `level ${chosen + 1} of ${levels.length}, at ${signed(levels[chosen])}`);
    where.value = levels[chosen];
    where.setAttribute("aria-valuetext", `${signed(levels[chosen])}, error ${exact(error)}`);
    outputs[0].textContent = `${chosen + 1} of ${levels.length}`;
    outputs[1].textContent = signed(levels[chosen]);
    said.textContent = `Error: ${exact(error)} of the weights' size.`;
    about.textContent =
      `Level ${chosen + 1} stands for ${exact(share[chosen])} of the weights. (Error: ‖Ŵ − W‖ / ‖W‖. The small ` +
      `towers at the ends are the largest weights of their blocks.)`;
    chart.show(levels, chosen, error);
    codebooks.show(error);
  }

  function open() {
    if (!model.get("shown")) return;
    reveal.hidden = true;
    second.hidden = false;
  }

  function synced() {
    levels = [...model.get("levels")];
    show();
  }

  model.on("change:shown", open);
  model.on("change:levels", synced);
  show();
  open();
  return () => {
    model.off("change:shown", open);
    model.off("change:levels", synced);
  };
}

// ---- what levels cost -----------------------------------------------------------------------------------------------

function nearest(levels, value) {
  let best = 0;
  levels.forEach((level, place) => {
    if (Math.abs(level - value) < Math.abs(levels[best] - value)) best = place;
  });
  return best;
}

function centre(matrix, bin) {
  return ((bin + 0.5) * 2) / matrix.count.length - 1;
}

function scored(matrix, levels) {
  const share = levels.map(() => 0);
  let squares = 0;
  matrix.count.forEach((count, bin) => {
    const at = nearest(levels, centre(matrix, bin));
    const level = levels[at];
    share[at] += count / matrix.weights;
    squares += matrix.second[bin] - 2 * level * matrix.first[bin] + level * level * matrix.zeroth[bin];
  });
  return { error: Math.sqrt(Math.max(0, squares)), share };
}

function improved(matrix, levels) {
  const [weight, total] = [levels.map(() => 0), levels.map(() => 0)];
  matrix.count.forEach((_, bin) => {
    const at = nearest(levels, centre(matrix, bin));
    weight[at] += matrix.zeroth[bin];
    total[at] += matrix.first[bin];
  });
  const moved = levels.map((level, at) => (weight[at] > 0 ? Number((total[at] / weight[at]).toFixed(4)) : level));
  return moved.sort((a, b) => a - b);
}

// ---- the picture ----------------------------------------------------------------------------------------------------

function histogram(matrix, take) {
  const [left, right, top, bottom] = [16, 344, 22, 170];
  const x = (value) => left + ((value + 1) / 2) * (right - left);
  const per = matrix.count.length / SHOWN_BINS;
  const heights = Array.from({ length: SHOWN_BINS }, (_, bar) =>
    matrix.count.slice(bar * per, (bar + 1) * per).reduce((a, b) => a + b, 0),
  );
  const tallest = Math.max(...heights);
  const wide = (right - left) / SHOWN_BINS;
  const bars = heights.map((height, bar) =>
    draw("rect", {
      x: left + bar * wide,
      y: bottom - (height / tallest) * (bottom - top),
      width: wide - 0.6,
      height: (height / tallest) * (bottom - top),
      class: "weights",
    }),
  );
  const region = draw("rect", { y: top, height: bottom - top, class: "region" });
  const marks = draw("g");
  const ticks = [-1, -0.5, 0, 0.5, 1].map((tick) =>
    draw("text", { x: x(tick), y: bottom + 22, "text-anchor": "middle" }, signed(tick)),
  );
  const title = "weight, divided by the largest of its block";
  const picture = draw(
    "svg",
    { viewBox: "0 0 360 216", role: "img", class: "peftlab-levels" },
    region,
    ...bars,
    draw("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    marks,
    ...ticks,
    draw("text", { x: (left + right) / 2, y: bottom + 42, "text-anchor": "middle" }, title),
  );
  letPull(picture, (inPicture) => ((inPicture - left) / (right - left)) * 2 - 1, take);

  function show(levels, chosen, error) {
    const below = chosen === 0 ? -1 : (levels[chosen - 1] + levels[chosen]) / 2;
    const above = chosen === levels.length - 1 ? 1 : (levels[chosen + 1] + levels[chosen]) / 2;
    region.setAttribute("x", x(below));
    region.setAttribute("width", Math.max(0, x(above) - x(below)));
    marks.replaceChildren(
      ...levels.flatMap((level, place) => {
        const own = place === chosen ? "level chosen" : "level";
        const [at, size] = [x(level), place === chosen ? 6.5 : 4.5];
        return [
          draw("line", { x1: at, x2: at, y1: top - 8, y2: bottom + 5, class: own }),
          draw("circle", { cx: at, cy: top - 8, r: size, class: own }),
        ];
      }),
    );
    picture.setAttribute(
      "aria-label",
      `Histogram of the weights, bell-shaped around 0. Levels at ${levels.map(signed).join(", ")}. Error ${exact(error)}.`,
    );
  }

  return { element: make("figure", {}, picture), show };
}

function letPull(picture, valueAt, take) {
  let moved = null;
  const value = (event) => {
    const box = picture.getBoundingClientRect();
    return valueAt(((event.clientX - box.left) / box.width) * picture.viewBox.baseVal.width);
  };
  picture.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    picture.setPointerCapture(event.pointerId);
    moved = take(value(event));
  });
  picture.addEventListener("pointermove", (event) => moved && moved(value(event)));
  for (const end of ["pointerup", "pointercancel"]) picture.addEventListener(end, () => (moved = null));
}

// ---- the others -----------------------------------------------------------------------------------------------------

function comparison(others, use) {
  const own = make("td");
  const row = (name, error, says) => make("tr", {}, make("th", { scope: "row" }, name), error, make("td", {}, says));
  const rows = others.map((other) =>
    row(
      make("button", { type: "button", click: () => use(other) }, other.name),
      make("td", {}, exact(other.error)),
      other.says,
    ),
  );
  const head = ["levels", "error", ""].map((text) => make("th", { scope: "col" }, text));
  const table = make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, row("yours, now", own, ""), ...rows),
  );
  return {
    element: make("div", { class: "peftlab-scroll" }, table),
    show: (error) => {
      own.textContent = exact(error);
    },
  };
}

function range(attributes, moved) {
  return make("input", { type: "range", ...attributes, input: moved });
}

function signed(value) {
  const text = Math.abs(value).toFixed(2);
  return Number(text) === 0 ? "0" : `${value < 0 ? "−" : ""}${text}`;
}

function exact(share) {
  return `${(100 * share).toFixed(2)}${NARROW_SPACE}%`;
}

export default { render };
