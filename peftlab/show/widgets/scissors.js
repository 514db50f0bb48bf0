// LoRA with scissors, from stored runs. Step 1: guess four accuracies. Step 2: cut a real ΔW with a slider over r.
// `guess` is {} until it is locked in; then accuracies from 0 to 1 by r.

const RED = [213, 94, 0];
const PALE = [247, 247, 247];
const BLUE = [0, 114, 178];

function render({ model, el }) {
  const measured = model.get("measured");
  const matrix = unpacked(model.get("matrix"));
  const guesses = Object.fromEntries(measured.guess_at.map((r) => [r, 0.5]));
  const chart = accuracyChart(measured, guesses, (r, value) => controls.set(r, value));
  const controls = guessControls(measured, guesses, chart);
  const show = make("button", { type: "button", class: "peftlab-main", click: lockIn }, "Show");
  const ask = make(
    "fieldset",
    {},
    make("legend", {}, "1. Draw your guess"),
    make(
      "p",
      {},
      "A model is fine-tuned. In each of its 36 matrices only the top r of 384 directions of ΔW are kept. How often does " +
        "it still name the right topic? Drag the crosses, or use the sliders.",
    ),
    chart.element,
    controls.element,
    show,
  );
  const answer = make("div", { "aria-live": "polite" });
  const explorer = cutExplorer(measured, matrix, chart);
  settle(el, make("p", { class: "peftlab-kind" }, "LoRA with scissors"), ask, answer, explorer.element);

  function lockIn() {
    model.set("guess", { ...guesses });
    model.save_changes();
    explorer.slider.focus();
  }

  function reveal() {
    const guess = model.get("guess");
    if (Object.keys(guess).length === 0) return;
    Object.assign(guesses, guess);
    controls.close();
    show.hidden = true;
    chart.reveal();
    answer.replaceChildren(comparison(measured, guesses));
    explorer.element.hidden = false;
    explorer.show();
  }

  model.on("change:guess", reveal);
  reveal();
  return () => model.off("change:guess", reveal);
}

// ---- step 1: the guess ----------------------------------------------------------------------------------------------

function guessControls(measured, guesses, chart) {
  const rows = Object.fromEntries(
    measured.guess_at.map((r) => {
      const output = make("output", {}, percent(guesses[r]));
      const range = make("input", {
        type: "range",
        min: 0,
        max: 100,
        step: 1,
        value: 50,
        input: () => set(r, range.value / 100),
      });
      return [r, { range, output, label: make("label", {}, `r = ${r}`, range) }];
    }),
  );

  function set(r, value) {
    guesses[r] = value;
    rows[r].range.value = Math.round(100 * value);
    rows[r].output.textContent = percent(value);
    chart.moveGuesses();
  }

  function close() {
    for (const r of measured.guess_at) {
      set(r, guesses[r]);
      rows[r].range.disabled = true;
    }
    element.hidden = true; // the table below says it all
  }

  const element = make("div", { class: "peftlab-guesses" });
  for (const { label, range, output } of Object.values(rows)) {
    range.setAttribute("aria-label", label.firstChild.textContent);
    element.append(make("span", { "aria-hidden": "true" }, label.firstChild), range, output);
  }
  return { element, set, close };
}

