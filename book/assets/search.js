// On the page of search results: what is quoted of a page is its text, without buttons and code, and of a glossary
// entry the definition too. `Search` is Sphinx's own; on other pages it is not there.
const NOT_TEXT = [
  ".lesson-actions", ".how-to-run", ".headerlink", ".cell_input", ".peftlab-widget", "script", "style",
].join(", ");

document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html").querySelector(".bd-article");
    if (!page) return "";
    page.querySelectorAll(NOT_TEXT).forEach((element) => element.remove());
    const place = (anchor && page.querySelector(anchor)) || page;
    const definition = place.matches("dt") ? `: ${place.nextElementSibling?.textContent ?? ""}` : "";
    const text = (place.textContent + definition).replace(/\\[()[\]]/g, ""); // formulas are still in TeX here
    return text.trim().replace(/\s+/g, " ").replace(" : ", ": ");
  };
});
