"use strict";
const list = document.getElementById("clips");
const clips = Array.from(list.querySelectorAll(".clip"));
const place = `auricle-review-${list.dataset.manifest}`;
const state = document.getElementById("state");
const reviewer = document.getElementById("reviewer");
const verdicts = new Map();
let current = 0;

try {
  const kept = JSON.parse(localStorage.getItem(place) || "{}");
  reviewer.value = typeof kept.reviewer === "string" ? kept.reviewer : "";
  for (const [key, verdict] of Object.entries(kept.verdicts || {})) {
    if (verdict === "accept" || verdict === "reject") verdicts.set(key, verdict);
  }
} catch {
  state.textContent = "what was kept in this browser cannot be read";
}

function record() {
  const found = Object.fromEntries(verdicts);
  return {format: list.dataset.format, manifest: list.dataset.manifest, reviewer: reviewer.value, verdicts: found};
}

function show() {
  for (const clip of clips) clip.querySelector(".verdict").textContent = verdicts.get(clip.dataset.key) || "";
  const accepted = Array.from(verdicts.values()).filter((each) => each === "accept").length;
  state.textContent = `${verdicts.size} of ${clips.length} clips, ${accepted} accepted`;
  try {
    localStorage.setItem(place, JSON.stringify(record()));
  } catch {
    state.textContent += "; this browser keeps nothing, save before you leave";
  }
}

function go(step) {
  current = Math.max(0, Math.min(clips.length - 1, current + step));
  if (clips.length) {
    clips[current].focus();
    clips[current].scrollIntoView({block: "start"});
  }
}

function judge(verdict) {
  if (!clips.length) return;
  if (verdict) verdicts.set(clips[current].dataset.key, verdict);
  else verdicts.delete(clips[current].dataset.key);
  show();
  if (verdict) go(1);
}

function play() {
  const audio = clips.length ? clips[current].querySelector("audio") : null;
  if (audio) audio.paused ? audio.play() : audio.pause();
}

const keys = {
  a: () => judge("accept"),
  r: () => judge("reject"),
  u: () => judge(""),
  j: () => go(1),
  k: () => go(-1),
  p: play,
};
document.addEventListener("keydown", (event) => {
  if (event.target === reviewer || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
for (const clip of clips) clip.addEventListener("focusin", () => { current = clips.indexOf(clip); });
reviewer.addEventListener("input", show);
document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(record(), null, 1)], {type: "application/json"}));
  link.download = "verdicts.json";
  link.click();
  URL.revokeObjectURL(link.href);
});
show();
