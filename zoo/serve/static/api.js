// What the page asks the server; every failure becomes an Error whose message can be shown.

const PATIENCE = 5; // attempts while the server says that too many wait

export async function describeIndex() {
  return answer(await fetch("/api/index"));
}

/** Searches; waits and asks again while the server is too busy. */
export async function search(query, signal) {
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(query), signal };
  for (let attempt = 1; ; attempt++) {
    const response = await reached(fetch("/api/search", options));
    if (response.status !== 503 || attempt === PATIENCE) return answer(response);
    const seconds = Number(response.headers.get("retry-after")) || 1;
    await new Promise((resume) => setTimeout(resume, 1000 * Math.min(seconds, 5)));
    signal.throwIfAborted();
  }
}

export async function sendPhoto(file) {
  const form = new FormData();
  form.append("photo", file);
  return answer(await reached(fetch("/api/photos", { method: "POST", body: form })));
}

async function reached(request) {
  try {
    return await request;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server can't be reached.");
  }
}

async function answer(response) {
  const content = await response.json().catch(() => ({}));
  if (response.ok) return content;
  const error = new Error(content.error?.message ?? `The server answered ${response.status}.`);
  error.argument = content.error?.argument;
  throw error;
}