function comparison(measured, guesses) {
  const cells = (r) => {
    const place = measured.stops.indexOf(r);
    return [String(r), percent(guesses[r]), percent(measured.top.mean[place]), percent(measured.random.mean[place])];
  };
  const head = ["r", "your guess", "top r", "random r"].map((text) => make("th", { scope: "col" }, text));
  const rows = measured.guess_at.map((r) => make("tr", {}, ...cells(r).map((text) => make("td", {}, text))));
  const caption = make("caption", {}, `Test accuracy, mean of ${measured.runs} runs`);
  const table = make("table", {}, caption, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  return make("div", { class: "peftlab-scroll" }, table);
}

// ---- the chart of accuracies ----------------------------------------------------------------------------------------

function accuracyChart(measured, guesses, dragged) {
  const [left, right, top, bottom] = [48, 350, 12, 190];
  const x = (place) => left + (place / (measured.stops.length - 1)) * (right - left);
  const y = (share) => bottom - share * (bottom - top);
  const curves = draw(
    "g",
    { visibility: "hidden" },
    ...["random", "top"].flatMap((how) => curve(measured[how], how, x, y)),
  );
  const here = draw("line", { y1: top, y2: bottom, class: "here", visibility: "hidden" });
  const crosses = Object.fromEntries(
    measured.guess_at.map((r) => [
      r,
      { cross: draw("path", { class: "guess" }), area: draw("circle", { r: 20, class: "draggable" }) },
    ]),
  );
  const picture = draw(
    "svg",
    { viewBox: "0 0 360 232", role: "img" },
    ...chartFrame(measured, x, y, left, right, bottom),
    curves,
    here,
    ...Object.values(crosses).flatMap(({ cross, area }) => [cross, area]),
  );
  for (const [r, { area }] of Object.entries(crosses))
    letDrag(area, picture, (share) => dragged(Number(r), share), top, bottom);
  const legend = make("p", { class: "peftlab-quiet" });
  let revealed = false;

  function moveGuesses() {
    for (const [r, { cross, area }] of Object.entries(crosses)) {
      const [cx, cy] = [x(measured.stops.indexOf(Number(r))), y(guesses[r])];
      cross.setAttribute("d", `M${cx - 6} ${cy - 6}l12 12m0 -12l-12 12`);
      area.setAttribute("cx", cx);
      area.setAttribute("cy", cy);
    }
    describe();
  }

  function describe() {
    const guessed = measured.guess_at.map((r) => `${percent(guesses[r])} at r = ${r}`).join(", ");
    const found = measured.stops.map(
      (r, place) =>
        `r = ${r}: top ${percent(measured.top.mean[place])}, random ${percent(measured.random.mean[place])}`,
    );
    const words = `Chart of test accuracy against r. Your guess: ${guessed}.`;
    picture.setAttribute("aria-label", revealed ? `${words} Measured: ${found.join("; ")}.` : words);
  }

  function reveal() {
    revealed = true;
    curves.setAttribute("visibility", "visible");
    for (const { area } of Object.values(crosses)) area.remove();
    legend.textContent =
      `Solid line with circles: the top r directions. Dashed line with squares: r of its own directions at random. Bands: ` +
      `lowest and highest of ${measured.runs} runs. Crosses: your guess.`;
    moveGuesses();
  }

  function point(place) {
    here.setAttribute("visibility", "visible");
    here.setAttribute("x1", x(place));
    here.setAttribute("x2", x(place));
  }

  moveGuesses();
  return { element: make("figure", {}, picture, legend), moveGuesses, reveal, point };
}

function chartFrame(measured, x, y, left, right, bottom) {
  const rows = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    draw("line", { x1: left, x2: right, y1: y(share), y2: y(share), class: "grid" }),
    draw("text", { x: left - 5, y: y(share) + 4, "text-anchor": "end" }, percent(share)),
  ]);
  const columns = measured.stops.map((r, place) =>
    draw("text", { x: x(place), y: bottom + 16, "text-anchor": "middle" }, String(r)),
  );
  return [
    ...rows,
    draw("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    ...columns,
    draw(
      "text",
      { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" },
      "directions kept in every matrix, r",
    ),
    draw("line", { x1: left, x2: right, y1: y(measured.chance), y2: y(measured.chance), class: "chance" }),
    draw("text", { x: right, y: y(measured.chance) - 4, "text-anchor": "end", class: "end" }, "guessing"),
  ];
}

function curve(runs, how, x, y) {
  const points = (values) => values.map((value, place) => `${x(place)} ${y(value)}`);
  const dot = (value, place) =>
    how === "top"
      ? draw("circle", { cx: x(place), cy: y(value), r: 3.5, class: "top-dot" })
      : draw("rect", { x: x(place) - 3, y: y(value) - 3, width: 6, height: 6, class: "random-dot" });
  return [
    draw("path", {
      d: `M${points(runs.high).join("L")}L${points(runs.low).reverse().join("L")}Z`,
      class: `${how}-band`,
    }),
    draw("path", { d: `M${points(runs.mean).join("L")}`, class: how }),
    ...runs.mean.map(dot),
  ];
}

function letDrag(area, picture, moved, top, bottom) {
  const follow = (event) => {
    const box = picture.getBoundingClientRect();
    const inPicture = ((event.clientY - box.top) / box.height) * picture.viewBox.baseVal.height;
    moved(Math.min(1, Math.max(0, (bottom - inPicture) / (bottom - top))));
  };
  area.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    area.setPointerCapture(event.pointerId);
    area.addEventListener("pointermove", follow);
  });
  for (const end of ["pointerup", "pointercancel"])
    area.addEventListener(end, () => area.removeEventListener("pointermove", follow));
}

// ---- step 2: the cut ------------------------------------------------------------------------------------------------

function cutExplorer(measured, matrix, chart) {
  const last = measured.stops.length - 1;
  const slider = make("input", {
    type: "range",
    min: 0,
    max: last,
    step: 1,
    value: last,
    "aria-label": "directions kept, r",
    input: show,
  });
  const shown = make("output", { class: "peftlab-r" });
  const said = make("p", { "aria-live": "polite", class: "peftlab-said" });
  const [whole, kept] = [heatMap("Whole ΔW"), heatMap("")];
  const spectrum = spectrumChart(matrix);
  whole.show(
    matrix.corner(matrix.values.length),
    matrix.largest,
    "Heat map of the whole change, blue below and red above zero",
  );
  const element = make(
    "fieldset",
    { hidden: true },
    make("legend", {}, "2. Cut"),
    make(
      "p",
      {},
      `This is a real ΔW, of the matrix ${matrix.name}: one corner of it, ${matrix.side} × ${matrix.side} of ${matrix.size} × ${matrix.size} entries. Move r.`,
    ),
    make("div", { class: "peftlab-slider" }, slider, shown),
    said,
    make("div", { class: "peftlab-figures" }, whole.element, kept.element, spectrum.element),
    make(
      "p",
      { class: "peftlab-scale" },
      make("span", {}, (-matrix.largest).toPrecision(2)),
      make("span", { class: "bar", style: `background: ${gradient()}`, "aria-hidden": "true" }),
      make("span", {}, `+${matrix.largest.toPrecision(2)}`),
    ),
  );

  function show() {
    const place = Number(slider.value);
    const r = measured.stops[place];
    const energy = matrix.energy(r);
    slider.setAttribute("aria-valuetext", `${r} of ${matrix.values.length} directions`);
    shown.textContent = `r = ${r}`;
    said.textContent =
      `${r} of ${matrix.values.length} directions kept, ${percent(energy)} of this matrix's energy. With all 36 matrices cut so, ` +
      `accuracy is ${percent(measured.top.mean[place])}; with ${r} random directions of each, ${percent(measured.random.mean[place])}.`;
    kept.show(
      matrix.corner(r),
      matrix.largest,
      `Heat map of the same corner of the change with its top ${r} directions only`,
    );
    kept.caption.textContent = `Top ${r}`;
    spectrum.show(r, energy);
    chart.point(place);
  }

  return { element, slider, show };
}

