// One observation that was found or detected: when, where, how sure; its sound and picture of it; what a person says of it.

import { get, post } from "./api.js";
import { h, put, say } from "./dom.js";
import { position, when } from "./times.js";

const ANSWERS = [
  ["right", "Right", "M4 12.5 9.5 18 20 6.5"],
  ["wrong", "Wrong", "M6 6 18 18M18 6 6 18"],
  ["unsure", "Unsure", "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 18v.1"],
];

/** Return how often the background alone comes as near. */
export function falseAlarms(perDay) {
  if (perDay >= 1) return `${perDay < 10 ? perDay.toFixed(1) : Math.round(perDay).toLocaleString("en")} false a day`;
  if (perDay > 1 / 14) return perDay > 0.75 ? "1 false a day" : `1 false in ${Math.max(2, Math.round(1 / perDay))} days`;
  return perDay >= 1 / 365 ? `1 false in ${Math.round(1 / perDay / 7)} weeks` : "< 1 false a year";
}

/**
 * Return a list item. found: uid or null, device, epoch (text), seq, query, text, started_at, source, offset_s, duration_s,
 * distance, probability, false_alarms_per_day, verdict, clip (none, wanted, here); names: title of a device by its name.
 */
export function resultItem(found, { names, rank = null, onVerdict = () => {}, onDevice = null, onLike = null }) {
  const isPicture = found.duration_s === 0;
  const media = h("div", { class: "media" });
  const title = names.get(found.device) || found.device;
  const recorder = onDevice ? h("button", { class: "link", type: "button", title: "Only this recorder", onclick: () => onDevice(found.device) }, title) : h("span", {}, title);
  const at = found.offset_s === null || isPicture || isLive(found.source) ? "" : ` at ${position(found.offset_s)}`;
  return h(
    "li",
    { class: "result", tabindex: "-1", "data-uid": found.uid ?? "" },
    rank === null ? null : h("span", { class: "rank" }, String(rank)),
    h(
      "div",
      { class: "result-facts" },
      h("time", { datetime: found.started_at ?? "" }, when(found.started_at)),
      h("div", { class: "result-where" }, recorder, rank === null ? h("span", { class: "query" }, found.query) : null, h("span", { title: found.source ?? "" }, shortSource(found.source) + at)),
    ),
    sureness(found),
    h("div", { class: "result-actions" }, sound(found, media, isPicture), likeButton(found, onLike), verdicts(found, onVerdict)),
    media,
  );
}

function isLive(source) {
  return !source || source === "stdin" || source.startsWith("microphone:");
}

function shortSource(source) {
  if (!source) return "its code is not here yet";
  if (isLive(source)) return source.startsWith("microphone") ? "microphone" : source;
  const parts = source.split("/");
  return parts.length > 2 ? `…/${parts.slice(-2).join("/")}` : source;
}

function sureness(found) {
  const percent = found.probability === null || found.probability === undefined ? null : Math.round(100 * found.probability);
  const lines = [];
  if (percent !== null) lines.push(h("span", { class: "percent" }, percent === 100 && found.probability < 1 ? "> 99 %" : `${percent} %`), h("span", { class: "bar", "aria-hidden": "true" }, h("i", { style: `width:${percent}%` })));
  const alarms = found.false_alarms_per_day;
  const detail = alarms === null || alarms === undefined ? `${found.distance} bits` : falseAlarms(alarms);
  lines.push(h("span", { class: "alarms", title: `${found.distance} bits away` }, detail));
  return h("div", { class: "sure" }, ...lines);
}

function clipPath(found) {
  return found.uid !== null && found.uid !== undefined ? `api/clips/${found.uid}` : `api/clips/${found.epoch}-${found.seq}@${encodeURIComponent(found.device)}`;
}

function sound(found, media, isPicture) {
  const what = isPicture ? "picture" : "sound";
  if (found.clip === "here") {
    const button = h(
      "button",
      { class: "act play", type: "button", "aria-expanded": "false", onclick: () => {
        const isOpen = media.childElementCount > 0;
        put(media, isOpen ? null : player(found, isPicture));
        button.setAttribute("aria-expanded", String(!isOpen));
      } },
      icon(isPicture ? "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4" : "M7 5l12 7-12 7z"),
      isPicture ? "Show" : "Play",
    );
    return button;
  }
  if (found.clip === "wanted") return h("span", { class: "waiting" }, "asked for");
  if (found.clip !== "none") return null;
  const button = h("button", { class: "act ask", type: "button", title: `The recorder sends its ${what} with its next delivery, where it still has it`, onclick: async () => {
    button.disabled = true;
    try {
      await post(`${clipPath(found)}/request`);
      found.clip = "wanted";
      button.replaceWith(h("span", { class: "waiting" }, "asked for"));
      say(`Asked ${found.device} for the ${what}: it comes with the next delivery.`);
    } catch (error) {
      button.disabled = false;
      say(error.message, true);
    }
  } }, icon("M12 4v11m-5-5 5 5 5-5M5 20h14"), `Get ${what}`);
  return button;
}

