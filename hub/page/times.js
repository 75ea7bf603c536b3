// Times: UTC from the hub, shown by a clock that is a fixed number of minutes ahead of it; no summer time that repeats an hour.

const KEY = "fieldcube.zone";
const DAY_MS = 86_400_000;

/** Return how far ahead of UTC the shown clock is, in minutes. */
export function zone() {
  const kept = localStorage.getItem(KEY);
  return kept === null ? -new Date().getTimezoneOffset() : Number(kept);
}

/** Choose another clock. */
export function setZone(minutes) {
  localStorage.setItem(KEY, String(minutes));
}

/** Return a clock's name: UTC, UTC+05:30. */
export function zoneName(minutes = zone()) {
  if (minutes === 0) return "UTC";
  const size = Math.abs(minutes);
  return `UTC${minutes < 0 ? "−" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}

function two(n) {
  return String(n).padStart(2, "0");
}

function shifted(iso) {
  return new Date(Date.parse(iso) + zone() * 60_000);
}

/** Return 2026-05-04 21:03:07 by the shown clock; "time unknown" where the recorder had none. */
export function when(iso) {
  if (!iso) return "time unknown";
  const at = shifted(iso).toISOString();
  return `${at.slice(0, 10)} ${at.slice(11, 19)}`;
}

let skew_ms = 0;

/** Take the hub's clock for right: a phone in the field may have another opinion. */
export function setNow(iso) {
  skew_ms = Date.parse(iso) - Date.now();
}

/** Return the time by the hub's clock, in ms since 1970. */
export function now() {
  return Date.now() + skew_ms;
}

/** Return "3 h ago". */
export function ago(iso, now_ms = now()) {
  if (!iso) return "never";
  const seconds = Math.max(0, (now_ms - Date.parse(iso)) / 1000);
  for (const [size, unit] of [[86_400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 2 * size || (seconds >= size && unit === "min")) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${Math.floor(seconds)} s ago`;
}

/** Return UTC as ISO 8601 of a day (YYYY-MM-DD) of the shown clock, days later and hours into it. */
export function startOf(day, days = 0, hours = 0) {
  return new Date(Date.parse(`${day}T00:00:00Z`) - zone() * 60_000 + days * DAY_MS + hours * 3_600_000).toISOString();
}

/** Return the day (YYYY-MM-DD) n days after another. */
export function dayAfter(day, n = 1) {
  return new Date(Date.parse(`${day}T00:00:00Z`) + n * DAY_MS).toISOString().slice(0, 10);
}

/** Return today by the shown clock. */
export function today(now_ms = now()) {
  return new Date(now_ms + zone() * 60_000).toISOString().slice(0, 10);
}

/** Return how many days there are from one to another. */
export function daysBetween(first, last) {
  return Math.round((Date.parse(`${last}T00:00:00Z`) - Date.parse(`${first}T00:00:00Z`)) / DAY_MS);
}

/** Return a position in a recording, 0:07:42.5. */
export function position(seconds) {
  const whole = Math.round(seconds * 10) / 10;
  const minutes = Math.floor(whole / 60);
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${(whole % 60).toFixed(1).padStart(4, "0")}`;
}
