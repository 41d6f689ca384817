// The page: what is asked for (a drawing, over a photo or an item, and words) and what is found.

import * as api from "./api.js";
import { UNDRAWN, labelsOf, packed, runsOf, unpacked } from "./codec.js";
import { Drawing } from "./drawing.js";
import { element, showHits } from "./results.js";

const PAUSE = 40; // ms without a change before a search
const UNDO = 100; // steps
const MANY = 20; // classes from which they can be looked for

const $ = (id) => document.getElementById(id);
const opened = new Set(); // kinds of details that stay open
let about, drawing, running;
let timer = null; // of the search that is due
let base = null; // what is drawn over: {item}, or {token, file, url, name}
let hits = 0;
let past = [], future = [];

start().catch(complain);

async function start() {
  about = await api.describeIndex();
  $("about").textContent = `${about.images.toLocaleString()} images · ${about.name}`;
  for (const [kind, there] of Object.entries({ maps: about.classes, captions: about.captions, photos: about.photos })) {
    document.querySelectorAll(`.${kind}`).forEach((each) => (each.hidden = !there));
  }
  $("pad").classList.toggle("plain", !about.classes);
  $("pad").hidden = !about.classes;
  if (about.classes) {
    drawing = new Drawing($("canvas"), about.map_size, about.classes.map(({ colour }) => rgb(colour)));
    showClasses();
    listenToPointer();
    $("canvas").addEventListener("keydown", drawByKeys);
    $("canvas").addEventListener("blur", () => point(null));
  }
  listenToButtons();
  listenToPhotos();
  window.addEventListener("hashchange", () => restoreLink().catch(complain));
  await restoreLink();
}

// --- what is asked for

/** Returns all that undo restores. */
function state() {
  return { labels: drawing?.labels.slice(), base, text: $("text").value };
}

function restore({ labels, base: kept, text }) {
  if (labels) drawing.labels.set(labels);
  $("text").value = text;
  setBase(kept);
  changed();
}

/** Takes note of what is about to change. */
function remember() {
  past.push(state());
  past = past.slice(-UNDO);
  future = [];
}

function step(from, to) {
  if (!from.length) return;
  to.push(state());
  restore(from.pop());
}

function changed() {
  drawing?.show();
  $("problem").hidden = true;
  $("hint").hidden = !about.classes || !drawing.empty || base !== null;
  $("undo").disabled = !past.length;
  $("redo").disabled = !future.length;
  $("hits").classList.add("stale");
  clearTimeout(timer);
  timer = setTimeout(() => find(false), PAUSE);
}

function setBase(next) {
  base = next;
  const below = $("below");
  $("base").hidden = base === null;
  $("pad").hidden = !about.classes && base === null;
  below.hidden = base === null;
  if (base === null) return below.removeAttribute("src");
  below.src = base.url ?? `/api/thumbnails/${encodeURIComponent(base.item)}?size=large`;
  $("base-name").textContent = base.item !== undefined ? `Like ${base.item}` : `Like your photo ${base.name}`;
}

/** Makes an item the query; what was drawn belongs to the query before. */
function choose(hit) {
  remember();
  drawing?.labels.fill(UNDRAWN);
  setBase({ item: hit.id });
  changed();
  $("query").scrollIntoView({ block: "nearest" });
}

async function takePhoto(file) {
  if (!about.photos) return;
  if (file.size > about.upload_bytes) {
    return complain(new Error(`A photo may have ${Math.round(about.upload_bytes / 1e6)} MB, this one has ${Math.ceil(file.size / 1e6)}.`));
  }
  say("Sending the photo …");
  try {
    const { token } = await api.sendPhoto(file);
    remember();
    setBase({ token, file, url: URL.createObjectURL(file), name: file.name || "from the clipboard" });
    changed();
  } catch (error) {
    complain(error);
  }
}

// --- searching

