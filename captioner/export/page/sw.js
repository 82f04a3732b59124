// Keeps all files of one version, so that the page works without a network from the second visit on. A new version
// takes the place of the old one only once all of it is here. Before these lines stand VERSION and FILES, the sizes
// of the files by name.

const PLACE = `captioner ${self.registration.scope} `; // other pages of the same host have caches, too
const NAME = PLACE + VERSION;

self.addEventListener("install", (event) => event.waitUntil(install()));

async function install() {
  const cache = await caches.open(NAME), total = Object.values(FILES).reduce((sum, size) => sum + size, 0);
  let loaded = 0;
  for (const [name, size] of Object.entries(FILES)) {
    const answer = await fetch(name, { cache: "no-cache" });
    if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
    const reader = answer.body.getReader(), parts = [], before = loaded;
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
      parts.push(value);
      loaded = Math.min(loaded + value.length, before + size); // a server may unpack what is packed
      await tell({ share: loaded / total });
    }
    loaded = before + size;
    // Not the answer itself: one that a server sent after a redirection could not open the page.
    await cache.put(name, new Response(new Blob(parts), { headers: { "Content-Type": answer.headers.get("Content-Type") ?? "" } }));
  }
  await self.skipWaiting();
}

async function tell(message) {
  for (const page of await self.clients.matchAll({ includeUncontrolled: true })) page.postMessage(message);
}

self.addEventListener("activate", (event) => event.waitUntil(activate()));

async function activate() {
  const old = (await caches.keys()).filter((name) => name.startsWith(PLACE) && name !== NAME);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim(); // the first visit's page
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !request.url.startsWith(self.registration.scope)) return;
  event.respondWith(answer(request));
});

/** What is kept, else what the server has: below the page's folder there may be other pages. */
async function answer(request) {
  const cache = await caches.open(NAME), { origin, pathname } = new URL(request.url), { scope } = self.registration;
  const wanted = [scope, `${scope}index.html`].includes(origin + pathname) ? "./" : request;
  return (await cache.match(wanted, { ignoreSearch: true })) ?? fetch(request);
}
