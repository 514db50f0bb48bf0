// A browser may break a line between a formula and the full stop after it. Both are kept together, before MathJax draws.
document.addEventListener("DOMContentLoaded", () => {
  for (const formula of document.querySelectorAll(".bd-article span.math")) {
    const after = formula.nextSibling;
    const mark = after?.nodeType === Node.TEXT_NODE && after.data.match(/^[.,;:!?)]+/)?.[0];
    if (!mark) continue;
    const together = document.createElement("span");
    together.style.whiteSpace = "nowrap";
    formula.before(together);
    together.append(formula, mark);
    after.data = after.data.slice(mark.length);
  }
});
