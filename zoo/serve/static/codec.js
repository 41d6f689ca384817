// Drawings as they travel: runs of one class for the API, and a text short enough for a link.

export const UNDRAWN = -1;

/** Returns class, count, class, count, … of labels, row by row. */
export function runsOf(labels) {
  const runs = [];
  for (let start = 0, end; start < labels.length; start = end) {
    for (end = start + 1; end < labels.length && labels[end] === labels[start]; end++);
    runs.push(labels[start], end - start);
  }
  return runs;
}

/** Returns `count` labels of runs; throws where they don't fill it. */
export function labelsOf(runs, count) {
  const labels = new Int16Array(count).fill(UNDRAWN);
  let at = 0;
  for (let pair = 0; pair < runs.length; pair += 2) {
    const end = at + runs[pair + 1];
    if (!(end > at && end <= count)) throw new RangeError("runs don't fit the drawing");
    labels.fill(runs[pair], at, end);
    at = end;
  }
  if (at !== count) throw new RangeError("runs don't fill the drawing");
  return labels;
}

/** Returns a value as text for the fragment of an address. */
export async function packed(value) {
  const bytes = await through(new TextEncoder().encode(JSON.stringify(value)), new CompressionStream("deflate-raw"));
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Returns the value that `packed` wrote; throws for any other text. */
export async function unpacked(text) {
  const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = await through(Uint8Array.from(letters, (letter) => letter.charCodeAt(0)), new DecompressionStream("deflate-raw"));
  return JSON.parse(new TextDecoder().decode(bytes));
}

async function through(bytes, stream) {
  const out = new Response(new Blob([bytes]).stream().pipeThrough(stream));
  return new Uint8Array(await out.arrayBuffer());
}