async function find(more) {
  timer = null;
  running?.abort();
  const own = (running = new AbortController());
  $("hits").classList.add("stale");
  try {
    const found = await asked(more ? hits : 0, own.signal);
    showHits($("hits"), found.hits, { add: more, choose, opened });
    hits = (more ? hits : 0) + found.hits.length;
    $("more").hidden = !found.more || hits >= about.most;
    say(`${hits ? `The first ${hits}` : "None"} of ${found.images.toLocaleString()} images, ${Math.max(1, Math.round(found.milliseconds))} ms`);
    if (!more) await showLink();
  } catch (error) {
    if (error.name === "AbortError") return;
    complain(error);
    if (error.argument !== "item" || base === null) return;
    setBase(null); // a link to what the index doesn't hold
    await find(false);
  } finally {
    if (running === own && timer === null) $("hits").classList.remove("stale");
  }
}

/** Searches from a rank on; sends a photo again that the server has forgotten. */
async function asked(offset, signal) {
  const query = { text: $("text").value, offset, explain: Boolean(about.classes) };
  query.k = Math.min(about.k, about.most - offset);
  if (drawing && !drawing.empty) query.drawing = { size: about.map_size, runs: runsOf(drawing.labels) };
  if (base?.item !== undefined) query.item = base.item;
  if (base?.token === undefined) return api.search(query, signal);
  try {
    return await api.search({ ...query, photo: base.token }, signal);
  } catch (error) {
    if (error.argument !== "photo") throw error;
    base.token = (await api.sendPhoto(base.file)).token;
    return api.search({ ...query, photo: base.token }, signal);
  }
}

function say(text) {
  $("status").textContent = text;
}

function complain(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
  say("");
}

// --- links

async function showLink() {
  const query = {};
  if (drawing && !drawing.empty) query.d = runsOf(drawing.labels);
  if (base?.item !== undefined) query.i = base.item;
  if (base?.token !== undefined) query.p = 1; // a photo stays where it is; whoever opens the link is told
  if ($("text").value.trim()) query.t = $("text").value;
  const hash = Object.keys(query).length ? `#q=${await packed(query)}` : "";
  history.replaceState(null, "", `${location.pathname}${location.search}${hash}`);
}

async function restoreLink() {
  let query = {}, damaged = false;
  try {
    if (location.hash.startsWith("#q=")) query = await unpacked(location.hash.slice(3));
    const labels = query.d && drawing ? labelsOf(query.d, drawing.labels.length) : undefined;
    if (labels?.some((label) => label < UNDRAWN || label >= about.classes.length)) throw new RangeError("no such class");
    drawing?.labels.set(labels ?? new Int16Array(drawing.labels.length).fill(UNDRAWN));
  } catch {
    [query, damaged] = [{}, true];
    drawing?.labels.fill(UNDRAWN);
  }
  $("text").value = String(query.t ?? "");
  setBase(query.i === undefined ? null : { item: String(query.i) });
  changed();
  if (damaged) complain(new Error("This link is damaged, or of another index: the query starts empty."));
  else if (query.p) complain(new Error("A photo belongs to this query, which links don't hold: here is the rest of it."));
}

async function copyLink() {
  await showLink();
  const without = base?.token !== undefined ? " Your photo isn't part of it." : "";
  try {
    await navigator.clipboard.writeText(location.href);
    say(`The link is in the clipboard.${without}`);
  } catch {
    say(`The link is in the address bar.${without}`);
  }
}

// --- drawing

const tool = () => document.querySelector("[name=tool]:checked").value;
const chosen = () => Number(document.querySelector("[name=class]:checked").value);
const label = () => (tool() === "eraser" ? UNDRAWN : chosen());

function listenToPointer() {
  const canvas = $("canvas");
  let last = null, first = null, before = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    remember();
    first = last = drawing.cell(event);
    before = drawing.labels.slice();
    draw(first, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) draw(last, drawing.cell(each));
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => (last = null));
  function draw(from, to) {
    if (tool() === "rectangle") {
      drawing.labels.set(before);
      drawing.rectangle(first, to, label());
    } else {
      drawing.line(from, to, Number($("size").value), label());
    }
    last = to;
    changed();
  }
}

function drawByKeys(event) {
  if (event.key === "Escape" && drawing.corner) {
    drawing.corner = null;
    return point(drawing.cursor);
  }
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!move && event.key !== " ") return;
  event.preventDefault();
  const [x, y] = drawing.cursor ?? [drawing.width >> 1, drawing.height >> 1];
  if (move) return point([clamp(x + move[0], drawing.width), clamp(y + move[1], drawing.height)]);
  point([x, y]);
  if (tool() === "rectangle" && !drawing.corner) {
    drawing.corner = [x, y];
    drawing.show();
    return ($("where").textContent = "first corner");
  }
  remember();
  if (tool() === "rectangle") drawing.rectangle(drawing.corner, [x, y], label());
  else drawing.line([x, y], [x, y], Number($("size").value), label());
  drawing.corner = null;
  point([x, y]);
  changed();
}

