// One prediction: the learner commits to a guess, then sees the truth beside it.
// `guess` is null until it is locked in; then the place of the choice, or the number.

function render({ model, el }) {
  const isChoice = model.get("choices").length > 0;
  const control = isChoice ? choiceControl(model, changed) : numberControl(model, changed);
  const lock = make("button", { type: "button", class: "peftlab-main", disabled: true, click: lockIn }, "Lock in");
  const answer = make("div", { class: "peftlab-answer", "aria-live": "polite", tabindex: -1 });
  const box = make("fieldset", {}, make("legend", {}, ...marked(model.get("asks"))), ...control.elements, lock);
  settle(el, make("p", { class: "peftlab-kind" }, "Predict"), box, answer);

  function changed() {
    lock.disabled = control.value() === null;
  }

  function lockIn() {
    model.set("guess", control.value());
    model.save_changes();
    answer.focus({ preventScroll: true }); // the button that had it is gone
  }

  function show() {
    const guess = model.get("guess");
    if (guess === null || guess === undefined) return;
    control.close(guess);
    lock.hidden = true;
    answer.replaceChildren(
      ...(isChoice ? comparedChoices(model, guess) : comparedNumbers(model, guess)),
      make("p", {}, ...marked(model.get("says"))),
    );
  }

  model.on("change:guess", show);
  show();
  return () => model.off("change:guess", show);
}

function choiceControl(model, changed) {
  const group = uniqueName("choice");
  const rows = model.get("choices").map((text, place) => {
    const radio = make("input", { type: "radio", name: group, value: place, change: changed });
    const note = make("span", { class: "peftlab-mark" });
    return {
      radio,
      note,
      row: make("label", { class: "peftlab-choice" }, radio, make("span", {}, ...marked(text)), note),
    };
  });
  return {
    elements: [make("div", { class: "peftlab-choices" }, ...rows.map((each) => each.row))],
    value() {
      const place = rows.findIndex((each) => each.radio.checked);
      return place < 0 ? null : place;
    },
    close(guess) {
      rows.forEach(({ radio, note, row }, place) => {
        radio.checked = place === guess;
        radio.disabled = true;
        const notes = [place === guess && "your guess", place === model.get("truth") && "✓ the answer"];
        note.textContent = notes.filter(Boolean).join(", ");
        if (place === model.get("truth")) row.dataset.verdict = "right";
      });
    },
  };
}

function comparedChoices(model, guess) {
  const right = guess === model.get("truth");
  const text = right ? "✓ Right." : "✗ Not what we found.";
  return [make("p", {}, make("strong", { "data-verdict": right ? "right" : "wrong" }, text))];
}

function numberControl(model, changed) {
  const [lowest, highest, step, unit] = ["lowest", "highest", "step", "unit"].map((name) => model.get(name));
  const limits = { min: lowest, max: highest, step };
  const range = make("input", { type: "range", ...limits, "aria-label": "Your guess, as a slider", input: fromRange });
  const field = make("input", { type: "number", ...limits, inputmode: "decimal", input: fromField });
  range.value = (lowest + highest) / 2;

  function fromRange() {
    field.value = range.value;
    changed();
  }

  function fromField() {
    if (field.value !== "") range.value = field.value;
    changed();
  }

  return {
    elements: [
      make("div", { class: "peftlab-number" }, range),
      make("label", { class: "peftlab-field" }, "Your guess ", field, unit ? ` ${unit}` : ""),
      make("p", { class: "peftlab-quiet" }, `From ${withUnit(lowest, unit)} to ${withUnit(highest, unit)}.`),
    ],
    value() {
      const guess = field.valueAsNumber;
      return Number.isFinite(guess) && guess >= lowest && guess <= highest ? guess : null;
    },
    close(guess) {
      range.value = field.value = guess;
      range.disabled = field.disabled = true;
    },
  };
}

function comparedNumbers(model, guess) {
  const [lowest, highest, unit, truth] = ["lowest", "highest", "unit", "truth"].map((name) => model.get(name));
  const gap = guess - truth;
  const distance = withUnit(Math.abs(gap), unit === "%" ? "points" : unit);
  const close = Math.abs(gap) <= 0.05 * (highest - lowest);
  const verdict = close ? "✓ Close" : gap > 0 ? `✗ Too high by ${distance}` : `✗ Too low by ${distance}`;
  const words = `Your guess: ${withUnit(guess, unit)}. The answer: ${withUnit(truth, unit)}.`;
  return [
    make("p", {}, make("strong", { "data-verdict": close ? "right" : "wrong" }, verdict), `. ${words}`),
    numberLine(lowest, highest, unit, guess, truth, words),
  ];
}

function numberLine(lowest, highest, unit, guess, truth, words) {
  const [left, right, middle] = [20, 340, 40];
  const at = (value) => left + ((value - lowest) / (highest - lowest)) * (right - left);
  const label = (value, y, text, kind) => {
    const anchor = at(value) < 90 ? "start" : at(value) > 270 ? "end" : "middle";
    return draw("text", { x: at(value), y, "text-anchor": anchor, class: kind }, text);
  };
  const [g, t] = [at(guess), at(truth)];
  return draw(
    "svg",
    { viewBox: "0 0 360 82", role: "img", "aria-label": words, class: "peftlab-line" },
    draw("line", { x1: left, x2: right, y1: middle, y2: middle, class: "axis" }),
    draw("line", { x1: g, x2: t, y1: middle, y2: middle, class: "gap" }),
    draw("path", { d: `M${g - 6} ${middle - 6}l12 12m0 -12l-12 12`, class: "guess" }),
    draw("path", { d: `M${t} ${middle - 8}l8 8l-8 8l-8 -8z`, class: "truth" }),
    label(guess, 22, `you: ${withUnit(guess, unit)}`, "guess-label"),
    label(truth, 66, `answer: ${withUnit(truth, unit)}`, "truth-label"),
    draw("text", { x: left, y: 80, class: "end" }, number(lowest)),
    draw("text", { x: right, y: 80, "text-anchor": "end", class: "end" }, number(highest)),
  );
}

export default { render };
