// A text box with suggestions, by the pattern "combobox with list autocomplete" of the ARIA Authoring Practices.

import { h, put } from "./dom.js";

const MOST = 8;

/** Return {element, input}. suggestions(): [{text, detail}]; chosen(text): one was taken, or Enter was pressed. */
export function combobox({ id, label, placeholder, value, suggestions, chosen }) {
  const list = h("ul", { id: `${id}-list`, role: "listbox", "aria-label": "Suggestions", hidden: true });
  const input = h("input", {
    id, type: "search", role: "combobox", "aria-expanded": "false", "aria-controls": `${id}-list`, "aria-autocomplete": "list", "aria-label": label,
    autocomplete: "off", autocapitalize: "none", enterkeyhint: "search", spellcheck: "true", placeholder, value: value ?? "",
  });
  let active = -1;

  function close() {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }
  function open() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fitting = suggestions().filter(({ text, detail }) => words.every((word) => `${text} ${detail}`.toLowerCase().includes(word)) && text !== input.value).slice(0, MOST);
    if (!fitting.length) return close();
    put(list, fitting.map(({ text, detail }, i) => h("li", { role: "option", id: `${id}-${i}`, "aria-selected": "false", "data-text": text, onpointerdown: (event) => {
      event.preventDefault();
      take(text);
    } }, h("span", {}, text), h("small", {}, detail))));
    active = -1;
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
  }
  function mark(next) {
    const options = [...list.children];
    if (list.hidden || !options.length) return;
    active = (next + options.length) % options.length;
    options.forEach((option, i) => option.setAttribute("aria-selected", String(i === active)));
    input.setAttribute("aria-activedescendant", options[active].id);
    options[active].scrollIntoView({ block: "nearest" });
  }
  function take(text) {
    input.value = text;
    close();
    chosen(text);
  }
  input.addEventListener("input", open);
  input.addEventListener("focus", open);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) open();
      if (event.key === "ArrowDown") mark(active + 1);
      else mark(active < 0 ? -1 : active - 1);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    } else if (event.key === "Enter") {
      event.preventDefault();
      take(active >= 0 && !list.hidden ? list.children[active].dataset.text : input.value.trim());
    }
  });
  return { element: h("div", { class: "combobox" }, input, list), input };
}
