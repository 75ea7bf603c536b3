// Elements from plain calls. Text is always set as text, never as markup: names and notes come from others.

const SVG = "http://www.w3.org/2000/svg";

/** Return an HTML element. Properties: on* are listeners, class and aria-* and data-* attributes, the rest by name. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Return an SVG element. */
export function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put children in the place of what an element holds. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Tell people something: shown for a while, read out by screen readers. */
export function say(text, isError = false) {
  const line = document.getElementById("said");
  line.textContent = text;
  line.classList.toggle("is-error", isError);
  line.classList.add("is-shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => line.classList.remove("is-shown"), isError ? 9000 : 4000);
}

/** Return a function that runs f once nothing has called for wait_ms. */
export function settled(f, wait_ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...given), wait_ms);
  };
}

/** Return a button for narrow screens, where the side with map and calendar lies below a long list. */
export function toSide(side) {
  return h("button", { type: "button", class: "to-side", onclick: () => {
    side.scrollIntoView({ block: "start" });
    side.focus({ preventScroll: true });
  } }, "Where and when");
}

/** Return 1 recorder, 2 recorders. */
export function count(n, what) {
  return `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
}
