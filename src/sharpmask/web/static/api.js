// The requests to the server. Failures come as Error with a text for people.

/** Wait; rejects when the signal is aborted. */
function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

async function request(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is `sharpmask serve` still running?");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const error = new Error(problem.detail ?? `The server answered with status ${response.status}.`);
  error.status = response.status;
  error.retryAfter = Number(response.headers.get("retry-after")) || 1;
  throw error;
}

/** With its name, which the server's messages mention. */
function asForm(file) {
  const form = new FormData();
  form.append("file", file, file.name || "image.png");
  return form;
}

export async function getInfo() {
  return (await request("/v1/info")).json();
}

/** The masks of a file. onBusy(seconds) is called each time that the queue is full and the request waits. */
export async function propose(file, settings, { signal, onBusy }) {
  const address = `/v1/proposals?${new URLSearchParams(settings)}`;
  for (;;) {
    try {
      return await (await request(address, { method: "POST", body: asForm(file), signal })).json();
    } catch (error) {
      if (error.status !== 429) throw error;
      onBusy(error.retryAfter);
      await pause(error.retryAfter, signal);
    }
  }
}

/** A picture of a file that the browser cannot show. */
export async function getPicture(file, signal) {
  return (await request("/v1/picture", { method: "POST", body: asForm(file), signal })).blob();
}

/** The exported file: its name and its content as Blob. */
export async function exportMasks(body) {
  const headers = { "content-type": "application/json" };
  const response = await request("/v1/export", { method: "POST", body: JSON.stringify(body), headers });
  const name = /filename\*=utf-8''([^;]+)/.exec(response.headers.get("content-disposition") ?? "");
  return { name: name ? decodeURIComponent(name[1]) : "masks", blob: await response.blob() };
}
