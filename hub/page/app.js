// The page: which view is shown, what all of them share, and the way in. The state of a view is in the address, so it can be sent on.

import { get, whenLoggedOut } from "./api.js";
import { h, put, say } from "./dom.js";
import { showDetections } from "./detections.js";
import { showRecorders } from "./recorders.js";
import { showSearch } from "./search.js";
import { setNow, setZone, zone, zoneName } from "./times.js";
import { showWatchlists } from "./watchlists.js";

const VIEWS = { search: showSearch, detections: showDetections, recorders: showRecorders, watchlists: showWatchlists };
const TITLES = { search: "Search", detections: "Detections", recorders: "Recorders", watchlists: "Watchlists" };
const main = document.getElementById("main");
let devices = null;
let suggestions = null;
let mayLeave = null;
let shown = "";
let round = 0;

function read(hash) {
  const [path, text = ""] = hash.replace(/^#\/?/, "").split("?");
  const state = {};
  for (const [name, value] of new URLSearchParams(text)) {
    if (name === "device") (state.device ??= []).push(value);
    else if (name === "box") state.box = value.split(",").map(Number);
    else state[name] = value;
  }
  if (state.box && (state.box.length !== 4 || state.box.some(Number.isNaN))) delete state.box;
  return { view: path in VIEWS ? path : "search", state };
}

function write(view, state) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (name === "device") for (const each of value) given.append("device", each);
    else if (name === "box" && value) given.set("box", value.join(","));
    else if (value !== null && value !== undefined && value !== "") given.set(name, value);
  }
  const text = given.toString();
  return `#/${view}${text ? `?${text}` : ""}`;
}

const shared = {
  async devices(isFresh = false) {
    if (isFresh || !devices) {
      devices = get("api/devices").then((found) => {
        setNow(found.now);
        return found.devices;
      });
    }
    try {
      return await devices;
    } catch (error) {
      devices = null;
      throw error;
    }
  },
  suggestions() {
    suggestions ??= get("api/suggestions").then((found) => found.suggestions);
    suggestions.catch(() => {
      suggestions = null;
    });
    return suggestions;
  },
  changed() {
    suggestions = null;
  },
};

async function show() {
  const { view, state } = read(location.hash);
  if (mayLeave && location.hash !== shown && !mayLeave()) {
    history.replaceState(null, "", shown);
    return;
  }
  const isSameView = shown.startsWith(`#/${view}`);
  mayLeave = null;
  shown = location.hash;
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${state.query || TITLES[view]} – fieldcube hub`;
  const place = h("div", { class: `view ${view}` });
  const mine = ++round;
  put(main, place);
  const go = (parts, isAgain = false) => {
    const next = write(view, { ...state, ...parts });
    if (isAgain || next === location.hash) show();
    else location.hash = next;
  };
  try {
    const guard = await VIEWS[view]({ place, state, go, ...shared });
    if (mine === round) mayLeave = guard ?? null;
  } catch (error) {
    put(place, h("p", { class: "error", role: "alert" }, error.message), h("button", { type: "button", onclick: show }, "Try again"));
  }
  if (!isSameView && document.activeElement === document.body) main.focus({ preventScroll: true });
}

function chooseZone() {
  const box = document.getElementById("zone");
  const own = -new Date().getTimezoneOffset();
  const choices = new Set([own, 0, zone()]);
  for (let minutes = -720; minutes <= 840; minutes += 60) choices.add(minutes);
  for (const minutes of [-210, 210, 270, 330, 345, 390, 570]) choices.add(minutes);
  put(box, [...choices].sort((a, b) => a - b).map((minutes) => h("option", { value: minutes }, zoneName(minutes))));
  box.value = String(zone());
  box.addEventListener("change", () => {
    setZone(Number(box.value));
    show();
  });
}

whenLoggedOut(() => location.assign("login"));
window.addEventListener("hashchange", show);
window.addEventListener("beforeunload", (event) => {
  const text = document.querySelector("textarea.lines");
  if (text && text.value !== text.dataset.saved) event.preventDefault();
});
window.addEventListener("unhandledrejection", (event) => say(event.reason?.message ?? String(event.reason), true));
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, textarea, select, dialog")) return;
  event.preventDefault();
  const box = document.getElementById("query");
  if (box) box.focus();
  else location.hash = "#/search";
});
chooseZone();
show();