function heatMap(title) {
  const caption = make("figcaption", {}, title);
  const canvas = make("canvas", { role: "img" });

  function show(rows, largest, words) {
    canvas.width = rows[0].length;
    canvas.height = rows.length;
    const brush = canvas.getContext("2d");
    const image = brush.createImageData(canvas.width, canvas.height);
    rows.flat().forEach((value, place) => image.data.set([...colour(value / largest), 255], 4 * place));
    brush.putImageData(image, 0, 0);
    canvas.setAttribute("aria-label", `${words}.`);
  }

  return { element: make("figure", { class: "small" }, caption, canvas), caption, show };
}

// From -1 (blue) over 0 (pale) to 1 (red); the root makes small entries visible.
function colour(value) {
  const strength = Math.sqrt(Math.min(1, Math.abs(value)));
  const end = value < 0 ? BLUE : RED;
  return PALE.map((pale, channel) => Math.round(pale + strength * (end[channel] - pale)));
}

function gradient() {
  const stops = Array.from({ length: 41 }, (_, place) => `rgb(${colour(place / 20 - 1).join(" ")})`);
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

function spectrumChart(matrix) {
  const [left, right, top, bottom] = [40, 350, 12, 150];
  const count = matrix.values.length;
  const x = (direction) => left + (Math.log(direction) / Math.log(count)) * (right - left);
  const y = (value) => bottom - (value / matrix.values[0]) * (bottom - top);
  const outline = matrix.values.map((value, place) => `${x(place + 1)} ${y(value)}`);
  const kept = draw("path", { class: "kept" });
  const ticks = [1, 2, 4, 8, 16, 32, 64, 128, 384];
  const picture = draw(
    "svg",
    { viewBox: "0 0 360 192", role: "img" },
    kept,
    draw("path", { d: `M${outline.join("L")}`, class: "cut" }),
    draw("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    draw("line", { x1: left, x2: left, y1: top, y2: bottom, class: "axis" }),
    draw("text", { x: left - 5, y: y(matrix.values[0]) + 4, "text-anchor": "end" }, matrix.values[0].toPrecision(2)),
    draw("text", { x: left - 5, y: bottom + 4, "text-anchor": "end" }, "0"),
    ...ticks
      .filter((tick) => tick <= count)
      .map((tick) => draw("text", { x: x(tick), y: bottom + 16, "text-anchor": "middle" }, String(tick))),
    draw("text", { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, "direction, strongest first"),
  );

  function show(r, energy) {
    const edge = outline.slice(0, r);
    kept.setAttribute(
      "d",
      r === 0
        ? ""
        : `M${left} ${bottom}L${edge.join("L")}L${x(Math.max(r, 1.06))} ${y(matrix.values[r - 1])}V${bottom}Z`,
    );
    picture.setAttribute(
      "aria-label",
      `The strengths s of all directions, strongest first. The first ${r} are filled: ${percent(energy)} of the energy.`,
    );
  }

  return {
    element: make("figure", {}, make("figcaption", {}, "Strength s of each direction; kept ones filled"), picture),
    show,
  };
}

// ---- the stored directions ------------------------------------------------------------------------------------------

// left, right: base64 of signed bytes, one row of `side` for each direction; `strength` brings back their true size.
function unpacked({ name, size, side, values, strength, left, right }) {
  const [L, R] = [left, right].map((text) => Int8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
  const squares = values.reduce((sum, value) => sum + value * value, 0);

  function corner(r) {
    const rows = Array.from({ length: side }, () => new Array(side).fill(0));
    for (let direction = 0; direction < r; direction++) {
      for (let row = 0; row < side; row++) {
        const scaled = strength[direction] * L[direction * side + row];
        for (let column = 0; column < side; column++) rows[row][column] += scaled * R[direction * side + column];
      }
    }
    return rows;
  }

  function energy(r) {
    return values.slice(0, r).reduce((sum, value) => sum + value * value, 0) / squares;
  }

  const largest = Math.max(...corner(values.length).flat().map(Math.abs));
  return { name, size, side, values, corner, energy, largest };
}

export default { render };
