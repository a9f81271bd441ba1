// The chat page: keeps the conversation, sends it to POST /generate_stream, shows the text as it arrives.
//
// Model output is hostile: it enters the page through textContent only.

const $ = (id) => document.getElementById(id);
const STORE = "sconce.chat";

/** The conversation: {role, content}. Kept over a reload of this tab. */
let turns = load();
/** Aborts the answer in progress; null when there is none. */
let running = null;

// --- The stream -------------------------------------------------------------------------------------------------

/** Yields the data of each server-sent event of a response body. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  }
}

/** Asks for the next turn; calls `onPiece` with each event that has text, and gives the last event. */
async function generate(request, signal, onPiece) {
  const response = await fetch("/generate_stream", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
  if (!response.ok) {
    const answer = await response.json().catch(() => null);
    throw new Error(answer?.error?.message ?? `the server answered ${response.status}`);
  }
  let last = null;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return last;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    if (event.text) onPiece(event);
    if (event.finish_reason) last = event;
  }
  throw new Error("the connection ended before the answer did");
}

/** The request for the conversation so far, with the settings of the page. */
function requestFor(messages) {
  const system = $("system").value.trim();
  const request = { messages: system ? [{ role: "system", content: system }, ...messages] : messages };
  for (const name of ["temperature", "max_tokens", "seed"]) {
    if ($(name).value !== "") request[name] = Number($(name).value);
  }
  return request;
}

// --- The conversation -------------------------------------------------------------------------------------------

function load() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(STORE) ?? "[]");
    return kept.filter((t) => typeof t?.content === "string" && ["user", "assistant"].includes(t.role));
  } catch {
    return [];
  }
}

function save() {
  try {
    sessionStorage.setItem(STORE, JSON.stringify(turns));
  } catch {
    // A full or forbidden store costs the reload, not the chat.
  }
}

/** Adds a turn to the page and gives its elements. */
function show(role, content) {
  const item = $("turn").content.firstElementChild.cloneNode(true);
  item.classList.add(role);
  const [who, text, note] = ["who", "text", "note"].map((name) => item.querySelector(`.${name}`));
  who.textContent = role === "user" ? "You" : "Sconce";
  text.textContent = content;
  $("chat").append(item);
  $("welcome").hidden = true;
  return { item, text, note };
}

/** Keeps the end in view, unless the reader has scrolled away from it. */
function follow(change) {
  const view = document.querySelector("main");
  const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 80;
  change();
  if (atEnd) view.scrollTop = view.scrollHeight;
}

async function send(content) {
  if (running || !content.trim()) return;
  const mine = turns;
  mine.push({ role: "user", content });
  show("user", content);
  const { item, text, note } = show("assistant", "");
  item.scrollIntoView({ block: "end" });
  item.classList.add("waiting");
  setRunning(new AbortController());

  const started = performance.now();
  const stopped = running.signal;
  let tokens = 0;
  try {
    const last = await generate(requestFor(mine), stopped, (piece) =>
      follow(() => {
        tokens += piece.token_ids.length;
        text.append(piece.text);
        note.textContent = `${(tokens / ((performance.now() - started) / 1000)).toFixed(1)} tokens/s`;
      }),
    );
    note.textContent = summary(last);
  } catch (error) {
    const byUser = stopped.aborted;
    item.classList.toggle("failed", !byUser);
    note.textContent = byUser ? "Stopped." : `Failed: ${error.message}.`;
  }
  item.classList.remove("waiting");
  setRunning(null);
  if (mine !== turns) return; // A new chat was begun meanwhile.
  if (text.textContent) {
    mine.push({ role: "assistant", content: text.textContent });
  } else {
    // Nothing came: the question goes back into the box, so that it can be asked again.
    mine.pop();
    if (!$("prompt").value) $("prompt").value = content;
    grow();
  }
  save();
}

/** `42 tokens, 31.0 tokens/s, 1.4 s`, and why it ended if that is not plain. */
function summary(last) {
  if (!last) return "";
  const parts = [
    `${last.usage.completion_tokens} tokens`,
    `${last.tokens_per_second.toFixed(1)} tokens/s`,
    `${last.response_time.toFixed(1)} s`,
  ];
  if (last.finish_reason === "length") parts.push("cut at the token limit");
  return parts.join(", ");
}

function setRunning(controller) {
  running = controller;
  $("stop").hidden = !controller;
  $("send").hidden = !!controller;
  $("chat").setAttribute("aria-busy", String(!!controller));
}

// --- The page ---------------------------------------------------------------------------------------------------

/** The message box is as high as its text. */
function grow() {
  const box = $("prompt");
  box.rows = Math.min(10, Math.max(1, box.value.split("\n").length));
}

async function showHealth() {
  const light = $("light");
  try {
    const { data } = await (await fetch("/health")).json();
    $("model").textContent = data.model;
    light.textContent = data.healthy ? "" : data.status;
    light.classList.toggle("bad", !data.healthy);
  } catch {
    light.textContent = "no connection";
    light.classList.add("bad");
  }
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) return;
  const content = $("prompt").value;
  $("prompt").value = "";
  grow();
  send(content);
});

$("prompt").addEventListener("input", grow);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
$("stop").addEventListener("click", () => {
  running?.abort();
  $("prompt").focus();
});

$("new").addEventListener("click", () => {
  running?.abort();
  turns = [];
  save();
  $("chat").replaceChildren();
  $("welcome").hidden = false;
  $("prompt").focus();
});

$("ideas").addEventListener("click", (event) => {
  if (event.target.matches("button")) send(event.target.textContent);
});

for (const turn of turns) show(turn.role, turn.content);
document.querySelector("main").scrollTop = 1e9;
showHealth();
setInterval(showHealth, 15_000);
