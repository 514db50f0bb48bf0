// What all the widgets share; Python puts it in front of each one's own module.

const SVG = "http://www.w3.org/2000/svg";
const NARROW_SPACE = "\u202f";

// JupyterLab takes keys for its own shortcuts, unless the element that has the focus carries this mark itself.
const KEEPS_ITS_KEYS = { "data-lm-suppress-shortcuts": "true" };
const CONTROLS = ["a", "button", "input"];

// An element with attributes (a function is a listener, false leaves the attribute out) and children.
function make(tag, attributes = {}, ...children) {
  const own = CONTROLS.includes(tag) ? { ...KEEPS_ITS_KEYS, ...attributes } : attributes;
  return fill(document.createElement(tag), own, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// The course's small markup: `code` and *emphasis*.
function marked(text) {
  const parts = text.split(/(`[^`]+`|\*[^*\s][^*]*\*)/);
  return parts.map((part, place) => {
    if (place % 2 === 0) return part;
    return make(part[0] === "`" ? "code" : "em", {}, part.slice(1, -1));
  });
}

// Radio groups and labels go by names, and an equal widget may stand on the same page.
function uniqueName(prefix) {
  return `${prefix}-${Math.random().toString(36).slice(2)}`;
}

function settle(el, ...children) {
  el.classList.add("peftlab-widget");
  el.replaceChildren(...children);
}

function inJupyterLab() {
  return document.body.hasAttribute("data-jp-theme-light");
}

// 38.7 stays, 38.6667 becomes 38.7, 1234567 becomes 1,234,567.
function number(value) {
  const short = Math.abs(value) < 1000 ? Number(value.toPrecision(3)) : Math.round(value);
  return short.toLocaleString("en");
}

function withUnit(value, unit) {
  return unit ? `${number(value)}${NARROW_SPACE}${unit}` : number(value);
}

function percent(share) {
  return `${Math.round(100 * share)}${NARROW_SPACE}%`;
}