function point(cell) {
  drawing.cursor = cell;
  drawing.show();
  if (!cell) return;
  const there = drawing.labels[cell[1] * drawing.width + cell[0]];
  $("where").textContent = `column ${cell[0] + 1}, row ${cell[1] + 1}, ${there === UNDRAWN ? "nothing" : about.classes[there].name}`;
}

function showClasses() {
  about.classes.forEach(({ name, colour }, number) => {
    const choice = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "class", value: number, checked: number === 0 });
    const text = element("span", "", "");
    const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const fill = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [key, value] of Object.entries({ width: "100%", height: "100%", fill: colour })) fill.setAttribute(key, value);
    swatch.setAttribute("aria-hidden", "true");
    swatch.append(fill);
    text.append(swatch, name);
    choice.append(radio, text);
    $("classes").append(choice);
    radio.addEventListener("change", () => tool() === "eraser" && setTool("brush"));
  });
  $("filter").hidden = about.classes.length <= MANY;
  $("filter").addEventListener("input", () => {
    const part = $("filter").value.trim().toLowerCase();
    about.classes.forEach(({ name }, number) => {
      $("classes").children[number].hidden = !name.toLowerCase().includes(part);
    });
  });
}

function setTool(name) {
  document.querySelector(`[name=tool][value=${name}]`).checked = true;
}

// --- buttons, keys, photos

function listenToButtons() {
  const undo = () => step(past, future), redo = () => step(future, past);
  $("undo").addEventListener("click", undo);
  $("redo").addEventListener("click", redo);
  $("clear").addEventListener("click", () => {
    remember();
    drawing?.labels.fill(UNDRAWN);
    $("text").value = "";
    setBase(null);
    changed();
  });
  $("leave").addEventListener("click", () => {
    remember();
    setBase(null);
    changed();
  });
  $("link").addEventListener("click", copyLink);
  $("more").addEventListener("click", () => {
    if ($("hits").classList.contains("stale")) return; // others are about to take their place
    $("problem").hidden = true;
    find(true);
  });
  let typed = "";
  $("text").addEventListener("focus", () => (typed = $("text").value));
  $("text").addEventListener("input", () => {
    past.push({ ...state(), text: typed });
    typed = $("text").value;
    changed();
  });
  $("opacity").addEventListener("input", showOpacity);
  showOpacity();
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input[type=search]")) return;
    const key = event.key.toLowerCase(); // Caps Lock gives capitals
    if (event.ctrlKey || event.metaKey) {
      if (key === "y" || (key === "z" && event.shiftKey)) redo();
      else if (key === "z") undo();
      else return;
      return event.preventDefault();
    }
    if (!drawing || event.altKey) return;
    const tools = { b: "brush", r: "rectangle", e: "eraser" };
    if (key in tools) setTool(tools[key]);
    const radio = document.querySelectorAll("[name=class]")[Number(event.key) - 1];
    if (/^[1-9]$/.test(event.key) && radio) radio.click();
  });
}

function showOpacity() {
  $("below").style.opacity = Number($("opacity").value) / 100;
}

function listenToPhotos() {
  if (!about.photos) return;
  $("photo").addEventListener("change", () => {
    if ($("photo").files.length) takePhoto($("photo").files[0]);
    $("photo").value = "";
  });
  const pictured = (list) => [...(list ?? [])].find((file) => file.type.startsWith("image/"));
  document.addEventListener("paste", (event) => {
    const file = pictured(event.clipboardData.files);
    if (file) takePhoto(file);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      $("pad").classList.toggle("over", kind === "dragover");
      if (kind !== "drop") return;
      const file = pictured(event.dataTransfer.files);
      if (file) takePhoto(file);
      else complain(new Error("What was dropped is no picture."));
    });
  }
}

function rgb(colour) {
  return [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
}

function clamp(value, count) {
  return Math.min(Math.max(value, 0), count - 1);
}
