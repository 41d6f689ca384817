// The grid of hits.

const WHY = 6; // classes told of a hit

/** Fills `list` with hits; `add` leaves those that are there. `choose(hit)` is called for a click on a picture. */
export function showHits(list, hits, { add, choose, opened }) {
  const focused = list.querySelector(":scope > li:focus-within")?.dataset.id;
  if (!add) list.replaceChildren();
  list.append(...hits.map((hit) => item(hit, choose, opened)));
  if (!add && focused !== undefined) refocus(list, focused);
}

/** Keeps those who go by keys in the grid: on the hit where they were, or on the first. */
function refocus(list, id) {
  const entry = [...list.children].find((each) => each.dataset.id === id) ?? list.firstElementChild;
  entry?.querySelector(".hit").focus({ preventScroll: true });
}

function item(hit, choose, opened) {
  const entry = document.createElement("li");
  entry.dataset.id = hit.id;
  entry.append(picture(hit, choose), told(hit), name(hit));
  if (hit.contributions?.length) entry.append(why(hit.contributions, opened));
  return entry;
}

function picture(hit, choose) {
  const button = element("button", "hit");
  button.type = "button";
  button.title = "Look for images like this one";
  button.setAttribute("aria-label", `Rank ${hit.rank}, ${hit.id}: look for images like it`);
  if (hit.thumbnail) {
    const image = document.createElement("img");
    Object.assign(image, { loading: "lazy", decoding: "async", alt: "", src: hit.thumbnail });
    image.addEventListener("error", () => image.replaceWith(element("span", "", "no picture")), { once: true });
    button.append(image);
  } else {
    button.append(element("span", "", hit.id));
  }
  button.addEventListener("click", () => choose(hit));
  return button;
}

function told(hit) {
  const line = element("div", "told");
  line.append(element("b", "", `${hit.rank}`));
  if (hit.words != null) line.append(element("span", "", hit.words === 1 ? "1 word" : `${hit.words} words`));
  if (hit.inliers != null) line.append(element("span", "", `${hit.inliers} inliers`));
  if (hit.distance != null) line.append(element("span", "distance", `distance ${short(hit.distance)}`));
  else if (hit.score != null) line.append(element("span", "score", `score ${short(hit.score)}`));
  return line;
}

function name(hit) {
  const line = element("p", "name", hit.captions?.[0] ?? hit.id);
  line.title = [hit.id, ...(hit.captions ?? [])].join("\n");
  return line;
}

/** What each class adds to the distance: nothing where the hit is just as asked. */
function why(contributions, opened) {
  const details = element("details", "why");
  details.append(element("summary", "", "Why"));
  details.open = opened.has("why");
  const list = document.createElement("ul");
  for (const each of contributions.slice(0, WHY)) {
    const line = document.createElement("li");
    line.append(element("span", "", each.name), element("span", "", `${short(each.distance)} apart`), bar(each.share));
    list.append(line);
  }
  if (contributions.length > WHY) list.append(element("li", "", `and ${contributions.length - WHY} more`));
  details.append(list);
  // Whoever has opened one wants to see it of the next results too.
  details.addEventListener("toggle", () => (details.open ? opened.add("why") : opened.delete("why")));
  return details;
}

/** Shows a share of 0 … 1, which is told beside it as a number. */
function bar(share) {
  const made = ["svg", "rect"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  made[0].setAttribute("class", "bar");
  made[0].setAttribute("aria-hidden", "true");
  made[1].setAttribute("width", `${100 * share}%`);
  made[1].setAttribute("height", "100%");
  made[0].append(made[1]);
  return made[0];
}

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function short(value) {
  return value === 0 ? "0" : Number(value.toPrecision(3)).toString();
}
