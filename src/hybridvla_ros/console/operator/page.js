"use strict";
// The token stands behind # of the address: a browser sends that part to nobody.
const token = location.hash.slice(1) || sessionStorage.getItem("token") || "";
if (token) { sessionStorage.setItem("token", token); history.replaceState(null, "", "/"); }
// The same page with a new token, in a tab that is open: nothing is loaded anew by itself.
addEventListener("hashchange", () => location.reload());
const $ = (id) => document.getElementById(id);
let heard = 0;

// How long an answer may take, ms: the robot moves, or the recorder closes a bag, before some come.
const PATIENCE = { stop: 8000, episode_success: 200000, episode_failure: 200000 }, OTHERS = 130000;
// The buttons pressed whose answers are waited for. A browser opens six connections to one address: some stay free for the stop
// and the pictures.
const waiting = new Set(), MOST = 3;

async function act(name, body) {
  if (name !== "stop" && (waiting.has(name) || waiting.size >= MOST)) {
    $("answer").textContent = name + ": not sent, because no answer has come yet to " + [...waiting].join(", ");
    return;
  }
  if (name !== "stop") { waiting.add(name); }
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), PATIENCE[name] || OTHERS);
  $("answer").textContent = name + " ...";
  try {
    const reply = await fetch("/do/" + name, {
      method: "POST", signal: over.signal, headers: { "Authorization": "Bearer " + token }, body: body ? JSON.stringify(body) : undefined });
    const answer = await reply.json();
    $("answer").textContent = name + ": " + (answer.done ? "" : "PROBLEM: ") + answer.message;
  } catch (error) {
    $("answer").textContent = name + ": no answer; use the robot's own switch";
  } finally {
    clearTimeout(timer);
    waiting.delete(name);
  }
}

// Not #stop: window.stop would stand before an element of that name.
$("stop-button").addEventListener("click", () => act("stop"));
for (const button of document.querySelectorAll("[data-do]")) {
  button.addEventListener("click", () => act(button.dataset.do));
}
$("instruct").addEventListener("submit", (event) => {
  event.preventDefault();
  act("instruction", { text: $("text").value });
});

function rows(table, lines) {
  table.replaceChildren(...lines.map((cells) => {
    const row = document.createElement("tr");
    row.replaceChildren(...cells.map((cell) => {
      const element = document.createElement("td");
      element.textContent = cell === null || cell === undefined ? "-" : String(cell);
      return element;
    }));
    return row;
  }));
}

function showViews(names) {
  if ($("views").dataset.names === names.join()) { return; }
  $("views").dataset.names = names.join();
  $("views").replaceChildren(...names.map((name) => {
    const figure = document.createElement("figure"), image = document.createElement("img"), text = document.createElement("figcaption");
    image.alt = name;
    figure.dataset.view = name;
    // One picture after the other: no more are asked for than can be shown.
    const next = () => { image.src = "/view/" + encodeURIComponent(name) + "?" + Date.now(); };
    image.addEventListener("load", () => setTimeout(next, 100));
    image.addEventListener("error", () => setTimeout(next, 1000));
    next();
    figure.replaceChildren(image, text);
    return figure;
  }));
}

// A camera that is silent has no picture: the last one would look like the present.
function markSilent(silent, unshown) {
  for (const figure of $("views").children) {
    const name = figure.dataset.view, gone = silent.includes(name), why = unshown[name];
    figure.className = gone || why ? "silent" : "";
    figure.querySelector("figcaption").textContent = gone ? name + ": NO PICTURE, the camera says nothing"
      : why ? name + ": NO PICTURE, " + why : name;
  }
}

function show(now) {
  const safety = now.safety, silent = safety.silent;
  $("state").textContent = silent ? "NO STATUS" : safety.state + (safety.dry_run ? " (dry run)" : "");
  $("state").className = silent ? "silent" : safety.state;
  $("sentence").textContent = silent ? "the safety filter says nothing; does it run?" : safety.message;
  $("instruction").textContent = now.instruction || "nothing";
  $("policy").textContent = now.policy.silent ? "silent" : now.policy.state + (now.policy.message ? ": " + now.policy.message : "");
  const last = now.proposal;
  $("proposal").textContent = last.sequence === undefined ? "" : "proposal " + last.sequence + " by " + last.mode
    + (last.fused ? ", both paths fused" : ", not fused") + ", confidence " + (last.confidence ?? "-")
    + ", paths apart " + (last.path_distance_mm ?? "-") + " mm and " + (last.path_angle_deg ?? "-") + " degrees, " + last.ago_s + " s ago";
  $("episode").textContent = now.episode.number === undefined ? "none" : now.episode.number + " (" + now.episode.event + ")";
  rows($("arms"), (safety.arms || []).map((arm) => [arm.name, "at " + (arm.measured ?? ["-"]).join(" "), "sent to " + (arm.target ?? ["-"]).join(" "),
    (arm.error_mm ?? "-") + " mm apart", "push " + (arm.push_n ?? "-") + " N", arm.mended ? "target mended" : ""]));
  const margins = safety.margins || { commanded: [], measured: [] };
  rows($("margins"), [...margins.commanded.map((entry) => ["commanded", entry.name, entry.margin + " " + entry.unit]),
    ...margins.measured.map((entry) => ["measured", entry.name, entry.margin + " " + entry.unit])]);
  $("interventions").replaceChildren(...now.interventions.map((entry) => {
    const item = document.createElement("li");
    item.textContent = entry.text + (entry.times > 1 ? " (" + entry.times + " times)" : "") + ", " + entry.ago_s + " s ago";
    return item;
  }));
  showViews(now.views);
  markSilent(now.silent_views || [], now.unshown_views || {});
}

function connect() {
  const socket = new WebSocket("ws://" + location.host + "/live");
  socket.addEventListener("message", (event) => { heard = Date.now(); show(JSON.parse(event.data)); });
  socket.addEventListener("close", () => setTimeout(connect, 500));
}
setInterval(() => { $("lost").hidden = Date.now() - heard < 1000; }, 200);
connect();
