// All questions of a lesson. Each option is a button: with radio buttons, the arrow keys would answer in passing.
// `answers` holds, for every question's name, the places of the options that were tried, in order.

const VERDICTS = { right: "✓ Right", wrong: "✗ Not yet", unsure: "Good to know" };

function render({ model, el }) {
  const questions = model.get("questions");
  const blocks = questions.map((question, place) =>
    questionBlock(question, place, (option) => answer(question, option)),
  );
  const score = make("div", { class: "peftlab-score", "aria-live": "polite" });
  const again = make("button", { type: "button", class: "peftlab-plain", click: startAgain }, "Start again");
  settle(
    el,
    make("p", { class: "peftlab-kind" }, model.get("heading")),
    ...blocks.map((block) => block.element),
    score,
    again,
  );

  function answer(question, option) {
    const answers = model.get("answers");
    const tried = answers[question.name] ?? [];
    if (tried.includes(option)) return;
    model.set("answers", { ...answers, [question.name]: [...tried, option] });
    model.save_changes();
  }

  function startAgain() {
    model.set("answers", {});
    model.save_changes();
    blocks[0].element.querySelector("button").focus();
  }

  function show() {
    const answers = model.get("answers");
    for (const block of blocks) block.show(answers[block.question.name] ?? []);
    again.hidden = Object.keys(answers).length === 0;
    score.replaceChildren(...result(questions, answers, model.onStaticPage));
  }

  model.on("change:answers", show);
  show();
  return () => model.off("change:answers", show);
}

function questionBlock(question, place, choose) {
  const options = question.options.map((option, index) => {
    const mark = make("span", { class: "peftlab-mark" });
    const button = make(
      "button",
      { type: "button", class: "peftlab-option", "aria-expanded": "false", click: () => choose(index) },
      make("span", {}, ...marked(option.text)),
      mark,
    );
    const says = make("div", { class: "peftlab-says", "aria-live": "polite" });
    return { option, button, mark, says };
  });
  const element = make(
    "fieldset",
    {},
    make("legend", {}, `${place + 1}. `, ...marked(question.asks)),
    make(
      "ul",
      { class: "peftlab-options", role: "list" },
      ...options.map((each) => make("li", {}, each.button, each.says)),
    ),
  );

  function show(tried) {
    options.forEach(({ option, button, mark, says }, index) => {
      const isShown = tried.includes(index);
      if (isShown === (button.getAttribute("aria-expanded") === "true")) return; // do not announce it again
      const kind = option.right ? "right" : option.unsure ? "unsure" : "wrong";
      button.setAttribute("aria-expanded", String(isShown));
      button.dataset.verdict = isShown ? kind : "";
      mark.textContent = isShown ? VERDICTS[kind] : "";
      says.replaceChildren(
        ...(isShown ? [make("p", {}, make("strong", {}, VERDICTS[kind]), ...marked(option.says))] : []),
      );
    });
  }

  return { question, element, show };
}

// What stands below the questions: how far one is, then the score and, for a self check, which bridges to take.
function result(questions, answers, onStaticPage) {
  const done = questions.filter((question) => answers[question.name]);
  if (done.length === 0) return [];
  if (done.length < questions.length) return [make("p", {}, `${done.length} of ${questions.length} answered.`)];
  const missed = questions.filter((question) => !question.options[answers[question.name][0]].right);
  const right = questions.length - missed.length;
  const lines = [make("p", {}, make("strong", {}, `${right} of ${questions.length} right at the first try.`))];
  if (questions.some((question) => question.bridge)) lines.push(...bridges(missed, onStaticPage));
  return lines;
}

function bridges(missed, onStaticPage) {
  const needed = new Map(missed.filter((each) => each.bridge).map((each) => [each.bridge.file, each.bridge]));
  if (needed.size === 0) return [make("p", {}, "You need none of the bridges.")];
  const items = [...needed.values()].map(({ file, name }) =>
    onStaticPage && !inJupyterLab()
      ? make("li", {}, make("a", { href: `${file}.html` }, name))
      : make("li", {}, `${name}: open `, make("code", {}, `${file}.ipynb`)),
  );
  return [make("p", {}, "Worth doing before you go on:"), make("ul", { class: "peftlab-bridges" }, ...items)];
}

export default { render };
