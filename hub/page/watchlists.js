// Watchlists: a line a question; what the bundle makes of every line is shown while it is written.

import { get, post, putTo } from "./api.js";
import { h, put, say, settled } from "./dom.js";
import { ago } from "./times.js";

const START = "# One question a line: what is to be heard, in plain words.\ndog barking\n";
const HELP = [
  ["owl calling", "a sentence: say what is heard, never what is not"],
  ["chainsaw OR logging truck", "either of them"],
  ["tawny owl & rain", "both in one window"],
  ["decoy: wind in trees", "never alarms, only competes"],
  ["… | alarms_per_day=0.5", "how many false alarms a day it may give"],
  ["… | confirm=2/3", "heard in 2 of the last 3 windows"],
  ["… | cooldown=10min", "silence after an alarm"],
  ["… | active=night", "night, day, dawn, dusk or 20:00-05:00 (UTC)"],
  ["… | priority=high | group=owls | name=frogs", "who is told, and what it is called"],
];

/** Show the view. page: as for search. */
export async function showWatchlists({ place, state, go, devices: loadDevices, changed }) {
  put(place, h("p", { class: "loading" }, "Loading …"));
  const [{ watchlists: lists }] = await Promise.all([get("api/watchlists"), loadDevices()]); // with them comes the hub's clock
  const name = state.name || lists[0]?.name || "watchlist";
  const kept = lists.find((each) => each.name === name) ?? { name, text: START, version: 0, changed_at: null, installed: [] };
  const names = h("nav", { class: "lists", "aria-label": "Watchlists" }, [...new Set([...lists.map((each) => each.name), name])].map((each) => h("button", { type: "button", class: "chip", "aria-current": each === name ? "true" : null, onclick: () => go({ name: each }) }, each)), h("button", { type: "button", class: "chip new", onclick: () => {
    const asked = prompt("Name of the new watchlist (letters, digits, - and _)")?.trim();
    if (asked) go({ name: asked });
  } }, "+ New"));
  const numbers = h("pre", { class: "numbers", "aria-hidden": "true" });
  const text = h("textarea", { id: "lines", class: "lines", spellcheck: "false", autocapitalize: "none", wrap: "off", "aria-describedby": "trouble", rows: 14, value: kept.text });
  const trouble = h("div", { id: "trouble", role: "status", "aria-live": "polite" });
  const table = h("div", { class: "scroll explained" }, h("p", { class: "loading" }, "Working it out …"));
  const save = h("button", { type: "button", class: "primary" }, "Save");
  const about = h("p", { class: "note" }, aboutOf(kept));
  put(
    place,
    h("section", { class: "hero" }, names),
    h("div", { class: "columns even" }, h("section", { class: "card", "aria-label": "Lines" }, h("div", { class: "answer-head" }, h("h1", { class: "small" }, name), about), h("label", { class: "hidden", for: "lines" }, `Lines of ${name}`), h("div", { class: "editor" }, numbers, text), trouble, h("div", { class: "line" }, save, h("span", { class: "note keys" }, "Ctrl+S saves too")), h("details", {}, h("summary", {}, "What a line may say"), h("table", { class: "plain" }, h("tbody", {}, HELP.map(([line, what]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, line)), h("td", {}, what))))))), h("section", { class: "card", "aria-label": "What to expect" }, h("h2", {}, "What to expect"), table)),
  );
  let isGood = true;
  let asked = null;

  const number = () => {
    numbers.textContent = text.value.split("\n").map((_, i) => i + 1).join("\n");
  };
  const explain = async () => {
    asked?.abort();
    asked = new AbortController();
    try {
      const found = await post("api/watchlists/explain", { text: text.value }, asked.signal);
      isGood = !found.error;
      put(trouble, found.error ? h("p", { class: "error" }, found.line ? h("button", { type: "button", class: "link", onclick: () => select(text, found.line) }, `Line ${found.line}`) : "", `${found.line ? ": " : ""}${found.error}`) : null);
      if (!found.error) put(table, explanations(found));
      else if (table.querySelector(".loading")) put(table, h("p", { class: "empty" }, "Nothing to show until every line can be read."));
      table.classList.toggle("is-old", Boolean(found.error));
    } catch (error) {
      if (error.name !== "AbortError") put(trouble, h("p", { class: "error" }, error.message));
    }
  };
  const later = settled(explain, 500);
  const keep = async () => {
    save.disabled = true;
    try {
      await explain();
      if (!isGood) return say("Not saved: a line cannot be read.", true);
      const saved = await putTo(`api/watchlists/${encodeURIComponent(name)}`, { text: text.value });
      Object.assign(kept, saved);
      about.textContent = aboutOf(kept);
      text.dataset.saved = text.value;
      changed();
      say(`Saved ${name}, version ${saved.version}. Recorders take it with their next delivery.`);
    } catch (error) {
      say(error.message, true);
    } finally {
      save.disabled = false;
    }
  };
  text.dataset.saved = kept.text;
  text.addEventListener("input", () => {
    number();
    later();
  });
  text.addEventListener("scroll", () => {
    numbers.scrollTop = text.scrollTop;
  });
  text.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "s") {
      event.preventDefault();
      keep();
    }
  });
  save.addEventListener("click", keep);
  number();
  await explain();
  return () => text.value === text.dataset.saved || confirm("Leave without saving the watchlist?");
}

function aboutOf(kept) {
  if (!kept.version) return "new, not saved yet";
  const installed = kept.installed ?? [];
  const current = installed.filter((each) => each.version === kept.version).length;
  const where = installed.length ? `; arrived at ${current} of ${installed.length} recorders` : "";
  return `version ${kept.version}, changed ${ago(kept.changed_at)}${where}`;
}

function select(text, line) {
  const lines = text.value.split("\n");
  const start = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
  text.focus();
  text.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
}

function explanations(found) {
  if (!found.explanations.length) return h("p", { class: "empty" }, "Write a line to see what to expect of it.");
  const levels = [...new Set(found.explanations.flatMap((each) => each.recall.map((level) => level.snr_db)))].sort((a, b) => a - b);
  const head = ["Line", "Bits", "Wanted a day", "Expected a day", ...levels.map((level) => `Found at ${level} dB`)];
  const titles = { Bits: "Windows up to so many bits away alarm", "Wanted a day": "False alarms a day that the line allows", "Expected a day": "False alarms a day that are left after decoys" };
  const rows = found.explanations.flatMap((each) => {
    const recall = new Map(each.recall.map((level) => [level.snr_db, level.found]));
    const cells = [each.threshold_bits === null ? "–" : each.threshold_bits.toFixed(1), short(each.wanted_per_day), each.expected_per_day === null ? "–" : short(each.expected_per_day)];
    const row = h("tr", {}, h("th", { scope: "row" }, each.name), cells.map((cell) => h("td", {}, cell)), levels.map((level) => share(recall.get(level))));
    return [row, ...each.warnings.map((warned) => h("tr", { class: "warned" }, h("td", { colspan: head.length }, `⚠ ${warned.message}`)))];
  });
  return [h("table", { class: "explain" }, h("thead", {}, h("tr", {}, head.map((each) => h("th", { scope: "col", title: titles[each] ?? null }, each)))), h("tbody", {}, rows)), (found.notes ?? []).map((note) => h("p", { class: "note" }, note))];
}

function short(n) {
  return n >= 0.01 ? String(Number(n.toPrecision(3))) : "< 0.01";
}

function share(found) {
  if (found === undefined) return h("td", {}, "–");
  const percent = Math.round(100 * found);
  return h("td", { class: "share", style: `--share:${percent}%` }, `${percent} %`);
}
