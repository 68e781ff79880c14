// A page that uses a server of another origin, with the client that it imports from there or here.

const clients = [];

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

// Begins to use the server, as a page would; the number of the client.
export async function open(url, module, options) {
  const zaqar = await import(module);
  const client = new zaqar.Client(url, { project: 'demo', ...options });
  const seen = { client, states: [], bodies: [], warnings: [] };
  const { warn } = console;
  console.warn = (...said) => {
    seen.warnings.push(said.join(' '));
    warn(...said);
  };
  client.addEventListener('state', ({ state, reason }) => seen.states.push({ state, reason }));
  (async () => {
    for await (const message of client.queue('news').subscribe({ marker: '' })) seen.bodies.push(message.body);
  })();
  return clients.push(seen) - 1;
}

// Whether the page may import this module: the name of the error, or nothing.
export const importError = (module) => import(module).then(() => '', (error) => error.name);

// What a request ends with, and after how many seconds.
export async function post(number, body) {
  const began = performance.now();
  const passed = () => (performance.now() - began) / 1000;
  try {
    await clients[number].client.queue('news').post(body, { timeout: 20 });
    return { name: '', message: '', seconds: passed() };
  } catch (error) {
    return { name: error.constructor.name, message: error.message, origin: error.origin, seconds: passed() };
  }
}

// What the page saw, once its client is in a state, or else after some time.
export async function seenIn(number, state, seconds) {
  const seen = clients[number];
  const until = performance.now() + seconds * 1000;
  while (seen.client.state !== state && performance.now() < until) await sleep(0.02);
  const { states, bodies, warnings, client } = seen;
  return { state: client.state, states, bodies, warnings };
}

// The bodies that the page has received, once they are so many.
export async function bodiesOf(number, count, seconds) {
  const { bodies } = clients[number];
  const until = performance.now() + seconds * 1000;
  while (bodies.length < count && performance.now() < until) await sleep(0.02);
  return bodies;
}

export const close = (number) => clients[number].client.close();