function likeButton(found, onLike) {
  if (!onLike || found.uid === null || found.uid === undefined) return null;
  const label = "Search for what is like it";
  return h("button", { class: "act like", type: "button", title: label, "aria-label": label, onclick: () => onLike(found.uid) }, icon("M3 9c3-4 6-4 9 0s6 4 9 0M3 16c3-4 6-4 9 0s6 4 9 0"));
}

function player(found, isPicture) {
  const path = clipPath(found);
  const name = `${found.query}, ${when(found.started_at)}`;
  if (isPicture) return h("a", { href: path, target: "_blank", rel: "noopener" }, h("img", { class: "picture", src: path, alt: `Picture: ${name}` }));
  const audio = h("audio", { controls: true, preload: "auto", src: path, "aria-label": `Sound: ${name}` });
  const head = h("i", { class: "head" });
  const picture = h("img", { src: `${path}/spectrogram`, alt: `Spectrogram: ${name}`, draggable: "false" });
  const scene = h("div", { class: "spectrogram" }, picture, head, h("span", { class: "khz" }));
  picture.addEventListener("error", () => scene.replaceChildren("no spectrogram of this clip"));
  get(`${path}/facts`).then((facts) => {
    scene.querySelector(".khz").textContent = `0–${facts.rate_hz / 2000} kHz, ${facts.duration_s.toFixed(1)} s`;
  }, () => {});
  const move = () => {
    head.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
    if (!audio.paused) requestAnimationFrame(move);
  };
  for (const event of ["play", "seeked", "timeupdate"]) audio.addEventListener(event, move);
  scene.addEventListener("click", (event) => {
    const frame = scene.getBoundingClientRect();
    if (audio.duration) audio.currentTime = (audio.duration * (event.clientX - frame.left)) / frame.width;
    audio.play().catch(() => {});
  });
  audio.play().catch(() => {}); // the browser may want a click first
  return h("div", {}, scene, audio);
}

function verdicts(found, onVerdict) {
  const group = h("div", { class: "verdicts", role: "group", "aria-label": "Is it right?" });
  for (const [answer, label, path] of ANSWERS) {
    const button = h("button", { type: "button", class: `verdict ${answer}`, "aria-label": label, "aria-pressed": String(found.verdict === answer), title: `${label} (${answer[0]})`, onclick: async () => {
      const { device, epoch, seq, uid, query, text, distance, probability } = found;
      try {
        await post("api/verdicts", { uid: uid ?? null, device, epoch: epoch ?? null, seq: seq ?? null, query, text, distance, probability, answer });
      } catch (error) {
        say(error.message, true);
        return;
      }
      found.verdict = answer;
      for (const each of group.children) each.setAttribute("aria-pressed", String(each === button));
      say(`Kept: ${label.toLowerCase()}.`);
      onVerdict(found);
    } }, icon(path));
    group.append(button);
  }
  return group;
}

/** Return a picture of lines, 24 x 24. */
export function icon(path) {
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  picture.setAttribute("viewBox", "0 0 24 24");
  picture.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  picture.append(line);
  return picture;
}

/** Let j and k walk through a list of results, p play, r, w and u say right, wrong and unsure. */
export function listenToKeys(list) {
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea")) return;
    const item = event.target.closest(".result");
    if (!item) return;
    const step = { j: item.nextElementSibling, k: item.previousElementSibling }[event.key];
    if (step) return step.focus();
    const button = { p: ".play, .ask", r: ".verdict.right", w: ".verdict.wrong", u: ".verdict.unsure" }[event.key];
    if (button) item.querySelector(button)?.click();
  });
  list.addEventListener("focusin", (event) => {
    for (const each of list.querySelectorAll(".result")) each.tabIndex = each === event.target.closest(".result") ? 0 : -1;
  });
}

/** Return the line that says which keys there are. */
export function keysHelp() {
  const key = (name, what) => [h("kbd", {}, name), ` ${what} `];
  return h("p", { class: "keys" }, "In the list: ", key("j", "next"), key("k", "back"), key("p", "play"), key("r", "right"), key("w", "wrong"), key("u", "unsure"));
}
